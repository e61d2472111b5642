//! Connections: how API destinations are authorised. Secrets go in and never come out.

use super::page::Page;
use super::{ApiError, Call, Change, Desired, Done, Item, Key, Kind, Members, Outcome, Record, endpoints, timestamp};
use crate::catalog::{HttpAuth, OAuth};
use serde_json::{Value, json};

/// Blocks of parameters by type of authorisation.
const BLOCKS: [(&str, &str); 3] = [
    ("BASIC", "BasicAuthParameters"),
    ("API_KEY", "ApiKeyAuthParameters"),
    ("OAUTH_CLIENT_CREDENTIALS", "OAuthParameters"),
];
/// Members whose values never come back.
const SECRETS: [&str; 3] = ["Password", "ApiKeyValue", "ClientSecret"];
const SETTINGS: [&str; 4] =
    ["Description", "AuthorizationType", "InvocationConnectivityParameters", "KmsKeyIdentifier"];

/// The state of a connection that waits for its first token.
pub(super) const AUTHORIZING: &str = "AUTHORIZING";

/// A connection that waits for its first token, by its ARN and the time of its last change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Waiting {
    arn: String,
    modified: i64,
}

impl super::Resources {
    /// Connections that wait for their first token, and where it is to be asked for.
    pub fn authorizing(&self) -> impl Iterator<Item = (Waiting, Result<OAuth, String>)> {
        self.all(Kind::Connection).filter(|(.., item)| item.state == AUTHORIZING).map(|(.., item)| {
            let oauth = match endpoints::auth(item) {
                Ok(HttpAuth::OAuth(oauth)) => Ok(*oauth),
                Ok(_) => Err("the connection has no parameters for a token".to_owned()),
                Err(why) => Err(why),
            };
            (Waiting { arn: item.arn.clone(), modified: item.modified }, oauth)
        })
    }

    /// Whether a connection that waited for its first token is as it was.
    pub fn is_unchanged(&self, waiting: &Waiting) -> bool {
        self.connection_of(&waiting.arn).is_some_and(|item| item.modified == waiting.modified)
    }

    /// What becomes of a connection whose token has come, or did not: why. Nothing of one that was changed since.
    pub fn authorized(&self, waiting: &Waiting, token: Result<(), String>, now: i64) -> Option<Change> {
        let same =
            |item: &Item| item.state == AUTHORIZING && item.arn == waiting.arn && item.modified == waiting.modified;
        let (scope, name, item) = self.all(Kind::Connection).find(|(.., item)| same(item))?;
        let mut item = item.clone();
        item.answered(token, now);
        Some((Key::Item(Kind::Connection, scope.clone(), name.to_owned()), Some(Record::Item(item))))
    }
}

impl Desired<'_> {
    pub(super) fn connection(&self, call: &Call<'_>) -> Result<&Item, ApiError> {
        let name = call.text("Name").unwrap_or_default();
        let message = format!("Failed to describe the connection(s). Connection '{name}' does not exist.");
        self.made.item(Kind::Connection, &call.scope, name).ok_or_else(|| ApiError::missing(message))
    }

    pub(super) fn create_connection(&self, call: &Call<'_>) -> Outcome {
        let name = call.text("Name").unwrap_or_default();
        if self.made.item(Kind::Connection, &call.scope, name).is_some() {
            return Err(ApiError::exists(format!("Connection {name} already exists.")));
        }
        self.quota(Kind::Connection, &call.scope)?;
        let (settings, parameters) = (call.some(&SETTINGS), call.some(&["AuthParameters"]));
        let kind = call.text("AuthorizationType").unwrap_or_default();
        fits(kind, parameters.get("AuthParameters"))?;
        let mut item = Item::new(call, format!("connection/{name}/{}", call.id));
        item.settings = settings;
        item.authorize(kind, call.now);
        item.secret = super::Sealed(parameters);
        let answer = item.connection_answer(false);
        Ok(Done::change(call.key(Kind::Connection, name), Some(Record::Item(item))).with_members(answer))
    }

    pub(super) fn describe_connection(&self, call: &Call<'_>) -> Outcome {
        let item = self.connection(call)?;
        let name = call.text("Name").unwrap_or_default();
        let mut answer = item.connection_answer(true);
        answer.insert("Name".into(), name.into());
        answer.extend(item.settings.clone());
        answer.extend(item.reason());
        let id = item.arn.rsplit('/').next().unwrap_or_default();
        let mark = id.chars().filter(char::is_ascii_alphanumeric).take(6).collect::<String>();
        answer
            .insert("SecretArn".into(), call.scope.secret_arn(&format!("events!connection/{name}/{id}-{mark}")).into());
        if let Some(parameters) = item.secret.get("AuthParameters") {
            answer.insert("AuthParameters".into(), shown(parameters));
        }
        Ok(Done::answer(answer.into()))
    }

    pub(super) fn list_connections(&self, call: &Call<'_>) -> Outcome {
        let wanted = call.text("ConnectionState");
        let items = self.made.items(Kind::Connection, &call.scope);
        let shown = items.filter(|(_, item)| wanted.is_none_or(|state| item.state == state)).map(|(name, item)| {
            let mut shown = item.connection_answer(true);
            shown.insert("Name".into(), name.into());
            shown.extend(item.reason());
            shown.extend(item.settings.get("AuthorizationType").map(|kind| ("AuthorizationType".into(), kind.clone())));
            (name, shown)
        });
        Ok(Page::of(call, shown)?.answer("Connections"))
    }

    pub(super) fn update_connection(&self, call: &Call<'_>) -> Outcome {
        let mut item = self.connection(call)?.clone();
        let old = item.settings.get("AuthorizationType").and_then(Value::as_str).unwrap_or_default().to_owned();
        let kind = call.text("AuthorizationType").unwrap_or(&old);
        let given = call.members.get("AuthParameters");
        if kind != old {
            fits(kind, given)?;
            // What authorised before has no place beside the new block.
            if let Some(Value::Object(parameters)) = item.secret.get_mut("AuthParameters") {
                parameters.retain(|name, _| BLOCKS.iter().all(|(_, block)| block != name));
            }
        }
        if let Some(given) = given {
            merge(item.secret.entry("AuthParameters").or_insert_with(|| json!({})), given);
        }
        item.settings.extend(call.some(&SETTINGS));
        // Each change has a time of its own: it tells for which parameters a token was asked.
        item.modified = call.now.max(item.modified + 1);
        if given.is_some() || kind != old {
            fits(kind, item.secret.get("AuthParameters"))?;
            item.authorize(kind, call.now);
        }
        self.changed_connection(call, item)
    }

    pub(super) fn deauthorize_connection(&self, call: &Call<'_>) -> Outcome {
        let mut item = self.connection(call)?.clone();
        if let Some(parameters) = item.secret.get_mut("AuthParameters") {
            without_secrets(parameters);
        }
        (item.state, item.state_reason) = ("DEAUTHORIZED".to_owned(), None);
        item.modified = call.now;
        let mut done = self.changed_connection(call, item)?;
        done.answer.insert("ConnectionState".into(), "DEAUTHORIZING".into());
        Ok(done)
    }

    pub(super) fn delete_connection(&self, call: &Call<'_>) -> Outcome {
        let item = self.connection(call)?;
        let mut answer = item.connection_answer(true);
        answer.insert("ConnectionState".into(), "DELETING".into());
        let key = call.key(Kind::Connection, call.text("Name").unwrap_or_default());
        Ok(Done::change(key, None).with_members(answer))
    }

    fn changed_connection(&self, call: &Call<'_>, item: Item) -> Outcome {
        let answer = item.connection_answer(true);
        let key: Key = call.key(Kind::Connection, call.text("Name").unwrap_or_default());
        Ok(Done::change(key, Some(Record::Item(item))).with_members(answer))
    }
}

impl Item {
    /// The state that begins with new parameters. Those of OAuth are good when a token has come for them.
    fn authorize(&mut self, kind: &str, now: i64) {
        self.state_reason = None;
        if kind == "OAUTH_CLIENT_CREDENTIALS" {
            self.state = AUTHORIZING.to_owned();
        } else {
            (self.state, self.authorized) = ("AUTHORIZED".to_owned(), Some(now));
        }
    }

    /// A token has come for a connection that waits for one, or did not: why.
    fn answered(&mut self, token: Result<(), String>, now: i64) {
        match token {
            Ok(()) => (self.state, self.authorized) = ("AUTHORIZED".to_owned(), Some(now)),
            Err(why) => (self.state, self.state_reason) = ("DEAUTHORIZED".to_owned(), Some(why)),
        }
    }

    fn connection_answer(&self, authorized: bool) -> Members {
        let mut answer = Members::new();
        answer.insert("ConnectionArn".into(), self.arn.as_str().into());
        answer.insert("ConnectionState".into(), self.state.as_str().into());
        answer.insert("CreationTime".into(), timestamp(self.created));
        answer.insert("LastModifiedTime".into(), timestamp(self.modified));
        let authorized = self.authorized.filter(|_| authorized).map(timestamp);
        answer.extend(authorized.map(|at| ("LastAuthorizedTime".to_owned(), at)));
        answer
    }
}

/// Whether the block of a type of authorisation is there, whole.
fn fits(kind: &str, parameters: Option<&Value>) -> Result<(), ApiError> {
    let block = BLOCKS.iter().find(|(known, _)| *known == kind).map_or("", |(_, block)| block);
    let wanted: &[&str] = match kind {
        "BASIC" => &["Username", "Password"],
        "API_KEY" => &["ApiKeyName", "ApiKeyValue"],
        _ => &["AuthorizationEndpoint", "HttpMethod", "ClientID", "ClientSecret"],
    };
    let given = parameters.and_then(|parameters| parameters.get(block)).and_then(Value::as_object);
    let client = given.and_then(|given| given.get("ClientParameters")).and_then(Value::as_object);
    let has = |name: &str| [given, client].into_iter().flatten().any(|members| members.contains_key(name));
    if wanted.iter().all(|name| has(name)) {
        return Ok(());
    }
    let wanted = wanted.join(", ");
    Err(ApiError::invalid(format!(
        "Parameter AuthParameters is not valid. Reason: AuthorizationType {kind} needs {block} with {wanted}."
    )))
}

/// Puts what was given over what was there, member by member; lists are replaced.
fn merge(old: &mut Value, new: &Value) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (name, value) in new {
                merge(old.entry(name).or_insert(Value::Null), value);
            }
        }
        (old, new) => old.clone_from(new),
    }
}

/// Parameters as they come back: without secrets.
fn shown(parameters: &Value) -> Value {
    let mut shown = parameters.clone();
    without_secrets(&mut shown);
    shown
}

fn without_secrets(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|name, _| !SECRETS.contains(&name.as_str()));
            if members.contains_key("Key") && members.contains_key("Value") {
                let secret = members.get("IsValueSecret").and_then(Value::as_bool).unwrap_or(true);
                members.insert("IsValueSecret".into(), secret.into());
                if secret {
                    members.remove("Value");
                }
            }
            members.values_mut().for_each(without_secrets);
        }
        Value::Array(list) => list.iter_mut().for_each(without_secrets),
        _ => {}
    }
}

//! API destinations: endpoints over HTTP, authorised by connections.

use super::page::Page;
use super::{ApiError, Arn, Call, Desired, Done, Item, Kind, Members, Outcome, Record, Scope, timestamp};
use serde_json::Value;

const SETTINGS: [&str; 5] =
    ["ConnectionArn", "InvocationEndpoint", "HttpMethod", "Description", "InvocationRateLimitPerSecond"];
/// Requests begun in a second, where the caller has no wish.
const RATE: u64 = 300;

impl Desired<'_> {
    fn destination(&self, call: &Call<'_>) -> Result<&Item, ApiError> {
        let name = call.text("Name").unwrap_or_default();
        let message = format!("Failed to describe the api-destination(s). An api-destination '{name}' does not exist.");
        self.made.item(Kind::ApiDestination, &call.scope, name).ok_or_else(|| ApiError::missing(message))
    }

    pub(super) fn create_destination(&self, call: &Call<'_>) -> Outcome {
        let name = call.text("Name").unwrap_or_default();
        if self.made.item(Kind::ApiDestination, &call.scope, name).is_some() {
            return Err(ApiError::exists(format!("An api-destination '{name}' already exists.")));
        }
        self.quota(Kind::ApiDestination, &call.scope)?;
        self.its_connection(call)?;
        let mut item = Item::new(call, format!("api-destination/{name}/{}", call.id));
        item.settings = call.some(&SETTINGS);
        item.settings.entry("InvocationRateLimitPerSecond").or_insert_with(|| RATE.into());
        let answer = self.destination_answer(&item);
        Ok(Done::change(call.key(Kind::ApiDestination, name), Some(Record::Item(item))).with_members(answer))
    }

    /// The connection that a call names must be there.
    fn its_connection(&self, call: &Call<'_>) -> Result<(), ApiError> {
        let arn = call.text("ConnectionArn").unwrap_or_default();
        let name = arn.split('/').nth(1).unwrap_or(arn);
        let message = format!("Failed to describe the connection(s). Connection '{name}' does not exist.");
        self.made.connection_of(arn).map(drop).ok_or_else(|| ApiError::missing(message))
    }

    fn destination_answer(&self, item: &Item) -> Members {
        let connection = item.settings.get("ConnectionArn").and_then(Value::as_str).unwrap_or_default();
        let authorized = self.made.connection_of(connection).is_some_and(|it| it.state == "AUTHORIZED");
        let mut answer = Members::new();
        answer.insert("ApiDestinationArn".into(), item.arn.as_str().into());
        answer.insert("ApiDestinationState".into(), if authorized { "ACTIVE" } else { "INACTIVE" }.into());
        answer.insert("CreationTime".into(), timestamp(item.created));
        answer.insert("LastModifiedTime".into(), timestamp(item.modified));
        answer
    }

    pub(super) fn describe_destination(&self, call: &Call<'_>) -> Outcome {
        let item = self.destination(call)?;
        let mut answer = self.destination_answer(item);
        answer.insert("Name".into(), call.text("Name").unwrap_or_default().into());
        answer.extend(item.settings.clone());
        Ok(Done::answer(answer.into()))
    }

    pub(super) fn list_destinations(&self, call: &Call<'_>) -> Outcome {
        let wanted = call.text("ConnectionArn");
        let of =
            |item: &Item| wanted.is_none_or(|arn| item.settings.get("ConnectionArn").is_some_and(|own| own == arn));
        let items = self.made.items(Kind::ApiDestination, &call.scope);
        let shown = items.filter(|(_, item)| of(item)).map(|(name, item)| {
            let mut shown = self.destination_answer(item);
            shown.insert("Name".into(), name.into());
            shown.extend(item.settings.clone().into_iter().filter(|(name, _)| name != "Description"));
            (name, shown)
        });
        Ok(Page::of(call, shown)?.answer("ApiDestinations"))
    }

    pub(super) fn update_destination(&self, call: &Call<'_>) -> Outcome {
        let mut item = self.destination(call)?.clone();
        if call.text("ConnectionArn").is_some() {
            self.its_connection(call)?;
        }
        item.settings.extend(call.some(&SETTINGS));
        item.modified = call.now;
        let answer = self.destination_answer(&item);
        let key = call.key(Kind::ApiDestination, call.text("Name").unwrap_or_default());
        Ok(Done::change(key, Some(Record::Item(item))).with_members(answer))
    }

    pub(super) fn delete_destination(&self, call: &Call<'_>) -> Outcome {
        self.destination(call)?;
        Ok(Done::change(call.key(Kind::ApiDestination, call.text("Name").unwrap_or_default()), None))
    }
}

impl super::Resources {
    /// The connection of an ARN.
    pub(super) fn connection_of(&self, arn: &str) -> Option<&Item> {
        self.by_arn(Kind::Connection, "connection/", arn)
    }

    /// The API destination of an ARN.
    pub(super) fn destination_of(&self, arn: &str) -> Option<&Item> {
        self.by_arn(Kind::ApiDestination, "api-destination/", arn)
    }

    fn by_arn(&self, kind: Kind, what: &str, text: &str) -> Option<&Item> {
        let arn = Arn::parse(text)?;
        let name = arn.of(what)?.split('/').next()?;
        let scope: Scope = arn.scope()?;
        self.item(kind, &scope, name).filter(|item| item.arn == text)
    }
}

//! From an API destination, its connection and a target's parameters to the HTTP endpoint that runs.
//!
//! The connection wins where it and the target set the same. Source: EventBridge user guide, "API destinations".

use super::connections::AUTHORIZING;
use super::{Item, Members, Resources};
use crate::catalog::{HttpAuth, HttpMethod, HttpTarget, Invocation, OAuth, Parameter, Rate, Secret};
use serde_json::Value;
use std::time::Duration;

/// Headers that nobody but the exchange sets.
const OWN_HEADERS: [&str; 13] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "range",
    "user-agent",
    "date",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "via",
    "forwarded",
];
/// For a whole exchange.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Requests under way at once: enough for the usual 300 a second while answers take most of a second.
const IN_FLIGHT: u32 = 256;

/// A list of parameters: names and values.
type Pairs = Vec<(String, Secret)>;

impl Resources {
    /// What the API destination of an ARN leads to, for a target with these `HttpParameters`.
    ///
    /// # Errors
    /// Why nothing can be sent there. The destination is then INACTIVE, or none: a missing permission or a missing
    /// resource, which the service does not try again, so events go to the dead-letter queue and can be sent anew.
    pub(super) fn endpoint(&self, arn: &str, given: Option<&Value>) -> Result<HttpTarget, String> {
        let destination = self.destination_of(arn).ok_or_else(|| format!("API destination {arn} does not exist"))?;
        let setting = |name| destination.settings.get(name).and_then(Value::as_str).unwrap_or_default();
        let connection = setting("ConnectionArn");
        let found = self.connection_of(connection);
        let connection =
            found.ok_or_else(|| format!("the API destination's connection {connection} does not exist"))?;
        // While a first token is asked for, events wait for it.
        if connection.state != "AUTHORIZED" && connection.state != AUTHORIZING {
            return Err(format!(
                "connection {} is {}; update it with new credentials",
                connection.arn, connection.state
            ));
        }
        let (auth, own) = (auth(connection)?, part(connection, "InvocationHttpParameters"));
        let set = headers(own);
        let key = match &auth {
            HttpAuth::ApiKey(name, _) => Some(name.as_str()),
            HttpAuth::None => None,
            _ => Some("authorization"),
        };
        let names = set.iter().map(|(name, _)| name.as_str()).chain(key);
        let names: Vec<_> = names.map(str::to_ascii_lowercase).collect();
        let (mut fixed, mut taken) = (Vec::new(), Vec::new());
        for (name, value) in texts(given, "HeaderParameters") {
            if is_free(name) && !names.contains(&name.to_ascii_lowercase()) {
                match Parameter::parse(value) {
                    Parameter::Fixed(value) => fixed.push((name.to_owned(), value)),
                    Parameter::Path(path) => taken.push((name.to_owned(), path)),
                }
            }
        }
        fixed.extend(set);
        let rate = destination.settings.get("InvocationRateLimitPerSecond").and_then(Value::as_u64);
        let rate = rate
            .map(|count| Rate { count: u32::try_from(count).unwrap_or(u32::MAX).max(1), per: Duration::from_secs(1) });
        Ok(HttpTarget {
            method: method(setting("HttpMethod")),
            headers: fixed,
            auth,
            timeout: TIMEOUT,
            max_in_flight: IN_FLIGHT,
            rate,
            invocation: Some(Box::new(Invocation {
                destination: arn.to_owned(),
                path: path(given),
                headers: taken,
                query: query(given, own),
                body: last(pairs(own, "BodyParameters")),
            })),
            ..HttpTarget::to(address(setting("InvocationEndpoint"))?)
        })
    }
}

fn path(given: Option<&Value>) -> Vec<Parameter> {
    let values = given.and_then(|given| given.get("PathParameterValues")).and_then(Value::as_array);
    values.into_iter().flatten().filter_map(Value::as_str).map(Parameter::parse).collect()
}

fn query(given: Option<&Value>, own: Option<&Value>) -> Vec<(String, Parameter)> {
    let set = pairs(own, "QueryStringParameters");
    let free = texts(given, "QueryStringParameters").filter(|(name, _)| set.iter().all(|(taken, _)| taken != name));
    let mut query: Vec<_> = free.map(|(name, value)| (name.to_owned(), Parameter::parse(value))).collect();
    query.extend(set.into_iter().map(|(name, value)| (name, Parameter::Fixed(value))));
    query
}

/// A block of a connection's parameters.
fn part<'c>(connection: &'c Item, name: &str) -> Option<&'c Value> {
    connection.secret.get("AuthParameters")?.get(name)
}

pub(super) fn auth(connection: &Item) -> Result<HttpAuth, String> {
    let kind = connection.settings.get("AuthorizationType").and_then(Value::as_str).unwrap_or_default();
    let bad = || format!("connection {} has no whole parameters for {kind}", connection.arn);
    let text = |block: &Value, name: &str| block.get(name).and_then(Value::as_str).map(str::to_owned).ok_or_else(bad);
    Ok(match kind {
        "BASIC" => {
            let block = part(connection, "BasicAuthParameters").ok_or_else(bad)?;
            HttpAuth::Basic(text(block, "Username")?, Secret::new(text(block, "Password")?))
        }
        "API_KEY" => {
            let block = part(connection, "ApiKeyAuthParameters").ok_or_else(bad)?;
            let (name, value) = (text(block, "ApiKeyName")?, Secret::new(text(block, "ApiKeyValue")?));
            if is_free(&name) { HttpAuth::ApiKey(name, value) } else { HttpAuth::None }
        }
        _ => {
            let block = part(connection, "OAuthParameters").ok_or_else(bad)?;
            let (client, more) = (block.get("ClientParameters").ok_or_else(bad)?, block.get("OAuthHttpParameters"));
            HttpAuth::OAuth(Box::new(OAuth {
                url: address(&text(block, "AuthorizationEndpoint")?)?,
                method: method(&text(block, "HttpMethod")?),
                client_id: text(client, "ClientID")?,
                client_secret: Secret::new(text(client, "ClientSecret")?),
                headers: headers(more),
                query: pairs(more, "QueryStringParameters"),
                body: last(pairs(more, "BodyParameters")),
            }))
        }
    })
}

fn method(name: &str) -> HttpMethod {
    match name {
        "PUT" => HttpMethod::Put,
        "PATCH" => HttpMethod::Patch,
        "DELETE" => HttpMethod::Delete,
        "OPTIONS" => HttpMethod::Options,
        "GET" => HttpMethod::Get,
        "HEAD" => HttpMethod::Head,
        _ => HttpMethod::Post,
    }
}

/// An endpoint as an address; without a scheme it is one of https.
fn address(endpoint: &str) -> Result<String, String> {
    // What stands in a query is no scheme.
    let letters = |scheme: &str| scheme.bytes().all(|b| b.is_ascii_alphanumeric());
    let given = endpoint.split_once("://").filter(|(scheme, _)| letters(scheme));
    let (scheme, rest) = given.unwrap_or(("https", endpoint));
    let scheme = scheme.to_ascii_lowercase();
    if !matches!(scheme.as_str(), "http" | "https") {
        return Err("the endpoint is no address of http or https".to_owned());
    }
    // Credentials stand in connections; here they would also be a way to make one host look like another.
    match rest.split(['/', '?']).next().unwrap_or_default() {
        "" => Err("the endpoint has no host".to_owned()),
        host if host.contains('@') => Err("the endpoint holds a user name".to_owned()),
        _ => Ok(format!("{scheme}://{rest}")),
    }
}

fn is_free(header: &str) -> bool {
    !OWN_HEADERS.contains(&header.to_ascii_lowercase().as_str())
}

/// The headers of a connection, of a request for tokens: those that may be set.
fn headers(of: Option<&Value>) -> Pairs {
    let mut headers = pairs(of, "HeaderParameters");
    headers.retain(|(name, _)| is_free(name));
    headers
}

/// A list of `{Key, Value}`.
fn pairs(of: Option<&Value>, list: &str) -> Pairs {
    let list = of.and_then(|of| of.get(list)).and_then(Value::as_array).into_iter().flatten();
    let pair = |pair: &Value| {
        let value = pair.get("Value").and_then(Value::as_str).unwrap_or_default();
        Some((pair.get("Key")?.as_str()?.to_owned(), Secret::new(value)))
    };
    list.filter_map(pair).collect()
}

/// The last of those of one name: an object has each member once.
fn last(mut pairs: Pairs) -> Pairs {
    for n in (0..pairs.len()).rev() {
        if pairs[n + 1..].iter().any(|(name, _)| *name == pairs[n].0) {
            pairs.remove(n);
        }
    }
    pairs
}

/// A map of texts.
fn texts<'v>(of: Option<&'v Value>, map: &str) -> impl Iterator<Item = (&'v str, &'v str)> + use<'v> {
    let map: Option<&Members> = of.and_then(|of| of.get(map)).and_then(Value::as_object);
    map.into_iter().flatten().filter_map(|(name, value)| Some((name.as_str(), value.as_str()?)))
}

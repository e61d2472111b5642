//! The requests of API destinations: address, headers and body of one delivery.
//!
//! In: an endpoint, parameters, what an event gave for them. Out: what is sent. Promises: values change neither host nor
//! the segments around them; numbers of a body keep their spelling. Leaves to others: credentials and sending (`http`).

use super::Delivery;
use super::http::{header, host};
use super::retry::Failure;
use crate::catalog::{HttpTarget, Invocation, Parameter};
use crate::transform::with_members;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::HeaderMap;
use serde_json::Value;
use std::borrow::Cow;

/// Who we say that we are.
pub const USER_AGENT: &str = "Amazon/EventBridge/ApiDestinations";

/// What stands in every request, unless a target or a connection changes it.
pub const HEADERS: [(&str, &str); 4] = [
    ("user-agent", USER_AGENT),
    ("range", "bytes=0-1048575"),
    ("accept-encoding", "gzip,deflate"),
    ("connection", "close"),
];

/// All but what RFC 3986 calls unreserved.
pub(super) const UNSAFE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The address of a request: each `*` in the path of `endpoint` is filled with the next value, values left over become
/// further segments, and `query` follows the endpoint's own.
///
/// # Errors
/// A segment that would lead to another folder.
pub fn address(endpoint: &str, path: &[&str], query: &[(&str, &str)]) -> Result<String, String> {
    let (before, own) = endpoint.split_once('?').map_or((endpoint, None), |(before, own)| (before, Some(own)));
    let host = before.find("://").map_or(0, |at| at + 3);
    let slash = before[host..].find('/').map_or(before.len(), |at| host + at);
    let (mut address, mut values) = (before[..slash].to_owned(), path.iter());
    for (n, segment) in before[slash..].split('/').enumerate() {
        if n > 0 {
            address.push('/');
        }
        let mut pieces = segment.split('*');
        let mut filled = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            match values.next() {
                Some(value) => filled.extend(utf8_percent_encode(value, UNSAFE)),
                None => filled.push('*'),
            }
            filled.push_str(piece);
        }
        address.push_str(sound(segment, &filled)?);
    }
    for value in values {
        if !address.ends_with('/') {
            address.push('/');
        }
        address.push_str(sound("*", &utf8_percent_encode(value, UNSAFE).to_string())?);
    }
    let more = query
        .iter()
        .map(|(name, value)| format!("{}={}", utf8_percent_encode(name, UNSAFE), utf8_percent_encode(value, UNSAFE)));
    let own = own.filter(|own| !own.is_empty()).map(str::to_owned);
    let query: Vec<_> = own.into_iter().chain(more).collect();
    if !query.is_empty() {
        address.push('?');
        address.push_str(&query.join("&"));
    }
    Ok(address)
}

/// A segment that was filled, where it does not mean this folder or the one above.
fn sound<'s>(template: &str, filled: &'s str) -> Result<&'s str, String> {
    let plain = filled.to_ascii_lowercase().replace("%2e", ".");
    if template.contains('*') && matches!(plain.as_str(), "." | "..") {
        return Err(format!("`{plain}` cannot be a part of the address's path"));
    }
    Ok(filled)
}

/// The address of a delivery, and the headers that its event gave.
pub(super) fn request(
    target: &HttpTarget,
    invocation: &Invocation,
    delivery: &Delivery,
) -> Result<(String, HeaderMap), Failure> {
    // A dead letter's key is that of another target.
    let key = delivery.key.as_deref().filter(|_| invocation.takes() && delivery.letter.is_none());
    let taken: Value = key.and_then(|key| serde_json::from_slice(key).ok()).unwrap_or_default();
    let bad = |why: String| Failure::permanent("INVALID_PARAMETER", why);
    let mut next = taken["path"].as_array().into_iter().flatten();
    let path = invocation.path.iter().map(|parameter| match parameter {
        Parameter::Fixed(value) => Some(value.expose()),
        Parameter::Path(_) => next.next()?.as_str(),
    });
    let path: Option<Vec<_>> = path.collect();
    let path = path.ok_or_else(|| bad("the event's values for the address's path are not there".to_owned()))?;
    let query = invocation.query.iter().filter_map(|(name, parameter)| match parameter {
        Parameter::Fixed(value) => Some((name.as_str(), value.expose())),
        Parameter::Path(_) => Some((name.as_str(), taken["query"][name].as_str()?)),
    });
    let address = address(&target.url, &path, &query.collect::<Vec<_>>()).map_err(bad)?;
    // Only the endpoint's own host was looked at by egress, and is meant to see our credentials.
    if host(&address) != host(&target.url) {
        return Err(bad("the event's values would lead to another host".to_owned()));
    }
    let mut headers = HeaderMap::new();
    for (name, _) in &invocation.headers {
        if let Some(value) = taken["headers"][name].as_str() {
            let (name, value) = header(name, value).map_err(bad)?;
            headers.insert(name, value);
        }
    }
    Ok((address, headers))
}

/// The body of a delivery: the payload, with the connection's members where it is a JSON object.
pub(super) fn body<'p>(invocation: &Invocation, payload: &'p [u8]) -> Cow<'p, [u8]> {
    let members: Vec<_> = invocation.body.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
    let merged = (!members.is_empty()).then(|| with_members(payload, &members)).flatten();
    merged.map_or(Cow::Borrowed(payload), Cow::Owned)
}

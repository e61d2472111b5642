//! The EventBridge envelope of a record that is none: plain JSON, or a CloudEvent.

use super::JsonPath;
use crate::event::text::escape_json;
use crate::event::{Fault, FaultKind, Kind, Tree};
use percent_encoding::percent_decode;
use std::borrow::Cow;
use std::fmt;

/// How the records of a source become events.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Framing {
    /// The record is the envelope.
    #[default]
    EventBridge,
    /// Any JSON value becomes `detail`.
    Raw {
        /// The event's `source`.
        source: Origin,
        /// The event's `detail-type`.
        detail_type: Origin,
    },
    /// CloudEvents 1.0, structured or binary: `data` becomes `detail`, `type` the `detail-type`, and the other
    /// attributes stand under `cloudevents`.
    CloudEvents,
}

/// Where an attribute of a raw record comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum Origin {
    /// Always this text.
    Text(String),
    /// The record's header of this name.
    Header(String),
    /// A path into the record.
    Path(JsonPath),
}

/// A record with what the envelope takes from around it.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The body.
    pub payload: &'a [u8],
    /// Headers, in order.
    pub headers: &'a [(String, Vec<u8>)],
    /// The event's `id` where the record has none of its own.
    pub id: &'a str,
    /// The event's `time` where the record has none of its own, `2024-01-31T09:00:00Z`.
    pub time: &'a str,
    /// The event's `account`.
    pub account: &'a str,
    /// The event's `region`.
    pub region: &'a str,
}

impl<'a> Record<'a> {
    fn head(&self, id: &'a str, detail_type: &'a str, source: &'a str, time: &'a str) -> Head<'a> {
        Head { id, detail_type, source, account: self.account, time, region: self.region }
    }
}

/// Why a record does not become an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WrapError {
    /// The body is no JSON.
    Body(Fault),
    /// A raw record lacks a header or path that its source names.
    Missing {
        /// `source` or `detail-type`.
        attribute: &'static str,
        /// Where it was to come from.
        origin: String,
    },
    /// Not a CloudEvent.
    CloudEvent(String),
}

impl fmt::Display for WrapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body(fault) => write!(f, "the record is not JSON: {fault}"),
            Self::Missing { attribute, origin } => write!(f, "the record has no {origin} to take `{attribute}` from"),
            Self::CloudEvent(why) => write!(f, "the record is not a CloudEvent: {why}"),
        }
    }
}

impl std::error::Error for WrapError {}

impl Framing {
    /// The event of a record; the record's own bytes where it is one already. The result is not validated further.
    ///
    /// # Errors
    /// [`WrapError`]: the record cannot become an event, now or later.
    pub fn event<'a>(&self, record: &Record<'a>) -> Result<Cow<'a, [u8]>, WrapError> {
        match self {
            Framing::EventBridge => Ok(Cow::Borrowed(record.payload)),
            Framing::Raw { source, detail_type } => raw(record, source, detail_type).map(Cow::Owned),
            Framing::CloudEvents => cloud_event(record).map(Cow::Owned),
        }
    }
}

fn raw(record: &Record<'_>, source: &Origin, detail_type: &Origin) -> Result<Vec<u8>, WrapError> {
    let wrapped = in_object(record.payload);
    let tree = body(&wrapped, record.payload)?;
    let detail = tree.root().get(b"").ok_or(WrapError::Body(Fault::new(FaultKind::Empty, 0)))?;
    let find = |origin: &Origin, attribute| {
        let missing = |origin: String| WrapError::Missing { attribute, origin };
        match origin {
            Origin::Text(text) => Ok(text.clone()),
            Origin::Header(name) => {
                let value = header(record, name).ok_or_else(|| missing(format!("header `{name}`")))?;
                Ok(String::from_utf8_lossy(value).into_owned())
            }
            Origin::Path(path) => path
                .select(detail)
                .text()
                .filter(|text| !text.is_empty())
                .ok_or_else(|| missing(format!("text at {path}"))),
        }
    };
    let (source, detail_type) = (find(source, "source")?, find(detail_type, "detail-type")?);
    let head = record.head(record.id, &detail_type, &source, record.time);
    Ok(head.event(&[], record.payload.trim_ascii()))
}

fn in_object(payload: &[u8]) -> Vec<u8> {
    [b"{\"\":", payload, b"}"].concat()
}

/// Parses a body of any JSON value, given within an object. The value must be the whole body, so that nothing in it
/// can pass for a member of the envelope.
fn body<'w>(wrapped: &'w [u8], payload: &[u8]) -> Result<Tree<'w>, WrapError> {
    let tree = Tree::parse(wrapped)
        .map_err(|fault| WrapError::Body(Fault::new(fault.kind, fault.at.saturating_sub(4).min(payload.len()))))?;
    let whole = tree.root().children().next().is_some_and(|value| value.raw() == payload.trim_ascii());
    if whole { Ok(tree) } else { Err(WrapError::Body(Fault::new(FaultKind::Trailing, 0))) }
}

fn header<'a>(record: &Record<'a>, name: &str) -> Option<&'a [u8]> {
    record.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_slice())
}

/// The members of an event that are texts, in the service's order.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// `id`
    pub id: &'a str,
    /// `detail-type`
    pub detail_type: &'a str,
    /// `source`
    pub source: &'a str,
    /// `account`
    pub account: &'a str,
    /// `time`, `2024-01-31T09:00:00Z`
    pub time: &'a str,
    /// `region`
    pub region: &'a str,
}

impl Head<'_> {
    /// A whole event. `detail` is JSON text and stays as it is.
    pub fn event(&self, resources: &[&str], detail: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(detail.len() + 512);
        self.put(&mut out);
        out.extend_from_slice(b",\"resources\":[");
        for (n, resource) in resources.iter().enumerate() {
            out.extend_from_slice(if n == 0 { b"\"" } else { b",\"" });
            escape_json(resource.as_bytes(), &mut out);
            out.push(b'"');
        }
        out.extend_from_slice(b"],\"detail\":");
        out.extend_from_slice(detail);
        out.push(b'}');
        out
    }

    /// The event up to and with `region`.
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"version\":\"0\"");
        let members = [
            ("id", self.id),
            ("detail-type", self.detail_type),
            ("source", self.source),
            ("account", self.account),
            ("time", self.time),
            ("region", self.region),
        ];
        for (name, value) in members {
            member(out, name, value.as_bytes());
        }
    }
}

fn member(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(b",\"");
    escape_json(name.as_bytes(), out);
    out.extend_from_slice(b"\":\"");
    escape_json(value, out);
    out.push(b'"');
}

fn cloud_event(record: &Record<'_>) -> Result<Vec<u8>, WrapError> {
    let content_type = header(record, "content-type").unwrap_or_default();
    let binary = record.headers.iter().any(|(name, _)| attribute(name).is_some_and(|name| name == "specversion"));
    if binary && !content_type.starts_with(b"application/cloudevents") {
        return binary_cloud_event(record, content_type);
    }
    let tree = Tree::parse(record.payload).map_err(WrapError::Body)?;
    let mut attributes = Vec::new();
    let mut detail: Cow<'_, [u8]> = Cow::Borrowed(b"{}");
    for value in tree.root().children() {
        let name = String::from_utf8_lossy(&value.key()).into_owned();
        match name.as_str() {
            "data" | "data_base64" => detail = Cow::Borrowed(value.raw()),
            _ if value.kind() == Kind::Null => {}
            _ => attributes.push((name, value.text().into_owned())),
        }
    }
    assemble(record, &attributes, &detail)
}

/// The attribute that a header holds: `ce_NAME` in Kafka, `ce-NAME` over HTTP and NATS.
fn attribute(header: &str) -> Option<String> {
    let name = header.to_ascii_lowercase();
    Some(name.strip_prefix("ce_").or_else(|| name.strip_prefix("ce-"))?.to_owned())
}

fn binary_cloud_event(record: &Record<'_>, content_type: &[u8]) -> Result<Vec<u8>, WrapError> {
    let mut attributes: Vec<(String, Vec<u8>)> = record
        .headers
        .iter()
        .filter_map(|(name, value)| {
            // HTTP and NATS headers hold ASCII, so their bindings encode the rest; Kafka's holds bytes as they are.
            let value = match name.as_bytes().get(2) {
                Some(b'-') => percent_decode(value).collect(),
                _ => value.clone(),
            };
            Some((attribute(name)?, value))
        })
        .collect();
    if !content_type.is_empty() {
        attributes.push(("datacontenttype".into(), content_type.to_vec()));
    }
    if record.payload.trim_ascii().is_empty() {
        return assemble(record, &attributes, b"{}");
    }
    body(&in_object(record.payload), record.payload)?;
    assemble(record, &attributes, record.payload.trim_ascii())
}

fn assemble(record: &Record<'_>, attributes: &[(String, Vec<u8>)], detail: &[u8]) -> Result<Vec<u8>, WrapError> {
    let get = |name: &str| {
        attributes.iter().find(|(key, _)| key == name).map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    };
    let need = |name: &str| {
        get(name)
            .filter(|v| !v.is_empty())
            .ok_or_else(|| WrapError::CloudEvent(format!("attribute `{name}` is missing")))
    };
    match get("specversion").as_deref() {
        Some("1.0") => {}
        Some(other) => return Err(WrapError::CloudEvent(format!("specversion is `{other}`, expected `1.0`"))),
        None => return Err(WrapError::CloudEvent("attribute `specversion` is missing".into())),
    }
    let (id, source, kind) = (need("id")?, need("source")?, need("type")?);
    let time = get("time").unwrap_or_else(|| record.time.to_owned());
    let mut out = Vec::with_capacity(detail.len() + 512);
    record.head(&id, &kind, &source, &time).put(&mut out);
    out.extend_from_slice(b",\"resources\":[],\"cloudevents\":{\"specversion\":\"1.0\"");
    let rest = attributes
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "specversion" | "id" | "source" | "type" | "time"));
    for (name, value) in rest {
        member(&mut out, name, value);
    }
    out.extend_from_slice(b"},\"detail\":");
    out.extend_from_slice(detail);
    out.push(b'}');
    Ok(out)
}

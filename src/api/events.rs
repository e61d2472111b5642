//! PutEvents and TestEventPattern, as the service answers them.

use super::Front;
use super::wire::{self, ApiError};
use crate::catalog::Durability;
use crate::envelope::SourceInfo;
use crate::event::{Kind, Tree};
use crate::metrics::labels;
use crate::pattern::{self, Numbers};
use crate::plan::Identity;
use crate::source::inlet::{Arrival, Refused};
use crate::time;
use crate::transform::wrap::{Framing, Head};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Entries of one request.
const ENTRIES: usize = 10;
/// Characters of a resource, as the service's model has it.
const RESOURCE_CHARACTERS: usize = 2048;
/// Characters of a pattern, as the service's model has it.
const PATTERN_CHARACTERS: usize = 4096;

type Members = Map<String, Value>;

/// Puts entries onto buses. Each is answered when its event is kept, or `InternalFailure`.
///
/// # Errors
/// The request as a whole cannot be taken.
pub async fn put_events(front: &Front, region: &str, members: &Members) -> Result<Value, ApiError> {
    let entries = checked(members)?;
    let read = entries.iter().map(|entry| Entry::read(entry)).collect::<Result<Vec<_>, _>>()?;
    if read.iter().map(Entry::size).sum::<usize>() > front.event_bytes {
        return Err(ApiError::new(
            "ValidationException",
            "Total size of the entries in the request is over the limit.",
        ));
    }
    let outcomes = read.iter().map(|entry| entry.put(front, region));
    let results: Vec<Value> = futures_util::future::join_all(outcomes).await;
    let failed = results.iter().filter(|result| result.get("ErrorCode").is_some()).count();
    Ok(json!({ "FailedEntryCount": failed, "Entries": results }))
}

/// The entries, if the model takes them.
fn checked(members: &Members) -> Result<Vec<&Members>, ApiError> {
    let entries = match members.get("Entries") {
        None | Some(Value::Null) => {
            let violation = "Value null at 'entries' failed to satisfy constraint: Member must not be null";
            return Err(ApiError::violations(&[violation.to_owned()]));
        }
        Some(Value::Array(entries)) => entries,
        Some(_) => return Err(ApiError::new("SerializationException", "Entries is not a list")),
    };
    let not_object = || ApiError::new("SerializationException", "an entry is not an object");
    let entries: Vec<&Members> =
        entries.iter().map(|entry| entry.as_object().ok_or_else(not_object)).collect::<Result<_, _>>()?;
    let mut violations = Vec::new();
    let bound = match entries.len() {
        0 => Some("greater than or equal to 1"),
        1..=ENTRIES => None,
        _ => Some("less than or equal to 10"),
    };
    if let Some(bound) = bound {
        let shown: Vec<String> = entries.iter().map(|entry| shown(entry)).collect();
        violations.push(format!(
            "Value '[{}]' at 'entries' failed to satisfy constraint: Member must have length {bound}",
            shown.join(", ")
        ));
    }
    for (n, entry) in entries.iter().enumerate() {
        entry_violations(n + 1, entry, &mut violations)?;
    }
    if violations.is_empty() { Ok(entries) } else { Err(ApiError::violations(&violations)) }
}

/// Bounds of an entry's members. An ARN of a bus is a name behind a known beginning.
fn entry_violations(n: usize, entry: &Members, violations: &mut Vec<String>) -> Result<(), ApiError> {
    let mut refuse = |value: &str, member: &str, constraint: &str| {
        violations.push(format!(
            "Value '{value}' at 'entries.{n}.member.{member}' failed to satisfy constraint: {constraint}"
        ));
    };
    if let Some(bus) = wire::text(entry, "EventBusName")? {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if bus_of(bus).is_none_or(|name| name.is_empty() || !name.chars().all(good)) {
            let pattern = r"(arn:aws[\w-]*:events:[a-z]+-[a-z]+-[\w-]+:[0-9]{12}:event-bus\/)?[\.\-_A-Za-z0-9]+";
            refuse(bus, "eventBusName", &format!("Member must satisfy regular expression pattern: {pattern}"));
        }
        length(bus, 1600, |constraint| refuse(bus, "eventBusName", constraint));
    }
    if let Some(Value::Array(resources)) = entry.get("Resources")
        && resources.iter().filter_map(Value::as_str).any(|resource| resource.chars().count() > RESOURCE_CHARACTERS)
    {
        let shown: Vec<&str> = resources.iter().filter_map(Value::as_str).collect();
        let constraint = "Member must satisfy constraint: [Member must have length less than or equal to 2048, Member \
                          must have length greater than or equal to 0]";
        refuse(&format!("[{}]", shown.join(", ")), "resources", constraint);
    }
    if let Some(trace) = wire::text(entry, "TraceHeader")? {
        length(trace, 500, |constraint| refuse(trace, "traceHeader", constraint));
        if trace.contains(|c: char| c.is_control()) {
            refuse(trace, "traceHeader", "Member must not contain control characters");
        }
    }
    Ok(())
}

fn length(text: &str, most: usize, mut refuse: impl FnMut(&str)) {
    match text.chars().count() {
        0 => refuse("Member must have length greater than or equal to 1"),
        count if count > most => refuse(&format!("Member must have length less than or equal to {most}")),
        _ => {}
    }
}

/// The name in a bus's name or ARN; `None` where it begins as an ARN and is none of a bus.
fn bus_of(text: &str) -> Option<&str> {
    let Some(rest) = text.strip_prefix("arn:") else { return Some(text) };
    let mut parts = rest.splitn(5, ':');
    let (partition, service, region, account) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let sound = partition.starts_with("aws")
        && service == "events"
        && region.split('-').count() >= 3
        && account.len() == 12
        && account.bytes().all(|b| b.is_ascii_digit());
    parts.next()?.strip_prefix("event-bus/").filter(|_| sound)
}

/// An entry as the service's messages show it.
fn shown(entry: &Members) -> String {
    let members = [
        ("time", "Time"),
        ("source", "Source"),
        ("resources", "Resources"),
        ("detailType", "DetailType"),
        ("detail", "Detail"),
        ("eventBusName", "EventBusName"),
        ("traceHeader", "TraceHeader"),
    ];
    let value = |name: &str| match entry.get(name) {
        None | Some(Value::Null) => "null".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let members: Vec<String> = members.iter().map(|(name, member)| format!("{name}={}", value(member))).collect();
    format!("PutEventsRequestEntry({})", members.join(", "))
}

/// One entry's members, of the right types.
struct Entry<'m> {
    source: &'m str,
    detail_type: &'m str,
    detail: &'m str,
    bus: &'m str,
    resources: Vec<&'m str>,
    trace: Option<Arc<str>>,
    /// Milliseconds since the epoch.
    time: Option<i64>,
}

impl<'m> Entry<'m> {
    fn read(members: &'m Members) -> Result<Self, ApiError> {
        let wrong = |what: &str| ApiError::new("SerializationException", what.to_owned());
        let resources = match members.get("Resources") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(list)) => {
                let text = |value: &'m Value| value.as_str().ok_or_else(|| wrong("a resource is not a string"));
                list.iter().map(text).collect::<Result<_, _>>()?
            }
            Some(_) => return Err(wrong("Resources is not a list")),
        };
        let time = match members.get("Time") {
            None | Some(Value::Null) => None,
            Some(Value::Number(seconds)) => seconds.as_f64().map(|seconds| (seconds * 1000.0) as i64),
            Some(Value::String(text)) => Some(time::parse_iso(text).ok_or_else(|| wrong("Time is no time"))?),
            Some(_) => return Err(wrong("Time is no time")),
        };
        Ok(Self {
            source: wire::text(members, "Source")?.unwrap_or_default(),
            detail_type: wire::text(members, "DetailType")?.unwrap_or_default(),
            detail: wire::text(members, "Detail")?.unwrap_or_default(),
            bus: wire::text(members, "EventBusName")?.and_then(bus_of).unwrap_or(crate::catalog::DEFAULT_BUS),
            resources,
            trace: wire::text(members, "TraceHeader")?.map(Into::into),
            time,
        })
    }

    /// As the service counts it.
    fn size(&self) -> usize {
        let resources: usize = self.resources.iter().map(|resource| resource.len()).sum();
        let time = if self.time.is_some() { 14 } else { 0 };
        time + self.source.len() + self.detail_type.len() + self.detail.len() + resources
    }

    /// Why an entry is refused, in the service's order and words.
    fn refusal(&self) -> Option<(&'static str, String)> {
        let required = [("Source", self.source), ("DetailType", self.detail_type), ("Detail", self.detail)];
        if let Some((name, _)) = required.into_iter().find(|(_, value)| value.is_empty()) {
            let message = format!("Parameter {name} is not valid. Reason: {name} is a required argument.");
            return Some(("InvalidArgument", message));
        }
        if !Tree::parse(self.detail.as_bytes()).is_ok_and(|tree| tree.root().kind() == Kind::Object) {
            return Some(("MalformedDetail", "Detail is malformed.".to_owned()));
        }
        if self.source.starts_with("aws.") {
            return Some(("NotAuthorizedForSourceException", "Not authorized for the source.".to_owned()));
        }
        None
    }

    async fn put(&self, front: &Front, region: &str) -> Value {
        if let Some((code, message)) = self.refusal() {
            return json!({ "ErrorCode": code, "ErrorMessage": message });
        }
        let id = uuid::Uuid::new_v4().to_string();
        let head = Head {
            id: &id,
            detail_type: self.detail_type,
            source: self.source,
            account: &front.identity.account,
            time: &time::iso_seconds(self.time.unwrap_or_else(time::wall_millis)),
            region,
        };
        let event = head.event(&self.resources, self.detail.trim().as_bytes());
        // A detail can be sound by itself and too deep for the event around it.
        if Tree::parse(&event).is_err() {
            return json!({ "ErrorCode": "MalformedDetail", "ErrorMessage": "Detail is malformed." });
        }
        match front.put(self.bus, &id, event, self.trace.clone()).await {
            Ok(()) => json!({ "EventId": id }),
            Err(Refused::Busy) => {
                json!({ "ErrorCode": "ThrottlingException", "ErrorMessage": Refused::Busy.to_string() })
            }
            Err(why) => json!({ "ErrorCode": "InternalFailure", "ErrorMessage": why.to_string() }),
        }
    }
}

impl Front {
    /// Takes an event for a bus. One for a bus that does not exist is taken and goes nowhere, as with the service.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn put(&self, bus: &str, id: &str, event: Vec<u8>, trace: Option<Arc<str>>) -> Result<(), Refused> {
        if !self.bus_exists(bus) {
            let reason = labels([("stage", "ingress"), ("reason", "unknown_bus")]);
            self.metrics.families.dropped_events.get_or_create(&reason).inc();
            tracing::debug!(
                bus,
                "an event for a bus that does not exist is taken and goes nowhere, as with the service"
            );
            return Ok(());
        }
        let info = Arc::new(source(bus, self.event_bytes, &self.identity));
        self.accept(Arrival { info, id: id.into(), event, trace }).await
    }

    /// Takes an event as durably as its bus says.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn accept(&self, arrival: Arrival) -> Result<(), Refused> {
        let deadline = tokio::time::Instant::now() + self.accept_timeout;
        match self.view.load().catalog.durability(&arrival.info.bus) {
            Durability::Journal => self.inlet.keep(arrival, deadline).await,
            Durability::Memory => self.inlet.remember(arrival, deadline).await,
        }
    }
}

/// The source of events that are put onto a bus.
pub fn source(bus: &str, event_bytes: usize, identity: &Identity) -> SourceInfo {
    SourceInfo {
        name: "http".into(),
        bus: bus.into(),
        framing: Framing::EventBridge,
        on_invalid: crate::catalog::OnInvalid::DeadLetter,
        dead_letter: None,
        event_bytes: event_bytes + ENVELOPE_BYTES,
        identity: identity.clone(),
    }
}

/// What the envelope adds to the bytes that the limit counts.
pub const ENVELOPE_BYTES: usize = 64 << 10;

/// Tells whether a pattern matches an event.
///
/// # Errors
/// The pattern or the event cannot be read.
pub fn test_event_pattern(members: &Members) -> Result<Value, ApiError> {
    let (pattern, event) = (wire::text(members, "EventPattern")?, wire::text(members, "Event")?);
    let mut violations = Vec::new();
    for (name, value) in [("eventPattern", pattern), ("event", event)] {
        if value.is_none() {
            violations.push(format!("Value null at '{name}' failed to satisfy constraint: Member must not be null"));
        }
    }
    if let Some(text) = pattern.filter(|text| text.chars().count() > PATTERN_CHARACTERS) {
        violations.push(format!(
            "Value '{text}' at 'eventPattern' failed to satisfy constraint: Member must have length less than or equal to \
             {PATTERN_CHARACTERS}"
        ));
    }
    let (Some(pattern), Some(event), true) = (pattern, event, violations.is_empty()) else {
        return Err(ApiError::violations(&violations));
    };
    let pattern = pattern::parse(pattern.as_bytes(), &pattern::Limits::default()).map_err(|error| {
        ApiError::new("InvalidEventPatternException", format!("Event pattern is not valid. Reason: {}", error.message))
    })?;
    let tree = Tree::parse(event.as_bytes()).ok();
    let required = ["id", "account", "source", "time", "region", "detail-type"];
    let whole = tree.as_ref().filter(|tree| {
        let root = tree.root();
        root.kind() == Kind::Object && required.iter().all(|name| root.get(name.as_bytes()).is_some())
    });
    let Some(tree) = whole else {
        return Err(ApiError::new("ValidationException", "Parameter Event is not valid."));
    };
    Ok(json!({ "Result": pattern::matches(&pattern, tree, Numbers::Value) }))
}

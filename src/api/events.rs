//! PutEvents and TestEventPattern, as the service answers them.

use super::Front;
use super::access::{self, Caller};
use super::wire::{self, ApiError};
use crate::catalog::Durability;
use crate::envelope::{Aim, SourceInfo};
use crate::event::{Kind, Tree};
use crate::metrics::labels;
use crate::pattern::{self, Numbers};
use crate::plan::Identity;
use crate::resources::policy::{Asked, Verdict};
use crate::resources::{Arn, Members, Resources, Scope};
use crate::source::inlet::{Arrival, Refused};
use crate::time;
use crate::transform::wrap::{Framing, Head};
use serde_json::{Value, json};
use std::sync::Arc;

/// Puts entries onto buses. Each is answered when its event is kept, or `InternalFailure`.
///
/// # Errors
/// The request as a whole cannot be taken.
pub async fn put_events(front: &Front, caller: &Caller, members: &Members) -> Result<Members, ApiError> {
    let entries = members.get("Entries").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object);
    let read = entries.map(Entry::read).collect::<Result<Vec<_>, _>>()?;
    if read.iter().map(Entry::size).sum::<usize>() > front.event_bytes {
        return Err(ApiError::new(
            "ValidationException",
            "Total size of the entries in the request is over the limit.",
        ));
    }
    // An event meets the rules that were made before it came.
    front.registry.settled(tokio::time::Instant::now() + front.accept_timeout).await;
    let outcomes = read.iter().map(|entry| entry.put(front, caller));
    let results: Vec<Value> = futures_util::future::join_all(outcomes).await;
    let failed = results.iter().filter(|result| result.get("ErrorCode").is_some()).count();
    Ok(Members::from_iter([("FailedEntryCount".into(), failed.into()), ("Entries".into(), results.into())]))
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
            bus: wire::text(members, "EventBusName")?.unwrap_or(crate::catalog::DEFAULT_BUS),
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

    /// The account, region and name of its bus.
    fn at(&self, scope: &Scope) -> (Scope, &'m str) {
        let named = Arn::parse(self.bus).and_then(|arn| Some((arn.scope()?, arn.bus()?)));
        named.unwrap_or_else(|| (scope.clone(), self.bus))
    }

    /// Whether the policy of its bus keeps the caller out.
    fn forbidden(&self, front: &Front, caller: &Caller) -> Option<ApiError> {
        let who = caller.who.as_ref()?;
        let (scope, bus) = self.at(&caller.scope);
        let resource = scope.bus_arn(bus);
        let about = [("events:source", self.source), ("events:detail-type", self.detail_type)];
        let asked = Asked { who, action: "events:PutEvents", resource: &resource, about: &about };
        match front.registry.made().verdict(&scope, bus, &asked) {
            Verdict::Denied => Some(access::denied(who, "PutEvents", &resource)),
            Verdict::Silent if scope.account != who.account => Some(access::not_by_policy(who, "PutEvents", &resource)),
            Verdict::Silent | Verdict::Allowed => None,
        }
    }

    /// The bus among those of this process.
    ///
    /// # Errors
    /// It was made, and no plan knows it yet.
    fn bus(&self, front: &Front, scope: &Scope) -> Result<String, Refused> {
        let (scope, name) = self.at(scope);
        let route = Resources::route(&front.view.load().catalog, front.registry.home(), &scope, name);
        match route {
            Some(bus) => Ok(bus),
            None if front.registry.has_made(&scope, name) => Err(Refused::Late),
            None => Ok(name.to_owned()),
        }
    }

    async fn put(&self, front: &Front, caller: &Caller) -> Value {
        if let Some((code, message)) = self.refusal() {
            return json!({ "ErrorCode": code, "ErrorMessage": message });
        }
        if let Some(error) = self.forbidden(front, caller) {
            return json!({ "ErrorCode": error.code, "ErrorMessage": error.message });
        }
        let scope = &caller.scope;
        let id = uuid::Uuid::new_v4().to_string();
        let head = Head {
            id: &id,
            detail_type: self.detail_type,
            source: self.source,
            account: &scope.account,
            time: &time::iso_seconds(self.time.unwrap_or_else(time::wall_millis)),
            region: &scope.region,
        };
        let event = head.event(&self.resources, self.detail.trim().as_bytes());
        // A detail can be sound by itself and too deep for the event around it.
        if Tree::parse(&event).is_err() {
            return json!({ "ErrorCode": "MalformedDetail", "ErrorMessage": "Detail is malformed." });
        }
        let kept = match self.bus(front, scope) {
            Ok(bus) => front.put(&bus, &id, event, self.trace.clone()).await,
            Err(why) => Err(why),
        };
        match kept {
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
            Durability::Broker => self.keepers.keep(arrival, deadline).await,
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
        aim: Aim::default(),
    }
}

/// What the envelope adds to the bytes that the limit counts.
pub const ENVELOPE_BYTES: usize = 64 << 10;

/// Tells whether a pattern matches an event.
///
/// # Errors
/// The pattern or the event cannot be read.
pub fn test_event_pattern(members: &Members) -> Result<Members, ApiError> {
    let text = |name: &str| members.get(name).and_then(Value::as_str).unwrap_or_default();
    let (pattern, event) = (text("EventPattern"), text("Event"));
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
    Ok(Members::from_iter([("Result".into(), pattern::matches(&pattern, tree, Numbers::Value).into())]))
}

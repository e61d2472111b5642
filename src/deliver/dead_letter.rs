//! Dead letters: the event as it was to be delivered, with its cause.

use super::retry::{Exhausted, Failure};
use super::{Delivery, TRACE_HEADER};
use crate::time;
use base64::Engine;
use serde_json::{Map, Value};
use std::sync::Arc;

/// Why an event is a dead letter.
pub struct Letter {
    /// The target that did not take it, or the source that could not read it.
    pub target: Arc<str>,
    /// The last failure.
    pub failure: Failure,
    /// The bound that ended retrying.
    pub exhausted: Option<Exhausted>,
    /// Tries after the first.
    pub retries: u32,
    /// Where the event stands as it was matched, not as its target receives it: the target's place in its rule.
    pub untransformed: Option<usize>,
}

/// The attributes of a dead letter, named as the service names them, and where the event came from.
pub fn attributes(delivery: &Delivery, letter: &Letter) -> Vec<(&'static str, String)> {
    let mut attributes = vec![
        ("TARGET_ARN", super::target_arn(&letter.target)),
        ("ERROR_CODE", letter.failure.code.to_owned()),
        ("ERROR_MESSAGE", letter.failure.message.clone()),
        ("RETRY_ATTEMPTS", letter.retries.to_string()),
    ];
    if let Some(rule) = &delivery.rule {
        attributes.insert(0, ("RULE_ARN", rule.arn.to_string()));
    }
    if let Some(exhausted) = letter.exhausted {
        attributes.push(("EXHAUSTED_RETRY_CONDITION", exhausted.as_str().to_owned()));
    }
    if let Some(nth) = letter.untransformed {
        attributes.push(("sluice-untransformed", nth.to_string()));
    }
    attributes.push(("sluice-source", delivery.source.to_string()));
    attributes.push(("sluice-position", delivery.position.to_string()));
    attributes
}

/// A dead letter as one JSON line: `time`, `bus`, the attributes, the record's key as `sluice-key`, and the event as
/// `event`. What is no UTF-8 has `_base64` at its name's end.
pub fn line(delivery: &Delivery, letter: &Letter) -> Vec<u8> {
    let mut object = Map::new();
    object.insert("time".into(), time::iso_millis(time::wall_millis()).into());
    object.insert("bus".into(), delivery.bus.as_ref().into());
    object.insert("sluice-delivery-id".into(), delivery.id.to_string().into());
    for (name, value) in attributes(delivery, letter) {
        object.insert(name.into(), value.into());
    }
    if let Some(trace) = &delivery.trace {
        object.insert(TRACE_HEADER.into(), trace.as_ref().into());
    }
    if let Some(key) = &delivery.key {
        put(&mut object, "sluice-key", key);
    }
    put(&mut object, "event", &delivery.payload);
    Value::Object(object).to_string().into_bytes()
}

fn put(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.into(), text.into()),
        Err(_) => {
            let encoded = base64::engine::general_purpose::STANDARD.encode(bytes);
            object.insert(format!("{name}_base64"), encoded.into())
        }
    };
}

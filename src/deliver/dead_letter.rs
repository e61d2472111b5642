//! Dead letters: the event as it was to be delivered, with its cause.

use super::Delivery;
use super::retry::{Exhausted, Failure};
use crate::time;
use base64::Engine;
use serde_json::{Value, json};
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
}

/// The attributes of a dead letter, named as the service names them, and where the event came from.
pub fn attributes(delivery: &Delivery, letter: &Letter) -> Vec<(&'static str, String)> {
    let mut attributes = vec![
        ("TARGET_ARN", format!("arn:sluice:target:::{}", letter.target)),
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
    attributes.push(("sluice-source", delivery.source.to_string()));
    attributes.push(("sluice-position", delivery.position.to_string()));
    attributes
}

/// A dead letter as one JSON line: `time`, `bus`, the attributes, and the event as `event` where it is JSON text,
/// else as `event_base64`.
pub fn line(delivery: &Delivery, letter: &Letter) -> Vec<u8> {
    let mut object = serde_json::Map::new();
    object.insert("time".into(), time::iso_millis(time::wall_millis()).into());
    object.insert("bus".into(), delivery.bus.as_ref().into());
    object.insert("sluice-delivery-id".into(), delivery.id.to_string().into());
    for (name, value) in attributes(delivery, letter) {
        object.insert(name.into(), value.into());
    }
    match std::str::from_utf8(&delivery.payload) {
        Ok(text) => object.insert("event".into(), text.into()),
        Err(_) => {
            let encoded = base64::engine::general_purpose::STANDARD.encode(&*delivery.payload);
            object.insert("event_base64".into(), json!(encoded))
        }
    };
    Value::Object(object).to_string().into_bytes()
}

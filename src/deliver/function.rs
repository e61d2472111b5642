//! Functions: HTTP endpoints whose answers become records on a bus or for a target, as the destinations of Lambda's asynchronous
//! invocations do. Source: Lambda developer guide, "Capturing records of asynchronous invocations".
//!
//! In: a delivery and its outcome. Out: a record of it. Promises: the same outcome has the same event id. Leaves to
//! others: when it is told (`http`), how it comes onto the bus (`app`).

use super::Delivery;
use super::retry::{Exhausted, Failure};
use crate::catalog::Destination;
use crate::time;
use serde_json::{Value, json};
use std::pin::Pin;
use std::sync::Arc;

/// An execution record on its way.
pub struct Record {
    /// The bus that the delivery's event was on: what tells account and region.
    pub from: Arc<str>,
    /// What takes it; a bus by its name there.
    pub to: Destination,
    /// The event's id.
    pub id: String,
    /// The event's type.
    pub detail_type: &'static str,
    /// The function, by its target's name or ARN.
    pub function: String,
    /// The record: a JSON object.
    pub detail: Vec<u8>,
}

/// Puts a record on its way; it is kept when that is done.
pub type Publish = Arc<dyn Fn(Record) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

/// The record of an answer.
pub(super) fn success(delivery: &Delivery, to: &Destination, answer: &[u8]) -> Record {
    let response = serde_json::from_slice(answer).unwrap_or_else(|_| match answer {
        [] => Value::Null,
        text => String::from_utf8_lossy(text).into_owned().into(),
    });
    let context = json!({ "statusCode": 200, "executedVersion": "$LATEST" });
    let detail = detail(delivery, ("Success", delivery.failed + 1), (&context, &response));
    record(delivery, to, ("Lambda Function Invocation Result - Success", 1), detail)
}

/// The record of a function that was given up.
pub(super) fn failure(
    delivery: &Delivery,
    to: &Destination,
    failure: &Failure,
    exhausted: Option<Exhausted>,
) -> Record {
    let condition = match exhausted {
        Some(Exhausted::Age) => "EventAgeExceeded",
        Some(Exhausted::Attempts) | None => "RetriesExhausted",
    };
    let context = json!({ "statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled" });
    let response = json!({ "errorMessage": failure.message, "errorType": failure.code });
    let detail = detail(delivery, (condition, delivery.failed), (&context, &response));
    record(delivery, to, ("Lambda Function Invocation Result - Failure", 2), detail)
}

fn record(delivery: &Delivery, to: &Destination, (detail_type, own): (&'static str, u128), detail: Vec<u8>) -> Record {
    let id = uuid::Uuid::from_u128(delivery.id.0 ^ own).to_string();
    let (from, function) = (Arc::clone(&delivery.bus), delivery.outlet.name.to_string());
    Record { from, to: to.clone(), id, detail_type, function, detail }
}

/// The request stands in it as it was sent.
fn detail(delivery: &Delivery, (condition, invoked): (&str, u32), (context, response): (&Value, &Value)) -> Vec<u8> {
    let about = json!({
        "requestId": uuid::Uuid::from_u128(delivery.id.0).to_string(),
        "functionArn": format!("{}:$LATEST", super::target_arn(&delivery.outlet.name)),
        "condition": condition,
        "approximateInvokeCount": invoked,
    });
    let begin = format!(
        r#"{{"version":"1.0","timestamp":"{}","requestContext":{about},"requestPayload":"#,
        time::iso_millis(time::wall_millis())
    );
    let end = format!(r#","responseContext":{context},"responsePayload":{response}}}"#);
    [begin.as_bytes(), &delivery.payload, end.as_bytes()].concat()
}

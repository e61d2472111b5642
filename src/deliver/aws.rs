//! Requests to services of AWS: their bodies, their signatures, and what their refusals mean.
//!
//! In: a [`Call`] and a delivery. Out: a signed request; of an answer, whether the event arrived. Promises: a repetition
//! can be told from a second event wherever the service has a name for that (the delivery's id). Leaves to others: when
//! it is sent (`http`). Source: the services' API references.

use super::invocation::UNSAFE;
use super::retry::Failure;
use super::{Delivery, TRACE_HEADER, dead_letter};
use crate::catalog::{Call, Keys, Resource, SigV4};
use crate::time;
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{self, SignableBody, SignableRequest, SigningSettings};
use aws_sigv4::sign::v4;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::utf8_percent_encode;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Request, StatusCode, Url};
use serde_json::{Value, json};
use std::time::{Duration, UNIX_EPOCH};

/// The stream of a log group that events go to.
const LOG_STREAM: &str = "sluice";
/// What the names of FIFO queues and topics end with.
const FIFO: &str = ".fifo";
/// What Kinesis takes as a partition key.
const KEY_CHARACTERS: usize = 256;

/// A request without its signature.
pub(super) struct Shape {
    /// Below the service's address.
    pub path: String,
    /// All that the service asks for.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

/// The request that hands a delivery over.
///
/// # Errors
/// A payload that is no text, where the service takes only texts.
pub(super) fn shape(call: &Call, delivery: &Delivery) -> Result<Shape, Failure> {
    let no_text =
        |_| Failure::permanent("INVALID_PARAMETER", "the payload is no UTF-8, and the target takes only text");
    let text = || std::str::from_utf8(&delivery.payload).map_err(no_text);
    let id = delivery.id.to_string();
    Ok(match &call.resource {
        Resource::Queue(url, group) => {
            let mut body = json!({ "QueueUrl": url, "MessageBody": text()? });
            if let Some(letter) = &delivery.letter {
                let attributes = dead_letter::attributes(delivery, letter).into_iter();
                let attribute =
                    |(name, value)| (str::to_owned(name), json!({ "DataType": "String", "StringValue": value }));
                body["MessageAttributes"] = attributes
                    .filter(|(_, value)| !value.is_empty())
                    .map(attribute)
                    .collect::<serde_json::Map<_, _>>()
                    .into();
            }
            if let Some(group) = group {
                body["MessageGroupId"] = group.as_str().into();
            }
            // Others have no use for it, and refuse it.
            if call.arn.ends_with(FIFO) {
                body["MessageDeduplicationId"] = id.into();
            }
            action("1.0", "AmazonSQS.SendMessage", &body)
        }
        Resource::Topic(group) => publish(&call.arn, text()?, (group.as_deref(), &id)),
        Resource::Stream(name, _) => {
            let key = delivery.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
            let key = key.filter(|key| !key.is_empty()).unwrap_or(&id);
            let key: String = key.chars().take(KEY_CHARACTERS).collect();
            let data = STANDARD.encode(&*delivery.payload);
            action(
                "1.1",
                "Kinesis_20131202.PutRecord",
                &json!({ "StreamName": name, "PartitionKey": key, "Data": data }),
            )
        }
        Resource::DeliveryStream(name) => {
            let record = json!({ "Data": STANDARD.encode(&*delivery.payload) });
            action("1.1", "Firehose_20150804.PutRecord", &json!({ "DeliveryStreamName": name, "Record": record }))
        }
        Resource::LogGroup(name) => {
            let event = json!({ "timestamp": time::wall_millis(), "message": text()? });
            let body = json!({ "logGroupName": name, "logStreamName": LOG_STREAM, "logEvents": [event] });
            action("1.1", "Logs_20140328.PutLogEvents", &body)
        }
        Resource::StateMachine => {
            let body = json!({ "stateMachineArn": call.arn, "name": id, "input": text()? });
            action("1.0", "AWSStepFunctions.StartExecution", &body)
        }
        Resource::Function => {
            let arn = utf8_percent_encode(&call.arn, UNSAFE);
            let mut headers = HeaderMap::new();
            headers.insert("content-type", HeaderValue::from_static("application/json"));
            headers.insert("x-amz-invocation-type", HeaderValue::from_static("Event"));
            if let Some(trace) = delivery.trace.as_deref().and_then(|trace| HeaderValue::from_str(trace).ok()) {
                headers.insert(TRACE_HEADER, trace);
            }
            let path = format!("/2015-03-31/functions/{arn}/invocations");
            Shape { path, headers, body: delivery.payload.to_vec() }
        }
    })
}

/// What makes a resource take events that did not, where that is for us to do.
pub(super) fn make(call: &Call) -> Option<Shape> {
    match &call.resource {
        Resource::LogGroup(name) => {
            let body = json!({ "logGroupName": name, "logStreamName": LOG_STREAM });
            Some(action("1.1", "Logs_20140328.CreateLogStream", &body))
        }
        _ => None,
    }
}

fn action(version: &str, name: &'static str, body: &Value) -> Shape {
    let mut headers = HeaderMap::new();
    let kind = if version == "1.0" { "application/x-amz-json-1.0" } else { "application/x-amz-json-1.1" };
    headers.insert("content-type", HeaderValue::from_static(kind));
    headers.insert("x-amz-target", HeaderValue::from_static(name));
    Shape { path: "/".to_owned(), headers, body: body.to_string().into_bytes() }
}

/// SNS speaks forms.
fn publish(topic: &str, message: &str, (group, id): (Option<&str>, &str)) -> Shape {
    let mut form = vec![("Action", "Publish"), ("Version", "2010-03-31"), ("TopicArn", topic), ("Message", message)];
    form.extend(group.map(|group| ("MessageGroupId", group)));
    form.extend(topic.ends_with(FIFO).then_some(("MessageDeduplicationId", id)));
    let encode = |text: &str| utf8_percent_encode(text, UNSAFE).to_string();
    let body: Vec<String> = form.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8"));
    Shape { path: "/".to_owned(), headers, body: body.join("&").into_bytes() }
}

/// Signs a request whose body is at hand.
///
/// # Errors
/// Keys or headers that no signature can be made of.
pub(super) fn sign(request: &mut Request, with: &SigV4) -> Result<(), Failure> {
    let bad = |why: String| Failure::permanent("INVALID_PARAMETER", format!("the request cannot be signed: {why}"));
    let Keys { id, secret, token } = &with.keys;
    let token = token.as_ref().map(|token| token.expose().to_owned());
    let identity = Credentials::new(id, secret.expose(), token, None, "configuration").into();
    let now = UNIX_EPOCH + Duration::from_millis(u64::try_from(time::wall_millis()).unwrap_or(0));
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(&with.region)
        .name(with.service)
        .time(now)
        .settings(SigningSettings::default())
        .build()
        .map_err(|error| bad(error.to_string()))?;
    let body = request.body().and_then(reqwest::Body::as_bytes).unwrap_or_default();
    let headers = request.headers().iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    let signable =
        SignableRequest::new(request.method().as_str(), request.url().as_str(), headers, SignableBody::Bytes(body));
    let signed = signable.and_then(|signable| http_request::sign(signable, &parameters.into()));
    let (instructions, _) = signed.map_err(|error| bad(error.to_string()))?.into_parts();
    for (name, value) in instructions.headers() {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| bad(error.to_string()))?;
        let mut value = HeaderValue::from_str(value).map_err(|error| bad(error.to_string()))?;
        value.set_sensitive(true);
        request.headers_mut().insert(name, value);
    }
    Ok(())
}

/// What a service's refusal means: one of the service's error codes, and whether it can pass.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// As in `THROTTLING`.
    pub code: &'static str,
    /// Whether it is worth another try.
    pub passing: bool,
    /// The service's own code, as in `QueueDoesNotExist`.
    pub named: String,
}

/// What an answer other than 2xx means; `None` where the event has arrived before.
pub fn refusal(status: StatusCode, header: Option<&str>, body: &[u8]) -> Option<Refusal> {
    let named = named(header, body).unwrap_or_else(|| status.to_string());
    let has = |words: &[&str]| words.iter().any(|word| named.contains(word));
    let (code, passing) = match status.as_u16() {
        _ if named == "ExecutionAlreadyExists" => return None,
        429 => ("THROTTLING", true),
        _ if has(&["Throttl", "TooManyRequests", "LimitExceeded", "ThroughputExceeded", "OverLimit"]) => {
            ("THROTTLING", true)
        }
        500.. => ("ERROR_FROM_TARGET", true),
        _ if has(&["ServiceUnavailable", "InternalFailure", "InternalError", "RequestTimeout"]) => {
            ("ERROR_FROM_TARGET", true)
        }
        404 => ("NO_RESOURCE", false),
        _ if has(&["NotFound", "NonExistent", "DoesNotExist"]) => ("NO_RESOURCE", false),
        401 | 403 => ("NO_PERMISSIONS", false),
        _ if has(&[
            "AccessDenied",
            "Signature",
            "ClientTokenId",
            "UnrecognizedClient",
            "ExpiredToken",
            "NotAuthorized",
        ]) =>
        {
            ("NO_PERMISSIONS", false)
        }
        _ => ("SDK_CLIENT_ERROR", false),
    };
    Some(Refusal { code, passing, named })
}

/// The code in an error of any of the services' protocols.
fn named(header: Option<&str>, body: &[u8]) -> Option<String> {
    let json = || {
        let body: Value = serde_json::from_slice(body).ok()?;
        body.get("__type")?.as_str().map(str::to_owned)
    };
    let xml = || {
        let text = std::str::from_utf8(body).ok()?;
        let (_, rest) = text.split_once("<Code>")?;
        Some(rest.split_once("</Code>")?.0.to_owned())
    };
    let code = header.map(str::to_owned).or_else(json).or_else(xml)?;
    // As in `com.amazonaws.sqs#QueueDoesNotExist`, or `NotFound:http://...`.
    let code = code.rsplit('#').next()?.split(':').next()?;
    let plain: String = code.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
    Some(plain).filter(|code| !code.is_empty())
}

/// The address of a request to a service.
pub(super) fn address(url: &str, path: &str) -> Result<Url, Failure> {
    let bad = |error| Failure::permanent("INVALID_PARAMETER", format!("the service's address is none: {error}"));
    Url::parse(&format!("{url}{path}")).map_err(bad)
}

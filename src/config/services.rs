//! The configuration's types, continued: services of AWS, and functions.

use super::ends::{HttpAuth, Tls};
use super::values::{RateLimit, Secret, Span};
use crate::catalog;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// How services of AWS are reached, or of whatever speaks their APIs. With it, ARNs of queues of SQS, topics of SNS,
/// streams of Kinesis and Firehose, state machines and functions that callers of the API name are delivered to.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Aws {
    /// The id of an access key: `"${env:AWS_ACCESS_KEY_ID}"`.
    pub access_key_id: String,
    /// Its secret: `"${env:AWS_SECRET_ACCESS_KEY}"`.
    pub secret_access_key: Secret,
    /// The token of a session: `"${env:AWS_SESSION_TOKEN}"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token: Option<Secret>,
    /// The address of all services that have none under `endpoints`, as in `http://localhost:5000`; AWS's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Addresses by service: `sqs`, `sns`, `kinesis`, `firehose`, `logs`, `states`, `lambda`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub endpoints: BTreeMap<String, String>,
}

/// A resource of AWS; needs `aws` beside `targets`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AwsTarget {
    /// Its ARN: a queue of SQS, a topic of SNS, a stream of Kinesis or Firehose, a group of CloudWatch Logs, a state
    /// machine of Step Functions or a function of Lambda.
    pub arn: String,
    /// The group of messages for a FIFO queue or topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_group_id: Option<String>,
    /// Kinesis: the partition key, a path into the event as `$.detail.orderId`; the event's `id` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_key: Option<String>,
}

/// A function: an HTTP endpoint that is posted to, and whose answers become execution records. It stands for the ARNs of
/// Lambda functions and of state machines of its name, and is a target of its name.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Function {
    /// `https://...`; plain `http` only where `egress` allows it.
    pub url: String,
    /// Further headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Secret>,
    /// Who we are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<HttpAuth>,
    /// For a whole attempt, answer included.
    #[serde(default = "function_timeout")]
    pub timeout: Span,
    /// Attempts under way at once.
    #[serde(default = "function_in_flight")]
    pub max_in_flight: u32,
    /// Attempts begun in a period: `50/s`, `600/m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Takes a record of each answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_success: Option<Destination>,
    /// Takes a record of what is given up, instead of a dead letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<Destination>,
    /// When retrying ends.
    #[serde(default)]
    pub retry: FunctionRetry,
}

fn function_timeout() -> Span {
    Span(Duration::from_secs(30))
}

fn function_in_flight() -> u32 {
    32
}

/// Where execution records go.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Destination {
    /// A bus of the region that the event came from, declared or made through the API: as an event.
    Bus(String),
    /// A declared target, which is no function with destinations itself: the record as it is.
    Target(String),
}

impl From<&Destination> for catalog::Destination {
    fn from(destination: &Destination) -> Self {
        match destination {
            Destination::Bus(bus) => Self::Bus(bus.clone()),
            Destination::Target(target) => Self::Target(target.clone()),
        }
    }
}

/// When retrying a function ends, whichever comes first, and how it is paced. As Lambda's for asynchronous invocations:
/// two retries, after a minute and then two.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FunctionRetry {
    /// Tries after the first, 0 to 185.
    pub max_attempts: u32,
    /// Age of the event.
    pub max_age: Span,
    /// The first pause; each is twice the one before, up to five minutes.
    pub initial: Span,
}

impl Default for FunctionRetry {
    fn default() -> Self {
        Self { max_attempts: 2, max_age: Span(Duration::from_hours(6)), initial: Span(Duration::from_mins(1)) }
    }
}

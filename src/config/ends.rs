//! The configuration's types, continued: both ends of the pipeline, sources and targets.

use super::model::{Empty, default_bus};
use super::services::AwsTarget;
use super::values::{RateLimit, Secret, Span, text_or_map};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Where events come from: exactly one of `kafka`, `nats`, `webhook`, `stdin`, `file`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The bus it feeds.
    #[serde(default = "default_bus")]
    pub bus: String,
    /// A consumer group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<KafkaSource>,
    /// A JetStream consumer, or a subject of core NATS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nats: Option<NatsSource>,
    /// A path of `server.listen` that others post to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
    /// JSON lines on standard input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<Empty>,
    /// JSON lines in a file, read once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileSource>,
    /// How records become events.
    #[serde(default)]
    pub envelope: Envelope,
    /// What happens to records that are no valid events.
    #[serde(default)]
    pub on_invalid: OnInvalid,
    /// The target that takes them; the bus's default queue in `data_dir` otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<String>,
}

impl Source {
    /// Whether a broker keeps what it reads: in a topic or a stream.
    pub fn is_kept(&self) -> bool {
        self.kafka.is_some() || self.nats.as_ref().is_some_and(|nats| nats.stream.is_some())
    }
}

/// Where a group begins on a partition that it has never committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// At its first record.
    #[default]
    Earliest,
    /// After its last record.
    Latest,
}

/// What happens to records that are no valid events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnInvalid {
    /// Kept in the dead-letter queue.
    #[default]
    DeadLetter,
    /// Dropped and counted.
    Drop,
    /// The process stops with an error.
    Fail,
}

impl From<OnInvalid> for crate::catalog::OnInvalid {
    fn from(policy: OnInvalid) -> Self {
        match policy {
            OnInvalid::DeadLetter => Self::DeadLetter,
            OnInvalid::Drop => Self::Drop,
            OnInvalid::Fail => Self::Fail,
        }
    }
}

/// JSON lines in a file.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSource {
    /// The file.
    pub path: PathBuf,
}

/// How to reach a Kafka cluster.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaSource {
    /// `host:port`, several separated by commas.
    pub brokers: String,
    /// Topics to read.
    pub topics: Vec<String>,
    /// The consumer group.
    pub group: String,
    /// Where a new group begins.
    #[serde(default)]
    pub start: Start,
    /// Makes the membership static. Must be stable and unique, as a StatefulSet's pod name is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// What waits for a target waits in a topic of this name, a dot and the target's, instead of on this disk. For a source
    /// of one topic; the topics are made where they are missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_topics: Option<String>,
    /// User name and password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sasl: Option<Sasl>,
    /// Encrypts, with these certificates; `{}` trusts the system's authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Further properties of librdkafka. Those that the delivery promise rests on are refused. Of
    /// `partition.assignment.strategy`, the same for all members of a group, `range`, `roundrobin` and
    /// `cooperative-sticky` are taken; with the last, a member keeps reading what it keeps while others come and go.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, Secret>,
}

/// User name and password.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sasl {
    /// How they are shown to the broker.
    #[serde(default)]
    pub mechanism: Mechanism,
    /// User name.
    pub username: String,
    /// Password; take it from outside: `"${file:/run/secrets/kafka}"`.
    pub password: Secret,
}

/// How user name and password are shown to a Kafka broker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Mechanism {
    /// As they are; only with `tls`, or where nobody listens.
    #[default]
    #[serde(rename = "PLAIN")]
    Plain,
    /// As a challenge's answer (RFC 5802).
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// As a challenge's answer (RFC 5802).
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl Mechanism {
    /// As librdkafka names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// Certificates, as PEM files.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Authorities to trust; the system's when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Our certificate with its chain; needs `key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// Its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

/// A JetStream consumer (`stream` and `durable`), or a subject of core NATS (`subject`, best effort: what arrives while
/// nobody listens is gone, and so is what a crash finds unsettled).
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NatsSource {
    /// `nats://host:4222`, several separated by commas.
    pub servers: String,
    /// The stream to consume. It must exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// The consumer's name; instances with the same one share the stream. It is made when it does not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durable: Option<String>,
    /// Core: what to subscribe to. JetStream: what of the stream to read; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Core: instances in the same queue group share the events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// JetStream: where a new consumer begins.
    #[serde(default)]
    pub start: Start,
    /// JetStream: after how long without a word from us a message is given to another instance.
    #[serde(default = "ack_wait")]
    pub ack_wait: Span,
    /// JetStream: what waits for a target waits in this stream instead of on this disk. It is made when it does not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_stream: Option<String>,
    /// Who we are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<NatsAuth>,
    /// Encrypts, with these certificates; `{}` trusts the system's authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

fn ack_wait() -> Span {
    Span(Duration::from_secs(30))
}

/// Who we are to a NATS server.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NatsAuth {
    /// User name and password.
    Basic(Basic),
    /// A token.
    Token(Secret),
    /// The seed of an NKey.
    Nkey(Secret),
    /// A credentials file.
    Creds(PathBuf),
}

/// User name and password.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Basic {
    /// User name.
    pub username: String,
    /// Password; take it from outside: `"${file:/run/secrets/password}"`.
    pub password: Secret,
}

/// How records become events.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Envelope {
    /// The record is the envelope.
    #[default]
    EventBridge,
    /// CloudEvents 1.0, structured or binary.
    CloudEvents,
    /// Any JSON value becomes `detail`.
    Raw(RawEnvelope),
}

/// Attributes of raw records.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawEnvelope {
    /// The event's `source`: a text, or a path into the record as `$.type`.
    pub source: Attribute,
    /// The event's `detail-type`, likewise.
    pub detail_type: Attribute,
}

/// Where an attribute comes from: a text, a path (`$.type`), or `{ header: NAME }`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Attribute {
    /// A text or a path.
    Text(String),
    /// A record header.
    Header(HeaderAttribute),
}

impl<'de> Deserialize<'de> for Attribute {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_map(deserializer, "a text, a path or `header: NAME`", Self::Text, Self::Header)
    }
}

/// A record header.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderAttribute {
    /// Its name.
    pub header: String,
}

/// Where events can go: exactly one of `kafka`, `nats`, `http`, `aws`, `log`, `stdout`, `bus`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// A topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<KafkaTarget>,
    /// A NATS subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nats: Option<NatsTarget>,
    /// An HTTP endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpTarget>,
    /// A resource of AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws: Option<AwsTarget>,
    /// A log group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogTarget>,
    /// JSON lines on standard output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<Empty>,
    /// Another bus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bus: Option<String>,
    /// When retrying ends. Without it 185 retries within 24 hours; 5 within 5 minutes with `ordering: key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// What deliveries must not be overtaken by.
    #[serde(default)]
    pub ordering: Ordering,
    /// The target that takes what this one does not; the bus's default queue in `data_dir` otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<String>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaTarget {
    /// `host:port`, several separated by commas.
    pub brokers: String,
    /// The topic.
    pub topic: String,
    /// The record's key: `source` (that of the record read), `none`, or a path into the event as `$.detail.orderId`.
    #[serde(default = "source_key")]
    pub key: String,
    /// Creates the topic at start when it does not exist. Dead-letter topics are created in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create: Option<TopicShape>,
    /// User name and password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sasl: Option<Sasl>,
    /// Encrypts, with these certificates; `{}` trusts the system's authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Further properties of librdkafka. Those that the delivery promise rests on are refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, Secret>,
}

fn source_key() -> String {
    "source".into()
}

/// The shape of a topic to create.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TopicShape {
    /// Partitions; as many as the sources' largest topic has when absent.
    pub partitions: Option<i32>,
    /// Replicas; the broker's default when absent.
    pub replication_factor: Option<i32>,
}

/// A NATS subject.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NatsTarget {
    /// `nats://host:4222`, several separated by commas.
    pub servers: String,
    /// The subject; `{$.path}` in it takes a value of the event, encoded as one token.
    pub subject: String,
    /// Whether a stream must acknowledge. Core NATS otherwise: settled when the server has the message.
    #[serde(default)]
    pub jetstream: bool,
    /// Who we are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<NatsAuth>,
    /// Encrypts, with these certificates; `{}` trusts the system's authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// An HTTP endpoint.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpTarget {
    /// `https://...`; plain `http` only where `egress` allows it.
    pub url: String,
    /// POST, PUT or PATCH.
    #[serde(default)]
    pub method: Method,
    /// Further headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, Secret>,
    /// Who we are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<HttpAuth>,
    /// For a whole attempt, answer included.
    #[serde(default = "http_timeout")]
    pub timeout: Span,
    /// Attempts under way at once.
    #[serde(default = "http_in_flight")]
    pub max_in_flight: u32,
    /// Attempts begun in a period: `50/s`, `600/m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Speak HTTP/2 without asking; over TLS it is negotiated anyway.
    #[serde(default)]
    pub http2: bool,
    /// How bodies are compressed.
    #[serde(default)]
    pub compression: Compression,
    /// Signs attempts as Standard Webhooks says, with this secret: `whsec_` and base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_secret: Option<Secret>,
    /// A bus that takes an execution record of each answer, as a destination of a Lambda function does: a bus of the
    /// region that the event came from, declared or made through the API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_success: Option<String>,
    /// The same for what is given up, instead of a dead letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<String>,
    /// Certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

fn http_timeout() -> Span {
    Span(Duration::from_secs(5))
}

fn http_in_flight() -> u32 {
    32
}

/// The method of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// POST
    #[default]
    Post,
    /// PUT
    Put,
    /// PATCH
    Patch,
}

/// How bodies are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// `Content-Encoding: gzip`.
    Gzip,
}

/// Who we are to an HTTP endpoint.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HttpAuth {
    /// User name and password.
    Basic(Basic),
    /// `Authorization: Bearer`.
    Bearer(Secret),
    /// A header with a key.
    ApiKey(ApiKey),
}

/// A header with a key.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// The header's name.
    pub name: String,
    /// The key.
    pub value: Secret,
}

/// A path that others post to; any JSON body is an event's `detail` (with `envelope: raw`).
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// As in `/in/zendesk`.
    pub path: String,
    /// How a body shows who sent it.
    pub verify: Verify,
}

/// How a body shows who sent it. Each takes several secrets, so that one can replace another.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    /// Not at all; only while `server.listen` is on loopback.
    None,
    /// Standard Webhooks 1.0: `webhook-signature` over id, time and body. Secrets as `whsec_...`.
    StandardWebhooks(Secrets),
    /// Zendesk: `X-Zendesk-Webhook-Signature` over time and body.
    Zendesk(Secrets),
    /// PagerDuty V3: `X-PagerDuty-Signature` over the body.
    Pagerduty(Secrets),
    /// GitHub: `X-Hub-Signature-256` over the body.
    Github(Secrets),
    /// Stripe: `Stripe-Signature` over time and body.
    Stripe(Secrets),
    /// Slack: `X-Slack-Signature` over time and body.
    Slack(Secrets),
    /// Datadog: a header of the webhook's own with a shared secret.
    Datadog(SharedSecret),
}

/// Secrets of a sender.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    /// The secret.
    pub secret: Secret,
    /// One that is valid as well, while it is being replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub also: Option<Secret>,
}

/// A header with a secret.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SharedSecret {
    /// The header's name.
    pub header: String,
    /// The secret.
    pub secret: Secret,
    /// One that is valid as well, while it is being replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub also: Option<Secret>,
}

/// A log group.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogTarget {
    /// As in `/aws/events/orders`.
    pub group: String,
}

/// What deliveries of a target must not be overtaken by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ordering {
    /// First attempts keep the order of their partition; repetitions come when they come.
    #[default]
    Partition,
    /// Deliveries of one record key, or without one of one partition, come one after another, repetitions included.
    Key,
}

/// When retrying ends, whichever comes first, and how it is paced.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// Tries after the first, 0 to 185.
    pub max_attempts: u32,
    /// Age of the event.
    pub max_age: Span,
    /// Ceiling of the first delay.
    pub initial: Span,
    /// Ceiling of any delay.
    pub max: Span,
}

impl Default for Retry {
    fn default() -> Self {
        let policy = crate::catalog::RetryPolicy::default();
        Self {
            max_attempts: policy.max_attempts,
            max_age: Span(policy.max_age),
            initial: Span(policy.initial),
            max: Span(policy.max),
        }
    }
}

impl Retry {
    /// What holds where nothing is said. A delivery that keeps an order holds up those behind it, so it is given up sooner.
    pub fn for_ordering(ordering: Ordering) -> Self {
        match ordering {
            Ordering::Partition => Self::default(),
            Ordering::Key => Self { max_attempts: 5, max_age: Span(Duration::from_mins(5)), ..Self::default() },
        }
    }
}

//! The configuration's types: one definition gives reading, printing and the JSON Schema.

use super::values::{Admin, Json, Secret, Size, Span, text_or_map};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// One configuration file. Several files add up; a section that is no map of names may stand in one only.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "Sluice configuration")]
pub struct FileConfig {
    /// Version of the format; 1.
    pub version: Option<u32>,
    /// Where Sluice keeps log groups and dead letters. One process a folder.
    pub data_dir: Option<PathBuf>,
    /// Addresses.
    pub server: Option<Server>,
    /// What Sluice says of itself.
    pub log: Option<Log>,
    /// Metrics.
    pub metrics: Option<MetricsConfig>,
    /// Bounds.
    pub limits: Option<Limits>,
    /// Account and region in ARNs and wrapped records.
    pub identity: Option<IdentityConfig>,
    /// Worker threads; one a core when absent.
    pub workers: Option<u32>,
    /// Event buses by name. `default` exists always.
    pub buses: BTreeMap<String, Bus>,
    /// Where events come from.
    pub sources: BTreeMap<String, Source>,
    /// Where events can go.
    pub targets: BTreeMap<String, Target>,
    /// What goes where.
    pub rules: BTreeMap<String, Rule>,
    /// More files or folders, relative to this file.
    pub include: Vec<String>,
}

/// All files together, defaults filled in.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Config {
    /// Version of the format.
    pub version: u32,
    /// See [`FileConfig::data_dir`].
    pub data_dir: PathBuf,
    /// See [`Server`].
    pub server: Server,
    /// See [`Log`].
    pub log: Log,
    /// See [`MetricsConfig`].
    pub metrics: MetricsConfig,
    /// See [`Limits`].
    pub limits: Limits,
    /// See [`IdentityConfig`].
    pub identity: IdentityConfig,
    /// Worker threads; 0 is one a core.
    pub workers: u32,
    /// By name.
    pub buses: BTreeMap<String, Bus>,
    /// By name.
    pub sources: BTreeMap<String, Source>,
    /// By name.
    pub targets: BTreeMap<String, Target>,
    /// By name.
    pub rules: BTreeMap<String, Rule>,
}

/// Addresses.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Health, metrics and the native API: an address, or `off`.
    pub admin: Admin,
    /// How the process ends.
    pub shutdown: Shutdown,
}

impl Default for Server {
    fn default() -> Self {
        Self { admin: Admin::At(SocketAddr::from(([127, 0, 0, 1], 4567))), shutdown: Shutdown::default() }
    }
}

/// How the process ends.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Shutdown {
    /// From SIGTERM to the hard exit.
    pub drain_timeout: Span,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { drain_timeout: Span(Duration::from_secs(20)) }
    }
}

/// What Sluice says of itself, on standard error.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter as `info,kafka=debug`.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Auto }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Metrics.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// Rules with a label of their own; the others share `_other`.
    pub max_rules: usize,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { max_rules: 2000 }
    }
}

/// Bounds.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest event; larger ones are dead letters.
    pub event_bytes: Size,
    /// Longest pattern text.
    pub pattern_bytes: Size,
    /// Events of one source that are read and not settled.
    pub in_flight_events: u32,
    /// Their bytes.
    pub in_flight_bytes: Size,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            event_bytes: Size(256 << 10),
            pattern_bytes: Size(64 << 10),
            in_flight_events: 16_384,
            in_flight_bytes: Size(32 << 20),
        }
    }
}

/// Account and region in ARNs and wrapped records.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IdentityConfig {
    /// Twelve digits.
    pub account: String,
    /// As in `us-east-1`.
    pub region: String,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        let identity = crate::plan::Identity::default();
        Self { account: identity.account, region: identity.region }
    }
}

/// An event bus.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Bus {
    /// How plain numbers in patterns compare.
    pub number_matching: NumberMatching,
}

/// How plain numbers in patterns compare.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NumberMatching {
    /// By value, as the service does: 300 is 300.0.
    #[default]
    Value,
    /// By text, as the service's documentation says.
    Text,
}

/// Where events come from: exactly one of `kafka`, `stdin`, `file`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The bus it feeds.
    #[serde(default = "default_bus")]
    pub bus: String,
    /// A consumer group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<KafkaSource>,
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

fn default_bus() -> String {
    crate::catalog::DEFAULT_BUS.into()
}

/// Nothing to say: `{}`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

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
    /// User name and password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sasl: Option<Sasl>,
    /// Further properties of librdkafka. Those that the delivery promise rests on are refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, Secret>,
}

/// User name and password.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sasl {
    /// `PLAIN`.
    #[serde(default = "plain")]
    pub mechanism: String,
    /// User name.
    pub username: String,
    /// Password; take it from outside: `"${file:/run/secrets/kafka}"`.
    pub password: Secret,
}

fn plain() -> String {
    "PLAIN".into()
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

/// Where events can go: exactly one of `kafka`, `log`, `stdout`, `bus`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// A topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<KafkaTarget>,
    /// A log group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogTarget>,
    /// JSON lines on standard output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<Empty>,
    /// Another bus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bus: Option<String>,
    /// When retrying ends.
    #[serde(default)]
    pub retry: Retry,
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

/// A log group.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogTarget {
    /// As in `/aws/events/orders`.
    pub group: String,
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

/// A rule.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its bus.
    #[serde(default = "default_bus")]
    pub bus: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Who to ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Whether it is active.
    #[serde(default)]
    pub state: RuleState,
    /// What it matches: an EventBridge pattern, as YAML or as a JSON text.
    pub pattern: Json,
    /// Where matches go.
    #[serde(default)]
    pub targets: Vec<RuleTarget>,
}

/// Whether a rule is active.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RuleState {
    /// Matches and delivers.
    #[default]
    Enabled,
    /// Rests.
    Disabled,
    /// Matches and counts, delivers nothing.
    Shadow,
}

/// A target of a rule: its name, or its name and the form it receives.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum RuleTarget {
    /// Receives the event as it came.
    Name(String),
    /// Receives a form of it.
    Formed(Box<FormedTarget>),
}

impl<'de> Deserialize<'de> for RuleTarget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let formed = |formed: FormedTarget| Self::Formed(Box::new(formed));
        text_or_map(deserializer, "a target's name, or `target: NAME` and a form", Self::Name, formed)
    }
}

/// A target and the form it receives: at most one of `input`, `input_path`, `input_transformer`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FormedTarget {
    /// Its name.
    pub target: String,
    /// A constant: any JSON value, or a JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Json>,
    /// The part of the event that a path selects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_path: Option<String>,
    /// A template filled from the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_transformer: Option<Transformer>,
}

/// Variables and a template.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Transformer {
    /// Variables by path.
    #[serde(default)]
    pub paths: BTreeMap<String, String>,
    /// With `<name>` where a variable stands.
    pub template: String,
}

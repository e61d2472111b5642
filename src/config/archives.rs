//! The configuration's types, continued: archives, and what keeps their events.

use super::ends::{NatsAuth, Sasl, Tls};
use super::model::default_bus;
use super::values::{Json, Secret, Span};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An archive: it keeps events of a bus for replays, in `data_dir` or, with `kafka` or `nats`, in a topic or a stream. Its
/// events stay there when it is not declared any more.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// Its bus.
    #[serde(default = "default_bus")]
    pub bus: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// How long events are kept: whole days, as in `7d`; for ever when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Span>,
    /// What it keeps: an EventBridge pattern, as YAML or as a JSON text; everything when absent. Replayed events are not
    /// kept again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<Json>,
    /// Keeps its events in a topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<ArchiveTopic>,
    /// Keeps its events in a stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nats: Option<ArchiveStream>,
}

/// What keeps the events of archives that callers make: one of `kafka` and `nats`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Archives {
    /// A topic, for all archives of the bus.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kafka: Option<ArchiveTopic>,
    /// A stream, for all archives of the bus.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nats: Option<ArchiveStream>,
}

/// A topic that keeps archived events. It must exist; how long it keeps them is for its own retention, too.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArchiveTopic {
    /// `host:port`, several separated by commas.
    pub brokers: String,
    /// The topic. Archives may share one: each record says which archive it is of.
    pub topic: String,
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

/// A stream that keeps archived events. It must exist; how long it keeps them is for its own limits, too.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArchiveStream {
    /// `nats://host:4222`, several separated by commas.
    pub servers: String,
    /// The stream.
    pub stream: String,
    /// The subject of it that events are published to. Archives may share one: each message says which archive it is of.
    pub subject: String,
    /// Who we are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<NatsAuth>,
    /// Encrypts, with these certificates; `{}` trusts the system's authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

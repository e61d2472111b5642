//! The configuration's types: one definition gives reading, printing and the JSON Schema.

use super::access::{AccessKey, ServerAuth};
use super::archives::{Archive, Archives};
use super::ends::{Source, Target};
use super::services::{Aws, Function};
use super::values::{Json, Listen, Secret, Size, Span, text_or_map};
use crate::pattern::Numbers;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
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
    /// Where HTTP targets may lead.
    pub egress: Option<Egress>,
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
    /// What keeps events for replays.
    pub archives: BTreeMap<String, Archive>,
    /// What fires by itself.
    pub schedules: BTreeMap<String, Schedule>,
    /// Which target stands for an ARN that callers of the API name: ARN, in which `*` stands for any text, and target.
    /// The longest that fits counts. A `kafka` target takes the topic of a topic's ARN.
    pub arn_map: BTreeMap<String, String>,
    /// Functions by name.
    pub functions: BTreeMap<String, Function>,
    /// How services of AWS are reached.
    pub aws: Option<Aws>,
    /// Who makes rules.
    pub catalog: Option<CatalogMode>,
    /// What seals the secrets of connections in `data_dir/catalog.redb`: 32 bytes in base64, from outside, as in
    /// `"${file:/run/secrets/sluice-key}"`. Without it the key is made, in `data_dir/catalog.key`.
    pub catalog_key: Option<Secret>,
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
    /// See [`Egress`].
    pub egress: Egress,
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
    /// By name.
    pub archives: BTreeMap<String, Archive>,
    /// By name.
    pub schedules: BTreeMap<String, Schedule>,
    /// See [`FileConfig::arn_map`].
    pub arn_map: BTreeMap<String, String>,
    /// By name.
    pub functions: BTreeMap<String, Function>,
    /// See [`Aws`].
    pub aws: Option<Aws>,
    /// See [`CatalogMode`].
    pub catalog: CatalogMode,
    /// See [`FileConfig::catalog_key`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catalog_key: Option<Secret>,
    /// What the file of [`ServerAuth::keys`] holds.
    #[serde(skip)]
    pub keys: Vec<AccessKey>,
}

/// Who makes buses, rules and the rest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CatalogMode {
    /// Files, and callers of the API beside them: what they make is kept in `data_dir`.
    #[default]
    Layered,
    /// Files alone; the API shows what they declare and changes nothing.
    Files,
}

/// Addresses.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// The EventBridge endpoint, CloudEvents and webhooks: an address, or `off`. One that others than this machine
    /// reach needs `auth`.
    pub listen: Listen,
    /// Health, metrics and the native API: an address, or `off`. From other machines, health and metrics are open and
    /// everything else needs `auth`.
    pub admin: Listen,
    /// Who may call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<ServerAuth>,
    /// Whether `sluice dev reset` may remove everything that was made through the API.
    pub allow_reset: bool,
    /// How long a caller may wait until its events are kept.
    pub accept_timeout: Span,
    /// Connections at once on `listen`.
    pub max_connections: u32,
    /// How the process ends.
    pub shutdown: Shutdown,
}

impl Default for Server {
    fn default() -> Self {
        let local = |port| Listen::At(SocketAddr::from(([127, 0, 0, 1], port)));
        Self {
            listen: local(4566),
            admin: local(4567),
            auth: None,
            allow_reset: false,
            accept_timeout: Span(Duration::from_secs(20)),
            max_connections: 1024,
            shutdown: Shutdown::default(),
        }
    }
}

/// Where HTTP targets may lead.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Egress {
    /// Networks (`10.0.0.0/8`) or addresses that are not public and allowed all the same, plain http included. While
    /// every listener is on loopback, loopback needs no permission.
    pub allow: Vec<String>,
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
    /// Bytes of the journal of events that came over HTTP; beyond, requests are refused.
    pub journal_bytes: Size,
    /// Bytes of the retry log of a target; beyond, its deliveries hold their sources. `0` does without.
    pub retry_log_bytes: Size,
    /// How many buses, rules and so on callers of the API may make, where nothing else is said below.
    pub profile: Profile,
    /// Buses of an account and region, `default` among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buses: Option<NonZeroU32>,
    /// Rules of a bus.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules_per_bus: Option<NonZeroU32>,
    /// Targets of a rule that was made through the API.
    pub targets_per_rule: usize,
    /// Characters of a pattern that comes through the API; 4,096 at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern_characters: Option<NonZeroU32>,
    /// Archives of an account and region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archives: Option<NonZeroU32>,
    /// Replays of an account and region that run at a time.
    pub replays: NonZeroU32,
    /// Connections of an account and region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<NonZeroU32>,
    /// API destinations of an account and region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_destinations: Option<NonZeroU32>,
    /// Tags of a thing.
    pub tags: NonZeroU32,
    /// PutEvents requests of an account and region in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub put_events_per_second: Option<NonZeroU32>,
    /// Other requests of an account and region in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actions_per_second: Option<NonZeroU32>,
}

/// How many of everything callers of the API may make.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// As many as they want.
    #[default]
    Open,
    /// As many as the service allows by default: 100 buses, 300 rules a bus, 2,048 characters a pattern, 100 archives,
    /// 3,000 connections and API destinations; 10,000 PutEvents requests a second, 50 others.
    Aws,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            event_bytes: Size(256 << 10),
            pattern_bytes: Size(64 << 10),
            in_flight_events: 16_384,
            in_flight_bytes: Size(32 << 20),
            journal_bytes: Size(1 << 30),
            retry_log_bytes: Size(1 << 30),
            profile: Profile::default(),
            buses: None,
            rules_per_bus: None,
            targets_per_rule: 5,
            pattern_characters: None,
            archives: None,
            replays: NonZeroU32::MIN.saturating_add(9),
            connections: None,
            api_destinations: None,
            tags: NonZeroU32::MIN.saturating_add(49),
            put_events_per_second: None,
            actions_per_second: None,
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
    /// What has an event that comes over HTTP when its request is answered.
    pub durability: Durability,
    /// What keeps the events of archives that callers make on it; `data_dir` when absent. It changes with a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archives: Option<Archives>,
}

impl Config {
    /// Whether files declare what needs a journal of its own.
    pub fn runs_by_itself(&self) -> bool {
        !self.archives.is_empty() || !self.schedules.is_empty()
    }

    /// Whether functions have destinations, whose records come by the journal.
    pub fn tells(&self) -> bool {
        let functions =
            self.functions.values().map(|function| (function.on_success.is_some(), function.on_failure.is_some()));
        let endpoints = self.targets.values().filter_map(|target| target.http.as_ref());
        let endpoints = endpoints.map(|http| (http.on_success.is_some(), http.on_failure.is_some()));
        functions.chain(endpoints).any(|(success, failure)| success || failure)
    }

    /// Whether callers of the API may make such things here.
    pub fn serves_changes(&self) -> bool {
        self.catalog == CatalogMode::Layered && self.server.listen != Listen::Off
    }

    /// Buses whose own topic or stream keeps what comes over HTTP.
    pub fn kept_by_brokers(&self) -> impl Iterator<Item = &String> {
        self.buses.iter().filter(|(_, bus)| bus.durability == Durability::Broker).map(|(name, _)| name)
    }

    /// Sources of a bus that read a topic or stream, by name.
    pub fn kept_sources(&self, bus: &str) -> impl Iterator<Item = (&String, &Source)> {
        self.sources.iter().filter(move |(_, source)| source.bus == bus && source.is_kept())
    }

    /// Whether what comes over HTTP is written into the topic or stream that a source reads.
    pub fn keeps_http(&self, source: &Source) -> bool {
        source.is_kept() && self.kept_by_brokers().any(|bus| *bus == source.bus)
    }
}

/// What has an event when its request is answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// The disk: it is written and synced.
    #[default]
    Journal,
    /// Memory: it is lost if the process dies, as many as `limits.in_flight_events` at most.
    Memory,
    /// The broker: it is written into the topic or stream of the bus's one `kafka` or JetStream source, which reads it
    /// back. That source has one topic, or a `subject` without wildcards, and events as they are.
    Broker,
}

impl From<Durability> for crate::catalog::Durability {
    fn from(durability: Durability) -> Self {
        match durability {
            Durability::Journal => Self::Journal,
            Durability::Memory => Self::Memory,
            Durability::Broker => Self::Broker,
        }
    }
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

impl From<NumberMatching> for Numbers {
    fn from(matching: NumberMatching) -> Self {
        match matching {
            NumberMatching::Value => Self::Value,
            NumberMatching::Text => Self::Text,
        }
    }
}

impl From<Numbers> for NumberMatching {
    fn from(numbers: Numbers) -> Self {
        match numbers {
            Numbers::Value => Self::Value,
            Numbers::Text => Self::Text,
        }
    }
}

pub(super) fn default_bus() -> String {
    crate::catalog::DEFAULT_BUS.into()
}

/// Nothing to say: `{}`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

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

/// A schedule: a rule that fires by itself. Its events go to its targets, and to no other rule.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// When it is due, in UTC: `rate(5 minutes)`, or `cron(...)` with six fields, as in `cron(0 2 * * ? *)`.
    pub expression: String,
    /// Its bus.
    #[serde(default = "default_bus")]
    pub bus: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether it fires.
    #[serde(default)]
    pub state: ScheduleState,
    /// How many due times that were missed while nothing ran are caught up, the last ones: at most 1000.
    #[serde(default = "one")]
    pub catch_up: u32,
    /// Where its events go.
    #[serde(default)]
    pub targets: Vec<RuleTarget>,
}

fn one() -> u32 {
    1
}

/// Whether a schedule fires.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleState {
    /// It does.
    #[default]
    Enabled,
    /// It rests; what is due meanwhile is not caught up.
    Disabled,
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

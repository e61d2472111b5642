//! What callers of the EventBridge API have made: buses, rules with targets, archives, connections and the rest.
//!
//! In: an action's checked members. Out: an answer, and the records that change. Promises: pure; an action that fails
//! changes nothing. Leaves to others: bounds of members (`api::model`), the disk (`store`), compiling (`control`).

mod archives;
mod arn;
mod buses;
mod connections;
mod destinations;
mod endpoints;
mod error;
mod lower;
mod page;
mod partners;
mod permissions;
pub mod policy;
mod replays;
mod rules;
mod tags;
mod targets;

pub use arn::{Arn, Scope};
pub use connections::Waiting;
pub use error::ApiError;
pub use lower::{Lowered, Mapping, TWIN, lower};

use crate::catalog::{Catalog, DEFAULT_BUS};
use crate::pattern::Pattern;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Members by name.
pub type Members = Map<String, Value>;

/// Who manages the rules that stand in files, as `ManagedBy` says it.
pub const FILES: &str = "sluice.files";

/// Everything that was made, of all accounts and regions.
#[derive(Default)]
pub struct Resources {
    /// When the first of it was made: the age of default buses, milliseconds since the epoch.
    pub begun: i64,
    buses: BTreeMap<(Scope, String), Bus>,
    rules: BTreeMap<(Scope, String, String), Rule>,
    items: BTreeMap<(Kind, Scope, String), Item>,
    /// Of files' schedules, by bus and name.
    fired: BTreeMap<(String, String), Fired>,
}

/// An event bus.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Bus {
    /// Milliseconds since the epoch.
    created: i64,
    /// Milliseconds since the epoch.
    modified: i64,
    /// Description, KmsKeyIdentifier, DeadLetterConfig and LogConfig, as they came.
    #[serde(default)]
    settings: Members,
    /// The resource policy's statements.
    #[serde(default)]
    policy: Option<Value>,
    #[serde(default)]
    tags: Vec<(String, String)>,
}

/// A rule.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// When it was made or enabled, or its schedule changed: milliseconds since the epoch.
    pub since: i64,
    /// EventPattern, ScheduleExpression, State, Description and RoleArn, as they came.
    pub settings: Members,
    /// The due time of its schedule that was seen to last.
    #[serde(default)]
    pub fired: Option<i64>,
    /// Who but its caller may change it.
    #[serde(default)]
    pub managed_by: Option<String>,
    /// In order of insertion, as they came; each with a number that it keeps.
    #[serde(default)]
    targets: Vec<(u64, Members)>,
    /// The number of the next target.
    #[serde(default)]
    numbered: u64,
    #[serde(default)]
    tags: Vec<(String, String)>,
    /// The pattern, read.
    #[serde(skip)]
    pattern: Option<Arc<Pattern>>,
}

/// What is neither a bus nor a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// An archive.
    Archive,
    /// A replay.
    Replay,
    /// A connection.
    Connection,
    /// An API destination.
    ApiDestination,
}

/// An archive, a replay, a connection or an API destination.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Its ARN.
    pub arn: String,
    /// As the service calls it.
    pub state: String,
    /// Why it is so.
    #[serde(default)]
    pub state_reason: Option<String>,
    /// Milliseconds since the epoch, as all of its times.
    pub created: i64,
    modified: i64,
    /// When a connection was authorised.
    #[serde(default)]
    pub authorized: Option<i64>,
    /// The time of the last event that a replay sent.
    #[serde(default)]
    pub reached: Option<i64>,
    /// When a replay ended.
    #[serde(default)]
    pub finished: Option<i64>,
    /// Events that a replay sent, some of them twice where it was broken off.
    #[serde(default)]
    pub sent: u64,
    /// At most how many it has to send, once that is known.
    #[serde(default)]
    pub expected: Option<u64>,
    /// Its members, as they came.
    pub settings: Members,
    /// Members with secrets in them.
    #[serde(default)]
    pub secret: Sealed,
    /// The folder of an archive that a file declares.
    #[serde(skip)]
    pub of_files: Option<String>,
}

/// How far a schedule of a file has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fired {
    /// Its expression: with another one it begins anew.
    pub expression: String,
    /// When it was first seen, milliseconds since the epoch.
    pub since: i64,
    /// The due time that was seen to last.
    pub at: Option<i64>,
}

/// Members that are never printed.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(Members);

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl std::ops::Deref for Sealed {
    type Target = Members;

    fn deref(&self) -> &Members {
        &self.0
    }
}

impl std::ops::DerefMut for Sealed {
    fn deref_mut(&mut self) -> &mut Members {
        &mut self.0
    }
}

/// What a record is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Key {
    /// The beginning.
    Begun,
    /// A bus, by name.
    Bus(Scope, String),
    /// A rule, by bus and name.
    Rule(Scope, String, String),
    /// Something else, by name.
    Item(Kind, Scope, String),
    /// A schedule of a file, by bus and name.
    Fired(String, String),
}

/// What is kept of one thing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Record {
    /// Milliseconds since the epoch.
    Begun(i64),
    /// A bus.
    Bus(Bus),
    /// A rule.
    Rule(Rule),
    /// Something else.
    Item(Item),
    /// How far a schedule has come.
    Fired(Fired),
}

/// A record that is new or changed, or gone.
pub type Change = (Key, Option<Record>);

/// One request, its members checked against the model.
pub struct Call<'a> {
    /// The account and region that it acts in.
    pub scope: Scope,
    /// Its members.
    pub members: &'a Members,
    /// Milliseconds since the epoch.
    pub now: i64,
    /// Names what is new.
    pub id: String,
}

/// What an action did.
#[derive(Debug, Default)]
pub struct Done {
    /// Records to keep.
    pub changes: Vec<Change>,
    /// The answer's members.
    pub answer: Members,
}

/// How many of each there may be; without a number, as many as wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Buses of an account and region.
    pub buses: Option<usize>,
    /// Rules of a bus.
    pub rules: Option<usize>,
    /// Targets of a rule.
    pub targets: Option<usize>,
    /// Characters of a pattern.
    pub pattern: Option<usize>,
    /// Archives of an account and region.
    pub archives: Option<usize>,
    /// Replays of an account and region that run at a time.
    pub replays: Option<usize>,
    /// Connections of an account and region.
    pub connections: Option<usize>,
    /// API destinations of an account and region.
    pub destinations: Option<usize>,
    /// Tags of a thing.
    pub tags: Option<usize>,
}

/// All desired state, for actions to look at.
pub struct Desired<'a> {
    /// What callers have made.
    pub made: &'a Resources,
    /// What files declare.
    pub declared: &'a Catalog,
    /// Who this process is.
    pub home: &'a Scope,
    /// Bounds.
    pub quotas: Quotas,
    /// Events and bytes of an archive, by its folder.
    pub sizes: &'a dyn Fn(&str) -> (u64, u64),
}

/// A bus: its account and region, and its name there.
type At = (Scope, String);

type Outcome = Result<Done, ApiError>;

impl Desired<'_> {
    /// Does what an action wants.
    ///
    /// # Errors
    /// The service's error; nothing is to change then.
    pub fn act(&self, action: &str, call: &Call<'_>) -> Outcome {
        match action {
            "CreateEventBus" => self.create_bus(call),
            "DescribeEventBus" => self.describe_bus(call),
            "ListEventBuses" => self.list_buses(call),
            "UpdateEventBus" => self.update_bus(call),
            "DeleteEventBus" => self.delete_bus(call),
            "PutPermission" => self.put_permission(call),
            "RemovePermission" => self.remove_permission(call),
            "PutRule" => self.put_rule(call),
            "DescribeRule" => self.describe_rule(call),
            "ListRules" => self.list_rules(call),
            "EnableRule" => self.set_state(call, "ENABLED"),
            "DisableRule" => self.set_state(call, "DISABLED"),
            "DeleteRule" => self.delete_rule(call),
            "PutTargets" => self.put_targets(call),
            "RemoveTargets" => self.remove_targets(call),
            "ListTargetsByRule" => self.list_targets(call),
            "ListRuleNamesByTarget" => self.list_rule_names(call),
            "TagResource" => self.tag(call),
            "UntagResource" => self.untag(call),
            "ListTagsForResource" => self.list_tags(call),
            "CreateArchive" => self.create_archive(call),
            "DescribeArchive" => self.describe_archive(call),
            "ListArchives" => self.list_archives(call),
            "UpdateArchive" => self.update_archive(call),
            "DeleteArchive" => self.delete_archive(call),
            "StartReplay" => self.start_replay(call),
            "DescribeReplay" => self.describe_replay(call),
            "ListReplays" => self.list_replays(call),
            "CancelReplay" => self.cancel_replay(call),
            "CreateConnection" => self.create_connection(call),
            "DescribeConnection" => self.describe_connection(call),
            "ListConnections" => self.list_connections(call),
            "UpdateConnection" => self.update_connection(call),
            "DeauthorizeConnection" => self.deauthorize_connection(call),
            "DeleteConnection" => self.delete_connection(call),
            "CreateApiDestination" => self.create_destination(call),
            "DescribeApiDestination" => self.describe_destination(call),
            "ListApiDestinations" => self.list_destinations(call),
            "UpdateApiDestination" => self.update_destination(call),
            "DeleteApiDestination" => self.delete_destination(call),
            other => partners::act(other, call),
        }
    }

    /// Whether there is room for one more of a kind.
    fn quota(&self, kind: Kind, scope: &Scope) -> Result<(), ApiError> {
        let most = match kind {
            Kind::Archive => self.quotas.archives,
            Kind::Replay => None,
            Kind::Connection => self.quotas.connections,
            Kind::ApiDestination => self.quotas.destinations,
        };
        match most.is_some_and(|most| self.made.items(kind, scope).count() >= most) {
            true => Err(ApiError::too_many()),
            false => Ok(()),
        }
    }
}

impl Resources {
    /// Makes changes so.
    ///
    /// # Errors
    /// A record that cannot be used: which, and why.
    pub fn apply(&mut self, changes: Vec<Change>) -> Result<(), String> {
        changes.into_iter().try_for_each(|(key, record)| self.set(key, record).map(drop))
    }

    /// Sets one record, and gives back what was there.
    ///
    /// # Errors
    /// It cannot be used: why.
    pub fn set(&mut self, key: Key, record: Option<Record>) -> Result<Option<Record>, String> {
        Ok(match (key, record) {
            (Key::Begun, Some(Record::Begun(at))) => Some(Record::Begun(std::mem::replace(&mut self.begun, at))),
            (Key::Begun, None) => Some(Record::Begun(std::mem::take(&mut self.begun))),
            (Key::Bus(scope, name), Some(Record::Bus(bus))) => self.buses.insert((scope, name), bus).map(Record::Bus),
            (Key::Bus(scope, name), None) => self.buses.remove(&(scope, name)).map(Record::Bus),
            (Key::Rule(scope, bus, name), Some(Record::Rule(mut rule))) => {
                rule.read().map_err(|why| format!("rule {name} of bus {bus}: {why}"))?;
                self.rules.insert((scope, bus, name), rule).map(Record::Rule)
            }
            (Key::Rule(scope, bus, name), None) => self.rules.remove(&(scope, bus, name)).map(Record::Rule),
            (Key::Item(kind, scope, name), Some(Record::Item(item))) => {
                self.items.insert((kind, scope, name), item).map(Record::Item)
            }
            (Key::Item(kind, scope, name), None) => self.items.remove(&(kind, scope, name)).map(Record::Item),
            (Key::Fired(bus, name), Some(Record::Fired(fired))) => {
                self.fired.insert((bus, name), fired).map(Record::Fired)
            }
            (Key::Fired(bus, name), None) => self.fired.remove(&(bus, name)).map(Record::Fired),
            (key, Some(record)) => return Err(format!("{key:?} cannot be {record:?}")),
        })
    }

    /// Whether nothing was made.
    pub fn is_empty(&self) -> bool {
        self.buses.is_empty() && self.rules.is_empty()
    }

    /// Whether a bus was made.
    pub fn has_bus(&self, scope: &Scope, name: &str) -> bool {
        self.buses.contains_key(&(scope.clone(), name.to_owned()))
    }

    /// The keys of everything that was made.
    pub fn keys(&self) -> Vec<Key> {
        let buses = self.buses.keys().map(|(scope, name)| Key::Bus(scope.clone(), name.clone()));
        let rules = self.rules.keys().map(|(scope, bus, name)| Key::Rule(scope.clone(), bus.clone(), name.clone()));
        let items = self.items.keys().map(|(kind, scope, name)| Key::Item(*kind, scope.clone(), name.clone()));
        buses.chain(rules).chain(items).collect()
    }

    /// One of a kind, by name.
    pub fn item(&self, kind: Kind, scope: &Scope, name: &str) -> Option<&Item> {
        self.items.get(&(kind, scope.clone(), name.to_owned()))
    }

    /// All of a kind in an account and region, by name.
    fn items<'a>(&'a self, kind: Kind, scope: &Scope) -> impl Iterator<Item = (&'a str, &'a Item)> + use<'a> {
        let scope = scope.clone();
        let from = (kind, scope.clone(), String::new());
        let own = move |(of, at, _): &(Kind, Scope, String)| *of == kind && *at == scope;
        self.items.range(from..).take_while(move |(key, _)| own(key)).map(|((_, _, name), item)| (name.as_str(), item))
    }

    /// All of a kind, wherever.
    pub fn all(&self, kind: Kind) -> impl Iterator<Item = (&Scope, &str, &Item)> {
        let own = self.items.iter().filter(move |((of, ..), _)| *of == kind);
        own.map(|((_, scope, name), item)| (scope, name.as_str(), item))
    }

    /// Leaves out what callers declared: where files alone say what there is, only what runs goes on.
    pub fn only_what_runs(&mut self) {
        self.buses.clear();
        self.rules.clear();
        self.items.retain(|(kind, ..), _| *kind == Kind::Replay);
    }

    /// How far schedules of files have come, by bus and name.
    pub fn all_fired(&self) -> impl Iterator<Item = (&(String, String), &Fired)> {
        self.fired.iter()
    }

    /// How far a schedule of a file has come.
    pub fn fired(&self, bus: &str, name: &str) -> Option<&Fired> {
        self.fired.get(&(bus.to_owned(), name.to_owned()))
    }

    /// A rule that was made.
    pub fn rule(&self, scope: &Scope, bus: &str, name: &str) -> Option<&Rule> {
        self.rules.get(&(scope.clone(), bus.to_owned(), name.to_owned()))
    }

    /// The name of a bus of a scope among the buses of this process.
    pub fn key(home: &Scope, scope: &Scope, bus: &str) -> String {
        arn::bus_key(home, scope, bus)
    }

    /// All rules, wherever: account and region, bus, name.
    pub fn all_rules(&self) -> impl Iterator<Item = (&Scope, &str, &str, &Rule)> {
        self.rules.iter().map(|((scope, bus, name), rule)| (scope, bus.as_str(), name.as_str(), rule))
    }

    /// Rules of a bus, by name.
    fn rules_of<'a>(&'a self, scope: &Scope, bus: &str) -> impl Iterator<Item = (&'a str, &'a Rule)> + use<'a> {
        let (scope, bus) = (scope.clone(), bus.to_owned());
        let from = (scope.clone(), bus.clone(), String::new());
        let own = move |(at, of, _): &(Scope, String, String)| *at == scope && *of == bus;
        self.rules.range(from..).take_while(move |(key, _)| own(key)).map(|((_, _, name), rule)| (name.as_str(), rule))
    }
}

impl Call<'_> {
    /// A text, if it is there.
    fn text(&self, name: &str) -> Option<&str> {
        self.members.get(name).and_then(Value::as_str)
    }

    /// Whether a flag is set.
    fn flag(&self, name: &str) -> bool {
        self.members.get(name).and_then(Value::as_bool).unwrap_or_default()
    }

    /// The bus that `member` names, by name or ARN; the default one without it.
    fn bus(&self, member: &str) -> (Scope, String) {
        let Some(text) = self.text(member) else { return (self.scope.clone(), DEFAULT_BUS.to_owned()) };
        match Arn::parse(text).and_then(|arn| Some((arn.scope()?, arn.bus()?.to_owned()))) {
            Some(bus) => bus,
            None => (self.scope.clone(), text.to_owned()),
        }
    }

    /// The key of one of a kind.
    fn key(&self, kind: Kind, name: &str) -> Key {
        Key::Item(kind, self.scope.clone(), name.to_owned())
    }

    /// These members, where they are there.
    fn some(&self, names: &[&str]) -> Members {
        let given = |name: &&str| self.members.get(*name).map(|value| ((*name).to_owned(), value.clone()));
        names.iter().filter_map(given).collect()
    }
}

impl Done {
    /// An answer that changes nothing.
    fn answer(answer: Value) -> Self {
        let answer = if let Value::Object(members) = answer { members } else { Members::new() };
        Self { changes: Vec::new(), answer }
    }

    /// An empty answer to a change.
    fn change(key: Key, record: Option<Record>) -> Self {
        Self { changes: vec![(key, record)], answer: Members::new() }
    }

    fn with_members(self, answer: Members) -> Self {
        Self { answer, ..self }
    }

    fn with(mut self, answer: Value) -> Self {
        self.answer = Self::answer(answer).answer;
        self
    }
}

impl Record {
    /// Whether it holds what nobody else is to read.
    pub fn has_secrets(&self) -> bool {
        let parameters = |rule: &Rule| rule.targets().any(|target| target.contains_key("HttpParameters"));
        match self {
            Self::Item(item) => !item.secret.is_empty(),
            Self::Rule(rule) => parameters(rule),
            Self::Begun(_) | Self::Bus(_) | Self::Fired(_) => false,
        }
    }
}

impl Item {
    /// Something new; `resource` is the last part of its ARN.
    fn new(call: &Call<'_>, resource: String) -> Self {
        Self { arn: call.scope.arn(&resource), created: call.now, modified: call.now, ..Self::default() }
    }

    /// One of its settings.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).and_then(Value::as_str)
    }

    /// The reason of its state, as a member.
    fn reason(&self) -> Option<(String, Value)> {
        self.state_reason.as_ref().map(|why| ("StateReason".to_owned(), why.as_str().into()))
    }
}

/// Milliseconds as answers have them: seconds since the epoch.
fn timestamp(millis: i64) -> Value {
    json!(millis as f64 / 1000.0)
}

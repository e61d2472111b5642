//! Desired state: buses, targets, rules. A value; changes are commands.
//!
//! In: [`Command`]s. Out: a consistent [`Catalog`] or a reason. Promises: references resolve and no chain of buses
//! ends where it began. Leaves to others: compiling (`plan`), reading files (`config`).

pub mod aws;
mod invocation;
mod kept;
mod target;

pub use aws::{Access, Call, Keys, Resource, SigV4};
pub use invocation::{Invocation, Parameter};
pub use kept::{ARCHIVE_RULE, Archive, FILE_ARCHIVE_TARGETS, FILE_ARCHIVES, Timed, without_replays};
pub use target::{
    Destination, HttpAuth, HttpMethod, HttpTarget, KafkaKey, KafkaTarget, MARK, NatsAuth, NatsClient, NatsTarget,
    OAuth, Order, Rate, RetryPolicy, Secret, Storage, Target, TargetKind, Tls, TopicShape, is_log_group,
};

use crate::pattern::{Numbers, Pattern};
use crate::transform::Input;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// Whether a text can be an account: twelve digits.
pub fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

/// Whether a text can be a region, as `us-east-1`.
pub fn is_region(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=64).contains(&text.len()) && text.bytes().all(letter)
}

/// The bus that exists without being declared.
pub const DEFAULT_BUS: &str = "default";

/// Most alternatives of a bus's rules together, `$or` multiplied out; each takes some hundred bytes when compiled.
pub const MAX_ALTERNATIVES: usize = 1_000_000;

/// All desired state.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    buses: BTreeMap<String, Bus>,
    targets: BTreeMap<String, Target>,
    rules: BTreeMap<(String, String), Rule>,
    scheduled: BTreeMap<(String, String), Scheduled>,
    archives: BTreeMap<String, Archive>,
    timed: BTreeMap<(String, String), Timed>,
    /// How many the rules of each bus have.
    alternatives: BTreeMap<String, usize>,
}

/// What has an event when its request is answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// The disk.
    #[default]
    Journal,
    /// Memory.
    Memory,
    /// The bus's own topic or stream.
    Broker,
}

/// An event bus.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Bus {
    /// Unique.
    pub name: String,
    /// How its rules compare plain numbers.
    pub numbers: Numbers,
    /// What has an event that comes over HTTP when its request is answered.
    pub durability: Durability,
    /// What keeps the events of archives that callers make on it.
    pub archives: Storage,
}

/// Whether a rule matches and delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RuleState {
    /// Matches and delivers.
    #[default]
    Enabled,
    /// Rests.
    Disabled,
    /// Matches and counts, delivers nothing.
    Shadow,
}

/// What a source does with a record that is no valid event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnInvalid {
    /// Keeps it in the dead-letter queue.
    #[default]
    DeadLetter,
    /// Drops and counts it.
    Drop,
    /// Stops the process with an error.
    Fail,
}

/// A rule on a bus.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Unique on its bus.
    pub name: String,
    /// The bus.
    pub bus: String,
    /// Whether it is active.
    pub state: RuleState,
    /// What it matches.
    pub pattern: Arc<Pattern>,
    /// The pattern as it was given.
    pub text: Arc<str>,
    /// What it is for, and whom to ask.
    pub about: About,
    /// Where matches go, in order.
    pub targets: Vec<RuleTarget>,
}

/// What a rule does with an event that is for it alone: of its schedule, or of a function that leads there.
#[derive(Debug, Clone)]
pub struct Scheduled {
    /// The rule's name.
    pub name: String,
    /// Its bus.
    pub bus: String,
    /// Where the event goes, in order.
    pub targets: Vec<RuleTarget>,
}

/// What people say about a rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// What it is for.
    pub description: Option<String>,
    /// Whom to ask.
    pub owner: Option<String>,
}

/// A target of a rule with the form it receives.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleTarget {
    /// Name of the target.
    pub target: String,
    /// The form.
    pub input: Input,
}

/// A change of desired state.
#[derive(Debug, Clone)]
pub enum Command {
    /// Creates or replaces a bus.
    PutBus(Bus),
    /// Creates or replaces a target.
    PutTarget(Target),
    /// Creates or replaces a rule; chains of buses must not end where they began.
    PutRule(Rule),
    /// The same where they may: as with the service, a limit of hops ends what goes in circles.
    AddRule(Rule),
    /// Creates or replaces what a schedule does.
    PutScheduled(Scheduled),
    /// Creates or replaces an archive, with its rule and its target.
    PutArchive(Archive),
    /// Creates or replaces a schedule, with what it does.
    PutTimed(Timed),
}

/// What a command did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Something new.
    Created,
    /// Something else under a known name.
    Replaced,
}

/// Why a command cannot be applied; the catalog is as before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatalogError {
    /// The bus does not exist.
    UnknownBus(String),
    /// The target does not exist.
    UnknownTarget(String),
    /// Buses feed each other in a ring; from the first bus back to it.
    Loop(Vec<String>),
    /// A bus cannot take dead letters.
    DeadLetterIsBus(String),
    /// A rule has too many alternatives beside the others of its bus: how many, how many they have, and the bus.
    TooManyAlternatives(usize, usize, String),
}

impl fmt::Display for CatalogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownBus(name) => write!(f, "bus `{name}` does not exist"),
            Self::UnknownTarget(name) => write!(f, "target `{name}` does not exist"),
            Self::Loop(buses) => write!(f, "events would go in circles: {}", buses.join(" -> ")),
            Self::DeadLetterIsBus(name) => write!(f, "target `{name}` is a bus and cannot take dead letters"),
            Self::TooManyAlternatives(own, others, bus) => write!(
                f,
                "the pattern has {own} alternatives, `$or` multiplied out, and the other rules of bus `{bus}` have {others}: \
                 more than {MAX_ALTERNATIVES} together"
            ),
        }
    }
}

impl std::error::Error for CatalogError {}

impl Catalog {
    /// An empty catalog with the default bus.
    pub fn new() -> Self {
        let mut catalog = Self::default();
        let bus = Bus { name: DEFAULT_BUS.into(), ..Bus::default() };
        catalog.buses.insert(DEFAULT_BUS.into(), bus);
        catalog
    }

    /// Buses by name.
    pub fn buses(&self) -> impl Iterator<Item = &Bus> {
        self.buses.values()
    }

    /// A bus.
    pub fn bus(&self, name: &str) -> Option<&Bus> {
        self.buses.get(name)
    }

    /// Targets by name.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.targets.values()
    }

    /// Rules by bus and name.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.values()
    }

    /// What schedules do, by bus and rule.
    pub fn scheduled(&self) -> impl Iterator<Item = &Scheduled> {
        self.scheduled.values()
    }

    /// Archives by name.
    pub fn archives(&self) -> impl Iterator<Item = &Archive> {
        self.archives.values()
    }

    /// An archive.
    pub fn archive(&self, name: &str) -> Option<&Archive> {
        self.archives.get(name)
    }

    /// Schedules by bus and name.
    pub fn timed(&self) -> impl Iterator<Item = &Timed> {
        self.timed.values()
    }

    /// A schedule of a bus.
    pub fn timed_rule(&self, bus: &str, name: &str) -> Option<&Timed> {
        self.timed.get(&(bus.to_owned(), name.to_owned()))
    }

    /// A rule of a bus.
    pub fn rule(&self, bus: &str, name: &str) -> Option<&Rule> {
        self.rules.get(&(bus.to_owned(), name.to_owned()))
    }

    /// What has an event of a bus that comes over HTTP when its request is answered.
    pub fn durability(&self, bus: &str) -> Durability {
        self.buses.get(bus).map(|bus| bus.durability).unwrap_or_default()
    }

    /// Whether a bus of this name exists.
    pub fn has_bus(&self, name: &str) -> bool {
        self.buses.contains_key(name)
    }

    /// Applies a command.
    ///
    /// # Errors
    /// [`CatalogError`]; nothing has changed then.
    pub fn apply(&mut self, command: Command) -> Result<Change, CatalogError> {
        let replaced = match command {
            Command::PutBus(bus) => self.buses.insert(bus.name.clone(), bus).is_some(),
            Command::PutTarget(target) => {
                self.check_target(&target)?;
                self.targets.insert(target.name.clone(), target).is_some()
            }
            Command::PutRule(rule) => {
                self.check_rule(&rule)?;
                self.put_rule(rule)?
            }
            Command::AddRule(rule) => {
                self.bus_exists(&rule.bus)?;
                rule.targets.iter().try_for_each(|target| self.target(&target.target).map(drop))?;
                self.put_rule(rule)?
            }
            Command::PutScheduled(scheduled) => {
                self.bus_exists(&scheduled.bus)?;
                scheduled.targets.iter().try_for_each(|target| self.target(&target.target).map(drop))?;
                self.scheduled.insert((scheduled.bus.clone(), scheduled.name.clone()), scheduled).is_some()
            }
            Command::PutArchive(archive) => {
                self.bus_exists(&archive.bus)?;
                self.apply(Command::PutTarget(archive.target()))?;
                self.apply(Command::PutRule(archive.rule()))?;
                self.archives.insert(archive.name.clone(), archive).is_some()
            }
            Command::PutTimed(timed) => {
                self.apply(Command::PutScheduled(timed.scheduled()))?;
                self.timed.insert((timed.bus.clone(), timed.name.clone()), timed).is_some()
            }
        };
        Ok(if replaced { Change::Replaced } else { Change::Created })
    }

    fn bus_exists(&self, name: &str) -> Result<(), CatalogError> {
        let known = self.buses.contains_key(name);
        known.then_some(()).ok_or_else(|| CatalogError::UnknownBus(name.to_owned()))
    }

    /// A target.
    ///
    /// # Errors
    /// It does not exist.
    pub fn target(&self, name: &str) -> Result<&Target, CatalogError> {
        self.targets.get(name).ok_or_else(|| CatalogError::UnknownTarget(name.to_owned()))
    }

    fn check_target(&self, target: &Target) -> Result<(), CatalogError> {
        if let TargetKind::Bus(bus) = &target.kind {
            self.bus_exists(bus)?;
        }
        if let Some(name) = &target.dead_letter
            && let TargetKind::Bus(_) = self.target(name)?.kind
        {
            return Err(CatalogError::DeadLetterIsBus(name.clone()));
        }
        Ok(())
    }

    fn check_rule(&self, rule: &Rule) -> Result<(), CatalogError> {
        self.bus_exists(&rule.bus)?;
        for target in &rule.targets {
            if let TargetKind::Bus(to) = &self.target(&target.target)?.kind
                && let Some(mut way) = self.way(to, &rule.bus)
            {
                way.insert(0, rule.bus.clone());
                return Err(CatalogError::Loop(way));
            }
        }
        Ok(())
    }

    fn put_rule(&mut self, rule: Rule) -> Result<bool, CatalogError> {
        let key = (rule.bus.clone(), rule.name.clone());
        let own = |rule: &Rule| rule.pattern.alternatives.len();
        let all = self.alternatives.entry(rule.bus.clone()).or_default();
        let others = *all - self.rules.get(&key).map_or(0, own);
        if others + own(&rule) > MAX_ALTERNATIVES {
            return Err(CatalogError::TooManyAlternatives(own(&rule), others, rule.bus));
        }
        *all = others + own(&rule);
        Ok(self.rules.insert(key, rule).is_some())
    }

    /// The buses that lead from one bus to another, both included.
    fn way(&self, from: &str, to: &str) -> Option<Vec<String>> {
        let mut seen = BTreeSet::from([from.to_owned()]);
        let mut todo = vec![vec![from.to_owned()]];
        while let Some(way) = todo.pop() {
            let at = way.last()?.clone();
            if at == to {
                return Some(way);
            }
            for rule in self.rules.values().filter(|rule| rule.bus == at) {
                for target in &rule.targets {
                    if let Some(TargetKind::Bus(next)) = self.targets.get(&target.target).map(|t| &t.kind)
                        && seen.insert(next.clone())
                    {
                        let mut way = way.clone();
                        way.push(next.clone());
                        todo.push(way);
                    }
                }
            }
        }
        None
    }
}

//! From what callers made to what runs: buses, rules and targets of a catalog, beside those of files.
//!
//! Files are in every account and region, so a bus of theirs has their rules wherever callers made rules on it.

use super::archives::MANAGER;
use super::arn::bus_key;
use super::policy::{Asked, Principal, Verdict};
use super::{Arn, Kind, Members, Resources, Rule, Scope, targets};
use crate::catalog::{
    ARCHIVE_RULE, Access, Bus, Catalog, Command, KafkaTarget, MARK, Resource, RetryPolicy, RuleState, RuleTarget,
    Scheduled, Target, TargetKind, aws, is_log_group,
};
use crate::transform::{Input, JsonPath};
use crate::{catalog, pattern::Numbers};
use serde_json::Value;
use siphasher::sip::SipHasher13;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::time::Duration;

/// What stands for an ARN that nothing here has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mapping {
    /// Pairs of an ARN, in which `*` stands for any text, and the name of a declared target. The first that fits counts.
    pub arns: Vec<(String, String)>,
    /// How services of AWS are reached, if they are.
    pub aws: Option<Access>,
    /// Organisations by account, where policies of buses are enforced.
    pub enforced: Option<BTreeMap<String, String>>,
}

impl Mapping {
    fn target(&self, arn: &str) -> Option<&str> {
        self.arns.iter().find(|(glob, _)| fits(glob, arn)).map(|(_, name)| name.as_str())
    }
}

/// What a catalog became, and what of it does not run.
pub struct Lowered {
    /// Everything that runs.
    pub catalog: Catalog,
    /// Rules that do not, and why.
    pub skipped: Vec<String>,
}

/// Puts what callers made beside what files declare.
pub fn lower(made: &Resources, declared: &Catalog, home: &Scope, mapping: &Mapping) -> Lowered {
    let known = declared.targets().map(|target| target.name.clone()).collect();
    let (catalog, skipped) = (declared.clone(), Vec::new());
    let mut lowering = Lowering { catalog, made, declared, home, mapping, skipped, known };
    if made.is_empty() {
        return Lowered { catalog: lowering.catalog, skipped: lowering.skipped };
    }
    let ruled = made.rules.keys().map(|(scope, bus, _)| (scope, bus));
    let buses: BTreeSet<(&Scope, &String)> = made.buses.keys().map(|(scope, bus)| (scope, bus)).chain(ruled).collect();
    for (scope, bus) in &buses {
        lowering.bus(scope, bus);
    }
    for ((scope, bus, name), rule) in &made.rules {
        if buses.contains(&(scope, bus)) {
            lowering.rule(scope, bus, name, rule);
        }
    }
    Lowered { catalog: lowering.catalog, skipped: lowering.skipped }
}

struct Lowering<'a> {
    catalog: Catalog,
    made: &'a Resources,
    declared: &'a Catalog,
    home: &'a Scope,
    mapping: &'a Mapping,
    skipped: Vec<String>,
    /// Names of targets that are there already.
    known: BTreeSet<String>,
}

impl Lowering<'_> {
    fn command(&mut self, what: impl FnOnce() -> String, command: Command) {
        if let Err(why) = self.catalog.apply(command) {
            self.skipped.push(format!("{}: {why}", what()));
        }
    }

    /// A bus of a scope, with the rules that files have for it; for one at home also its twin with those of files
    /// alone, which other scopes see.
    fn bus(&mut self, scope: &Scope, name: &str) {
        let key = bus_key(self.home, scope, name);
        if scope == self.home {
            self.copy(name, &elsewhere(name));
            if !self.declared.has_bus(name) {
                self.command(|| format!("bus {name}"), Command::PutBus(Bus { name: key, ..Bus::default() }));
            }
        } else {
            self.copy(name, &key);
        }
    }

    /// A bus under another name, with the rules that files have for it.
    fn copy(&mut self, name: &str, key: &str) {
        let like = self.declared.bus(name);
        let bus = Bus {
            name: key.to_owned(),
            numbers: like.map_or_else(Numbers::default, |bus| bus.numbers),
            // A topic or stream of its own has the bus at home only.
            durability: like
                .map(|bus| bus.durability)
                .filter(|kept| *kept != catalog::Durability::Broker)
                .unwrap_or_default(),
            archives: catalog::Storage::Disk,
        };
        self.command(|| format!("bus {key}"), Command::PutBus(bus));
        let rules: Vec<_> = self.declared.rules().filter(|rule| rule.bus == name).cloned().collect();
        for rule in rules {
            let rule = catalog::Rule { bus: key.to_owned(), ..rule };
            self.command(|| format!("rule {} of bus {key}", rule.name.clone()), Command::AddRule(rule.clone()));
        }
    }

    fn rule(&mut self, scope: &Scope, bus: &str, name: &str, rule: &Rule) {
        let key = bus_key(self.home, scope, bus);
        if self.declared.rule(bus, name).is_some() || self.declared.timed_rule(bus, name).is_some() {
            return self.skipped.push(format!("rule {name} of bus {key}: a file has a rule of this name"));
        }
        let targets: Vec<RuleTarget> = match rule.managed_by.as_deref() {
            Some(MANAGER) => self.archive(scope, bus, name).into_iter().collect(),
            _ => rule.targets().map(|target| self.target(scope, target)).collect(),
        };
        if rule.setting("ScheduleExpression").is_some() && rule.is_enabled() {
            let scheduled = Scheduled { name: name.to_owned(), bus: key.clone(), targets: targets.clone() };
            self.command(|| format!("rule {name} of bus {key}"), Command::PutScheduled(scheduled));
        }
        let Some(pattern) = rule.pattern().cloned() else { return };
        let state = if rule.is_enabled() { RuleState::Enabled } else { RuleState::Disabled };
        let made = catalog::Rule {
            name: name.to_owned(),
            bus: key.clone(),
            state,
            pattern,
            text: rule.setting("EventPattern").unwrap_or_default().into(),
            about: catalog::About { description: rule.setting("Description").map(str::to_owned), owner: None },
            targets,
        };
        self.command(|| format!("rule {name} of bus {key}"), Command::AddRule(made));
    }

    /// The archive that a rule keeps events in.
    fn archive(&mut self, scope: &Scope, bus: &str, rule: &str) -> Option<RuleTarget> {
        let name = rule.strip_prefix(ARCHIVE_RULE)?;
        let item = self.made.item(Kind::Archive, scope, name)?;
        let storage = self.declared.bus(bus).map(|bus| bus.archives.clone()).unwrap_or_default();
        let kind = TargetKind::Archive { folder: item.folder(scope, name), storage, days: item.days() };
        // No caller's target has such a name.
        let target = format!("{}{MARK}archive", item.arn);
        let made = Target { name: target.clone(), ..plain(kind) };
        self.command(|| format!("archive {name}"), Command::PutTarget(made));
        Some(RuleTarget { target, input: Input::Event })
    }

    fn target(&mut self, scope: &Scope, target: &Members) -> RuleTarget {
        let arn = targets::text(target, "Arn").unwrap_or_default();
        let (input, unfit) = match Rule::input(target) {
            Ok(input) => (input, None),
            Err(why) => (Input::Event, Some(TargetKind::Nowhere(why.to_string()))),
        };
        let queue = queue(target);
        let declared = self.stands_for(arn).and_then(|name| self.declared.target(name).ok());
        // A topic's ARN says which topic, a function's which function: each is a target of its own.
        let single = declared.and_then(|declared| match &declared.kind {
            TargetKind::Kafka(kafka) => topic(arn).filter(|topic| kafka.topic != *topic).map(|topic| {
                let kind = TargetKind::Kafka(KafkaTarget { topic: topic.to_owned(), ..kafka.clone() });
                Target { kind, ..declared.clone() }
            }),
            TargetKind::Http(http) if http.on_success.is_some() || http.on_failure.is_some() => Some(declared.clone()),
            _ => None,
        });
        let own = match (declared, unfit) {
            (Some(_), None) if let Some(target) = single => target,
            (Some(declared), None) if !target.contains_key("RetryPolicy") && queue.is_none() => {
                return RuleTarget { target: declared.name.clone(), input };
            }
            (Some(declared), None) => declared.clone(),
            (_, Some(kind)) => plain(kind),
            (None, None) => plain(self.kind(scope, arn, target)),
        };
        let dead_letter = queue.and_then(|arn| self.queue(scope, arn));
        let mut name = name(arn, target);
        // What one account may not, or has written down in vain, is nothing to others.
        if matches!(own.kind, TargetKind::Nowhere(_) | TargetKind::Forbidden(_)) {
            name = format!("{name}{MARK}{}", scope.account);
        }
        if self.known.insert(name.clone()) {
            let target = Target {
                name: name.clone(),
                retry: retry(target, own.retry),
                dead_letter: dead_letter.or(own.dead_letter),
                ..own
            };
            self.command(|| format!("target {name}"), Command::PutTarget(target.clone()));
        }
        RuleTarget { target: name, input }
    }

    /// The declared target that an ARN names or is mapped to.
    fn stands_for<'n>(&'n self, arn: &'n str) -> Option<&'n str> {
        self.mapping.target(arn).or_else(|| arn.strip_prefix("arn:sluice:target:::"))
    }

    /// A target that takes dead letters; none where nothing here has that ARN, so that the bus's own queue does.
    fn queue(&mut self, scope: &Scope, arn: &str) -> Option<String> {
        if let Some(name) = self.stands_for(arn).filter(|name| self.declared.target(name).is_ok()) {
            return Some(name.to_owned());
        }
        let kind = self.kind(scope, arn, &Members::new());
        // Of the services of AWS only a queue has room for what is said of a dead letter.
        let keeps = match &kind {
            TargetKind::Nowhere(_) | TargetKind::Forbidden(_) | TargetKind::Bus(_) => false,
            TargetKind::Http(http) => {
                http.call.as_ref().is_none_or(|call| matches!(call.resource, Resource::Queue(..)))
            }
            _ => true,
        };
        if !keeps {
            return None;
        }
        if self.known.insert(arn.to_owned()) {
            let target = Target { name: arn.to_owned(), ..plain(kind) };
            self.command(|| format!("target {arn}"), Command::PutTarget(target));
        }
        Some(arn.to_owned())
    }

    /// What an ARN leads to, for a target with these members.
    fn kind(&self, scope: &Scope, text: &str, target: &Members) -> TargetKind {
        if let Some(name) = self.stands_for(text) {
            return TargetKind::Nowhere(format!("target {name} is not declared under `targets`"));
        }
        let Some(arn) = Arn::parse(text) else { return TargetKind::Nowhere(format!("{text} is no ARN")) };
        if let Some(why) = self.forbidden(scope, text, &arn) {
            return TargetKind::Forbidden(why);
        }
        if let Some(bus) = arn.bus() {
            let key = arn.scope().map(|scope| bus_key(self.home, &scope, bus));
            return match key.filter(|key| self.catalog.has_bus(key)) {
                Some(key) => TargetKind::Bus(key),
                None => TargetKind::Nowhere(format!("bus {bus} does not exist in {} of {}", arn.region, arn.account)),
            };
        }
        if arn.of("api-destination/").is_some() {
            let endpoint = self.made.endpoint(text, target.get("HttpParameters"));
            return endpoint.map_or_else(TargetKind::Nowhere, |endpoint| TargetKind::Http(Box::new(endpoint)));
        }
        let group = arn.resource.strip_prefix("log-group:").filter(|_| arn.service == "logs");
        if let Some(group) =
            group.map(|group| group.strip_suffix(":*").unwrap_or(group)).filter(|name| is_log_group(name))
        {
            return TargetKind::Log { group: group.to_owned() };
        }
        let made = self.mapping.aws.as_ref().and_then(|aws| aws.target(text, parameters(target)));
        if let Some(made) = made {
            return made.map_or_else(TargetKind::Nowhere, |endpoint| TargetKind::Http(Box::new(endpoint)));
        }
        let service = arn.service;
        let or = if aws::SERVICES.contains(&service) { ", or set `aws` to reach the service itself" } else { "" };
        TargetKind::Nowhere(format!(
            "nothing here stands for {text} ({service}, called from {}); map it to a target with `arn_map` in the \
             configuration{or}",
            scope.region
        ))
    }
}

impl Lowering<'_> {
    /// Why events may not go from an account to what another one has of EventBridge; where policies are enforced, that of a
    /// bus must allow it.
    fn forbidden(&self, scope: &Scope, text: &str, arn: &Arn<'_>) -> Option<String> {
        let organizations = self.mapping.enforced.as_ref()?;
        let to = arn.scope().filter(|to| arn.service == "events" && to.account != scope.account)?;
        let who = Principal {
            account: scope.account.clone(),
            arn: scope.root_arn(&scope.account),
            organization: organizations.get(&scope.account).cloned(),
        };
        let asked = Asked { who: &who, action: "events:PutEvents", resource: text, about: &[] };
        let allowed = arn.bus().is_some_and(|bus| self.made.verdict(&to, bus, &asked) == Verdict::Allowed);
        (!allowed)
            .then(|| format!("account {} may not put events onto {text}: its policy does not allow it", scope.account))
    }
}

/// What the names of twins begin with: they stand for a bus in scopes where callers have made nothing on it.
pub const TWIN: &str = "*:";

fn elsewhere(bus: &str) -> String {
    format!("{TWIN}{bus}")
}

impl Resources {
    /// The bus that events for `name` come to in a scope; `None` where there is none.
    pub fn route(catalog: &Catalog, home: &Scope, scope: &Scope, name: &str) -> Option<String> {
        let own = bus_key(home, scope, name);
        [own, elsewhere(name), name.to_owned()].into_iter().find(|key| catalog.has_bus(key))
    }
}

/// What a target says of requests to services of AWS.
fn parameters(target: &Members) -> aws::Parameters {
    let text = |block: &str, name: &str| target.get(block)?.get(name)?.as_str().filter(|text| !text.is_empty());
    aws::Parameters {
        group: text("SqsParameters", "MessageGroupId").map(str::to_owned),
        key: text("KinesisParameters", "PartitionKeyPath").and_then(|path| JsonPath::parse(path).ok()),
    }
}

/// The topic of a topic's ARN: `topic/CLUSTER/UUID/TOPIC`.
fn topic(arn: &str) -> Option<&str> {
    let path = Arn::parse(arn).filter(|arn| arn.service == "kafka")?.resource.strip_prefix("topic/")?;
    path.splitn(3, '/').nth(2).filter(|topic| !topic.is_empty())
}

fn plain(kind: TargetKind) -> Target {
    Target {
        name: String::new(),
        kind,
        retry: RetryPolicy::default(),
        ordering: catalog::Order::default(),
        dead_letter: None,
    }
}

/// The ARN, and a mark of what else makes the target: rules that want the same share one.
fn name(arn: &str, target: &Members) -> String {
    let own = |name: &&str| target.contains_key(*name);
    let mut hash = SipHasher13::new();
    let mut any = false;
    for member in ["RetryPolicy", "DeadLetterConfig", "HttpParameters", "SqsParameters", "KinesisParameters"] {
        if own(&member) {
            any = true;
            (member, target[member].to_string()).hash(&mut hash);
        }
    }
    if any { format!("{arn}{MARK}{:016x}", hash.finish()) } else { arn.to_owned() }
}

/// What a target says of retrying, over what holds otherwise.
fn retry(target: &Members, base: RetryPolicy) -> RetryPolicy {
    let number = |name: &str| target.get("RetryPolicy")?.get(name).and_then(Value::as_u64);
    RetryPolicy {
        max_attempts: number("MaximumRetryAttempts").and_then(|n| u32::try_from(n).ok()).unwrap_or(base.max_attempts),
        max_age: number("MaximumEventAgeInSeconds").map_or(base.max_age, Duration::from_secs),
        ..base
    }
}

fn queue(target: &Members) -> Option<&str> {
    target.get("DeadLetterConfig")?.get("Arn")?.as_str().filter(|arn| !arn.is_empty())
}

/// Whether a text fits a glob, in which `*` stands for any text.
fn fits(glob: &str, text: &str) -> bool {
    let mut parts = glob.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

//! The compiled form of a catalog: what workers read. Never changes (I4).
//!
//! In: [`Catalog`]. Out: [`Plan`]. Promises: pure, so the same catalog and seed give the same decisions.

use crate::catalog::{Bus, Catalog, RuleState, RuleTarget, Target, TargetKind};
use crate::matcher::{Builder, Matcher};
use crate::transform::Input;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A bus of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BusId(pub u32);

/// A target of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TargetId(pub u32);

/// Everything that routing needs, immutable.
pub struct Plan {
    /// Counts swaps from 1; a plan that was never published has 0.
    pub generation: u64,
    /// Indexed by [`BusId`].
    pub buses: Vec<BusPlan>,
    /// Indexed by [`TargetId`].
    pub targets: Vec<Target>,
    names: HashMap<String, BusId>,
}

/// One bus's rules, compiled together.
pub struct BusPlan {
    /// The bus.
    pub name: Arc<str>,
    /// Gives numbers into `rules`.
    pub matcher: Matcher,
    /// Enabled and shadow rules.
    pub rules: Vec<RulePlan>,
    /// Rules that rest.
    pub disabled: usize,
    /// What rules do when their schedules fire, by name.
    pub scheduled: HashMap<Arc<str>, RulePlan>,
}

/// One rule's outcome.
pub struct RulePlan {
    /// The rule.
    pub name: Arc<str>,
    /// As in the EventBridge API.
    pub arn: Arc<str>,
    /// Counts, does not deliver.
    pub shadow: bool,
    /// In the rule's order.
    pub targets: Vec<PlannedTarget>,
}

/// A target of a rule, resolved.
pub struct PlannedTarget {
    /// Into [`Plan::targets`].
    pub target: TargetId,
    /// The bus, where the target is one.
    pub bus: Option<BusId>,
    /// What it receives.
    pub input: Input,
}

/// Who we are in ARNs and envelopes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Twelve digits.
    pub account: String,
    /// As in `us-east-1`.
    pub region: String,
}

impl Default for Identity {
    fn default() -> Self {
        Self { account: "000000000000".into(), region: "us-east-1".into() }
    }
}

impl Identity {
    /// The account and region, and the name there, of a bus of this process: its own name at home, `REGION:NAME` or
    /// `ACCOUNT:REGION:NAME` elsewhere. Names themselves have no colon.
    pub fn split_bus<'k>(&'k self, key: &'k str) -> ((&'k str, &'k str), &'k str) {
        let mut parts = key.rsplitn(3, ':');
        let bus = parts.next().unwrap_or(key);
        let region = parts.next().unwrap_or(&self.region);
        ((parts.next().unwrap_or(&self.account), region), bus)
    }

    /// Account and region.
    pub fn scope(&self) -> (&str, &str) {
        (&self.account, &self.region)
    }

    /// The ARN of a rule of a bus of this process.
    pub fn rule_arn(&self, bus: &str, rule: &str) -> String {
        let (scope, bus) = self.split_bus(bus);
        rule_arn(scope, bus, rule)
    }
}

/// The partition that a region is in.
pub fn partition(region: &str) -> &'static str {
    match region {
        region if region.starts_with("cn-") => "aws-cn",
        region if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    }
}

/// The ARN of something of EventBridge in an account and region.
pub fn arn((account, region): (&str, &str), resource: &str) -> String {
    format!("arn:{}:events:{region}:{account}:{resource}", partition(region))
}

/// The ARN of a rule, which leaves out the default bus.
pub fn rule_arn(scope: (&str, &str), bus: &str, rule: &str) -> String {
    match bus {
        crate::catalog::DEFAULT_BUS => arn(scope, &format!("rule/{rule}")),
        _ => arn(scope, &format!("rule/{bus}/{rule}")),
    }
}

impl Plan {
    /// A plan without buses: what is in effect before the first one is published.
    pub fn empty() -> Self {
        Self { generation: 0, buses: Vec::new(), targets: Vec::new(), names: HashMap::new() }
    }

    /// The targets that events of a bus may come to, through other buses too.
    pub fn reached(&self, bus: &str) -> HashSet<&str> {
        let mut reached = HashSet::new();
        let mut buses: Vec<BusId> = self.bus(bus).into_iter().collect();
        let mut seen: HashSet<BusId> = buses.iter().copied().collect();
        while let Some(BusId(bus)) = buses.pop() {
            let bus = &self.buses[bus as usize];
            for target in bus.rules.iter().chain(bus.scheduled.values()).flat_map(|rule| &rule.targets) {
                reached.insert(self.targets[target.target.0 as usize].name.as_str());
                buses.extend(target.bus.filter(|bus| seen.insert(*bus)));
            }
        }
        reached
    }

    /// The bus of a name.
    pub fn bus(&self, name: &str) -> Option<BusId> {
        self.names.get(name).copied()
    }
}

/// Compiles a catalog, whose references are known to resolve. `seed` keys the hashes that event data meets.
pub fn compile(catalog: &Catalog, identity: &Identity, seed: u64) -> Plan {
    let names: HashMap<String, BusId> =
        (0..).zip(catalog.buses()).map(|(n, bus)| (bus.name.clone(), BusId(n))).collect();
    let targets: Vec<Target> = catalog.targets().cloned().collect();
    let ids = (0..).zip(&targets).map(|(n, target)| (target.name.as_str(), TargetId(n))).collect();
    let found = Found { identity, names: &names, targets: &targets, ids };
    let mut buses: Vec<_> = catalog.buses().map(|bus| Compiling::new(bus, seed)).collect();
    for rule in catalog.rules() {
        let Some(&BusId(bus)) = names.get(&rule.bus) else { continue };
        let bus = &mut buses[bus as usize];
        if rule.state == RuleState::Disabled {
            bus.disabled += 1;
            continue;
        }
        bus.builder.add(&rule.pattern);
        bus.rules.push(found.rule((&rule.bus, &rule.name), rule.state == RuleState::Shadow, &rule.targets));
    }
    for scheduled in catalog.scheduled() {
        let Some(&BusId(bus)) = names.get(&scheduled.bus) else { continue };
        let rule = found.rule((&scheduled.bus, &scheduled.name), false, &scheduled.targets);
        buses[bus as usize].scheduled.insert(Arc::clone(&rule.name), rule);
    }
    let buses = buses.into_iter().map(Compiling::build).collect();
    Plan { generation: 0, buses, targets, names }
}

/// A bus whose rules are being put together.
struct Compiling<'a> {
    name: &'a str,
    builder: Builder,
    rules: Vec<RulePlan>,
    disabled: usize,
    scheduled: HashMap<Arc<str>, RulePlan>,
}

impl<'a> Compiling<'a> {
    fn new(bus: &'a Bus, seed: u64) -> Self {
        let builder = Builder::new(seed, bus.numbers);
        Self { name: &bus.name, builder, rules: Vec::new(), disabled: 0, scheduled: HashMap::new() }
    }

    fn build(self) -> BusPlan {
        let Self { name, builder, rules, disabled, scheduled } = self;
        BusPlan { name: name.into(), matcher: builder.build(), rules, disabled, scheduled }
    }
}

/// Where names lead.
struct Found<'a> {
    identity: &'a Identity,
    names: &'a HashMap<String, BusId>,
    targets: &'a [Target],
    ids: HashMap<&'a str, TargetId>,
}

impl Found<'_> {
    fn rule(&self, (bus, name): (&str, &str), shadow: bool, targets: &[RuleTarget]) -> RulePlan {
        let planned = targets.iter().filter_map(|target| {
            let id = *self.ids.get(target.target.as_str())?;
            let bus = match &self.targets[id.0 as usize].kind {
                TargetKind::Bus(name) => self.names.get(name).copied(),
                _ => None,
            };
            Some(PlannedTarget { target: id, bus, input: target.input.clone() })
        });
        let arn = self.identity.rule_arn(bus, name).into();
        RulePlan { name: name.into(), arn, shadow, targets: planned.collect() }
    }
}

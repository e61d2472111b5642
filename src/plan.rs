//! The compiled form of a catalog: what workers read. Never changes (I4).
//!
//! In: [`Catalog`]. Out: [`Plan`]. Promises: pure, so the same catalog and seed give the same decisions.

use crate::catalog::{Catalog, RuleState, Target, TargetKind};
use crate::matcher::{Builder, Matcher};
use crate::transform::Input;
use std::collections::HashMap;
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
    /// The ARN of a rule.
    pub fn rule_arn(&self, bus: &str, rule: &str) -> String {
        let Self { account, region } = self;
        match bus {
            crate::catalog::DEFAULT_BUS => format!("arn:aws:events:{region}:{account}:rule/{rule}"),
            _ => format!("arn:aws:events:{region}:{account}:rule/{bus}/{rule}"),
        }
    }
}

impl Plan {
    /// A plan without buses: what is in effect before the first one is published.
    pub fn empty() -> Self {
        Self { generation: 0, buses: Vec::new(), targets: Vec::new(), names: HashMap::new() }
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
    let ids: HashMap<&str, TargetId> =
        (0..).zip(&targets).map(|(n, target)| (target.name.as_str(), TargetId(n))).collect();
    let mut buses: Vec<_> = catalog.buses().map(|bus| (bus, Builder::new(seed, bus.numbers), Vec::new(), 0)).collect();
    for rule in catalog.rules() {
        let Some(&BusId(bus)) = names.get(&rule.bus) else { continue };
        let (_, builder, rules, disabled) = &mut buses[bus as usize];
        if rule.state == RuleState::Disabled {
            *disabled += 1;
            continue;
        }
        builder.add(&rule.pattern);
        let planned = rule.targets.iter().filter_map(|target| {
            let id = *ids.get(target.target.as_str())?;
            let bus = match &targets[id.0 as usize].kind {
                TargetKind::Bus(name) => names.get(name).copied(),
                _ => None,
            };
            Some(PlannedTarget { target: id, bus, input: target.input.clone() })
        });
        rules.push(RulePlan {
            name: rule.name.as_str().into(),
            arn: identity.rule_arn(&rule.bus, &rule.name).into(),
            shadow: rule.state == RuleState::Shadow,
            targets: planned.collect(),
        });
    }
    let buses = buses.into_iter().map(|(bus, builder, rules, disabled)| BusPlan {
        name: bus.name.as_str().into(),
        matcher: builder.build(),
        rules,
        disabled,
    });
    Plan { generation: 0, buses: buses.collect(), targets, names }
}

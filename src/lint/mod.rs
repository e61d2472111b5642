//! What is wrong with rules that are valid: rules that cannot match, that match everything, that say the same.
//!
//! In: a [`Catalog`]. Out: [`Finding`]s, each with its code, place and remedy. Promises: what is said is proved of all
//! events (`pattern::relate`), or of the events that were given as a sample. Leaves to others: files and lines (`config`).

mod portable;
mod relations;

use crate::catalog::{Catalog, Rule, RuleState};
use crate::pattern::relate::{Normal, nothing};
use crate::pattern::{Condition, Numbers, Test};
use std::collections::BTreeSet;

/// Codes and what they mean.
pub const CODES: [(&str, &str); 12] = [
    ("L0301", "the rule can never match"),
    ("L0302", "a branch of `$or` can never match"),
    ("L0303", "a list takes the place of another one of the same field"),
    ("L0304", "two rules have the same pattern"),
    ("L0305", "two rules have patterns that match the same events"),
    ("L0306", "another rule sends everything that this one does"),
    ("L0307", "the rule matches every event that has the members of an EventBridge event"),
    ("L0308", "no sampled event has the field"),
    ("L0309", "no target receives what the rule matches"),
    ("L0311", "the pattern is longer than the service takes"),
    ("L0312", "more rules than the service takes"),
    ("L0313", "what the service does not have or does not document"),
];

/// What is wrong with a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// One of [`CODES`].
    pub code: &'static str,
    /// The rule's bus and name.
    pub rule: (String, String),
    /// Where in the rule.
    pub spot: Spot,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
    /// The field that no sampled event has.
    pub unseen: Option<String>,
}

/// A place in a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spot {
    /// A byte of its pattern text.
    Pattern(usize),
    /// Its list of targets.
    Targets,
}

/// What is looked for beside what is always.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Limits of the service.
    pub portable: bool,
    /// Paths of a sample of events.
    pub sample: Option<Sample>,
}

/// Where the events of a sample have values.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// How many events there were.
    pub events: u64,
    /// The paths with values.
    pub paths: BTreeSet<Vec<u8>>,
}

/// Looks at every rule of a catalog. Findings come in the order of bus and rule.
pub fn lint(catalog: &Catalog, options: &Options) -> Vec<Finding> {
    let mut findings = Vec::new();
    for bus in catalog.buses() {
        for rule in catalog.rules().filter(|rule| rule.bus == bus.name) {
            alone(rule, bus.numbers, options, &mut findings);
        }
        let rules: Vec<&Rule> =
            catalog.rules().filter(|rule| rule.bus == bus.name && rule.state != RuleState::Disabled).collect();
        relations::look(&rules, bus.numbers, &mut findings);
        if options.portable {
            portable::bus(&rules, &mut findings);
        }
    }
    findings.sort_by(|a, b| a.rule.cmp(&b.rule));
    findings
}

fn finding(code: &'static str, rule: &Rule, spot: Spot, message: String, help: impl Into<String>) -> Finding {
    Finding { code, rule: (rule.bus.clone(), rule.name.clone()), spot, message, help: help.into(), unseen: None }
}

/// What can be said of a rule without any other.
fn alone(rule: &Rule, numbers: Numbers, options: &Options, findings: &mut Vec<Finding>) {
    let alternatives = &rule.pattern.alternatives;
    let dead: Vec<Option<&Condition>> = alternatives
        .iter()
        .map(|alternative| alternative.conditions.iter().find(|condition| nothing(&condition.tests)))
        .collect();
    let code = if dead.iter().all(Option::is_some) { "L0301" } else { "L0302" };
    let mut told = BTreeSet::new();
    for condition in dead.into_iter().flatten().filter(|condition| told.insert(condition.at)) {
        let what = if code == "L0301" { "the rule can never match" } else { "this branch of `$or` can never match" };
        let message = format!("{what}: no number lies in the range that `{}` must lie in", path(condition));
        findings.push(finding(code, rule, Spot::Pattern(condition.at), message, "give the range some width"));
    }
    for &(before, after) in &rule.pattern.replaced {
        let name = alternatives
            .iter()
            .flat_map(|alternative| &alternative.conditions)
            .find(|condition| condition.at == after)
            .map_or_else(|| "a field".to_owned(), |condition| format!("`{}`", path(condition)));
        let message = format!("two lists for {name}: the later one takes the place of this one, they do not add up");
        let help = "a field has one list; both bounds of a range stand in one `numeric`, other conditions in branches of `$or`";
        findings.push(finding("L0303", rule, Spot::Pattern(before), message, help));
    }
    if Normal::of(&rule.pattern, numbers).always() {
        let at = alternatives.iter().find_map(|alternative| alternative.conditions.first()).map_or(0, |first| first.at);
        let message = "the rule matches every event of its bus that has the members of an EventBridge event".to_owned();
        findings.push(finding("L0307", rule, Spot::Pattern(at), message, "name values that only some events have"));
    }
    if rule.targets.is_empty() && rule.state == RuleState::Enabled {
        let message = "no target receives what the rule matches".to_owned();
        findings.push(finding(
            "L0309",
            rule,
            Spot::Targets,
            message,
            "add `targets:`, or set `state: shadow` to count only",
        ));
    }
    if let Some(sample) = &options.sample {
        unseen(rule, sample, findings);
    }
    if options.portable {
        portable::rule(rule, findings);
    }
}

/// Fields that no event of a sample has.
fn unseen(rule: &Rule, sample: &Sample, findings: &mut Vec<Finding>) {
    let mut told = BTreeSet::new();
    for condition in rule.pattern.alternatives.iter().flat_map(|alternative| &alternative.conditions) {
        let wanted = !condition.tests.contains(&Test::Exists(false));
        if wanted && !sample.paths.contains(&*condition.path) && told.insert(&condition.path) {
            let message = format!("none of the {} sampled events has a value at `{}`", sample.events, path(condition));
            let help = "check the name, or sample more events";
            let found = finding("L0308", rule, Spot::Pattern(condition.at), message, help);
            findings.push(Finding { unseen: Some(path(condition)), ..found });
        }
    }
}

/// A condition's path as text.
fn path(condition: &Condition) -> String {
    String::from_utf8_lossy(&condition.path).into_owned()
}

//! Limits of the service that Sluice does not have: what to change before rules move there.
//!
//! Source: the service's quotas page ("Amazon EventBridge quotas"); all but the targets of a rule can be raised on request.

use super::{Finding, Spot, finding};
use crate::catalog::Rule;
use crate::pattern::{AnythingBut, Test};
use std::collections::BTreeSet;

/// What events of the service have at their top.
const ENVELOPE: [&str; 10] =
    ["version", "id", "detail-type", "source", "account", "time", "region", "resources", "detail", "replay-name"];
const PATTERN: usize = 2048;
const TARGETS: usize = 5;
const WILDCARD_RULES: usize = 30;
const RULES: usize = 300;

/// What one rule says.
pub fn rule(rule: &Rule, findings: &mut Vec<Finding>) {
    let length = rule.text.chars().count();
    if length > PATTERN {
        let message = format!("the pattern has {length} characters; the service takes {PATTERN}");
        let help = "split the rule, or ask AWS for a higher limit";
        findings.push(finding("L0311", rule, Spot::Pattern(0), message, help));
    }
    if rule.targets.len() > TARGETS {
        let message = format!("the rule has {} targets; the service takes {TARGETS}", rule.targets.len());
        findings.push(finding("L0312", rule, Spot::Targets, message, "make a second rule with the same pattern"));
    }
    let mut told = BTreeSet::new();
    for condition in rule.pattern.alternatives.iter().flat_map(|alternative| &alternative.conditions) {
        let path = String::from_utf8_lossy(&condition.path);
        let top = path.split('.').next().unwrap_or_default();
        if !ENVELOPE.contains(&top) && told.insert(condition.at) {
            let message = format!("events of the service have no field `{top}` beside `detail`");
            let help = format!("if `detail.{path}` is meant, put the condition into `detail`");
            findings.push(finding("L0313", rule, Spot::Pattern(condition.at), message, help));
        }
    }
    let exactly = rule
        .pattern
        .alternatives
        .iter()
        .flat_map(|alternative| &alternative.conditions)
        .find(|condition| condition.tests.iter().any(|test| matches!(test, Test::Exactly(_))));
    if let Some(condition) = exactly {
        let message = "the service does not document `exactly`".to_owned();
        findings.push(finding("L0313", rule, Spot::Pattern(condition.at), message, "write the text alone"));
    }
}

/// What the rules of a bus say together.
pub fn bus(rules: &[&Rule], findings: &mut Vec<Finding>) {
    if let Some(rule) = rules.get(RULES) {
        let message = format!("rule {} of {} on this bus; the service takes {RULES}", RULES + 1, rules.len());
        findings.push(finding(
            "L0312",
            rule,
            Spot::Pattern(0),
            message,
            "use a second bus, or ask AWS for a higher limit",
        ));
    }
    let wild: Vec<&&Rule> = rules.iter().filter(|rule| has_wildcard(rule)).collect();
    if let Some(rule) = wild.get(WILDCARD_RULES) {
        let message = format!(
            "rule {} of {} with a wildcard on this bus; the service takes {WILDCARD_RULES}",
            WILDCARD_RULES + 1,
            wild.len()
        );
        findings.push(finding("L0312", rule, Spot::Pattern(0), message, "use `prefix` or `suffix` where they do"));
    }
}

fn has_wildcard(rule: &Rule) -> bool {
    let conditions = rule.pattern.alternatives.iter().flat_map(|alternative| &alternative.conditions);
    conditions
        .flat_map(|condition| &*condition.tests)
        .any(|test| matches!(test, Test::Wildcard(_) | Test::AnythingBut(AnythingBut::Wildcard(_))))
}

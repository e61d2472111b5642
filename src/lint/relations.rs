//! Rules of one bus that say what others say already.
//!
//! Not every pair is compared: a rule that matches all that another one does matches an event made for that other one,
//! so the matcher finds the few that may.

use super::{Finding, Spot, finding};
use crate::catalog::Rule;
use crate::matcher::{Builder, Judge};
use crate::pattern::relate::Normal;
use crate::pattern::{Alternative, Numbers};
use std::collections::HashMap;

/// Rules that one rule is compared with, of those that match what was made for it.
const COMPARED: usize = 10_000;

/// Looks for pairs among the rules of a bus that are not disabled.
pub fn look(rules: &[&Rule], numbers: Numbers, findings: &mut Vec<Finding>) {
    let mut first: HashMap<&str, &Rule> = HashMap::new();
    let mut different: Vec<(&Rule, Normal)> = Vec::new();
    for &rule in rules {
        let normal = Normal::of(&rule.pattern, numbers);
        match first.get(&*rule.text) {
            // What can never match is told of already.
            _ if normal.never() => {}
            Some(other) => findings.push(same(rule, other)),
            None => {
                first.insert(&rule.text, rule);
                different.push((rule, normal));
            }
        }
    }
    compare(&different, numbers, findings);
}

/// Rules of different texts.
fn compare(rules: &[(&Rule, Normal)], numbers: Numbers, findings: &mut Vec<Finding>) {
    let mut builder = Builder::new(0, numbers);
    for (rule, _) in rules {
        builder.add(&rule.pattern);
    }
    let matcher = builder.build();
    let mut judge = Judge::new(&matcher);
    for (n, (rule, normal)) in rules.iter().enumerate() {
        let mut wider = None;
        for other in candidates(&mut judge, n, normal).into_iter().filter(|&other| other != n).take(COMPARED) {
            let (of, wide) = &rules[other];
            let sends = sends(of, rule);
            // Of rules that say the same, the later ones are told of the first.
            if (other > n && (wider.is_some() || !sends)) || !wide.covers(normal) {
                continue;
            }
            match (normal.covers(wide), other < n) {
                (true, true) => {
                    findings.push(same(rule, of));
                    wider = None;
                    break;
                }
                (true, false) => {}
                (false, _) if sends => wider = wider.or(Some(of)),
                (false, _) => {}
            }
        }
        if let Some(wider) = wider {
            let message = format!("rule `{}` matches all that this one does and has its targets", wider.name);
            let help = "each such event is delivered twice: remove one of the rules, or make the wide one narrower";
            findings.push(finding("L0306", rule, Spot::Pattern(0), message, help));
        }
    }
}

/// The rules that match every event made for one of them.
fn candidates(judge: &mut Judge<'_>, rule: usize, normal: &Normal) -> Vec<usize> {
    let mut candidates: Option<Vec<usize>> = None;
    for event in normal.witnesses() {
        let Ok(matched) = judge.matches(&event) else { continue };
        let among = |rule: usize| u32::try_from(rule).is_ok_and(|rule| matched.binary_search(&rule).is_ok());
        match &mut candidates {
            _ if !among(rule) => {}
            None => candidates = Some(matched.iter().map(|&rule| rule as usize).collect()),
            Some(all) => all.retain(|&rule| among(rule)),
        }
        if candidates.as_ref().is_some_and(|all| all.len() <= 1) {
            break;
        }
    }
    candidates.unwrap_or_default()
}

fn same(rule: &Rule, other: &Rule) -> Finding {
    let lists = |rule: &Rule| {
        let conditions = |alternative: &Alternative| {
            alternative.conditions.iter().map(|it| (it.path.clone(), it.tests.clone())).collect::<Vec<_>>()
        };
        rule.pattern.alternatives.iter().map(conditions).collect::<Vec<_>>()
    };
    let help = match sends(other, rule) {
        true => "each such event is delivered twice: remove one of the rules",
        false => "one rule can have the targets of both",
    };
    match lists(rule) == lists(other) {
        true => {
            let message = format!("the pattern is that of rule `{}`", other.name);
            finding("L0304", rule, Spot::Pattern(0), message, help)
        }
        false => {
            let message = format!("the pattern matches the same events as that of rule `{}`", other.name);
            finding("L0305", rule, Spot::Pattern(0), message, help)
        }
    }
}

/// Whether a rule has every target of another, in the same form.
fn sends(wide: &Rule, narrow: &Rule) -> bool {
    wide.state == narrow.state
        && !narrow.targets.is_empty()
        && narrow.targets.iter().all(|target| wide.targets.contains(target))
}

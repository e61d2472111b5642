//! Rules of one bus that say what others say already.

use super::{Finding, Spot, finding};
use crate::catalog::Rule;
use crate::pattern::relate::{covers, nothing};
use crate::pattern::{Alternative, Condition, Numbers, Test};
use std::collections::{BTreeSet, HashMap};

/// What an alternative is filed under: a path, or a path with a plain text where that is all its list has.
type Key<'r> = (&'r [u8], Option<&'r [u8]>);

/// Looks for pairs among the rules of a bus that are not disabled.
pub fn look(rules: &[&Rule], numbers: Numbers, findings: &mut Vec<Finding>) {
    let mut first: HashMap<&str, &Rule> = HashMap::new();
    let rules: Vec<&Rule> = rules
        .iter()
        .copied()
        // What can never match is told of already.
        .filter(|rule| rule.pattern.alternatives.iter().any(possible))
        .filter(|rule| match first.get(&*rule.text) {
            Some(other) => {
                findings.push(same(rule, other));
                false
            }
            None => first.insert(&rule.text, rule).is_none(),
        })
        .collect();
    different(&rules, numbers, findings);
}

/// Rules of different texts.
fn different(rules: &[&Rule], numbers: Numbers, findings: &mut Vec<Finding>) {
    let filed = Filed::new(rules);
    let covered: Vec<BTreeSet<usize>> = (0..rules.len())
        .map(|n| {
            let mut others = filed.candidates(&rules[n].pattern.alternatives);
            others.retain(|&other| other != n && covers(&rules[other].pattern, &rules[n].pattern, numbers));
            others
        })
        .collect();
    for (n, rule) in rules.iter().enumerate() {
        // Of rules that say the same, the later ones are told of the first.
        let equal = covered[n].iter().copied().find(|&other| other < n && covered[other].contains(&n));
        if let Some(other) = equal {
            findings.push(same(rule, rules[other]));
            continue;
        }
        let wider = covered[n].iter().copied().find(|&other| !covered[other].contains(&n) && sends(rules[other], rule));
        if let Some(other) = wider {
            let message = format!("rule `{}` matches all that this one does and has its targets", rules[other].name);
            let help = "each such event is delivered twice: remove one of the rules, or make the wide one narrower";
            findings.push(finding("L0306", rule, Spot::Pattern(0), message, help));
        }
    }
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

fn possible(alternative: &Alternative) -> bool {
    !alternative.conditions.iter().any(|condition| nothing(&condition.tests))
}

/// Rules by what each of their alternatives asks, so that not every pair is compared.
struct Filed<'r>(HashMap<Key<'r>, Vec<usize>>);

impl<'r> Filed<'r> {
    fn new(rules: &[&'r Rule]) -> Self {
        let mut often: HashMap<Key<'r>, usize> = HashMap::new();
        let all =
            || rules.iter().enumerate().flat_map(|(n, rule)| rule.pattern.alternatives.iter().map(move |it| (n, it)));
        for (_, alternative) in all() {
            alternative.conditions.iter().flat_map(keys).for_each(|key| *often.entry(key).or_default() += 1);
        }
        let mut filed: HashMap<Key<'r>, Vec<usize>> = HashMap::new();
        for (n, alternative) in all() {
            // The condition that fewest have.
            let weight = |condition: &&Condition| keys(condition).map(|key| often[&key]).sum::<usize>();
            for key in alternative.conditions.iter().min_by_key(weight).into_iter().flat_map(keys) {
                filed.entry(key).or_default().push(n);
            }
        }
        Self(filed)
    }

    /// The rules that may cover the alternatives: they can only ask for fields, and for texts, that these ask for, too.
    fn candidates(&self, alternatives: &'r [Alternative]) -> BTreeSet<usize> {
        let of = |alternative: &'r Alternative| -> BTreeSet<usize> {
            let keys = alternative.conditions.iter().flat_map(|it| keys(it).chain([(&*it.path, None)]));
            keys.filter_map(|key| self.0.get(&key)).flatten().copied().collect()
        };
        let mut sets = alternatives.iter().map(of);
        let first = sets.next().unwrap_or_default();
        sets.fold(first, |all, set| all.intersection(&set).copied().collect())
    }
}

/// Where a condition is filed: under each of its texts, where it has nothing else, or under its path.
fn keys(condition: &Condition) -> impl Iterator<Item = Key<'_>> {
    let text = |test| match test {
        &Test::Text(ref text, None) => Some(text.as_slice()),
        _ => None,
    };
    let texts: Option<Vec<&[u8]>> = condition.tests.iter().map(text).collect();
    let path = &*condition.path;
    let keys: Vec<Key<'_>> = match texts {
        Some(texts) => texts.into_iter().map(|text| (path, Some(text))).collect(),
        None => vec![(path, None)],
    };
    keys.into_iter()
}

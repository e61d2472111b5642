//! Which rules, and which of their `$or` branches, the tests matched.
//!
//! In: the catalog, then each test's event and the rules that matched it. Out: a [`Coverage`]. Promises: branches are
//! judged one by one, so one that only matches what another does counts as matched. Leaves to others: printing.

use crate::catalog::{Catalog, RuleState};
use crate::config::{At, Places};
use crate::event::Tree;
use crate::pattern::{Alternative, Condition, Numbers, Pattern, matches};
use std::collections::{BTreeSet, HashMap};

/// Rules with the branches that no test matched yet.
pub struct Watch {
    rules: Vec<Watched>,
    /// By bus and name, into `rules`.
    index: HashMap<(String, String), usize>,
}

struct Watched {
    name: String,
    numbers: Numbers,
    /// Each branch by itself, and whether a test matched it.
    branches: Vec<(Pattern, bool)>,
}

/// What the tests covered.
pub struct Coverage {
    /// Branches that some test matched.
    pub covered: usize,
    /// All branches; a rule without `$or` is one.
    pub branches: usize,
    /// Where nothing matched.
    pub missed: Vec<Missed>,
}

/// A rule or a branch that no test matched.
pub struct Missed {
    /// The rule.
    pub rule: String,
    /// The branch from 1, of how many, and the conditions that only it has; nothing for a whole rule.
    pub branch: Option<(usize, usize, String)>,
    /// Where it stands.
    pub at: Option<At>,
}

impl Coverage {
    /// In percent, rounded; 100 only when nothing is missed.
    pub fn percent(&self) -> usize {
        match self.branches {
            0 => 100,
            all if self.covered == all => 100,
            all => ((self.covered * 200 + all) / (all * 2)).min(99),
        }
    }

    /// Whether it is at least so many percent, not rounded.
    pub fn reaches(&self, percent: u8) -> bool {
        self.covered * 100 >= self.branches * usize::from(percent)
    }
}

impl Watch {
    /// Every rule that can match.
    pub fn new(catalog: &Catalog) -> Self {
        let numbers: HashMap<&str, Numbers> = catalog.buses().map(|bus| (bus.name.as_str(), bus.numbers)).collect();
        let (mut rules, mut index) = (Vec::new(), HashMap::new());
        for rule in catalog.rules().filter(|rule| rule.state != RuleState::Disabled) {
            let alone = |alternative: &Alternative| Pattern {
                alternatives: vec![alternative.clone()],
                replaced: BTreeSet::new(),
            };
            index.insert((rule.bus.clone(), rule.name.clone()), rules.len());
            rules.push(Watched {
                name: rule.name.clone(),
                numbers: numbers.get(rule.bus.as_str()).copied().unwrap_or_default(),
                branches: rule.pattern.alternatives.iter().map(|branch| (alone(branch), false)).collect(),
            });
        }
        Self { rules, index }
    }

    /// Takes note of an event and of the rules of its bus that matched it.
    pub fn note(&mut self, bus: &str, matched: &[String], event: &[u8]) {
        let Ok(event) = Tree::parse(event) else { return };
        for name in matched {
            let Some(&n) = self.index.get(&(bus.to_owned(), name.clone())) else { continue };
            let Watched { numbers, branches, .. } = &mut self.rules[n];
            for (branch, seen) in branches.iter_mut().filter(|(_, seen)| !seen) {
                *seen = matches(branch, &event, *numbers);
            }
        }
    }

    /// What was covered.
    pub fn coverage(&self, places: &Places) -> Coverage {
        let (mut covered, mut branches, mut missed) = (0, 0, Vec::new());
        for rule in &self.rules {
            let count = rule.branches.len();
            let seen = rule.branches.iter().filter(|(_, seen)| *seen).count();
            covered += seen;
            branches += count;
            if seen == 0 {
                let at = places.rule(&rule.name, "pattern");
                missed.push(Missed { rule: rule.name.clone(), branch: None, at });
                continue;
            }
            for (n, _) in rule.branches.iter().enumerate().filter(|(_, (_, seen))| !seen) {
                let own = own(rule, n);
                let at = own.iter().map(|condition| condition.at).min().and_then(|at| places.pattern(&rule.name, at));
                let text: Vec<String> = own.iter().map(|condition| show(condition)).collect();
                missed.push(Missed { rule: rule.name.clone(), branch: Some((n + 1, count, text.join(", "))), at });
            }
        }
        missed.sort_by_key(|missed| missed.at.as_ref().map(|at| (at.file.clone(), at.line, at.column)));
        Coverage { covered, branches, missed }
    }
}

/// The conditions of a branch that not every branch of the rule has.
fn own(rule: &Watched, n: usize) -> Vec<&Condition> {
    let conditions = |pattern: &'_ Pattern| pattern.alternatives.iter().flat_map(|a| &a.conditions).cloned().collect();
    let all: Vec<Vec<Condition>> = rule.branches.iter().map(|(pattern, _)| conditions(pattern)).collect();
    let shared = |condition: &Condition| all.iter().all(|list| list.contains(condition));
    let branch = rule.branches[n].0.alternatives.iter().flat_map(|alternative| &alternative.conditions);
    branch.filter(|condition| !shared(condition)).collect()
}

fn show(condition: &Condition) -> String {
    let tests: Vec<String> = condition.tests.iter().map(ToString::to_string).collect();
    format!("{} {}", String::from_utf8_lossy(&condition.path), tests.join(" or "))
}

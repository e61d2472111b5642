//! Patterns to a matcher: fields and conditions are shared among rules.

use super::classes::Classes;
use super::condition::Condition;
use super::table::Seed;
use super::{Alternatives, Matcher, keys, tree};
use crate::event::{FieldId, PathTreeBuilder};
use crate::pattern::{Numbers, Pattern, Test};
use foldhash::quality::FixedState;
use std::collections::HashMap;
use std::sync::Arc;

/// Collects the rules of one bus.
pub struct Builder {
    seed: u64,
    numbers: Numbers,
    paths: PathTreeBuilder,
    conditions: Vec<Condition>,
    /// Conditions by what they say, so that rules share them.
    known: HashMap<(FieldId, Arc<[Test]>), u32, FixedState>,
    alternatives: Alternatives,
    rules: u32,
}

impl Builder {
    /// An empty set. `seed` keys the hashes that event data is looked up with.
    pub fn new(seed: u64, numbers: Numbers) -> Self {
        Self {
            seed,
            numbers,
            paths: PathTreeBuilder::default(),
            conditions: Vec::new(),
            known: HashMap::with_hasher(FixedState::with_seed(seed)),
            alternatives: Alternatives::default(),
            rules: 0,
        }
    }

    /// Adds a rule and returns its number; numbers are dense, from 0.
    pub fn add(&mut self, pattern: &Pattern) -> u32 {
        let rule = self.rules;
        self.rules += 1;
        // Alternatives share lists, which are looked at once.
        let mut lists: HashMap<(FieldId, *const [Test]), u32, FixedState> = HashMap::default();
        for alternative in &pattern.alternatives {
            let mut conditions = Vec::with_capacity(alternative.conditions.len());
            for condition in &alternative.conditions {
                let field = self.paths.field(&condition.path);
                let list = lists.entry((field, Arc::as_ptr(&condition.tests)));
                conditions.push(*list.or_insert_with(|| self.condition(field, &condition.tests)));
            }
            self.alternatives.push(rule, &conditions);
        }
        rule
    }

    fn condition(&mut self, field: FieldId, tests: &Arc<[Test]>) -> u32 {
        let fresh = self.conditions.len() as u32;
        let number = *self.known.entry((field, Arc::clone(tests))).or_insert(fresh);
        if number == fresh {
            self.conditions.push(Condition::new(field, Arc::clone(tests), self.numbers));
        }
        number
    }

    /// Files every alternative and finishes.
    pub fn build(self) -> Matcher {
        let Self { seed, numbers, paths, mut conditions, known, mut alternatives, .. } = self;
        drop(known);
        let anchors = keys::anchors(&conditions, numbers);
        conditions.shrink_to_fit();
        alternatives.shrink();
        let paths = paths.build();
        let classes = Classes::new(&mut conditions, paths.fields());
        let index = tree::grow(&conditions, &anchors, &alternatives, Seed::new(seed), paths.fields());
        Matcher { paths, conditions, classes, alternatives, index }
    }
}

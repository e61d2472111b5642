//! Patterns to a matcher: fields and conditions are shared among rules, alternatives filed under their pivots.

use super::condition::Condition;
use super::index::{Seed, ValueIndex, is_direct};
use super::{Alternative, Matcher};
use crate::event::FieldId;
use crate::event::PathTreeBuilder;
use crate::pattern::{Numbers, Pattern, Test};
use std::collections::HashMap;
use std::sync::Arc;

/// Collects the rules of one bus.
pub struct Builder {
    seed: u64,
    numbers: Numbers,
    paths: PathTreeBuilder,
    conditions: Vec<Condition>,
    /// Conditions by what they say, so that rules share them.
    known: HashMap<(FieldId, String), u32, Seed>,
    /// How many conditions name the same thing, by field and test.
    popularity: HashMap<(FieldId, String), u32, Seed>,
    alternatives: Vec<Alternative>,
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
            known: HashMap::with_hasher(Seed(seed)),
            popularity: HashMap::with_hasher(Seed(seed)),
            alternatives: Vec::new(),
            rules: 0,
        }
    }

    /// Adds a rule and returns its number; numbers are dense, from 0.
    pub fn add(&mut self, pattern: &Pattern) -> u32 {
        let rule = self.rules;
        self.rules += 1;
        // Alternatives share lists, which are looked at once: their conditions, and in how many alternatives.
        let mut lists: HashMap<(FieldId, *const [Test]), (u32, u32)> = HashMap::new();
        for alternative in &pattern.alternatives {
            let mut conditions = Vec::with_capacity(alternative.conditions.len());
            for condition in &alternative.conditions {
                let field = self.paths.field(&condition.path);
                let list = lists.entry((field, Arc::as_ptr(&condition.tests)));
                let (number, uses) = list.or_insert_with(|| (self.condition(field, &condition.tests), 0));
                *uses += 1;
                conditions.push(*number);
            }
            self.alternatives.push(Alternative { rule, conditions: conditions.into() });
        }
        for (number, uses) in lists.into_values() {
            let condition = &self.conditions[number as usize];
            for test in condition.tests() {
                *self.popularity.entry((condition.field, format!("{test:?}"))).or_default() += uses;
            }
        }
        rule
    }

    fn condition(&mut self, field: FieldId, tests: &Arc<[Test]>) -> u32 {
        let fresh = self.conditions.len() as u32;
        let number = *self.known.entry((field, format!("{tests:?}"))).or_insert(fresh);
        if number == fresh {
            self.conditions.push(Condition::new(field, Arc::clone(tests), self.numbers));
        }
        number
    }

    /// Files every alternative and finishes.
    pub fn build(self) -> Matcher {
        let costs: Vec<Option<u64>> = self.conditions.iter().map(|condition| self.cost(condition)).collect();
        let paths = self.paths.build();
        let mut index = ValueIndex::new(paths.fields(), Seed(self.seed));
        let mut always = Vec::new();
        for (number, alternative) in (0..).zip(&self.alternatives) {
            let pivots = alternative.conditions.iter().filter_map(|&c| Some((costs[c as usize]?, c)));
            match pivots.min() {
                Some((_, pivot)) => index.file(pivot, &self.conditions[pivot as usize], number, self.numbers),
                None => always.push(number),
            }
        }
        Matcher {
            paths,
            conditions: self.conditions,
            alternatives: self.alternatives,
            always,
            index,
            rules: self.rules,
        }
    }

    /// How much work a condition makes as a pivot; `None` where absence satisfies it.
    fn cost(&self, condition: &Condition) -> Option<u64> {
        if condition.absence {
            return None;
        }
        let tests = condition.tests();
        if !tests.iter().all(is_direct) {
            let broad = tests.iter().any(|test| matches!(test, Test::Exists(_) | Test::AnythingBut(_)));
            return Some(if broad { 2 << 32 } else { 1 << 32 });
        }
        let popularity = |test: &Test| {
            let shared = u64::from(self.popularity[&(condition.field, format!("{test:?}"))]);
            // A short affix is shared by many values.
            match test {
                Test::Prefix(operand) | Test::Suffix(operand) => shared + 64 / (operand.len() as u64 + 1),
                Test::Bool(_) | Test::Null => shared * 4,
                _ => shared,
            }
        };
        Some(tests.iter().map(popularity).sum())
    }
}

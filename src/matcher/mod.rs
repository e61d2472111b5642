//! All rules of a bus against one event, in one pass over its named fields.
//!
//! In: decoded [`Fields`]. Out: dense rule numbers. Promises: decides as [`crate::pattern::matches`] on every rule and
//! event (I6); no lock, no clock, no allocation in steady state but for rules that tie elements of arrays together.
//! Leaves to others: what a rule's number means (`plan`).
//!
//! Every alternative is filed in a tree under the condition that fewest events meet (`keys`, `tree`); the values of the
//! event find the lists that they lead to (`index`); the other conditions of what stands there are then tested, each
//! distinct condition once an event.

mod arrays;
mod build;
mod condition;
mod index;
mod intervals;
mod keys;
mod table;
mod tree;

pub use build::Builder;

use crate::event::{Fault, Fields, PathTree};
use arrays::Budget;
use condition::Condition;
use index::{Index, List, Place, ROOT};

/// The compiled rules of one bus; immutable. Made by [`Builder`].
pub struct Matcher {
    paths: PathTree,
    conditions: Vec<Condition>,
    alternatives: Alternatives,
    index: Index,
    rules: u32,
}

/// The alternatives of all rules, their conditions one after the other.
#[derive(Default)]
struct Alternatives {
    /// Rule, and where its conditions end.
    ends: Vec<(u32, u32)>,
    conditions: Vec<u32>,
}

struct Alternative<'a> {
    rule: u32,
    /// In the order of their paths' UTF-16 code units.
    conditions: &'a [u32],
}

impl Alternatives {
    fn push(&mut self, rule: u32, conditions: &[u32]) {
        self.conditions.extend_from_slice(conditions);
        self.ends.push((rule, self.conditions.len() as u32));
    }

    fn shrink(&mut self) {
        self.ends.shrink_to_fit();
        self.conditions.shrink_to_fit();
    }

    fn get(&self, number: u32) -> Alternative<'_> {
        let number = number as usize;
        let begin = if number == 0 { 0 } else { self.ends[number - 1].1 };
        let (rule, end) = self.ends[number];
        Alternative { rule, conditions: &self.conditions[begin as usize..end as usize] }
    }

    fn all(&self) -> impl Iterator<Item = Alternative<'_>> {
        (0..self.ends.len() as u32).map(|number| self.get(number))
    }
}

/// One worker's reusable memory. It fits any matcher: a larger one makes it grow.
#[derive(Default)]
pub struct Scratch {
    /// Number of the event; what carries another number is stale.
    epoch: u32,
    /// Per condition: epoch and verdict of the test of this event.
    verdicts: Vec<u32>,
    /// Per list: the epoch that last went through it.
    seen: Vec<u32>,
    /// Per alternative: the epoch that last tried its choice of array elements.
    tried: Vec<u32>,
    /// Per rule: the epoch that last matched it.
    matched: Vec<u32>,
    rules: Vec<u32>,
    budget: Budget,
}

/// Epochs leave a bit for the verdict.
const LAST_EPOCH: u32 = u32::MAX >> 1;

impl Scratch {
    fn start(&mut self, matcher: &Matcher) {
        if self.epoch == LAST_EPOCH {
            *self = Self::default();
        }
        self.epoch += 1;
        grow(&mut self.verdicts, matcher.conditions.len());
        grow(&mut self.seen, matcher.index.lists);
        grow(&mut self.tried, matcher.alternatives.ends.len());
        grow(&mut self.matched, matcher.rules as usize);
        self.rules.clear();
        self.budget = Budget::for_an_event();
    }
}

fn grow(list: &mut Vec<u32>, len: usize) {
    if list.len() < len {
        list.resize(len, 0);
    }
}

impl Matcher {
    /// The paths to decode events with.
    pub fn paths(&self) -> &PathTree {
        &self.paths
    }

    /// The rules that `event` matches, in ascending order. The event must be decoded with [`Matcher::paths`].
    ///
    /// # Errors
    /// [`FaultKind::TooManyChoices`](crate::event::FaultKind): the event's arrays make a rule too hard to decide.
    pub fn matches<'s>(&self, event: &Fields<'_>, scratch: &'s mut Scratch) -> Result<&'s [u32], Fault> {
        scratch.start(self);
        Search { matcher: self, event, scratch }.node(ROOT)?;
        scratch.rules.sort_unstable();
        Ok(&scratch.rules)
    }
}

/// One event on its way through the index.
struct Search<'m, 'e, 'b, 's> {
    matcher: &'m Matcher,
    event: &'e Fields<'b>,
    scratch: &'s mut Scratch,
}

impl Search<'_, '_, '_, '_> {
    /// Goes through what a node files; as deep as the tree, which is bounded.
    fn node(&mut self, number: usize) -> Result<(), Fault> {
        let node = &self.matcher.index.nodes[number];
        if let Some(place) = node.rest {
            self.list(place)?;
        }
        for &(condition, place) in &node.tested {
            if self.holds(condition) {
                self.list(place)?;
            }
        }
        for branch in &node.branches {
            for field in self.event.values(branch.field) {
                self.matcher.index.ask(branch, &field.value, |place| self.list(place))?;
            }
        }
        Ok(())
    }

    fn list(&mut self, place: Place) -> Result<(), Fault> {
        let index: &Index = &self.matcher.index;
        let list = index.list(place);
        if std::mem::replace(&mut self.scratch.seen[list.number], self.scratch.epoch) == self.scratch.epoch {
            return Ok(());
        }
        // Arrays can have more values than the list has alternatives.
        match list.below {
            Some(node) if index.effort(node, self.event) <= list.len() => self.node(node),
            _ => self.all(&list),
        }
    }

    fn all(&mut self, list: &List<'_>) -> Result<(), Fault> {
        for (alternative, conditions) in list.entries() {
            if conditions.iter().all(|&condition| self.holds(condition)) {
                self.choose(alternative)?;
            }
        }
        Ok(())
    }

    /// Every condition of the alternative holds by itself; whether they hold together.
    fn choose(&mut self, number: u32) -> Result<(), Fault> {
        let alternative = self.matcher.alternatives.get(number);
        let matched = &mut self.scratch.matched[alternative.rule as usize];
        if *matched == self.scratch.epoch {
            return Ok(());
        }
        if self.event.placed() {
            let tried = &mut self.scratch.tried[number as usize];
            if std::mem::replace(tried, self.scratch.epoch) == self.scratch.epoch
                || !arrays::consistent(self.matcher, &alternative, self.event, &mut self.scratch.budget)?
            {
                return Ok(());
            }
        }
        self.scratch.matched[alternative.rule as usize] = self.scratch.epoch;
        self.scratch.rules.push(alternative.rule);
        Ok(())
    }

    /// Whether some value of the event satisfies the condition by itself, or its absence does.
    fn holds(&mut self, number: u32) -> bool {
        let verdict = &mut self.scratch.verdicts[number as usize];
        if *verdict >> 1 != self.scratch.epoch {
            let (condition, event) = (&self.matcher.conditions[number as usize], self.event);
            // With arrays of objects, absence may also hold among the elements chosen: arrays.rs decides then.
            let holds = event.values(condition.field).any(|field| condition.accepts(&field.value))
                || (condition.absence && (event.placed() || !event.has(condition.field)));
            *verdict = self.scratch.epoch << 1 | u32::from(holds);
        }
        *verdict & 1 != 0
    }
}

//! All rules of a bus against one event, in one pass over its named fields.
//!
//! In: decoded [`Fields`]. Out: dense rule numbers. Promises: decides as [`crate::pattern::matches`] on every rule and
//! event (I6); no lock, no clock, no allocation in steady state but for rules that tie elements of arrays together.
//! Leaves to others: what a rule's number means (`plan`).
//!
//! Every alternative is filed under its most selective condition (its pivot); a value of the event finds the
//! alternatives filed under it; their other conditions are then tested, each distinct condition once an event.

mod arrays;
mod build;
mod condition;
mod index;

pub use build::Builder;

use crate::event::{Fault, Fields, PathTree};
use arrays::Budget;
use condition::Condition;
use index::ValueIndex;

/// The compiled rules of one bus; immutable. Made by [`Builder`].
pub struct Matcher {
    paths: PathTree,
    conditions: Vec<Condition>,
    alternatives: Vec<Alternative>,
    /// Alternatives that an event can satisfy with no value at all.
    always: Vec<u32>,
    index: ValueIndex,
    rules: u32,
}

struct Alternative {
    rule: u32,
    /// In the order of their paths' UTF-16 code units.
    conditions: Box<[u32]>,
}

/// One worker's reusable memory. It fits any matcher: a larger one makes it grow.
#[derive(Default)]
pub struct Scratch {
    /// Number of the event; what carries another number is stale.
    epoch: u32,
    /// Per condition: epoch and verdict of the test of this event.
    verdicts: Vec<(u32, bool)>,
    /// Per alternative: the epoch that last tried it.
    tried: Vec<u32>,
    /// Per rule: the epoch that last matched it.
    matched: Vec<u32>,
    rules: Vec<u32>,
    budget: Budget,
}

impl Scratch {
    fn start(&mut self, matcher: &Matcher) {
        if self.epoch == u32::MAX {
            *self = Self::default();
        }
        self.epoch += 1;
        grow(&mut self.verdicts, matcher.conditions.len());
        grow(&mut self.tried, matcher.alternatives.len());
        grow(&mut self.matched, matcher.rules as usize);
        self.rules.clear();
        self.budget = Budget::for_an_event();
    }
}

fn grow<T: Clone + Default>(list: &mut Vec<T>, len: usize) {
    if list.len() < len {
        list.resize(len, T::default());
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
        self.try_all(&self.always, event, scratch)?;
        for field in event.all() {
            self.index.candidates(field, |filed| match filed {
                index::Filed::Under(list) => self.try_all(list, event, scratch),
                index::Filed::Behind(condition, list) if self.holds(condition, event, scratch) => {
                    self.try_all(list, event, scratch)
                }
                index::Filed::Behind(..) => Ok(()),
            })?;
        }
        scratch.rules.sort_unstable();
        Ok(&scratch.rules)
    }

    fn try_all(&self, alternatives: &[u32], event: &Fields<'_>, scratch: &mut Scratch) -> Result<(), Fault> {
        for &number in alternatives {
            if std::mem::replace(&mut scratch.tried[number as usize], scratch.epoch) == scratch.epoch {
                continue;
            }
            let alternative = &self.alternatives[number as usize];
            if scratch.matched[alternative.rule as usize] == scratch.epoch
                || !alternative.conditions.iter().all(|&condition| self.holds(condition, event, scratch))
                || (event.placed() && !arrays::consistent(self, alternative, event, &mut scratch.budget)?)
            {
                continue;
            }
            scratch.matched[alternative.rule as usize] = scratch.epoch;
            scratch.rules.push(alternative.rule);
        }
        Ok(())
    }

    /// Whether some value of the event satisfies the condition by itself, or its absence does.
    fn holds(&self, number: u32, event: &Fields<'_>, scratch: &mut Scratch) -> bool {
        let (epoch, verdict) = &mut scratch.verdicts[number as usize];
        if *epoch != scratch.epoch {
            let condition = &self.conditions[number as usize];
            *epoch = scratch.epoch;
            // With arrays of objects, absence may also hold among the elements chosen: arrays.rs decides then.
            *verdict = event.values(condition.field).any(|field| condition.accepts(&field.value))
                || (condition.absence && (event.placed() || !event.has(condition.field)));
        }
        *verdict
    }
}

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

use crate::event::address::Address;
use crate::event::{self, Fault, FieldId, Fields, PathTree, Value};
use arrays::Budget;
use condition::Condition;
use index::{ANY, Branch, Entry, Index, Known, List, Place, ROOT, Runs};

/// The compiled rules of one bus; immutable. Made by [`Builder`].
pub struct Matcher {
    paths: PathTree,
    conditions: Vec<Condition>,
    alternatives: Alternatives,
    index: Index,
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
    rules: Vec<u32>,
    /// The bits of fields that lie in arrays of objects.
    placed: u32,
    /// Counters of array elements.
    hits: Vec<usize>,
    runs: Runs,
    /// The text last read as an address, by where it lies.
    address: Option<((usize, usize), Option<Address>)>,
    budget: Budget,
}

/// Epochs leave a bit for the verdict.
const LAST_EPOCH: u32 = u32::MAX >> 1;

impl Scratch {
    fn start(&mut self, matcher: &Matcher, event: &Fields<'_>) {
        if self.epoch == LAST_EPOCH {
            *self = Self::default();
        }
        self.epoch += 1;
        grow(&mut self.verdicts, matcher.conditions.len());
        grow(&mut self.seen, matcher.index.lists);
        grow(&mut self.tried, matcher.alternatives.ends.len());
        self.rules.clear();
        (self.address, self.runs, self.placed) = (None, Runs::default(), 0);
        if event.placed() {
            let placed = event.all().iter().filter(|field| field.place != event::Place::NONE);
            self.placed = placed.fold(0, |bits, field| bits | index::bit(field.id));
        }
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
        scratch.start(self, event);
        Search { matcher: self, event, scratch }.node(ROOT)?;
        scratch.rules.sort_unstable();
        scratch.rules.dedup();
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
            self.list(place, false)?;
        }
        for &(condition, place) in &node.tested {
            if self.holds(condition) {
                self.list(place, false)?;
            }
        }
        let event = self.event;
        if node.branches.len() <= event.all().len() {
            for branch in &node.branches {
                event.values(branch.field).try_for_each(|field| self.ask(branch, &field.value))?;
            }
            return Ok(());
        }
        for field in event.all() {
            if let Ok(found) = node.branches.binary_search_by_key(&field.id, |branch| branch.field) {
                self.ask(&node.branches[found], &field.value)?;
            }
        }
        Ok(())
    }

    #[inline]
    fn ask(&mut self, branch: &Branch, value: &Value<'_>) -> Result<(), Fault> {
        // One value leads to a list once, but for grams.
        let again = branch.by_gram() || self.event.count(branch.field) > 1;
        match *value {
            Value::String(text) if branch.by_address() || branch.by_gram() => {
                let known = self.known(branch, text);
                self.matcher.index.ask(branch, value, &known, |place| self.list(place, again))
            }
            _ => self.matcher.index.ask(branch, value, &Known::default(), |place| self.list(place, again)),
        }
    }

    fn known(&mut self, branch: &Branch, text: &[u8]) -> Known {
        Known {
            address: if branch.by_address() { self.address(text) } else { None },
            runs: if branch.by_gram() { self.runs(branch.field, text) } else { Runs::default() },
        }
    }

    /// Where in a text of the event grams may stand that some rule has; looked for once, as the address is.
    fn runs(&mut self, field: FieldId, text: &[u8]) -> Runs {
        if self.scratch.runs.of != (text.as_ptr() as usize, text.len()) {
            self.scratch.runs = Runs::of(text, &self.matcher.index.grams[field.0 as usize]);
        }
        self.scratch.runs
    }

    /// The address that a text of the event spells; read once where nodes ask for it one after the other.
    fn address(&mut self, text: &[u8]) -> Option<Address> {
        let at = (text.as_ptr() as usize, text.len());
        let known = self.scratch.address.filter(|known| known.0 == at);
        let known = known.unwrap_or_else(|| (at, Address::parse(text).ok()));
        self.scratch.address = Some(known);
        known.1
    }

    /// Goes through a list; once, where the event may lead there again.
    fn list(&mut self, place: Place, again: bool) -> Result<(), Fault> {
        let index: &Index = &self.matcher.index;
        let list = index.list(place);
        if again && std::mem::replace(&mut self.scratch.seen[list.number], self.scratch.epoch) == self.scratch.epoch {
            return Ok(());
        }
        // Arrays can have more values than the list has alternatives.
        match list.below {
            Some(node) if !index.exceeds(node, self.event, list.len()) => self.node(node),
            _ => self.all(&list),
        }
    }

    fn all(&mut self, list: &List<'_>) -> Result<(), Fault> {
        for entry in list.entries() {
            if entry.left.iter().all(|&condition| self.holds(condition))
                && (self.untied(&entry) || self.together(entry.alternative)?)
            {
                self.scratch.rules.push(entry.rule);
            }
        }
        Ok(())
    }

    /// Whether at most one field of an alternative lies in arrays of objects, so that its conditions cannot contradict.
    #[inline(always)]
    fn untied(&self, entry: &Entry<'_>) -> bool {
        !self.event.placed() || (entry.fields != ANY && (entry.fields & self.scratch.placed).count_ones() < 2)
    }

    /// Every condition of the alternative holds by itself; whether they hold together.
    fn together(&mut self, number: u32) -> Result<bool, Fault> {
        let tried = &mut self.scratch.tried[number as usize];
        if std::mem::replace(tried, self.scratch.epoch) == self.scratch.epoch {
            return Ok(false);
        }
        let alternative = self.matcher.alternatives.get(number);
        let Scratch { budget, hits, .. } = &mut *self.scratch;
        arrays::consistent(self.matcher, &alternative, self.event, budget, hits)
    }

    /// Whether some value of the event satisfies the condition by itself, or its absence does.
    fn holds(&mut self, number: u32) -> bool {
        let verdict = &mut self.scratch.verdicts[number as usize];
        if *verdict >> 1 != self.scratch.epoch {
            let (condition, event) = (&self.matcher.conditions[number as usize], self.event);
            // In arrays of objects, absence may also hold among the elements chosen: arrays.rs decides then.
            let holds = event.values(condition.field).any(|field| condition.accepts(&field.value))
                || (condition.absence && (event.placed_at(condition.field) || !event.has(condition.field)));
            *verdict = self.scratch.epoch << 1 | u32::from(holds);
        }
        *verdict & 1 != 0
    }
}

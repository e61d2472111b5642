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
mod classes;
mod condition;
mod flat;
mod index;
mod intervals;
mod judge;
mod keys;
mod probe;
mod table;
mod tree;

pub use build::Builder;
pub use judge::Judge;

use crate::event::{self, Fault, Fields, PathTree, Value};
use arrays::Memory;
use classes::{Class, Classes};
use condition::Condition;
use index::{ANY, Entry, Index, List, Place, ROOT, Step};
use keys::Kind;
use probe::{Asked, Found, Probes};

/// The compiled rules of one bus; immutable. Made by [`Builder`].
pub struct Matcher {
    paths: PathTree,
    conditions: Vec<Condition>,
    classes: Classes,
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
    /// Per field: what its values are, where conditions are sets.
    classes: Vec<Class>,
    /// Per list: the epoch that last went through it.
    seen: Vec<u32>,
    /// Per alternative: the epoch that last tried its choice of array elements.
    tried: Vec<u32>,
    rules: Vec<u32>,
    /// The bits of fields that lie in arrays of objects.
    placed: u32,
    arrays: Memory,
    probes: Probes,
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
        grow(&mut self.classes, matcher.paths.fields());
        grow(&mut self.seen, matcher.index.lists);
        grow(&mut self.tried, matcher.alternatives.ends.len());
        self.rules.clear();
        self.probes.start();
        self.placed = 0;
        if event.placed() {
            self.arrays.start(self.epoch, matcher);
            let placed = event.all().iter().filter(|field| field.place != event::Place::NONE);
            self.placed = placed.fold(0, |bits, field| bits | index::bit(field.id));
        }
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
        let index = &self.matcher.index;
        let node = &index.nodes[number];
        if self.ask(index.steps(node.common))? {
            return Ok(());
        }
        if let Some(place) = node.rest {
            self.list(place, false)?;
        }
        for &(condition, place) in &node.tested {
            if self.holds(condition) {
                self.list(place, false)?;
            }
        }
        self.ask(index.steps(node.steps)).map(|_| ())
    }

    /// Goes through the lists that values lead to; whether there was one.
    fn ask(&mut self, steps: &[Step]) -> Result<bool, Fault> {
        let (index, event, mark) = (&self.matcher.index, self.event, self.scratch.probes.mark());
        if steps.len() <= event.all().len() * 4 {
            for step in steps {
                let many = event.count(step.field) > 1;
                event.numbered(step.field).try_for_each(|(at, field)| self.step(*step, at, &field.value, many))?;
            }
        } else {
            for (at, field) in (0..).zip(event.all()) {
                let many = event.count(field.id) > 1;
                let first = steps.partition_point(|step| step.field < field.id);
                let own = steps[first..].iter().take_while(|step| step.field == field.id);
                own.copied().try_for_each(|step| self.step(step, at, &field.value, many))?;
            }
        }
        self.scratch.probes.look_up(mark, index);
        let mut found = false;
        for at in Probes::first(mark)..self.scratch.probes.len() {
            if let Some(Found { place, again }) = self.scratch.probes.found(at, index, |value| event.text(value)) {
                found = true;
                self.list(place, again)?;
            }
        }
        self.scratch.probes.cut(mark);
        Ok(found)
    }

    #[inline(always)]
    fn step(&mut self, step: Step, at: u32, value: &Value<'_>, many: bool) -> Result<(), Fault> {
        let index = &self.matcher.index;
        match *value {
            Value::Number(_, Some(value)) if step.kind == Kind::Range => {
                index.ranges[step.len as usize].holding(value, |place| self.list(place, many))
            }
            _ => {
                self.scratch.probes.add(index, Asked { step, value: at, many }, value);
                Ok(())
            }
        }
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

    #[inline(always)]
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
        arrays::consistent(self.matcher, &alternative, self.event, &mut self.scratch.arrays)
    }

    /// Whether some value of the event satisfies the condition by itself, or its absence does.
    fn holds(&mut self, number: u32) -> bool {
        let (condition, event) = (&self.matcher.conditions[number as usize], self.event);
        if let Some(set) = condition.set {
            let Scratch { epoch, classes, .. } = &mut *self.scratch;
            if let Some(holds) = self.matcher.classes.accepts(condition.field, set, event, *epoch, classes) {
                return holds;
            }
        }
        let verdict = &mut self.scratch.verdicts[number as usize];
        if *verdict >> 1 != self.scratch.epoch {
            // In arrays of objects, absence may also hold among the elements chosen: arrays.rs decides then.
            let holds = event.values(condition.field).any(|field| condition.accepts(&field.value))
                || (condition.absence && (event.placed_at(condition.field) || !event.has(condition.field)));
            *verdict = self.scratch.epoch << 1 | u32::from(holds);
        }
        *verdict & 1 != 0
    }
}

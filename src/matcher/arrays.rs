//! Consistency of values that lie in arrays of objects (pattern language, section 8).
//!
//! Arrays that lie in no other are left to `flat`. For the rest: the normative procedure of section 3, with three
//! additions. A choice that failed once is not tried again, where two choices are the same when they agree on every array
//! that a later path has a value in. Values in elements that the choice excludes are passed over at once. And the steps
//! of an event are bounded. Where it gives each path at most one array inside each element, an alternative meets a value
//! once for each level of arrays around it; arrays of one path spelt in several ways (equal keys, keys with dots) can make
//! the choices multiply, up to the number of elements to the power of the number of such arrays.

use super::condition::Condition;
use super::flat::{Flat, Given};
use super::{Alternative, Matcher};
use crate::event::{Fault, FaultKind, Fields, Place};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Steps that one event may take, for all alternatives: some tens of milliseconds.
const STEPS: u64 = 1 << 21;

/// The steps that an event has left.
#[derive(Default)]
pub(super) struct Budget(u64);

impl Budget {
    /// Takes a step.
    ///
    /// # Errors
    /// None is left.
    #[inline]
    pub fn step(&mut self) -> Result<(), Fault> {
        self.0 = self.0.checked_sub(1).ok_or(Fault::new(FaultKind::TooManyChoices, 0))?;
        Ok(())
    }
}

/// What the event's values are to conditions, by condition and whether what it does not accept counts.
#[derive(Default)]
struct Known(HashMap<(u32, bool), Tied>);

/// Reused memory of one worker, and what an event has left.
#[derive(Default)]
pub(super) struct Memory {
    flat: Flat,
    known: Known,
    budget: Budget,
}

impl Memory {
    /// Forgets the event before.
    pub fn start(&mut self, epoch: u32, matcher: &Matcher) {
        self.flat.start(epoch, matcher);
        self.known.0.clear();
        self.budget = Budget(STEPS);
    }
}

/// Whether values of one consistent choice satisfy all conditions. Each condition is known to hold by itself.
///
/// # Errors
/// The event offers more choices than the budget allows to try.
pub(super) fn consistent(
    matcher: &Matcher,
    alternative: &Alternative<'_>,
    event: &Fields<'_>,
    Memory { flat, known, budget }: &mut Memory,
) -> Result<bool, Fault> {
    let numbered = || alternative.conditions.iter().map(|&number| (number, &matcher.conditions[number as usize]));
    let conditions = || numbered().map(|(_, condition)| condition);
    let placed = |field| event.placed_at(field);
    let absence = conditions().any(|condition| condition.absence && placed(condition.field));
    // What a value outside of arrays satisfies restricts no other, unless another is to be absent.
    let free = |condition: &Condition| {
        let mut values = event.values(condition.field);
        !absence
            && event.loose_at(condition.field)
            && values.any(|field| field.place == Place::NONE && condition.accepts(&field.value))
    };
    let tied = || numbered().filter(|(_, condition)| placed(condition.field) && !free(condition));
    if !absence {
        if tied().nth(1).is_none() {
            return Ok(true);
        }
        let given = Given { matcher, event };
        if let Some(decided) = flat.together(given, tied().map(|(number, _)| number), budget)? {
            return Ok(decided);
        }
    }
    for (number, condition) in tied() {
        if known.0.contains_key(&(number, absence)) {
            continue;
        }
        event.values(condition.field).try_for_each(|_| budget.step())?;
        let values = event.values(condition.field).map(|field| (field.place, condition.accepts(&field.value)));
        let values = values.filter(|&(_, accepted)| absence || accepted);
        known.0.insert((number, absence), Tied::new(event, values, condition.absence));
    }
    let tied: Vec<&Tied> = tied().filter_map(|(number, _)| known.0.get(&(number, absence))).collect();
    let mut last_use = BTreeMap::new();
    for (n, tied) in tied.iter().enumerate() {
        last_use.extend(tied.arrays.iter().map(|&(array, ..)| (array, n)));
    }
    Search { event, last_use, choice: Vec::new(), failed: HashSet::new(), budget }.from(&tied, 0)
}

/// Ranges of values by the number of what they lie in, ascending.
type Ranges = Vec<(u32, usize, usize)>;

/// The values that a condition chooses from.
struct Tied {
    /// In document order; whether the condition accepts each.
    values: Vec<(Place, bool)>,
    absence: bool,
    /// By array and by element: which values lie in it. They follow each other.
    arrays: Ranges,
    elements: Ranges,
}

impl Tied {
    fn new(event: &Fields<'_>, values: impl Iterator<Item = (Place, bool)>, absence: bool) -> Self {
        let mut tied = Self { values: values.collect(), absence, arrays: Vec::new(), elements: Vec::new() };
        let mut chain = Vec::new();
        for (n, &(place, _)) in tied.values.iter().enumerate() {
            chain.clear();
            chain.extend(event.places(place));
            for &(place, element) in chain.iter().rev() {
                extend(&mut tied.elements, place.number(), n);
                extend(&mut tied.arrays, element.array, n);
            }
        }
        tied
    }
}

/// Adds a value to the range of what it lies in. Numbers first come in ascending order, as they stand in the document.
fn extend(ranges: &mut Ranges, number: u32, value: usize) {
    match ranges.binary_search_by_key(&number, |range| range.0) {
        Ok(found) => ranges[found].2 = value + 1,
        Err(_) => ranges.push((number, value, value + 1)),
    }
}

fn range(ranges: &Ranges, number: u32) -> Option<(usize, usize)> {
    let found = ranges.binary_search_by_key(&number, |range| range.0).ok()?;
    Some((ranges[found].1, ranges[found].2))
}

struct Search<'a, 'b, 'c> {
    event: &'a Fields<'b>,
    /// The last condition that has a value in an array.
    last_use: BTreeMap<u32, usize>,
    /// Array and chosen element.
    choice: Vec<(u32, Place)>,
    /// Conditions with the choices, as far as they matter, that they and those after them failed under.
    failed: HashSet<(usize, Vec<u32>)>,
    budget: &'c mut Budget,
}

impl Search<'_, '_, '_> {
    /// Whether the conditions from number `n` on can be satisfied beside the choice; at most 256 deep.
    fn from(&mut self, conditions: &[&Tied], n: usize) -> Result<bool, Fault> {
        let Some(tied) = conditions.get(n) else { return Ok(true) };
        self.budget.step()?;
        let matters = self.choice.iter().filter(|(array, _)| self.last_use.get(array).is_some_and(|&last| last >= n));
        let mut state: Vec<u32> = matters.map(|(_, place)| place.number()).collect();
        state.sort_unstable();
        let state = (n, state);
        if self.failed.contains(&state) {
            return Ok(false);
        }
        let (mut at, mut present) = (0, false);
        while let Some(&(place, accepted)) = tied.values.get(at) {
            self.budget.step()?;
            if let Some(next) = self.beyond(tied, at, place) {
                at = next;
                continue;
            }
            present = true;
            if accepted {
                let depth = self.choice.len();
                self.choose(place);
                if self.from(conditions, n + 1)? {
                    return Ok(true);
                }
                self.choice.truncate(depth);
            }
            at += 1;
        }
        if !present && tied.absence && self.from(conditions, n + 1)? {
            return Ok(true);
        }
        self.failed.insert(state);
        Ok(false)
    }

    fn chosen(&self, array: u32) -> Option<Place> {
        self.choice.iter().find(|(chosen, _)| *chosen == array).map(|&(_, place)| place)
    }

    fn choose(&mut self, place: Place) {
        for (place, element) in self.event.places(place) {
            if self.chosen(element.array).is_none() {
                self.choice.push((element.array, place));
            }
        }
    }

    /// Where to go on when a value lies in an element that is not the chosen one of its array: at the chosen one's
    /// values, or behind the array.
    fn beyond(&self, tied: &Tied, at: usize, place: Place) -> Option<usize> {
        let mut outermost = None;
        for (place, element) in self.event.places(place) {
            if let Some(chosen) = self.chosen(element.array).filter(|&chosen| chosen != place) {
                outermost = Some((element.array, chosen));
            }
        }
        let (array, chosen) = outermost?;
        let behind = range(&tied.arrays, array).map_or(at + 1, |(_, end)| end);
        Some(
            range(&tied.elements, chosen.number()).map_or(behind, |(begin, _)| if begin > at { begin } else { behind }),
        )
    }
}

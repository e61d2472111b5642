//! Consistency of values that lie in arrays of objects (pattern language, section 8).
//!
//! Arrays that lie in no other are decided by counting. For the rest: the normative procedure of section 3, with three
//! additions. A choice that failed once is not tried again, where two
//! choices are the same when they agree on every array that a later path has a value in. Values in elements that the
//! choice excludes are passed over at once. And the steps are bounded: where an event gives each path at most one
//! array inside each element, a value is met once for each level of arrays around it, which [`Budget`] always allows.
//! Events that spell arrays of one path in several ways (equal keys, keys with dots) can make the choices multiply, up
//! to the number of elements to the power of the number of such arrays; what that takes is bounded for the event.

use super::condition::Condition;
use super::{Alternative, Matcher};
use crate::event::{Fault, FaultKind, Fields, Place};
use std::collections::{BTreeMap, HashSet};

/// Steps that the choices of one event may take beyond what each alternative is allowed by itself.
const SPARE: u64 = 1 << 20;

/// What is left of an event's steps.
#[derive(Default)]
pub(super) struct Budget {
    share: u64,
    spare: u64,
}

impl Budget {
    pub fn for_an_event() -> Self {
        Self { share: 0, spare: SPARE }
    }

    fn step(&mut self) -> Result<(), Fault> {
        let left = if self.share > 0 { &mut self.share } else { &mut self.spare };
        *left = left.checked_sub(1).ok_or(Fault::new(FaultKind::TooManyChoices, 0))?;
        Ok(())
    }
}

/// Most conditions that [`flat`] decides.
const FEW: usize = 8;

/// Decides where each condition is satisfied within one array of objects that lies in no other: conditions on the same
/// array need a common element. `hits` is reused memory.
fn flat<'m>(
    event: &Fields<'_>,
    tied: impl Iterator<Item = &'m Condition> + Clone,
    hits: &mut Vec<usize>,
) -> Option<bool> {
    let accepted = |condition: &'m Condition| {
        event.values(condition.field).filter(|field| condition.accepts(&field.value)).map(|field| field.place)
    };
    let mut arrays = [0; FEW];
    for (n, condition) in tied.clone().enumerate() {
        for place in accepted(condition) {
            let mut around = event.places(place);
            let ((_, element), None) = (around.next()?, around.next()) else { return None };
            let array = arrays.get_mut(n)?;
            if *array != 0 && *array != element.array {
                return None;
            }
            *array = element.array;
        }
    }
    for (n, array) in arrays.iter().enumerate().take_while(|(_, array)| **array != 0) {
        if arrays[..n].contains(array) {
            continue;
        }
        hits.clear();
        let mut together = 0;
        for (condition, _) in tied.clone().zip(arrays).filter(|(_, of)| of == array) {
            for place in accepted(condition) {
                let place = place.number() as usize;
                hits.resize(hits.len().max(place + 1), 0);
                hits[place] = if hits[place] == together { together + 1 } else { hits[place] };
            }
            together += 1;
        }
        if !hits.contains(&together) {
            return Some(false);
        }
    }
    Some(true)
}

/// Whether values of one consistent choice satisfy all conditions. Each condition is known to hold by itself.
///
/// # Errors
/// The event offers more choices than the budget allows to try.
pub(super) fn consistent(
    matcher: &Matcher,
    alternative: &Alternative<'_>,
    event: &Fields<'_>,
    budget: &mut Budget,
    hits: &mut Vec<usize>,
) -> Result<bool, Fault> {
    let conditions = || alternative.conditions.iter().map(|&number| &matcher.conditions[number as usize]);
    let placed = |field| event.placed_at(field);
    let absence = conditions().any(|condition| condition.absence && placed(condition.field));
    // What a value outside of arrays satisfies restricts no other, unless another is to be absent.
    let free = |condition: &Condition| {
        let mut values = event.values(condition.field);
        !absence && values.any(|field| field.place == Place::NONE && condition.accepts(&field.value))
    };
    let tied = || conditions().filter(|condition| placed(condition.field) && !free(condition));
    if !absence && tied().nth(1).is_none() {
        return Ok(true);
    }
    if !absence && let Some(decided) = flat(event, tied(), hits) {
        return Ok(decided);
    }
    let tied: Vec<Tied> = tied()
        .map(|condition| {
            let values = event.values(condition.field).map(|field| (field.place, condition.accepts(&field.value)));
            Tied::new(event, values.filter(|&(_, accepted)| absence || accepted), condition.absence)
        })
        .collect();
    let mut last_use = BTreeMap::new();
    for (n, tied) in tied.iter().enumerate() {
        last_use.extend(tied.arrays.iter().map(|&(array, ..)| (array, n)));
        budget.share += tied.allowed;
    }
    let mut search = Search { event, last_use, choice: Vec::new(), failed: HashSet::new(), budget };
    let found = search.from(&tied, 0);
    budget.share = 0;
    found
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
    /// Steps that one array a path and element can take.
    allowed: u64,
}

impl Tied {
    fn new(event: &Fields<'_>, values: impl Iterator<Item = (Place, bool)>, absence: bool) -> Self {
        let mut tied =
            Self { values: values.collect(), absence, arrays: Vec::new(), elements: Vec::new(), allowed: 64 };
        let mut chain = Vec::new();
        for (n, &(place, _)) in tied.values.iter().enumerate() {
            chain.clear();
            chain.extend(event.places(place));
            tied.allowed += 4 + 4 * chain.len() as u64;
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
    fn from(&mut self, conditions: &[Tied], n: usize) -> Result<bool, Fault> {
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

//! Consistency of values that lie in arrays of objects (pattern language, section 8).
//!
//! The normative procedure of section 3, with one addition: a choice that failed once is not tried again, and two
//! choices are the same when they agree on every array that a later path has a value in. So the work is bounded by
//! the number of distinct element chains, not by their products over unrelated arrays.

use super::{Alternative, Matcher};
use crate::event::decode::Element;
use crate::event::{Field, Fields};
use std::collections::BTreeSet;

/// Whether values of one consistent choice satisfy all conditions. Each condition is known to hold by itself.
pub(super) fn consistent(matcher: &Matcher, alternative: &Alternative, event: &Fields<'_>) -> bool {
    let condition = |n: usize| &matcher.conditions[alternative.conditions[n] as usize];
    let placed = |n: usize| event.values(condition(n).field).any(|field| event.places(field.place).next().is_some());
    let tied = (0..alternative.conditions.len()).filter(|&n| placed(n)).count();
    // Absence was assumed to hold, so it must be looked at even for a single field.
    if tied == 0 || (tied == 1 && !(0..alternative.conditions.len()).any(|n| condition(n).absence)) {
        return (0..alternative.conditions.len()).all(|n| {
            let condition = condition(n);
            !condition.absence
                || !event.has(condition.field)
                || event.values(condition.field).any(|field| condition.accepts(&field.value))
        });
    }
    let mut later = vec![BTreeSet::new(); alternative.conditions.len() + 1];
    for n in (0..alternative.conditions.len()).rev() {
        let mut arrays = later[n + 1].clone();
        for field in event.values(condition(n).field) {
            arrays.extend(event.places(field.place).map(|element| element.array));
        }
        later[n] = arrays;
    }
    let mut search = Search { matcher, alternative, event, later, failed: BTreeSet::new() };
    search.from(0, &mut Vec::new())
}

struct Search<'a, 'b> {
    matcher: &'a Matcher,
    alternative: &'a Alternative,
    event: &'a Fields<'b>,
    /// Per condition: the arrays that it and the conditions after it have values in.
    later: Vec<BTreeSet<u32>>,
    failed: BTreeSet<(usize, Vec<(u32, u32)>)>,
}

impl<'b> Search<'_, 'b> {
    /// Whether the conditions from number `n` on can be satisfied beside `choice`; at most 256 deep.
    fn from(&mut self, n: usize, choice: &mut Vec<Element>) -> bool {
        let Some(&number) = self.alternative.conditions.get(n) else { return true };
        let mut state: Vec<_> = choice
            .iter()
            .filter(|element| self.later[n].contains(&element.array))
            .map(|element| (element.array, element.index))
            .collect();
        state.sort_unstable();
        state.dedup();
        if self.failed.contains(&(n, state.clone())) {
            return false;
        }
        let condition = &self.matcher.conditions[number as usize];
        let event = self.event;
        let mut present = false;
        for field in event.values(condition.field) {
            if !self.fits(field, choice) {
                continue;
            }
            present = true;
            if condition.accepts(&field.value) {
                let depth = choice.len();
                choice.extend(event.places(field.place));
                if self.from(n + 1, choice) {
                    return true;
                }
                choice.truncate(depth);
            }
        }
        if !present && condition.absence && self.from(n + 1, choice) {
            return true;
        }
        self.failed.insert((n, state));
        false
    }

    fn fits(&self, field: &Field<'b>, choice: &[Element]) -> bool {
        self.event
            .places(field.place)
            .all(|at| choice.iter().all(|chosen| chosen.array != at.array || chosen.index == at.index))
    }
}

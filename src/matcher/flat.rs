//! Consistency in arrays of objects that lie in no other array, which most do: conditions on one array need an element that
//! satisfies all of them.
//!
//! The condition that fewest elements satisfy names the elements; the others are asked for those. What a field has where,
//! and which few elements satisfy a condition, is remembered for the event.

use super::Matcher;
use super::arrays::Budget;
use crate::event::{Fault, FieldId, Fields, Place};

/// Most conditions of an alternative that are decided here.
const FEW: usize = 8;
/// Most elements that are remembered for a condition.
const MOST: usize = 16;

/// The values of a field that lie in an array, in [`Flat::entries`].
#[derive(Clone, Copy, Default)]
struct Span {
    epoch: u32,
    first: u32,
    behind: u32,
    /// 0 where they do not all lie in one array that lies in no other.
    array: u32,
}

/// The elements that satisfy a condition, in [`Flat::places`]; more than [`MOST`] are not there.
#[derive(Clone, Copy, Default)]
struct Spot {
    epoch: u32,
    first: u32,
    count: u32,
}

/// Reused memory of one worker.
#[derive(Default)]
pub(super) struct Flat {
    epoch: u32,
    fields: Vec<Span>,
    /// Place and number of the value, ascending in each span.
    entries: Vec<(u32, u32)>,
    conditions: Vec<Spot>,
    places: Vec<u32>,
}

/// What does not change while an event is decided.
#[derive(Clone, Copy)]
pub(super) struct Given<'a, 'b> {
    pub matcher: &'a Matcher,
    pub event: &'a Fields<'b>,
}

impl Flat {
    /// Forgets the event before.
    pub fn start(&mut self, epoch: u32, matcher: &Matcher) {
        self.epoch = epoch;
        self.entries.clear();
        self.places.clear();
        super::grow(&mut self.fields, matcher.paths.fields());
        super::grow(&mut self.conditions, matcher.conditions.len());
    }

    /// Whether elements of the arrays satisfy all `conditions`, each of which some element satisfies; nothing where arrays
    /// lie in arrays.
    ///
    /// # Errors
    /// The event takes more steps than the budget has.
    pub fn together(
        &mut self,
        given: Given<'_, '_>,
        conditions: impl Iterator<Item = u32>,
        budget: &mut Budget,
    ) -> Result<Option<bool>, Fault> {
        let (mut all, mut count) = ([(0, 0); FEW], 0);
        for condition in conditions {
            let array = self.span(given, given.matcher.conditions[condition as usize].field).array;
            let Some(slot) = all.get_mut(count).filter(|_| array != 0) else { return Ok(None) };
            *slot = (array, condition);
            count += 1;
        }
        let all = &mut all[..count];
        all.sort_unstable();
        for group in all.chunk_by(|a, b| a.0 == b.0).filter(|group| group.len() > 1) {
            if !self.common(given, group, budget)? {
                return Ok(Some(false));
            }
        }
        Ok(Some(true))
    }

    /// Whether one element satisfies all conditions of a group.
    fn common(&mut self, given: Given<'_, '_>, group: &[(u32, u32)], budget: &mut Budget) -> Result<bool, Fault> {
        let (mut least, mut spot) = (0, Spot { count: u32::MAX, ..Spot::default() });
        for (at, (_, condition)) in group.iter().enumerate() {
            let found = self.spot(given, *condition, budget)?;
            if found.count < spot.count {
                (least, spot) = (at, found);
            }
        }
        let span = self.span(given, given.matcher.conditions[group[least].1 as usize].field);
        let few = spot.count as usize <= MOST;
        let range = if few { spot.first..spot.first + spot.count } else { span.first..span.behind };
        'places: for at in range {
            budget.step()?;
            let place = match few {
                true => self.places[at as usize],
                false if !self.accepts(given, group[least].1, at) => continue,
                false => self.entries[at as usize].0,
            };
            for (_, other) in group.iter().enumerate().filter(|(at, _)| *at != least).map(|(_, it)| it) {
                if !self.has(given, *other, place, budget)? {
                    continue 'places;
                }
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// Whether the condition accepts the value of an entry of its field.
    fn accepts(&self, given: Given<'_, '_>, condition: u32, entry: u32) -> bool {
        let value = given.event.all()[self.entries[entry as usize].1 as usize].value;
        given.matcher.conditions[condition as usize].accepts(&value)
    }

    /// Whether the condition accepts a value in the element.
    fn has(&mut self, given: Given<'_, '_>, condition: u32, place: u32, budget: &mut Budget) -> Result<bool, Fault> {
        let span = self.span(given, given.matcher.conditions[condition as usize].field);
        let own = &self.entries[span.first as usize..span.behind as usize];
        let mut at = span.first + own.partition_point(|entry| entry.0 < place) as u32;
        while at < span.behind && self.entries[at as usize].0 == place {
            budget.step()?;
            if self.accepts(given, condition, at) {
                return Ok(true);
            }
            at += 1;
        }
        Ok(false)
    }

    fn span(&mut self, given: Given<'_, '_>, field: FieldId) -> Span {
        let known = self.fields[field.0 as usize];
        if known.epoch == self.epoch {
            return known;
        }
        let (first, mut array, mut flat) = (self.entries.len() as u32, 0, true);
        for (number, value) in given.event.numbered(field).filter(|(_, value)| value.place != Place::NONE) {
            let mut around = given.event.places(value.place);
            match (around.next(), around.next()) {
                (Some((_, element)), None) if array == 0 || array == element.array => array = element.array,
                _ => flat = false,
            }
            self.entries.push((value.place.number(), number));
        }
        let span =
            Span { epoch: self.epoch, first, behind: self.entries.len() as u32, array: if flat { array } else { 0 } };
        self.fields[field.0 as usize] = span;
        span
    }

    fn spot(&mut self, given: Given<'_, '_>, condition: u32, budget: &mut Budget) -> Result<Spot, Fault> {
        let known = self.conditions[condition as usize];
        if known.epoch == self.epoch {
            return Ok(known);
        }
        let span = self.span(given, given.matcher.conditions[condition as usize].field);
        let first = self.places.len();
        for at in span.first..span.behind {
            budget.step()?;
            let place = self.entries[at as usize].0;
            if self.places[first..].last() != Some(&place) && self.accepts(given, condition, at) {
                self.places.push(place);
                if self.places.len() - first > MOST {
                    break;
                }
            }
        }
        let count = (self.places.len() - first) as u32;
        if count as usize > MOST {
            self.places.truncate(first);
        }
        let spot = Spot { epoch: self.epoch, first: first as u32, count };
        self.conditions[condition as usize] = spot;
        Ok(spot)
    }
}

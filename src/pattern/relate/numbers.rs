//! Sets of numbers.

use super::Set;
use crate::pattern::{Number, Numbers, Range};

/// A set of numbers. Values are places in the order of doubles, in which neighbours differ by one: between two of them
/// no number is comparable (section 4.2).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Span {
    /// Comparable numbers from one place to another.
    Range(i64, i64),
    /// One spelling, and its place where it is comparable.
    Spelled(Vec<u8>, Option<i64>),
    /// All but these, which are of the kinds before.
    AllBut(Vec<Span>),
}

/// A double's place. Both zeros have the same.
fn place(value: f64) -> i64 {
    let magnitude = value.abs().to_bits() as i64;
    if value.is_sign_negative() { -magnitude } else { magnitude }
}

/// The double of a place.
pub fn value(place: i64) -> f64 {
    f64::from_bits(place.unsigned_abs()).copysign(if place < 0 { -1.0 } else { 1.0 })
}

/// What a plain number accepts.
pub fn plain(number: &Number, numbers: Numbers) -> Span {
    match (numbers, number.value.map(place)) {
        (Numbers::Value, Some(place)) => Span::Range(place, place),
        (_, place) => Span::Spelled(number.text.clone(), place),
    }
}

/// What a range accepts; nothing where no double lies in it.
pub fn range(range: &Range) -> Option<Span> {
    let low = range.low.map_or(place(f64::MIN), |(low, included)| place(low) + i64::from(!included));
    let high = range.high.map_or(place(f64::MAX), |(high, included)| place(high) - i64::from(!included));
    (low <= high).then_some(Span::Range(low, high))
}

/// Every number.
pub fn all() -> Span {
    Span::AllBut(Vec::new())
}

/// All but some.
pub fn but(excluded: &[Number], numbers: Numbers) -> Span {
    let mut excluded: Vec<Span> = excluded.iter().map(|number| plain(number, numbers)).collect();
    excluded.sort_unstable();
    excluded.dedup();
    Span::AllBut(excluded)
}

/// Orders a union; ranges that overlap or touch become one.
pub fn join(union: &mut Vec<Span>) {
    union.sort_unstable();
    union.dedup_by(|next, last| match (last, next) {
        (Span::Range(_, end), Span::Range(low, high)) if *low <= end.saturating_add(1) => {
            *end = (*end).max(*high);
            true
        }
        (last, next) => last == next,
    });
}

impl Set for Span {
    fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (Span::Range(low, high), Span::Range(from, to)) => low <= from && to <= high,
            (Span::Range(low, high), Span::Spelled(_, Some(place))) => (low..=high).contains(&place),
            (Span::Spelled(one, _), Span::Spelled(other, _)) => one == other,
            _ => false,
        }
    }

    fn apart(&self, other: &Self) -> bool {
        match (self, other) {
            (Span::AllBut(excluded), one) | (one, Span::AllBut(excluded)) => excluded.iter().any(|it| it.contains(one)),
            (Span::Range(low, high), Span::Range(from, to)) => high < from || to < low,
            (range @ Span::Range(..), one @ Span::Spelled(..)) | (one @ Span::Spelled(..), range @ Span::Range(..)) => {
                !range.contains(one)
            }
            (Span::Spelled(one, _), Span::Spelled(other, _)) => one != other,
        }
    }

    fn excluded(&self) -> Option<&[Self]> {
        match self {
            Span::AllBut(excluded) => Some(excluded),
            _ => None,
        }
    }
}

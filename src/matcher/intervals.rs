//! Ranges of numbers: which hold a value, in time that grows with the answer.
//!
//! A centred interval tree (Edelsbrunner 1980): each point keeps the ranges around its centre by both of their ends.

use crate::pattern::Range;

/// A bound as an integer that orders as the number does, and whether it lies just below, at or just above it.
type Edge = (u64, i8);

fn edge(value: f64, side: i8) -> Edge {
    let bits = value.to_bits();
    (if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }, side)
}

fn edges(range: &Range) -> (Edge, Edge) {
    let low = range.low.map_or((0, -1), |(value, included)| edge(value, i8::from(!included)));
    let high = range.high.map_or((u64::MAX, 1), |(value, included)| edge(value, -i8::from(!included)));
    (low, high)
}

struct Point {
    centre: Edge,
    /// By lower and by upper end, the outermost first.
    lows: Box<[(Edge, u32)]>,
    highs: Box<[(Edge, u32)]>,
    below: Option<Box<Point>>,
    above: Option<Box<Point>>,
}

/// Ranges with the places they lead to; immutable.
pub(super) struct Intervals(Option<Box<Point>>);

impl Intervals {
    pub fn new(ranges: &[(Range, u32)]) -> Self {
        Self(point(ranges.iter().map(|(range, place)| (edges(range), *place)).collect()))
    }

    /// Calls `found` with the place of every range that holds `value`.
    ///
    /// # Errors
    /// The first of `found`.
    pub fn holding<E>(&self, value: f64, mut found: impl FnMut(u32) -> Result<(), E>) -> Result<(), E> {
        let value = edge(value, 0);
        let mut at = self.0.as_deref();
        while let Some(point) = at {
            if value < point.centre {
                point.lows.iter().take_while(|(low, _)| *low <= value).try_for_each(|&(_, place)| found(place))?;
                at = point.below.as_deref();
            } else {
                point.highs.iter().take_while(|(high, _)| *high >= value).try_for_each(|&(_, place)| found(place))?;
                at = point.above.as_deref();
            }
        }
        Ok(())
    }
}

/// Splits at the middle end, so that each side has at most half of the ends.
fn point(ranges: Vec<((Edge, Edge), u32)>) -> Option<Box<Point>> {
    if ranges.is_empty() {
        return None;
    }
    let mut ends: Vec<Edge> = ranges.iter().flat_map(|((low, high), _)| [*low, *high]).collect();
    let middle = ends.len() / 2;
    let centre = *ends.select_nth_unstable(middle).1;
    let (mut below, mut above, mut here) = (Vec::new(), Vec::new(), Vec::new());
    for range in ranges {
        match range.0 {
            (_, high) if high < centre => below.push(range),
            (low, _) if low > centre => above.push(range),
            _ => here.push(range),
        }
    }
    let mut lows: Vec<_> = here.iter().map(|((low, _), place)| (*low, *place)).collect();
    let mut highs: Vec<_> = here.iter().map(|((_, high), place)| (*high, *place)).collect();
    lows.sort_unstable();
    highs.sort_unstable_by(|a, b| b.cmp(a));
    Some(Box::new(Point { centre, lows: lows.into(), highs: highs.into(), below: point(below), above: point(above) }))
}

//! Ranges of numbers: which hold a value, in time that grows with the answer.
//!
//! Sorted by lower end, with the greatest upper end of every block of them (as an augmented interval tree has it, Cormen et
//! al., section 14.3, flat): a block is passed over when no range in it reaches the value.

use crate::pattern::Range;

/// A number as an integer that orders as it does; zero has one sign.
fn key(value: f64) -> u64 {
    let bits = (value + 0.0).to_bits();
    if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }
}

/// The least and the greatest key in a range. There is no double between neighbouring keys.
fn ends(range: &Range) -> (u64, u64) {
    let low = range.low.map_or(0, |(value, included)| key(value) + u64::from(!included));
    let high = range.high.map_or(u64::MAX, |(value, included)| key(value) - u64::from(!included));
    (low, high)
}

/// Ranges a block, as a power of two.
const SHIFT: usize = 4;

/// Ranges with the places they lead to; immutable.
pub(super) struct Intervals {
    lows: Box<[u64]>,
    places: Box<[u32]>,
    /// Upper ends, then the greatest of each block of those, and so on.
    highs: Vec<Box<[u64]>>,
}

impl Intervals {
    pub fn new(ranges: &[(Range, u32)]) -> Self {
        let mut all: Vec<_> = ranges.iter().map(|(range, place)| (ends(range), *place)).collect();
        all.sort_unstable();
        let mut highs: Vec<Box<[u64]>> = vec![all.iter().map(|((_, high), _)| *high).collect()];
        while let Some(below) = highs.last().filter(|below| below.len() > 1 << SHIFT) {
            highs.push(below.chunks(1 << SHIFT).map(|block| block.iter().copied().max().unwrap_or(0)).collect());
        }
        Self {
            lows: all.iter().map(|((low, _), _)| *low).collect(),
            places: all.iter().map(|(_, place)| *place).collect(),
            highs,
        }
    }

    /// Calls `found` with the place of every range that holds `value`.
    ///
    /// # Errors
    /// The first of `found`.
    pub fn holding<E>(&self, value: f64, mut found: impl FnMut(u32) -> Result<(), E>) -> Result<(), E> {
        let value = key(value);
        let begun = self.lows.partition_point(|low| *low <= value);
        let mut at = 0;
        while at < begun {
            // The largest block that begins here and does not reach the value.
            let aligned = at.trailing_zeros() as usize / SHIFT;
            let mut level = aligned.min(self.highs.len() - 1);
            while level > 0 && self.highs[level][at >> (SHIFT * level)] >= value {
                level -= 1;
            }
            if level == 0 && self.highs[0][at] >= value {
                found(self.places[at])?;
            }
            at += 1 << (SHIFT * level);
        }
        Ok(())
    }
}

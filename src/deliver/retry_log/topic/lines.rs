//! Which record of a delivery counts, where a topic holds several: plain state.
//!
//! A failed attempt writes its record anew, so an earlier one may still be there when a process dies; and what a dead
//! process had on its way comes into the topic behind what its successor has read. The record that has come farthest
//! counts, of equals the last; so a delivery has one line of attempts, whoever makes them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// A delivery, and how far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// The delivery's id.
    pub id: u128,
    /// Attempts that failed.
    pub failed: u32,
}

/// The records that count, by delivery.
#[derive(Debug, Default)]
pub struct Lines {
    /// The record's number, and its failed attempts.
    counts: HashMap<u128, (u64, u32)>,
}

impl Lines {
    /// A record is there. Returns the one that does not count because of it: an earlier one, or itself.
    pub fn take(&mut self, line: Line, sequence: u64) -> Option<u64> {
        match self.counts.entry(line.id) {
            Entry::Vacant(free) => {
                free.insert((sequence, line.failed));
                None
            }
            Entry::Occupied(taken) if taken.get().1 > line.failed => Some(sequence),
            Entry::Occupied(mut taken) => Some(taken.insert((sequence, line.failed)).0).filter(|old| *old != sequence),
        }
    }

    /// A record is done with, or somebody else's.
    pub fn forget(&mut self, line: Line, sequence: u64) {
        if let Entry::Occupied(taken) = self.counts.entry(line.id)
            && taken.get().0 == sequence
        {
            taken.remove();
        }
    }

    /// How many deliveries there are.
    pub fn count(&self) -> usize {
        self.counts.len()
    }
}

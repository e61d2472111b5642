//! One open-addressed table for all keys of all fields: what most probes find is nothing, so a small filter stands before it.
//!
//! The hash is keyed; a hit is confirmed by bytes by whoever asks (I9).

use foldhash::fast::FixedState;
use std::hash::{BuildHasher, Hasher};

/// Bits of the filter a key.
const FILTER: usize = 16;

/// Keyed hash of operands.
#[derive(Clone)]
pub(super) struct Seed(FixedState);

impl Seed {
    pub fn new(seed: u64) -> Self {
        Self(FixedState::with_seed(seed))
    }

    #[inline(always)]
    pub fn hash(&self, bytes: &[u8]) -> u64 {
        let mut hasher = self.0.build_hasher();
        hasher.write(bytes);
        hasher.finish()
    }
}

/// The hash of an operand in one of its uses.
#[inline(always)]
pub(super) fn salted(hash: u64, salt: u64) -> u64 {
    let mixed = (hash ^ salt).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ mixed >> 32
}

/// From hashes to places; immutable.
#[derive(Default)]
pub(super) struct Table {
    /// Upper half of the hash, and the place; a place of [`NOTHING`] is free.
    slots: Box<[(u32, u32)]>,
    filter: Box<[u64]>,
}

/// No place.
pub(super) const NOTHING: u32 = u32::MAX;

impl Table {
    pub fn new(keys: &[(u64, u32)]) -> Self {
        let size = (keys.len() * 2).next_power_of_two().max(2);
        let words = (keys.len() * FILTER / 64).next_power_of_two().max(1);
        let mut table = Self { slots: vec![(0, NOTHING); size].into(), filter: vec![0; words].into() };
        for &(hash, place) in keys {
            let (word, bit) = table.bit(hash);
            table.filter[word] |= bit;
            let mut slot = table.slot(hash);
            while table.slots[slot].1 != NOTHING {
                slot = (slot + 1) & (size - 1);
            }
            table.slots[slot] = ((hash >> 32) as u32, place);
        }
        table
    }

    #[inline(always)]
    fn slot(&self, hash: u64) -> usize {
        hash as usize & (self.slots.len() - 1)
    }

    #[inline(always)]
    fn bit(&self, hash: u64) -> (usize, u64) {
        ((hash >> 40) as usize & (self.filter.len() - 1), 1 << (hash >> 34 & 63))
    }

    /// Whether a key may be there; most that are not, are found not to be.
    #[inline(always)]
    pub fn may_hold(&self, hash: u64) -> bool {
        let (word, bit) = self.bit(hash);
        self.filter[word] & bit != 0
    }

    /// The first place that the key may be at, or [`NOTHING`].
    #[inline(always)]
    pub fn first(&self, hash: u64) -> u32 {
        let mut slot = self.slot(hash);
        loop {
            let (tag, place) = self.slots[slot];
            if tag == (hash >> 32) as u32 || place == NOTHING {
                return place;
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
    }

    /// The place of a key, where `confirm` says that it is the one.
    pub fn find(&self, hash: u64, confirm: impl Fn(u32) -> bool) -> Option<u32> {
        let mut slot = self.slot(hash);
        loop {
            let (tag, place) = self.slots[slot];
            if place == NOTHING {
                return None;
            }
            if tag == (hash >> 32) as u32 && confirm(place) {
                return Some(place);
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
    }
}

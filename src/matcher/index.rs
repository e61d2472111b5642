//! The alternatives of all rules as a tree: each node files them under the condition that fewest events meet; where many
//! come together under one key, a node of their other conditions follows.
//!
//! In: an event's fields. Out: the alternatives that may match, each with the conditions still to be tested. Promises: an
//! alternative that matches is among them; a list is given out once an event. Leaves to others: how the tree is grown
//! (`tree`), testing conditions (`mod`).

use super::intervals::Intervals;
use super::keys::Kind;
use super::table::{NOTHING, Seed, Table};
use crate::event::{FieldId, Fields};

/// Where a list of alternatives begins in [`Index::blob`].
pub(super) type Place = u32;

/// The root's number.
pub(super) const ROOT: usize = 0;

/// Immutable; grown by [`super::tree::grow`].
pub(super) struct Index {
    pub seed: Seed,
    pub table: Table,
    pub nodes: Vec<Node>,
    /// Lists, each: number, node below or [`NOTHING`], owner, kind and operand length, operand, count, entries. An entry
    /// is a rule, an alternative, its fields (see [`Entry`]), how many conditions are left, and those. Everything that a
    /// hit reads lies together.
    pub blob: Vec<u32>,
    /// How many lists there are.
    pub lists: usize,
    pub steps: Vec<Step>,
    pub ranges: Vec<Intervals>,
    /// By field: the grams that any node files.
    pub grams: Vec<Grams>,
}

/// Words before the operand.
pub(super) const HEADER: usize = 4;

#[derive(Default)]
pub(super) struct Node {
    /// Alternatives that no value leads to.
    pub rest: Option<Place>,
    /// Conditions that are tested as they stand, and what follows where they hold.
    pub tested: Vec<(u32, Place)>,
    /// The steps of the field asked first, if there is one: where a value of the event leads to a list, nothing else of
    /// the node is looked at.
    pub common: (u32, u32),
    /// First and behind the last of [`Index::steps`], by field.
    pub steps: (u32, u32),
}

/// One look-up that a node makes for each value of a field.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Step {
    pub field: FieldId,
    pub kind: Kind,
    /// Length of what is cut out of a value, or of a mask in bits; into [`Index::ranges`] for ranges.
    pub len: u32,
    /// Whose keys: of one node and field.
    pub owner: u32,
}

/// The bits of the grams of a field; a text has many, few of which are filed.
#[derive(Default)]
pub(super) struct Grams(Box<[u64]>);

/// A gram as one word, so that equal ones are equal words. Those of [`GRAM`] bytes and shorter ones can look alike.
#[inline(always)]
pub(super) fn gram(bytes: &[u8]) -> u32 {
    match bytes.first_chunk() {
        Some(whole) => u32::from_le_bytes(*whole),
        None => bytes.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte)),
    }
}

impl Grams {
    /// Of the words of all grams.
    pub fn new(all: &[u32]) -> Self {
        // Asked only where a branch files grams.
        if all.is_empty() {
            return Self::default();
        }
        let mut bits = Self(vec![0; (all.len() / 4).next_power_of_two()].into());
        for gram in all {
            let (word, bit) = bits.bit(*gram);
            bits.0[word] |= bit;
        }
        bits
    }

    #[inline(always)]
    fn bit(&self, gram: u32) -> (usize, u64) {
        let mixed = gram.wrapping_mul(0x9E37_79B1);
        ((mixed >> 6) as usize & (self.0.len() - 1), 1 << (mixed >> 26))
    }

    #[inline(always)]
    pub fn may_hold(&self, gram: u32) -> bool {
        let (word, bit) = self.bit(gram);
        self.0[word] & bit != 0
    }
}

/// A list found for a value.
pub(super) struct List<'i> {
    pub number: usize,
    /// The node that files the same alternatives by their other conditions.
    pub below: Option<usize>,
    count: u32,
    rest: &'i [u32],
}

/// An alternative in a list.
pub(super) struct Entry<'i> {
    pub rule: u32,
    pub alternative: u32,
    /// A bit a field, some share one; [`ANY`] where that or a condition of absence leaves it open.
    pub fields: u32,
    /// The conditions still to be tested.
    pub left: &'i [u32],
}

/// The fields of an alternative that may be tied together whatever the event has.
pub(super) const ANY: u32 = u32::MAX;

/// A field's bit among 31.
pub(super) fn bit(field: FieldId) -> u32 {
    1 << (field.0 % 31)
}

impl<'i> List<'i> {
    pub fn len(&self) -> usize {
        self.count as usize
    }

    #[inline(always)]
    pub fn entries(&self) -> impl Iterator<Item = Entry<'i>> + use<'i> {
        let (mut rest, mut left) = (self.rest, self.count);
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let (&[rule, alternative, fields, count], tail) = rest.split_first_chunk()?;
            let (conditions, tail) = tail.split_at_checked(count as usize)?;
            rest = tail;
            Some(Entry { rule, alternative, fields, left: conditions })
        })
    }
}

/// What keys are hashed with.
#[inline(always)]
pub(super) fn salt(owner: u32, kind: Kind) -> u64 {
    u64::from(owner) << 8 | kind as u64
}

impl Index {
    pub fn list(&self, place: Place) -> List<'_> {
        let head = &self.blob[place as usize..];
        let operand = (head[3] >> 8).div_ceil(4) as usize;
        let rest = &head[HEADER + operand..];
        List {
            number: head[0] as usize,
            below: (head[1] != NOTHING).then_some(head[1] as usize),
            count: rest[0],
            rest: &rest[1..],
        }
    }

    /// Whether the list at a place is filed so: a hash alone proves nothing.
    pub fn is(&self, place: Place, owner: u32, kind: Kind, operand: &[u8]) -> bool {
        let head = &self.blob[place as usize..];
        if head[2] != owner || u64::from(head[3]) != (operand.len() as u64) << 8 | kind as u64 {
            return false;
        }
        let (whole, rest) = operand.as_chunks();
        let filed = &head[HEADER..];
        whole.iter().zip(filed).all(|(word, filed)| u32::from_le_bytes(*word) == *filed)
            && (rest.is_empty() || gram(rest) == filed[whole.len()])
    }

    #[inline(always)]
    pub fn steps(&self, (first, behind): (u32, u32)) -> &[Step] {
        &self.steps[first as usize..behind as usize]
    }

    /// Whether a node would look at more values than `most`.
    pub fn exceeds(&self, node: usize, event: &Fields<'_>, most: usize) -> bool {
        let values = event.all().len();
        let looks = || self.steps(self.nodes[node].steps).iter().map(|step| event.count(step.field)).sum::<usize>();
        values > most.max(64) && looks() > most
    }
}

/// The bytes of an operand as words, zeros behind the last.
pub(super) fn packed(operand: &[u8]) -> impl Iterator<Item = u32> {
    operand.chunks(4).map(gram)
}

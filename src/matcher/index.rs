//! The alternatives of all rules as a tree: each node files them under the condition that fewest events meet; where many
//! come together under one key, a node of their other conditions follows.
//!
//! In: an event's fields. Out: the alternatives that may match, each with the conditions still to be tested. Promises: an
//! alternative that matches is among them; a list is given out once an event. Leaves to others: how the tree is grown
//! (`tree`), testing conditions (`mod`).

use super::intervals::Intervals;
use super::keys::{Kind, address_key, word};
use super::table::{NOTHING, Seed, Table};
use crate::event::address::Address;
use crate::event::{FieldId, Fields, Value};

/// Where a list of alternatives begins in [`Index::blob`].
pub(super) type Place = u32;

/// The root's number.
pub(super) const ROOT: usize = 0;

/// Immutable; grown by [`super::tree::grow`].
pub(super) struct Index {
    pub seed: Seed,
    pub table: Table,
    pub nodes: Vec<Node>,
    /// Lists, each: number, node below or [`NOTHING`], owner, kind and operand length, operand, count, entries; an entry
    /// is an alternative, how many conditions are left, and those. Everything that a hit reads lies together.
    pub blob: Vec<u32>,
    /// How many lists there are.
    pub lists: usize,
}

/// Words before the operand.
pub(super) const HEADER: usize = 4;

#[derive(Default)]
pub(super) struct Node {
    /// Alternatives that no value leads to.
    pub rest: Option<Place>,
    /// Conditions that are tested as they stand, and what follows where they hold.
    pub tested: Vec<(u32, Place)>,
    pub branches: Vec<Branch>,
}

/// What a node asks the values of one field.
pub(super) struct Branch {
    pub field: FieldId,
    /// Unique in the index.
    pub number: u32,
    /// A bit a [`Kind`].
    pub kinds: u16,
    /// Distinct operand lengths of prefixes, suffixes, the same without case, and grams, ascending.
    pub lengths: [Box<[u32]>; 5],
    /// Distinct mask lengths.
    pub masks: Box<[u8]>,
    pub ranges: Option<Intervals>,
}

/// Which of [`Branch::lengths`] belongs to a kind.
pub(super) fn lengths_of(kind: Kind) -> Option<usize> {
    match kind {
        Kind::Prefix => Some(0),
        Kind::Suffix => Some(1),
        Kind::CasePrefix => Some(2),
        Kind::CaseSuffix => Some(3),
        Kind::Gram => Some(4),
        _ => None,
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

impl<'i> List<'i> {
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Each alternative and the conditions left.
    pub fn entries(&self) -> impl Iterator<Item = (u32, &'i [u32])> + use<'i> {
        let (mut rest, mut left) = (self.rest, self.count);
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let (&[alternative, count], tail) = rest.split_first_chunk()?;
            let (conditions, tail) = tail.split_at_checked(count as usize)?;
            rest = tail;
            Some((alternative, conditions))
        })
    }
}

/// What a branch's keys are hashed with.
pub(super) fn salt(branch: u32, kind: Kind) -> u64 {
    u64::from(branch) << 8 | kind as u64
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

    #[inline(always)]
    fn find(&self, branch: u32, kind: Kind, operand: &[u8]) -> Option<Place> {
        self.table.find(self.seed.hash(salt(branch, kind), operand), |place| self.is(place, branch, kind, operand))
    }

    /// Whether the list at a place is filed so: a hash alone proves nothing.
    fn is(&self, place: Place, branch: u32, kind: Kind, operand: &[u8]) -> bool {
        let head = &self.blob[place as usize..];
        head[2] == branch
            && u64::from(head[3]) == (operand.len() as u64) << 8 | kind as u64
            && packed(operand).zip(&head[HEADER..]).all(|(word, filed)| word == *filed)
    }

    /// How many values a node would look at.
    pub fn effort(&self, node: usize, event: &Fields<'_>) -> usize {
        self.nodes[node].branches.iter().map(|branch| event.count(branch.field)).sum()
    }

    /// Calls `found` with every list of `branch` that a value leads to.
    ///
    /// # Errors
    /// The first of `found`.
    pub fn ask<E>(
        &self,
        branch: &Branch,
        value: &Value<'_>,
        mut found: impl FnMut(Place) -> Result<(), E>,
    ) -> Result<(), E> {
        let has = |kind: Kind| branch.kinds & 1 << kind as u16 != 0;
        let mut look = |kind: Kind, operand: &[u8]| match self.find(branch.number, kind, operand) {
            Some(place) => found(place),
            None => Ok(()),
        };
        match *value {
            Value::String(text) => {
                if has(Kind::Text) {
                    look(Kind::Text, text)?;
                }
                for &len in branch.lengths[0].iter().take_while(|&&len| len as usize <= text.len()) {
                    look(Kind::Prefix, &text[..len as usize])?;
                }
                for &len in branch.lengths[1].iter().take_while(|&&len| len as usize <= text.len()) {
                    look(Kind::Suffix, &text[text.len() - len as usize..])?;
                }
                for &len in &branch.lengths[4] {
                    for run in text.windows(len as usize) {
                        look(Kind::Gram, run)?;
                    }
                }
                if has(Kind::CaseText) || has(Kind::CasePrefix) || has(Kind::CaseSuffix) {
                    without_case(branch, text, &mut look)?;
                }
                if has(Kind::Address) || has(Kind::Cidr) {
                    by_address(branch, text, &mut look)?;
                }
                Ok(())
            }
            Value::Number(text, value) => {
                if has(Kind::NumberText) {
                    look(Kind::NumberText, text)?;
                }
                let Some(value) = value else { return Ok(()) };
                if has(Kind::Number) {
                    look(Kind::Number, &value.to_bits().to_le_bytes())?;
                }
                branch.ranges.as_ref().map_or(Ok(()), |ranges| ranges.holding(value, found))
            }
            Value::Bool(value) if has(Kind::Word) => look(Kind::Word, &[word(Some(value))]),
            Value::Null if has(Kind::Word) => look(Kind::Word, &[word(None)]),
            Value::Bool(_) | Value::Null => Ok(()),
        }
    }
}

/// The bytes of an operand as words, zeros behind the last.
pub(super) fn packed(operand: &[u8]) -> impl Iterator<Item = u32> {
    operand.chunks(4).map(|chunk| chunk.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte)))
}

/// Longest text that is put into lower case on the stack, piece by piece.
const PIECE: usize = 64;

#[cold]
fn long_lower(text: &[u8]) -> Vec<u8> {
    text.to_ascii_lowercase()
}

fn without_case<E>(branch: &Branch, text: &[u8], look: &mut impl FnMut(Kind, &[u8]) -> Result<(), E>) -> Result<(), E> {
    let mut short = [0; PIECE];
    let long;
    let lower: &[u8] = match short.get_mut(..text.len()) {
        Some(piece) => {
            piece.copy_from_slice(text);
            piece.make_ascii_lowercase();
            piece
        }
        None => {
            long = long_lower(text);
            &long
        }
    };
    if branch.kinds & 1 << Kind::CaseText as u16 != 0 {
        look(Kind::CaseText, lower)?;
    }
    for &len in branch.lengths[2].iter().take_while(|&&len| len as usize <= lower.len()) {
        look(Kind::CasePrefix, &lower[..len as usize])?;
    }
    for &len in branch.lengths[3].iter().take_while(|&&len| len as usize <= lower.len()) {
        look(Kind::CaseSuffix, &lower[lower.len() - len as usize..])?;
    }
    Ok(())
}

fn by_address<E>(branch: &Branch, text: &[u8], look: &mut impl FnMut(Kind, &[u8]) -> Result<(), E>) -> Result<(), E> {
    let Ok(address) = Address::parse(text) else { return Ok(()) };
    let mut operand = [0; 18];
    if branch.kinds & 1 << Kind::Address as u16 != 0 {
        let len = address_key(address, None, &mut operand);
        look(Kind::Address, &operand[..len])?;
    }
    let width = if matches!(address, Address::V4(_)) { 32 } else { 128 };
    for &bits in branch.masks.iter().filter(|&&bits| bits <= width) {
        let len = address_key(address, Some(bits), &mut operand);
        look(Kind::Cidr, &operand[..len])?;
    }
    Ok(())
}

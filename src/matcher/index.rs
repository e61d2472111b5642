//! The alternatives of all rules as a tree: each node files them under the condition that fewest events meet; where many
//! come together under one key, a node of their other conditions follows.
//!
//! In: an event's fields. Out: the alternatives that may match, each with the conditions still to be tested. Promises: an
//! alternative that matches is among them; a list is given out once an event. Leaves to others: how the tree is grown
//! (`tree`), testing conditions (`mod`).

use super::intervals::Intervals;
use super::keys::{GRAM, Kind, address_key, word};
use super::table::{NOTHING, Seed, Table, salted};
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
    /// Lists, each: number, node below or [`NOTHING`], owner, kind and operand length, operand, count, entries. An entry
    /// is a rule, an alternative, its fields (see [`Entry`]), how many conditions are left, and those. Everything that a
    /// hit reads lies together.
    pub blob: Vec<u32>,
    /// How many lists there are.
    pub lists: usize,
    /// Operand lengths and mask lengths of all branches, each branch's kinds one after the other.
    pub lengths: Vec<u32>,
    pub ranges: Vec<Intervals>,
    /// By field: the grams that any branch files.
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
    /// By field.
    pub branches: Box<[Branch]>,
}

/// What a node asks the values of one field.
pub(super) struct Branch {
    pub field: FieldId,
    /// Unique in the index.
    pub number: u32,
    /// Where the lengths of each of [`MEASURED`] begin in [`Index::lengths`], and where the last end; ascending.
    pub lengths: [u32; MEASURED.len() + 1],
    /// A bit a [`Kind`].
    pub kinds: u16,
    /// Into [`Index::ranges`].
    pub ranges: Option<u32>,
}

/// The kinds whose operands are cut out of a value, by length.
pub(super) const MEASURED: [Kind; 6] =
    [Kind::Prefix, Kind::Suffix, Kind::CasePrefix, Kind::CaseSuffix, Kind::Gram, Kind::Cidr];

impl Branch {
    #[inline(always)]
    fn has(&self, kind: Kind) -> bool {
        self.kinds & 1 << kind as u16 != 0
    }

    /// Whether it asks for the address that a text spells.
    #[inline(always)]
    pub fn by_address(&self) -> bool {
        self.has(Kind::Address) || self.has(Kind::Cidr)
    }

    /// Whether it asks for the grams of a text.
    #[inline(always)]
    pub fn by_gram(&self) -> bool {
        self.has(Kind::Gram)
    }
}

/// The bits of grams of [`GRAM`] bytes; a text has many, few of which are filed.
#[derive(Default)]
pub(super) struct Grams(Box<[u64]>);

impl Grams {
    pub fn new(all: &[[u8; GRAM]]) -> Self {
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
    fn bit(&self, gram: [u8; GRAM]) -> (usize, u64) {
        let mixed = u32::from_le_bytes(gram).wrapping_mul(0x9E37_79B1);
        ((mixed >> 6) as usize & (self.0.len() - 1), 1 << (mixed >> 26))
    }
}

/// Where in a text grams that are filed may stand.
#[derive(Clone, Copy, Default)]
pub(super) struct Runs {
    /// Which text: where it lies, and its length.
    pub of: (usize, usize),
    at: [u16; 12],
    /// Beyond what fits: everywhere.
    count: usize,
}

impl Runs {
    pub fn of(text: &[u8], grams: &Grams) -> Self {
        let mut runs = Self { of: (text.as_ptr() as usize, text.len()), ..Self::default() };
        let mut rest = if grams.0.is_empty() { &[] } else { text };
        for at in 0..=u16::MAX {
            let Some(&gram) = rest.first_chunk() else { return runs };
            let (word, bit) = grams.bit(gram);
            if grams.0[word] & bit != 0 {
                runs.count += 1;
                match runs.at.get_mut(runs.count - 1) {
                    Some(slot) => *slot = at,
                    None => return runs,
                }
            }
            rest = &rest[1..];
        }
        runs.count = usize::MAX;
        runs
    }
}

/// What is known of a text by itself, where a branch asks for it.
#[derive(Default)]
pub(super) struct Known {
    pub address: Option<Address>,
    pub runs: Runs,
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
        let hash = salted(self.seed.hash(operand), salt(branch, kind));
        self.table.find(hash, |place| self.is(place, branch, kind, operand))
    }

    /// Whether the list at a place is filed so: a hash alone proves nothing.
    fn is(&self, place: Place, branch: u32, kind: Kind, operand: &[u8]) -> bool {
        let head = &self.blob[place as usize..];
        head[2] == branch
            && u64::from(head[3]) == (operand.len() as u64) << 8 | kind as u64
            && packed(operand).zip(&head[HEADER..]).all(|(word, filed)| word == *filed)
    }

    /// Whether a node would look at more values than `most`.
    pub fn exceeds(&self, node: usize, event: &Fields<'_>, most: usize) -> bool {
        let values = event.all().len();
        values > most.max(64)
            && self.nodes[node].branches.iter().map(|branch| event.count(branch.field)).sum::<usize>() > most
    }

    /// The lengths of one of [`MEASURED`].
    #[inline(always)]
    fn lengths(&self, branch: &Branch, which: usize) -> &[u32] {
        &self.lengths[branch.lengths[which] as usize..branch.lengths[which + 1] as usize]
    }

    /// Calls `found` with every list of `branch` that a value leads to.
    ///
    /// # Errors
    /// The first of `found`.
    #[inline]
    pub fn ask<E>(
        &self,
        branch: &Branch,
        value: &Value<'_>,
        known: &Known,
        mut found: impl FnMut(Place) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut look = |kind: Kind, operand: &[u8]| match self.find(branch.number, kind, operand) {
            Some(place) => found(place),
            None => Ok(()),
        };
        match *value {
            Value::String(text) => self.ask_text(branch, text, known, &mut look),
            Value::Number(text, value) => {
                if branch.has(Kind::NumberText) {
                    look(Kind::NumberText, text)?;
                }
                let Some(value) = value else { return Ok(()) };
                if branch.has(Kind::Number) {
                    look(Kind::Number, &value.to_bits().to_le_bytes())?;
                }
                branch.ranges.map_or(Ok(()), |ranges| self.ranges[ranges as usize].holding(value, found))
            }
            Value::Bool(value) if branch.has(Kind::Word) => look(Kind::Word, &[word(Some(value))]),
            Value::Null if branch.has(Kind::Word) => look(Kind::Word, &[word(None)]),
            Value::Bool(_) | Value::Null => Ok(()),
        }
    }

    #[inline]
    fn ask_text<E>(
        &self,
        branch: &Branch,
        text: &[u8],
        known: &Known,
        look: &mut impl FnMut(Kind, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if branch.has(Kind::Text) {
            look(Kind::Text, text)?;
        }
        if branch.kinds & CUT == 0 {
            return Ok(());
        }
        if branch.has(Kind::Prefix) {
            for &len in self.lengths(branch, 0).iter().take_while(|&&len| len as usize <= text.len()) {
                look(Kind::Prefix, &text[..len as usize])?;
            }
        }
        if branch.has(Kind::Suffix) {
            for &len in self.lengths(branch, 1).iter().take_while(|&&len| len as usize <= text.len()) {
                look(Kind::Suffix, &text[text.len() - len as usize..])?;
            }
        }
        if branch.by_gram() {
            self.by_gram(branch, text, &known.runs, look)?;
        }
        if branch.has(Kind::CaseText) || branch.has(Kind::CasePrefix) || branch.has(Kind::CaseSuffix) {
            self.without_case(branch, text, look)?;
        }
        known.address.map_or(Ok(()), |address| self.by_address(branch, address, look))
    }

    fn by_gram<E>(
        &self,
        branch: &Branch,
        text: &[u8],
        runs: &Runs,
        look: &mut impl FnMut(Kind, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        for &len in self.lengths(branch, 4) {
            match runs.at.get(..runs.count) {
                Some(all) if len as usize == GRAM => {
                    for &at in all {
                        look(Kind::Gram, &text[usize::from(at)..usize::from(at) + GRAM])?;
                    }
                }
                _ => text.windows(len as usize).try_for_each(|run| look(Kind::Gram, run))?,
            }
        }
        Ok(())
    }

    fn without_case<E>(
        &self,
        branch: &Branch,
        text: &[u8],
        look: &mut impl FnMut(Kind, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
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
        if branch.has(Kind::CaseText) {
            look(Kind::CaseText, lower)?;
        }
        for &len in self.lengths(branch, 2).iter().take_while(|&&len| len as usize <= lower.len()) {
            look(Kind::CasePrefix, &lower[..len as usize])?;
        }
        for &len in self.lengths(branch, 3).iter().take_while(|&&len| len as usize <= lower.len()) {
            look(Kind::CaseSuffix, &lower[lower.len() - len as usize..])?;
        }
        Ok(())
    }

    fn by_address<E>(
        &self,
        branch: &Branch,
        address: Address,
        look: &mut impl FnMut(Kind, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut operand = [0; 18];
        if branch.has(Kind::Address) {
            let len = address_key(address, None, &mut operand);
            look(Kind::Address, &operand[..len])?;
        }
        let width = if matches!(address, Address::V4(_)) { 32 } else { 128 };
        for &bits in self.lengths(branch, 5).iter().filter(|&&bits| bits <= width) {
            let len = address_key(address, Some(bits as u8), &mut operand);
            look(Kind::Cidr, &operand[..len])?;
        }
        Ok(())
    }
}

/// The kinds that look at more than the whole text as it stands.
const CUT: u16 =
    !(1 << Kind::Text as u16 | 1 << Kind::Number as u16 | 1 << Kind::NumberText as u16 | 1 << Kind::Word as u16);

/// The bytes of an operand as words, zeros behind the last.
pub(super) fn packed(operand: &[u8]) -> impl Iterator<Item = u32> {
    operand.chunks(4).map(|chunk| chunk.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte)))
}

/// Longest text that is put into lower case on the stack.
const PIECE: usize = 64;

#[cold]
fn long_lower(text: &[u8]) -> Vec<u8> {
    text.to_ascii_lowercase()
}

//! From a value of the event to the alternatives filed under it, per path.

use super::condition::Condition;
use crate::event::address::Address;
use crate::event::{Fault, Field, Value, number};
use crate::pattern::{Numbers, Test};
use siphasher::sip::SipHasher13;
use std::collections::HashMap;
use std::hash::BuildHasher;

/// Keyed hashing with a given seed: event data is looked up in these maps.
#[derive(Clone, Copy)]
pub(super) struct Seed(pub u64);

impl BuildHasher for Seed {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, !self.0)
    }
}

type Postings<K> = HashMap<K, Vec<u32>, Seed>;

/// Alternatives found for a value.
pub(super) enum Filed<'i> {
    /// They have a test that accepts the value.
    Under(&'i [u32]),
    /// They have this condition as their pivot, still to be tested.
    Behind(u32, &'i [u32]),
}

/// The value indexes of all fields of a matcher.
pub(super) struct ValueIndex {
    fields: Vec<FieldIndex>,
}

struct FieldIndex {
    text: Postings<Box<[u8]>>,
    address: Postings<Address>,
    /// By the bits of the value.
    number: Postings<u64>,
    number_text: Postings<Box<[u8]>>,
    /// `false`, `true`, `null`.
    words: [Vec<u32>; 3],
    prefix: Affixes,
    suffix: Affixes,
    /// Conditions that are tested as they stand, and the alternatives behind each.
    tested: Vec<(u32, Vec<u32>)>,
}

struct Affixes {
    /// Distinct operand lengths, ascending.
    lengths: Vec<usize>,
    operands: Postings<Box<[u8]>>,
}

impl Affixes {
    fn new(seed: Seed) -> Self {
        Self { lengths: Vec::new(), operands: HashMap::with_hasher(seed) }
    }

    fn file(&mut self, operand: &[u8], alternative: u32) {
        if let Err(slot) = self.lengths.binary_search(&operand.len()) {
            self.lengths.insert(slot, operand.len());
        }
        file(&mut self.operands, operand.into(), alternative);
    }
}

fn file<K: std::hash::Hash + Eq>(postings: &mut Postings<K>, key: K, alternative: u32) {
    let list = postings.entry(key).or_default();
    if list.last() != Some(&alternative) {
        list.push(alternative);
    }
}

impl FieldIndex {
    fn new(seed: Seed) -> Self {
        Self {
            text: HashMap::with_hasher(seed),
            address: HashMap::with_hasher(seed),
            number: HashMap::with_hasher(seed),
            number_text: HashMap::with_hasher(seed),
            words: [const { Vec::new() }; 3],
            prefix: Affixes::new(seed),
            suffix: Affixes::new(seed),
            tested: Vec::new(),
        }
    }
}

/// Whether a value finds the test through a table, so that no other condition of its kind is looked at.
pub(super) fn is_direct(test: &Test) -> bool {
    matches!(
        test,
        Test::Text(..)
            | Test::Exactly(_)
            | Test::Number(_)
            | Test::Bool(_)
            | Test::Null
            | Test::Prefix(_)
            | Test::Suffix(_)
    )
}

impl ValueIndex {
    pub fn new(fields: usize, seed: Seed) -> Self {
        Self { fields: (0..fields).map(|_| FieldIndex::new(seed)).collect() }
    }

    /// Files an alternative under its pivot, which must need a value.
    pub fn file(&mut self, number: u32, condition: &Condition, alternative: u32, numbers: Numbers) {
        let field = &mut self.fields[condition.field.0 as usize];
        if !condition.tests().iter().all(is_direct) {
            match field.tested.iter_mut().find(|(tested, _)| *tested == number) {
                Some((_, list)) => list.push(alternative),
                None => field.tested.push((number, vec![alternative])),
            }
            return;
        }
        for test in condition.tests() {
            match test {
                Test::Text(text, Some(address)) => {
                    file(&mut field.address, *address, alternative);
                    file(&mut field.text, text.as_slice().into(), alternative);
                }
                Test::Text(text, None) | Test::Exactly(text) => {
                    file(&mut field.text, text.as_slice().into(), alternative);
                }
                Test::Number(number) => match number.value {
                    Some(value) if numbers == Numbers::Value => {
                        file(&mut field.number, value.to_bits(), alternative);
                    }
                    _ => file(&mut field.number_text, number.text.as_slice().into(), alternative),
                },
                Test::Bool(b) => field.words[usize::from(*b)].push(alternative),
                Test::Null => field.words[2].push(alternative),
                Test::Prefix(operand) => field.prefix.file(operand, alternative),
                Test::Suffix(operand) => field.suffix.file(operand, alternative),
                _ => {}
            }
        }
    }

    /// Calls `found` with the alternatives that `field`'s value leads to; one may be named several times.
    ///
    /// # Errors
    /// Those of `found`, at once.
    pub fn candidates<'i>(
        &'i self,
        field: &Field<'_>,
        mut found: impl FnMut(Filed<'i>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let index = &self.fields[field.id.0 as usize];
        let mut under = |list: Option<&'i Vec<u32>>| list.map_or(Ok(()), |list| found(Filed::Under(list)));
        match field.value {
            Value::String(text) => {
                under(index.text.get(text))?;
                if !index.address.is_empty()
                    && let Ok(address) = Address::parse(text)
                {
                    under(index.address.get(&address))?;
                }
                for &len in index.prefix.lengths.iter().take_while(|&&len| len <= text.len()) {
                    under(index.prefix.operands.get(&text[..len]))?;
                }
                for &len in index.suffix.lengths.iter().take_while(|&&len| len <= text.len()) {
                    under(index.suffix.operands.get(&text[text.len() - len..]))?;
                }
            }
            Value::Number(text) => {
                if !index.number.is_empty()
                    && let Some(value) = number::comparable(text)
                {
                    under(index.number.get(&value.to_bits()))?;
                }
                under(index.number_text.get(text))?;
            }
            Value::Bool(b) => under(Some(&index.words[usize::from(b)]))?,
            Value::Null => under(Some(&index.words[2]))?,
        }
        index.tested.iter().try_for_each(|(condition, list)| found(Filed::Behind(*condition, list)))
    }
}

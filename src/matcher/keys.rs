//! What a test is filed under, so that a value of the event finds it without looking at the others.
//!
//! In: a test. Out: a key, a range, or nothing where a value cannot name it (`anything-but`, `exists`, letters beyond
//! ASCII without case). Promises: whatever the test accepts leads to one of its keys.

use super::condition::Condition;
use crate::event::FieldId;
use crate::event::address::{Address, Block};
use crate::pattern::{IgnoreCase, Numbers, Range, Test, Wildcard};
use std::collections::{HashMap, HashSet};

/// How an operand is compared with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    /// The whole text.
    Text,
    /// An address in any spelling.
    Address,
    /// The bits of a number's value.
    Number,
    /// A number's spelling.
    NumberText,
    /// `true`, `false`, `null`.
    Word,
    Prefix,
    Suffix,
    /// In lower case, all ASCII.
    CaseText,
    CasePrefix,
    CaseSuffix,
    /// The leading bits of an address, and how many.
    Cidr,
    /// A few bytes anywhere in the text.
    Gram,
    /// A range of numbers; no key.
    Range,
}

/// Longest run of bytes by which a literal is found inside a value.
pub(super) const GRAM: usize = 4;

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub kind: Kind,
    pub operand: Vec<u8>,
    /// Whether a value that leads here is accepted without another look.
    pub proves: bool,
}

#[derive(Debug, Clone)]
pub(super) enum Anchor {
    Key(Key),
    Range(Range),
}

/// What a condition is filed under: one anchor a test.
pub(super) struct Anchors {
    pub all: Vec<Anchor>,
    /// The share of events that lead here, estimated from how many operands rules have for the same field and kind.
    pub share: f64,
}

pub(super) fn word(value: Option<bool>) -> u8 {
    value.map_or(2, u8::from)
}

/// Writes an address, or its leading `bits` and how many; returns the length.
pub(super) fn address_key(address: Address, bits: Option<u8>, put: &mut [u8; 18]) -> usize {
    let shift = |width: u32| width - u32::from(bits.unwrap_or(width as u8)).min(width);
    put[0] = bits.unwrap_or(u8::MAX);
    let (family, value) = match address {
        Address::V4(value) => (4, u128::from(value.checked_shr(shift(32)).unwrap_or(0))),
        Address::V6(value) => (6, value.checked_shr(shift(128)).unwrap_or(0)),
    };
    put[1] = family;
    put[2..].copy_from_slice(&value.to_le_bytes());
    if family == 4 { 6 } else { 18 }
}

/// How often runs of bytes occur in the literals of a field's wildcards.
#[derive(Default)]
pub(super) struct Grams(HashMap<(FieldId, Vec<u8>), u32>);

impl Grams {
    pub fn count(&mut self, condition: &Condition) {
        for test in condition.tests() {
            let Test::Wildcard(wildcard) = test else { continue };
            let runs: HashSet<&[u8]> = wildcard.literals().iter().flat_map(|literal| windows(literal)).collect();
            for run in runs {
                *self.0.entry((condition.field, run.to_vec())).or_default() += 1;
            }
        }
    }

    /// The run of a wildcard's literals that fewest wildcards have; the longest of those.
    fn rarest<'w>(&self, field: FieldId, wildcard: &'w Wildcard) -> Option<&'w [u8]> {
        let runs = wildcard.literals().iter().flat_map(|literal| windows(literal)).filter(|run| !run.is_empty());
        runs.min_by_key(|run| {
            let count = self.0.get(&(field, run.to_vec())).copied().unwrap_or(0);
            (count, usize::MAX - run.len(), *run)
        })
    }
}

fn windows(literal: &[u8]) -> impl Iterator<Item = &[u8]> {
    literal.windows(GRAM.min(literal.len()).max(1))
}

/// The anchor of one test.
fn anchor(test: &Test, field: FieldId, numbers: Numbers, grams: &Grams) -> Option<Anchor> {
    let key = |kind, operand: &[u8]| Some(Anchor::Key(Key { kind, operand: operand.to_vec(), proves: true }));
    match test {
        Test::Text(_, Some(address)) => {
            let mut operand = [0; 18];
            let len = address_key(*address, None, &mut operand);
            key(Kind::Address, &operand[..len])
        }
        Test::Text(text, None) | Test::Exactly(text) => key(Kind::Text, text),
        Test::Number(number) => match number.value {
            Some(value) if numbers == Numbers::Value => key(Kind::Number, &value.to_bits().to_le_bytes()),
            _ => key(Kind::NumberText, &number.text),
        },
        Test::Bool(value) => key(Kind::Word, &[word(Some(*value))]),
        Test::Null => key(Kind::Word, &[word(None)]),
        Test::Prefix(operand) if !operand.is_empty() => key(Kind::Prefix, operand),
        Test::Suffix(operand) if !operand.is_empty() => key(Kind::Suffix, operand),
        Test::EqualsIgnoreCase(operand) => folded(operand).and_then(|operand| key(Kind::CaseText, &operand)),
        Test::PrefixIgnoreCase(operand) => folded(operand).and_then(|operand| key(Kind::CasePrefix, &operand)),
        Test::SuffixIgnoreCase(operand) => folded(operand).and_then(|operand| key(Kind::CaseSuffix, &operand)),
        Test::Wildcard(wildcard) => match wildcard.literals() {
            [whole] => key(Kind::Text, whole),
            _ => {
                let operand = grams.rarest(field, wildcard)?.to_vec();
                Some(Anchor::Key(Key { kind: Kind::Gram, operand, proves: false }))
            }
        },
        Test::Numeric(range) => Some(Anchor::Range(*range)),
        Test::Cidr(Block { base, bits }) => {
            let mut operand = [0; 18];
            let len = address_key(*base, Some(*bits), &mut operand);
            key(Kind::Cidr, &operand[..len])
        }
        Test::Prefix(_) | Test::Suffix(_) | Test::AnythingBut(_) | Test::Exists(_) => None,
    }
}

/// An operand of ASCII letters accepts just what equals it in lower case.
fn folded(operand: &IgnoreCase) -> Option<Vec<u8>> {
    let text = operand.operand();
    (text.is_ascii() && !text.is_empty()).then(|| text.to_ascii_lowercase())
}

/// The anchors of every condition; nothing for one that absence satisfies or that has a test without any.
pub(super) fn anchors(conditions: &[Condition], numbers: Numbers) -> Vec<Option<Anchors>> {
    let mut grams = Grams::default();
    conditions.iter().for_each(|condition| grams.count(condition));
    let mut all: Vec<Option<Anchors>> = conditions
        .iter()
        .map(|condition| {
            let tests = condition.tests().iter().filter(|_| !condition.absence);
            let all: Option<Vec<Anchor>> = tests.map(|test| anchor(test, condition.field, numbers, &grams)).collect();
            all.filter(|all| !all.is_empty()).map(|all| Anchors { all, share: 1.0 })
        })
        .collect();
    let mut operands: HashSet<(FieldId, &Key)> = HashSet::new();
    let mut distinct: HashMap<(FieldId, Kind), f64> = HashMap::new();
    let filed = || conditions.iter().zip(&all).filter_map(|(condition, it)| Some((condition.field, it.as_ref()?)));
    for (field, anchors) in filed() {
        for anchor in &anchors.all {
            if let Anchor::Key(key) = anchor
                && operands.insert((field, key))
            {
                *distinct.entry((field, key.kind)).or_insert(1.0) += 1.0;
            }
        }
    }
    let share = |field, anchor: &Anchor| match anchor {
        Anchor::Range(_) => 0.25,
        // Two of the three words are frequent, whatever rules name.
        Anchor::Key(key) if key.kind == Kind::Word => 0.4,
        Anchor::Key(key) => 1.0 / distinct.get(&(field, key.kind)).copied().unwrap_or(1.0),
    };
    let shares: Vec<f64> = conditions
        .iter()
        .zip(&all)
        .map(|(condition, it)| {
            let sum: f64 = it.iter().flat_map(|it| &it.all).map(|anchor| share(condition.field, anchor)).sum();
            sum.min(1.0)
        })
        .collect();
    for (anchors, share) in all.iter_mut().zip(shares) {
        if let Some(anchors) = anchors {
            anchors.share = share;
        }
    }
    all
}

//! Fields that few exact values are named of: a value is one of those or none, so conditions on it are sets of bits.

use super::condition::Condition;
use crate::event::{FieldId, Fields, Value};
use crate::pattern::{AnythingBut, Test};
use std::collections::BTreeMap;

/// A condition as a set of the operands of its field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Set {
    /// Accepts these.
    In(u64),
    /// Accepts what is not one of these texts.
    NotIn(u64),
    /// Accepts every value.
    Any,
    /// Accepts that there is none.
    Nothing,
}

/// Most operands of a field, as many as there are bits.
const MOST: usize = 64;
/// Twice as many slots as operands.
const SLOTS: usize = 128;

const FREE: u8 = u8::MAX;

/// What conditions name, of one field.
#[derive(Default)]
struct Operands {
    texts: Vec<Box<[u8]>>,
    /// By the hash of their text.
    slots: Vec<u8>,
    /// `false`, `true`, `null`.
    words: [u64; 3],
}

/// An operand as a pattern has it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Operand<'t> {
    Text(&'t [u8]),
    Word(usize),
}

/// The values of a field, seen as operands.
#[derive(Clone, Copy, Default)]
pub(super) struct Class {
    /// The event that it was made for.
    epoch: u32,
    /// Which operands they are.
    bits: u64,
    /// Whether there is one, and it is a text.
    text: bool,
    /// Whether there are several.
    many: bool,
    any: bool,
}

/// Immutable.
pub(super) struct Classes(Vec<Option<Operands>>);

fn slot(text: &[u8]) -> usize {
    let ends = text.first().zip(text.last()).map_or(0, |(first, last)| usize::from(*first) * 31 + usize::from(*last));
    (ends * 7 + text.len() * 13) % SLOTS
}

/// The operands of a condition that is nothing but a set, and whether it accepts them.
fn operands(condition: &Condition) -> Option<(Vec<Operand<'_>>, bool)> {
    if let [Test::AnythingBut(AnythingBut::Text(list))] = condition.tests() {
        return Some((list.iter().map(|text| Operand::Text(text)).collect(), false));
    }
    let exact = condition.tests().iter().map(|test| match test {
        Test::Text(text, None) | Test::Exactly(text) => Some(Operand::Text(text)),
        Test::Bool(value) => Some(Operand::Word(usize::from(*value))),
        Test::Null => Some(Operand::Word(2)),
        _ => None,
    });
    exact.collect::<Option<_>>().map(|all| (all, true))
}

impl Classes {
    /// Finds the fields with few operands and makes sets of their conditions.
    pub fn new(conditions: &mut [Condition], fields: usize) -> Self {
        let mut named: Vec<Option<BTreeMap<Operand<'_>, u64>>> = vec![Some(BTreeMap::new()); fields];
        let mut sets = Vec::with_capacity(conditions.len());
        for condition in conditions.iter() {
            let field = &mut named[condition.field.0 as usize];
            let set = operands(condition).filter(|_| field.is_some());
            for operand in set.iter().flat_map(|(all, _)| all) {
                let Some(known) = field else { break };
                let fresh = known.len();
                match fresh < MOST || known.contains_key(operand) {
                    true => _ = known.entry(*operand).or_insert(1 << (fresh % MOST)),
                    false => *field = None,
                }
            }
            sets.push(set);
        }
        let made: Vec<Option<Set>> = (conditions.iter().zip(sets))
            .map(|(condition, set)| {
                match condition.tests() {
                    [Test::Exists(true)] => return Some(Set::Any),
                    [Test::Exists(false)] => return Some(Set::Nothing),
                    _ => {}
                }
                let (known, (all, accepts)) = (named[condition.field.0 as usize].as_ref()?, set?);
                let bits = all.iter().map(|operand| known.get(operand).copied().unwrap_or(0)).fold(0, |a, b| a | b);
                Some(if accepts { Set::In(bits) } else { Set::NotIn(bits) })
            })
            .collect();
        let classes =
            named.into_iter().map(|field| field.filter(|known| !known.is_empty()).map(Operands::new)).collect();
        conditions.iter_mut().zip(made).for_each(|(condition, set)| condition.set = set);
        Self(classes)
    }

    /// What the event's values of `field` are; remembered in `class`.
    #[inline]
    fn class(&self, field: FieldId, event: &Fields<'_>, epoch: u32, class: &mut Class) -> Class {
        if class.epoch != epoch {
            *class = Class { epoch, ..Class::default() };
            for value in event.values(field) {
                let (bits, text) = match (self.0[field.0 as usize].as_ref(), value.value) {
                    (Some(operands), Value::String(text)) => (operands.find(text), true),
                    (Some(operands), Value::Bool(value)) => (operands.words[usize::from(value)], false),
                    (Some(operands), Value::Null) => (operands.words[2], false),
                    _ => (0, false),
                };
                (class.many, class.any) = (class.any, true);
                (class.bits, class.text) = (class.bits | bits, text);
            }
        }
        *class
    }

    /// Whether a value of the event is in the set; `None` where the values must be looked at one by one.
    #[inline]
    pub fn accepts(
        &self,
        field: FieldId,
        set: Set,
        event: &Fields<'_>,
        epoch: u32,
        memory: &mut [Class],
    ) -> Option<bool> {
        let class = self.class(field, event, epoch, &mut memory[field.0 as usize]);
        match set {
            Set::In(bits) => Some(class.bits & bits != 0),
            Set::NotIn(_) if class.many => None,
            Set::Any => Some(class.any),
            // In arrays of objects it may hold among the elements chosen.
            Set::Nothing => Some(!class.any || event.placed_at(field)),
            Set::NotIn(bits) => Some(class.any && (!class.text || class.bits & bits == 0)),
        }
    }
}

impl Operands {
    fn new(known: BTreeMap<Operand<'_>, u64>) -> Self {
        let mut operands = Self { texts: vec![[].into(); known.len()], slots: vec![FREE; SLOTS], words: [0; 3] };
        for (operand, bit) in known {
            match operand {
                Operand::Word(word) => operands.words[word] = bit,
                Operand::Text(text) => {
                    let mut at = slot(text);
                    while operands.slots[at] != FREE {
                        at = (at + 1) % SLOTS;
                    }
                    operands.slots[at] = bit.trailing_zeros() as u8;
                    operands.texts[bit.trailing_zeros() as usize] = text.into();
                }
            }
        }
        operands
    }

    fn find(&self, text: &[u8]) -> u64 {
        let mut at = slot(text);
        loop {
            let number = self.slots[at];
            if number == FREE {
                return 0;
            }
            if *self.texts[usize::from(number)] == *text {
                return 1 << number;
            }
            at = (at + 1) % SLOTS;
        }
    }
}

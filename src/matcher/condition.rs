//! One field's tests, compiled.

use super::classes::Set;
use crate::event::address::Address;
use crate::event::{FieldId, Value};
use crate::pattern::{AnythingBut, Number, Numbers, Test};
use std::sync::Arc;

/// The tests of a field, of which one must accept a value.
pub(super) struct Condition {
    pub field: FieldId,
    /// Whether the field's absence is accepted as well.
    pub absence: bool,
    /// The same as bits, where that says it all.
    pub set: Option<Set>,
    tests: Arc<[Test]>,
    numbers: Numbers,
}

impl Condition {
    pub fn new(field: FieldId, tests: Arc<[Test]>, numbers: Numbers) -> Self {
        let absence = tests.contains(&Test::Exists(false));
        Self { field, absence, set: None, tests, numbers }
    }

    pub fn tests(&self) -> &[Test] {
        &self.tests
    }

    /// Whether a test accepts the value.
    pub fn accepts(&self, value: &Value<'_>) -> bool {
        match *value {
            Value::String(text) => self.tests.iter().any(|test| accepts_text(test, text)),
            Value::Number(text, value) => self.tests.iter().any(|test| accepts_number(test, text, value, self.numbers)),
            Value::Bool(b) => self.tests.iter().any(|test| *test == Test::Bool(b) || accepts_any(test)),
            Value::Null => self.tests.iter().any(|test| *test == Test::Null || accepts_any(test)),
        }
    }
}

/// Tests that accept every value that is neither text nor number.
fn accepts_any(test: &Test) -> bool {
    matches!(test, Test::Exists(true) | Test::AnythingBut(_))
}

fn accepts_text(test: &Test, text: &[u8]) -> bool {
    match test {
        Test::Text(want, None) | Test::Exactly(want) => text == want,
        Test::Text(want, Some(address)) => text == want || Address::parse(text) == Ok(*address),
        Test::Prefix(want) => text.starts_with(want),
        Test::PrefixIgnoreCase(want) => want.starts(text),
        Test::Suffix(want) => text.ends_with(want),
        Test::SuffixIgnoreCase(want) => want.finishes(text),
        Test::EqualsIgnoreCase(want) => want.equals(text),
        Test::Wildcard(want) => want.matches(text),
        Test::Cidr(block) => Address::parse(text).is_ok_and(|address| block.contains(address)),
        Test::Exists(wanted) => *wanted,
        Test::AnythingBut(excluded) => match excluded {
            AnythingBut::Text(list) => list.iter().all(|want| want != text),
            AnythingBut::Numbers(_) => true,
            AnythingBut::Prefix(list) => !list.iter().any(|want| text.starts_with(want)),
            AnythingBut::Suffix(list) => !list.iter().any(|want| text.ends_with(want)),
            AnythingBut::EqualsIgnoreCase(list) => !list.iter().any(|want| want.equals(text)),
            AnythingBut::Wildcard(list) => !list.iter().any(|want| want.matches(text)),
        },
        Test::Number(_) | Test::Bool(_) | Test::Null | Test::Numeric(_) => false,
    }
}

fn accepts_number(test: &Test, text: &[u8], value: Option<f64>, numbers: Numbers) -> bool {
    let same = |want: &Number| want.text == text;
    match test {
        Test::Number(want) => match (numbers, want.value, value) {
            (Numbers::Value, Some(want), Some(value)) => want == value,
            _ => same(want),
        },
        Test::Numeric(range) => value.is_some_and(|value| range.contains(value)),
        Test::Exists(wanted) => *wanted,
        Test::AnythingBut(AnythingBut::Numbers(list)) => match numbers {
            Numbers::Text => !list.iter().any(same),
            Numbers::Value => value.is_none_or(|value| list.iter().all(|want| want.value != Some(value))),
        },
        Test::AnythingBut(_) => true,
        _ => false,
    }
}

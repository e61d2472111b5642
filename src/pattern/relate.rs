//! What can be proved of patterns without events: that one matches all that another does, that a list accepts nothing.
//!
//! Everything here is one-sided: `true` is proved, `false` says nothing.

use super::{Alternative, AnythingBut, Number, Numbers, Pattern, Range, Test};
use std::sync::Arc;

/// Whether `wide` matches every event that `narrow` does.
pub fn covers(wide: &Pattern, narrow: &Pattern, numbers: Numbers) -> bool {
    let covered = |narrow| wide.alternatives.iter().any(|wide| covers_alternative(wide, narrow, numbers));
    narrow.alternatives.iter().all(covered)
}

/// Whether one alternative matches every event that another does: it asks no more of any path.
///
/// Values that satisfy the narrow one are a choice for the wide one, too. Absence alone depends on the elements chosen
/// before (section 8.2), so where it is what may satisfy the narrow one, both must have chosen at the same paths.
pub fn covers_alternative(wide: &Alternative, narrow: &Alternative, numbers: Numbers) -> bool {
    wide.conditions.iter().enumerate().all(|(n, condition)| {
        let same = narrow.conditions.iter().position(|other| other.path == condition.path);
        let Some(at) = same else { return false };
        let other = &narrow.conditions[at];
        let chosen_alike = || {
            let paths = |alternative: &Alternative, n: usize| {
                alternative.conditions[..n].iter().map(|condition| Arc::clone(&condition.path)).collect::<Vec<_>>()
            };
            paths(wide, n) == paths(narrow, at)
        };
        let by_absence = other.tests.contains(&Test::Exists(false));
        covers_list(&condition.tests, &other.tests, numbers) && (!by_absence || chosen_alike())
    })
}

fn covers_list(wide: &[Test], narrow: &[Test], numbers: Numbers) -> bool {
    let every_value = everything(wide);
    narrow.iter().all(|narrow| {
        accepts_nothing(narrow)
            || (every_value && *narrow != Test::Exists(false))
            || wide.iter().any(|wide| covers_test(wide, narrow, numbers))
    })
}

/// Whether a list accepts every value there is; absence is no value.
pub fn everything(tests: &[Test]) -> bool {
    let excluded: Vec<&AnythingBut> = tests
        .iter()
        .filter_map(|test| match test {
            Test::AnythingBut(excluded) => Some(excluded),
            _ => None,
        })
        .collect();
    let text = |excluded: &AnythingBut| !matches!(excluded, AnythingBut::Numbers(_));
    tests.contains(&Test::Exists(true))
        // What one excludes are texts, what another excludes are numbers.
        || (excluded.iter().any(|excluded| text(excluded)) && excluded.iter().any(|excluded| !text(excluded)))
        || excluded.iter().any(|one| excluded.iter().any(|other| apart(one, other)))
}

/// Whether two exclusions have nothing in common.
fn apart(one: &AnythingBut, other: &AnythingBut) -> bool {
    match (one, other) {
        (AnythingBut::Text(one), AnythingBut::Text(other)) => one.iter().all(|text| !other.contains(text)),
        (AnythingBut::Numbers(one), AnythingBut::Numbers(other)) => {
            one.iter().all(|number| other.iter().all(|other| other.value != number.value && other.text != number.text))
        }
        _ => false,
    }
}

/// Whether no event satisfies the list.
pub fn nothing(tests: &[Test]) -> bool {
    tests.iter().all(accepts_nothing)
}

/// A range between neighbouring doubles is empty: values between them are not comparable (section 4.2).
fn accepts_nothing(test: &Test) -> bool {
    let Test::Numeric(Range { low, high }) = test else { return false };
    let lowest = low.map_or(f64::MIN, |(low, included)| if included { low } else { low.next_up() });
    let highest = high.map_or(f64::MAX, |(high, included)| if included { high } else { high.next_down() });
    lowest > highest
}

/// Whether one test accepts whatever another does.
fn covers_test(wide: &Test, narrow: &Test, numbers: Numbers) -> bool {
    if wide == narrow || (*wide == Test::Exists(true) && *narrow != Test::Exists(false)) {
        return true;
    }
    match narrow {
        Test::Bool(_) | Test::Null => matches!(wide, Test::AnythingBut(_)),
        Test::Number(narrow) => accepts_number(wide, narrow, numbers),
        Test::Numeric(narrow) => match wide {
            Test::Numeric(wide) => within(wide, narrow),
            Test::AnythingBut(AnythingBut::Numbers(list)) => {
                list.iter().all(|other| other.value.is_some_and(|value| !narrow.contains(value)))
            }
            Test::AnythingBut(_) => true,
            _ => false,
        },
        Test::AnythingBut(narrow) => matches!(wide, Test::AnythingBut(wide) if excludes_less(wide, narrow)),
        Test::Exists(_) => false,
        Test::Text(_, Some(address)) => match wide {
            Test::Text(_, Some(other)) => address == other,
            Test::Cidr(block) => block.contains(*address),
            Test::AnythingBut(AnythingBut::Numbers(_)) => true,
            _ => false,
        },
        Test::Cidr(narrow) => match wide {
            Test::Cidr(wide) => wide.covers(narrow),
            Test::AnythingBut(AnythingBut::Numbers(_)) => true,
            _ => false,
        },
        Test::PrefixIgnoreCase(_) | Test::SuffixIgnoreCase(_) | Test::EqualsIgnoreCase(_) => {
            matches!(wide, Test::AnythingBut(AnythingBut::Numbers(_))) || accepts_shape(wide, &[STAR])
        }
        Test::Text(text, None) | Test::Exactly(text) => accepts_shape(wide, text),
        Test::Prefix(operand) => accepts_shape(wide, &[operand.as_slice(), &[STAR]].concat()),
        Test::Suffix(operand) => accepts_shape(wide, &[&[STAR], operand.as_slice()].concat()),
        Test::Wildcard(operand) => accepts_shape(wide, &operand.literals().join(&STAR)),
    }
}

/// Whether a test accepts every number that a plain number accepts.
fn accepts_number(test: &Test, number: &Number, numbers: Numbers) -> bool {
    match test {
        Test::Numeric(range) => number.value.is_some_and(|value| range.contains(value)),
        Test::AnythingBut(AnythingBut::Numbers(list)) => match numbers {
            Numbers::Value => list.iter().all(|other| other.value != number.value),
            Numbers::Text => list.iter().all(|other| other.text != number.text),
        },
        Test::AnythingBut(_) => true,
        Test::Number(other) => match (numbers, number.value, other.value) {
            (Numbers::Value, Some(value), Some(other)) => value == other,
            _ => other.text == number.text,
        },
        _ => false,
    }
}

/// Stands for any run of characters; no byte of a text.
const STAR: u8 = 0xFF;

/// Whether a test accepts every text of a shape.
fn accepts_shape(test: &Test, shape: &[u8]) -> bool {
    let exact = !shape.contains(&STAR);
    let head = shape.split(|&byte| byte == STAR).next().unwrap_or(shape);
    let tail = shape.rsplit(|&byte| byte == STAR).next().unwrap_or(shape);
    match test {
        Test::Text(text, _) | Test::Exactly(text) => shape == text,
        Test::Prefix(operand) => shape.starts_with(operand),
        Test::Suffix(operand) => shape.ends_with(operand),
        Test::Wildcard(operand) => operand.matches(shape),
        Test::EqualsIgnoreCase(operand) => exact && operand.equals(shape),
        Test::PrefixIgnoreCase(operand) => operand.starts(head),
        Test::SuffixIgnoreCase(operand) => operand.finishes(tail),
        Test::AnythingBut(excluded) => match excluded {
            AnythingBut::Numbers(_) => true,
            AnythingBut::Text(list) if exact => list.iter().all(|text| text != shape),
            AnythingBut::Text(list) => list.iter().all(|text| !text.starts_with(head) || !text.ends_with(tail)),
            AnythingBut::Prefix(list) => {
                list.iter().all(|operand| !head.starts_with(operand) && (exact || !operand.starts_with(head)))
            }
            AnythingBut::Suffix(list) => {
                list.iter().all(|operand| !tail.ends_with(operand) && (exact || !operand.ends_with(tail)))
            }
            AnythingBut::EqualsIgnoreCase(list) => exact && list.iter().all(|operand| !operand.equals(shape)),
            AnythingBut::Wildcard(list) => exact && list.iter().all(|operand| !operand.matches(shape)),
        },
        _ => false,
    }
}

fn within(wide: &Range, narrow: &Range) -> bool {
    let low = match (wide.low, narrow.low) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some((wide, included)), Some((narrow, there))) => narrow > wide || (narrow == wide && (included || !there)),
    };
    let high = match (wide.high, narrow.high) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some((wide, included)), Some((narrow, there))) => narrow < wide || (narrow == wide && (included || !there)),
    };
    low && high
}

/// Whether everything that `wide` excludes is excluded by `narrow`, too.
fn excludes_less(wide: &AnythingBut, narrow: &AnythingBut) -> bool {
    match (wide, narrow) {
        (AnythingBut::Text(wide), AnythingBut::Text(narrow)) => wide.iter().all(|text| narrow.contains(text)),
        (AnythingBut::Numbers(wide), AnythingBut::Numbers(narrow)) => {
            wide.iter().all(|number| narrow.iter().any(|other| other.text == number.text))
        }
        (AnythingBut::Prefix(wide), AnythingBut::Prefix(narrow)) => {
            wide.iter().all(|operand| narrow.iter().any(|other| operand.starts_with(other)))
        }
        (AnythingBut::Suffix(wide), AnythingBut::Suffix(narrow)) => {
            wide.iter().all(|operand| narrow.iter().any(|other| operand.ends_with(other)))
        }
        (AnythingBut::Text(wide), AnythingBut::Prefix(narrow)) => {
            wide.iter().all(|text| narrow.iter().any(|operand| text.starts_with(operand)))
        }
        (AnythingBut::Text(wide), AnythingBut::Suffix(narrow)) => {
            wide.iter().all(|text| narrow.iter().any(|operand| text.ends_with(operand)))
        }
        (AnythingBut::EqualsIgnoreCase(wide), AnythingBut::EqualsIgnoreCase(narrow)) => {
            wide.iter().all(|operand| narrow.contains(operand))
        }
        (AnythingBut::Wildcard(wide), AnythingBut::Wildcard(narrow)) => {
            wide.iter().all(|operand| narrow.iter().any(|other| other.matches(&operand.literals().join(&STAR))))
        }
        _ => false,
    }
}

/// Fields that every event has, each with one text.
const ENVELOPE: [&[u8]; 7] = [b"version", b"id", b"detail-type", b"source", b"account", b"time", b"region"];

/// Whether an alternative matches every event that has the fields of an envelope.
pub fn always(alternative: &Alternative) -> bool {
    alternative.conditions.iter().all(|condition| {
        let tests = &condition.tests;
        let present = ENVELOPE.contains(&&*condition.path);
        let any_text = everything(tests) || tests.iter().any(|test| accepts_shape(test, &[STAR]));
        (present && any_text) || (everything(tests) && tests.contains(&Test::Exists(false)))
    })
}

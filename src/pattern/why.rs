//! Why a condition's tests do not accept a value, in few words.

use super::eval::{Leaf, same_value};
use super::{AnythingBut, Numbers, Test, Wildcard};
use crate::event::Kind;
use crate::event::address::Address;
use crate::event::number::comparable;

/// Why none of `tests` accepts a value; of several tests, what came nearest.
pub(super) fn why(tests: &[Test], leaf: &Leaf<'_>, numbers: Numbers) -> &'static str {
    let reasons = || tests.iter().map(|test| reason(test, leaf, numbers));
    let Some((near, words)) = reasons().max_by_key(|(near, _)| *near) else { return "" };
    let alike = near == Near::Kind && reasons().all(|reason| reason.1 == words);
    if tests.len() == 1 || near == Near::Close || alike { words } else { "none of these" }
}

/// How little is missing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Near {
    /// A value of another kind.
    Kind,
    /// Another value.
    Value,
    /// Nearly the value that is wanted.
    Close,
}

fn reason(test: &Test, leaf: &Leaf<'_>, numbers: Numbers) -> (Near, &'static str) {
    let text = leaf.text.as_ref();
    let string = leaf.kind == Kind::String;
    match test {
        Test::Text(want, _) | Test::Exactly(want) if string => another_text(want, text),
        Test::Text(want, _) | Test::Exactly(want) if want == text => {
            (Near::Close, "not in quotes, and a text is wanted: quotes make the difference")
        }
        Test::Number(want) => match leaf.kind {
            Kind::Number if same_value(want, text) => {
                (Near::Close, "the same number, spelled differently: here numbers compare by their text")
            }
            Kind::Number if want.value.is_some() && comparable(text).is_some() => (Near::Value, "another number"),
            Kind::Number => (Near::Value, "another text; numbers that 64 bits do not hold exactly compare by it"),
            Kind::String if same_number(want, text, numbers) => {
                (Near::Close, "in quotes, and a number is wanted: quotes make the difference")
            }
            _ => (Near::Kind, wants_number(leaf.kind)),
        },
        Test::Bool(want) => match leaf.kind {
            Kind::Bool(_) => (Near::Value, "the other one"),
            Kind::String if text == if *want { b"true".as_slice() } else { b"false" } => {
                (Near::Close, "in quotes, and true or false is wanted: quotes make the difference")
            }
            _ => (Near::Kind, "true or false is wanted"),
        },
        Test::Null if string && text.is_empty() => (Near::Close, "an empty text is not null"),
        Test::Null => (Near::Kind, "null is wanted"),
        Test::Exists(false) => match leaf.kind {
            Kind::Null => (Near::Close, "null is a value, too"),
            Kind::String if text.is_empty() => (Near::Close, "an empty text is a value, too"),
            _ => (Near::Value, ""),
        },
        Test::AnythingBut(excluded) => (Near::Value, but(excluded)),
        Test::Numeric(range) => match leaf.kind {
            Kind::Number if comparable(text).is_some() && range.low == range.high => (Near::Value, "another number"),
            Kind::Number if comparable(text).is_some() => (Near::Value, "not in that range"),
            Kind::Number => (Near::Value, "outside the numbers that `numeric` compares"),
            Kind::String if comparable(text).is_some() => {
                (Near::Close, "in quotes, and a number is wanted: quotes make the difference")
            }
            kind => (Near::Kind, wants_number(kind)),
        },
        Test::Cidr(_) if string && Address::parse(text).is_ok() => (Near::Value, "not in that network"),
        Test::Cidr(_) if string => (Near::Kind, "not an address"),
        Test::Prefix(want) if string => begins(want, text.get(..want.len()), "does not begin so"),
        Test::Suffix(want) if string => {
            let end = text.len().checked_sub(want.len()).and_then(|at| text.get(at..));
            begins(want, end, "does not end so")
        }
        Test::PrefixIgnoreCase(_) if string => (Near::Value, "does not begin so"),
        Test::SuffixIgnoreCase(_) if string => (Near::Value, "does not end so"),
        Test::Wildcard(want) if string => match in_lower_case(want).matches(&text.to_ascii_lowercase()) {
            true => (Near::Close, "differs in case only"),
            false => (Near::Value, "does not fit"),
        },
        Test::EqualsIgnoreCase(want) if string => another_text(want.operand(), text),
        _ => (Near::Kind, wants_text(leaf.kind)),
    }
}

fn wants_number(kind: Kind) -> &'static str {
    match kind {
        Kind::String => "text, and a number is wanted",
        Kind::Null => "null, and a number is wanted",
        _ => "a number is wanted",
    }
}

fn wants_text(kind: Kind) -> &'static str {
    match kind {
        Kind::Number => "a number, and text is wanted",
        Kind::Null => "null is no text",
        _ => "text is wanted",
    }
}

fn same_number(want: &super::Number, text: &[u8], numbers: Numbers) -> bool {
    match numbers {
        Numbers::Value => same_value(want, text),
        Numbers::Text => want.text == text,
    }
}

/// Texts that differ.
fn another_text(want: &[u8], text: &[u8]) -> (Near, &'static str) {
    if want.eq_ignore_ascii_case(text) {
        (Near::Close, "differs in case only")
    } else if want.trim_ascii() == text.trim_ascii() {
        (Near::Close, "differs in white space only")
    } else {
        (Near::Value, "another text")
    }
}

fn in_lower_case(want: &Wildcard) -> Wildcard {
    Wildcard::between(want.literals().iter().map(|literal| literal.to_ascii_lowercase().into()).collect())
}

fn begins(want: &[u8], part: Option<&[u8]>, otherwise: &'static str) -> (Near, &'static str) {
    match part {
        Some(part) if part.eq_ignore_ascii_case(want) => (Near::Close, "differs in case only"),
        _ => (Near::Value, otherwise),
    }
}

fn but(excluded: &AnythingBut) -> &'static str {
    match excluded {
        AnythingBut::Text(_) | AnythingBut::Numbers(_) => "excluded",
        AnythingBut::Prefix(_) => "excluded: it begins so",
        AnythingBut::Suffix(_) => "excluded: it ends so",
        AnythingBut::EqualsIgnoreCase(_) => "excluded, apart from case",
        AnythingBut::Wildcard(_) => "excluded: it fits",
    }
}

//! The EventBridge pattern language: reading patterns, refusing bad ones with the service's words, and the evaluator
//! that is obviously right.
//!
//! In: pattern text. Out: [`Pattern`], a list of alternatives that stand for themselves. Promises: what is refused, and
//! with which message, is the service's ([`PatternError`]). Leaves to others: speed (`matcher`).

pub mod check;
pub mod eval;
pub mod explain;
mod ignore_case;
mod operator;
mod parse;
pub mod relate;
mod show;
pub mod way;
mod why;
mod wildcard;

pub use eval::{Numbers, matches};
pub use ignore_case::IgnoreCase;
pub use parse::{Limits, parse};
pub use wildcard::Wildcard;

use crate::event::address::{Address, Block};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A valid pattern: it matches when one of its alternatives does.
#[derive(Debug, Clone, PartialEq)]
pub struct Pattern {
    /// In document order of the `$or` branches that made them.
    pub alternatives: Vec<Alternative>,
    /// Lists that a later one of the same path took the place of, as byte offsets of both into the pattern text.
    pub replaced: BTreeSet<(usize, usize)>,
}

/// Conditions that must all hold, sorted by path (UTF-16 code units), one a path.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Alternative {
    /// Path and the tests of which one must hold.
    pub conditions: Vec<Condition>,
}

/// One field's tests: at least one of them must accept a value at the path.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// Decoded keys, joined with dots. Alternatives share what they have in common.
    pub path: Arc<[u8]>,
    /// Never empty.
    pub tests: Arc<[Test]>,
    /// Byte offset of the list into the pattern text.
    pub at: usize,
}

/// An element of a condition's list. Its numbers are finite, so equality is total.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Test {
    /// A plain string, and its value where it is an address (section 4.3).
    Text(Vec<u8>, Option<Address>),
    /// `{"exactly": …}`: a string without the address rule.
    Exactly(Vec<u8>),
    /// A plain number.
    Number(Number),
    /// `true` or `false`.
    Bool(bool),
    /// `null`.
    Null,
    /// `prefix`
    Prefix(Vec<u8>),
    /// `prefix` of `equals-ignore-case`
    PrefixIgnoreCase(IgnoreCase),
    /// `suffix`
    Suffix(Vec<u8>),
    /// `suffix` of `equals-ignore-case`
    SuffixIgnoreCase(IgnoreCase),
    /// `equals-ignore-case`
    EqualsIgnoreCase(IgnoreCase),
    /// `wildcard`
    Wildcard(Wildcard),
    /// `anything-but`
    AnythingBut(AnythingBut),
    /// `exists`
    Exists(bool),
    /// `numeric`
    Numeric(Range),
    /// `cidr`
    Cidr(Block),
}

/// What an `anything-but` excludes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AnythingBut {
    /// Whole strings.
    Text(Vec<Vec<u8>>),
    /// Numbers; all comparable.
    Numbers(Vec<Number>),
    /// Strings that start so.
    Prefix(Vec<Vec<u8>>),
    /// Strings that end so.
    Suffix(Vec<Vec<u8>>),
    /// Whole strings, apart from case.
    EqualsIgnoreCase(Vec<IgnoreCase>),
    /// Strings that fit.
    Wildcard(Vec<Wildcard>),
}

/// A number as spelled, with its value where it is comparable (section 4.2).
#[derive(Debug, Clone, PartialEq)]
pub struct Number {
    /// The text.
    pub text: Vec<u8>,
    /// The value; negative zero is zero.
    pub value: Option<f64>,
}

impl Eq for Number {}

impl std::hash::Hash for Number {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        // The value follows from the text.
        self.text.hash(state);
    }
}

impl Number {
    /// Reads a number's text.
    pub fn new(text: &[u8]) -> Self {
        Self { text: text.to_vec(), value: crate::event::number::comparable(text) }
    }
}

/// A numeric test: bounds with whether each is part of the range. `=` has both the same.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// Lower bound and whether it is included.
    pub low: Option<(f64, bool)>,
    /// Upper bound and whether it is included.
    pub high: Option<(f64, bool)>,
}

impl Eq for Range {}

impl std::hash::Hash for Range {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        // Equal bounds have equal bits: zero has one sign.
        let bits = |bound: Option<(f64, bool)>| bound.map(|(value, included)| (value.to_bits(), included));
        (bits(self.low), bits(self.high)).hash(state);
    }
}

impl Range {
    /// Whether `value` lies in the range.
    pub fn contains(&self, value: f64) -> bool {
        self.low.is_none_or(|(low, included)| value > low || (included && value == low))
            && self.high.is_none_or(|(high, included)| value < high || (included && value == high))
    }
}

/// Why a pattern is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternError {
    /// The service's text, without its `Event pattern is not valid. Reason:` prefix.
    pub message: String,
    /// Whether the text is not the service's: for malformed JSON and for limits it words in its own way.
    pub ours: bool,
    /// Byte offset into the pattern text.
    pub at: usize,
}

impl std::fmt::Display for PatternError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for PatternError {}

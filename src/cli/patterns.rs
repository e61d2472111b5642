//! What the verbs that take patterns and events share.

use crate::app::{Exit, Failed};
use crate::matcher::{Builder, Matcher};
use crate::pattern::{self, Limits, Numbers, Pattern};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use std::io::Read;
use std::ops::Range;

/// How plain numbers compare.
#[derive(clap::Args)]
pub struct Comparing {
    /// How numbers compare: by value, as the service does, or by text, as its documentation says
    #[arg(long, env = "SLUICE_NUMBER_MATCHING", default_value = "value", value_parser = numbers())]
    number_matching: Numbers,
}

impl Comparing {
    /// As the matcher takes it.
    pub fn numbers(&self) -> Numbers {
        self.number_matching
    }
}

/// Reads `value` or `text`.
pub fn numbers() -> impl TypedValueParser<Value = Numbers> {
    PossibleValuesParser::new(["value", "text"]).map(|how| if how == "text" { Numbers::Text } else { Numbers::Value })
}

/// An argument's text: itself, `@file`, or `-` for standard input.
///
/// # Errors
/// The file cannot be read.
pub fn read(argument: &str) -> Result<Vec<u8>, Failed> {
    let failed = |what: &str, error: std::io::Error| Failed::new(Exit::Io, format!("cannot read {what}: {error}"));
    match argument.strip_prefix('@') {
        Some(file) => std::fs::read(file).map_err(|error| failed(file, error)),
        None if argument == "-" => {
            let mut text = Vec::new();
            std::io::stdin().read_to_end(&mut text).map_err(|error| failed("standard input", error))?;
            Ok(text)
        }
        None => Ok(argument.as_bytes().to_vec()),
    }
}

/// A pattern.
///
/// # Errors
/// What the service says to it, and where.
pub fn pattern(text: &[u8]) -> Result<Pattern, Failed> {
    pattern_in(text, 0..text.len())
}

/// A pattern that is a part of `text`, whose lines are counted.
///
/// # Errors
/// As [`pattern`].
pub fn pattern_in(text: &[u8], part: Range<usize>) -> Result<Pattern, Failed> {
    let from = part.start;
    pattern::parse(&text[part], &Limits::default()).map_err(|error| {
        let place = place(text, from + error.at);
        Failed::new(Exit::Config, format!("the event pattern is not valid: {}\n{place}", error.message))
    })
}

/// Line, column and the line itself with a mark under the column.
pub fn place(text: &[u8], at: usize) -> String {
    let at = at.min(text.len());
    let begin = text[..at].iter().rposition(|&b| b == b'\n').map_or(0, |n| n + 1);
    let end = text[at..].iter().position(|&b| b == b'\n').map_or(text.len(), |n| at + n);
    let number = text[..begin].iter().filter(|&&b| b == b'\n').count() + 1;
    let before = String::from_utf8_lossy(&text[begin..at]);
    let line = String::from_utf8_lossy(&text[begin..end]);
    let column = before.chars().count();
    // A long line is shown around the place.
    let from = column.saturating_sub(60);
    let shown: String = line.chars().skip(from).take(120).collect();
    format!("  line {number}, column {}\n  {shown}\n  {}^", column + 1, " ".repeat(column - from))
}

/// Patterns compiled together; their numbers are their places in the list.
pub fn compile<'p>(patterns: impl IntoIterator<Item = &'p Pattern>, numbers: Numbers) -> Matcher {
    let mut builder = Builder::new(std::process::id().into(), numbers);
    for pattern in patterns {
        builder.add(pattern);
    }
    builder.build()
}

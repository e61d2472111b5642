//! `sluice test-pattern`: one pattern on one event, or many pairs as JSON lines.

use super::output;
use super::patterns::{Comparing, compile, pattern, place, read};
use crate::app::{Exit, Failed};
use crate::event::{Kind, Node, Scanner, Tree};
use crate::matcher::Judge;
use crate::pattern::{self, Limits, Numbers};
use std::borrow::Cow;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::PathBuf;

/// Try a pattern on an event: leaves with 0 when it matches, 1 when not, 78 when one of them is invalid
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["pattern", "jsonl"])))]
pub struct TestPattern {
    /// The pattern: JSON text, @file, or - for standard input
    #[arg(long, requires = "event")]
    pattern: Option<String>,
    /// The event: JSON text, @file, or - for standard input
    #[arg(long, requires = "pattern")]
    event: Option<String>,
    /// Read lines {"name":..., "pattern":..., "event":...} of a file or of standard input, and print one line for each.
    /// A pattern or event that is a string is read as JSON text. Blank lines are passed over
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    jsonl: Option<PathBuf>,
    #[command(flatten)]
    comparing: Comparing,
}

impl TestPattern {
    pub fn run(self) -> Result<(), Failed> {
        let numbers = self.comparing.numbers();
        match (&self.pattern, &self.event, &self.jsonl) {
            (Some(pattern), Some(event), _) => one(pattern, event, numbers),
            (_, _, Some(file)) => lines(file, numbers),
            _ => Err(Failed::new(Exit::Usage, "give --pattern and --event, or --jsonl")),
        }
    }
}

fn one(pattern_argument: &str, event: &str, numbers: Numbers) -> Result<(), Failed> {
    if pattern_argument == "-" && event == "-" {
        let message = "--pattern and --event cannot both come from standard input; give one of them as text or @file";
        return Err(Failed::new(Exit::Usage, message));
    }
    let parsed = pattern(&read(pattern_argument)?)?;
    let event = read(event)?;
    let matcher = compile([&parsed], numbers);
    let matched = Judge::new(&matcher).matches(&event).map(|rules| !rules.is_empty()).map_err(|fault| {
        Failed::new(Exit::Config, format!("the event is not valid: {fault}\n{}", place(&event, fault.at)))
    })?;
    writeln!(std::io::stdout(), "{}", if matched { "match" } else { "no match" }).map_err(output)?;
    if matched { Ok(()) } else { Err(Failed::new(Exit::No, "")) }
}

fn lines(file: &PathBuf, numbers: Numbers) -> Result<(), Failed> {
    let failed = |error: std::io::Error| Failed::new(Exit::Io, format!("cannot read {}: {error}", file.display()));
    let mut input: Box<dyn BufRead> = match file.as_os_str() == "-" {
        true => Box::new(std::io::stdin().lock()),
        false => Box::new(BufReader::new(File::open(file).map_err(failed)?)),
    };
    let mut out = BufWriter::new(std::io::stdout().lock());
    let (mut line, mut number, mut bad) = (Vec::new(), 0u64, 0u64);
    while input.read_until(b'\n', &mut line).map_err(failed)? > 0 {
        number += 1;
        let text = line.trim_ascii();
        if !text.is_empty() {
            let (name, verdict) = pair(text, numbers).unwrap_or_else(|(name, why)| {
                bad += 1;
                (name, Err(why))
            });
            match verdict {
                Ok(matched) => writeln!(out, "{{\"name\":{name},\"result\":{matched}}}"),
                Err(error) => writeln!(out, "{{\"name\":{name},\"error\":{}}}", serde_json::Value::from(error)),
            }
            .map_err(output)?;
        }
        line.clear();
    }
    out.flush().map_err(output)?;
    match bad {
        0 => Ok(()),
        _ => Err(Failed::new(Exit::Config, format!("{bad} of {number} lines are no pairs"))),
    }
}

/// A line's name as JSON, and its verdict; or its name and why it is no pair.
fn pair(line: &[u8], numbers: Numbers) -> Result<(String, Result<bool, String>), (String, String)> {
    let tree = Tree::parse_wrapped(line, &mut Scanner::default())
        .map_err(|fault| ("null".to_owned(), format!("the line is not a JSON object: {fault}")))?;
    let member = |name: &str| tree.root().get(name.as_bytes());
    let name = member("name").map_or("null".into(), |name| String::from_utf8_lossy(name.raw()).into_owned());
    match (member("pattern"), member("event")) {
        (Some(pattern), Some(event)) => Ok((name, decide(&text(pattern), &text(event), numbers))),
        _ => Err((name, "the line lacks `pattern` or `event`".to_owned())),
    }
}

/// A member's JSON text: that of the value, or, of a string, what it holds.
fn text<'t>(node: Node<'t>) -> Cow<'t, [u8]> {
    match node.kind() {
        Kind::String => node.text(),
        _ => Cow::Borrowed(node.raw()),
    }
}

fn decide(pattern: &[u8], event: &[u8], numbers: Numbers) -> Result<bool, String> {
    let parsed = pattern::parse(pattern, &Limits::default()).map_err(|error| error.message)?;
    let matcher = compile([&parsed], numbers);
    let matched = Judge::new(&matcher).matches(event).map(|rules| !rules.is_empty());
    matched.map_err(|fault| format!("the event is not valid: {fault}"))
}

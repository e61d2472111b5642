//! Input transformers: variables by path, a template with `<name>` placeholders.

use super::{Context, JsonPath, TransformError};
use crate::event::text::escape_json;
use crate::event::walk::{Scalar, Visit, walk};
use crate::event::{Fault, Scanner, Tree};
use std::borrow::Cow;
use std::fmt;

/// Variables that every template knows.
pub const RESERVED: [&str; 5] = [
    "aws.events.rule-arn",
    "aws.events.rule-name",
    "aws.events.event.ingestion-time",
    "aws.events.event.json",
    "aws.events.event",
];

/// Most variables of one transformer.
pub const MAX_VARIABLES: usize = 100;
/// Most characters of one template.
pub const MAX_TEMPLATE: usize = 8192;

/// What is wrong with a transformer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplateError {
    /// A placeholder of this name, which is neither a variable nor reserved.
    Placeholder(String),
    /// Anything else, in a sentence.
    Other(String),
}

impl From<String> for TemplateError {
    fn from(why: String) -> Self {
        Self::Other(why)
    }
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Placeholder(name) => write!(f, "the template contains invalid placeholder {name}"),
            Self::Other(why) => f.write_str(why),
        }
    }
}

/// A checked transformer.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    variables: Vec<(String, JsonPath)>,
    pieces: Vec<Piece>,
    json: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Literal(Vec<u8>),
    Variable { of: Source, quoted: bool },
}

#[derive(Debug, Clone, PartialEq)]
enum Source {
    Path(usize),
    RuleArn,
    RuleName,
    IngestionTime,
    EventJson,
    Event,
}

impl Template {
    /// Checks variables and template.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn new(paths: &[(String, String)], template: &str) -> Result<Self, TemplateError> {
        if paths.len() > MAX_VARIABLES {
            return Err(format!("{} variables, at most {MAX_VARIABLES} are allowed", paths.len()).into());
        }
        if template.is_empty() || template.chars().count() > MAX_TEMPLATE {
            return Err(format!("a template has 1 to {MAX_TEMPLATE} characters").into());
        }
        let mut variables = Vec::new();
        for (name, path) in paths {
            let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
            if name.is_empty() || name.len() > 256 || !name.chars().all(known) {
                let why = format!("`{name}` is not a variable name (letters, digits, `_`, `-`, 1 to 256 of them)");
                return Err(why.into());
            }
            if name.to_ascii_uppercase().starts_with("AWS") {
                return Err(format!("variable `{name}` starts with the reserved `AWS`").into());
            }
            variables.push((name.clone(), JsonPath::parse(path)?));
        }
        let json = template.trim_start().starts_with('{');
        let pieces = pieces(template, &variables)?;
        Ok(Self { variables, pieces, json })
    }

    /// Fills the template from an event, given as tree and bytes.
    ///
    /// # Errors
    /// A list or object within quotes, or a result that is no JSON.
    pub fn fill(
        &self,
        tree: &Tree<'_>,
        event: &[u8],
        context: &Context<'_>,
        scanner: &mut Scanner,
    ) -> Result<Vec<u8>, TransformError> {
        let mut out = Vec::with_capacity(256);
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => out.extend_from_slice(text),
                Piece::Variable { of, quoted } => {
                    let value = self.value(of, tree, event, context);
                    if *quoted {
                        self.put_quoted(of, &value, &mut out)?;
                    } else {
                        put_bare(&value, self.json, &mut out);
                    }
                }
            }
        }
        let invalid = |fault: Fault| TransformError::InvalidJson(fault.to_string());
        if self.json {
            validate(&out, scanner).map_err(invalid)?;
        } else {
            // Each line is exactly one JSON value.
            let lines = out.split(|&b| b == b'\n').filter(|line| !line.trim_ascii().is_empty());
            if lines.clone().count() == 0 {
                return Err(TransformError::InvalidJson("it is empty".to_owned()));
            }
            for line in lines {
                check_constant(line).map_err(invalid)?;
            }
        }
        Ok(out)
    }

    /// A variable's value as JSON text; empty when its path selects nothing.
    fn value<'e>(&self, of: &Source, tree: &Tree<'_>, event: &'e [u8], context: &Context<'_>) -> Cow<'e, [u8]> {
        let string = |text: &str| {
            let mut quoted = vec![b'"'];
            escape_json(text.as_bytes(), &mut quoted);
            quoted.push(b'"');
            Cow::Owned(quoted)
        };
        match of {
            Source::Path(n) => {
                let selection = self.variables[*n].1.select(tree.root());
                Cow::Owned(selection.json().map_or_else(Vec::new, Cow::into_owned))
            }
            Source::RuleArn => string(context.rule_arn),
            Source::RuleName => string(context.rule_name),
            Source::IngestionTime => string(context.ingestion_time),
            Source::EventJson => Cow::Borrowed(event),
            Source::Event => Cow::Owned(without_detail(tree)),
        }
    }

    fn put_quoted(&self, of: &Source, value: &[u8], out: &mut Vec<u8>) -> Result<(), TransformError> {
        match value.first() {
            Some(b'"') => out.extend_from_slice(&value[1..value.len() - 1]),
            Some(b'{' | b'[') if self.json => {
                return Err(TransformError::ContainerInQuotes(self.name(of).to_owned()));
            }
            Some(b'{' | b'[') => put_without_quotes(value, out),
            _ => out.extend_from_slice(value),
        }
        Ok(())
    }

    fn name(&self, of: &Source) -> &str {
        match of {
            Source::Path(n) => &self.variables[*n].0,
            Source::RuleArn => RESERVED[0],
            Source::RuleName => RESERVED[1],
            Source::IngestionTime => RESERVED[2],
            Source::EventJson => RESERVED[3],
            Source::Event => RESERVED[4],
        }
    }
}

/// Outside quotes a value stands as JSON; a missing one is `""` in a JSON template and nothing in text.
fn put_bare(value: &[u8], json: bool, out: &mut Vec<u8>) {
    match value {
        [] if json => out.extend_from_slice(b"\"\""),
        _ => out.extend_from_slice(value),
    }
}

/// A list or object in text loses its inner quotes; escaped characters stay escaped.
fn put_without_quotes(value: &[u8], out: &mut Vec<u8>) {
    let mut bytes = value.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'\\' => {
                out.push(byte);
                out.extend(bytes.next());
            }
            b'"' => {}
            _ => out.push(byte),
        }
    }
}

/// `<aws.events.event>`: the event without `detail`, `detail-type` renamed.
fn without_detail(tree: &Tree<'_>) -> Vec<u8> {
    let mut out = vec![b'{'];
    for member in tree.root().children() {
        let key = member.key();
        let name: &[u8] = match key.as_ref() {
            b"detail" => continue,
            b"detail-type" => b"detailType",
            other => other,
        };
        if out.len() > 1 {
            out.push(b',');
        }
        out.push(b'"');
        escape_json(name, &mut out);
        out.extend_from_slice(b"\":");
        out.extend_from_slice(member.raw());
    }
    out.push(b'}');
    out
}

struct Ignore;

impl<'a> Visit<'a> for Ignore {
    fn key(&mut self, _: usize, _: &'a [u8]) {}
    fn scalar(&mut self, _: usize, _: usize, _: Scalar<'a>) {}
    fn open(&mut self, _: usize, _: bool) {}
    fn close(&mut self, _: usize) {}
}

fn validate(json: &[u8], scanner: &mut Scanner) -> Result<(), Fault> {
    walk(&scanner.scan(json)?, &mut Ignore)
}

/// Cuts a template at its placeholders and notes which stand within quotes.
fn pieces(template: &str, variables: &[(String, JsonPath)]) -> Result<Vec<Piece>, TemplateError> {
    let (mut pieces, mut literal, mut quoted) = (Vec::new(), Vec::new(), false);
    let bytes = template.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if at + 1 < bytes.len() => {
                literal.extend_from_slice(&bytes[at..at + 2]);
                at += 2;
                continue;
            }
            b'"' => quoted = !quoted,
            b'<' => {
                if let Some(name) = placeholder(&template[at + 1..]) {
                    if !literal.is_empty() {
                        pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                    }
                    pieces.push(Piece::Variable { of: source(name, variables)?, quoted });
                    at += name.len() + 2;
                    continue;
                }
            }
            _ => {}
        }
        literal.push(bytes[at]);
        at += 1;
    }
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    Ok(pieces)
}

fn placeholder(after: &str) -> Option<&str> {
    let name = &after[..after.find('>')?];
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    (!name.is_empty() && name.chars().all(known)).then_some(name)
}

fn source(name: &str, variables: &[(String, JsonPath)]) -> Result<Source, TemplateError> {
    if let Some(n) = variables.iter().position(|(known, _)| known == name) {
        return Ok(Source::Path(n));
    }
    Ok(match name {
        "aws.events.rule-arn" => Source::RuleArn,
        "aws.events.rule-name" => Source::RuleName,
        "aws.events.event.ingestion-time" => Source::IngestionTime,
        "aws.events.event.json" => Source::EventJson,
        "aws.events.event" => Source::Event,
        _ => return Err(TemplateError::Placeholder(name.to_owned())),
    })
}

/// Whether `text` is exactly one JSON value: what a constant input must be.
///
/// # Errors
/// Where it is not.
pub fn check_constant(text: &[u8]) -> Result<(), Fault> {
    let wrapped = [b"{\"\":", text, b"}"].concat();
    let tree = Tree::parse(&wrapped)?;
    let value = tree.root().children().next();
    match value {
        Some(value) if value.raw().len() == text.trim_ascii().len() => Ok(()),
        _ => Err(Fault::new(crate::event::FaultKind::Trailing, 0)),
    }
}

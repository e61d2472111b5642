//! NATS subjects, fixed or made of an event: `orders.{$.detail.location}`.
//!
//! A value becomes one token: what NATS reads in a subject (`.`, `*`, `>`, blanks, control characters), `%` and what is
//! not ASCII are percent-encoded, so no event reaches a subject outside the template. Source: NATS documentation,
//! "Subject-Based Messaging".

use super::JsonPath;
use crate::event::Node;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use std::fmt;

/// A subject with places for values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(JsonPath),
}

/// The longest subject that is made, in bytes.
const SUBJECT_BYTES: usize = 1024;

/// What NATS keeps for itself.
const RESERVED: [&str; 3] = ["$", "_INBOX.", "_R_."];

impl Subject {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = |why: &str| format!("`{text}` is not a subject to publish to: {why}");
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (path, behind) = after.split_once('}').ok_or_else(|| bad("a `{` has no `}`"))?;
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::Value(JsonPath::parse(path)?));
            rest = behind;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        // A value is never empty, so a letter stands for it.
        let shape: String = parts.iter().map(|part| if let Part::Text(text) = part { text } else { "v" }).collect();
        if RESERVED.iter().any(|start| text.starts_with(start)) {
            return Err(bad("NATS keeps subjects that begin with `$`, `_INBOX.` and `_R_.` for itself"));
        }
        if let Some(c) = shape.chars().find(|c| matches!(c, '*' | '>')) {
            return Err(bad(&format!("`{c}` is a wildcard, events go to one subject each")));
        }
        if shape.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '{' | '}')) {
            return Err(bad("blanks, control characters and single braces cannot stand in it"));
        }
        if shape.split('.').any(str::is_empty) || shape.len() > SUBJECT_BYTES {
            return Err(bad("it is tokens joined by dots, none of them empty, at most 1,024 bytes in all"));
        }
        Ok(Self { text: text.to_owned(), parts })
    }

    /// The subject where it is the same for every event.
    pub fn fixed(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The subject of an event.
    ///
    /// # Errors
    /// A value that is missing, empty or no text, number or boolean; or a subject that becomes too long.
    pub fn fill(&self, root: Node<'_>) -> Result<String, String> {
        let mut subject = String::with_capacity(self.text.len() + 32);
        for part in &self.parts {
            match part {
                Part::Text(text) => subject.push_str(text),
                Part::Value(path) => {
                    let value = path.select(root).text().filter(|text| !text.is_empty());
                    let value = value.ok_or_else(|| format!("the event has no text at {path} for subject {self}"))?;
                    // Where a value begins the subject, it must not lead to what NATS keeps for itself.
                    encode(&value, subject.is_empty(), &mut subject);
                }
            }
            if subject.len() > SUBJECT_BYTES {
                return Err(format!("subject {self} becomes longer than {SUBJECT_BYTES} bytes"));
            }
        }
        Ok(subject)
    }
}

/// What may not stand in a token as it is; what is not ASCII is encoded as well.
const UNSAFE: &AsciiSet = &CONTROLS.add(b' ').add(b'.').add(b'*').add(b'>').add(b'%');

fn encode(value: &str, first: bool, out: &mut String) {
    let rest = match value.strip_prefix(['$', '_']).filter(|_| first) {
        Some(rest) => {
            out.push_str(percent_encoding::percent_encode_byte(value.as_bytes()[0]));
            rest
        }
        None => value,
    };
    out.extend(utf8_percent_encode(rest, UNSAFE));
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether a subject can be subscribed to: tokens joined by dots, `*` for one, a last `>` for the rest.
pub fn is_subscribable(subject: &str) -> bool {
    let tokens: Vec<&str> = subject.split('.').collect();
    let last = tokens.len() - 1;
    let sound = |(n, token): (usize, &&str)| match *token {
        "" => false,
        "*" => true,
        ">" => n == last,
        token => !token.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '*' | '>')),
    };
    tokens.iter().enumerate().all(sound)
}

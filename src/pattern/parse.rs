//! Pattern text to alternatives: `$or` expands in document order (section 7), later lists replace earlier ones.

use super::check;
use super::operator::test;
use super::{Alternative, Condition, Pattern, PatternError, Test};
use crate::event::text::cmp_utf16;
use crate::event::{FaultKind, Kind, Node, Tree};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Bounds on one pattern (section 9).
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of pattern text.
    pub text_bytes: usize,
    /// Alternatives after `$or` expansion.
    pub alternatives: usize,
    /// Paths in one alternative.
    pub paths: usize,
    /// Wildcard complexity score of one path.
    pub complexity: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { text_bytes: 65_536, alternatives: 1000, paths: 256, complexity: 10 }
    }
}

const RESERVED: [&str; 24] = [
    "exactly",
    "equals-ignore-case",
    "prefix",
    "suffix",
    "anything-but",
    "exists",
    "wildcard",
    "numeric",
    "cidr",
    "=",
    "<",
    "<=",
    ">",
    ">=",
    "regex",
    "not-wildcard",
    "not-equals-ignore-case",
    "date-after",
    "date-on-or-after",
    "date-before",
    "date-on-or-before",
    "in-date-range",
    "ip-address-in-range",
    "ip-address-not-in-range",
];

/// Lists by path while the document is walked, with their offsets. Lists are shared among alternatives.
type Draft = BTreeMap<Arc<[u8]>, (Arc<[Test]>, usize)>;

/// Reads a pattern.
///
/// # Errors
/// The first fault in document order, in the service's words (section 2).
pub fn parse(text: &[u8], limits: &Limits) -> Result<Pattern, PatternError> {
    if text.len() > limits.text_bytes {
        let message = format!("Event pattern is longer than {} bytes", limits.text_bytes);
        return Err(PatternError { message, at: limits.text_bytes });
    }
    let tree = Tree::parse(text).map_err(|fault| match fault.kind {
        FaultKind::Empty | FaultKind::NotAnObject | FaultKind::ByteOrderMark => {
            error("Filter is not an object", fault.at)
        }
        _ => PatternError { message: fault.to_string(), at: fault.at },
    })?;
    let mut expansion = Expansion { limits, drafts: vec![Draft::new()], replaced: BTreeSet::new() };
    expansion.object(tree.root(), &mut Vec::new(), false, true)?;
    let alternatives = expansion.drafts.into_iter().map(finish).collect();
    let pattern = Pattern { alternatives, replaced: expansion.replaced };
    if check::complexity(&pattern, limits.complexity) > limits.complexity {
        return Err(error(check::TOO_COMPLEX, 0));
    }
    Ok(pattern)
}

pub(super) fn error(message: impl Into<String>, at: usize) -> PatternError {
    PatternError { message: message.into(), at }
}

fn finish(draft: Draft) -> Alternative {
    let mut conditions: Vec<_> = draft.into_iter().map(|(path, (tests, at))| Condition { path, tests, at }).collect();
    conditions.sort_by(|a, b| cmp_utf16(&a.path, &b.path));
    Alternative { conditions }
}

struct Expansion<'l> {
    limits: &'l Limits,
    drafts: Vec<Draft>,
    replaced: BTreeSet<(usize, usize)>,
}

impl Expansion<'_> {
    /// Walks an object of fields whose path so far is `path`. Its depth is bounded by the JSON reader.
    fn object(&mut self, object: Node<'_>, path: &mut Vec<u8>, in_or: bool, top: bool) -> Result<(), PatternError> {
        if object.children().next().is_none() {
            return Err(error("Empty objects are not allowed", object.at()));
        }
        let prefix = path.len();
        for child in object.children() {
            let key = child.key();
            if key.as_ref() == b"$or" {
                self.alternatives(child, path, top)?;
                continue;
            }
            if in_or && let Some(word) = reserved(&key) {
                let message = format!("{word} is Ruler reserved fieldName which cannot be used inside $or.");
                return Err(error(message, child.key_at()));
            }
            if !top {
                path.push(b'.');
            }
            path.extend_from_slice(&key);
            match child.kind() {
                Kind::Object => self.object(child, path, in_or, false)?,
                Kind::Array => self.list(child, path)?,
                _ => {
                    let key = String::from_utf8_lossy(&key).into_owned();
                    return Err(error(format!("\"{key}\" must be an object or an array"), child.at()));
                }
            }
            path.truncate(prefix);
        }
        Ok(())
    }

    fn list(&mut self, list: Node<'_>, path: &[u8]) -> Result<(), PatternError> {
        let tests = list.children().map(test).collect::<Result<Arc<[_]>, _>>()?;
        if tests.is_empty() {
            return Err(error("Empty arrays are not allowed", list.at()));
        }
        let path: Arc<[u8]> = path.into();
        for draft in &mut self.drafts {
            if let Some((_, before)) = draft.insert(Arc::clone(&path), (Arc::clone(&tests), list.at())) {
                self.replaced.insert((before, list.at()));
            }
            if draft.len() > self.limits.paths {
                let message = format!("Event pattern has over {} fields", self.limits.paths);
                return Err(error(message, list.at()));
            }
        }
        Ok(())
    }

    /// Copies the current alternatives once per branch and continues with the union.
    fn alternatives(&mut self, or: Node<'_>, path: &mut Vec<u8>, top: bool) -> Result<(), PatternError> {
        if or.kind() != Kind::Array {
            return Err(error("It must be an Array followed with $or.", or.at()));
        }
        let base = std::mem::take(&mut self.drafts);
        let mut union = Vec::new();
        let mut branches = 0;
        for branch in or.children() {
            branches += 1;
            if branch.kind() != Kind::Object {
                return Err(error("Only JSON object is allowed in array of $or relationship.", branch.at()));
            }
            if union.len() + base.len() > self.limits.alternatives {
                let message = format!("Event pattern has over {} rule combinations", self.limits.alternatives);
                return Err(error(message, or.key_at()));
            }
            self.drafts = base.clone();
            self.object(branch, path, true, top)?;
            union.append(&mut self.drafts);
        }
        if branches < 2 {
            return Err(error("There must have at least 2 Objects in $or relationship.", or.at()));
        }
        if union.len() > self.limits.alternatives {
            let message = format!("Event pattern has over {} rule combinations", self.limits.alternatives);
            return Err(error(message, or.key_at()));
        }
        self.drafts = union;
        Ok(())
    }
}

fn reserved(key: &[u8]) -> Option<&'static str> {
    RESERVED.iter().find(|word| word.as_bytes() == key).copied()
}

//! Pattern text to alternatives: `$or` expands in document order (section 7), later lists replace earlier ones.

use super::check;
use super::operator::test;
use super::{Alternative, Condition, Pattern, PatternError, Test};
use crate::event::text::cmp_utf16;
use crate::event::{Children, FaultKind, Kind, Node, Tree};
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
        return Err(ours(message, limits.text_bytes));
    }
    let tree = Tree::parse(text).map_err(|fault| match fault.kind {
        FaultKind::Empty | FaultKind::NotAnObject => error("Filter is not an object", fault.at),
        _ => ours(fault.to_string(), fault.at),
    })?;
    let mut expansion = Expansion {
        limits,
        drafts: vec![Draft::new()],
        replaced: BTreeSet::new(),
        path: Vec::new(),
        levels: Vec::new(),
    };
    expansion.walk(tree.root())?;
    let alternatives = expansion.drafts.into_iter().map(finish).collect();
    let pattern = Pattern { alternatives, replaced: expansion.replaced };
    if check::complexity(&pattern, limits.complexity) > limits.complexity {
        return Err(error(check::TOO_COMPLEX, 0));
    }
    Ok(pattern)
}

pub(super) fn error(message: impl Into<String>, at: usize) -> PatternError {
    PatternError { message: message.into(), ours: false, at }
}

/// An error in words that are not the service's.
pub(super) fn ours(message: impl Into<String>, at: usize) -> PatternError {
    PatternError { ours: true, ..error(message, at) }
}

fn finish(draft: Draft) -> Alternative {
    let mut conditions: Vec<_> = draft.into_iter().map(|(path, (tests, at))| Condition { path, tests, at }).collect();
    conditions.sort_by(|a, b| cmp_utf16(&a.path, &b.path));
    Alternative { conditions }
}

struct Expansion<'t> {
    limits: &'t Limits,
    /// The current alternatives.
    drafts: Vec<Draft>,
    replaced: BTreeSet<(usize, usize)>,
    /// The path of the member that is walked.
    path: Vec<u8>,
    /// What is open, outermost first.
    levels: Vec<Level<'t>>,
}

enum Level<'t> {
    Object(Object<'t>),
    Or(Or<'t>),
}

/// An object of fields, and its members that are not walked yet.
struct Object<'t> {
    members: Children<'t>,
    /// The length of its path.
    path: usize,
    /// Whether its keys begin paths.
    top: bool,
    in_or: bool,
}

/// A `$or`, and its branches that are not walked yet.
struct Or<'t> {
    or: Node<'t>,
    branches: Children<'t>,
    begun: usize,
    /// The alternatives before it.
    base: Vec<Draft>,
    /// Those of the branches so far.
    union: Vec<Draft>,
    /// Whether the keys of its branches begin paths.
    top: bool,
}

impl<'t> Expansion<'t> {
    /// Walks the pattern, without recursion.
    fn walk(&mut self, top: Node<'t>) -> Result<(), PatternError> {
        self.enter(top, true, false)?;
        while let Some(level) = self.levels.pop() {
            match level {
                Level::Object(object) => self.member(object)?,
                Level::Or(or) => self.branch(or)?,
            }
        }
        Ok(())
    }

    /// Opens an object of fields below the current path.
    fn enter(&mut self, object: Node<'t>, top: bool, in_or: bool) -> Result<(), PatternError> {
        let members = object.children();
        if members.clone().next().is_none() {
            return Err(error("Empty objects are not allowed", object.at()));
        }
        self.levels.push(Level::Object(Object { members, path: self.path.len(), top, in_or }));
        Ok(())
    }

    /// The next member of an object.
    fn member(&mut self, mut object: Object<'t>) -> Result<(), PatternError> {
        self.path.truncate(object.path);
        let Some(child) = object.members.next() else { return Ok(()) };
        let (top, in_or) = (object.top, object.in_or);
        self.levels.push(Level::Object(object));
        let key = child.key();
        if key.as_ref() == b"$or" {
            return self.open_or(child, top);
        }
        if in_or && let Some(word) = reserved(&key) {
            let message = format!("{word} is Ruler reserved fieldName which cannot be used inside $or.");
            return Err(error(message, child.key_at()));
        }
        if !top {
            self.path.push(b'.');
        }
        self.path.extend_from_slice(&key);
        match child.kind() {
            Kind::Object => self.enter(child, false, in_or),
            Kind::Array => self.list(child),
            _ => {
                let key = String::from_utf8_lossy(&key).into_owned();
                Err(error(format!("\"{key}\" must be an object or an array"), child.at()))
            }
        }
    }

    fn list(&mut self, list: Node<'_>) -> Result<(), PatternError> {
        let tests = list.children().map(test).collect::<Result<Arc<[_]>, _>>()?;
        if tests.is_empty() {
            return Err(error("Empty arrays are not allowed", list.at()));
        }
        let path: Arc<[u8]> = self.path.as_slice().into();
        for draft in &mut self.drafts {
            if let Some((_, before)) = draft.insert(Arc::clone(&path), (Arc::clone(&tests), list.at())) {
                self.replaced.insert((before, list.at()));
            }
            if draft.len() > self.limits.paths {
                let message = format!("Event pattern has over {} fields", self.limits.paths);
                return Err(ours(message, list.at()));
            }
        }
        Ok(())
    }

    /// Opens a `$or`: the current alternatives are copied once per branch, and the union goes on.
    fn open_or(&mut self, or: Node<'t>, top: bool) -> Result<(), PatternError> {
        if or.kind() != Kind::Array {
            return Err(error("It must be an Array followed with $or.", or.at()));
        }
        let base = std::mem::take(&mut self.drafts);
        self.levels.push(Level::Or(Or { or, branches: or.children(), begun: 0, base, union: Vec::new(), top }));
        Ok(())
    }

    /// Takes in the branch of a `$or` that was walked, and begins the next.
    fn branch(&mut self, mut or: Or<'t>) -> Result<(), PatternError> {
        // Nothing is there before the first branch.
        or.union.append(&mut self.drafts);
        let too_many = |or: &Or<'_>| {
            let message = format!("Event pattern has over {} rule combinations", self.limits.alternatives);
            Err(ours(message, or.or.key_at()))
        };
        let Some(branch) = or.branches.next() else {
            if or.begun < 2 {
                return Err(error("There must have at least 2 Objects in $or relationship.", or.or.at()));
            }
            if or.union.len() > self.limits.alternatives {
                return too_many(&or);
            }
            self.drafts = or.union;
            return Ok(());
        };
        if branch.kind() != Kind::Object {
            return Err(error("Only JSON object is allowed in array of $or relationship.", branch.at()));
        }
        if or.union.len() + or.base.len() > self.limits.alternatives {
            return too_many(&or);
        }
        or.begun += 1;
        self.drafts.clone_from(&or.base);
        let top = or.top;
        self.levels.push(Level::Or(or));
        self.enter(branch, top, true)
    }
}

fn reserved(key: &[u8]) -> Option<&'static str> {
    RESERVED.iter().find(|word| word.as_bytes() == key).copied()
}

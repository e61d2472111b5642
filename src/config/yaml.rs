//! YAML text to a tree whose every node knows its place. The grammar is granit-parser's; this keeps what it reports.
//!
//! YAML 1.2 only (`yes` and `no` are text), no tags, no anchors, duplicate keys are problems, depth and size bounded.

use super::problem::{At, Problem};
use crate::event::number;
use granit_parser::{Event, Parser, ScalarStyle, Span};
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

const MAX_NODES: usize = 2_000_000;
const MAX_DEPTH: usize = 128;
const MAX_BYTES: usize = 64 << 20;
/// Characters of a line shown before and after a place.
const AROUND: usize = 100;

/// Index of a node.
pub type NodeId = usize;

/// Which node each offset of a JSON text belongs to, ascending.
pub type Origins = Vec<(usize, NodeId)>;

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Text; `plain` when it stands without quotes and may be a number, a boolean or null.
    Scalar { text: String, plain: bool },
    /// A list.
    Sequence(Vec<NodeId>),
    /// Key and value, in order.
    Mapping(Vec<(NodeId, NodeId)>),
}

/// A node and where it stands.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Its bytes in the file; of a list or mapping in lines, to the end of the last value.
    pub span: Range<usize>,
    line: usize,
    column: usize,
    width: usize,
}

/// A parsed file.
#[derive(Debug, Clone)]
pub struct Document {
    /// The file.
    pub file: PathBuf,
    text: String,
    /// Where each line begins.
    lines: Vec<usize>,
    /// All nodes.
    pub nodes: Vec<Node>,
    /// The top one.
    pub root: NodeId,
}

/// Parses a file; `None` when there is nothing to go on with.
pub fn parse(file: &Path, text: String, problems: &mut Vec<Problem>) -> Option<Document> {
    let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let mut document = Document { file: file.to_owned(), text, lines, nodes: Vec::new(), root: 0 };
    match Builder::build(&mut document, problems) {
        Ok(()) if document.nodes.is_empty() => None,
        Ok(()) => Some(document),
        Err(problem) => {
            problems.push(*problem);
            None
        }
    }
}

impl Document {
    /// A node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id]
    }

    /// The text of a scalar key.
    pub fn key(&self, id: NodeId) -> &str {
        match &self.nodes[id].kind {
            Kind::Scalar { text, .. } => text,
            _ => "",
        }
    }

    /// The value under a path of keys; list elements count from 0.
    pub fn find(&self, path: &[&str]) -> Option<NodeId> {
        path.iter().try_fold(self.root, |at, step| match &self.nodes[at].kind {
            Kind::Mapping(entries) => entries.iter().find(|(key, _)| self.key(*key) == *step).map(|&(_, value)| value),
            Kind::Sequence(items) => step.parse::<usize>().ok().and_then(|n| items.get(n).copied()),
            Kind::Scalar { .. } => None,
        })
    }

    /// The names under a top-level section.
    pub fn names(&self, section: &str) -> Vec<&str> {
        match self.find(&[section]).map(|id| &self.nodes[id].kind) {
            Some(Kind::Mapping(entries)) => entries.iter().map(|(key, _)| self.key(*key)).collect(),
            _ => Vec::new(),
        }
    }

    /// A place for a problem: the node, or the deepest node of `path` that exists.
    pub fn at_path(&self, path: &[&str]) -> At {
        let mut len = path.len();
        while self.find(&path[..len]).is_none() && len > 0 {
            len -= 1;
        }
        let id = self.find(&path[..len]).unwrap_or(self.root);
        self.at(id, &path.join("."))
    }

    /// A place for a problem.
    pub fn at(&self, id: NodeId, path: &str) -> At {
        let node = &self.nodes[id];
        self.place(node.line, node.column, node.width, path)
    }

    /// A place for a problem: a byte of a scalar's text.
    pub fn at_text(&self, id: NodeId, offset: usize, path: &str) -> At {
        let node = &self.nodes[id];
        let Kind::Scalar { text, .. } = &node.kind else { return self.at(id, path) };
        let line = self.lines.get(node.line - 1).copied().unwrap_or(self.text.len());
        let column = self.text[line..].char_indices().nth(node.column - 1).map_or(0, |(at, _)| at);
        let begin = line + column;
        let at = begin + within(&self.text[begin..], text, offset);
        let line = self.lines.partition_point(|&line| line <= at);
        let column = self.text[self.lines[line - 1]..at].chars().count() + 1;
        self.place(line, column, 1, path)
    }

    fn place(&self, line: usize, column: usize, width: usize, path: &str) -> At {
        let begin = self.lines.get(line.saturating_sub(1)).copied().unwrap_or(self.text.len());
        let end = self.lines.get(line).copied().unwrap_or(self.text.len());
        let whole = self.text.get(begin..end).unwrap_or_default().trim_end_matches(['\n', '\r']);
        // A long line is shown around the place.
        let skipped = (column - 1).saturating_sub(AROUND);
        let text: String = whole.chars().skip(skipped).take(2 * AROUND).collect();
        let indent = column - 1 - skipped;
        let room = text.chars().count().saturating_sub(indent).max(1);
        At { file: self.file.clone(), line, column, width: width.clamp(1, room), path: path.to_owned(), text, indent }
    }

    /// The key path of a node. Nodes are numbered in document order, so each lies under the last one before it.
    pub fn path_of(&self, wanted: NodeId) -> String {
        let (mut path, mut at) = (String::new(), self.root);
        while at != wanted {
            match &self.nodes[at].kind {
                Kind::Scalar { .. } => break,
                Kind::Sequence(items) => {
                    let Some(n) = items.partition_point(|&item| item <= wanted).checked_sub(1) else { break };
                    path += &format!("[{n}]");
                    at = items[n];
                }
                Kind::Mapping(entries) => {
                    let Some(n) = entries.partition_point(|&(key, _)| key <= wanted).checked_sub(1) else { break };
                    let (key, value) = entries[n];
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path += self.key(key);
                    at = if key == wanted { wanted } else { value };
                }
            }
        }
        path
    }

    /// A node as JSON text, numbers as they are spelled, with the node that each offset belongs to.
    ///
    /// # Errors
    /// The node that is no JSON value: a YAML number that JSON writes differently, or a key that is no text.
    pub fn json(&self, id: NodeId) -> Result<(String, Origins), (NodeId, String)> {
        let (mut out, mut origins) = (String::new(), Vec::new());
        self.put_json(id, &mut out, &mut origins)?;
        Ok((out, origins))
    }

    fn put_json(&self, id: NodeId, out: &mut String, origins: &mut Origins) -> Result<(), (NodeId, String)> {
        origins.push((out.len(), id));
        match &self.nodes[id].kind {
            Kind::Scalar { text, plain } => match Scalar::of(text, *plain) {
                Scalar::Text => put_string(text, out),
                Scalar::Null => out.push_str("null"),
                Scalar::Bool(b) => out.push_str(if b { "true" } else { "false" }),
                Scalar::Number => out.push_str(text),
                Scalar::Foreign => {
                    let message = format!("`{text}` is a number that JSON writes differently");
                    return Err((id, message));
                }
            },
            Kind::Sequence(items) => {
                out.push('[');
                for (n, &item) in items.iter().enumerate() {
                    if n > 0 {
                        out.push(',');
                    }
                    self.put_json(item, out, origins)?;
                }
                out.push(']');
            }
            Kind::Mapping(entries) => {
                out.push('{');
                for (n, &(key, value)) in entries.iter().enumerate() {
                    if n > 0 {
                        out.push(',');
                    }
                    origins.push((out.len(), key));
                    put_string(self.key(key), out);
                    out.push(':');
                    self.put_json(value, out, origins)?;
                }
                out.push('}');
            }
        }
        Ok(())
    }
}

/// Where, in the source of a scalar, a byte of its text comes from. Quotes, escapes, indentation and folded lines set the
/// two apart; what is no white space comes in the same order in both.
fn within(source: &str, text: &str, offset: usize) -> usize {
    let style = source.chars().next();
    let mut at = match style {
        Some('"' | '\'') => 1,
        Some('|' | '>') => source.find('\n').unwrap_or(0),
        _ => 0,
    };
    let mut last = at;
    for (n, c) in text.char_indices().filter(|(_, c)| !c.is_whitespace()) {
        let rest = |at: usize| source.get(at..).unwrap_or_default();
        loop {
            at += rest(at).len() - rest(at).trim_start().len();
            match (style, rest(at).as_bytes()) {
                // Escapes of white space.
                (Some('"'), [b'\\', b'n' | b't' | b'r' | b' ' | b'\t' | b'\n', ..]) => at += 2,
                _ => break,
            }
        }
        last = at;
        if n + c.len_utf8() > offset {
            break;
        }
        at += match (style, rest(at).as_bytes()) {
            (Some('"'), [b'\\', b'x', ..]) => 4,
            (Some('"'), [b'\\', b'u', ..]) => 6,
            (Some('"'), [b'\\', b'U', ..]) => 10,
            (Some('"'), [b'\\', ..]) | (Some('\''), [b'\'', ..]) => 2,
            (_, rest) => rest.first().map_or(0, |_| c.len_utf8()),
        };
    }
    last.min(source.len())
}

fn put_string(text: &str, out: &mut String) {
    out.push('"');
    let mut escaped = Vec::new();
    crate::event::text::escape_json(text.as_bytes(), &mut escaped);
    out.push_str(&String::from_utf8_lossy(&escaped));
    out.push('"');
}

/// What a scalar means in YAML 1.2's core schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scalar {
    /// Text.
    Text,
    /// `null`, `~`, or nothing.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// A number as JSON writes them.
    Number,
    /// A number as only YAML writes them: `0x1f`, `.5`, `+1`, `.inf`.
    Foreign,
}

impl Scalar {
    /// Reads a scalar.
    pub fn of(text: &str, plain: bool) -> Self {
        match text {
            _ if !plain => Self::Text,
            "" | "~" | "null" | "Null" | "NULL" => Self::Null,
            "true" | "True" | "TRUE" => Self::Bool(true),
            "false" | "False" | "FALSE" => Self::Bool(false),
            _ if number::is_json(text.as_bytes()) => Self::Number,
            _ if is_foreign(text) => Self::Foreign,
            _ => Self::Text,
        }
    }
}

fn is_foreign(text: &str) -> bool {
    let unsigned = text.trim_start_matches(['+', '-']);
    if unsigned.len() + 1 < text.len() {
        return false;
    }
    let hex = unsigned.strip_prefix("0x").is_some_and(|h| !h.is_empty() && h.chars().all(|c| c.is_ascii_hexdigit()));
    let octal = unsigned.strip_prefix("0o").is_some_and(|o| !o.is_empty() && o.chars().all(|c| c.is_digit(8)));
    let decimal = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && unsigned.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'))
        && unsigned.parse::<f64>().is_ok();
    hex || octal || decimal || matches!(unsigned, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN")
}

/// An open collection.
struct Open {
    id: NodeId,
    /// In a mapping, the key that waits for its value.
    key: Option<NodeId>,
    /// The keys of a mapping so far.
    keys: HashMap<String, NodeId>,
}

struct Builder<'d> {
    document: &'d mut Document,
    open: Vec<Open>,
    seen_root: bool,
}

impl Builder<'_> {
    fn build(document: &mut Document, problems: &mut Vec<Problem>) -> Result<(), Box<Problem>> {
        if document.text.len() > MAX_BYTES {
            let message = format!("{} has more than {MAX_BYTES} bytes", document.file.display());
            return Err(Box::new(Problem::plain("E0003", message)));
        }
        let text = document.text.clone();
        let mut builder = Builder { document, open: Vec::new(), seen_root: false };
        for event in Parser::new_from_str(&text) {
            let (event, span) = event.map_err(|error| {
                let mark = error.marker();
                let at = builder.document.place(mark.line().max(1), mark.col() + 1, 1, "");
                let mut problem = Problem::plain("E0101", format!("not YAML: {}", error.info()));
                problem.at = Some(at);
                Box::new(problem)
            })?;
            builder.event(event, &span, problems)?;
        }
        Ok(())
    }

    fn fail(&self, code: &'static str, message: &str, span: &Span, help: &str) -> Box<Problem> {
        let mut problem = Problem::plain(code, message).help(help);
        problem.at = Some(self.document.place(span.start.line().max(1), span.start.col() + 1, 1, ""));
        Box::new(problem)
    }

    fn event(&mut self, event: Event<'_>, span: &Span, problems: &mut Vec<Problem>) -> Result<(), Box<Problem>> {
        match event {
            Event::DocumentStart(..) if self.seen_root => {
                Err(self.fail("E0102", "a second document in one file", span, "one document a file; use a folder"))
            }
            Event::Alias(_) => {
                Err(self.fail("E0102", "anchors and aliases are not supported", span, "write the value out"))
            }
            Event::Scalar(text, style, _, tag) => {
                if tag.is_some() {
                    return Err(self.fail("E0102", "tags are not supported", span, "remove the tag"));
                }
                let plain = matches!(style, ScalarStyle::Plain);
                let id = self.add(Kind::Scalar { text: text.into_owned(), plain }, span)?;
                self.place(id, problems);
                Ok(())
            }
            Event::SequenceStart(..) => self.push(Kind::Sequence(Vec::new()), span, problems),
            Event::MappingStart(..) => self.push(Kind::Mapping(Vec::new()), span, problems),
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.open.pop() {
                    self.close(open.id, span);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn push(&mut self, kind: Kind, span: &Span, problems: &mut Vec<Problem>) -> Result<(), Box<Problem>> {
        if self.open.len() >= MAX_DEPTH {
            return Err(self.fail("E0003", "nested too deeply", span, "at most 128 levels"));
        }
        if matches!(self.open.last(), Some(Open { id, key: None, .. }) if matches!(self.document.nodes[*id].kind, Kind::Mapping(_)))
        {
            return Err(self.fail("E0102", "a key must be text", span, "quote it"));
        }
        let id = self.add(kind, span)?;
        self.place(id, problems);
        self.open.push(Open { id, key: None, keys: HashMap::new() });
        Ok(())
    }

    /// Sets where a collection stands: to its bracket, or, in lines, from its first dash or key to its last value.
    fn close(&mut self, id: NodeId, span: &Span) {
        let nodes = &self.document.nodes;
        let Range { mut start, mut end } = nodes[id].span.clone();
        match (span.byte_range().filter(|bracket| !bracket.is_empty()), &nodes[id].kind) {
            (Some(bracket), _) => end = bracket.end,
            (None, Kind::Sequence(items)) => {
                if let [first, .., last] | [first @ last] = items.as_slice() {
                    let before = self.document.text[..nodes[*first].span.start].trim_end();
                    start = before.strip_suffix('-').map_or(start, str::len);
                    end = nodes[*last].span.end;
                }
            }
            (None, Kind::Mapping(entries)) => {
                let last = entries.last().map(|(key, value)| nodes[*value].span.end.max(nodes[*key].span.end));
                end = last.unwrap_or(end);
            }
            (None, Kind::Scalar { .. }) => {}
        }
        self.document.nodes[id].span = start..end;
    }

    fn add(&mut self, kind: Kind, span: &Span) -> Result<NodeId, Box<Problem>> {
        if self.document.nodes.len() >= MAX_NODES {
            return Err(self.fail("E0003", "too many values in one file", span, "split it"));
        }
        let (line, column) = (span.start.line().max(1), span.start.col() + 1);
        let one_line = span.end.line() == span.start.line();
        let width = if one_line { span.end.col().saturating_sub(span.start.col()) } else { 1 };
        let bytes = span.byte_range().unwrap_or_default();
        self.document.nodes.push(Node { kind, span: bytes, line, column, width });
        Ok(self.document.nodes.len() - 1)
    }

    /// Puts a finished or opening node where it belongs.
    fn place(&mut self, id: NodeId, problems: &mut Vec<Problem>) {
        let Some(parent) = self.open.last_mut() else {
            self.document.root = id;
            self.seen_root = true;
            return;
        };
        match &mut self.document.nodes[parent.id].kind {
            Kind::Sequence(items) => return items.push(id),
            Kind::Scalar { .. } => return,
            Kind::Mapping(_) => {}
        }
        let Some(key) = parent.key.take() else {
            parent.key = Some(id);
            return;
        };
        if let Kind::Mapping(entries) = &mut self.document.nodes[parent.id].kind {
            entries.push((key, id));
        }
        let name = self.document.key(key).to_owned();
        if let Some(&first) = parent.keys.get(&name) {
            let line = self.document.nodes[first].line;
            let mut problem = Problem::plain("E0107", format!("key `{name}` stands twice"))
                .help(format!("the first one is in line {line}; remove one of them"));
            problem.at = Some(self.document.at(key, &name));
            problems.push(problem);
        } else {
            parent.keys.insert(name, key);
        }
    }
}

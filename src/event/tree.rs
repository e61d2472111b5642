//! A whole JSON document as a flat tree, in document order, duplicate keys kept: for patterns, transforms and the
//! naive evaluator. The hot path uses [`super::decode`] instead.

use super::scan::{Scan, Scanner};
use super::text;
use super::walk::{Fault, Scalar, Visit, walk, walk_wrapped};
use std::borrow::Cow;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `{…}`
    Object,
    /// `[…]`
    Array,
    /// A string.
    String,
    /// A number.
    Number,
    /// `true` or `false`.
    Bool(bool),
    /// `null`.
    Null,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    kind: Kind,
    /// Offset of the key's opening quote and length of its inside; `None` for elements and the top.
    key: Option<(u32, u32)>,
    at: u32,
    end: u32,
    /// Index after the last descendant: where the next sibling is.
    after: u32,
}

/// A parsed document; nodes borrow from its text.
#[derive(Debug, Clone)]
pub struct Tree<'a> {
    json: &'a [u8],
    entries: Vec<Entry>,
}

/// One value of a document.
#[derive(Clone, Copy)]
pub struct Node<'t> {
    tree: &'t Tree<'t>,
    index: usize,
}

impl<'a> Tree<'a> {
    /// Reads a text whose top value is an object.
    ///
    /// # Errors
    /// The first [`Fault`] of the text.
    pub fn parse(json: &'a [u8]) -> Result<Self, Fault> {
        Self::parse_with(json, &mut Scanner::default())
    }

    /// As [`Tree::parse`], with reused memory.
    ///
    /// # Errors
    /// The first [`Fault`] of the text.
    pub fn parse_with(json: &'a [u8], scanner: &mut Scanner) -> Result<Self, Fault> {
        let scan = scanner.scan(json)?;
        let mut builder = Builder::of(&scan);
        walk(&scan, &mut builder)?;
        Ok(Self { json, entries: builder.entries })
    }

    /// As [`Tree::parse_with`], a text with an event, or a pattern, somewhere inside: that has its own limit of depth.
    ///
    /// # Errors
    /// The first [`Fault`] of the text.
    pub fn parse_wrapped(json: &'a [u8], scanner: &mut Scanner) -> Result<Self, Fault> {
        let scan = scanner.scan(json)?;
        let mut builder = Builder::of(&scan);
        walk_wrapped(&scan, &mut builder)?;
        Ok(Self { json, entries: builder.entries })
    }

    /// The top value.
    pub fn root(&self) -> Node<'_> {
        Node { tree: self, index: 0 }
    }
}

impl<'t> Node<'t> {
    fn entry(&self) -> &'t Entry {
        &self.tree.entries[self.index]
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.entry().kind
    }

    /// Its exact text in the document.
    pub fn raw(&self) -> &'t [u8] {
        &self.tree.json[self.entry().at as usize..self.entry().end as usize]
    }

    /// Offset of its first byte.
    pub fn at(&self) -> usize {
        self.entry().at as usize
    }

    /// Offset of its key's opening quote, or of itself where it has none.
    pub fn key_at(&self) -> usize {
        self.entry().key.map_or(self.entry().at, |(at, _)| at) as usize
    }

    /// Its key, decoded; empty for elements and the top.
    pub fn key(&self) -> Cow<'t, [u8]> {
        match self.entry().key {
            Some((at, len)) => text::unescape(&self.tree.json[at as usize + 1..(at + 1 + len) as usize]),
            None => Cow::Borrowed(b""),
        }
    }

    /// A string's decoded text; the raw text of anything else.
    pub fn text(&self) -> Cow<'t, [u8]> {
        let raw = self.raw();
        match self.kind() {
            Kind::String => text::unescape(&raw[1..raw.len() - 1]),
            _ => Cow::Borrowed(raw),
        }
    }

    /// The values of an object or array, in document order; none for scalars.
    pub fn children(&self) -> Children<'t> {
        Children { tree: self.tree, next: self.index + 1, after: self.entry().after as usize }
    }

    /// The last value under `key`; JSON readers let a repeated key win.
    pub fn get(&self, key: &[u8]) -> Option<Node<'t>> {
        let object = self.kind() == Kind::Object;
        self.children().filter(|child| object && child.key().as_ref() == key).last()
    }
}

/// See [`Node::children`].
#[derive(Clone)]
pub struct Children<'t> {
    tree: &'t Tree<'t>,
    next: usize,
    after: usize,
}

impl<'t> Iterator for Children<'t> {
    type Item = Node<'t>;

    fn next(&mut self) -> Option<Node<'t>> {
        if self.next >= self.after {
            return None;
        }
        let child = Node { tree: self.tree, index: self.next };
        self.next = child.entry().after as usize;
        Some(child)
    }
}

struct Builder {
    entries: Vec<Entry>,
    open: Vec<usize>,
    key: Option<(u32, u32)>,
}

impl Builder {
    fn of(scan: &Scan<'_>) -> Self {
        Self { entries: Vec::with_capacity(scan.indexes.len() / 2), open: Vec::new(), key: None }
    }

    fn push(&mut self, kind: Kind, at: usize, end: usize) {
        let after = self.entries.len() as u32 + 1;
        self.entries.push(Entry { kind, key: self.key.take(), at: at as u32, end: end as u32, after });
    }
}

impl<'a> Visit<'a> for Builder {
    fn key(&mut self, at: usize, raw: &'a [u8]) {
        self.key = Some((at as u32, raw.len() as u32));
    }

    fn scalar(&mut self, at: usize, end: usize, value: Scalar<'a>) {
        let kind = match value {
            Scalar::String(_) => Kind::String,
            Scalar::Number(_) => Kind::Number,
            Scalar::Bool(b) => Kind::Bool(b),
            Scalar::Null => Kind::Null,
        };
        self.push(kind, at, end);
    }

    fn open(&mut self, at: usize, object: bool) {
        self.open.push(self.entries.len());
        self.push(if object { Kind::Object } else { Kind::Array }, at, at);
    }

    fn close(&mut self, end: usize) {
        let after = self.entries.len() as u32;
        if let Some(index) = self.open.pop() {
            self.entries[index].end = end as u32;
            self.entries[index].after = after;
        }
    }
}

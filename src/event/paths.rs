//! The paths some rule names, as a tree over key segments.
//!
//! A path is its keys joined with dots, so a key that holds a dot descends several segments at once.

use foldhash::fast::FixedState;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;

/// A path named by some rule, dense per tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FieldId(pub u32);

/// A place in the tree; [`Branch::NONE`] is beyond all paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Branch(u32);

impl Branch {
    /// No path goes on here.
    pub const NONE: Branch = Branch(u32::MAX);
}

/// A slot of a point's table.
#[derive(Clone, Copy)]
struct Child {
    /// The segment's first eight bytes.
    head: u64,
    /// Where the segment stands in [`PathTree::segments`].
    at: u32,
    len: u32,
    to: Branch,
}

/// What no segment equals.
const FREE: Child = Child { head: 0, at: 0, len: u32::MAX, to: Branch::NONE };

struct Point {
    /// Its table in [`PathTree::children`], open-addressed; the size is a power of two.
    first: u32,
    mask: u32,
    /// A bit for the first byte of each child, several share one: most keys lead nowhere.
    begins: u64,
    field: Option<FieldId>,
}

/// The bit of a key's first byte.
#[inline(always)]
fn begin(head: u64) -> u64 {
    1 << (head & 63)
}

/// Immutable tree of named paths. Built by [`PathTreeBuilder`].
pub struct PathTree {
    points: Vec<Point>,
    children: Vec<Child>,
    segments: Vec<u8>,
    fields: u32,
}

/// Collects paths, then becomes a [`PathTree`].
#[derive(Default)]
pub struct PathTreeBuilder {
    known: HashMap<Box<[u8]>, FieldId, FixedState>,
    points: Vec<BTreeMap<Box<[u8]>, usize>>,
    /// Where each field's path ends.
    ends: Vec<usize>,
}

/// The first eight bytes of a segment as one word, zeros behind a shorter one.
fn head(bytes: &[u8]) -> u64 {
    match bytes.first_chunk() {
        Some(word) => u64::from_le_bytes(*word),
        None => bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

/// By length: which bytes of a word belong to a segment.
const MASKS: [u64; 9] =
    [0, 0xFF, 0xFFFF, 0xFF_FFFF, 0xFFFF_FFFF, 0xFF_FFFF_FFFF, 0xFFFF_FFFF_FFFF, 0xFF_FFFF_FFFF_FFFF, u64::MAX];

/// Spreads segments over a table: those of up to eight bytes by their word, longer ones by all they have.
#[inline(always)]
fn spread(head: u64, bytes: &[u8]) -> u32 {
    let word = if bytes.len() > 8 { FixedState::with_seed(0).hash_one(bytes) } else { head };
    (word.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u32
}

/// Whether a byte of the word is a dot (Bit Twiddling Hacks, "Determine if a word has a byte equal to n").
#[inline(always)]
fn has_dot(word: u64) -> bool {
    let flipped = word ^ 0x2E2E_2E2E_2E2E_2E2E;
    flipped.wrapping_sub(0x0101_0101_0101_0101) & !flipped & 0x8080_8080_8080_8080 != 0
}

impl PathTreeBuilder {
    /// The field of a dotted path, made at its first mention.
    pub fn field(&mut self, path: &[u8]) -> FieldId {
        if let Some(&known) = self.known.get(path) {
            return known;
        }
        if self.points.is_empty() {
            self.points.push(BTreeMap::new());
        }
        let mut point = 0;
        for segment in path.split(|&b| b == b'.') {
            let fresh = self.points.len();
            point = *self.points[point].entry(segment.into()).or_insert(fresh);
            if point == fresh {
                self.points.push(BTreeMap::new());
            }
        }
        let field = FieldId(self.ends.len() as u32);
        self.ends.push(point);
        self.known.insert(path.into(), field);
        field
    }

    /// The finished tree.
    pub fn build(self) -> PathTree {
        let mut tree =
            PathTree { points: Vec::new(), children: Vec::new(), segments: Vec::new(), fields: self.ends.len() as u32 };
        for children in &self.points {
            tree.point(children);
        }
        if tree.points.is_empty() {
            tree.point(&BTreeMap::new());
        }
        for (field, point) in (0..).zip(self.ends) {
            tree.points[point].field = Some(FieldId(field));
        }
        tree
    }
}

impl PathTree {
    fn point(&mut self, children: &BTreeMap<Box<[u8]>, usize>) {
        let (first, size) = (self.children.len(), (children.len() * 2).next_power_of_two());
        self.points.push(Point { first: first as u32, mask: size as u32 - 1, begins: 0, field: None });
        self.children.resize(first + size, FREE);
        for (bytes, &to) in children {
            let head = head(bytes);
            if let Some(point) = self.points.last_mut() {
                point.begins |= begin(if bytes.is_empty() { u64::from(b'.') } else { head }) | begin(head);
            }
            let mut slot = spread(head, bytes) as usize & (size - 1);
            while self.children[first + slot].to != Branch::NONE {
                slot = (slot + 1) & (size - 1);
            }
            let at = self.segments.len() as u32;
            self.children[first + slot] = Child { head, at, len: bytes.len() as u32, to: Branch(to as u32) };
            self.segments.extend_from_slice(bytes);
        }
    }

    /// How many fields the tree names; field ids are below it.
    pub fn fields(&self) -> usize {
        self.fields as usize
    }

    /// Where every document starts.
    pub fn root(&self) -> Branch {
        Branch(0)
    }

    /// Where `key`, which has no escapes, leads from `from`, if any path goes on there. `word` is the text's eight bytes from
    /// where the key begins, if it has as many: reading them at once is fastest.
    #[inline(always)]
    pub fn descend_at(&self, from: Branch, key: &[u8], word: Option<&[u8]>) -> Branch {
        let head = match word.and_then(<[u8]>::first_chunk) {
            Some(word) => u64::from_le_bytes(*word) & MASKS[key.len().min(8)],
            None => head(key),
        };
        // Whatever dots follow, the first segment begins as the key does.
        if self.points[from.0 as usize].begins & begin(head) == 0 {
            return Branch::NONE;
        }
        match self.step(from, head, key) {
            // No segment of a path has a dot.
            Branch::NONE if has_dot(head) || (key.len() > 8 && key[8..].contains(&b'.')) => self.descend(from, key),
            found => found,
        }
    }

    /// Where `key`, decoded, leads from `from`, if any path goes on there.
    pub fn descend(&self, from: Branch, key: &[u8]) -> Branch {
        key.split(|&b| b == b'.').fold(from, |branch, segment| match branch {
            Branch::NONE => Branch::NONE,
            branch => self.step(branch, head(segment), segment),
        })
    }

    #[inline(always)]
    fn step(&self, from: Branch, head: u64, bytes: &[u8]) -> Branch {
        let point = &self.points[from.0 as usize];
        let mut slot = spread(head, bytes) & point.mask;
        loop {
            let child = &self.children[(point.first + slot) as usize];
            if child.head == head && child.len as usize == bytes.len() && self.is(child, bytes) {
                return child.to;
            }
            if child.to == Branch::NONE {
                return Branch::NONE;
            }
            slot = (slot + 1) & point.mask;
        }
    }

    /// Whether the bytes behind the first eight are the same.
    #[inline(always)]
    fn is(&self, child: &Child, bytes: &[u8]) -> bool {
        let Some(rest) = bytes.get(8..) else { return true };
        self.segments[child.at as usize + 8..].starts_with(rest)
    }

    /// The field whose path ends here, if one does.
    #[inline(always)]
    pub fn field(&self, at: Branch) -> Option<FieldId> {
        self.points[at.0 as usize].field
    }
}

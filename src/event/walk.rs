//! Stage 2: the JSON grammar over structural indexes, one driver for every reader of JSON in the crate.
//!
//! In: a scanned text. Out: calls on a [`Visit`] in document order. Validates every byte of the document (RFC 8259),
//! strictly, without recursion, to [`MAX_DEPTH`] levels.

use super::scan::Scan;
use super::{number, text};
use std::fmt;

/// Deepest nesting of arrays and objects that is read: the 1,000 levels that the service takes of `detail`, and the
/// event around it.
pub const MAX_DEPTH: usize = 1001;

/// Deepest nesting of a document that holds an event somewhere inside.
pub const MAX_WRAPPED_DEPTH: usize = 1024;

/// Why a text is not an event, and the byte offset where that shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong.
    pub kind: FaultKind,
    /// Byte offset into the text.
    pub at: usize,
}

/// The ways a text fails to be a JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// Nothing but white space.
    Empty,
    /// The top value is no object.
    NotAnObject,
    /// A byte order mark stands before the object.
    ByteOrderMark,
    /// Not UTF-8.
    Utf8,
    /// An open string or a raw control character in one.
    BadString,
    /// A bad escape in a string.
    BadEscape,
    /// A number that JSON does not know.
    BadNumber,
    /// A word other than `true`, `false`, `null`.
    BadWord,
    /// A character where the grammar wants another one.
    Unexpected,
    /// The text ends within a value.
    Truncated,
    /// Text after the closing brace.
    Trailing,
    /// Nesting beyond [`MAX_DEPTH`], or [`MAX_WRAPPED_DEPTH`] around an event.
    TooDeep,
    /// More than 4 GiB.
    TooLarge,
    /// Arrays of one path, spelled in several ways, from which elements can be chosen in too many ways.
    TooManyChoices,
}

impl Fault {
    pub(crate) fn new(kind: FaultKind, at: usize) -> Self {
        Self { kind, at }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            FaultKind::Empty => "empty text, expected a JSON object",
            FaultKind::NotAnObject => "not a JSON object",
            FaultKind::ByteOrderMark => "a byte order mark, which JSON does not allow,",
            FaultKind::Utf8 => "invalid UTF-8",
            FaultKind::BadString => "unclosed string or raw control character in a string",
            FaultKind::BadEscape => "invalid escape in a string",
            FaultKind::BadNumber => "invalid number",
            FaultKind::BadWord => "unknown word, expected true, false or null",
            FaultKind::Unexpected => "unexpected character",
            FaultKind::Truncated => "the text ends too early",
            FaultKind::Trailing => "text after the closing brace",
            FaultKind::TooDeep => "nested too deeply (at most 1001 levels)",
            FaultKind::TooLarge => "larger than 4 GiB",
            FaultKind::TooManyChoices => {
                return f.write_str(
                    "too many ways to choose elements of its arrays: fields of a rule lie in many arrays that keys \
                     with dots or equal keys give the same path",
                );
            }
        };
        write!(f, "{what} at byte {}", self.at)
    }
}

impl std::error::Error for Fault {}

/// A scalar as it stands in the text; strings without their quotes, escapes not yet decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scalar<'a> {
    /// Between the quotes.
    String(&'a [u8]),
    /// The number's exact text.
    Number(&'a [u8]),
    /// `true` or `false`.
    Bool(bool),
    /// `null`.
    Null,
}

/// Receives a document in order. Offsets are bytes from the document's start.
pub trait Visit<'a> {
    /// A key of the open object, between its quotes.
    fn key(&mut self, at: usize, raw: &'a [u8]);
    /// A value that is no container; `at` is its first byte, `end` the byte after it.
    fn scalar(&mut self, at: usize, end: usize, value: Scalar<'a>);
    /// A key at `key` and its value at `at`, which is no container, read together. `end` is the byte after it.
    #[inline(always)]
    fn member(&mut self, (key, raw): (usize, &'a [u8]), (at, end): (usize, usize), value: Scalar<'a>) {
        self.key(key, raw);
        self.scalar(at, end, value);
    }
    /// A container opens.
    fn open(&mut self, at: usize, object: bool);
    /// The innermost container closes; `end` is the byte after it.
    fn close(&mut self, end: usize);
}

/// One bit a level: object or array.
#[derive(Default)]
struct Levels {
    bits: [u64; MAX_WRAPPED_DEPTH.div_ceil(64)],
    depth: usize,
}

impl Levels {
    fn push<const DEEPEST: usize>(&mut self, object: bool) -> bool {
        if self.depth == DEEPEST {
            return false;
        }
        let (word, bit) = (self.depth / 64, 1u64 << (self.depth % 64));
        if object {
            self.bits[word] |= bit
        } else {
            self.bits[word] &= !bit
        }
        self.depth += 1;
        true
    }

    fn top_is_object(&self) -> bool {
        let level = self.depth - 1;
        self.bits[level / 64] & (1 << (level % 64)) != 0
    }
}

struct Cursor<'a, const ESCAPES: bool> {
    json: &'a [u8],
    indexes: &'a [u32],
    next: usize,
}

impl<'a, const ESCAPES: bool> Cursor<'a, ESCAPES> {
    /// The next structural byte and its offset.
    #[inline(always)]
    fn take(&mut self) -> Result<(usize, u8), Fault> {
        let at = self.peek_at().ok_or(Fault::new(FaultKind::Truncated, self.json.len()))?;
        self.next += 1;
        Ok((at, self.json[at]))
    }

    #[inline(always)]
    fn peek_at(&self) -> Option<usize> {
        self.indexes.get(self.next).map(|&i| i as usize)
    }

    /// Where the token that began before ends at the latest: at the next structural byte.
    #[inline(always)]
    fn limit(&self) -> usize {
        self.peek_at().unwrap_or(self.json.len())
    }

    /// The byte after the token that began at `at`: the last non-space byte before `limit`.
    #[inline(always)]
    fn token_end(&self, at: usize, limit: usize) -> usize {
        let mut end = limit;
        while end > at + 1 && matches!(self.json[end - 1], b' ' | b'\t' | b'\n' | b'\r') {
            end -= 1;
        }
        end
    }

    /// The text between the quotes of the string that opens at `at`, and the byte after its closing quote.
    #[inline(always)]
    fn string(&self, at: usize, limit: usize) -> Result<(&'a [u8], usize), Fault> {
        let (raw, end) = match self.json.get(at + 1..limit) {
            Some([raw @ .., b'"']) => (raw, limit),
            _ => self.string_before_space(at, limit)?,
        };
        if ESCAPES && let Some(bad) = text::bad_escape(raw) {
            return Err(Fault::new(FaultKind::BadEscape, at + 1 + bad));
        }
        Ok((raw, end))
    }

    /// The same where the closing quote is not the last byte before `limit`.
    #[inline(always)]
    fn string_before_space(&self, at: usize, limit: usize) -> Result<(&'a [u8], usize), Fault> {
        let end = self.token_end(at, limit);
        match self.json.get(at + 1..end) {
            Some([raw @ .., b'"']) => Ok((raw, end)),
            _ => Err(Fault::new(FaultKind::BadString, at)),
        }
    }

    #[inline(always)]
    fn scalar(&self, at: usize, first: u8, limit: usize) -> Result<(Scalar<'a>, usize), Fault> {
        if first == b'"' {
            return self.string(at, limit).map(|(raw, end)| (Scalar::String(raw), end));
        }
        let end = self.token_end(at, limit);
        let token = &self.json[at..end];
        let value = match first {
            b'-' | b'0'..=b'9' if number::is_json(token) => Scalar::Number(token),
            b'-' | b'0'..=b'9' => return Err(Fault::new(FaultKind::BadNumber, at)),
            b't' if token == b"true" => Scalar::Bool(true),
            b'f' if token == b"false" => Scalar::Bool(false),
            b'n' if token == b"null" => Scalar::Null,
            _ if first.is_ascii_alphabetic() => return Err(Fault::new(FaultKind::BadWord, at)),
            _ => return Err(Fault::new(FaultKind::Unexpected, at)),
        };
        Ok((value, end))
    }
}

/// Walks a scanned document.
///
/// # Errors
/// The first [`Fault`] in document order; the visitor has then seen what stands before it.
pub fn walk<'a, V: Visit<'a>>(scan: &Scan<'a>, visit: &mut V) -> Result<(), Fault> {
    match scan.escapes {
        true => walk_as::<true, V>(scan, visit),
        false => walk_as::<false, V>(scan, visit),
    }
}

/// As [`walk`], of a document that has escapes or has none, which the visitor knows too.
///
/// # Errors
/// As [`walk`].
#[inline(never)] // Registers: inlined into decoding it takes 3 % more instructions.
pub(super) fn walk_as<'a, const ESCAPES: bool, V: Visit<'a>>(scan: &Scan<'a>, visit: &mut V) -> Result<(), Fault> {
    walk_to::<MAX_DEPTH, ESCAPES, V>(scan, visit)
}

/// As [`walk`], to [`MAX_WRAPPED_DEPTH`] levels.
///
/// # Errors
/// As [`walk`].
pub fn walk_wrapped<'a, V: Visit<'a>>(scan: &Scan<'a>, visit: &mut V) -> Result<(), Fault> {
    match scan.escapes {
        true => walk_to::<MAX_WRAPPED_DEPTH, true, V>(scan, visit),
        false => walk_to::<MAX_WRAPPED_DEPTH, false, V>(scan, visit),
    }
}

#[inline(always)]
fn walk_to<'a, const DEEPEST: usize, const ESCAPES: bool, V: Visit<'a>>(
    scan: &Scan<'a>,
    visit: &mut V,
) -> Result<(), Fault> {
    let mut cursor = Cursor::<ESCAPES> { json: scan.json, indexes: scan.indexes, next: 0 };
    let mut levels = Levels::default();
    let mut token = cursor.take()?;
    loop {
        // `token` starts a value.
        let (at, first) = token;
        if first == b'{' || first == b'[' {
            let object = first == b'{';
            if !levels.push::<DEEPEST>(object) {
                return Err(Fault::new(FaultKind::TooDeep, at));
            }
            visit.open(at, object);
            let inner = cursor.take()?;
            if inner.1 == if object { b'}' } else { b']' } {
                levels.depth -= 1;
                visit.close(inner.0 + 1);
            } else {
                token = if object { members(&mut cursor, visit, inner)? } else { inner };
                continue;
            }
        } else {
            let (value, end) = cursor.scalar(at, first, cursor.limit())?;
            visit.scalar(at, end, value);
        }
        // After a value: close what closes here, then on to the next one.
        loop {
            if levels.depth == 0 {
                return match cursor.peek_at() {
                    Some(at) => Err(Fault::new(FaultKind::Trailing, at)),
                    None => Ok(()),
                };
            }
            let object = levels.top_is_object();
            let (at, byte) = cursor.take()?;
            match byte {
                b',' => {
                    let next = cursor.take()?;
                    token = if object { members(&mut cursor, visit, next)? } else { next };
                    break;
                }
                b'}' if object => {}
                b']' if !object => {}
                _ => return Err(Fault::new(FaultKind::Unexpected, at)),
            }
            levels.depth -= 1;
            visit.close(at + 1);
        }
    }
}

/// Reads members of an object, from the token that starts a key to the token that starts a value which is a container or
/// the object's last.
#[inline(always)]
fn members<'a, const ESCAPES: bool, V: Visit<'a>>(
    cursor: &mut Cursor<'a, ESCAPES>,
    visit: &mut V,
    mut key: (usize, u8),
) -> Result<(usize, u8), Fault> {
    // Most members are `"key": scalar,`, four structural bytes each; they are read at once.
    while let (at, b'"') = key {
        let Some(&[colon, value, after, next]) = cursor.indexes[cursor.next..].first_chunk() else { break };
        let [colon, value, after, next] = [colon as usize, value as usize, after as usize, next as usize];
        if cursor.json[colon] != b':' {
            break;
        }
        let (raw, _) = cursor.string(at, colon)?;
        let first = cursor.json[value];
        if matches!(first, b'{' | b'[') || cursor.json[after] != b',' {
            visit.key(at, raw);
            cursor.next += 2;
            return Ok((value, first));
        }
        if first == b'"' {
            let (text, end) = cursor.string(value, after)?;
            visit.member((at, raw), (value, end), Scalar::String(text));
        } else {
            let (scalar, end) = cursor.scalar(value, first, after)?;
            visit.member((at, raw), (value, end), scalar);
        }
        cursor.next += 4;
        key = (next, cursor.json[next]);
    }
    last_member(cursor, visit, key)
}

/// As [`members`], where the text ends soon or a fault comes.
#[cold]
fn last_member<'a, const ESCAPES: bool, V: Visit<'a>>(
    cursor: &mut Cursor<'a, ESCAPES>,
    visit: &mut V,
    (at, first): (usize, u8),
) -> Result<(usize, u8), Fault> {
    if first != b'"' {
        return Err(Fault::new(FaultKind::Unexpected, at));
    }
    let (raw, _) = cursor.string(at, cursor.limit())?;
    visit.key(at, raw);
    let (colon_at, colon) = cursor.take()?;
    if colon != b':' {
        return Err(Fault::new(FaultKind::Unexpected, colon_at));
    }
    cursor.take()
}

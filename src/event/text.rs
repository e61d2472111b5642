//! JSON strings as bytes: escapes, and characters including lone surrogates.
//!
//! Decoded text is UTF-8, but for lone surrogates, which keep their three-byte form (WTF-8), so that they equal only
//! themselves.

use std::borrow::Cow;

/// The offset of the first backslash that starts no JSON escape, if there is one.
pub fn bad_escape(raw: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(found) = raw[at..].iter().position(|&b| b == b'\\') {
        at += found;
        at += match raw.get(at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
            Some(b'u') if hex4(raw, at + 2).is_some() => 6,
            _ => return Some(at),
        };
    }
    None
}

fn hex4(raw: &[u8], at: usize) -> Option<u32> {
    let digits = raw.get(at..at + 4)?;
    digits.iter().try_fold(0, |code, &d| Some(code * 16 + (d as char).to_digit(16)?))
}

/// Decodes the escapes of a valid JSON string's inside.
pub fn unescape(raw: &[u8]) -> Cow<'_, [u8]> {
    if !raw.contains(&b'\\') {
        return Cow::Borrowed(raw);
    }
    let mut out = Vec::with_capacity(raw.len());
    unescape_into(raw, |bytes| out.extend_from_slice(bytes));
    Cow::Owned(out)
}

/// Decodes the escapes of a valid JSON string's inside, piece by piece; the whole is never longer than `raw`.
pub fn unescape_into(raw: &[u8], mut put: impl FnMut(&[u8])) {
    let mut rest = raw;
    while let Some(at) = rest.iter().position(|&b| b == b'\\') {
        put(&rest[..at]);
        let (piece, used) = escape(&rest[at..]);
        put(piece.as_bytes());
        rest = &rest[at + used..];
    }
    put(rest);
}

struct Piece {
    bytes: [u8; 4],
    len: usize,
}

impl Piece {
    fn code(code: u32) -> Self {
        let mut bytes = [0; 4];
        let len = match char::from_u32(code) {
            Some(c) => c.encode_utf8(&mut bytes).len(),
            None => {
                let parts = [0xE0 | code >> 12, 0x80 | code >> 6 & 0x3F, 0x80 | code & 0x3F];
                for (to, part) in bytes.iter_mut().zip(parts) {
                    *to = (part & 0xFF) as u8;
                }
                3
            }
        };
        Self { bytes, len }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The character of the escape at the start of `raw`, and the escape's length.
fn escape(raw: &[u8]) -> (Piece, usize) {
    let code = match raw.get(1) {
        Some(b'b') => 8,
        Some(b'f') => 12,
        Some(b'n') => 10,
        Some(b'r') => 13,
        Some(b't') => 9,
        Some(b'u') => {
            let high = hex4(raw, 2).unwrap_or(0xFFFD);
            let low = (raw.get(6..8) == Some(b"\\u")).then(|| hex4(raw, 8)).flatten();
            return match low {
                Some(low @ 0xDC00..=0xDFFF) if (0xD800..=0xDBFF).contains(&high) => {
                    (Piece::code(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)), 12)
                }
                _ => (Piece::code(high), 6),
            };
        }
        Some(&other) => u32::from(other),
        None => 0xFFFD,
    };
    (Piece::code(code), 2)
}

/// The characters of decoded text, each with its bytes; `None` stands for a lone surrogate.
pub fn chars(text: &[u8]) -> impl Iterator<Item = (Option<char>, &[u8])> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let len = match *rest.first()? {
            0..=0x7F => 1,
            0x80..=0xDF => 2,
            0xE0..=0xEF => 3,
            _ => 4,
        };
        let (bytes, tail) = rest.split_at(len.min(rest.len()));
        rest = tail;
        Some((std::str::from_utf8(bytes).ok().and_then(|s| s.chars().next()), bytes))
    })
}

/// Orders decoded texts by UTF-16 code units, as the service sorts paths.
pub fn cmp_utf16(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
    fn units(text: &[u8]) -> impl Iterator<Item = u16> {
        chars(text).flat_map(|(c, bytes)| {
            let mut units = [0; 2];
            let used = match c {
                Some(c) => c.encode_utf16(&mut units).len(),
                None => {
                    units[0] = bytes.iter().fold(0u16, |code, b| code << 6 | u16::from(b & 0x3F)) & 0x0FFF | 0xD000;
                    1
                }
            };
            units.into_iter().take(used)
        })
    }
    units(a).cmp(units(b))
}

/// Appends `text` as the inside of a JSON string. Bytes that are no UTF-8 become escapes where they are lone
/// surrogates and U+FFFD elsewhere.
pub fn escape_json(text: &[u8], out: &mut Vec<u8>) {
    for (c, bytes) in chars(text) {
        match c {
            Some('"') => out.extend_from_slice(b"\\\""),
            Some('\\') => out.extend_from_slice(b"\\\\"),
            Some('\n') => out.extend_from_slice(b"\\n"),
            Some('\r') => out.extend_from_slice(b"\\r"),
            Some('\t') => out.extend_from_slice(b"\\t"),
            Some(c) if (c as u32) < 0x20 => out.extend_from_slice(format!("\\u{:04x}", c as u32).as_bytes()),
            Some(_) => out.extend_from_slice(bytes),
            None if bytes.len() == 3 && bytes[0] == 0xED => {
                let code = 0xD000 | u32::from(bytes[1] & 0x3F) << 6 | u32::from(bytes[2] & 0x3F);
                out.extend_from_slice(format!("\\u{code:04x}").as_bytes());
            }
            None => out.extend_from_slice("\u{FFFD}".as_bytes()),
        }
    }
}

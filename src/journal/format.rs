//! The bytes of a segment: a header, then records, each with a checksum of its head and one of its body. Pure.
//!
//! A head is 21 bytes, little endian: length of the body (4), kind (1), sequence (8), CRC-32C of the body (4), CRC-32C
//! of what precedes (4). Two checksums, so that a damaged body is stepped over and only a damaged head is searched past.

use std::ops::Range;

/// Bytes of a segment's header.
pub const HEADER: usize = 28;
/// Bytes of a record's head.
pub const HEAD: usize = 21;
/// What every segment begins with; the last byte but one is the version.
const MAGIC: [u8; 16] = *b"sluice-journal\x01\n";

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A record to keep.
    Put,
    /// What is to be known of an earlier record; the latest counts.
    Note,
    /// An earlier record is done with.
    Gone,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Self::Put => 1,
            Self::Note => 2,
            Self::Gone => 3,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Put, Self::Note, Self::Gone].into_iter().find(|kind| kind.byte() == byte)
    }
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What it says.
    pub kind: Kind,
    /// Its own number, or that of the record it is about.
    pub sequence: u64,
    /// Where its body stands in the segment.
    pub body: Range<usize>,
}

/// A part of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// A sound record.
    Record(Record),
    /// Bytes that are none.
    Damage(Range<usize>),
}

/// Why a file is no segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSegment {
    /// It ends within its header.
    Torn,
    /// It was not written by a journal.
    Foreign,
    /// It was written by another version.
    Version(u8),
}

/// The header of a segment whose first record has this number at least.
pub fn header(first: u64) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..16].copy_from_slice(&MAGIC);
    header[16..24].copy_from_slice(&first.to_le_bytes());
    let sum = crc32c::crc32c(&header[..24]);
    header[24..].copy_from_slice(&sum.to_le_bytes());
    header
}

/// Reads a header: the number that the first record has at least.
///
/// # Errors
/// [`NoSegment`].
pub fn read_header(bytes: &[u8]) -> Result<u64, NoSegment> {
    let Some(header) = bytes.get(..HEADER) else {
        // Zeros are what a file system leaves of a file that was never synced.
        let own = bytes.iter().zip(header(0)).take(16).all(|(a, b)| *a == b) || bytes.iter().all(|byte| *byte == 0);
        return Err(if own { NoSegment::Torn } else { NoSegment::Foreign });
    };
    if header.iter().all(|byte| *byte == 0) {
        return Err(NoSegment::Torn);
    }
    if header[..14] != MAGIC[..14] {
        return Err(NoSegment::Foreign);
    }
    if header[14] != MAGIC[14] {
        return Err(NoSegment::Version(header[14]));
    }
    if u32_at(header, 24) != crc32c::crc32c(&header[..24]) {
        return Err(NoSegment::Foreign);
    }
    Ok(u64_at(header, 16))
}

/// Appends a record; returns where its body begins in `out`.
pub fn push(out: &mut Vec<u8>, kind: Kind, sequence: u64, body: &[u8]) -> usize {
    let start = out.len();
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.push(kind.byte());
    out.extend_from_slice(&sequence.to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
    let sum = crc32c::crc32c(&out[start..]);
    out.extend_from_slice(&sum.to_le_bytes());
    out.extend_from_slice(body);
    start + HEAD
}

/// The body of a record whose head and body these bytes are, if they are sound.
pub fn body(bytes: &[u8]) -> Option<&[u8]> {
    let head = head(bytes)?;
    let body = bytes.get(HEAD..HEAD + head.len)?;
    (crc32c::crc32c(body) == head.sum).then_some(body)
}

/// Everything behind the header. Damage at the very end is what a crash leaves.
pub fn scan(bytes: &[u8]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut at = HEADER;
    let mut damaged: Option<usize> = None;
    while at < bytes.len() {
        let Some(head) = head(&bytes[at..]) else {
            damaged.get_or_insert(at);
            at += 1;
            continue;
        };
        let body = at + HEAD..at + HEAD + head.len;
        if body.end > bytes.len() {
            // Torn: whatever follows is its body, even where it looks like records.
            damaged.get_or_insert(at);
            break;
        }
        if let Some(start) = damaged.take() {
            pieces.push(Piece::Damage(start..at));
        }
        pieces.push(match crc32c::crc32c(&bytes[body.clone()]) == head.sum {
            true => Piece::Record(Record { kind: head.kind, sequence: head.sequence, body: body.clone() }),
            false => Piece::Damage(at..body.end),
        });
        at = body.end;
    }
    if let Some(start) = damaged {
        pieces.push(Piece::Damage(start..bytes.len()));
    }
    pieces
}

struct Head {
    len: usize,
    kind: Kind,
    sequence: u64,
    sum: u32,
}

fn head(bytes: &[u8]) -> Option<Head> {
    let head = bytes.get(..HEAD)?;
    let kind = Kind::from_byte(head[4])?;
    let sound = crc32c::crc32c(&head[..17]) == u32_at(head, 17);
    sound.then(|| Head { len: u32_at(head, 0) as usize, kind, sequence: u64_at(head, 5), sum: u32_at(head, 13) })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().rev().fold(0, |n, byte| n << 8 | u32::from(*byte))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

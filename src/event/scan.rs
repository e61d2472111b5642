//! Stage 1: where the structural characters of a JSON text are.
//!
//! simd-json finds them with SIMD and checks UTF-8, control characters and closed strings on the way. Its tape is not
//! used: it loses the spelling of numbers and refuses lone surrogates and `1e400`. A depth limit of zero makes it stop
//! at the first `{`, when stage 1 is complete.

use super::decode::Marks;
use super::walk::{Fault, FaultKind};
use simd_json::{Buffers, ErrorType, INPUT_PADDING, Tape, fill_tape_padded};

/// Reused memory of one worker for reading events. Its size follows the largest event seen.
#[derive(Default)]
pub struct Scanner {
    pub(super) stage: Stage,
    pub(super) marks: Marks,
}

pub(super) struct Stage {
    buffers: Buffers,
    tape: Option<Tape<'static>>,
    padded: Vec<u8>,
}

impl Default for Stage {
    fn default() -> Self {
        Self { buffers: Buffers::with_max_depth(4096, 0), tape: Some(Tape::null()), padded: Vec::new() }
    }
}

/// A payload copied into padded scratch, with the offsets of its structural characters.
///
/// `indexes` lists `{ } [ ] : ,`, each string's opening quote and the first byte of every other scalar, ascending.
pub struct Scan<'s> {
    /// The document's bytes.
    pub json: &'s [u8],
    /// The same with the padding behind it.
    pub padded: &'s [u8],
    /// Offsets into `json`.
    pub indexes: &'s [u32],
    /// Whether a backslash occurs anywhere.
    pub escapes: bool,
}

impl Scanner {
    /// Runs stage 1 over `payload`; see [`walk`](super::walk::walk). The top value must open with `{`.
    ///
    /// # Errors
    /// A [`Fault`] for text that is empty, not an object, not UTF-8, or has an open string or a raw control character.
    pub fn scan(&mut self, payload: &[u8]) -> Result<Scan<'_>, Fault> {
        self.stage.scan(payload)
    }
}

impl Stage {
    pub fn scan(&mut self, payload: &[u8]) -> Result<Scan<'_>, Fault> {
        let first = payload.iter().position(|b| !matches!(b, b' ' | b'\t' | b'\n' | b'\r'));
        match first {
            None => return Err(Fault::new(FaultKind::Empty, 0)),
            Some(at) if payload[at] != b'{' => return Err(Fault::new(no_object(&payload[at..]), at)),
            Some(_) => {}
        }
        let len = payload.len();
        if u32::try_from(len).is_err() {
            return Err(Fault::new(FaultKind::TooLarge, 0));
        }
        let padded = &mut self.padded;
        padded.clear();
        padded.extend_from_slice(payload);
        padded.resize(len + INPUT_PADDING, b' ');
        let tape = self.tape.take().unwrap_or_else(Tape::null);
        let mut tape = tape.reset();
        let stopped = fill_tape_padded(padded, len, &mut self.buffers, &mut tape).err();
        self.tape = Some(tape.reset());
        // Stage 1 reports no position, so the document's start stands for it.
        match stopped.as_ref().map(simd_json::Error::error) {
            Some(ErrorType::DepthLimitExceeded) => {}
            Some(ErrorType::InvalidUtf8) => return Err(Fault::new(FaultKind::Utf8, utf8_fault(payload))),
            _ => return Err(Fault::new(FaultKind::BadString, string_fault(payload))),
        }
        let (json, padded) = (&self.padded[..len], self.padded.as_slice());
        let escapes = memchr::memchr(b'\\', json).is_some();
        Ok(Scan { json, padded, indexes: self.buffers.structural_indexes(), escapes })
    }
}

/// What a text is that does not begin as an object.
fn no_object(text: &[u8]) -> FaultKind {
    let first = text[..text.len().min(4)].utf8_chunks().next().map_or("", |chunk| chunk.valid());
    match first.chars().next() {
        None => FaultKind::Utf8,
        Some('\u{feff}') => FaultKind::ByteOrderMark,
        Some(_) => FaultKind::NotAnObject,
    }
}

fn utf8_fault(payload: &[u8]) -> usize {
    std::str::from_utf8(payload).err().map_or(0, |e| e.valid_up_to())
}

/// Where the first raw control character within a string, or the last open string, is.
fn string_fault(payload: &[u8]) -> usize {
    let (mut open, mut escaped) = (None, false);
    for (at, &b) in payload.iter().enumerate() {
        match (open, b) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), b'\\') => escaped = true,
            (Some(_), b'"') => open = None,
            (Some(_), 0..=0x1f) => return at,
            (None, b'"') => open = Some(at),
            _ => {}
        }
    }
    open.unwrap_or(0)
}

//! Segments: the files of an archive. Plain ones (`NAME.jsonl`) are JSON lines; sealed ones (`NAME.jsonl.zst`) are the
//! same lines in zstd frames, which any zstd tool unpacks, with an index behind them in a frame that such tools skip.
//!
//! In: whole lines. Out: the same lines, and where which times are. Promises: a sealed file is there whole or not at
//! all; damage is found by checksums. Leaves to others: which files there are (`Archives`), order (`Selection`).

use super::event_time;
use crate::event::Scanner;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Bytes of lines in a frame, but for the last line: what is unpacked at once.
const BLOCK_BYTES: usize = 256 << 10;
/// zstd's fastest: on events its ratio is that of level 3, at nearly twice the speed.
const LEVEL: i32 = 1;
/// Begins a frame that zstd tools skip.
const SKIPPED: u32 = 0x184D_2A5E;
/// The end of a sealed file: checksum and length of the index, and a mark.
const TRAILER: usize = 16;
const MARK: [u8; 8] = *b"sluice/1";
/// The longest line, and the largest frame, that is read: beyond any event, and small enough for memory.
const LONGEST: u64 = 64 << 20;

/// One frame of a sealed segment.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Block {
    /// Where its frame begins in the file.
    pub at: u64,
    /// Bytes of the frame.
    packed: u32,
    /// Where its lines begin among all lines.
    pub offset: u64,
    /// Bytes of its lines.
    pub bytes: u32,
    /// Lines.
    pub lines: u32,
    /// Times of the earliest and the latest event.
    pub times: (i64, i64),
}

/// What a segment holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Whole lines.
    pub events: u64,
    /// Their bytes, unpacked, line ends included.
    pub bytes: u64,
}

impl std::ops::Add for Held {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { events: self.events + other.events, bytes: self.bytes + other.bytes }
    }
}

/// A sealed segment whose index is whole.
pub struct Sealed {
    file: File,
    /// Its frames, in order.
    pub blocks: Vec<Block>,
}

impl Sealed {
    /// Opens a sealed file; `InvalidData` where its index is damaged.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "its index is damaged");
        let length = file.metadata()?.len();
        let before = length.checked_sub(TRAILER as u64).ok_or_else(damaged)?;
        let mut trailer = [0; TRAILER];
        file.seek(SeekFrom::Start(before))?;
        file.read_exact(&mut trailer)?;
        let word = |at: usize| u32::from_le_bytes([trailer[at], trailer[at + 1], trailer[at + 2], trailer[at + 3]]);
        let (sum, size) = (word(0), u64::from(word(4)));
        if trailer[8..] != MARK || size > before {
            return Err(damaged());
        }
        let mut index = Vec::new();
        file.seek(SeekFrom::Start(before - size))?;
        (&mut file).take(size).read_to_end(&mut index)?;
        if crc32c::crc32c(&index) != sum {
            return Err(damaged());
        }
        let blocks = postcard::from_bytes(&index).map_err(|_| damaged())?;
        Ok(Self { file, blocks })
    }

    /// What all of it holds.
    pub fn held(&self) -> Held {
        let of = |block: &Block| Held { events: u64::from(block.lines), bytes: u64::from(block.bytes) };
        self.blocks.iter().map(of).fold(Held::default(), |sum, held| sum + held)
    }

    /// Times of its earliest and its latest event.
    pub fn span(&self) -> (i64, i64) {
        let times = self.blocks.iter().map(|block| block.times);
        times.fold((i64::MAX, i64::MIN), |(first, last), times| (first.min(times.0), last.max(times.1)))
    }

    /// The lines of a block; `InvalidData` where they are damaged.
    pub fn lines(&mut self, block: &Block) -> io::Result<Vec<u8>> {
        let damaged = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
        if u64::from(block.bytes.max(block.packed)) > LONGEST + BLOCK_BYTES as u64 {
            return Err(damaged("a block is larger than any can be"));
        }
        let mut packed = vec![0; block.packed as usize];
        self.file.seek(SeekFrom::Start(block.at))?;
        self.file.read_exact(&mut packed)?;
        let lines =
            zstd::bulk::decompress(&packed, block.bytes as usize).map_err(|error| damaged(&error.to_string()))?;
        if lines.len() != block.bytes as usize {
            return Err(damaged("a block is shorter than it was"));
        }
        Ok(lines)
    }
}

/// Calls `take` with offset and text of each whole line; a torn one at the end is none, and one that is too long is
/// passed over.
pub fn each_line(input: &mut impl BufRead, mut take: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
    let (mut line, mut offset) = (Vec::new(), 0);
    loop {
        line.clear();
        let read = input.take(LONGEST).read_until(b'\n', &mut line)? as u64;
        if read == LONGEST && line.last() != Some(&b'\n') {
            offset += read + skip_line(input)?;
            continue;
        }
        if line.last() != Some(&b'\n') {
            return Ok(());
        }
        take(offset, &line)?;
        offset += read;
    }
}

/// Passes over the rest of a line.
fn skip_line(input: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let ahead = input.fill_buf()?;
        let (count, done) = match memchr::memchr(b'\n', ahead) {
            Some(at) => (at + 1, true),
            None => (ahead.len(), ahead.is_empty()),
        };
        input.consume(count);
        skipped += count as u64;
        if done {
            return Ok(skipped);
        }
    }
}

/// Counts the whole lines of a plain file, those behind what is known already.
pub fn count(path: &Path, known: Held) -> io::Result<Held> {
    let mut file = File::open(path)?;
    if file.metadata()?.len() <= known.bytes {
        return Ok(known);
    }
    file.seek(SeekFrom::Start(known.bytes))?;
    let mut held = known;
    each_line(&mut BufReader::with_capacity(BLOCK_BYTES, file), |_, line| {
        held = Held { events: held.events + 1, bytes: held.bytes + line.len() as u64 };
        Ok(())
    })?;
    Ok(held)
}

/// Seals a plain file: writes `sealed`, all of it or nothing, as old as the plain one.
pub fn seal(plain: &Path, sealed: &Path) -> io::Result<()> {
    let aside = sealed.with_extension("new");
    write(plain, &aside).inspect_err(|_| {
        // A full disk has better use for it.
        std::fs::remove_file(&aside).unwrap_or_default();
    })?;
    std::fs::rename(&aside, sealed)?;
    sync_folder(sealed)
}

fn write(plain: &Path, aside: &Path) -> io::Result<()> {
    let source = File::open(plain)?;
    let written = source.metadata()?.modified()?;
    let packed = File::create(aside)?;
    let mut packing = Packing::new(&packed)?;
    each_line(&mut BufReader::with_capacity(BLOCK_BYTES, source), |_, line| packing.line(line))?;
    packing.end()?;
    packed.set_modified(written)?;
    packed.sync_all()
}

/// Makes what was done to a file's name last.
pub fn sync_folder(file: &Path) -> io::Result<()> {
    file.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// A sealed file that is being written.
struct Packing<'f> {
    file: BufWriter<&'f File>,
    packer: zstd::bulk::Compressor<'static>,
    scanner: Scanner,
    lines: Vec<u8>,
    open: Option<Block>,
    at: u64,
    offset: u64,
    blocks: Vec<Block>,
}

impl<'f> Packing<'f> {
    fn new(file: &'f File) -> io::Result<Self> {
        let mut packer = zstd::bulk::Compressor::new(LEVEL)?;
        packer.include_checksum(true)?;
        let file = BufWriter::with_capacity(BLOCK_BYTES, file);
        let (scanner, blocks) = (Scanner::default(), Vec::new());
        Ok(Self { file, packer, scanner, lines: Vec::new(), open: None, at: 0, offset: 0, blocks })
    }

    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        self.lines.extend_from_slice(line);
        let (at, offset) = (self.at, self.offset);
        let none = Block { at, packed: 0, offset, bytes: 0, lines: 0, times: (i64::MAX, i64::MIN) };
        let block = self.open.get_or_insert(none);
        block.lines += 1;
        if let Ok(Some(time)) = event_time(line, &mut self.scanner) {
            block.times = (block.times.0.min(time), block.times.1.max(time));
        }
        if self.lines.len() >= BLOCK_BYTES { self.block() } else { Ok(()) }
    }

    fn block(&mut self) -> io::Result<()> {
        let Some(mut block) = self.open.take() else { return Ok(()) };
        let packed = self.packer.compress(&self.lines)?;
        let size = |bytes: usize| u32::try_from(bytes).map_err(io::Error::other);
        (block.packed, block.bytes) = (size(packed.len())?, size(self.lines.len())?);
        self.file.write_all(&packed)?;
        self.at += packed.len() as u64;
        self.offset += self.lines.len() as u64;
        self.lines.clear();
        self.blocks.push(block);
        Ok(())
    }

    /// Writes what is left, and the index.
    fn end(mut self) -> io::Result<()> {
        self.block()?;
        let index = postcard::to_stdvec(&self.blocks).map_err(io::Error::other)?;
        let size = u32::try_from(index.len()).map_err(io::Error::other)?;
        self.file.write_all(&SKIPPED.to_le_bytes())?;
        self.file.write_all(&(size + TRAILER as u32).to_le_bytes())?;
        self.file.write_all(&index)?;
        self.file.write_all(&crc32c::crc32c(&index).to_le_bytes())?;
        self.file.write_all(&size.to_le_bytes())?;
        self.file.write_all(&MARK)?;
        self.file.flush()
    }
}

/// The lines of a sealed file whose index is damaged, from the first on until something else is.
pub fn unpacked(path: &Path) -> io::Result<impl BufRead> {
    Ok(BufReader::with_capacity(BLOCK_BYTES, zstd::stream::read::Decoder::new(File::open(path)?)?))
}

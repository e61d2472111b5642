//! Recorded events: JSON lines of files, plain or compressed with gzip or zstd, or of standard input.

use crate::app::{Exit, Failed};
use flate2::read::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Longest line, in bytes.
const LONGEST: u64 = 256 << 20;

/// Calls `take` with the file, the line number and the text of every line that is not empty.
///
/// # Errors
/// A file cannot be read, a line is too long, or what `take` says.
pub fn each(files: &[PathBuf], mut take: impl FnMut(&Path, u64, &[u8]) -> Result<(), Failed>) -> Result<(), Failed> {
    for file in files {
        let failed = |error: std::io::Error| Failed::new(Exit::Io, format!("cannot read {}: {error}", file.display()));
        let mut input = BufReader::new(open(file).map_err(failed)?);
        let (mut line, mut number) = (Vec::new(), 0);
        loop {
            line.clear();
            if input.by_ref().take(LONGEST).read_until(b'\n', &mut line).map_err(failed)? == 0 {
                break;
            }
            number += 1;
            if line.len() as u64 == LONGEST {
                let message = format!("{}:{number}: the line is longer than {LONGEST} bytes", file.display());
                return Err(Failed::new(Exit::Config, message));
            }
            let text = line.trim_ascii();
            if !text.is_empty() {
                take(file, number, text)?;
            }
        }
    }
    Ok(())
}

/// A file, unpacked as its name says, or standard input.
pub fn open(file: &Path) -> std::io::Result<Box<dyn Read + Send>> {
    Ok(match file {
        _ if file.as_os_str() == "-" => Box::new(std::io::stdin()),
        _ if file.extension().is_some_and(|end| end == "gz") => Box::new(MultiGzDecoder::new(File::open(file)?)),
        _ if file.extension().is_some_and(|end| end == "zst") => {
            let input = BufReader::new(File::open(file)?);
            Box::new(Frames { input, decoder: FrameDecoder::new(), open: false })
        }
        _ => Box::new(File::open(file)?),
    })
}

/// The frames of a zstd file, one after another.
struct Frames {
    input: BufReader<File>,
    decoder: FrameDecoder,
    /// Whether the decoder is within a frame.
    open: bool,
}

impl Read for Frames {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        loop {
            if self.open {
                while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                    let blocks = BlockDecodingStrategy::UptoBlocks(1);
                    self.decoder.decode_blocks(&mut self.input, blocks).map_err(std::io::Error::other)?;
                }
                match self.decoder.read(out)? {
                    0 => self.open = false,
                    count => return Ok(count),
                }
            }
            if self.input.fill_buf()?.is_empty() {
                return Ok(0);
            }
            match self.decoder.reset(&mut self.input) {
                Ok(()) => self.open = true,
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    std::io::copy(&mut self.input.by_ref().take(length.into()), &mut std::io::sink())?;
                }
                Err(error) => return Err(std::io::Error::other(error)),
            }
        }
    }
}

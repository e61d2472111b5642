//! Recorded events: JSON lines of files, plain or compressed with gzip or zstd, or of standard input.

use crate::app::{Exit, Failed};
use flate2::read::MultiGzDecoder;
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
            Box::new(zstd::stream::read::Decoder::new(File::open(file)?)?)
        }
        _ => Box::new(File::open(file)?),
    })
}

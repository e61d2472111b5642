//! What a journal's folder holds when the process starts.

use super::format::{self, HEAD, Kind, NoSegment, Piece};
use super::index::Index;
use super::{JournalError, segment_path};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::path::Path;

/// A record that was not done with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live {
    /// Its number.
    pub sequence: u64,
    /// The latest that was noted of it.
    pub note: Option<Vec<u8>>,
}

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Records that are not done with, oldest first.
    pub live: Vec<Live>,
    /// Places in the middle that could not be read.
    pub skipped: u64,
    /// Bytes of the torn tail that were cut.
    pub cut: u64,
}

pub(super) struct Found {
    pub index: Index,
    /// The sequence of the next record.
    pub next: u64,
    /// The number of the next segment.
    pub number: u64,
    pub recovered: Recovered,
}

pub(super) fn recover(folder: &Path) -> Result<Found, JournalError> {
    let unusable = |what: &str, error: std::io::Error| {
        JournalError::Unusable(format!("cannot {what} {}: {error}; make data_dir writable", folder.display()))
    };
    std::fs::create_dir_all(folder).map_err(|error| unusable("make", error))?;
    let numbers = segments(folder)?;
    let mut found = Found {
        index: Index::default(),
        next: 1,
        number: numbers.last().map_or(1, |n| n + 1),
        recovered: Recovered::default(),
    };
    let mut notes = HashMap::new();
    for number in &numbers {
        let last = Some(number) == numbers.last();
        let path = segment_path(folder, *number);
        let bytes = std::fs::read(&path).map_err(|error| unusable("read", error))?;
        let cut = segment(&mut found, &mut notes, (*number, last), &bytes).map_err(|why| {
            let shown = path.display();
            JournalError::Unusable(match why {
                NoSegment::Version(version) => format!(
                    "{shown} was written by another version of Sluice (format {version}); start that version once to empty it, \
                     or move the file away"
                ),
                _ => format!("{shown} is no file of a journal; move it away"),
            })
        })?;
        if let Some(len) = cut {
            let file =
                OpenOptions::new().write(true).open(&path).map_err(|error| unusable("cut the torn end in", error))?;
            file.set_len(len as u64)
                .and_then(|()| file.sync_all())
                .map_err(|error| unusable("cut the torn end in", error))?;
            found.recovered.cut += (bytes.len() - len) as u64;
        }
    }
    for number in found.index.take_spent(0) {
        // For good, oldest first: see `Writer::unlink`.
        let removed = std::fs::remove_file(segment_path(folder, number)).and_then(|()| File::open(folder)?.sync_all());
        removed.map_err(|error| unusable("empty", error))?;
    }
    found.recovered.live =
        found.index.live_records().map(|sequence| Live { sequence, note: notes.remove(&sequence) }).collect();
    Ok(found)
}

/// Numbers of the folder's segments, ascending.
fn segments(folder: &Path) -> Result<Vec<u64>, JournalError> {
    let unusable = |error: std::io::Error| JournalError::Unusable(format!("cannot read {}: {error}", folder.display()));
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unusable)? {
        let name = entry.map_err(unusable)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".segment")?.parse().ok());
        let number = number.filter(|number| segment_path(folder, *number).file_name() == Some(&name));
        let Some(number) = number else {
            let path = folder.join(&name);
            return Err(JournalError::Unusable(format!("{} is no file of a journal; move it away", path.display())));
        };
        numbers.push(number);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Takes a segment in. Returns where its torn end begins, if it has one.
fn segment(
    found: &mut Found,
    notes: &mut HashMap<u64, Vec<u8>>,
    (number, last): (u64, bool),
    bytes: &[u8],
) -> Result<Option<usize>, NoSegment> {
    let first = match format::read_header(bytes) {
        Ok(first) => first,
        // The process ended while it made the file.
        Err(NoSegment::Torn) => {
            found.index.begin(number, found.next);
            return Ok((!bytes.is_empty()).then_some(0));
        }
        Err(why) => return Err(why),
    };
    found.index.begin(number, first);
    found.index.grow(bytes.len() as u64);
    found.next = found.next.max(first);
    for piece in format::scan(bytes) {
        match piece {
            Piece::Damage(range) if last && range.end == bytes.len() => return Ok(Some(range.start)),
            Piece::Damage(_) => found.recovered.skipped += 1,
            Piece::Record(record) => match record.kind {
                Kind::Put => {
                    let start = record.body.start - HEAD;
                    found.index.place(record.sequence, start as u32, (record.body.end - start) as u32);
                    found.next = found.next.max(record.sequence + 1);
                }
                Kind::Note => {
                    notes.insert(record.sequence, bytes[record.body].to_vec());
                }
                Kind::Gone => {
                    found.index.remove(record.sequence);
                    notes.remove(&record.sequence);
                }
            },
        }
    }
    Ok(None)
}

//! Dead letters in files.
//!
//! In: a folder that the delivery side appends lines to. Out: the letters that are not gone. Promises: a letter that was
//! marked as gone stays so through a crash; a file is removed when all its letters are gone, and only when nobody can
//! append to it any more.
//!
//! What is gone stands beside a file, in `FILE.gone`, as offset and delivery id of each letter: lines are only ever
//! appended, so a crash leaves at worst a torn line, which says nothing. Rewriting the file instead would copy up to
//! 64 MiB a letter and race with who appends. The id keeps a list from ever speaking of another file of the same name.

use super::letter::Letter;
use crate::envelope::DeliveryId;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Held while lists of what is gone are written or removed.
static WRITING: Mutex<()> = Mutex::new(());

/// A folder of dead letters.
pub struct Files {
    root: PathBuf,
    /// Whether folders below it belong to it.
    nested: bool,
}

/// Where a letter begins.
pub type Place = (Arc<Path>, u64);

struct Found {
    at: u64,
    letter: Option<Letter>,
    gone: bool,
}

fn gone_list(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".gone");
    name.into()
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

impl Files {
    /// The default queues of all buses.
    pub fn defaults(root: PathBuf) -> Self {
        Self { root, nested: true }
    }

    /// One log group.
    pub fn group(root: PathBuf) -> Self {
        Self { root, nested: false }
    }

    /// Its files with their lengths, oldest first.
    fn list(&self) -> io::Result<Vec<(Arc<Path>, u64)>> {
        let (mut found, mut todo) = (Vec::new(), vec![self.root.clone()]);
        while let Some(folder) = todo.pop() {
            let entries = match std::fs::read_dir(&folder) {
                // There is no folder before there is a letter.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries?,
            };
            for entry in entries {
                let (path, about) = {
                    let entry = entry?;
                    (entry.path(), entry.metadata()?)
                };
                if about.is_dir() && self.nested {
                    todo.push(path);
                } else if path.extension().is_some_and(|end| end == "jsonl") {
                    found.push((about.modified()?, path, about.len()));
                }
            }
        }
        found.sort();
        Ok(found.into_iter().map(|(_, path, len)| (path.into(), len)).collect())
    }

    /// Gives the letters that are there now and not gone, until `take` says no. Returns how many lines hold no letter.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn each(&self, take: &mut dyn FnMut(&Arc<Path>, u64, Letter) -> bool) -> io::Result<u64> {
        let mut unreadable = 0;
        for (path, len) in self.list()? {
            let mut more = true;
            read(&path, len, &mut |found| {
                match found.letter {
                    None => unreadable += 1,
                    Some(letter) if !found.gone => more = take(&path, found.at, letter),
                    Some(_) => {}
                }
                more
            })?;
            if !more {
                break;
            }
        }
        Ok(unreadable)
    }

    /// Marks letters as gone, durably.
    ///
    /// # Errors
    /// The list cannot be written; then none of them can be relied on to be gone.
    pub fn gone(&self, letters: &[(Place, DeliveryId)]) -> io::Result<()> {
        let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut by_file: HashMap<&Arc<Path>, String> = HashMap::new();
        for ((path, at), id) in letters {
            by_file.entry(path).or_default().push_str(&format!("\n{at} {id}\n"));
        }
        for (path, text) in by_file {
            if !path.exists() {
                continue;
            }
            let list = gone_list(path);
            let fresh = !list.exists();
            let mut file = OpenOptions::new().create(true).append(true).open(&list)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            if fresh && let Some(folder) = path.parent() {
                sync_folder(folder)?;
            }
        }
        Ok(())
    }

    /// Removes files whose letters are all gone; with `all`, also where other lines stand in them. `roll` sees to it
    /// that nobody goes on appending to files of a folder.
    ///
    /// # Errors
    /// A file cannot be read or removed.
    pub fn sweep(&self, all: bool, roll: impl Fn(&Path)) -> io::Result<()> {
        let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
        for (path, len) in self.list()? {
            let (list, Some(folder)) = (gone_list(&path), path.parent()) else { continue };
            if !list.exists() && !all {
                continue;
            }
            let mut left = false;
            read(&path, len, &mut |found| {
                left = match found.letter {
                    None => !all,
                    Some(_) => !found.gone,
                };
                !left
            })?;
            if left {
                continue;
            }
            roll(folder);
            if path.metadata()?.len() != len {
                continue;
            }
            // A crash in between brings letters back, which is a repetition; the other way round a list without a file
            // would be left.
            if list.exists() {
                std::fs::remove_file(&list)?;
                sync_folder(folder)?;
            }
            std::fs::remove_file(&path)?;
            sync_folder(folder)?;
        }
        Ok(())
    }
}

/// The offsets and ids of what is gone of a file.
fn gone_of(path: &Path) -> io::Result<HashMap<u64, DeliveryId>> {
    let text = match std::fs::read_to_string(gone_list(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashMap::new()),
        text => text?,
    };
    let entry = |line: &str| {
        let (at, id) = line.split_once(' ')?;
        let id = u128::from_str_radix(id, 16).ok().filter(|_| id.len() == 32)?;
        Some((at.parse().ok()?, DeliveryId(id)))
    };
    Ok(text.lines().filter_map(entry).collect())
}

/// Gives the whole lines of the first `len` bytes, until `take` says no.
fn read(path: &Path, len: u64, take: &mut dyn FnMut(Found) -> bool) -> io::Result<()> {
    let file = match File::open(path) {
        // Removed since it was listed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    let list = gone_of(path)?;
    let (mut reader, mut line, mut at) = (BufReader::new(file.take(len)), Vec::new(), 0);
    // What has no line end is being written, or was when the process died: then it was never kept.
    while reader.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
        let text = line.trim_ascii();
        if !text.is_empty() {
            let letter = Letter::of_line(text);
            let id = letter.as_ref().and_then(Letter::delivery_id);
            let gone = id.is_some() && list.get(&at).copied() == id;
            if !take(Found { at, letter, gone }) {
                return Ok(());
            }
        }
        at += line.len() as u64;
        line.clear();
    }
    Ok(())
}

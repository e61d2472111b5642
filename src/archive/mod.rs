//! Archives on the disk: folders of segments, files of one event a line; and those that a broker keeps (`broker`).
//!
//! In: lines; folders and times. Out: how much archives hold, and their events in order of time. Promises: lines are on
//! the disk when [`Appender::append`] returns, in a plain file; a plain file that is full or old is sealed, which a crash
//! at any point neither loses nor repeats; memory is bounded. Leaves to others: which archives there are (`resources`),
//! when to seal and to age (`service`), writing what is delivered to a broker (`deliver`).

mod broker;
mod segment;
mod select;
mod stream;
mod topic;

pub use broker::ARCHIVE_HEADER;
pub use segment::Held;
pub use select::{Event, Selection};

use crate::catalog::Storage;
use crate::event::{Scanner, Tree};
use crate::time;
use broker::Broker;
use prometheus_client::metrics::counter::Counter;
use segment::Sealed;
use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::runtime::Handle;

const DAY_MILLIS: i64 = 24 * 3_600_000;
/// Bytes beyond which a plain segment is full.
const FULL: u64 = 64 << 20;
/// How long a plain segment is written to, in milliseconds.
const OLD: i64 = 3_600_000;
const PLAIN: &str = ".jsonl";
const SEALED: &str = ".jsonl.zst";
/// Damaged places that are told apart, so that each counts once.
const DAMAGED: usize = 4096;

/// All archives of a process.
pub struct Archives {
    root: PathBuf,
    /// What was counted of each file.
    counted: Mutex<HashMap<PathBuf, Held>>,
    /// Those that were written to, by folder.
    appenders: Mutex<BTreeMap<PathBuf, Arc<Appender>>>,
    /// Those that a broker keeps, by folder.
    brokers: Mutex<BTreeMap<String, Arc<Broker>>>,
    /// Files, and places in them, that were found damaged, with the times that their events can have had.
    damage: Mutex<BTreeMap<(PathBuf, u64), (i64, i64)>>,
    damaged: Counter,
}

/// Writes to one archive.
pub struct Appender {
    folder: PathBuf,
    open: Mutex<Option<Open>>,
}

/// The segment that lines go to.
struct Open {
    file: File,
    path: PathBuf,
    bytes: u64,
    since: i64,
}

/// A segment's file.
#[derive(Debug, Clone)]
struct Segment {
    /// Without what says its form; the first is the oldest.
    name: String,
    number: u32,
    path: PathBuf,
    form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    Sealed,
}

impl Segment {
    /// The same segment once it is sealed.
    fn sealed(&self) -> Option<Self> {
        let path = sealed_path(&self.path);
        path.exists().then(|| Self { path, form: Form::Sealed, ..self.clone() })
    }
}

impl Appender {
    /// Adds whole lines; they are on the disk when this returns.
    ///
    /// # Errors
    /// They could not be written, or it is not sure that they are.
    pub fn append(&self, lines: &[u8]) -> io::Result<()> {
        let now = time::wall_millis();
        let mut open = self.open();
        if open.as_ref().is_some_and(|open| open.is_done(now)) {
            *open = None;
        }
        let segment = match &mut *open {
            Some(segment) => segment,
            none => none.insert(begin(&self.folder, now)?),
        };
        let written = segment.file.write_all(lines).and_then(|()| segment.file.sync_data());
        match &written {
            Ok(()) => segment.bytes += lines.len() as u64,
            Err(_) => {
                // What is not sure to be there comes again, in another file; here it is cut off if that is possible.
                segment.file.set_len(segment.bytes).ok();
                *open = None;
            }
        }
        written
    }

    fn open(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn is_done(&self, now: i64) -> bool {
        // A clock that was put back must not keep it open.
        self.bytes >= FULL || !(self.since..self.since + OLD).contains(&now)
    }
}

/// Begins a segment under a name that no other has had.
fn begin(folder: &Path, now: i64) -> io::Result<Open> {
    std::fs::create_dir_all(folder)?;
    let mut number = now;
    loop {
        let path = folder.join(format!("{}{PLAIN}", name(number)));
        if !sealed_path(&path).exists() {
            match OpenOptions::new().append(true).create_new(true).open(&path) {
                Ok(file) => {
                    segment::sync_folder(&path)?;
                    return Ok(Open { file, path, bytes: 0, since: now });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        number += 1;
    }
}

/// The name of a segment that was begun at a time: `20240131T090000.123`, behind all of earlier versions.
fn name(millis: i64) -> String {
    let seconds = time::iso_seconds(millis).replace(['-', ':', 'Z'], "");
    format!("{seconds}.{:03}", millis.rem_euclid(1000))
}

fn sealed_path(plain: &Path) -> PathBuf {
    let mut path = plain.as_os_str().to_owned();
    path.push(".zst");
    path.into()
}

impl Archives {
    /// The archives below a folder. `damaged` counts what cannot be read of them.
    pub fn new(root: PathBuf, damaged: Counter) -> Arc<Self> {
        let (counted, appenders, brokers, damage) = Default::default();
        Arc::new(Self { root, counted, appenders, brokers, damage, damaged })
    }

    /// Has an archive kept where it says, and for so many days; 0 is for ever.
    pub fn keep(&self, folder: &str, storage: &Storage, days: i64, runtime: &Handle) {
        let mut brokers = lock(&self.brokers);
        if *storage == Storage::Disk {
            brokers.remove(folder);
        } else if !brokers.get(folder).is_some_and(|known| known.becomes(storage, days)) {
            brokers.insert(folder.to_owned(), Arc::new(Broker::new(folder, storage, days, runtime)));
        }
    }

    fn broker(&self, folder: &str) -> Option<Arc<Broker>> {
        lock(&self.brokers).get(folder).cloned()
    }

    /// Adds whole lines to an archive; the disk or the broker has them when this returns.
    ///
    /// # Errors
    /// They could not be written, or it is not sure that they are.
    pub fn import(&self, folder: &str, lines: &[u8]) -> io::Result<()> {
        match self.broker(folder) {
            Some(broker) => broker.write(lines),
            None => self.appender(folder).append(lines),
        }
    }

    /// Counts what somebody has asked for of those that a broker keeps, until told to stop; the next call goes on.
    ///
    /// # Errors
    /// A broker does not answer; what was counted before is as it was.
    pub fn count(&self, stop: impl Fn() -> bool) -> io::Result<()> {
        let brokers: Vec<Arc<Broker>> = lock(&self.brokers).values().cloned().collect();
        brokers.iter().map(|broker| broker.count(self, &stop)).fold(Ok(()), Result::and)
    }

    /// What writes to an archive.
    pub fn appender(&self, folder: &str) -> Arc<Appender> {
        let folder = self.root.join(folder);
        let new = || Arc::new(Appender { folder: folder.clone(), open: Mutex::default() });
        Arc::clone(lock(&self.appenders).entry(folder.clone()).or_insert_with(new))
    }

    /// What an archive holds. Only what is new since the last time is read; of one that a broker keeps it is what
    /// [`Archives::count`] has counted.
    pub fn held(&self, folder: &str) -> Held {
        if let Some(broker) = self.broker(folder) {
            return broker.held();
        }
        let mut sum = Held::default();
        for segment in self.segments(folder).unwrap_or_default() {
            let known = lock(&self.counted).get(&segment.path).copied();
            let now = match (segment.form, known) {
                (Form::Sealed, Some(known)) => known,
                // What cannot be read now is counted later.
                (Form::Sealed, None) => match Sealed::open(&segment.path) {
                    Ok(sealed) => sealed.held(),
                    Err(_) => continue,
                },
                (Form::Plain, known) => {
                    let known = known.unwrap_or_default();
                    segment::count(&segment.path, known).unwrap_or(known)
                }
            };
            lock(&self.counted).insert(segment.path, now);
            sum = sum + now;
        }
        sum
    }

    /// At most how many events an archive on the disk has from a time on, up to and without another one.
    fn at_most(&self, folder: &str, from: i64, till: i64) -> u64 {
        let mut sum = 0;
        for segment in self.segments(folder).unwrap_or_default() {
            let sealed =
                Some(()).filter(|()| segment.form == Form::Sealed).and_then(|()| Sealed::open(&segment.path).ok());
            let blocks = sealed.map(|sealed| sealed.blocks);
            sum += match blocks {
                Some(blocks) => {
                    let within = blocks.iter().filter(|block| block.times.1 >= from && block.times.0 < till);
                    within.map(|block| u64::from(block.lines)).sum()
                }
                None => segment::count(&segment.path, Held::default()).unwrap_or_default().events,
            };
        }
        sum
    }

    /// The events of an archive from a time on, up to and without another one.
    pub fn select(self: &Arc<Self>, folder: &str, from: i64, till: i64) -> Selection {
        Selection::new(self, folder, (from, till))
    }

    /// Seals what is full or old, until told to stop. Returns how many segments were sealed.
    ///
    /// # Errors
    /// Something could not be sealed; what could be is, and the rest is as it was.
    pub fn seal(&self, now: i64, stop: impl Fn() -> bool) -> io::Result<usize> {
        let appenders: Vec<Arc<Appender>> = lock(&self.appenders).values().cloned().collect();
        for appender in appenders {
            let mut open = appender.open();
            if open.as_ref().is_some_and(|open| open.is_done(now)) {
                *open = None;
            }
        }
        let (mut plain, mut sealed, mut failed) = (Vec::new(), 0, Ok(()));
        find(&self.root, &mut plain)?;
        for path in plain.into_iter().filter(|path| !self.is_open(path)).take_while(|_| !stop()) {
            match seal(&path) {
                Ok(()) => sealed += 1,
                Err(error) => failed = Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
            }
        }
        failed.map(|()| sealed)
    }

    /// Whether a file is written to. One that is not never will be again: names are used once.
    fn is_open(&self, path: &Path) -> bool {
        let appender = path.parent().and_then(|folder| lock(&self.appenders).get(folder).cloned());
        appender.is_some_and(|appender| appender.open().as_ref().is_some_and(|open| open.path == *path))
    }

    /// Removes segments that were written last before their archive's retention, in days; 0 is for ever.
    ///
    /// # Errors
    /// Something cannot be looked at or removed; all else is.
    pub fn age(&self, live: &BTreeMap<String, i64>, now: i64) -> io::Result<()> {
        let mut aged = Ok(());
        for (folder, days) in live.iter().filter(|(_, days)| **days > 0) {
            let one = self.age_one(folder, now - days.saturating_mul(DAY_MILLIS));
            aged = aged.and(one);
        }
        lock(&self.counted).retain(|path, _| path.exists());
        let is_file = |path: &Path| stem(path, PLAIN).or(stem(path, SEALED)).is_some();
        lock(&self.damage).retain(|(path, _), _| !is_file(path) || path.exists());
        aged
    }

    fn age_one(&self, folder: &str, before: i64) -> io::Result<()> {
        for segment in self.segments(folder)?.into_iter().filter(|segment| !self.is_open(&segment.path)) {
            let written = std::fs::metadata(&segment.path)?.modified()?;
            let written = written.duration_since(std::time::UNIX_EPOCH).map_or(0, |at| at.as_millis());
            if i64::try_from(written).unwrap_or(i64::MAX) < before {
                std::fs::remove_file(&segment.path)?;
            }
        }
        Ok(())
    }

    /// Removes all that a deleted archive held; what a broker has of it is for the broker's own retention.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(&self, folder: &str) -> io::Result<()> {
        lock(&self.brokers).remove(folder);
        let folder = self.root.join(folder);
        if let Some(appender) = lock(&self.appenders).remove(&folder) {
            *appender.open() = None;
        }
        match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// Damaged places of an archive that are known, and can have held events from a time on, up to and without another.
    pub fn damage(&self, folder: &str, from: i64, till: i64) -> usize {
        let folder = self.root.join(folder);
        let within = |((path, _), times): &(&(PathBuf, u64), &(i64, i64))| {
            path.parent() == Some(&folder) && times.1 >= from && times.0 < till
        };
        lock(&self.damage).iter().filter(within).count()
    }

    /// Notes that a place of a file, with events of these times, cannot be read, once.
    fn damaged(&self, (path, place): (&Path, u64), times: (i64, i64), why: &str) {
        let mut damage = lock(&self.damage);
        if damage.len() < DAMAGED && !damage.contains_key(&(path.to_owned(), place)) {
            damage.insert((path.to_owned(), place), times);
            self.damaged.inc();
            let file = path.display();
            tracing::error!("archived events in {file} cannot be read: {why}; they are left out, the others are not");
        }
    }

    /// The same of a record that a broker keeps.
    fn unreadable(&self, folder: &str, partition: u32, offset: u64, why: &str) {
        let path = self.root.join(folder).join(format!("partition {partition}"));
        // Its time may have been any.
        self.damaged((&path, offset), (i64::MIN, i64::MAX), why);
    }

    /// The segments of an archive, the oldest first. One that is there in both forms was sealed before a crash.
    fn segments(&self, folder: &str) -> io::Result<Vec<Segment>> {
        let entries = match std::fs::read_dir(self.root.join(folder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found: BTreeMap<String, (PathBuf, Form)> = BTreeMap::new();
        for entry in entries {
            let path = entry?.path();
            if let Some(name) = stem(&path, SEALED) {
                found.insert(name.to_owned(), (path, Form::Sealed));
            } else if let Some(name) = stem(&path, PLAIN) {
                found.entry(name.to_owned()).or_insert((path, Form::Plain));
            }
        }
        let numbered = (0..).zip(found);
        Ok(numbered.map(|(number, (name, (path, form)))| Segment { name, number, path, form }).collect())
    }
}

/// Seals one plain file and removes it.
fn seal(plain: &Path) -> io::Result<()> {
    let sealed = sealed_path(plain);
    match Sealed::open(&sealed) {
        // It was sealed before a crash.
        Ok(there) if there.held() == segment::count(plain, Held::default())? => {}
        Ok(_) => {
            // Another segment has had the name, in an earlier version: this one takes a name of its own.
            let other = begin(plain.parent().unwrap_or(plain), time::wall_millis())?;
            std::fs::rename(plain, &other.path)?;
            return segment::sync_folder(plain);
        }
        Err(_) => segment::seal(plain, &sealed)?,
    }
    std::fs::remove_file(plain)
}

/// The plain files below a folder, however deep.
fn find(folder: &Path, plain: &mut Vec<PathBuf>) -> io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            find(&entry.path(), plain)?;
        } else if stem(&entry.path(), PLAIN).is_some() {
            plain.push(entry.path());
        }
    }
    Ok(())
}

/// A file's name without its end.
fn stem<'p>(path: &'p Path, end: &str) -> Option<&'p str> {
    path.file_name()?.to_str()?.strip_suffix(end)
}

/// Whether a text can be archived: an event with what every event has, of no more bytes than one can have here.
///
/// # Errors
/// What is wrong with it.
pub fn check(text: &[u8], most: usize) -> Result<(), String> {
    if text.len() > most {
        let bytes = text.len();
        return Err(format!(
            "the event has {bytes} bytes, and the limit is {most} (`limits.event_bytes`, and its envelope)"
        ));
    }
    let tree = Tree::parse(text).map_err(|fault| format!("no event: {fault}"))?;
    let missing = ["id", "detail-type", "source", "time", "detail"]
        .iter()
        .find(|name| tree.root().get(name.as_bytes()).is_none());
    if let Some(name) = missing {
        return Err(format!("no event: `{name}` is missing"));
    }
    match event_time(text, &mut Scanner::default())? {
        Some(_) => Ok(()),
        None => Err("`time` is no time; write it as in 2024-01-31T09:00:00Z".to_owned()),
    }
}

/// The time of an event, if it has one.
fn event_time(text: &[u8], scanner: &mut Scanner) -> Result<Option<i64>, &'static str> {
    let tree = Tree::parse_with(text, scanner).map_err(|_| "a line is no event")?;
    let time = tree.root().get(b"time").map(|time| time.text());
    Ok(time.and_then(|time| time::parse_iso(&String::from_utf8_lossy(&time))))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

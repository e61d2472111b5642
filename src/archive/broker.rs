//! An archive that a broker keeps, in a topic or a stream: what is where in it, and how it is read.
//!
//! In: records, in the order of their offsets. Out: how much there is, and where which times are. Promises: a record is
//! read for its time once; after that only stretches that can have the times that are wanted are read. Memory is bounded:
//! what is known of a stretch takes 56 bytes, of an archive 3.5 MiB at most. Leaves to others: order (`Selection`).

use super::segment::Held;
use super::stream::StreamReader;
use super::topic::TopicReader;
use super::{Archives, DAY_MILLIS, event_time, stream, topic};
use crate::catalog::Storage;
use crate::event::Scanner;
use crate::time;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::runtime::Handle;

/// What says, in a record or message, which archive it is of.
pub const ARCHIVE_HEADER: &str = "sluice-archive";

/// Bytes of events in a stretch, as long as there are few.
const STRETCH: u64 = 256 << 10;
/// Stretches of an archive that are known; beyond, each holds twice as much.
const STRETCHES: usize = 65_536;
/// Records between two looks whether to go on.
const LOOK: usize = 1024;

/// One archive.
pub(super) struct Broker {
    folder: String,
    storage: Storage,
    days: AtomicI64,
    runtime: Handle,
    state: Mutex<State>,
    held: Mutex<Held>,
    /// Somebody wants to know how much there is.
    asked: AtomicBool,
}

#[derive(Default)]
struct State {
    index: Index,
    reader: Option<Reader>,
}

/// What is read of a broker: from where on, and what.
pub(super) enum Reader {
    Topic(TopicReader),
    Stream(Box<StreamReader>),
}

/// A record of a topic, or a message of a stream.
pub(super) struct Record<'a> {
    pub offset: u64,
    /// When it was written, in milliseconds.
    pub written: i64,
    /// The archive that it is of.
    pub of: Option<&'a [u8]>,
    pub text: &'a [u8],
}

/// Where a partition begins and ends.
pub(super) struct Bounds {
    pub partition: u32,
    pub first: u64,
    pub end: u64,
}

impl Reader {
    /// The partitions, 0 of a stream. What was written before a time may be left out.
    pub fn bounds(&mut self, written: i64) -> io::Result<Vec<Bounds>> {
        match self {
            Self::Topic(topic) => topic.bounds(written),
            Self::Stream(stream) => stream.bounds(),
        }
    }

    /// Reads nothing ahead until it is told to read on.
    pub fn rest(&mut self) {
        match self {
            Self::Topic(topic) => topic.rest(),
            Self::Stream(stream) => stream.rest(),
        }
    }

    /// Gives what there is of a partition from an offset on up to and without another. Returns the offset before which
    /// everything was given; `Interrupted` where it is told to stop.
    pub fn read(
        &mut self,
        partition: u32,
        within: (u64, u64),
        take: &mut dyn FnMut(&Record<'_>),
        stop: &dyn Fn() -> bool,
    ) -> io::Result<u64> {
        let mut seen = 0;
        let mut take = |record: &Record<'_>| {
            take(record);
            seen += 1;
            match seen % LOOK == 0 && stop() {
                true => Err(io::ErrorKind::Interrupted.into()),
                false => Ok(()),
            }
        };
        match self {
            Self::Topic(topic) => topic.read(partition, within, &mut take, stop),
            Self::Stream(stream) => stream.read(within, &mut take),
        }
    }
}

/// A stretch of a partition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch {
    pub first: u64,
    pub end: u64,
    /// Times of the earliest and the latest event.
    pub times: (i64, i64),
    /// When its last record was written.
    written: i64,
    pub held: Held,
}

#[derive(Default)]
struct Index {
    partitions: BTreeMap<u32, Part>,
}

#[derive(Default)]
struct Part {
    /// What was read of it.
    next: u64,
    stretches: Vec<Stretch>,
    /// How often they were joined.
    joined: u32,
}

impl Part {
    /// What is not kept any longer goes; a partition that was made anew begins anew.
    fn follow(&mut self, bounds: &Bounds, horizon: i64) {
        if bounds.end < self.next {
            *self = Self::default();
        }
        self.next = self.next.max(bounds.first);
        let gone = |stretch: &Stretch| stretch.end <= bounds.first || stretch.written < horizon;
        let kept = self.stretches.iter().position(|stretch| !gone(stretch)).unwrap_or(self.stretches.len());
        self.stretches.drain(..kept);
    }

    fn note(&mut self, record: &Record<'_>, time: Option<i64>, most: usize) {
        let (first, end) = (record.offset, record.offset + 1);
        let new = Stretch { first, end, times: (i64::MAX, i64::MIN), written: i64::MIN, held: Held::default() };
        if self.stretches.last().is_none_or(|last| last.held.bytes >= STRETCH << self.joined) {
            if self.stretches.len() >= most {
                self.join();
            }
            self.stretches.push(new);
        }
        let Some(stretch) = self.stretches.last_mut() else { return };
        stretch.end = end;
        stretch.written = stretch.written.max(record.written);
        // As a line has it, its end included.
        let bytes = stretch.held.bytes + record.text.len() as u64 + 1;
        stretch.held = Held { events: stretch.held.events + 1, bytes };
        if let Some(time) = time {
            stretch.times = (stretch.times.0.min(time), stretch.times.1.max(time));
        }
    }

    /// Has neighbours become one.
    fn join(&mut self) {
        let pairs = self.stretches.chunks(2).map(|pair| match *pair {
            [one, other] => Stretch {
                first: one.first,
                end: other.end,
                times: (one.times.0.min(other.times.0), one.times.1.max(other.times.1)),
                written: one.written.max(other.written),
                held: one.held + other.held,
            },
            _ => pair[0],
        });
        self.stretches = pairs.collect();
        self.joined += 1;
    }
}

impl Index {
    fn all(&self) -> impl Iterator<Item = (u32, &Stretch)> {
        self.partitions.iter().flat_map(|(number, part)| part.stretches.iter().map(|stretch| (*number, stretch)))
    }

    fn held(&self) -> Held {
        self.all().fold(Held::default(), |sum, (_, stretch)| sum + stretch.held)
    }
}

impl Broker {
    pub fn new(folder: &str, storage: &Storage, days: i64, runtime: &Handle) -> Self {
        Self {
            folder: folder.to_owned(),
            storage: storage.clone(),
            days: AtomicI64::new(days),
            runtime: runtime.clone(),
            state: Mutex::default(),
            held: Mutex::default(),
            asked: AtomicBool::new(false),
        }
    }

    /// Takes another retention, if all else is the same.
    pub fn becomes(&self, storage: &Storage, days: i64) -> bool {
        self.days.store(days, Ordering::Relaxed);
        self.storage == *storage
    }

    /// A client of its own that reads it.
    pub fn reader(&self) -> io::Result<Reader> {
        match &self.storage {
            Storage::Topic(target) => TopicReader::open(target).map(Reader::Topic),
            Storage::Stream(target, stream) => {
                let open = StreamReader::open(target, stream, &self.runtime);
                self.runtime.block_on(open).map(|reader| Reader::Stream(Box::new(reader)))
            }
            Storage::Disk => Err(io::Error::other("it is on the disk")),
        }
    }

    /// Writes whole lines; the broker has them when this returns.
    pub fn write(&self, lines: &[u8]) -> io::Result<()> {
        match &self.storage {
            Storage::Topic(target) => topic::write(target, &self.folder, lines),
            Storage::Stream(target, _) => self.runtime.block_on(stream::write(target, &self.folder, lines)),
            Storage::Disk => Err(io::Error::other("it is on the disk")),
        }
    }

    /// What is counted; has the rest counted.
    pub fn held(&self) -> Held {
        self.asked.store(true, Ordering::Release);
        *self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts if somebody has asked. What it is stopped in goes on the next time.
    pub fn count(&self, archives: &Archives, stop: &dyn Fn() -> bool) -> io::Result<()> {
        if !self.asked.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        match self.follow(archives, stop) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.asked.store(true, Ordering::Release);
                Ok(())
            }
            counted => counted,
        }
    }

    /// Whether a record is of this archive, and not older than it keeps any.
    pub fn has(&self, record: &Record<'_>) -> bool {
        record.of == Some(self.folder.as_bytes()) && record.written >= self.horizon()
    }

    /// What was written before is not kept any longer.
    fn horizon(&self) -> i64 {
        match self.days.load(Ordering::Relaxed) {
            0 => i64::MIN,
            days => time::wall_millis() - days.saturating_mul(DAY_MILLIS),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what is new; `Interrupted` where it is told to stop.
    pub fn follow(&self, archives: &Archives, stop: &dyn Fn() -> bool) -> io::Result<()> {
        let mut state = self.state();
        let mut reader = match state.reader.take() {
            Some(reader) => reader,
            None => self.reader()?,
        };
        let followed = self.follow_with(&mut reader, &mut state.index, archives, stop);
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = state.index.held();
        reader.rest();
        // What failed is opened anew.
        let failed = followed.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::Interrupted);
        state.reader = (!failed).then_some(reader);
        followed
    }

    fn follow_with(
        &self,
        reader: &mut Reader,
        index: &mut Index,
        archives: &Archives,
        stop: &dyn Fn() -> bool,
    ) -> io::Result<()> {
        let horizon = self.horizon();
        let bounds = reader.bounds(horizon)?;
        index.partitions.retain(|number, _| bounds.iter().any(|bounds| bounds.partition == *number));
        let (mut scanner, most) = (Scanner::default(), (STRETCHES / bounds.len().max(1)).max(2));
        for bounds in &bounds {
            let part = index.partitions.entry(bounds.partition).or_default();
            part.follow(bounds, horizon);
            if part.next >= bounds.end {
                continue;
            }
            let from = part.next;
            let mut note = |record: &Record<'_>| {
                if self.has(record) {
                    match event_time(record.text, &mut scanner) {
                        Ok(time) => part.note(record, time, most),
                        Err(why) => archives.unreadable(&self.folder, bounds.partition, record.offset, why),
                    }
                }
                part.next = record.offset + 1;
            };
            let next = reader.read(bounds.partition, (from, bounds.end), &mut note, stop)?;
            part.next = part.next.max(next);
        }
        Ok(())
    }

    /// The stretches that are wanted, with their partitions.
    pub fn stretches(&self, wanted: impl Fn(u32, &Stretch) -> bool) -> Vec<(u32, Stretch)> {
        let state = self.state();
        let all = state.index.all().filter(|(number, stretch)| wanted(*number, stretch));
        all.map(|(number, stretch)| (number, *stretch)).collect()
    }

    /// At most how many events are of these times.
    pub fn at_most(&self, from: i64, till: i64) -> u64 {
        let within = |stretch: &&Stretch| stretch.times.1 >= from && stretch.times.0 < till;
        self.state().index.all().map(|(_, stretch)| stretch).filter(within).map(|stretch| stretch.held.events).sum()
    }
}

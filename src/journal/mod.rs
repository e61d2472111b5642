//! Durable records on disk: events of requests, and deliveries that wait for their target.
//!
//! In: bodies to keep, what is to be known of them, and that they are done with. Out: a word when a body is on the disk
//! (written and synced, many at once), and at start every record that was not done with. Promises: what was said to be
//! kept is found again; a torn tail is cut, a bad record in the middle is skipped and counted; after a failed sync
//! nothing is kept any more, because nobody knows what the disk has. Leaves to others: what a body means.
//!
//! Records lie in segments, files of about [`SEGMENT`] bytes. A segment is removed when nothing in it is live and all
//! older ones have gone: removing needs no space. That a record is done with is written, not synced: a crash may bring
//! it back.

mod format;
mod index;
mod recover;
mod reserve;
mod writer;

pub use format::{Kind, NoSegment, Piece, Record, body, header, push, read_header, scan};
pub use index::{Index, Place};
pub use recover::{Live, Recovered};
pub use reserve::Reserve;

use crate::time;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes after which a segment is closed.
pub const SEGMENT: u64 = 8 << 20;
/// How long what needs no sync waits for company.
const IDLE: Duration = Duration::from_millis(50);

/// Why a record is not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JournalError {
    /// There is no room: time, or the operator, may make some.
    Full(String),
    /// Nothing is kept until the process starts anew.
    Broken(String),
    /// Files that cannot be used; names them and says the way back.
    Unusable(String),
}

impl std::fmt::Display for JournalError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Full(message) | Self::Broken(message) | Self::Unusable(message)) = self;
        f.write_str(message)
    }
}

impl std::error::Error for JournalError {}

/// Hears what has become of records that were put together: their tickets and sequences.
pub type Outcome<T> = Box<dyn Fn(Vec<(T, u64)>, Result<(), JournalError>) + Send + Sync>;

/// A folder of segments and the thread that writes them. `T` is what its user knows a record by until it is kept.
pub struct Journal<T: Send + 'static>(Arc<Shared<T>>);

struct Shared<T> {
    folder: PathBuf,
    /// Bytes of all segments beyond which nothing more is kept.
    max_bytes: u64,
    reserve: Arc<Reserve>,
    state: Mutex<State<T>>,
    arrived: Condvar,
    written: Condvar,
}

struct State<T> {
    index: Index,
    /// The sequence of the next record.
    next: u64,
    queue: Vec<Order<T>>,
    /// Bytes of bodies in the queue.
    queued: u64,
    /// A body is in the queue.
    urgent: bool,
    /// Why nothing is kept any more.
    broken: Option<String>,
    /// Why nothing is kept for now.
    full: Option<String>,
    /// The thread works on orders that it took.
    writing: bool,
    closed: bool,
}

enum Order<T> {
    Put(u64, Vec<u8>, T),
    Note(u64, Vec<u8>),
    Gone(u64),
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn segment_path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:010}.segment"))
}

impl<T: Send + 'static> Journal<T> {
    /// Opens the journal in `folder`, which is made if there is none, and starts its thread, called `name`. `outcome` is
    /// called on that thread.
    ///
    /// # Errors
    /// [`JournalError::Unusable`]: the folder cannot be used, or holds files that are not a journal's.
    pub fn open(
        (name, folder): (&str, &Path),
        max_bytes: u64,
        reserve: &Arc<Reserve>,
        outcome: Outcome<T>,
    ) -> Result<(Self, Recovered), JournalError> {
        let found = recover::recover(folder)?;
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            max_bytes,
            reserve: Arc::clone(reserve),
            state: Mutex::new(State {
                index: found.index,
                next: found.next,
                queue: Vec::new(),
                queued: 0,
                urgent: false,
                broken: None,
                full: None,
                writing: false,
                closed: false,
            }),
            arrived: Condvar::new(),
            written: Condvar::new(),
        });
        let mut writer = writer::Writer::new(Arc::clone(&shared), (found.number, found.next), outcome);
        let made = std::thread::Builder::new().name(name.to_owned()).spawn(move || writer.run());
        made.map_err(|error| JournalError::Unusable(format!("cannot start a thread: {error}")))?;
        Ok((Self(shared), found.recovered))
    }

    /// Keeps a body; the outcome tells when it is on the disk. Returns its sequence. Who puts bounds what waits.
    ///
    /// # Errors
    /// The ticket, and [`JournalError::Full`] or [`JournalError::Broken`].
    pub fn put(&self, body: Vec<u8>, ticket: T) -> Result<u64, (T, JournalError)> {
        let mut state = self.0.state();
        if let Some(error) = state.refusal(self.0.max_bytes, body.len() as u64, &self.0.folder) {
            return Err((ticket, error));
        }
        let sequence = state.next;
        state.next += 1;
        state.queued += body.len() as u64;
        state.queue.push(Order::Put(sequence, body, ticket));
        let first = !std::mem::replace(&mut state.urgent, true);
        drop(state);
        if first {
            self.0.arrived.notify_one();
        }
        Ok(sequence)
    }

    /// Writes down what is to be known of a live record; the latest counts.
    pub fn note(&self, sequence: u64, note: Vec<u8>) {
        self.push(self.0.state(), Order::Note(sequence, note));
    }

    /// A record is done with.
    pub fn remove(&self, sequence: u64) {
        let mut state = self.0.state();
        if state.index.remove(sequence) {
            self.push(state, Order::Gone(sequence));
        }
    }

    /// Queues what needs no sync.
    fn push(&self, mut state: MutexGuard<'_, State<T>>, order: Order<T>) {
        let first = state.queue.is_empty();
        state.queue.push(order);
        drop(state);
        if first {
            self.0.arrived.notify_one();
        }
    }

    /// Waits until everything is written, `deadline` at most.
    pub fn flush(&self, deadline: Instant) {
        let state = self.0.state();
        let left = deadline.saturating_duration_since(time::now());
        let busy = |state: &mut State<T>| state.writing || !state.queue.is_empty();
        drop(self.0.written.wait_timeout_while(state, left, busy));
    }

    /// Reads a live record back.
    ///
    /// # Errors
    /// It is not live, cannot be read, or is damaged.
    pub fn read(&self, sequence: u64) -> io::Result<Vec<u8>> {
        let gone = || io::Error::new(io::ErrorKind::NotFound, format!("record {sequence} is gone"));
        let place = self.0.state().index.find(sequence).ok_or_else(gone)?;
        let path = segment_path(&self.0.folder, place.segment);
        let mut bytes = vec![0; place.len as usize];
        std::fs::File::open(&path)?.read_exact_at(&mut bytes, u64::from(place.offset))?;
        if format::body(&bytes).is_none() {
            let message = format!("{}: the record at {} is damaged", path.display(), place.offset);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        bytes.drain(..format::HEAD);
        Ok(bytes)
    }

    /// Live records of the oldest segment, when segments hold more that is done with than is live: who puts these anew
    /// and removes them frees the space. So a journal takes at most twice its live bytes and two segments.
    pub fn crowded(&self) -> Vec<u64> {
        let state = self.0.state();
        let index = &state.index;
        let worth = index.segments() > 2 && index.bytes() > 2 * index.live_bytes() + 2 * SEGMENT;
        if worth { index.oldest() } else { Vec::new() }
    }

    /// Live records, and the bytes of all segments.
    pub fn size(&self) -> (u64, u64) {
        let state = self.0.state();
        (state.index.live(), state.index.bytes())
    }

    /// Why nothing is kept at present.
    pub fn trouble(&self) -> Option<String> {
        let state = self.0.state();
        state.broken.clone().or_else(|| state.full.clone())
    }
}

impl<T: Send + 'static> Drop for Journal<T> {
    /// The thread writes what it has and ends.
    fn drop(&mut self) {
        self.0.state().closed = true;
        self.0.arrived.notify_one();
    }
}

impl<T> State<T> {
    fn refusal(&self, max_bytes: u64, len: u64, folder: &Path) -> Option<JournalError> {
        if let Some(why) = &self.broken {
            return Some(JournalError::Broken(why.clone()));
        }
        if let Some(why) = &self.full {
            return Some(JournalError::Full(why.clone()));
        }
        if self.index.bytes() + self.queued + len > max_bytes {
            let folder = folder.display();
            return Some(JournalError::Full(format!(
                "{folder} holds {max_bytes} bytes, its bound, that wait for targets"
            )));
        }
        None
    }
}

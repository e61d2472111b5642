//! The thread that writes a journal: what has gathered is written at once and synced once.

use super::{IDLE, JournalError, Order, Outcome, SEGMENT, Shared, format, segment_path};
use crate::time;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// How often a full disk is looked at.
const LOOK: Duration = Duration::from_secs(1);

pub(super) struct Writer<T> {
    shared: Arc<Shared<T>>,
    outcome: Outcome<T>,
    /// The number of the next segment.
    number: u64,
    /// Every record from this sequence on is still to be written.
    next: u64,
    /// The open segment and its bytes.
    open: Option<(File, u64)>,
    buffer: Vec<u8>,
    looked: Instant,
}

/// A record in the buffer that is to be kept: its sequence, its head in the buffer, its bytes with the head.
struct Placed(u64, usize, usize);

impl<T: Send + 'static> Writer<T> {
    pub fn new(shared: Arc<Shared<T>>, (number, next): (u64, u64), outcome: Outcome<T>) -> Self {
        Self { shared, outcome, number, next, open: None, buffer: Vec::new(), looked: time::now() }
    }

    pub fn run(&mut self) {
        loop {
            let (orders, closed) = self.gather();
            if !orders.is_empty() {
                self.commit(orders);
            }
            self.recover_space();
            self.shared.state().writing = false;
            self.shared.written.notify_all();
            if closed {
                return;
            }
        }
    }

    /// Waits for orders; those that need no sync wait a little for company.
    fn gather(&self) -> (Vec<Order<T>>, bool) {
        let arrived = &self.shared.arrived;
        let state = self.shared.state();
        let pause = if state.full.is_some() { LOOK } else { Duration::from_hours(1) };
        let (state, _) = arrived
            .wait_timeout_while(state, pause, |state| state.queue.is_empty() && !state.closed)
            .unwrap_or_else(PoisonError::into_inner);
        let (mut state, _) = arrived
            .wait_timeout_while(state, IDLE, |state| !state.urgent && !state.closed)
            .unwrap_or_else(PoisonError::into_inner);
        (state.queued, state.urgent) = (0, false);
        state.writing = true;
        (std::mem::take(&mut state.queue), state.closed)
    }

    fn commit(&mut self, orders: Vec<Order<T>>) {
        let mut placed = Vec::new();
        let mut tickets = Vec::new();
        let mut rest = Vec::new();
        self.buffer.clear();
        for order in orders {
            match order {
                Order::Put(sequence, body, ticket) => {
                    let start = self.buffer.len();
                    format::push(&mut self.buffer, format::Kind::Put, sequence, &body);
                    placed.push(Placed(sequence, start, self.buffer.len() - start));
                    tickets.push((ticket, sequence));
                }
                Order::Note(sequence, note) => {
                    format::push(&mut self.buffer, format::Kind::Note, sequence, &note);
                    rest.push(Order::Note(sequence, note));
                }
                Order::Gone(sequence) => {
                    format::push(&mut self.buffer, format::Kind::Gone, sequence, &[]);
                    rest.push(Order::Gone(sequence));
                }
            }
        }
        let result = self.write(&placed, !tickets.is_empty());
        if let Err(JournalError::Full(_)) = &result {
            // What frees space is written once there is room for it.
            self.shared.state().queue.extend(rest);
        }
        if !tickets.is_empty() {
            (self.outcome)(tickets, result);
        }
    }

    /// Writes the buffer, and syncs it if it holds what is to be kept.
    fn write(&mut self, placed: &[Placed], sync: bool) -> Result<(), JournalError> {
        if let Some(why) = &self.shared.state().broken {
            return Err(JournalError::Broken(why.clone()));
        }
        if let Err(error) = self.make_room() {
            return Err(self.refuse(&error, false));
        }
        let Some((file, len)) = &mut self.open else { return Ok(()) };
        let start = *len;
        if let Err(error) = file.write_all(&self.buffer) {
            // A torn record must not stand in front of others.
            if file.set_len(start).is_err() {
                self.open = None;
            }
            return Err(self.refuse(&error, false));
        }
        *len += self.buffer.len() as u64;
        if sync && let Err(error) = file.sync_data() {
            return Err(self.refuse(&error, true));
        }
        if let Some(last) = placed.last() {
            self.next = last.0 + 1;
        }
        let mut state = self.shared.state();
        state.index.grow(self.buffer.len() as u64);
        for Placed(sequence, at, bytes) in placed {
            state.index.place(*sequence, start as u32 + *at as u32, *bytes as u32);
        }
        let spent = state.index.take_spent(1);
        drop(state);
        self.unlink(&spent);
        Ok(())
    }

    /// Opens a segment where there is none, or the open one is large enough or holds nothing that is live any more.
    fn make_room(&mut self) -> io::Result<()> {
        let most = SEGMENT.min(self.shared.max_bytes / 8);
        let spent = |len: u64| len > most / 8 && self.shared.state().index.live() == 0;
        if self.open.as_ref().is_some_and(|(_, len)| *len >= most || spent(*len)) {
            self.open = None;
        }
        if self.open.is_none() {
            self.open = Some((self.create(self.next)?, format::HEADER as u64));
            let mut state = self.shared.state();
            state.index.begin(self.number, self.next);
            state.index.grow(format::HEADER as u64);
            self.number += 1;
        }
        Ok(())
    }

    fn create(&self, first: u64) -> io::Result<File> {
        let path = segment_path(&self.shared.folder, self.number);
        let made = OpenOptions::new().append(true).create_new(true).open(&path).and_then(|mut file| {
            file.write_all(&format::header(first))?;
            file.sync_all()?;
            File::open(&self.shared.folder)?.sync_all()?;
            Ok(file)
        });
        made.inspect_err(|_| std::fs::remove_file(&path).unwrap_or_default())
    }

    /// Removes segments, oldest first, for good: one that came back after later ones had gone would bring back records
    /// that are done with.
    fn unlink(&self, numbers: &[u64]) {
        for number in numbers {
            let path = segment_path(&self.shared.folder, *number);
            let removed = std::fs::remove_file(&path).and_then(|()| File::open(&self.shared.folder)?.sync_all());
            if let Err(error) = removed {
                tracing::warn!("cannot remove {}: {error}", path.display());
            }
        }
    }

    /// Says why nothing is kept now, or ever again after a failed sync.
    fn refuse(&self, error: &io::Error, sync: bool) -> JournalError {
        let folder = self.shared.folder.display();
        let space = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let mut state = self.shared.state();
        if sync {
            let why =
                format!("{folder} could not be synced ({error}); the disk may have lost what was written: start anew");
            tracing::error!("{why}");
            state.broken = Some(why.clone());
            return JournalError::Broken(why);
        }
        let remedy = if space { "free space, writing goes on by itself" } else { "make data_dir writable" };
        let why = format!("{folder} takes nothing more ({error}); {remedy}");
        if state.full.is_none() {
            tracing::error!("{why}");
        }
        state.full = Some(why.clone());
        drop(state);
        if space {
            self.shared.reserve.release();
        }
        JournalError::Full(why)
    }

    /// Takes records again once the reserve could be put aside anew.
    fn recover_space(&mut self) {
        if self.looked.elapsed() < LOOK || self.shared.state().full.is_none() {
            return;
        }
        self.looked = time::now();
        if self.shared.reserve.restore() {
            self.shared.state().full = None;
            tracing::info!("{} takes records again", self.shared.folder.display());
        }
    }
}

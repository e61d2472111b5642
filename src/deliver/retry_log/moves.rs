//! Records that change their place: after a failed attempt, and when what is done with around them is to go.

use super::store::{Kind, Store};
use super::waiting::Entry;
use super::{ROOM, RetryLog, Ticket, attempts};
use crate::deliver::parcel::{Attempts, Parcel};
use crate::time;
use std::time::Instant;

impl RetryLog {
    /// An attempt of a record has failed: the next one is due later.
    pub fn postpone(&self, parcel: &Parcel, sequence: u64, released: Option<u64>, (failed, due): (u32, Instant)) {
        let entry = Entry { due: self.millis(due), sequence, failed, order: parcel.order };
        let put = match &self.store {
            Store::Disk(journal) => {
                journal.note(sequence, attempts(failed, due).note());
                false
            }
            Store::Topic(_) | Store::Stream(_) => {
                let (partition, ordered) = (parcel.position.partition, parcel.order != 0);
                let kind = Kind { partition, ordered, under_way: false };
                let body = parcel.encode(attempts(failed, due));
                self.store.put(kind, body, Ticket::Move(sequence, entry)).is_ok()
            }
        };
        if !put && self.store.is_known(sequence) {
            self.state().waiting.again(entry);
        }
        self.release(released);
        self.changed.notify_all();
    }

    /// A record was put anew, if it was.
    pub(super) fn moved(&self, (old, new): (u64, u64), entry: Entry, kept: bool) {
        let place = if kept { new } else { old };
        if kept {
            if let Store::Disk(journal) = &self.store {
                let due_millis = time::wall_millis() + (entry.due as i64 - self.millis(time::now()) as i64);
                journal.note(new, Attempts { failed: entry.failed, due_millis }.note());
            }
            self.store.remove(old);
        }
        if self.store.is_known(place) {
            self.state().waiting.again(Entry { sequence: place, ..entry });
        } else {
            self.tried(u64::from(entry.failed == 0));
        }
    }

    /// Puts the last records of a segment anew where they keep much that is done with. Write amplification stays below
    /// two: a segment is emptied when less than half of all is live.
    pub(super) fn make_room(&self) {
        let mut state = self.state();
        if state.looked.elapsed() < ROOM {
            return;
        }
        state.looked = time::now();
        drop(state);
        let crowded = self.store.crowded();
        if crowded.is_empty() {
            return;
        }
        let moving = self.state().waiting.take_out(&crowded);
        for entry in moving {
            let moved = self.store.read(entry.sequence).map(|body| {
                let partition = self.store.partition(entry.sequence);
                let kind = Kind { partition, ordered: false, under_way: false };
                self.store.put(kind, body, Ticket::Move(entry.sequence, entry)).is_ok()
            });
            if !moved.unwrap_or(false) {
                self.state().waiting.again(entry);
            }
        }
    }
}

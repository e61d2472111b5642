//! A retry log in a Kafka topic: for sources that read from Kafka, so that what waits needs no disk and moves with its
//! partition to another instance.
//!
//! The topic has the source's partitions, and whoever has a partition of the source has that of the topic: what waits of
//! an event lies in the partition that the event came from. A record is written once, and once more for each failed
//! attempt, to the end, with its new state; of the records of one delivery one counts (`lines.rs`). What is done with is
//! committed: the offset before which everything is, and, as metadata, what is after it (`offsets.rs`); and deleted from
//! time to time. What is not in memory is read when what is before it has left: memory is bounded, and the topic bounds
//! what waits.

mod cluster;
pub mod lines;
pub mod offsets;

pub use cluster::RetryTopics;

use super::Ticket;
use super::store::Kind;
use crate::deliver::parcel::Kept;
use crate::journal::{JournalError, Outcome};
use crate::time;
use cluster::Sent;
use lines::{Line, Lines};
use offsets::Offsets;
use rdkafka::consumer::CommitMode;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Records without an order that are known at once, of one partition.
const KNOWN: usize = 20_000;
/// Records with an order, all of which are known.
const ORDERED: usize = 100_000;
/// Records of a partition from the oldest that waits to the last.
const SPAN: i64 = 10_000_000;
/// Bytes that were read ahead.
const AHEAD: usize = 4 << 20;
/// How often it is committed what is done with, and how often that is deleted.
const COMMIT: Duration = Duration::from_secs(1);
const TRIM: Duration = Duration::from_secs(10);
/// How long attempts under way may take when their partition is taken away.
const FAREWELL: Duration = Duration::from_millis(500);
/// How long it is waited after something the cluster refused.
const AGAIN: Duration = Duration::from_secs(1);

/// One target's log in one source's retry topic.
pub struct TopicStore {
    /// The topic.
    pub topic: String,
    /// What it shares with the logs of other targets.
    pub topics: Arc<RetryTopics>,
    target: String,
    state: Mutex<State>,
    /// A record is done with.
    ended: Condvar,
    outcome: Outcome<Ticket>,
}

#[derive(Default)]
struct State {
    next: u64,
    places: HashMap<u64, Place>,
    parts: BTreeMap<i32, Part>,
    lines: Lines,
    /// Read, and not yet asked for.
    ahead: HashMap<u64, Vec<u8>>,
    ahead_bytes: usize,
    /// The target keeps an order.
    ordered: bool,
    /// The topic is there.
    prepared: bool,
    /// Nothing is asked of the cluster before.
    pause: Option<Instant>,
    committed_at: Option<Instant>,
    trimmed_at: Option<Instant>,
}

/// Where a record lies; without an offset where it is being written.
struct Place {
    partition: i32,
    assignment: u64,
    offset: Option<i64>,
    /// It has a place in memory, whether or not what is before it is known.
    must: bool,
    /// The delivery, and how far it has come; none where the body is of another version.
    line: Option<Line>,
}

/// A partition of ours.
struct Part {
    /// The assignment in which it is ours.
    assignment: u64,
    offsets: Offsets,
    /// All of it is known.
    complete: bool,
    committed: Option<i64>,
    dirty: bool,
    trimmed: i64,
    /// It is being taken away.
    leaving: bool,
}

/// What was found in the topic.
pub struct Found {
    /// The partition.
    pub partition: i32,
    /// Its assignment.
    pub assignment: u64,
    /// Its records that are news, in order.
    pub records: Vec<(u64, Vec<u8>)>,
    /// Records that are in the place of others: those.
    pub replaced: HashSet<u64>,
    /// All of it is known now.
    pub complete: bool,
    /// No more of it is read before some of what is known is done with.
    pub full: bool,
}

/// The form of records: this byte, and the body.
const FORM: u8 = 2;

fn frame(body: &[u8]) -> Vec<u8> {
    [&[FORM], body].concat()
}

fn unframe(record: &[u8]) -> Option<&[u8]> {
    record.split_first().and_then(|(form, body)| (*form == FORM).then_some(body))
}

/// The delivery that a body is about; one of another version is nobody's.
fn line(body: &[u8]) -> Option<Line> {
    Kept::decode(body).map(|(kept, _)| Line { id: kept.id(), failed: kept.attempts.failed })
}

impl TopicStore {
    /// The log of a target.
    pub(super) fn new(target: &str, topics: &Arc<RetryTopics>, outcome: Outcome<Ticket>) -> Arc<Self> {
        Arc::new(Self {
            topic: topics.name(target),
            topics: Arc::clone(topics),
            target: target.to_owned(),
            state: Mutex::default(),
            ended: Condvar::new(),
            outcome,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whether the target keeps an order: then nothing of a partition is tried before all of it is known.
    pub fn keep_order(&self, ordered: bool) {
        self.state().ordered = ordered;
    }

    /// Whether records of a partition may be put and tried.
    pub fn is_ready(&self, partition: i32) -> bool {
        let state = self.state();
        state.parts.get(&partition).is_some_and(|part| part.complete || !state.ordered)
    }

    /// Whether a partition of the source is ours.
    pub fn is_owned(&self, partition: i32) -> bool {
        self.topics.owned.assignment(partition).is_some()
    }

    /// As [`crate::journal::Journal::put`].
    pub(super) fn put(
        self: &Arc<Self>,
        kind: Kind,
        body: &[u8],
        ticket: Ticket,
    ) -> Result<u64, (Ticket, JournalError)> {
        let Kind { partition, ordered, under_way } = kind;
        let mut state = self.state();
        let refusal = match state.parts.get(&partition) {
            None => Some("the partition is not ours, or not known yet"),
            Some(part) if part.leaving => Some("the partition is taken away"),
            Some(part) if ordered && part.offsets.live() >= ORDERED => Some("it is full"),
            Some(part) if part.offsets.span() >= SPAN => Some("it is full"),
            Some(_) => None,
        };
        if let Some(why) = refusal {
            return Err((ticket, JournalError::Full(format!("topic {} partition {partition}: {why}", self.topic))));
        }
        let assignment = state.parts.get(&partition).map_or(0, |part| part.assignment);
        let sequence = state.next;
        state.next += 1;
        let (line, must) = (line(body), ordered || under_way);
        state.places.insert(sequence, Place { partition, assignment, offset: None, must, line });
        let record = frame(body);
        // The producer's order must be that of the sequences.
        let sent = Box::new(Sent { store: Arc::clone(self), sequence, ticket });
        self.topics.send((&self.topic, partition), &record, sent).map(|()| sequence).map_err(|(sent, why)| {
            state.places.remove(&sequence);
            (sent.ticket, JournalError::Full(format!("topic {}: {why}", self.topic)))
        })
    }

    /// Hears from the producer.
    fn written(&self, (ticket, sequence): (Ticket, u64), result: Result<i64, String>) {
        let mut guard = self.state();
        let state = &mut *guard;
        let outcome = match (result, state.places.get_mut(&sequence)) {
            (Ok(offset), Some(place)) => {
                let part = state.parts.get_mut(&place.partition).filter(|part| part.assignment == place.assignment);
                let must = place.must;
                let known = part.is_some_and(|part| {
                    part.dirty = true;
                    let room = part.offsets.live() < KNOWN;
                    part.offsets.written(offset, sequence, (must, room))
                });
                if known {
                    place.offset = Some(offset);
                    let line = place.line;
                    if let Some(old) = line.and_then(|line| state.lines.take(line, sequence)) {
                        state.end(old);
                    }
                } else {
                    state.places.remove(&sequence);
                }
                Ok(())
            }
            (Ok(_), None) => Ok(()),
            (Err(why), _) => {
                state.places.remove(&sequence);
                Err(JournalError::Full(format!("topic {}: {why}", self.topic)))
            }
        };
        drop(guard);
        (self.outcome)(vec![(ticket, sequence)], outcome);
    }

    /// Whether a record has a place in memory; the others are read later.
    pub fn is_known(&self, sequence: u64) -> bool {
        self.state().places.contains_key(&sequence)
    }

    /// The partition of a record.
    pub fn partition(&self, sequence: u64) -> Option<i32> {
        self.state().places.get(&sequence).map(|place| place.partition)
    }

    /// A record is done with.
    pub fn remove(&self, sequence: u64) {
        self.state().end(sequence);
        self.ended.notify_all();
    }

    /// Reads a record back, and some after it.
    pub fn read(&self, sequence: u64) -> io::Result<Vec<u8>> {
        let mut state = self.state();
        if let Some(body) = state.ahead.remove(&sequence) {
            state.ahead_bytes -= body.len();
            return Ok(body);
        }
        let gone = || io::Error::new(io::ErrorKind::NotFound, format!("record {sequence} is gone"));
        let place = state.places.get(&sequence).ok_or_else(gone)?;
        let (partition, offset) = (place.partition, place.offset.ok_or_else(gone)?);
        let end = state.parts.get(&partition).map_or(offset + 1, |part| part.offsets.known_until().max(offset + 1));
        drop(state);
        let read = self.topics.read((&self.topic, partition), (offset, end)).map_err(io::Error::other)?;
        let mut wanted = None;
        let mut guard = self.state();
        let state = &mut *guard;
        for (at, record) in read {
            let Some(body) = unframe(&record) else { continue };
            if at == offset {
                wanted = Some(body.to_vec());
            } else if let Some(part) = state.parts.get(&partition)
                && let Some(next) = part.offsets.sequence(at)
            {
                state.ahead(next, body.to_vec());
            }
        }
        // A record that the topic does not have any more was deleted by somebody else.
        wanted.ok_or_else(gone)
    }

    /// Records that are not done with.
    pub fn live(&self) -> u64 {
        self.state().parts.values().map(|part| part.offsets.count()).sum()
    }

    /// How many wait that were not read yet.
    pub fn unread(&self) -> u64 {
        let state = self.state();
        let unread =
            |part: &Part| part.offsets.unread().map_or(0, |(from, end)| u64::try_from(end - from).unwrap_or(0));
        state.parts.values().map(unread).sum()
    }

    /// The oldest records, where the others can hardly be told from them.
    pub fn crowded(&self) -> Vec<u64> {
        let state = self.state();
        let mut crowded: Vec<u64> = state.parts.values().flat_map(|part| part.offsets.crowded()).collect();
        crowded.sort_unstable();
        crowded
    }

    /// Looks after partitions: takes up those that have become ours, reads what is not known where there is room for it,
    /// commits and deletes what is done with.
    pub fn tend(&self, room: bool) -> Option<Found> {
        let now = time::now();
        if self.state().pause.is_some_and(|until| now < until) {
            return None;
        }
        let room = room || self.state().ordered;
        let found = self.take_up().and_then(|()| if room { self.read_on() } else { Ok(None) });
        let found = found.and_then(|found| self.commit(now).map(|()| found));
        match found {
            Ok(found) => found,
            Err(why) => {
                tracing::warn!(sluice_target = self.target, "retry topic {}: {why}; it is tried again", self.topic);
                self.state().pause = Some(now + AGAIN);
                None
            }
        }
    }

    fn take_up(&self) -> Result<(), String> {
        for (partition, assignment) in self.topics.owned.all() {
            if self.state().parts.get(&partition).is_some_and(|part| part.assignment == assignment) {
                continue;
            }
            if !self.state().prepared {
                self.topics.prepare([self.target.as_str()]).map_err(|error| error.to_string())?;
                self.state().prepared = true;
            }
            let (committed, bounds) = self.topics.found(&self.topic, partition).map_err(|error| error.to_string())?;
            let offsets = Offsets::restore(bounds, committed.as_ref().map(|(offset, text)| (*offset, text.as_str())));
            let part = Part {
                assignment,
                complete: offsets.unread().is_none(),
                committed: committed.map(|(offset, _)| offset),
                offsets,
                dirty: false,
                trimmed: bounds.0,
                leaving: false,
            };
            let mut state = self.state();
            // It may have been taken away meanwhile.
            if self.topics.owned.assignment(partition) == Some(assignment) {
                state.parts.insert(partition, part);
            }
        }
        Ok(())
    }

    /// Reads the next records that are not known.
    fn read_on(&self) -> Result<Option<Found>, String> {
        let next = {
            let state = self.state();
            let unread = |(&partition, part): (&i32, &Part)| {
                let room = state.ordered || part.offsets.live() < KNOWN / 2;
                part.offsets.unread().filter(|_| room).map(|range| (partition, part.assignment, range))
            };
            state.parts.iter().find_map(unread)
        };
        let Some((partition, assignment, (from, end))) = next else { return Ok(None) };
        let read = self.topics.read((&self.topic, partition), (from, end)).map_err(|error| error.to_string())?;
        let mut guard = self.state();
        let state = &mut *guard;
        let Some(part) = state.parts.get_mut(&partition).filter(|part| part.assignment == assignment) else {
            return Ok(None);
        };
        if read.is_empty() {
            part.offsets.passed(end);
        }
        let (mut records, mut replaced) = (Vec::new(), HashSet::new());
        for (offset, record) in read {
            let sequence = state.next;
            if !part.offsets.read(offset, sequence) {
                continue;
            }
            let body = unframe(&record).unwrap_or(&[]);
            let line = line(body);
            state.next += 1;
            let place = Place { partition, assignment, offset: Some(offset), must: false, line };
            state.places.insert(sequence, place);
            records.push((sequence, body.to_vec()));
            replaced.extend(line.and_then(|line| state.lines.take(line, sequence)));
        }
        let complete = part.offsets.unread().is_none();
        let full = !state.ordered && part.offsets.live() >= KNOWN / 2;
        replaced.iter().for_each(|sequence| state.end(*sequence));
        records.retain(|(sequence, _)| !replaced.contains(sequence));
        Ok(Some(Found { partition, assignment, records, replaced, complete, full }))
    }

    /// What was found is taken in, and with it all of a partition.
    pub fn completed(&self, found: &Found) {
        let mut state = self.state();
        if let Some(part) = state.parts.get_mut(&found.partition).filter(|part| part.assignment == found.assignment) {
            part.complete = true;
        }
    }

    /// Keeps a record's body for the attempt that is to come soon.
    pub fn keep_ahead(&self, sequence: u64, body: Vec<u8>) {
        self.state().ahead(sequence, body);
    }

    fn commit(&self, now: Instant) -> Result<(), String> {
        let mut guard = self.state();
        let state = &mut *guard;
        if state.committed_at.is_some_and(|at| now.duration_since(at) < COMMIT) {
            return Ok(());
        }
        state.committed_at = Some(now);
        let parts = state.uncommitted();
        let trim = state.trimmed_at.is_none_or(|at| now.duration_since(at) >= TRIM);
        let done: Vec<(i32, i64)> = state
            .parts
            .iter()
            .filter_map(|(&partition, part)| Some((partition, part.committed.filter(|&offset| offset > part.trimmed)?)))
            .collect();
        if trim {
            state.trimmed_at = Some(now);
        }
        drop(guard);
        self.commit_now(&parts)?;
        if trim && !done.is_empty() {
            match self.topics.trim(&self.topic, &done) {
                Ok(()) => self.trimmed(&done),
                Err(error) => tracing::warn!("topic {} keeps what is done with: {error}", self.topic),
            }
        }
        Ok(())
    }

    /// Commits; what is refused is committed again, while the partition is ours.
    fn commit_now(&self, parts: &[(i32, i64, String)]) -> Result<(), String> {
        if parts.is_empty() {
            return Ok(());
        }
        let committed = self.topics.commit(&self.topic, parts, CommitMode::Sync);
        if committed.is_err() {
            let mut state = self.state();
            for (partition, ..) in parts {
                if let Some(part) = state.parts.get_mut(partition) {
                    part.dirty = true;
                }
            }
        }
        committed.map_err(|error| error.to_string())
    }

    fn trimmed(&self, done: &[(i32, i64)]) {
        let mut state = self.state();
        for (partition, offset) in done {
            if let Some(part) = state.parts.get_mut(partition) {
                part.trimmed = *offset;
            }
        }
    }

    /// Waits until what was put is written, and commits what is done with.
    pub fn flush(&self, deadline: Instant) {
        self.topics.flush(deadline);
        let parts = self.state().uncommitted();
        if let Err(error) = self.commit_now(&parts) {
            tracing::warn!("topic {}: what is done with comes again: {error}", self.topic);
        }
    }

    /// Partitions are taken away: nothing more is put into them. Returns their records.
    pub fn close(&self, partitions: &[i32]) -> HashSet<u64> {
        let mut state = self.state();
        for partition in partitions {
            if let Some(part) = state.parts.get_mut(partition) {
                part.leaving = true;
            }
        }
        let of = state.places.iter().filter(|(_, place)| partitions.contains(&place.partition));
        of.map(|(sequence, _)| *sequence).collect()
    }

    /// Waits a moment for the attempts of closed partitions that are under way, all but those of `waiting`, then leaves
    /// them to whoever has them next.
    pub fn leave(&self, partitions: &[i32], waiting: &[u64]) {
        let mut state = self.state();
        for sequence in waiting {
            state.forget(*sequence);
        }
        let under_way = |state: &mut State| {
            state.places.values().any(|place| partitions.contains(&place.partition) && place.offset.is_some())
        };
        (state, _) = self.ended.wait_timeout_while(state, FAREWELL, under_way).unwrap_or_else(PoisonError::into_inner);
        let parts: Vec<_> = partitions.iter().filter_map(|it| Some((*it, state.parts.remove(it)?))).collect();
        let State { ahead, ahead_bytes, places, lines, .. } = &mut *state;
        places.retain(|sequence, place| {
            let stays = !partitions.contains(&place.partition);
            if let Some(line) = place.line.filter(|_| !stays) {
                lines.forget(line, *sequence);
            }
            stays
        });
        ahead.retain(|sequence, body| {
            let stays = places.contains_key(sequence);
            *ahead_bytes -= if stays { 0 } else { body.len() };
            stays
        });
        drop(state);
        let of = |(partition, part): (i32, Part)| {
            let (offset, metadata) = part.offsets.commit();
            part.dirty.then_some((partition, offset, metadata))
        };
        let left: Vec<_> = parts.into_iter().filter_map(of).collect();
        if let Err(error) = self.commit_now(&left) {
            tracing::warn!("topic {}: what is done with comes again: {error}", self.topic);
        }
    }
}

impl State {
    fn ahead(&mut self, sequence: u64, body: Vec<u8>) {
        if self.ahead_bytes + body.len() <= AHEAD && !self.ahead.contains_key(&sequence) {
            self.ahead_bytes += body.len();
            self.ahead.insert(sequence, body);
        }
    }

    /// A record is done with.
    fn end(&mut self, sequence: u64) {
        if let Some(body) = self.ahead.remove(&sequence) {
            self.ahead_bytes -= body.len();
        }
        let Some(place) = self.forget(sequence) else { return };
        if let (Some(part), Some(offset)) = (self.parts.get_mut(&place.partition), place.offset)
            && part.assignment == place.assignment
        {
            part.offsets.end(offset);
            part.dirty = true;
        }
    }

    /// A record has no place here any more.
    fn forget(&mut self, sequence: u64) -> Option<Place> {
        let place = self.places.remove(&sequence)?;
        if let Some(line) = place.line {
            self.lines.forget(line, sequence);
        }
        Some(place)
    }

    fn uncommitted(&mut self) -> Vec<(i32, i64, String)> {
        let dirty = self.parts.iter_mut().filter(|(_, part)| part.dirty);
        dirty
            .map(|(&partition, part)| {
                part.dirty = false;
                let (offset, metadata) = part.offsets.commit();
                part.committed = Some(offset);
                (partition, offset, metadata)
            })
            .collect()
    }
}

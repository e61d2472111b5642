//! What all attempts of one delivery share, who answers for it, and the form in which a retry log keeps it.

use super::retry_log::RetryLog;
use super::{Outlet, RuleName};
use crate::ack::Pending;
use crate::envelope::{DeliveryId, Position};
use crate::time;
use serde::{Deserialize, Serialize};
use std::ops::{Deref, Range};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of an event: shared with its batch, or its own.
#[derive(Clone)]
pub enum Payload {
    /// A part of a batch's bytes.
    Shared(Arc<Vec<u8>>, Range<usize>),
    /// Bytes of its own.
    Own(Arc<[u8]>),
}

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Payload::Shared(bytes, range) => &bytes[range.clone()],
            Payload::Own(bytes) => bytes,
        }
    }
}

/// One event for one target, whatever the attempt.
pub struct Parcel {
    /// The same for every attempt, restart and instance.
    pub id: DeliveryId,
    /// The target's own dead-letter queue, if it has one.
    pub queue: Option<Arc<Outlet>>,
    /// The bus's default queue: what takes the event when nothing else does.
    pub last_resort: Arc<Outlet>,
    /// What the target receives.
    pub payload: Payload,
    /// What the sink takes from the event beside the payload: a record's key, or the subject of a message.
    pub key: Option<Payload>,
    /// The bus whose rule matched.
    pub bus: Arc<str>,
    /// Goes along as [`super::TRACE_HEADER`] where a target has headers.
    pub trace: Option<Arc<str>>,
    /// The rule; `None` for a record that is no event.
    pub rule: Option<RuleName>,
    /// The source's name.
    pub source: Arc<str>,
    /// Where the record stood in it.
    pub position: Position,
    /// When the record was read first.
    pub read_at: Instant,
    /// What it must not be overtaken by, a hash; 0 where its target keeps no order.
    pub order: u64,
    /// Its target's log, where that keeps an order.
    pub lanes: Option<Arc<RetryLog>>,
    /// The log that it may wait in, where that is not on this disk.
    pub away: Option<Arc<RetryLog>>,
    /// Attempts that had failed when the last one began.
    pub begun: AtomicU32,
    /// Who answers for it until it has ended.
    pub hold: Mutex<Hold>,
}

/// Who answers for a delivery. It moves on in one direction: from the source to a log, to its end.
pub enum Hold {
    /// The source's record is open.
    Source(Pending),
    /// The same, and a log is about to take it.
    Spilling(Pending),
    /// A log has it.
    Log {
        /// The log.
        log: Arc<RetryLog>,
        /// The record's number.
        sequence: u64,
        /// Bytes of an attempt that the log has begun.
        released: Option<u64>,
    },
    /// Nobody: it is settled.
    Ended,
}

impl Parcel {
    /// Locks who answers for it.
    pub fn hold(&self) -> MutexGuard<'_, Hold> {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The delivery has ended: settles it with whoever answers for it, once (I2).
    pub fn settle(&self) {
        let hold = std::mem::replace(&mut *self.hold(), Hold::Ended);
        match hold {
            Hold::Source(pending) | Hold::Spilling(pending) => pending.settle(),
            Hold::Log { log, sequence, released } => log.settled(sequence, released),
            Hold::Ended => return,
        }
        if let Some(lanes) = &self.lanes {
            lanes.end(self.order);
        }
    }

    /// A log is about to take it from its source. Whether its source has it.
    pub fn spill(&self) -> bool {
        let mut hold = self.hold();
        match std::mem::replace(&mut *hold, Hold::Ended) {
            Hold::Source(pending) => *hold = Hold::Spilling(pending),
            other => {
                *hold = other;
                return false;
            }
        }
        true
    }

    /// Its source is told that it is settled while a log is only about to take it; a planted fault.
    pub fn release(&self) {
        if let Hold::Spilling(pending) = std::mem::replace(&mut *self.hold(), Hold::Ended) {
            pending.settle();
        }
    }

    /// Its partition has been taken away before its turn came: its source reads it again, wherever it is read.
    pub fn abandon(&self) {
        if let Hold::Source(pending) | Hold::Spilling(pending) = std::mem::replace(&mut *self.hold(), Hold::Ended) {
            pending.settle();
        }
    }

    /// No log has taken it: its source goes on answering for it.
    pub fn give_back(&self) {
        let mut hold = self.hold();
        *hold = match std::mem::replace(&mut *hold, Hold::Ended) {
            Hold::Spilling(pending) => Hold::Source(pending),
            other => other,
        };
    }

    /// When it was read, by the wall clock, in milliseconds since the epoch.
    pub fn read_millis(&self) -> i64 {
        time::wall_millis() - i64::try_from(self.read_at.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    /// The form in which a log keeps it: what is known of it, its key, its payload.
    pub fn encode(&self, attempts: Attempts) -> Vec<u8> {
        let rule = self.rule.as_ref().map(|rule| (&*rule.name, &*rule.arn));
        let kept = Kept {
            attempts,
            read_millis: self.read_millis(),
            id: self.id.0,
            bus: &self.bus,
            rule,
            source: &self.source,
            topic: &self.position.topic,
            partition: self.position.partition,
            offset: self.position.offset,
            trace: self.trace.as_deref(),
            order: self.order,
            key: self.key.as_ref().map(|key| key.len() as u64),
        };
        let room = Vec::with_capacity(self.payload.len() + self.key.as_ref().map_or(0, |key| key.len()) + 256);
        // Only a serializer without room fails.
        let mut body = postcard::to_extend(&kept, room).unwrap_or_default();
        if let Some(key) = &self.key {
            body.extend_from_slice(key);
        }
        body.extend_from_slice(&self.payload);
        body
    }
}

/// How far a delivery has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempts {
    /// Attempts that failed.
    pub failed: u32,
    /// When the next one is due, in milliseconds since the epoch.
    pub due_millis: i64,
}

impl Attempts {
    /// The note of a record whose attempts have gone on.
    pub fn note(&self) -> Vec<u8> {
        postcard::to_extend(self, Vec::new()).unwrap_or_default()
    }

    /// Reads a note.
    pub fn from_note(note: &[u8]) -> Option<Self> {
        postcard::from_bytes(note).ok()
    }
}

/// What stands in front of key and payload.
#[derive(Serialize, Deserialize)]
pub struct Kept<'a> {
    /// As of when it was put.
    pub attempts: Attempts,
    read_millis: i64,
    id: u128,
    /// The bus whose rule matched.
    pub bus: &'a str,
    rule: Option<(&'a str, &'a str)>,
    source: &'a str,
    topic: &'a str,
    partition: i32,
    offset: i64,
    trace: Option<&'a str>,
    /// As [`Parcel::order`].
    pub order: u64,
    key: Option<u64>,
}

impl<'a> Kept<'a> {
    /// Reads a body: what is known, and key and payload, end to end.
    pub fn decode(body: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (kept, rest): (Self, _) = postcard::take_from_bytes(body).ok()?;
        (kept.key.unwrap_or(0) <= rest.len() as u64).then_some((kept, rest))
    }

    /// The delivery's id.
    pub fn id(&self) -> u128 {
        self.id
    }

    /// What comes first where an order is kept: the place in the source.
    pub fn rank(&self) -> i64 {
        self.offset
    }

    /// The parcel again, for its target's queue and its bus's, from the log that has it.
    pub fn parcel(
        &self,
        rest: &[u8],
        (queue, last_resort): (Option<Arc<Outlet>>, Arc<Outlet>),
        log: Arc<RetryLog>,
        hold: Hold,
    ) -> Parcel {
        let (key, payload) = rest.split_at(self.key.unwrap_or(0) as usize);
        let own = |bytes: &[u8]| Payload::Own(Arc::from(bytes));
        let now = time::now();
        let age = Duration::from_millis(u64::try_from(time::wall_millis() - self.read_millis).unwrap_or(0));
        Parcel {
            id: DeliveryId(self.id),
            queue,
            last_resort,
            payload: own(payload),
            key: self.key.map(|_| own(key)),
            bus: self.bus.into(),
            trace: self.trace.map(Into::into),
            rule: self.rule.map(|(name, arn)| RuleName { name: name.into(), arn: arn.into() }),
            source: self.source.into(),
            position: Position { topic: self.topic.into(), partition: self.partition, offset: self.offset },
            read_at: now.checked_sub(age).unwrap_or(now),
            order: self.order,
            lanes: (self.order != 0).then_some(log),
            away: None,
            begun: AtomicU32::new(self.attempts.failed),
            hold: Mutex::new(hold),
        }
    }
}

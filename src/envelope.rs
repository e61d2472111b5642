//! Events on their way from a source to a worker: envelopes in batches, batches in lanes.
//!
//! A batch's bytes are shared by everything that is made of it, so an untouched payload is never copied (I5).

use crate::ack::Receipt;
use crate::catalog::OnInvalid;
use crate::plan::Identity;
use crate::transform::wrap::Framing;
use crossbeam_channel::{Receiver, Sender, bounded};
use siphasher::sip128::{Hasher128, SipHasher13};
use std::collections::BTreeSet;
use std::hash::Hasher;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// What the names of replays' sources begin with. Their first attempts keep the order in which they are sent.
pub const REPLAY_SOURCE: &str = "replay/";

/// Where a call's trace goes along with a record.
pub const TRACE_HEADER: &str = "X-Amzn-Trace-Id";

/// Which rules of its bus an event meets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Aim {
    /// Those whose patterns match.
    #[default]
    Matching,
    /// The same, but of these alone: what is replayed to chosen rules.
    Among(BTreeSet<String>),
    /// This one, whatever its pattern: its schedule has fired.
    Fired(String),
}

/// What every batch of a source shares.
#[derive(Debug)]
pub struct SourceInfo {
    /// The source's name.
    pub name: Arc<str>,
    /// The bus it feeds.
    pub bus: Arc<str>,
    /// How records become events.
    pub framing: Framing,
    /// What happens to invalid ones.
    pub on_invalid: OnInvalid,
    /// The target that takes them; the bus's default queue otherwise.
    pub dead_letter: Option<String>,
    /// Largest event, in bytes.
    pub event_bytes: usize,
    /// Account and region of wrapped records.
    pub identity: Identity,
    /// Which rules its events meet.
    pub aim: Aim,
}

/// Records of one source, in reading order.
pub struct Batch {
    /// Their source.
    pub source: Arc<SourceInfo>,
    /// Keys and payloads, end to end.
    pub bytes: Arc<Vec<u8>>,
    /// The records.
    pub envelopes: Vec<Envelope>,
    /// The runs of offsets they make up.
    pub runs: Vec<OpenRun>,
    /// When the batch was read.
    pub read_at: Instant,
}

/// Consecutive records of one partition.
pub struct OpenRun {
    /// The topic, file or stream.
    pub topic: Arc<str>,
    /// The partition within it.
    pub partition: i32,
    /// Completes when every delivery of the run is settled.
    pub receipt: Receipt,
}

/// One record.
pub struct Envelope {
    /// Into [`Batch::bytes`].
    pub payload: Range<usize>,
    /// Into [`Batch::bytes`].
    pub key: Option<Range<usize>>,
    /// Only where the framing reads them.
    pub headers: Vec<(String, Vec<u8>)>,
    /// What ties the event to the call that brought it: passed on as [`TRACE_HEADER`], no part of the event.
    pub trace: Option<Arc<str>>,
    /// Into [`Batch::runs`].
    pub run: usize,
    /// Position within the partition.
    pub offset: i64,
    /// The record's own time, milliseconds since the epoch.
    pub time_millis: i64,
}

/// Where a record stood in its source: the stable half of a delivery id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Topic, file or stream.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

/// What a delivery must not be overtaken by: those with the same key, or without one of the same partition. Never 0.
pub fn order(key: Option<&[u8]>, position: &Position) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(0x736c_7569_6365, 2);
    hasher.write(position.topic.as_bytes());
    match key {
        Some(key) => hasher.write(key),
        None => hasher.write_i32(position.partition),
    }
    hasher.finish128().h1.max(1)
}

/// A way through chained buses, one step longer: by the `nth` target of a rule.
pub fn way(before: u64, rule: &str, nth: usize) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(0x736c_7569_6365, before);
    hasher.write(rule.as_bytes());
    hasher.write_usize(nth);
    hasher.finish128().h1.max(1)
}

/// 128 bits that name one delivery for good: a re-read record gives the same ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId(pub u128);

impl DeliveryId {
    /// The id of a delivery of the record at `position` of a source, arrived on `bus`, by `rule` of the bus `rule_bus`, to
    /// `target`, its `nth` of this rule. `way` tells apart several ways through chained buses; 0 is none.
    pub fn new(
        (source, position): (&str, &Position),
        bus: &str,
        (rule_bus, rule): (&str, &str),
        (target, nth): (&str, usize),
        way: u64,
    ) -> Self {
        let mut hasher = SipHasher13::new_with_keys(0x736c_7569_6365, 1);
        for part in [source, &position.topic, bus, rule_bus, rule, target] {
            hasher.write_usize(part.len());
            hasher.write(part.as_bytes());
        }
        hasher.write_i32(position.partition);
        hasher.write_i64(position.offset);
        hasher.write_usize(nth);
        hasher.write_u64(way);
        Self(hasher.finish128().as_u128())
    }
}

impl std::fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The queues to the workers. One partition always takes the same lane (I8).
#[derive(Clone)]
pub struct Lanes {
    senders: Vec<Sender<Batch>>,
}

/// Batches that one lane holds. Workers never block, so a full lane soon has room.
pub const LANE_BATCHES: usize = 4;

impl Lanes {
    /// Lanes for `workers` workers, and the workers' ends.
    pub fn new(workers: usize) -> (Self, Vec<Receiver<Batch>>) {
        let (senders, receivers) = (0..workers).map(|_| bounded(LANE_BATCHES)).unzip();
        (Self { senders }, receivers)
    }

    /// How many lanes there are.
    pub fn count(&self) -> usize {
        self.senders.len()
    }

    /// Sends a batch down a lane, waiting for room. `false` when the worker is gone.
    pub fn send(&self, lane: usize, batch: Batch) -> bool {
        self.senders[lane % self.senders.len()].send(batch).is_ok()
    }
}

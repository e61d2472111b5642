//! Records on their way into batches, one open batch a lane.

use super::Setup;
use crate::ack::{OffsetTracker, Receipt, Report};
use crate::credit::Credit;
use crate::envelope::{Batch, Envelope, Lanes, OpenRun, TRACE_HEADER};
use crate::time;
use std::ops::Range;
use std::sync::Arc;

/// Records and bytes after which a batch is sent.
const BATCH_EVENTS: usize = 256;
const BATCH_BYTES: usize = 256 << 10;

/// A record as a source reads it.
pub struct Reading<'a> {
    pub topic: &'a Arc<str>,
    /// Number within the topic.
    pub partition: i32,
    /// Number in the tracker.
    pub number: u32,
    /// Where the record stands in its topic.
    pub offset: i64,
    /// What the tracker counts it by: ascending within its number. The offset, where offsets ascend.
    pub order: i64,
    pub key: Option<&'a [u8]>,
    pub payload: &'a [u8],
    pub headers: Vec<(String, Vec<u8>)>,
    pub time_millis: i64,
}

/// Consecutive records of a partition, not yet in flight.
struct Gathered {
    topic: Arc<str>,
    partition: i32,
    number: u32,
    generation: u32,
    last: i64,
    events: u32,
    bytes: u64,
}

#[derive(Default)]
struct Draft {
    bytes: Vec<u8>,
    envelopes: Vec<Envelope>,
    runs: Vec<Gathered>,
}

/// The open batches of one source.
pub struct Gather<'a> {
    setup: &'a Setup,
    lanes: &'a Lanes,
    drafts: Vec<Draft>,
    report: Arc<Report>,
    credit: Arc<Credit>,
    /// Bytes of the largest batch of late: what a new one makes room for.
    expected: usize,
    /// Its events.
    expected_events: usize,
}

impl<'a> Gather<'a> {
    pub fn new(setup: &'a Setup, lanes: &'a Lanes, report: &Arc<Report>, credit: &Arc<Credit>) -> Self {
        let drafts = (0..lanes.count()).map(|_| Draft::default()).collect();
        let (report, credit) = (Arc::clone(report), Arc::clone(credit));
        Self { setup, lanes, drafts, report, credit, expected: 0, expected_events: 0 }
    }

    /// Adds a record; returns whether its batch is full.
    pub fn push(&mut self, reading: Reading<'_>, tracker: &OffsetTracker) -> bool {
        let lane = reading.number as usize % self.drafts.len();
        let draft = &mut self.drafts[lane];
        if draft.envelopes.is_empty() {
            // Few sizes: the allocator keeps pages of each for every thread.
            draft.bytes.reserve(self.expected.next_power_of_two());
            draft.envelopes.reserve(self.expected_events.next_power_of_two());
        }
        let size = reading.payload.len() + reading.key.map_or(0, <[u8]>::len);
        let generation = tracker.generation(reading.number);
        let known = draft.runs.iter().position(|run| run.number == reading.number && run.generation == generation);
        let run = known.unwrap_or_else(|| {
            draft.runs.push(Gathered {
                topic: Arc::clone(reading.topic),
                partition: reading.partition,
                number: reading.number,
                generation,
                last: reading.order,
                events: 0,
                bytes: 0,
            });
            draft.runs.len() - 1
        });
        let gathered = &mut draft.runs[run];
        (gathered.last, gathered.events) = (reading.order, gathered.events + 1);
        gathered.bytes += size as u64;
        let trace = if self.setup.keeps_http { trace(&reading.headers) } else { None };
        let key = reading.key.map(|key| append(&mut draft.bytes, key));
        let payload = append(&mut draft.bytes, reading.payload);
        let envelope = Envelope {
            payload,
            key,
            headers: reading.headers,
            trace,
            run,
            offset: reading.offset,
            time_millis: reading.time_millis,
        };
        draft.envelopes.push(envelope);
        draft.envelopes.len() >= BATCH_EVENTS || draft.bytes.len() >= BATCH_BYTES
    }

    /// Sends what has gathered. Records of an assignment that has ended are dropped: their new owner reads them.
    /// `false` when the workers are gone.
    pub fn flush(&mut self, tracker: &mut OffsetTracker) -> bool {
        let read_at = time::now();
        for (lane, draft) in self.drafts.iter_mut().enumerate() {
            if draft.envelopes.is_empty() {
                continue;
            }
            let mut draft = std::mem::take(draft);
            self.expected = draft.bytes.len().max(self.expected - self.expected / 16);
            self.expected_events = draft.envelopes.len().max(self.expected_events - self.expected_events / 16);
            let current =
                |run: &Gathered| tracker.assigned(run.number) && tracker.generation(run.number) == run.generation;
            if !draft.runs.iter().all(current) {
                draft = draft.keep(|run| current(run));
            }
            let runs: Vec<OpenRun> = draft
                .runs
                .into_iter()
                .map(|run| {
                    let opened = tracker.open(run.number, run.last + 1, run.events, run.bytes);
                    let receipt = Receipt::open(opened, &self.report, &self.credit);
                    OpenRun { topic: run.topic, partition: run.partition, receipt }
                })
                .collect();
            let source = Arc::clone(&self.setup.info);
            let bytes = Arc::new(draft.bytes);
            let batch = Batch { source, bytes, envelopes: draft.envelopes, runs, read_at };
            if !batch.runs.is_empty() && !self.lanes.send(lane, batch) {
                return false;
            }
        }
        true
    }
}

impl Draft {
    fn keep(mut self, current: impl Fn(&Gathered) -> bool) -> Self {
        let mut renumbered = Vec::with_capacity(self.runs.len());
        let mut kept = 0;
        for run in &self.runs {
            let stays = current(run);
            renumbered.push(stays.then_some(kept));
            kept += usize::from(stays);
        }
        self.runs.retain(|run| current(run));
        self.envelopes.retain_mut(|envelope| match renumbered[envelope.run] {
            Some(run) => {
                envelope.run = run;
                true
            }
            None => false,
        });
        self
    }
}

/// The trace of the call that brought a record.
fn trace(headers: &[(String, Vec<u8>)]) -> Option<Arc<str>> {
    let (_, trace) = headers.iter().find(|(name, _)| name == TRACE_HEADER)?;
    std::str::from_utf8(trace).ok().map(Into::into)
}

fn append(bytes: &mut Vec<u8>, part: &[u8]) -> Range<usize> {
    let start = bytes.len();
    bytes.extend_from_slice(part);
    start..bytes.len()
}

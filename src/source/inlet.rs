//! Events that come over HTTP: kept in the journal before their requests are answered, then routed.
//!
//! In: [`Arrival`]s, and what an earlier process left. Out: batches in which each event is a run of its own, and for each
//! arrival a word when it is kept. Promises: a kept event is routed, and given up by the journal only when it is settled;
//! nothing is routed without credit (I7); an event whose caller has gone is routed all the same. What the buffer has no
//! room for is read back from the journal. Leaves to others: what a request means (`api`).

use super::room::{Room, Taken};
use super::{Feed, Stop};
use crate::ack::{Receipt, Report, Run};
use crate::credit::{Credit, Window};
use crate::envelope::{Batch, Envelope, Lanes, OpenRun, REPLAY_SOURCE, SourceInfo};
use crate::journal::{Journal, JournalError, Live, Reserve};
use crate::metrics::{Metrics, labels};
use crate::planted::{self, Bug};
use crate::time;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::oneshot;

/// How often the thread without anything to do looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(50);
/// How long the journal may take at the end to write what is done with.
const FLUSH: Duration = Duration::from_secs(1);
/// A batch's events, and bytes beyond which it takes no more.
const BATCH: (usize, usize) = (256, 256 << 10);
/// The partition of runs that the journal keeps, and of those that only memory has.
const KEPT: u32 = 0;
const IN_MEMORY: u32 = 1;

/// An event as it comes in; its bytes are an EventBridge event.
pub struct Arrival {
    /// Source and bus.
    pub info: Arc<SourceInfo>,
    /// Unique: what its delivery ids are made of.
    pub id: Arc<str>,
    /// The event.
    pub event: Vec<u8>,
    /// Passed on with its deliveries as `X-Amzn-Trace-Id`.
    pub trace: Option<Arc<str>>,
}

impl Arrival {
    /// Counts it as received.
    pub(super) fn count(&self, metrics: &Metrics) {
        // Schedules share a series, and so do replays.
        let own = labels([("source", self.info.name.split('/').next().unwrap_or_default())]);
        metrics.families.source_events.get_or_create(&own).inc();
        metrics.families.source_bytes.get_or_create(&own).inc_by(self.event.len() as u64);
    }
}

/// Why an event was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// There was no room for it in memory.
    Busy,
    /// It was not on the disk in time; it may still be routed.
    Late,
    /// The process is about to end.
    Draining,
    /// The journal does not take it.
    Journal(String),
    /// The broker does not say that it has it.
    Broker(String),
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Busy => "too many events are in flight; try again later",
            Self::Late => "the event was not kept in time; it may still be delivered",
            Self::Draining => "the process is about to end; try again",
            Self::Journal(why) | Self::Broker(why) => why,
        })
    }
}

/// Where requests leave their events.
#[derive(Clone)]
pub struct Inlet(Arc<Shared>);

struct Shared {
    journal: Journal<Ticket>,
    ready: Sender<Ready>,
    report: Arc<Report>,
    credit: Arc<Credit>,
    window: Window,
    /// Bytes of events that wait in memory for their turn.
    waiting: AtomicU64,
    /// Arrivals that the journal is about to keep.
    arriving: AtomicU64,
    /// For events that only memory has.
    room: Room,
    in_memory: Mutex<HashMap<u64, Taken>>,
    next: AtomicU64,
    stop: Stop,
    metrics: Arc<Metrics>,
}

struct Ticket {
    arrival: Arrival,
    word: oneshot::Sender<Result<(), JournalError>>,
}

/// An event whose turn comes.
struct Ready {
    partition: u32,
    sequence: u64,
    /// `None` where it is to be read back.
    arrival: Option<Arrival>,
}

/// What the journal keeps in front of an event.
#[derive(Serialize, Deserialize)]
struct Kept<'a> {
    source: &'a str,
    bus: &'a str,
    id: &'a str,
    trace: Option<&'a str>,
}

/// The inlet's end at the lanes.
pub struct InletSource {
    inlet: Inlet,
    ready: Receiver<Ready>,
    /// What did not fit into the last batch.
    next: Option<(Ready, Arrival)>,
    /// Finds the source of an event that is read back: by name and bus.
    known: Known,
}

/// Finds a source by its name and bus; `None` where there is none any more.
pub type Known = Box<dyn Fn(&str, &str) -> Option<Arc<SourceInfo>> + Send>;

impl Inlet {
    /// An inlet and its end at the lanes, on the journal in `folder`.
    ///
    /// # Errors
    /// [`JournalError::Unusable`].
    pub fn new(
        (folder, max_bytes, reserve): (&Path, u64, &Arc<Reserve>),
        window: Window,
        known: Known,
        feed: &Feed,
    ) -> Result<(Self, InletSource), JournalError> {
        let me: Arc<OnceLock<Weak<Shared>>> = Arc::default();
        let outcome = {
            let me = Arc::clone(&me);
            Box::new(move |kept: Vec<(Ticket, u64)>, result: Result<(), JournalError>| {
                if let Some(shared) = me.get().and_then(Weak::upgrade) {
                    shared.kept(kept, &result);
                }
            })
        };
        let (journal, found) = Journal::open(("sluice-journal", folder), max_bytes, reserve, outcome)?;
        let skipped = feed.metrics.families.journal_skipped.get_or_create_owned(&labels([("target", "")]));
        skipped.inc_by(found.skipped);
        // Bounded by the journal: 24 bytes a record, and by `waiting` what they hold.
        let (ready, at_lanes) = unbounded();
        let shared = Arc::new(Shared {
            journal,
            ready,
            report: Arc::default(),
            credit: Arc::new(Credit::new(window)),
            window,
            waiting: AtomicU64::new(0),
            arriving: AtomicU64::new(0),
            room: Room::new(window),
            in_memory: Mutex::default(),
            next: AtomicU64::new(0),
            stop: feed.stop.clone(),
            metrics: Arc::clone(&feed.metrics),
        });
        me.get_or_init(|| Arc::downgrade(&shared));
        if !found.live.is_empty() || found.skipped > 0 {
            let (skipped, cut) = (found.skipped, found.cut);
            tracing::info!(events = found.live.len(), skipped, cut, "the journal has events from before");
        }
        for Live { sequence, .. } in found.live {
            shared.ready(Ready { partition: KEPT, sequence, arrival: None });
        }
        let inlet = Self(shared);
        Ok((inlet.clone(), InletSource { inlet, ready: at_lanes, next: None, known }))
    }

    /// Takes an event and waits until the journal has it, `deadline` at most.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn keep(&self, arrival: Arrival, deadline: tokio::time::Instant) -> Result<(), Refused> {
        let shared = &self.0;
        // Counted before it is asked whether there is an end in sight: the end waits for those counted.
        shared.arriving.fetch_add(1, Ordering::AcqRel);
        if shared.stop.is_set() {
            shared.arriving.fetch_sub(1, Ordering::AcqRel);
            return Err(Refused::Draining);
        }
        arrival.count(&shared.metrics);
        let (word, kept) = oneshot::channel();
        let early = planted::on(Bug::AnswerBeforeSync);
        let body = encode(&arrival);
        if let Err((_, error)) = shared.journal.put(body, Ticket { arrival, word }) {
            shared.arriving.fetch_sub(1, Ordering::AcqRel);
            return Err(Refused::Journal(error.to_string()));
        }
        if early {
            return Ok(());
        }
        match tokio::time::timeout_at(deadline, kept).await {
            Ok(Ok(result)) => result.map_err(|error| Refused::Journal(error.to_string())),
            _ => Err(Refused::Late),
        }
    }

    /// Takes an event into memory alone, waiting for room until `deadline`: it is lost if the process dies.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn remember(&self, arrival: Arrival, deadline: tokio::time::Instant) -> Result<(), Refused> {
        let shared = &self.0;
        let room = shared.room.take(arrival.event.len(), deadline).await?;
        shared.arriving.fetch_add(1, Ordering::AcqRel);
        let stopping = shared.stop.is_set();
        if !stopping {
            arrival.count(&shared.metrics);
            let sequence = shared.next.fetch_add(1, Ordering::Relaxed);
            shared.in_memory().insert(sequence, room);
            shared.ready(Ready { partition: IN_MEMORY, sequence, arrival: Some(arrival) });
        }
        shared.arriving.fetch_sub(1, Ordering::AcqRel);
        if stopping { Err(Refused::Draining) } else { Ok(()) }
    }
}

impl Shared {
    fn in_memory(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Taken>> {
        self.in_memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ready(&self, ready: Ready) {
        // The other end goes only with the process.
        self.ready.send(ready).unwrap_or_default();
    }

    /// Hears what has become of arrivals.
    fn kept(&self, kept: Vec<(Ticket, u64)>, result: &Result<(), JournalError>) {
        for (Ticket { arrival, word }, sequence) in kept {
            if result.is_ok() {
                let bytes = arrival.event.len() as u64;
                let room = self.waiting.load(Ordering::Relaxed) + bytes <= self.window.bytes;
                if room {
                    self.waiting.fetch_add(bytes, Ordering::Relaxed);
                }
                self.ready(Ready { partition: KEPT, sequence, arrival: room.then_some(arrival) });
            }
            self.arriving.fetch_sub(1, Ordering::AcqRel);
            // A caller that has gone does not hear it.
            word.send(result.clone()).unwrap_or_default();
        }
    }

    /// Gives up what is settled.
    fn settle(&self, runs: Vec<Run>) {
        for run in runs {
            match run.partition {
                KEPT => self.journal.remove(run.sequence),
                _ => drop(self.in_memory().remove(&run.sequence)),
            }
        }
    }
}

fn encode(arrival: &Arrival) -> Vec<u8> {
    let info = &arrival.info;
    let kept = Kept { source: &info.name, bus: &info.bus, id: &arrival.id, trace: arrival.trace.as_deref() };
    // Only a serializer without room fails.
    let mut body = postcard::to_extend(&kept, Vec::with_capacity(arrival.event.len() + 128)).unwrap_or_default();
    body.extend_from_slice(&arrival.event);
    body
}

impl InletSource {
    /// Passes events to the lanes in turn, until everything is settled after [`Stop`].
    pub fn run(mut self, lanes: &Lanes) {
        let shared = Arc::clone(&self.inlet.0);
        let in_flight = shared.metrics.families.source_in_flight.get_or_create_owned(&labels([("source", "http")]));
        let (mut lane, mut trouble) = (0, None);
        loop {
            shared.settle(shared.report.take(Duration::ZERO));
            let now = shared.journal.trouble();
            if now != trouble {
                shared.metrics.health.note("journal", now.clone());
                trouble = now;
            }
            in_flight.set(shared.credit.events());
            if shared.credit.exhausted() {
                shared.report.wait(LOOK);
                continue;
            }
            let idle = || shared.arriving.load(Ordering::Acquire) == 0 && shared.credit.events() == 0;
            let stopped = shared.stop.is_set() && idle();
            match self.first() {
                Ok(Some(first)) => {
                    let batch = self.batch(first);
                    // One lane for all replays, so that their events stay in order.
                    let ordered = batch.source.name.starts_with(REPLAY_SOURCE);
                    if !lanes.send(if ordered { 0 } else { lane }, batch) {
                        return;
                    }
                    lane = (lane + 1) % lanes.count();
                }
                Ok(None) => {}
                Err(RecvTimeoutError::Timeout) if stopped => {
                    shared.settle(shared.report.take(Duration::ZERO));
                    shared.journal.flush(time::now() + FLUSH);
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// What a batch begins with; `None` where it could not be read back.
    fn first(&mut self) -> Result<Option<(Ready, Arrival)>, RecvTimeoutError> {
        match self.next.take() {
            Some(next) => Ok(Some(next)),
            None => self.ready.recv_timeout(LOOK).map(|ready| self.arrival(ready)),
        }
    }

    /// A batch of what is ready, of one source and bus.
    fn batch(&mut self, (ready, first): (Ready, Arrival)) -> Batch {
        let mut batch = Batch {
            source: Arc::clone(&first.info),
            bytes: Arc::default(),
            envelopes: Vec::new(),
            runs: Vec::new(),
            read_at: time::now(),
        };
        let mut bytes = Vec::new();
        self.add(&mut batch, &mut bytes, &ready, first);
        while batch.envelopes.len() < BATCH.0 && bytes.len() < BATCH.1 {
            let Ok(ready) = self.ready.try_recv() else { break };
            let Some((ready, arrival)) = self.arrival(ready) else { continue };
            if arrival.info.name != batch.source.name || arrival.info.bus != batch.source.bus {
                self.next = Some((ready, arrival));
                break;
            }
            self.add(&mut batch, &mut bytes, &ready, arrival);
        }
        batch.bytes = Arc::new(bytes);
        batch
    }

    fn add(&self, batch: &mut Batch, bytes: &mut Vec<u8>, ready: &Ready, arrival: Arrival) {
        let (start, len) = (bytes.len(), arrival.event.len());
        bytes.extend_from_slice(&arrival.event);
        let shared = &self.inlet.0;
        let run = Run {
            partition: ready.partition,
            generation: 0,
            sequence: ready.sequence,
            after: 0,
            events: 1,
            bytes: len as u64,
        };
        let receipt = Receipt::open(run, &shared.report, &shared.credit);
        batch.envelopes.push(Envelope {
            payload: start..start + len,
            key: None,
            headers: Vec::new(),
            trace: arrival.trace,
            run: batch.runs.len(),
            offset: 0,
            time_millis: time::wall_millis(),
        });
        batch.runs.push(OpenRun { topic: arrival.id, partition: 0, receipt });
    }

    /// An event whose turn has come, read back where memory does not have it. To be asked once for each.
    fn arrival(&self, mut ready: Ready) -> Option<(Ready, Arrival)> {
        let shared = &self.inlet.0;
        if let Some(arrival) = ready.arrival.take() {
            if ready.partition == KEPT {
                shared.waiting.fetch_sub(arrival.event.len() as u64, Ordering::Relaxed);
            }
            return Some((ready, arrival));
        }
        let body = match shared.journal.read(ready.sequence) {
            Ok(body) => body,
            Err(error) => {
                tracing::error!(sequence = ready.sequence, "an event of the journal is lost: {error}");
                shared.metrics.families.journal_skipped.get_or_create(&labels([("target", "")])).inc();
                shared.journal.remove(ready.sequence);
                return None;
            }
        };
        let Ok((kept, event)) = postcard::take_from_bytes::<Kept<'_>>(&body) else {
            tracing::error!(sequence = ready.sequence, "an event of the journal is of another version; it stays there");
            return None;
        };
        let Some(info) = (self.known)(kept.source, kept.bus) else {
            let (bus, id) = (kept.bus, kept.id);
            tracing::warn!(bus, id, "an event of the journal waits for its bus to be declared");
            return None;
        };
        let arrival = Arrival { info, id: kept.id.into(), event: event.to_vec(), trace: kept.trace.map(Into::into) };
        Some((ready, arrival))
    }
}

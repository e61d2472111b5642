//! Events that come over HTTP: each is a run of its own, so that each request hears when its events are settled.
//!
//! In: [`Arrival`]s. Out: batches of one, and for each a word when it is settled. Promises: nothing is taken without
//! credit (I7); an event whose caller has gone is routed all the same. Leaves to others: what a request means (`api`).

use super::{Feed, Stop};
use crate::ack::{Receipt, Report, Run};
use crate::credit::{Credit, Window};
use crate::envelope::{Batch, Envelope, Lanes, OpenRun, SourceInfo};
use crate::metrics::{Metrics, labels};
use crate::time;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// How often the thread without anything to do looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(50);
/// Bytes that one permit stands for.
const PERMIT_BYTES: u64 = 1024;

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

/// Why an event was not settled in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsettled {
    /// It was never taken: there was no room for it.
    Busy,
    /// It was taken and is still under way.
    Late,
    /// The process is about to end.
    Draining,
}

impl std::fmt::Display for Unsettled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Busy => "too many events are in flight; try again later",
            Self::Late => "the event was not settled in time; it may still be delivered",
            Self::Draining => "the process is about to end; try again",
        })
    }
}

/// Where requests leave their events.
#[derive(Clone)]
pub struct Inlet(Arc<Shared>);

struct Shared {
    batches: Sender<Batch>,
    report: Arc<Report>,
    credit: Arc<Credit>,
    /// Free events, and free bytes in units of [`PERMIT_BYTES`].
    room: [Arc<Semaphore>; 2],
    bytes: u64,
    open: Mutex<HashMap<u64, Open>>,
    next: AtomicU64,
    stop: Stop,
    metrics: Arc<Metrics>,
}

/// What an event holds until it is settled.
struct Open {
    _room: [OwnedSemaphorePermit; 2],
    settled: oneshot::Sender<()>,
}

/// The inlet's end at the lanes.
pub struct InletSource {
    inlet: Inlet,
    batches: Receiver<Batch>,
}

impl Inlet {
    /// An inlet and its end at the lanes. `runtime` runs what tells callers.
    pub fn new(window: Window, feed: &Feed) -> (Self, InletSource) {
        // Bounded by the permits that its events hold.
        let (batches, at_lanes) = unbounded();
        let units = usize::try_from(window.bytes / PERMIT_BYTES).unwrap_or(usize::MAX);
        let room =
            [window.events as usize, units].map(|n| Arc::new(Semaphore::new(n.clamp(1, Semaphore::MAX_PERMITS))));
        let inlet = Self(Arc::new(Shared {
            batches,
            report: Arc::default(),
            credit: Arc::new(Credit::new(window)),
            bytes: (room[1].available_permits() as u64).min(u64::from(u32::MAX)),
            room,
            open: Mutex::default(),
            next: AtomicU64::new(0),
            stop: feed.stop.clone(),
            metrics: Arc::clone(&feed.metrics),
        }));
        let tell = inlet.clone();
        feed.runtime.spawn(async move { tell.tell().await });
        (inlet.clone(), InletSource { inlet, batches: at_lanes })
    }

    /// Takes an event and waits until it is settled, `deadline` at most.
    ///
    /// # Errors
    /// [`Unsettled`].
    pub async fn settle(&self, arrival: Arrival, deadline: tokio::time::Instant) -> Result<(), Unsettled> {
        let shared = &self.0;
        let units = (arrival.event.len() as u64 / PERMIT_BYTES + 1).min(shared.bytes) as u32;
        let room = async {
            let events = Arc::clone(&shared.room[0]).acquire_owned().await;
            let bytes = Arc::clone(&shared.room[1]).acquire_many_owned(units).await;
            events.ok().zip(bytes.ok())
        };
        let room = tokio::time::timeout_at(deadline, room).await.ok().flatten().ok_or(Unsettled::Busy)?;
        if shared.stop.is_set() {
            return Err(Unsettled::Draining);
        }
        let own = labels([("source", &arrival.info.name)]);
        let families = &shared.metrics.families;
        families.source_events.get_or_create(&own).inc();
        families.source_bytes.get_or_create(&own).inc_by(arrival.event.len() as u64);
        let (settled, word) = oneshot::channel();
        let sequence = shared.next.fetch_add(1, Ordering::Relaxed);
        let open = Open { _room: [room.0, room.1], settled };
        shared.open.lock().unwrap_or_else(PoisonError::into_inner).insert(sequence, open);
        // Nothing is waited for between taking the event and passing it on: a caller may go at any time.
        if shared.batches.send(shared.batch(sequence, arrival)).is_err() {
            shared.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&sequence);
            return Err(Unsettled::Draining);
        }
        match tokio::time::timeout_at(deadline, word).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Unsettled::Late),
        }
    }

    /// Tells callers that their events are settled.
    async fn tell(&self) {
        loop {
            for run in self.0.report.next().await {
                let open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&run.sequence);
                // A caller that has gone does not hear it.
                if let Some(open) = open {
                    open.settled.send(()).unwrap_or_default();
                }
            }
        }
    }

    fn idle(&self) -> bool {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl Shared {
    fn batch(&self, sequence: u64, arrival: Arrival) -> Batch {
        let bytes = arrival.event.len();
        let run = Run { partition: 0, generation: 0, sequence, after: 0, events: 1, bytes: bytes as u64 };
        let receipt = Receipt::open(run, &self.report, &self.credit);
        let envelope = Envelope {
            payload: 0..bytes,
            key: None,
            headers: Vec::new(),
            trace: arrival.trace,
            run: 0,
            offset: 0,
            time_millis: time::wall_millis(),
        };
        Batch {
            source: arrival.info,
            bytes: Arc::new(arrival.event),
            envelopes: vec![envelope],
            runs: vec![OpenRun { topic: arrival.id, partition: 0, receipt }],
            read_at: time::now(),
        }
    }
}

impl InletSource {
    /// Passes events to the lanes in turn, until everything is settled after [`Stop`].
    pub fn run(self, lanes: &Lanes) {
        let in_flight =
            self.inlet.0.metrics.families.source_in_flight.get_or_create_owned(&labels([("source", "http")]));
        let mut lane = 0;
        loop {
            match self.batches.recv_timeout(LOOK) {
                Ok(batch) => {
                    if !lanes.send(lane, batch) {
                        return;
                    }
                    lane = (lane + 1) % lanes.count();
                    in_flight.set(self.inlet.0.credit.events());
                }
                Err(RecvTimeoutError::Timeout) if self.inlet.0.stop.is_set() && self.inlet.idle() => return,
                Err(RecvTimeoutError::Timeout) => {
                    in_flight.set(self.inlet.0.credit.events());
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

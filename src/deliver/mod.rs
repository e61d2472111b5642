//! From a matched event to its settled delivery: outlets, attempts, retries, dead letters.
//!
//! In: [`Delivery`]s from workers. Out: settled [`Pending`]s. Promises: `submit` never blocks; a delivery settles
//! exactly once (I2), by an outcome that is written down, never by being dropped. Leaves to others: what is delivered
//! (`worker`), when offsets are committed (`source`).

pub mod blocked;
pub mod dead_letter;
pub mod dispatcher;
pub mod http;
pub mod kafka;
pub mod log;
pub mod nats;
mod notice;
pub mod retry;
mod timer;

pub use dispatcher::{Dispatcher, Outlets};
pub use timer::Timer;

use crate::ack::Pending;
use crate::catalog::RetryPolicy;
use crate::envelope::{DeliveryId, Position};
use crate::metrics::{Latency, Metrics, labels};
use crate::tap::{Seen, Stage, Taps};
use crate::time;
use blocked::{Letters, Queues};
use dead_letter::Letter;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use retry::{Class, Failure, Next};
use std::ops::{Deref, Range};
use std::sync::Arc;
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

impl Payload {
    /// Lets go of the batch.
    fn detach(&mut self) {
        if let Payload::Shared(..) = self {
            *self = Payload::Own(Arc::from(&**self));
        }
    }
}

/// The header that ties a delivery to the call that brought its event.
pub const TRACE_HEADER: &str = "X-Amzn-Trace-Id";

/// The rule that a delivery is for.
#[derive(Clone)]
pub struct RuleName {
    /// Its name.
    pub name: Arc<str>,
    /// Its ARN.
    pub arn: Arc<str>,
}

/// One event for one target.
pub struct Delivery {
    /// The same for every attempt, restart and instance.
    pub id: DeliveryId,
    /// What runs the target.
    pub outlet: Arc<Outlet>,
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
    /// Goes along as [`TRACE_HEADER`] where a target has headers.
    pub trace: Option<Arc<str>>,
    /// The rule; `None` for a record that is no event.
    pub rule: Option<RuleName>,
    /// The source's name.
    pub source: Arc<str>,
    /// Where the record stood in it.
    pub position: Position,
    /// When the record was read.
    pub read_at: Instant,
    /// When this attempt began.
    pub attempt_at: Instant,
    /// Attempts that failed.
    pub failed: u32,
    /// Why it is a dead letter, if it is one.
    pub letter: Option<Box<Letter>>,
    /// What to settle.
    pub pending: Pending,
}

/// What runs a target: its sink, its policy, its counters. Deliveries keep it alive across reloads.
pub struct Outlet {
    /// The target's name.
    pub name: Arc<str>,
    /// Where its deliveries go.
    pub sink: Sink,
    /// When to give up.
    pub retry: RetryPolicy,
    /// Where failed attempts wait.
    timer: Arc<Timer>,
    metrics: OutletMetrics,
    taps: Arc<Taps>,
    /// Dead letters on their way into it.
    letters: Arc<Letters>,
}

/// What all outlets share.
pub struct Shared {
    /// Where failed attempts wait.
    pub timer: Arc<Timer>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Who watches.
    pub taps: Arc<Taps>,
    /// Dead letters that wait.
    pub queues: Arc<Queues>,
}

/// Everything that can take deliveries. Matched in one place: [`Outlet::submit`].
pub enum Sink {
    /// A topic.
    Kafka(kafka::TopicSink),
    /// A subject.
    Nats(nats::SubjectSink),
    /// An endpoint.
    Http(http::HttpSink),
    /// Lines in files, or on standard output.
    Log(log::LineSink),
}

struct OutletMetrics {
    delivered: Counter,
    dead_lettered: Counter,
    attempts: Counter,
    in_flight: Gauge,
    duration: Latency,
    age: Latency,
    metrics: Arc<Metrics>,
}

impl OutletMetrics {
    fn new(metrics: &Arc<Metrics>, target: &str) -> Self {
        let families = &metrics.families;
        let own = labels([("target", target)]);
        let outcome = |outcome| {
            families.target_deliveries.get_or_create_owned(&labels([("target", target), ("outcome", outcome)]))
        };
        Self {
            delivered: outcome("delivered"),
            dead_lettered: outcome("dead_lettered"),
            attempts: families.target_attempts.get_or_create_owned(&own),
            in_flight: families.target_in_flight.get_or_create_owned(&own),
            duration: families.target_duration.get_or_create_owned(&own),
            age: families.event_age.get_or_create_owned(&own),
            metrics: Arc::clone(metrics),
        }
    }

    /// A dead letter was not taken.
    fn not_kept(&self, queue: &str) {
        self.metrics.families.dlq_write_errors.get_or_create(&labels([("target", queue)])).inc();
    }
}

impl Outlet {
    /// An outlet for `sink`.
    pub fn new(name: &str, sink: Sink, retry: RetryPolicy, shared: &Shared) -> Arc<Self> {
        let name: Arc<str> = name.into();
        Arc::new(Self {
            letters: shared.queues.letters(&name),
            sink,
            retry,
            timer: Arc::clone(&shared.timer),
            metrics: OutletMetrics::new(&shared.metrics, &name),
            name,
            taps: Arc::clone(&shared.taps),
        })
    }

    /// Starts an attempt. Never blocks: what the sink has no room for waits in a queue that the source's credit
    /// bounds (I7, I11).
    pub fn submit(mut delivery: Delivery) {
        delivery.attempt_at = time::now();
        let outlet = Arc::clone(&delivery.outlet);
        outlet.metrics.attempts.inc();
        outlet.metrics.in_flight.inc();
        if delivery.letter.is_some() && delivery.failed == 0 {
            outlet.letters.came(delivery.attempt_at);
        }
        match &outlet.sink {
            Sink::Kafka(topic) => topic.submit(delivery),
            Sink::Nats(subject) => subject.submit(delivery),
            Sink::Http(endpoint) => endpoint.submit(delivery),
            Sink::Log(lines) => lines.submit(delivery),
        }
    }
}

impl Delivery {
    /// Ends an attempt: settles, waits for the next one, or becomes a dead letter.
    pub fn finish(mut self, result: Result<(), Failure>) {
        let outlet = Arc::clone(&self.outlet);
        outlet.metrics.in_flight.dec();
        let now = time::now();
        let failure = match result {
            Ok(()) => {
                outlet.metrics.duration.record(now.duration_since(self.attempt_at), 1);
                outlet.metrics.age.record(now.duration_since(self.read_at), 1);
                outlet.metrics.delivered.inc();
                if self.letter.is_some() {
                    outlet.letters.left(self.failed > 0, now);
                }
                if outlet.taps.any() {
                    self.show(&outlet);
                }
                return self.pending.settle();
            }
            Err(failure) => failure,
        };
        self.failed += 1;
        let (policy, class) = match self.letter {
            // A dead letter that its queue can never take goes to the bus's own.
            Some(_) if failure.class == Class::Permanent && !Arc::ptr_eq(&outlet, &self.last_resort) => {
                notice::report(&outlet.name, &failure);
                outlet.metrics.not_kept(&outlet.name);
                outlet.letters.left(self.failed > 1, now);
                self.failed = 0;
                self.outlet = Arc::clone(&self.last_resort);
                return Outlet::submit(self);
            }
            // Otherwise it is tried until it is kept.
            Some(_) => (RetryPolicy { max_attempts: u32::MAX, max_age: Duration::MAX, ..outlet.retry }, Class::Retry),
            None => (outlet.retry, failure.class),
        };
        let age = now.duration_since(self.read_at);
        match retry::next(&policy, self.failed - 1, age, class, retry::jitter(self.id, self.failed)) {
            Next::Again(delay) => self.wait(&outlet, &failure, now + delay.max(failure.pause)),
            Next::DeadLetter(exhausted) => {
                outlet.metrics.dead_lettered.inc();
                self.bury(failure, exhausted);
            }
        }
    }

    /// Shows a delivery that has ended to those who watch.
    fn show(&self, outlet: &Outlet) {
        let stage = if self.letter.is_some() { Stage::Dead } else { Stage::Delivered };
        outlet.taps.offer(stage, &self.bus, || Seen {
            bus: Arc::clone(&self.bus),
            rules: self.rule.iter().map(|rule| Arc::clone(&rule.name)).collect(),
            target: Some(self.letter.as_ref().map_or(&outlet.name, |letter| &letter.target).clone()),
            error: self.letter.as_ref().map(|letter| format!("{}: {}", letter.failure.code, letter.failure.message)),
            event: self.payload.to_vec(),
        });
    }

    fn wait(mut self, outlet: &Arc<Outlet>, failure: &Failure, due: Instant) {
        let families = &outlet.metrics.metrics.families;
        if self.letter.is_some() {
            outlet.metrics.not_kept(&outlet.name);
            outlet.letters.refused(self.failed == 1, failure);
        }
        let reason = labels([("target", &outlet.name), ("reason", failure.code)]);
        families.target_retries.get_or_create(&reason).inc();
        notice::report(&outlet.name, failure);
        self.payload.detach();
        if let Some(key) = &mut self.key {
            key.detach();
        }
        outlet.timer.wait(due, self);
    }

    /// Sends the event to the dead-letter queue, with its cause.
    pub fn bury(mut self, failure: Failure, exhausted: Option<retry::Exhausted>) {
        let queue = self.queue.take().unwrap_or_else(|| Arc::clone(&self.last_resort));
        let families = &self.outlet.metrics.metrics.families;
        let from = labels([("target", &self.outlet.name), ("reason", failure.code)]);
        families.dlq_events.get_or_create(&from).inc();
        notice::report(&self.outlet.name, &failure);
        self.letter = Some(Box::new(Letter {
            target: Arc::clone(&self.outlet.name),
            failure,
            exhausted,
            retries: self.failed.saturating_sub(1),
            untransformed: None,
        }));
        self.failed = 0;
        self.outlet = queue;
        Outlet::submit(self);
    }
}

//! From a matched event to its settled delivery: outlets, attempts, retries, dead letters.
//!
//! In: [`Delivery`]s from workers. Out: settled [`Pending`]s. Promises: `submit` never blocks; a delivery settles
//! exactly once (I2), by an outcome that is written down, never by being dropped. Leaves to others: what is delivered
//! (`worker`), when offsets are committed (`source`).

pub mod aws;
pub mod blocked;
pub mod breaker;
pub mod dead_letter;
pub mod dispatcher;
pub mod function;
pub mod http;
pub mod invocation;
pub mod kafka;
pub mod log;
pub mod nats;
mod notice;
mod oauth;
pub mod parcel;
pub mod retry;
pub mod retry_log;
mod timer;
mod watch;

pub use dispatcher::{Dispatcher, Outlets};
pub use oauth::Authority;
pub use parcel::{Parcel, Payload};
pub use timer::Timer;

pub use crate::envelope::TRACE_HEADER;

use crate::catalog::{MARK, Order, RetryPolicy};
use crate::envelope::{self, Position};
use crate::metrics::{Latency, Metrics, labels};
use crate::planted::{self, Bug};
use crate::tap::{Seen, Stage, Taps};
use crate::time;
use arc_swap::ArcSwap;
use blocked::{Letters, Queues};
use breaker::{Admit, Breaker};
use dead_letter::Letter;
use parcel::Hold;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use retry::{Class, Failure, Next, Wait};
use retry_log::{Logs, RetryLog};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use watch::Watch;

/// The rule that a delivery is for.
#[derive(Clone)]
pub struct RuleName {
    /// Its name.
    pub name: Arc<str>,
    /// Its ARN.
    pub arn: Arc<str>,
}

/// One attempt of one event for one target.
pub struct Delivery {
    /// What all its attempts share.
    pub parcel: Arc<Parcel>,
    /// What runs the target.
    pub outlet: Arc<Outlet>,
    /// When this attempt began.
    pub attempt_at: Instant,
    /// Attempts that failed.
    pub failed: u32,
    /// Why it is a dead letter, if it is one.
    pub letter: Option<Box<Letter>>,
}

impl Deref for Delivery {
    type Target = Parcel;

    fn deref(&self) -> &Parcel {
        &self.parcel
    }
}

/// What runs a target: its sink, its policy, its counters. Deliveries keep it alive across reloads.
pub struct Outlet {
    /// The target's name.
    pub name: Arc<str>,
    /// Where its deliveries go.
    pub sink: Sink,
    /// When to give up.
    pub retry: RetryPolicy,
    /// What its deliveries must not be overtaken by.
    ordering: Order,
    /// Where failed attempts wait for a moment.
    timer: Arc<Timer>,
    /// Where deliveries wait for longer, if they may: what keeps lines on this disk has none.
    logs: Option<Arc<Logs>>,
    log: OnceLock<Arc<RetryLog>>,
    /// Where deliveries of these sources wait instead.
    elsewhere: ArcSwap<Vec<(Arc<str>, Arc<RetryLog>)>>,
    watch: Watch,
    breaker: Mutex<Breaker>,
    /// The last attempt that ended has failed.
    failing: AtomicBool,
    /// The breaker is open: new deliveries wait in the log.
    troubled: AtomicBool,
    /// Attempts take long: the same.
    slow: AtomicBool,
    metrics: OutletMetrics,
    taps: Arc<Taps>,
    /// Dead letters on their way into it.
    letters: Arc<Letters>,
}

/// What all outlets share.
pub struct Shared {
    /// Where failed attempts wait for a moment.
    pub timer: Arc<Timer>,
    /// Where deliveries wait for longer.
    pub logs: Arc<Logs>,
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
    /// Nothing, and why: what comes is a dead letter at once.
    Nowhere(&'static str, Arc<str>),
}

struct OutletMetrics {
    delivered: Counter,
    dead_lettered: Counter,
    attempts: Counter,
    in_flight: Gauge,
    breaker: Gauge,
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
            breaker: families.breaker_open.get_or_create_owned(&own),
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
    pub fn new(name: &str, sink: Sink, (retry, ordering): (RetryPolicy, Order), shared: &Shared) -> Arc<Self> {
        let name: Arc<str> = name.into();
        let logs =
            (shared.logs.any() && !matches!(sink, Sink::Log(_) | Sink::Nowhere(..))).then(|| Arc::clone(&shared.logs));
        let log = logs.as_ref().and_then(|logs| logs.get(&name));
        let outlet = Arc::new(Self {
            letters: shared.queues.letters(&name),
            sink,
            retry,
            ordering,
            timer: Arc::clone(&shared.timer),
            logs,
            log: log.map_or_else(OnceLock::new, OnceLock::from),
            elsewhere: ArcSwap::default(),
            watch: Watch::default(),
            breaker: Mutex::default(),
            failing: AtomicBool::new(false),
            troubled: AtomicBool::new(false),
            slow: AtomicBool::new(false),
            metrics: OutletMetrics::new(&shared.metrics, &name),
            name,
            taps: Arc::clone(&shared.taps),
        });
        if outlet.logs.is_some() {
            shared.timer.watch(&outlet);
        }
        outlet
    }

    /// Takes a delivery: begins an attempt, or has it wait in the retry log while the target is in trouble, or others
    /// wait there that were never tried (I8). Never blocks: what the sink has no room for waits in a queue that the
    /// source's credit bounds (I7, I11).
    pub fn submit(delivery: Delivery) {
        let turn = match &delivery.lanes {
            Some(lanes) => Arc::clone(lanes).arrive(delivery),
            None => Some(delivery),
        };
        if let Some(delivery) = turn {
            Self::begin(delivery);
        }
    }

    /// The same for a delivery whose turn has come.
    fn begin(delivery: Delivery) {
        let outlet = Arc::clone(&delivery.outlet);
        if delivery.letter.is_none() && outlet.detour(delivery.away.as_ref().or(outlet.log.get())) {
            match outlet.keep(delivery, time::now()) {
                Ok(()) => {}
                Err(delivery) => Self::attempt(delivery),
            }
        } else {
            Self::attempt(delivery);
        }
    }

    /// Begins an attempt.
    pub fn attempt(mut delivery: Delivery) {
        delivery.attempt_at = time::now();
        let outlet = Arc::clone(&delivery.outlet);
        outlet.metrics.attempts.inc();
        outlet.metrics.in_flight.inc();
        if outlet.logs.is_some() && delivery.letter.is_none() {
            outlet.watch.begin(delivery.attempt_at, &delivery.parcel, delivery.failed);
        }
        if delivery.letter.is_some() && delivery.failed == 0 {
            outlet.letters.came(delivery.attempt_at);
        }
        match &outlet.sink {
            Sink::Kafka(topic) => topic.submit(delivery),
            Sink::Nats(subject) => subject.submit(delivery),
            Sink::Http(endpoint) => endpoint.submit(delivery),
            Sink::Log(lines) => lines.submit(delivery),
            Sink::Nowhere(code, why) => delivery.finish(Err(Failure::permanent(code, why.to_string()))),
        }
    }

    /// Whether a delivery that may wait in `log` has to.
    fn detour(&self, log: Option<&Arc<RetryLog>>) -> bool {
        self.troubled.load(Ordering::Acquire)
            || self.slow.load(Ordering::Acquire)
            || log.is_some_and(|log| log.fresh() > 0)
    }

    /// From now on deliveries of these sources wait in these logs.
    fn set_elsewhere(&self, logs: Vec<(Arc<str>, Arc<RetryLog>)>) {
        for (_, log) in &logs {
            log.keep_order(self.ordering == Order::Key);
        }
        self.elsewhere.store(Arc::new(logs));
    }

    /// The log of a source's deliveries that is not on this disk.
    fn away(&self, source: &str) -> Option<Arc<RetryLog>> {
        let logs = self.elsewhere.load();
        logs.iter().find(|(name, _)| **name == *source).map(|(_, log)| Arc::clone(log))
    }

    /// Has the logs look again: what they wait for may have come.
    fn look_again(&self) {
        self.log.get().into_iter().for_each(|log| log.look());
        self.elsewhere.load().iter().for_each(|(_, log)| log.look());
    }

    /// The target's retry log on this disk; made when it is wanted first.
    fn log(&self) -> Option<&Arc<RetryLog>> {
        if let Some(log) = self.log.get() {
            return Some(log);
        }
        match self.logs.as_ref().filter(|logs| logs.on_disk())?.of(&self.name) {
            Ok(log) => Some(self.log.get_or_init(|| log)),
            Err(error) => {
                notice::report(&self.name, &Failure::retry("INTERNAL_ERROR", format!("no retry log: {error}")));
                None
            }
        }
    }

    /// The log that keeps its target's order, and the order of a delivery that comes by this key or, without one, from
    /// this partition, and may wait in `away`.
    fn lane(
        &self,
        away: Option<&Arc<RetryLog>>,
        key: Option<&[u8]>,
        position: &Position,
    ) -> (Option<Arc<RetryLog>>, u64) {
        if self.ordering != Order::Key {
            return (None, 0);
        }
        let order = envelope::order(key, position);
        // Without a log the source goes on holding what fails, and nothing overtakes it there but its own repetition.
        away.or_else(|| self.log()).map_or((None, 0), |log| (Some(Arc::clone(log)), order))
    }

    /// Has a delivery wait in the retry log.
    fn keep(&self, delivery: Delivery, due: Instant) -> Result<(), Delivery> {
        match delivery.away.clone().or_else(|| self.log().cloned()) {
            Some(log) => log.keep(delivery, due),
            None => Err(delivery),
        }
    }

    /// Whether the log may begin an attempt.
    pub fn admit(&self) -> Admit {
        self.breaker().admit(time::now())
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Spills deliveries whose attempts take long.
    fn look(&self, now: Instant) {
        let (held, slow) = self.watch.look(now);
        self.slow.store(slow, Ordering::Release);
        for (parcel, failed) in held {
            if let Some(log) = parcel.away.as_ref().or_else(|| self.log()) {
                log.keep_under_way(&parcel, failed);
            }
        }
    }

    /// The target has answered, if only with a refusal.
    fn good(&self) {
        if self.failing.load(Ordering::Acquire) {
            let mut breaker = self.breaker();
            breaker.good();
            self.failing.store(false, Ordering::Release);
            self.troubled.store(false, Ordering::Release);
            drop(breaker);
            self.metrics.breaker.set(0);
            self.look_again();
        }
    }

    fn bad(&self, now: Instant, failure: &Failure, chance: f64) {
        if self.logs.is_none() {
            return;
        }
        let mut breaker = self.breaker();
        breaker.bad(now, failure.pause, (self.retry.initial, self.retry.max), chance);
        let closed = breaker.is_closed();
        self.failing.store(true, Ordering::Release);
        self.troubled.store(!closed, Ordering::Release);
        drop(breaker);
        self.metrics.breaker.set(i64::from(!closed));
        // A log may be waiting for the probe that has just failed.
        self.look_again();
    }
}

impl Delivery {
    /// Gives up an attempt that a sink has not begun, where the target is in trouble and the source still waits.
    pub fn divert(self: Box<Self>) -> Option<Box<Self>> {
        let outlet = Arc::clone(&self.outlet);
        let held = matches!(*self.hold(), Hold::Source(_));
        if !held || self.letter.is_some() || !outlet.troubled.load(Ordering::Acquire) {
            return Some(self);
        }
        outlet.metrics.in_flight.dec();
        match outlet.keep(*self, time::now()) {
            Ok(()) => None,
            Err(delivery) => {
                outlet.metrics.in_flight.inc();
                Some(Box::new(delivery))
            }
        }
    }

    /// Ends an attempt: settles, waits for the next one, or becomes a dead letter.
    pub fn finish(mut self, result: Result<(), Failure>) {
        let outlet = Arc::clone(&self.outlet);
        outlet.metrics.in_flight.dec();
        let now = time::now();
        let result =
            result.or_else(|failure| if planted::on(Bug::IgnoreDeliveryError) { Ok(()) } else { Err(failure) });
        let failure = match result {
            Ok(()) => {
                outlet.metrics.duration.record(now.duration_since(self.attempt_at), 1);
                outlet.metrics.age.record(now.saturating_duration_since(self.read_at), 1);
                outlet.metrics.delivered.inc();
                outlet.good();
                if self.letter.is_some() {
                    outlet.letters.left(self.failed > 0, now);
                }
                if outlet.taps.any() {
                    self.show(&outlet);
                }
                return self.settle();
            }
            Err(failure) => failure,
        };
        self.failed += 1;
        let chance = retry::jitter(self.id, self.failed);
        let (policy, class) = match self.letter {
            // A dead letter that its queue can never take goes to the bus's own.
            Some(_) if failure.class == Class::Permanent && !Arc::ptr_eq(&outlet, &self.last_resort) => {
                notice::report(&outlet.name, &failure);
                outlet.metrics.not_kept(&outlet.name);
                outlet.letters.left(self.failed > 1, now);
                self.failed = 0;
                self.outlet = Arc::clone(&self.last_resort);
                return Outlet::attempt(self);
            }
            // Otherwise it is tried until it is kept.
            Some(_) => (RetryPolicy { max_attempts: u32::MAX, max_age: Duration::MAX, ..outlet.retry }, Class::Retry),
            None => (outlet.retry, failure.class),
        };
        match failure.class {
            Class::Permanent => outlet.good(),
            Class::Retry => outlet.bad(now, &failure, chance),
        }
        let age = now.saturating_duration_since(self.read_at);
        match retry::next(&policy, self.failed - 1, age, class, chance) {
            Next::Again(delay) => self.again(&outlet, &failure, now + delay.max(failure.pause)),
            Next::DeadLetter(exhausted) => {
                outlet.metrics.dead_lettered.inc();
                self.bury(failure, exhausted);
            }
        }
    }

    /// Waits for the next attempt: in the log that has it, for a moment in memory, else in the retry log.
    fn again(self, outlet: &Arc<Outlet>, failure: &Failure, due: Instant) {
        let families = &outlet.metrics.metrics.families;
        if self.letter.is_some() {
            outlet.metrics.not_kept(&outlet.name);
            outlet.letters.refused(self.failed == 1, failure);
        }
        let reason = labels([("target", &outlet.name), ("reason", failure.code)]);
        families.target_retries.get_or_create(&reason).inc();
        notice::report(&outlet.name, failure);
        if planted::on(Bug::DropWhenDlqFails) && self.letter.is_some() {
            return self.settle();
        }
        let mut hold = self.hold();
        let logged = matches!(*hold, Hold::Log { .. });
        match retry::wait(logged, self.letter.is_some(), due.saturating_duration_since(time::now())) {
            Wait::Memory => {
                drop(hold);
                outlet.timer.wait(due, self);
            }
            Wait::Postponed => {
                let held = std::mem::replace(&mut *hold, Hold::Ended);
                drop(hold);
                if let Hold::Log { log, sequence, released } = held {
                    log.postpone(&self.parcel, sequence, released, (self.failed, due));
                }
            }
            Wait::Log => {
                drop(hold);
                if let Err(delivery) = outlet.keep(self, due) {
                    outlet.timer.wait(due, delivery);
                }
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

    /// Gives an event up: the failure of a function is told where it is wanted, anything else is a dead letter.
    pub fn bury(self, failure: Failure, exhausted: Option<retry::Exhausted>) {
        let outlet = Arc::clone(&self.outlet);
        match &outlet.sink {
            Sink::Http(http) if self.letter.is_none() => http.give_up(self, failure, exhausted),
            _ => self.lay_down(failure, exhausted),
        }
    }

    /// Sends the event to the dead-letter queue, with its cause.
    fn lay_down(mut self, failure: Failure, exhausted: Option<retry::Exhausted>) {
        let queue = self.queue.clone().unwrap_or_else(|| Arc::clone(&self.last_resort));
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
        Outlet::attempt(self);
    }
}

/// The ARN of a target: what callers name by an ARN has it as its name, with [`MARK`] and more where it has parameters.
pub fn target_arn(name: &str) -> String {
    let arn = name.split_once(MARK).map_or(name, |(arn, _)| arn);
    if arn.starts_with("arn:") { arn.to_owned() } else { format!("arn:sluice:target:::{name}") }
}

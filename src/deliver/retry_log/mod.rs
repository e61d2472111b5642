//! A target's retry log: deliveries that wait for it on disk, in a topic or in a stream, so that they hold no source, and
//! survive the process.
//!
//! In: deliveries that must wait, or whose attempt takes long. Out: attempts, as they come due and the target's breaker
//! lets them through, so many at once. Promises: a record not yet due never stands before one that is; those never tried
//! come in the order in which they were put; those with an order come in it, one at a time; a record is removed when its
//! delivery has settled. Bounds: the bytes of the journal; 40 bytes of memory a record.

mod logs;
mod moves;
mod partitions;
mod store;
pub mod stream;
pub mod topic;
pub mod waiting;

pub use logs::Logs;
pub use store::{Elsewhere, Unprepared};

use super::breaker::Admit;
use super::dead_letter::Letter;
use super::parcel::{Attempts, Hold, Kept, Parcel};
use super::retry::Failure;
use super::{Delivery, Outlet, Timer};
use crate::journal::{Journal, JournalError, Outcome, Recovered};
use crate::metrics::labels;
use crate::planted::{self, Bug};
use crate::time;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};
use store::{Kind, Store};
use stream::StreamStore;
use topic::TopicStore;
use waiting::{Entry, Waiting};

/// How long a delivery waits when it could not be spilled.
const NO_LOG: Duration = Duration::from_secs(1);
/// How long a record waits whose turn has come before the journal has it.
const UNKEPT: Duration = Duration::from_millis(5);
/// How often it is looked whether segments can be emptied.
const ROOM: Duration = Duration::from_secs(1);
/// How often topics and streams are looked after.
const TEND: Duration = Duration::from_millis(250);

/// Where the deliveries of a log go.
#[derive(Clone)]
pub struct Route {
    /// The target's outlet.
    pub outlet: Arc<Outlet>,
    /// Its own dead-letter queue.
    pub queue: Option<Arc<Outlet>>,
}

/// One target's log.
pub struct RetryLog {
    target: Arc<str>,
    logs: Weak<Logs>,
    timer: Arc<Timer>,
    store: Store,
    /// What due times are counted from.
    began: Instant,
    state: Mutex<State>,
    changed: Condvar,
    /// Records that were never tried.
    fresh: AtomicU64,
    spilled: Counter,
    skipped: Counter,
    records: Gauge,
    bytes: Gauge,
}

/// What the store's word is about.
enum Ticket {
    /// A delivery that is to be kept; one that waits, or one whose attempt is under way.
    Spill(Arc<Parcel>, Option<(Delivery, Instant)>),
    /// A record that was put anew, so that what is around it can go, or with what has become of it.
    Move(u64, Entry),
}

struct State {
    waiting: Waiting<Delivery>,
    /// Records with an order that are about to be kept.
    unkept: HashSet<u64>,
    /// Deliveries with an order whose partition is not known yet.
    early: Vec<Delivery>,
    /// Records of partitions that are not known whole: by partition and what their order goes by.
    ranked: Vec<(i32, i64, Entry)>,
    route: Target,
    /// When room was made last.
    looked: Instant,
    closed: bool,
}

/// What the log's thread does next.
enum Turn {
    /// Tries a record, for its target or, where that is gone, for the queue.
    Try(Entry, Option<Route>),
    /// Looks after its store.
    Tend,
    /// Ends.
    Closed,
}

enum Target {
    /// Not said yet.
    Unknown,
    /// Here.
    To(Route),
    /// It is no longer declared.
    Deleted,
}

impl RetryLog {
    fn open(logs: &Arc<Logs>, target: &str, place: Option<&Elsewhere>) -> Result<Arc<Self>, JournalError> {
        let me: Arc<OnceLock<Weak<Self>>> = Arc::default();
        let outcome: Outcome<Ticket> = {
            let me = Arc::clone(&me);
            Box::new(move |kept, result| {
                if let Some(log) = me.get().and_then(Weak::upgrade) {
                    log.kept(kept, &result);
                }
            })
        };
        let (store, found) = match place {
            Some(Elsewhere::Topics(topics)) => (Store::Topic(TopicStore::new(target, topics, outcome)), None),
            Some(Elsewhere::Stream(stream)) => (Store::Stream(StreamStore::new(target, stream, outcome)), None),
            None => {
                let folder = logs.folder_of(target);
                let (journal, found) =
                    Journal::open(("sluice-spill", &folder), logs.max_bytes, &logs.reserve, outcome)?;
                (Store::Disk(journal), Some(found))
            }
        };
        let families = &logs.metrics.families;
        let own = match place {
            Some(place) => labels([("target", target), ("source", place.source())]),
            None => labels([("target", target)]),
        };
        let log = Arc::new(Self {
            target: target.into(),
            logs: Arc::downgrade(logs),
            timer: Arc::clone(&logs.timer),
            store,
            began: time::now(),
            state: Mutex::new(State {
                waiting: Waiting::default(),
                unkept: HashSet::new(),
                early: Vec::new(),
                ranked: Vec::new(),
                route: Target::Unknown,
                looked: time::now(),
                closed: false,
            }),
            changed: Condvar::new(),
            fresh: AtomicU64::new(0),
            spilled: families
                .target_deliveries
                .get_or_create_owned(&labels([("target", target), ("outcome", "spilled")])),
            skipped: families.journal_skipped.get_or_create_owned(&own),
            records: families.retry_log_events.get_or_create_owned(&own),
            bytes: families.retry_log_bytes.get_or_create_owned(&own),
        });
        me.get_or_init(|| Arc::downgrade(&log));
        if let Some(found) = found {
            log.recover(&found);
        }
        if let Some(Elsewhere::Topics(topics)) = place {
            log.follow(topics);
        }
        let run = Arc::clone(&log);
        std::thread::Builder::new()
            .name("sluice-again".into())
            .spawn(move || run.run())
            .map_err(|error| JournalError::Unusable(format!("cannot start a thread: {error}")))?;
        Ok(log)
    }

    /// Takes in what an earlier process left.
    fn recover(&self, found: &Recovered) {
        self.skipped.inc_by(found.skipped);
        if found.live.is_empty() && found.skipped == 0 {
            return;
        }
        let mut state = self.state();
        for live in &found.live {
            match self.store.read(live.sequence) {
                Ok(body) => {
                    let Some((kept, _)) = Kept::decode(&body) else {
                        self.skip(live.sequence, "is of another version");
                        continue;
                    };
                    let attempts = live.note.as_deref().and_then(Attempts::from_note).unwrap_or(kept.attempts);
                    state.waiting.add(self.found(live.sequence, attempts, kept.order));
                }
                Err(error) => self.skip(live.sequence, &error.to_string()),
            }
        }
        drop(state);
        let (target, skipped, cut) = (&*self.target, found.skipped, found.cut);
        tracing::info!(sluice_target = target, records = found.live.len(), skipped, cut, "deliveries wait from before");
        self.measure();
    }

    /// A record that an earlier process left.
    fn found(&self, sequence: u64, attempts: Attempts, order: u64) -> Entry {
        self.fresh.fetch_add(u64::from(attempts.failed == 0), Ordering::Relaxed);
        // A clock that was set back must not keep it for longer than any pause is.
        let wait = (attempts.due_millis - time::wall_millis()).clamp(0, 15 * 60_000);
        let due = self.millis(time::now()) + u64::try_from(wait).unwrap_or(0);
        Entry { due, sequence, failed: attempts.failed, order }
    }

    fn skip(&self, sequence: u64, why: &str) {
        self.skipped.inc();
        tracing::error!(sluice_target = &*self.target, sequence, "a record of the retry log is lost: {why}");
        self.store.remove(sequence);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }

    fn measure(&self) {
        let (records, bytes) = self.store.size();
        self.records.set(i64::try_from(records).unwrap_or(i64::MAX));
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    fn set_route(&self, route: Option<Route>) {
        self.state().route = route.map_or(Target::Deleted, Target::To);
        self.changed.notify_all();
    }

    /// Has the log's thread look again: the target has answered.
    pub fn look(&self) {
        self.changed.notify_all();
    }

    /// How many deliveries wait that were never tried: those that come now must queue behind them.
    pub fn fresh(&self) -> u64 {
        self.fresh.load(Ordering::Acquire) + self.store.unread()
    }

    /// So many of them wait untried no more.
    fn tried(&self, count: u64) {
        let less = |fresh: u64| Some(fresh.saturating_sub(count));
        self.fresh.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).unwrap_or_default();
    }

    /// A delivery of an ordered target arrives. It comes back where it may be tried at once; else its turn comes when what
    /// came before it has settled.
    pub fn arrive(&self, delivery: Delivery) -> Option<Delivery> {
        if self.is_late(&delivery) {
            delivery.abandon();
            return None;
        }
        let mut state = self.state();
        if self.is_early(&state, &delivery) {
            state.early.push(delivery);
            return None;
        }
        self.place(&mut state, delivery)
    }

    fn place(&self, state: &mut State, delivery: Delivery) -> Option<Delivery> {
        let order = delivery.order;
        if !state.waiting.is_logged(order) {
            return state.waiting.arrive(order, delivery);
        }
        match self.put(state, delivery, time::now()) {
            Ok(entry) => {
                state.waiting.add(entry);
                None
            }
            Err(delivery) => state.waiting.arrive(order, delivery),
        }
    }

    /// A delivery with an order has settled: the next one's turn has come.
    pub fn end(&self, order: u64) {
        let next = self.state().waiting.end(order);
        match next {
            Some(delivery) => Outlet::begin(delivery),
            None => self.changed.notify_all(),
        }
    }

    /// Keeps a delivery that waits until `due`. It comes back where it cannot be put.
    ///
    /// # Errors
    /// The delivery, still held by its source.
    pub fn keep(&self, delivery: Delivery, due: Instant) -> Result<(), Delivery> {
        let mut state = self.state();
        let entry = self.put(&mut state, delivery, due)?;
        if entry.order != 0 {
            state.waiting.again(entry);
            self.keep_behind(&mut state, entry.order);
        }
        Ok(())
    }

    /// Keeps a delivery whose attempt is under way; the attempt goes on.
    pub fn keep_under_way(&self, parcel: &Arc<Parcel>, failed: u32) {
        // Another instance would take it from a stream for one that waits.
        if matches!(self.store, Store::Stream(_)) {
            return;
        }
        let mut state = self.state();
        let ticket = Ticket::Spill(Arc::clone(parcel), None);
        // Where it cannot be put, the source goes on holding it.
        let kind = Kind { partition: parcel.position.partition, ordered: parcel.order != 0, under_way: true };
        if parcel.spill() && self.store.put(kind, parcel.encode(attempts(failed, time::now())), ticket).is_err() {
            return parcel.give_back();
        }
        self.keep_behind(&mut state, parcel.order);
    }

    /// Keeps what waits in memory behind the first of a lane, which the log has.
    fn keep_behind(&self, state: &mut State, order: u64) {
        for delivery in if order == 0 { Vec::new() } else { state.waiting.logged(order) } {
            // Behind one that stays in memory the others do, too.
            let put = match state.waiting.is_logged(order) {
                true => self.put(state, delivery, time::now()),
                false => Err(delivery),
            };
            match put {
                Ok(entry) => state.waiting.add(entry),
                Err(delivery) => drop(state.waiting.arrive(order, delivery)),
            }
        }
    }

    /// Gives a delivery that its source holds to the journal. Without an order it waits from when it is kept; with one,
    /// it has its place at once.
    fn put(&self, state: &mut State, delivery: Delivery, due: Instant) -> Result<Entry, Delivery> {
        let parcel = Arc::clone(&delivery.parcel);
        if !parcel.spill() {
            return Err(delivery);
        }
        let (failed, order) = (delivery.failed, parcel.order);
        self.fresh.fetch_add(u64::from(failed == 0), Ordering::AcqRel);
        let ticket = Ticket::Spill(Arc::clone(&parcel), Some((delivery, due)));
        let kind = Kind { partition: parcel.position.partition, ordered: order != 0, under_way: false };
        match self.store.put(kind, parcel.encode(attempts(failed, due)), ticket) {
            Ok(sequence) => {
                if planted::on(Bug::SpillAckIgnored) {
                    parcel.release();
                }
                if order != 0 {
                    state.unkept.insert(sequence);
                }
                Ok(Entry { due: self.millis(due), sequence, failed, order })
            }
            Err((ticket, error)) => {
                self.tried(u64::from(failed == 0));
                parcel.give_back();
                super::notice::report(&self.target, &Failure::retry("INTERNAL_ERROR", error.to_string()));
                match ticket {
                    Ticket::Spill(_, Some((delivery, _))) => Err(delivery),
                    // The ticket is the one that was given.
                    Ticket::Spill(..) | Ticket::Move(..) => Ok(Entry { due: 0, sequence: 0, failed, order: 0 }),
                }
            }
        }
    }

    /// Hears what has become of records that were put.
    fn kept(self: &Arc<Self>, kept: Vec<(Ticket, u64)>, result: &Result<(), JournalError>) {
        for (ticket, sequence) in kept {
            match (ticket, result) {
                (Ticket::Spill(parcel, waiting), Ok(())) => {
                    self.spilled.inc();
                    self.take_over(&parcel, sequence, waiting.is_some());
                    let mut state = self.state();
                    state.unkept.remove(&sequence);
                    if let Some((delivery, due)) = waiting.filter(|_| parcel.order == 0) {
                        if self.store.is_known(sequence) {
                            let (due, failed) = (self.millis(due), delivery.failed);
                            state.waiting.add(Entry { due, sequence, failed, order: 0 });
                        } else {
                            self.tried(u64::from(delivery.failed == 0));
                        }
                    }
                }
                (Ticket::Spill(parcel, waiting), Err(_)) => {
                    parcel.give_back();
                    if let Some((delivery, due)) = waiting {
                        self.not_kept(sequence, delivery, due);
                    }
                }
                (Ticket::Move(old, entry), result) => self.moved((old, sequence), entry, result.is_ok()),
            }
        }
        self.changed.notify_all();
        self.measure();
    }

    /// A delivery stays with its source, which waits for it.
    fn not_kept(&self, sequence: u64, delivery: Delivery, due: Instant) {
        self.tried(u64::from(delivery.failed == 0));
        let order = delivery.order;
        let first = if order == 0 {
            Some(delivery)
        } else {
            let mut state = self.state();
            state.unkept.remove(&sequence);
            state.waiting.unkept(order, sequence, delivery)
        };
        if let Some(delivery) = first {
            self.timer.wait(due.max(time::now() + NO_LOG), delivery);
        }
    }

    /// Answers for a delivery from now on; its source is released.
    fn take_over(self: &Arc<Self>, parcel: &Parcel, sequence: u64, waits: bool) {
        let mut hold = parcel.hold();
        let log = Hold::Log { log: Arc::clone(self), sequence, released: None };
        let next = if waits { Hold::Ended } else { log };
        match std::mem::replace(&mut *hold, next) {
            Hold::Source(pending) | Hold::Spilling(pending) => pending.settle(),
            // Its attempt has ended well meanwhile.
            ended => {
                *hold = ended;
                self.store.remove(sequence);
            }
        }
    }

    /// The delivery of a record has settled.
    pub fn settled(&self, sequence: u64, released: Option<u64>) {
        self.store.remove(sequence);
        self.release(released);
        self.measure();
    }

    /// An attempt has ended that the log had released, of so many bytes.
    fn release(&self, released: Option<u64>) {
        let Some(bytes) = released else { return };
        let mut state = self.state();
        if state.waiting.ended(bytes) || state.closed {
            self.changed.notify_all();
        }
    }

    fn run(self: Arc<Self>) {
        loop {
            self.tend();
            match self.next() {
                Turn::Try(entry, route) => self.attempt(entry, route),
                Turn::Tend => {}
                Turn::Closed => return,
            }
            self.make_room();
        }
    }

    /// Waits for the next record that may be tried, and takes it.
    fn next(&self) -> Turn {
        let mut state = self.state();
        let mut tended = true;
        loop {
            if state.closed {
                return Turn::Closed;
            }
            let now = self.millis(time::now());
            let first = state.waiting.first();
            let wait = match (&state.route, first) {
                (Target::Deleted, Some(_)) if !state.waiting.is_full() => {
                    return state.waiting.take().map_or(Turn::Tend, |entry| Turn::Try(entry, None));
                }
                (Target::To(route), Some(first)) if !state.waiting.is_full() => {
                    if first.due > now {
                        Duration::from_millis(first.due - now)
                    } else {
                        match route.outlet.admit() {
                            Admit::Yes => {
                                let route = route.clone();
                                return state.waiting.take().map_or(Turn::Tend, |entry| Turn::Try(entry, Some(route)));
                            }
                            Admit::NotBefore(at) => at.saturating_duration_since(time::now()),
                        }
                    }
                }
                _ => Duration::from_hours(1),
            };
            // Topics and streams are to be looked after, whether or not something is due.
            if !std::mem::replace(&mut tended, !self.store.wants_tending()) {
                return Turn::Tend;
            }
            let wait = if self.store.wants_tending() { wait.min(TEND) } else { wait };
            (state, _) = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Tries a record again.
    fn attempt(self: &Arc<Self>, entry: Entry, route: Option<Route>) {
        if self.state().unkept.contains(&entry.sequence) {
            return self.put_back(entry, UNKEPT);
        }
        match self.delivery(entry, route) {
            Ok(Some(delivery)) => Outlet::attempt(delivery),
            // Its bus is not known either: it waits for one who declares it.
            Ok(None) => self.put_back(entry, Duration::from_mins(1)),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::InvalidData => {
                    // Its partition may have been taken away.
                    if self.store.is_known(entry.sequence) {
                        self.skip(entry.sequence, &error.to_string());
                    }
                    self.release(Some(0));
                    if entry.order != 0 {
                        self.end(entry.order);
                    }
                }
                _ => {
                    tracing::warn!(sluice_target = &*self.target, "the retry log cannot be read: {error}");
                    self.put_back(entry, Duration::from_secs(1));
                }
            },
        }
        if entry.failed == 0 {
            self.tried(1);
        }
    }

    fn put_back(&self, entry: Entry, pause: Duration) {
        self.fresh.fetch_add(u64::from(entry.failed == 0), Ordering::AcqRel);
        self.state().waiting.again(Entry { due: self.millis(time::now() + pause), ..entry });
        self.release(Some(0));
    }

    /// The delivery of a record, to its target or, where that is gone, to the queue of its bus.
    fn delivery(self: &Arc<Self>, entry: Entry, route: Option<Route>) -> io::Result<Option<Delivery>> {
        let body = self.store.read(entry.sequence)?;
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "it is of another version");
        let (kept, rest) = Kept::decode(&body).ok_or_else(damaged)?;
        let Some(logs) = self.logs.upgrade() else { return Ok(None) };
        let Some(last_resort) = logs.queue(kept.bus) else { return Ok(None) };
        let bytes = body.len() as u64;
        self.state().waiting.holds(bytes);
        let hold = Hold::Log { log: Arc::clone(self), sequence: entry.sequence, released: Some(bytes) };
        let (outlet, queue, letter) = match route {
            Some(Route { outlet, queue }) => (outlet, queue, None),
            None => {
                let gone = "the target is no longer declared; declare it, then send the dead letters again";
                let failure = Failure::permanent("NO_RESOURCE", gone);
                let retries = entry.failed.saturating_sub(1);
                let letter =
                    Letter { target: Arc::clone(&self.target), failure, exhausted: None, retries, untransformed: None };
                (Arc::clone(&last_resort), None, Some(Box::new(letter)))
            }
        };
        let parcel = Arc::new(kept.parcel(rest, (queue, last_resort), Arc::clone(self), hold));
        let failed = if letter.is_some() { 0 } else { entry.failed };
        Ok(Some(Delivery { parcel, outlet, attempt_at: time::now(), failed, letter }))
    }
}

/// How far a delivery has come whose next attempt is due at this instant.
fn attempts(failed: u32, due: Instant) -> Attempts {
    let wait = due.saturating_duration_since(time::now());
    Attempts { failed, due_millis: time::wall_millis() + i64::try_from(wait.as_millis()).unwrap_or(0) }
}

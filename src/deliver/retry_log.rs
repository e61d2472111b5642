//! A target's retry log: deliveries that wait for it on disk, so that they hold no source, and survive the process.
//!
//! In: deliveries that must wait, or whose attempt takes long. Out: attempts, as they come due and the target's breaker
//! lets them through, at most [`WINDOW`] at once. Promises: a record not yet due never stands before one that is; those
//! never tried come in the order in which they were put; a record is removed when its delivery has settled. Bounds: the
//! bytes of the journal; 32 bytes of memory a record.

use super::breaker::Admit;
use super::dead_letter::Letter;
use super::parcel::{Attempts, Hold, Kept, Parcel};
use super::retry::Failure;
use super::{Delivery, Outlet, Timer};
use crate::journal::{Journal, JournalError, Recovered, Reserve};
use crate::metrics::{Metrics, labels};
use crate::time;
use arc_swap::ArcSwap;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Attempts of one log under way at once, and their bytes.
const WINDOW: (usize, u64) = (1024, 8 << 20);
/// How long a delivery waits when it could not be spilled.
const NO_LOG: Duration = Duration::from_secs(1);
/// How often it is looked whether segments can be emptied.
const ROOM: Duration = Duration::from_secs(1);
/// What stands for itself in the name of a log's folder.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

type Queues = HashMap<Arc<str>, Arc<Outlet>>;

/// The retry logs of a process, by target.
pub struct Logs {
    folder: PathBuf,
    /// Of one log.
    max_bytes: u64,
    reserve: Arc<Reserve>,
    timer: Arc<Timer>,
    metrics: Arc<Metrics>,
    open: Mutex<HashMap<String, Arc<RetryLog>>>,
    /// By target, once the first plan is there.
    routes: Mutex<Option<HashMap<String, Route>>>,
    /// Per bus: its default dead-letter queue.
    queues: ArcSwap<Queues>,
}

impl Logs {
    /// Opens those that are there: what they hold waits for [`Logs::route`].
    ///
    /// # Errors
    /// Files that cannot be used.
    pub fn open(
        data_dir: &Path,
        max_bytes: u64,
        reserve: &Arc<Reserve>,
        (timer, metrics): (&Arc<Timer>, &Arc<Metrics>),
    ) -> Result<Arc<Self>, JournalError> {
        let logs = Arc::new(Self {
            folder: data_dir.join("retry"),
            max_bytes,
            reserve: Arc::clone(reserve),
            timer: Arc::clone(timer),
            metrics: Arc::clone(metrics),
            open: Mutex::default(),
            routes: Mutex::default(),
            queues: ArcSwap::default(),
        });
        let entries = match std::fs::read_dir(&logs.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(logs),
            Err(error) => {
                return Err(JournalError::Unusable(format!("cannot read {}: {error}", logs.folder.display())));
            }
        };
        for entry in entries {
            let entry = entry.map_err(|error| JournalError::Unusable(format!("{}: {error}", logs.folder.display())))?;
            let name = entry.file_name();
            let name = name.to_str().and_then(|name| percent_decode_str(name).decode_utf8().ok());
            let Some(name) = name else {
                let path = entry.path();
                return Err(JournalError::Unusable(format!("{} is no retry log; move it away", path.display())));
            };
            logs.of(&name)?;
        }
        Ok(logs)
    }

    /// The log of a target; made when there is none.
    ///
    /// # Errors
    /// Files that cannot be used.
    pub fn of(self: &Arc<Self>, target: &str) -> Result<Arc<RetryLog>, JournalError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(log) = open.get(target) {
            return Ok(Arc::clone(log));
        }
        let log = RetryLog::open(self, target)?;
        if let Some(routes) = &*self.routes.lock().unwrap_or_else(PoisonError::into_inner) {
            log.set_route(routes.get(target).cloned());
        }
        open.insert(target.to_owned(), Arc::clone(&log));
        Ok(log)
    }

    /// Whether a target has one.
    pub fn get(&self, target: &str) -> Option<Arc<RetryLog>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).get(target).map(Arc::clone)
    }

    /// Says where the deliveries of every log go from now on: to the outlet and the dead-letter queue of its target, or to
    /// the queue of their bus where there is no such target any more.
    pub fn route(&self, routes: HashMap<String, Route>, queues: Queues) {
        self.queues.store(Arc::new(queues));
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, log) in &*open {
            log.set_route(routes.get(name).cloned());
        }
        *self.routes.lock().unwrap_or_else(PoisonError::into_inner) = Some(routes);
    }

    /// Whether nothing waits in any of them.
    pub fn is_empty(&self) -> bool {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.values().all(|log| log.journal.size().0 == 0)
    }

    /// Begins no more attempts, and waits until those under way have ended and all is written, `deadline` at most.
    pub fn drain(&self, deadline: Instant) {
        let open: Vec<_> = self.open.lock().unwrap_or_else(PoisonError::into_inner).values().map(Arc::clone).collect();
        for log in &open {
            log.state().closed = true;
            log.changed.notify_all();
        }
        for log in &open {
            let state = log.state();
            let left = deadline.saturating_duration_since(time::now());
            drop(log.changed.wait_timeout_while(state, left, |state| state.under_way > 0));
            log.journal.flush(deadline);
        }
    }
}

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
    journal: Journal<Ticket>,
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

/// What the journal's word is about.
enum Ticket {
    /// A delivery that is to be kept; one that waits, or one whose attempt is under way.
    Spill(Arc<Parcel>, Option<(Delivery, Instant)>),
    /// A record that was put anew, so that its segment can go.
    Move(u64, Entry),
}

struct State {
    due: BinaryHeap<Entry>,
    under_way: usize,
    under_way_bytes: u64,
    route: Target,
    /// When room was made last.
    looked: Instant,
    closed: bool,
}

enum Target {
    /// Not said yet.
    Unknown,
    /// Here.
    To(Route),
    /// It is no longer declared.
    Deleted,
}

/// A record that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// Milliseconds since the log was opened.
    due: u64,
    sequence: u64,
    failed: u32,
    /// Seconds since the epoch when its event was read.
    read: u32,
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The earliest first; in the order in which they were put where they are due together.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.due, other.sequence).cmp(&(self.due, self.sequence))
    }
}

impl RetryLog {
    fn open(logs: &Arc<Logs>, target: &str) -> Result<Arc<Self>, JournalError> {
        let folder = logs.folder.join(utf8_percent_encode(target, PLAIN).to_string());
        let me: Arc<OnceLock<Weak<Self>>> = Arc::default();
        let outcome = {
            let me = Arc::clone(&me);
            Box::new(move |kept: Vec<(Ticket, u64)>, result: Result<(), JournalError>| {
                if let Some(log) = me.get().and_then(Weak::upgrade) {
                    log.kept(kept, &result);
                }
            })
        };
        let (journal, found) = Journal::open(("sluice-spill", &folder), logs.max_bytes, &logs.reserve, outcome)?;
        let families = &logs.metrics.families;
        let own = labels([("target", target)]);
        let log = Arc::new(Self {
            target: target.into(),
            logs: Arc::downgrade(logs),
            timer: Arc::clone(&logs.timer),
            journal,
            began: time::now(),
            state: Mutex::new(State {
                due: BinaryHeap::new(),
                under_way: 0,
                under_way_bytes: 0,
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
        log.recover(&found);
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
            match self.journal.read(live.sequence) {
                Ok(body) => {
                    let Some((kept, _)) = Kept::decode(&body) else {
                        self.skip(live.sequence, "is of another version");
                        continue;
                    };
                    let attempts = live.note.as_deref().and_then(Attempts::from_note).unwrap_or(kept.attempts);
                    self.fresh.fetch_add(u64::from(attempts.failed == 0), Ordering::Relaxed);
                    // A clock that was set back must not keep them for longer than any pause is.
                    let wait = (attempts.due_millis - time::wall_millis()).clamp(0, 15 * 60_000);
                    let due = self.millis(time::now()) + u64::try_from(wait).unwrap_or(0);
                    let (failed, read) = (attempts.failed, kept.read_seconds());
                    state.due.push(Entry { due, sequence: live.sequence, failed, read });
                }
                Err(error) => self.skip(live.sequence, &error.to_string()),
            }
        }
        drop(state);
        let (target, skipped, cut) = (&*self.target, found.skipped, found.cut);
        tracing::info!(sluice_target = target, records = found.live.len(), skipped, cut, "deliveries wait from before");
        self.measure();
    }

    fn skip(&self, sequence: u64, why: &str) {
        self.skipped.inc();
        tracing::error!(sluice_target = &*self.target, sequence, "a record of the retry log is lost: {why}");
        self.journal.remove(sequence);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }

    fn measure(&self) {
        let (records, bytes) = self.journal.size();
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
        self.fresh.load(Ordering::Acquire)
    }

    /// Keeps a delivery that waits until `due`. It comes back where it cannot be put.
    ///
    /// # Errors
    /// The delivery, still held by its source.
    pub fn keep(&self, delivery: Delivery, due: Instant) -> Result<(), Delivery> {
        let parcel = Arc::clone(&delivery.parcel);
        let fresh = delivery.failed == 0;
        self.fresh.fetch_add(u64::from(fresh), Ordering::AcqRel);
        match self.put(&parcel, (delivery.failed, due), Some((delivery, due))) {
            Ok(()) => Ok(()),
            Err(waiting) => {
                self.fresh.fetch_sub(u64::from(fresh), Ordering::AcqRel);
                waiting.map_or(Ok(()), |(delivery, _)| Err(delivery))
            }
        }
    }

    /// Keeps a delivery whose attempt is under way; the attempt goes on.
    pub fn keep_under_way(&self, parcel: &Arc<Parcel>, failed: u32) {
        // Where it cannot be put, the source goes on holding it.
        self.put(parcel, (failed, time::now()), None).unwrap_or_default();
    }

    /// Gives a parcel that its source holds to the journal.
    fn put(
        &self,
        parcel: &Arc<Parcel>,
        (failed, due): (u32, Instant),
        waiting: Option<(Delivery, Instant)>,
    ) -> Result<(), Option<(Delivery, Instant)>> {
        let wait = due.saturating_duration_since(time::now());
        let due_millis = time::wall_millis() + i64::try_from(wait.as_millis()).unwrap_or(0);
        let mut hold = parcel.hold();
        *hold = match std::mem::replace(&mut *hold, Hold::Ended) {
            Hold::Source(pending) => Hold::Spilling(pending),
            other => {
                *hold = other;
                return Err(waiting);
            }
        };
        drop(hold);
        let ticket = Ticket::Spill(Arc::clone(parcel), waiting);
        match self.journal.put(parcel.encode(Attempts { failed, due_millis }), ticket) {
            Ok(_) => Ok(()),
            Err((ticket, _)) => {
                parcel.give_back();
                match ticket {
                    Ticket::Spill(_, waiting) => Err(waiting),
                    Ticket::Move(..) => Err(None),
                }
            }
        }
    }

    /// Hears what has become of records that were put.
    fn kept(self: &Arc<Self>, kept: Vec<(Ticket, u64)>, result: &Result<(), JournalError>) {
        let mut entries = Vec::new();
        for (ticket, sequence) in kept {
            match (ticket, result) {
                (Ticket::Spill(parcel, waiting), Ok(())) => {
                    self.spilled.inc();
                    let read = u32::try_from(parcel.read_millis() / 1000).unwrap_or(0);
                    self.take_over(&parcel, sequence, waiting.is_some());
                    entries.extend(waiting.map(|(delivery, due)| Entry {
                        due: self.millis(due),
                        sequence,
                        failed: delivery.failed,
                        read,
                    }));
                }
                (Ticket::Spill(parcel, waiting), Err(_)) => {
                    parcel.give_back();
                    if let Some((delivery, due)) = waiting {
                        self.fresh.fetch_sub(u64::from(delivery.failed == 0), Ordering::AcqRel);
                        self.timer.wait(due.max(time::now() + NO_LOG), delivery);
                    }
                }
                (Ticket::Move(old, entry), result) => {
                    let kept = result.is_ok();
                    if kept {
                        let due_millis = time::wall_millis() + (entry.due as i64 - self.millis(time::now()) as i64);
                        self.journal.note(sequence, Attempts { failed: entry.failed, due_millis }.note());
                        self.journal.remove(old);
                    }
                    entries.push(Entry { sequence: if kept { sequence } else { old }, ..entry });
                }
            }
        }
        self.state().due.extend(entries);
        self.changed.notify_all();
        self.measure();
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
                self.journal.remove(sequence);
            }
        }
    }

    /// The delivery of a record has settled.
    pub fn settled(&self, sequence: u64, released: Option<u64>) {
        self.journal.remove(sequence);
        self.end(released);
        self.measure();
    }

    /// An attempt of a record has failed: the next one is due later.
    pub fn postpone(&self, sequence: u64, released: Option<u64>, (failed, due): (u32, Instant), read_millis: i64) {
        let wait = due.saturating_duration_since(time::now());
        let due_millis = time::wall_millis() + i64::try_from(wait.as_millis()).unwrap_or(0);
        self.journal.note(sequence, Attempts { failed, due_millis }.note());
        let read = u32::try_from(read_millis / 1000).unwrap_or(0);
        self.state().due.push(Entry { due: self.millis(due), sequence, failed, read });
        self.end(released);
        self.changed.notify_all();
    }

    /// An attempt has ended that the log had released, of so many bytes.
    fn end(&self, released: Option<u64>) {
        let Some(bytes) = released else { return };
        let mut state = self.state();
        let full = state.is_full();
        state.under_way = state.under_way.saturating_sub(1);
        state.under_way_bytes = state.under_way_bytes.saturating_sub(bytes);
        if full || state.closed {
            self.changed.notify_all();
        }
    }

    fn run(self: Arc<Self>) {
        while let Some((entry, route)) = self.next() {
            self.attempt(entry, route);
            self.make_room();
        }
    }

    /// Waits for the next record that may be tried, and takes it.
    fn next(&self) -> Option<(Entry, Option<Route>)> {
        let mut state = self.state();
        loop {
            if state.closed {
                return None;
            }
            let now = self.millis(time::now());
            let first = state.due.peek().copied();
            let wait = match (&state.route, first) {
                (Target::Deleted, Some(_)) if !state.is_full() => {
                    return state.take().map(|entry| (entry, None));
                }
                (Target::To(route), Some(first)) if !state.is_full() => {
                    if first.due > now {
                        Duration::from_millis(first.due - now)
                    } else {
                        match route.outlet.admit() {
                            Admit::Yes => {
                                let route = route.clone();
                                return state.take().map(|entry| (entry, Some(route)));
                            }
                            Admit::NotBefore(at) => at.saturating_duration_since(time::now()),
                        }
                    }
                }
                _ => Duration::from_hours(1),
            };
            (state, _) = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Tries a record again.
    fn attempt(self: &Arc<Self>, entry: Entry, route: Option<Route>) {
        match self.delivery(entry, route) {
            Ok(Some(delivery)) => Outlet::attempt(delivery),
            // Its bus is not known either: it waits for one who declares it.
            Ok(None) => self.put_back(entry, Duration::from_mins(1)),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound => self.end(Some(0)),
                io::ErrorKind::InvalidData => {
                    self.skip(entry.sequence, &error.to_string());
                    self.end(Some(0));
                }
                _ => {
                    tracing::warn!(sluice_target = &*self.target, "the retry log cannot be read: {error}");
                    self.put_back(entry, Duration::from_secs(1));
                }
            },
        }
        if entry.failed == 0 {
            self.fresh.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn put_back(&self, entry: Entry, pause: Duration) {
        self.fresh.fetch_add(u64::from(entry.failed == 0), Ordering::AcqRel);
        self.state().due.push(Entry { due: self.millis(time::now() + pause), ..entry });
        self.end(Some(0));
    }

    /// The delivery of a record, to its target or, where that is gone, to the queue of its bus.
    fn delivery(self: &Arc<Self>, entry: Entry, route: Option<Route>) -> io::Result<Option<Delivery>> {
        let body = self.journal.read(entry.sequence)?;
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "it is of another version");
        let (kept, rest) = Kept::decode(&body).ok_or_else(damaged)?;
        let Some(logs) = self.logs.upgrade() else { return Ok(None) };
        let queues = logs.queues.load();
        let Some(last_resort) = queues.get(kept.bus) else { return Ok(None) };
        let bytes = body.len() as u64;
        self.state().under_way_bytes += bytes;
        let hold = Hold::Log { log: Arc::clone(self), sequence: entry.sequence, released: Some(bytes) };
        let (outlet, queue, letter) = match route {
            Some(Route { outlet, queue }) => (outlet, queue, None),
            None => {
                let gone = "the target is no longer declared; declare it, then send the dead letters again";
                let failure = Failure::permanent("NO_RESOURCE", gone);
                let retries = entry.failed.saturating_sub(1);
                let letter = Letter { target: Arc::clone(&self.target), failure, exhausted: None, retries };
                (Arc::clone(last_resort), None, Some(Box::new(letter)))
            }
        };
        let parcel = Arc::new(kept.parcel(rest, (queue, Arc::clone(last_resort)), hold));
        let failed = if letter.is_some() { 0 } else { entry.failed };
        Ok(Some(Delivery { parcel, outlet, attempt_at: time::now(), failed, letter }))
    }

    /// Puts the last records of a segment anew where they keep much that is done with. Write amplification stays below
    /// two: a segment is emptied when less than half of all is live.
    fn make_room(&self) {
        let mut state = self.state();
        if state.looked.elapsed() < ROOM {
            return;
        }
        state.looked = time::now();
        drop(state);
        let crowded = self.journal.crowded();
        if crowded.is_empty() {
            return;
        }
        let mut state = self.state();
        let due = std::mem::take(&mut state.due).into_vec();
        let (moving, staying): (Vec<_>, Vec<_>) =
            due.into_iter().partition(|entry| crowded.binary_search(&entry.sequence).is_ok());
        state.due = staying.into();
        drop(state);
        for entry in moving {
            let moved = self
                .journal
                .read(entry.sequence)
                .map(|body| self.journal.put(body, Ticket::Move(entry.sequence, entry)).is_ok());
            if !moved.unwrap_or(false) {
                self.state().due.push(entry);
            }
        }
    }
}

impl State {
    fn is_full(&self) -> bool {
        self.under_way >= WINDOW.0 || self.under_way_bytes >= WINDOW.1
    }

    fn take(&mut self) -> Option<Entry> {
        self.under_way += 1;
        self.due.pop()
    }
}

//! The retry logs of all targets: opened when the process starts, made when they are wanted first.

use super::store::{Elsewhere, Unprepared};
use super::{RetryLog, Route};
use crate::catalog::Order;
use crate::deliver::{Outlet, Timer};
use crate::journal::{JournalError, Reserve};
use crate::metrics::Metrics;
use crate::plan::Plan;
use crate::time;
use arc_swap::ArcSwap;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// What stands for itself in the name of a log's folder.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

type Queues = HashMap<Arc<str>, Arc<Outlet>>;
type Away = HashMap<(Arc<str>, String), Arc<RetryLog>>;
/// Logs by the source whose deliveries wait in them.
pub type BySource = Vec<(Arc<str>, Arc<RetryLog>)>;

/// The retry logs of a process, by target.
pub struct Logs {
    folder: PathBuf,
    /// Of one log.
    pub(super) max_bytes: u64,
    pub(super) reserve: Arc<Reserve>,
    pub(super) timer: Arc<Timer>,
    pub(super) metrics: Arc<Metrics>,
    open: Mutex<HashMap<String, Arc<RetryLog>>>,
    /// Of sources whose deliveries wait elsewhere.
    elsewhere: Vec<Elsewhere>,
    /// By source and target.
    away: Mutex<Away>,
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
        (max_bytes, elsewhere): (u64, Vec<Elsewhere>),
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
            elsewhere,
            away: Mutex::default(),
            routes: Mutex::default(),
            queues: ArcSwap::default(),
        });
        if max_bytes == 0 {
            return Ok(logs);
        }
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
        let log = RetryLog::open(self, target, None)?;
        self.route_one(target, &log);
        open.insert(target.to_owned(), Arc::clone(&log));
        Ok(log)
    }

    fn route_one(&self, target: &str, log: &RetryLog) {
        if let Some(routes) = &*self.routes.lock().unwrap_or_else(PoisonError::into_inner) {
            log.set_route(routes.get(target).cloned());
        }
    }

    /// Whether there are any on this disk.
    pub fn on_disk(&self) -> bool {
        self.max_bytes > 0
    }

    /// Whether there are any at all.
    pub fn any(&self) -> bool {
        self.on_disk() || !self.elsewhere.is_empty()
    }

    /// The log of a target that is elsewhere; made when there is none.
    fn away(self: &Arc<Self>, place: &Elsewhere, target: &str) -> Result<Arc<RetryLog>, JournalError> {
        let mut open = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        let name = (Arc::clone(place.source()), target.to_owned());
        if let Some(log) = open.get(&name) {
            return Ok(Arc::clone(log));
        }
        let log = RetryLog::open(self, target, Some(place))?;
        self.route_one(target, &log);
        open.insert(name, Arc::clone(&log));
        Ok(log)
    }

    /// The logs of a target that are elsewhere: by source, those whose events it may get.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn elsewhere(self: &Arc<Self>, (target, order): (&str, Order), plan: &Plan) -> Result<BySource, String> {
        // What has an ARN for a name waits on this disk: no topic and no subject can be called so.
        if target.starts_with("arn:") {
            return Ok(Vec::new());
        }
        let usable = |place: &&Elsewhere| {
            (order != Order::Key || place.keeps_order()) && plan.reached(place.bus()).contains(target)
        };
        let log = |place: &Elsewhere| {
            let log = self.away(place, target).map_err(|error| error.to_string())?;
            Ok((Arc::clone(place.source()), log))
        };
        self.elsewhere.iter().filter(usable).map(log).collect()
    }

    /// Makes the topics and streams that are missing, and takes up what waits for targets that are no more.
    ///
    /// # Errors
    /// Nobody answers, or what is there cannot be used.
    pub fn prepare(self: &Arc<Self>) -> Result<(), Unprepared> {
        let made: Vec<_> = self.away.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        for place in &self.elsewhere {
            let reached = made.iter().filter(|(source, _)| source == place.source());
            for target in place.prepare(reached.map(|(_, target)| target.as_str()))? {
                self.away(place, &target).map_err(|error| Unprepared::Here(error.to_string()))?;
            }
        }
        Ok(())
    }

    /// Whether a target has one.
    pub fn get(&self, target: &str) -> Option<Arc<RetryLog>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).get(target).map(Arc::clone)
    }

    /// The folder of a target's log.
    pub(super) fn folder_of(&self, target: &str) -> PathBuf {
        self.folder.join(utf8_percent_encode(target, PLAIN).to_string())
    }

    /// The default dead-letter queue of a bus.
    pub(super) fn queue(&self, bus: &str) -> Option<Arc<Outlet>> {
        self.queues.load().get(bus).map(Arc::clone)
    }

    /// Says where the deliveries of every log go from now on: to the outlet and the dead-letter queue of its target, or to
    /// the queue of their bus where there is no such target any more.
    pub fn route(&self, routes: HashMap<String, Route>, queues: Queues) {
        self.queues.store(Arc::new(queues));
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, log) in &*open {
            log.set_route(routes.get(name).cloned());
        }
        for ((_, name), log) in &*self.away.lock().unwrap_or_else(PoisonError::into_inner) {
            log.set_route(routes.get(name).cloned());
        }
        *self.routes.lock().unwrap_or_else(PoisonError::into_inner) = Some(routes);
    }

    /// Whether nothing waits in any of them.
    pub fn is_empty(&self) -> bool {
        self.all().iter().all(|log| log.store.size().0 == 0)
    }

    fn all(&self) -> Vec<Arc<RetryLog>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let topics = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        open.values().chain(topics.values()).map(Arc::clone).collect()
    }

    /// Begins no more attempts, and waits until those under way have ended and all is written, `deadline` at most.
    pub fn drain(&self, deadline: Instant) {
        let open = self.all();
        for log in &open {
            log.state().closed = true;
            log.changed.notify_all();
        }
        for log in &open {
            let state = log.state();
            let left = deadline.saturating_duration_since(time::now());
            drop(log.changed.wait_timeout_while(state, left, |state| state.waiting.under_way() > 0));
            log.store.flush(deadline);
        }
    }
}

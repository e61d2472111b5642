//! Failed attempts wait here for a moment, bounded by the credit that they hold; and from here targets are looked at,
//! whether their attempts take long.

use super::{Delivery, Outlet};
use crate::time;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How often targets are looked at.
const LOOK: Duration = Duration::from_millis(250);

struct Waiting {
    due: Instant,
    delivery: Delivery,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    /// The earliest first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.due.cmp(&self.due)
    }
}

/// The one thread that starts due attempts.
#[derive(Default)]
pub struct Timer {
    waiting: Mutex<BinaryHeap<Waiting>>,
    changed: Condvar,
    watched: Mutex<Vec<Weak<Outlet>>>,
}

impl Timer {
    /// Starts the thread; it ends with the process.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn spawn() -> std::io::Result<Arc<Self>> {
        let timer = Arc::new(Self::default());
        let run = Arc::clone(&timer);
        std::thread::Builder::new().name("sluice-retry".into()).spawn(move || run.run())?;
        Ok(timer)
    }

    /// Keeps a delivery until `due`.
    pub fn wait(&self, due: Instant, delivery: Delivery) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(Waiting { due, delivery });
        self.changed.notify_one();
    }

    /// Looks at an outlet from now on, as long as there is one.
    pub fn watch(&self, outlet: &Arc<Outlet>) {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(outlet));
    }

    /// Looks at the outlets; returns when to look again.
    fn look(&self, now: Instant) -> Instant {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|outlet| outlet.strong_count() > 0);
        let outlets: Vec<_> = watched.iter().filter_map(Weak::upgrade).collect();
        drop(watched);
        for outlet in &outlets {
            outlet.look(now);
        }
        now + LOOK
    }

    fn run(&self) {
        let mut look = time::now();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let now = time::now();
            if look <= now {
                drop(waiting);
                look = self.look(now);
                waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            }
            let next = match waiting.peek() {
                Some(first) if first.due <= now => None,
                Some(first) => Some(first.due.min(look).saturating_duration_since(now)),
                None => Some(look.saturating_duration_since(now)),
            };
            match next {
                Some(pause) => {
                    (waiting, _) = self.changed.wait_timeout(waiting, pause).unwrap_or_else(PoisonError::into_inner);
                }
                None => {
                    let due = waiting.pop();
                    drop(waiting);
                    if let Some(due) = due {
                        Outlet::begin(due.delivery);
                    }
                    waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

//! Failed attempts wait here for their next try. Bounded by the credit that the waiting deliveries hold.

use super::{Delivery, Outlet};
use crate::time;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

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

    fn run(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let now = time::now();
            let next = match waiting.peek() {
                Some(first) if first.due <= now => None,
                Some(first) => Some(first.due - now),
                None => Some(Duration::from_hours(1)),
            };
            match next {
                Some(pause) => {
                    (waiting, _) = self.changed.wait_timeout(waiting, pause).unwrap_or_else(PoisonError::into_inner);
                }
                None => {
                    let due = waiting.pop();
                    drop(waiting);
                    if let Some(due) = due {
                        Outlet::submit(due.delivery);
                    }
                    waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

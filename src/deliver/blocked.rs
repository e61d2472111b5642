//! Which dead-letter queues do not take letters, so that somebody sees why partitions stand still.
//!
//! In: letters as they come to a queue, fail and are kept. Out: the gauge `sluice_blocked{by="dlq"}` and a note of
//! health, at most two seconds late. Promises: only says; what waits is held by its source's credit.

use super::retry::Failure;
use crate::metrics::{Metrics, labels};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often [`Queues::look`] is to be called.
pub const LOOK: Duration = Duration::from_millis(250);
/// A queue that keeps none of its letters for this long is blocked, whether or not it has said so.
const STILL: Duration = Duration::from_millis(1_250);

/// The letters on their way into one queue.
#[derive(Default)]
pub struct Letters(Mutex<Open>);

#[derive(Default)]
struct Open {
    waiting: u64,
    /// Those of them that were refused at least once.
    refused: u64,
    /// When the first of them came, or the last one was kept.
    since: Option<Instant>,
    cause: Option<String>,
}

impl Letters {
    fn change(&self, change: impl FnOnce(&mut Open)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// A letter has come.
    pub fn came(&self, now: Instant) {
        self.change(|open| {
            if open.waiting == 0 {
                open.since = Some(now);
            }
            open.waiting += 1;
        });
    }

    /// A letter was not taken and waits; `first` unless that has happened to it before.
    pub fn refused(&self, first: bool, failure: &Failure) {
        self.change(|open| {
            open.refused += u64::from(first);
            open.cause = Some(format!("{}: {}", failure.code, failure.message));
        });
    }

    /// A letter was kept, here or elsewhere; `refused` if it had to wait for that.
    pub fn left(&self, refused: bool, now: Instant) {
        self.change(|open| {
            open.waiting = open.waiting.saturating_sub(1);
            open.refused = open.refused.saturating_sub(u64::from(refused));
            open.since = Some(now);
            if open.refused == 0 {
                open.cause = None;
            }
        });
    }

    /// How many letters are held up, and why.
    fn held(&self, now: Instant) -> (u64, Option<String>) {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let still = open.since.is_some_and(|since| now.duration_since(since) >= STILL);
        (if still { open.waiting } else { open.refused }, open.cause.clone())
    }
}

/// All dead-letter queues by name.
#[derive(Default)]
pub struct Queues(Mutex<BTreeMap<Arc<str>, Arc<Letters>>>);

impl Queues {
    /// The letters of a queue; the same ones after a reload that changes it.
    pub fn letters(&self, queue: &Arc<str>) -> Arc<Letters> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry(Arc::clone(queue)).or_default())
    }

    /// Says of every queue that letters came to whether it is blocked.
    pub fn look(&self, now: Instant, metrics: &Metrics) {
        for (queue, letters) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let (held, cause) = letters.held(now);
            let own = labels([("by", "dlq"), ("target", queue)]);
            // A target that no letter has come to is no queue, and gets no gauge.
            if held == 0 && metrics.families.blocked.get(&own).is_none() {
                continue;
            }
            metrics.families.blocked.get_or_create(&own).set(i64::try_from(held).unwrap_or(i64::MAX));
            let note = (held > 0).then(|| {
                let cause = cause.unwrap_or_else(|| "no answer".to_owned());
                format!("{held} dead letters wait for queue {queue}, and their partitions with them: {cause}")
            });
            metrics.health.note(&format!("dlq {queue}"), note);
        }
    }
}

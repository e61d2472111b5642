//! Attempts that take long: their deliveries are spilled while they are under way, so that no target holds a source.

use super::parcel::{Hold, Parcel};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How long an attempt may hold its source.
pub const PATIENCE: Duration = Duration::from_millis(500);
/// How many that have ended are forgotten with each that begins.
const SWEEP: usize = 2;

/// One target's attempts, oldest first.
#[derive(Default)]
pub struct Watch(Mutex<Watched>);

#[derive(Default)]
struct Watched {
    young: VecDeque<Attempt>,
    /// Those that have taken long and are still under way.
    slow: Vec<Attempt>,
}

/// An attempt under way.
#[derive(Clone)]
pub struct Attempt {
    since: Instant,
    parcel: Weak<Parcel>,
}

impl Attempt {
    fn has_ended(&self) -> bool {
        self.parcel.upgrade().is_none_or(|parcel| matches!(*parcel.hold(), Hold::Ended))
    }
}

impl Watch {
    /// Notes that an attempt begins.
    pub fn begin(&self, since: Instant, parcel: &Arc<Parcel>, failed: u32) {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..SWEEP {
            if watched.young.front().is_some_and(|attempt| attempt.parcel.strong_count() == 0) {
                watched.young.pop_front();
            }
        }
        // One that is repeated in memory has several: a log is to be told of the last.
        parcel.begun.store(failed, Ordering::Relaxed);
        watched.young.push_back(Attempt { since, parcel: Arc::downgrade(parcel) });
    }

    /// Looks at the attempts under way. Returns those whose source still waits although they have taken long, and
    /// whether there are any that have taken long.
    pub fn look(&self, now: Instant) -> (Vec<(Arc<Parcel>, u32)>, bool) {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watched.slow.retain(|attempt| !attempt.has_ended());
        while let Some(first) = watched.young.front() {
            let late = now.duration_since(first.since) >= PATIENCE;
            if !late && !first.has_ended() {
                break;
            }
            if let Some(first) = watched.young.pop_front().filter(|first| late && !first.has_ended()) {
                watched.slow.push(first);
            }
        }
        let held = |attempt: &Attempt| {
            let parcel = attempt.parcel.upgrade()?;
            let held = matches!(*parcel.hold(), Hold::Source(_));
            let failed = parcel.begun.load(Ordering::Relaxed);
            held.then_some((parcel, failed))
        };
        (watched.slow.iter().filter_map(held).collect(), !watched.slow.is_empty())
    }
}

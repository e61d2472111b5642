//! Failures in the log, held back where they repeat.

use super::retry::Failure;
use crate::time;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Logs a failure, the same cause at most once in ten seconds a target.
pub(super) fn report(target: &str, failure: &Failure) {
    type Said = HashMap<(String, &'static str), (Instant, u64)>;
    static SAID: LazyLock<Mutex<Said>> = LazyLock::new(Mutex::default);
    let now = time::now();
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    let entry = said.entry((target.to_owned(), failure.code));
    let mut suppressed = 0;
    match entry {
        Entry::Occupied(mut seen) => {
            let (last, held) = seen.get_mut();
            if now.duration_since(*last) < Duration::from_secs(10) {
                *held += 1;
                return;
            }
            suppressed = *held;
            (*last, *held) = (now, 0);
        }
        Entry::Vacant(free) => {
            free.insert((now, 0));
        }
    }
    tracing::warn!(sluice_target = target, code = failure.code, suppressed, "delivery failed: {}", failure.message);
}

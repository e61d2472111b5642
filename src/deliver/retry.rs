//! What follows a failed attempt, as a pure function.

use crate::catalog::RetryPolicy;
use crate::envelope::DeliveryId;
use std::time::Duration;

/// Whether trying again can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It can: time-outs, unreachable brokers, full disks.
    Retry,
    /// It cannot: too large, forbidden, malformed.
    Permanent,
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// One of the service's error codes (`CONNECTION_FAILURE`, `INVALID_JSON`, …).
    pub code: &'static str,
    /// What happened, and what to do.
    pub message: String,
    /// Whether it is worth another try.
    pub class: Class,
    /// The pause that the target asked for.
    pub pause: Duration,
}

impl Failure {
    /// A failure that time can heal.
    pub fn retry(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), class: Class::Retry, pause: Duration::ZERO }
    }

    /// A failure that time cannot heal.
    pub fn permanent(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), class: Class::Permanent, pause: Duration::ZERO }
    }

    /// The same, with a pause that the target asked for.
    pub fn not_before(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }
}

/// Which bound of the policy ended retrying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exhausted {
    /// `MaximumRetryAttempts`
    Attempts,
    /// `MaximumEventAgeInSeconds`
    Age,
}

impl Exhausted {
    /// As the service writes it into `EXHAUSTED_RETRY_CONDITION`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Attempts => "MaximumRetryAttempts",
            Self::Age => "MaximumEventAgeInSeconds",
        }
    }
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Try again after this long.
    Again(Duration),
    /// Give up; the bound that was reached, if retrying was possible at all.
    DeadLetter(Option<Exhausted>),
}

/// Decides after a failed attempt: `retries` were made before it, the event is `age` old. The delay is
/// `jitter` (0 to 1) of an exponentially growing ceiling ("full jitter", AWS Architecture Blog, 2015), or that ceiling.
pub fn next(policy: &RetryPolicy, retries: u32, age: Duration, class: Class, jitter: f64) -> Next {
    if class == Class::Permanent {
        return Next::DeadLetter(None);
    }
    if retries >= policy.max_attempts {
        return Next::DeadLetter(Some(Exhausted::Attempts));
    }
    if age >= policy.max_age {
        return Next::DeadLetter(Some(Exhausted::Age));
    }
    let ceiling = policy.initial.saturating_mul(1u32.checked_shl(retries).unwrap_or(u32::MAX)).min(policy.max);
    Next::Again(if policy.jitter { ceiling.mul_f64(jitter.clamp(0.0, 1.0)) } else { ceiling })
}

/// Where a delivery waits for its next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// In memory: for a moment, or because nothing else may have it.
    Memory,
    /// In the log that has it already.
    Postponed,
    /// In the retry log, if that takes it.
    Log,
}

/// A delivery that must wait longer for its next attempt than this waits in the retry log.
pub const QUICK: Duration = Duration::from_millis(100);

/// Decides where a delivery waits for `pause`: one that a log has, and one that is a dead letter, which no log takes.
pub fn wait(logged: bool, letter: bool, pause: Duration) -> Wait {
    match (letter, logged) {
        (true, _) => Wait::Memory,
        (false, true) => Wait::Postponed,
        (false, false) if pause <= QUICK => Wait::Memory,
        (false, false) => Wait::Log,
    }
}

/// A number from 0 to 1 that differs between deliveries and attempts and is the same at every run.
pub fn jitter(id: DeliveryId, attempt: u32) -> f64 {
    let mut x = (id.0 as u64) ^ ((id.0 >> 64) as u64) ^ (u64::from(attempt) << 32);
    // The finalizer of SplitMix64.
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

//! Whether a target is worth an attempt, as plain state: time and chance are arguments.
//!
//! Failures in a row open the breaker. After a pause one attempt, the probe, is let through; while it is under way there
//! is no other. A good answer closes the breaker, a bad one begins a longer pause.

use std::time::{Duration, Instant};

/// Failures in a row that open it.
const FAILURES: u32 = 5;
/// The longest pause that the target did not ask for.
const LONGEST: Duration = Duration::from_secs(10);
/// A probe that has not ended by then is followed by another.
const PROBE: Duration = Duration::from_mins(2);

/// One target's breaker.
#[derive(Debug, Clone, Default)]
pub struct Breaker {
    failures: u32,
    open: Option<Open>,
}

#[derive(Debug, Clone)]
struct Open {
    until: Instant,
    /// Pauses so far.
    pauses: u32,
    /// Whether `until` is the end of a probe instead of a pause.
    probing: bool,
}

/// Whether an attempt may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admit {
    /// It may.
    Yes,
    /// Not before this instant.
    NotBefore(Instant),
}

impl Breaker {
    /// Whether attempts may begin without asking.
    pub fn is_closed(&self) -> bool {
        self.open.is_none()
    }

    /// Asks for an attempt; where the pause is over, this one is the probe.
    pub fn admit(&mut self, now: Instant) -> Admit {
        let Some(open) = &mut self.open else { return Admit::Yes };
        if now < open.until {
            return Admit::NotBefore(open.until);
        }
        (open.probing, open.until) = (true, now + PROBE);
        Admit::Yes
    }

    /// The target has answered.
    pub fn good(&mut self) {
        *self = Self::default();
    }

    /// An attempt has failed; the target asked for a pause of `asked`. Pauses grow from `initial` to `longest`, or ten
    /// seconds where that is less; `chance` is from 0 to 1.
    pub fn bad(&mut self, now: Instant, asked: Duration, (initial, longest): (Duration, Duration), chance: f64) {
        self.failures = self.failures.saturating_add(1);
        let pauses = match &self.open {
            // What began before the breaker opened says nothing new.
            Some(open) if !open.probing => return,
            Some(open) => open.pauses,
            None if self.failures < FAILURES => return,
            None => 0,
        };
        let ceiling = initial.saturating_mul(1 << pauses.min(20)).min(longest).min(LONGEST);
        let pause = ceiling.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0).max(asked);
        self.open = Some(Open { until: now + pause, pauses: pauses + 1, probing: false });
    }
}

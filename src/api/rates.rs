//! How many requests an account may make in a region in a second; beyond, the service's `ThrottlingException`.

use crate::resources::{ApiError, Scope};
use governor::clock::DefaultClock;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use std::num::NonZeroU32;

/// Accounts and regions that are told apart before those that have rested are forgotten.
const KNOWN: usize = 1024;

type Limiter = RateLimiter<Scope, HashMapStateStore<Scope>, DefaultClock>;

/// Rates, where there are any.
pub struct Rates {
    put_events: Option<Limiter>,
    others: Option<Limiter>,
}

impl Rates {
    /// PutEvents requests, and others, in a second.
    pub fn new(put_events: Option<NonZeroU32>, others: Option<NonZeroU32>) -> Self {
        let limiter = |count| RateLimiter::hashmap(Quota::per_second(count));
        Self { put_events: put_events.map(limiter), others: others.map(limiter) }
    }

    /// Counts a request.
    ///
    /// # Errors
    /// It is one too many.
    pub fn admit(&self, scope: &Scope, action: &str) -> Result<(), ApiError> {
        let limiter = if action == "PutEvents" { &self.put_events } else { &self.others };
        let Some(limiter) = limiter else { return Ok(()) };
        if limiter.len() > KNOWN {
            limiter.retain_recent();
        }
        limiter.check_key(scope).map_err(|_| ApiError::new("ThrottlingException", "Rate exceeded"))
    }
}

//! Failed authentications: who fails too often within a minute is not listened to until it is over.
//!
//! In: addresses and times. Out: whether a request is looked at. Promises: bounded memory; what is refused here costs no
//! look at a signature. Leaves to others: what a failure is (`access`).

use crate::resources::ApiError;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Seconds in which failures count together.
const WINDOW: i64 = 60;
/// Addresses that are told apart; of more, those that began first are forgotten.
const KNOWN: usize = 4096;

/// Failures of late, by address.
pub struct Failures {
    most: u32,
    known: Mutex<HashMap<IpAddr, Counted>>,
}

#[derive(Clone, Copy)]
struct Counted {
    /// Seconds since the epoch.
    since: i64,
    count: u32,
}

impl Counted {
    fn is_over(self, now: i64) -> bool {
        // A clock that was put back must not shut anybody out for longer.
        !(self.since..self.since + WINDOW).contains(&now)
    }
}

impl Failures {
    /// Takes `most` failures of an address in a minute.
    pub fn new(most: u32) -> Self {
        Self { most, known: Mutex::default() }
    }

    /// Whether a request from an address is looked at; `now` is in seconds since the epoch.
    ///
    /// # Errors
    /// Too many have failed.
    pub fn admit(&self, peer: IpAddr, now: i64) -> Result<(), ApiError> {
        let counted = self.known().get(&network(peer)).copied().filter(|counted| !counted.is_over(now));
        match counted.filter(|counted| self.most > 0 && counted.count >= self.most) {
            None => Ok(()),
            Some(counted) => {
                let wait = counted.since + WINDOW - now;
                let message =
                    format!("Rate exceeded: too many requests failed to authenticate; come again in {wait} s");
                Err(ApiError::new("ThrottlingException", message))
            }
        }
    }

    /// Counts a failure.
    pub fn note(&self, peer: IpAddr, now: i64) {
        let mut known = self.known();
        let peer = network(peer);
        if known.len() >= KNOWN && !known.contains_key(&peer) {
            known.retain(|_, counted| !counted.is_over(now));
            let oldest = known.iter().min_by_key(|(_, counted)| counted.since).map(|(peer, _)| *peer);
            if let Some(oldest) = oldest.filter(|_| known.len() >= KNOWN) {
                known.remove(&oldest);
            }
        }
        let counted = known.entry(peer).or_insert(Counted { since: now, count: 0 });
        if counted.is_over(now) {
            *counted = Counted { since: now, count: 0 };
        }
        counted.count = counted.count.saturating_add(1);
    }

    /// How many addresses are told apart.
    pub fn addresses(&self) -> usize {
        self.known().len()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<IpAddr, Counted>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What counts as one address: of IPv6 the network that one customer has.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        four => four,
    }
}

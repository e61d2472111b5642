//! How much a source may have in flight, in events and bytes (I7).
//!
//! A source takes credit with each batch and gets it back when the batch's receipts complete. It may overdraw by one
//! batch a lane; then it reads no more until there is some again.

use std::sync::atomic::{AtomicI64, Ordering};

/// Bounds of what is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Events.
    pub events: u32,
    /// Bytes of their records.
    pub bytes: u64,
}

/// One source's budget.
#[derive(Debug)]
pub struct Credit {
    window: Window,
    events: AtomicI64,
    bytes: AtomicI64,
}

impl Credit {
    /// A full budget.
    pub fn new(window: Window) -> Self {
        Self { window, events: AtomicI64::new(0), bytes: AtomicI64::new(0) }
    }

    /// Notes that a batch is in flight.
    pub fn take(&self, events: u32, bytes: u64) {
        self.events.fetch_add(i64::from(events), Ordering::Relaxed);
        self.bytes.fetch_add(signed(bytes), Ordering::Relaxed);
    }

    /// Notes that it no longer is.
    pub fn give(&self, events: u32, bytes: u64) {
        self.events.fetch_sub(i64::from(events), Ordering::Relaxed);
        self.bytes.fetch_sub(signed(bytes), Ordering::Relaxed);
    }

    /// Events in flight.
    pub fn events(&self) -> i64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Bytes in flight.
    pub fn bytes(&self) -> u64 {
        u64::try_from(self.bytes.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Whether the window is full: pause.
    pub fn exhausted(&self) -> bool {
        self.events() >= i64::from(self.window.events).max(1)
            || self.bytes.load(Ordering::Relaxed) >= signed(self.window.bytes).max(1)
    }
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

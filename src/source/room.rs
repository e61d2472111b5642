//! Room in memory for events that nothing else bounds: taken when they come, given back when it is dropped.

use super::inlet::Refused;
use crate::credit::Window;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// Bytes that one permit stands for.
const PERMIT_BYTES: u64 = 1024;

/// Free events, and free bytes in units of [`PERMIT_BYTES`].
pub struct Room {
    events: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    units: u64,
}

/// What an event takes of it.
pub type Taken = [OwnedSemaphorePermit; 2];

impl Room {
    /// Room for a window.
    pub fn new(window: Window) -> Self {
        let units = usize::try_from(window.bytes / PERMIT_BYTES).unwrap_or(usize::MAX);
        let [events, bytes] =
            [window.events as usize, units].map(|n| Arc::new(Semaphore::new(n.clamp(1, Semaphore::MAX_PERMITS))));
        let units = (bytes.available_permits() as u64).min(u64::from(u32::MAX));
        Self { events, bytes, units }
    }

    /// Takes room for an event, waiting for it until `deadline`.
    ///
    /// # Errors
    /// [`Refused::Busy`].
    pub async fn take(&self, bytes: usize, deadline: Instant) -> Result<Taken, Refused> {
        let units = (bytes as u64 / PERMIT_BYTES + 1).min(self.units) as u32;
        let room = async {
            let event = Arc::clone(&self.events).acquire_owned().await.ok()?;
            Some([event, Arc::clone(&self.bytes).acquire_many_owned(units).await.ok()?])
        };
        timeout_at(deadline, room).await.ok().flatten().ok_or(Refused::Busy)
    }
}

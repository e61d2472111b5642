//! From settled deliveries to committable offsets.
//!
//! In: runs of offsets as a source reads them, and the settling of deliveries. Out: the offset after the last gapless
//! settled one, per partition. Promises: I1 and I2. Leaves to others: what settles (`deliver`), committing (`source`).

use crate::credit::Credit;
use crate::planted::{self, Bug};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// A run of records of one partition, read in one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The tracker's number of the partition.
    pub partition: u32,
    /// The assignment in which it was read.
    pub generation: u32,
    /// Counts the partition's runs within the generation.
    pub sequence: u64,
    /// The offset after its last record, as the tracker counts.
    pub after: i64,
    /// Records in it.
    pub events: u32,
    /// Their bytes.
    pub bytes: u64,
}

/// Completed runs on their way back to the source. At most as many as the source's credit has events, for each holds
/// at least one.
#[derive(Default)]
pub struct Report {
    runs: Mutex<Vec<Run>>,
    arrived: Condvar,
    /// The same, for who waits in a task.
    woken: Notify,
}

impl Report {
    fn put(&self, run: Run) {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).push(run);
        self.arrived.notify_one();
        self.woken.notify_one();
    }

    /// Takes what has completed, waiting for the first in a task.
    pub async fn next(&self) -> Vec<Run> {
        loop {
            let runs = self.take(Duration::ZERO);
            if !runs.is_empty() {
                return runs;
            }
            self.woken.notified().await;
        }
    }

    /// Waits up to `wait` until something has completed.
    pub fn wait(&self, wait: Duration) {
        let runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.arrived.wait_timeout_while(runs, wait, |runs| runs.is_empty()));
    }

    /// Takes what has completed, waiting up to `wait` for the first.
    pub fn take(&self, wait: Duration) -> Vec<Run> {
        let runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut runs, _) = self
            .arrived
            .wait_timeout_while(runs, wait, |runs| runs.is_empty() && !wait.is_zero())
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *runs)
    }
}

struct Open {
    run: Run,
    /// Open deliveries, and one for the batch itself.
    pending: AtomicU32,
    report: Arc<Report>,
    credit: Arc<Credit>,
}

impl Open {
    fn settle(&self) {
        let before = self.pending.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0, "I2: settled more often than opened");
        if before == 1 {
            self.credit.give(self.run.events, self.run.bytes);
            self.report.put(self.run);
        }
    }
}

/// What a batch holds of a run until it is through with it. Dropping it open never completes the run (I2).
pub struct Receipt(Arc<Open>);

impl Receipt {
    /// Opens a run: takes its credit, and reports it when everything about it is settled.
    pub fn open(run: Run, report: &Arc<Report>, credit: &Arc<Credit>) -> Self {
        credit.take(run.events, run.bytes);
        Self(Arc::new(Open { run, pending: AtomicU32::new(1), report: Arc::clone(report), credit: Arc::clone(credit) }))
    }

    /// One more delivery that must settle before the run completes.
    pub fn pending(&self) -> Pending {
        self.0.pending.fetch_add(1, Ordering::Relaxed);
        Pending(Arc::clone(&self.0))
    }

    /// The batch is through with the run; events without a delivery settle here.
    pub fn close(self) {
        self.0.settle();
    }
}

/// One open delivery. Dropping it unsettled keeps its run open for good (I2).
pub struct Pending(Arc<Open>);

impl Pending {
    /// The delivery has ended: delivered, dead-lettered, or dropped where the configuration says so.
    pub fn settle(self) {
        self.0.settle();
    }
}

/// Which offsets of which partition are settled.
#[derive(Default)]
pub struct OffsetTracker {
    partitions: Vec<Partition>,
}

struct Partition {
    generation: u32,
    /// Runs in offset order: the offset after the run, and whether it is settled.
    runs: VecDeque<(i64, bool)>,
    /// Sequence of the front run.
    front: u64,
    open_events: u64,
    open_bytes: u64,
    committable: Option<i64>,
    /// The offset that the group is known to have, and the one after the last gapless settled record. Both outlive the
    /// generation.
    kept: Option<i64>,
    settled: Option<i64>,
    assigned: bool,
}

impl OffsetTracker {
    /// Adds a partition and returns its number; it starts unassigned.
    pub fn add(&mut self) -> u32 {
        self.partitions.push(Partition {
            generation: 0,
            runs: VecDeque::new(),
            front: 0,
            open_events: 0,
            open_bytes: 0,
            committable: None,
            kept: None,
            settled: None,
            assigned: false,
        });
        (self.partitions.len() - 1) as u32
    }

    /// Starts a new generation of the partition: nothing read before counts any more.
    pub fn assign(&mut self, partition: u32) {
        self.fence(partition);
        self.partitions[partition as usize].assigned = true;
    }

    /// Where to begin reading in a new generation, given what the group has committed: behind what was settled before,
    /// though its commit did not arrive, as when the broker died. That is committed now. An offset that somebody has
    /// set back counts as it is.
    pub fn resume(&mut self, partition: u32, committed: Option<i64>) -> Option<i64> {
        let track = &mut self.partitions[partition as usize];
        let further =
            |settled: &i64| track.kept.is_some_and(|kept| Some(kept) <= committed) && Some(*settled) > committed;
        track.settled = track.settled.filter(further);
        track.committable = track.settled;
        track.kept = committed;
        track.settled.or(committed)
    }

    /// Notes that the group has an offset.
    pub fn kept(&mut self, partition: u32, offset: i64) {
        let track = &mut self.partitions[partition as usize];
        track.kept = track.kept.max(track.assigned.then_some(offset));
    }

    /// Ends the partition's generation (I1).
    pub fn fence(&mut self, partition: u32) {
        let track = &mut self.partitions[partition as usize];
        track.generation += 1;
        track.front += track.runs.len() as u64;
        track.runs.clear();
        track.open_events = 0;
        track.open_bytes = 0;
        track.committable = None;
        track.assigned = false;
    }

    /// Whether the partition is assigned.
    pub fn assigned(&self, partition: u32) -> bool {
        self.partitions[partition as usize].assigned
    }

    /// Opens a run that ends before offset `after`. Runs must be opened in offset order.
    pub fn open(&mut self, partition: u32, after: i64, events: u32, bytes: u64) -> Run {
        let track = &mut self.partitions[partition as usize];
        debug_assert!(track.runs.back().is_none_or(|&(end, _)| end < after), "runs are opened in order");
        let sequence = track.front + track.runs.len() as u64;
        track.runs.push_back((after, planted::on(Bug::CommitBeforeAck)));
        track.open_events += u64::from(events);
        track.open_bytes += bytes;
        Run { partition, generation: track.generation, sequence, after, events, bytes }
    }

    /// Notes a completed run; one of an older generation changes nothing (I1). Returns whether it counted.
    pub fn settle(&mut self, run: &Run) -> bool {
        let track = &mut self.partitions[run.partition as usize];
        if run.generation != track.generation {
            track.committable = track.committable.or(planted::on(Bug::LateSettle).then_some(run.after));
            return false;
        }
        let Some(index) = run.sequence.checked_sub(track.front).and_then(|n| usize::try_from(n).ok()) else {
            return false;
        };
        let Some((_, settled)) = track.runs.get_mut(index) else { return false };
        *settled = true;
        track.open_events = track.open_events.saturating_sub(u64::from(run.events));
        track.open_bytes = track.open_bytes.saturating_sub(run.bytes);
        while let Some(&(after, true)) = track.runs.front() {
            track.runs.pop_front();
            track.front += 1;
            (track.committable, track.settled) = (Some(after), Some(after));
        }
        track.committable = track.committable.max(planted::on(Bug::CommitHighest).then_some(run.after));
        true
    }

    /// Events and bytes of the partition that are read and not settled.
    pub fn in_flight(&self, partition: u32) -> (u64, u64) {
        let track = &self.partitions[partition as usize];
        (track.open_events, track.open_bytes)
    }

    /// The partition's assignment, counted; a record read in another one is to be dropped.
    pub fn generation(&self, partition: u32) -> u32 {
        self.partitions[partition as usize].generation
    }

    /// Takes the offsets to commit, each the one after the last gapless settled record.
    pub fn committable(&mut self) -> Vec<(u32, i64)> {
        let partitions = (0..).zip(&mut self.partitions);
        partitions.filter_map(|(number, track)| Some((number, track.committable.take()?))).collect()
    }

    /// Everything that was read counts as settled; a planted fault.
    pub fn give_up(&mut self) {
        for track in &mut self.partitions {
            track.committable = track.runs.back().map(|&(after, _)| after).or(track.committable);
        }
    }

    /// Makes committable again what is settled and the group is not known to have: its commit may have got lost. An
    /// offset never goes backward.
    pub fn commit_again(&mut self) {
        for track in self.partitions.iter_mut().filter(|track| track.assigned) {
            track.committable = track.committable.or(track.settled.filter(|settled| Some(*settled) > track.kept));
        }
    }

    /// Whether nothing is open in any assigned partition.
    pub fn idle(&self) -> bool {
        self.partitions.iter().all(|track| track.runs.is_empty())
    }

    /// Runs of the partition that are settled and not committable, for one before them is open.
    pub fn waiting(&self, partition: u32) -> u64 {
        self.partitions[partition as usize].runs.iter().filter(|(_, settled)| *settled).count() as u64
    }

    /// Whether nothing is open in this partition.
    pub fn partition_idle(&self, partition: u32) -> bool {
        self.partitions[partition as usize].runs.is_empty()
    }
}

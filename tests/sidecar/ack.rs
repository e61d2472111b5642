//! I1 and I2: which offsets are committable after which settles.

use proptest::prelude::*;
use sluice::ack::{OffsetTracker, Receipt, Report};
use sluice::credit::{Credit, Window};
use std::sync::Arc;
use std::time::Duration;

#[test]
fn offsets_commit_without_gaps() {
    let mut tracker = OffsetTracker::default();
    let partition = tracker.add();
    tracker.assign(partition);
    let runs: Vec<_> = [10, 20, 30].into_iter().map(|after| tracker.open(partition, after, 10, 100)).collect();
    assert_eq!(tracker.in_flight(partition), (30, 300));
    assert!(tracker.settle(&runs[1]));
    assert_eq!(tracker.committable(), []);
    assert!(tracker.settle(&runs[0]));
    assert_eq!(tracker.committable(), [(partition, 20)]);
    assert_eq!(tracker.committable(), [], "taken once");
    assert!(tracker.settle(&runs[2]));
    assert_eq!(tracker.committable(), [(partition, 30)]);
    assert!(tracker.idle());
}

#[test]
fn a_late_settle_of_an_old_generation_changes_nothing() {
    let mut tracker = OffsetTracker::default();
    let partition = tracker.add();
    tracker.assign(partition);
    let old = tracker.open(partition, 10, 10, 0);
    tracker.fence(partition);
    assert!(!tracker.settle(&old));
    tracker.assign(partition);
    let new = tracker.open(partition, 5, 5, 0);
    assert!(!tracker.settle(&old));
    assert_eq!(tracker.committable(), []);
    assert!(tracker.settle(&new));
    assert_eq!(tracker.committable(), [(partition, 5)]);
}

#[test]
fn a_receipt_completes_when_its_last_delivery_settles() {
    let mut tracker = OffsetTracker::default();
    let partition = tracker.add();
    tracker.assign(partition);
    let (report, credit) = (Arc::new(Report::default()), Arc::new(Credit::new(Window { events: 4, bytes: 1000 })));
    let receipt = Receipt::open(tracker.open(partition, 4, 4, 10), &report, &credit);
    assert!(credit.exhausted());
    let (one, two) = (receipt.pending(), receipt.pending());
    receipt.close();
    one.settle();
    assert_eq!(report.take(Duration::ZERO), []);
    two.settle();
    assert_eq!(report.take(Duration::ZERO).len(), 1);
    assert!(!credit.exhausted());
    // Dropped unsettled, it never completes (I2).
    let receipt = Receipt::open(tracker.open(partition, 5, 1, 10), &report, &credit);
    drop(receipt.pending());
    receipt.close();
    assert_eq!(report.take(Duration::ZERO), []);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Against a model that keeps every offset: settles in any order, with reassignments in between.
    #[test]
    fn the_tracker_agrees_with_a_plain_model(steps in prop::collection::vec((0u8..10, 0u32..3, 1u32..5, any::<u16>()), 1..120)) {
        let mut tracker = OffsetTracker::default();
        for _ in 0..3 { let partition = tracker.add(); tracker.assign(partition); }
        // Per partition: open runs of this generation as (run, end, settled), the next offset, the last committed one.
        let mut open: Vec<Vec<(sluice::ack::Run, i64, bool)>> = vec![Vec::new(); 3];
        let mut stale = Vec::new();
        let mut next = [0i64; 3];
        for (kind, partition, length, pick) in steps {
            let p = partition as usize;
            match kind {
                0..=3 => {
                    next[p] += i64::from(length);
                    open[p].push((tracker.open(partition, next[p], length, 1), next[p], false));
                }
                4..=7 if !open[p].is_empty() => {
                    let n = usize::from(pick) % open[p].len();
                    if !open[p][n].2 {
                        open[p][n].2 = true;
                        prop_assert!(tracker.settle(&open[p][n].0));
                    }
                }
                8 => {
                    stale.extend(open[p].drain(..).map(|(run, _, _)| run));
                    tracker.assign(partition);
                }
                _ => {
                    for run in &stale { prop_assert!(!tracker.settle(run)); }
                    let committable = tracker.committable();
                    for (p, open) in open.iter_mut().enumerate() {
                        let gapless = open.iter().take_while(|(_, _, settled)| *settled).count();
                        let want = open.drain(..gapless).next_back().map(|(_, end, _)| end);
                        let got = committable.iter().find(|(n, _)| *n as usize == p).map(|(_, offset)| *offset);
                        prop_assert_eq!(got, want);
                    }
                }
            }
        }
    }
}

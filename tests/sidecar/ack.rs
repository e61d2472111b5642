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
fn a_commit_that_is_not_heard_of_is_made_again() {
    let mut tracker = OffsetTracker::default();
    let partition = tracker.add();
    tracker.assign(partition);
    let again = |tracker: &mut OffsetTracker| {
        tracker.commit_again();
        tracker.committable()
    };
    assert_eq!(again(&mut tracker), [], "nothing is settled");
    let settle = |tracker: &mut OffsetTracker, after| {
        let run = tracker.open(partition, after, 1, 0);
        assert!(tracker.settle(&run));
        assert_eq!(tracker.committable(), [(partition, after)]);
    };
    settle(&mut tracker, 10);
    assert_eq!(again(&mut tracker), [(partition, 10)]);
    settle(&mut tracker, 20);
    tracker.kept(partition, 10);
    assert_eq!(again(&mut tracker), [(partition, 20)]);
    tracker.kept(partition, 20);
    assert_eq!(again(&mut tracker), [], "the group has it");
    let run = tracker.open(partition, 30, 1, 0);
    assert!(tracker.settle(&run));
    assert_eq!(again(&mut tracker), [(partition, 30)], "what is due anyway is due once");
    // Another member has the partition.
    tracker.fence(partition);
    assert_eq!(again(&mut tracker), [], "of an old generation");
}

/// A commit that does not arrive repeats nothing where the member has the partition again.
#[test]
fn what_was_settled_is_not_read_again_in_the_next_assignment() {
    // (what the group had before, what of it and of 20 settled records was heard, what it has then) -> where it begins
    let rows = [
        (Some(10), None, Some(10), Some(30), "the commit got lost"),
        (Some(10), Some(20), Some(20), Some(30), "a part of it arrived"),
        (Some(10), Some(20), Some(30), Some(30), "all of it arrived, not all answers did"),
        (Some(10), None, Some(50), Some(50), "another member came further"),
        (Some(10), Some(20), Some(15), Some(15), "somebody set it back"),
        (Some(10), None, None, None, "the group has forgotten it"),
        (None, None, Some(10), Some(10), "somebody set it when there was none"),
    ];
    for (before, heard, after, want, what) in rows {
        let mut tracker = OffsetTracker::default();
        let partition = tracker.add();
        tracker.assign(partition);
        assert_eq!(tracker.resume(partition, before), before, "{what}");
        for end in [20, 30] {
            let run = tracker.open(partition, end, 10, 0);
            assert!(tracker.settle(&run));
            assert_eq!(tracker.committable(), [(partition, end)]);
        }
        let open = tracker.open(partition, 40, 10, 0);
        if let Some(offset) = heard {
            tracker.kept(partition, offset);
        }
        tracker.fence(partition);
        assert!(!tracker.settle(&open), "late");
        tracker.assign(partition);
        assert_eq!(tracker.resume(partition, after), want, "{what}");
        let again: Vec<_> = want.filter(|_| want > after).map(|offset| (partition, offset)).into_iter().collect();
        assert_eq!(tracker.committable(), again, "{what}");
        // Once more, with nothing read in between: what was set back stays so.
        tracker.assign(partition);
        let (_, then) = (tracker.resume(partition, after), tracker.committable());
        assert!(then.iter().all(|&(_, offset)| Some(offset) == want && want > after), "{what}: {then:?}");
    }
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

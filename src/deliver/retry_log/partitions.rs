//! A retry log in a topic follows the partitions of its source: they come, are taken up, and go.

use super::store::Store;
use super::topic::{Found, RetryTopics, TopicStore};
use super::waiting::Dropped;
use super::{RetryLog, State};
use crate::deliver::parcel::Kept;
use crate::deliver::{Delivery, Outlet};
use std::sync::Arc;

/// Records in memory below which more are read.
const FEW: usize = 1_000;

impl RetryLog {
    /// Follows the source's partitions from now on.
    pub(super) fn follow(self: &Arc<Self>, topics: &Arc<RetryTopics>) {
        let me = Arc::downgrade(self);
        topics.owned.listen(move |partitions, ours| {
            let Some(log) = me.upgrade() else { return };
            match ours {
                true => log.look(),
                false => log.leave(partitions),
            }
        });
    }

    fn topic(&self) -> Option<&Arc<TopicStore>> {
        match &self.store {
            Store::Topic(topic) => Some(topic),
            Store::Disk(_) | Store::Stream(_) => None,
        }
    }

    /// Says whether the target keeps an order.
    pub fn keep_order(&self, ordered: bool) {
        if let Some(topic) = self.topic() {
            topic.keep_order(ordered);
        }
    }

    /// Whether a delivery's partition has been taken away since its event was read.
    pub(super) fn is_late(&self, delivery: &Delivery) -> bool {
        self.topic().is_some_and(|topic| !topic.is_owned(delivery.position.partition))
    }

    /// Whether it is not known yet what waits before a delivery.
    pub(super) fn is_early(&self, state: &State, delivery: &Delivery) -> bool {
        let partition = delivery.position.partition;
        let others = || state.early.iter().any(|other| other.position.partition == partition);
        self.topic().is_some_and(|topic| !topic.is_ready(partition) || others())
    }

    /// Looks after topic or stream, and takes in what is found there.
    pub(super) fn tend(&self) {
        let room = {
            let state = self.state();
            if state.closed {
                return;
            }
            state.waiting.count() < FEW
        };
        match &self.store {
            Store::Disk(_) => return,
            Store::Topic(topic) => {
                if let Some(found) = topic.tend(room) {
                    self.take_in(topic, found);
                }
                self.begin_early(topic);
            }
            Store::Stream(stream) => {
                for (sequence, body) in stream.tend(room) {
                    match Kept::decode(&body) {
                        Some((kept, _)) => {
                            let entry = self.found(sequence, kept.attempts, 0);
                            self.state().waiting.add(entry);
                        }
                        None => self.skip(sequence, "is of another version"),
                    }
                }
            }
        }
        self.measure();
    }

    fn take_in(&self, topic: &TopicStore, found: Found) {
        let mut state = self.state();
        if found.complete {
            topic.completed(&found);
        }
        if !found.replaced.is_empty() {
            let mut dropped = state.waiting.drop_out(&found.replaced, |_| false).entries;
            let (out, rest) = std::mem::take(&mut state.ranked)
                .into_iter()
                .partition::<Vec<_>, _>(|(_, _, entry)| found.replaced.contains(&entry.sequence));
            state.ranked = rest;
            dropped.extend(out.into_iter().map(|it| it.2));
            self.tried(dropped.iter().filter(|entry| entry.failed == 0).count() as u64);
        }
        for (sequence, body) in found.records {
            let Some((kept, _)) = Kept::decode(&body) else {
                self.skip(sequence, "is of another version");
                continue;
            };
            let entry = self.found(sequence, kept.attempts, kept.order);
            state.ranked.push((found.partition, kept.rank(), entry));
            topic.keep_ahead(sequence, body);
        }
        // None is tried while a record in its place may follow, unless there are too many to know all of them.
        if found.complete || found.full {
            // What failed was written anew behind what came after it.
            let (mut here, rest) =
                std::mem::take(&mut state.ranked).into_iter().partition::<Vec<_>, _>(|it| it.0 == found.partition);
            state.ranked = rest;
            here.sort_by_key(|(_, rank, entry)| (*rank, entry.sequence));
            for (_, _, entry) in here {
                state.waiting.add(entry);
            }
        }
    }

    /// Deliveries that came before their partition was known have their turn.
    fn begin_early(&self, topic: &TopicStore) {
        let mut state = self.state();
        if state.early.is_empty() {
            return;
        }
        let (ready, rest) = std::mem::take(&mut state.early)
            .into_iter()
            .partition::<Vec<_>, _>(|delivery| topic.is_ready(delivery.position.partition));
        state.early = rest;
        let turns: Vec<Delivery> = ready.into_iter().filter_map(|delivery| self.place(&mut state, delivery)).collect();
        drop(state);
        turns.into_iter().for_each(Outlet::begin);
    }

    /// Partitions are taken away: what waits of them is for whoever has them next.
    fn leave(&self, partitions: &[i32]) {
        let Some(topic) = self.topic() else { return };
        let mut state = self.state();
        let records = topic.close(partitions);
        let of = |delivery: &Delivery| partitions.contains(&delivery.position.partition);
        let Dropped { entries, mut deliveries, next } = state.waiting.drop_out(&records, of);
        state.unkept.retain(|sequence| !records.contains(sequence));
        let ranked = std::mem::take(&mut state.ranked);
        let (gone, rest) = ranked.into_iter().partition::<Vec<_>, _>(|it| partitions.contains(&it.0));
        state.ranked = rest;
        let (early, rest) = std::mem::take(&mut state.early).into_iter().partition::<Vec<_>, _>(of);
        state.early = rest;
        drop(state);
        deliveries.extend(early);
        let waited: Vec<_> = entries.into_iter().chain(gone.into_iter().map(|it| it.2)).collect();
        let fresh = waited.iter().filter(|entry| entry.failed == 0).count() as u64;
        self.tried(fresh);
        deliveries.iter().for_each(|delivery| delivery.abandon());
        next.into_iter().for_each(Outlet::begin);
        let sequences: Vec<u64> = waited.iter().map(|entry| entry.sequence).collect();
        topic.leave(partitions, &sequences);
    }
}

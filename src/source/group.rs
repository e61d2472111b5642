//! One consumer's partitions: rebalances, generations, commits.

use crate::ack::{OffsetTracker, Report, Run};
use crate::config::ends::Start;
use crate::kafka::{Owned, is_shut_out};
use crate::metrics::{Metrics, labels};
use crate::planted::{self, Bug};
use crate::time;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Longest wait for open deliveries when partitions are taken away.
const REVOKE_PATIENCE: Duration = Duration::from_secs(3);
/// Longest question to the group's coordinator.
const COORDINATOR_PATIENCE: Duration = Duration::from_secs(10);

/// Partitions by name and number, and what is open in them.
#[derive(Default)]
pub struct Group {
    pub tracker: OffsetTracker,
    /// Per topic: the numbers of its partitions; topics are few.
    numbers: Vec<(Arc<str>, Vec<Option<u32>>)>,
    pub names: Vec<(Arc<str>, i32)>,
    /// Partitions that are paused because their deliveries do not settle.
    pub paused: Vec<u32>,
}

impl Group {
    /// The tracker's number of a partition.
    pub fn number(&mut self, topic: &str, partition: i32) -> u32 {
        let known = self.numbers.iter().position(|(name, _)| &**name == topic);
        let at = known.unwrap_or_else(|| {
            self.numbers.push((topic.into(), Vec::new()));
            self.numbers.len() - 1
        });
        let (name, numbers) = &mut self.numbers[at];
        let slot = usize::try_from(partition).unwrap_or(0);
        if numbers.len() <= slot {
            numbers.resize(slot + 1, None);
        }
        *numbers[slot].get_or_insert_with(|| {
            self.names.push((Arc::clone(name), partition));
            self.tracker.add()
        })
    }

    pub fn settle(&mut self, runs: &[Run]) {
        for run in runs {
            self.tracker.settle(run);
        }
    }

    /// The partitions that are assigned.
    pub fn assigned(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.names.len() as u32).filter(|&number| self.tracker.assigned(number))
    }

    /// A list of partitions for the client.
    pub fn list(&self, numbers: impl IntoIterator<Item = u32>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for number in numbers {
            let (topic, partition) = &self.names[number as usize];
            list.add_partition(topic, *partition);
        }
        list
    }

    /// Commits what is committable, with [`CommitMode::Sync`] also what may have got lost. A failed commit repeats work
    /// after a restart, no more.
    pub fn commit<C: ConsumerContext>(&mut self, consumer: &BaseConsumer<C>, mode: CommitMode) {
        if let CommitMode::Sync = mode {
            self.tracker.commit_again();
        }
        let committable = self.tracker.committable();
        if committable.is_empty() {
            return;
        }
        let mut list = TopicPartitionList::with_capacity(committable.len());
        for (number, offset) in committable {
            let (topic, partition) = &self.names[number as usize];
            if let Err(error) = list.add_partition_offset(
                topic,
                *partition,
                Offset::Offset(offset - i64::from(planted::on(Bug::OffByOneCommit))),
            ) {
                tracing::warn!("offset {offset} of {topic}/{partition} is not committed: {error}");
            }
        }
        if let Err(error) = consumer.commit(&list, mode) {
            tracing::warn!("commit failed, its events may be delivered again: {error}");
        }
    }
}

/// The client's callbacks. All of them run on the polling thread, inside its polls.
pub struct GroupContext {
    pub source: Arc<str>,
    pub group: Mutex<Group>,
    /// Whether the topics are subscribed to; an assignment that fails takes it back.
    pub subscribed: AtomicBool,
    pub report: Arc<Report>,
    pub start: Start,
    pub metrics: Arc<Metrics>,
    /// Told which partitions are ours.
    pub owned: Arc<Owned>,
}

impl GroupContext {
    pub fn lock(&self) -> MutexGuard<'_, Group> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Offsets to begin at: the committed ones; where there is none, what `start` says. `latest` is for topics of which
    /// the group has committed nothing; a partition that is added later begins at its first record. It is a moment, so
    /// it is committed at once, and a restart does not skip what came since.
    fn starts(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList) -> KafkaResult<()> {
        let committed = consumer.committed_offsets(list.clone(), COORDINATOR_PATIENCE)?;
        let mut fresh = TopicPartitionList::new();
        for element in committed.elements() {
            element.error()?;
            let (topic, partition) = (element.topic(), element.partition());
            let offset = match element.offset() {
                Offset::Offset(offset) => Offset::Offset(offset),
                _ if self.start == Start::Latest && self.is_new(consumer, topic)? => {
                    let (_, end) = consumer.fetch_watermarks(topic, partition, COORDINATOR_PATIENCE)?;
                    fresh.add_partition_offset(topic, partition, Offset::Offset(end))?;
                    Offset::Offset(end)
                }
                _ => Offset::Beginning,
            };
            list.set_partition_offset(topic, partition, offset)?;
        }
        if fresh.count() > 0 {
            consumer.commit(&fresh, CommitMode::Sync)?;
        }
        Ok(())
    }

    /// Whether the group has committed nothing on any partition of the topic.
    fn is_new(&self, consumer: &BaseConsumer<Self>, topic: &str) -> KafkaResult<bool> {
        let metadata = consumer.fetch_metadata(Some(topic), COORDINATOR_PATIENCE)?;
        let mut all = TopicPartitionList::new();
        for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
            all.add_partition(topic, partition.id());
        }
        let committed = consumer.committed_offsets(all, COORDINATOR_PATIENCE)?;
        Ok(!committed.elements().iter().any(|element| matches!(element.offset(), Offset::Offset(_))))
    }

    /// Takes partitions up; where the group's protocol is cooperative, beside those that it has.
    fn assign(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList) {
        if list.count() > 0
            && let Err(error) = self.starts(consumer, list)
        {
            tracing::warn!(source = %self.source, "no committed offsets: {error}; the assignment is tried again");
            self.metrics.health.set(&self.source, Some(format!("no committed offsets: {error}")));
            return self.leave(consumer, list);
        }
        let mut group = self.lock();
        for mut element in list.elements() {
            let number = group.number(element.topic(), element.partition());
            group.tracker.assign(number);
            let committed = match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            };
            if let Some(offset) = group.tracker.resume(number, committed)
                && let Err(error) = element.set_offset(Offset::Offset(offset))
            {
                tracing::warn!(source = %self.source, "what is settled may be delivered again: {error}");
            }
            group.paused.retain(|&paused| paused != number);
        }
        drop(group);
        self.owned.assign(&partitions(list));
        let taken = match is_cooperative(consumer) {
            true => consumer.incremental_assign(list),
            false => consumer.assign(list),
        };
        // What was paused in an earlier assignment must not stay so.
        if let Err(error) = taken.and_then(|()| consumer.resume(list)) {
            tracing::error!(source = %self.source, "assignment failed: {error}");
            return self.metrics.health.set(&self.source, Some(format!("assignment failed: {error}")));
        }
        self.metrics.health.set(&self.source, None);
        tracing::info!(source = %self.source, partitions = list.count(), "partitions assigned");
    }

    /// Leaves the group instead of taking partitions up; a new session brings the next try.
    fn leave(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList) {
        let left = match is_cooperative(consumer) {
            // What is given up then must have been taken. Nothing of it is read.
            true => list
                .set_all_offsets(Offset::End)
                .and_then(|()| consumer.incremental_assign(list))
                .and_then(|()| consumer.pause(list)),
            false => consumer.unassign(),
        };
        if let Err(error) = left {
            tracing::error!(source = %self.source, "leaving the group failed: {error}");
        }
        consumer.unsubscribe();
        self.subscribed.store(false, Ordering::Relaxed);
    }

    /// Drains first, fences second.
    fn revoke(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let mut group = self.lock();
        let numbers: Vec<u32> =
            list.elements().iter().map(|element| group.number(element.topic(), element.partition())).collect();
        if consumer.assignment_lost() {
            tracing::warn!(source = %self.source, "partitions lost; what is in flight may be delivered twice");
        } else {
            let deadline = time::now() + REVOKE_PATIENCE;
            while !numbers.iter().all(|&number| group.tracker.partition_idle(number)) && time::now() < deadline {
                let runs = self.report.take(Duration::from_millis(20));
                group.settle(&runs);
            }
            group.commit(consumer, CommitMode::Sync);
        }
        for &number in &numbers {
            group.tracker.fence(number);
            let (topic, partition) = &group.names[number as usize];
            let lag = labels([("source", &self.source), ("topic", topic), ("partition", &partition.to_string())]);
            self.metrics.families.source_lag.remove(&lag);
        }
        group.paused.retain(|number| !numbers.contains(number));
        drop(group);
        self.owned.revoke(&partitions(list));
        let given = match is_cooperative(consumer) {
            true => consumer.incremental_unassign(list),
            false => consumer.unassign(),
        };
        if let Err(error) = given {
            tracing::error!(source = %self.source, "giving up partitions failed: {error}");
        }
        tracing::info!(source = %self.source, partitions = list.count(), "partitions revoked");
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<i32> {
    list.elements().iter().map(|element| element.partition()).collect()
}

/// Whether partitions come and go one by one instead of all at once.
fn is_cooperative<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> bool {
    matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative)
}

impl ClientContext for GroupContext {
    fn error(&self, error: KafkaError, reason: &str) {
        if is_shut_out(&error) {
            tracing::warn!(source = %self.source, "the Kafka brokers do not let us in: {reason}");
            self.metrics.health.note(&self.source, Some(reason.to_owned()));
        }
        tracing::debug!(target: "kafka", "{error}: {reason}");
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        crate::kafka::log(level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        if statistics.brokers.values().any(|broker| broker.nodeid >= 0 && broker.state == "UP") {
            self.metrics.health.note(&self.source, None);
        }
        let mut group = self.lock();
        for topic in statistics.topics.values() {
            for partition in topic.partitions.values().filter(|partition| partition.partition >= 0) {
                if partition.committed_offset >= 0 {
                    let number = group.number(&topic.topic, partition.partition);
                    group.tracker.kept(number, partition.committed_offset);
                }
                if partition.consumer_lag >= 0 {
                    let number = partition.partition.to_string();
                    let lag = labels([("source", &self.source), ("topic", &topic.topic), ("partition", &number)]);
                    self.metrics.families.source_lag.get_or_create(&lag).set(partition.consumer_lag);
                }
            }
        }
        // The client tells nobody how an asynchronous commit ended, so that these numbers are the only word of it.
        group.tracker.commit_again();
    }
}

impl ConsumerContext for GroupContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, kind: RDKafkaRespErr, list: &mut TopicPartitionList) {
        self.metrics.families.source_rebalances.get_or_create(&labels([("source", &self.source)])).inc();
        match kind {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, list),
            _ => self.revoke(consumer, list),
        }
    }
}

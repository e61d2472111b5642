//! Dead letters in a Kafka topic, from the first one that is not known to be gone to its present end.
//!
//! A topic forgets nothing selectively. What is gone is what the group [`GROUP`] has committed: a prefix of each
//! partition.

use super::letter::Letter;
use crate::catalog::KafkaTarget;
use crate::kafka::{PATIENCE, client_config};
use crate::time;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::time::Duration;

/// The consumer group whose offsets say what is gone.
pub const GROUP: &str = "sluice-dlq";

/// How long a read may bring nothing.
const SILENCE: Duration = Duration::from_secs(15);

/// A topic that is read once.
pub struct Topic {
    consumer: BaseConsumer,
    name: String,
    servers: String,
    /// Per partition: where reading ends.
    ends: BTreeMap<i32, i64>,
}

impl Topic {
    /// Looks where the topic's letters begin and end.
    ///
    /// # Errors
    /// What the broker answered, or that none did.
    pub fn open(target: &KafkaTarget) -> Result<Self, String> {
        let mut config = client_config(&target.client);
        for (name, value) in [
            ("group.id", GROUP),
            ("enable.auto.commit", "false"),
            ("enable.partition.eof", "true"),
            ("auto.offset.reset", "earliest"),
            ("allow.auto.create.topics", "false"),
            ("queued.max.messages.kbytes", "8192"),
        ] {
            config.set(name, value);
        }
        let servers = target.client.get("bootstrap.servers").cloned().unwrap_or_default();
        let name = target.topic.clone();
        let failed = |error: KafkaError| format!("topic {name} on {servers}: {error}");
        let consumer: BaseConsumer = config.create().map_err(failed)?;
        let metadata = consumer.fetch_metadata(Some(&name), PATIENCE).map_err(failed)?;
        let found = metadata.topics().iter().find(|topic| topic.name() == name && topic.error().is_none());
        let partitions: Vec<i32> =
            found.into_iter().flat_map(|topic| topic.partitions()).map(|part| part.id()).collect();
        let mut asked = TopicPartitionList::new();
        for &partition in &partitions {
            asked.add_partition(&name, partition);
        }
        let committed = consumer.committed_offsets(asked, PATIENCE).map_err(failed)?;
        let (mut ends, mut assigned) = (BTreeMap::new(), TopicPartitionList::new());
        for partition in partitions {
            let (low, high) = consumer.fetch_watermarks(&name, partition, PATIENCE).map_err(failed)?;
            let begin = match committed.find_partition(&name, partition).map(|found| found.offset()) {
                Some(Offset::Offset(gone)) => gone.max(low),
                _ => low,
            };
            if begin < high {
                ends.insert(partition, high);
                assigned.add_partition_offset(&name, partition, Offset::Offset(begin)).map_err(failed)?;
            }
        }
        consumer.assign(&assigned).map_err(failed)?;
        Ok(Self { consumer, name, servers, ends })
    }

    /// Gives every record up to the end, with the letter that it is, until `take` says no. Returns how many are none.
    ///
    /// # Errors
    /// The broker falls silent.
    pub fn each(&self, take: &mut dyn FnMut(i32, i64, Option<Letter>) -> bool) -> Result<u64, String> {
        let (mut open, mut unreadable, mut heard) = (self.ends.clone(), 0, time::now());
        while !open.is_empty() {
            match self.consumer.poll(Duration::from_millis(200)) {
                Some(Ok(record)) => {
                    heard = time::now();
                    let (partition, offset) = (record.partition(), record.offset());
                    let Some(&end) = open.get(&partition) else { continue };
                    if offset + 1 >= end {
                        open.remove(&partition);
                    }
                    if offset < end {
                        let letter = letter(&record);
                        unreadable += u64::from(letter.is_none());
                        if !take(partition, offset, letter) {
                            break;
                        }
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    open.remove(&partition);
                }
                // The client goes on by itself; its silence ends the read.
                Some(Err(_)) | None if time::now().duration_since(heard) < SILENCE => {}
                Some(Err(error)) => return Err(format!("topic {} on {}: {error}", self.name, self.servers)),
                None => return Err(format!("topic {}: no answer from {}", self.name, self.servers)),
            }
        }
        Ok(unreadable)
    }

    /// Remembers that everything before these offsets is gone.
    ///
    /// # Errors
    /// What the broker answered.
    pub fn gone(&self, offsets: &[(i32, i64)]) -> Result<(), String> {
        let mut list = TopicPartitionList::new();
        for &(partition, offset) in offsets {
            list.add_partition_offset(&self.name, partition, Offset::Offset(offset))
                .map_err(|error| error.to_string())?;
        }
        let done = self.consumer.commit(&list, CommitMode::Sync);
        done.map_err(|error| format!("cannot commit offsets of group {GROUP}: {error}"))
    }
}

fn letter(record: &impl Message) -> Option<Letter> {
    let headers = record.headers()?;
    let headers = headers.iter().filter_map(|header| Some((header.key, header.value?)));
    Letter::of_record(headers, record.timestamp().to_millis(), record.key(), record.payload().unwrap_or_default())
}

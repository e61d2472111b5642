//! Archived events in a Kafka topic: read by a client without a group, written one record an event.
//!
//! A record's timestamp is when it was written, as the producer sets it: the topic's retention counts from then, as that
//! of archives on the disk does, and an event that is late, or imported years after its time, is kept as long as any.

use super::broker::{ARCHIVE_HEADER, Bounds, Record};
use crate::catalog::KafkaTarget;
use crate::kafka::{PATIENCE, client_config};
use crate::time;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long a read may bring nothing.
const SILENCE: Duration = Duration::from_secs(15);
/// How long writing may take.
const WRITING: Duration = Duration::from_secs(30);

/// Reads a topic.
pub(super) struct TopicReader {
    consumer: BaseConsumer,
    topic: String,
    servers: String,
    /// The partition and offset that the client is at.
    at: Option<(i32, i64)>,
}

fn servers(target: &KafkaTarget) -> String {
    target.client.get("bootstrap.servers").cloned().unwrap_or_default()
}

/// It may be there again later.
fn away(topic: &str, servers: &str, error: &dyn std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, format!("topic {topic} on {servers}: {error}"))
}

fn config(target: &KafkaTarget, own: &[(&str, &str)]) -> ClientConfig {
    let mut config = client_config(&target.client);
    for (name, value) in own {
        config.set(*name, *value);
    }
    config
}

impl TopicReader {
    pub fn open(target: &KafkaTarget) -> io::Result<Self> {
        let own = [
            // No group is joined and nothing committed; the client wants a name for one.
            ("group.id", "sluice-archive"),
            ("enable.auto.commit", "false"),
            ("enable.partition.eof", "true"),
            // What was removed meanwhile is passed over.
            ("auto.offset.reset", "earliest"),
            ("allow.auto.create.topics", "false"),
            ("queued.max.messages.kbytes", "4096"),
            // Compressed: a stretch is mostly less than that.
            ("fetch.message.max.bytes", "262144"),
            ("fetch.queue.backoff.ms", "2"),
            // A request that waits at one partition's end holds up what is asked of the next one.
            ("fetch.wait.max.ms", "10"),
        ];
        let (topic, servers) = (target.topic.clone(), servers(target));
        let consumer = config(target, &own).create().map_err(|error: KafkaError| away(&topic, &servers, &error))?;
        Ok(Self { consumer, topic, servers, at: None })
    }

    fn away(&self, error: &dyn std::fmt::Display) -> io::Error {
        away(&self.topic, &self.servers, error)
    }

    pub fn bounds(&mut self, written: i64) -> io::Result<Vec<Bounds>> {
        let failed = |error: KafkaError| self.away(&error);
        let metadata = self.consumer.fetch_metadata(Some(&self.topic), PATIENCE).map_err(failed)?;
        let found = metadata.topics().iter().find(|topic| topic.name() == self.topic && topic.error().is_none());
        let found = found.ok_or_else(|| self.away(&"it does not exist"))?;
        // First: what is written between the questions is then behind the end.
        let mut ends = Vec::new();
        for partition in found.partitions() {
            let marks = self.consumer.fetch_watermarks(&self.topic, partition.id(), PATIENCE).map_err(failed)?;
            ends.push((partition.id(), marks));
        }
        let mut since = TopicPartitionList::new();
        for partition in found.partitions().iter().filter(|_| written >= 0) {
            let at = Offset::Offset(written);
            since.add_partition_offset(&self.topic, partition.id(), at).map_err(failed)?;
        }
        let since = match since.count() {
            0 => since,
            _ => self.consumer.offsets_for_times(since, PATIENCE).map_err(failed)?,
        };
        let mut bounds = Vec::new();
        for (id, (low, high)) in ends {
            let since = since.find_partition(&self.topic, id).map(|found| found.offset());
            let first = match since {
                Some(Offset::Offset(offset)) => offset.clamp(low, high),
                // Everything was written before.
                Some(Offset::End) => high,
                _ => low,
            };
            let number = |of: i64| u64::try_from(of).unwrap_or(0);
            let partition = u32::try_from(id).unwrap_or(0);
            bounds.push(Bounds { partition, first: number(first), end: number(high) });
        }
        Ok(bounds)
    }

    fn assign(&mut self, partition: i32, offset: i64) -> io::Result<()> {
        let mut list = TopicPartitionList::new();
        let added = list.add_partition_offset(&self.topic, partition, Offset::Offset(offset));
        added.and_then(|()| self.consumer.assign(&list)).map_err(|error| self.away(&error))
    }

    pub fn read(
        &mut self,
        partition: u32,
        (first, end): (u64, u64),
        take: &mut dyn FnMut(&Record<'_>) -> io::Result<()>,
        stop: &dyn Fn() -> bool,
    ) -> io::Result<u64> {
        let signed = |of: u64| i64::try_from(of).unwrap_or(i64::MAX);
        let (partition, mut next, end) = (i32::try_from(partition).unwrap_or(i32::MAX), signed(first), signed(end));
        // Whether nothing that the client was told before it was put here can come.
        let mut fresh = self.at.take() != Some((partition, next));
        if fresh {
            self.assign(partition, next)?;
        }
        let mut heard = time::now();
        while next < end {
            match self.consumer.poll(Duration::from_millis(200)) {
                Some(Ok(record)) => {
                    heard = time::now();
                    if record.offset() >= end {
                        return Ok(u64::try_from(end).unwrap_or(0));
                    }
                    next = record.offset() + 1;
                    take(&read(&record))?;
                }
                // The end that there was when the client last asked may be an old one.
                Some(Err(KafkaError::PartitionEOF(_))) if !fresh => {
                    fresh = true;
                    self.assign(partition, next)?;
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(u64::try_from(next).unwrap_or(0)),
                _ if stop() => return Err(io::ErrorKind::Interrupted.into()),
                // The client goes on by itself; its silence ends the read.
                Some(Err(_)) | None if time::now().duration_since(heard) < SILENCE => {}
                Some(Err(error)) => return Err(self.away(&error)),
                None => return Err(self.away(&"no answer")),
            }
        }
        self.at = Some((partition, next));
        Ok(u64::try_from(next).unwrap_or(0))
    }

    /// Reads nothing ahead until it is told to read on.
    pub fn rest(&mut self) {
        self.at = None;
        // Where that fails it goes on reading ahead, within its bounds.
        self.consumer.unassign().unwrap_or_default();
    }
}

fn read<'a>(record: &'a impl Message) -> Record<'a> {
    let headers = record.headers();
    let of = headers.and_then(|headers| headers.iter().find(|header| header.key == ARCHIVE_HEADER)?.value);
    Record {
        offset: u64::try_from(record.offset()).unwrap_or(0),
        written: record.timestamp().to_millis().unwrap_or(i64::MAX),
        of,
        text: record.payload().unwrap_or_default(),
    }
}

/// Hears what has become of records; keeps the first trouble.
#[derive(Default)]
struct Answers(Mutex<Option<KafkaError>>);

impl Answers {
    fn note(&self, error: KafkaError) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

impl ClientContext for Answers {}

impl ProducerContext for Answers {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.note(error.clone());
        }
    }
}

/// Writes a record for each line; all replicas that are in sync have them when this returns.
pub(super) fn write(target: &KafkaTarget, archive: &str, lines: &[u8]) -> io::Result<()> {
    let own = [
        // A client that lives for one request would wait for its number; what is written twice is read once.
        ("enable.idempotence", "false"),
        ("acks", "all"),
        ("compression.type", "lz4"),
        // The topic takes the largest event, and a broker refuses a batch as a whole.
        ("batch.size", "65536"),
        ("linger.ms", "2"),
        ("message.max.bytes", "100000000"),
        ("message.timeout.ms", "20000"),
    ];
    let (topic, servers) = (&target.topic, servers(target));
    let failed = |error: KafkaError| away(topic, &servers, &error);
    let producer: BaseProducer<Answers> =
        config(target, &own).create_with_context(Answers::default()).map_err(failed)?;
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let headers = OwnedHeaders::new().insert(Header { key: ARCHIVE_HEADER, value: Some(archive) });
        let mut record = BaseRecord::<(), [u8]>::to(topic).payload(line).headers(headers);
        while let Err((error, back)) = producer.send(record) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(failed(error));
            }
            producer.poll(Duration::from_millis(20));
            record = back;
        }
    }
    producer.flush(WRITING).map_err(failed)?;
    let trouble = producer.context().0.lock().unwrap_or_else(PoisonError::into_inner).take();
    trouble.map_or(Ok(()), |error| Err(failed(error)))
}

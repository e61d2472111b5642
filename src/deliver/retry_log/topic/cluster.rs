//! What the retry topics of one source share: their names, a producer, a reader, and which partitions are ours.

use super::TopicStore;
use crate::deliver::retry_log::Ticket;
use crate::kafka::{Cluster, ClusterError, Owned, client_config};
use crate::time;
use arc_swap::ArcSwap;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::{ClientContext, Message, Offset};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Longest question to the cluster, and longest wait for a record that is there.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long the producer's thread waits for reports.
const WAIT: Duration = Duration::from_millis(50);
/// Records and bytes that are read at once.
const CHUNK: (usize, usize) = (500, 4 << 20);
/// What a record needs beside its event.
const OVERHEAD: u64 = 4096;

/// One source's retry topics.
pub struct RetryTopics {
    /// The source.
    pub source: Arc<str>,
    /// The bus that it feeds.
    pub bus: String,
    /// Its topic.
    pub of: String,
    /// What the names of retry topics begin with.
    pub prefix: String,
    /// Where it is committed what is done with; no consumer is a member of it.
    pub group: String,
    /// Client properties.
    pub client: BTreeMap<String, String>,
    /// Largest event.
    pub event_bytes: u64,
    /// The source's partitions that are this process's.
    pub owned: Arc<Owned>,
    writer: OnceLock<Arc<Writer>>,
    reader: Mutex<Option<Arc<BaseConsumer<Quiet>>>>,
}

/// A client that says nothing for itself: its calls do.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        crate::kafka::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "kafka", "{error}: {reason}");
    }
}

impl ConsumerContext for Quiet {}

impl RetryTopics {
    /// The retry topics of `source`, which feeds `bus` from topic `of` as a member of `group`.
    pub fn new(
        (source, bus): (&str, &str),
        (of, group): (&str, &str),
        prefix: &str,
        client: BTreeMap<String, String>,
        event_bytes: u64,
    ) -> Arc<Self> {
        Arc::new(Self {
            source: source.into(),
            bus: bus.to_owned(),
            of: of.to_owned(),
            prefix: prefix.to_owned(),
            group: format!("{group}.retry"),
            client,
            event_bytes,
            owned: Arc::default(),
            writer: OnceLock::new(),
            reader: Mutex::default(),
        })
    }

    /// The retry topic of a target.
    pub fn name(&self, target: &str) -> String {
        format!("{}.{target}", self.prefix)
    }

    /// The targets that have a retry topic.
    ///
    /// # Errors
    /// No broker answers.
    pub fn existing(&self) -> Result<Vec<String>, ClusterError> {
        let begin = format!("{}.", self.prefix);
        let topics = Cluster::new(&self.client)?.topics()?;
        Ok(topics.iter().filter_map(|topic| topic.strip_prefix(&begin)).map(str::to_owned).collect())
    }

    /// Makes the retry topics of these targets where they are missing, with as many partitions as the source's topic has.
    ///
    /// # Errors
    /// No broker answers, or a topic is there that has fewer partitions or takes only smaller records.
    pub fn prepare<'a>(&self, targets: impl IntoIterator<Item = &'a str>) -> Result<(), ClusterError> {
        let cluster = Cluster::new(&self.client)?;
        let missing = || ClusterError::Refused(format!("topic {} does not exist", self.of));
        let wanted = cluster.partitions(&self.of)?.ok_or_else(missing)?;
        let largest = self.event_bytes + OVERHEAD;
        for target in targets {
            let topic = self.name(target);
            match cluster.partitions(&topic)? {
                None => {
                    let bytes = largest.to_string();
                    let shape = [
                        ("cleanup.policy", "delete"),
                        ("retention.ms", "-1"),
                        ("retention.bytes", "-1"),
                        ("max.message.bytes", &bytes),
                    ];
                    cluster.create(&topic, wanted, None, &shape)?;
                    tracing::info!(topic, partitions = wanted, "retry topic created");
                }
                Some(count) if count < wanted => {
                    return Err(ClusterError::Refused(format!(
                        "source {}: retry topic {topic} has {count} partitions, topic {} has {wanted}; raise it with \
                         `kafka-topics.sh --alter --topic {topic} --partitions {wanted}`",
                        self.source, self.of
                    )));
                }
                Some(_) => {}
            }
            self.keeps(&cluster, &topic, largest)?;
        }
        Ok(())
    }

    /// Refuses a topic that is there and forgets what waits, or takes no large events.
    fn keeps(&self, cluster: &Cluster, topic: &str, largest: u64) -> Result<(), ClusterError> {
        let refused =
            |why: String| Err(ClusterError::Refused(format!("source {}: retry topic {topic} {why}", self.source)));
        let settings = cluster.settings(topic);
        let number = |name: &str| settings.get(name)?.parse::<i64>().ok();
        if let Some(takes) =
            number("max.message.bytes").filter(|&takes| takes < i64::try_from(largest).unwrap_or(i64::MAX))
        {
            return refused(format!("takes records of {takes} bytes; raise its max.message.bytes to {largest}"));
        }
        if settings.get("cleanup.policy").is_some_and(|policy| policy != "delete") {
            return refused("is compacted; set its cleanup.policy to delete".to_owned());
        }
        for bound in ["retention.ms", "retention.bytes"] {
            if number(bound).is_some_and(|bound| bound >= 0) {
                return refused(format!("forgets what waits; set its {bound} to -1: Sluice deletes what is done with"));
            }
        }
        Ok(())
    }

    /// Gives a record to the producer.
    ///
    /// # Errors
    /// The ticket, where the producer has no room or can produce no more.
    pub(super) fn send(
        &self,
        (topic, partition): (&str, i32),
        body: &[u8],
        sent: Box<Sent>,
    ) -> Result<(), (Box<Sent>, String)> {
        let writer = match self.writer.get() {
            Some(writer) => writer,
            None => match Writer::start(&self.client) {
                Ok(writer) => self.writer.get_or_init(|| writer),
                Err(why) => return Err((sent, why)),
            },
        };
        let record = BaseRecord::<(), [u8], _>::with_opaque_to(topic, sent).partition(partition).payload(body);
        writer.client.load().send(record).map_err(|(error, record)| (record.delivery_opaque, error.to_string()))
    }

    /// Waits until everything is written, up to `deadline`.
    pub(super) fn flush(&self, deadline: Instant) {
        if let Some(writer) = self.writer.get()
            && let Err(error) = writer.client.load().flush(deadline.saturating_duration_since(time::now()))
        {
            tracing::warn!("retry topics not flushed: {error}");
        }
    }

    fn reader(&self) -> Result<Arc<BaseConsumer<Quiet>>, KafkaError> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reader) = &*reader {
            return Ok(Arc::clone(reader));
        }
        let mut config = client_config(&self.client);
        config
            .set("group.id", &self.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest")
            .set("allow.auto.create.topics", "false")
            .set("fetch.wait.max.ms", "20")
            .set("queued.max.messages.kbytes", "4096")
            .set("fetch.max.bytes", "4194304");
        let made = Arc::new(config.create_with_context(Quiet)?);
        *reader = Some(Arc::clone(&made));
        Ok(made)
    }

    /// What was committed of a partition, and its first record's offset and the one after its last.
    pub(super) fn found(&self, topic: &str, partition: i32) -> Result<(Committed, (i64, i64)), KafkaError> {
        let reader = self.reader()?;
        let mut asked = TopicPartitionList::new();
        asked.add_partition(topic, partition);
        let committed = reader.committed_offsets(asked, PATIENCE)?;
        let committed = committed.elements().first().and_then(|element| match element.offset() {
            Offset::Offset(offset) => Some((offset, element.metadata().to_owned())),
            _ => None,
        });
        Ok((committed, reader.fetch_watermarks(topic, partition, PATIENCE)?))
    }

    /// Reads records from `from` to before `end`, as many as one chunk takes.
    pub(super) fn read(
        &self,
        (topic, partition): (&str, i32),
        (from, end): (i64, i64),
    ) -> Result<Vec<(i64, Vec<u8>)>, KafkaError> {
        let reader = self.reader()?;
        // One at a time: an assignment belongs to who reads.
        let _turn = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let mut place = TopicPartitionList::new();
        place.add_partition_offset(topic, partition, Offset::Offset(from))?;
        reader.assign(&place)?;
        let read = collect(&reader, end);
        reader.unassign()?;
        read
    }

    /// Commits what is done with: per partition the offset and metadata.
    pub(super) fn commit(&self, topic: &str, parts: &[(i32, i64, String)], mode: CommitMode) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::with_capacity(parts.len());
        for (partition, offset, metadata) in parts {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
            if let Some(mut element) = list.find_partition(topic, *partition) {
                element.set_metadata(metadata);
            }
        }
        self.reader()?.commit(&list, mode)
    }

    /// Has the cluster forget what was done with.
    pub(super) fn trim(&self, topic: &str, parts: &[(i32, i64)]) -> Result<(), ClusterError> {
        Cluster::new(&self.client)?.delete_records(topic, parts)
    }
}

/// An offset, and what else is done with.
pub(super) type Committed = Option<(i64, String)>;

fn collect(reader: &BaseConsumer<Quiet>, end: i64) -> Result<Vec<(i64, Vec<u8>)>, KafkaError> {
    let deadline = time::now() + PATIENCE;
    let (mut read, mut bytes) = (Vec::new(), 0);
    while read.len() < CHUNK.0 && bytes < CHUNK.1 {
        // That nothing has come does not say that nothing is there.
        if time::now() >= deadline {
            return if read.is_empty() {
                Err(KafkaError::MessageConsumption(RDKafkaErrorCode::RequestTimedOut))
            } else {
                Ok(read)
            };
        }
        match reader.poll(WAIT) {
            Some(Ok(message)) => {
                let body = message.payload().unwrap_or_default().to_vec();
                bytes += body.len();
                read.push((message.offset(), body));
                if message.offset() + 1 >= end {
                    break;
                }
            }
            Some(Err(KafkaError::PartitionEOF(_))) => break,
            Some(Err(error)) => return Err(error),
            None => {}
        }
    }
    Ok(read)
}

/// A record that the producer has.
pub(super) struct Sent {
    pub store: Arc<TopicStore>,
    pub sequence: u64,
    pub ticket: Ticket,
}

struct Reports;

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        crate::kafka::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "kafka", "{error}: {reason}");
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Sent>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Box<Sent>) {
        let Sent { store, sequence, ticket } = *sent;
        let result = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.to_string()),
        };
        store.written((ticket, sequence), result);
    }
}

/// The producer, and the thread that polls it.
struct Writer {
    config: ClientConfig,
    client: ArcSwap<BaseProducer<Reports>>,
}

impl Writer {
    fn start(properties: &BTreeMap<String, String>) -> Result<Arc<Self>, String> {
        let mut config = client_config(properties);
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", "lz4")
            .set("linger.ms", "2")
            .set("queue.buffering.max.kbytes", "16384")
            .set("message.max.bytes", "100000000")
            // The source waits as long as it takes; what is given up would be overtaken.
            .set("message.timeout.ms", "0")
            .set("socket.nagle.disable", "true");
        let client = config.create_with_context(Reports).map_err(|error: KafkaError| error.to_string())?;
        let writer = Arc::new(Self { config, client: ArcSwap::from_pointee(client) });
        let run = Arc::clone(&writer);
        std::thread::Builder::new()
            .name("sluice-producer".into())
            .spawn(move || run.run())
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(writer)
    }

    /// Serves delivery reports; ends with the process. A producer that can produce no more is replaced.
    fn run(&self) {
        loop {
            let client = self.client.load_full();
            client.poll(WAIT);
            let Some((code, reason)) = client.client().fatal_error() else { continue };
            let code: RDKafkaErrorCode = code;
            tracing::error!("the producer of retry topics has failed ({code}: {reason}); making a new one");
            match self.config.create_with_context(Reports) {
                // What the old one holds fails when it is dropped, and goes back to its source.
                Ok(new) => drop(self.client.swap(Arc::new(new))),
                Err(error) => tracing::error!("no producer for retry topics: {error}"),
            }
        }
    }
}

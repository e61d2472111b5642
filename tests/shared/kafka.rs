//! A broker of our own, and plain clients for judging what Sluice did.

use crate::certificates::Authority;
use crate::ports::free_port;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

/// A running broker.
pub struct Kafka {
    folder: TempDir,
    pub servers: String,
    /// A listener that wants user `sluice`, password `right`.
    pub sasl_servers: String,
    /// The same over TLS, and one that wants a certificate.
    pub sasl_tls_servers: String,
    pub tls_servers: String,
    /// A listener's port, and the one of a proxy in front of it that clients are sent to.
    pub behind: u16,
    pub proxied: u16,
    pub authority: Authority,
}

/// A topic's name, partitions and settings.
pub type Topic<'a> = (&'a str, i32, &'a [(&'a str, &'a str)]);

/// A record as read back.
pub struct Record {
    pub partition: i32,
    pub key: Option<String>,
    pub payload: Vec<u8>,
    pub headers: Vec<(String, String)>,
}

impl Record {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

fn is_coming_up(error: &KafkaError) -> bool {
    let codes = [
        RDKafkaErrorCode::NotCoordinator,
        RDKafkaErrorCode::CoordinatorNotAvailable,
        RDKafkaErrorCode::CoordinatorLoadInProgress,
    ];
    error.rdkafka_error_code().is_some_and(|code| codes.contains(&code))
}

fn script() -> Command {
    let mut command = Command::new("bash");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kafka"));
    command
}

impl Kafka {
    pub fn start() -> Self {
        let (port, sasl) = (free_port(), free_port());
        Self::start_at(port, sasl)
    }

    /// Starts a broker on the given ports.
    pub fn start_at(port: u16, sasl: u16) -> Self {
        let folder = TempDir::new().expect("a folder");
        crate::guard::BROKERS.lock().expect("a list").push(("tests/kafka", folder.path().display().to_string()));
        let (tls, sasl_tls) = (free_port(), free_port());
        let authority = Authority::new();
        let files = authority.write(folder.path());
        let pem = |path: &str| std::fs::read_to_string(path).expect("text");
        std::fs::write(folder.path().join("server.pem"), pem(&files.key) + &pem(&files.cert)).expect("a file");
        let at = |port: u16| format!("127.0.0.1:{port}");
        let kafka = Self {
            folder,
            servers: at(port),
            sasl_servers: at(sasl),
            sasl_tls_servers: at(sasl_tls),
            tls_servers: at(tls),
            behind: free_port(),
            proxied: free_port(),
            authority,
        };
        kafka.launch();
        kafka
    }

    /// Starts the process; on the data that is there already, if any is.
    pub fn launch(&self) {
        self.launch_with("right");
    }

    /// The same with another password of user `sluice`, for who comes without SCRAM.
    pub fn launch_with(&self, password: &str) {
        let port = |servers: &str| servers.rsplit(':').next().unwrap_or_default().to_owned();
        let status = script()
            .args(["start", &port(&self.servers)])
            .arg(self.folder.path())
            .env("SLUICE_KAFKA_SASL_PORT", port(&self.sasl_servers))
            .env("SLUICE_KAFKA_TLS_DIR", self.folder.path())
            .env("SLUICE_KAFKA_TLS_PORT", port(&self.tls_servers))
            .env("SLUICE_KAFKA_SASL_TLS_PORT", port(&self.sasl_tls_servers))
            .env("SLUICE_KAFKA_PASSWORD", password)
            .env("SLUICE_KAFKA_PROXIED", format!("{} {}", self.behind, self.proxied))
            .status()
            .expect("bash");
        assert!(status.success(), "Kafka did not start");
    }

    /// Sends the process a signal, as `-KILL`.
    pub fn signal(&self, signal: &str) {
        let pid = std::fs::read_to_string(self.folder.path().join("pid")).expect("a process id");
        let status = Command::new("kill").args([signal, pid.trim()]).status().expect("kill");
        assert!(status.success(), "the broker runs");
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.servers);
        config
    }

    /// Creates topics, with settings.
    pub fn topics(&self, topics: &[Topic<'_>]) {
        let admin: AdminClient<DefaultClientContext> = self.config().create().expect("a client");
        let new: Vec<NewTopic> = topics
            .iter()
            .map(|(name, partitions, settings)| {
                let topic = NewTopic::new(name, *partitions, TopicReplication::Fixed(1));
                settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value))
            })
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let results = runtime.block_on(admin.create_topics(&new, &AdminOptions::new())).expect("an answer");
        for result in results {
            result.expect("a created topic");
        }
    }

    /// Changes a setting of a topic.
    pub fn set(&self, topic: &str, key: &str, value: &str) {
        let admin: AdminClient<DefaultClientContext> = self.config().create().expect("a client");
        let change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(key, value);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let results = runtime.block_on(admin.alter_configs([&change], &AdminOptions::new())).expect("an answer");
        for result in results {
            result.expect("a changed topic");
        }
    }

    /// A producer that waits for room.
    pub fn producer(&self) -> Sender {
        let mut config = self.config();
        config
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .set("compression.type", "lz4")
            .set("message.max.bytes", "10000000");
        Sender { producer: config.create().expect("a producer") }
    }

    fn consumer(&self, group: &str) -> BaseConsumer {
        let mut config = self.config();
        config.set("group.id", group).set("enable.auto.commit", "false").set("fetch.queue.backoff.ms", "2");
        config.set("auto.offset.reset", "earliest");
        config.create().expect("a consumer")
    }

    /// Where a topic's partitions end.
    pub fn ends(&self, topic: &str) -> Vec<i64> {
        self.try_ends(topic).expect("watermarks")
    }

    /// The same of a broker that may not be ready yet.
    pub fn try_ends(&self, topic: &str) -> KafkaResult<Vec<i64>> {
        let consumer = self.consumer("judge");
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
        let count = metadata.topics()[0].partitions().len() as i32;
        (0..count).map(|p| Ok(consumer.fetch_watermarks(topic, p, PATIENCE)?.1)).collect()
    }

    /// What a group has committed, by partition; -1 where nothing is.
    pub fn committed(&self, group: &str, topic: &str) -> Vec<i64> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.try_committed(group, topic) {
                // A broker that has just started has no coordinators yet.
                Err(error) if is_coming_up(&error) && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                answer => return answer.expect("committed offsets"),
            }
        }
    }

    /// The same of a broker that may not be ready yet.
    pub fn try_committed(&self, group: &str, topic: &str) -> KafkaResult<Vec<i64>> {
        let count = self.try_ends(topic)?.len() as i32;
        let consumer = self.consumer(group);
        let mut list = TopicPartitionList::new();
        list.add_partition_range(topic, 0, count - 1);
        let committed = consumer.committed_offsets(list, PATIENCE)?;
        let of = |p: i32| match committed.find_partition(topic, p).expect("a partition").offset() {
            Offset::Offset(offset) => offset,
            _ => -1,
        };
        Ok((0..count).map(of).collect())
    }

    /// How a group shares its partitions out.
    pub fn assignor(&self, group: &str) -> String {
        let all = self.consumer("judge").fetch_group_list(Some(group), PATIENCE).expect("groups");
        all.groups()[0].protocol().to_owned()
    }

    /// The next `count` records of a topic, as a member of a group reads them.
    pub fn consume(&self, group: &str, topic: &str, count: usize) -> Vec<Vec<u8>> {
        let consumer = self.consumer(group);
        consumer.subscribe(&[topic]).expect("a subscription");
        let (deadline, mut records) = (Instant::now() + PATIENCE * 3, Vec::new());
        while records.len() < count {
            assert!(Instant::now() < deadline, "records in time");
            // A broker that has just started has no coordinators yet.
            let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
            records.push(message.payload().unwrap_or_default().to_vec());
        }
        records
    }

    /// Everything in a topic, in order within each partition.
    pub fn read(&self, topic: &str) -> Vec<Record> {
        let mut records = Vec::new();
        self.each(topic, |record| records.push(record));
        records
    }

    /// Gives everything in a topic to `take`, in order within each partition.
    pub fn each(&self, topic: &str, mut take: impl FnMut(Record)) {
        let ends = self.ends(topic);
        let consumer = self.consumer("judge");
        let mut list = TopicPartitionList::new();
        for partition in 0..ends.len() as i32 {
            list.add_partition_offset(topic, partition, Offset::Beginning).expect("an offset");
        }
        consumer.assign(&list).expect("an assignment");
        for _ in 0..ends.iter().sum() {
            let message = consumer.poll(PATIENCE).expect("a record in time").expect("a good record");
            let headers = message.headers().map_or_else(Vec::new, |headers| {
                let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
                headers.iter().map(|header| (header.key.to_owned(), text(header.value))).collect()
            });
            take(Record {
                partition: message.partition(),
                key: message.key().map(|key| String::from_utf8_lossy(key).into_owned()),
                payload: message.payload().unwrap_or_default().to_vec(),
                headers,
            });
        }
    }
}

impl Kafka {
    /// Where the broker keeps its data.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        script().arg("stop").arg(self.folder.path()).status().ok();
    }
}

/// A plain producer.
pub struct Sender {
    producer: ThreadedProducer<DefaultProducerContext>,
}

impl Sender {
    pub fn send(&self, topic: &str, partition: Option<i32>, key: &str, payload: &[u8], headers: &[(&str, &str)]) {
        loop {
            let mut record = BaseRecord::<str, [u8]>::to(topic).key(key).payload(payload);
            if let Some(partition) = partition {
                record = record.partition(partition);
            }
            if !headers.is_empty() {
                let all = headers.iter().fold(OwnedHeaders::new(), |all, (key, value)| {
                    all.insert(rdkafka::message::Header { key, value: Some(*value) })
                });
                record = record.headers(all);
            }
            match self.producer.send(record) {
                Ok(()) => return,
                Err((KafkaError::MessageProduction(rdkafka::types::RDKafkaErrorCode::QueueFull), _)) => {
                    self.producer.poll(Duration::from_millis(5));
                }
                Err((error, _)) => panic!("cannot produce: {error}"),
            }
        }
    }

    /// Sends a record that says when it was written, in milliseconds.
    pub fn send_dated(&self, topic: &str, payload: &[u8], (key, value): (&str, &str), written: i64) {
        let headers = OwnedHeaders::new().insert(rdkafka::message::Header { key, value: Some(value) });
        let record = BaseRecord::<str, [u8]>::to(topic).payload(payload).headers(headers).timestamp(written);
        self.producer.send(record).map_err(|(error, _)| error).expect("room");
    }

    pub fn flush(&self) {
        self.producer.flush(Duration::from_secs(60)).expect("a flush");
    }
}

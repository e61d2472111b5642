//! What source and sink share of a Kafka client: its configuration, what it says, questions to the cluster, producing.

pub mod producer;

use crate::time;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::{ClientContext, Offset};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A client's configuration with what every client of ours sets.
pub fn client_config(properties: &BTreeMap<String, String>) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("client.id", "sluice").set("log.connection.close", "false");
    config.set("reconnect.backoff.max.ms", "1000");
    for (name, value) in properties {
        config.set(name, value);
    }
    config.set_log_level(RDKafkaLogLevel::Warning);
    config
}

/// Passes a client's log line on. Payloads and passwords are not in them: `debug` is not ours to set.
pub fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            tracing::debug!(target: "kafka", facility, "{message}");
        }
        _ => tracing::trace!(target: "kafka", facility, "{message}"),
    }
}

/// Whether a client is kept out for what it is or whom it trusts: people must change something.
pub fn is_shut_out(error: &KafkaError) -> bool {
    matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL))
}

/// The last trouble a client spoke of: its calls only say that they timed out.
#[derive(Clone, Default)]
pub struct Remarks(Arc<Mutex<Option<Remark>>>);

/// What a client said, and whether time cannot heal it.
#[derive(Clone)]
struct Remark(String, bool);

impl Remarks {
    /// Notes an error callback. That all brokers are down only follows from another trouble.
    pub fn note(&self, error: &KafkaError, reason: &str) {
        tracing::debug!(target: "kafka", "{error}: {reason}");
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *self.lock() = Some(Remark(reason.to_owned(), is_shut_out(error)));
        }
    }

    /// The last trouble, in words.
    pub fn words(&self) -> Option<String> {
        self.last().map(|Remark(words, _)| words)
    }

    /// The last trouble.
    fn last(&self) -> Option<Remark> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Remark>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Listener(Remarks);

impl ClientContext for Listener {
    fn error(&self, error: KafkaError, reason: &str) {
        self.0.note(&error, reason);
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }
}

impl ConsumerContext for Listener {}

/// Why a question to a cluster has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterError {
    /// No broker answers in time.
    Unreachable(String),
    /// The properties are refused by the client itself.
    Properties(String),
    /// The broker refused what was asked.
    Refused(String),
}

impl std::fmt::Display for ClusterError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable(why) | Self::Properties(why) | Self::Refused(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ClusterError {}

/// Questions to one cluster.
pub struct Cluster {
    config: ClientConfig,
    consumer: BaseConsumer<Listener>,
    remarks: Remarks,
    servers: String,
}

/// How long a question may take.
pub const PATIENCE: Duration = Duration::from_secs(8);
/// The same after the client has spoken of trouble.
const TROUBLED: Duration = Duration::from_secs(3);
/// The same where no connection has come up: a packet may have been lost twice, or a broker hangs up, of which the client
/// does not speak.
const UNCONNECTED: Duration = Duration::from_secs(4);
/// How often it is looked what the client says meanwhile.
const LOOK: Duration = Duration::from_secs(1);

impl Cluster {
    /// A client for the cluster; connects at the first question.
    ///
    /// # Errors
    /// Properties that the client refuses.
    pub fn new(properties: &BTreeMap<String, String>) -> Result<Self, ClusterError> {
        let mut config = client_config(properties);
        config.set("allow.auto.create.topics", "false");
        let remarks = Remarks::default();
        // It connects at once, not when a question has waited for it, and again about once a second.
        let consumer = config
            .clone()
            .set("enable.sparse.connections", "false")
            .set("reconnect.backoff.ms", "1000")
            .create_with_context(Listener(remarks.clone()))
            .map_err(|error| ClusterError::Properties(format!("cannot make a Kafka client: {error}")))?;
        let servers = properties.get("bootstrap.servers").cloned().unwrap_or_default();
        Ok(Self { config, consumer, remarks, servers })
    }

    /// Error callbacks are served by polling.
    fn listen(&self) -> Option<Remark> {
        for _ in 0..8 {
            drop(self.consumer.poll(Duration::from_millis(20)));
        }
        self.remarks.last()
    }

    fn unreachable(&self, error: &KafkaError) -> ClusterError {
        let said = self.remarks.last().or_else(|| self.listen());
        let why = said.map_or_else(|| error.to_string(), |Remark(why, _)| why);
        let tls = self.config.get("security.protocol").is_some_and(|protocol| protocol.contains("SSL"));
        let lower = why.to_ascii_lowercase();
        let help = if lower.contains("authentication") || lower.contains("sasl") {
            "check `sasl`: user name, password and mechanism"
        } else if tls && !lower.contains("refused") {
            "check `tls`: the broker's certificate, `ca`, our own `cert` and `key`, and that the port speaks TLS"
        } else if !tls
            && (lower.contains("ssl") || lower.contains("disconnected") || lower.contains("transport failure"))
        {
            "check the address; where the port speaks TLS, set `tls`"
        } else {
            "check the address and that a broker listens there; --wait waits for it"
        };
        ClusterError::Unreachable(format!("no answer from the Kafka brokers {}: {why}; {help}", self.servers))
    }

    /// How many partitions a topic has; `None` when it does not exist.
    ///
    /// # Errors
    /// [`ClusterError::Unreachable`] within [`PATIENCE`].
    pub fn partitions(&self, topic: &str) -> Result<Option<i32>, ClusterError> {
        let begin = time::now();
        let metadata = loop {
            match self.consumer.fetch_metadata(Some(topic), LOOK) {
                Ok(metadata) => break metadata,
                Err(error) if self.gives_up(begin, &error) => return Err(self.unreachable(&error)),
                Err(_) => {}
            }
        };
        let found = metadata.topics().iter().find(|known| known.name() == topic && known.error().is_none());
        let count = found.map(|topic| i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX));
        Ok(count.filter(|&count| count > 0))
    }

    /// The names of all topics.
    ///
    /// # Errors
    /// [`ClusterError::Unreachable`] within [`PATIENCE`].
    pub fn topics(&self) -> Result<Vec<String>, ClusterError> {
        let metadata = self.consumer.fetch_metadata(None, PATIENCE).map_err(|error| self.unreachable(&error))?;
        Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
    }

    /// Whether a question that began then has taken long enough: less where the client says why there is no answer, and
    /// no time at all where time cannot heal it.
    fn gives_up(&self, begin: Instant, error: &KafkaError) -> bool {
        let unconnected = error.rdkafka_error_code() == Some(RDKafkaErrorCode::BrokerTransportFailure);
        match self.listen() {
            Some(Remark(_, shut_out)) => shut_out || begin.elapsed() >= TROUBLED,
            None => begin.elapsed() >= if unconnected { UNCONNECTED } else { PATIENCE },
        }
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>, ClusterError> {
        self.config.create().map_err(|error| ClusterError::Properties(error.to_string()))
    }

    /// Creates a topic with these properties; `None` takes the broker's default replication.
    ///
    /// # Errors
    /// What the broker answered.
    pub fn create(
        &self,
        topic: &str,
        partitions: i32,
        replication: Option<i32>,
        properties: &[(&str, &str)],
    ) -> Result<(), ClusterError> {
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(replication.unwrap_or(-1)));
        for (name, value) in properties {
            new = new.set(name, value);
        }
        let admin = self.admin()?;
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
        let answer = block_on(admin.create_topics([&new], &options)).map_err(|error| self.unreachable(&error))?;
        match answer.into_iter().next() {
            Some(Err((_, code))) if code != RDKafkaErrorCode::TopicAlreadyExists => {
                Err(ClusterError::Refused(format!("cannot create topic {topic}: {code}")))
            }
            _ => Ok(()),
        }
    }

    /// Deletes a topic.
    ///
    /// # Errors
    /// What the broker answered.
    pub fn delete(&self, topic: &str) -> Result<(), ClusterError> {
        let admin = self.admin()?;
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
        let answer = block_on(admin.delete_topics(&[topic], &options)).map_err(|error| self.unreachable(&error))?;
        match answer.into_iter().next() {
            Some(Err((_, code))) => Err(ClusterError::Refused(format!("cannot delete topic {topic}: {code}"))),
            _ => Ok(()),
        }
    }

    /// Deletes the records of partitions before these offsets.
    ///
    /// # Errors
    /// What the broker answered.
    pub fn delete_records(&self, topic: &str, before: &[(i32, i64)]) -> Result<(), ClusterError> {
        let refused = |error: KafkaError| ClusterError::Refused(format!("cannot delete records of {topic}: {error}"));
        let mut list = TopicPartitionList::with_capacity(before.len());
        for (partition, offset) in before {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset)).map_err(refused)?;
        }
        let admin = self.admin()?;
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).request_timeout(Some(PATIENCE));
        let answer = block_on(admin.delete_records(&list, &options)).map_err(|error| self.unreachable(&error))?;
        answer.elements().iter().try_for_each(|element| element.error()).map_err(refused)
    }

    /// The largest record batch a topic takes, `max.message.bytes`; `None` when the broker does not tell.
    pub fn largest_record(&self, topic: &str) -> Option<u64> {
        self.settings(topic).get("max.message.bytes")?.parse().ok()
    }

    /// A topic's properties; none when the broker does not tell.
    pub fn settings(&self, topic: &str) -> BTreeMap<String, String> {
        let Ok(admin) = self.admin() else { return BTreeMap::new() };
        let options = AdminOptions::new().request_timeout(Some(PATIENCE));
        let answer = block_on(admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options));
        let found = answer.ok().and_then(|found| found.into_iter().next()?.ok());
        let entries = found.into_iter().flat_map(|resource| resource.entries);
        entries.filter_map(|entry| Some((entry.name, entry.value?))).collect()
    }
}

/// The partitions of a source that this process has, for who keeps what belongs to them.
#[derive(Default)]
pub struct Owned {
    state: Mutex<Assignments>,
    listeners: Mutex<Vec<Listens>>,
}

/// Hears that partitions have come, or, with `false`, are being taken away.
type Listens = Box<dyn Fn(&[i32], bool) + Send + Sync>;

#[derive(Default)]
struct Assignments {
    count: u64,
    partitions: BTreeMap<i32, u64>,
}

impl Owned {
    fn state(&self) -> MutexGuard<'_, Assignments> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of changes from now on. It is called on the consumer's thread.
    pub fn listen(&self, listener: impl Fn(&[i32], bool) + Send + Sync + 'static) {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(listener));
    }

    /// Partitions have come.
    pub fn assign(&self, partitions: &[i32]) {
        let mut state = self.state();
        state.count += 1;
        let count = state.count;
        state.partitions.extend(partitions.iter().map(|&partition| (partition, count)));
        drop(state);
        self.tell(partitions, true);
    }

    /// Partitions are taken away: what was read of them counts no more. Returns when those who listen have let go of them.
    pub fn revoke(&self, partitions: &[i32]) {
        let mut state = self.state();
        state.partitions.retain(|partition, _| !partitions.contains(partition));
        drop(state);
        self.tell(partitions, false);
    }

    fn tell(&self, partitions: &[i32], ours: bool) {
        for listener in &*self.listeners.lock().unwrap_or_else(PoisonError::into_inner) {
            listener(partitions, ours);
        }
    }

    /// The assignment in which a partition is ours, if it is.
    pub fn assignment(&self, partition: i32) -> Option<u64> {
        self.state().partitions.get(&partition).copied()
    }

    /// All that are ours, and since which assignment.
    pub fn all(&self) -> Vec<(i32, u64)> {
        self.state().partitions.iter().map(|(&partition, &assignment)| (partition, assignment)).collect()
    }
}

/// Drives one of the client library's futures, which its own threads wake, to its end.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

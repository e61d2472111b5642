//! What source and sink share of a Kafka client: its configuration, what it says, and questions to the cluster.

use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

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

/// The last trouble a client spoke of: its calls only say that they timed out.
#[derive(Clone, Default)]
pub struct Remarks(Arc<Mutex<Option<String>>>);

impl Remarks {
    /// Notes an error callback. That all brokers are down only follows from another trouble.
    pub fn note(&self, error: &KafkaError, reason: &str) {
        tracing::debug!(target: "kafka", "{error}: {reason}");
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
        }
    }

    /// The last trouble.
    pub fn last(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
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

impl Cluster {
    /// A client for the cluster; connects at the first question.
    ///
    /// # Errors
    /// Properties that the client refuses.
    pub fn new(properties: &BTreeMap<String, String>) -> Result<Self, ClusterError> {
        let mut config = client_config(properties);
        config.set("allow.auto.create.topics", "false");
        let remarks = Remarks::default();
        let consumer = config
            .create_with_context(Listener(remarks.clone()))
            .map_err(|error| ClusterError::Properties(format!("cannot make a Kafka client: {error}")))?;
        let servers = properties.get("bootstrap.servers").cloned().unwrap_or_default();
        Ok(Self { config, consumer, remarks, servers })
    }

    fn unreachable(&self, error: &KafkaError) -> ClusterError {
        // Error callbacks are served by polling.
        for _ in 0..8 {
            drop(self.consumer.poll(Duration::from_millis(20)));
        }
        let why = self.remarks.last().unwrap_or_else(|| error.to_string());
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
        let metadata = self.consumer.fetch_metadata(Some(topic), PATIENCE).map_err(|error| self.unreachable(&error))?;
        let found = metadata.topics().iter().find(|known| known.name() == topic && known.error().is_none());
        let count = found.map(|topic| i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX));
        Ok(count.filter(|&count| count > 0))
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>, ClusterError> {
        self.config.create().map_err(|error| ClusterError::Properties(error.to_string()))
    }

    /// Creates a topic; `None` takes the broker's default replication.
    ///
    /// # Errors
    /// What the broker answered.
    pub fn create(&self, topic: &str, partitions: i32, replication: Option<i32>) -> Result<(), ClusterError> {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(replication.unwrap_or(-1)));
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

    /// The largest record batch a topic takes, `max.message.bytes`; `None` when the broker does not tell.
    pub fn largest_record(&self, topic: &str) -> Option<u64> {
        let admin = self.admin().ok()?;
        let options = AdminOptions::new().request_timeout(Some(PATIENCE));
        let answer = block_on(admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options)).ok()?;
        answer.into_iter().next()?.ok()?.get("max.message.bytes")?.value.as_ref()?.parse().ok()
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

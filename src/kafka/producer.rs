//! Producing: one idempotent client per set of properties, each record its own opaque.
//!
//! Batching adapts by itself: the first records of a topic leave after half a millisecond, the next ones gather here
//! until those are acknowledged. An idempotent librdkafka (2.12) has one request of a partition under way, and its
//! thread spins while records wait behind that request for longer than `linger.ms`; so they do not wait there.

use super::{Remarks, client_config, is_shut_out};
use crate::metrics::Metrics;
use crate::time;
use arc_swap::ArcSwap;
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

/// What is to be written to a topic as a record.
pub trait Outgoing: Send + Sync + 'static {
    /// Bytes that are shared, not copied.
    type Bytes: Deref<Target = [u8]>;
    /// The record's value.
    fn payload(&self) -> Self::Bytes;
    /// The record's key.
    fn key(&self) -> Option<Self::Bytes>;
    /// The record's headers.
    fn headers(&self) -> OwnedHeaders;
    /// Hears, once, what has become of it.
    fn written(self, topic: &str, result: Result<(), KafkaError>);
}

/// How long the polling thread waits for delivery reports, and while records are parked. The crate waits for whole
/// milliseconds of what is left and spins through the rest: with a little more than whole ones, the rest is little.
const WAIT: Duration = Duration::from_micros(50_050);
const CROWDED_WAIT: Duration = Duration::from_micros(2_050);
/// How long the first records wait for more, where no property says otherwise; librdkafka's `linger.ms`.
const LINGER: Duration = Duration::from_micros(500);
/// How long records gather at most behind those that are under way, to the next tick of the polling thread.
const HELD: Duration = Duration::from_millis(50);

/// Producers by the properties of their clients.
pub struct Producers<R: Outgoing> {
    /// Largest batch: what every topic takes, since it takes the largest event. A broker refuses a batch that is too
    /// large as a whole.
    batch_bytes: u64,
    metrics: Arc<Metrics>,
    /// Who writes to their topics keeps them alive.
    open: HashMap<Arc<BTreeMap<String, String>>, Weak<Producer<R>>>,
}

impl<R: Outgoing> Producers<R> {
    /// No producers yet. `event_bytes` is the largest event.
    pub fn new(event_bytes: u64, metrics: &Arc<Metrics>) -> Self {
        let metrics = Arc::clone(metrics);
        Self { batch_bytes: event_bytes.clamp(4096, 1_000_000), metrics, open: HashMap::new() }
    }

    /// A sink for a topic, on a producer shared with other topics of the same properties.
    ///
    /// # Errors
    /// Properties that the client refuses.
    pub fn topic(&mut self, properties: &Arc<BTreeMap<String, String>>, topic: &str) -> Result<TopicSink<R>, String> {
        self.open.retain(|_, producer| producer.strong_count() > 0);
        let producer = match self.open.get(properties).and_then(Weak::upgrade).filter(|producer| producer.is_polled()) {
            Some(producer) => producer,
            None => {
                let producer = Producer::start(properties, self.batch_bytes, &self.metrics)?;
                self.open.insert(Arc::clone(properties), Arc::downgrade(&producer));
                producer
            }
        };
        let topic = Arc::new(Topic { name: topic.to_owned(), gate: Mutex::default() });
        Ok(TopicSink { topic, producer })
    }

    /// Waits until everything is sent, up to `deadline`.
    pub fn flush(&self, deadline: Instant) {
        for producer in self.open.values().filter_map(Weak::upgrade) {
            let left = deadline.saturating_duration_since(time::now());
            if let Err(error) = producer.client.load().flush(left) {
                tracing::warn!("producer not flushed: {error}");
            }
        }
    }
}

/// One topic.
pub struct TopicSink<R: Outgoing> {
    topic: Arc<Topic<R>>,
    producer: Arc<Producer<R>>,
}

impl<R: Outgoing> TopicSink<R> {
    /// The topic's name.
    pub fn name(&self) -> &str {
        &self.topic.name
    }

    /// The last trouble that the client spoke of.
    pub fn trouble(&self) -> Option<String> {
        self.producer.client.load().context().remarks.words()
    }

    /// Hands a record to the producer, or parks it until its turn has come. Order is kept.
    pub fn submit(&self, record: R) {
        let mut gate = self.topic.gate();
        gate.parked.push_back(Box::new(record));
        if gate.is_open(self.producer.linger) {
            self.producer.release(&self.topic, gate);
        } else {
            self.producer.list(&self.topic, gate);
        }
    }
}

/// A topic and what is to be written to it.
struct Topic<R> {
    name: String,
    gate: Mutex<Gate<R>>,
}

impl<R> Topic<R> {
    fn gate(&self) -> MutexGuard<'_, Gate<R>> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records of one topic before the client. Who submits them bounds them.
struct Gate<R> {
    /// How many the client has.
    under_way: usize,
    /// When it got the first of those.
    since: Option<Instant>,
    parked: VecDeque<Box<R>>,
    /// The client had no room.
    full: bool,
    /// Among the producer's waiting topics.
    listed: bool,
}

impl<R> Default for Gate<R> {
    fn default() -> Self {
        Self { under_way: 0, since: None, parked: VecDeque::new(), full: false, listed: false }
    }
}

impl<R> Gate<R> {
    /// Whether the client should have what is parked: nothing is under way, or the batch that will be is still open.
    fn is_open(&self, linger: Duration) -> bool {
        let gathering = || self.since.is_some_and(|since| since.elapsed() < linger);
        !self.full && (self.under_way == 0 || gathering())
    }
}

struct Reports<R: Outgoing> {
    remarks: Remarks,
    /// The client's servers, for those who look at the process's health.
    servers: String,
    metrics: Arc<Metrics>,
    /// The brokers do not let the client in.
    shut_out: AtomicBool,
    producer: Arc<OnceLock<Weak<Producer<R>>>>,
}

impl<R: Outgoing> Reports<R> {
    /// Says that the brokers do not let us in, or that they do again.
    fn tell(&self, shut_out: Option<&str>) {
        if self.shut_out.swap(shut_out.is_some(), Ordering::Relaxed) || shut_out.is_some() {
            self.metrics.health.note(&format!("kafka {}", self.servers), shut_out.map(str::to_owned));
        }
    }
}

impl<R: Outgoing> ClientContext for Reports<R> {
    fn error(&self, error: KafkaError, reason: &str) {
        if is_shut_out(&error) {
            tracing::warn!("the Kafka brokers {} do not let us in: {reason}", self.servers);
            self.tell(Some(reason));
        }
        self.remarks.note(&error, reason);
    }

    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        super::log(level, facility, message);
    }
}

/// A record that the client has.
struct Sent<R> {
    record: Box<R>,
    topic: Arc<Topic<R>>,
}

impl<R: Outgoing> ProducerContext for Reports<R> {
    type DeliveryOpaque = Box<Sent<R>>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Box<Sent<R>>) {
        let Sent { record, topic } = *sent;
        if result.is_ok() {
            self.tell(None);
        }
        record.written(&topic.name, result.as_ref().map(|_| ()).map_err(|(error, _)| error.clone()));
        let mut gate = topic.gate();
        gate.under_way = gate.under_way.saturating_sub(1);
        if gate.under_way == 0
            && !gate.parked.is_empty()
            && let Some(producer) = self.producer.get().and_then(Weak::upgrade)
        {
            producer.release(&topic, gate);
        }
    }
}

/// A client, and the thread that polls it.
struct Producer<R: Outgoing> {
    config: ClientConfig,
    metrics: Arc<Metrics>,
    client: ArcSwap<Client<R>>,
    /// How long a batch stays open; the client's `linger.ms`.
    linger: Duration,
    /// Topics that may have parked records.
    waiting: Mutex<Vec<Arc<Topic<R>>>>,
    /// Its thread has ended.
    ended: Mutex<bool>,
    /// Itself, for the client's callbacks.
    me: Arc<OnceLock<Weak<Self>>>,
}

type Client<R> = BaseProducer<Reports<R>>;

enum Handed<R> {
    Queued,
    Full(Box<R>),
    Failed(Box<R>, KafkaError),
}

impl<R: Outgoing> Producer<R> {
    fn start(
        properties: &BTreeMap<String, String>,
        batch_bytes: u64,
        metrics: &Arc<Metrics>,
    ) -> Result<Arc<Self>, String> {
        let mut config = client_config(properties);
        let batch_bytes = batch_bytes.to_string();
        let defaults = [
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("compression.type", "lz4"),
            ("batch.size", &batch_bytes),
            ("batch.num.messages", "10000"),
            ("queue.buffering.max.kbytes", "16384"),
            ("queue.buffering.max.messages", "100000"),
            ("message.timeout.ms", "30000"),
            // The topic's own limit decides, not the client's.
            ("message.max.bytes", "100000000"),
            ("socket.nagle.disable", "true"),
        ];
        for (name, value) in defaults {
            if !properties.contains_key(name) {
                config.set(name, value);
            }
        }
        // By either of its names; what is no number is for the client to refuse.
        let asked = properties.get("linger.ms").or_else(|| properties.get("queue.buffering.max.ms"));
        if asked.is_none() {
            config.set("linger.ms", (LINGER.as_secs_f64() * 1e3).to_string());
        }
        let asked = asked.and_then(|millis| Duration::try_from_secs_f64(millis.parse::<f64>().ok()? / 1e3).ok());
        let linger = asked.unwrap_or(LINGER);
        let me = Arc::new(OnceLock::new());
        let client = ArcSwap::from_pointee(open(&config, metrics, &me)?);
        let (waiting, ended, metrics) = (Mutex::default(), Mutex::default(), Arc::clone(metrics));
        let producer = Arc::new(Self { config, metrics, client, linger, waiting, ended, me: Arc::clone(&me) });
        me.get_or_init(|| Arc::downgrade(&producer));
        let poll = Arc::clone(&producer);
        std::thread::Builder::new()
            .name("sluice-producer".into())
            .spawn(move || Self::run(&poll))
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(producer)
    }

    /// Replaces a client that can produce no more, and returns it. What it holds fails when it is dropped, and is tried
    /// again on the new one.
    fn revive(&self) -> Option<Arc<Client<R>>> {
        let (code, reason) = self.client.load().client().fatal_error()?;
        tracing::error!("the Kafka producer has failed ({code}: {reason}); making a new one");
        match open(&self.config, &self.metrics, &self.me) {
            Ok(client) => Some(self.client.swap(Arc::new(client))),
            Err(error) => {
                tracing::error!("{error}");
                None
            }
        }
    }

    /// Serves delivery reports and gives parked records their turn, until nobody writes and everything is reported.
    fn run(self: &Arc<Self>) {
        let mut retired: Vec<Arc<Client<R>>> = Vec::new();
        while !self.ends() {
            self.client.load_full().poll(if self.waiting().is_empty() { WAIT } else { CROWDED_WAIT });
            retired.extend(self.revive());
            // A client that is dropped reports all it holds: not to a thread that is about to hand it more.
            retired.retain(|client| Arc::strong_count(client) > 1);
            self.tick();
        }
        self.client.load().context().tell(None);
    }

    /// Ends it where only its thread has it and nothing is under way.
    fn ends(self: &Arc<Self>) -> bool {
        let idle = || self.waiting().is_empty() && self.client.load().in_flight_count() == 0;
        if Arc::strong_count(self) > 1 || !idle() {
            return false;
        }
        let mut ended = self.ended();
        *ended = Arc::strong_count(self) == 1;
        *ended
    }

    /// Whether it goes on, now that the caller has it.
    fn is_polled(&self) -> bool {
        !*self.ended()
    }

    fn ended(&self) -> MutexGuard<'_, bool> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Arc<Topic<R>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the polling thread look at a topic.
    fn list(&self, topic: &Arc<Topic<R>>, mut gate: MutexGuard<'_, Gate<R>>) {
        if !std::mem::replace(&mut gate.listed, true) {
            drop(gate);
            self.waiting().push(Arc::clone(topic));
        }
    }

    /// Lets go what has waited long enough, and tries again what the client had no room for.
    fn tick(&self) {
        let topics = std::mem::take(&mut *self.waiting());
        for topic in topics {
            let mut gate = topic.gate();
            let due = gate.since.is_none_or(|since| since.elapsed() >= HELD);
            if std::mem::take(&mut gate.full) || gate.under_way == 0 || due {
                self.release(&topic, gate);
                gate = topic.gate();
            }
            gate.listed = false;
            if !gate.parked.is_empty() {
                self.list(&topic, gate);
            }
        }
    }

    /// Hands parked records to the client, as many as it has room for.
    fn release(&self, topic: &Arc<Topic<R>>, mut gate: MutexGuard<'_, Gate<R>>) {
        let mut failed = Vec::new();
        while let Some(record) = gate.parked.pop_front() {
            match self.send(topic, record) {
                Handed::Queued => {
                    if gate.under_way == 0 {
                        gate.since = Some(time::now());
                    }
                    gate.under_way += 1;
                }
                Handed::Full(record) => {
                    gate.parked.push_front(record);
                    gate.full = true;
                    break;
                }
                Handed::Failed(record, error) => failed.push((record, error)),
            }
        }
        match gate.full {
            true => self.list(topic, gate),
            false => drop(gate),
        }
        for (record, error) in failed {
            record.written(&topic.name, Err(error));
        }
    }

    fn send(&self, topic: &Arc<Topic<R>>, record: Box<R>) -> Handed<R> {
        let (payload, key, headers) = (record.payload(), record.key(), record.headers());
        let sent = Box::new(Sent { record, topic: Arc::clone(topic) });
        let mut record =
            BaseRecord::<[u8], [u8], _>::with_opaque_to(&topic.name, sent).payload(&payload).headers(headers);
        if let Some(key) = &key {
            record = record.key(key);
        }
        match self.client.load().send(record) {
            Ok(()) => Handed::Queued,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), record)) => {
                Handed::Full(record.delivery_opaque.record)
            }
            Err((error, record)) => Handed::Failed(record.delivery_opaque.record, error),
        }
    }
}

fn open<R: Outgoing>(
    config: &ClientConfig,
    metrics: &Arc<Metrics>,
    producer: &Arc<OnceLock<Weak<Producer<R>>>>,
) -> Result<Client<R>, String> {
    let servers = config.get("bootstrap.servers").unwrap_or_default().to_owned();
    let (metrics, producer) = (Arc::clone(metrics), Arc::clone(producer));
    let shut_out = AtomicBool::new(false);
    let reports = Reports { remarks: Remarks::default(), servers, metrics, shut_out, producer };
    config.create_with_context(reports).map_err(|error| format!("cannot make a Kafka producer: {error}"))
}

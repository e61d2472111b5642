//! Producing to Kafka: one idempotent producer per set of client properties, each delivery its own opaque.
//!
//! Batching adapts by itself: the first deliveries of a topic leave after half a millisecond, the next ones gather here
//! until those are acknowledged. An idempotent librdkafka (2.12) has one request of a partition under way, and its
//! thread spins while records wait behind that request for longer than `linger.ms`; so they do not wait there.

use super::retry::Failure;
use super::{Delivery, TRACE_HEADER, dead_letter};
use crate::catalog::KafkaTarget;
use crate::kafka::{Remarks, client_config};
use crate::time;
use arc_swap::ArcSwap;
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How long the polling thread waits for delivery reports, and while deliveries are parked. The crate waits for whole
/// milliseconds of what is left and spins through the rest: with a little more than whole ones, the rest is little.
const WAIT: Duration = Duration::from_micros(50_050);
const CROWDED_WAIT: Duration = Duration::from_micros(2_050);
/// How long the first deliveries wait for more, where no property says otherwise; librdkafka's `linger.ms`.
const LINGER: Duration = Duration::from_micros(500);
/// How long deliveries gather at most behind those that are under way, to the next tick of the polling thread.
const HELD: Duration = Duration::from_millis(50);

/// Producers by the properties of their clients.
pub struct Producers {
    /// Largest batch: what every topic takes, since it takes the largest event. A broker refuses a batch that is too
    /// large as a whole.
    batch_bytes: u64,
    open: HashMap<Arc<BTreeMap<String, String>>, Arc<Producer>>,
}

impl Producers {
    /// No producers yet. `event_bytes` is the largest event.
    pub fn new(event_bytes: u64) -> Self {
        Self { batch_bytes: event_bytes.clamp(4096, 1_000_000), open: HashMap::new() }
    }

    /// A sink for a topic, on a producer shared with other targets of the same properties.
    ///
    /// # Errors
    /// Properties that the client refuses.
    pub fn topic(&mut self, target: &KafkaTarget) -> Result<TopicSink, String> {
        let producer = match self.open.get(&target.client) {
            Some(producer) => Arc::clone(producer),
            None => {
                let producer = Producer::start(&target.client, self.batch_bytes)?;
                self.open.insert(Arc::clone(&target.client), Arc::clone(&producer));
                producer
            }
        };
        let topic = Arc::new(Topic { name: target.topic.clone(), gate: Mutex::default() });
        Ok(TopicSink { topic, producer })
    }

    /// Waits until everything is sent, up to `deadline`.
    pub fn flush(&self, deadline: Instant) {
        for producer in self.open.values() {
            let left = deadline.saturating_duration_since(time::now());
            if let Err(error) = producer.client.load().flush(left) {
                tracing::warn!("producer not flushed: {error}");
            }
        }
    }
}

/// One topic.
pub struct TopicSink {
    topic: Arc<Topic>,
    producer: Arc<Producer>,
}

impl TopicSink {
    /// Hands a delivery to the producer, or parks it until its turn has come. Order is kept.
    pub fn submit(&self, delivery: Delivery) {
        let mut gate = self.topic.gate();
        gate.parked.push_back(Box::new(delivery));
        if gate.is_open(self.producer.linger) {
            self.producer.release(&self.topic, gate);
        } else {
            self.producer.list(&self.topic, gate);
        }
    }
}

/// A topic and what is to be written to it.
struct Topic {
    name: String,
    gate: Mutex<Gate>,
}

impl Topic {
    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Deliveries of one topic before the client. They are bounded by the credit of their events.
#[derive(Default)]
struct Gate {
    /// How many the client has.
    under_way: usize,
    /// When it got the first of those.
    since: Option<Instant>,
    parked: VecDeque<Box<Delivery>>,
    /// The client had no room.
    full: bool,
    /// Among the producer's waiting topics.
    listed: bool,
}

impl Gate {
    /// Whether the client should have what is parked: nothing is under way, or the batch that will be is still open.
    fn is_open(&self, linger: Duration) -> bool {
        let gathering = || self.since.is_some_and(|since| since.elapsed() < linger);
        !self.full && (self.under_way == 0 || gathering())
    }
}

struct Reports {
    remarks: Remarks,
    producer: Arc<OnceLock<Weak<Producer>>>,
}

impl ClientContext for Reports {
    fn error(&self, error: KafkaError, reason: &str) {
        self.remarks.note(&error, reason);
    }

    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        crate::kafka::log(level, facility, message);
    }
}

/// A delivery that the client has.
struct Sent {
    delivery: Box<Delivery>,
    topic: Arc<Topic>,
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Sent>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Box<Sent>) {
        let Sent { delivery, topic } = *sent;
        delivery.finish(match result {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(failure(error, &topic.name)),
        });
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
struct Producer {
    config: ClientConfig,
    client: ArcSwap<Client>,
    /// How long a batch stays open; the client's `linger.ms`.
    linger: Duration,
    /// Topics that may have parked deliveries.
    waiting: Mutex<Vec<Arc<Topic>>>,
    /// Itself, for the client's callbacks.
    me: Arc<OnceLock<Weak<Self>>>,
}

type Client = BaseProducer<Reports>;

enum Handed {
    Queued,
    Full(Box<Delivery>),
    Failed(Box<Delivery>, KafkaError),
}

impl Producer {
    fn start(properties: &BTreeMap<String, String>, batch_bytes: u64) -> Result<Arc<Self>, String> {
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
        let client = ArcSwap::from_pointee(open(&config, &me)?);
        let producer = Arc::new(Self { config, client, linger, waiting: Mutex::default(), me: Arc::clone(&me) });
        me.get_or_init(|| Arc::downgrade(&producer));
        let poll = Arc::clone(&producer);
        std::thread::Builder::new()
            .name("sluice-producer".into())
            .spawn(move || poll.run())
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(producer)
    }

    /// Replaces a client that can produce no more, and returns it. What it holds fails when it is dropped, and is tried
    /// again on the new one.
    fn revive(&self) -> Option<Arc<Client>> {
        let (code, reason) = self.client.load().client().fatal_error()?;
        tracing::error!("the Kafka producer has failed ({code}: {reason}); making a new one");
        match open(&self.config, &self.me) {
            Ok(client) => Some(self.client.swap(Arc::new(client))),
            Err(error) => {
                tracing::error!("{error}");
                None
            }
        }
    }

    /// Serves delivery reports and gives parked deliveries their turn; ends with the process.
    fn run(&self) {
        let mut retired: Vec<Arc<Client>> = Vec::new();
        loop {
            self.client.load_full().poll(if self.waiting().is_empty() { WAIT } else { CROWDED_WAIT });
            retired.extend(self.revive());
            // A client that is dropped reports all it holds: not to a thread that is about to hand it more.
            retired.retain(|client| Arc::strong_count(client) > 1);
            self.tick();
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Arc<Topic>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the polling thread look at a topic.
    fn list(&self, topic: &Arc<Topic>, mut gate: MutexGuard<'_, Gate>) {
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

    /// Hands parked deliveries to the client, as many as it has room for.
    fn release(&self, topic: &Arc<Topic>, mut gate: MutexGuard<'_, Gate>) {
        let mut failed = Vec::new();
        while let Some(delivery) = gate.parked.pop_front() {
            match self.send(topic, delivery) {
                Handed::Queued => {
                    if gate.under_way == 0 {
                        gate.since = Some(time::now());
                    }
                    gate.under_way += 1;
                }
                Handed::Full(delivery) => {
                    gate.parked.push_front(delivery);
                    gate.full = true;
                    break;
                }
                Handed::Failed(delivery, error) => failed.push((delivery, error)),
            }
        }
        match gate.full {
            true => self.list(topic, gate),
            false => drop(gate),
        }
        for (delivery, error) in failed {
            delivery.finish(Err(failure(&error, &topic.name)));
        }
    }

    fn send(&self, topic: &Arc<Topic>, delivery: Box<Delivery>) -> Handed {
        let (payload, key, headers) = (delivery.payload.clone(), delivery.key.clone(), headers(&delivery));
        let sent = Box::new(Sent { delivery, topic: Arc::clone(topic) });
        let mut record =
            BaseRecord::<[u8], [u8], _>::with_opaque_to(&topic.name, sent).payload(&payload).headers(headers);
        if let Some(key) = &key {
            record = record.key(key);
        }
        match self.client.load().send(record) {
            Ok(()) => Handed::Queued,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), record)) => {
                Handed::Full(record.delivery_opaque.delivery)
            }
            Err((error, record)) => Handed::Failed(record.delivery_opaque.delivery, error),
        }
    }
}

fn open(config: &ClientConfig, producer: &Arc<OnceLock<Weak<Producer>>>) -> Result<Client, String> {
    let reports = Reports { remarks: Remarks::default(), producer: Arc::clone(producer) };
    config.create_with_context(reports).map_err(|error| format!("cannot make a Kafka producer: {error}"))
}

fn headers(delivery: &Delivery) -> OwnedHeaders {
    let id = delivery.id.to_string();
    let mut headers = OwnedHeaders::new_with_capacity(3)
        .insert(Header { key: "sluice-delivery-id", value: Some(&id) })
        .insert(Header { key: "sluice-bus", value: Some(delivery.bus.as_ref()) });
    if let Some(rule) = &delivery.rule {
        headers = headers.insert(Header { key: "sluice-rule", value: Some(rule.name.as_ref()) });
    }
    if let Some(trace) = &delivery.trace {
        headers = headers.insert(Header { key: TRACE_HEADER, value: Some(trace.as_ref()) });
    }
    if let Some(letter) = &delivery.letter {
        for (key, value) in dead_letter::attributes(delivery, letter) {
            headers = headers.insert(Header { key, value: Some(&value) });
        }
    }
    headers
}

/// What a producing error means for the delivery.
fn failure(error: &KafkaError, topic: &str) -> Failure {
    let code = error.rdkafka_error_code();
    let message = |remedy: &str| format!("topic {topic}: {error}{remedy}");
    match code {
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => {
            Failure::permanent("INVALID_PARAMETER", message("; raise max.message.bytes of the topic"))
        }
        Some(
            RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownPartition,
        ) => Failure::permanent("NO_RESOURCE", message("; create the topic, then send the dead letters again")),
        Some(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed) => {
            Failure::permanent("NO_PERMISSIONS", message("; allow the client to write"))
        }
        Some(RDKafkaErrorCode::InvalidRecord | RDKafkaErrorCode::PolicyViolation) => {
            Failure::permanent("INVALID_PARAMETER", message(""))
        }
        Some(RDKafkaErrorCode::MessageTimedOut | RDKafkaErrorCode::RequestTimedOut) => {
            Failure::retry("TIMEOUT", message("; is the broker up?"))
        }
        _ => Failure::retry("CONNECTION_FAILURE", message("")),
    }
}

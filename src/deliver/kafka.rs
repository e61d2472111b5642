//! Producing to Kafka: one idempotent producer per set of client properties, each delivery its own opaque.
//!
//! Batching adapts by itself: `linger.ms` is half a millisecond, and while requests are under way records gather.

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
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the polling thread waits for delivery reports, and while deliveries wait for room. The crate waits for whole
/// milliseconds of what is left and spins through the rest: with a little more than whole ones, the rest is little.
const WAIT: Duration = Duration::from_micros(50_050);
const CROWDED_WAIT: Duration = Duration::from_micros(2_050);

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
        Ok(TopicSink { topic: target.topic.clone(), producer })
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
    topic: String,
    producer: Arc<Producer>,
}

impl TopicSink {
    /// Hands a delivery to the producer, or parks it until the producer has room. Order is kept.
    pub fn submit(&self, delivery: Delivery) {
        let mut parked = self.producer.parked.lock().unwrap_or_else(PoisonError::into_inner);
        let delivery = Box::new(delivery);
        if !parked.is_empty() {
            return parked.push_back((self.topic.clone(), delivery));
        }
        match self.producer.send(&self.topic, delivery) {
            Sent::Queued => {}
            Sent::Full(delivery) => parked.push_back((self.topic.clone(), delivery)),
            Sent::Failed(delivery, error) => {
                drop(parked);
                delivery.finish(Err(failure(&error, &self.topic)));
            }
        }
    }
}

struct Reports {
    remarks: Remarks,
}

impl ClientContext for Reports {
    fn error(&self, error: KafkaError, reason: &str) {
        self.remarks.note(&error, reason);
    }

    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        crate::kafka::log(level, facility, message);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Box<Delivery>) {
        match result {
            Ok(_) => delivery.finish(Ok(())),
            Err((error, message)) => {
                let topic = rdkafka::Message::topic(message);
                delivery.finish(Err(failure(error, topic)));
            }
        }
    }
}

/// A client, the thread that polls it, and deliveries that wait for room in it. Those are bounded by the credit of
/// their events.
struct Producer {
    config: ClientConfig,
    client: ArcSwap<Client>,
    parked: Mutex<VecDeque<(String, Box<Delivery>)>>,
}

type Client = BaseProducer<Reports>;

enum Sent {
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
            ("linger.ms", "0.5"),
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
        let client = ArcSwap::from_pointee(open(&config)?);
        let producer = Arc::new(Self { config, client, parked: Mutex::default() });
        let poll = Arc::clone(&producer);
        std::thread::Builder::new()
            .name("sluice-producer".into())
            .spawn(move || poll.run())
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(producer)
    }

    /// Replaces a client that can produce no more. What the old one held fails, and is tried again on the new one.
    fn revive(&self) {
        let Some((code, reason)) = self.client.load().client().fatal_error() else { return };
        tracing::error!("the Kafka producer has failed ({code}: {reason}); making a new one");
        match open(&self.config) {
            Ok(client) => drop(self.client.swap(Arc::new(client))),
            Err(error) => tracing::error!("{error}"),
        }
    }

    /// Serves delivery reports and gives parked deliveries their turn; ends with the process.
    fn run(&self) {
        loop {
            let waiting = !self.parked.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
            self.client.load_full().poll(if waiting { CROWDED_WAIT } else { WAIT });
            self.revive();
            self.unpark();
        }
    }

    fn unpark(&self) {
        let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((topic, delivery)) = parked.pop_front() {
            match self.send(&topic, delivery) {
                Sent::Queued => {}
                Sent::Full(delivery) => return parked.push_front((topic, delivery)),
                Sent::Failed(delivery, error) => {
                    drop(parked);
                    delivery.finish(Err(failure(&error, &topic)));
                    parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    fn send(&self, topic: &str, delivery: Box<Delivery>) -> Sent {
        let payload = delivery.payload.clone();
        let key = delivery.key.clone();
        let headers = headers(&delivery);
        let mut record =
            BaseRecord::<[u8], [u8], _>::with_opaque_to(topic, delivery).payload(&payload).headers(headers);
        if let Some(key) = &key {
            record = record.key(key);
        }
        match self.client.load().send(record) {
            Ok(()) => Sent::Queued,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), record)) => {
                Sent::Full(record.delivery_opaque)
            }
            Err((error, record)) => Sent::Failed(record.delivery_opaque, error),
        }
    }
}

fn open(config: &ClientConfig) -> Result<Client, String> {
    let reports = Reports { remarks: Remarks::default() };
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

//! Where `sluice put` sends events: a Kafka topic, or a NATS subject.

use crate::app::{Exit, Failed};
use crate::catalog::NatsClient;
use crate::kafka::client_config;
use crate::nats;
use async_nats::jetstream::{self, context::PublishAckFuture};
use bytes::Bytes;
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;

/// Publications to a stream under way at once.
const WINDOW: usize = 1000;

/// A way out.
pub enum Out {
    /// A topic.
    Kafka(Topic),
    /// A subject, with or without a stream.
    Nats(Box<Subject>),
}

impl Out {
    /// Sends one event; may wait for room.
    pub fn send(&mut self, key: Option<&str>, line: &[u8]) -> Result<(), String> {
        match self {
            Out::Kafka(topic) => topic.send(key, line),
            Out::Nats(subject) => subject.send(line),
        }
    }

    /// Waits for acknowledgements; returns how many came.
    pub fn finish(self) -> u64 {
        match self {
            Out::Kafka(topic) => topic.finish(),
            Out::Nats(subject) => subject.finish(),
        }
    }
}

#[derive(Default)]
struct Reports {
    delivered: Arc<AtomicU64>,
}

impl ClientContext for Reports {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!("{error}: {reason}");
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => drop(self.delivered.fetch_add(1, Ordering::Relaxed)),
            Err((error, _)) => tracing::error!("an event was not taken: {error}"),
        }
    }
}

/// A Kafka topic.
pub struct Topic {
    producer: ThreadedProducer<Reports>,
    name: String,
    delivered: Arc<AtomicU64>,
}

impl Topic {
    /// A producer for a topic; `linger` is how many milliseconds an event waits for company.
    pub fn new(client: &BTreeMap<String, String>, name: &str, linger: &str) -> Result<Self, Failed> {
        let reports = Reports::default();
        let delivered = Arc::clone(&reports.delivered);
        let mut config = client_config(client);
        config.set("enable.idempotence", "true").set("linger.ms", linger).set("compression.type", "lz4");
        let producer = config
            .create_with_context(reports)
            .map_err(|error| Failed::new(Exit::Config, format!("cannot make a Kafka producer: {error}")))?;
        Ok(Self { producer, name: name.to_owned(), delivered })
    }

    fn send(&self, key: Option<&str>, line: &[u8]) -> Result<(), String> {
        loop {
            let mut record = BaseRecord::<str, [u8]>::to(&self.name).payload(line);
            if let Some(key) = key {
                record = record.key(key);
            }
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    self.producer.poll(Duration::from_millis(5));
                }
                Err((error, _)) => return Err(error.to_string()),
            }
        }
    }

    fn finish(self) -> u64 {
        // What is not sent in time shows in the count.
        drop(self.producer.flush(Duration::from_secs(60)));
        self.delivered.load(Ordering::Relaxed)
    }
}

/// A NATS subject.
pub struct Subject {
    runtime: Runtime,
    client: async_nats::Client,
    /// Where a stream keeps it.
    stream: Option<jetstream::Context>,
    name: String,
    open: VecDeque<PublishAckFuture>,
    delivered: u64,
}

impl Subject {
    /// A connection; looks whether a stream keeps the subject.
    pub fn new(client: &NatsClient, name: &str) -> Result<Self, Failed> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|error| Failed::new(Exit::Io, format!("cannot start the network threads: {error}")))?;
        let client = runtime.block_on(nats::connect(client, |_| {}))?;
        // Without JetStream there is no stream either.
        let kept = runtime.block_on(nats::stream_of(&client, name)).unwrap_or_default();
        let stream = kept.map(|_| {
            let _inside = runtime.enter();
            jetstream::new(client.clone())
        });
        Ok(Self { runtime, client, stream, name: name.to_owned(), open: VecDeque::new(), delivered: 0 })
    }

    fn send(&mut self, line: &[u8]) -> Result<(), String> {
        let (name, payload) = (self.name.clone(), Bytes::copy_from_slice(line));
        let Some(stream) = &self.stream else {
            self.delivered += 1;
            let sent = self.runtime.block_on(self.client.publish(name, payload));
            return sent.map_err(|error| nats::causes(&error));
        };
        let ack = self.runtime.block_on(stream.publish(name, payload)).map_err(|error| nats::causes(&error))?;
        self.open.push_back(ack);
        match self.open.len() > WINDOW {
            true => self.settle(),
            false => Ok(()),
        }
    }

    fn settle(&mut self) -> Result<(), String> {
        let Some(ack) = self.open.pop_front() else { return Ok(()) };
        self.runtime.block_on(async { ack.await }).map_err(|error| nats::causes(&error))?;
        self.delivered += 1;
        Ok(())
    }

    fn finish(mut self) -> u64 {
        while !self.open.is_empty() {
            if let Err(error) = self.settle() {
                tracing::error!("an event was not taken: {error}");
            }
        }
        let flushed = async { tokio::time::timeout(nats::PATIENCE, self.client.flush()).await };
        match self.runtime.block_on(flushed) {
            Ok(Ok(())) => self.delivered,
            // Whether the server has read anything is not known.
            _ if self.stream.is_none() => 0,
            _ => self.delivered,
        }
    }
}

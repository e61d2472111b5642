//! Delivering to Kafka: what a delivery is as a record, and what the broker's answer means for it.

use super::retry::Failure;
use super::{Delivery, Payload, Sink, TRACE_HEADER, dead_letter};
use crate::archive::ARCHIVE_HEADER;
use crate::kafka::producer::{self, Outgoing};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use std::sync::Arc;

/// Producers by the properties of their clients.
pub type Producers = producer::Producers<Delivery>;

/// One topic.
pub struct TopicSink {
    topic: producer::TopicSink<Delivery>,
    /// The archive that it keeps, if it does.
    archive: Option<Arc<str>>,
}

impl TopicSink {
    /// A sink for a topic of targets.
    pub fn new(topic: producer::TopicSink<Delivery>) -> Self {
        Self { topic, archive: None }
    }

    /// A sink for a topic that keeps an archive.
    pub fn archive(topic: producer::TopicSink<Delivery>, archive: &str) -> Self {
        Self { topic, archive: Some(archive.into()) }
    }

    /// Hands a delivery to the producer.
    pub fn submit(&self, delivery: Delivery) {
        self.topic.submit(delivery);
    }
}

impl Outgoing for Delivery {
    type Bytes = Payload;

    fn payload(&self) -> Payload {
        self.parcel.payload.clone()
    }

    fn key(&self) -> Option<Payload> {
        self.parcel.key.clone()
    }

    fn headers(&self) -> OwnedHeaders {
        headers(self)
    }

    fn written(self, topic: &str, result: Result<(), KafkaError>) {
        self.finish(result.map_err(|error| failure(&error, topic)));
    }
}

fn headers(delivery: &Delivery) -> OwnedHeaders {
    let id = delivery.id.to_string();
    let mut headers = OwnedHeaders::new_with_capacity(4)
        .insert(Header { key: "sluice-delivery-id", value: Some(&id) })
        .insert(Header { key: "sluice-bus", value: Some(delivery.bus.as_ref()) });
    if let Some(rule) = &delivery.rule {
        headers = headers.insert(Header { key: "sluice-rule", value: Some(rule.name.as_ref()) });
    }
    if let Sink::Kafka(TopicSink { archive: Some(archive), .. }) = &delivery.outlet.sink {
        headers = headers.insert(Header { key: ARCHIVE_HEADER, value: Some(archive.as_ref()) });
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

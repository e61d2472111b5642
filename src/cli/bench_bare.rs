//! The loops that `sluice bench pipeline` holds Sluice against: consume everything, produce a tenth, do nothing else.

use super::bench_broker::{Nats, PATIENCE, Pair, assigned, broken};
use super::corpus::slots;
use crate::app::Failed;
use crate::kafka::client_config;
use crate::nats::causes;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use futures_util::StreamExt;
use rdkafka::Message;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Whether rules would take an event: the same tenth as Sluice delivers, found without parsing.
fn wanted(payload: &[u8]) -> bool {
    slots::number(payload).is_some_and(|number| slots::matched(number, 1))
}

/// `BaseConsumer` and `BaseProducer`.
pub fn kafka(client: &BTreeMap<String, String>, pair: &Pair, events: u64) -> Result<(), Failed> {
    let mut config = client_config(client);
    config
        .set("group.id", "sluice-bench-bare")
        .set("enable.auto.commit", "false")
        .set("fetch.queue.backoff.ms", "2")
        .set("queued.max.messages.kbytes", "8192")
        .set("linger.ms", "5")
        .set("compression.type", "lz4");
    let consumer = assigned(&config, &pair.from)?;
    let producer: BaseProducer = config.create().map_err(|error| broken("cannot make a producer", error))?;
    for _ in 0..events {
        let message = match consumer.poll(PATIENCE) {
            Some(Ok(message)) => message,
            Some(Err(error)) => return Err(broken("cannot consume", error)),
            None => return Err(broken("cannot consume", "no record in time")),
        };
        let payload = message.payload().unwrap_or_default();
        if wanted(payload) {
            send(&producer, &pair.to, message.key().unwrap_or_default(), payload)?;
        }
    }
    producer.flush(Duration::from_secs(60)).map_err(|error| broken("cannot produce", error))
}

/// Produces, waiting for room.
fn send(producer: &BaseProducer, topic: &str, key: &[u8], payload: &[u8]) -> Result<(), Failed> {
    loop {
        match producer.send(BaseRecord::<[u8], [u8]>::to(topic).key(key).payload(payload)) {
            Ok(()) => {
                producer.poll(Duration::ZERO);
                return Ok(());
            }
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                producer.poll(Duration::from_millis(5));
            }
            Err((error, _)) => return Err(broken("cannot produce", error)),
        }
    }
}

/// Publications under way at once.
const WINDOW: usize = 1000;

/// Pull, publish to the other stream and wait for its word, acknowledge each message: Sluice's policy.
pub fn nats(nats: &Nats, pair: &Pair, events: u64) -> Result<(), Failed> {
    nats.runtime.block_on(async {
        let config = pull::Config { ack_policy: AckPolicy::Explicit, max_ack_pending: -1, ..pull::Config::default() };
        let consumer = nats.context.create_consumer_on_stream(config, &pair.from).await;
        let consumer = consumer.map_err(|error| broken("cannot make a consumer", causes(&error)))?;
        let messages = consumer.stream().max_messages_per_batch(1000).messages().await;
        let mut messages = messages.map_err(|error| broken("cannot consume", causes(&error)))?;
        let mut open = VecDeque::new();
        for number in 0..events {
            let message = match tokio::time::timeout(PATIENCE, messages.next()).await {
                Ok(Some(Ok(message))) => message,
                Ok(Some(Err(error))) => return Err(broken("cannot consume", causes(&error))),
                _ => return Err(broken("cannot consume", "no message in time")),
            };
            if wanted(&message.payload) {
                let published = nats.context.publish(pair.to.clone(), message.payload.clone()).await;
                open.push_back((published.map_err(|error| broken("cannot publish", causes(&error)))?, message));
            } else {
                message.ack().await.map_err(|error| broken("cannot acknowledge", error))?;
            }
            while open.len() > if number + 1 == events { 0 } else { WINDOW } {
                let Some((published, message)) = open.pop_front() else { break };
                published.await.map_err(|error| broken("cannot publish", causes(&error)))?;
                message.ack().await.map_err(|error| broken("cannot acknowledge", error))?;
            }
        }
        Ok(())
    })
}

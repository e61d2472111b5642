//! What the brokers must have before anything starts: topics, streams, and room for the largest event.

use super::{Exit, Failed, archives};
use crate::api::ENVELOPE_BYTES;
use crate::catalog::{KafkaTarget, NatsClient, Target, TargetKind, TopicShape};
use crate::config::check::clients;
use crate::config::model::Config;
use crate::deliver::retry_log::Unprepared;
use crate::kafka::{Cluster, ClusterError};
use crate::nats::{self, NatsError};
use std::collections::BTreeMap;
use tokio::runtime::Handle;

/// What Sluice needs of the topics of its targets.
#[derive(Debug, Clone)]
pub struct Needs {
    /// Largest event.
    pub event_bytes: u64,
    /// Partitions of a topic that Sluice makes and nobody gave a number for.
    pub partitions: i32,
    /// Targets that take the dead letters of sources.
    pub queues: Vec<String>,
    /// Where network clients run.
    pub runtime: Handle,
}

impl From<ClusterError> for Failed {
    fn from(error: ClusterError) -> Self {
        let exit = match error {
            ClusterError::Unreachable(_) => Exit::Unreachable,
            ClusterError::Properties(_) | ClusterError::Refused(_) => Exit::Config,
        };
        Self::new(exit, error.to_string())
    }
}

impl From<Unprepared> for Failed {
    fn from(error: Unprepared) -> Self {
        match error {
            Unprepared::Kafka(error) => error.into(),
            Unprepared::Nats(error) => error.into(),
            Unprepared::Here(why) => Self::new(Exit::Io, why),
        }
    }
}

impl From<NatsError> for Failed {
    fn from(error: NatsError) -> Self {
        match error {
            NatsError::Unreachable(why) => Self::new(Exit::Unreachable, why),
            NatsError::Missing(why) => Self::missing(why),
            NatsError::Refused(why) => Self::new(Exit::Config, why),
        }
    }
}

/// Headers and framing of a record, dead-letter attributes included.
const RECORD_OVERHEAD: u64 = 4096;

/// Looks for every source's topics and streams; returns the partitions of the largest topic.
pub fn prepare_sources(config: &Config, runtime: &Handle) -> Result<i32, Failed> {
    let mut most = 1;
    let largest = config.limits.event_bytes.0 + ENVELOPE_BYTES as u64;
    for (name, source) in &config.sources {
        if let Some(nats) = &source.nats {
            let client = clients::nats_source(nats).map_err(|fault| Failed::new(Exit::Config, fault.message))?;
            let wanted = nats.stream.as_deref().map(|stream| (stream, nats.subject.as_deref()));
            let largest = config.keeps_http(source).then_some(largest);
            runtime.block_on(prepare_stream(name, &client, wanted, largest))?;
        }
        let Some(kafka) = &source.kafka else { continue };
        let cluster =
            Cluster::new(&clients::kafka(&kafka.brokers, kafka.sasl.as_ref(), kafka.tls.as_ref(), &kafka.properties))?;
        for topic in &kafka.topics {
            let Some(count) = cluster.partitions(topic)? else {
                let message = format!(
                    "source {name}: topic {topic} does not exist on {}; create it with \
                     `kafka-topics.sh --bootstrap-server {} --create --topic {topic}`",
                    kafka.brokers, kafka.brokers
                );
                return Err(Failed::missing(message));
            };
            most = count.max(most);
            if config.keeps_http(source) {
                takes(&cluster, &format!("source {name}"), topic, largest)?;
            }
        }
    }
    Ok(most)
}

/// Looks for every target topic, and creates those that Sluice needs for itself or is told to create.
pub fn prepare_targets(targets: &[Target], needs: &Needs) -> Result<(), Failed> {
    let mut clusters: BTreeMap<&BTreeMap<String, String>, Cluster> = BTreeMap::new();
    let queues: Vec<&String> =
        targets.iter().filter_map(|target| target.dead_letter.as_ref()).chain(&needs.queues).collect();
    for target in targets {
        archives::prepare(target, needs)?;
        if let TargetKind::Nats(nats) = &target.kind {
            needs.runtime.block_on(nats::check_target(&target.name, nats, needs.event_bytes))?;
        }
        let TargetKind::Kafka(kafka) = &target.kind else { continue };
        if !clusters.contains_key(&*kafka.client) {
            clusters.insert(&kafka.client, Cluster::new(&kafka.client)?);
        }
        let Some(cluster) = clusters.get(&*kafka.client) else { continue };
        prepare_topic(cluster, &target.name, kafka, queues.contains(&&target.name), needs)?;
    }
    Ok(())
}

/// Looks whether a server answers, and whether a stream keeps what is to be read of it.
async fn prepare_stream(
    source: &str,
    client: &NatsClient,
    wanted: Option<(&str, Option<&str>)>,
    largest: Option<u64>,
) -> Result<(), NatsError> {
    let connection = nats::connect(client, |_| {}).await?;
    let Some((stream, subject)) = wanted else { return Ok(()) };
    let found = nats::stream(&connection, stream).await?;
    let has = &found.cached_info().config;
    if let Some(largest) = largest {
        nats::takes(&format!("source {source}"), connection.max_payload() as u64, largest)?;
        if has.no_ack {
            let why = "does not acknowledge (`no_ack`), so that it cannot keep what comes over HTTP; set it to false";
            return Err(NatsError::Refused(format!("source {source}: stream {stream} {why}")));
        }
    }
    let kept = &has.subjects;
    let Some(subject) = subject.filter(|_| !kept.is_empty()) else { return Ok(()) };
    if kept.iter().any(|kept| nats::overlap(kept, subject)) {
        return Ok(());
    }
    let kept = kept.join(", ");
    Err(NatsError::Missing(format!(
        "source {source}: stream {stream} keeps {kept}, and nothing that fits subject {subject}"
    )))
}

fn prepare_topic(cluster: &Cluster, name: &str, kafka: &KafkaTarget, queue: bool, needs: &Needs) -> Result<(), Failed> {
    let topic = &kafka.topic;
    if cluster.partitions(topic)?.is_none() {
        let servers = kafka.client.get("bootstrap.servers").map_or("", String::as_str);
        let shape = match (kafka.create, queue) {
            (Some(shape), _) => shape,
            (None, true) => TopicShape { partitions: None, replication: None },
            (None, false) => {
                let message = format!(
                    "target {name}: topic {topic} does not exist on {servers}; create it with \
                     `kafka-topics.sh --bootstrap-server {servers} --create --topic {topic}`, or add `create: {{}}` to the target"
                );
                return Err(Failed::missing(message));
            }
        };
        let partitions = shape.partitions.unwrap_or(needs.partitions);
        cluster.create(topic, partitions, shape.replication, &[])?;
        tracing::info!(topic, partitions, "topic created");
    }
    takes(cluster, &format!("target {name}"), topic, needs.event_bytes)
}

/// Whether a topic takes the largest event.
pub(super) fn takes(cluster: &Cluster, whose: &str, topic: &str, event_bytes: u64) -> Result<(), Failed> {
    let wanted = event_bytes + RECORD_OVERHEAD;
    let Some(largest) = cluster.largest_record(topic).filter(|largest| *largest < wanted) else { return Ok(()) };
    let message = format!(
        "{whose}: topic {topic} takes records of {largest} bytes, an event may have {event_bytes}; raise the topic's \
         max.message.bytes to {wanted}, or lower limits.event_bytes"
    );
    Err(Failed::new(Exit::Config, message))
}

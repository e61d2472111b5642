//! From declared sources to those that run.

use super::{Exit, Failed};
use crate::api::ENVELOPE_BYTES;
use crate::config::check::clients;
use crate::config::ends;
use crate::config::model::Config;
use crate::credit::Window;
use crate::deliver::Outlets;
use crate::deliver::retry_log::Elsewhere;
use crate::deliver::retry_log::stream::RetryStream;
use crate::deliver::retry_log::topic::RetryTopics;
use crate::dlq::Parts;
use crate::envelope::{Aim, SourceInfo};
use crate::kafka::Owned;
use crate::plan::Identity;
use crate::source::kafka::KafkaSource;
use crate::source::lines::LineSource;
use crate::source::nats::{JetStream, NatsSource};
use crate::source::{Setup, Source};
use crate::worker::Route;
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::runtime::Handle;

/// A source beside those of the configuration: its name, bus and lines.
pub type Extra = Option<(String, String, Box<dyn std::io::Read + Send>)>;

/// The configuration's sources that run by themselves, and an `extra` one.
pub fn of(
    config: &Config,
    identity: &Identity,
    elsewhere: &[Elsewhere],
    extra: Extra,
) -> Result<Vec<(Setup, Source)>, Failed> {
    let window = Window { events: config.limits.in_flight_events, bytes: config.limits.in_flight_bytes.0 };
    let mut sources = Vec::new();
    for (name, source) in config.sources.iter().filter(|(_, source)| source.webhook.is_none()) {
        let info = Arc::new(info(config, identity, name, source)?);
        let keeps_http = config.keeps_http(source);
        sources.push((Setup { info, window, keeps_http }, source_of(name, source, elsewhere)?));
    }
    if let Some((name, bus, lines)) = extra {
        let info = SourceInfo {
            name: name.as_str().into(),
            bus: bus.into(),
            framing: crate::transform::wrap::Framing::EventBridge,
            on_invalid: crate::catalog::OnInvalid::DeadLetter,
            dead_letter: None,
            event_bytes: event_bytes(config),
            identity: identity.clone(),
            aim: Aim::default(),
        };
        let setup = Setup { info: Arc::new(info), window, keeps_http: false };
        sources.push((setup, Source::Lines(LineSource::Reader(name, lines))));
    }
    Ok(sources)
}

/// What dead letters are sent back with.
pub fn letters(
    config: &Config,
    identity: &Identity,
    routes: &Arc<ArcSwap<Route>>,
    outlets: &Arc<Mutex<Outlets>>,
) -> Result<Parts, Failed> {
    let mut sources = HashMap::new();
    // What comes as a webhook is an event before it is routed.
    for (name, source) in config.sources.iter().filter(|(_, source)| source.webhook.is_none()) {
        sources.insert(name.clone(), Arc::new(info(config, identity, name, source)?));
    }
    Ok(Parts {
        data_dir: config.data_dir.clone(),
        routes: Arc::clone(routes),
        outlets: Arc::clone(outlets),
        sources,
        identity: identity.clone(),
        event_bytes: event_bytes(config),
    })
}

fn event_bytes(config: &Config) -> usize {
    usize::try_from(config.limits.event_bytes.0).unwrap_or(usize::MAX)
}

/// The largest event of a source: what HTTP leaves in its topic or stream has its envelope, too.
fn source_bytes(config: &Config, source: &ends::Source) -> usize {
    event_bytes(config) + if config.keeps_http(source) { ENVELOPE_BYTES } else { 0 }
}

/// What all batches of a source share.
pub fn info(config: &Config, identity: &Identity, name: &str, source: &ends::Source) -> Result<SourceInfo, Failed> {
    Ok(SourceInfo {
        name: name.into(),
        bus: source.bus.as_str().into(),
        framing: clients::framing(&source.envelope).map_err(|message| Failed::new(Exit::Config, message))?,
        on_invalid: source.on_invalid.into(),
        dead_letter: source.dead_letter.clone(),
        event_bytes: source_bytes(config, source),
        identity: identity.clone(),
        aim: Aim::default(),
    })
}

/// Where the deliveries of sources wait that say so.
pub fn elsewhere(config: &Config, runtime: &Handle) -> Result<Vec<Elsewhere>, Failed> {
    let mut places = Vec::new();
    for (name, source) in &config.sources {
        let bytes = source_bytes(config, source) as u64;
        if let Some(kafka) = &source.kafka
            && let (Some(prefix), Some(topic)) = (&kafka.retry_topics, kafka.topics.first())
        {
            let client = clients::kafka(&kafka.brokers, kafka.sasl.as_ref(), kafka.tls.as_ref(), &kafka.properties);
            let topics = RetryTopics::new((name, &source.bus), (topic, &kafka.group), prefix, client, bytes);
            places.push(Elsewhere::Topics(topics));
        }
        if let Some(nats) = &source.nats
            && let (Some(stream), Some(of)) = (&nats.retry_stream, &nats.stream)
        {
            let client = clients::nats_source(nats).map_err(|fault| Failed::new(Exit::Config, fault.message))?;
            let stream = RetryStream::new((name, &source.bus), (of, stream), client, bytes, runtime);
            places.push(Elsewhere::Stream(stream));
        }
    }
    Ok(places)
}

/// Told which partitions of a source are this process's.
fn owned(name: &str, elsewhere: &[Elsewhere]) -> Arc<Owned> {
    let of = |place: &Elsewhere| match place {
        Elsewhere::Topics(topics) if *topics.source == *name => Some(Arc::clone(&topics.owned)),
        _ => None,
    };
    elsewhere.iter().find_map(of).unwrap_or_default()
}

fn source_of(name: &str, source: &ends::Source, elsewhere: &[Elsewhere]) -> Result<Source, Failed> {
    if let Some(kafka) = &source.kafka {
        return Ok(Source::Kafka(KafkaSource {
            client: clients::kafka(&kafka.brokers, kafka.sasl.as_ref(), kafka.tls.as_ref(), &kafka.properties),
            topics: kafka.topics.clone(),
            group: kafka.group.clone(),
            instance_id: kafka.instance_id.clone(),
            start: kafka.start,
            owned: owned(name, elsewhere),
        }));
    }
    if let Some(nats) = &source.nats {
        let client = clients::nats_source(nats).map_err(|fault| Failed::new(Exit::Config, fault.message))?;
        let subject = nats.subject.clone();
        return Ok(Source::Nats(match (&nats.stream, &nats.durable) {
            (Some(stream), Some(durable)) => NatsSource::JetStream(JetStream {
                client,
                stream: stream.clone(),
                durable: durable.clone(),
                filter: subject,
                start: nats.start,
                ack_wait: nats.ack_wait.0,
            }),
            _ => NatsSource::Core { client, subject: subject.unwrap_or_default(), queue: nats.queue.clone() },
        }));
    }
    Ok(Source::Lines(match &source.file {
        Some(file) => LineSource::File(file.path.clone()),
        None => LineSource::Stdin,
    }))
}

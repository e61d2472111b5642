//! What keeps archived events, as far as types do not say it.

use super::Check;
use super::clients::{self, Fault};
use crate::catalog::{KafkaKey, KafkaTarget, NatsTarget, Storage};
use crate::config::archives::{ArchiveStream, ArchiveTopic};
use crate::config::problem::Problem;
use crate::config::yaml::Document;
use crate::transform::Subject;
use std::sync::Arc;

/// What may be given, one of both at most.
type Given<'a> = (Option<&'a ArchiveTopic>, Option<&'a ArchiveStream>);

const SUBJECT: &str = "name one subject of the stream, without `*`, `>` and values of the event";

impl Check<'_> {
    /// What keeps the archives of a bus's callers, if that is sound.
    pub(super) fn bus_storage(&mut self, document: &Document, bus: &str, given: Given<'_>) -> Option<Storage> {
        let at = ["buses", bus, "archives"];
        if given.0.is_none() && given.1.is_none() {
            let problem = Problem::plain("E0203", "nothing that keeps archived events is named");
            self.report(document, &at, problem.help("give it `kafka` or `nats`, or leave out `archives`"));
            return None;
        }
        self.storage(document, &at, given)
    }

    /// What keeps archived events; nothing where it is not sound, which is said.
    pub(super) fn storage(&mut self, document: &Document, at: &[&str], given: Given<'_>) -> Option<Storage> {
        match given {
            (None, None) => Some(Storage::Disk),
            (Some(topic), None) => {
                let at = [at, &["kafka"]].concat();
                self.kafka_client(document, &at, &topic.properties, topic.tls.as_ref());
                let client = clients::kafka(&topic.brokers, topic.sasl.as_ref(), topic.tls.as_ref(), &topic.properties);
                let (client, topic) = (Arc::new(client), topic.topic.clone());
                Some(Storage::Topic(KafkaTarget { client, topic, key: KafkaKey::None, create: None }))
            }
            (None, Some(stream)) => {
                let made = archive_stream(stream).map_err(|fault| (fault, "E0201"));
                self.sound(document, &[at, &["nats"]].concat(), made)
            }
            (Some(_), Some(_)) => {
                let problem =
                    Problem::plain("E0203", "archived events are kept in a topic or in a stream, not in both");
                self.report(document, at, problem.help("keep one of `kafka` and `nats`"));
                None
            }
        }
    }
}

fn archive_stream(stream: &ArchiveStream) -> Result<Storage, Fault> {
    let name = &stream.stream;
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || ".*>/\\".contains(c)) {
        return Err(Fault::at("stream", format!("`{name}` is not a name"), "letters, digits, `-` and `_`"));
    }
    let subject = Subject::parse(&stream.subject).map_err(|why| Fault::at("subject", why, SUBJECT))?;
    if subject.fixed().is_none() {
        let message = format!("`{}` is no one subject to publish to", stream.subject);
        return Err(Fault::at("subject", message, SUBJECT));
    }
    let client = clients::nats(&stream.servers, stream.auth.as_ref(), stream.tls.as_ref())?;
    Ok(Storage::Stream(NatsTarget { client: Arc::new(client), subject, jetstream: true }, name.clone()))
}

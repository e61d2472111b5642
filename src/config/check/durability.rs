//! Buses whose broker keeps what comes over HTTP: the one source that reads it back.

use super::{Check, File};
use crate::config::ends::{self, Envelope, Source, Start};
use crate::config::model::{Config, Durability};
use crate::config::problem::Problem;

impl Check<'_> {
    /// Each bus that says `durability: broker` has exactly one source that fits.
    pub(super) fn kept_by_brokers(&mut self, files: &[File], config: &Config) {
        for (document, file) in files {
            for name in file.buses.iter().filter(|(_, bus)| bus.durability == Durability::Broker).map(|(name, _)| name)
            {
                let sources: Vec<_> = config.kept_sources(name).collect();
                let (why, help) = match sources.as_slice() {
                    [(source, own)] => {
                        self.keeper(files, name, source, own);
                        continue;
                    }
                    [] => (
                        format!("no source of bus `{name}` reads a topic or a stream that could keep its events"),
                        "give it a `kafka` source or one of JetStream, or write `durability: journal`".to_owned(),
                    ),
                    several => {
                        let names: Vec<String> = several.iter().map(|(source, _)| format!("`{source}`")).collect();
                        let names = names.join(", ");
                        (
                            format!(
                                "sources {names} of bus `{name}` read a broker each: in which its events are kept is not said"
                            ),
                            format!(
                                "keep one of them; let the others feed a bus of their own, with a rule to a target `bus: {name}`"
                            ),
                        )
                    }
                };
                self.report(document, &["buses", name, "durability"], Problem::plain("E0210", why).help(help));
            }
        }
    }

    /// What is written into a source's topic or stream must come back as the event it was, all of it.
    fn keeper(&mut self, files: &[File], bus: &str, name: &str, source: &Source) {
        let Some((document, _)) = files.iter().find(|(document, _)| document.find(&["sources", name]).is_some()) else {
            return;
        };
        for (path, why, help) in faults(source) {
            let why = format!("bus `{bus}` keeps its events here (`durability: broker`), and {why}");
            self.report(document, &[&["sources", name], path].concat(), Problem::plain("E0210", why).help(help));
        }
    }
}

type Found = (&'static [&'static str], String, &'static str);

fn faults(source: &Source) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    let start = |kind: &'static [&'static str]| {
        (kind, "what is written before a new group begins would be skipped".to_owned(), "write `start: earliest`")
    };
    if source.envelope != Envelope::EventBridge {
        let help = "remove `envelope`, or let this source feed another bus";
        found.push((&["envelope"], "what is written are events, in no other envelope".to_owned(), help));
    }
    if let Some(kafka) = &source.kafka {
        if kafka.topics.len() > 1 {
            let why = format!("of {} topics none is the one to write to", kafka.topics.len());
            found.push((&["kafka", "topics"], why, "name one topic; use a source and a bus each"));
        }
        if kafka.start == Start::Latest {
            found.push(start(&["kafka", "start"]));
        }
    }
    if let Some(nats) = &source.nats {
        let help = "name the subject to publish to; the consumer reads that one of the stream";
        match subject(nats) {
            Some(subject) if subject.contains(['*', '>']) => {
                found.push((&["nats", "subject"], format!("`{subject}` is no one subject to publish to"), help));
            }
            Some(_) => {}
            None => found.push((&["nats"], "no subject to publish to is named".to_owned(), help)),
        }
        if nats.start == Start::Latest {
            found.push(start(&["nats", "start"]));
        }
    }
    found
}

fn subject(nats: &ends::NatsSource) -> Option<&str> {
    nats.subject.as_deref().filter(|subject| !subject.is_empty())
}

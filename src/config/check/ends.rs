//! Sources and targets, as far as types do not say it.

use super::clients::{self, Fault};
use super::{Check, File};
use crate::catalog::{self, Command, KafkaKey, RetryPolicy, TargetKind};
use crate::config::ends::{self, Tls};
use crate::config::problem::Problem;
use crate::config::values::Secret;
use crate::config::yaml::Document;
use crate::transform::{JsonPath, Subject};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Kafka client properties that the delivery promise rests on.
const RESERVED_PROPERTIES: [&str; 9] = [
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "group.id",
    "group.instance.id",
    "group.protocol",
    "enable.idempotence",
    "acks",
];

/// How a group may share its partitions out; all of its members the same way.
const ASSIGNORS: [&str; 3] = ["range", "roundrobin", "cooperative-sticky"];

impl Check<'_> {
    /// Targets that others send their dead letters to come first.
    pub(super) fn targets(&mut self, files: &[File]) {
        for queues in [true, false] {
            for (document, file) in files {
                for (name, target) in &file.targets {
                    if target.dead_letter.is_none() == queues {
                        self.target(document, name, target, files);
                    }
                }
            }
        }
    }

    fn target(&mut self, document: &Document, name: &str, target: &ends::Target, files: &[File]) {
        let at = ["targets", name];
        let kinds = [
            target.kafka.is_some(),
            target.nats.is_some(),
            target.http.is_some(),
            target.aws.is_some(),
            target.log.is_some(),
            target.stdout.is_some(),
            target.bus.is_some(),
        ];
        if kinds.iter().filter(|kind| **kind).count() != 1 {
            let problem = Problem::plain(
                "E0203",
                "a target is exactly one of `kafka`, `nats`, `http`, `aws`, `log`, `stdout` and `bus`",
            );
            return self.report(document, &at, problem.help("keep one of them; use a target each"));
        }
        let ordering = match target.ordering {
            ends::Ordering::Partition => catalog::Order::Partition,
            ends::Ordering::Key => catalog::Order::Key,
        };
        let declared = target.retry.clone().unwrap_or_else(|| ends::Retry::for_ordering(target.ordering));
        if declared.max_attempts > 185 {
            let problem = Problem::plain("E0201", "at most 185 retries").help("write 0 to 185");
            self.report(document, &["targets", name, "retry", "max_attempts"], problem);
        }
        let kind = match &target.aws {
            Some(aws) => self.aws_target(document, name, aws, files),
            None => self.target_kind(document, name, target),
        };
        let Some(kind) = kind else { return };
        let retry = RetryPolicy {
            max_attempts: declared.max_attempts,
            max_age: declared.max_age.0,
            initial: declared.initial.0,
            max: declared.max.0,
            jitter: true,
        };
        if let Some(queue) = &target.dead_letter {
            let chained =
                files.iter().any(|(_, file)| file.targets.get(queue).is_some_and(|t| t.dead_letter.is_some()));
            if chained {
                let problem = Problem::plain(
                    "E0204",
                    format!("target `{queue}` takes dead letters and has a `dead_letter` itself"),
                );
                let help = "remove it there: a dead letter is tried until it is kept";
                return self.report(document, &["targets", name, "dead_letter"], problem.help(help));
            }
            if !self.refers(document, &["targets", name, "dead_letter"], files, "targets", queue) {
                return;
            }
            self.keeps(document, &["targets", name, "dead_letter"], files, queue);
        }
        let dead_letter = target.dead_letter.clone();
        let target = catalog::Target { name: name.to_owned(), kind, retry, ordering, dead_letter };
        self.apply(document, &at, Command::PutTarget(target));
    }

    fn target_kind(&mut self, document: &Document, name: &str, target: &ends::Target) -> Option<TargetKind> {
        if let Some(kafka) = &target.kafka {
            return self.kafka_target(document, name, kafka);
        }
        if let Some(nats) = &target.nats {
            let at = ["targets", name, "nats"];
            let client =
                clients::nats(&nats.servers, nats.auth.as_ref(), nats.tls.as_ref()).map_err(|fault| (fault, "E0201"));
            let subject =
                Subject::parse(&nats.subject).map_err(|error| (Fault::at("subject", error, SUBJECT), "E0205"));
            let client = self.sound(document, &at, client)?;
            let subject = self.sound(document, &at, subject)?;
            let target = catalog::NatsTarget { client: Arc::new(client), subject, jetstream: nats.jetstream };
            return Some(TargetKind::Nats(target));
        }
        if let Some(http) = &target.http {
            let made = clients::http(http).map_err(|fault| (fault, "E0201"));
            let target = self.sound(document, &["targets", name, "http"], made)?;
            return Some(TargetKind::Http(Box::new(target)));
        }
        if let Some(log) = &target.log {
            if !catalog::is_log_group(&log.group) {
                let problem = Problem::plain("E0201", format!("`{}` is not a log group name", log.group));
                let help = "letters, digits, `.`, `-`, `_`, `#` and `/`, as in /aws/events/orders";
                self.report(document, &["targets", name, "log", "group"], problem.help(help));
                return None;
            }
            return Some(TargetKind::Log { group: log.group.clone() });
        }
        Some(match &target.bus {
            Some(bus) => TargetKind::Bus(bus.clone()),
            None => TargetKind::Stdout,
        })
    }

    /// Says so when a target that is to take dead letters cannot.
    fn keeps(&mut self, document: &Document, path: &[&str], files: &[File], queue: &str) {
        let target = files.iter().find_map(|(_, file)| file.targets.get(queue));
        let Some(nats) = target.and_then(|target| target.nats.as_ref()) else { return };
        let (why, help) = if !nats.jetstream {
            ("is core NATS, which keeps nothing,", "set `jetstream: true` there")
        } else if nats.subject.contains('{') {
            // A record that is no event has no values to fill it with.
            ("has a subject with values of the event", "write a subject without `{...}` there, or name another target")
        } else {
            return;
        };
        let message = format!("target `{queue}` {why} and cannot take dead letters");
        self.report(document, path, Problem::plain("E0204", message).help(help));
    }

    fn kafka_target(&mut self, document: &Document, name: &str, kafka: &ends::KafkaTarget) -> Option<TargetKind> {
        let at = ["targets", name, "kafka"];
        self.kafka_client(document, &at, &kafka.properties, kafka.tls.as_ref());
        let key = match kafka.key.as_str() {
            "source" => KafkaKey::Source,
            "none" => KafkaKey::None,
            path => {
                let parsed = JsonPath::parse(path);
                let help = "write `source`, `none` or a path as $.detail.id";
                KafkaKey::Path(self.sound(document, &at, parsed.map_err(|e| (Fault::at("key", e, help), "E0205")))?)
            }
        };
        let create = kafka
            .create
            .as_ref()
            .map(|shape| catalog::TopicShape { partitions: shape.partitions, replication: shape.replication_factor });
        let client = clients::kafka(&kafka.brokers, kafka.sasl.as_ref(), kafka.tls.as_ref(), &kafka.properties);
        let topic = kafka.topic.clone();
        Some(TargetKind::Kafka(catalog::KafkaTarget { client: Arc::new(client), topic, key, create }))
    }

    /// Reports a fault below `at`.
    pub(super) fn sound<T>(
        &mut self,
        document: &Document,
        at: &[&str],
        result: Result<T, (Fault, &'static str)>,
    ) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err((fault, code)) => {
                let path = [at, fault.path.as_slice()].concat();
                self.report(document, &path, Problem::plain(code, fault.message).help(fault.help));
                None
            }
        }
    }

    pub(super) fn kafka_client(
        &mut self,
        document: &Document,
        at: &[&str],
        properties: &BTreeMap<String, Secret>,
        tls: Option<&Tls>,
    ) {
        for name in properties.keys().filter(|name| RESERVED_PROPERTIES.contains(&name.as_str()) || *name == "debug") {
            let problem = Problem::plain("E0206", format!("property `{name}` is not for the configuration to set"));
            let path = [at, &["properties", name]].concat();
            self.report(
                document,
                &path,
                problem.help("remove it: the delivery promise rests on it, or Sluice has a key for it"),
            );
        }
        let assignor = properties.get("partition.assignment.strategy").map(Secret::expose);
        if let Some(assignor) = assignor.filter(|assignor| !ASSIGNORS.contains(assignor)) {
            let message = format!("`{assignor}` is not a way to share partitions out");
            let problem = Problem::plain("E0206", message).help("write range, roundrobin or cooperative-sticky");
            self.report(document, &[at, &["properties", "partition.assignment.strategy"]].concat(), problem);
        }
        if let Some(tls) = tls {
            self.sound(document, at, clients::tls(tls).map_err(|fault| (fault, "E0201")));
        }
    }

    fn retry_topics(&mut self, document: &Document, name: &str, kafka: &ends::KafkaSource) {
        let Some(prefix) = &kafka.retry_topics else { return };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let problem = if prefix.is_empty() || prefix.len() > 150 || !prefix.chars().all(plain) {
            Problem::plain("E0201", "no name that a topic can begin with")
                .help("write 1 to 150 letters, digits, `.`, `_` and `-`")
        } else if kafka.topics.len() != 1 {
            Problem::plain("E0201", "retry topics are for a source of one topic").help("use a source for each topic")
        } else {
            return;
        };
        self.report(document, &["sources", name, "kafka", "retry_topics"], problem);
    }

    pub(super) fn source(&mut self, document: &Document, name: &str, source: &ends::Source, files: &[File]) {
        let kinds = [
            source.kafka.is_some(),
            source.nats.is_some(),
            source.webhook.is_some(),
            source.stdin.is_some(),
            source.file.is_some(),
        ];
        if kinds.iter().filter(|kind| **kind).count() != 1 {
            let problem =
                Problem::plain("E0203", "a source is exactly one of `kafka`, `nats`, `webhook`, `stdin` and `file`");
            self.report(document, &["sources", name], problem.help("keep one of them; use a source each"));
        }
        self.refers(document, &["sources", name, "bus"], files, "buses", &source.bus);
        if let Some(queue) = &source.dead_letter
            && self.refers(document, &["sources", name, "dead_letter"], files, "targets", queue)
            && files.iter().any(|(_, file)| file.targets.get(queue).is_some_and(|target| target.bus.is_some()))
        {
            let problem = Problem::plain("E0204", format!("target `{queue}` is a bus and cannot take dead letters"));
            self.report(document, &["sources", name, "dead_letter"], problem.help("name a topic or a log group"));
        }
        if let Some(queue) = &source.dead_letter {
            self.keeps(document, &["sources", name, "dead_letter"], files, queue);
        }
        if let Some(kafka) = &source.kafka {
            let at = ["sources", name, "kafka"];
            self.kafka_client(document, &at, &kafka.properties, kafka.tls.as_ref());
            if kafka.topics.is_empty() {
                let problem = Problem::plain("E0201", "no topic to read").help("name at least one under `topics`");
                self.report(document, &["sources", name, "kafka", "topics"], problem);
            }
            self.retry_topics(document, name, kafka);
        }
        if let Some(nats) = &source.nats {
            let checked = clients::nats_source(nats).map_err(|fault| (fault, "E0201"));
            self.sound(document, &["sources", name, "nats"], checked);
        }
        if let Some(webhook) = &source.webhook {
            let checked = clients::webhook(webhook).map_err(|fault| (fault, "E0201"));
            self.sound(document, &["sources", name, "webhook"], checked);
            if source.envelope == ends::Envelope::CloudEvents {
                let problem = Problem::plain("E0205", "a webhook's envelope is `raw` or `eventbridge`");
                let help = "CloudEvents are posted to /events/BUS of `server.listen`";
                self.report(document, &["sources", name, "envelope"], problem.help(help));
            }
        }
        if let Err(error) = clients::framing(&source.envelope) {
            let help = "write a text, a path as $.type, or { header: NAME }";
            self.report(document, &["sources", name, "envelope"], Problem::plain("E0205", error).help(help));
        }
    }
}

const SUBJECT: &str = "write tokens joined by dots, with values of the event as in orders.{$.detail.location}";

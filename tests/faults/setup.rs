//! Configurations of the suite: one source, and routes that the remainder of an event's number decides.

use crate::kafka::Kafka;
use std::time::Duration;

/// A rule and its target.
pub struct Route<'a> {
    pub name: &'a str,
    /// Remainders by 10 of the events that it gets.
    pub remainders: &'a [u64],
    /// The target, as YAML between braces.
    pub target: String,
}

/// Whether a route gets an event.
pub fn gets(remainders: &[u64]) -> impl Fn(u64) -> bool + '_ {
    |n| remainders.contains(&(n % 10))
}

/// A configuration with sections `head` in front, `source` as its source `in`, and further targets.
pub fn config(head: &str, source: &str, routes: &[Route<'_>], targets: &str) -> String {
    let mut text = format!("{head}data_dir: data\n");
    if !head.contains("server:") {
        text += "server: { listen: \"off\", admin: \"{admin}\", shutdown: { drain_timeout: 5s } }\n";
    }
    if !source.is_empty() {
        text += &format!("sources:\n  in: {{ {source} }}\n");
    }
    text += "targets:\n";
    for route in routes {
        text += &format!("  {}: {{ {} }}\n", route.name, route.target);
    }
    text += targets;
    text += "rules:\n";
    for route in routes {
        let Route { name, remainders, .. } = route;
        text += &format!("  to-{name}: {{ pattern: {{ detail: {{ m: {remainders:?} }} }}, targets: [{name}] }}\n");
    }
    text
}

/// A Kafka source with further settings.
pub fn reads(servers: &str, topic: &str, more: &str) -> String {
    format!("kafka: {{ brokers: \"{servers}\", topics: [{topic}], group: {topic}{more} }}")
}

/// A Kafka target.
pub fn writes(servers: &str, topic: &str) -> String {
    format!("kafka: {{ brokers: \"{servers}\", topic: {topic} }}")
}

/// Retries that end soon enough for a test, or hardly ever.
pub const STUBBORN: &str = "retry: { initial: 100ms, max: 1s, max_attempts: 185 }";

/// Whether a group has committed all of a topic.
pub fn committed(kafka: &Kafka, topic: &str) -> bool {
    kafka.committed(topic, topic) == kafka.ends(topic)
}

/// Waits until a group has committed all of a topic, or gets no further: what is missing then is for the judge.
pub fn rest(kafka: &Kafka, topic: &str) {
    crate::stage::rest(LONG / 9, || kafka.committed(topic, topic), |offsets| *offsets == kafka.ends(topic));
}

/// Patience with a machine that others use as well.
pub const LONG: Duration = Duration::from_secs(90);

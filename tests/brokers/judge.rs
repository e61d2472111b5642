//! What arrived, against the model.

use crate::kafka::Record;
use crate::model::{self, RULES, TOPICS};
use crate::process::Sluice;
use std::collections::HashMap;

/// What was found.
#[derive(Debug, Default)]
pub struct Verdict {
    pub deliveries: u64,
    pub repeated: u64,
    /// Events of which some delivery came more than once.
    pub repeated_events: u64,
}

/// Compares everything that arrived with what the model expects of the first `events` events. `key` is what a record of
/// an event has as its key; events whose ids are equal modulo `order` must have kept theirs, where it is given.
pub fn judge(
    events: u64,
    read: impl Fn(u64) -> Vec<Record>,
    key: impl Fn(u64) -> Option<String>,
    order: Option<u64>,
    instances: &[&Sluice],
) -> Verdict {
    let mut verdict = Verdict::default();
    let mut repeated_events = std::collections::HashSet::new();
    for topic in 0..TOPICS {
        let mut seen: HashMap<(u64, u64), String> = HashMap::new();
        let mut last: HashMap<(i32, u64), u64> = HashMap::new();
        for record in read(topic) {
            let rule: u64 = record.header("sluice-rule").expect("a rule")["rule-".len()..].parse().expect("a number");
            let payload = String::from_utf8(record.payload.clone()).expect("text");
            let value: serde_json::Value = serde_json::from_str(&payload).expect("JSON");
            let id = value["id"].as_u64().or_else(|| value["detail"]["id"].as_u64()).expect("an id");
            assert_eq!(model::topic(rule), topic, "the rule's own topic");
            assert!(model::matches(rule, id), "rule {rule} does not match event {id}");
            assert_eq!(payload, model::payload(rule, id), "byte for byte");
            assert_eq!(record.key, key(id), "the key");
            assert_eq!(record.header("sluice-bus"), Some("test"));
            let delivery = record.header("sluice-delivery-id").expect("a delivery id").to_owned();
            match seen.insert((rule, id), delivery.clone()) {
                None => {
                    verdict.deliveries += 1;
                    if let Some(order) = order {
                        let before = last.insert((record.partition, id % order), id);
                        assert!(before.is_none_or(|before| before <= id), "first attempts keep their order");
                    }
                }
                Some(first) => {
                    assert_eq!(first, delivery, "a repetition carries the same delivery id");
                    verdict.repeated += 1;
                    repeated_events.insert(id);
                }
            }
        }
        let rules = (0..RULES).filter(|rule| model::topic(*rule) == topic);
        let expected: u64 = rules.map(|rule| model::count(rule, events)).sum();
        assert_eq!(seen.len() as u64, expected, "topic {topic}: nothing lost, nothing too much");
    }
    groups(events, instances, &mut verdict);
    verdict.repeated_events = repeated_events.len() as u64;
    verdict
}

fn groups(events: u64, instances: &[&Sluice], verdict: &mut Verdict) {
    for group in 0..2 {
        let mut seen: HashMap<u64, u64> = HashMap::new();
        for line in instances.iter().flat_map(|sluice| sluice.lines(&format!("logs/test/g{group}"))) {
            // A process that was killed may have left the beginning of a line.
            let Ok(value) = serde_json::from_str::<serde_json::Value>(&line) else { continue };
            let id = value["detail"]["id"].as_u64().expect("an id");
            assert_eq!(line, model::event(id), "byte for byte");
            *seen.entry(id).or_default() += 1;
        }
        let rules: Vec<u64> = (0..RULES).filter(|rule| model::group(*rule) == Some(group)).collect();
        for id in 0..events {
            let expected = rules.iter().filter(|rule| model::matches(**rule, id)).count() as u64;
            let found = seen.get(&id).copied().unwrap_or(0);
            assert!(found >= expected && (expected > 0 || found == 0), "log group {group}, event {id}");
            verdict.deliveries += expected;
            verdict.repeated += found - expected;
        }
    }
}

//! Counters of the running process as one document: what `sluice top` and `sluice rules stats` show.

use super::Admin;
use crate::metrics::{Metrics, Usage, labels};
use crate::time;
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::Arc;

/// All of it, counted since the process began.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stats {
    /// Counts published plans.
    pub generation: u64,
    /// Milliseconds since the epoch.
    pub time_millis: i64,
    /// Resident memory.
    pub resident_bytes: f64,
    /// Processor time.
    pub cpu_seconds: f64,
    /// Sources by name.
    pub sources: Vec<SourceStats>,
    /// Buses by name.
    pub buses: Vec<BusStats>,
    /// Rules by bus and name.
    pub rules: Vec<RuleStats>,
    /// Targets by name.
    pub targets: Vec<TargetStats>,
}

/// A source.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SourceStats {
    /// Its name.
    pub name: String,
    /// Records read.
    pub events: u64,
    /// Records that were no valid events.
    pub rejected: u64,
    /// Read and not settled.
    pub in_flight: u64,
    /// Not yet read, as far as known.
    pub lag: u64,
}

/// A bus.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BusStats {
    /// Its name.
    pub name: String,
    /// Events that some rule matched.
    pub matched: u64,
    /// Events that none did.
    pub unmatched: u64,
}

/// A rule.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RuleStats {
    /// Its bus.
    pub bus: String,
    /// Its name.
    pub name: String,
    /// Events matched while active, and while it only counted. `None` beyond `metrics.max_rules`.
    pub matches: Option<u64>,
}

/// A target.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TargetStats {
    /// Its name.
    pub name: String,
    /// Deliveries it took.
    pub delivered: u64,
    /// Deliveries that ended in a dead-letter queue.
    pub dead_lettered: u64,
    /// Attempts that failed and were repeated.
    pub retries: u64,
    /// Deliveries open.
    pub in_flight: u64,
    /// Milliseconds from reading an event to its acknowledgement, half of them and 99 of 100.
    pub age_p50_millis: f64,
    /// See above.
    pub age_p99_millis: f64,
}

/// `GET /api/v1/stats`
pub async fn stats(State(admin): State<Arc<Admin>>) -> Json<Stats> {
    let (view, metrics) = (admin.view.load(), &admin.metrics);
    let usage = Usage::read();
    let sums = Sums::new(&metrics.render());
    Json(Stats {
        generation: view.generation,
        time_millis: time::wall_millis(),
        resident_bytes: usage.resident_bytes,
        cpu_seconds: usage.cpu_seconds,
        sources: admin.sources.iter().map(|name| source(&sums, name)).collect(),
        buses: view.catalog.buses().map(|known| bus(&sums, &known.name)).collect(),
        rules: view.catalog.rules().map(|rule| rule_stats(&sums, &rule.bus, &rule.name)).collect(),
        targets: view.catalog.targets().map(|known| target(&sums, metrics, &known.name)).collect(),
    })
}

/// The exported text, added up by the labels that are asked for.
struct Sums(HashMap<String, f64>);

impl Sums {
    fn new(text: &str) -> Self {
        let mut sums = HashMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let (Some((name, labels)), Ok(value)) = (series.split_once('{'), value.parse::<f64>()) else { continue };
            let pairs: HashMap<&str, &str> = labels
                .trim_end_matches('}')
                .split("\",")
                .filter_map(|pair| pair.trim_end_matches('"').split_once("=\""))
                .collect();
            for keys in [&["source"][..], &["target"], &["target", "outcome"], &["bus", "outcome"], &["bus", "rule"]] {
                let values: Option<Vec<&str>> = keys.iter().map(|key| pairs.get(key).copied()).collect();
                if let Some(values) = values {
                    *sums.entry(key(name, keys, &values)).or_default() += value;
                }
            }
        }
        Self(sums)
    }

    fn get(&self, name: &str, keys: &[&str], values: &[&str]) -> Option<f64> {
        self.0.get(&key(name, keys, values)).copied()
    }

    fn count(&self, name: &str, keys: &[&str], values: &[&str]) -> u64 {
        self.get(name, keys, values).unwrap_or(0.0).max(0.0) as u64
    }
}

fn key(name: &str, keys: &[&str], values: &[&str]) -> String {
    format!("{name} {} {}", keys.join(" "), values.join(" "))
}

fn source(sums: &Sums, name: &str) -> SourceStats {
    let get = |metric| sums.count(metric, &["source"], &[name]);
    SourceStats {
        name: name.to_owned(),
        events: get("sluice_source_received_events_total"),
        rejected: get("sluice_source_rejected_events_total"),
        in_flight: get("sluice_source_in_flight_events"),
        lag: get("sluice_source_lag_events"),
    }
}

fn bus(sums: &Sums, name: &str) -> BusStats {
    let get = |outcome| sums.count("sluice_bus_events_total", &["bus", "outcome"], &[name, outcome]);
    BusStats { name: name.to_owned(), matched: get("matched"), unmatched: get("unmatched") }
}

fn rule_stats(sums: &Sums, bus: &str, name: &str) -> RuleStats {
    let get = |rule| sums.get("sluice_rule_matches_total", &["bus", "rule"], &[bus, rule]);
    // A rule without a counter of its own is counted among others, or has never been active.
    let matches = match (get(name), get("_other")) {
        (Some(count), _) => Some(count as u64),
        (None, None) => Some(0),
        (None, Some(_)) => None,
    };
    RuleStats { bus: bus.to_owned(), name: name.to_owned(), matches }
}

fn target(sums: &Sums, metrics: &Metrics, name: &str) -> TargetStats {
    let outcome = |outcome| sums.count("sluice_target_deliveries_total", &["target", "outcome"], &[name, outcome]);
    let get = |metric| sums.count(metric, &["target"], &[name]);
    let age = metrics.families.event_age.get(&labels([("target", name)]));
    let quantile = |q| age.as_ref().map_or(0.0, |age| age.quantile(q).as_secs_f64() * 1000.0);
    TargetStats {
        name: name.to_owned(),
        delivered: outcome("delivered"),
        dead_lettered: outcome("dead_lettered"),
        retries: get("sluice_target_retries_total"),
        in_flight: get("sluice_target_in_flight"),
        age_p50_millis: quantile(0.5),
        age_p99_millis: quantile(0.99),
    }
}

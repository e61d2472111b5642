//! The main job: 100,000 events of twelve shapes through 200 rules to eight topics and two log groups.

use crate::judge::{Verdict, judge};
use crate::kafka::Kafka;
use crate::model::{self, PARTITIONS, RULES, TOPICS};
use crate::process::Sluice;
use std::time::{Duration, Instant};

const EVENTS: u64 = 100_000;

fn prepare(kafka: &Kafka, prefix: &str) {
    create(kafka, prefix);
    fill(kafka, prefix, 0..EVENTS);
}

fn create(kafka: &Kafka, prefix: &str) {
    let names: Vec<String> =
        [format!("{prefix}-in")].into_iter().chain((0..TOPICS).map(|n| format!("{prefix}-out{n}"))).collect();
    let topics: Vec<_> = names.iter().map(|name| (name.as_str(), PARTITIONS as i32, &[][..])).collect();
    kafka.topics(&topics);
}

fn fill(kafka: &Kafka, prefix: &str, ids: std::ops::Range<u64>) {
    let sender = kafka.producer();
    for id in ids {
        let partition = (id % PARTITIONS) as i32;
        let key = format!("k{}", id % 97);
        sender.send(&format!("{prefix}-in"), Some(partition), &key, model::event(id).as_bytes(), &[]);
    }
    sender.flush();
}

fn committed_to_the_end(kafka: &Kafka, prefix: &str) -> bool {
    let topic = format!("{prefix}-in");
    kafka.committed(prefix, &topic) == kafka.ends(&topic)
}

/// What arrived in a test's topics.
fn verdict(kafka: &Kafka, prefix: &str, instances: &[&Sluice]) -> Verdict {
    let read = |topic| kafka.read(&format!("{prefix}-out{topic}"));
    judge(EVENTS, read, |id| Some(format!("k{}", id % 97)), Some(PARTITIONS), instances)
}

fn config(kafka: &Kafka, prefix: &str, extra: &str) -> String {
    let servers = &kafka.servers;
    let source = format!("kafka: {{ brokers: \"{servers}\", topics: [{prefix}-in], group: {prefix}, {extra} }}");
    model::config(&source, |n| format!("{{ kafka: {{ brokers: \"{servers}\", topic: {prefix}-out{n} }} }}"))
}

/// Every delivery is there, once, in order, and offsets are committed exactly up to the end.
pub fn all_arrives(kafka: &Kafka) {
    prepare(kafka, "all");
    let sluice = Sluice::new(&config(kafka, "all", ""));
    let begin = Instant::now();
    let mut running = sluice.start(&[]);
    running.until("all offsets are committed", Duration::from_secs(90), |_| committed_to_the_end(kafka, "all"));
    let seconds = begin.elapsed().as_secs_f64();
    assert_eq!(running.get("/readyz").expect("an answer").0, "HTTP/1.1 200 OK");
    assert_eq!(running.metric("sluice_bus_events_total", "test"), EVENTS as f64);
    running.until_nothing_waits(Duration::from_secs(60));
    running.until("the lag of every partition is known, and none", Duration::from_secs(20), |running| {
        let body = running.get("/metrics").map(|(_, body)| body).unwrap_or_default();
        let lags = body.lines().filter(|line| line.starts_with("sluice_source_lag_events{"));
        lags.filter(|line| line.ends_with(" 0")).count() as u64 == PARTITIONS
    });
    running.stop();
    let found = verdict(kafka, "all", &[&sluice]);
    assert_eq!(found.repeated, 0, "no fault, no repetition");
    println!(
        "{{\"scenario\":\"stream\",\"events\":{EVENTS},\"rules\":{RULES},\"deliveries\":{},\"lost\":0,\"repeated\":0,\"seconds\":{seconds:.1}}}",
        found.deliveries
    );
}

/// `kill -9` in mid-stream and a restart, twice: nothing lost, repetitions bounded and known by their ids.
pub fn nothing_is_lost_in_a_crash(kafka: &Kafka) {
    prepare(kafka, "crash");
    let sluice = Sluice::new(&config(kafka, "crash", "instance_id: crash-0"));
    let produced = || (0..TOPICS).map(|n| kafka.ends(&format!("crash-out{n}")).iter().sum::<i64>()).sum::<i64>();
    let expected = model::deliveries(EVENTS);
    let begin = Instant::now();
    for crash in 1..=2u64 {
        let mut running = sluice.start(&[]);
        let mark = (expected * crash / 4) as i64;
        running.until("the stream is in full flow", Duration::from_secs(60), |_| produced() > mark);
        running.kill();
        assert!(!committed_to_the_end(kafka, "crash"), "the crash came in mid-stream");
    }
    let mut running = sluice.start(&[]);
    running.until("all offsets are committed", Duration::from_secs(90), |_| committed_to_the_end(kafka, "crash"));
    running.until_nothing_waits(Duration::from_secs(60));
    running.stop();
    let seconds = begin.elapsed().as_secs_f64();
    let found = verdict(kafka, "crash", &[&sluice]);
    // In flight, and what was settled between two commits, at three times the average rate: starting takes time too.
    let bound = 2.0 * (4096.0 + 2048.0 + 1.5 * 0.25 * 3.0 * EVENTS as f64 / seconds);
    assert!((found.repeated_events as f64) < bound, "{} repeated events, bound {bound}", found.repeated_events);
    println!(
        "{{\"scenario\":\"crash\",\"events\":{EVENTS},\"crashes\":2,\"deliveries\":{},\"lost\":0,\"repeated\":{},\"repeated_events\":{},\"bound\":{bound:.0}}}",
        found.deliveries, found.repeated, found.repeated_events
    );
}

/// A second member joins in mid-stream, then the first leaves: nothing lost, and little twice.
pub fn nothing_is_lost_in_a_rebalance(kafka: &Kafka) {
    create(kafka, "share");
    fill(kafka, "share", 0..EVENTS / 2);
    // What waits in the log of one member is not tried before what the other one reads.
    let text =
        config(kafka, "share", "").replace("in_flight_events: 4096", "in_flight_events: 4096, retry_log_bytes: 0");
    let instance = || Sluice::new(&text);
    let produced = || (0..TOPICS).map(|n| kafka.ends(&format!("share-out{n}")).iter().sum::<i64>()).sum::<i64>();
    let expected = model::deliveries(EVENTS) as i64;
    let (one, two) = (instance(), instance());
    let mut first = one.start(&[]);
    first.until("the stream is in full flow", Duration::from_secs(60), |_| produced() > expected / 10);
    let mut second = two.start(&[]);
    second.until("the second member has partitions", Duration::from_secs(60), |second| {
        second.get("/readyz").is_some_and(|(status, _)| status.contains("200"))
    });
    // The rest comes now, so that both have work whatever the machine's speed.
    fill(kafka, "share", EVENTS / 2..EVENTS);
    second.until("the second member works too", Duration::from_secs(60), |second| {
        second.metric("sluice_bus_events_total", "test") > 0.0
    });
    assert!(!committed_to_the_end(kafka, "share"), "the rebalance came in mid-stream");
    let rebalances = first.metric("sluice_source_rebalances_total", "in");
    first.stop();
    second.until("all offsets are committed", Duration::from_secs(90), |_| committed_to_the_end(kafka, "share"));
    second.stop();
    let found = verdict(kafka, "share", &[&one, &two]);
    // Given, taken away, given again.
    assert!(rebalances >= 3.0 && found.repeated_events < 4096, "{rebalances} rebalances, {found:?}");
    println!(
        "{{\"scenario\":\"rebalance\",\"events\":{EVENTS},\"rebalances\":{rebalances},\"deliveries\":{},\"lost\":0,\"repeated\":{},\"repeated_events\":{}}}",
        found.deliveries, found.repeated, found.repeated_events
    );
}

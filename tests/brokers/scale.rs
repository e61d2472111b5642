//! Several instances share the work: every event is delivered, rates add up, one is killed and one is added meanwhile.

use crate::kafka::Kafka;
use crate::model::event;
use crate::nats::Nats;
use crate::process::{Running, Sluice};
use std::collections::HashMap;
use std::time::{Duration, Instant};

const PARTITIONS: u64 = 12;
/// Until all work, until one is killed, and all in all.
const FIRST: u64 = 30_000;
const SECOND: u64 = 180_000;
const EVENTS: u64 = 200_000;

fn config(source: &str, rules: &str) -> String {
    format!(
        "data_dir: data\nworkers: 1\nserver: {{ listen: \"off\", admin: \"{{admin}}\" }}\nlimits: {{ in_flight_events: 4096 }}\n\
         sources:\n  in:\n    {source}\ntargets: {{ all: {{ log: {{ group: all }} }} }}\nrules:\n{rules}"
    )
}

/// Every event into a log group.
const ALL: &str = "  all: { pattern: { source: [{ prefix: test. }] }, targets: [all] }\n";

/// Rules that each event is tried on and none matches, because nothing in a value names what it is not: matching is nearly
/// all of the work.
fn hard() -> String {
    let rule = |n| {
        format!(
            "  r{n}: {{ pattern: {{ detail: {{ ip: [{{ anything-but: {{ wildcard: [\"zz{n}*\", \"*\"] }} }}] }} }}, targets: [all] }}\n"
        )
    };
    (0..1000).map(rule).collect()
}

/// Runs three instances at once, kills one in mid-stream, adds another, and returns when `done` says so; then every event
/// must be in some instance's log.
fn share(name: &str, config: &str, feed: impl Fn(std::ops::Range<u64>) + Sync, done: impl Fn() -> bool) {
    let places: Vec<Sluice> = (0..4).map(|_| Sluice::new(config)).collect();
    let ready = |it: &Running| it.get("/readyz").is_some_and(|(status, _)| status.contains("200"));
    let work = |it: &Running| it.metric("sluice_source_received_events_total", "in");
    let mut running: Vec<Running> = places[..3].iter().map(|place| place.start(&[])).collect();
    for instance in &mut running {
        instance.until("it takes part", Duration::from_secs(60), ready);
    }
    let begin = Instant::now();
    feed(0..FIRST);
    for instance in &mut running {
        instance.until("it works", Duration::from_secs(60), |it| work(it) > 500.0);
    }
    std::thread::scope(|scope| {
        let feeder = scope.spawn(|| feed(FIRST..SECOND));
        let read = |running: &[Running]| running.iter().map(work).sum::<f64>();
        let mut first = running.remove(0);
        first.until("the second part flows", Duration::from_secs(60), |first| {
            work(first) + read(&running) > (FIRST + SECOND) as f64 / 2.0
        });
        assert!(work(&first) + read(&running) < SECOND as f64, "the kill comes in mid-stream");
        first.kill();
        feeder.join().expect("a feeder");
    });
    let mut fourth = places[3].start(&[]);
    fourth.until("the new one takes part", Duration::from_secs(60), ready);
    feed(SECOND..EVENTS);
    fourth.until("the new one works", Duration::from_secs(60), |it| work(it) > 0.0);
    running.push(fourth);
    running[0].until("everything is settled", Duration::from_secs(120), |_| done());
    let seconds = begin.elapsed().as_secs_f64();
    running.into_iter().for_each(Running::stop);
    let mut seen: HashMap<u64, u64> = HashMap::new();
    for line in places.iter().flat_map(|sluice| sluice.lines("logs/all")) {
        // The one that was killed may have left the beginning of a line.
        let Ok(value) = serde_json::from_str::<serde_json::Value>(&line) else { continue };
        *seen.entry(value["detail"]["id"].as_u64().expect("an id")).or_default() += 1;
    }
    let lost = (0..EVENTS).filter(|id| !seen.contains_key(id)).count();
    let repeated: u64 = seen.values().map(|count| count - 1).sum();
    assert_eq!(lost, 0, "every event is delivered");
    println!(
        "{{\"scenario\":\"{name}\",\"events\":{EVENTS},\"instances\":4,\"killed\":1,\"lost\":{lost},\"repeated\":{repeated},\"seconds\":{seconds:.1}}}"
    );
}

/// What instances do together while a backlog lasts.
struct Rate {
    instances: usize,
    /// A second.
    events: f64,
    /// Processor cores used.
    cores: f64,
}

/// Events that wait at the beginning.
const BACKLOG: u64 = 200_000;

fn rate(instances: usize, config: &str) -> Rate {
    const WINDOW: Duration = Duration::from_secs(4);
    let places: Vec<Sluice> = (0..instances).map(|_| Sluice::new(config)).collect();
    let mut running: Vec<Running> = places.iter().map(|sluice| sluice.start(&[])).collect();
    for instance in &mut running {
        instance.until("it works", Duration::from_secs(60), |it| it.metric("sluice_bus_events_total", "") > 500.0);
    }
    let measure = || {
        let sum = |metric| running.iter().map(|it| it.metric(metric, "")).sum::<f64>();
        (Instant::now(), sum("sluice_bus_events_total"), sum("sluice_process_cpu_seconds"))
    };
    let (begin, events, cpu) = measure();
    // A measurement of so long, not a wait for anything.
    std::thread::sleep(WINDOW);
    let (end, events_after, cpu_after) = measure();
    assert!(events_after < BACKLOG as f64, "the backlog lasts longer than the measurement");
    let seconds = end.duration_since(begin).as_secs_f64();
    Rate { instances, events: (events_after - events) / seconds, cores: (cpu_after - cpu) / seconds }
}

/// Each instance keeps a core busy by itself, as far as there are cores, and an event costs about what it costs alone: so
/// their rates add up. Cores of a shared machine differ in speed from one second to the next, so that the rates themselves
/// are held to less.
fn adds_up(name: &str, rates: &[Rate]) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let alone = &rates[0];
    for rate in rates {
        println!(
            "{{\"scenario\":\"{name}\",\"instances\":{},\"events_per_second\":{:.0},\"times_one\":{:.2},\"cores\":{:.2},\"of\":{cores},\"cpu_seconds_per_million\":{:.1}}}",
            rate.instances,
            rate.events,
            rate.events / alone.events,
            rate.cores,
            rate.cores * 1e6 / rate.events
        );
        let busy = 0.7 * rate.instances.min(cores) as f64 * alone.cores;
        assert!(rate.cores >= busy, "{} instances wait for each other", rate.instances);
        assert!(rate.events >= 1.1 * alone.events || rate.instances == 1 || cores == 1, "more do no more");
        let dearer = (rate.cores / rate.events) / (alone.cores / alone.events);
        assert!(dearer <= 2.0, "an event costs {dearer:.1} times as much among {}", rate.instances);
    }
}

pub fn matching(kafka: &Kafka, nats: &Nats) {
    kafka.topics(&[("adds-in", PARTITIONS as i32, &[])]);
    let sender = kafka.producer();
    for id in 0..BACKLOG {
        sender.send("adds-in", Some((id % PARTITIONS) as i32), "k", event(id).as_bytes(), &[]);
    }
    sender.flush();
    let of_group = |count: usize| {
        let source = format!("kafka: {{ brokers: \"{}\", topics: [adds-in], group: adds-{count} }}", kafka.servers);
        rate(count, &config(&source, &hard()))
    };
    adds_up("adds_up_kafka", &[1, 2, 3].map(of_group));
    nats.stream("adds-in", "adds.in.*", |_| {});
    nats.publish((0..BACKLOG).map(|id| (format!("adds.in.{}", id % 8), event(id))));
    let of_consumer = |count: usize| {
        let source = format!("nats: {{ servers: \"{}\", stream: adds-in, durable: adds-{count} }}", nats.url);
        rate(count, &config(&source, &hard()))
    };
    adds_up("adds_up_jetstream", &[1, 2, 3].map(of_consumer));
}

pub fn partitions(kafka: &Kafka) {
    kafka.topics(&[("scale-in", PARTITIONS as i32, &[])]);
    let sender = kafka.producer();
    let feed = |ids: std::ops::Range<u64>| {
        for id in ids {
            sender.send("scale-in", Some((id % PARTITIONS) as i32), "k", event(id).as_bytes(), &[]);
        }
        sender.flush();
    };
    let source = format!("kafka: {{ brokers: \"{}\", topics: [scale-in], group: scale }}", kafka.servers);
    let done = || kafka.committed("scale", "scale-in") == kafka.ends("scale-in");
    share("scale_kafka", &config(&source, ALL), feed, done);
}

pub fn consumer(nats: &Nats) {
    nats.stream("scale-in", "scale.in.*", |_| {});
    let feed = |ids: std::ops::Range<u64>| {
        nats.publish(ids.map(|id| (format!("scale.in.{}", id % 8), event(id))));
    };
    let source = format!("nats: {{ servers: \"{}\", stream: scale-in, durable: scale, ack_wait: 3s }}", nats.url);
    share("scale_jetstream", &config(&source, ALL), feed, || nats.consumed("scale-in", "scale"));
}

//! Several instances share the work: every event is delivered, rates add up, one is killed and one is added meanwhile.

use crate::kafka::Kafka;
use crate::model::event;
use crate::nats::Nats;
use crate::process::{Running, Sluice};
use std::collections::HashMap;
use std::time::{Duration, Instant};

const PARTITIONS: u64 = 12;
const EVENTS: u64 = 60_000;

/// A rule that hardly delivers, so that matching is the work: one event in a hundred, and a log group for all.
fn config(source: &str) -> String {
    format!(
        "data_dir: data\nworkers: 1\nserver: {{ listen: \"off\", admin: \"{{admin}}\" }}\nlimits: {{ in_flight_events: 4096 }}\n\
         sources:\n  in:\n    {source}\ntargets: {{ all: {{ log: {{ group: all }} }} }}\n\
         rules: {{ all: {{ pattern: {{ source: [{{ prefix: test. }}] }}, targets: [all] }} }}\n"
    )
}

/// Runs two instances, kills one in mid-stream, adds another, and returns when `done` says so; then every event must be
/// in some instance's log.
fn share(name: &str, config: &str, feed: impl Fn(std::ops::Range<u64>), done: impl Fn() -> bool) {
    let instances: Vec<Sluice> = (0..3).map(|_| Sluice::new(config)).collect();
    let ready = |it: &Running| it.get("/readyz").is_some_and(|(status, _)| status.contains("200"));
    let work = |it: &Running| it.metric("sluice_source_received_events_total", "in");
    let mut one = instances[0].start(&[]);
    let mut two = instances[1].start(&[]);
    for instance in [&mut one, &mut two] {
        instance.until("it takes part", Duration::from_secs(60), ready);
    }
    let begin = Instant::now();
    feed(0..EVENTS / 2);
    two.until("both work", Duration::from_secs(60), |two| work(&one) > 500.0 && work(two) > 500.0);
    one.kill();
    let mut three = instances[2].start(&[]);
    three.until("the new one takes part", Duration::from_secs(60), ready);
    feed(EVENTS / 2..EVENTS);
    three.until("the new one works", Duration::from_secs(60), |three| work(three) > 0.0);
    two.until("everything is settled", Duration::from_secs(120), |_| done());
    let seconds = begin.elapsed().as_secs_f64();
    let shares = [work(&two), work(&three)];
    two.stop();
    three.stop();
    let mut seen: HashMap<u64, u64> = HashMap::new();
    for line in instances.iter().flat_map(|sluice| sluice.lines("logs/all")) {
        // The one that was killed may have left the beginning of a line.
        let Ok(value) = serde_json::from_str::<serde_json::Value>(&line) else { continue };
        *seen.entry(value["detail"]["id"].as_u64().expect("an id")).or_default() += 1;
    }
    let lost = (0..EVENTS).filter(|id| !seen.contains_key(id)).count();
    let repeated: u64 = seen.values().map(|count| count - 1).sum();
    assert_eq!(lost, 0, "every event is delivered");
    assert!(shares.iter().all(|&share| share > 0.0), "{shares:?}");
    println!(
        "{{\"scenario\":\"{name}\",\"events\":{EVENTS},\"instances\":3,\"killed\":1,\"lost\":{lost},\"repeated\":{repeated},\"seconds\":{seconds:.1}}}"
    );
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
    share("scale_kafka", &config(&source), feed, done);
}

pub fn consumer(nats: &Nats) {
    nats.stream("scale-in", "scale.in.*", |_| {});
    let feed = |ids: std::ops::Range<u64>| {
        nats.publish(ids.map(|id| (format!("scale.in.{}", id % 8), event(id))));
    };
    let source = format!("nats: {{ servers: \"{}\", stream: scale-in, durable: scale, ack_wait: 3s }}", nats.url);
    share("scale_jetstream", &config(&source), feed, || nats.consumed("scale-in", "scale"));
}

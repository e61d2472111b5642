//! JetStream: the same job as on Kafka, and from one to the other.

use crate::judge::{Verdict, judge};
use crate::kafka::Kafka;
use crate::model::{self, TOPICS};
use crate::nats::Nats;
use crate::process::Sluice;
use crate::receiver::{Act, Receiver};
use std::time::{Duration, Instant};

const EVENTS: u64 = 100_000;
/// Events of the shorter runs.
const FEWER: u64 = 20_000;
/// Subjects that events come on.
const SUBJECTS: u64 = 8;

fn subject(prefix: &str, id: u64) -> String {
    format!("{prefix}.in.{}", id % SUBJECTS)
}

fn streams(nats: &Nats, prefix: &str, events: u64) {
    nats.stream(&format!("{prefix}-in"), &format!("{prefix}.in.*"), |_| {});
    nats.stream(&format!("{prefix}-out"), &format!("{prefix}.out.*"), |_| {});
    nats.publish((0..events).map(|id| (subject(prefix, id), model::event(id))));
}

fn source(nats: &Nats, prefix: &str, extra: &str) -> String {
    format!("nats: {{ servers: \"{}\", stream: {prefix}-in, durable: sluice, {extra} }}", nats.url)
}

fn target(nats: &Nats, prefix: &str, n: u64) -> String {
    format!("{{ nats: {{ servers: \"{}\", subject: {prefix}.out.{n}, jetstream: true }} }}", nats.url)
}

/// With retry logs the source of slow deliveries would be through with them before the crash.
fn without_logs(config: &str) -> String {
    config.replace("in_flight_events: 4096", "in_flight_events: 4096, retry_log_bytes: 0")
}

fn config(nats: &Nats, prefix: &str, extra: &str) -> String {
    without_logs(&model::config(&source(nats, prefix, extra), |n| target(nats, prefix, n)))
}

fn found(nats: &Nats, prefix: &str, events: u64, order: Option<u64>, instances: &[&Sluice]) -> Verdict {
    let read = |topic| {
        let mut records = nats.read(&format!("{prefix}-out"), &format!("{prefix}.out.{topic}"));
        for record in &mut records {
            assert_eq!(record.header("Nats-Msg-Id"), record.header("sluice-delivery-id"));
            record.key = None;
        }
        records
    };
    judge(events, read, |_| None, order, instances)
}

/// 100,000 events through 200 rules with a `kill -9` in mid-stream. The stream itself drops repeated deliveries, by
/// their ids; log groups hold them.
pub fn nothing_is_lost_in_a_crash(nats: &Nats) {
    streams(nats, "js", EVENTS);
    let sluice = Sluice::new(&config(nats, "js", "ack_wait: 2s"));
    let expected = model::deliveries(EVENTS);
    let begin = Instant::now();
    let mut running = sluice.start(&[]);
    running.until("the stream is in full flow", Duration::from_secs(60), |_| nats.count("js-out") > expected / 3);
    running.kill();
    assert!(!nats.consumed("js-in", "sluice"), "the crash came in mid-stream");
    let mut running = sluice.start(&[]);
    running.until("everything is acknowledged", Duration::from_secs(120), |_| nats.consumed("js-in", "sluice"));
    running.until_nothing_waits(Duration::from_secs(60));
    let seconds = begin.elapsed().as_secs_f64();
    let redelivered = running.metric("sluice_source_redelivered_events_total", "in");
    assert_eq!(running.get("/readyz").expect("an answer").0, "HTTP/1.1 200 OK");
    running.until("the lag is known, and none", Duration::from_secs(20), |running| {
        let body = running.get("/metrics").map(|(_, body)| body).unwrap_or_default();
        body.lines().any(|line| line.starts_with("sluice_source_lag_events{") && line.ends_with(" 0"))
    });
    running.stop();
    let consumer = nats.consumer("js-in", "sluice");
    assert!(consumer.max_deliver == -1 && consumer.max_ack_pending == -1, "{consumer:?}");
    let verdict = found(nats, "js", EVENTS, None, &[&sluice]);
    println!(
        "{{\"scenario\":\"jetstream\",\"events\":{EVENTS},\"crashes\":1,\"deliveries\":{},\"lost\":0,\"repeated\":{},\"redelivered\":{redelivered},\"seconds\":{seconds:.1}}}",
        verdict.deliveries, verdict.repeated
    );
}

/// An open delivery is not given to anybody else, however long it takes.
pub fn slow_targets_keep_their_events(nats: &Nats) {
    nats.stream("slow-in", "slow.in", |_| {});
    let receiver = Receiver::start(|_, _| {
        std::thread::sleep(Duration::from_secs(5));
        Act::ok()
    });
    let config = format!(
        "data_dir: data\nlimits: {{ retry_log_bytes: 0 }}\nserver: {{ listen: \"off\", admin: \"{{admin}}\" }}\nsources:\n  in:\n    {}\n\
         targets: {{ slow: {{ http: {{ url: \"{}\", timeout: 30s }} }} }}\nrules: {{ all: {{ pattern: {{ source: [{{ exists: true }}] }}, targets: [slow] }} }}\n",
        source(nats, "slow", "ack_wait: 2s"),
        receiver.url
    );
    let sluice = Sluice::new(&config);
    let mut running = sluice.start(&[]);
    nats.publish((0..3).map(|id| ("slow.in".to_owned(), model::event(id))));
    running.until("all is acknowledged", Duration::from_secs(30), |_| nats.consumed("slow-in", "sluice"));
    assert_eq!(running.metric("sluice_source_redelivered_events_total", "in"), 0.0);
    running.stop();
    assert_eq!(receiver.requests().len(), 3, "each event once");
}

/// From one broker to the other and back, a crash in mid-stream each.
pub fn between_brokers(kafka: &Kafka, nats: &Nats) {
    let topics: Vec<String> = (0..TOPICS).map(|n| format!("back-out{n}")).chain(["forth-in".to_owned()]).collect();
    kafka.topics(&topics.iter().map(|name| (name.as_str(), 4, &[][..])).collect::<Vec<_>>());
    nats.stream("forth-out", "forth.out.*", |_| {});
    let sender = kafka.producer();
    for id in 0..EVENTS {
        sender.send("forth-in", Some((id % 4) as i32), &format!("k{id}"), model::event(id).as_bytes(), &[]);
    }
    sender.flush();
    let from = format!("kafka: {{ brokers: \"{}\", topics: [forth-in], group: forth }}", kafka.servers);
    let forth = Sluice::new(&without_logs(&model::config(&from, |n| target(nats, "forth", n))));
    let expected = model::deliveries(EVENTS);
    let mut running = forth.start(&[]);
    running.until("it is in full flow", Duration::from_secs(60), |_| nats.count("forth-out") > expected / 3);
    running.kill();
    assert!(nats.count("forth-out") < expected / 2, "the crash came in mid-stream");
    let mut running = forth.start(&[]);
    running.until("all offsets are committed", Duration::from_secs(120), |_| {
        kafka.committed("forth", "forth-in") == kafka.ends("forth-in")
    });
    running.until_nothing_waits(Duration::from_secs(60));
    running.stop();
    let read = |topic| {
        let mut records = nats.read("forth-out", &format!("forth.out.{topic}"));
        records.iter_mut().for_each(|record| record.key = None);
        records
    };
    // The stream itself drops what it has seen; the log group does not.
    let forth = judge(EVENTS, read, |_| None, None, &[&forth]);

    nats.stream("back-in", "back.in.*", |_| {});
    nats.publish((0..EVENTS).map(|id| (subject("back", id), model::event(id))));
    let to = |n| format!("{{ kafka: {{ brokers: \"{}\", topic: back-out{n} }} }}", kafka.servers);
    let back = Sluice::new(&without_logs(&model::config(&source(nats, "back", ""), to)));
    let mut running = back.start(&[]);
    let done = || (0..TOPICS).flat_map(|n| kafka.ends(&format!("back-out{n}"))).sum::<i64>() as u64;
    running.until("it is in full flow", Duration::from_secs(60), |_| done() > expected / 3);
    running.kill();
    assert!(!nats.consumed("back-in", "sluice"), "the crash came in mid-stream");
    let mut running = back.start(&[]);
    running.until("everything is acknowledged", Duration::from_secs(120), |_| nats.consumed("back-in", "sluice"));
    running.until_nothing_waits(Duration::from_secs(60));
    running.stop();
    let read = |topic| kafka.read(&format!("back-out{topic}"));
    let back = judge(EVENTS, read, |id| Some(subject("back", id)), None, &[&back]);
    for (scenario, verdict) in [("kafka_to_nats", forth), ("nats_to_kafka", back)] {
        println!(
            "{{\"scenario\":\"{scenario}\",\"events\":{EVENTS},\"crashes\":1,\"deliveries\":{},\"lost\":0,\"repeated\":{}}}",
            verdict.deliveries, verdict.repeated
        );
    }
}

/// Core NATS: a queue group shares the events; subjects come from the events, encoded.
pub fn core(nats: &Nats) {
    let config = format!(
        "data_dir: data\nserver: {{ listen: \"off\", admin: \"{{admin}}\" }}\nsources:\n  in: {{ nats: {{ servers: \"{url}\", subject: \"core.in.>\", queue: sluice }} }}\n\
         targets:\n  out: {{ nats: {{ servers: \"{url}\", subject: \"core.out.{{$.detail.to}}\" }} }}\n\
         rules: {{ all: {{ pattern: {{ source: [t] }}, targets: [out] }} }}\n",
        url = nats.url
    );
    let instances = [Sluice::new(&config), Sluice::new(&config)];
    let mut running: Vec<_> = instances.iter().map(|sluice| sluice.start(&[])).collect();
    for instance in &mut running {
        instance.until("it listens", Duration::from_secs(20), |it| {
            it.get("/readyz").is_some_and(|(s, _)| s.contains("200"))
        });
    }
    let mut out = nats.subscribe("core.out.*");
    let names = ["eu", "a.b", "a b", "*", ">", "%", "ü", "$JS", "c\\r\\nd"];
    let event = |to: &str| format!("{{\"source\":\"t\",\"detail\":{{\"to\":\"{to}\"}}}}");
    nats.publish_core("core.in.x", (0..90).map(|n| event(names[n % names.len()])));
    let mut subjects: Vec<String> = (0..90).map(|_| out.next().expect("a message").0).collect();
    subjects.sort();
    subjects.dedup();
    let mut expected =
        ["eu", "a%2Eb", "a%20b", "%2A", "%3E", "%25", "%C3%BC", "$JS", "c%0D%0Ad"].map(|t| format!("core.out.{t}"));
    expected.sort();
    assert_eq!(subjects, expected);
    let shares: Vec<f64> = running.iter().map(|it| it.metric("sluice_source_received_events_total", "in")).collect();
    assert!(shares.iter().sum::<f64>() == 90.0 && shares.iter().all(|&share| share > 0.0), "{shares:?}");
    // No value, no subject: a dead letter with its cause.
    nats.publish_core("core.in.x", ["{\"source\":\"t\",\"detail\":{}}".to_owned()].into_iter());
    let letters = || instances.iter().flat_map(|sluice| sluice.lines("dead-letters/default")).collect::<Vec<_>>();
    running[0].until("the dead letter is there", Duration::from_secs(10), |_| !letters().is_empty());
    assert!(letters()[0].contains("no text at $.detail.to"), "{letters:?}", letters = letters());
    running.into_iter().for_each(crate::process::Running::stop);
}

/// The server goes away and comes back: what was in flight is settled then, and nothing is lost.
pub fn server_restarts(nats: &Nats) {
    streams(nats, "again", FEWER);
    let sluice = Sluice::new(&config(nats, "again", "ack_wait: 5s"));
    let expected = model::deliveries(FEWER);
    let mut running = sluice.start(&[]);
    running.until("the stream is in full flow", Duration::from_secs(60), |_| nats.count("again-out") > expected / 4);
    nats.restart();
    running.until("everything is acknowledged", Duration::from_secs(90), |_| nats.consumed("again-in", "sluice"));
    running.until_nothing_waits(Duration::from_secs(90));
    running.stop();
    let verdict = found(nats, "again", FEWER, None, &[&sluice]);
    println!(
        "{{\"scenario\":\"nats_restart\",\"events\":{FEWER},\"deliveries\":{},\"lost\":0,\"repeated\":{}}}",
        verdict.deliveries, verdict.repeated
    );
}

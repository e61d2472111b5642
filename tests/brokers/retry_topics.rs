//! What waits in retry topics and streams: survives the machine, moves with its partition, keeps its order and its attempts.

use crate::kafka::Kafka;
use crate::nats::Nats;
use crate::process::Sluice;
use crate::receiver::{Act, Receiver, Request};
use async_nats::jetstream::stream::RetentionPolicy;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// A source with retry topics and one endpoint; every process has a disk of its own.
fn config(kafka: &Kafka, name: &str, target: &str) -> String {
    let servers = &kafka.servers;
    format!(
        "data_dir: data\nserver: {{ listen: \"off\", admin: \"{{admin}}\" }}\nlimits: {{ in_flight_events: 256, retry_log_bytes: 0 }}\n\
         sources:\n  in:\n    kafka: {{ brokers: \"{servers}\", topics: [{name}-in], group: {name}, retry_topics: {name}-again }}\n\
         targets:\n  crm: {target}\n\
         rules:\n  all: {{ pattern: {{ source: [shop] }}, targets: [crm] }}\n"
    )
}

/// The same member after each death, so that nobody waits until the group gives up the dead one.
fn one_member(config: &str) -> String {
    config.replace("retry_topics:", "instance_id: one, retry_topics:")
}

fn http(receiver: &Receiver, more: &str) -> String {
    format!("{{ http: {{ url: \"{}\", timeout: 2s }}, retry: {{ initial: 50ms, max: 500ms }}{more} }}", receiver.url)
}

fn send(kafka: &Kafka, topic: &str, partitions: u64, numbers: std::ops::Range<u64>) {
    let sender = kafka.producer();
    for n in numbers {
        let event = format!("{{\"source\":\"shop\",\"detail\":{{\"n\":{n}}}}}");
        let partition = i32::try_from(n % partitions).expect("a partition");
        sender.send(topic, Some(partition), &format!("k{}", n % (partitions * 8)), event.as_bytes(), &[]);
    }
    sender.flush();
}

fn number(request: &Request) -> u64 {
    let event: serde_json::Value = serde_json::from_slice(&request.body).expect("JSON");
    event["detail"]["n"].as_u64().expect("a number")
}

/// Whether a request is of one event in sixteen, the same ones each time.
fn chosen(request: &Request) -> bool {
    request.header("webhook-id").is_some_and(|id| id.ends_with('3'))
}

/// An endpoint that takes nothing before it is told to.
fn gate() -> (Arc<AtomicBool>, Arc<Receiver>) {
    let open = Arc::<AtomicBool>::default();
    let takes = Arc::clone(&open);
    let act = move |_: &Request, _| match takes.load(Ordering::SeqCst) {
        true => Act::ok(),
        false => Act::status("503 Service Unavailable"),
    };
    (open, Arc::new(Receiver::start(act)))
}

/// A target is away: its events leave the source, and come when it is back, to a process that has nothing of the first.
pub fn survives_the_machine(kafka: &Kafka) {
    const EVENTS: u64 = 6_000;
    kafka.topics(&[("away-in", 3, &[])]);
    let (open, receiver) = gate();
    let text = one_member(&config(kafka, "away", &http(&receiver, "")));
    let first = Sluice::new(&text);
    let mut running = first.start(&[]);
    send(kafka, "away-in", 3, 0..EVENTS);
    running.until("the source has no more of them", PATIENCE, |_| {
        kafka.committed("away", "away-in") == [2000, 2000, 2000]
    });
    assert!(receiver.count() < 1000, "they wait in the topic: {}", receiver.count());
    let attempted = receiver.count();
    running.kill();
    open.store(true, Ordering::SeqCst);
    let second = Sluice::new(&text);
    let begin = Instant::now();
    let mut running = second.start(&[]);
    running.until("all are there", PATIENCE, |_| {
        receiver.requests()[attempted..].iter().map(number).collect::<BTreeSet<_>>().len() as u64 == EVENTS
    });
    let took = begin.elapsed();
    running.until_nothing_waits(PATIENCE);
    let again = receiver.requests().len() - attempted - EVENTS as usize;
    assert!(again <= 32, "what failed and was written anew in the last second: {again}");
    // What was done with is done with for the next one, too.
    running.stop();
    let all = receiver.requests().len();
    let third = Sluice::new(&text);
    let mut running = third.start(&[]);
    send(kafka, "away-in", 3, EVENTS..EVENTS + 3);
    running.until("new ones come", PATIENCE, |_| receiver.requests().len() >= all + 3);
    running.until_nothing_waits(PATIENCE);
    assert_eq!(receiver.requests().len(), all + 3);
    running.stop();
    println!(
        "{{\"scenario\":\"retry_topics_survive_the_machine\",\"events\":{EVENTS},\"lost\":0,\"twice\":{again},\"drained_ms\":{}}}",
        took.as_millis()
    );
}

/// Attempts fail now and then while instances come and are killed: for each key the events come first in its order.
pub fn keeps_an_order(kafka: &Kafka) {
    const EVENTS: u64 = 4_000;
    kafka.topics(&[("line-in", 4, &[])]);
    let failed = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&failed);
    let receiver = Receiver::start(move |request, nth| {
        if chosen(request) && nth % 3 != 0 {
            count.fetch_add(1, Ordering::SeqCst);
            return Act::status("500 Internal Server Error");
        }
        Act::ok()
    });
    let target = http(&receiver, ", ordering: key").replace("max: 500ms", "max: 500ms, max_attempts: 100, max_age: 1h");
    let text = config(kafka, "line", &target);
    let (one, two) = (Sluice::new(&text), Sluice::new(&text));
    let mut first = one.start(&[]);
    send(kafka, "line-in", 4, 0..EVENTS);
    first.until("it has begun", PATIENCE, |_| receiver.count() > 200);
    let mut second = two.start(&[]);
    second.until("the second has begun", PATIENCE, |second| {
        second.metric("sluice_target_deliveries_total", "outcome=\"delivered\"") > 50.0
    });
    first.kill();
    let mut first = one.start(&[]);
    let seen = || receiver.requests().iter().map(number).collect::<BTreeSet<_>>().len() as u64;
    let good = || seen() == EVENTS && kafka.committed("line", "line-in") == [1000, 1000, 1000, 1000];
    first.until("all were seen, and the source has no more of them", PATIENCE * 2, |_| good());
    first.until_nothing_waits(PATIENCE * 2);
    second.until_nothing_waits(PATIENCE * 2);
    // An event has arrived when it was answered well.
    let mut last: HashMap<String, u64> = HashMap::new();
    let (mut turned, mut arrived) = (0, BTreeSet::new());
    for request in receiver.requests().iter().filter(|request| request.answer.starts_with("200")) {
        let n = number(request);
        if arrived.insert(n) && last.insert(format!("k{}", n % 32), n).is_some_and(|before| before > n) {
            turned += 1;
        }
    }
    assert_eq!((arrived.len() as u64, turned), (EVENTS, 0), "all, and in order");
    assert!(failed.load(Ordering::SeqCst) > 100, "attempts have failed");
    first.stop();
    second.stop();
    println!(
        "{{\"scenario\":\"retry_topics_keep_an_order\",\"events\":{EVENTS},\"failed_attempts\":{},\"lost\":0,\"turned\":0}}",
        failed.load(Ordering::SeqCst)
    );
}

/// Attempts are counted on through deaths; what is due is not held up by what is not.
pub fn counts_attempts(kafka: &Kafka) {
    kafka.topics(&[("count-in", 1, &[])]);
    let receiver = Receiver::start(|request, _| match chosen(request) {
        true => Act::status("500 Internal Server Error"),
        false => Act::ok(),
    });
    let bad = || receiver.requests().iter().filter(|one| chosen(one)).map(number).collect::<BTreeSet<_>>();
    let retry = "retry: { initial: 300ms, max: 600ms, max_attempts: 6 }";
    let target = http(&receiver, "").replace("retry: { initial: 50ms, max: 500ms }", retry);
    let text = one_member(&config(kafka, "count", &target));
    send(kafka, "count-in", 1, 0..200);
    let tries = || {
        let mut tries = BTreeMap::<u64, usize>::new();
        receiver.requests().iter().for_each(|request| *tries.entry(number(request)).or_default() += 1);
        tries
    };
    let mut deaths = 0;
    let sluice = Sluice::new(&text);
    let mut running = sluice.start(&[]);
    running.until("all were tried, and have left the source", PATIENCE, |_| {
        tries().len() == 200 && kafka.committed("count", "count-in") == [200]
    });
    let bad = bad();
    let letters = |sluice: &Sluice| sluice.lines("dead-letters/default");
    while letters(&sluice).len() < bad.len() && deaths < 3 {
        let before = receiver.count();
        running.until("some are tried again", PATIENCE, |_| {
            receiver.count() > before + 5 || letters(&sluice).len() == bad.len()
        });
        running.kill();
        deaths += 1;
        running = sluice.start(&[]);
    }
    running.until("a letter each", PATIENCE, |_| letters(&sluice).len() >= bad.len());
    running.until_nothing_waits(PATIENCE);
    let tries = tries();
    assert!(bad.len() > 3 && deaths > 0, "{} letters, {deaths} deaths", bad.len());
    for n in &bad {
        // An attempt under way at a death is made once more.
        assert!((7..=7 + deaths).contains(&tries[n]), "{n}: {} attempts, {deaths} deaths", tries[n]);
    }
    for letter in letters(&sluice) {
        assert!(letter.contains("\"RETRY_ATTEMPTS\":\"6\""), "{letter}");
    }
    running.stop();
    println!("{{\"scenario\":\"retry_topics_count_attempts\",\"deaths\":{deaths},\"letters\":{}}}", bad.len());
}

/// Rows: what stands in the way at start, and what is said; and a target that is no more.
pub fn refuses_and_buries(kafka: &Kafka) {
    kafka.topics(&[
        ("narrow-in", 4, &[]),
        ("narrow-again.crm", 2, &[]),
        ("tight-in", 1, &[]),
        ("short-in", 1, &[]),
        ("short-again.crm", 1, &[]),
        ("tight-again.crm", 1, &[("max.message.bytes", "5000")]),
    ]);
    let (open, receiver) = gate();
    for (name, says) in [
        ("narrow", "retry topic narrow-again.crm has 2 partitions, topic narrow-in has 4"),
        ("short", "retry topic short-again.crm forgets what waits; set its retention.ms to -1"),
        ("tight", "retry topic tight-again.crm takes records of 5000 bytes; raise its max.message.bytes"),
    ] {
        let (status, log, _) = Sluice::new(&config(kafka, name, &http(&receiver, ""))).run(&[]);
        assert!(status.code() == Some(78) && log.contains(says), "{name}: {status} {log}");
    }
    kafka.topics(&[("gone-in", 1, &[])]);
    let text = config(kafka, "gone", &http(&receiver, ""));
    let first = Sluice::new(&text);
    let mut running = first.start(&[]);
    send(kafka, "gone-in", 1, 0..50);
    running.until("they wait", PATIENCE, |_| kafka.committed("gone", "gone-in") == [50]);
    running.stop();
    open.store(true, Ordering::SeqCst);
    let before = receiver.count();
    let second = Sluice::new(&text.replace("crm", "erp"));
    let mut running = second.start(&[]);
    running.until("letters", PATIENCE, |_| second.lines("dead-letters/default").len() == 50);
    running.until_nothing_waits(PATIENCE);
    assert_eq!(receiver.count(), before, "they were for another target");
    assert!(second.lines("dead-letters/default")[0].contains("no longer declared"));
    running.stop();
    println!("{{\"scenario\":\"retry_topics_refuse_and_bury\",\"letters\":50}}");
}

/// The same of a JetStream source with a retry stream; and attempts are counted on.
pub fn stream_survives_the_machine(nats: &Nats) {
    const EVENTS: u64 = 3_000;
    nats.stream("PARCELS", "parcels.>", |_| {});
    nats.stream("PARCELS-short", "PARCELS-short.>", |config| {
        config.retention = RetentionPolicy::WorkQueue;
        config.max_age = Duration::from_secs(3600);
    });
    nats.stream("PARCELS-other", "PARCELS-other.>", |_| {});
    let (open, receiver) = gate();
    let never = Receiver::start(|_, _| Act::status("500 Internal Server Error"));
    let text = format!(
        "data_dir: data\nserver: {{ listen: \"off\", admin: \"{{admin}}\" }}\nlimits: {{ in_flight_events: 256, retry_log_bytes: 0 }}\n\
         sources:\n  in:\n    nats: {{ servers: \"{}\", stream: PARCELS, durable: router, retry_stream: PARCELS-again }}\n\
         targets:\n  crm: {}\n  erp: {}\n\
         rules:\n  all: {{ pattern: {{ source: [shop] }}, targets: [crm] }}\n  few: {{ pattern: {{ detail: {{ n: [{{ numeric: [\"<\", 5] }}] }} }}, targets: [erp] }}\n",
        nats.url,
        http(&receiver, ""),
        http(&never, "").replace("max: 500ms", "max: 500ms, max_attempts: 8"),
    );
    for (name, says) in [("short", "it forgets what waits; set its max_age to 0"), ("other", "it is no work queue of")]
    {
        let (status, log, _) = Sluice::new(&text.replace("PARCELS-again", &format!("PARCELS-{name}"))).run(&[]);
        assert!(status.code() == Some(78) && log.contains(says), "{name}: {status} {log}");
    }
    let first = Sluice::new(&text);
    let mut running = first.start(&[]);
    let event = |n: u64| format!("{{\"source\":\"shop\",\"detail\":{{\"n\":{n}}}}}");
    nats.publish((0..EVENTS).map(|n| (format!("parcels.{}", n % 7), event(n))));
    running.until("the source has no more of them", PATIENCE, |_| nats.consumed("PARCELS", "router"));
    let attempted = receiver.count();
    assert!(attempted < 1000, "they wait in the stream: {attempted}");
    running.kill();
    open.store(true, Ordering::SeqCst);
    let second = Sluice::new(&text);
    let begin = Instant::now();
    let mut running = second.start(&[]);
    running.until("all are there", PATIENCE * 2, |_| {
        receiver.requests()[attempted..].iter().map(number).collect::<BTreeSet<_>>().len() as u64 == EVENTS
    });
    let took = begin.elapsed();
    running.until("a letter each", PATIENCE * 2, |_| second.lines("dead-letters/default").len() >= 5);
    running.until_nothing_waits(PATIENCE);
    let again = receiver.requests().len() - attempted - EVENTS as usize;
    assert!(again <= 32, "what was written anew when the process died: {again}");
    for letter in second.lines("dead-letters/default") {
        assert!(letter.contains("\"RETRY_ATTEMPTS\":\"8\""), "{letter}");
    }
    running.stop();
    println!(
        "{{\"scenario\":\"retry_stream_survives_the_machine\",\"events\":{EVENTS},\"lost\":0,\"twice\":{again},\"drained_ms\":{}}}",
        took.as_millis()
    );
}

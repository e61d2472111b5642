//! F14 to F16: records that are no events, hostile ones, and ones that are too large.

use crate::caller::Caller;
use crate::kafka::Sender;
use crate::load::Load;
use crate::oracle::{Ledger, event, letter_count, letters};
use crate::ports::free_port;
use crate::process::{Running, Sluice, program};
use crate::setup::{LONG, Route, committed, config, gets, reads, writes};
use crate::stage::{Rng, Stage, until};
use serde_json::{Value, json};
use std::time::Instant;

const PARTITIONS: u64 = 4;
const ALL: [u64; 10] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];

/// A topic to a topic, and what is bad in between.
struct Mill {
    sluice: Sluice,
    topic: String,
    out: String,
}

impl Mill {
    fn new(stage: &Stage, base: &str) -> Self {
        let (kafka, topic, out) = (stage.kafka(), stage.name(base), stage.name(&format!("{base}-out")));
        let large = [("max.message.bytes", "20000000")];
        kafka.topics(&[(&topic, PARTITIONS as i32, &large), (&out, PARTITIONS as i32, &[])]);
        let routes = [Route { name: "out", remainders: &ALL, target: writes(&kafka.servers, &out) }];
        let sluice = Sluice::new(&config("", &reads(&kafka.servers, &topic, ""), &routes, ""));
        Self { sluice, topic, out }
    }

    /// Runs until everything is committed; accounts for all of it and judges the good events.
    fn finish(&self, stage: &Stage, events: u64, bad: u64) -> Running {
        let running = self.sluice.start(&[]);
        until("all offsets are committed", LONG, || committed(stage.kafka(), &self.topic));
        let count = |name: &str| running.metric(name, "");
        let received = count("sluice_source_received_events_total");
        let rejected = count("sluice_source_rejected_events_total");
        let routed = count("sluice_bus_events_total");
        stage.note("events", events);
        stage.note("bad", bad);
        stage.note("rejected", rejected);
        stage.note("rss_mib", running.peak_mib().round());
        assert_eq!(received, (events + bad) as f64, "every record was read once");
        assert_eq!(routed + rejected, received, "every record is accounted for");
        let all = |_: u64| true;
        let verdict = Ledger::new(&[events], &all).unordered().topic(stage.kafka(), &self.out).close();
        stage.judge("topic", &verdict);
        assert_eq!(verdict.duplicates, 0, "no fault of the process, no repetition: duplicates");
        assert_eq!(letter_count(&self.sluice) as f64, rejected, "each is kept in the dead-letter queue");
        running
    }
}

/// F14: bad records among good ones.
pub fn bad_records(stage: &Stage) {
    let (events, bad) = stage.pick((100_000, 1000), (10_000, 200));
    let (kafka, mill) = (stage.kafka(), Mill::new(stage, "f14"));
    let mut load = Load::start(kafka, &mill.topic, PARTITIONS, (0, 0), events, events);
    let sender = kafka.producer();
    let kinds: [&[u8]; 5] = [b"no json", b"{\"source\":", b"\xff\xfe{}", b"[1,2]", b"{\"source\":\"s\"}}"];
    for n in 0..bad {
        sender.send(&mill.topic, None, "bad", kinds[n as usize % kinds.len()], &[]);
    }
    sender.flush();
    load.join();
    let running = mill.finish(stage, events, bad);
    assert_eq!(running.metric("sluice_source_rejected_events_total", ""), bad as f64, "all bad records are parked");
    running.stop();
}

/// F14: one record at which routing panics, and one that ends the process, again and again.
pub fn fatal_record(stage: &Stage) {
    if cfg!(not(feature = "planted")) {
        return stage.skip("needs a build with the feature `planted`: tests/run planted");
    }
    const EVENTS: u64 = 3000;
    let (kafka, mill) = (stage.kafka(), Mill::new(stage, "f14b"));
    let text = std::fs::read_to_string(mill.sluice.path().join("sluice.yaml")).expect("text");
    // Static membership: a process takes its predecessor's place at once.
    mill.sluice.write("sluice.yaml", &text.replace("group: ", "instance_id: f14b, group: "));
    let sender = kafka.producer();
    let killers = [("panic", "sluice-planted-panic"), ("abort", "sluice-planted-abort")];
    Load::start(kafka, &mill.topic, PARTITIONS, (0, 0), u64::MAX, EVENTS / 2).join();
    for (key, what) in killers {
        sender.send(&mill.topic, Some(0), key, format!("{{\"detail\":{{\"do\":\"{what}\"}}}}").as_bytes(), &[]);
    }
    sender.flush();
    Load::start(kafka, &mill.topic, PARTITIONS, (0, EVENTS / 2), u64::MAX, EVENTS / 2).join();
    let (mut running, mut restarts) = (mill.sluice.start(&[]), 0);
    until("all offsets are committed", LONG, || {
        if !running.lives() {
            restarts += 1;
            assert!(restarts <= 5, "{restarts} restarts, at most 5 for one record");
            running = mill.sluice.start(&[]);
        }
        committed(kafka, &mill.topic)
    });
    running.stop();
    stage.note("restarts", restarts);
    stage.note("events", EVENTS);
    let verdict = Ledger::new(&[EVENTS], &|_| true).unordered().topic(kafka, &mill.out).close();
    stage.judge("topic", &verdict);
    let letters = letters(&mill.sluice);
    let asks = |letter: &Value, what: &str| letter["event"].as_str().is_some_and(|event| event.contains(what));
    let parked = |what: &str| letters.iter().filter(|letter| asks(letter, what)).count();
    for (_, what) in killers {
        assert!(parked(what) > 0, "{what}: parked raw: {letters:?}");
    }
    assert_eq!(parked("abort"), 1, "parked once: {letters:?}");
    assert_eq!(parked("abort") + parked("panic"), letters.len(), "nothing else is parked: {letters:?}");
    assert!(restarts >= 3, "{restarts} restarts: the record ended the process");
}

/// A hostile record: a good one, broken by one of many ways, or something that was never good. Large are some hundred at the
/// beginning, one after the other, and one in a thousand later.
fn hostile(rng: &mut Rng, n: u64) -> Vec<u8> {
    let mut text = event(9, n).into_bytes();
    match (if n < 300 { 0 } else { n % 1000 }, rng.below(10)) {
        (0, 0..5) => text = [b"[".repeat(100_000), b"]".repeat(100_000)].concat(),
        (0, _) => text = format!("{{\"detail\":{{\"n\":{}}}}}", "9".repeat(100_000)).into_bytes(),
        (_, 0) => text.truncate(rng.below(text.len() as u64) as usize),
        (_, 1) => {
            let at = rng.below(text.len() as u64) as usize;
            text[at] ^= 1 << rng.below(8);
        }
        (_, 2) => text = b"{\"detail\":{\"a\":1e400,\"b\":-0,\"c\":1E-999}}".to_vec(),
        (_, 3) => text = b"{\"detail\":{\"a\":\"\\ud800\",\"a\":\"\\udc00\\ud800\"}}".to_vec(),
        (_, 4) => text = b"\xef\xbb\xbf{\"detail\":{}}".to_vec(),
        (_, 5) => text.insert(rng.below(300) as usize, 0),
        (_, 6) => text = vec![0xff; rng.below(300) as usize],
        (_, 7) => text = "{\"a\":".repeat(rng.below(3000) as usize).into_bytes(),
        (_, 8) => text = format!("{{\"detail\":{{{}}}}}", "\"a\":1,".repeat(500)).into_bytes(),
        _ => text = (0..rng.below(300)).map(|_| (rng.next() & 0xff) as u8).collect(),
    }
    text
}

/// F15: hostile records, and then hostile requests.
pub fn hostile_records(stage: &Stage) {
    let (events, bad) = stage.pick((20_000, 1_000_000), (2000, 20_000));
    let (kafka, mill) = (stage.kafka(), Mill::new(stage, "f15"));
    // Those that stay whole by chance must match nothing, so the good ones are the only ones that arrive.
    let text = std::fs::read_to_string(mill.sluice.path().join("sluice.yaml")).expect("text");
    let listen = format!("127.0.0.1:{}", free_port());
    let text = text.replace("listen: \"off\"", &format!("listen: \"{listen}\""));
    mill.sluice.write("sluice.yaml", &text.replace("detail: { m:", "detail: { p: [0], m:"));
    let (sender, mut rng) = (kafka.producer(), stage.rng());
    for n in 0..bad {
        sender.send(&mill.topic, None, "bad", &hostile(&mut rng, n), &[]);
    }
    sender.flush();
    Load::start(kafka, &mill.topic, PARTITIONS, (0, 0), u64::MAX, events).join();
    let begin = Instant::now();
    let mut running = mill.finish(stage, events, bad);
    let rate = (events + bad) as f64 / begin.elapsed().as_secs_f64();
    stage.note("events_per_second", rate.round());
    hostile_requests(stage, &listen, &running);
    assert!(running.lives(), "the process lives");
    let peak = running.peak_mib();
    stage.note("rss_mib", peak.round());
    running.stop();
    assert!(peak <= 192.0, "{peak} MiB at its peak, at most 192");
    let quick = program().iter().any(|part| part == "release") && !stage.small;
    assert!(!quick || rate >= 20_000.0, "{rate} hostile records a second, at least 20,000");
}

/// Bodies that are hostile, and good ones with hostile details: each is answered, and what is accepted is routed.
fn hostile_requests(stage: &Stage, listen: &str, running: &Running) {
    const CALLERS: u64 = 8;
    let each = stage.pick(50_000, 4000) / CALLERS;
    let seen = |running: &Running| {
        running.metric("sluice_bus_events_total", "") + running.metric("sluice_source_rejected_events_total", "http")
    };
    let (before, seed) = (seen(running), stage.seed);
    let call = |caller: u64| {
        let (mut rng, mut accepted, mut connection) = (Rng::new(seed, caller), 0, Caller::new(listen));
        for n in 0..each {
            let bytes = hostile(&mut rng, n);
            let body = match n % 2 {
                0 => bytes,
                _ => {
                    let detail = String::from_utf8_lossy(&bytes).into_owned();
                    json!({ "Entries": [{ "Source": "s", "DetailType": "d", "Detail": detail }] })
                        .to_string()
                        .into_bytes()
                }
            };
            let (status, answer) = connection.call(&body).expect("an answer");
            let answer: Value = serde_json::from_slice(&answer).expect("JSON");
            assert!(status == 200 || status == 400 || status == 413, "{status} {answer}");
            if status != 200 {
                // Too large a body is answered before it is read, and the connection closed.
                connection = if status == 413 { Caller::new(listen) } else { connection };
                continue;
            }
            let entries = answer["Entries"].as_array().expect("a list");
            accepted += entries.iter().filter(|entry| entry["EventId"].is_string()).count() as u64;
            let whole = entries.iter().all(|entry| entry["EventId"].is_string() != entry["ErrorCode"].is_string());
            assert!(whole, "each entry has an id or a refusal: {answer}");
        }
        accepted
    };
    let accepted: u64 = std::thread::scope(|scope| {
        let call = &call;
        let callers: Vec<_> = (0..CALLERS).map(|caller| scope.spawn(move || call(caller))).collect();
        callers.into_iter().map(|caller| caller.join().expect("a caller")).sum()
    });
    stage.note("requests", each * CALLERS);
    stage.note("accepted", accepted);
    until("what was accepted is routed", LONG, || seen(running) - before >= accepted as f64);
    assert_eq!(seen(running) - before, accepted as f64, "every accepted event is accounted for");
    assert!(accepted > 0, "some are good enough");
}

/// F16: records that are too large.
pub fn large_records(stage: &Stage) {
    let (kafka, mill) = (stage.kafka(), Mill::new(stage, "f16"));
    let sender: Sender = kafka.producer();
    let large = |bytes: usize| format!("{{\"detail\":{{\"pad\":\"{}\"}}}}", "x".repeat(bytes)).into_bytes();
    let members = (0..100_000).map(|n| format!("\"k{n}\":{n}")).collect::<Vec<_>>().join(",");
    let bad = [large(1 << 20), large(4 << 20), large(8 << 20), format!("{{\"detail\":{{{members}}}}}").into_bytes()];
    for payload in &bad {
        sender.send(&mill.topic, Some(0), "large", payload, &[]);
    }
    sender.flush();
    Load::start(kafka, &mill.topic, PARTITIONS, (0, 0), u64::MAX, 1000).join();
    let running = mill.finish(stage, 1000, bad.len() as u64);
    let peak = running.peak_mib();
    running.stop();
    assert!(gets(&ALL)(0) && peak <= 192.0, "{peak} MiB for records of 8 MiB, at most 192");
}

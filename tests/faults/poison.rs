//! F14 to F16: records that are no events, hostile ones, and ones that are too large.

use crate::kafka::Sender;
use crate::load::Load;
use crate::oracle::{Ledger, event, letters};
use crate::process::{Running, Sluice};
use crate::setup::{LONG, Route, committed, config, gets, reads, writes};
use crate::stage::{Rng, Stage, until};

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
        assert_eq!(letters(&self.sluice).len() as f64, rejected, "each is kept in the dead-letter queue");
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

/// A hostile record: a good one, broken by one of many ways, or something that was never good.
fn hostile(rng: &mut Rng, n: u64) -> Vec<u8> {
    let mut text = event(9, n).into_bytes();
    match rng.below(12) {
        0 => text.truncate(rng.below(text.len() as u64) as usize),
        1 => {
            let at = rng.below(text.len() as u64) as usize;
            text[at] ^= 1 << rng.below(8);
        }
        2 => text = [b"[".repeat(100_000), b"]".repeat(100_000)].concat(),
        3 => text = format!("{{\"detail\":{{\"n\":{}}}}}", "9".repeat(100_000)).into_bytes(),
        4 => text = b"{\"detail\":{\"a\":1e400,\"b\":-0,\"c\":1E-999}}".to_vec(),
        5 => text = b"{\"detail\":{\"a\":\"\\ud800\",\"a\":\"\\udc00\\ud800\"}}".to_vec(),
        6 => text = b"\xef\xbb\xbf{\"detail\":{}}".to_vec(),
        7 => text.insert(rng.below(300) as usize, 0),
        8 => text = vec![0xff; rng.below(300) as usize],
        9 => text = "{\"a\":".repeat(rng.below(3000) as usize).into_bytes(),
        10 => text = format!("{{\"detail\":{{{}}}}}", "\"a\":1,".repeat(500)).into_bytes(),
        _ => text = (0..rng.below(300)).map(|_| (rng.next() & 0xff) as u8).collect(),
    }
    text
}

/// F15: hostile records.
pub fn hostile_records(stage: &Stage) {
    let (events, bad) = stage.pick((20_000, 80_000), (2000, 8000));
    let (kafka, mill) = (stage.kafka(), Mill::new(stage, "f15"));
    // Those that stay whole by chance must match nothing, so the good ones are the only ones that arrive.
    let text = std::fs::read_to_string(mill.sluice.path().join("sluice.yaml")).expect("text");
    mill.sluice.write("sluice.yaml", &text.replace("detail: { m:", "detail: { p: [0], m:"));
    let (sender, mut rng) = (kafka.producer(), stage.rng());
    for n in 0..bad {
        sender.send(&mill.topic, None, "bad", &hostile(&mut rng, n), &[]);
    }
    sender.flush();
    Load::start(kafka, &mill.topic, PARTITIONS, (0, 0), u64::MAX, events).join();
    let mut running = mill.finish(stage, events, bad);
    assert!(running.lives(), "the process lives");
    running.stop();
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

//! F01 to F03: processes and brokers that die and freeze.

use crate::kafka::Kafka;
use crate::load::Load;
use crate::oracle::Ledger;
use crate::process::Sluice;
use crate::receiver::{Act, Receiver};
use crate::setup::{LONG, Route, STUBBORN, committed, config, gets, reads, writes};
use crate::stage::{Stage, median, pass, until, worst};
use std::time::{Duration, Instant};

/// Partitions of the topics here.
const PARTITIONS: u64 = 4;
/// What goes where; the rest matches nothing.
const TO_KAFKA: [u64; 6] = [1, 2, 3, 4, 5, 6];
const TO_HTTP: [u64; 1] = [0];

/// One topic in; one topic and one endpoint out.
struct Flow {
    sluice: Sluice,
    hook: Receiver,
    topic: String,
    out: String,
}

impl Flow {
    fn new(stage: &Stage, base: &str, servers: &str, more: &str) -> Self {
        let (kafka, topic, out) = (stage.kafka(), stage.name(base), stage.name(&format!("{base}-out")));
        kafka.topics(&[(&topic, PARTITIONS as i32, &[]), (&out, PARTITIONS as i32, &[])]);
        let hook = Receiver::start(|_, _| Act::ok());
        let routes = [
            Route { name: "topic", remainders: &TO_KAFKA, target: format!("{}, {STUBBORN}", writes(servers, &out)) },
            Route {
                name: "hook",
                remainders: &TO_HTTP,
                target: format!("http: {{ url: \"{}\" }}, {STUBBORN}", hook.url),
            },
        ];
        let head = "limits: { in_flight_events: 4096 }\n";
        let sluice = Sluice::new(&config(head, &reads(servers, &topic, more), &routes, ""));
        Self { sluice, hook, topic, out }
    }

    /// Judges both targets; how many events came more than once.
    fn judge(&self, stage: &Stage, events: u64) -> u64 {
        let (to_kafka, to_http) = (gets(&TO_KAFKA), gets(&TO_HTTP));
        let topic = Ledger::new(&[events], &to_kafka).topic(stage.kafka(), &self.out).close();
        let hook = Ledger::new(&[events], &to_http).receiver(&self.hook).close();
        stage.note("events", events);
        stage.judge("topic", &topic);
        stage.judge("endpoint", &hook);
        assert_eq!(topic.inversions, 0, "first deliveries keep the order of their key");
        topic.duplicate_events + hook.duplicate_events
    }
}

/// F01: the process is killed again and again.
pub fn sidecar_dies(stage: &Stage) {
    let (deaths, rate) = stage.pick((15, 8000), (5, 4000));
    let kafka = stage.kafka();
    let flow = Flow::new(stage, "f01", &kafka.servers, ", instance_id: f01");
    let load = Load::start(kafka, &flow.topic, PARTITIONS, (0, 0), rate, u64::MAX);
    let (mut rng, mut resumed) = (stage.rng(), Vec::new());
    let mut running = flow.sluice.start(&[]);
    until("the first delivery", LONG, || flow.hook.count() > 0);
    for _ in 0..deaths {
        pass(rng.millis(2000, 4000));
        assert!(running.lives(), "it runs until it is killed");
        running.kill();
        let (before, begin) = (flow.hook.count(), Instant::now());
        running = flow.sluice.start(&[]);
        until("a delivery after the restart", LONG, || flow.hook.count() > before);
        resumed.push(begin.elapsed());
    }
    let events = load.stop();
    until("all offsets are committed", LONG, || committed(kafka, &flow.topic));
    stage.note("rss_mib", running.peak_mib().round());
    running.stop();
    stage.note("deaths", deaths);
    stage.note("resume_seconds", worst(&resumed));
    stage.note("resume_seconds_median", median(&resumed));
    let repeated = flow.judge(stage, events);
    stage.note("duplicate_events", repeated);
    // In flight, and what settled between two commits while it caught up.
    let bound = deaths * (4096 + rate * 2);
    assert!(repeated <= bound, "{repeated} repeated events, at most {bound} for {deaths} deaths");
    assert!(repeated > 0, "a death in mid-stream repeats something");
    assert!(median(&resumed) <= 3.0, "{resumed:?}: the first delivery comes within 3 s of the restart");
}

/// F02: the broker is killed again and again.
pub fn broker_dies(stage: &Stage) {
    let deaths = stage.pick(5, 1);
    let kafka = stage.kafka();
    let flow = Flow::new(stage, "f02", &kafka.servers, "");
    let load = Load::start(kafka, &flow.topic, PARTITIONS, (0, 0), 3000, u64::MAX);
    let (mut rng, mut resumed) = (stage.rng(), Vec::new());
    let mut running = flow.sluice.start(&[]);
    until("the first delivery", LONG, || flow.hook.count() > 0);
    for _ in 0..deaths {
        pass(rng.millis(1500, 3000));
        kafka.signal("-KILL");
        kafka.launch();
        let (before, begin) = (flow.hook.count(), Instant::now());
        // What was read before goes on to the endpoint; a whole window more can only have come from the broker.
        until("deliveries after the broker is back", LONG, || flow.hook.count() > before + 500);
        resumed.push(begin.elapsed());
    }
    let events = load.stop();
    until("all offsets are committed", LONG, || committed(kafka, &flow.topic));
    assert!(running.lives());
    running.stop();
    stage.note("broker_deaths", deaths);
    stage.note("resume_seconds", worst(&resumed));
    arrived(kafka, &flow.topic, events);
    let repeated = flow.judge(stage, events);
    stage.note("duplicate_events", repeated);
    assert!(repeated <= deaths * 8192, "{repeated} repeated events for {deaths} deaths of the broker");
    assert!(worst(&resumed) <= 15.0, "{resumed:?}: deliveries go on soon after the broker is back");
}

/// That the producer's side is whole: otherwise the scenario proves nothing.
fn arrived(kafka: &Kafka, topic: &str, events: u64) {
    assert!(kafka.ends(topic).iter().sum::<i64>() >= events as i64, "the producer got everything in");
}

/// F03: the broker stands still for longer than requests and sessions last, and goes on.
pub fn broker_freezes(stage: &Stage) {
    let freezes = stage.pick(2, 1);
    let kafka = stage.kafka();
    let quick = ", properties: { session.timeout.ms: \"6000\" }";
    let flow = Flow::new(stage, "f03", &kafka.servers, quick);
    let load = Load::start(kafka, &flow.topic, PARTITIONS, (0, 0), 3000, u64::MAX);
    let mut running = flow.sluice.start(&[]);
    let mut resumed = Vec::new();
    until("the first delivery", LONG, || flow.hook.count() > 0);
    for _ in 0..freezes {
        pass(Duration::from_secs(3));
        kafka.signal("-STOP");
        pass(Duration::from_secs(15));
        let before = flow.hook.count();
        kafka.signal("-CONT");
        resumed.push(until("deliveries after the broker goes on", LONG, || flow.hook.count() > before + 500));
    }
    let events = load.stop();
    until("all offsets are committed", LONG, || committed(kafka, &flow.topic));
    stage.note("rss_mib", running.peak_mib().round());
    assert!(running.lives());
    assert!(running.peak_mib() < 192.0, "{} MiB at its peak", running.peak_mib());
    running.stop();
    stage.note("freezes", freezes);
    stage.note("resume_seconds", worst(&resumed));
    arrived(kafka, &flow.topic, events);
    let repeated = flow.judge(stage, events);
    stage.note("duplicate_events", repeated);
}

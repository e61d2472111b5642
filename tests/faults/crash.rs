//! F01 to F03: processes and brokers that die and freeze.

use crate::kafka::Kafka;
use crate::load::Load;
use crate::oracle::Ledger;
use crate::process::{Running, Sluice};
use crate::receiver::{Act, Receiver};
use crate::setup::{LONG, Route, STUBBORN, committed, config, gets, reads, writes};
use crate::stage::{Stage, grows, median, pass, until, worst};
use std::time::{Duration, Instant};

/// Partitions of the topics here.
const PARTITIONS: u64 = 4;
/// What a process may have in flight.
const WINDOW: u64 = 4096;
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
        let head = format!("limits: {{ in_flight_events: {WINDOW} }}\n");
        let sluice = Sluice::new(&config(&head, &reads(servers, &topic, more), &routes, ""));
        Self { sluice, hook, topic, out }
    }

    /// Waits until nothing is left to do, and ends the process; the most memory that it had.
    fn end(&self, stage: &Stage, mut running: Running) -> f64 {
        running.until("all offsets are committed", LONG, |_| committed(stage.kafka(), &self.topic));
        running.until_nothing_waits(LONG);
        let peak = running.peak_mib();
        stage.note("rss_mib", peak.round());
        running.stop();
        peak
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
    flow.end(stage, running);
    stage.note("deaths", deaths);
    stage.note("resume_seconds", worst(&resumed));
    stage.note("resume_seconds_median", median(&resumed));
    let repeated = flow.judge(stage, events);
    stage.note("duplicate_events", repeated);
    // In flight, and what settled since the last commit.
    let bound = deaths * (WINDOW + rate * 3 / 8);
    assert!(repeated <= bound, "{repeated} repeated events, at most {bound} for {deaths} deaths");
    assert!(repeated > 0, "a death in mid-stream repeats something");
    assert!(worst(&resumed) <= 3.0, "{resumed:?}: the first delivery comes within 3 s of the restart");
}

/// F02: the broker is killed again and again.
pub fn broker_dies(stage: &Stage) {
    let (deaths, rate) = stage.pick((5, 5000), (1, 3000));
    let kafka = stage.kafka();
    let flow = Flow::new(stage, "f02", &kafka.servers, "");
    let load = Load::start(kafka, &flow.topic, PARTITIONS, (0, 0), rate, u64::MAX);
    let (mut rng, mut led, mut resumed, mut read) = (stage.rng(), Vec::new(), Vec::new(), Vec::new());
    let delivered = || Some(kafka.try_ends(&flow.out).ok()?.iter().sum::<i64>());
    let settled = || Some(kafka.try_committed(&flow.topic, &flow.topic).ok()?.iter().sum::<i64>());
    let running = flow.sluice.start(&[]);
    until("the first delivery", LONG, || flow.hook.count() > 0 && delivered() > Some(0));
    for _ in 0..deaths {
        pass(rng.millis(1500, 3000));
        kafka.signal("-KILL");
        kafka.launch();
        // A port is open before its partitions have a leader: on a busy machine by many seconds.
        led.push(until("the broker leads its partitions", LONG, || delivered().is_some()));
        let begin = Instant::now();
        until("deliveries after the broker is back", LONG, grows(delivered));
        resumed.push(begin.elapsed());
        until("the group goes on after the broker is back", LONG, grows(settled));
        read.push(begin.elapsed());
    }
    let events = load.stop();
    flow.end(stage, running);
    stage.note("broker_deaths", deaths);
    stage.note("lost_assignments", flow.sluice.log().matches("partitions lost").count());
    stage.note("lead_seconds", worst(&led));
    stage.note("resume_seconds", worst(&resumed));
    stage.note("read_seconds", worst(&read));
    arrived(kafka, &flow.topic, events);
    let repeated = flow.judge(stage, events);
    stage.note("duplicate_events", repeated);
    assert!(repeated <= deaths * WINDOW, "{repeated} repeated events for {deaths} deaths of the broker");
    assert!(worst(&resumed) <= 10.0, "{resumed:?}: deliveries go on soon after the broker is back");
    // A session, should it have ended, and five seconds.
    assert!(worst(&read) <= 15.0, "{read:?}: the group goes on soon after the broker is back");
}

/// What a process may have in flight to the endpoint: it can go on without the broker, one more comes from the broker.
const WINDOW_TO_HTTP: usize = WINDOW as usize / 10 + 1;

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
    let running = flow.sluice.start(&[]);
    let (mut resumed, rebalances) = (Vec::new(), "sluice_source_rebalances_total");
    until("the first delivery", LONG, || flow.hook.count() > 0);
    for _ in 0..freezes {
        pass(Duration::from_secs(3));
        let rebalanced = running.metric(rebalances, "");
        kafka.signal("-STOP");
        pass(Duration::from_secs(10));
        let before = flow.hook.count();
        pass(Duration::from_secs(5));
        assert_eq!(flow.hook.count(), before, "nothing moves while the broker stands still");
        kafka.signal("-CONT");
        resumed
            .push(until("deliveries after the broker goes on", LONG, || flow.hook.count() > before + WINDOW_TO_HTTP));
        assert!(running.metric(rebalances, "") > rebalanced, "the session was over");
    }
    let events = load.stop();
    let peak = flow.end(stage, running);
    stage.note("freezes", freezes);
    stage.note("resume_seconds", worst(&resumed));
    arrived(kafka, &flow.topic, events);
    let repeated = flow.judge(stage, events);
    stage.note("duplicate_events", repeated);
    assert!(peak <= 192.0, "{peak} MiB at its peak");
}

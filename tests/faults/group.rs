//! F09 and F10: members that come, go, die and sleep.

use crate::load::Load;
use crate::oracle::Ledger;
use crate::process::{Running, Sluice};
use crate::receiver::{Act, Receiver};
use crate::setup::{LONG, Route, STUBBORN, committed, config, gets, reads, writes};
use crate::stage::{Stage, pass, until};
use std::time::Duration;

const PARTITIONS: u64 = 12;
const TO_KAFKA: [u64; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
const TO_HTTP: [u64; 1] = [0];

/// Several members of one group; an endpoint that takes its time, so that something is always in flight.
struct Members {
    topic: String,
    out: String,
    hook: Receiver,
    sluices: Vec<Sluice>,
    /// Committed offsets as last seen.
    seen: Vec<i64>,
    /// How often one went back.
    backward: u64,
}

impl Members {
    fn new(stage: &Stage, base: &str, count: usize) -> Self {
        let (kafka, topic, out) = (stage.kafka(), stage.name(base), stage.name(&format!("{base}-out")));
        kafka.topics(&[(&topic, PARTITIONS as i32, &[]), (&out, PARTITIONS as i32, &[])]);
        let hook = Receiver::start(|_, _| {
            pass(Duration::from_millis(50));
            Act::ok()
        });
        let http = format!("http: {{ url: \"{}\", max_in_flight: 64 }}, {STUBBORN}", hook.url);
        let more = ", properties: { session.timeout.ms: \"6000\" }";
        let routes = [
            Route { name: "topic", remainders: &TO_KAFKA, target: writes(&kafka.servers, &out) },
            Route { name: "hook", remainders: &TO_HTTP, target: http },
        ];
        let text = config("", &reads(&kafka.servers, &topic, more), &routes, "");
        let sluices = (0..count).map(|_| Sluice::new(&text)).collect();
        Self { topic, out, hook, sluices, seen: vec![-1; PARTITIONS as usize], backward: 0 }
    }

    /// Notes committed offsets that are below those seen before.
    fn look(&mut self, stage: &Stage) {
        for (before, now) in self.seen.iter_mut().zip(stage.kafka().committed(&self.topic, &self.topic)) {
            self.backward += u64::from(now < *before);
            *before = now;
        }
    }

    /// Lets time pass, and watches commits.
    fn watch(&mut self, stage: &Stage, time: Duration) {
        let end = std::time::Instant::now() + time;
        while std::time::Instant::now() < end {
            self.look(stage);
            pass(Duration::from_millis(200));
        }
    }

    /// Waits for the end and judges.
    fn finish(&mut self, stage: &Stage, events: u64, running: Vec<Running>) {
        let topic = self.topic.clone();
        until("no partition stands still: all offsets are committed", LONG, || {
            self.look(stage);
            committed(stage.kafka(), &topic)
        });
        running.into_iter().for_each(Running::stop);
        let (to_kafka, to_http) = (gets(&TO_KAFKA), gets(&TO_HTTP));
        stage.note("events", events);
        stage.note("backward_commits", self.backward);
        stage.judge("topic", &Ledger::new(&[events], &to_kafka).topic(stage.kafka(), &self.out).close());
        stage.judge("endpoint", &Ledger::new(&[events], &to_http).receiver(&self.hook).close());
        assert_eq!(self.backward, 0, "commits of an old generation: an offset went backward");
    }
}

/// F09: members come and go, by SIGTERM and SIGKILL.
pub fn storm(stage: &Stage) {
    let cycles = stage.pick(16, 4);
    let (kafka, mut members) = (stage.kafka(), Members::new(stage, "f09", 3));
    let load = Load::start(kafka, &members.topic, PARTITIONS, (0, 0), 1500, u64::MAX);
    let mut rng = stage.rng();
    let mut running: Vec<Option<Running>> = members.sluices.iter().map(|sluice| Some(sluice.start(&[]))).collect();
    until("events flow", LONG, || {
        let lives = running.iter_mut().flatten().all(Running::lives);
        assert!(lives, "a member left: {}", members.sluices[0].log());
        members.hook.count() > 0
    });
    let mut kills = 0;
    for cycle in 0..cycles {
        members.watch(stage, rng.millis(800, 2000));
        let one = rng.below(3) as usize;
        match running[one].take() {
            Some(member) if cycle % 2 == 1 => {
                member.kill();
                kills += 1;
            }
            Some(member) => member.stop(),
            None => running[one] = Some(members.sluices[one].start(&[])),
        }
    }
    for one in 0..3 {
        if running[one].is_none() {
            running[one] = Some(members.sluices[one].start(&[]));
        }
    }
    members.watch(stage, Duration::from_secs(stage.pick(10, 4)));
    let events = load.stop();
    let running: Vec<Running> = running.into_iter().flatten().collect();
    let rebalances: f64 = running.iter().map(|one| one.metric("sluice_source_rebalances_total", "")).sum();
    stage.note("cycles", cycles);
    stage.note("deaths", kills);
    stage.note("rebalances", rebalances);
    assert!(rebalances >= 3.0, "the group was rebalanced");
    members.finish(stage, events, running);
}

/// F10: a member sleeps past its session and wakes.
pub fn zombie(stage: &Stage) {
    let (kafka, mut members) = (stage.kafka(), Members::new(stage, "f10", 3));
    let load = Load::start(kafka, &members.topic, PARTITIONS, (0, 0), 1500, u64::MAX);
    let running: Vec<Running> = members.sluices.iter().map(|sluice| sluice.start(&[])).collect();
    until("every member works", LONG, || {
        running.iter().all(|one| one.metric("sluice_source_received_events_total", "") > 0.0)
    });
    for _ in 0..stage.pick(2, 1) {
        members.watch(stage, Duration::from_secs(2));
        let rebalances = running[1].metric("sluice_source_rebalances_total", "");
        running[0].signal("-STOP");
        members.watch(stage, Duration::from_secs(12));
        let after = running[1].metric("sluice_source_rebalances_total", "");
        assert!(after > rebalances, "the group gave up the sleeper");
        running[0].signal("-CONT");
        members.watch(stage, Duration::from_secs(8));
    }
    let events = load.stop();
    members.finish(stage, events, running);
}

//! F09 and F10: members that come, go, die and sleep.

use crate::load::Load;
use crate::oracle::Ledger;
use crate::process::{Running, Sluice};
use crate::receiver::{Act, Receiver};
use crate::setup::{LONG, Route, STUBBORN, committed, config, gets, reads, writes};
use crate::stage::{Rng, Stage, pass, until};
use std::time::{Duration, Instant};

const PARTITIONS: u64 = 12;
const TO_KAFKA: [u64; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
const TO_HTTP: [u64; 1] = [0];
/// Events a second.
const RATE: u64 = 1500;
/// How long a partition may stand still after everything has calmed down.
const STILL: Duration = Duration::from_secs(10);

/// Several members of one group; an endpoint that takes its time, so that something is always in flight.
struct Members {
    topic: String,
    out: String,
    hook: Receiver,
    sluices: Vec<Sluice>,
    running: Vec<Option<Running>>,
    /// Committed offsets as last seen, and since when each has stood there.
    seen: Vec<(i64, Instant)>,
    /// The longest that one stood still.
    still: Duration,
    /// How often one went back.
    backward: u64,
    /// Rebalances of members that have ended.
    rebalances: f64,
}

impl Members {
    fn start(stage: &Stage, base: &str, assignor: &str) -> Self {
        let (kafka, topic, out) = (stage.kafka(), stage.name(base), stage.name(&format!("{base}-out")));
        kafka.topics(&[(&topic, PARTITIONS as i32, &[]), (&out, PARTITIONS as i32, &[])]);
        let hook = Receiver::start(|_, _| {
            pass(Duration::from_millis(50));
            Act::ok()
        });
        let http = format!("http: {{ url: \"{}\", max_in_flight: 64 }}, {STUBBORN}", hook.url);
        let more =
            format!(", properties: {{ session.timeout.ms: \"6000\", partition.assignment.strategy: {assignor} }}");
        let routes = [
            Route { name: "topic", remainders: &TO_KAFKA, target: writes(&kafka.servers, &out) },
            Route { name: "hook", remainders: &TO_HTTP, target: http },
        ];
        let text = config("", &reads(&kafka.servers, &topic, &more), &routes, "");
        let sluices: Vec<Sluice> = (0..3).map(|_| Sluice::new(&text)).collect();
        let running = sluices.iter().map(|sluice| Some(sluice.start(&[]))).collect();
        let seen = vec![(-1, Instant::now()); PARTITIONS as usize];
        let mut members =
            Self { topic, out, hook, sluices, running, seen, still: Duration::ZERO, backward: 0, rebalances: 0.0 };
        until("every member is ready", LONG, || {
            let lives = members.running.iter_mut().flatten().all(Running::lives);
            assert!(lives, "a member left: {}", members.sluices[0].log());
            members.running.iter().flatten().all(|one| one.get("/readyz").is_some_and(|(line, _)| line.contains("200")))
        });
        members
    }

    /// Notes committed offsets that are below those seen before, and those that stay.
    fn look(&mut self, stage: &Stage) {
        let now = Instant::now();
        for (seen, offset) in self.seen.iter_mut().zip(stage.kafka().committed(&self.topic, &self.topic)) {
            self.backward += u64::from(offset < seen.0);
            self.still = self.still.max(now - seen.1);
            if offset != seen.0 {
                *seen = (offset, now);
            }
        }
    }

    /// Lets time pass, and watches commits.
    fn watch(&mut self, stage: &Stage, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.look(stage);
            pass(Duration::from_millis(200));
        }
    }

    /// Watches a group whose members stay: no partition stands still while events come.
    fn calm(&mut self, stage: &Stage, name: &str) {
        let now = Instant::now();
        self.seen.iter_mut().for_each(|seen| seen.1 = now);
        self.still = Duration::ZERO;
        self.watch(stage, STILL + Duration::from_secs(stage.pick(5, 2)));
        stage.note(&format!("{name}still_seconds"), self.still.as_secs_f64());
        assert!(self.still <= STILL, "a partition stood still for {:?}", self.still);
    }

    fn rebalances(&self, member: usize) -> f64 {
        self.running[member].as_ref().map_or(0.0, |one| one.metric("sluice_source_rebalances_total", ""))
    }

    /// Ends a member that runs, by SIGKILL or SIGTERM, or starts one that does not; whether it was killed.
    fn turn(&mut self, member: usize, kill: bool) -> bool {
        self.rebalances += self.rebalances(member);
        match self.running[member].take() {
            Some(one) if kill => one.kill(),
            Some(one) => one.stop(),
            None => {
                self.running[member] = Some(self.sluices[member].start(&[]));
                return false;
            }
        }
        kill
    }

    /// Waits for the end and judges.
    fn finish(mut self, stage: &Stage, name: &str, events: u64) {
        let topic = self.topic.clone();
        until("no partition stands still: all offsets are committed", LONG, || {
            self.look(stage);
            committed(stage.kafka(), &topic)
        });
        for mut one in std::mem::take(&mut self.running).into_iter().flatten() {
            one.until_nothing_waits(LONG);
            one.stop();
        }
        let (to_kafka, to_http) = (gets(&TO_KAFKA), gets(&TO_HTTP));
        stage.note(&format!("{name}events"), events);
        stage.note(&format!("{name}backward_commits"), self.backward);
        let topic = Ledger::new(&[events], &to_kafka).topic(stage.kafka(), &self.out).close();
        let hook = Ledger::new(&[events], &to_http).receiver(&self.hook).close();
        stage.note(&format!("{name}duplicate_events"), topic.duplicate_events + hook.duplicate_events);
        stage.judge("topic", &topic);
        stage.judge("endpoint", &hook);
        assert_eq!(self.backward, 0, "commits of an old generation: an offset went backward");
    }
}

/// F09: members come and go, by SIGTERM and SIGKILL, where partitions go to all anew, and where each moves by itself.
pub fn storm(stage: &Stage) {
    for assignor in ["range", "cooperative-sticky"] {
        let name = format!("{}_", assignor.split('-').next().expect("a word"));
        comings_and_goings(stage, assignor, &name);
    }
}

fn comings_and_goings(stage: &Stage, assignor: &str, name: &str) {
    let (kafka, mut members) = (stage.kafka(), Members::start(stage, &format!("f09-{assignor}"), assignor));
    let load = Load::start(kafka, &members.topic, PARTITIONS, (0, 0), RATE, u64::MAX);
    until("events flow", LONG, || members.hook.count() > 0);
    // A group that is being rebalanced names none.
    until("the group shares partitions out that way", LONG, || kafka.assignor(&members.topic) == assignor);
    let (mut rng, mut kills, cycles): (Rng, u64, u64) = (stage.rng(), 0, stage.pick(20, 4));
    for cycle in 0..cycles {
        members.watch(stage, rng.millis(800, 2000));
        let member = rng.below(3) as usize;
        kills += u64::from(members.turn(member, cycle % 2 == 1));
    }
    for member in 0..3 {
        if members.running[member].is_none() {
            members.turn(member, false);
        }
    }
    members.calm(stage, name);
    let events = load.stop();
    let rebalances = members.rebalances + (0..3).map(|member| members.rebalances(member)).sum::<f64>();
    stage.note(&format!("{name}cycles"), cycles);
    stage.note(&format!("{name}deaths"), kills);
    stage.note(&format!("{name}rebalances"), rebalances);
    assert!(rebalances >= cycles as f64 && kills > 0, "{rebalances} rebalances and {kills} deaths in {cycles} cycles");
    members.finish(stage, name, events);
}

/// F10: a member sleeps past its session and wakes.
pub fn zombie(stage: &Stage) {
    let (kafka, mut members) = (stage.kafka(), Members::start(stage, "f10", "range"));
    let load = Load::start(kafka, &members.topic, PARTITIONS, (0, 0), RATE, u64::MAX);
    let received = |one: &Running| one.metric("sluice_source_received_events_total", "");
    until("every member works", LONG, || members.running.iter().flatten().all(|one| received(one) > 0.0));
    let signal = |members: &Members, signal: &str| members.running[0].as_ref().expect("a member").signal(signal);
    let sleeps = stage.pick(2, 1);
    for sleep in 1..=sleeps {
        members.watch(stage, Duration::from_secs(2));
        let rebalances = members.rebalances(1);
        signal(&members, "-STOP");
        members.watch(stage, Duration::from_secs(12));
        assert!(members.rebalances(1) > rebalances, "the group gave up the sleeper");
        signal(&members, "-CONT");
        members.calm(stage, "");
        let lost = members.sluices[0].log().matches("partitions lost").count();
        assert_eq!(lost, sleep, "the sleeper heard that it was given up");
    }
    let events = load.stop();
    stage.note("sleeps", sleeps);
    stage.note("rebalances", (0..3).map(|member| members.rebalances(member)).sum::<f64>());
    members.finish(stage, "", events);
}

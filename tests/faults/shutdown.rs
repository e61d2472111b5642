//! F13: SIGTERM in every state.

use crate::load::{Load, fill};
use crate::oracle::Ledger;
use crate::process::{Running, Sluice};
use crate::proxy::{Proxy, Way};
use crate::receiver::{Act, Receiver};
use crate::setup::{LONG, Route, STUBBORN, committed, config, gets, reads, rest, writes};
use crate::stage::{Stage, pass, until};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const PARTITIONS: u64 = 4;
const ALL: [u64; 10] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
/// The drain's deadline in these configurations, and what leaving may take beyond it.
const DEADLINE: Duration = Duration::from_secs(5);
const GRACE: Duration = Duration::from_secs(1);

/// A topic to a topic, in a state, and the end of it.
struct Pipe<'s> {
    stage: &'s Stage,
    sluice: Sluice,
    topic: String,
    out: String,
}

impl<'s> Pipe<'s> {
    fn new(stage: &'s Stage, state: &str, servers: Option<&str>) -> Self {
        let (topic, out) = (stage.name(&format!("f13-{state}")), stage.name(&format!("f13-{state}-out")));
        let kafka = stage.kafka();
        kafka.topics(&[(&topic, PARTITIONS as i32, &[]), (&out, PARTITIONS as i32, &[])]);
        let target = format!("{}, {STUBBORN}", writes(servers.unwrap_or(&kafka.servers), &out));
        let routes = [Route { name: "out", remainders: &ALL, target }];
        let sluice = Sluice::new(&config("", &reads(&kafka.servers, &topic, ""), &routes, ""));
        Self { stage, sluice, topic, out }
    }

    fn flowing(&self) -> bool {
        self.stage.kafka().ends(&self.out).iter().sum::<i64>() > 0
    }

    fn ready(&self) -> Running {
        let running = self.sluice.start(&[]);
        until("it is ready", LONG, || running.get("/readyz").is_some_and(|(status, _)| status.contains("200")));
        running
    }

    /// Works off what is left and judges everything.
    fn finish(&self, events: u64) -> u64 {
        let running = self.ready();
        rest(self.stage.kafka(), &self.topic);
        running.stop();
        let all = |_: u64| true;
        let verdict = Ledger::new(&[events], &all).topic(self.stage.kafka(), &self.out).close();
        self.stage.judge(&self.topic, &verdict);
        verdict.duplicates
    }
}

/// Ends a process with SIGTERM: its code and the time it took.
fn end(running: Running, signals: u32) -> (Option<i32>, Duration) {
    let begin = Instant::now();
    for number in 0..signals {
        if number > 0 {
            pass(Duration::from_millis(300));
        }
        running.signal("-TERM");
    }
    let status = running.wait(DEADLINE + GRACE + Duration::from_secs(2));
    (status.code(), begin.elapsed())
}

fn note(stage: &Stage, state: &str, (code, took): (Option<i32>, Duration)) {
    stage.note(&format!("{state}_seconds"), took.as_secs_f64());
    stage.note(&format!("{state}_code"), code);
    assert!(took <= DEADLINE + GRACE, "{state}: {took:?} from SIGTERM to the end");
}

/// F13, all states.
pub fn every_state(stage: &Stage) {
    idle(stage);
    hung(stage, 1);
    if !stage.small {
        hung(stage, 2);
    }
    loaded(stage);
    if !stage.small {
        dead_broker(stage);
    }
}

fn idle(stage: &Stage) {
    let pipe = Pipe::new(stage, "idle", None);
    let ended = end(pipe.ready(), 1);
    note(stage, "idle", ended);
    assert_eq!(ended.0, Some(0), "idle: a clean end");
}

fn loaded(stage: &Stage) {
    let (kafka, pipe) = (stage.kafka(), Pipe::new(stage, "loaded", None));
    let load = Load::start(kafka, &pipe.topic, PARTITIONS, (0, 0), 5000, u64::MAX);
    let running = pipe.ready();
    until("events flow", LONG, || pipe.flowing());
    pass(Duration::from_secs(2));
    let ended = end(running, 1);
    note(stage, "loaded", ended);
    let events = load.stop();
    assert!(!committed(kafka, &pipe.topic), "it was told to end in mid-stream");
    assert_eq!(ended.0, Some(0), "loaded: a clean end\n{}", pipe.sluice.log());
    stage.note("events", events);
    let repeated = pipe.finish(events);
    assert_eq!(repeated, 0, "a clean end repeats nothing: duplicates");
    assert!(committed(kafka, &pipe.topic), "all offsets are committed");
}

/// An endpoint that hangs, and one or two signals.
fn hung(stage: &Stage, signals: u32) {
    let state = if signals == 1 { "hung" } else { "twice" };
    let (kafka, topic) = (stage.kafka(), stage.name(&format!("f13-{state}")));
    kafka.topics(&[(&topic, PARTITIONS as i32, &[])]);
    fill(kafka, &topic, PARTITIONS, 500);
    let hangs = Arc::new(AtomicBool::new(true));
    let flag = Arc::clone(&hangs);
    let hook = Receiver::start(move |_, _| if flag.load(Ordering::Relaxed) { Act::Hang } else { Act::ok() });
    let target = format!("http: {{ url: \"{}\", timeout: 60s }}, {STUBBORN}", hook.url);
    let routes = [Route { name: "hook", remainders: &ALL, target }];
    let sluice = Sluice::new(&config("", &reads(&kafka.servers, &topic, ""), &routes, ""));
    let running = sluice.start(&[]);
    until("the endpoint hangs", LONG, || hook.count() > 0);
    let ended = end(running, signals);
    note(stage, state, ended);
    // Clean where what hangs could be kept elsewhere, late where it could not; never anything else.
    assert!(matches!(ended.0, Some(0 | 75)), "{state}: {ended:?}\n{}", sluice.log());
    if signals > 1 {
        assert!(ended.1 < Duration::from_secs(2), "a second signal ends it at once: {:?}", ended.1);
    }
    hangs.store(false, Ordering::Relaxed);
    let running = sluice.start(&[]);
    let wanted = gets(&ALL);
    let whole = || Ledger::new(&[500], &wanted).receiver(&hook).close();
    crate::stage::rest(LONG / 6, || whole().lost, |lost| *lost == 0);
    rest(kafka, &topic);
    running.stop();
    stage.judge(state, &whole());
}

/// The target's broker is cut off.
fn dead_broker(stage: &Stage) {
    let kafka = stage.kafka();
    let proxy = Proxy::start(kafka.proxied, kafka.behind);
    let pipe = Pipe::new(stage, "dead", Some(&format!("127.0.0.1:{}", kafka.proxied)));
    let load = Load::start(kafka, &pipe.topic, PARTITIONS, (0, 0), 2000, u64::MAX);
    let running = pipe.ready();
    until("events flow", LONG, || pipe.flowing());
    proxy.set(Way::Cut);
    pass(Duration::from_secs(2));
    let ended = end(running, 1);
    note(stage, "dead_broker", ended);
    assert!(proxy.harm() > 0, "the broker was cut off");
    assert!(matches!(ended.0, Some(0 | 75)), "dead broker: {ended:?}");
    proxy.set(Way::Open);
    let events = load.stop();
    pipe.finish(events);
    assert!(committed(kafka, &pipe.topic), "all offsets are committed");
}

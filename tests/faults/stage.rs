//! What a scenario is given: brokers, a seed, a size, and a place for its figures.

use crate::kafka::Kafka;
use crate::nats::Nats;
use crate::oracle::Verdict;
use serde_json::{Map, Value};
use std::cell::{Cell, OnceCell, RefCell};
use std::time::{Duration, Instant};

/// The place where scenarios run, one after the other.
pub struct Stage {
    pub seed: u64,
    /// Fewer events, fewer repetitions, the same faults.
    pub small: bool,
    /// Counts scenarios, so that no two share a topic.
    run: Cell<u32>,
    kafka: OnceCell<Kafka>,
    nats: OnceCell<Nats>,
    figures: RefCell<Map<String, Value>>,
}

impl Stage {
    pub fn new(seed: u64, small: bool) -> Self {
        Self {
            seed,
            small,
            run: Cell::default(),
            kafka: OnceCell::new(),
            nats: OnceCell::new(),
            figures: RefCell::default(),
        }
    }

    /// The broker, started when first asked for.
    pub fn kafka(&self) -> &Kafka {
        self.kafka.get_or_init(Kafka::start)
    }

    /// The NATS server, started when first asked for.
    pub fn nats(&self) -> &Nats {
        self.nats.get_or_init(Nats::start)
    }

    /// Begins a scenario.
    pub fn begin(&self) {
        self.run.set(self.run.get() + 1);
        self.figures.borrow_mut().clear();
    }

    /// Gives up servers that a failed scenario may have left dead.
    pub fn renew(&mut self) {
        drop((self.kafka.take(), self.nats.take()));
    }

    /// A name that no other scenario has.
    pub fn name(&self, base: &str) -> String {
        format!("{base}-{}", self.run.get())
    }

    /// `small` in a small run, else `full`.
    pub fn pick<T>(&self, full: T, small: T) -> T {
        if self.small { small } else { full }
    }

    /// The scenario's randomness; the same for the same seed.
    pub fn rng(&self) -> Rng {
        Rng(self.seed)
    }

    /// Notes a figure for the scenario's line.
    pub fn note(&self, name: &str, value: impl Into<Value>) {
        self.figures.borrow_mut().insert(name.to_owned(), value.into());
    }

    /// Notes what the oracle found and asserts what holds under every fault: nothing lost, altered, astray, or repeated
    /// under another delivery id. Figures of several targets add up.
    pub fn judge(&self, what: &str, verdict: &Verdict) {
        for (name, count) in verdict.figures() {
            let before = self.figures.borrow().get(name).and_then(Value::as_u64).unwrap_or(0);
            self.note(name, before + count);
        }
        let Verdict { lost, altered, stray, renamed, .. } = verdict;
        assert!(*lost == 0, "{what}: {lost} events are lost, the first is {:?}", verdict.first_lost);
        assert!(*altered == 0, "{what}: {altered} payloads are altered");
        assert!(*stray == 0, "{what}: {stray} deliveries to a target that does not match");
        assert!(*renamed == 0, "{what}: {renamed} repetitions carry another delivery id");
    }

    /// Notes why a scenario cannot be played on this machine.
    pub fn skip(&self, why: &str) {
        self.note("skipped", why);
    }

    /// What has been noted.
    pub fn figures(&self) -> Map<String, Value> {
        self.figures.borrow().clone()
    }
}

/// SplitMix64.
pub struct Rng(u64);

impl Rng {
    /// Randomness for one of several at once.
    pub fn new(seed: u64, one: u64) -> Self {
        Self(seed ^ one.wrapping_mul(0x9e37_79b9))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// A time of the schedule, between two.
    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

/// Waits for a condition.
pub fn until(what: &str, patience: Duration, mut done: impl FnMut() -> bool) -> Duration {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < patience, "not within {} s: {what}", patience.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
    begin.elapsed()
}

/// Waits until what it looks at is as wanted, or has stood still for a time: what is missing then is for the judge.
pub fn rest<T: PartialEq>(still: Duration, mut look: impl FnMut() -> T, done: impl Fn(&T) -> bool) {
    let (mut seen, mut since) = (look(), Instant::now());
    while !done(&seen) && since.elapsed() < still {
        std::thread::sleep(Duration::from_millis(50));
        let now = look();
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
    }
}

/// Whether a count has grown since its first answer.
pub fn grows<T: PartialOrd + Copy>(count: impl Fn() -> Option<T>) -> impl FnMut() -> bool {
    let mut before = None;
    move || {
        let now = count();
        before = before.or(now);
        now > before
    }
}

/// Lets the schedule's next moment come.
pub fn pass(time: Duration) {
    std::thread::sleep(time);
}

/// The largest of some times, in seconds.
pub fn worst(times: &[Duration]) -> f64 {
    times.iter().max().map_or(0.0, Duration::as_secs_f64)
}

/// The middle one of some times, in seconds.
pub fn median(times: &[Duration]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).map_or(0.0, Duration::as_secs_f64)
}

//! The pure parts together, from a seed: tracker, credit, retry, breaker, what waits, and the journal's bytes, through
//! failures, full disks, rebalances and crashes. Threads, sockets and files are what is left out.
//!
//! A seed that fails is cut to the fewest steps that still fail, and printed as a row for [`ROWS`].

use sluice::ack::{OffsetTracker, Pending, Receipt, Report};
use sluice::catalog::RetryPolicy;
use sluice::credit::{Credit, Window};
use sluice::deliver::breaker::{Admit, Breaker};
use sluice::deliver::retry::{self, Class, Next, Wait};
use sluice::deliver::retry_log::waiting::{Entry, Waiting};
use sluice::envelope::DeliveryId;
use sluice::journal::{self, Kind, Place, Replay};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PARTITIONS: usize = 3;
/// Events of a partition.
const EVENTS: i64 = 60;
/// Targets; the last keeps the order of keys.
const TARGETS: usize = 3;
const SEGMENT: usize = 600;

/// Seeds and steps that once failed.
const ROWS: &[(u64, u32)] = &[(132, 865)];

/// One event for one target: partition, offset, target.
type Id = (usize, i64, usize);

/// Whether an event is meant for a target, known without a matcher.
fn meant((partition, offset, target): Id) -> bool {
    (partition as i64 + offset * 7 + target as i64).rem_euclid(3) != 0
}

fn order((partition, offset, target): Id) -> u64 {
    if target == TARGETS - 1 { (partition as u64) * 4 + (offset % 4) as u64 + 1 } else { 0 }
}

struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % below
    }
}

/// A delivery in memory.
#[derive(Debug)]
struct Delivery {
    id: Id,
    failed: u32,
    hold: Hold,
}

enum Hold {
    Source(Pending),
    Log(u64),
}

impl std::fmt::Debug for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if let Hold::Log(_) = self { "log" } else { "source" })
    }
}

/// A journal whose disk is memory; what was not synced may be cut by a crash.
#[derive(Default)]
struct Disk {
    segments: BTreeMap<u64, Vec<u8>>,
    synced: usize,
    number: u64,
    replay: Replay,
}

impl Disk {
    fn write(&mut self, kind: Kind, sequence: u64, body: &[u8], sync: bool) {
        if self.segments.last_key_value().is_none_or(|(_, bytes)| bytes.len() > SEGMENT) {
            self.number += 1;
            self.segments.insert(self.number, journal::header(self.replay.next).to_vec());
            self.replay.index.begin(self.number, self.replay.next);
        }
        let mut last = self.segments.last_entry().expect("a segment");
        let start = last.get().len();
        journal::push(last.get_mut(), kind, sequence, body);
        let len = last.get().len();
        if kind == Kind::Put {
            self.replay.index.place(sequence, start as u32, (len - start) as u32);
            self.replay.next = sequence + 1;
        }
        if sync {
            self.synced = len;
        }
        for spent in self.replay.index.take_spent(1) {
            self.segments.remove(&spent);
        }
    }

    fn remove(&mut self, sequence: u64) {
        assert!(self.replay.index.remove(sequence), "a record is done with once");
        self.write(Kind::Gone, sequence, &[], false);
    }

    fn read(&self, sequence: u64) -> Option<Id> {
        let Place { segment, offset, len } = self.replay.index.find(sequence)?;
        let body = journal::body(&self.segments[&segment][offset as usize..][..len as usize]).expect("sound bytes");
        Some((body[0].into(), body[1].into(), body[2].into()))
    }

    /// What is left after a crash that loses `lost` of the bytes that were not synced.
    fn crash(&mut self, lost: usize) -> Vec<journal::Live> {
        let last = self.segments.keys().next_back().copied();
        self.replay = Replay::default();
        for (number, bytes) in &mut self.segments {
            let newest = Some(*number) == last;
            if newest {
                let keep = bytes.len().saturating_sub(lost).max(self.synced.min(bytes.len()));
                bytes.truncate(keep);
            }
            if let Some(len) = self.replay.segment((*number, newest), bytes).expect("a segment") {
                bytes.truncate(len);
            }
        }
        assert_eq!(self.replay.skipped, 0);
        // The next segment is a new one.
        self.number += 1;
        self.segments.insert(self.number, journal::header(self.replay.next).to_vec());
        self.replay.index.begin(self.number, self.replay.next);
        self.synced = 0;
        self.replay.live()
    }
}

/// One target with its log.
#[derive(Default)]
struct Target {
    up: bool,
    full: bool,
    breaker: Breaker,
    waiting: Waiting<Delivery>,
    disk: Disk,
    /// Put and not yet on the disk: the record's number, its delivery, when it is due.
    putting: Vec<(u64, Delivery, u64)>,
    under_way: Vec<Delivery>,
    /// In memory until then.
    moments: Vec<(u64, Delivery)>,
}

struct World {
    random: Random,
    start: Instant,
    now: u64,
    tracker: OffsetTracker,
    credit: Arc<Credit>,
    report: Arc<Report>,
    committed: [i64; PARTITIONS],
    position: [i64; PARTITIONS],
    targets: Vec<Target>,
    /// How often each was delivered, or given up.
    ended: HashMap<Id, u32>,
    /// The last first delivery of each lane.
    last: HashMap<(usize, u64), i64>,
    /// Crashes and rebalances.
    faults: u32,
}

const POLICY: RetryPolicy = RetryPolicy {
    max_attempts: 6,
    max_age: Duration::from_hours(24),
    initial: Duration::from_millis(80),
    max: Duration::from_secs(2),
    jitter: true,
};

impl World {
    fn new(seed: u64) -> Self {
        let mut tracker = OffsetTracker::default();
        for _ in 0..PARTITIONS {
            let partition = tracker.add();
            tracker.assign(partition);
        }
        Self {
            random: Random(seed),
            start: Instant::now(),
            now: 0,
            tracker,
            credit: Arc::new(Credit::new(Window { events: 12, bytes: 1 << 20 })),
            report: Arc::default(),
            committed: [0; PARTITIONS],
            position: [0; PARTITIONS],
            targets: (0..TARGETS).map(|_| Target { up: true, ..Target::default() }).collect(),
            ended: HashMap::new(),
            last: HashMap::new(),
            faults: 0,
        }
    }

    fn at(&self, millis: u64) -> Instant {
        self.start + Duration::from_millis(millis)
    }

    fn step(&mut self) {
        match self.random.next(100) {
            0..22 => self.read(),
            22..52 => self.attempt_ends(),
            52..67 => self.sync(),
            67..85 => self.time(),
            85..93 => self.commit(),
            93..96 => {
                let target = self.random.next(TARGETS as u64) as usize;
                self.targets[target].up = self.random.next(2) == 0;
            }
            96..98 => {
                let target = self.random.next(TARGETS as u64) as usize;
                self.targets[target].full = self.random.next(3) == 0;
            }
            98 => self.rebalance(),
            _ => match self.random.next(4) {
                0 => self.crash(),
                _ => self.time(),
            },
        }
    }

    fn read(&mut self) {
        let partition = self.random.next(PARTITIONS as u64) as usize;
        let (from, count) = (self.position[partition], self.random.next(4) as i64 + 1);
        let to = (from + count).min(EVENTS);
        if self.credit.exhausted() || from == to {
            return;
        }
        self.position[partition] = to;
        let run = self.tracker.open(partition as u32, to, (to - from) as u32, 10);
        let receipt = Receipt::open(run, &self.report, &self.credit);
        for offset in from..to {
            for id in (0..TARGETS).map(|target| (partition, offset, target)).filter(|id| meant(*id)) {
                self.submit(Delivery { id, failed: 0, hold: Hold::Source(receipt.pending()) });
            }
        }
        receipt.close();
    }

    /// As `Outlet::submit`.
    fn submit(&mut self, delivery: Delivery) {
        let (order, now) = (order(delivery.id), self.now);
        let target = delivery.id.2;
        if order == 0 {
            return self.begin(delivery);
        }
        if self.targets[target].waiting.is_logged(order) {
            match self.put(delivery, now) {
                Ok(entry) => self.targets[target].waiting.add(entry),
                Err(delivery) => drop(self.targets[target].waiting.arrive(order, delivery)),
            }
        } else if let Some(delivery) = self.targets[target].waiting.arrive(order, delivery) {
            self.begin(delivery);
        }
    }

    /// As `Outlet::begin`.
    fn begin(&mut self, delivery: Delivery) {
        let target = delivery.id.2;
        match self.targets[target].breaker.is_closed() {
            true => self.targets[target].under_way.push(delivery),
            false => {
                if let Err(delivery) = self.keep(delivery, self.now) {
                    self.targets[target].under_way.push(delivery);
                }
            }
        }
    }

    /// As `RetryLog::put`: what has no order waits from when it is on the disk.
    fn put(&mut self, delivery: Delivery, due: u64) -> Result<Entry, Delivery> {
        let target = &mut self.targets[delivery.id.2];
        if matches!(delivery.hold, Hold::Log(_)) || target.full && self.random.next(2) == 0 {
            return Err(delivery);
        }
        let sequence = target.disk.replay.next + target.putting.len() as u64;
        let entry = Entry { due, sequence, failed: delivery.failed, order: order(delivery.id) };
        target.putting.push((sequence, delivery, due));
        Ok(entry)
    }

    /// As `RetryLog::keep`.
    fn keep(&mut self, delivery: Delivery, due: u64) -> Result<(), Delivery> {
        let (target, order) = (delivery.id.2, order(delivery.id));
        let entry = self.put(delivery, due)?;
        if order != 0 {
            self.targets[target].waiting.again(entry);
            for behind in self.targets[target].waiting.logged(order) {
                let logged = self.targets[target].waiting.is_logged(order);
                match if logged { self.put(behind, self.now) } else { Err(behind) } {
                    Ok(entry) => self.targets[target].waiting.add(entry),
                    Err(delivery) => drop(self.targets[target].waiting.arrive(order, delivery)),
                }
            }
        }
        Ok(())
    }

    /// What was put is on the disk, or the disk is full.
    fn sync(&mut self) {
        let target = self.random.next(TARGETS as u64) as usize;
        let putting = std::mem::take(&mut self.targets[target].putting);
        let fails = self.targets[target].full;
        for (sequence, delivery, due) in putting {
            let (id, failed) = (delivery.id, delivery.failed);
            let order = order(id);
            if fails {
                let place = &mut self.targets[target];
                let first = if order == 0 { Some(delivery) } else { place.waiting.unkept(order, sequence, delivery) };
                place.disk.replay.next = place.disk.replay.next.max(sequence + 1);
                place.moments.extend(first.map(|delivery| (due.max(self.now + 1000), delivery)));
                continue;
            }
            let disk = &mut self.targets[target].disk;
            disk.write(Kind::Put, sequence, &[id.0 as u8, id.1 as u8, id.2 as u8, failed as u8], true);
            if let Hold::Source(pending) = delivery.hold {
                pending.settle();
            }
            if order == 0 {
                self.targets[target].waiting.add(Entry { due, sequence, failed, order });
            }
        }
    }

    fn attempt_ends(&mut self) {
        let target = self.random.next(TARGETS as u64) as usize;
        let count = self.targets[target].under_way.len() as u64;
        if count == 0 {
            return;
        }
        let which = self.random.next(count) as usize;
        let mut delivery = self.targets[target].under_way.swap_remove(which);
        let good = self.targets[target].up && self.random.next(12) != 0;
        if good {
            self.targets[target].breaker.good();
            return self.delivered(delivery);
        }
        delivery.failed += 1;
        let class = if self.random.next(40) == 0 { Class::Permanent } else { Class::Retry };
        let chance = retry::jitter(DeliveryId(self.random.next(u64::MAX).into()), delivery.failed);
        let now = self.at(self.now);
        match class {
            Class::Permanent => self.targets[target].breaker.good(),
            Class::Retry => {
                self.targets[target].breaker.bad(now, Duration::ZERO, (POLICY.initial, POLICY.max), chance);
            }
        }
        match retry::next(&POLICY, delivery.failed - 1, Duration::ZERO, class, chance) {
            // Its dead-letter queue takes it.
            Next::DeadLetter(_) => self.delivered(delivery),
            Next::Again(pause) => self.again(delivery, pause),
        }
    }

    /// As `Delivery::again`.
    fn again(&mut self, delivery: Delivery, pause: Duration) {
        let (id, due) = (delivery.id, self.now + pause.as_millis() as u64);
        let sequence = if let Hold::Log(sequence) = delivery.hold { Some(sequence) } else { None };
        match (retry::wait(sequence.is_some(), false, pause), sequence) {
            (Wait::Postponed, Some(sequence)) => {
                let target = &mut self.targets[id.2];
                target.disk.write(Kind::Note, sequence, &[delivery.failed as u8], false);
                target.waiting.ended(0);
                target.waiting.again(Entry { due, sequence, failed: delivery.failed, order: order(id) });
            }
            (Wait::Log, _) => {
                if let Err(delivery) = self.keep(delivery, due) {
                    self.targets[id.2].moments.push((due, delivery));
                }
            }
            _ => self.targets[id.2].moments.push((due, delivery)),
        }
    }

    fn delivered(&mut self, delivery: Delivery) {
        let id = delivery.id;
        let times = self.ended.entry(id).or_default();
        *times += 1;
        assert!(*times == 1 || self.faults > 0, "{id:?} was delivered twice without a fault");
        if *times == 1 && order(id) != 0 {
            let before = self.last.insert((id.2, order(id)), id.1);
            assert!(before.is_none_or(|before| before < id.1), "{id:?} comes after {before:?}");
        }
        match delivery.hold {
            Hold::Source(pending) => pending.settle(),
            Hold::Log(sequence) => {
                self.targets[id.2].disk.remove(sequence);
                self.targets[id.2].waiting.ended(0);
            }
        }
        if order(id) != 0
            && let Some(next) = self.targets[id.2].waiting.end(order(id))
        {
            self.begin(next);
        }
    }

    /// Time goes on: what is due is tried.
    fn time(&mut self) {
        self.now += self.random.next(300);
        for target in 0..TARGETS {
            let now = self.now;
            let moments = std::mem::take(&mut self.targets[target].moments);
            let (due, rest): (Vec<_>, Vec<_>) = moments.into_iter().partition(|(at, _)| *at <= now);
            self.targets[target].moments = rest;
            for (_, delivery) in due {
                self.begin(delivery);
            }
            let at = self.at(now);
            let place = &mut self.targets[target];
            while place.waiting.first().is_some_and(|first| first.due <= now) {
                // What has its turn and is not on the disk yet waits for a moment.
                let first = place.waiting.first().expect("a record");
                if place.putting.iter().any(|(sequence, ..)| *sequence == first.sequence) {
                    break;
                }
                if place.breaker.admit(at) != Admit::Yes {
                    break;
                }
                let entry = place.waiting.take().expect("a record");
                let id = place.disk.read(entry.sequence).expect("what waits is live");
                place.under_way.push(Delivery { id, failed: entry.failed, hold: Hold::Log(entry.sequence) });
            }
        }
    }

    fn commit(&mut self) {
        for run in self.report.take(Duration::ZERO) {
            self.tracker.settle(&run);
        }
        for (partition, offset) in self.tracker.committable() {
            let partition = partition as usize;
            assert!(offset > self.committed[partition] || self.faults > 0, "commits go forward");
            for before in self.committed[partition]..offset {
                self.is_safe(partition, before);
            }
            self.committed[partition] = offset;
        }
    }

    /// I1: what is committed has ended, or a log has it on its disk.
    fn is_safe(&self, partition: usize, offset: i64) {
        for id in (0..TARGETS).map(|target| (partition, offset, target)).filter(|id| meant(*id)) {
            let disk = &self.targets[id.2].disk;
            let kept = || disk.replay.index.live_records().any(|sequence| disk.read(sequence) == Some(id));
            assert!(self.ended.contains_key(&id) || kept(), "{id:?} is committed and nobody has it");
        }
    }

    fn rebalance(&mut self) {
        self.faults += 1;
        let partition = self.random.next(PARTITIONS as u64) as usize;
        // What settles from now on counts for nothing.
        self.tracker.assign(partition as u32);
        self.position[partition] = self.committed[partition];
    }

    fn crash(&mut self) {
        self.faults += 1;
        let mut fresh = World::new(0);
        std::mem::swap(&mut self.tracker, &mut fresh.tracker);
        (self.credit, self.report) = (fresh.credit, fresh.report);
        self.position = self.committed;
        for target in &mut self.targets {
            let lost = self.random.next(200) as usize;
            let live = target.disk.crash(lost);
            let (up, full, disk) = (target.up, target.full, std::mem::take(&mut target.disk));
            *target = Target { up, full, disk, ..Target::default() };
            for journal::Live { sequence, note } in live {
                let id = target.disk.read(sequence).expect("live");
                let failed = note.map_or(0, |note| u32::from(note[0]));
                target.waiting.add(Entry { due: self.now, sequence, failed, order: order(id) });
            }
        }
    }

    /// Without faults everything ends.
    fn finish(&mut self) {
        for target in &mut self.targets {
            (target.up, target.full) = (true, false);
        }
        for _ in 0..200_000 {
            let idle = self.committed.iter().all(|committed| *committed == EVENTS)
                && self.targets.iter().all(|target| target.disk.replay.index.live() == 0 && target.putting.is_empty());
            if idle {
                break;
            }
            match self.random.next(5) {
                0 => self.read(),
                1 => self.sync(),
                2 => self.time(),
                3 => self.commit(),
                _ => self.attempt_ends(),
            }
        }
        let ids = (0..PARTITIONS).flat_map(|p| (0..EVENTS).flat_map(move |o| (0..TARGETS).map(move |t| (p, o, t))));
        for id in ids.filter(|id| meant(*id)) {
            assert!(self.ended.contains_key(&id), "{id:?} is lost");
        }
        assert_eq!((self.credit.events(), self.tracker.idle()), (0, true), "all credit is back");
    }
}

fn run(seed: u64, steps: u32) {
    let mut world = World::new(seed);
    for _ in 0..steps {
        world.step();
    }
    world.finish();
}

#[test]
fn rows() {
    for (seed, steps) in ROWS {
        run(*seed, *steps);
    }
}

#[test]
fn ten_thousand_seeds() {
    let seeds = std::env::var("SLUICE_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let fails = |seed: u64, steps: u32| std::panic::catch_unwind(|| run(seed, steps)).is_err();
    let halves: Vec<_> = (0..2u64)
        .map(|half| {
            std::thread::spawn(move || (0..seeds).filter(|seed| seed % 2 == half).find(|seed| fails(*seed, 1000)))
        })
        .collect();
    let failed: Vec<u64> = halves.into_iter().filter_map(|half| half.join().expect("a thread")).collect();
    let row = failed.first().map(|seed| (*seed, (0..=1000).find(|steps| fails(*seed, *steps)).unwrap_or(1000)));
    std::panic::set_hook(hook);
    if let Some((seed, steps)) = row {
        println!("a row for ROWS: ({seed}, {steps})");
        run(seed, steps);
    }
}

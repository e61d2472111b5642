//! F01b and F09b: deliveries that are under way when their process dies, or when their partition goes to another member.

use crate::load::fill;
use crate::oracle::{Ledger, event};
use crate::process::{Running, Sluice};
use crate::receiver::{Act, Receiver};
use crate::setup::{LONG, Route, config, gets, reads, rest};
use crate::stage::{Stage, pass, until};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const PARTITIONS: u64 = 2;
const ALL: [u64; 10] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
/// How long the first member's endpoint takes: longer than a member waits when its partitions are taken away.
const SLOW: Duration = Duration::from_secs(8);

/// F01b: the process is killed while the oldest of its deliveries hang and later ones have ended.
pub fn oldest_hang(stage: &Stage) {
    const EVENTS: u64 = 2000;
    let (kafka, topic) = (stage.kafka(), stage.name("f01b"));
    kafka.topics(&[(&topic, PARTITIONS as i32, &[])]);
    let hangs = Arc::new(AtomicBool::new(true));
    let flag = Arc::clone(&hangs);
    let slow = Receiver::start(move |_, _| if flag.load(Ordering::Relaxed) { Act::Hang } else { Act::ok() });
    let quick = Receiver::start(|_, _| Act::ok());
    let target = |hook: &Receiver| format!("http: {{ url: \"{}\", timeout: 20s }}", hook.url);
    let (oldest, others) = ([0], [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    let routes = [
        Route { name: "slow", remainders: &oldest, target: target(&slow) },
        Route { name: "quick", remainders: &others, target: target(&quick) },
    ];
    let head = "limits: { retry_log_bytes: 0 }\n";
    let sluice = Sluice::new(&config(head, &reads(&kafka.servers, &topic, ", instance_id: f01b"), &routes, ""));
    // Some whole batches of the others behind two batches with an event that hangs.
    let sender = kafka.producer();
    let mut numbers: Vec<u64> = (0..EVENTS).collect();
    numbers.sort_by_key(|n| n % 10);
    for n in numbers {
        let partition = (n / 10 % PARTITIONS) as i32;
        sender.send(&topic, Some(partition), "k", event(0, n).as_bytes(), &[]);
    }
    sender.flush();
    let running = sluice.start(&[]);
    until("later ones have ended", LONG, || quick.count() as u64 > EVENTS / 2 && slow.count() > 0);
    // Two commits' time.
    pass(Duration::from_secs(1));
    running.kill();
    let before = kafka.committed(&topic, &topic);
    hangs.store(false, Ordering::Relaxed);
    let running = sluice.start(&[]);
    rest(kafka, &topic);
    running.stop();
    stage.note("events", EVENTS);
    stage.note("committed_at_death", before.iter().sum::<i64>());
    for (name, hook, gets) in [("slow", &slow, gets(&oldest)), ("quick", &quick, gets(&others))] {
        stage.judge(name, &Ledger::new(&[EVENTS], &gets).receiver(hook).close());
    }
    assert!(kafka.committed(&topic, &topic) == kafka.ends(&topic), "all offsets are committed");
}

/// F09b: the first member has everything under way when the second one joins, overtakes it, and commits; what the first one's
/// deliveries settle then is of an assignment that is over.
pub fn late_settlements(stage: &Stage) {
    const EVENTS: u64 = 1200;
    let (kafka, topic) = (stage.kafka(), stage.name("f09b"));
    kafka.topics(&[(&topic, PARTITIONS as i32, &[])]);
    let slow = Arc::new(AtomicBool::new(true));
    let flag = Arc::clone(&slow);
    let first = Receiver::start(move |_, _| {
        if flag.load(Ordering::Relaxed) {
            pass(SLOW);
        }
        Act::ok()
    });
    let second = Receiver::start(|_, _| Act::ok());
    let member = |hook: &Receiver| {
        let target = format!("http: {{ url: \"{}\", max_in_flight: 400, timeout: 20s }}", hook.url);
        let routes = [Route { name: "hook", remainders: &ALL, target }];
        // Without retry logs, the source is held for as long as a delivery is under way.
        Sluice::new(&config("limits: { retry_log_bytes: 0 }\n", &reads(&kafka.servers, &topic, ""), &routes, ""))
    };
    let (one, other) = (member(&first), member(&second));
    fill(kafka, &topic, PARTITIONS, EVENTS);
    let running = one.start(&[]);
    until("its deliveries are under way", LONG, || running.metric("sluice_target_in_flight", "") >= 400.0);
    let joined = other.start(&[]);
    slow.store(false, Ordering::Relaxed);
    let (mut seen, mut backward, begin) = (vec![-1; PARTITIONS as usize], 0, Instant::now());
    let mut look = || {
        for (before, now) in seen.iter_mut().zip(kafka.committed(&topic, &topic)) {
            backward += u64::from(now < *before);
            *before = now;
        }
        begin.elapsed() > SLOW * 2
    };
    until("the late ones have settled", LONG, &mut look);
    rest(kafka, &topic);
    look();
    stage.note("events", EVENTS);
    stage.note("backward_commits", backward);
    stage.note("taken_over", second.count());
    let to = gets(&ALL);
    let verdict = Ledger::new(&[EVENTS], &to).receiver(&first).receiver(&second).close();
    [running, joined].into_iter().for_each(Running::stop);
    stage.judge("endpoints", &verdict);
    assert_eq!(backward, 0, "commits of an assignment that is over: offsets went backward");
    assert!(second.count() > 0, "the second member took a partition over");
    assert!(verdict.duplicates > 0, "the first member's deliveries ended late");
}

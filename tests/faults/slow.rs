//! F06 to F08: targets that hang, stall, and fail for good while their dead-letter topic refuses writes.

use crate::kafka::Kafka;
use crate::load::{Load, fill};
use crate::oracle::Ledger;
use crate::ports::free_port;
use crate::process::{Running, Sluice};
use crate::receiver::{Act, Receiver};
use crate::setup::{LONG, Route, STUBBORN, committed, config, gets, reads, writes};
use crate::stage::{Stage, pass, rest, until};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const PARTITIONS: u64 = 4;

/// A receiver that hangs while its flag is set.
fn hanging() -> (Receiver, Arc<AtomicBool>) {
    let hangs = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&hangs);
    (Receiver::start(move |_, _| if flag.load(Ordering::Relaxed) { Act::Hang } else { Act::ok() }), hangs)
}

/// F06: one of ten targets hangs and recovers; one of the others keeps the order of its keys.
pub fn one_target_hangs(stage: &Stage) {
    let (window, rate) = (stage.pick(20, 8), stage.pick(1000, 600));
    let (kafka, topic, out) = (stage.kafka(), stage.name("f06"), stage.name("f06-out"));
    kafka.topics(&[(&topic, PARTITIONS as i32, &[]), (&out, PARTITIONS as i32, &[])]);
    let (sick, hangs) = hanging();
    let (ordered, ordered_hangs) = hanging();
    let well = Receiver::start(|_, _| Act::ok());
    let http = |url: &str, more: &str| format!("http: {{ url: \"{url}\", timeout: 2s }}{more}, {STUBBORN}");
    let routes = [
        Route { name: "sick", remainders: &[0], target: http(&sick.url, "") },
        Route { name: "ordered", remainders: &[1], target: http(&ordered.url, ", ordering: key") },
        Route { name: "well", remainders: &[2, 3], target: http(&well.url, "") },
        Route { name: "topic", remainders: &[4, 5, 6, 7, 8, 9], target: writes(&kafka.servers, &out) },
    ];
    let head = "limits: { in_flight_events: 4096 }\n";
    let sluice = Sluice::new(&config(head, &reads(&kafka.servers, &topic, ""), &routes, ""));
    let mut running = sluice.start(&[]);
    let load = Load::start(kafka, &topic, PARTITIONS, (0, 0), rate, u64::MAX);
    until("events flow", LONG, || well.count() > 0 && sick.count() > 0);
    let healthy = || kafka.ends(&out).iter().sum::<i64>() as f64 + well.count() as f64;
    let measure = || {
        let before = healthy();
        pass(Duration::from_secs(window));
        healthy() - before
    };
    let baseline = measure();
    hangs.store(true, Ordering::Relaxed);
    ordered_hangs.store(true, Ordering::Relaxed);
    let hung = measure();
    let held =
        load.sent() / 10 - sick.requests().iter().filter(|request| request.answer.starts_with('2')).count() as u64;
    hangs.store(false, Ordering::Relaxed);
    ordered_hangs.store(false, Ordering::Relaxed);
    let events = load.stop();
    let (to_sick, to_ordered, to_well, to_topic) = (gets(&[0]), gets(&[1]), gets(&[2, 3]), gets(&[4, 5, 6, 7, 8, 9]));
    let open =
        |receiver: &Receiver, wanted: &dyn Fn(u64) -> bool| Ledger::new(&[events], wanted).receiver(receiver).close();
    let drained = until("what hung is delivered after the recovery; else it is lost", Duration::from_secs(60), || {
        open(&sick, &to_sick).lost == 0 && open(&ordered, &to_ordered).lost == 0
    });
    until("all offsets are committed", LONG, || committed(kafka, &topic));
    assert!(running.lives());
    stage.note("rss_mib", running.peak_mib().round());
    running.stop();
    stage.note("events", events);
    stage.note("held", held);
    stage.note("healthy_share", hung / baseline);
    stage.note("drain_seconds", drained.as_secs_f64());
    for (name, verdict) in [("sick", open(&sick, &to_sick)), ("well", open(&well, &to_well))] {
        stage.judge(name, &verdict);
    }
    stage.judge("topic", &Ledger::new(&[events], &to_topic).topic(kafka, &out).close());
    let mut kept = Ledger::new(&[events], &to_ordered);
    for request in ordered.requests().iter().filter(|request| request.answer.starts_with('2')) {
        kept.take(&request.body, request.header("webhook-id"));
    }
    let kept = kept.close();
    stage.judge("ordered", &kept);
    assert_eq!(kept.inversions, 0, "an ordered target keeps the order of each key");
    assert!(held > 50, "{held} deliveries waited for the hung target");
    assert!(hung >= 0.95 * baseline, "{hung} of {baseline} events reached the healthy targets while one hung");
    assert!(drained < Duration::from_secs(30), "{drained:?} to drain after the recovery");
}

/// F07: a target stalls while the source runs at full speed, with many rules: first the retry log fills, then the source
/// is paused, and nothing grows any more.
pub fn memory_stays_bounded(stage: &Stage) {
    const RULES: usize = 10_000;
    let (events, log) = stage.pick((200_000, "32MiB"), (120_000, "16MiB"));
    let (calm, watched) = stage.pick((30, 45), (10, 5));
    let (kafka, topic) = (stage.kafka(), stage.name("f07"));
    kafka.topics(&[(&topic, PARTITIONS as i32, &[])]);
    let (sick, hangs) = hanging();
    hangs.store(true, Ordering::Relaxed);
    let target = format!("http: {{ url: \"{}\", timeout: 2s, max_in_flight: 64 }}, {STUBBORN}", sick.url);
    let to_sick = [0, 1, 2, 3, 4];
    let routes = [Route { name: "sick", remainders: &to_sick, target }];
    let head = format!("limits: {{ retry_log_bytes: {log} }}\n");
    let mut text = config(&head, &reads(&kafka.servers, &topic, ""), &routes, "");
    for rule in 0..RULES {
        text += &format!("  more-{rule}: {{ pattern: {{ detail: {{ k: [none-{rule}] }} }}, targets: [sick] }}\n");
    }
    let sluice = Sluice::new(&text);
    fill(kafka, &topic, PARTITIONS, events);
    let running = sluice.start(&[]);
    until("the target is asked", LONG, || sick.count() > 0);
    let rebalances = running.metric("sluice_source_rebalances_total", "");
    pass(Duration::from_secs(calm));
    let slope = growth(&running, Duration::from_secs(watched));
    let (peak, waiting) = (running.peak_mib(), running.metric("sluice_target_retry_log_events", "sick"));
    let paused = running.metric("sluice_source_paused_partitions", "");
    let more = running.metric("sluice_source_rebalances_total", "") - rebalances;
    assert!(sick.requests().iter().all(|request| request.answer.is_empty()), "the target stalled");
    hangs.store(false, Ordering::Relaxed);
    let drained = until("all offsets are committed", LONG, || committed(kafka, &topic));
    let wanted = gets(&to_sick);
    let whole = || Ledger::new(&[events], &wanted).receiver(&sick).close();
    until("what waited is delivered; else it is lost", LONG, || whole().lost == 0);
    running.stop();
    stage.note("events", events);
    stage.note("rules", RULES);
    stage.note("rss_mib", peak.round());
    stage.note("slope_mib_per_minute", (slope * 100.0).round() / 100.0);
    stage.note("rebalances", more);
    stage.note("retry_log_events", waiting);
    stage.note("paused_partitions", paused);
    stage.note("drain_seconds", drained.as_secs_f64());
    stage.judge("sick", &whole());
    assert_eq!(more, 0.0, "the group was kept alive");
    assert!(waiting > 0.0 && paused > 0.0, "{waiting} events in the retry log, {paused} partitions paused");
    assert!(peak <= 192.0, "{peak} MiB with a stalled target, at most 192");
    assert!(stage.small || slope < 1.0, "{slope} MiB a minute with a stalled target");
}

/// How fast a process grows, in MiB a minute: the slope of the line through its sizes.
fn growth(running: &Running, time: Duration) -> f64 {
    let (begin, mut sizes) = (Instant::now(), Vec::new());
    while begin.elapsed() < time {
        sizes.push((begin.elapsed().as_secs_f64() / 60.0, running.rss_mib()));
        pass(Duration::from_millis(250));
    }
    let count = sizes.len() as f64;
    let (x, y) = sizes.iter().fold((0.0, 0.0), |(x, y), size| (x + size.0 / count, y + size.1 / count));
    let with = |f: &dyn Fn(f64, f64) -> f64| sizes.iter().map(|size| f(size.0 - x, size.1 - y)).sum::<f64>();
    with(&|dx, dy| dx * dy) / with(&|dx, _| dx * dx)
}

/// F08: a target refuses for good, and the dead-letter topic refuses writes for a while.
pub fn dead_letters_are_refused(stage: &Stage) {
    let events = stage.pick(5000, 1000);
    let (kafka, topic, dead) = (stage.kafka(), stage.name("f08"), stage.name("f08-dead"));
    // The dead-letter topic has a broker of its own.
    let (port, sasl) = (free_port(), free_port());
    let other = Kafka::start_at(port, sasl);
    other.topics(&[(&dead, 1, &[])]);
    kafka.topics(&[(&topic, PARTITIONS as i32, &[])]);
    let no = Receiver::start(|_, _| Act::status("400 Bad Request"));
    let target = format!("http: {{ url: \"{}\" }}, dead_letter: dead", no.url);
    let routes = [Route { name: "no", remainders: &[0, 1, 2, 3, 4], target }];
    let queue = format!(
        "  dead: {{ kafka: {{ brokers: \"{}\", topic: {dead}, properties: {{ message.timeout.ms: \"2000\" }} }}, retry: {{ initial: 100ms, max: 2s }} }}\n",
        other.servers
    );
    let sluice = Sluice::new(&config("", &reads(&kafka.servers, &topic, ""), &routes, &queue));
    let mut running = sluice.start(&[]);
    running.until("it is ready", LONG, |r| r.get("/readyz").is_some_and(|(status, _)| status.contains("200")));
    drop(other);
    fill(kafka, &topic, PARTITIONS, events);
    until("the target refuses", LONG, || no.count() > 0);
    let blocked = until("the gauge says that the queue is blocked", LONG, || {
        running.metric("sluice_blocked", "by=\"dlq\",target=\"dead\"") > 0.0
    });
    stage.note("blocked_after_seconds", blocked.as_secs_f64());
    until("the dead-letter topic refuses writes", LONG, || {
        running.metric("sluice_dlq_write_errors_total", "dead") > 0.0
    });
    pass(Duration::from_secs(stage.pick(20, 5)));
    stage.note("dlq_write_errors", running.metric("sluice_dlq_write_errors_total", ""));
    let wanted = gets(&[0, 1, 2, 3, 4]);
    let other = Kafka::start_at(port, sasl);
    other.topics(&[(&dead, 1, &[])]);
    let begin = Instant::now();
    rest(LONG / 9, || other.ends(&dead).iter().sum::<i64>() as u64, |count| *count >= events / 2);
    let parked = begin.elapsed();
    stage.note("dropped", running.metric("sluice_dropped_events_total", ""));
    assert_eq!(running.metric("sluice_dropped_events_total", ""), 0.0, "nothing is dropped");
    running.stop();
    stage.note("events", events);
    stage.note("park_seconds", parked.as_secs_f64());
    stage.judge("dead", &Ledger::new(&[events], &wanted).topic(&other, &dead).close());
    assert!(committed(kafka, &topic), "all offsets are committed");
    assert!(blocked <= Duration::from_secs(3), "{blocked:?} until it was said");
    assert!(parked <= Duration::from_secs(15), "{parked:?} until all were parked");
}

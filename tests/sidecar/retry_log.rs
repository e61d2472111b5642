//! Deliveries that wait for their target: what they hold up, what survives, in which order they come.

use crate::endpoint::Endpoint;
use crate::process::{Guard, Place, get, until};
use crate::receiver::{Act, Receiver, Request};
use proptest::prelude::*;
use serde_json::{Value, json};
use sluice::deliver::breaker::{Admit, Breaker};
use sluice::deliver::parcel::Kept;
use sluice::deliver::retry_log::waiting::{Entry, Waiting};
use sluice::journal::{Journal, Reserve};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The number that a test gave its event.
fn number(request: &Request) -> u64 {
    let event: Value = serde_json::from_slice(&request.body).expect("JSON");
    event["detail"]["n"].as_u64().expect("a number")
}

fn target(name: &str, receiver: &Receiver, more: &str) -> String {
    format!("  {name}: {{ http: {{ url: \"{}\", timeout: 20s }}{more} }}\n", receiver.url)
}

fn rule(targets: &str) -> String {
    format!("rules: {{ all: {{ pattern: {{ detail: {{ n: [{{ exists: true }}] }} }}, targets: [{targets}] }} }}\n")
}

/// Puts events numbered so.
fn put(endpoint: &Endpoint, numbers: std::ops::Range<u64>) {
    for n in numbers {
        let entry = json!({ "Source": "s", "DetailType": "d", "Detail": format!("{{\"n\":{n}}}") });
        let (status, answer) = endpoint.call("PutEvents", &json!({ "Entries": [entry] }));
        assert!(status == 200 && answer["FailedEntryCount"] == 0, "{answer}");
    }
}

/// Lines on standard input: one partition, so one order.
fn lines(config: &str, count: u64) -> (Place, Guard) {
    let config = format!(
        "data_dir: data\nserver: {{ listen: \"off\", admin: \"off\" }}\nlimits: {{ in_flight_events: 64 }}\n\
         sources: {{ in: {{ stdin: {{}} }} }}\n{config}"
    );
    let place = Place::new(&[("c.yaml", &config)]);
    let mut child = Guard(place.command(&["run", "-c", "c.yaml"]).spawn().expect("a process"));
    let mut stdin = child.0.stdin.take().expect("a pipe");
    std::thread::spawn(move || {
        for n in 0..count {
            writeln!(stdin, "{{\"detail\":{{\"n\":{n}}}}}").expect("a line");
        }
    });
    (place, child)
}

#[test]
fn a_target_that_hangs_holds_up_nobody() {
    let open = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&open);
    let hung = Receiver::start(move |_, _| if gate.load(Ordering::SeqCst) { Act::ok() } else { Act::Hang });
    let well = Receiver::start(|_, _| Act::ok());
    let quick = ", retry: { initial: 50ms, max: 200ms }";
    // Far more events than the source may have in flight.
    let hung_target = target("hung", &hung, quick).replace("timeout: 20s", "timeout: 2s");
    let config = format!("targets:\n{hung_target}{}{}", target("well", &well, ""), rule("hung, well"));
    let (_place, mut child) = lines(&config, 2000);
    until("the other target has everything", || well.requests().len() == 2000);
    assert!(hung.requests().len() < 500, "those wait on disk");
    open.store(true, Ordering::SeqCst);
    assert_eq!(child.0.wait().expect("a status").code(), Some(0), "the end comes when nothing waits any more");
    let delivered: BTreeSet<u64> = hung.requests().iter().map(number).collect();
    assert_eq!(delivered.len(), 2000);
    let numbers: Vec<u64> = well.requests().iter().map(number).collect();
    assert_eq!(numbers.len(), numbers.iter().collect::<BTreeSet<_>>().len(), "no repetition");
}

/// A delivery that was repeated in memory before an attempt hangs is kept with all that failed: after a death it has as
/// many attempts left as it had.
#[test]
fn repetitions_in_memory_count() {
    const QUICK: usize = 3;
    let act = |_: &Request, nth| if nth == QUICK { Act::Hang } else { Act::status("500 Internal Server Error") };
    let receiver = Receiver::start(act);
    let retry = ", retry: { initial: 1ms, max: 1ms, max_attempts: 8 }";
    let endpoint = Endpoint::start("", &format!("targets:\n{}{}", target("out", &receiver, retry), rule("out")));
    put(&endpoint, 0..1);
    let folder = endpoint.place.path().join("data/retry/out");
    let long = |file: std::fs::DirEntry| file.metadata().is_ok_and(|about| about.len() > 300);
    until("the attempt that hangs is kept", || std::fs::read_dir(&folder).is_ok_and(|files| files.flatten().any(long)));
    assert_eq!(receiver.count(), QUICK + 1);
    let Endpoint { place, mut child, .. } = endpoint;
    child.signal("-KILL");
    child.0.wait().expect("a status");
    let reserve = Arc::new(Reserve::new(place.path()));
    let (log, found) =
        Journal::<()>::open(("retry-log", &folder), 1 << 20, &reserve, Box::new(|_, _| ())).expect("a log");
    let kept = log.read(found.live[0].sequence).expect("a record");
    let (kept, _) = Kept::decode(&kept).expect("a delivery");
    assert_eq!((found.live.len(), kept.attempts.failed as usize), (1, QUICK));
}

/// Attempts fail now and then. Rows: what the target says of order, and whether others overtake.
#[test]
fn an_order_is_kept_through_repetitions() {
    for (ordering, overtaken) in [("key", false), ("partition", true)] {
        let receiver = Receiver::start(move |_, n| match n {
            3..7 | 40..60 => Act::status("503 Service Unavailable"),
            _ => Act::ok(),
        });
        let more = format!(", ordering: {ordering}, retry: {{ initial: 200ms, max: 400ms }}");
        let config = format!("targets:\n{}{}", target("out", &receiver, &more), rule("out"));
        let (_place, mut child) = lines(&config, 200);
        assert_eq!(child.0.wait().expect("a status").code(), Some(0));
        let numbers: Vec<u64> = receiver.requests().iter().map(number).collect();
        // First comes first: each first attempt after the last one of what was before it.
        let mut last = HashMap::new();
        let mut first = BTreeMap::new();
        for (at, n) in numbers.iter().enumerate() {
            last.insert(*n, at);
            first.entry(*n).or_insert(at);
        }
        assert_eq!(first.len(), 200);
        let inversions = (1..200).filter(|n| first[n] < last[&(n - 1)]).count();
        assert_eq!(inversions > 0, overtaken, "{ordering}: {numbers:?}");
    }
}

/// How often an event was tried is known through `kill -9`, and so is what became of it.
#[test]
fn attempts_are_counted_through_restarts() {
    let receiver = Receiver::start(|_, _| Act::status("503 Service Unavailable"));
    let config = format!(
        "targets:\n{}{}",
        target("out", &receiver, ", retry: { max_attempts: 6, initial: 300ms, max: 600ms }"),
        rule("out")
    );
    let mut endpoint = Endpoint::start("", &config);
    put(&endpoint, 0..1);
    for _ in 0..3 {
        let before = receiver.requests().len();
        until("an attempt", || receiver.requests().len() > before);
        endpoint = endpoint.restart("-KILL");
    }
    let letters = || dead_letters(&endpoint.place);
    until("it is a dead letter", || !letters().is_empty());
    let letter = &letters()[0];
    assert_eq!(letter["RETRY_ATTEMPTS"], "6");
    assert_eq!(letter["EXHAUSTED_RETRY_CONDITION"], "MaximumRetryAttempts");
    assert_eq!(letter["TARGET_ARN"], "arn:sluice:target:::out");
    // A kill costs an attempt that was not noted, and has the event read again that was just spilled.
    assert!((7..=28).contains(&receiver.requests().len()), "{}", receiver.requests().len());
    let ids: BTreeSet<_> = receiver.requests().iter().map(|r| r.header("webhook-id").map(str::to_owned)).collect();
    assert_eq!(ids.len(), 1, "one delivery, one id");
    endpoint.stop();
}

fn dead_letters(place: &Place) -> Vec<Value> {
    let files = std::fs::read_dir(place.path().join("data/dead-letters/default")).into_iter().flatten().flatten();
    let texts: Vec<String> = files.map(|file| std::fs::read_to_string(file.path()).expect("text")).collect();
    texts.iter().flat_map(|text| text.lines()).map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn what_waits_for_a_target_that_is_gone_is_a_dead_letter() {
    let receiver = Receiver::start(|_, _| Act::status("503 Service Unavailable"));
    let config = format!("targets:\n{}{}", target("out", &receiver, ""), rule("out"));
    let endpoint = Endpoint::start("", &config);
    put(&endpoint, 0..8);
    until("they were tried", || receiver.requests().len() >= 4);
    let text = std::fs::read_to_string(endpoint.place.path().join("c.yaml")).expect("a file");
    let other = text.replace("  out:", "  another:").replace("[out]", "[another]");
    endpoint.place.write("c.yaml", &other);
    let endpoint = endpoint.restart("-TERM");
    until("all are dead letters", || dead_letters(&endpoint.place).len() == 8);
    for letter in dead_letters(&endpoint.place) {
        assert_eq!(letter["TARGET_ARN"], "arn:sluice:target:::out");
        assert!(letter["ERROR_MESSAGE"].as_str().is_some_and(|why| why.contains("no longer declared")), "{letter}");
    }
    endpoint.stop();
}

/// While a target is down one probe at a time asks for it; when it is back, everything comes.
#[test]
fn one_probe_at_a_time_asks_for_a_target_that_is_down() {
    let down = Arc::new(AtomicBool::new(true));
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (gate, under_way, peak) = (Arc::clone(&down), Arc::clone(&now), Arc::clone(&most));
    let receiver = Receiver::start(move |_, n| {
        let together = under_way.fetch_add(1, Ordering::SeqCst) + 1;
        if n >= 40 {
            peak.fetch_max(together, Ordering::SeqCst);
        }
        std::thread::sleep(Duration::from_millis(5));
        under_way.fetch_sub(1, Ordering::SeqCst);
        if gate.load(Ordering::SeqCst) { Act::status("503 Service Unavailable") } else { Act::ok() }
    });
    let admin = crate::process::free_address();
    let config =
        format!("targets:\n{}{}", target("out", &receiver, ", retry: { initial: 20ms, max: 60ms }"), rule("out"));
    let config = format!(
        "server: {{ listen: \"off\", admin: \"{admin}\" }}\ndata_dir: data\nsources: {{ in: {{ stdin: {{}} }} }}\n{config}"
    );
    let place = Place::new(&[("c.yaml", &config)]);
    let mut child = Guard(place.command(&["run", "-c", "c.yaml"]).spawn().expect("a process"));
    let mut stdin = child.0.stdin.take().expect("a pipe");
    for n in 0..100 {
        writeln!(stdin, "{{\"detail\":{{\"n\":{n}}}}}").expect("a line");
    }
    drop(stdin);
    until("many probes have failed", || receiver.requests().len() >= 60);
    assert_eq!(most.load(Ordering::SeqCst), 1, "probes one at a time");
    let metrics = get(&admin, "/metrics").expect("metrics").1;
    assert!(metrics.contains("sluice_target_breaker_open{target=\"out\"} 1"), "{metrics}");
    let waiting = metrics.lines().find(|line| line.starts_with("sluice_target_retry_log_events")).expect("a gauge");
    assert!(waiting.ends_with(" 100"), "{waiting}");
    down.store(false, Ordering::SeqCst);
    assert_eq!(child.0.wait().expect("a status").code(), Some(0));
    assert_eq!(receiver.requests().iter().map(number).collect::<BTreeSet<_>>().len(), 100);
}

#[test]
fn a_breaker_opens_pauses_probes_and_closes() {
    let start = Instant::now();
    let at = |millis: u64| start + Duration::from_millis(millis);
    let pace = (Duration::from_secs(1), Duration::from_mins(5));
    let mut breaker = Breaker::default();
    for _ in 0..4 {
        breaker.bad(at(0), Duration::ZERO, pace, 1.0);
    }
    assert!(breaker.is_closed());
    breaker.good();
    for _ in 0..5 {
        breaker.bad(at(0), Duration::ZERO, pace, 1.0);
    }
    assert!(!breaker.is_closed(), "five in a row");
    // What began before it opened says nothing new.
    breaker.bad(at(500), Duration::from_mins(10), pace, 1.0);
    assert_eq!(breaker.admit(at(999)), Admit::NotBefore(at(1000)));
    assert_eq!(breaker.admit(at(1000)), Admit::Yes, "the probe");
    assert!(matches!(breaker.admit(at(1001)), Admit::NotBefore(_)), "one at a time");
    breaker.bad(at(1500), Duration::ZERO, pace, 0.0);
    assert_eq!(breaker.admit(at(1600)), Admit::NotBefore(at(2500)), "half of two seconds");
    assert_eq!(breaker.admit(at(2500)), Admit::Yes);
    breaker.bad(at(2600), Duration::from_secs(30), pace, 1.0);
    assert_eq!(breaker.admit(at(2700)), Admit::NotBefore(at(32_600)), "the target asked for it");
    assert_eq!(breaker.admit(at(32_600)), Admit::Yes);
    breaker.good();
    assert_eq!((breaker.admit(at(32_601)), breaker.admit(at(32_601))), (Admit::Yes, Admit::Yes));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Deliveries of a lane come one after another in the order in which they arrived, wherever each of them waits.
    #[test]
    fn a_lane_keeps_its_order(steps in prop::collection::vec((0u8..6, 1u64..4, any::<u8>()), 1..150)) {
        let mut waiting: Waiting<u64> = Waiting::default();
        let (mut next, mut under_way): (u64, BTreeMap<u64, u64>) = (1, BTreeMap::new());
        let mut arrived: HashMap<u64, Vec<u64>> = HashMap::new();
        let mut begun: HashMap<u64, Vec<u64>> = HashMap::new();
        let begin = |order: u64, n: u64, begun: &mut HashMap<u64, Vec<u64>>, under_way: &mut BTreeMap<u64, u64>| {
            assert!(under_way.insert(order, n).is_none(), "two at once");
            let seen = begun.entry(order).or_default();
            if seen.last() != Some(&n) { seen.push(n); }
        };
        let entry = |order, sequence, due: u8| Entry { due: due.into(), sequence, failed: 0, order };
        for (kind, order, chance) in steps {
            match kind {
                0 | 1 => {
                    arrived.entry(order).or_default().push(next);
                    if waiting.is_logged(order) {
                        waiting.add(entry(order, next, chance));
                    } else if let Some(n) = waiting.arrive(order, next) {
                        begin(order, n, &mut begun, &mut under_way);
                    }
                    next += 1;
                }
                // An attempt ends well.
                2 => if under_way.remove(&order).is_some()
                    && let Some(n) = waiting.end(order) {
                        begin(order, n, &mut begun, &mut under_way);
                },
                // It fails, and waits in the log.
                3 => if let Some(n) = under_way.remove(&order) {
                    waiting.again(entry(order, n, chance));
                    for n in waiting.logged(order) { waiting.add(entry(order, n, chance)); }
                },
                // What is due is tried.
                _ => if let Some(entry) = waiting.take() {
                    waiting.ended(0);
                    begin(entry.order, entry.sequence, &mut begun, &mut under_way);
                },
            }
        }
        for (order, begun) in begun {
            prop_assert_eq!(&begun[..], &arrived[&order][..begun.len()]);
        }
    }

    /// Without an order nothing that is due waits for what is not.
    #[test]
    fn what_is_due_first_comes_first(dues in prop::collection::vec(0u64..50, 1..60)) {
        let mut waiting: Waiting<()> = Waiting::default();
        for (sequence, due) in dues.iter().enumerate() {
            waiting.add(Entry { due: *due, sequence: sequence as u64, failed: 0, order: 0 });
        }
        let mut sorted: Vec<_> = dues.iter().enumerate().map(|(sequence, due)| (*due, sequence as u64)).collect();
        sorted.sort_unstable();
        let taken: Vec<_> = std::iter::from_fn(|| waiting.take()).map(|entry| (entry.due, entry.sequence)).collect();
        prop_assert_eq!(taken, sorted);
    }
}

//! F05: endpoints that misbehave in every way.

use crate::certificates::{self, Authority};
use crate::load::fill;
use crate::oracle::{Ledger, letters};
use crate::process::Sluice;
use crate::receiver::{Act, Receiver, Request};
use crate::setup::{committed, reads};
use crate::stage::{Stage, until};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What comes of a misbehaviour.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    /// It is tried again, three times in all.
    Again,
    /// Again, and no sooner than a second later.
    Later,
    /// It is given up at once.
    GivenUp,
    /// It counts as delivered.
    Delivered,
}

type Kind = (&'static str, fn() -> Act, Then);

/// The misbehaviours; an event's number modulo 12 decides which it meets.
const KINDS: [Kind; 11] = [
    ("status-500", || Act::status("500 Internal Server Error"), Then::Again),
    ("status-503", || Act::status("503 Service Unavailable"), Then::Again),
    ("status-429", || Act::Answer("429 Too Many Requests", vec![("retry-after", "1".into())], "later"), Then::Later),
    ("hang", || Act::Hang, Then::Again),
    ("byte-a-second", || Act::DripBody(Duration::from_secs(1)), Then::Again),
    ("slow-header", || Act::Drip(Duration::from_secs(1)), Then::Again),
    ("close-mid-body", || Act::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_vec()), Then::Again),
    ("reset", || Act::Reset, Then::Again),
    (
        "bad-chunk",
        || Act::Raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nno length\r\nx\r\n".to_vec()),
        Then::Again,
    ),
    ("redirect", || Act::Answer("302 Found", vec![("location", "/elsewhere".into())], ""), Then::GivenUp),
    ("endless", || Act::Endless, Then::Delivered),
];
/// Attempts at once: fewer than connections that a listener holds unopened, so that none times out before it is seen.
const ROOM: u32 = 100;
/// The twelfth: a certificate that nobody vouches for.
const BAD_TLS: &str = "bad-tls";

/// Whether an endpoint misbehaves at every attempt of a delivery, or at the first one only.
fn for_good(delivery: &str) -> bool {
    delivery.as_bytes().last().is_some_and(|digit| digit % 2 == 1)
}

/// A receiver that misbehaves, and answers well from the second attempt on where that is its way.
fn misbehaving(act: fn() -> Act) -> Receiver {
    let seen: Arc<Mutex<HashMap<String, u32>>> = Arc::default();
    Receiver::start(move |request, _| {
        if request.path == "/elsewhere" {
            return Act::ok();
        }
        let id = request.header("webhook-id").unwrap_or_default().to_owned();
        let mut seen = seen.lock().expect("a lock");
        let attempts = seen.entry(id.clone()).or_default();
        *attempts += 1;
        if *attempts == 1 || for_good(&id) { act() } else { Act::ok() }
    })
}

/// Without retry logs, and so without breakers: an endpoint that only ever fails would be probed by one attempt at a time.
fn configuration(source: &str, urls: &[(&str, String)]) -> String {
    let mut text = format!(
        "data_dir: data\nlimits: {{ retry_log_bytes: 0 }}\nserver: {{ listen: \"off\", admin: \"{{admin}}\" }}\nsources:\n  in: {{ {source} }}\ntargets:\n"
    );
    for (name, url) in urls {
        // Where the time decides, it is short; elsewhere a busy machine must not end attempts.
        let timeout = if ["hang", "byte-a-second", "slow-header"].contains(name) { "2s" } else { "20s" };
        text += &format!(
            "  {name}: {{ http: {{ url: \"{url}\", timeout: {timeout}, max_in_flight: {ROOM} }}, \
             retry: {{ initial: 20ms, max: 50ms, max_attempts: 2 }} }}\n"
        );
    }
    text += "rules:\n";
    for (number, (name, _)) in urls.iter().enumerate() {
        text += &format!("  r-{name}: {{ pattern: {{ detail: {{ h: [{number}] }} }}, targets: [{name}] }}\n");
    }
    text
}

/// F05.
pub fn endpoints_misbehave(stage: &Stage) {
    let each = stage.pick(500, 60);
    let events = each * 12;
    let (kafka, topic) = (stage.kafka(), stage.name("f05"));
    kafka.topics(&[(&topic, 4, &[])]);
    fill(kafka, &topic, 4, events);
    let receivers: Vec<Receiver> = KINDS.iter().map(|(_, act, _)| misbehaving(*act)).collect();
    let tls = certificates::serve(&Authority::new(), false);
    let mut urls: Vec<(&str, String)> =
        KINDS.iter().zip(&receivers).map(|((name, ..), receiver)| (*name, receiver.url.clone())).collect();
    urls.push((BAD_TLS, tls.url.clone()));
    let sluice = Sluice::new(&configuration(&reads(&kafka.servers, &topic, ""), &urls));
    let begin = Instant::now();
    let running = sluice.start(&[]);
    until("every event has an end", Duration::from_secs(150), || ended(&running) >= events as f64);
    until("all offsets are committed", Duration::from_secs(30), || committed(kafka, &topic));
    running.stop();
    stage.note("events", events);
    stage.note("kinds", KINDS.len() + 1);
    stage.note("seconds_to_settle", begin.elapsed().as_secs_f64());
    let letters = letters(&sluice);
    for (number, ((name, _, then), receiver)) in KINDS.iter().zip(&receivers).enumerate() {
        judge(stage, (name, number as u64, events), *then, receiver, &sluice, &letters);
    }
    assert_eq!(tls.versions().len(), 0, "nothing is sent to who shows a bad certificate");
    let wanted = |n: u64| n % 12 == 11;
    let dead = Ledger::new(&[events], &wanted).dead_letters(&sluice, |letter| is_of(letter, BAD_TLS));
    stage.judge(BAD_TLS, &dead.close());
    for letter in letters.iter().filter(|letter| is_of(letter, BAD_TLS)) {
        assert_eq!(letter["RETRY_ATTEMPTS"], "2", "{BAD_TLS}: {letter}");
    }
}

/// Deliveries that have ended.
fn ended(running: &crate::process::Running) -> f64 {
    running.metric("sluice_target_deliveries_total", "outcome=\"dead_lettered\"")
        + KINDS
            .iter()
            .map(|(name, ..)| *name)
            .chain([BAD_TLS])
            .map(|name| {
                running.metric("sluice_target_deliveries_total", &format!("target=\"{name}\",outcome=\"delivered\""))
            })
            .sum::<f64>()
}

fn is_of(letter: &Value, target: &str) -> bool {
    letter["TARGET_ARN"].as_str().is_some_and(|arn| arn.ends_with(&format!(":{target}")))
}

/// Each event either delivered or dead, after as many attempts as the policy says.
fn judge(
    stage: &Stage,
    (name, number, events): (&str, u64, u64),
    then: Then,
    receiver: &Receiver,
    sluice: &Sluice,
    letters: &[Value],
) {
    let requests = receiver.requests();
    let mut attempts: BTreeMap<&str, Vec<&Request>> = BTreeMap::new();
    for request in &requests {
        assert_ne!(request.path, "/elsewhere", "{name}: no redirect is followed");
        attempts.entry(request.header("webhook-id").expect("an id")).or_default().push(request);
    }
    assert!(requests.len() as u64 >= events / 12, "{name}: the endpoint was asked");
    let mut ids: BTreeMap<&[u8], &str> = BTreeMap::new();
    for request in requests.iter().filter(|request| !request.body.is_empty()) {
        let id = request.header("webhook-id").expect("an id");
        assert_eq!(ids.entry(&request.body).or_insert(id), &id, "{name}: attempts of one event differ in delivery ids");
    }
    for (id, tries) in &attempts {
        let expected = match then {
            Then::GivenUp | Then::Delivered => 1,
            _ if for_good(id) => 3,
            _ => 2,
        };
        assert_eq!(tries.len(), expected, "{name}: attempts of {id}");
        if then == Then::Later {
            let soonest = tries.windows(2).map(|two| two[1].at - two[0].at).min().expect("two attempts");
            assert!(soonest >= Duration::from_millis(990), "{name}: {soonest:?} is sooner than asked for");
        }
    }
    let wanted = |n: u64| n % 12 == number;
    let mut all = Ledger::new(&[events], &wanted).dead_letters(sluice, |letter| is_of(letter, name));
    let dead = letters.iter().filter(|letter| is_of(letter, name)).count();
    for request in &requests {
        let good = then == Then::Delivered || request.answer.starts_with("200");
        if good {
            all.take(&request.body, request.header("webhook-id"));
        }
    }
    let verdict = all.close();
    stage.judge(name, &verdict);
    assert_eq!(verdict.duplicates, 0, "{name}: each event is delivered or dead, not both");
    let doomed = attempts.keys().filter(|id| then == Then::GivenUp || then != Then::Delivered && for_good(id)).count();
    assert_eq!(dead, doomed, "{name}: dead letters");
    if then == Then::Delivered {
        stage.note("endless_bytes", receiver.written());
        // What we read, and what the sockets between hold.
        assert!(receiver.written() < 16 << 20, "{name}: {} bytes of an answer were taken", receiver.written());
    }
}

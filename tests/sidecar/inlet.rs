//! What callers over HTTP are promised: an answer when their events are kept, and nothing lost when they, or the process,
//! go.

use crate::endpoint::Endpoint;
use crate::process::{exchange, until};
use crate::receiver::{Act, Receiver};
use serde_json::json;
use sluice::api::put_source;
use sluice::credit::Window;
use sluice::metrics::Metrics;
use sluice::plan::Identity;
use sluice::source::inlet::{Arrival, Refused};
use sluice::source::keeper::Keepers;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A receiver that answers once it is told to.
fn gated() -> (Receiver, Arc<AtomicBool>) {
    let open = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&open);
    let receiver = Receiver::start(move |_, _| {
        until("the gate opens", || gate.load(Ordering::SeqCst));
        Act::ok()
    });
    (receiver, open)
}

fn to(receiver: &Receiver) -> String {
    format!(
        "targets: {{ out: {{ http: {{ url: \"{}\", max_in_flight: 200 }}, retry: {{ initial: 20ms, max: 50ms }} }} }}\n\
         rules: {{ all: {{ pattern: {{ source: [{{ exists: true }}] }}, targets: [out] }} }}\n",
        receiver.url
    )
}

#[test]
fn a_call_under_way_is_answered_when_the_process_is_told_to_end() {
    let (receiver, open) = gated();
    let mut endpoint = Endpoint::start("", &to(&receiver));
    let entry = json!({ "Source": "s", "DetailType": "d", "Detail": "{}", "TraceHeader": "Root=1-2-3" });
    std::thread::scope(|scope| {
        let call = scope.spawn(|| endpoint.call("PutEvents", &json!({ "Entries": [entry] })));
        // The event is with the receiver, which reads its request only after the gate.
        until("the delivery is under way", || receiver.connections() > 0);
        endpoint.child.signal("-TERM");
        until("the listener is gone", || std::net::TcpStream::connect(&endpoint.listen).is_err());
        open.store(true, Ordering::SeqCst);
        let (status, answer) = call.join().expect("an answer");
        assert!(status == 200 && answer["FailedEntryCount"] == 0, "{answer}");
    });
    assert_eq!(endpoint.child.0.wait().expect("a status").code(), Some(0));
    assert_eq!(receiver.requests()[0].header("x-amzn-trace-id"), Some("Root=1-2-3"));
}

/// What was answered is delivered, by whatever process, under one id.
#[test]
fn what_was_accepted_survives_the_process() {
    let (receiver, open) = gated();
    let mut endpoint = Endpoint::start("", &to(&receiver));
    let entries = |n: usize| {
        let entry = |i| json!({ "Source": "s", "DetailType": "d", "Detail": format!("{{\"n\":{}}}", n * 10 + i) });
        json!({ "Entries": (0..10).map(entry).collect::<Vec<_>>() })
    };
    let mut ids = std::collections::BTreeSet::new();
    for n in 0..6 {
        let (status, answer) = endpoint.call("PutEvents", &entries(n));
        assert!(status == 200 && answer["FailedEntryCount"] == 0, "{answer}");
        for entry in answer["Entries"].as_array().expect("entries") {
            ids.insert(entry["EventId"].as_str().expect("an id").to_owned());
        }
        if n == 2 {
            // Attempts that hang have moved to the retry log meanwhile: those must come back, too.
            let log = endpoint.place.path().join("data/retry/out");
            until("they are in the retry log", || log.exists());
        }
        endpoint = endpoint.restart("-KILL");
    }
    open.store(true, Ordering::SeqCst);
    let id = |body: &[u8]| -> String {
        let event: serde_json::Value = serde_json::from_slice(body).expect("JSON");
        event["id"].as_str().expect("an id").to_owned()
    };
    let delivered =
        || receiver.requests().iter().map(|request| id(&request.body)).collect::<std::collections::BTreeSet<_>>();
    until("all are delivered", || delivered().len() == 60);
    assert_eq!(delivered(), ids);
    let pairs: std::collections::BTreeSet<_> =
        receiver.requests().iter().map(|r| (id(&r.body), r.header("webhook-id").map(str::to_owned))).collect();
    assert_eq!(pairs.len(), 60, "a repetition has the delivery id of what it repeats");
    endpoint.stop();
}

/// A journal that is full refuses, per entry; what it has is delivered; then it takes events again.
#[test]
fn a_full_journal_refuses_per_entry() {
    let (receiver, open) = gated();
    let limits = "limits: { journal_bytes: 40KiB, retry_log_bytes: 0 }\n";
    let hook = "sources:\n  hook:\n    webhook: { path: /in/acme, verify: { standard_webhooks: { secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw } } }\n\
                \x20   envelope: { raw: { source: acme, detail_type: ping } }\n";
    let endpoint = Endpoint::start("", &format!("{limits}{hook}{}", to(&receiver)));
    let key = sluice::webhook::standard_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a key");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs() as i64;
    let (at, signature) = (now.to_string(), sluice::webhook::sign(&key, "m1", now, b"{}"));
    let headers = [("webhook-id", "m1"), ("webhook-timestamp", at.as_str()), ("webhook-signature", signature.as_str())];
    let post = || exchange(&endpoint.listen, "POST /in/acme", &headers, b"{}").expect("an answer");
    let fill = "y".repeat(3000);
    let put = |n: usize| {
        let entry = json!({ "Source": "s", "DetailType": "d", "Detail": format!("{{\"n\":{n},\"fill\":\"{fill}\"}}") });
        endpoint.call("PutEvents", &json!({ "Entries": [entry] })).1
    };
    let mut taken = 0;
    let refused = loop {
        let answer = put(taken);
        if answer["FailedEntryCount"] == 1 {
            break answer["Entries"][0].clone();
        }
        taken += 1;
        assert!(taken < 20, "never full");
    };
    assert_eq!(refused["ErrorCode"], "InternalFailure");
    let why = refused["ErrorMessage"].as_str().expect("a message");
    assert!(why.contains("data/journal holds 40960 bytes, its bound, that wait for targets"), "{why}");
    let (status, head, text) = post();
    assert!(status == 200 || (status == 503 && head.contains("retry-after: 1")), "{head} {text}");
    open.store(true, Ordering::SeqCst);
    until("what was taken is delivered", || receiver.requests().len() >= taken);
    until("the journal has space again", || put(100)["FailedEntryCount"] == 0);
    assert_eq!(
        post().0,
        if status == 200 { 409 } else { 200 },
        "a proof whose event was refused is good for another try"
    );
    endpoint.stop();
}

/// A bus in memory takes events without the disk.
#[test]
fn memory_must_be_asked_for() {
    let receiver = Receiver::start(|_, _| Act::ok());
    let endpoint = Endpoint::start("", &format!("buses: {{ default: {{ durability: memory }} }}\n{}", to(&receiver)));
    let entry = json!({ "Source": "s", "DetailType": "d", "Detail": "{}" });
    for _ in 0..5 {
        assert_eq!(endpoint.call("PutEvents", &json!({ "Entries": [entry, entry] })).1["FailedEntryCount"], 0);
    }
    until("all are delivered", || receiver.requests().len() == 10);
    assert!(std::fs::read_dir(endpoint.place.path().join("data/journal")).expect("a folder").next().is_none());
    endpoint.stop();
}

#[test]
fn a_caller_that_goes_leaves_its_whole_batch() {
    let (receiver, open) = gated();
    let endpoint = Endpoint::start("", &to(&receiver));
    let event =
        |n: usize| json!({ "specversion": "1.0", "id": n.to_string(), "source": "s", "type": "t", "data": { "n": n } });
    let body = json!((0..120).map(event).collect::<Vec<_>>()).to_string();
    let mut stream = std::net::TcpStream::connect(&endpoint.listen).expect("a connection");
    write!(
        stream,
        "POST /events/default HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/cloudevents-batch+json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("a request");
    until("deliveries are under way", || receiver.connections() > 0);
    drop(stream);
    open.store(true, Ordering::SeqCst);
    until("all are delivered", || receiver.requests().len() == 120);
    endpoint.stop();
}

#[test]
fn large_events_pass_a_small_window_one_after_another() {
    let receiver = Receiver::start(|_, _| Act::ok());
    let endpoint = Endpoint::start("", &format!("limits: {{ in_flight_bytes: 256KiB }}\n{}", to(&receiver)));
    let fill = "y".repeat(200_000);
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (endpoint, detail) = (&endpoint, format!("{{\"n\":{n},\"fill\":\"{fill}\"}}"));
            scope.spawn(move || {
                let entry = json!({ "Source": "s", "DetailType": "d", "Detail": detail });
                let (status, answer) = endpoint.call("PutEvents", &json!({ "Entries": [entry] }));
                assert!(status == 200 && answer["FailedEntryCount"] == 0, "{answer}");
            });
        }
    });
    until("all are delivered", || receiver.requests().len() == 8);
    // A `detail` as deep as the service takes it; one level more is no detail.
    for (levels, failed) in [(1000, 0), (1001, 1)] {
        let detail = format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        let entry = json!({ "Source": "s", "DetailType": "d", "Detail": detail });
        assert_eq!(endpoint.call("PutEvents", &json!({ "Entries": [entry] })).1["FailedEntryCount"], failed);
    }
    until("it is delivered", || receiver.requests().len() == 9);
    endpoint.stop();
}

/// A body that stops in the middle is waited for so long and no longer.
#[test]
fn a_body_has_its_time() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let begun = std::time::Instant::now();
    let answer = runtime.block_on(async {
        let pieces = futures_util::StreamExt::chain(
            futures_util::stream::iter([Ok::<_, std::io::Error>("{")]),
            futures_util::stream::pending(),
        );
        sluice::api::server::body(axum::body::Body::from_stream(pieces), 100).await.expect_err("no body")
    });
    assert_eq!(answer.status(), 408);
    assert!(begun.elapsed() < Duration::from_secs(10), "the clock is the test's");
}

/// What a topic that is away has not taken is bounded: the next event finds no room, and its caller may come again.
#[test]
fn a_broker_that_is_away_fills_no_memory() {
    let window = Window { events: 1, bytes: 1 << 20 };
    let metrics = Arc::new(Metrics::new(1));
    let mut keepers = Keepers::new(1 << 20, window, Duration::from_secs(60), &metrics);
    let client = [("bootstrap.servers".to_owned(), crate::process::free_address())];
    keepers.topic("b", client.into(), "kept").expect("a client");
    let info = Arc::new(put_source("b", 1 << 20, &Identity::default()));
    let keep = |id: &str, patience: u64| {
        let arrival = Arrival { info: Arc::clone(&info), id: id.into(), event: b"{}".to_vec(), trace: None };
        keepers.keep(arrival, tokio::time::Instant::now() + Duration::from_millis(patience))
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let Err(Refused::Broker(why)) = keep("1", 2000).await else { panic!("there is no broker") };
        assert!(why.starts_with("topic kept: no acknowledgement in time") && why.contains("refused"), "{why}");
        assert!(why.ends_with("the event may still be delivered"), "{why}");
        assert_eq!(keep("2", 100).await, Err(Refused::Busy));
    });
    let notes = metrics.health.notes();
    assert!(notes["bus b"].contains("topic kept"), "{notes:?}");
}

/// Events of two buses come in turn, before and after a restart that reads them back: all of them are kept and routed.
#[test]
fn events_of_two_buses_in_turn() {
    let (receiver, open) = gated();
    let rest = format!(
        "buses: {{ a: {{}}, b: {{}} }}\ntargets: {{ out: {{ http: {{ url: \"{}\" }} }}, log: {{ log: {{ group: all }} }} }}\n\
         rules:\n  a: {{ bus: a, pattern: {{ source: [s] }}, targets: [out, log] }}\n  b: {{ bus: b, pattern: {{ source: [s] }}, targets: [out, log] }}\n",
        receiver.url
    );
    let mut endpoint = Endpoint::start("", &rest);
    let entry = |n: usize| {
        let bus = if n.is_multiple_of(2) { "a" } else { "b" };
        json!({ "EventBusName": bus, "Source": "s", "DetailType": "d", "Detail": format!("{{\"n\":{n}}}") })
    };
    for round in 0..6 {
        let entries: Vec<_> = (0..10).map(entry).collect();
        let (status, answer) = endpoint.call("PutEvents", &json!({ "Entries": entries }));
        assert!(status == 200 && answer["FailedEntryCount"] == 0, "{answer}");
        if round % 2 == 1 {
            endpoint = endpoint.restart("-KILL");
        }
    }
    let ids = || {
        let lines = endpoint.lines("all");
        lines.iter().map(|line| line["id"].to_string()).collect::<std::collections::BTreeSet<_>>().len()
    };
    until("all are routed", || ids() == 60);
    open.store(true, Ordering::SeqCst);
    endpoint.stop();
}

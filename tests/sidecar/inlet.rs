//! What callers over HTTP are promised: an answer when their events are settled, and nothing lost when they go.

use crate::endpoint::Endpoint;
use crate::process::{exchange, until};
use crate::receiver::{Act, Receiver};
use serde_json::json;
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

#[test]
fn a_webhook_that_is_not_settled_may_come_again() {
    let (receiver, open) = gated();
    let hook = "sources:\n  hook:\n    webhook: { path: /in/acme, verify: { standard_webhooks: { secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw } } }\n\
                \x20   envelope: { raw: { source: acme, detail_type: ping } }\n";
    let endpoint = Endpoint::start(", settle_timeout: 200ms", &format!("{hook}{}", to(&receiver)));
    let key = sluice::webhook::standard_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a key");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs() as i64;
    let (at, signature) = (now.to_string(), sluice::webhook::sign(&key, "m1", now, b"{}"));
    let headers = [("webhook-id", "m1"), ("webhook-timestamp", at.as_str()), ("webhook-signature", signature.as_str())];
    let post = || exchange(&endpoint.listen, "POST /in/acme", &headers, b"{}").expect("an answer");
    let (status, head, text) = post();
    assert!(status == 503 && head.contains("retry-after: 1") && text.contains("not settled in time"), "{head} {text}");
    open.store(true, Ordering::SeqCst);
    until("the first is delivered", || !receiver.requests().is_empty());
    // The same signature, and no replay: its sender was told to come again.
    assert_eq!(post().0, 200);
    assert_eq!(post().0, 409, "now it is kept");
    assert_eq!(receiver.requests().len(), 2);
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
    assert_eq!(receiver.requests().len(), 8);
    // A `detail` as deep as the service takes it; one level more is no detail.
    for (levels, failed) in [(1000, 0), (1001, 1)] {
        let detail = format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        let entry = json!({ "Source": "s", "DetailType": "d", "Detail": detail });
        assert_eq!(endpoint.call("PutEvents", &json!({ "Entries": [entry] })).1["FailedEntryCount"], failed);
    }
    assert_eq!(receiver.requests().len(), 9);
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

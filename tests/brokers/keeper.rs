//! `durability: broker`: what is answered 200 is in the bus's own topic or stream, and nowhere else.

use crate::kafka::Kafka;
use crate::nats::Nats;
use crate::ports::free_port;
use crate::process::{Running, Sluice};
use crate::receiver::{Act, Receiver};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a request may wait, in seconds.
const ACCEPT: u64 = 4;
/// A text in every event, looked for in what a process leaves on the disk.
const MARK: &str = "nothing-of-this-stays-here";

/// A bus's own topic or stream.
struct Own<'b> {
    /// Its source.
    source: String,
    /// What failures call it.
    place: &'static str,
    stored: Box<dyn Fn() -> u64 + 'b>,
    /// Everything in it is settled.
    settled: Box<dyn Fn() -> bool + 'b>,
    down: Box<dyn Fn() + 'b>,
    up: Box<dyn Fn() + 'b>,
}

/// An endpoint in front of it, and who its events go to.
struct Endpoint {
    sluice: Sluice,
    listen: String,
    receiver: Receiver,
    open: Arc<AtomicBool>,
}

impl Endpoint {
    fn new(own: &Own<'_>) -> Self {
        let open = Arc::new(AtomicBool::new(true));
        let gate = Arc::clone(&open);
        let receiver = Receiver::start(move |_, _| match gate.load(Ordering::SeqCst) {
            true => Act::ok(),
            false => Act::status("503 Service Unavailable"),
        });
        let listen = format!("127.0.0.1:{}", free_port());
        let config = format!(
            "data_dir: data\nlimits: {{ retry_log_bytes: 0 }}\n\
             server: {{ listen: \"{listen}\", admin: \"{{admin}}\", accept_timeout: {ACCEPT}s }}\n\
             buses: {{ orders: {{ durability: broker }} }}\n\
             sources:\n  own: {{ bus: orders, {} }}\n  \
             hook: {{ bus: orders, webhook: {{ path: /in/hook, verify: none }}, envelope: {{ raw: {{ source: hook, detail_type: t }} }} }}\n\
             targets: {{ out: {{ http: {{ url: \"{}\" }}, retry: {{ initial: 50ms, max: 200ms }} }} }}\n\
             rules: {{ all: {{ bus: orders, pattern: {{ source: [{{ exists: true }}] }}, targets: [out] }} }}\n",
            own.source, receiver.url
        );
        Self { sluice: Sluice::new(&config), listen, receiver, open }
    }

    fn start(&self) -> Running {
        let mut running = self.sluice.start(&[]);
        running.until("it is ready", Duration::from_secs(30), |running| {
            running.get("/readyz").is_some_and(|(status, _)| status.contains("200"))
        });
        running
    }

    /// Posts a body; status and answer.
    fn post(&self, path: &str, headers: &str, body: &[u8]) -> (u16, Value) {
        let mut stream = TcpStream::connect(&self.listen).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
        let length = body.len();
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
        )
        .expect("a request");
        stream.write_all(body).expect("a body");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        let (head, body) = text.split_once("\r\n\r\n").expect("a whole answer");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, serde_json::from_str(body).expect("JSON"))
    }

    /// Puts entries; their results.
    fn put(&self, entries: &[Value]) -> Vec<Value> {
        let headers = "X-Amz-Target: AWSEvents.PutEvents\r\nContent-Type: application/x-amz-json-1.1\r\n";
        let (status, answer) = self.post("/", headers, json!({ "Entries": entries }).to_string().as_bytes());
        assert_eq!(status, 200, "{answer}");
        answer["Entries"].as_array().expect("a list").clone()
    }

    /// Puts so many events that must be kept; their ids.
    fn put_good(&self, count: usize) -> Vec<String> {
        let results = self.put(&vec![entry(MARK); count]);
        results
            .iter()
            .map(|result| result["EventId"].as_str().unwrap_or_else(|| panic!("{result}")).to_owned())
            .collect()
    }

    /// How often each event was taken by the target, by id.
    fn delivered(&self) -> HashMap<String, usize> {
        let mut counts = HashMap::new();
        for request in self.receiver.requests().iter().filter(|request| request.answer == "200 OK") {
            let event: Value = serde_json::from_slice(&request.body).expect("JSON");
            *counts.entry(event["id"].as_str().expect("an id").to_owned()).or_default() += 1;
        }
        counts
    }
}

fn entry(fill: &str) -> Value {
    let detail = json!({ "fill": fill }).to_string();
    json!({ "EventBusName": "orders", "Source": "shop", "DetailType": "Order", "Detail": detail })
}

/// Whether a file below a folder holds the mark.
fn is_in(folder: &Path) -> bool {
    std::fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| {
        let path = entry.path();
        match path.is_dir() {
            true => is_in(&path),
            false => std::fs::read(&path).unwrap_or_default().windows(MARK.len()).any(|part| part == MARK.as_bytes()),
        }
    })
}

pub fn in_a_topic(kafka: &Kafka) {
    kafka.topics(&[("kept", 3, &[])]);
    // The broker may have come back a moment ago.
    let settled = || {
        let committed = kafka.try_committed("kept", "kept").ok();
        committed.is_some_and(|committed| kafka.try_ends("kept").ok() == Some(committed))
    };
    keeps_its_promise(&Own {
        source: format!("kafka: {{ brokers: \"{}\", topics: [kept], group: kept, instance_id: kept }}", kafka.servers),
        place: "topic kept",
        stored: Box::new(|| kafka.ends("kept").into_iter().sum::<i64>() as u64),
        settled: Box::new(settled),
        down: Box::new(|| kafka.signal("-KILL")),
        up: Box::new(|| kafka.launch()),
    });
}

pub fn in_a_stream(nats: &Nats) {
    nats.stream("KEPT", "kept.>", |_| {});
    keeps_its_promise(&Own {
        source: format!(
            "nats: {{ servers: \"{}\", stream: KEPT, durable: kept, subject: kept.orders, ack_wait: 2s }}",
            nats.url
        ),
        place: "subject kept.orders",
        stored: Box::new(|| nats.count("KEPT")),
        settled: Box::new(|| nats.consumed("KEPT", "kept")),
        down: Box::new(|| nats.kill()),
        up: Box::new(|| nats.launch()),
    });
}

fn keeps_its_promise(own: &Own<'_>) {
    let endpoint = Endpoint::new(own);
    let mut running = endpoint.start();
    everything_arrives_once(own, &endpoint, &mut running);
    let running = a_crash_loses_nothing(&endpoint, running);
    let running = a_broker_that_is_away(own, &endpoint, running);
    endpoint.sluice.write("sluice.yaml", &text(&endpoint).replace("durability: broker", "durability: journal"));
    running.signal("-HUP");
    let mut running = running;
    running.until("the reload is refused", Duration::from_secs(10), |_| {
        endpoint.sluice.log().contains("`durability: broker` is set and taken away at start only")
    });
    running.stop();
}

fn text(endpoint: &Endpoint) -> String {
    std::fs::read_to_string(endpoint.sluice.path().join("sluice.yaml")).expect("a file")
}

/// PutEvents, the largest entry and one with a trace among them; a CloudEvent; a webhook.
fn everything_arrives_once(own: &Own<'_>, endpoint: &Endpoint, running: &mut Running) {
    let mut ids: Vec<String> = (0..20).flat_map(|_| endpoint.put_good(10)).collect();
    let mut traced = entry(MARK);
    traced["TraceHeader"] = json!("Root=1-2-3");
    // As large as the service's way of counting allows, and told apart by its size.
    let largest = entry(&"x".repeat((256 << 10) - "shop".len() - "Order".len() - "{'fill':''}".len()));
    for special in [traced, largest] {
        let results = endpoint.put(&[special]);
        ids.push(results[0]["EventId"].as_str().unwrap_or_else(|| panic!("{results:?}")).to_owned());
    }
    let cloud =
        "ce-specversion: 1.0\r\nce-id: 1\r\nce-source: shop\r\nce-type: Order\r\nContent-Type: application/json\r\n";
    let body = json!({ "fill": MARK }).to_string();
    assert_eq!(endpoint.post("/events/orders", cloud, body.as_bytes()), (200, json!({ "accepted": 1 })));
    let (status, answer) = endpoint.post("/in/hook", "", body.as_bytes());
    assert_eq!((status, &answer["accepted"]), (200, &json!(1)));
    ids.push(answer["id"].as_str().expect("an id").to_owned());
    assert_eq!((own.stored)(), 204, "each is one record");
    running.until("all are settled", Duration::from_secs(60), |_| endpoint.delivered().len() == 204 && (own.settled)());
    let delivered = endpoint.delivered();
    assert!(delivered.values().all(|count| *count == 1), "each once: {delivered:?}");
    assert!(ids.iter().all(|id| delivered.contains_key(id)), "the ids are those that were answered");
    let traces = endpoint.receiver.requests();
    let traces: Vec<_> = traces.iter().filter_map(|request| request.header("x-amzn-trace-id")).collect();
    assert_eq!(traces, ["Root=1-2-3"]);
    assert!(!is_in(&endpoint.sluice.path().join("data")), "nothing of an event is on the disk");
}

/// What is answered is delivered by another process that knows nothing of this one.
fn a_crash_loses_nothing(endpoint: &Endpoint, running: Running) -> Running {
    endpoint.open.store(false, Ordering::SeqCst);
    let ids: Vec<String> = (0..10).flat_map(|_| endpoint.put_good(10)).collect();
    running.kill();
    std::fs::remove_dir_all(endpoint.sluice.path().join("data")).expect("a folder");
    endpoint.open.store(true, Ordering::SeqCst);
    let mut running = endpoint.start();
    running.until("what was answered is delivered", Duration::from_secs(60), |_| {
        let delivered = endpoint.delivered();
        ids.iter().all(|id| delivered.contains_key(id))
    });
    running
}

/// The broker is killed under load and comes back: what is answered with an id is delivered, the rest is refused in time.
fn a_broker_that_is_away(own: &Own<'_>, endpoint: &Endpoint, mut running: Running) -> Running {
    let (answers, over) = (std::sync::Mutex::new(Vec::<Value>::new()), AtomicBool::new(false));
    let count = |good: bool| {
        let answers = answers.lock().expect("a lock");
        answers.iter().filter(|answer| answer.get("EventId").is_some() == good).count()
    };
    let patience = Duration::from_secs(60);
    let mut back = 0.0;
    std::thread::scope(|scope| {
        let load = || {
            while !over.load(Ordering::SeqCst) {
                let begin = Instant::now();
                let results = endpoint.put(&[entry(MARK), entry(MARK)]);
                assert!(begin.elapsed() < Duration::from_secs(ACCEPT + 2), "{:?}", begin.elapsed());
                answers.lock().expect("a lock").extend(results);
            }
        };
        let puts: Vec<_> = (0..2).map(|_| scope.spawn(load)).collect();
        running.until("events are kept", patience, |_| count(true) > 100);
        (own.down)();
        running.until("events are refused", patience, |_| count(false) >= 4);
        let noted = |running: &Running| running.get("/readyz?verbose").unwrap_or_default().1;
        let said = format!("bus orders: the last event that came over HTTP was not kept: {}", own.place);
        assert!(noted(&running).contains(&said), "{}", noted(&running));
        (own.up)();
        let (kept, begin) = (count(true), Instant::now());
        running.until("an event is kept again", patience, |_| count(true) > kept);
        back = begin.elapsed().as_secs_f64();
        running.until("events are kept again", patience, |_| count(true) > kept + 100);
        over.store(true, Ordering::SeqCst);
        puts.into_iter().for_each(|put| put.join().expect("every request is answered in time"));
        assert!(!noted(&running).contains("bus orders"), "{}", noted(&running));
    });
    let answers = answers.into_inner().expect("a lock");
    let mut ids: Vec<&str> = Vec::new();
    for answer in &answers {
        match answer["EventId"].as_str() {
            Some(id) => ids.push(id),
            None => {
                assert_eq!(answer["ErrorCode"], "InternalFailure", "{answer}");
                assert!(answer["ErrorMessage"].as_str().is_some_and(|why| why.starts_with(own.place)), "{answer}");
            }
        }
    }
    running.until("all that was kept is delivered", patience, |_| {
        let delivered = endpoint.delivered();
        ids.iter().all(|id| delivered.contains_key(*id))
    });
    running.until("all that is in it is settled", patience, |_| (own.settled)());
    let (kept, refused) = (ids.len(), answers.len() - ids.len());
    println!(
        "{{\"scenario\":\"kept\",\"in\":\"{}\",\"kept\":{kept},\"refused\":{refused},\"lost\":0,\"back_after_seconds\":{back:.1}}}",
        own.place
    );
    running
}

/// What cannot keep events is refused at start.
pub fn refused(kafka: &Kafka, nats: &Nats) {
    kafka.topics(&[("kept-small", 1, &[("max.message.bytes", "300000")])]);
    nats.stream("DEAF", "deaf.orders", |config| config.no_ack = true);
    nats.stream("APART", "apart.orders", |_| {});
    let own = |source: String| Own {
        source,
        place: "",
        stored: Box::new(|| 0),
        settled: Box::new(|| true),
        down: Box::new(|| {}),
        up: Box::new(|| {}),
    };
    let topic = format!("kafka: {{ brokers: \"{}\", topics: [kept-small], group: kept-small }}", kafka.servers);
    let stream = |stream: &str, subject: &str| {
        format!("nats: {{ servers: \"{}\", stream: {stream}, durable: kept, subject: {subject} }}", nats.url)
    };
    let rows = [
        (topic, "source own: topic kept-small takes records of 300000 bytes"),
        (stream("DEAF", "deaf.orders"), "source own: stream DEAF does not acknowledge (`no_ack`)"),
        (stream("APART", "deaf.orders"), "stream APART keeps apart.orders, and nothing that fits subject deaf.orders"),
    ];
    for (source, why) in rows {
        let (status, log, _) = Endpoint::new(&own(source)).sluice.run(&[]);
        assert_eq!(status.code(), Some(78), "{log}");
        assert!(log.contains(why), "`{why}` is not in:\n{log}");
    }
}

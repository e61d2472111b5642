//! Archives in a topic and in a stream: everything is kept, whatever dies; replays and exports are in order of time.

use crate::kafka::Kafka;
use crate::nats::Nats;
use crate::ports::free_port;
use crate::process::{Running, Sluice, program};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
/// 2024-01-31T09:00:00Z
const NINE: i64 = 1_706_691_600;
/// Events that are put, and how many of them before the broker goes.
const PUT: u64 = 1_200;
const BEFORE: u64 = 1_000;
/// Events that are imported, more than a window holds.
const IMPORTED: u64 = 9_000;

/// A topic or a stream.
struct Keeper<'b> {
    /// What the configuration says of it.
    storage: String,
    down: Box<dyn Fn() + 'b>,
    up: Box<dyn Fn() + 'b>,
}

struct Endpoint {
    sluice: Sluice,
    listen: String,
}

impl Endpoint {
    fn new(storage: &str) -> Self {
        let listen = format!("127.0.0.1:{}", free_port());
        let config = format!(
            "data_dir: data\nserver: {{ listen: \"{listen}\", admin: \"{{admin}}\" }}\n\
             buses: {{ orders: {{ archives: {{ {storage} }} }} }}\n\
             archives:\n  week: {{ bus: orders, retention: 7d, {storage} }}\n  \
             big: {{ bus: orders, pattern: {{ source: [nobody] }}, {storage} }}\n\
             targets: {{ seen: {{ log: {{ group: seen }} }} }}\n\
             rules: {{ again: {{ bus: orders, pattern: {{ replay-name: [{{ exists: true }}] }}, targets: [seen] }} }}\n"
        );
        Self { sluice: Sluice::new(&config), listen }
    }

    fn start(&self) -> Running {
        let mut running = self.sluice.start(&[]);
        running.until("it is ready", PATIENCE, |running| {
            running.get("/readyz").is_some_and(|(status, _)| status.contains("200"))
        });
        running
    }

    fn call(&self, action: &str, body: &Value) -> Value {
        let mut stream = TcpStream::connect(&self.listen).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
        let body = body.to_string();
        write!(
            stream,
            "POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\
             X-Amz-Target: AWSEvents.{action}\r\nContent-Type: application/x-amz-json-1.1\r\n\r\n{body}",
            body.len()
        )
        .expect("a request");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        let (head, body) = text.split_once("\r\n\r\n").expect("a whole answer");
        assert!(head.contains(" 200 "), "{action}: {text}");
        serde_json::from_str(body).expect("JSON")
    }

    /// Puts events of these numbers; their times are in no order.
    fn put(&self, numbers: std::ops::Range<u64>) {
        let numbers: Vec<u64> = numbers.collect();
        for ten in numbers.chunks(10) {
            let entry = |n: &u64| {
                // On several lines: what is exported has one for each event.
                let detail = format!("{{\n  \"n\": {n}\n}}");
                json!({ "EventBusName": "orders", "Source": "shop", "DetailType": "Order", "Time": time(*n), "Detail": detail })
            };
            let entries: Vec<Value> = ten.iter().map(entry).collect();
            let answer = self.call("PutEvents", &json!({ "Entries": entries }));
            assert_eq!(answer["FailedEntryCount"], 0, "{answer}");
        }
    }

    /// Runs a verb; its output.
    fn verb(&self, arguments: &[&str], input: &str) -> String {
        let mut child = Command::new(program())
            .args(arguments)
            .args(["--admin-url", &format!("http://{}", self.sluice.admin)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a process");
        let (mut stdin, input) = (child.stdin.take().expect("a pipe"), input.to_owned());
        let written = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output().expect("an end");
        written.join().expect("a thread").unwrap_or_default();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// How many events an archive says that it has.
    fn held(&self, archive: &str) -> u64 {
        self.call("DescribeArchive", &json!({ "ArchiveName": archive }))["EventCount"].as_u64().expect("a number")
    }

    /// Times and numbers of what a replay has sent, in the order in which it came.
    fn seen(&self, replay: &str) -> Vec<(i64, u64)> {
        let events = self.sluice.lines("logs/seen").into_iter().map(|line| event(&line));
        events.filter(|(_, event)| event["replay-name"] == replay).map(|(time, event)| (time, number(&event))).collect()
    }

    fn state(&self, replay: &str) -> Value {
        self.call("DescribeReplay", &json!({ "ReplayName": replay }))
    }
}

/// The time of an event of a number: within a thousand seconds, in no order.
fn time(n: u64) -> i64 {
    NINE + (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as i64 % 1000
}

fn event(line: &str) -> (i64, Value) {
    let event: Value = serde_json::from_str(line).expect("JSON");
    let text = event["time"].as_str().expect("a time").to_owned();
    (sluice::time::parse_iso(&text).expect("a time") / 1000, event)
}

fn number(event: &Value) -> u64 {
    event["detail"]["n"].as_u64().expect("a number")
}

fn iso(seconds: i64) -> String {
    sluice::time::iso_seconds(seconds * 1000)
}

pub fn in_a_topic(kafka: &Kafka) {
    kafka.topics(&[("archive", 3, &[])]);
    // Somebody else's record is none of the archive's.
    let other = kafka.producer();
    other.send("archive", None, "k", b"{\"time\":\"2024-01-31T09:00:00Z\",\"detail\":{\"n\":1000000}}", &[]);
    // One that the archive has kept for longer than it keeps any.
    let old = sluice::time::wall_millis() - 8 * 24 * 3_600_000;
    let event = b"{\"time\":\"2024-01-31T09:00:00Z\",\"detail\":{\"n\":2000000}}";
    other.send_dated("archive", event, ("sluice-archive", "files/week.events"), old);
    // One that is damaged.
    other.send_dated("archive", b"{", ("sluice-archive", "files/week.events"), sluice::time::wall_millis());
    other.flush();
    let keeper = Keeper {
        storage: format!("kafka: {{ brokers: \"{}\", topic: archive }}", kafka.servers),
        down: Box::new(|| kafka.signal("-KILL")),
        up: Box::new(|| kafka.launch()),
    };
    keeps_its_promise("topic", &keeper);
}

pub fn in_a_stream(nats: &Nats) {
    nats.stream("ARCHIVE", "past.>", |_| {});
    nats.publish(std::iter::once(("past.orders".to_owned(), "{\"detail\":{}}".to_owned())));
    let keeper = Keeper {
        storage: format!("nats: {{ servers: \"{}\", stream: ARCHIVE, subject: past.orders }}", nats.url),
        down: Box::new(|| nats.kill()),
        up: Box::new(|| nats.launch()),
    };
    keeps_its_promise("stream", &keeper);
}

fn keeps_its_promise(what: &str, keeper: &Keeper<'_>) {
    let endpoint = Endpoint::new(&keeper.storage);
    let begin = Instant::now();
    let running = everything_is_kept(keeper, &endpoint);
    let kept = begin.elapsed();
    what_is_kept_is_read(&endpoint);
    let running = a_replay_goes_on(&endpoint, running);
    running.stop();
    println!(
        "{{\"scenario\":\"archive\",\"in\":\"a {what}\",\"put\":{PUT},\"imported\":{IMPORTED},\"lost\":0,\"kept_after_seconds\":{:.1}}}",
        kept.as_secs_f64()
    );
}

/// A process is killed in the middle, then the broker.
fn everything_is_kept(keeper: &Keeper<'_>, endpoint: &Endpoint) -> Running {
    let running = endpoint.start();
    let bus = "arn:aws:events:us-east-1:000000000000:event-bus/orders";
    endpoint.call("CreateArchive", &json!({ "ArchiveName": "made", "EventSourceArn": bus, "RetentionDays": 1 }));
    assert_eq!(endpoint.verb(&["archive", "export", "week"], ""), "", "there is nothing yet");
    endpoint.put(0..BEFORE / 2);
    running.kill();
    let mut running = endpoint.start();
    endpoint.put(BEFORE / 2..BEFORE);
    (keeper.down)();
    endpoint.put(BEFORE..PUT);
    running.until("they wait for the broker", PATIENCE, |running| {
        running.metric("sluice_target_retry_log_events", "week") + running.metric("sluice_target_in_flight", "week")
            > 0.0
    });
    let replay = json!({ "ReplayName": "early", "EventSourceArn": "arn:aws:events:us-east-1:000000000000:archive/week", "EventStartTime": NINE, "EventEndTime": NINE + 1000, "Destination": { "Arn": bus } });
    endpoint.call("StartReplay", &replay);
    (keeper.up)();
    for archive in ["week", "made"] {
        running.until("everything is kept", PATIENCE, |_| endpoint.held(archive) >= PUT);
    }
    running
        .until("the replay has waited for the broker", PATIENCE, |_| endpoint.state("early")["State"] == "COMPLETED");
    running.until("nothing is open", PATIENCE, |running| {
        running.metric("sluice_target_retry_log_events", "") + running.metric("sluice_target_in_flight", "") == 0.0
    });
    running
}

/// Exports, and a replay of some of it.
fn what_is_kept_is_read(endpoint: &Endpoint) {
    let mut expected: Vec<(i64, u64)> = (0..PUT).map(|n| (time(n), n)).collect();
    expected.sort_unstable();
    for archive in ["week", "made"] {
        let exported = endpoint.verb(&["archive", "export", archive], "");
        let mut found: Vec<(i64, u64)> =
            exported.lines().map(event).map(|(time, event)| (time, number(&event))).collect();
        assert!(found.is_sorted_by_key(|(time, _)| *time), "in order of time");
        found.sort_unstable();
        assert_eq!(found, expected, "each once");
    }
    let (from, till) = (NINE + 100, NINE + 600);
    let range = ["--from", &iso(from), "--to", &iso(till), "--json"];
    let answer = endpoint.verb(&[&["replay", "start", "week", "--name", "some"][..], &range].concat(), "");
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    expected.retain(|(time, _)| (from..till).contains(time));
    assert_eq!((&answer["state"], &answer["sent"]), (&json!("COMPLETED"), &json!(expected.len())), "{answer}");
    let deadline = Instant::now() + PATIENCE;
    while endpoint.seen("some").len() < expected.len() {
        assert!(Instant::now() < deadline, "the replay arrives in time");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut seen = endpoint.seen("some");
    assert!(seen.is_sorted_by_key(|(time, _)| *time), "in order of time");
    seen.sort_unstable();
    assert_eq!(seen, expected, "each once");
    // One that is made again under its old name begins empty, though the broker has what the old one held.
    endpoint.call("DeleteArchive", &json!({ "ArchiveName": "made" }));
    let bus = "arn:aws:events:us-east-1:000000000000:event-bus/orders";
    endpoint.call("CreateArchive", &json!({ "ArchiveName": "made", "EventSourceArn": bus }));
    endpoint.put(0..1);
    while endpoint.held("made") == 0 {
        assert!(Instant::now() < deadline, "it is archived in time");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(endpoint.held("made"), 1);
}

/// Of several windows, killed on its way: every event comes, in order of time but for what comes again.
fn a_replay_goes_on(endpoint: &Endpoint, running: Running) -> Running {
    let padding = "x".repeat(2_000);
    let line = |n: u64| {
        format!(
            "{{\"id\":\"{n}\",\"detail-type\":\"t\",\"source\":\"s\",\"time\":\"{}\",\"detail\":{{\"n\":{n},\"pad\":\"{padding}\"}}}}\n",
            iso(time(n))
        )
    };
    let lines: String = (0..IMPORTED).map(line).collect();
    endpoint.verb(&["archive", "import", "big"], &lines);
    endpoint.verb(&["replay", "start", "big", "--name", "all", "--no-wait"], "");
    let deadline = Instant::now() + PATIENCE;
    while endpoint.state("all")["EventLastReplayedTime"].as_f64().is_none_or(|at| at < (NINE + 200) as f64) {
        assert!(Instant::now() < deadline, "it is under way in time");
        std::thread::sleep(Duration::from_millis(5));
    }
    running.kill();
    let mut running = endpoint.start();
    let state = endpoint.state("all")["State"].clone();
    assert!(state == "RUNNING" || state == "STARTING", "killed on its way: {state}");
    running.until("it is through", PATIENCE, |_| endpoint.state("all")["State"] == "COMPLETED");
    let distinct = || endpoint.seen("all").into_iter().map(|(_, n)| n).collect::<BTreeSet<u64>>();
    running.until("all have come", PATIENCE, |_| distinct().len() as u64 >= IMPORTED);
    assert_eq!(distinct(), (0..IMPORTED).collect());
    running
}

/// What cannot keep an archive is refused at start; what forgets sooner is said.
pub fn refused(kafka: &Kafka, nats: &Nats) {
    kafka.topics(&[
        ("archive-small", 1, &[("max.message.bytes", "200000")]),
        ("archive-compacted", 1, &[("cleanup.policy", "compact")]),
        ("archive-short", 1, &[("retention.ms", "3600000")]),
        ("archive-in", 1, &[]),
    ]);
    nats.stream("ARCHIVE-QUEUE", "archive-queue", |config| {
        config.retention = async_nats::jetstream::stream::RetentionPolicy::WorkQueue;
    });
    nats.stream("ARCHIVE-DEAF", "archive-deaf", |config| config.no_ack = true);
    let topic = |name: &str| format!("kafka: {{ brokers: \"{}\", topic: {name} }}", kafka.servers);
    let stream = |name: &str, subject: &str| {
        format!("nats: {{ servers: \"{}\", stream: {name}, subject: {subject} }}", nats.url)
    };
    let rows = [
        (
            topic("archive-nowhere"),
            "archive big: topic archive-nowhere does not exist on",
            "--create --topic archive-nowhere",
        ),
        (topic("archive-small"), "topic archive-small takes records of 200000 bytes", "max.message.bytes to 266240"),
        (topic("archive-compacted"), "topic archive-compacted is compacted", "cleanup.policy to delete"),
        (stream("ARCHIVE-NOWHERE", "a"), "archive big: stream ARCHIVE-NOWHERE does not exist", "--subjects a"),
        (stream("ARCHIVE-QUEUE", "archive-queue"), "stream ARCHIVE-QUEUE forgets what was read", "retention to limits"),
        (stream("ARCHIVE-QUEUE", "b"), "stream ARCHIVE-QUEUE keeps archive-queue, and nothing that fits subject b", ""),
        (stream("ARCHIVE-DEAF", "archive-deaf"), "stream ARCHIVE-DEAF does not acknowledge (`no_ack`)", ""),
    ];
    for (storage, why, remedy) in rows {
        let (status, log, _) = Endpoint::new(&storage).sluice.run(&[]);
        assert_eq!(status.code(), Some(78), "{log}");
        assert!(log.contains(why) && log.contains(remedy), "`{why}` and `{remedy}` are not in:\n{log}");
    }
    let endpoint = Endpoint::new(&topic("archive-short"));
    // What waits for an archive waits on the disk: no topic can have its name.
    let source =
        format!("kafka: {{ brokers: \"{}\", topics: [archive-in], group: in, retry_topics: in-retry }}", kafka.servers);
    let text = std::fs::read_to_string(endpoint.sluice.path().join("sluice.yaml")).expect("a file");
    let text = text + &format!("sources: {{ in: {{ bus: orders, {source} }} }}\n");
    endpoint.sluice.write("sluice.yaml", &text);
    let mut running = endpoint.start();
    for (archive, kept) in [("week", "for 7d"), ("big", "for ever")] {
        let why = format!(
            "archive {archive} keeps events {kept}, but topic archive-short forgets them after 3600000 ms (retention.ms)"
        );
        assert!(endpoint.sluice.log().contains(&why), "{}", endpoint.sluice.log());
    }
    let without = text.lines().filter(|line| !line.starts_with("buses:")).collect::<Vec<_>>().join("\n");
    let more = format!("archives:\n  more: {{ bus: orders, {} }}", topic("archive-nowhere"));
    let reloads = [
        (text.replace("archives:\n", &format!("{more}\n")), "archive more: topic archive-nowhere does not exist on"),
        (format!("buses: {{ orders: {{}} }}\n{without}\n"), "`archives` of a bus is set and changed at start only"),
    ];
    for (text, why) in reloads {
        endpoint.sluice.write("sluice.yaml", &text);
        running.signal("-HUP");
        running.until(why, PATIENCE, |_| endpoint.sluice.log().contains(why));
    }
    running.stop();
}

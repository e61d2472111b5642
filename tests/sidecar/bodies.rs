//! Bad input to the front: bodies that are far too large are refused in the service's words, whatever carries them.

use crate::endpoint::Endpoint;
use crate::process::exchange;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// How a body comes.
#[derive(Debug, Clone, Copy)]
enum Carried {
    /// With its length in front.
    Whole,
    /// In pieces, without a length.
    Chunked,
    /// Compressed, and far smaller.
    Deflated,
}

const LARGE: usize = 10 << 20;
/// MiB that a process may have grown by.
const GROWN: u64 = 64;
const CALLERS: usize = 4;

const REST: &str = "buses: { Orders: {} }\n\
                    sources: { hook: { bus: Orders, webhook: { path: /in/hook, verify: none }, \
                    envelope: { raw: { source: hook, detail_type: posted } } } }\n";

/// Request line and headers, what is in front of the filling and behind it, and the status and a part of its answer.
type Row = (&'static str, &'static [(&'static str, &'static str)], &'static str, &'static str, (u16, &'static str));

const PUT_RULE: &[(&str, &str)] = &[("X-Amz-Target", "AWSEvents.PutRule")];
const PUT_TARGETS: &[(&str, &str)] = &[("X-Amz-Target", "AWSEvents.PutTargets")];
const PUT_EVENTS: &[(&str, &str)] = &[("X-Amz-Target", "AWSEvents.PutEvents")];
const TOO_LARGE: (u16, &str) = (400, "ValidationException");

const ROWS: &[Row] = &[
    ("POST /", PUT_RULE, "{\"Name\":\"", "\"}", TOO_LARGE),
    ("POST /", PUT_RULE, "{\"Name\":\"r\",\"EventPattern\":\"{\\\"source\\\":[\\\"", "\\\"]}\"}", TOO_LARGE),
    ("POST /", PUT_TARGETS, "{\"Rule\":\"r\",\"Targets\":[{\"Id\":\"1\",\"Arn\":\"", "\"}]}", TOO_LARGE),
    ("POST /", &[("X-Amz-Target", "AWSEvents.DeleteRule")], "", "", TOO_LARGE),
    (
        "POST /",
        PUT_EVENTS,
        "{\"Entries\":[{\"Source\":\"s\",\"DetailType\":\"t\",\"Detail\":\"{\\\"x\\\":\\\"",
        "\\\"}\"}]}",
        TOO_LARGE,
    ),
    ("POST /", &[], "{", "}", (400, "UnknownOperationException")),
    (
        "POST /events/Orders",
        &[("Content-Type", "application/cloudevents+json")],
        "{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"s\",\"type\":\"t\",\"data\":\"",
        "\"}",
        (413, "the body has more than"),
    ),
    (
        "POST /events/Orders",
        &[("Content-Type", "application/cloudevents-batch+json")],
        "[{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"s\",\"type\":\"t\",\"data\":\"",
        "\"}]",
        (413, "the body has more than"),
    ),
    (
        "POST /events/Orders",
        &[("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "s"), ("ce-type", "t")],
        "\"",
        "\"",
        (413, "the body has more than"),
    ),
    ("POST /in/hook", &[], "{\"x\":\"", "\"}", (413, "the body has more than")),
    ("POST /nowhere", &[], "", "", (404, "nothing answers")),
];

/// The process' memory in MiB: now, and at most so far.
fn memory(endpoint: &Endpoint) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", endpoint.child.0.id())).expect("a process");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a field");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// Sends all of a body, as clients do, before it looks for the answer.
fn upload(listen: &str, (request, headers, ..): &Row, body: &[u8], carried: Carried) -> (u16, String) {
    let mut head = format!("{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    for (name, value) in *headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut stream = TcpStream::connect(listen).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    match carried {
        Carried::Chunked => {
            write!(stream, "{head}Transfer-Encoding: chunked\r\n\r\n").expect("a head");
            for piece in body.chunks(64 << 10) {
                let framed = [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
                stream.write_all(&framed).expect("a server that reads on");
            }
            stream.write_all(b"0\r\n\r\n").expect("a server that reads on");
        }
        _ => {
            let encoding = if matches!(carried, Carried::Deflated) { "Content-Encoding: gzip\r\n" } else { "" };
            write!(stream, "{head}{encoding}Content-Length: {}\r\n\r\n", body.len()).expect("a head");
            stream.write_all(body).expect("a server that reads on");
        }
    }
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    (head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status"), body.to_owned())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(bytes).expect("memory");
    packed.finish().expect("memory")
}

/// What callers have made.
fn catalog(endpoint: &Endpoint) -> [Value; 3] {
    let ask = |action: &str, members: Value| endpoint.call(action, &members).1;
    [
        ask("ListRules", json!({})),
        ask("ListEventBuses", json!({})),
        ask("ListTargetsByRule", json!({ "Rule": "there" })),
    ]
}

fn refused(endpoint: &Endpoint, row: &Row) {
    let (_, _, front, behind, (status, part)) = row;
    let body = [front.as_bytes(), &vec![b' '; LARGE], behind.as_bytes()].concat();
    for carried in [Carried::Whole, Carried::Chunked, Carried::Deflated] {
        let (got, text) = match carried {
            Carried::Deflated => upload(&endpoint.listen, row, &gzip(&body), carried),
            _ => upload(&endpoint.listen, row, &body, carried),
        };
        let place = format!("{} {front} {carried:?}: {got} {text}", row.0);
        match carried {
            // What is compressed is none of what is taken, and is not unpacked.
            Carried::Deflated => assert!((400..500).contains(&got), "{place}"),
            _ => assert!(got == *status && text.contains(part), "{place}"),
        }
    }
}

fn check(endpoint: &Endpoint, rows: &[Row]) {
    endpoint.call("PutRule", &json!({ "Name": "there", "EventPattern": "{\"source\":[\"x\"]}" }));
    let before = (catalog(endpoint), memory(endpoint).0);
    for row in rows {
        std::thread::scope(|scope| {
            (0..CALLERS).for_each(|_| drop(scope.spawn(|| refused(endpoint, row))));
        });
    }
    let (now, most) = memory(endpoint);
    assert_eq!(catalog(endpoint), before.0);
    assert!(most <= before.1 + GROWN, "{} MiB before, {now} now, {most} at most", before.1);
}

#[test]
fn far_too_large_bodies_are_refused() {
    let endpoint = Endpoint::start("", REST);
    check(&endpoint, ROWS);
    endpoint.stop();
}

/// Where events may be that large, the members of the other actions may not.
#[test]
fn members_are_no_larger_where_events_are() {
    let endpoint = Endpoint::start("", &format!("{REST}limits: {{ event_bytes: 16MiB, journal_bytes: 256MiB }}\n"));
    let large = "x".repeat(LARGE);
    endpoint.call("PutRule", &json!({ "Name": "there", "EventPattern": "{\"source\":[\"x\"]}" }));
    let before = catalog(&endpoint);
    let rows = [
        ("PutRule", json!({ "Name": large }), "ValidationException"),
        (
            "PutRule",
            json!({ "Name": "r", "EventPattern": format!("{{\"source\":[\"{large}\"]}}") }),
            "ValidationException",
        ),
        ("PutTargets", json!({ "Rule": "there", "Targets": [{ "Id": "1", "Arn": large }] }), "ValidationException"),
        ("PutTargets", json!({ "Rule": "there", "Targets": vec![json!({}); LARGE / 4] }), "ValidationException"),
        ("RemoveTargets", json!({ "Rule": "there", "Ids": [large] }), "ValidationException"),
        ("CreateEventBus", json!({ "Name": large }), "ValidationException"),
        ("ListRules", json!({ "NextToken": large }), "ValidationException"),
        ("TestEventPattern", json!({ "EventPattern": "{\"a\":[1]}", "Event": large }), "ValidationException"),
    ];
    for (action, members, code) in rows {
        let (status, answer) = endpoint.call(action, &members);
        let message = answer["message"].as_str().unwrap_or_default();
        let shown: String = message.chars().take(200).collect();
        assert_eq!((status, answer["__type"].as_str()), (400, Some(code)), "{action}: {shown}");
        assert!(message.len() < 80 << 10, "{action}: the answer repeats it: {} bytes", message.len());
    }
    let (now, most) = memory(&endpoint);
    assert!(most < 1024, "{now} MiB, {most} at most");
    assert_eq!(catalog(&endpoint), before);
    endpoint.stop();
}

/// Who keeps on sending what is not read is not listened to for ever.
#[test]
fn an_endless_body_ends() {
    let endpoint = Endpoint::start("", REST);
    let mut stream = TcpStream::connect(&endpoint.listen).expect("a connection");
    write!(stream, "POST /in/hook HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n").expect("a head");
    let piece = [b"10000\r\n".as_slice(), &[b' '; 64 << 10], b"\r\n"].concat();
    let sent = (0..16384).take_while(|_| stream.write_all(&piece).is_ok()).count();
    assert!(sent < 4096, "{} MiB were taken", sent >> 4);
    assert!(exchange(&endpoint.listen, "GET /", &[], b"").is_some(), "others are served");
    endpoint.stop();
}

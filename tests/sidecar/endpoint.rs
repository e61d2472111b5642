//! What comes over HTTP: the EventBridge endpoint, CloudEvents, webhooks; and who may call.

use crate::process::{Guard, Place, exchange, free_address, until};

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::time::{Duration, Instant};

/// A running process with an endpoint.
pub struct Endpoint {
    pub place: Place,
    pub listen: String,
    pub child: Guard,
}

impl Endpoint {
    /// `more` follows the addresses within `server`; `rest` is the remaining configuration.
    pub fn start(more: &str, rest: &str) -> Self {
        Self::start_beside(&[], more, rest)
    }

    /// The same with other files beside the configuration, which only their owner may read.
    pub fn start_beside(files: &[(&str, &str)], more: &str, rest: &str) -> Self {
        let listen = free_address();
        let config =
            format!("data_dir: data\nserver: {{ listen: \"{listen}\", admin: \"off\"{more} }}\nworkers: 2\n{rest}");
        let place = Place::new(&[("c.yaml", &config)]);
        for (name, text) in files {
            place.write(name, text);
            place.allow(name, 0o600);
        }
        Self::launch(place, listen, &[])
    }

    /// Starts what `c.yaml` says, in an environment with more in it.
    pub fn launch(place: Place, listen: String, environment: &[(&str, &str)]) -> Self {
        let mut command = place.command(&["run", "-c", "c.yaml"]);
        let child = Guard(command.envs(environment.iter().copied()).spawn().expect("a process"));
        until("it listens and answers", || exchange(&listen, "GET /", &[], b"").is_some());
        Self { place, listen, child }
    }

    pub fn call(&self, action: &str, body: &Value) -> (u16, Value) {
        self.raw(action, body.to_string().as_bytes())
    }

    /// The same in another region than eu-west-1.
    pub fn call_in(&self, region: &str, action: &str, body: &Value) -> (u16, Value) {
        self.send(region, action, body.to_string().as_bytes())
    }

    fn raw(&self, action: &str, body: &[u8]) -> (u16, Value) {
        self.send("eu-west-1", action, body)
    }

    fn send(&self, region: &str, action: &str, body: &[u8]) -> (u16, Value) {
        let target = format!("AWSEvents.{action}");
        let scope = format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20240131/{region}/events/aws4_request, SignedHeaders=host"
        );
        let headers = [
            ("X-Amz-Target", target.as_str()),
            ("Content-Type", "application/x-amz-json-1.1"),
            ("Authorization", scope.as_str()),
        ];
        let (status, head, text) = exchange(&self.listen, "POST /", &headers, body).expect("an answer");
        assert!(head.contains("x-amzn-requestid") && head.contains("application/x-amz-json-1.1"), "{head}");
        (status, serde_json::from_str(&text).expect("JSON"))
    }

    fn check(&self, action: &str, rows: Vec<Row>) {
        for (body, code, message) in rows {
            let (status, answer) = self.call(action, &body);
            let shown = answer.to_string();
            match code {
                "true" | "false" => assert_eq!(answer["Result"].to_string(), code),
                "" => assert_eq!(status, 200, "{shown}"),
                code => assert_eq!((status, &answer["__type"]), (400, &json!(code)), "{shown}"),
            }
            let said = answer["message"].as_str().unwrap_or_default();
            assert!(said.contains(message), "{message}\n{shown}");
        }
    }

    /// What a log group holds.
    pub fn lines(&self, group: &str) -> Vec<Value> {
        let files = std::fs::read_dir(self.place.path().join("data/logs").join(group)).into_iter().flatten().flatten();
        let texts: Vec<String> = files.map(|file| std::fs::read_to_string(file.path()).expect("text")).collect();
        texts.iter().flat_map(|text| text.lines()).map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Ends the process by a signal and starts another one in its place.
    pub fn restart(self, signal: &str) -> Self {
        self.restart_after(signal, |_| {})
    }

    /// The same; `between` meets the data directory while nothing runs.
    pub fn restart_after(self, signal: &str, between: impl FnOnce(&std::path::Path)) -> Self {
        let Self { place, listen, mut child } = self;
        child.signal(signal);
        child.0.wait().expect("a status");
        between(&place.path().join("data"));
        let child = Guard(place.command(&["run", "-c", "c.yaml"]).spawn().expect("a process"));
        until("it listens and answers", || exchange(&listen, "GET /", &[], b"").is_some());
        Self { place, listen, child }
    }

    pub fn stop(mut self) {
        self.child.signal("-TERM");
        let status = self.child.0.wait().expect("a status");
        assert_eq!(status.code(), Some(0), "a clean drain");
    }
}

const ORDERS: &str = "buses: { Orders: {}, aws.partner/acme/x: {} }\ntargets: { log: { log: { group: orders } } }\n\
                      rules: { all: { bus: Orders, pattern: { source: [{ exists: true }] }, targets: [log] } }\n";

fn entry(n: usize) -> Value {
    json!({ "EventBusName": "Orders", "Source": "com.aws.orders", "DetailType": "Order", "Detail": format!("{{\"n\":{n}}}") })
}

#[test]
fn an_event_has_the_services_form() {
    let endpoint = Endpoint::start("", ORDERS);
    let mut whole = entry(1);
    whole["Detail"] = json!("{ \"n\": 1.50, \"text\": \"ü\\n\" }");
    whole["Time"] = json!(1706691600.5);
    whole["Resources"] = json!(["arn:a", "b\"c"]);
    whole["TraceHeader"] = json!("Root=1-2-3");
    let (status, answer) = endpoint.call("PutEvents", &json!({ "Entries": [whole], "Unknown": 1 }));
    assert_eq!((status, &answer["FailedEntryCount"]), (200, &json!(0)));
    let id = answer["Entries"][0]["EventId"].as_str().expect("an id");
    until("it is written", || !endpoint.lines("orders").is_empty());
    let text = std::fs::read_dir(endpoint.place.path().join("data/logs/orders")).expect("a group");
    let text: String = text.flatten().map(|file| std::fs::read_to_string(file.path()).expect("text")).collect();
    let expected = format!(
        "{{\"version\":\"0\",\"id\":\"{id}\",\"detail-type\":\"Order\",\"source\":\"com.aws.orders\",\"account\":\"000000000000\",\
         \"time\":\"2024-01-31T09:00:00Z\",\"region\":\"eu-west-1\",\"resources\":[\"arn:a\",\"b\\\"c\"],\
         \"detail\":{{ \"n\": 1.50, \"text\": \"ü\\n\" }}}}\n"
    );
    assert_eq!(text, expected);
    endpoint.stop();
}

#[test]
fn each_entry_has_an_answer_of_its_own() {
    let endpoint = Endpoint::start("", ORDERS);
    let without = |name: &str| {
        let mut entry = entry(0);
        entry.as_object_mut().expect("an object").remove(name);
        entry
    };
    let with = |name: &str, value: Value| {
        let mut entry = entry(0);
        entry[name] = value;
        entry
    };
    let required = |name: &str| format!("Parameter {name} is not valid. Reason: {name} is a required argument.");
    let rows = [
        (entry(1), None),
        (without("Source"), Some(("InvalidArgument", required("Source")))),
        (with("Source", json!("")), Some(("InvalidArgument", required("Source")))),
        (without("DetailType"), Some(("InvalidArgument", required("DetailType")))),
        (without("Detail"), Some(("InvalidArgument", required("Detail")))),
        (with("Detail", json!("not json")), Some(("MalformedDetail", "Detail is malformed.".to_owned()))),
        (with("Detail", json!("[1]")), Some(("MalformedDetail", "Detail is malformed.".to_owned()))),
        (with("Detail", json!("{}{}")), Some(("MalformedDetail", "Detail is malformed.".to_owned()))),
        (
            with("Source", json!("aws.ec2")),
            Some(("NotAuthorizedForSourceException", "Not authorized for the source.".to_owned())),
        ),
        (with("EventBusName", json!("nowhere")), None),
    ];
    let entries: Vec<_> = rows.iter().map(|(entry, _)| entry.clone()).collect();
    let (status, answer) = endpoint.call("PutEvents", &json!({ "Entries": entries }));
    assert_eq!((status, &answer["FailedEntryCount"]), (200, &json!(8)));
    for ((entry, refused), result) in rows.iter().zip(answer["Entries"].as_array().expect("a list")) {
        match refused {
            None => assert!(result["EventId"].as_str().is_some_and(|id| id.len() == 36), "{entry}: {result}"),
            Some((code, message)) => {
                assert_eq!(result, &json!({ "ErrorCode": code, "ErrorMessage": message }), "{entry}");
            }
        }
    }
    let arn = with("EventBusName", json!("arn:aws:events:eu-west-1:000000000000:event-bus/Orders"));
    assert_eq!(endpoint.call("PutEvents", &json!({ "Entries": [arn] })).1["FailedEntryCount"], 0);
    until("the good entries of a mixed request are routed", || endpoint.lines("orders").len() == 2);
    endpoint.stop();
}

/// Body, code (nothing: good; or the result), a part of the message.
type Row = (Value, &'static str, &'static str);

#[test]
fn whole_requests_are_refused_in_the_service_s_words() {
    let endpoint = Endpoint::start("", ORDERS);
    let many: Vec<_> = (0..11).map(entry).collect();
    let largest = || {
        let mut entry = entry(0);
        entry["Detail"] = json!(format!("{{\"x\":\"{}\"}}", "y".repeat(262_144 - 14 - 5 - 8)));
        json!({ "Entries": [entry] })
    };
    let put = |entry: Value| json!({ "Entries": [entry] });
    let constraint = "failed to satisfy constraint: Member must";
    endpoint.check(
        "PutEvents",
        vec![
            (
                json!({}),
                "ValidationException",
                "1 validation error detected: Value null at 'entries' failed to satisfy",
            ),
            (
                json!({ "Entries": [] }),
                "ValidationException",
                "Value '[]' at 'entries' failed to satisfy constraint: Member must have length greater than or equal to 1",
            ),
            (json!({ "Entries": many }), "ValidationException", "have length less than or equal to 10"),
            (
                json!({ "Entries": many }),
                "ValidationException",
                "1 validation error detected: Value '[PutEventsRequestEntry(time=null, source=com.aws.orders,",
            ),
            (largest(), "", ""),
            (
                put(json!({ "EventBusName": "a b" })),
                "ValidationException",
                "Value 'a b' at 'entries.1.member.eventBusName'",
            ),
            (put(json!({ "EventBusName": "a b" })), "ValidationException", constraint),
            (put(json!({ "EventBusName": "aws.partner/acme/x" })), "ValidationException", "eventBusName"),
            (
                put(json!({ "Resources": ["r", "x".repeat(2049)] })),
                "ValidationException",
                "x]' at 'entries.1.member.resources' failed to satisfy constraint: Member must satisfy constraint: [Member \
                 must have length less than or equal to 2048, Member must have length greater than or equal to 0]",
            ),
            (put(json!({ "TraceHeader": "" })), "ValidationException", "'entries.1.member.traceHeader'"),
            (put(json!({ "Source": 5 })), "SerializationException", "entries.1.member.source must be"),
        ],
    );
    let mut larger = largest();
    larger["Entries"][0]["Source"] = json!("com.aws.orders+");
    endpoint.check(
        "PutEvents",
        vec![(larger, "ValidationException", "Total size of the entries in the request is over the limit.")],
    );
    endpoint.check("FlyToTheMoon", vec![(json!({}), "UnknownOperationException", "")]);
    assert_eq!(endpoint.raw("PutEvents", b"no json").1["__type"], "SerializationException");
    assert_eq!(endpoint.raw("PutEvents", b"").1["__type"], "ValidationException");
    endpoint.stop();
}

#[test]
fn patterns_are_tried_on_events() {
    let endpoint = Endpoint::start("", ORDERS);
    let good =
        json!({ "id": "1", "account": "a", "source": "s", "time": "t", "region": "r", "detail-type": "d" }).to_string();
    let test = |pattern: &str, event: &str| json!({ "EventPattern": pattern, "Event": event });
    let bad_event = "Parameter Event is not valid.";
    endpoint.check(
        "TestEventPattern",
        vec![
            (test("{\"source\":[\"s\"]}", &good), "true", ""),
            (test("{\"source\":[\"t\"]}", &good), "false", ""),
            (
                test("{\"source\":[]}", &good),
                "InvalidEventPatternException",
                "Event pattern is not valid. Reason: Empty arrays are not allowed",
            ),
            (test("{\"source\":[\"s\"]}", "[1]"), "ValidationException", bad_event),
            (test("{\"source\":[\"s\"]}", "{\"source\":\"s\"}"), "ValidationException", bad_event),
            (json!({}), "ValidationException", "2 validation errors detected: Value null at 'eventPattern'"),
        ],
    );
    endpoint.stop();
}

#[test]
fn cloud_events_in_every_mode() {
    let endpoint = Endpoint::start("", ORDERS);
    let event = |id: &str| json!({ "specversion": "1.0", "id": id, "source": "/s", "type": "t", "data": { "n": 1 } });
    let post = |path: &str, headers: &[(&str, &str)], body: &str| {
        let (status, _, text) =
            exchange(&endpoint.listen, &format!("POST {path}"), headers, body.as_bytes()).expect("an answer");
        (status, text)
    };
    let structured = [("Content-Type", "application/cloudevents+json; charset=utf-8")];
    let batch = [("Content-Type", "application/cloudevents-batch+json")];
    let binary = [
        ("Content-Type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-id", "3"),
        ("ce-source", "/%C3%BC"),
        ("ce-type", "t"),
    ];
    assert_eq!(post("/events/Orders", &structured, &event("1").to_string()), (200, "{\"accepted\":1}".into()));
    let two = json!([event("2a"), event("2b")]).to_string();
    assert_eq!(post("/events/Orders", &batch, &two), (200, "{\"accepted\":2}".into()));
    assert_eq!(post("/events/Orders", &binary, "{\"n\":3}").0, 200);
    until("all are routed", || endpoint.lines("orders").len() >= 4);
    let seen = endpoint.lines("orders");
    let mut ids: Vec<_> = seen.iter().map(|event| event["id"].as_str().expect("an id")).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["1", "2a", "2b", "3"]);
    assert!(seen.iter().any(|event| event["source"] == "/ü"), "{seen:?}");
    type Refused<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, u16, &'a str);
    let rows: [Refused<'_>; 7] = [
        ("/events/nowhere", &structured, "{}", 404, "does not exist"),
        ("/events/Orders", &structured, "{", 400, "not JSON"),
        ("/events/Orders", &structured, "{\"specversion\":\"1.0\"}", 400, "`id` is missing"),
        ("/events/Orders", &batch, "{}", 400, "a list"),
        ("/events/Orders", &batch, "[{\"specversion\":\"0.3\"}]", 400, "event 0"),
        ("/events/Orders", &[("Content-Type", "text/plain")], "{}", 415, "ce- headers"),
        ("/other", &structured, "{}", 404, "POST /events/BUS"),
    ];
    for (path, headers, body, status, part) in rows {
        let (got, text) = post(path, headers, body);
        assert!(got == status && text.contains(part), "{path} {body}: {got} {text}");
    }
    let large = format!("{{\"specversion\":\"1.0\",\"x\":\"{}\"}}", "y".repeat(300_000));
    assert_eq!(post("/events/Orders", &structured, &large).0, 413);
    endpoint.stop();
}

#[test]
fn webhooks_are_verified_kept_and_not_taken_twice() {
    let rest = "buses: { aws.partner/example.com/acme: {} }\n\
                sources:\n  hook:\n    bus: aws.partner/example.com/acme\n\
                \x20   webhook: { path: /in/acme, verify: { standard_webhooks: { secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw } } }\n\
                \x20   envelope: { raw: { source: aws.partner/example.com, detail_type: $.type } }\n\
                \x20 git:\n    bus: aws.partner/example.com/acme\n\
                \x20   webhook: { path: /in/git, verify: { github: { secret: s3cret } } }\n\
                \x20   envelope: { raw: { source: github, detail_type: { header: x-github-event } } }\n\
                targets: { log: { log: { group: hooks } } }\n\
                rules: { all: { bus: aws.partner/example.com/acme, pattern: { source: [{ exists: true }] }, targets: [log] } }\n";
    let endpoint = Endpoint::start("", rest);
    let key = sluice::webhook::standard_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a key");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs() as i64;
    let post = |id: &str, at: i64, body: &str, signed: &str| {
        let signature = sluice::webhook::sign(&key, id, at, signed.as_bytes());
        let at = at.to_string();
        let headers =
            [("webhook-id", id), ("webhook-timestamp", at.as_str()), ("webhook-signature", signature.as_str())];
        let (status, _, text) =
            exchange(&endpoint.listen, "POST /in/acme", &headers, body.as_bytes()).expect("an answer");
        (status, text)
    };
    let body = "{\"type\":\"ticket.created\",\"ticket\":{\"id\":7}}";
    let rows = [
        ("m1", now, body, body, 200, "\"accepted\":1"),
        ("m1", now, body, body, 409, "taken before"),
        ("m2", now, body, "{}", 401, "no signature fits"),
        ("m3", now - 301, body, body, 401, "seconds from now"),
        ("m4", now, "no json", "no json", 400, "not JSON"),
        ("m5", now, "{\"x\":1}", "{\"x\":1}", 400, "$.type"),
        ("m5", now, "{\"x\":1}", "{\"x\":1}", 400, "$.type"),
        ("m1", now + 1, body, body, 200, "\"accepted\":1"),
    ];
    for (id, at, body, signed, status, part) in rows {
        let (got, text) = post(id, at, body, signed);
        assert!(got == status && text.contains(part), "{id} {body}: {got} {text}");
    }
    let (status, _, text) = exchange(&endpoint.listen, "POST /in/acme", &[], body.as_bytes()).expect("an answer");
    assert!(status == 401 && text.contains("webhook-id"), "{text}");

    let tag = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"s3cret"), b"{}");
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let signature = format!("sha256={hex}");
    let headers =
        [("X-Hub-Signature-256", signature.as_str()), ("X-GitHub-Event", "ping"), ("X-GitHub-Delivery", "d1")];
    for accepted in ["\"accepted\":1", "\"accepted\":0"] {
        // Nothing signed says when: the sender may not have heard us, so it hears it again.
        let (status, _, text) = exchange(&endpoint.listen, "POST /in/git", &headers, b"{}").expect("an answer");
        assert!(status == 200 && text.contains(accepted), "{text}");
    }
    until("all are routed", || endpoint.lines("hooks").len() >= 3);
    let seen = endpoint.lines("hooks");
    let types: Vec<_> = seen.iter().map(|event| event["detail-type"].as_str().expect("text")).collect();
    assert_eq!(types, ["ticket.created", "ticket.created", "ping"]);
    assert_eq!(seen[0]["detail"]["ticket"]["id"], 7);
    endpoint.stop();
}

#[test]
fn bodies_heads_and_connections_are_bounded() {
    let endpoint = Endpoint::start(", max_connections: 4", ORDERS);
    // A head of 2 MB, and one that never ends.
    let huge = "x".repeat(2_000_000);
    let answer = exchange(&endpoint.listen, "POST /", &[("X-Huge", &huge)], b"");
    assert!(answer.as_ref().is_none_or(|(status, ..)| *status == 431), "{answer:?}");
    let begin = Instant::now();
    let mut idle: Vec<_> =
        (0..4).map(|_| std::net::TcpStream::connect(&endpoint.listen).expect("a connection")).collect();
    for stream in &mut idle {
        stream.write_all(b"POST / HT").expect("a beginning");
    }
    // The fifth waits until the others are thrown out.
    let fifth =
        exchange(&endpoint.listen, "POST /", &[("X-Amz-Target", "AWSEvents.PutEvents")], b"{}").expect("an answer");
    assert_eq!(fifth.0, 400);
    assert!((Duration::from_secs(3)..Duration::from_secs(15)).contains(&begin.elapsed()), "{:?}", begin.elapsed());
    // A body that promises more than the limit.
    let mut stream = std::net::TcpStream::connect(&endpoint.listen).expect("a connection");
    write!(
        stream,
        "POST / HTTP/1.1\r\nHost: localhost\r\nX-Amz-Target: AWSEvents.PutEvents\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    .expect("a head");
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let mut sent = 0;
    while sent < 2000 && stream.write_all(chunk.as_bytes()).is_ok() {
        sent += 1;
    }
    let mut text = String::new();
    stream.read_to_string(&mut text).ok();
    assert!(sent < 2000, "an endless body is cut off");
    assert!(text.is_empty() || text.contains("over the limit"), "{text}");
    endpoint.stop();
}

#[test]
fn who_may_call() {
    let endpoint = Endpoint::start(
        ", auth: { bearer: [0123456789abcdef0123456789abcdef, fedcba9876543210fedcba9876543210] }",
        ORDERS,
    );
    let put = json!({ "Entries": [entry(1)] }).to_string();
    let call = |token: Option<&str>| {
        let value = token.map(|token| format!("Bearer {token}"));
        let mut headers = vec![("X-Amz-Target", "AWSEvents.PutEvents")];
        headers.extend(value.iter().map(|value| ("Authorization", value.as_str())));
        exchange(&endpoint.listen, "POST /", &headers, put.as_bytes()).expect("an answer").0
    };
    assert_eq!(call(None), 400);
    assert_eq!(call(Some("0123456789abcdef0123456789abcdeX")), 400);
    assert_eq!(
        (call(Some("0123456789abcdef0123456789abcdef")), call(Some("fedcba9876543210fedcba9876543210"))),
        (200, 200)
    );
    assert_eq!(exchange(&endpoint.listen, "POST /events/Orders", &[], b"{}").expect("an answer").0, 401);
    // A page in a browser that was led to this machine by another name.
    let headers = [("Host", "evil.example:80"), ("Authorization", "Bearer 0123456789abcdef0123456789abcdef")];
    assert_eq!(exchange(&endpoint.listen, "POST /events/Orders", &headers, b"{}").expect("an answer").0, 421);
    endpoint.stop();
}

#[test]
fn an_open_listener_wants_to_know_its_callers() {
    let hook = "sources: { h: { webhook: { path: /in/h, verify: none }, envelope: { raw: { source: a, detail_type: b } } } }\n";
    let twice = "sources:\n  h: { webhook: { path: /in/h, verify: none }, envelope: { raw: { source: a, detail_type: b } } }\n\
                 \x20 i: { webhook: { path: /in/h, verify: none }, envelope: { raw: { source: a, detail_type: b } } }\n";
    let rows = [
        ("listen: \"off\"", hook, "can receive nothing"),
        ("listen: \"127.0.0.1:0\"", twice, "that of source `h` as well"),
        ("listen: \"127.0.0.1:0\"", "egress: { allow: [10.0.0.0/99] }\n", "is no network"),
        ("listen: \"0.0.0.0:0\"", "", "set server.auth.bearer"),
        ("listen: \"0.0.0.0:0\", auth: { bearer: [] }", "", "server.auth.bearer is empty"),
        ("listen: \"0.0.0.0:0\", auth: {}", "", "neither tokens nor keys"),
        ("listen: \"0.0.0.0:0\", auth: { bearer: [short] }", "", "fewer than 128 bits"),
        ("listen: \"0.0.0.0:0\", auth: { bearer: [0123456789abcdef0123456789abcde] }", "", "fewer than 128 bits"),
        ("listen: \"0.0.0.0:0\", auth: { bearer: [{ role: put }] }", "", "one of `token` and `sha256`"),
        ("listen: \"0.0.0.0:0\", auth: { bearer: [{ sha256: abc }] }", "", "`sha256` is no hash"),
        ("listen: \"0.0.0.0:0\", auth: { keys: none.yaml }", "", "cannot read none.yaml"),
        ("listen: \"0.0.0.0:0\", auth: { bearer: [0123456789abcdef0123456789abcdef] }", hook, "verify: none"),
    ];
    for (server, rest, part) in rows {
        let config = format!("data_dir: data\nserver: {{ {server}, admin: \"off\" }}\n{rest}");
        for verb in ["run", "validate"] {
            let said = Place::new(&[("c.yaml", &config)]).run(&[verb, "-c", "c.yaml"], "");
            assert!(said.code == Some(78) && said.err.contains(part), "{verb} {server}: {:?} {}", said.code, said.err);
        }
    }
}

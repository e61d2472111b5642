//! API destinations and their connections, from the API to the request that arrives.

use crate::endpoint::Endpoint;
use crate::process::until;
use crate::receiver::{Act, Receiver};
use serde_json::{Value, json};
use sluice::deliver::invocation::address;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What a rule needs to reach a receiver; all are named alike, and events of that source go there.
pub struct Way {
    name: &'static str,
    pub connection: Value,
    destination: Value,
    target: Value,
}

pub fn basic(more: Value) -> Value {
    let block = json!({ "Username": "myUsername", "Password": "myPassword" });
    json!({ "AuthorizationType": "BASIC", "AuthParameters":
        { "BasicAuthParameters": block, "InvocationHttpParameters": more } })
}

fn api_key(name: &str, more: Value) -> Value {
    let block = json!({ "ApiKeyName": name, "ApiKeyValue": "k3y" });
    json!({ "AuthorizationType": "API_KEY", "AuthParameters":
        { "ApiKeyAuthParameters": block, "InvocationHttpParameters": more } })
}

pub fn oauth(url: &str, method: &str, more: Value) -> Value {
    let client = json!({ "ClientID": "myClient", "ClientSecret": "myS3cret" });
    let block = json!({ "ClientParameters": client, "AuthorizationEndpoint": url, "HttpMethod": method,
        "OAuthHttpParameters": more });
    json!({ "AuthorizationType": "OAUTH_CLIENT_CREDENTIALS", "AuthParameters": { "OAuthParameters": block } })
}

/// A list of a connection's parameters.
pub fn list(pairs: &[(&str, &str)]) -> Value {
    pairs.iter().map(|(key, value)| json!({ "Key": key, "Value": value })).collect()
}

pub fn with(mut base: Value, more: &Value) -> Value {
    base.as_object_mut().expect("an object").extend(more.as_object().cloned().expect("an object"));
    base
}

pub fn done(endpoint: &Endpoint, action: &str, members: &Value) -> Value {
    let (status, answer) = endpoint.call(action, members);
    assert_eq!(status, 200, "{action} {members}: {answer}");
    assert_eq!(answer["FailedEntryCount"].as_u64().unwrap_or(0), 0, "{action} {members}: {answer}");
    answer
}

impl Way {
    /// A way with a connection, to a URL.
    pub fn new(name: &'static str, connection: Value, url: &str) -> Self {
        let destination = json!({ "InvocationEndpoint": url, "HttpMethod": "POST" });
        Self { name, connection, destination, target: json!({ "InputPath": "$.detail" }) }
    }

    fn destination(self, more: Value) -> Self {
        Self { destination: with(self.destination, &more), ..self }
    }

    pub fn target(self, more: Value) -> Self {
        Self { target: with(self.target, &more), ..self }
    }

    fn parameters(self, more: Value) -> Self {
        self.target(json!({ "HttpParameters": more }))
    }

    /// Makes it; the ARN of the destination.
    pub fn make(&self, endpoint: &Endpoint) -> Value {
        let name = json!({ "Name": self.name });
        let connection = done(endpoint, "CreateConnection", &with(self.connection.clone(), &name));
        let connection = json!({ "Name": self.name, "ConnectionArn": connection["ConnectionArn"] });
        let made = done(endpoint, "CreateApiDestination", &with(self.destination.clone(), &connection));
        let pattern = json!({ "source": [self.name] }).to_string();
        done(endpoint, "PutRule", &json!({ "Name": self.name, "EventPattern": pattern }));
        let target = with(self.target.clone(), &json!({ "Id": "1", "Arn": made["ApiDestinationArn"] }));
        done(endpoint, "PutTargets", &json!({ "Rule": self.name, "Targets": [target] }));
        made["ApiDestinationArn"].clone()
    }

    pub fn put(&self, endpoint: &Endpoint, detail: &str) {
        let entry = json!({ "Source": self.name, "DetailType": "t", "Detail": detail });
        done(endpoint, "PutEvents", &json!({ "Entries": [entry] }));
    }
}

/// Dead letters of a rule.
pub fn letters(endpoint: &Endpoint, rule: &str) -> Vec<Value> {
    let below = |folder: PathBuf| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let files = below(endpoint.place.path().join("data/dead-letters")).flat_map(below);
    let texts: Vec<_> = files.map(|file| std::fs::read_to_string(file).expect("text")).collect();
    // The last line may be half there.
    let all = texts.iter().flat_map(|text| text.lines()).filter_map(|line| serde_json::from_str::<Value>(line).ok());
    all.filter(|letter| letter["RULE_ARN"].as_str().is_some_and(|arn| arn.ends_with(&format!("/{rule}")))).collect()
}

pub const DETAIL: &str = "{\"id\":\"a b/ü\",\"n\":1.50,\"none\":null,\"list\":[1, 2],\"up\":\"..\",\"line\":\"a\\nb\"}";

/// A way made from a receiver's address; the request line; headers, `-` for none; the body.
type Row = (fn(&str) -> Way, &'static str, &'static [(&'static str, &'static str)], &'static str);

const WHOLE: &str = DETAIL;

const ROWS: &[Row] = &[
    (
        |url| Way::new("plain", basic(json!({})), url),
        "POST /hook",
        &[
            ("authorization", "Basic bXlVc2VybmFtZTpteVBhc3N3b3Jk"),
            ("content-type", "application/json; charset=utf-8"),
            ("user-agent", "Amazon/EventBridge/ApiDestinations"),
            ("range", "bytes=0-1048575"),
            ("accept-encoding", "gzip,deflate"),
            ("connection", "close"),
            ("content-encoding", "-"),
        ],
        WHOLE,
    ),
    (
        |url| {
            Way::new("path", api_key("X-Api-Key", json!({})), &format!("{url}/*/v-*/?a=1&b=*"))
                .destination(json!({ "HttpMethod": "PUT" }))
                .parameters(json!({ "PathParameterValues": ["$.detail.id", "$5", "$.detail.n", "x?y=1#z"] }))
        },
        "PUT /hook/a%20b%2F%C3%BC/v-%245/1.50/x%3Fy%3D1%23z?a=1&b=*",
        &[("x-api-key", "k3y"), ("authorization", "-")],
        WHOLE,
    ),
    (
        |url| {
            let own = json!({ "HeaderParameters": list(&[("X-Team", "theirs"), ("x-own", "1"), ("Host", "evil")]),
                "QueryStringParameters": list(&[("q", "theirs"), ("own", "a&b")]),
                "BodyParameters": list(&[("n", "2.0"), ("new", "a\"b"), ("new", "c\"d")]) });
            Way::new("wins", basic(own), url).parameters(json!({
                "HeaderParameters": { "x-team": "$.detail.n", "X-Own": "2", "Authorization": "none", "x-mine": "3" },
                "QueryStringParameters": { "q": "$.detail.n", "mine": "ü" } }))
        },
        "POST /hook?mine=%C3%BC&q=theirs&own=a%26b",
        &[
            ("x-team", "theirs"),
            ("x-own", "1"),
            ("x-mine", "3"),
            ("authorization", "Basic bXlVc2VybmFtZTpteVBhc3N3b3Jk"),
        ],
        "{\"id\":\"a b/ü\",\"none\":null,\"list\":[1, 2],\"up\":\"..\",\"line\":\"a\\nb\",\"n\":\"2.0\",\"new\":\"c\\\"d\"}",
    ),
    (
        |url| {
            Way::new("key-wins", api_key("x-key", json!({})), url)
                .parameters(json!({ "HeaderParameters": { "X-Key": "$.source", "Authorization": "Bearer mine" } }))
        },
        "POST /hook",
        &[("x-key", "k3y"), ("authorization", "Bearer mine")],
        WHOLE,
    ),
    (
        |url| {
            Way::new("taken", basic(json!({})), url).parameters(json!({
                "HeaderParameters": { "x-n": "$.detail.n", "x-list": "$.detail.list", "x-none": "$.detail.none",
                    "x-no": "$.detail.no", "x-text": "$.detail", "Content-Type": "text/plain", "x-every": "$.detail.list[*]",
                    "webhook-id": "$.source", "x-part": "n: $.detail.n" },
                "QueryStringParameters": { "id": "$.detail.id", "no": "$.detail.no" } }))
        },
        "POST /hook?id=a%20b%2F%C3%BC",
        &[
            ("x-n", "1.50"),
            ("x-list", "[1, 2]"),
            ("x-every", "[1,2]"),
            ("x-none", "-"),
            ("x-no", "-"),
            ("x-part", "n: $.detail.n"),
            ("content-type", "text/plain"),
            ("webhook-id", "taken"),
        ],
        WHOLE,
    ),
    (
        |url| {
            let names = "Host Content-Length Transfer-Encoding Connection Range User-Agent Date TE Trailer Upgrade Expect Via Forwarded";
            let headers: serde_json::Map<_, _> = names.split(' ').map(|name| (name.to_owned(), "7".into())).collect();
            Way::new("forbidden", api_key("via", json!({})), url).parameters(json!({ "HeaderParameters": headers }))
        },
        "POST /hook",
        &[
            ("transfer-encoding", "-"),
            ("date", "-"),
            ("te", "-"),
            ("trailer", "-"),
            ("upgrade", "-"),
            ("expect", "-"),
            ("via", "-"),
            ("forwarded", "-"),
            ("connection", "close"),
            ("range", "bytes=0-1048575"),
            ("user-agent", "Amazon/EventBridge/ApiDestinations"),
        ],
        WHOLE,
    ),
    (
        |url| {
            let own = json!({ "BodyParameters": list(&[("a", "b")]) });
            Way::new("no-object", basic(own), url).target(json!({ "InputPath": "$.detail.list" }))
        },
        "POST /hook",
        &[],
        "[1, 2]",
    ),
    (
        |url| {
            let own = json!({ "BodyParameters": list(&[("a", "b")]) });
            Way::new("empty", basic(own), url)
                .destination(json!({ "HttpMethod": "DELETE" }))
                .parameters(json!({ "PathParameterValues": ["$.detail.list[1]"] }))
                .target(json!({ "InputPath": null, "Input": " { } " }))
        },
        "DELETE /hook/2",
        &[],
        "{\"a\":\"b\"}",
    ),
    (
        |url| Way::new("get", basic(json!({})), url).destination(json!({ "HttpMethod": "GET" })),
        "GET /hook",
        &[("content-length", "-")],
        "",
    ),
    (|url| Way::new("head", basic(json!({})), url).destination(json!({ "HttpMethod": "HEAD" })), "HEAD /hook", &[], ""),
    (
        |url| Way::new("options", basic(json!({})), url).destination(json!({ "HttpMethod": "OPTIONS" })),
        "OPTIONS /hook",
        &[],
        WHOLE,
    ),
    (
        |url| {
            Way::new("scheme", basic(json!({})), &url.replace("http://", "HTTP://"))
                .destination(json!({ "HttpMethod": "PATCH" }))
        },
        "PATCH /hook",
        &[],
        WHOLE,
    ),
];

#[test]
fn a_request_is_as_target_and_connection_want_it() {
    let endpoint = Endpoint::start("", "");
    for (way, line, headers, body) in ROWS {
        let receiver = Receiver::start(|_, _| Act::ok());
        let way = way(&receiver.url);
        way.make(&endpoint);
        way.put(&endpoint, DETAIL);
        way.put(&endpoint, DETAIL);
        until(way.name, || receiver.count() == 2);
        assert_eq!(receiver.connections(), 2, "{}: a connection a request", way.name);
        for request in receiver.requests() {
            assert_eq!(format!("{} {}", request.method, request.path), *line, "{}", way.name);
            for (name, value) in *headers {
                let all: Vec<_> = request.headers.iter().filter(|(known, _)| known == name).collect();
                assert!(all.len() <= 1, "{}: {all:?}", way.name);
                assert_eq!(request.header(name).unwrap_or("-"), *value, "{}: {name}", way.name);
            }
            assert_eq!(String::from_utf8_lossy(&request.body), *body, "{}", way.name);
        }
        assert!(letters(&endpoint, way.name).is_empty());
    }
    endpoint.stop();
}

#[test]
fn addresses_are_filled_segment_by_segment() {
    // Endpoint, path values, parts of the query; the address, or a part of what is wrong.
    type Filled = (&'static str, &'static [&'static str], &'static [(&'static str, &'static str)], &'static str);
    let rows: &[Filled] = &[
        ("https://h", &[], &[], "https://h"),
        ("https://h", &["a"], &[], "https://h/a"),
        ("https://h?x", &["a"], &[], "https://h/a?x"),
        ("https://h/", &["a", "b"], &[], "https://h/a/b"),
        ("https://h/a/", &["b"], &[("c", "d e")], "https://h/a/b?c=d%20e"),
        ("https://h/a?b=c", &[], &[("b", "d"), ("e=f", "")], "https://h/a?b=c&b=d&e%3Df="),
        ("https://*.h/*/*", &["a"], &[], "https://*.h/a/*"),
        ("https://h/a*b*c", &["1", "2"], &[], "https://h/a1b2c"),
        ("https://h/*", &["../x\\y"], &[], "https://h/..%2Fx%5Cy"),
        ("https://h/*", &["%2e%2e"], &[], "https://h/%252e%252e"),
        ("https://h/*", &[".."], &[], "cannot be a part"),
        ("https://h/.*/x", &["."], &[], "cannot be a part"),
        ("https://h/%2E*/x", &["."], &[], "cannot be a part"),
        ("https://h/*", &["a", "."], &[], "cannot be a part"),
        ("https://h/../*", &["@evil:80"], &[], "https://h/../%40evil%3A80"),
    ];
    for (endpoint, path, query, expected) in rows {
        let made = address(endpoint, path, query).unwrap_or_else(|why| why);
        let place = format!("{endpoint} {path:?} {query:?}: {made}");
        assert!(if expected.starts_with("https") { made == *expected } else { made.contains(expected) }, "{place}");
    }
}

#[test]
fn what_cannot_be_sent_is_a_dead_letter() {
    let endpoint = Endpoint::start("", "");
    let receiver = Receiver::start(|_, _| Act::ok());
    let (url, plain) = (receiver.url.as_str(), Receiver::start(|_, _| Act::ok()));
    let path =
        |name, value: &str| Way::new(name, basic(json!({})), url).parameters(json!({ "PathParameterValues": [value] }));
    let header = json!({ "HeaderParameters": { "x-line": "$.detail.line" } });
    let rows = [
        (path("no-value", "$.detail.no"), "INVALID_PARAMETER", "$.detail.no"),
        (path("null-value", "$.detail.none"), "INVALID_PARAMETER", "$.detail.none"),
        (path("up", "$.detail.up"), "INVALID_PARAMETER", "`..`"),
        (Way::new("line", basic(json!({})), url).parameters(header), "INVALID_PARAMETER", "x-line"),
        (Way::new("private", basic(json!({})), "http://10.1.2.3/"), "NO_RESOURCE", "egress.allow"),
        (Way::new("private-token", oauth("10.1.2.3/", "POST", json!({})), url), "NO_RESOURCE", "egress.allow"),
        (Way::new("user", basic(json!({})), "http://me@127.0.0.1/"), "NO_RESOURCE", "user name"),
        (Way::new("scheme", basic(json!({})), "ftp://127.0.0.1/"), "NO_RESOURCE", "no address of http"),
        (Way::new("no-host", basic(json!({})), "http:///*/hook"), "NO_RESOURCE", "no host"),
        (Way::new("key-name", api_key("a b", json!({})), url), "NO_RESOURCE", "no header name"),
        // Without a scheme it is https, which this receiver does not speak.
        (
            Way::new("no-scheme", basic(json!({})), plain.url.trim_start_matches("http://"))
                .target(json!({ "RetryPolicy": { "MaximumRetryAttempts": 0 } })),
            "CONNECTION_FAILURE",
            "https://127.0.0.1",
        ),
    ];
    for (way, code, part) in rows {
        way.make(&endpoint);
        way.put(&endpoint, DETAIL);
        until(way.name, || !letters(&endpoint, way.name).is_empty());
        let letter = letters(&endpoint, way.name).remove(0);
        assert_eq!(letter["ERROR_CODE"], code, "{letter}");
        assert!(letter["ERROR_MESSAGE"].as_str().is_some_and(|text| text.contains(part)), "{letter}");
        assert_eq!(letter["RETRY_ATTEMPTS"], "0", "{letter}");
    }
    let way = Way::new("gone", basic(json!({})), url);
    way.make(&endpoint);
    let steps = [
        ("DeauthorizeConnection", json!({ "Name": "gone" }), Some("DEAUTHORIZED")),
        (
            "UpdateConnection",
            json!({ "Name": "gone", "AuthParameters": { "BasicAuthParameters": { "Password": "p" } } }),
            None,
        ),
        ("DeleteConnection", json!({ "Name": "gone" }), Some("connection")),
        ("DeleteApiDestination", json!({ "Name": "gone" }), Some("API destination")),
    ];
    let (mut buried, mut sent) = (0, 0);
    for (action, members, refused) in steps {
        done(&endpoint, action, &members);
        way.put(&endpoint, DETAIL);
        (buried, sent) = if refused.is_some() { (buried + 1, sent) } else { (buried, sent + 1) };
        until(action, || letters(&endpoint, "gone").len() == buried && receiver.count() == sent);
        if let Some(part) = refused {
            let letter = letters(&endpoint, "gone").remove(buried - 1);
            assert_eq!(letter["ERROR_CODE"], "NO_RESOURCE", "{letter}");
            assert!(letter["ERROR_MESSAGE"].as_str().is_some_and(|text| text.contains(part)), "{letter}");
        }
    }
    endpoint.stop();
}

#[test]
fn parameters_of_the_event_outlive_a_crash() {
    let endpoint = Endpoint::start("", "");
    let good = Arc::new(AtomicBool::new(false));
    let open = Arc::clone(&good);
    let receiver = Receiver::start(move |_, _| match open.load(Ordering::SeqCst) {
        true => Act::ok(),
        false => Act::status("503 Service Unavailable"),
    });
    let way = Way::new("later", basic(json!({})), &format!("{}/*", receiver.url)).parameters(json!({
        "PathParameterValues": ["$.detail.id"], "HeaderParameters": { "x-n": "$.detail.n" },
        "QueryStringParameters": { "n": "$.detail.n" } }));
    way.make(&endpoint);
    way.put(&endpoint, DETAIL);
    until("it failed twice", || receiver.count() >= 2);
    let endpoint = endpoint.restart("-KILL");
    good.store(true, Ordering::SeqCst);
    until("it came", || receiver.requests().iter().any(|request| request.answer == "200 OK"));
    for request in receiver.requests() {
        assert_eq!(request.path, "/hook/a%20b%2F%C3%BC?n=1.50");
        assert_eq!(request.header("x-n"), Some("1.50"));
        assert_eq!(request.body, WHOLE.as_bytes());
    }
    endpoint.stop();
}

#[test]
fn all_targets_of_a_destination_share_its_rate() {
    const RATE: usize = 20;
    let endpoint = Endpoint::start("", "");
    let receiver = Receiver::start(|_, _| Act::ok());
    let way =
        Way::new("paced", basic(json!({})), &receiver.url).destination(json!({ "InvocationRateLimitPerSecond": RATE }));
    let arn = way.make(&endpoint);
    let other = json!({ "Id": "2", "Arn": arn, "HttpParameters": { "PathParameterValues": ["2"] } });
    done(&endpoint, "PutTargets", &json!({ "Rule": "paced", "Targets": [other] }));
    for _ in 0..RATE {
        way.put(&endpoint, DETAIL);
    }
    until("all came", || receiver.count() == 2 * RATE);
    let mut times: Vec<_> = receiver.requests().iter().map(|request| request.at).collect();
    times.sort();
    for pair in times.windows(RATE + 1) {
        let spent = pair[RATE].duration_since(pair[0]);
        assert!(spent >= Duration::from_millis(900), "{} requests in {spent:?}", RATE + 1);
    }
    assert!(letters(&endpoint, "paced").is_empty());
    endpoint.stop();
}

//! Connections by OAuth: when their tokens are asked for, renewed, and missed.

use crate::destinations::{DETAIL, Way, basic, done, letters, list, oauth, with};
use crate::endpoint::Endpoint;
use crate::process::until;
use crate::receiver::{Act, Receiver, Request};
use serde_json::{Value, json};

/// Gives out the tokens `t0`, `t1`, ...
fn authority(more: &'static str) -> Receiver {
    Receiver::start(move |_, n| {
        let body = format!("{{\"access_token\":\"t{n}\",\"token_type\":\"bearer\"{more}}}");
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
        Act::Raw(format!("{head}{body}").into_bytes())
    })
}

fn bearer(request: &Request) -> &str {
    request.header("authorization").unwrap_or_default()
}

#[test]
fn a_token_is_asked_for_as_the_connection_says() {
    let endpoint = Endpoint::start("", "");
    let more = json!({ "HeaderParameters": list(&[("x-tenant", "acme"), ("User-Agent", "me")]),
        "QueryStringParameters": list(&[("scope", "a b")]), "BodyParameters": list(&[("audience", "api")]) });
    let own = json!({ "BodyParameters": list(&[("grant_type", "password")]) });
    let client = "{\"client_id\":\"myClient\",\"client_secret\":\"myS3cret\"";
    let rows = [
        ("bare", "POST", json!({}), "POST /hook", format!("{client},\"grant_type\":\"client_credentials\"}}"), "-"),
        (
            "more",
            "PUT",
            more,
            "PUT /hook?scope=a%20b",
            format!("{client},\"audience\":\"api\",\"grant_type\":\"client_credentials\"}}"),
            "acme",
        ),
        ("own", "GET", own, "GET /hook", format!("{client},\"grant_type\":\"password\"}}"), "-"),
    ];
    for (name, method, more, line, body, tenant) in rows {
        let (tokens, receiver) = (authority(",\"expires_in\":3600"), Receiver::start(|_, _| Act::ok()));
        let way = Way::new(name, oauth(&tokens.url, method, more), &receiver.url);
        way.make(&endpoint);
        for _ in 0..20 {
            way.put(&endpoint, DETAIL);
        }
        until(name, || receiver.count() == 20);
        assert!(receiver.requests().iter().all(|request| bearer(request) == "Bearer t0"));
        let asked = tokens.requests();
        assert_eq!(asked.len(), 1, "attempts share a token");
        assert_eq!(format!("{} {}", asked[0].method, asked[0].path), line);
        assert_eq!(String::from_utf8_lossy(&asked[0].body), body);
        assert_eq!(asked[0].header("content-type"), Some("application/json; charset=utf-8"));
        assert_eq!(asked[0].header("user-agent"), Some("Amazon/EventBridge/ApiDestinations"));
        assert_eq!(asked[0].header("x-tenant").unwrap_or("-"), tenant);
    }
    endpoint.stop();
}

#[test]
fn a_token_is_renewed_when_it_ends_and_once_when_it_is_refused() {
    let endpoint = Endpoint::start("", "");
    let once = |name, url: &str, tokens: &Receiver| {
        let way = Way::new(name, oauth(&tokens.url, "POST", json!({})), url)
            .target(json!({ "RetryPolicy": { "MaximumRetryAttempts": 1 } }));
        way.make(&endpoint);
        way.put(&endpoint, DETAIL);
        way
    };
    // Refused once; the event needs no other attempt.
    for status in ["401 Unauthorized", "407 Proxy Authentication Required"] {
        let name = if status.starts_with("401") { "401" } else { "407" };
        let tokens = authority("");
        let receiver = Receiver::start(move |request, _| match bearer(request) {
            "Bearer t0" => Act::status(status),
            _ => Act::ok(),
        });
        let way = once(name, &receiver.url, &tokens);
        until(name, || receiver.count() == 2);
        way.put(&endpoint, DETAIL);
        until(name, || receiver.count() == 3);
        let used: Vec<_> = receiver.requests().iter().map(|request| bearer(request).to_owned()).collect();
        assert_eq!(
            (used.as_slice(), tokens.count()),
            (["Bearer t0", "Bearer t1", "Bearer t1"].map(String::from).as_slice(), 2)
        );
        let requests = receiver.requests();
        assert_eq!(requests[0].header("webhook-id"), requests[1].header("webhook-id"));
    }
    // Refused for ever: a new token does not help, so there is one.
    let tokens = authority("");
    let receiver = Receiver::start(|_, _| Act::status("401 Unauthorized"));
    once("refused", &receiver.url, &tokens);
    until("it is given up", || !letters(&endpoint, "refused").is_empty());
    assert_eq!((receiver.count(), tokens.count()), (3, 2));
    assert_eq!(letters(&endpoint, "refused")[0]["ERROR_CODE"], "NO_PERMISSIONS");
    // The number of seconds may be a text; half of a short life is used.
    for (name, more) in [("number", ",\"expires_in\":1"), ("text", ",\"expires_in\":\"1\"")] {
        let (tokens, receiver) = (authority(more), Receiver::start(|_, _| Act::ok()));
        let way = once(name, &receiver.url, &tokens);
        until(name, || {
            let before = receiver.count();
            way.put(&endpoint, DETAIL);
            until("it came", || receiver.count() > before);
            tokens.count() >= 2
        });
        assert!(receiver.requests().iter().any(|request| bearer(request) == "Bearer t1"));
    }
    endpoint.stop();
}

/// What an authority does; the code of a dead letter, if it never gets better, and a part of its message.
type Bad = (&'static str, fn() -> Act, &'static str, &'static str);

const BAD: &[Bad] = &[
    (
        "bad-400",
        || Act::Answer("400 Bad Request", vec![], "{\"error\":\"invalid_client\"}"),
        "NO_PERMISSIONS",
        "(invalid_client)",
    ),
    ("bad-403", || Act::Answer("403 Forbidden", vec![], "{\"error\":\"l3ak\"}"), "NO_PERMISSIONS", "403 Forbidden"),
    ("bad-429", || Act::status("429 Too Many Requests"), "THROTTLING", "429"),
    ("bad-500", || Act::status("500 Internal Server Error"), "ERROR_FROM_TARGET", "500"),
    (
        "moved",
        || Act::Answer("302 Found", vec![("location", "http://127.0.0.1:9/".into())], ""),
        "ERROR_FROM_TARGET",
        "302",
    ),
    ("reset", || Act::Reset, "CONNECTION_FAILURE", "no token"),
    ("no-json", || Act::Answer("200 OK", vec![], "<html>"), "ERROR_FROM_TARGET", "no JSON"),
    ("no-token", || Act::Answer("200 OK", vec![], "{\"a\":\"l3ak\"}"), "ERROR_FROM_TARGET", "`access_token`"),
    ("bad-token", || Act::Answer("200 OK", vec![], "{\"access_token\":\"l3ak\\n\"}"), "ERROR_FROM_TARGET", "sent"),
    ("endless", || Act::Endless, "ERROR_FROM_TARGET", "without end"),
];

fn state(endpoint: &Endpoint, name: &str) -> Value {
    endpoint.call("DescribeConnection", &json!({ "Name": name })).1
}

fn is_active(endpoint: &Endpoint, name: &str) -> bool {
    endpoint.call("DescribeApiDestination", &json!({ "Name": name })).1["ApiDestinationState"] == "ACTIVE"
}

/// What the log and the letters say holds no secrets.
fn no_secret(mut endpoint: Endpoint, mut shown: String) {
    endpoint.child.signal("-TERM");
    let mut log = endpoint.child.0.stderr.take().expect("a pipe");
    std::io::Read::read_to_string(&mut log, &mut shown).expect("text");
    assert!(shown.contains("no token"), "{shown}");
    for secret in ["myS3cret", "l3ak"] {
        assert!(!shown.contains(secret), "{secret} is told: {shown}");
    }
}

/// A token is asked for when a connection is made, not with the first delivery.
#[test]
fn a_connection_is_authorised_by_its_first_token() {
    let endpoint = Endpoint::start("", "");
    let receiver = Receiver::start(|_, _| Act::ok());
    let tokens = authority(",\"expires_in\":3600");
    let way = Way::new("good", oauth(&tokens.url, "POST", json!({})), &receiver.url);
    let made = done(&endpoint, "CreateConnection", &with(way.connection.clone(), &json!({ "Name": "first" })));
    assert_eq!(
        (&made["ConnectionState"], &made["LastAuthorizedTime"]),
        (&json!("AUTHORIZING"), &Value::Null),
        "{made}"
    );
    until("it is authorised", || state(&endpoint, "first")["ConnectionState"] == "AUTHORIZED");
    let described = state(&endpoint, "first");
    assert!(described["LastAuthorizedTime"].as_f64() >= made["CreationTime"].as_f64(), "{described}");
    assert_eq!((&described["StateReason"], tokens.count()), (&Value::Null, 1), "{described}");
    let updated = done(&endpoint, "UpdateConnection", &with(way.connection, &json!({ "Name": "first" })));
    assert_eq!(updated["ConnectionState"], "AUTHORIZING", "{updated}");
    until("it is asked for anew", || {
        tokens.count() == 2 && state(&endpoint, "first")["ConnectionState"] == "AUTHORIZED"
    });
    let gone = done(&endpoint, "DeauthorizeConnection", &json!({ "Name": "first" }));
    assert_eq!(gone["ConnectionState"], "DEAUTHORIZING", "{gone}");
    assert_eq!((&state(&endpoint, "first")["ConnectionState"], tokens.count()), (&json!("DEAUTHORIZED"), 2));
    endpoint.stop();
}

#[test]
fn a_connection_without_a_token_is_deauthorised() {
    let endpoint = Endpoint::start("", "");
    let receiver = Receiver::start(|_, _| Act::ok());
    let mut ways = Vec::new();
    for (name, act, ..) in BAD {
        let tokens = Receiver::start(move |_, _| act());
        let way = Way::new(name, oauth(&tokens.url, "POST", json!({})), &receiver.url);
        way.make(&endpoint);
        ways.push((way, tokens));
    }
    let mut shown = String::new();
    for ((way, tokens), (name, _, code, part)) in ways.iter().zip(BAD) {
        until(name, || state(&endpoint, name)["ConnectionState"] == "DEAUTHORIZED");
        let described = state(&endpoint, name);
        assert!(described["StateReason"].as_str().is_some_and(|why| why.contains(part)), "{described}");
        assert_eq!(described["LastAuthorizedTime"], Value::Null, "{described}");
        assert_eq!(tokens.count(), if *code == "NO_PERMISSIONS" { 1 } else { 3 }, "{name}: a refusal is final");
        assert!(!is_active(&endpoint, name), "{name}");
        way.put(&endpoint, DETAIL);
        until(name, || !letters(&endpoint, name).is_empty());
        let letter = letters(&endpoint, name).remove(0);
        assert!(letter["ERROR_MESSAGE"].as_str().is_some_and(|text| text.contains("DEAUTHORIZED")), "{letter}");
        shown.push_str(&format!("{letter}{described}"));
    }
    assert_eq!(receiver.count(), 0);
    // New parameters begin anew.
    let tokens = authority("");
    let update = with(oauth(&tokens.url, "POST", json!({})), &json!({ "Name": "bad-400" }));
    done(&endpoint, "UpdateConnection", &update);
    until("it is authorised", || is_active(&endpoint, "bad-400"));
    assert_eq!(state(&endpoint, "bad-400")["StateReason"], Value::Null);
    ways[0].0.put(&endpoint, DETAIL);
    until("events go there", || receiver.count() == 1);
    no_secret(endpoint, shown);
}

#[test]
fn a_first_token_is_asked_for_again_after_a_restart() {
    let endpoint = Endpoint::start("", "");
    let tokens = Receiver::start(|_, n| match n {
        0 => Act::Hang,
        _ => Act::Answer("200 OK", vec![], "{\"access_token\":\"t\"}"),
    });
    done(&endpoint, "CreateConnection", &with(oauth(&tokens.url, "POST", json!({})), &json!({ "Name": "c" })));
    until("it is asked for", || tokens.count() == 1);
    // Others are not held up by one that waits.
    done(&endpoint, "CreateConnection", &with(basic(json!({})), &json!({ "Name": "other" })));
    assert_eq!(state(&endpoint, "c")["ConnectionState"], "AUTHORIZING");
    let endpoint = endpoint.restart("-KILL");
    until("it is authorised", || state(&endpoint, "c")["ConnectionState"] == "AUTHORIZED");
    assert_eq!(tokens.count(), 2);
    endpoint.stop();
}

#[test]
fn without_a_token_events_wait() {
    let endpoint = Endpoint::start("", "");
    let authorised = |name: &str| until(name, || is_active(&endpoint, name));
    // Its first token has ended when it comes.
    let once = || Act::Answer("200 OK", vec![], "{\"access_token\":\"t\",\"expires_in\":0}");
    let mut shown = String::new();
    for (name, act, code, part) in BAD {
        let tokens = Receiver::start(move |_, n| if n == 0 { once() } else { act() });
        let receiver = Receiver::start(|_, _| Act::ok());
        let way = Way::new(name, oauth(&tokens.url, "POST", json!({})), &receiver.url)
            .target(json!({ "RetryPolicy": { "MaximumRetryAttempts": 1 } }));
        way.make(&endpoint);
        authorised(name);
        way.put(&endpoint, DETAIL);
        until(name, || !letters(&endpoint, name).is_empty());
        let letter = letters(&endpoint, name).remove(0);
        assert_eq!((&letter["ERROR_CODE"], &letter["RETRY_ATTEMPTS"]), (&json!(code), &json!("1")), "{letter}");
        assert!(letter["ERROR_MESSAGE"].as_str().is_some_and(|text| text.contains(part)), "{letter}");
        assert_eq!((receiver.count(), tokens.count()), (0, 3), "{name}");
        shown.push_str(&letter.to_string());
    }
    // It gets better: nothing is lost, and those that wait share what comes.
    let tokens = Receiver::start(move |_, n| match n {
        0 => once(),
        1 | 2 => Act::status("400 Bad Request"),
        _ => Act::Answer("200 OK", vec![], "{\"access_token\":\"t\"}"),
    });
    let receiver = Receiver::start(|_, _| Act::ok());
    let way = Way::new("better", oauth(&tokens.url, "POST", json!({})), &receiver.url);
    way.make(&endpoint);
    authorised("better");
    for _ in 0..10 {
        way.put(&endpoint, DETAIL);
    }
    until("all came", || receiver.count() >= 10);
    assert_eq!((receiver.count(), tokens.count()), (10, 4));
    no_secret(endpoint, shown);
}

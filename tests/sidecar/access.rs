//! F23: who may call, with which key, token and role; and that nothing but what was signed is taken.

use crate::endpoint::Endpoint;
use crate::process::{Place, exchange, until};
use crate::signed::{ID, SECRET, Signed, now};
use serde_json::{Value, json};
use sluice::api::sigv4::{Claim, Keys};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

pub const BOB: (&str, &str) = ("AKIDBOB", "b0bJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLE");
const READER: (&str, &str) = ("AKIDREADER", "re4dJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLE");
const PUTTER: (&str, &str) = ("AKIDPUTTER", "pu7JalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLE");
const ABROAD: (&str, &str) = ("AKIDABROAD", "abr0adlrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLE");

/// Alice, a reader and a putter of account 111111111111, and Bob of 222222222222.
pub fn keys() -> String {
    let key = |(id, secret): (&str, &str), more: &str| {
        format!("  - {{ access_key_id: {id}, secret_access_key: \"{secret}\", {more} }}\n")
    };
    format!(
        "keys:\n{}{}{}{}{}",
        key((ID, SECRET), "account: \"111111111111\", name: alice"),
        key(BOB, "account: \"222222222222\", name: bob, organization: o-bobsorg"),
        key(READER, "account: \"111111111111\", role: read"),
        key(PUTTER, "account: \"111111111111\", role: put"),
        key(ABROAD, "account: \"111111111111\", regions: [us-east-1, us-west-2]"),
    )
}

/// Sends bytes on a connection of their own; status and body.
fn send(listen: &str, bytes: &[u8]) -> Option<(u16, String)> {
    read(wire(listen, bytes))
}

fn wire(listen: &str, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(listen).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    stream.write_all(bytes).ok();
    stream
}

fn read(mut stream: TcpStream) -> Option<(u16, String)> {
    let mut text = Vec::new();
    stream.read_to_end(&mut text).ok();
    let text = String::from_utf8_lossy(&text).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// What a signed request is answered.
pub fn answer(endpoint: &Endpoint, request: &Signed) -> (u16, Value) {
    let (status, text) = send(&endpoint.listen, &request.bytes()).expect("an answer");
    (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("JSON: {text}")))
}

fn start() -> Endpoint {
    Endpoint::start_beside(&[("keys.yaml", &keys())], ", auth: { keys: keys.yaml, failures_per_minute: 1000000 }", "")
}

/// Makes a request wrong; the code, and a part of the message.
type Wrong = (&'static str, fn(Signed) -> Signed, &'static str, &'static str);

const MISSING: &str = "MissingAuthenticationTokenException";
const INCOMPLETE: &str = "IncompleteSignatureException";
const MISMATCH: &str = "InvalidSignatureException";
const UNKNOWN: &str = "UnrecognizedClientException";
const NOT_THE_SAME: &str = "The request signature we calculated does not match the signature you provided.";

const WRONG: &[Wrong] = &[
    ("right", |it| it, "", ""),
    ("in four minutes", |it| it.dated(now() + 290), "", ""),
    ("four minutes ago", |it| it.dated(now() - 290), "", ""),
    ("another region", |it| Signed { region: "us-gov-west-1".into(), ..it }, "", ""),
    (
        "more headers",
        |mut it| {
            it.set("amz-sdk-request", "attempt=1; max=3");
            it.set("user-agent", "Boto3/1.0 md/a  b");
            it.headers.iter_mut().for_each(|(_, value)| *value = value.replace("  ", " "));
            it
        },
        "",
        "",
    ),
    ("future", |it| it.dated(now() + 330), MISMATCH, "Signature not yet current: "),
    ("expired", |it| it.dated(now() - 330), MISMATCH, "Signature expired: "),
    (
        "unknown key",
        |it| it.by("AKIDNOBODY", SECRET),
        UNKNOWN,
        "The security token included in the request is invalid.",
    ),
    ("another's secret", |it| it.by(ID, BOB.1), MISMATCH, NOT_THE_SAME),
    ("tampered region", |it| tampered(it, "/eu-west-1/", "/us-east-1/"), MISMATCH, NOT_THE_SAME),
    ("tampered id", |it| tampered(it, ID, BOB.0), MISMATCH, NOT_THE_SAME),
    ("region of no key", |it| it.by(ABROAD.0, ABROAD.1), MISMATCH, "Credential should be scoped to a valid region."),
    (
        "no region",
        |it| Signed { region: "Eu_1".into(), ..it },
        MISMATCH,
        "Credential should be scoped to a valid region.",
    ),
    ("other service", |it| Signed { service: "sqs".into(), ..it }, MISMATCH, "correct service: 'events'."),
    ("other end", |it| Signed { terminator: "aws4".into(), ..it }, MISMATCH, "valid terminator: 'aws4_request'"),
    (
        "other day",
        |mut it| {
            it.set("x-amz-date", &sluice::time::basic(it.at - 86_400));
            it
        },
        MISMATCH,
        "Date in Credential scope does not match",
    ),
    ("host not signed", |it| it.unsign("host"), MISMATCH, "'host' must be a 'SignedHeader' in the AWS Authorization."),
    ("date not signed", |it| it.unsign("x-amz-date"), MISMATCH, "'x-amz-date' must be a 'SignedHeader'"),
    ("action not signed", |it| it.unsign("x-amz-target"), MISMATCH, "'x-amz-target' must be a 'SignedHeader'"),
    ("body not signed", |it| Signed { hash: Some("UNSIGNED-PAYLOAD".into()), ..it }, MISMATCH, NOT_THE_SAME),
    (
        "hash of the client's",
        |mut it| {
            let hash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
            it.set("x-amz-content-sha256", hash);
            Signed { hash: Some(hash.into()), ..it }
        },
        MISMATCH,
        NOT_THE_SAME,
    ),
    ("twice", |it| beside(it, "x-amz-target", "AWSEvents.DeleteRule"), INCOMPLETE, "more than once"),
    ("two hosts", |it| beside(it, "host", "localhost"), INCOMPLETE, "more than once"),
    ("two signatures", |it| beside(it, "authorization", "AWS4-HMAC-SHA256 Credential=a"), INCOMPLETE, "more than once"),
];

fn beside(mut request: Signed, name: &str, value: &str) -> Signed {
    request.unsigned.push((name.to_owned(), value.to_owned()));
    request
}

/// A request whose header was changed after it was signed: the first signature goes, the second is the only one.
fn tampered(mut request: Signed, from: &str, to: &str) -> Signed {
    let changed = request.authorization().replacen(from, to, 1);
    request.id = format!("\0{changed}");
    request
}

#[test]
fn a_signature_must_be_right() {
    let endpoint = start();
    // Whatever the action, what is wrong is refused before it is looked at.
    for action in sluice::api::model::model().actions() {
        for row in WRONG.iter().filter(|row| action == "ListRules" || !row.2.is_empty()) {
            signature(&endpoint, action, row);
        }
        let mut other = Signed::new(&endpoint.listen, action, b"{}");
        other.hash = Some(other.body_hash());
        other.body = b"[]".to_vec();
        assert_eq!(answer(&endpoint, &other).1["__type"], MISMATCH, "{action}: another body");
        let bare = [("X-Amz-Target", format!("AWSEvents.{action}"))];
        let bare = bare.each_ref().map(|(name, value)| (*name, value.as_str()));
        let (_, _, said) = exchange(&endpoint.listen, "POST /", &bare, b"{}").expect("an answer");
        assert!(said.contains(MISSING), "{action}: {said}");
    }
    endpoint.stop();
}

fn signature(endpoint: &Endpoint, action: &str, (name, wrong, code, part): &Wrong) {
    let request = wrong(Signed::new(&endpoint.listen, action, b"{}"));
    let (status, said) = match request.id.strip_prefix('\0') {
        Some(authorization) => {
            let good = Signed::new(&endpoint.listen, action, b"{}");
            let good = String::from_utf8(Signed { at: request.at, ..good }.bytes()).expect("text");
            let (before, rest) = good.split_once("authorization: ").expect("a header");
            let (_, after) = rest.split_once("\r\n").expect("a line");
            let bytes = format!("{before}authorization: {authorization}\r\n{after}");
            let (status, text) = send(&endpoint.listen, bytes.as_bytes()).expect("an answer");
            (status, serde_json::from_str(&text).expect("JSON"))
        }
        None => answer(endpoint, &request),
    };
    let wanted = if code.is_empty() { 200 } else { 400 };
    assert_eq!((status, said["__type"].as_str().unwrap_or_default()), (wanted, *code), "{action}, {name}: {said}");
    assert!(said["message"].as_str().unwrap_or_default().contains(part), "{action}, {name}: {said}");
}

/// An `Authorization` that is none, and what is said of it.
const HEADS: &[(&str, &str, &str)] = &[
    ("", MISSING, "Missing Authentication Token"),
    ("Bearer 0123456789abcdef0123456789abcdef", INCOMPLETE, "Unsupported AWS 'algorithm'"),
    ("AWS4-HMAC-SHA512 Credential=a", INCOMPLETE, "Unsupported AWS 'algorithm'"),
    ("AWS4-HMAC-SHA256", INCOMPLETE, "key=value pair (missing equal-sign)"),
    ("AWS4-HMAC-SHA256 a=b", INCOMPLETE, "a parameter that is none"),
    (
        "AWS4-HMAC-SHA256 Credential=a/b",
        INCOMPLETE,
        "Authorization header requires 'Signature' parameter. Authorization header requires 'SignedHeaders' parameter.",
    ),
    ("AWS4-HMAC-SHA256 Credential=a, Credential=b", INCOMPLETE, "twice"),
    ("AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=Host, Signature=c", INCOMPLETE, "ISO-8601 basic format"),
];

#[test]
fn a_head_must_be_whole() {
    let endpoint = start();
    let target = ("X-Amz-Target", "AWSEvents.ListRules");
    let call = |path: &str, headers: &[(&str, &str)]| {
        let (status, _, text) = exchange(&endpoint.listen, &format!("POST {path}"), headers, b"{}").expect("an answer");
        (status, serde_json::from_str::<Value>(&text).unwrap_or_default())
    };
    for (head, code, part) in HEADS {
        let headers = [target, ("Authorization", *head)];
        let (status, said) = call("/", if head.is_empty() { &headers[..1] } else { &headers });
        assert_eq!((status, &said["__type"]), (400, &json!(code)), "{head}: {said}");
        assert!(said["message"].as_str().is_some_and(|text| text.contains(part)), "{head}: {said}");
    }
    let date = sluice::time::basic(now());
    let dated = [target, ("x-amz-date", date.as_str())];
    let rows = [
        ("AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=Host, Signature=c", INCOMPLETE, "small letters"),
        ("AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=x-amz-date;host, Signature=c", INCOMPLETE, "sorted"),
        (
            "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host;range, Signature=c",
            MISMATCH,
            "'range' is signed and not",
        ),
        (
            "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host;x-amz-date;x-amz-target, Signature=c",
            INCOMPLETE,
            "5 slash",
        ),
    ];
    for (head, code, part) in rows {
        let (status, said) = call("/", &[&dated[..], &[("Authorization", head)]].concat());
        assert_eq!((status, &said["__type"]), (400, &json!(code)), "{head}: {said}");
        assert!(said["message"].as_str().is_some_and(|text| text.contains(part)), "{head}: {said}");
    }
    let presigned = "/?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a&X-Amz-Signature=b";
    assert_eq!(call(presigned, &[target]).1["__type"], INCOMPLETE, "presigned");
    let signed = Signed::new(&endpoint.listen, "ListRules", b"{}").bytes();
    let query = String::from_utf8(signed).expect("text").replacen("POST / ", "POST /?a=b ", 1);
    assert!(send(&endpoint.listen, query.as_bytes()).expect("an answer").1.contains("no query"), "a query");
    let cloud = [("Content-Type", "application/cloudevents+json")];
    assert_eq!(exchange(&endpoint.listen, "POST /events/default", &cloud, b"{}").expect("an answer").0, 401);
    endpoint.stop();
}

/// Where nothing but a name's letters changes their size, a request says the same; and so it does as HTTP/1.0.
fn is_the_same(was: &[u8], is: &[u8], at: usize) -> bool {
    let line = was[..at].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let of_a_name = line > 0 && !was[line..at].contains(&b':');
    let body = was.windows(4).position(|end| end == b"\r\n\r\n").expect("a head") + 4;
    // Neither our reader's headers nor what the client says of its connection is signed.
    let text = String::from_utf8_lossy(&was[line..]).into_owned();
    let not_signed = at < body && (text.starts_with("connection:") || line == 0 && &was[at..=at] == b"1");
    (at < body && of_a_name && was[at].eq_ignore_ascii_case(&is[at])) || not_signed
}

#[test]
fn every_change_of_a_byte_is_refused() {
    let endpoint = start();
    let entry = json!({ "Source": "a", "DetailType": "b", "Detail": "{}", "Resources": ["r"] });
    let mut cases = 0;
    for flip in [0x01, 0x02, 0x20, 0x40, 0x80] {
        let good =
            Signed::new(&endpoint.listen, "PutEvents", json!({ "Entries": [entry] }).to_string().as_bytes()).bytes();
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= flip;
            if is_the_same(&good, &bytes, at) {
                continue;
            }
            cases += 1;
            let stream = wire(&endpoint.listen, &bytes);
            if bytes[..at].ends_with(b"content-length: ") || bytes[..at - at.min(1)].ends_with(b"content-length: ") {
                // Or the rest of the body would be waited for.
                stream.shutdown(std::net::Shutdown::Write).ok();
            }
            let said = read(stream);
            let taken = said.as_ref().is_some_and(|(status, text)| *status == 200 || text.contains("EventId"));
            assert!(!taken, "byte {at} of\n{}\n{said:?}", String::from_utf8_lossy(&bytes));
        }
    }
    assert!(cases > 2000, "{cases} cases");
    endpoint.stop();
}

#[test]
fn a_write_counts_once() {
    let endpoint = start();
    let rule = json!({ "Name": "r", "EventPattern": "{\"source\":[\"a\"]}" }).to_string();
    let write = Signed::new(&endpoint.listen, "PutRule", rule.as_bytes());
    assert_eq!(answer(&endpoint, &write).0, 200);
    let (status, said) = answer(&endpoint, &write);
    assert_eq!((status, &said["__type"]), (400, &json!("ThrottlingException")), "a copy of it: {said}");
    assert_eq!(answer(&endpoint, &write.clone().dated(write.at - 1)).0, 200, "signed anew");
    // What changes nothing may be asked twice, and a client's own connection says the same twice within a second.
    let read = Signed::new(&endpoint.listen, "ListRules", b"{}");
    assert_eq!([answer(&endpoint, &read).0, answer(&endpoint, &read).0], [200, 200]);
    let again = String::from_utf8(write.clone().dated(write.at - 2).bytes()).expect("text");
    let twice = format!("{}{again}", again.replacen("connection: close", "connection: keep-alive", 1));
    let (_, text) = send(&endpoint.listen, twice.as_bytes()).expect("answers");
    assert_eq!(text.matches("RuleArn").count(), 2, "{text}");
    endpoint.stop();
}

const TOKENS: [(&str, &str); 3] = [
    ("admin", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
    ("read", "rrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrr"),
    ("put", "pppppppppppppppppppppppppppppppp"),
];

/// Every action of the model, by every kind of caller.
#[test]
fn roles_bound_what_a_caller_may_do() {
    // `printf %s pppppppppppppppppppppppppppppppp | sha256sum`
    let put = "{ sha256: a7cbbfdfe39c7df7502aa43b785e40940817b89fbff7834b364d2e343c80c25c, role: put }";
    let [(_, admin), (_, reader), _] = TOKENS;
    let auth = format!(
        ", auth: {{ bearer: [{admin}, {{ token: {reader}, role: read }}, {put}], keys: keys.yaml, failures_per_minute: 100000 }}"
    );
    let endpoint = Endpoint::start_beside(&[("keys.yaml", &keys())], &auth, "");
    let bearer = |token: &str, action: &str| {
        let headers = [("X-Amz-Target", format!("AWSEvents.{action}")), ("Authorization", format!("Bearer {token}"))];
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let (_, _, text) = exchange(&endpoint.listen, "POST /", &headers, b"{\"X\":1}").expect("an answer");
        serde_json::from_str::<Value>(&text).expect("JSON")
    };
    let key = |(id, secret): (&str, &str), action: &str| {
        answer(&endpoint, &Signed::new(&endpoint.listen, action, b"{\"X\":1}").by(id, secret)).1
    };
    for action in sluice::api::model::model().actions() {
        let looks = action.starts_with("Describe") || action.starts_with("List") || action == "TestEventPattern";
        let puts = matches!(action, "PutEvents" | "PutPartnerEvents");
        let rows = [
            ("admin token", bearer(TOKENS[0].1, action), true),
            ("read token", bearer(TOKENS[1].1, action), looks),
            ("put token", bearer(TOKENS[2].1, action), puts),
            ("admin key", key((ID, SECRET), action), true),
            ("read key", key(READER, action), looks),
            ("put key", key(PUTTER, action), puts),
        ];
        for (who, said, may) in rows {
            let refused = said["__type"] == "AccessDeniedException";
            assert_eq!(refused, !may, "{who}: {action}: {said}");
            let words = format!("is not authorized to perform: events:{action} on resource: arn:aws:events:");
            assert!(!refused || said["message"].as_str().is_some_and(|text| text.contains(&words)), "{said}");
        }
        let none = bearer("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", action);
        assert_eq!(none["__type"], INCOMPLETE, "a bad token: {action}");
    }
    endpoint.stop();
}

#[test]
fn a_files_faults_are_told() {
    let key = |more: &str| format!("keys:\n  - {{ {more} }}\n");
    let whole = format!("access_key_id: {ID}, secret_access_key: \"{SECRET}\"");
    let rows = [
        ("keys: []\n".to_owned(), "k.yaml has no keys"),
        (String::new(), "k.yaml has no keys"),
        (key(&whole), "key `account` is missing"),
        (key(&format!("{whole}, account: \"12\"")), "an account has twelve digits"),
        (key(&format!("{whole}, account: \"111111111111\", role: king")), "`king` is not one of put, read, admin"),
        (key(&format!("{whole}, account: \"111111111111\", region: x")), "`region`"),
        (key(&format!("{whole}, account: \"111111111111\", regions: [EU]")), "a region is written as us-east-1"),
        (key(&format!("{whole}, account: \"111111111111\", name: a/b")), "a name has letters"),
        (
            key(
                "access_key_id: A-B, secret_access_key: \"0123456789abcdef0123456789abcdef\", account: \"111111111111\"",
            ),
            "an id has",
        ),
        (
            key(&format!("access_key_id: {ID}, secret_access_key: short, account: \"111111111111\"")),
            "fewer than 128 bits",
        ),
        (format!("{0}{0}", key(&format!("{whole}, account: \"111111111111\""))).replacen("keys:\n", "", 2), "mapping"),
        (
            format!("keys:\n{0}{0}", key(&format!("{whole}, account: \"111111111111\"")).replace("keys:\n", "")),
            "another key has this id",
        ),
        (
            key("access_key_id: \"${env:NO_SUCH_ID}\", secret_access_key: \"x\", account: \"1\""),
            "NO_SUCH_ID is not set",
        ),
    ];
    let config = "data_dir: data\nserver: { listen: \"0.0.0.0:0\", admin: \"off\", auth: { keys: k.yaml } }\n";
    for (text, part) in rows {
        let place = Place::new(&[("c.yaml", config), ("k.yaml", &text)]);
        place.allow("k.yaml", 0o600);
        let said = place.run(&["validate", "-c", "c.yaml"], "");
        assert!(said.code == Some(78) && said.err.contains(part), "{text}: {:?} {}", said.code, said.err);
        assert!(!said.err.contains(SECRET), "{}", said.err);
    }
    let place = Place::new(&[("c.yaml", config), ("k.yaml", &keys())]);
    place.allow("k.yaml", 0o644);
    let said = place.run(&["validate", "-c", "c.yaml"], "");
    assert!(said.code == Some(78) && said.err.contains("everybody on this machine may use k.yaml"), "{}", said.err);
    place.allow("k.yaml", 0o600);
    let said = place.run(&["validate", "-c", "c.yaml"], "");
    assert_eq!(said.code, Some(0), "keys are enough for a listener that others reach: {}", said.err);
}

/// Pages of other machines reach this one by its own names, or by theirs.
#[test]
fn pages_of_others_may_not_call() {
    let endpoint = Endpoint::start("", "");
    let rows = [
        (("Host", "evil.example"), 421),
        (("Host", "evil.example:4566"), 421),
        (("Host", "localhost.evil.example"), 421),
        (("Origin", "http://evil.example"), 403),
        (("Origin", "https://localhost.evil.example:443"), 403),
        (("Origin", "null"), 403),
        (("Origin", "http://localhost:3000"), 200),
        (("Host", "127.0.0.1:4566"), 200),
        (("Host", "[::1]:4566"), 200),
    ];
    for (header, status) in rows {
        let headers = [header, ("X-Amz-Target", "AWSEvents.ListRules")];
        let said = exchange(&endpoint.listen, "POST /", &headers, b"{}").expect("an answer");
        assert_eq!(said.0, status, "{header:?}: {said:?}");
        assert!(!said.1.contains("access-control"), "no page is let in: {}", said.1);
    }
    endpoint.stop();
}

/// Who changed what is in the log.
#[test]
fn changes_are_in_the_log_with_who_made_them() {
    let mut endpoint = start();
    let rule = json!({ "Name": "audited", "EventPattern": "{\"source\":[\"a\"]}" }).to_string();
    assert_eq!(answer(&endpoint, &Signed::new(&endpoint.listen, "PutRule", rule.as_bytes())).0, 200);
    endpoint.child.signal("-TERM");
    let mut log = String::new();
    endpoint.child.0.stderr.take().expect("a pipe").read_to_string(&mut log).expect("text");
    let line = log.lines().find(|line| line.contains("a change through the API")).unwrap_or_default();
    for part in ["PutRule", "audited", "arn:aws:iam::111111111111:user/alice", "eu-west-1"] {
        assert!(line.contains(part), "{part}: {log}");
    }
    until("it has ended", || endpoint.child.0.try_wait().is_ok_and(|status| status.is_some()));
}

/// Signatures of writes are remembered within bounds: beyond, what is older is not taken any more, so that no copy is.
#[test]
fn signatures_are_remembered_within_bounds() {
    let (keys, now) = (Keys::new(&[]), now());
    let claim = |n: u64| {
        let date = sluice::time::basic(now - 200 + i64::try_from(n / 2000).expect("a number"));
        let signed = format!(
            "AWS4-HMAC-SHA256 Credential={ID}/{}/eu-west-1/events/aws4_request, \
             SignedHeaders=host;x-amz-date;x-amz-target, Signature={n:064x}",
            &date[..8]
        );
        let request = axum::http::Request::builder().header("host", "a").header("x-amz-target", "AWSEvents.PutRule");
        let request = request.header("x-amz-date", date).header("authorization", signed).body(()).expect("a request");
        Claim::read(&request.into_parts().0).map_err(|error| error.to_string()).expect("a claim")
    };
    for n in 0..1 << 18 {
        assert!(keys.once(&claim(n), 1, now).is_ok(), "{n}");
    }
    assert!(keys.once(&claim(0), 1, now).is_ok() && keys.once(&claim(0), 2, now).is_err(), "all are remembered");
    assert!(keys.once(&claim(1 << 18), 1, now).is_ok(), "one more");
    assert!(
        keys.once(&claim(0), 1, now).is_err() && keys.once(&claim(1999), 1, now).is_err(),
        "the oldest are too old"
    );
    assert!(keys.once(&claim(2000), 1, now).is_ok() && keys.once(&claim(2000), 2, now).is_err(), "and no others");
    assert!(keys.once(&claim(5), 1, now + 600).is_err(), "what expired is not taken");
}

/// The native API from elsewhere: by a token, as far as its role goes.
#[test]
fn the_native_api_knows_roles() {
    let (listen, admin) = (crate::process::free_address(), crate::process::free_address());
    let tokens: Vec<_> = TOKENS.iter().map(|(role, token)| format!("{{ token: {token}, role: {role} }}")).collect();
    let config = format!(
        "data_dir: data\nserver: {{ listen: \"{listen}\", admin: \"{admin}\", auth: {{ bearer: [{}] }} }}\n\
         rules: {{ r: {{ pattern: {{ source: [a] }} }} }}\n",
        tokens.join(", ")
    );
    let endpoint = Endpoint::launch(Place::new(&[("c.yaml", &config)]), listen, &[]);
    let rows = [("admin", 200, 200), ("read", 200, 403), ("put", 403, 403), ("none", 401, 401)];
    for (role, looks, changes) in rows {
        let token =
            TOKENS.iter().find(|(known, _)| *known == role).map_or("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", |it| it.1);
        let bearer = format!("Bearer {token}");
        let ask = |request: &str, body: &[u8]| {
            let headers =
                [("Host", "elsewhere.example"), ("Authorization", &bearer), ("Content-Type", "application/json")];
            exchange(&admin, request, &headers, body).expect("an answer").0
        };
        assert_eq!(ask("GET /api/v1/rules", b""), looks, "{role}");
        assert_eq!(ask("PUT /api/v1/rules/default/r/state", b"{\"state\":\"disabled\"}"), changes, "{role}");
    }
    endpoint.stop();
}

/// New keys wait for a restart; new rules do not wait for them.
#[test]
fn new_keys_do_not_hold_rules_up() {
    let endpoint = start();
    let config = endpoint.place.path().join("c.yaml");
    let old = std::fs::read_to_string(&config).expect("text");
    endpoint.place.write("keys.yaml", &keys().replace("name: alice", "name: eve"));
    endpoint.place.allow("keys.yaml", 0o600);
    endpoint.place.write("c.yaml", &format!("{old}rules: {{ late: {{ pattern: {{ source: [a] }} }} }}\n"));
    // It listens before it watches its files.
    endpoint.child.signal("-HUP");
    let describe = |n: i64| Signed::new(&endpoint.listen, "DescribeRule", b"{\"Name\":\"late\"}").dated(now() - n % 60);
    let mut n = 0;
    until("the rule is there", || {
        n += 1;
        answer(&endpoint, &describe(n)).0 == 200
    });
    endpoint.stop();
}

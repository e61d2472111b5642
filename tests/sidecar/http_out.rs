//! HTTP targets against receivers of every behaviour.

use crate::process::{Guard, Place, until};
use crate::receiver::{Act, Receiver, Request};
use std::io::Write;
use std::time::Duration;

/// A process that posts every line to a receiver.
struct Posting {
    place: Place,
    child: Guard,
}

fn configuration(url: &str, more: &str, retry: &str) -> String {
    format!(
        "data_dir: data\nserver: {{ listen: \"off\", admin: \"off\" }}\nsources: {{ in: {{ stdin: {{}} }} }}\n\
         targets: {{ out: {{ http: {{ url: \"{url}\"{more} }}{retry} }} }}\n\
         rules: {{ r: {{ pattern: {{ detail: {{ n: [{{ exists: true }}] }} }}, targets: [out] }} }}\n"
    )
}

/// Quick retries.
const QUICK: &str = ", retry: { initial: 20ms, max: 100ms, max_attempts: 3 }";

impl Posting {
    fn start(url: &str, more: &str, retry: &str) -> Self {
        let place = Place::new(&[("c.yaml", &configuration(url, more, retry))]);
        let child = Guard(place.command(&["run", "-c", "c.yaml"]).spawn().expect("a process"));
        Self { place, child }
    }

    fn send(&mut self, numbers: std::ops::Range<u32>) {
        let stdin = self.child.0.stdin.as_mut().expect("a pipe");
        for n in numbers {
            writeln!(stdin, "{{\"detail\":{{\"n\":{n}}}}}").expect("a line");
        }
    }

    /// Closes the input and waits for a clean end.
    fn end(mut self) -> Place {
        drop(self.child.0.stdin.take());
        let status = self.child.0.wait().expect("a status");
        assert_eq!(status.code(), Some(0));
        self.place
    }
}

/// Dead letters as values.
fn letters(place: &Place) -> Vec<serde_json::Value> {
    let files = std::fs::read_dir(place.path().join("data/dead-letters/default")).into_iter().flatten().flatten();
    let texts = files.map(|file| std::fs::read_to_string(file.path()).expect("text"));
    texts.flat_map(|text| text.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect::<Vec<_>>()).collect()
}

#[test]
fn a_delivery_carries_its_id_and_credentials() {
    let receiver = Receiver::start(|_, _| Act::ok());
    let more = ", max_in_flight: 3, method: PUT, headers: { x-team: pay }, auth: { basic: { username: myUsername, password: myPassword } }, \
                signing_secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let mut posting = Posting::start(&receiver.url, more, "");
    posting.send(0..20);
    posting.end();
    let requests = receiver.requests();
    assert_eq!(requests.len(), 20);
    let key = sluice::webhook::standard_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a key");
    for request in &requests {
        assert_eq!((request.method.as_str(), request.path.as_str()), ("PUT", "/hook"));
        assert_eq!(request.header("x-team"), Some("pay"));
        assert_eq!(request.header("authorization"), Some("Basic bXlVc2VybmFtZTpteVBhc3N3b3Jk"));
        assert_eq!(request.header("content-type"), Some("application/json; charset=utf-8"));
        assert_eq!((request.header("sluice-bus"), request.header("sluice-rule")), (Some("default"), Some("r")));
        let seconds = request.header("webhook-timestamp").expect("a time").parse().expect("seconds");
        let id = request.header("webhook-id").expect("an id");
        let signed = sluice::webhook::sign(&key, id, seconds, &request.body);
        assert_eq!(request.header("webhook-signature"), Some(signed.as_str()));
    }
    let mut ids: Vec<_> = requests.iter().map(|request| request.header("webhook-id")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 20, "each delivery has an id of its own");
    let connections = requests.iter().map(|request| request.connection).max().expect("one") + 1;
    assert!(connections <= 6, "connections are reused: {connections}");
}

#[test]
fn bearer_api_key_and_compression() {
    let rows = [
        (", auth: { bearer: token-1 }", "authorization", "Bearer token-1"),
        (", auth: { api_key: { name: X-Api-Key, value: k } }", "x-api-key", "k"),
        (", compression: gzip, method: PATCH", "content-encoding", "gzip"),
    ];
    for (more, header, value) in rows {
        let receiver = Receiver::start(|_, _| Act::ok());
        let mut posting = Posting::start(&receiver.url, more, "");
        posting.send(7..8);
        posting.end();
        let request = receiver.requests().remove(0);
        assert_eq!(request.header(header), Some(value), "{more}");
        let mut text = String::new();
        match header {
            "content-encoding" => {
                use std::io::Read;
                flate2::read::GzDecoder::new(&*request.body).read_to_string(&mut text).expect("gzip");
            }
            _ => text = String::from_utf8(request.body).expect("text"),
        }
        assert_eq!(text, "{\"detail\":{\"n\":7}}");
    }
}

/// Behaviour of a receiver; how many attempts there must be; the dead letter's code and a part of its message.
type Row = (&'static str, fn(&Request, usize) -> Act, usize, Option<(&'static str, &'static str)>);

#[test]
fn every_misbehaviour_has_its_outcome() {
    const ROWS: &[Row] = &[
        ("500 twice", |_, n| if n < 2 { Act::status("500 Internal Server Error") } else { Act::ok() }, 3, None),
        ("503 for ever", |_, _| Act::status("503 Service Unavailable"), 4, Some(("ERROR_FROM_TARGET", "503"))),
        ("401 for ever", |_, _| Act::status("401 Unauthorized"), 4, Some(("NO_PERMISSIONS", "401"))),
        ("409 once", |_, n| if n < 1 { Act::status("409 Conflict") } else { Act::ok() }, 2, None),
        ("403", |_, _| Act::status("403 Forbidden"), 1, Some(("NO_PERMISSIONS", "403"))),
        ("400", |_, _| Act::status("400 Bad Request"), 1, Some(("ERROR_FROM_TARGET", "400"))),
        ("404", |_, _| Act::status("404 Not Found"), 1, Some(("NO_RESOURCE", "404"))),
        (
            "redirect",
            |_, _| Act::Answer("302 Found", vec![("location", "http://127.0.0.1:9/".into())], ""),
            1,
            Some(("ERROR_FROM_TARGET", "302")),
        ),
        ("hangs once", |_, n| if n < 1 { Act::Hang } else { Act::ok() }, 2, None),
        ("hangs for ever", |_, _| Act::Hang, 4, Some(("TIMEOUT", "no whole answer in time"))),
        ("one byte a second", |_, n| if n < 1 { Act::Drip(Duration::from_secs(1)) } else { Act::ok() }, 2, None),
        (
            "closes in mid-body",
            |_, n| match n {
                0 => Act::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"half\":".to_vec()),
                _ => Act::ok(),
            },
            2,
            None,
        ),
        ("closes at once", |_, n| if n < 1 { Act::Raw(Vec::new()) } else { Act::ok() }, 2, None),
        ("resets", |_, n| if n < 1 { Act::Reset } else { Act::ok() }, 2, None),
        ("says no HTTP", |_, n| if n < 1 { Act::Raw(b"SSH-2.0-x\r\n\r\n".to_vec()) } else { Act::ok() }, 2, None),
        ("endless body", |_, _| Act::Endless, 1, None),
        (
            "asks never to come back",
            |_, _| Act::Answer("429 Too Many Requests", vec![("retry-after", "-1".into())], ""),
            1,
            Some(("THROTTLING", "not to be tried again")),
        ),
    ];
    for (name, act, attempts, letter) in ROWS {
        let receiver = Receiver::start(*act);
        let mut posting = Posting::start(&receiver.url, ", timeout: 500ms", QUICK);
        posting.send(1..2);
        let place = posting.end();
        let requests = receiver.requests();
        assert_eq!(requests.len(), *attempts, "{name}: attempts");
        let ids: Vec<_> = requests.iter().map(|request| request.header("webhook-id")).collect();
        assert!(ids.iter().all(|id| *id == ids[0]), "{name}: every attempt has the same id");
        let found = letters(&place);
        match letter {
            None => assert!(found.is_empty(), "{name}: {found:?}"),
            Some((code, part)) => {
                assert_eq!(found.len(), 1, "{name}");
                assert_eq!(found[0]["ERROR_CODE"], *code, "{name}");
                assert!(
                    found[0]["ERROR_MESSAGE"].as_str().is_some_and(|text| text.contains(part)),
                    "{name}: {found:?}"
                );
                assert_eq!(found[0]["event"], "{\"detail\":{\"n\":1}}", "{name}");
            }
        }
    }
}

#[test]
fn retry_after_is_waited_for() {
    let receiver = Receiver::start(|_, n| match n {
        0 => Act::Answer("429 Too Many Requests", vec![("retry-after", "1".into())], ""),
        _ => Act::ok(),
    });
    let begin = std::time::Instant::now();
    let mut posting = Posting::start(&receiver.url, "", QUICK);
    posting.send(1..2);
    posting.end();
    assert_eq!(receiver.requests().len(), 2);
    assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
}

#[test]
fn expired_credentials_do_not_empty_the_stream_into_the_dead_letters() {
    let receiver = Receiver::start(|_, n| if n < 250 { Act::status("403 Forbidden") } else { Act::ok() });
    let mut posting = Posting::start(&receiver.url, ", max_in_flight: 1", ", retry: { initial: 5ms, max: 10ms }");
    posting.send(0..200);
    let place = posting.end();
    let dead = letters(&place).len();
    assert!((99..=100).contains(&dead), "{dead} dead letters");
    assert!(receiver.requests().len() > 250);
}

#[test]
fn rate_and_concurrency_are_bounded() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static OPEN: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    let receiver = Receiver::start(|_, _| {
        MOST.fetch_max(OPEN.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(30));
        OPEN.fetch_sub(1, Ordering::SeqCst);
        Act::ok()
    });
    let mut posting = Posting::start(&receiver.url, ", max_in_flight: 3", "");
    posting.send(0..30);
    posting.end();
    assert_eq!((receiver.requests().len(), MOST.load(Ordering::SeqCst)), (30, 3));

    let times: std::sync::Arc<std::sync::Mutex<Vec<std::time::Instant>>> = std::sync::Arc::default();
    let noted = std::sync::Arc::clone(&times);
    let receiver = Receiver::start(move |_, _| {
        noted.lock().expect("a lock").push(std::time::Instant::now());
        Act::ok()
    });
    let mut posting = Posting::start(&receiver.url, ", rate_limit: 20/s", "");
    posting.send(0..41);
    posting.end();
    let mut times = times.lock().expect("a lock").clone();
    times.sort();
    assert_eq!(times.len(), 41);
    let spent = times[40].duration_since(times[0]);
    // Forty intervals of 50 ms; the last may be noted a little early against the first.
    assert!(spent >= Duration::from_millis(1900), "{spent:?}");
}

#[test]
fn certificates_are_checked_and_shown() {
    let tls = crate::certificates::Authority::new();
    let folder = tempfile::tempdir().expect("a folder");
    let files = tls.write(folder.path());
    let strange = crate::certificates::Authority::new().write(folder.path().join("other").as_path());
    let rows: [(String, bool, Option<&str>); 4] = [
        (format!(", tls: {{ ca: \"{}\" }}", files.ca), false, None),
        (format!(", tls: {{ ca: \"{}\", cert: \"{}\", key: \"{}\" }}", files.ca, files.cert, files.key), true, None),
        (format!(", tls: {{ ca: \"{}\" }}", strange.ca), false, Some("certificate")),
        // TLS 1.3 refuses a missing certificate after the handshake: an error of the connection, or its end, comes first.
        (format!(", tls: {{ ca: \"{}\" }}", files.ca), true, Some(": connection ")),
    ];
    for (more, mutual, refused) in rows {
        let server = crate::certificates::serve(&tls, mutual);
        let mut posting = Posting::start(&server.url, &more, QUICK);
        posting.send(1..2);
        let place = posting.end();
        let found = letters(&place);
        match refused {
            None => {
                assert!(found.is_empty(), "{more}: {found:?}");
                assert_eq!(server.versions(), ["HTTP/2.0"], "negotiated");
            }
            Some(part) => {
                assert_eq!(found[0]["ERROR_CODE"], "CONNECTION_FAILURE");
                assert!(found[0]["ERROR_MESSAGE"].as_str().is_some_and(|text| text.contains(part)), "{found:?}");
            }
        }
    }
    // HTTP/2 without TLS, where it is asked for.
    for (more, version) in [("", "HTTP/1.1"), (", http2: true", "HTTP/2.0")] {
        let server = crate::certificates::serve_plain();
        let mut posting = Posting::start(&server.url, more, QUICK);
        posting.send(1..3);
        assert!(letters(&posting.end()).is_empty());
        assert_eq!(server.versions(), [version, version]);
    }
    // Plain http where TLS is spoken, and the other way round.
    let server = crate::certificates::serve(&tls, false);
    let mut posting = Posting::start(&server.url.replace("https", "http"), "", QUICK);
    posting.send(1..2);
    assert_eq!(letters(&posting.end())[0]["ERROR_CODE"], "CONNECTION_FAILURE");
    let receiver = Receiver::start(|_, _| Act::ok());
    let mut posting = Posting::start(&receiver.url.replace("http", "https"), "", QUICK);
    posting.send(1..2);
    assert_eq!(letters(&posting.end())[0]["ERROR_CODE"], "CONNECTION_FAILURE");
}

#[test]
fn a_receiver_that_comes_back_gets_everything() {
    let (address, admin) = (crate::process::free_address(), crate::process::free_address());
    let retry = ", retry: { initial: 50ms, max: 200ms }";
    let config = configuration(&format!("http://{address}/hook"), "", retry)
        .replace("admin: \"off\"", &format!("admin: \"{admin}\""));
    let place = Place::new(&[("c.yaml", &config)]);
    let child = Guard(place.command(&["run", "-c", "c.yaml"]).spawn().expect("a process"));
    let mut posting = Posting { place, child };
    posting.send(0..50);
    until("every attempt has failed", || {
        let metrics = crate::process::get(&admin, "/metrics").map(|(_, body)| body).unwrap_or_default();
        let retries = metrics.lines().filter(|line| line.starts_with("sluice_target_retries_total"));
        retries.filter_map(|line| line.rsplit(' ').next()?.parse::<u32>().ok()).sum::<u32>() >= 50
    });
    let listener = std::net::TcpListener::bind(&address).expect("the address");
    let receiver = Receiver::on(listener, |_, _| Act::ok());
    let place = posting.end();
    assert!(letters(&place).is_empty());
    let mut bodies: Vec<_> = receiver.requests().into_iter().map(|request| request.body).collect();
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 50);
}

#[test]
fn addresses_that_are_not_public_need_permission() {
    let rows = [
        ("http://10.1.2.3/", "", "10.1.2.3 is not a public address"),
        ("http://169.254.169.254/latest", "", "169.254.169.254 is not a public address"),
        ("http://[::ffff:10.0.0.1]/", "", "10.0.0.1 is not a public address"),
        ("http://0x0a000001/", "", "10.0.0.1 is not a public address"),
        ("http://2130706433/", "admin: \"0.0.0.0:0\"", "127.0.0.1 is not a public address"),
        ("http://[64:ff9b::a00:1]/", "", "10.0.0.1 is not a public address"),
        ("http://8.8.8.8/", "admin: \"0.0.0.0:0\"", "plain http to 8.8.8.8"),
    ];
    for (url, admin, why) in rows {
        let admin = if admin.is_empty() { "admin: \"off\"" } else { admin };
        let config = configuration(url, "", "").replace("admin: \"off\"", admin);
        let said = Place::new(&[("c.yaml", &config)]).run(&["run", "-c", "c.yaml"], "");
        assert_eq!(said.code, Some(78), "{url}: {}", said.err);
        assert!(said.err.contains(why) && said.err.contains("egress.allow"), "{url}: {}", said.err);
    }
    // A name that leads to such an address is found out when it is looked up.
    let listen = crate::process::free_address();
    let url = format!("https://localhost:{}/", listen.rsplit(':').next().expect("a port"));
    let config = configuration(&url, "", QUICK)
        .replace("admin: \"off\"", &format!("admin: \"0.0.0.0:{}\"", crate::ports::free_port()));
    let place = Place::new(&[("c.yaml", &config)]);
    let said = place.run(&["run", "-c", "c.yaml"], "{\"detail\":{\"n\":1}}\n");
    let found = letters(&place);
    assert!(said.code == Some(0) && found.len() == 1, "{}", said.err);
    assert!(
        found[0]["ERROR_MESSAGE"].as_str().is_some_and(|text| text.contains("is not a public address")),
        "{found:?}"
    );
    let allowed = format!("{}egress: {{ allow: [10.0.0.0/8] }}\n", configuration("http://10.1.2.3/", "", ""));
    assert_eq!(Place::new(&[("c.yaml", &allowed)]).run(&["run", "-c", "c.yaml"], "").code, Some(0));
}

//! F21: passwords and certificates that do not fit, at the start and while running.

use crate::certificates::{self, Authority};
use crate::kafka::Kafka;
use crate::load::Load;
use crate::nats::{self, Nats};
use crate::oracle::{Ledger, event, key};
use crate::ports::free_port;
use crate::process::{Running, Sluice};
use crate::proxy::Proxy;
use crate::setup::{LONG, Route, STUBBORN, committed, config, gets, reads, rest};
use crate::stage::{Stage, pass, until, worst};
use std::path::Path;
use std::time::{Duration, Instant};

const PARTITIONS: u64 = 2;
const ALL: [u64; 10] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
/// How soon it must be said what is wrong.
const SOON: Duration = Duration::from_secs(5);
/// How long tries are counted, and how many there may be: about one a second, and those of the first one.
const WATCHED: Duration = Duration::from_secs(10);
const TRIES: u64 = 20;
/// In no log.
const WRONG: &str = "wrong-password-7f3a";

/// A target that cannot be reached as it is configured.
struct Case {
    what: &'static str,
    /// The port behind the address.
    port: u16,
    /// The target, with `SERVERS` for its address.
    target: String,
    /// What is said of it.
    says: &'static str,
    /// Whether the process ends, as nothing but its configuration can change that.
    ends: bool,
}

impl Case {
    /// How long it took until it was said, and how many tries there were.
    fn play(&self) -> (Duration, u64) {
        let front = free_port();
        let proxy = Proxy::start(front, self.port);
        let target = self.target.replace("SERVERS", &format!("127.0.0.1:{front}"));
        let routes = [Route { name: "out", remainders: &ALL, target }];
        let sluice = Sluice::new(&config("", "file: { path: in.jsonl }", &routes, ""));
        let events: String = (0..100).map(|n| event(0, n) + "\n").collect();
        sluice.write("in.jsonl", &events);
        let (what, begin) = (self.what, Instant::now());
        let running = sluice.start(&["--wait"]);
        let health = || running.get("/readyz?verbose").unwrap_or_default().1;
        until(&format!("{what}: it is said: {}", self.says), LONG, || {
            sluice.log().contains(self.says) && (self.ends || health().contains(self.says))
        });
        let said = begin.elapsed();
        match self.ends {
            true => assert_eq!(running.wait(SOON).code(), Some(78), "{what}: {}", sluice.log()),
            false => {
                pass(WATCHED.saturating_sub(begin.elapsed()));
                running.kill();
            }
        }
        let log = sluice.log();
        assert!(!log.contains(WRONG), "{what}: the log shows the password: {log}");
        assert!(said <= SOON, "{what}: said after {said:?}: {log}");
        assert!(proxy.made() > 0, "{what}: it was tried");
        (said, proxy.made())
    }
}

fn port(servers: &str) -> u16 {
    servers.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
}

/// F21.
pub fn do_not_fit(stage: &Stage) {
    at_the_start(stage);
    kafka_rotates(stage);
    nats_rotates(stage);
}

fn kafka_cases(kafka: &Kafka, out: &str, folder: &Path, stubs: [u16; 3]) -> Vec<Case> {
    let ca = kafka.folder().join("ca.pem").display().to_string();
    let target = |secured: &str| format!("kafka: {{ brokers: \"SERVERS\", topic: {out}, {secured} }}");
    let sasl = |more: &str| {
        format!(
            "sasl: {{ mechanism: SCRAM-SHA-512, username: sluice, password: {WRONG} }}, tls: {{ ca: \"{ca}\"{more} }}"
        )
    };
    let tls = |more: &str| format!("tls: {{ ca: \"{ca}\"{more} }}");
    let expired = kafka.authority.expired(&folder.join("own"));
    let own = format!(", cert: \"{}\", key: \"{}\"", expired.cert, expired.key);
    let case = |what, port, secured: String, says| Case { what, port, target: target(&secured), says, ends: false };
    let [gone, elsewhere, strange] = stubs;
    vec![
        case("a wrong password", port(&kafka.sasl_tls_servers), sasl(""), "check `sasl`"),
        case("an expired certificate", gone, tls(""), "check `tls`"),
        case("a certificate of somebody else", elsewhere, tls(""), "check `tls`"),
        case("an unknown authority", strange, tls(""), "check `tls`"),
        case("our own certificate has expired", port(&kafka.tls_servers), tls(&own), "check `tls`"),
        case("no TLS to a port with it", port(&kafka.tls_servers), String::new(), "set `tls`"),
        case("TLS to a port without it", port(&kafka.servers), tls(""), "check `tls`"),
    ]
}

fn nats_cases([good, expired, other]: [u16; 3], ca: &str, strange: &str) -> Vec<Case> {
    let target =
        |secured: &str| format!("nats: {{ servers: \"nats://SERVERS\", subject: out.x, jetstream: true, {secured} }}");
    let case = |what, port, secured: &str, says| Case { what, port, target: target(secured), says, ends: true };
    let auth = format!("auth: {{ basic: {{ username: sluice, password: {WRONG} }} }}, tls: {{ ca: \"{ca}\" }}");
    let tls = format!("tls: {{ ca: \"{ca}\" }}");
    vec![
        case("NATS: a wrong password", good, &auth, "check `auth`"),
        case("NATS: an expired certificate", expired, &tls, "check the server's certificate"),
        case("NATS: a certificate of somebody else", other, &tls, "check the server's certificate"),
        case(
            "NATS: an unknown authority",
            good,
            &format!("tls: {{ ca: \"{strange}\" }}"),
            "check the server's certificate",
        ),
        case("NATS: no TLS of ours", good, "", "check the server's certificate"),
    ]
}

/// Whatever does not fit is said soon, tried again no more than once a second, and nothing is sent.
fn at_the_start(stage: &Stage) {
    let (kafka, out) = (stage.kafka(), stage.name("f21-out"));
    kafka.topics(&[(&out, 1, &[])]);
    let folder = tempfile::TempDir::new().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let authority = &kafka.authority;
    let strange = Authority::new().write(&at("strange"));
    let (gone, other) = (authority.expired(&at("expired")), authority.other_name(&at("other")));
    let stubs = [&gone, &other, &strange].map(certificates::listen);
    let good = authority.write(&at("good"));
    let settings = |files: &certificates::Files| {
        format!(
            "tls {{ cert_file: \"{}\", key_file: \"{}\" }}\nauthorization {{ users = [ {{ user: sluice, password: right }} ] }}\n",
            files.cert, files.key
        )
    };
    let servers = [&good, &gone, &other].map(|files| Server::start(&settings(files)));
    let mut cases = kafka_cases(kafka, &out, folder.path(), [stubs[0].0, stubs[1].0, stubs[2].0]);
    cases.extend(nats_cases(servers.each_ref().map(|server| server.port), &good.ca, &strange.ca));
    let (mut said, mut most) = (Vec::new(), 0);
    // A few at a time: they are to be slow because of what is wrong, not because of each other.
    for some in cases.chunks(4) {
        std::thread::scope(|scope| {
            let played: Vec<_> = some.iter().map(|case| (case, scope.spawn(|| case.play()))).collect();
            for (case, one) in played {
                let (soon, tries) = one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                assert!(tries <= TRIES, "{}: {tries} tries in {WATCHED:?}", case.what);
                said.push(soon);
                most = tries.max(most);
            }
        });
    }
    stage.note("cases", cases.len());
    stage.note("said_after_seconds", worst(&said));
    stage.note("most_tries_in_10_seconds", most);
    for (_, bytes) in &stubs {
        assert_eq!(bytes.load(std::sync::atomic::Ordering::Relaxed), 0, "bytes were sent to who cannot be trusted");
    }
    assert_eq!(kafka.ends(&out), [0], "events were sent");
}

/// A NATS server that nobody judges.
struct Server {
    folder: tempfile::TempDir,
    port: u16,
}

impl Server {
    fn start(settings: &str) -> Self {
        let (folder, port) = (tempfile::TempDir::new().expect("a folder"), free_port());
        crate::guard::BROKERS.lock().expect("a list").push(("tests/nats", folder.path().display().to_string()));
        let conf = folder.path().join("server.conf");
        std::fs::write(&conf, settings).expect("a file");
        nats::serve(folder.path(), port, Some(&conf));
        Self { folder, port }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        nats::end(self.folder.path());
    }
}

/// Waits until a process says that it is shut out.
fn shut_out(running: &Running, sluice: &Sluice, words: &str) -> Duration {
    until("it is said that we are shut out", LONG, || {
        let health = running.get("/readyz?verbose").unwrap_or_default().1.to_lowercase();
        health.contains(words) && sluice.log().to_lowercase().contains(words)
    })
}

/// The password of a target's broker changes; then the file that holds ours, and the configuration is read again.
fn kafka_rotates(stage: &Stage) {
    let (kafka, topic) = (stage.kafka(), stage.name("f21"));
    kafka.topics(&[(&topic, PARTITIONS as i32, &[])]);
    let other = Kafka::start();
    other.topics(&[("rotated", PARTITIONS as i32, &[])]);
    let place = tempfile::TempDir::new().expect("a folder");
    let file = place.path().join("password");
    std::fs::write(&file, "right").expect("a file");
    let sasl = format!("sasl: {{ mechanism: PLAIN, username: sluice, password: \"${{file:{}}}\" }}", file.display());
    let servers = &other.sasl_servers;
    let target = format!("kafka: {{ brokers: \"{servers}\", topic: rotated, {sasl} }}, {STUBBORN}");
    let routes = [Route { name: "out", remainders: &ALL, target }];
    let sluice = Sluice::new(&config("", &reads(&kafka.servers, &topic, ""), &routes, ""));
    let running = sluice.start(&[]);
    let load = Load::start(kafka, &topic, PARTITIONS, (0, 0), 300, u64::MAX);
    until("events flow", LONG, || other.ends("rotated").iter().sum::<i64>() > 0);
    other.signal("-KILL");
    other.launch_with("rotated");
    let said = shut_out(&running, &sluice, "authentication");
    pass(Duration::from_secs(2));
    std::fs::write(&file, "rotated").expect("a file");
    running.signal("-HUP");
    let events = load.stop();
    rest(kafka, &topic);
    let all = gets(&ALL);
    let whole = || Ledger::new(&[events], &all).topic(&other, "rotated").close();
    crate::stage::rest(LONG / 2, || whole().lost, |lost| *lost == 0);
    let well = crate::stage::until("health is good again", LONG, || {
        !running.get("/readyz?verbose").unwrap_or_default().1.to_lowercase().contains("authentication")
    });
    running.stop();
    stage.note("rotated_events", events);
    stage.note("rotation_said_after_seconds", said.as_secs_f64());
    stage.note("well_after_seconds", well.as_secs_f64());
    stage.judge("rotated", &whole());
    assert!(committed(kafka, &topic), "all offsets are committed");
    assert!(said <= SOON, "{said:?} until it was said that the password is wrong");
}

/// The same with a NATS server, where source and target are shut out; the process is started anew.
fn nats_rotates(stage: &Stage) {
    const EVENTS: u64 = 2000;
    let settings = |password: &str| {
        format!(
            "authorization {{ users = [ {{ user: judge, password: judge }}, {{ user: sluice, password: {password} }} ] }}\n"
        )
    };
    let nats = Nats::start_with(
        &settings("right"),
        async_nats::ConnectOptions::with_user_and_password("judge".into(), "judge".into()),
    );
    nats.stream("FROM", "from.>", |_| {});
    nats.stream("TO", "to.x", |_| {});
    let sluice = Sluice::new("");
    let client = format!(
        "servers: \"{}\", auth: {{ basic: {{ username: sluice, password: \"${{file:{}}}\" }} }}",
        nats.url,
        sluice.path().join("password").display()
    );
    sluice.write("password", "right");
    let target = format!("nats: {{ {client}, subject: to.x, jetstream: true }}, {STUBBORN}");
    let routes = [Route { name: "out", remainders: &ALL, target }];
    sluice.write(
        "sluice.yaml",
        &config("", &format!("nats: {{ {client}, stream: FROM, durable: f21, ack_wait: 3s }}"), &routes, ""),
    );
    let publish = |from: u64, to: u64| nats.publish((from..to).map(|n| (format!("from.k{}", key(n)), event(0, n))));
    publish(0, EVENTS / 2);
    let running = sluice.start(&[]);
    until("events flow", LONG, || nats.count("TO") > 0);
    nats.reload(&settings("rotated"));
    publish(EVENTS / 2, EVENTS);
    let said = shut_out(&running, &sluice, "authorization");
    running.kill();
    sluice.write("password", "rotated");
    let running = sluice.start(&[]);
    until("everything is acknowledged", LONG, || nats.consumed("FROM", "f21"));
    running.stop();
    stage.note("nats_said_after_seconds", said.as_secs_f64());
    let all = gets(&ALL);
    let mut ledger = Ledger::new(&[EVENTS], &all).unordered();
    for record in nats.read("TO", "to.x") {
        ledger.take(&record.payload, record.header("sluice-delivery-id"));
    }
    stage.judge("stream", &ledger.close());
    assert!(said <= SOON, "{said:?} until it was said that the password is wrong");
}

//! F22 and F24: addresses that targets must not reach, and secrets that nothing may show.

use crate::process::Sluice;
use crate::receiver::{Act, Receiver};
use crate::setup::LONG;
use crate::stage::{Stage, until};
use std::time::Duration;

/// Addresses that lead to this machine or to networks that are not public. `PORT` is a listener's.
const FORBIDDEN: [&str; 30] = [
    "http://127.0.0.1:PORT/",
    "https://127.0.0.1:PORT/",
    "http://localhost:PORT/",
    "https://localhost:PORT/",
    "http://127.1:PORT/",
    "http://2130706433:PORT/",
    "http://0x7f000001:PORT/",
    "http://0177.0.0.1:PORT/",
    "http://0.0.0.0:PORT/",
    "http://[::1]:PORT/",
    "http://[::ffff:127.0.0.1]:PORT/",
    "http://[::ffff:7f00:1]:PORT/",
    "http://[64:ff9b::7f00:1]:PORT/",
    "http://[2002:7f00:1::]:PORT/",
    "https://169.254.169.254/latest/meta-data",
    "https://[fd00:ec2::254]/",
    "https://10.0.0.1:PORT/",
    "https://172.16.0.1:PORT/",
    "https://192.168.0.1:PORT/",
    "https://100.64.0.1:PORT/",
    "https://[fe80::1]:PORT/",
    "https://[fc00::1]:PORT/",
    "https://224.0.0.1:PORT/",
    "https://localhost.:PORT/",
    "https://LOCALHOST:PORT/",
    "https://user@127.0.0.1:PORT/",
    "gopher://127.0.0.1:PORT/",
    "file:///etc/passwd",
    "http://127.0.0.1.:PORT/",
    "https://\u{2460}27.0.0.1:PORT/",
];

/// F22: a process that others reach lets no target lead back into its own network.
pub fn forbidden_addresses(stage: &Stage) {
    let hook = Receiver::start(|_, _| Act::ok());
    let port = hook.url.trim_start_matches("http://127.0.0.1:").trim_end_matches("/hook").to_owned();
    let config = |url: &str, allow: &str| {
        format!(
            "data_dir: data\nserver: {{ listen: \"0.0.0.0:{}\", admin: \"{{admin}}\", auth: {{ bearer: [0123456789abcdef0123456789abcdef] }}, shutdown: {{ drain_timeout: 1s }} }}\n\
             egress: {{ allow: [{allow}] }}\nsources: {{ in: {{ file: {{ path: in.jsonl }} }} }}\n\
             targets: {{ out: {{ http: {{ url: \"{url}\", timeout: 1s }}, retry: {{ max_attempts: 0 }} }} }}\n\
             rules: {{ all: {{ pattern: {{ source: [s] }}, targets: [out] }} }}\n",
            crate::ports::free_port()
        )
    };
    let event = "{\"source\":\"s\",\"detail-type\":\"t\",\"detail\":{}}\n";
    let (mut refused, mut buried) = (0, 0);
    for url in FORBIDDEN {
        let sluice = Sluice::new(&config(&url.replace("PORT", &port), ""));
        sluice.write("in.jsonl", event);
        let mut running = sluice.start(&[]);
        until("it is refused at start or its event is given up", Duration::from_secs(20), || {
            !running.lives() || !crate::oracle::letters(&sluice).is_empty()
        });
        match running.lives() {
            true => buried += 1,
            false => refused += 1,
        }
        running.kill();
        assert_eq!(hook.connections(), 0, "{url} reached a forbidden address");
    }
    let sluice = Sluice::new(&config(&hook.url, "127.0.0.0/8"));
    sluice.write("in.jsonl", event);
    let running = sluice.start(&[]);
    until("what is allowed is reached", LONG, || hook.count() == 1);
    running.kill();
    stage.note("cases", FORBIDDEN.len());
    stage.note("refused_at_start", refused);
    stage.note("given_up", buried);
    assert!(refused > 10, "most are refused at start");
}

/// F24: no secret of the configuration comes out anywhere.
pub fn canaries(stage: &Stage) {
    const CANARY: &str = "canary7f3aSecret";
    let hook = Receiver::start(|_, _| Act::status("401 Unauthorized"));
    let secret = |name: &str| format!("{CANARY}-{name}");
    let http = |name: &str, auth: String| {
        format!(
            "  {name}: {{ http: {{ url: \"{}?key={}\", auth: {auth}, headers: {{ x-key: \"{}\" }}, signing_secret: whsec_Y2FuYXJ5N2YzYVNlY3JldC1zaWduaW5n }}, retry: {{ max_attempts: 1, initial: 10ms }} }}\n",
            hook.url,
            secret("query"),
            secret("header")
        )
    };
    let dead = crate::ports::free_port();
    let text = format!(
        "data_dir: data\nlog: {{ level: trace }}\nserver: {{ listen: \"off\", admin: \"{{admin}}\", auth: {{ bearer: [\"{}\"] }}, shutdown: {{ drain_timeout: 2s }} }}\n\
         aws: {{ access_key_id: id, secret_access_key: \"{}\", session_token: \"{}\", endpoint: \"{}\" }}\n\
         sources:\n  in: {{ file: {{ path: in.jsonl }} }}\ntargets:\n{}{}{}\
         \x20 queue: {{ aws: {{ arn: \"arn:aws:sqs:eu-west-1:123456789012:q\" }}, retry: {{ max_attempts: 1, initial: 10ms }} }}\n\
         rules:\n  all: {{ pattern: {{ source: [s] }}, targets: [basic, bearer, key, queue] }}\n",
        secret("token"),
        secret("access-key"),
        secret("session"),
        hook.url.trim_end_matches("/hook"),
        http("basic", format!("{{ basic: {{ username: u, password: \"{}\" }} }}", secret("basic"))),
        http("bearer", format!("{{ bearer: \"{}\" }}", secret("bearer"))),
        http("key", format!("{{ api_key: {{ name: x-api-key, value: \"{}\" }} }}", secret("api-key"))),
    );
    let sluice = Sluice::new(&text);
    sluice.write("in.jsonl", "{\"source\":\"s\",\"detail-type\":\"t\",\"detail\":{}}\n");
    let mut running = sluice.start(&[]);
    let mut said = String::new();
    until("the events are given up", LONG, || crate::oracle::letters(&sluice).len() == 4 || !running.lives());
    for path in ["/metrics", "/readyz?verbose", "/version", "/", "/api/v1/rules", "/api/v1/stats", "/api/v1/config"] {
        said += &running.get(path).unwrap_or_default().1;
    }
    drop(running);
    // Brokers that are not there: their errors must not show what they were to be shown.
    let kafka = Sluice::new(&format!(
        "data_dir: data\nlog: {{ level: trace }}\nserver: {{ listen: \"off\", admin: \"{{admin}}\" }}\nsources:\n  in:\n    kafka: {{ brokers: \"127.0.0.1:{dead}\", topics: [t], group: g, sasl: {{ username: u, password: \"{}\" }}, properties: {{ ssl.key.password: \"{}\" }} }}\n",
        secret("sasl"),
        secret("property")
    ));
    let nats = Sluice::new(&format!(
        "data_dir: data\nlog: {{ level: trace }}\nserver: {{ listen: \"off\", admin: \"{{admin}}\" }}\nsources:\n  in:\n    nats: {{ servers: \"nats://127.0.0.1:{dead}\", stream: t, durable: d, auth: {{ basic: {{ username: u, password: \"{}\" }} }} }}\n",
        secret("nats")
    ));
    for other in [&kafka, &nats] {
        said += &other.run(&[]).1;
    }
    said += &sluice.log();
    said += &sluice.lines("dead-letters/default").join("\n");
    let shown = std::process::Command::new(crate::process::program())
        .args(["config", "show", "-c", "sluice.yaml"])
        .current_dir(sluice.path())
        .output()
        .expect("an answer");
    said += &String::from_utf8_lossy(&shown.stdout);
    stage.note("bytes_searched", said.len());
    stage.note("requests", hook.count());
    assert!(hook.count() >= 3 && said.len() > 2000, "there was something to search");
    let found: Vec<&str> = said
        .lines()
        .filter(|line| line.contains(CANARY) || line.contains("Y2FuYXJ5N2YzYVNlY3JldC1zaWduaW5n"))
        .take(3)
        .collect();
    assert!(found.is_empty(), "secrets came out: {found:?}");
}

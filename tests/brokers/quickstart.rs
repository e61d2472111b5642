//! The README's quickstarts and the example configurations, on the brokers of these tests.

use crate::blocks;
use crate::kafka::Kafka;
use crate::nats::Nats;
use crate::receiver::{Act, Receiver};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Runs the README's blocks with a mark.
fn follow(mark: &str, local: &[(&str, &str)], environment: &[(&str, &str)]) {
    walk(blocks::all().iter().filter(|block| block.is(mark)), local, environment);
}

/// Runs blocks in order, in a folder of their own. `local` is what their addresses stand for.
fn walk<'b>(blocks: impl Iterator<Item = &'b blocks::Block>, local: &[(&str, &str)], environment: &[(&str, &str)]) {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["tests", "config"] {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        std::os::unix::fs::symlink(from, folder.path().join(name)).expect("a link");
    }
    let mut background = Vec::new();
    let mut commands = 0;
    for block in blocks {
        for (command, shown) in block.commands() {
            let command = local.iter().fold(command, |command, (from, to)| command.replace(from, to));
            commands += 1;
            if block.is("background") {
                let child = blocks::shell(&format!("exec env {command}"), folder.path(), environment).spawn();
                background.push(Guard(child.expect("a process")));
                continue;
            }
            // What works in the background takes its time: what is shown must come to be.
            let deadline = Instant::now() + Duration::from_secs(30);
            loop {
                let (printed, missing) = blocks::run(&command, folder.path(), environment, &shown);
                let Some(missing) = missing else { break };
                assert!(Instant::now() < deadline, "`{command}` should print `{missing}`:\n{printed}");
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    }
    assert!(commands > 1, "there is something to follow");
}

pub fn kafka(kafka: &Kafka) {
    let port = kafka.servers.rsplit(':').next().expect("a port").to_owned();
    let environment = [("KAFKA_BROKERS", kafka.servers.as_str()), ("SLUICE_KAFKA_PORT", port.as_str())];
    follow("kafka", &[("localhost:9092", &kafka.servers)], &environment);
}

pub fn sidecar(kafka: &Kafka) {
    follow("sidecar", &[("localhost:9092", &kafka.servers)], &[("KAFKA_BROKERS", kafka.servers.as_str())]);
}

pub fn nats(nats: &Nats) {
    let port = nats.url.rsplit(':').next().expect("a port").to_owned();
    let environment = [("NATS_URL", nats.url.as_str()), ("SLUICE_NATS_PORT", port.as_str())];
    follow("nats", &[("nats://localhost:4222", &nats.url)], &environment);
}

pub fn webhook() {
    follow("webhook", &[], &[]);
}

/// The `aws` command that the README speaks of is the one of the client tests.
pub fn aws() {
    follow("aws", &[("aws events", &format!("{} events", aws_command()))], &[("AWS_EC2_METADATA_DISABLED", "true")]);
}

/// The same with everything made through the API.
pub fn workshop() {
    let environment = [
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_ENDPOINT_URL_EVENTBRIDGE", "http://localhost:4566"),
        ("AWS_ACCESS_KEY_ID", "any"),
        ("AWS_SECRET_ACCESS_KEY", "any"),
        ("AWS_DEFAULT_REGION", "eu-west-1"),
    ];
    follow("workshop", &[("aws events", &format!("{} events", aws_command()))], &environment);
}

/// The workshop of `config/workshop`, with a topic and a queue that moto has.
pub fn classic() {
    aws_command();
    let (partners, moto) = (crate::ports::free_port(), crate::ports::free_port());
    let (partners, moto) = (format!("localhost:{partners}"), format!("localhost:{moto}"));
    let clients = std::env::var("SLUICE_CLIENTS")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/.brokers/clients").to_owned());
    let binary = Path::new(env!("CARGO_BIN_EXE_sluice")).parent().expect("a folder").display().to_string();
    let path = format!("{binary}:{clients}/venv/bin:{}", std::env::var("PATH").unwrap_or_default());
    let (partners_url, moto_url) = (format!("http://{partners}"), format!("http://{moto}"));
    let environment = [
        ("PATH", path.as_str()),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_ENDPOINT_URL_EVENTBRIDGE", "http://localhost:4566"),
        ("AWS_ACCESS_KEY_ID", "any"),
        ("AWS_SECRET_ACCESS_KEY", "any"),
        ("AWS_DEFAULT_REGION", "eu-west-1"),
        ("PARTNERS_URL", &partners_url),
        ("MOTO_URL", &moto_url),
    ];
    let port = |address: &str| address.rsplit(':').next().expect("a port").to_owned();
    let local = [
        ("partners.py 9000".to_owned(), format!("partners.py {}", port(&partners))),
        ("moto_server -p 5000".to_owned(), format!("moto_server -p {}", port(&moto))),
        ("localhost:9000".to_owned(), partners.clone()),
        ("localhost:5000".to_owned(), moto.clone()),
    ];
    let local: Vec<(&str, &str)> = local.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
    walk(
        blocks::of(include_str!("../../config/workshop/README.md")).iter().filter(|it| it.is("console")),
        &local,
        &environment,
    );
}

fn aws_command() -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");
    assert!(Command::new("bash").args([script, "fetch"]).status().expect("bash").success());
    let bin = concat!(env!("CARGO_MANIFEST_DIR"), "/.brokers/clients/venv/bin/aws");
    std::env::var("SLUICE_CLIENTS").map_or(bin.to_owned(), |home| format!("{home}/venv/bin/aws"))
}

/// Buses that keep their events in a topic, and in a stream.
pub fn broker(kafka: &Kafka, nats: &Nats) {
    let port = kafka.servers.rsplit(':').next().expect("a port");
    let environment = [("KAFKA_BROKERS", kafka.servers.as_str()), ("SLUICE_KAFKA_PORT", port)];
    follow("broker", &[], &environment);
    nats.stream("ORDERS-BUS", "bus.orders", |_| {});
    nats.stream("ORDERS-ARCHIVE", "archive.orders", |_| {});
    let [listen, admin] = [(); 2].map(|()| format!("127.0.0.1:{}", crate::ports::free_port()));
    let environment = [("NATS_URL", nats.url.as_str()), ("LISTEN", listen.as_str()), ("ADMIN", admin.as_str())];
    let folder = tempfile::tempdir().expect("a folder");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/broker/nats.yaml");
    let command = format!("exec sluice run -c {path}");
    let running = Guard(blocks::shell(&command, folder.path(), &environment).spawn().expect("a process"));
    until("it listens", || std::net::TcpStream::connect(&listen).is_ok());
    let steps = [
        (
            "curl -s http://$LISTEN/events/orders -H 'ce-specversion: 1.0' -H 'ce-id: 1' -H 'ce-source: com.aws.orders' \
             -H 'ce-type: Order' -H 'Content-Type: application/json' -d '{\"orderId\":\"1\"}'",
            "{\"accepted\":1}",
        ),
        ("sluice logs tail /bus/orders -n 1", "\"orderId\":\"1\""),
        ("sluice archive export orders-week --admin-url http://$ADMIN", "\"orderId\":\"1\""),
    ];
    for (command, shown) in steps {
        until(shown, || blocks::run(command, folder.path(), &environment, &[shown.to_owned()]).1.is_none());
    }
    drop(running);
    assert_eq!((nats.count("ORDERS-BUS"), nats.count("ORDERS-ARCHIVE")), (1, 1));
}

/// Zendesk tickets to two teams' topics, a PagerDuty incident to a runbook function: the example configurations.
pub fn partners(kafka: &Kafka) {
    let runbook = Receiver::start(|_, _| Act::ok());
    let listen = format!("127.0.0.1:{}", crate::ports::free_port());
    let environment = [
        ("KAFKA_BROKERS", kafka.servers.as_str()),
        ("LISTEN", listen.as_str()),
        ("RUNBOOK_URL", runbook.url.as_str()),
        ("RUNBOOK_TOKEN", "let-me-in"),
        ("ZENDESK_SECRET", "z3cret"),
        ("PAGERDUTY_SECRET", "p4ger"),
    ];
    let folder = tempfile::tempdir().expect("a folder");
    let route = |file: &str| {
        let path = format!("{}/config/webhooks/{file}", env!("CARGO_MANIFEST_DIR"));
        let guard = Guard(
            blocks::shell(&format!("exec sluice run -c {path}"), folder.path(), &environment)
                .spawn()
                .expect("a process"),
        );
        until("it listens", || std::net::TcpStream::connect(&listen).is_ok());
        guard
    };
    let post = |command: &str| {
        let (printed, missing) = blocks::run(command, folder.path(), &environment, &["\"accepted\":1".to_owned()]);
        assert!(missing.is_none(), "{command}\n{printed}");
    };
    let zendesk = route("zendesk.yaml");
    for (id, priority) in [(1, "\"HIGH\""), (2, "\"NORMAL\""), (3, "\"URGENT\""), (4, "null")] {
        let body = format!(
            "{{\"type\":\"zen:event-type:ticket.created\",\"detail\":{{\"id\":\"{id}\",\"priority\":{priority}}}}}"
        );
        post(&format!(
            "body='{body}'; at=$(date -u +%Y-%m-%dT%H:%M:%SZ); \
             tag=$(printf %s \"$at$body\" | openssl dgst -sha256 -hmac \"$ZENDESK_SECRET\" -binary | base64); \
             curl -s http://$LISTEN/in/zendesk -H \"X-Zendesk-Webhook-Signature: $tag\" -H \"X-Zendesk-Webhook-Signature-Timestamp: $at\" -d \"$body\""
        ));
    }
    let tickets = |topic: &str| {
        let mut keys: Vec<_> = kafka.read(topic).into_iter().map(|record| record.key.expect("a key")).collect();
        keys.sort();
        keys
    };
    let routed = || (tickets("tickets.on-call"), tickets("tickets.support"));
    let wanted = (vec!["1".into(), "3".into()], vec!["2".into(), "4".into()]);
    until("tickets are routed", || routed() == wanted);
    drop(zendesk);
    let pagerduty = route("pagerduty.yaml");
    for (kind, urgency) in
        [("incident.triggered", "high"), ("incident.triggered", "low"), ("incident.resolved", "high")]
    {
        let body = format!(
            "{{\"event\":{{\"id\":\"{kind}-{urgency}\",\"event_type\":\"{kind}\",\"data\":{{\"id\":\"Q1\",\"title\":\"Disk full\",\"urgency\":\"{urgency}\",\"service\":{{\"summary\":\"db\"}}}}}}}}"
        );
        post(&format!(
            "body='{body}'; tag=$(printf %s \"$body\" | openssl dgst -sha256 -hmac \"$PAGERDUTY_SECRET\" | sed 's/.* //'); \
             curl -s http://$LISTEN/in/pagerduty -H \"X-PagerDuty-Signature: v1=$tag\" -d \"$body\""
        ));
    }
    until("the runbook is called", || !runbook.requests().is_empty());
    drop(pagerduty);
    let calls = runbook.requests();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].header("authorization"), Some("Bearer let-me-in"));
    let body: serde_json::Value = serde_json::from_slice(&calls[0].body).expect("JSON");
    assert_eq!(body, serde_json::json!({ "incident": "Q1", "service": "db", "title": "Disk full" }));
}

pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !done() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Kills the process when the quickstart is over, however it ends.
pub struct Guard(pub std::process::Child);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

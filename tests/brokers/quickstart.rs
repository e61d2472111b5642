//! The README's quickstarts and the example configurations, on the brokers of these tests.

use crate::blocks;
use crate::kafka::Kafka;
use crate::nats::Nats;
use crate::receiver::{Act, Receiver};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Runs the blocks with a mark, in order, in a folder of their own. `local` is what the README's addresses stand for.
fn follow(mark: &str, local: &[(&str, &str)], environment: &[(&str, &str)]) {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["tests", "config"] {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        std::os::unix::fs::symlink(from, folder.path().join(name)).expect("a link");
    }
    let mut background = Vec::new();
    let mut commands = 0;
    for block in blocks::all().iter().filter(|block| block.is(mark)) {
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
    assert!(commands > 1, "the README has a quickstart for {mark}");
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
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");
    assert!(Command::new("bash").args([script, "fetch"]).status().expect("bash").success());
    let bin = concat!(env!("CARGO_MANIFEST_DIR"), "/.brokers/clients/venv/bin/aws");
    let bin = std::env::var("SLUICE_CLIENTS").map_or(bin.to_owned(), |home| format!("{home}/venv/bin/aws"));
    follow("aws", &[("aws events", &format!("{bin} events"))], &[("AWS_EC2_METADATA_DISABLED", "true")]);
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
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(&listen).is_err() {
            assert!(Instant::now() < deadline, "{file} does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
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
    let deadline = Instant::now() + Duration::from_secs(15);
    while routed() != wanted && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(routed(), wanted);
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
    let deadline = Instant::now() + Duration::from_secs(15);
    while runbook.requests().is_empty() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(pagerduty);
    let calls = runbook.requests();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0].header("authorization"), Some("Bearer let-me-in"));
    let body: serde_json::Value = serde_json::from_slice(&calls[0].body).expect("JSON");
    assert_eq!(body, serde_json::json!({ "incident": "Q1", "service": "db", "title": "Disk full" }));
}

/// Kills the process when the quickstart is over, however it ends.
struct Guard(std::process::Child);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

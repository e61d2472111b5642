//! Rules that are made through the API: to services of AWS, which moto stands for, and to a topic of Kafka.

use crate::kafka::Kafka;
use crate::ports::free_port;
use crate::process::Sluice;
use crate::quickstart::{Guard, until};
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// Queues, streams, log groups and state machines have what rules lead to them; a queue has what no other could take.
pub fn aws() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");
    assert!(Command::new("bash").args([script, "fetch"]).status().expect("bash").success());
    let (listen, moto) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
    let port = moto.rsplit(':').next().expect("a port");
    let server = Guard(Command::new("bash").args([script, "moto", port]).spawn().expect("a process"));
    until("moto listens", || std::net::TcpStream::connect(&moto).is_ok());
    let sluice = Sluice::new(&format!(
        "data_dir: data\nserver: {{ listen: \"{listen}\", admin: \"{{admin}}\" }}\n\
         aws: {{ endpoint: \"http://{moto}\", access_key_id: any, secret_access_key: any }}\n\
         targets: {{ far: {{ aws: {{ arn: \"arn:aws:logs:eu-west-1:123456789012:log-group:/far/orders\" }} }} }}\n"
    ));
    let mut running = sluice.start(&[]);
    running.until("it is ready", PATIENCE, |it| it.get("/readyz").is_some_and(|(status, _)| status.contains("200")));
    let urls = [format!("http://{listen}"), format!("http://{moto}")];
    let output = Command::new("bash").args([script, "services"]).args(&urls).output().expect("bash");
    let (printed, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    print!("{printed}");
    let have: Value = serde_json::from_str(&printed).unwrap_or_else(|_| panic!("{said}"));
    assert_eq!(have["services"], json!(["sqs", "sqs fifo", "kinesis", "firehose", "logs", "states", "dead letters"]));
    running.stop();
    drop(server);
}

/// A rule that is made through the API leads to the topic that an ARN names; two groups of consumers have it each.
pub fn kafka(kafka: &Kafka) {
    let topic = "lab-supplies";
    kafka.topics(&[(topic, 2, &[]), ("any", 1, &[])]);
    let listen = format!("127.0.0.1:{}", free_port());
    let sluice = Sluice::new(&format!(
        "data_dir: data\nserver: {{ listen: \"{listen}\", admin: \"{{admin}}\" }}\n\
         targets: {{ topics: {{ kafka: {{ brokers: \"{}\", topic: any }} }} }}\n\
         arn_map: {{ \"arn:aws:kafka:*:topic/shop/*\": topics }}\n",
        kafka.servers
    ));
    let mut running = sluice.start(&[]);
    running.until("it is ready", PATIENCE, |it| it.get("/readyz").is_some_and(|(status, _)| status.contains("200")));
    let call = |action: &str, body: Value| {
        let target = format!("X-Amz-Target: AWSEvents.{action}");
        let url = format!("http://{listen}/");
        let answer = Command::new("curl").args(["-sf", &url, "-H", &target, "-d", &body.to_string()]).output();
        let answer = answer.expect("curl");
        assert!(answer.status.success(), "{action}: {}", String::from_utf8_lossy(&answer.stdout));
    };
    let arn = format!("arn:aws:kafka:us-east-1:000000000000:topic/shop/abcd1234-0123-abcd-5678-1234abcd5678-1/{topic}");
    let pattern = json!({ "detail": { "category": ["lab-supplies"], "location": ["us-west", "us-east"] } });
    call("PutRule", json!({ "Name": "USLabSupplyRule", "EventPattern": pattern.to_string() }));
    call("PutTargets", json!({ "Rule": "USLabSupplyRule", "Targets": [{ "Id": "t", "Arn": arn }] }));
    for category in ["lab-supplies", "office-supplies"] {
        let detail = json!({ "category": category, "location": "us-east" }).to_string();
        call(
            "PutEvents",
            json!({ "Entries": [{ "Source": "com.aws.orders", "DetailType": "Order", "Detail": detail }] }),
        );
    }
    running.until("one was delivered", PATIENCE, |_| kafka.ends(topic).iter().sum::<i64>() == 1);
    for group in ["lab", "accounts"] {
        let read = kafka.consume(group, topic, 1);
        assert!(read[0].windows(14).any(|it| it == b"\"lab-supplies\""), "{group}");
    }
    running.stop();
}

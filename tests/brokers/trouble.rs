//! Bad input and bad days: each a clear message, nothing lost.

use crate::kafka::Kafka;
use crate::ports::free_port;
use crate::process::Sluice;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{Offset, TopicPartitionList};
use std::process::Command;
use std::time::{Duration, Instant};

/// A configuration from one topic to one topic, with more lines at its ends.
fn config(servers: &str, name: &str, source: &str, target: &str, rest: &str) -> String {
    format!(
        "data_dir: data\nserver: {{ listen: \"off\", admin: \"{{admin}}\" }}\nsources:\n  in:\n    kafka: {{ brokers: \"{servers}\", topics: [{name}-in], group: {name} }}\n\
         {source}targets:\n  out: {{ kafka: {{ brokers: \"{servers}\", topic: {name}-out{target} }}, retry: {{ initial: 50ms }} }}\n{rest}\
         rules:\n  all: {{ pattern: {{ source: [{{ exists: true }}] }}, targets: [out] }}\n"
    )
}

fn event(id: u64) -> String {
    format!("{{\"source\":\"s\",\"detail-type\":\"t\",\"detail\":{{\"id\":{id}}}}}")
}

pub fn unknown_topics(kafka: &Kafka) {
    let sluice = Sluice::new(&config(&kafka.servers, "nowhere", "", "", ""));
    let (status, log, _) = sluice.run(&[]);
    assert_eq!(status.code(), Some(78));
    assert!(log.contains("topic nowhere-in does not exist") && log.contains("--create --topic nowhere-in"), "{log}");
    kafka.topics(&[("nowhere-in", 1, &[])]);
    let (status, log, _) = sluice.run(&[]);
    assert_eq!(status.code(), Some(78));
    assert!(log.contains("target out: topic nowhere-out does not exist") && log.contains("create: {}"), "{log}");
}

pub fn no_broker(_: &Kafka) {
    let servers = format!("127.0.0.1:{}", free_port());
    let sluice = Sluice::new(&config(&servers, "none", "", "", ""));
    let (status, log, took) = sluice.run(&[]);
    assert_eq!(status.code(), Some(69));
    assert!(log.contains(&format!("no answer from the Kafka brokers {servers}")) && log.contains("refused"), "{log}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

/// `--wait` waits for a broker that starts later.
pub fn late_broker(_: &Kafka) {
    let (port, sasl) = (free_port(), free_port());
    let servers = format!("127.0.0.1:{port}");
    let sluice = Sluice::new(&config(&servers, "late", "", ", create: {}", ""));
    let mut running = sluice.start(&["--wait"]);
    running.until("it says that it waits", Duration::from_secs(20), |_| sluice.log().contains("trying again"));
    let kafka = Kafka::start_at(port, sasl);
    kafka.topics(&[("late-in", 1, &[])]);
    let sender = kafka.producer();
    sender.send("late-in", None, "k", event(1).as_bytes(), &[]);
    sender.flush();
    running.until("the event arrives", Duration::from_secs(30), |running| {
        running.metric("sluice_target_deliveries_total", "out\",outcome=\"delivered") == 1.0
    });
    assert_eq!(kafka.read("late-out")[0].payload, event(1).as_bytes());
    running.stop();
}

/// A group's coordinator that comes up refuses a commit more often than the client tries it, and no event comes after.
pub fn refused_commit() {
    let cluster = MockCluster::new(1).expect("a cluster");
    let servers = cluster.bootstrap_servers();
    cluster.create_topic("in", 1, 1).expect("a topic");
    let sluice = Sluice::new(&format!(
        "data_dir: data\nserver: {{ listen: \"off\", admin: \"{{admin}}\" }}\n\
         sources: {{ in: {{ kafka: {{ brokers: \"{servers}\", topics: [in], group: g }} }} }}\n\
         targets: {{ out: {{ log: {{ group: /out }} }} }}\n\
         rules: {{ all: {{ pattern: {{ source: [{{ exists: true }}] }}, targets: [out] }} }}\n"
    ));
    let mut running = sluice.start(&[]);
    running.until("it has the partition", Duration::from_secs(30), |running| {
        running.get("/readyz").is_some_and(|(status, _)| status.contains("200"))
    });
    let refusal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS;
    cluster.request_errors(RDKafkaApiKey::OffsetCommit, &[refusal; 4]);
    let client = || ClientConfig::new().set("bootstrap.servers", &servers).set("group.id", "g").clone();
    let sender: BaseProducer = client().create().expect("a producer");
    sender.send(BaseRecord::<str, str>::to("in").payload(&event(1))).expect("sent");
    sender.flush(Duration::from_secs(10)).expect("sent");
    let asks: BaseConsumer = client().create().expect("a consumer");
    let mut asked = TopicPartitionList::new();
    asked.add_partition("in", 0);
    running.until("the group has the offset", Duration::from_secs(30), |_| {
        let committed = asks.committed_offsets(asked.clone(), Duration::from_secs(5)).expect("an answer");
        committed.elements()[0].offset() == Offset::Offset(1)
    });
    assert_eq!(running.metric("sluice_target_deliveries_total", "out\",outcome=\"delivered"), 1.0);
    running.stop();
}

pub fn refused_credentials(kafka: &Kafka) {
    kafka.topics(&[("sasl-in", 1, &[]), ("sasl-out", 1, &[])]);
    let with = |password: &str| {
        let sasl = format!("sasl: {{ username: sluice, password: {password} }}");
        config(&kafka.sasl_servers, "sasl", "", "", "")
            .replace("group: sasl }", &format!("group: sasl, {sasl} }}"))
            .replace("topic: sasl-out }", &format!("topic: sasl-out, {sasl} }}"))
    };
    let sluice = Sluice::new(&with("wrong"));
    let (status, log, took) = sluice.run(&[]);
    assert_eq!(status.code(), Some(69));
    assert!(log.contains("Authentication failed") && !log.contains("wrong"), "{log}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    sluice.write("sluice.yaml", &with("right"));
    let sender = kafka.producer();
    sender.send("sasl-in", None, "k", event(1).as_bytes(), &[]);
    sender.flush();
    let mut running = sluice.start(&[]);
    running.until("the event arrives", Duration::from_secs(30), |_| kafka.ends("sasl-out") == [1]);
    running.stop();
}

/// Broken JSON, wrong types, oversized records: raw in the dead-letter topic, with their cause; the rest flows on.
pub fn poison(kafka: &Kafka) {
    kafka.topics(&[("poison-in", 1, &[("max.message.bytes", "5000000")]), ("poison-out", 1, &[])]);
    let dead = format!("  dead: {{ kafka: {{ brokers: \"{}\", topic: poison-dlq }} }}\n", kafka.servers);
    let sluice = Sluice::new(&config(&kafka.servers, "poison", "    dead_letter: dead\n", "", &dead));
    let bad: [(&[u8], &str); 7] = [
        (b"{\"source\":", "the text ends too early"),
        (b"not json", "not a JSON object"),
        (b"[1,2]", "not a JSON object"),
        (b"", "empty text"),
        (b"{\"source\":\"\xff\"}", "invalid UTF-8"),
        (b"{\"source\":\"s\"} trailing", "text after the closing brace"),
        (&[b'{'; 5000], "unexpected character"),
    ];
    let large = format!("{{\"source\":\"s\",\"detail\":{{\"fill\":\"{}\"}}}}", "x".repeat(300 << 10));
    let sender = kafka.producer();
    for (n, (record, _)) in bad.iter().enumerate() {
        sender.send("poison-in", None, "k", event(n as u64).as_bytes(), &[]);
        sender.send("poison-in", None, "k", record, &[]);
    }
    sender.send("poison-in", None, "k", large.as_bytes(), &[]);
    // Too large for the dead-letter topic as well: the default queue takes it.
    // Nothing that compression makes small.
    let huge: String =
        (0..300_000u64).map(|n| format!("{:08x}", n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32)).collect();
    sender.send("poison-in", None, "k", huge.as_bytes(), &[]);
    sender.flush();
    let mut running = sluice.start(&[]);
    running.until("all offsets are committed", Duration::from_secs(30), |_| {
        kafka.committed("poison", "poison-in") == kafka.ends("poison-in")
    });
    running.stop();
    assert_eq!(kafka.read("poison-out").len(), bad.len());
    let letters = kafka.read("poison-dlq");
    assert_eq!(letters.len(), bad.len() + 1);
    for (n, (record, why)) in bad.iter().enumerate() {
        let letter = &letters[n];
        assert_eq!(letter.payload, *record, "raw, byte for byte");
        assert_eq!(letter.header("ERROR_CODE"), Some("INVALID_EVENT"));
        assert!(letter.header("ERROR_MESSAGE").expect("a message").contains(why), "{:?}", letter.headers);
        assert_eq!(letter.header("sluice-position"), Some(format!("poison-in/0/{}", 2 * n + 1).as_str()));
    }
    let last = letters.last().expect("a letter");
    assert_eq!(last.payload.len(), large.len());
    assert!(last.header("ERROR_MESSAGE").expect("a message").contains("limits.event_bytes is 262144"));
    let kept = sluice.lines("dead-letters/default");
    assert_eq!(kept.len(), 1);
    assert!(kept[0].contains(&huge), "the whole record is kept");
}

/// A topic whose records are too small for our events is found at start; what an event outgrows is a dead letter.
pub fn small_topic(kafka: &Kafka) {
    kafka.topics(&[("small-in", 1, &[]), ("small-out", 1, &[("max.message.bytes", "20000")])]);
    let text = config(&kafka.servers, "small", "", "", "");
    let sluice = Sluice::new(&text);
    let (status, log, _) = sluice.run(&[]);
    assert_eq!(status.code(), Some(78));
    assert!(log.contains("topic small-out takes records of 20000 bytes") && log.contains("max.message.bytes"), "{log}");
}

/// A new group with `start: latest` begins at the end, and stays where it began across a restart.
pub fn start_latest(kafka: &Kafka) {
    kafka.topics(&[("latest-in", 1, &[]), ("latest-out", 1, &[])]);
    let sender = kafka.producer();
    let send = |id: u64| {
        sender.send("latest-in", None, "k", event(id).as_bytes(), &[]);
        sender.flush();
    };
    send(1);
    let text =
        config(&kafka.servers, "latest", "", "", "").replace("group: latest }", "group: latest, start: latest }");
    let sluice = Sluice::new(&text);
    let ready =
        |running: &crate::process::Running| running.get("/readyz").is_some_and(|(status, _)| status.contains("200"));
    let mut running = sluice.start(&[]);
    running.until("partitions are assigned", Duration::from_secs(30), ready);
    running.kill();
    send(2);
    let mut running = sluice.start(&[]);
    running.until("the second event arrives", Duration::from_secs(40), |_| kafka.ends("latest-out") == [1]);
    running.stop();
    assert_eq!(kafka.read("latest-out")[0].payload, event(2).as_bytes());
}

/// A member that would share partitions out another way than the others says so, and has its turn when they are gone.
pub fn other_assignor(kafka: &Kafka) {
    kafka.topics(&[("assign-in", 2, &[]), ("assign-out", 1, &[])]);
    let with = |assignor: &str| {
        let properties = format!("group: assign, properties: {{ partition.assignment.strategy: {assignor} }} }}");
        Sluice::new(&config(&kafka.servers, "assign", "", "", "").replace("group: assign }", &properties))
    };
    let (eager, cooperative) = (with("range"), with("cooperative-sticky"));
    let ready =
        |running: &crate::process::Running| running.get("/readyz").is_some_and(|(status, _)| status.contains("200"));
    let mut first = eager.start(&[]);
    first.until("the first has its partitions", Duration::from_secs(30), ready);
    let mut second = cooperative.start(&[]);
    second.until("the second says why it has none", Duration::from_secs(30), |_| {
        cooperative.log().contains("the group's other members have another partition.assignment.strategy")
    });
    first.stop();
    second.until("the second has them", Duration::from_secs(30), ready);
    assert_eq!(kafka.assignor("assign"), "cooperative-sticky");
    second.stop();
}

/// CloudEvents in binary mode: attributes in headers, data in the body.
pub fn cloud_events(kafka: &Kafka) {
    kafka.topics(&[("ce-in", 1, &[]), ("ce-out", 1, &[])]);
    let text = config(&kafka.servers, "ce", "    envelope: cloudevents\n", "", "")
        .replace("{ source: [{ exists: true }] }", "{ detail-type: [order.placed], cloudevents: { subject: [S] } }");
    let sluice = Sluice::new(&text);
    let headers = [
        ("ce_specversion", "1.0"),
        ("ce_id", "1"),
        ("ce_source", "/shop"),
        ("ce_type", "order.placed"),
        ("ce_subject", "S"),
    ];
    let sender = kafka.producer();
    sender.send("ce-in", None, "k", b"{\"total\":5}", &headers);
    sender.send("ce-in", None, "k", b"{\"total\":6}", &headers[..4]);
    sender.send("ce-in", None, "k", b"{\"total\":7}", &[]);
    sender.flush();
    let mut running = sluice.start(&[]);
    running.until("all offsets are committed", Duration::from_secs(30), |_| kafka.committed("ce", "ce-in") == [3]);
    running.stop();
    let records = kafka.read("ce-out");
    assert_eq!(records.len(), 1);
    let event: serde_json::Value = serde_json::from_slice(&records[0].payload).expect("JSON");
    assert_eq!((event["source"].as_str(), event["detail"]["total"].as_u64()), (Some("/shop"), Some(5)));
    let letters = sluice.lines("dead-letters/default");
    assert_eq!(letters.len(), 1, "the record without attributes is kept");
    assert!(letters[0].contains("specversion"), "{}", letters[0]);
}

/// Rules change while events flow: invalid files change nothing, valid ones take effect, nothing is lost.
pub fn reload(kafka: &Kafka) {
    kafka.topics(&[("reload-in", 2, &[]), ("reload-out", 1, &[])]);
    let text = |rule: &str| config(&kafka.servers, "reload", "", "", "").replace("all: {", rule);
    let sluice = Sluice::new(&text("first: {"));
    let mut running = sluice.start(&[]);
    let sender = kafka.producer();
    let mut sent = 0u64;
    let mut send = |count: u64| {
        for _ in 0..count {
            sender.send("reload-in", Some((sent % 2) as i32), "k", event(sent).as_bytes(), &[]);
            sent += 1;
        }
        sender.flush();
        sent
    };
    let matched = |rule: &str| format!("rule=\"{rule}\"");
    let count =
        |running: &crate::process::Running, rule: &str| running.metric("sluice_rule_matches_total", &matched(rule));
    let total = send(1000);
    running.until("the first rule matches", Duration::from_secs(30), |r| count(r, "first") == total as f64);
    sluice.write("sluice.yaml", &text("broken: { state: sideways,"));
    running.until("the invalid file is reported", Duration::from_secs(10), |r| {
        r.metric("sluice_config_reloads_total", "bad") >= 1.0
    });
    assert!(sluice.log().contains("`sideways` is not one of"), "{}", sluice.log());
    send(1000);
    running.until("the old rule goes on", Duration::from_secs(10), |r| count(r, "first") == 2000.0);
    sluice.write("sluice.yaml", &text("second: {"));
    running.until("the new plan serves", Duration::from_secs(10), |r| r.metric("sluice_ruleset_generation", "") == 2.0);
    let total = send(1000);
    running.until("the new rule matches", Duration::from_secs(10), |r| count(r, "second") == 1000.0);
    sluice.write("sluice.yaml", &text("third: {"));
    running.signal("-HUP");
    running
        .until("the third plan serves", Duration::from_secs(10), |r| r.metric("sluice_ruleset_generation", "") == 3.0);
    running.stop();
    assert_eq!(kafka.read("reload-out").len() as u64, total, "nothing lost, nothing twice");
}

/// The disk of the data directory fills and is freed: lines wait, the source pauses, nothing is lost.
pub fn full_disk(kafka: &Kafka) {
    kafka.topics(&[("disk-in", 1, &[])]);
    let text = config(&kafka.servers, "disk", "", "", "")
        .replace("kafka: { brokers: \"{servers}\", topic: disk-out }", "")
        .lines()
        .map(|line| match line.trim_start().starts_with("out:") {
            true => "  out: { log: { group: /disk }, retry: { initial: 50ms, max: 200ms } }".to_owned(),
            false => line.to_owned(),
        })
        .collect::<Vec<_>>()
        .join("\n");
    let sluice = Sluice::new(&format!("limits: {{ in_flight_events: 400 }}\n{text}\n"));
    let data = sluice.path().join("data");
    std::fs::create_dir(&data).expect("a folder");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(&data).status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("{{\"scenario\":\"full_disk\",\"skipped\":\"mounting a small disk needs root\"}}");
        return;
    }
    let ballast = data.join("ballast");
    std::fs::write(&ballast, vec![0; 150 << 10]).expect("ballast");
    let sender = kafka.producer();
    for id in 0..2500 {
        sender.send("disk-in", None, "k", event(id).as_bytes(), &[]);
    }
    sender.flush();
    let mut running = sluice.start(&[]);
    let begin = Instant::now();
    running.until("the full disk is reported", Duration::from_secs(30), |_| {
        sluice.log().contains("free space in data_dir")
    });
    running.until("the source pauses", Duration::from_secs(30), |r| {
        r.metric("sluice_source_paused_partitions", "") == 1.0
    });
    std::fs::remove_file(&ballast).expect("room");
    running
        .until("all offsets are committed", Duration::from_secs(60), |_| kafka.committed("disk", "disk-in") == [2500]);
    running.stop();
    let mut ids: Vec<u64> = sluice
        .lines("logs/disk")
        .iter()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).expect("a whole line")["detail"]["id"]
                .as_u64()
                .expect("an id")
        })
        .collect();
    ids.sort_unstable();
    Command::new("umount").arg(&data).status().ok();
    assert_eq!(ids, (0..2500).collect::<Vec<_>>(), "every line once and whole");
    println!(
        "{{\"scenario\":\"full_disk\",\"events\":2500,\"lost\":0,\"seconds\":{:.1}}}",
        begin.elapsed().as_secs_f64()
    );
}

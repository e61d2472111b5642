//! Dead letters in a topic: read back and sent once more; and a topic that takes none.

use crate::kafka::Kafka;
use crate::ports::free_port;
use crate::process::{Sluice, program};
use crate::receiver::{Act, Receiver};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

fn config(kafka: &Kafka, name: &str, url: &str, queue: &str) -> String {
    let servers = &kafka.servers;
    format!(
        "data_dir: data\nserver: {{ listen: \"off\", admin: \"{{admin}}\" }}\nsources:\n  in:\n    kafka: {{ brokers: \"{servers}\", topics: [{name}-in], group: {name} }}\n\
         targets:\n  crm: {{ http: {{ url: \"{url}\" }}, dead_letter: dead }}\n  log: {{ log: {{ group: good }} }}\n  dead: {{ kafka: {{ brokers: \"{servers}\", topic: {name}-dlq{queue} }} }}\n\
         rules:\n  bad: {{ pattern: {{ source: [bad] }}, targets: [crm] }}\n  good: {{ pattern: {{ source: [good] }}, targets: [log] }}\n"
    )
}

fn event(source: &str, id: u64) -> String {
    format!("{{\"source\":\"{source}\",\"detail\":{{\"id\":{id}}}}}")
}

fn dlq(sluice: &Sluice, arguments: &[&str]) -> String {
    let url = format!("http://{}", sluice.admin);
    let output = Command::new(program())
        .arg("dlq")
        .args(arguments)
        .args(["--queue", "dead", "--admin-url", &url])
        .current_dir(sluice.path())
        .output()
        .expect("a process");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn endpoint() -> (Arc<AtomicBool>, Receiver) {
    let takes = Arc::<AtomicBool>::default();
    let open = Arc::clone(&takes);
    let receiver = Receiver::start(move |_, _| match open.load(Ordering::SeqCst) {
        true => Act::ok(),
        false => Act::status("400 Bad Request"),
    });
    (takes, receiver)
}

pub fn topic(kafka: &Kafka) {
    kafka.topics(&[("again-in", 1, &[]), ("again-dlq", 1, &[])]);
    let (takes, receiver) = endpoint();
    let sluice = Sluice::new(&config(kafka, "again", &receiver.url, ""));
    let mut running = sluice.start(&[]);
    let sender = kafka.producer();
    for id in 0..5 {
        sender.send("again-in", None, "k", event("bad", id).as_bytes(), &[]);
    }
    sender.flush();
    running.until("five letters", PATIENCE, |_| kafka.read("again-dlq").len() == 5);
    let ids = |from: usize| -> Vec<_> {
        let requests = receiver.requests();
        let mut ids: Vec<_> = requests[from..].iter().map(|one| one.header("webhook-id").map(str::to_owned)).collect();
        ids.sort();
        ids
    };
    let first = ids(0);
    takes.store(true, Ordering::SeqCst);
    let listed = dlq(&sluice, &["ls"]);
    assert!(listed.contains("      5 default") && listed.contains("crm"), "{listed}");
    let refused = dlq(&sluice, &["purge", "--all"]);
    assert!(refused.contains("kafka-delete-records.sh"), "{refused}");
    // One in the middle is sent, and shows again, for a topic forgets only its beginning.
    let middle: serde_json::Value = serde_json::from_slice(&kafka.read("again-dlq")[2].payload).expect("JSON");
    let said =
        dlq(&sluice, &["redrive", "--pattern", &format!("{{\"detail\":{{\"id\":[{}]}}}}", middle["detail"]["id"])]);
    assert!(said.contains("1 letters sent, 1 settled") && said.contains("1 of them show again"), "{said}");
    assert_eq!(receiver.requests().len(), 6);
    let said = dlq(&sluice, &["redrive"]);
    assert!(said.contains("5 letters sent, 5 settled") && !said.contains("show again"), "{said}");
    assert_eq!(ids(6), first, "each once more, with its id");
    assert_eq!(dlq(&sluice, &["ls"]), "", "nothing is left");
    assert_eq!(kafka.committed("sluice-dlq", "again-dlq"), [5]);
    running.stop();
}

/// The partition whose letters wait stands still, the other one goes on, and it is said which queue it is.
pub fn blocked(kafka: &Kafka) {
    let (port, sasl) = (free_port(), free_port());
    // The queue has a broker of its own.
    let other = Kafka::start_at(port, sasl);
    kafka.topics(&[("stuck-in", 2, &[])]);
    other.topics(&[("stuck-dlq", 1, &[])]);
    let (_, receiver) = endpoint();
    let queue = ", properties: { message.timeout.ms: \"1000\" } }, retry: { initial: 50ms, max: 1s";
    // With a retry log, attempts that take long are spilled, and their letters hold nothing any more.
    let limits = "limits: { in_flight_events: 64, retry_log_bytes: 0 }\n";
    let dead = |servers: &str| format!("brokers: \"{servers}\", topic: stuck-dlq");
    let text = config(kafka, "stuck", &receiver.url, queue).replace(&dead(&kafka.servers), &dead(&other.servers));
    let sluice = Sluice::new(&(text + limits));
    let mut running = sluice.start(&[]);
    let sender = kafka.producer();
    running.until("it is ready", PATIENCE, |r| r.get("/readyz").is_some_and(|(status, _)| status.contains("200")));
    drop(other);
    (0..200).for_each(|id| sender.send("stuck-in", Some(0), "k", event("bad", id).as_bytes(), &[]));
    sender.flush();
    running.until("a refused letter", PATIENCE, |_| !receiver.requests().is_empty());
    let begin = Instant::now();
    let gauge = |running: &crate::process::Running| running.metric("sluice_blocked", "by=\"dlq\",target=\"dead\"");
    running.until("the queue is said to be blocked", PATIENCE, |running| gauge(running) > 0.0);
    let seen = begin.elapsed();
    assert!(seen < Duration::from_secs(3), "{seen:?}");
    let (status, ready) = running.get("/readyz?verbose").expect("an answer");
    assert!(status.contains("200") && ready.contains("wait for queue dead"), "{status} {ready}");
    (0..500).for_each(|id| sender.send("stuck-in", Some(1), "k", event("good", id).as_bytes(), &[]));
    sender.flush();
    running.until("the other partition goes on", PATIENCE, |_| kafka.committed("stuck", "stuck-in")[1] == 500);
    assert!(kafka.committed("stuck", "stuck-in")[0] <= 0, "nothing of the stuck one is committed");
    running.until("failed writes are counted", PATIENCE, |r| r.metric("sluice_dlq_write_errors_total", "dead") > 0.0);
    let other = Kafka::start_at(port, sasl);
    other.topics(&[("stuck-dlq", 1, &[])]);
    running.until("all is committed", PATIENCE, |_| kafka.committed("stuck", "stuck-in") == [200, 500]);
    running.until("it is said to be over", PATIENCE, |running| {
        gauge(running) == 0.0 && running.get("/readyz?verbose").is_some_and(|(_, body)| body == "ok\n")
    });
    running.stop();
    println!(
        "{{\"scenario\":\"dead_letter_topic_that_takes_nothing\",\"seen_after_ms\":{},\"lost\":0}}",
        seen.as_millis()
    );
}

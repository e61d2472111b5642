//! What the Kubernetes manifests ask for, held against what their own configurations use with 1,000 rules.

use crate::kafka::Kafka;
use crate::ports::free_port;
use crate::process::{Running, Sluice};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const RULES: u64 = 1000;
/// How long is measured.
const WINDOW: Duration = Duration::from_secs(5);
const SIDECAR: (&str, &str) = (
    include_str!("../../config/kubernetes/sidecar/sluice.yaml"),
    include_str!("../../config/kubernetes/sidecar/producer.yaml"),
);
const PROCESSOR: (&str, &str) = (
    include_str!("../../config/kubernetes/base/sluice.yaml"),
    include_str!("../../config/kubernetes/base/deployment.yaml"),
);

/// An order of 900 bytes; one rule matches it.
fn order(id: u64) -> String {
    let fill = "0123456789".repeat(70);
    format!(
        "{{\"version\":\"0\",\"id\":\"{id}\",\"detail-type\":\"Order Notification\",\"source\":\"com.aws.orders\",\"account\":\"000000000000\",\
         \"time\":\"2024-01-31T09:00:00Z\",\"region\":\"us-east-1\",\"resources\":[],\"detail\":{}}}",
        detail(id, &fill)
    )
}

fn detail(id: u64, fill: &str) -> String {
    format!("{{\"orderId\":\"{id}\",\"location\":\"eu-{}\",\"value\":{id},\"note\":\"{fill}\"}}", id % RULES)
}

/// A manifest's configuration as it is, but for places, with rules of ours.
fn configuration(manifest: &str, kafka: &Kafka, listen: &str, queue: &str) -> String {
    kafka.topics(&[(queue, 1, &[])]);
    let mut text = manifest
        .replace("/var/lib/sluice", "data")
        .replace("${env:KAFKA_BROKERS}", &kafka.servers)
        .replace("127.0.0.1:4566", listen)
        .replace("orders.dlq", queue)
        .replace("orders.events", "size-in")
        .replace("0.0.0.0:4567", "{admin}");
    text.push_str("rules:\n");
    for n in 0..RULES {
        writeln!(
            text,
            "  r{n}: {{ bus: orders, pattern: {{ source: [com.aws.orders], detail: {{ location: [eu-{n}], value: [{{ numeric: [\">=\", 0] }}] }} }}, targets: [eu] }}"
        )
        .expect("a String takes everything");
    }
    text
}

/// The first `memory:` of a manifest, in bytes: what it requests.
fn requested(manifest: &str) -> f64 {
    let text = manifest.split("memory: ").nth(1).expect("a request");
    let mebibytes = text.split("Mi").next().expect("a number");
    mebibytes.parse::<f64>().expect("mebibytes") * 1048576.0
}

/// Measures a process at work and holds its memory against what its manifest requests.
fn measure(name: &str, running: &Running, manifest: &str) {
    let read = || {
        (
            running.metric("sluice_process_cpu_seconds", ""),
            running.metric("sluice_bus_events_total", "orders"),
            Instant::now(),
        )
    };
    let (begin, mut resident) = (read(), 0.0_f64);
    while begin.2.elapsed() < WINDOW {
        resident = resident.max(running.metric("sluice_process_resident_memory_bytes", ""));
        // Sampled, not waited for.
        std::thread::sleep(Duration::from_millis(100));
    }
    let end = read();
    let seconds = end.2.duration_since(begin.2).as_secs_f64();
    println!(
        "{{\"scenario\":\"size_{name}\",\"rules\":{RULES},\"events_per_second\":{:.0},\"cores\":{:.3},\"resident_mib\":{:.1}}}",
        (end.1 - begin.1) / seconds,
        (end.0 - begin.0) / seconds,
        resident / 1048576.0
    );
    // How many depends on the machine.
    assert!(end.1 - begin.1 > 50.0 * seconds, "events flow");
    assert!(resident <= requested(manifest), "{name} uses {resident} bytes");
}

/// Stops the producers, also where a check fails before their end: a scope waits for its threads.
struct Stops<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Up to five hundred orders a second from four of these over loopback, a request each.
fn produce(listen: &str, stop: &std::sync::atomic::AtomicBool) {
    let mut stream = TcpStream::connect(listen).expect("a connection");
    stream.set_nodelay(true).expect("a socket");
    let mut answers = BufReader::new(stream.try_clone().expect("a socket"));
    let (fill, begin, mut sent) = ("0123456789".repeat(70), Instant::now(), 0u64);
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        let due = begin + Duration::from_millis(8 * sent);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let body = detail(sent, &fill);
        write!(
            stream,
            "POST /events/orders HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nce-specversion: 1.0\r\n\
             ce-id: {sent}\r\nce-source: com.aws.orders\r\nce-type: Order Notification\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("a request");
        let (mut line, mut length) = (String::new(), 0);
        answers.read_line(&mut line).expect("a status");
        assert!(line.contains(" 200 "), "{line}");
        while line.trim_end() != "" {
            line.clear();
            answers.read_line(&mut line).expect("a header");
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
        }
        answers.read_exact(&mut vec![0; length]).expect("a body");
        sent += 1;
    }
}

pub fn sidecar(kafka: &Kafka) {
    let listen = format!("127.0.0.1:{}", free_port());
    let sluice = Sluice::new(&configuration(SIDECAR.0, kafka, &listen, "sidecar-dlq"));
    let mut running = sluice.start(&[]);
    running
        .until("it is ready", Duration::from_secs(30), |it| it.get("/readyz").is_some_and(|(s, _)| s.contains("200")));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stops = Stops(&stop);
        for _ in 0..4 {
            scope.spawn(|| produce(&listen, &stop));
        }
        running.until("it works", Duration::from_secs(30), |it| it.metric("sluice_bus_events_total", "orders") > 500.0);
        measure("sidecar", &running, SIDECAR.1);
    });
    running.stop();
}

pub fn processor(kafka: &Kafka) {
    kafka.topics(&[("size-in", 4, &[])]);
    let sender = kafka.producer();
    for id in 0..400_000 {
        sender.send("size-in", Some((id % 4) as i32), "k", order(id).as_bytes(), &[]);
    }
    sender.flush();
    let sluice = Sluice::new(&configuration(PROCESSOR.0, kafka, "", "processor-dlq"));
    let mut running = sluice.start(&[]);
    running.until("it works", Duration::from_secs(60), |it| it.metric("sluice_bus_events_total", "orders") > 5000.0);
    measure("processor", &running, PROCESSOR.1);
    running.kill();
}

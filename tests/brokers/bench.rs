//! `sluice bench` on real brokers: what it measures is whole, whatever the figures are.

use crate::kafka::Kafka;
use crate::nats::Nats;
use crate::process::program;
use serde_json::Value;
use std::process::Command;
use tempfile::TempDir;

/// Latency at small rates, through the report that `load/run` makes of it.
pub fn latency(kafka: &Kafka, nats: &Nats) {
    let folder = TempDir::new().expect("a folder");
    let status = Command::new("load/run")
        .args(["--counts", "", "--peers", "sluice", "--rates", "0,500", "--seconds", "2"])
        .args(["--brokers", &kafka.servers, "--nats", &nats.url, "--out"])
        .arg(folder.path())
        .env("SLUICE_BIN", program())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("load/run");
    assert!(status.success(), "load/run");
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("a report");
    let told: Value = serde_json::from_str(&read("report.json")).expect("JSON");
    let runs = told["latency"].as_array().expect("runs");
    let named: Vec<_> = runs.iter().map(|run| (run["broker"].as_str(), run["run"].as_str())).collect();
    let one = |broker| [(Some(broker), Some("sluice")), (Some(broker), Some("bare")), (Some(broker), Some("sluice"))];
    assert_eq!(named, [one("kafka"), one("nats")].concat());
    for run in runs {
        println!("{run}");
        check(run);
    }
    assert!(read("report.md").contains("| sluice | 500 |"), "{}", read("report.md"));
    assert_eq!(read("report.html").matches("<polyline").count(), 8, "four quantiles of two brokers");
}

/// Nothing is lost, and every event that came was measured.
fn check(run: &Value) {
    for name in ["lost", "wrong"] {
        assert_eq!(run[name], 0, "{name}: {run}");
    }
    let quantiles = ["p50", "p90", "p99", "p99.9", "max"].map(|name| run["latency_ms"][name].as_f64());
    if run["offered_per_second"] == 0 {
        assert_eq!(quantiles, [None; 5], "{run}");
    } else {
        // A tenth of two seconds to warm up and two that are measured.
        assert!((150..250).contains(&run["delivered"].as_u64().expect("a number")), "{run}");
        assert!(quantiles[0] > Some(0.0) && quantiles.is_sorted(), "{run}");
        assert!(run["achieved_per_second"].as_f64() > Some(50.0), "{run}");
    }
    if run["run"] == "sluice" {
        assert!(run["resident_mib"].as_f64() > Some(5.0) && run["cpu_percent"].as_f64() >= Some(0.0), "{run}");
    }
}

/// CPU per million events beside the bare loop.
pub fn pipeline(kafka: &Kafka, nats: &Nats) {
    for broker in [["--brokers", &kafka.servers], ["--nats", &nats.url]] {
        let done = Command::new(program())
            .args(["bench", "pipeline", "--events", "20000", "--rules", "1,1000", "--repeat", "2", "--json"])
            .args(broker)
            .output()
            .expect("sluice");
        assert!(done.status.success(), "{broker:?}: {}", String::from_utf8_lossy(&done.stderr));
        let lines = String::from_utf8(done.stdout).expect("text");
        let runs: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let named: Vec<_> = runs.iter().map(|run| run["run"].as_str().expect("a name")).collect();
        assert_eq!(named, ["bare loop", "sluice, 1 rules", "sluice, 1000 rules"]);
        for run in runs {
            println!("{broker:?} {run}");
            assert!(run["events_per_second"][1].as_f64() > Some(100.0), "{run}");
            assert!(run["cpu_seconds_per_million"][1].as_f64() > Some(0.0), "{run}");
        }
    }
}

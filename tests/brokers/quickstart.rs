//! The README's quickstart, on the broker of these tests.

use crate::blocks;
use crate::kafka::Kafka;
use std::path::Path;
use std::time::{Duration, Instant};

pub fn as_written(kafka: &Kafka) {
    let folder = tempfile::tempdir().expect("a folder");
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    std::os::unix::fs::symlink(tests, folder.path().join("tests")).expect("a link");
    let port = kafka.servers.rsplit(':').next().expect("a port").to_owned();
    let environment = [("KAFKA_BROKERS", kafka.servers.as_str()), ("SLUICE_KAFKA_PORT", port.as_str())];
    let mut background = Vec::new();
    for block in blocks::all().iter().filter(|block| block.is("kafka")) {
        for (command, shown) in block.commands() {
            let command = command.replace("localhost:9092", &kafka.servers);
            if block.is("background") {
                let child = blocks::shell(&format!("exec {command}"), folder.path(), &environment).spawn();
                background.push(Guard(child.expect("a process")));
                continue;
            }
            // The router works in the background: what is shown must come to be.
            let deadline = Instant::now() + Duration::from_secs(30);
            loop {
                let (printed, missing) = blocks::run(&command, folder.path(), &environment, &shown);
                let Some(missing) = missing else { break };
                assert!(Instant::now() < deadline, "`{command}` should print `{missing}`:\n{printed}");
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    }
}

/// Kills the process when the quickstart is over, however it ends.
struct Guard(std::process::Child);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

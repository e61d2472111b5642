//! `sluice bench archive`: what an archive costs, beside the same run without one.
//!
//! A process of its own reads events from a file and delivers each to a log group; then again with an archive on the bus.
//! It ends when everything is settled: an archived event is on the disk, synced, by then.

use super::bench_broker::Child;
use super::corpus::orders;
use super::output;
use crate::app::{Exit, Failed};
use crate::time;
use serde_json::json;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Duration;

/// How often it is looked whether the process has ended.
const LOOK: Duration = Duration::from_millis(5);
const SEED: u64 = 1;

/// What to measure.
#[derive(clap::Args)]
pub struct Archive {
    /// Events of a run
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    events: u64,
    /// Runs of each, in turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Archive {
    pub fn run(&self) -> Result<(), Failed> {
        let io = |error: std::io::Error| Failed::new(Exit::Io, format!("cannot write events: {error}"));
        let name = format!("sluice-bench-{}", std::process::id());
        let events = std::env::temp_dir().join(format!("{name}.jsonl"));
        let bytes = write(&events, self.events).map_err(io)?;
        let (mut without, mut with) = (Vec::new(), Vec::new());
        let mut measured = Ok(());
        for _ in 0..self.repeat {
            for (archives, seconds) in [("", &mut without), ("archives: { all: { bus: orders } }\n", &mut with)] {
                measured = measured.and_then(|()| one(&name, &events, archives).map(|took| seconds.push(took)));
            }
        }
        std::fs::remove_file(&events).map_err(io)?;
        measured?;
        let rate = |mut seconds: Vec<f64>| {
            seconds.sort_by(f64::total_cmp);
            self.events as f64 / seconds[seconds.len() / 2]
        };
        let (without, with) = (rate(without), rate(with));
        let line = match self.json {
            true => json!({
                "events": self.events, "bytes": bytes, "events_per_second": { "without": without, "with": with },
                "ratio": with / without,
            })
            .to_string(),
            false => format!(
                "{} events of {} bytes, each to a log group: {without:.0} events/s, with an archive {with:.0} events/s, {:.2} of it",
                self.events,
                bytes / self.events,
                with / without
            ),
        };
        writeln!(std::io::stdout(), "{line}").map_err(output)
    }
}

/// Writes the events, and says how many bytes they are.
fn write(path: &Path, count: u64) -> std::io::Result<u64> {
    let mut file = BufWriter::new(File::create(path)?);
    let mut bytes = 0;
    for number in 0..count {
        let event = orders::event(SEED, number, orders::SHOPS, 3);
        bytes += event.len() as u64 + 1;
        writeln!(file, "{event}")?;
    }
    file.flush()?;
    Ok(bytes)
}

/// Seconds from the start of a process to its end, when everything is settled.
fn one(name: &str, events: &Path, archives: &str) -> Result<f64, Failed> {
    let file = json!(events.display().to_string());
    let config = format!(
        "data_dir: data\nserver: {{ listen: \"off\", admin: \"off\" }}\ncatalog: files\nbuses: {{ orders: {{}} }}\n\
         sources: {{ in: {{ bus: orders, file: {{ path: {file} }} }} }}\ntargets: {{ log: {{ log: {{ group: all }} }} }}\n\
         rules: {{ all: {{ bus: orders, pattern: {{ source: [{{ exists: true }}] }}, targets: [log] }} }}\n{archives}"
    );
    let begin = time::now();
    let mut child = Child::start(name, &config)?;
    while !child.ended() {
        std::thread::sleep(LOOK);
    }
    Ok(begin.elapsed().as_secs_f64())
}

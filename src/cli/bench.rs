//! `sluice bench`: measurements that a README figure can name.

use super::bench_broker::{Broker, Brokers, Child, Pair, broken};
use super::corpus::slots;
use super::{Logging, bench_api, bench_archive, bench_bare, bench_latency, bench_match, output};
use crate::app::{Exit, Failed};
use crate::config::model::LogFormat;
use crate::metrics::Usage;
use crate::time;
use serde_json::json;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Measure
#[derive(clap::Subcommand)]
pub enum Bench {
    /// Broker to broker, a tenth of the events delivered, beside a bare consume-and-produce loop in the same run
    Pipeline(Pipeline),
    /// Latency, CPU and memory at offered rates, which nothing slows down, from the moments events were due
    Latency(bench_latency::Latency),
    /// Decode and match any rules and events, beside simd-json's tape of the same bytes in the same run
    Match(bench_match::Match),
    /// PutEvents over HTTP, and rules that callers make, with what this disk takes to sync in the same run
    Api(bench_api::Api),
    /// Events that go to an archive as well, beside the same run without one
    Archive(bench_archive::Archive),
}

/// What to measure.
#[derive(clap::Args)]
pub struct Pipeline {
    #[command(flatten)]
    brokers: Brokers,
    /// Events in the source topic
    #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(1..))]
    events: u64,
    /// Numbers of rules: 1, 100, 1000, 10000
    #[arg(long, value_delimiter = ',', default_value = "1,100,1000", value_parser = rules)]
    rules: Vec<u64>,
    /// Runs of each, in turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// A program to measure beside it, on Kafka: called with BROKERS FROM TO GROUP RULES EVENTS it sends what the rules (a
    /// file of JSON lines) match from one topic to the other, and commits in that group; may be repeated
    #[arg(long, value_name = "PROGRAM", conflicts_with = "nats")]
    peer: Vec<PathBuf>,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
}

/// One measured run.
#[derive(Clone, Copy)]
struct Run {
    seconds: f64,
    /// CPU seconds.
    cpu: f64,
    /// CPU seconds per million events in the second half, for a process that begins with the run.
    warm: Option<f64>,
    /// Bytes.
    resident: f64,
    /// Events that came to the target.
    delivered: u64,
}

/// What is measured, and its runs.
struct Subject<'a> {
    program: Program<'a>,
    rules: u64,
    runs: Vec<Run>,
}

#[derive(Clone, Copy)]
enum Program<'a> {
    /// It has no rules.
    Bare,
    Sluice,
    Peer(&'a Path),
}

impl Program<'_> {
    fn name(self) -> String {
        match self {
            Self::Bare => "bare loop".into(),
            Self::Sluice => "sluice".into(),
            Self::Peer(path) => path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
        }
    }
}

impl Subject<'_> {
    fn name(&self) -> String {
        match self.program {
            Program::Bare => self.program.name(),
            _ => format!("{}, {} rules", self.program.name(), self.rules),
        }
    }

    /// The least, the median and the most of a figure.
    fn spread(&self, figure: impl Fn(&Run) -> f64) -> [f64; 3] {
        let mut values: Vec<f64> = self.runs.iter().map(figure).collect();
        values.sort_by(f64::total_cmp);
        [values[0], values[values.len() / 2], values[values.len() - 1]]
    }

    /// The median of the second halves, where every run had one.
    fn warm(&self) -> Option<f64> {
        let mut values: Vec<f64> = self.runs.iter().map(|run| run.warm).collect::<Option<_>>()?;
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }
}

impl Bench {
    pub fn run(self, logging: &Logging) -> Result<(), Failed> {
        logging.start("warn", LogFormat::Text)?;
        match self {
            Self::Pipeline(pipeline) => pipeline.run(),
            Self::Latency(latency) => latency.run(),
            Self::Match(bench) => bench.run(),
            Self::Api(bench) => bench.run(),
            Self::Archive(archive) => archive.run(),
        }
    }
}

/// A number of rules that there are events for.
pub fn rules(text: &str) -> Result<u64, String> {
    let known = text.parse().ok().filter(|number| slots::SIZES.contains(number));
    known.ok_or_else(|| format!("there are sets of {} rules", slots::SIZES.map(|size| size.to_string()).join(", ")))
}

impl Pipeline {
    fn run(&self) -> Result<(), Failed> {
        let broker = self.brokers.open()?;
        let pair = broker.pair()?;
        let subjects = self.measure(&broker, &pair);
        broker.remove(&pair);
        let subjects = subjects?;
        self.report(&broker, &subjects)?;
        self.agree(&subjects)
    }

    fn measure(&self, broker: &Broker, pair: &Pair) -> Result<Vec<Subject<'_>>, Failed> {
        let mut out = broker.out(&pair.from, "20")?;
        for number in 0..self.events {
            out.send(Some(&number.to_string()), slots::event(number).as_bytes())
                .map_err(|error| broken("cannot fill the source", error))?;
        }
        if out.finish() != self.events {
            return Err(broken("cannot fill the source", "not all events were acknowledged"));
        }
        let subject = |program, rules| Subject { program, rules, runs: Vec::new() };
        let mut subjects = vec![subject(Program::Bare, 0)];
        for program in std::iter::once(Program::Sluice).chain(self.peer.iter().map(|path| Program::Peer(path))) {
            subjects.extend(self.rules.iter().map(|&rules| subject(program, rules)));
        }
        for _ in 0..self.repeat {
            for subject in &mut subjects {
                let before = broker.held(&pair.to)?;
                let mut run = match subject.program {
                    Program::Bare => self.bare(broker, pair)?,
                    program => self.child(broker, pair, program, subject.rules)?,
                };
                run.delivered = broker.held(&pair.to)? - before;
                subject.runs.push(run);
            }
        }
        Ok(subjects)
    }

    /// Consume everything, produce a tenth: what any such program has to do.
    fn bare(&self, broker: &Broker, pair: &Pair) -> Result<Run, Failed> {
        let (begin, before) = (time::now(), Usage::read());
        match broker {
            Broker::Kafka { client, .. } => bench_bare::kafka(client, pair, self.events)?,
            Broker::Nats(nats) => bench_bare::nats(nats, pair, self.events)?,
        }
        let after = Usage::read();
        Ok(Run {
            seconds: begin.elapsed().as_secs_f64(),
            cpu: after.cpu_seconds - before.cpu_seconds,
            warm: None,
            resident: after.resident_bytes,
            delivered: 0,
        })
    }

    /// A process of its own, from its start until everything is committed.
    fn child(&self, broker: &Broker, pair: &Pair, program: Program<'_>, rules: u64) -> Result<Run, Failed> {
        let group = format!("{}-{}", pair.from, time::wall_millis());
        let begin = time::now();
        let mut child = match program {
            Program::Peer(path) => broker.peer(path, pair, &group, rules, self.events)?,
            Program::Bare | Program::Sluice => Child::start(&group, &broker.configuration(pair, &group, rules, 1))?,
        };
        let deadline = begin + Duration::from_secs(300);
        let (settled, half) = broker.until_settled(&pair.from, &group, self.events, &mut child, deadline)?;
        let seconds = begin.elapsed().as_secs_f64();
        let usage = child.usage();
        let rest = self.events - settled;
        let warm = (rest > 0).then(|| (usage.cpu_seconds - half.cpu_seconds) / (rest as f64 / 1e6));
        Ok(Run { seconds, cpu: usage.cpu_seconds, warm, resident: usage.resident_bytes, delivered: 0 })
    }

    fn report(&self, broker: &Broker, subjects: &[Subject<'_>]) -> Result<(), Failed> {
        let mut out = std::io::stdout().lock();
        let million = self.events as f64 / 1e6;
        if !self.json {
            writeln!(
                out,
                "{:<26} {:>24} {:>12} {:>30} {:>8} {:>12} {:>10}",
                "", "CPU s per million events", "second half", "events/s", "RSS MiB", "x bare loop", "delivered"
            )
            .map_err(output)?;
            writeln!(out, "{:<26} {:>24} {:>12} {:>30}", "", "min / median / max", "median", "min / median / max")
                .map_err(output)?;
        }
        let bare = subjects[0].spread(|run| run.cpu / million)[1];
        for subject in subjects {
            let cpu = subject.spread(|run| run.cpu / million);
            let rate = subject.spread(|run| self.events as f64 / run.seconds);
            let resident = subject.spread(|run| run.resident / 1048576.0);
            let delivered: Vec<u64> = subject.runs.iter().map(|run| run.delivered).collect();
            let line = match self.json {
                true => json!({
                    "broker": broker.name(), "run": subject.name(), "program": subject.program.name(), "rules": subject.rules,
                    "events": self.events, "cpu_seconds_per_million": cpu, "warm_cpu_seconds_per_million": subject.warm(),
                    "events_per_second": rate, "resident_mib": resident, "times_bare": cpu[1] / bare, "delivered": delivered,
                })
                .to_string(),
                false => format!(
                    "{:<26} {:>24} {:>12} {:>30} {:>8.0} {:>12.2} {:>10}",
                    subject.name(),
                    format!("{:.2} / {:.2} / {:.2}", cpu[0], cpu[1], cpu[2]),
                    subject.warm().map(|warm| format!("{warm:.2}")).unwrap_or_default(),
                    format!("{:.0} / {:.0} / {:.0}", rate[0], rate[1], rate[2]),
                    resident[1],
                    cpu[1] / bare,
                    delivered[0],
                ),
            };
            writeln!(out, "{line}").map_err(output)?;
        }
        Ok(())
    }

    /// Every run must deliver each event that a rule matches, once.
    fn agree(&self, subjects: &[Subject<'_>]) -> Result<(), Failed> {
        let wanted = (0..self.events).filter(|&number| slots::matched(number, 1)).count() as u64;
        let wrong: Vec<String> = subjects
            .iter()
            .flat_map(|subject| subject.runs.iter().map(|run| (subject.name(), run.delivered)))
            .filter(|(_, delivered)| *delivered != wanted)
            .map(|(name, delivered)| format!("{name}: {delivered}"))
            .collect();
        match wrong.is_empty() {
            true => Ok(()),
            false => {
                Err(Failed::new(Exit::No, format!("rules match {wanted} events; delivered: {}", wrong.join("; "))))
            }
        }
    }
}

//! `sluice bench`: measurements that a README figure can name.

use super::bench_broker::{Broker, Brokers, Child, Pair, broken};
use super::corpus::slots;
use super::{Logging, bench_bare, bench_latency, bench_match, output};
use crate::app::Failed;
use crate::config::model::LogFormat;
use crate::metrics::Usage;
use crate::time;
use serde_json::json;
use std::io::Write as _;
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
}

/// What to measure.
#[derive(clap::Args)]
pub struct Pipeline {
    #[command(flatten)]
    brokers: Brokers,
    /// Events in the source topic
    #[arg(long, default_value_t = 500_000)]
    events: u64,
    /// Numbers of rules: 1, 100, 1000, 10000
    #[arg(long, value_delimiter = ',', default_value = "1,100,1000", value_parser = rules)]
    rules: Vec<u64>,
    /// Runs of each, in turn
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
}

/// One measured run.
#[derive(Clone, Copy)]
struct Run {
    seconds: f64,
    cpu: f64,
    resident: f64,
}

impl Bench {
    pub fn run(self, logging: &Logging) -> Result<(), Failed> {
        logging.start("warn", LogFormat::Text)?;
        match self {
            Self::Pipeline(pipeline) => pipeline.run(),
            Self::Latency(latency) => latency.run(),
            Self::Match(bench) => bench.run(),
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
        let runs = self.measure(&broker, &pair);
        broker.remove(&pair);
        self.report(&runs?)
    }

    fn measure(&self, broker: &Broker, pair: &Pair) -> Result<Vec<(String, Vec<Run>)>, Failed> {
        let mut out = broker.out(&pair.from, "20")?;
        for number in 0..self.events {
            out.send(Some(&number.to_string()), slots::event(number).as_bytes())
                .map_err(|error| broken("cannot fill the source", error))?;
        }
        if out.finish() != self.events {
            return Err(broken("cannot fill the source", "not all events were acknowledged"));
        }
        let mut runs: Vec<(String, Vec<Run>)> = vec![("bare loop".into(), Vec::new())];
        runs.extend(self.rules.iter().map(|rules| (format!("sluice, {rules} rules"), Vec::new())));
        for _ in 0..self.repeat {
            runs[0].1.push(self.bare(broker, pair)?);
            for (n, &rules) in self.rules.iter().enumerate() {
                runs[n + 1].1.push(self.sluice(broker, pair, rules)?);
            }
        }
        Ok(runs)
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
            resident: after.resident_bytes,
        })
    }

    /// A `sluice run` of its own, from its start until everything is committed.
    fn sluice(&self, broker: &Broker, pair: &Pair, rules: u64) -> Result<Run, Failed> {
        let group = format!("{}-{}", pair.from, time::wall_millis());
        let configuration = broker.configuration(pair, &group, rules, 1);
        let begin = time::now();
        let child = Child::start(&group, &configuration)?;
        broker.until_settled(&pair.from, &group, self.events, begin + Duration::from_secs(300))?;
        let usage = child.usage();
        Ok(Run { seconds: begin.elapsed().as_secs_f64(), cpu: usage.cpu_seconds, resident: usage.resident_bytes })
    }

    fn report(&self, runs: &[(String, Vec<Run>)]) -> Result<(), Failed> {
        let mut out = std::io::stdout().lock();
        let million = self.events as f64 / 1e6;
        let spread = |values: Vec<f64>| {
            let mut values = values;
            values.sort_by(f64::total_cmp);
            [values[0], values[values.len() / 2], values[values.len() - 1]]
        };
        if !self.json {
            writeln!(
                out,
                "{:<20} {:>30} {:>30} {:>10} {:>12}",
                "", "CPU s per million events", "events/s", "RSS MiB", "x bare loop"
            )
            .map_err(output)?;
            writeln!(out, "{:<20} {:>30} {:>30}", "", "min / median / max", "min / median / max").map_err(output)?;
        }
        let bare = spread(runs[0].1.iter().map(|run| run.cpu / million).collect())[1];
        for (name, runs) in runs {
            let cpu = spread(runs.iter().map(|run| run.cpu / million).collect());
            let rate = spread(runs.iter().map(|run| self.events as f64 / run.seconds).collect());
            let resident = spread(runs.iter().map(|run| run.resident / 1048576.0).collect());
            let line = match self.json {
                true => json!({
                    "run": name, "events": self.events, "cpu_seconds_per_million": cpu, "events_per_second": rate,
                    "resident_mib": resident, "times_bare": cpu[1] / bare,
                })
                .to_string(),
                false => format!(
                    "{name:<20} {:>30} {:>30} {:>10.0} {:>12.2}",
                    format!("{:.2} / {:.2} / {:.2}", cpu[0], cpu[1], cpu[2]),
                    format!("{:.0} / {:.0} / {:.0}", rate[0], rate[1], rate[2]),
                    resident[1],
                    cpu[1] / bare,
                ),
            };
            writeln!(out, "{line}").map_err(output)?;
        }
        Ok(())
    }
}

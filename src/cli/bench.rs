//! `sluice bench`: measurements that a README figure can name.

use super::corpus::slots;
use super::{Logging, bench_match, output};
use crate::app::{Exit, Failed};
use crate::config::check::clients;
use crate::config::model::LogFormat;
use crate::kafka::{Cluster, client_config};
use crate::metrics::Usage;
use crate::time;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Message, Offset, TopicPartitionList};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};

/// Measure
#[derive(clap::Subcommand)]
pub enum Bench {
    /// Kafka to Kafka, a tenth of the events delivered, beside a bare consume-and-produce loop in the same run
    Pipeline(Pipeline),
    /// Decode and match any rules and events, beside simd-json's tape of the same bytes in the same run
    Match(bench_match::Match),
}

/// What to measure.
#[derive(clap::Args)]
pub struct Pipeline {
    /// Brokers
    #[arg(long, env = "SLUICE_BROKERS", default_value = "localhost:9092")]
    brokers: String,
    /// Events in the source topic
    #[arg(long, default_value_t = 500_000)]
    events: u64,
    /// Numbers of rules: 1, 100, 1000, 10000
    #[arg(long, value_delimiter = ',', default_value = "1,100,1000")]
    rules: Vec<u64>,
    /// Runs of each, in turn
    #[arg(long, default_value_t = 3)]
    repeat: usize,
    /// Print JSON lines
    #[arg(long)]
    json: bool,
}

const PARTITIONS: i32 = 4;
const PATIENCE: Duration = Duration::from_secs(10);

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
            Self::Match(bench) => bench.run(),
        }
    }
}

fn broken(what: &str, error: impl std::fmt::Display) -> Failed {
    Failed::new(Exit::Unreachable, format!("{what}: {error}"))
}

impl Pipeline {
    fn run(&self) -> Result<(), Failed> {
        let client = clients::kafka(&self.brokers, None, None, &BTreeMap::new());
        let cluster = Cluster::new(&client)?;
        let mark = time::wall_millis();
        let (from, to) = (format!("sluice-bench-{mark}"), format!("sluice-bench-{mark}-out"));
        cluster.create(&from, PARTITIONS, Some(1))?;
        cluster.create(&to, PARTITIONS, Some(1))?;
        self.fill(&client, &from)?;
        let mut runs: Vec<(String, Vec<Run>)> = vec![("bare loop".into(), Vec::new())];
        runs.extend(self.rules.iter().map(|rules| (format!("sluice, {rules} rules"), Vec::new())));
        for _ in 0..self.repeat {
            runs[0].1.push(self.bare(&client, &from, &to)?);
            for (n, &rules) in self.rules.iter().enumerate() {
                runs[n + 1].1.push(self.sluice(&from, &to, rules)?);
            }
        }
        self.report(&runs)
    }

    fn fill(&self, client: &BTreeMap<String, String>, topic: &str) -> Result<(), Failed> {
        let mut config = client_config(client);
        config.set("linger.ms", "20").set("compression.type", "lz4").set("enable.idempotence", "true");
        let producer: BaseProducer = config.create().map_err(|error| broken("cannot make a producer", error))?;
        for number in 0..self.events {
            send(&producer, topic, &number.to_string(), slots::event(number).as_bytes())?;
        }
        producer.flush(Duration::from_secs(60)).map_err(|error| broken("cannot fill the source topic", error))
    }

    /// Consume everything, produce a tenth: what any such program has to do.
    fn bare(&self, client: &BTreeMap<String, String>, from: &str, to: &str) -> Result<Run, Failed> {
        let (begin, before) = (time::now(), Usage::read());
        let mut config = client_config(client);
        config
            .set("group.id", "sluice-bench-bare")
            .set("enable.auto.commit", "false")
            .set("fetch.queue.backoff.ms", "2")
            .set("queued.max.messages.kbytes", "8192")
            .set("linger.ms", "5")
            .set("compression.type", "lz4");
        let consumer: BaseConsumer = config.create().map_err(|error| broken("cannot make a consumer", error))?;
        let producer: BaseProducer = config.create().map_err(|error| broken("cannot make a producer", error))?;
        let mut list = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            list.add_partition_offset(from, partition, Offset::Beginning)
                .map_err(|error| broken("cannot assign", error))?;
        }
        consumer.assign(&list).map_err(|error| broken("cannot assign", error))?;
        let mut count = 0;
        while count < self.events {
            let message = match consumer.poll(PATIENCE) {
                Some(Ok(message)) => message,
                Some(Err(error)) => return Err(broken("cannot consume", error)),
                None => return Err(broken("cannot consume", "no record in time")),
            };
            count += 1;
            if message.offset() % 10 == 0 {
                let key = String::from_utf8_lossy(message.key().unwrap_or_default());
                send(&producer, to, &key, message.payload().unwrap_or_default())?;
            }
        }
        producer.flush(Duration::from_secs(60)).map_err(|error| broken("cannot produce", error))?;
        let after = Usage::read();
        Ok(Run {
            seconds: begin.elapsed().as_secs_f64(),
            cpu: after.cpu_seconds - before.cpu_seconds,
            resident: after.resident_bytes,
        })
    }

    /// A `sluice run` of its own, from its start until everything is committed.
    fn sluice(&self, from: &str, to: &str, rules: u64) -> Result<Run, Failed> {
        let io = |error: std::io::Error| Failed::new(Exit::Io, format!("cannot run sluice: {error}"));
        let group = format!("sluice-bench-{}", time::wall_millis());
        let folder = std::env::temp_dir().join(&group);
        std::fs::create_dir_all(&folder).map_err(io)?;
        std::fs::write(folder.join("sluice.yaml"), self.config(from, to, &group, rules)).map_err(io)?;
        let begin = time::now();
        let mut child = std::process::Command::new(std::env::current_exe().map_err(io)?)
            .args(["run", "--no-watch", "--log-level", "warn", "-c", "sluice.yaml"])
            .current_dir(&folder)
            .spawn()
            .map_err(io)?;
        let done = self.until_committed(from, &group, begin + Duration::from_secs(300));
        let usage = Usage::of(&child.id().to_string());
        let seconds = begin.elapsed().as_secs_f64();
        child.kill().and_then(|()| child.wait()).map_err(io)?;
        std::fs::remove_dir_all(&folder).map_err(io)?;
        done?;
        Ok(Run { seconds, cpu: usage.cpu_seconds, resident: usage.resident_bytes })
    }

    fn config(&self, from: &str, to: &str, group: &str, rules: u64) -> String {
        let brokers = &self.brokers;
        let mut text = format!(
            "server: {{ listen: \"off\", admin: \"off\" }}\nsources:\n  in: {{ kafka: {{ brokers: \"{brokers}\", topics: [{from}], group: {group} }} }}\n\
             targets:\n  out: {{ kafka: {{ brokers: \"{brokers}\", topic: {to} }} }}\nrules:\n"
        );
        for number in 0..rules {
            let pattern = slots::pattern(number, rules);
            let written = writeln!(text, "  r{number}: {{ pattern: '{pattern}', targets: [out] }}");
            debug_assert!(written.is_ok(), "a String takes everything");
        }
        text
    }

    fn until_committed(&self, topic: &str, group: &str, deadline: Instant) -> Result<(), Failed> {
        let client = clients::kafka(&self.brokers, None, None, &BTreeMap::new());
        let mut config = client_config(&client);
        let consumer: BaseConsumer =
            config.set("group.id", group).create().map_err(|error| broken("cannot make a consumer", error))?;
        let mut list = TopicPartitionList::new();
        list.add_partition_range(topic, 0, PARTITIONS - 1);
        loop {
            let committed =
                consumer.committed_offsets(list.clone(), PATIENCE).map_err(|error| broken("no offsets", error))?;
            let offset = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match element.offset() {
                Offset::Offset(offset) => u64::try_from(offset).unwrap_or(0),
                _ => 0,
            };
            if committed.elements().iter().map(offset).sum::<u64>() >= self.events {
                return Ok(());
            }
            if time::now() > deadline {
                return Err(broken("sluice is not done", "five minutes have passed"));
            }
            // Asks again soon; each question costs the broker little.
            std::thread::sleep(Duration::from_millis(20));
        }
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

/// Produces, waiting for room.
fn send(producer: &BaseProducer, topic: &str, key: &str, payload: &[u8]) -> Result<(), Failed> {
    loop {
        match producer.send(BaseRecord::<str, [u8]>::to(topic).key(key).payload(payload)) {
            Ok(()) => {
                producer.poll(Duration::ZERO);
                return Ok(());
            }
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                producer.poll(Duration::from_millis(5));
            }
            Err((error, _)) => return Err(broken("cannot produce", error)),
        }
    }
}

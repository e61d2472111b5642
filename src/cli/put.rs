//! `sluice put`: send events to a Kafka topic or a NATS subject, from arguments, files, standard input, or the generator.

use super::Logging;
use super::orders::Order;
use super::publish::{Out, Subject, Topic};
use crate::app::{Exit, Failed};
use crate::config::{self, Outside, check::clients, model::LogFormat};
use crate::event::Tree;
use crate::kafka::Cluster;
use crate::time;
use crate::transform::JsonPath;
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Send events to a topic or a subject
#[derive(clap::Args)]
pub struct Put {
    /// Events, each a JSON object; without any, and without --file and --generate, standard input is read
    events: Vec<String>,
    /// Brokers, as in localhost:9092
    #[arg(long, env = "SLUICE_BROKERS", required_unless_present_any = ["config", "nats"])]
    brokers: Option<String>,
    /// Topic
    #[arg(long, env = "SLUICE_TOPIC", required_unless_present_any = ["config", "nats"])]
    topic: Option<String>,
    /// NATS servers, as in nats://localhost:4222
    #[arg(long, env = "SLUICE_NATS", requires = "subject", conflicts_with_all = ["brokers", "topic", "config"])]
    nats: Option<String>,
    /// Subject; where a stream keeps it, its acknowledgements are waited for
    #[arg(long, env = "SLUICE_SUBJECT")]
    subject: Option<String>,
    /// Take brokers, topic and credentials from a Kafka source of this configuration
    #[arg(short, long, env = "SLUICE_CONFIG", value_delimiter = ':')]
    config: Vec<PathBuf>,
    /// Which source, when the configuration has several
    #[arg(long)]
    source: Option<String>,
    /// File of JSON lines, `-` for standard input; may be repeated
    #[arg(short, long)]
    file: Vec<PathBuf>,
    /// Make this many orders, like those of the demo
    #[arg(long, conflicts_with_all = ["file", "events"])]
    generate: Option<u64>,
    /// Events a second at most
    #[arg(long)]
    rate: Option<u32>,
    /// Record key: a path into the event, as $.detail.orderId
    #[arg(long)]
    key: Option<String>,
    /// Send lines as they are, also those that are no JSON objects
    #[arg(long)]
    raw: bool,
}

type Lines = Box<dyn Iterator<Item = Result<Vec<u8>, Failed>>>;

impl Put {
    pub fn run(self, logging: &Logging) -> Result<(), Failed> {
        logging.start("warn", LogFormat::Text)?;
        let key = self.key.as_deref().map(JsonPath::parse).transpose();
        let key = key.map_err(|message| Failed::new(Exit::Config, message))?;
        let (name, out) = self.out()?;
        let (lines, total) = self.lines()?;
        let mut sender = Sender { out, name, key, rate: self.rate, raw: self.raw, begin: time::now(), sent: 0 };
        let bar = total.filter(|&total| total > 10_000).map_or_else(ProgressBar::hidden, ProgressBar::new);
        let style = "{bar:40} {pos}/{len} events  {per_sec}  {eta} left";
        bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
        let mut stopped = Ok(());
        for line in lines {
            stopped = line.and_then(|line| sender.send(&line));
            if stopped.is_err() {
                break;
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        // What was sent before a bad event is on its way all the same.
        sender.finish().and(stopped)
    }

    /// The topic or subject, and the way there.
    fn out(&self) -> Result<(String, Out), Failed> {
        if let (Some(servers), Some(subject)) = (&self.nats, &self.subject) {
            let client = clients::nats(servers, None, None)
                .map_err(|fault| Failed::new(Exit::Config, format!("{}; {}", fault.message, fault.help)))?;
            return Ok((subject.clone(), Out::Nats(Box::new(Subject::new(&client, subject)?))));
        }
        let (client, topic) = self.destination()?;
        if Cluster::new(&client)?.partitions(&topic)?.is_none() {
            let message = format!("topic {topic} does not exist; create it first");
            return Err(Failed::new(Exit::Config, message));
        }
        let out = Topic::new(&client, &topic, "5")?;
        Ok((topic, Out::Kafka(out)))
    }

    fn destination(&self) -> Result<(BTreeMap<String, String>, String), Failed> {
        if let (Some(brokers), Some(topic)) = (&self.brokers, &self.topic) {
            return Ok((clients::kafka(brokers, None, None, &BTreeMap::new()), topic.clone()));
        }
        let loaded = config::load(&self.config, &Outside::default())
            .map_err(|problems| Failed::new(Exit::Config, problems.to_string()))?;
        let mut sources =
            loaded.config.sources.iter().filter_map(|(name, source)| Some((name, source.kafka.as_ref()?)));
        let wanted = |(name, _): &(&String, _)| self.source.as_ref().is_none_or(|wanted| wanted == *name);
        let Some((_, kafka)) = sources.find(wanted) else {
            return Err(Failed::new(
                Exit::Config,
                "the configuration has no such Kafka source; use --brokers and --topic",
            ));
        };
        let client = clients::kafka(&kafka.brokers, kafka.sasl.as_ref(), kafka.tls.as_ref(), &kafka.properties);
        let first = kafka.topics.first().cloned().unwrap_or_default();
        Ok((client, self.topic.clone().unwrap_or(first)))
    }

    /// The events, and how many where that is known.
    fn lines(&self) -> Result<(Lines, Option<u64>), Failed> {
        if let Some(count) = self.generate {
            let orders = (0..count).map(|number| Ok(Order::new(number).event(time::wall_millis()).into_bytes()));
            return Ok((Box::new(orders), Some(count)));
        }
        if !self.events.is_empty() {
            let events: Vec<_> = self.events.iter().map(|event| Ok(event.clone().into_bytes())).collect();
            let count = events.len() as u64;
            return Ok((Box::new(events.into_iter()), Some(count)));
        }
        let files = if self.file.is_empty() { vec![PathBuf::from("-")] } else { self.file.clone() };
        let mut lines: Lines = Box::new(std::iter::empty());
        for path in files {
            let shown = path.display().to_string();
            let input: Box<dyn Read> = match shown.as_str() {
                "-" => Box::new(std::io::stdin()),
                _ => Box::new(
                    std::fs::File::open(&path)
                        .map_err(|error| Failed::new(Exit::Io, format!("cannot read {shown}: {error}")))?,
                ),
            };
            let split = BufReader::new(input)
                .split(b'\n')
                .map(move |line| line.map_err(|error| Failed::new(Exit::Io, format!("cannot read {shown}: {error}"))));
            let full = split.filter(|line| line.as_ref().map_or(true, |line| !line.trim_ascii().is_empty()));
            lines = Box::new(lines.chain(full));
        }
        Ok((lines, None))
    }
}

struct Sender {
    out: Out,
    /// What the events go to.
    name: String,
    key: Option<JsonPath>,
    rate: Option<u32>,
    raw: bool,
    begin: Instant,
    sent: u64,
}

impl Sender {
    fn send(&mut self, line: &[u8]) -> Result<(), Failed> {
        let line = line.trim_ascii();
        let mut key = None;
        if !self.raw {
            let tree = Tree::parse(line).map_err(|fault| {
                let message = format!("event {} is not valid: {fault}; --raw sends it all the same", self.sent + 1);
                Failed::new(Exit::Config, message)
            })?;
            key = self.key.as_ref().and_then(|path| path.select(tree.root()).text());
        }
        if let Some(rate) = self.rate {
            let due = self.begin + Duration::from_secs_f64(self.sent as f64 / f64::from(rate.max(1)));
            std::thread::sleep(due.saturating_duration_since(time::now()));
        }
        self.out.send(key.as_deref(), line).map_err(|error| {
            Failed::new(Exit::Unreachable, format!("event {} was not taken: {error}", self.sent + 1))
        })?;
        self.sent += 1;
        Ok(())
    }

    fn finish(self) -> Result<(), Failed> {
        let delivered = self.out.finish();
        if delivered != self.sent {
            let message = format!("{delivered} of {} events were acknowledged by the broker", self.sent);
            return Err(Failed::new(Exit::Unreachable, message));
        }
        println!("{delivered} events sent to {}", self.name);
        Ok(())
    }
}

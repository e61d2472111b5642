//! What `sluice bench` measures against: a pair of topics or streams on a real broker, and a `sluice run` between them.

use super::corpus::slots;
use super::publish::{Out, Subject, Topic};
use crate::app::{Exit, Failed};
use crate::catalog::NatsClient;
use crate::config::check::clients;
use crate::kafka::{Cluster, client_config};
use crate::metrics::Usage;
use crate::{nats, time};
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::{self, stream};
use futures_util::StreamExt;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message, Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Partitions of a topic.
pub const PARTITIONS: i32 = 4;
/// How long a broker may take for anything.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The file of a peer's rules.
const RULES: &str = "rules.jsonl";

/// Where to measure.
#[derive(clap::Args)]
pub struct Brokers {
    /// Kafka brokers
    #[arg(long, env = "SLUICE_BROKERS", default_value = "localhost:9092")]
    brokers: String,
    /// Measure on this NATS server with JetStream instead, as in nats://localhost:4222
    #[arg(long, env = "SLUICE_NATS")]
    nats: Option<String>,
}

/// A broker.
pub enum Broker {
    Kafka { servers: String, client: BTreeMap<String, String> },
    Nats(Box<Nats>),
}

/// A connection to a NATS server.
pub struct Nats {
    servers: String,
    client: NatsClient,
    pub runtime: Runtime,
    pub context: jetstream::Context,
}

/// Topics, or streams with one subject of the same name each; new ones.
pub struct Pair {
    pub from: String,
    pub to: String,
}

/// A broker's answer that makes measuring impossible.
pub fn broken(what: &str, error: impl std::fmt::Display) -> Failed {
    Failed::new(Exit::Unreachable, format!("{what}: {error}"))
}

impl Brokers {
    /// Connects.
    pub fn open(&self) -> Result<Broker, Failed> {
        let Some(servers) = &self.nats else {
            let client = clients::kafka(&self.brokers, None, None, &BTreeMap::new());
            return Ok(Broker::Kafka { servers: self.brokers.clone(), client });
        };
        let client = clients::nats(servers, None, None)
            .map_err(|fault| Failed::new(Exit::Config, format!("{}; {}", fault.message, fault.help)))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|error| Failed::new(Exit::Io, format!("cannot start the network threads: {error}")))?;
        let connection = runtime.block_on(nats::connect(&client, |_| {}))?;
        let inside = runtime.enter();
        let context = jetstream::new(connection);
        drop(inside);
        Ok(Broker::Nats(Box::new(Nats { servers: servers.clone(), client, runtime, context })))
    }
}

impl Broker {
    /// `kafka` or `nats`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Kafka { .. } => "kafka",
            Self::Nats(_) => "nats",
        }
    }

    /// Makes a pair of its own.
    pub fn pair(&self) -> Result<Pair, Failed> {
        let from = format!("sluice-bench-{}-{}", std::process::id(), time::wall_millis());
        let pair = Pair { to: format!("{from}-out"), from };
        for name in [&pair.from, &pair.to] {
            match self {
                Self::Kafka { client, .. } => Cluster::new(client)?.create(name, PARTITIONS, Some(1), &[])?,
                Self::Nats(nats) => {
                    let config = stream::Config {
                        name: name.clone(),
                        subjects: vec![name.clone()],
                        ..stream::Config::default()
                    };
                    let made = nats.runtime.block_on(nats.context.create_stream(config));
                    drop(made.map_err(|error| broken("cannot make a stream", nats::causes(&error)))?);
                }
            }
        }
        Ok(pair)
    }

    /// Removes a pair and what it holds. What cannot be removed is named.
    pub fn remove(&self, pair: &Pair) {
        for name in [&pair.from, &pair.to] {
            let gone = match self {
                Self::Kafka { client, .. } => {
                    Cluster::new(client).and_then(|cluster| cluster.delete(name)).map_err(|error| error.to_string())
                }
                Self::Nats(nats) => {
                    let gone = nats.runtime.block_on(nats.context.delete_stream(name));
                    gone.map(drop).map_err(|error| nats::causes(&error))
                }
            };
            if let Err(why) = gone {
                tracing::warn!("{name} is left over: {why}");
            }
        }
    }

    /// A way into a topic or stream. `linger` is how many milliseconds a Kafka producer waits for company.
    pub fn out(&self, name: &str, linger: &str) -> Result<Out, Failed> {
        Ok(match self {
            Self::Kafka { client, .. } => Out::Kafka(Topic::new(client, name, linger)?),
            Self::Nats(nats) => Out::Nats(Box::new(Subject::new(&nats.client, name)?)),
        })
    }

    /// Everything in a topic or stream, and what comes.
    pub fn reader(&self, name: &str) -> Result<Reader<'_>, Failed> {
        match self {
            Self::Kafka { client, .. } => {
                let mut config = client_config(client);
                config.set("group.id", "sluice-bench").set("enable.auto.commit", "false");
                config.set("fetch.queue.backoff.ms", "2");
                assigned(&config, name).map(Reader::Kafka)
            }
            Self::Nats(nats) => {
                let config = pull::Config { ack_policy: AckPolicy::None, ..pull::Config::default() };
                let messages = nats.runtime.block_on(async {
                    let consumer = nats.context.create_consumer_on_stream(config, name).await;
                    let consumer = consumer.map_err(|error| nats::causes(&error))?;
                    consumer.messages().await.map_err(|error| nats::causes(&error))
                });
                let messages = messages.map_err(|error| broken("cannot make a consumer", error))?;
                Ok(Reader::Nats(&nats.runtime, Box::new(messages)))
            }
        }
    }

    /// The configuration of a `sluice run` between the two, whose rules take so many tenths of the events.
    pub fn configuration(&self, pair: &Pair, group: &str, rules: u64, tenths: u64) -> String {
        let Pair { from, to } = pair;
        let (source, target) = match self {
            Self::Kafka { servers, .. } => (
                format!("kafka: {{ brokers: \"{servers}\", topics: [{from}], group: {group} }}"),
                format!("kafka: {{ brokers: \"{servers}\", topic: {to} }}"),
            ),
            Self::Nats(nats) => (
                format!("nats: {{ servers: \"{}\", stream: {from}, durable: {group} }}", nats.servers),
                format!("nats: {{ servers: \"{}\", subject: {to}, jetstream: true }}", nats.servers),
            ),
        };
        // Named by the run, delivery ids differ between runs: a stream drops what it has had.
        let mut text = format!(
            "server: {{ listen: \"off\", admin: \"off\" }}\nsources:\n  {group}: {{ {source} }}\ntargets:\n  out: {{ {target} }}\nrules:\n"
        );
        for number in 0..rules {
            let pattern = slots::pattern(number, rules, tenths);
            let written = writeln!(text, "  r{number}: {{ pattern: '{pattern}', targets: [out] }}");
            debug_assert!(written.is_ok(), "a String takes everything");
        }
        text
    }

    /// Starts a peer between the two, whose rules take a tenth of the events: a program that is called with brokers, source
    /// topic, target topic, group, a file of rules as JSON lines, and the number of events in the source.
    pub fn peer(&self, program: &Path, pair: &Pair, group: &str, rules: u64, events: u64) -> Result<Child, Failed> {
        let Self::Kafka { servers, .. } = self else {
            return Err(Failed::new(Exit::Usage, "peers are measured on Kafka only; leave --peer or --nats out"));
        };
        let mut text = String::new();
        for number in 0..rules {
            let written = writeln!(text, "{{\"name\":\"r{number}\",\"pattern\":{}}}", slots::pattern(number, rules, 1));
            debug_assert!(written.is_ok(), "a String takes everything");
        }
        let arguments = [servers, &pair.from, &pair.to, group, RULES, &events.to_string()];
        Child::spawn(group, (RULES, &text), program, &arguments)
    }

    /// Records in a topic or messages in a stream.
    pub fn held(&self, name: &str) -> Result<u64, Failed> {
        match self {
            Self::Kafka { client, .. } => {
                let consumer = client_config(client).create::<BaseConsumer>();
                let consumer = consumer.map_err(|error| broken("cannot make a consumer", error))?;
                let ends = (0..PARTITIONS).map(|partition| {
                    let (_, end) = consumer.fetch_watermarks(name, partition, PATIENCE)?;
                    Ok(u64::try_from(end).unwrap_or(0))
                });
                let ends: Result<u64, rdkafka::error::KafkaError> = ends.sum();
                ends.map_err(|error| broken("no offsets", error))
            }
            Self::Nats(nats) => {
                let stream = nats.runtime.block_on(nats.context.get_stream(name));
                let stream = stream.map_err(|error| broken("no stream", nats::causes(&error)))?;
                Ok(stream.cached_info().state.messages)
            }
        }
    }

    /// Waits until a group, or a durable consumer, has settled so many events, which `child` works on. Returns how many
    /// were settled when it was first seen past half, and what the child had used by then.
    pub fn until_settled(
        &self,
        from: &str,
        group: &str,
        events: u64,
        child: &mut Child,
        deadline: Instant,
    ) -> Result<(u64, Usage), Failed> {
        let settled: Box<dyn Fn() -> Result<u64, Failed>> = match self {
            Self::Kafka { client, .. } => {
                let mut config = client_config(client);
                let consumer: BaseConsumer =
                    config.set("group.id", group).create().map_err(|error| broken("cannot make a consumer", error))?;
                let mut list = TopicPartitionList::new();
                list.add_partition_range(from, 0, PARTITIONS - 1);
                Box::new(move || committed(&consumer, &list))
            }
            Self::Nats(nats) => Box::new(|| Ok(nats.runtime.block_on(acknowledged(&nats.context, from, group)))),
        };
        let unsettled = format!("{} has not settled all events", child.program.display());
        let failed = |why| Err(broken(&unsettled, why));
        let mut half = None;
        loop {
            let settled = settled()?;
            if half.is_none() && settled * 2 >= events {
                half = Some((settled, child.usage()));
            }
            match half {
                Some(half) if settled >= events => return Ok(half),
                _ if child.ended() => return failed("it has ended"),
                _ if time::now() > deadline => return failed("five minutes have passed"),
                // Asks again soon; each question costs the broker little.
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

/// Events that a group has committed.
fn committed(consumer: &BaseConsumer, list: &TopicPartitionList) -> Result<u64, Failed> {
    let committed = consumer.committed_offsets(list.clone(), PATIENCE).map_err(|error| broken("no offsets", error))?;
    let offset = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match element.offset() {
        Offset::Offset(offset) => u64::try_from(offset).unwrap_or(0),
        _ => 0,
    };
    Ok(committed.elements().iter().map(offset).sum())
}

/// Messages up to which a durable consumer has acknowledged all; none while it is not there.
async fn acknowledged(context: &jetstream::Context, stream: &str, durable: &str) -> u64 {
    let consumer = context.get_consumer_from_stream::<pull::Config, _, _>(durable, stream).await;
    consumer.map_or(0, |consumer| consumer.cached_info().ack_floor.stream_sequence)
}

/// A consumer of all partitions of a topic, from their beginning, in no group.
pub fn assigned(config: &rdkafka::ClientConfig, topic: &str) -> Result<BaseConsumer, Failed> {
    let consumer: BaseConsumer = config.create().map_err(|error| broken("cannot make a consumer", error))?;
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        let added = list.add_partition_offset(topic, partition, Offset::Beginning);
        added.map_err(|error| broken("cannot assign", error))?;
    }
    consumer.assign(&list).map_err(|error| broken("cannot assign", error))?;
    Ok(consumer)
}

/// Reads a topic or a stream.
pub enum Reader<'b> {
    Kafka(BaseConsumer),
    Nats(&'b Runtime, Box<pull::Stream>),
}

impl Reader<'_> {
    /// The next event's bytes, if one comes in time.
    pub fn next(&mut self, wait: Duration) -> Result<Option<Vec<u8>>, Failed> {
        match self {
            Self::Kafka(consumer) => match consumer.poll(wait) {
                Some(Ok(message)) => Ok(Some(message.payload().unwrap_or_default().to_vec())),
                Some(Err(error)) => Err(broken("cannot consume", error)),
                None => Ok(None),
            },
            Self::Nats(runtime, messages) => {
                let next = runtime.block_on(async { tokio::time::timeout(wait, messages.next()).await });
                match next {
                    Ok(Some(Ok(message))) => Ok(Some(message.payload.to_vec())),
                    Ok(Some(Err(error))) => Err(broken("cannot consume", nats::causes(&error))),
                    Ok(None) => Err(broken("cannot consume", "the stream has ended")),
                    Err(_) => Ok(None),
                }
            }
        }
    }
}

/// A process between the two topics or streams, in a folder of its own; killed when dropped.
pub struct Child {
    program: PathBuf,
    arguments: Vec<String>,
    process: std::process::Child,
    folder: PathBuf,
}

impl Child {
    /// Starts a `sluice run`.
    pub fn start(group: &str, configuration: &str) -> Result<Self, Failed> {
        let io = |error: std::io::Error| Failed::new(Exit::Io, format!("cannot run sluice: {error}"));
        let program = std::env::current_exe().map_err(io)?;
        let arguments = ["run", "--no-watch", "--log-level", "warn", "-c", "sluice.yaml"];
        Self::spawn(group, ("sluice.yaml", configuration), &program, &arguments)
    }

    /// Starts `program` with `arguments`, and beside it a file of this name and text.
    pub fn spawn(group: &str, file: (&str, &str), program: &Path, arguments: &[&str]) -> Result<Self, Failed> {
        let io = |error: std::io::Error| Failed::new(Exit::Io, format!("cannot run {}: {error}", program.display()));
        let folder = std::env::temp_dir().join(group);
        std::fs::create_dir_all(&folder).map_err(io)?;
        std::fs::write(folder.join(file.0), file.1).map_err(io)?;
        let process = std::process::Command::new(program).args(arguments).current_dir(&folder).spawn();
        let process = process.inspect_err(|_| drop(std::fs::remove_dir_all(&folder))).map_err(io)?;
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Ok(Self { program: program.to_owned(), arguments, process, folder })
    }

    /// Where it runs.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Kills it, and starts it again where it was.
    pub fn again(&mut self) -> Result<(), Failed> {
        let io = |error: std::io::Error| Failed::new(Exit::Io, format!("cannot run it again: {error}"));
        self.process.kill().and_then(|()| self.process.wait()).map_err(io)?;
        let mut command = std::process::Command::new(&self.program);
        self.process = command.args(&self.arguments).current_dir(&self.folder).spawn().map_err(io)?;
        Ok(())
    }

    /// What it uses.
    pub fn usage(&self) -> Usage {
        Usage::of(&self.process.id().to_string())
    }

    /// Whether it has ended by itself, after saying why.
    pub fn ended(&mut self) -> bool {
        !matches!(self.process.try_wait(), Ok(None))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.process.kill().and_then(|()| self.process.wait()));
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

//! Where events can go: every kind of target, as a value.

use super::{Call, DEFAULT_BUS, Invocation, RuleTarget, Scheduled, SigV4};
use crate::transform::{Input, JsonPath, Subject};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Between an ARN and what tells a target of that ARN from others with other parameters, in names of targets.
pub const MARK: &str = " #";

/// Where events can go; rules refer to it by name.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Unique.
    pub name: String,
    /// What it is.
    pub kind: TargetKind,
    /// When to give up.
    pub retry: RetryPolicy,
    /// What its deliveries must not be overtaken by.
    pub ordering: Order,
    /// The target that takes what this one does not; the bus's default queue otherwise.
    pub dead_letter: Option<String>,
}

/// What a delivery must not be overtaken by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// First attempts keep the order of their partition; repetitions come when they come.
    #[default]
    Partition,
    /// Deliveries of one key come one after another, repetitions included.
    Key,
}

/// The kinds of target.
#[derive(Debug, Clone, PartialEq)]
pub enum TargetKind {
    /// A Kafka topic.
    Kafka(KafkaTarget),
    /// A NATS subject.
    Nats(NatsTarget),
    /// An HTTP endpoint.
    Http(Box<HttpTarget>),
    /// A log group in the data directory.
    Log {
        /// As in `/aws/events/orders`.
        group: String,
    },
    /// An archive.
    Archive {
        /// Below the folder of all archives; its name in a topic or a stream.
        folder: String,
        /// What keeps its events.
        storage: Storage,
        /// Days that they are kept; 0 is for ever.
        days: i64,
    },
    /// One JSON line an event on standard output.
    Stdout,
    /// Another bus, by name.
    Bus(String),
    /// Nothing that can take deliveries, and why.
    Nowhere(String),
    /// Leads where events may not go: why.
    Forbidden(String),
}

/// What keeps the events of an archive.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Storage {
    /// The data directory.
    #[default]
    Disk,
    /// A topic.
    Topic(KafkaTarget),
    /// A stream, by its name, under a subject.
    Stream(NatsTarget, String),
}

/// Whether a text can name a log group, which is also a folder.
pub fn is_log_group(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/' | '#');
    let mut steps = name.trim_start_matches('/').split('/');
    let sound = steps.all(|step| !step.is_empty() && !step.chars().all(|c| c == '.'));
    sound && name.len() <= 512 && name.chars().all(good)
}

/// A topic and how to write to it.
#[derive(Debug, Clone, PartialEq)]
pub struct KafkaTarget {
    /// Client properties, `bootstrap.servers` among them; targets with equal ones share a producer.
    pub client: Arc<BTreeMap<String, String>>,
    /// The topic.
    pub topic: String,
    /// Where the record's key comes from.
    pub key: KafkaKey,
    /// Partitions and replication factor to create the topic with when it does not exist.
    pub create: Option<TopicShape>,
}

/// The shape of a topic to create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicShape {
    /// Number of partitions; the source's number when absent.
    pub partitions: Option<i32>,
    /// Replication factor; the broker's default when absent.
    pub replication: Option<i32>,
}

/// Where the key of a produced record comes from.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum KafkaKey {
    /// The key of the record that the event came in.
    #[default]
    Source,
    /// A path into the event.
    Path(JsonPath),
    /// No key.
    None,
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the client that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Certificates, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// Authorities to trust; the system's when absent.
    pub ca: Option<PathBuf>,
    /// Our certificate with its chain, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// How to reach a NATS system; targets with equal ones share a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatsClient {
    /// Addresses as `nats://host:4222` or `tls://host:4222`.
    pub servers: Vec<String>,
    /// Who we are.
    pub auth: NatsAuth,
    /// Certificates; encryption is then required.
    pub tls: Option<Tls>,
}

/// Who we are to a NATS server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NatsAuth {
    /// Nobody in particular.
    #[default]
    None,
    /// User name and password.
    Basic(String, Secret),
    /// A token.
    Token(Secret),
    /// The seed of an NKey.
    Nkey(Secret),
    /// A credentials file: a JWT and its seed.
    Creds(PathBuf),
}

/// A subject and how to publish to it.
#[derive(Debug, Clone, PartialEq)]
pub struct NatsTarget {
    /// The connection.
    pub client: Arc<NatsClient>,
    /// The subject, or how it is made of an event.
    pub subject: Subject,
    /// Whether a stream must acknowledge; core NATS, best effort, otherwise.
    pub jetstream: bool,
}

/// An HTTP endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpTarget {
    /// `http` or `https`, without user information.
    pub url: String,
    /// The method.
    pub method: HttpMethod,
    /// Names and values; they replace our own of the same name.
    pub headers: Vec<(String, Secret)>,
    /// Who we are.
    pub auth: HttpAuth,
    /// For a whole attempt, answer included.
    pub timeout: Duration,
    /// Attempts under way at once.
    pub max_in_flight: u32,
    /// Attempts begun in a period.
    pub rate: Option<Rate>,
    /// Speak HTTP/2 without asking; over TLS it is negotiated anyway.
    pub http2: bool,
    /// Compress bodies with gzip.
    pub gzip: bool,
    /// Standard Webhooks secret to sign attempts with, `whsec_...`.
    pub signing_secret: Option<Secret>,
    /// What takes records of answers.
    pub on_success: Option<Destination>,
    /// What takes records of what was given up, instead of dead letters.
    pub on_failure: Option<Destination>,
    /// Certificates.
    pub tls: Tls,
    /// What an API destination's requests have beside that.
    pub invocation: Option<Box<Invocation>>,
    /// The service of AWS that it is, which shapes its requests.
    pub call: Option<Box<Call>>,
}

impl HttpTarget {
    /// An endpoint at an address, with nothing else said.
    pub fn to(url: String) -> Self {
        Self {
            url,
            method: HttpMethod::Post,
            headers: Vec::new(),
            auth: HttpAuth::None,
            timeout: Duration::from_secs(5),
            max_in_flight: 32,
            rate: None,
            http2: false,
            gzip: false,
            signing_secret: None,
            on_success: None,
            on_failure: None,
            tls: Tls::default(),
            invocation: None,
            call: None,
        }
    }
}

/// What takes the execution records of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A bus of the region that the event came from, as an event.
    Bus(String),
    /// A declared target, as the record itself.
    Target(String),
}

impl Destination {
    /// The rule of the default bus that leads records to a target. No other has such a name.
    pub fn rule(target: &str) -> Scheduled {
        let to = RuleTarget { target: target.to_owned(), input: Input::Path(JsonPath::detail()) };
        Scheduled { name: Self::rule_name(target), bus: DEFAULT_BUS.to_owned(), targets: vec![to] }
    }

    /// Its name.
    pub fn rule_name(target: &str) -> String {
        format!("to {target}")
    }
}

/// The method of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HttpMethod {
    /// POST
    #[default]
    Post,
    /// PUT
    Put,
    /// PATCH
    Patch,
    /// DELETE
    Delete,
    /// OPTIONS
    Options,
    /// GET, without the payload
    Get,
    /// HEAD, without the payload
    Head,
}

/// Who we are to an HTTP endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum HttpAuth {
    /// Nobody in particular.
    #[default]
    None,
    /// User name and password.
    Basic(String, Secret),
    /// A bearer token.
    Bearer(Secret),
    /// A header of this name.
    ApiKey(String, Secret),
    /// A bearer token that is asked for.
    OAuth(Box<OAuth>),
    /// A signature of each request.
    SigV4(Box<SigV4>),
}

/// Where and how a token is asked for: client credentials of RFC 6749, in JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OAuth {
    /// `http` or `https`, without user information.
    pub url: String,
    /// The method.
    pub method: HttpMethod,
    /// Who asks.
    pub client_id: String,
    /// Who asks, indeed.
    pub client_secret: Secret,
    /// Further headers.
    pub headers: Vec<(String, Secret)>,
    /// Join the query of the address.
    pub query: Vec<(String, Secret)>,
    /// Further members of the body.
    pub body: Vec<(String, Secret)>,
}

/// At most so many in a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many; at least one.
    pub count: u32,
    /// The period.
    pub per: Duration,
}

impl Rate {
    /// Reads `50/s`, `600/m` or `10000/h`.
    ///
    /// # Errors
    /// What is wrong with the text, and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not a rate; write a whole number and a period, as in 50/s, 600/m or 10000/h");
        let (count, unit) = text.split_once('/').ok_or_else(bad)?;
        let seconds = match unit.trim() {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return Err(bad()),
        };
        let count = count.trim().parse().ok().filter(|&count| count > 0).ok_or_else(bad)?;
        Ok(Self { count, per: Duration::from_secs(seconds) })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per.as_secs() {
            60 => "m",
            3600 => "h",
            _ => "s",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

/// When retrying ends, whichever comes first, and how it is paced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryPolicy {
    /// Tries after the first.
    pub max_attempts: u32,
    /// Age of the event.
    pub max_age: Duration,
    /// First delay's ceiling.
    pub initial: Duration,
    /// Any delay's ceiling.
    pub max: Duration,
    /// Whether delays are drawn below their ceilings, or are those.
    pub jitter: bool,
}

impl Default for RetryPolicy {
    /// The service's: 185 tries, 24 hours; first about a second, at most five minutes apart.
    fn default() -> Self {
        Self {
            max_attempts: 185,
            max_age: Duration::from_hours(24),
            initial: Duration::from_secs(1),
            max: Duration::from_mins(5),
            jitter: true,
        }
    }
}

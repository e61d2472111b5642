//! NATS: a JetStream pull consumer, acknowledged when settled; or a subject of core NATS, best effort.
//!
//! One subject always takes the same lane, so its first attempts keep their order (I8). While a delivery is open the
//! server is told so at a third of `ack_wait`; after a crash it gives the messages to another instance. Messages are
//! pulled only as credit allows, so none waits unread with us (I7).

use super::batch::{Gather, Reading};
use super::{Feed, Setup};
use crate::ack::{OffsetTracker, Report};
use crate::catalog::NatsClient;
use crate::config::ends::Start;
use crate::credit::Credit;
use crate::metrics::labels;
use crate::nats;
use crate::time;
use crate::transform::wrap::Framing;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use async_nats::{Client, Event, Message, RequestErrorKind, Subject};
use bytes::Bytes;
use futures_util::{FutureExt, Stream, StreamExt};
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The most messages asked for at once.
const PULL: usize = 1024;
/// How long an idle source waits before it looks around.
const LOOK: Duration = Duration::from_millis(50);
/// The same while deliveries are open: their reports become acknowledgements.
const LOOK_BUSY: Duration = Duration::from_millis(5);
/// How often the server is asked about the consumer.
const CENSUS: Duration = Duration::from_secs(5);

/// Where messages come from.
pub enum NatsSource {
    /// A durable pull consumer of a stream.
    JetStream(JetStream),
    /// A subject, shared by a queue group where it has one.
    Core {
        /// The connection.
        client: NatsClient,
        /// With wildcards, if wanted.
        subject: String,
        /// The queue group.
        queue: Option<String>,
    },
}

/// A durable pull consumer.
pub struct JetStream {
    /// The connection.
    pub client: NatsClient,
    /// The stream; it must exist.
    pub stream: String,
    /// The consumer; made when it does not exist.
    pub durable: String,
    /// What of the stream to read.
    pub filter: Option<String>,
    /// Where a new consumer begins.
    pub start: Start,
    /// After how long without a word a message is given to another instance.
    pub ack_wait: Duration,
}

impl NatsSource {
    /// Reads until [`super::Stop`], then until everything read is settled and acknowledged.
    pub fn run(self, setup: &Setup, feed: &Feed) {
        let read = match self {
            Self::JetStream(source) => source.run(setup, feed),
            Self::Core { client, subject, queue } => core(&client, &subject, queue, setup, feed),
        };
        if let Err(message) = read {
            feed.metrics.health.set(&setup.info.name, Some(message.clone()));
            // The process stops for the first reason; later ones find the channel full.
            drop(feed.fatal.try_send(format!("source {}: {message}", setup.info.name)));
        }
    }
}

/// Messages on their way to the lanes, and the replies that acknowledge them.
struct Intake<'a> {
    setup: &'a Setup,
    feed: &'a Feed,
    /// Their stream, or what stands for it.
    topic: Arc<str>,
    tracker: OffsetTracker,
    report: Arc<Report>,
    credit: Arc<Credit>,
    gather: Gather<'a>,
    parts: Vec<Part>,
    with_headers: bool,
    events: prometheus_client::metrics::counter::Counter,
    bytes: prometheus_client::metrics::counter::Counter,
}

/// Messages of the subjects that share a lane, in reading order.
#[derive(Default)]
struct Part {
    /// Counts the messages ever taken.
    next: i64,
    /// Where to acknowledge those not yet acknowledged, the first of them numbered `next - replies.len()`.
    replies: VecDeque<Option<Subject>>,
}

impl Part {
    /// Takes the replies numbered from `from` up to, without, `to`.
    fn take(&mut self, from: i64, to: i64) -> Vec<Subject> {
        let first = self.next - self.replies.len() as i64;
        let taken = (from.max(first)..to).filter_map(|n| self.replies.get_mut((n - first) as usize)?.take()).collect();
        while let Some(None) = self.replies.front() {
            self.replies.pop_front();
        }
        taken
    }
}

impl<'a> Intake<'a> {
    fn new(setup: &'a Setup, feed: &'a Feed, topic: &str, parts: usize) -> Self {
        let (report, credit) = (Arc::new(Report::default()), Arc::new(Credit::new(setup.window)));
        let mut tracker = OffsetTracker::default();
        for _ in 0..parts {
            let number = tracker.add();
            tracker.assign(number);
        }
        let families = &feed.metrics.families;
        let own = labels([("source", &setup.info.name)]);
        Self {
            setup,
            feed,
            topic: topic.into(),
            tracker,
            gather: Gather::new(setup, &feed.lanes, &report, &credit),
            report,
            credit,
            parts: (0..parts).map(|_| Part::default()).collect(),
            with_headers: setup.info.framing != Framing::EventBridge,
            events: families.source_events.get_or_create_owned(&own),
            bytes: families.source_bytes.get_or_create_owned(&own),
        }
    }

    /// Takes a message that stands at `offset` of its stream. `false` when the workers are gone.
    fn push(&mut self, message: &Message, offset: i64, time_millis: i64) -> bool {
        let mut hasher = DefaultHasher::new();
        message.subject.as_str().hash(&mut hasher);
        let number = (hasher.finish() % self.parts.len() as u64) as u32;
        let part = &mut self.parts[number as usize];
        let order = part.next;
        part.next += 1;
        part.replies.push_back(message.reply.clone());
        let headers = match (&message.headers, self.with_headers) {
            (Some(headers), true) => headers
                .iter()
                .flat_map(|(name, values)| values.iter().map(|v| (name.to_string(), v.as_str().as_bytes().to_vec())))
                .collect(),
            _ => Vec::new(),
        };
        self.events.inc();
        self.bytes.inc_by(message.payload.len() as u64);
        let reading = Reading {
            topic: &self.topic,
            partition: 0,
            number,
            offset,
            order,
            key: Some(message.subject.as_bytes()),
            payload: &message.payload,
            headers,
            time_millis,
        };
        if self.gather.push(reading, &self.tracker) { self.gather.flush(&mut self.tracker) } else { true }
    }

    fn flush(&mut self) -> Result<(), String> {
        let sent = self.gather.flush(&mut self.tracker);
        sent.then_some(()).ok_or_else(|| "the workers are gone".to_owned())
    }

    /// Takes reports; returns where to acknowledge what is settled.
    fn settled(&mut self) -> Vec<Subject> {
        let mut replies = Vec::new();
        for run in self.report.take(Duration::ZERO) {
            self.tracker.settle(&run);
            let part = &mut self.parts[run.partition as usize];
            replies.extend(part.take(run.after - i64::from(run.events), run.after));
        }
        replies
    }

    /// How many more messages may be asked for.
    fn room(&self) -> usize {
        match self.credit.exhausted() {
            true => 0,
            false => (i64::from(self.setup.window.events) - self.credit.events()).clamp(0, PULL as i64) as usize,
        }
    }

    fn note(&self, reason: Option<String>) {
        self.feed.metrics.health.set(&self.setup.info.name, reason);
    }

    fn stopped(&self) -> bool {
        self.feed.stop.is_set()
    }
}

/// The next messages: waits for the first up to `wait`, then takes what is at hand. `None` when there are no more.
async fn some<T>(stream: &mut (impl Stream<Item = T> + Unpin), wait: Duration) -> Option<Vec<T>> {
    let mut all = Vec::new();
    match tokio::time::timeout(wait, stream.next()).await {
        Err(_) => return Some(all),
        Ok(None) => return None,
        Ok(Some(first)) => all.push(first),
    }
    while all.len() < 256 {
        match stream.next().now_or_never() {
            Some(Some(next)) => all.push(next),
            _ => break,
        }
    }
    Some(all)
}

/// Notes an outage of the connection, and its end.
fn health(setup: &Setup, feed: &Feed) -> impl Fn(&Event) + Send + Sync + 'static {
    let (metrics, name) = (Arc::clone(&feed.metrics), Arc::clone(&setup.info.name));
    move |event| match event {
        Event::Disconnected => metrics.health.set(&name, Some("no connection to the NATS servers".into())),
        Event::Connected => metrics.health.set(&name, None),
        _ => {}
    }
}

fn core(client: &NatsClient, subject: &str, queue: Option<String>, setup: &Setup, feed: &Feed) -> Result<(), String> {
    let (metrics, name) = (Arc::clone(&feed.metrics), Arc::clone(&setup.info.name));
    let (outage, said) = (health(setup, feed), Mutex::new(None::<Instant>));
    let slow = move |event: &Event| {
        outage(event);
        if let Event::SlowConsumer(_) = event {
            let reason = labels([("stage", "ingress"), ("reason", "slow_consumer")]);
            metrics.families.dropped_events.get_or_create(&reason).inc();
            let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
            if said.is_none_or(|at| at.elapsed() > Duration::from_secs(10)) {
                *said = Some(time::now());
                tracing::error!(source = %name, "events are lost: they come faster than they settle, and core NATS keeps none");
            }
        }
    };
    feed.metrics.health.set(&setup.info.name, Some("not subscribed yet".into()));
    // Messages that wait for credit are in nobody's count, so they are few; of usual size, they fit the window.
    let capacity = (setup.window.bytes >> 13).clamp(256, 8192) as usize;
    let connection =
        feed.runtime.block_on(nats::connect_with(client, capacity, slow)).map_err(|error| error.to_string())?;
    let subscription = feed.runtime.block_on(async {
        let subscription = match queue {
            Some(queue) => connection.queue_subscribe(subject.to_owned(), queue).await,
            None => connection.subscribe(subject.to_owned()).await,
        };
        // Only an answer says that the server knows of it; that nobody hears the question is one.
        let known = match connection.request(connection.new_inbox(), Bytes::new()).await {
            Err(error) if error.kind() != RequestErrorKind::NoResponders => Err(nats::causes(&error)),
            _ => Ok(()),
        };
        subscription.map_err(|error| error.to_string()).and_then(|made| known.map(|()| made))
    });
    let mut messages = subscription.map_err(|error| format!("cannot subscribe to {subject}: {error}"))?;
    // Numbers begin anew with every process, so the name must differ as well: no two events share ids.
    let topic = format!("nats-{}-{}", time::wall_millis(), std::process::id());
    let mut intake = Intake::new(setup, feed, &topic, feed.lanes.count());
    intake.note(None);
    let mut number = 0;
    while !intake.stopped() {
        let busy = intake.credit.events() > 0;
        if intake.room() == 0 {
            intake.report.wait(LOOK_BUSY);
            intake.settled();
            continue;
        }
        let waited = if busy { LOOK_BUSY } else { LOOK };
        let Some(some) = feed.runtime.block_on(some(&mut messages, waited)) else {
            return Err(format!("the subscription to {subject} has ended"));
        };
        for message in some {
            intake.push(&message, number, time::wall_millis());
            number += 1;
        }
        intake.flush()?;
        intake.settled();
    }
    feed.runtime.block_on(messages.unsubscribe()).unwrap_or_default();
    // What the server had sent before is still to come.
    while let Some(some) = feed.runtime.block_on(some(&mut messages, LOOK)).filter(|some| !some.is_empty()) {
        for message in some {
            intake.push(&message, number, time::wall_millis());
            number += 1;
        }
    }
    intake.flush()?;
    while !intake.tracker.idle() {
        intake.report.wait(LOOK);
        intake.settled();
    }
    Ok(())
}

impl JetStream {
    fn run(&self, setup: &Setup, feed: &Feed) -> Result<(), String> {
        feed.metrics.health.set(&setup.info.name, Some("no connection to JetStream yet".into()));
        let connection = feed.runtime.block_on(nats::connect(&self.client, health(setup, feed)));
        let connection = connection.map_err(|error| error.to_string())?;
        let (consumer, created) = feed.runtime.block_on(self.consumer(&connection, setup.window.events))?;
        feed.metrics.health.set(&setup.info.name, None);
        // A stream that was made anew counts from 1 again.
        let topic = format!("{}@{created}", self.stream);
        let parts = feed.lanes.count();
        let now = time::now();
        let mut reader = Reader {
            source: self,
            intake: Intake::new(setup, feed, &topic, parts),
            client: connection,
            consumer,
            told_at: now,
            asked_at: None,
            known_first: 0,
        };
        reader.read()?;
        reader.drain()
    }

    /// A consumer as we make it.
    fn fresh(&self, pending: i64) -> pull::Config {
        pull::Config {
            durable_name: Some(self.durable.clone()),
            description: Some("sluice".into()),
            deliver_policy: match self.start {
                Start::Earliest => DeliverPolicy::All,
                Start::Latest => DeliverPolicy::New,
            },
            filter_subject: self.filter.clone().unwrap_or_default(),
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.ack_wait,
            max_deliver: -1,
            max_ack_pending: pending,
            ..pull::Config::default()
        }
    }

    /// Finds the consumer, or makes it; one that would lose or stall is set right.
    async fn consumer(&self, client: &Client, in_flight: u32) -> Result<(PullConsumer, i64), String> {
        let stream = nats::stream(client, &self.stream).await.map_err(|error| error.to_string())?;
        let created = stream.cached_info().created.unix_timestamp();
        // A batch a lane may overdraw the credit.
        let pending = i64::from(in_flight) + 4096;
        let mut config = match stream.consumer_info(&self.durable).await {
            Ok(info) => info.config,
            Err(error) if error.kind() != ConsumerInfoErrorKind::NotFound => {
                let why = nats::causes(&error);
                return Err(format!("consumer {} of stream {}: {why}", self.durable, self.stream));
            }
            Err(_) => {
                let made = stream.create_consumer(self.fresh(pending)).await;
                return made.map(|made| (made, created)).map_err(|error| {
                    format!("cannot make consumer {} of stream {}: {}", self.durable, self.stream, nats::causes(&error))
                });
            }
        };
        if config.ack_policy != AckPolicy::Explicit {
            return Err(format!(
                "consumer {} of stream {} acknowledges as {:?}, and only explicit acknowledgements lose nothing; the server \
                 cannot change that: name another `durable`",
                self.durable, self.stream, config.ack_policy
            ));
        }
        let wanted = self.filter.clone().unwrap_or_default();
        if wanted != config.filter_subject || !config.filter_subjects.is_empty() {
            return Err(format!(
                "consumer {} of stream {} reads `{}{}`, `subject` says `{wanted}`; name another `durable`",
                self.durable,
                self.stream,
                config.filter_subject,
                config.filter_subjects.join(", ")
            ));
        }
        config.max_deliver = -1;
        config.max_ack_pending = config.max_ack_pending.max(pending);
        config.ack_wait = self.ack_wait;
        let name = self.durable.clone();
        let wanted = pull::Config {
            durable_name: Some(name),
            description: config.description,
            deliver_policy: config.deliver_policy,
            ack_policy: config.ack_policy,
            ack_wait: config.ack_wait,
            max_deliver: config.max_deliver,
            filter_subject: config.filter_subject,
            filter_subjects: config.filter_subjects,
            replay_policy: config.replay_policy,
            rate_limit: config.rate_limit,
            sample_frequency: config.sample_frequency,
            max_waiting: config.max_waiting,
            max_ack_pending: config.max_ack_pending,
            num_replicas: config.num_replicas,
            memory_storage: config.memory_storage,
            metadata: config.metadata,
            ..pull::Config::default()
        };
        stream.create_consumer(wanted).await.map(|made| (made, created)).map_err(|error| {
            format!("cannot use consumer {} of stream {}: {}", self.durable, self.stream, nats::causes(&error))
        })
    }
}

/// The pulling loop's state.
struct Reader<'a> {
    source: &'a JetStream,
    intake: Intake<'a>,
    client: Client,
    consumer: PullConsumer,
    /// When the server was last told that messages are being worked on.
    told_at: Instant,
    asked_at: Option<Instant>,
    /// The stream's first message when its removals were last reported.
    known_first: u64,
}

impl Reader<'_> {
    fn read(&mut self) -> Result<(), String> {
        while !self.intake.stopped() {
            self.census()?;
            let room = self.intake.room();
            if room == 0 {
                self.settle(LOOK_BUSY);
                continue;
            }
            // The server ends a request that a message does not fit into, so one of the largest always does.
            let free = self.intake.setup.window.bytes.saturating_sub(self.intake.credit.bytes());
            let bytes = usize::try_from(free).unwrap_or(usize::MAX).max(self.client.max_payload() + (64 << 10));
            let batch = self.consumer.batch().max_messages(room).max_bytes(bytes).expires(Duration::from_millis(500));
            match self.runtime().block_on(batch.messages()) {
                Ok(mut messages) => self.take(&mut messages)?,
                Err(error) => self.trouble(&nats::causes(&error))?,
            }
        }
        Ok(())
    }

    /// Takes all messages of one request.
    fn take(&mut self, messages: &mut pull::Batch) -> Result<(), String> {
        let mut wait = LOOK_BUSY;
        while let Some(some) = self.runtime().block_on(some(messages, wait)) {
            let none = some.is_empty();
            for message in some {
                match message {
                    Ok(message) => {
                        let info = message.info().map_err(|error| format!("not a JetStream message: {error}"))?;
                        let offset = i64::try_from(info.stream_sequence).unwrap_or(i64::MAX);
                        let millis = info.published.unix_timestamp_nanos() / 1_000_000;
                        let millis = i64::try_from(millis).unwrap_or_else(|_| time::wall_millis());
                        if info.delivered > 1 {
                            let own = labels([("source", &self.intake.setup.info.name)]);
                            self.intake.feed.metrics.families.source_redelivered.get_or_create(&own).inc();
                        }
                        if !self.intake.push(&message, offset, millis) {
                            return Err("the workers are gone".into());
                        }
                    }
                    Err(error) => self.trouble(&error.to_string())?,
                }
            }
            // Nothing more at hand: what is there must not wait.
            self.intake.flush()?;
            self.settle(Duration::ZERO);
            wait = if none && self.intake.credit.events() == 0 { LOOK } else { LOOK_BUSY };
        }
        Ok(())
    }

    fn runtime(&self) -> tokio::runtime::Handle {
        self.intake.feed.runtime.clone()
    }

    /// Acknowledges what is settled, and says that the rest is being worked on.
    fn settle(&mut self, wait: Duration) {
        if !wait.is_zero() {
            self.intake.report.wait(wait);
        }
        let acks = self.intake.settled();
        let mut progress = Vec::new();
        if self.told_at.elapsed() >= self.source.ack_wait / 3 {
            self.told_at = time::now();
            progress = self.intake.parts.iter().flat_map(|part| part.replies.iter().flatten().cloned()).collect();
        }
        if acks.is_empty() && progress.is_empty() {
            return;
        }
        let client = self.client.clone();
        self.runtime().block_on(async move {
            let acks = acks.into_iter().map(|reply| (reply, "+ACK"));
            for (reply, word) in acks.chain(progress.into_iter().map(|reply| (reply, "+WPI"))) {
                // Lost with the connection, the message comes again and is delivered with the same ids.
                if client.publish(reply, Bytes::from_static(word.as_bytes())).await.is_err() {
                    return;
                }
            }
        });
    }

    /// Decides whether the source can go on after an error.
    fn trouble(&mut self, why: &str) -> Result<(), String> {
        if why.to_ascii_lowercase().contains("consumer deleted") {
            return Err(format!(
                "consumer {} of stream {} was deleted; start again to make it anew",
                self.source.durable, self.source.stream
            ));
        }
        // A request that has been answered as far as its bounds allow.
        if why.contains("Exceeds MaxBytes") || why.contains("Batch Completed") {
            return Ok(());
        }
        tracing::debug!(source = %self.intake.setup.info.name, "consumer: {why}");
        self.intake.note(Some(format!("JetStream does not give messages: {why}")));
        // Whatever it is, asking at once again would not mend it.
        self.settle(LOOK);
        Ok(())
    }

    /// Asks how far the consumer is, and whether messages were removed unread.
    fn census(&mut self) -> Result<(), String> {
        if self.asked_at.is_some_and(|at| at.elapsed() < CENSUS) {
            return Ok(());
        }
        self.asked_at = Some(time::now());
        let (client, name) = (self.client.clone(), self.source.stream.clone());
        let consumer = &self.consumer;
        let asked = self.runtime().block_on(async {
            let both = async { (nats::stream(&client, &name).await, consumer.get_info().await) };
            tokio::time::timeout(nats::PATIENCE, both).await
        });
        let (stream, info) = match asked {
            Ok((Ok(stream), Ok(info))) => (stream, info),
            Ok((Err(nats::NatsError::Missing(why)), _)) => return Err(why),
            // An outage of the connection is noted where it is seen.
            _ => return Ok(()),
        };
        self.intake.note(None);
        let families = &self.intake.feed.metrics.families;
        let name = &self.intake.setup.info.name;
        let own = labels([("source", name), ("topic", &self.source.stream), ("partition", "0")]);
        let lag = info.num_pending + info.num_ack_pending as u64;
        families.source_lag.get_or_create(&own).set(i64::try_from(lag).unwrap_or(i64::MAX));
        let (first, read) = (stream.cached_info().state.first_sequence, info.delivered.stream_sequence);
        // A consumer with a filter passes over messages without reading them.
        let limits = stream.cached_info().config.retention == async_nats::jetstream::stream::RetentionPolicy::Limits;
        let whole = info.config.filter_subject.is_empty() && info.config.filter_subjects.is_empty();
        if limits && whole && read > 0 && first > read + 1 && first > self.known_first {
            let from = (read + 1).max(self.known_first);
            families.source_removed.get_or_create(&labels([("source", name)])).inc_by(first - from);
            tracing::error!(
                source = %name,
                "stream {} removed its messages {from} to {} before they were read: raise its limits (max_age, max_msgs, \
                 max_bytes), or add instances; these events are lost",
                self.source.stream, first - 1
            );
        }
        self.known_first = first;
        Ok(())
    }

    /// Reads no more; acknowledges until everything is settled.
    fn drain(&mut self) -> Result<(), String> {
        self.intake.flush()?;
        while !self.intake.tracker.idle() {
            self.settle(LOOK_BUSY);
        }
        self.settle(Duration::ZERO);
        let flushed = async { tokio::time::timeout(nats::PATIENCE, self.client.flush()).await };
        let flushed = self.runtime().block_on(flushed);
        if !matches!(flushed, Ok(Ok(()))) {
            tracing::warn!(source = %self.intake.setup.info.name, "the last acknowledgements may not have arrived");
        }
        Ok(())
    }
}

//! A durable pull consumer of a JetStream stream.

use super::removals::Removals;
use super::{Intake, LOOK, LOOK_BUSY, health, some};
use crate::catalog::NatsClient;
use crate::config::ends::Start;
use crate::metrics::labels;
use crate::nats;
use crate::source::{Feed, Setup};
use crate::time;
use async_nats::Client;
use async_nats::jetstream::consumer::{AckPolicy, Config, DeliverPolicy, FromConsumer, PullConsumer, pull};
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use bytes::Bytes;
use std::time::{Duration, Instant};

/// All instances of a consumer share its bound of unacknowledged messages, so it has none: each has its credit.
const UNLIMITED: i64 = -1;
/// How often the server is asked about the consumer.
const CENSUS: Duration = Duration::from_secs(5);

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

impl JetStream {
    /// Reads until asked to stop, then until everything read is settled and acknowledged.
    pub(super) fn run(&self, setup: &Setup, feed: &Feed) -> Result<(), String> {
        feed.metrics.health.set(&setup.info.name, Some("no connection to JetStream yet".into()));
        let connection = feed.runtime.block_on(nats::connect(&self.client, health(setup, feed)));
        let connection = connection.map_err(|error| error.to_string())?;
        let (consumer, created) = feed.runtime.block_on(self.consumer(&connection))?;
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
            removals: Removals::default(),
        };
        reader.read()?;
        reader.drain()
    }

    /// A consumer as we make it.
    fn fresh(&self) -> pull::Config {
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
            max_ack_pending: UNLIMITED,
            ..pull::Config::default()
        }
    }

    /// Finds the consumer, or makes it; one that would lose or stall is set right.
    async fn consumer(&self, client: &Client) -> Result<(PullConsumer, i64), String> {
        let stream = nats::stream(client, &self.stream).await.map_err(|error| error.to_string())?;
        let created = stream.cached_info().created.unix_timestamp();
        let config = match stream.consumer_info(&self.durable).await {
            Ok(info) => info.config,
            Err(error) if error.kind() != ConsumerInfoErrorKind::NotFound => {
                let why = nats::causes(&error);
                return Err(format!("consumer {} of stream {}: {why}", self.durable, self.stream));
            }
            Err(_) => {
                let made = stream.create_consumer(self.fresh()).await;
                return made.map(|made| (made, created)).map_err(|error| {
                    format!("cannot make consumer {} of stream {}: {}", self.durable, self.stream, nats::causes(&error))
                });
            }
        };
        let wanted = self.corrected(config)?;
        stream.create_consumer(wanted).await.map(|made| (made, created)).map_err(|error| {
            format!("cannot use consumer {} of stream {}: {}", self.durable, self.stream, nats::causes(&error))
        })
    }

    /// A consumer that exists, with what would lose or stall set right; refuses what the server cannot change.
    fn corrected(&self, config: Config) -> Result<pull::Config, String> {
        let refused = |why: String| {
            Err(format!("consumer {} of stream {} {why}; name another `durable`", self.durable, self.stream))
        };
        if config.ack_policy != AckPolicy::Explicit {
            return refused(format!(
                "acknowledges as {:?}, only explicit acknowledgements lose nothing, and the server cannot change that",
                config.ack_policy
            ));
        }
        let filter = self.filter.clone().unwrap_or_default();
        if filter != config.filter_subject || !config.filter_subjects.is_empty() {
            let reads = format!("{}{}", config.filter_subject, config.filter_subjects.join(", "));
            return refused(format!("reads `{reads}`, `subject` says `{filter}`"));
        }
        let Ok(mut config) = pull::Config::try_from_consumer_config(config) else {
            return refused("is a push consumer, and only pull consumers can be shared by instances".to_owned());
        };
        config.durable_name = Some(self.durable.clone());
        config.max_deliver = -1;
        config.max_ack_pending = UNLIMITED;
        config.ack_wait = self.ack_wait;
        // Each of these would withhold bodies, refuse our requests, hurry messages, or forget where we are.
        config.headers_only = false;
        (config.max_batch, config.max_bytes, config.max_expires) = (0, 0, Duration::ZERO);
        config.backoff.clear();
        config.inactive_threshold = Duration::ZERO;
        Ok(config)
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
    removals: Removals,
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
                            self.removals.came_again();
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
        let more = self.removals.more(stream.cached_info(), &info);
        if more > 0 {
            families.source_removed.get_or_create(&labels([("source", name)])).inc_by(more);
            tracing::error!(
                source = %name,
                "stream {} removed at least {more} messages before they were read, they are lost; it begins at {} now: raise its limits \
                 (max_age, max_msgs, max_bytes), or add instances",
                self.source.stream, stream.cached_info().state.first_sequence
            );
        }
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

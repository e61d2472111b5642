//! A member of a Kafka consumer group: one poll thread, manual offsets, back-pressure by partition.
//!
//! librdkafka's traps, and what we do: its commit is offset + 1 (ours too); polling goes on while paused; split
//! partition queues are not used; offsets are stored by nobody but us; pausing throws away what was prefetched, so a
//! full window is waited out for a moment before a partition is paused; how an asynchronous commit ended is nowhere
//! said, so its statistics are read for it.

use super::batch::{Gather, Reading};
use super::group::{Group, GroupContext};
use super::{Feed, Setup};
use crate::ack::Report;
use crate::config::ends::Start;
use crate::credit::Credit;
use crate::envelope::SourceInfo;
use crate::kafka::{Owned, client_config};
use crate::metrics::labels;
use crate::planted::{self, Bug};
use crate::time;
use crate::transform::wrap::{Framing, Origin};
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How often offsets are committed.
const COMMIT_INTERVAL: Duration = Duration::from_millis(250);
/// How long a full window is waited for before partitions are paused.
const STALL: Duration = Duration::from_millis(500);

/// A source's place in a group.
pub struct KafkaSource {
    /// Client properties.
    pub client: BTreeMap<String, String>,
    /// Topics to subscribe to.
    pub topics: Vec<String>,
    /// The consumer group.
    pub group: String,
    /// Makes the membership static.
    pub instance_id: Option<String>,
    /// Where a new group begins.
    pub start: Start,
    /// Told which partitions of the topic are this process's.
    pub owned: Arc<Owned>,
}

type Client = BaseConsumer<GroupContext>;

impl KafkaSource {
    /// Consumes until [`super::Stop`], then until everything read is settled and committed.
    pub fn run(self, setup: &Setup, feed: &Feed) {
        let fatal = |message: String| {
            feed.metrics.health.set(&setup.info.name, Some(message.clone()));
            // The process stops for the first reason; later ones find the channel full.
            drop(feed.fatal.try_send(format!("source {}: {message}", setup.info.name)));
        };
        let report = Arc::new(Report::default());
        let client = match self.client(setup, feed, &report) {
            Ok(client) => client,
            Err(error) => return fatal(format!("cannot make a Kafka consumer: {error}")),
        };
        let mut member = Member::new(&self, setup, feed, &client, report);
        if let Err(message) = member.consume() {
            fatal(message);
        }
        member.drain();
        client.unsubscribe();
    }

    fn client(&self, setup: &Setup, feed: &Feed, report: &Arc<Report>) -> Result<Client, KafkaError> {
        let mut config = client_config(&self.client);
        let session = if self.instance_id.is_some() { "30000" } else { "10000" };
        let defaults = [
            ("session.timeout.ms", session),
            ("heartbeat.interval.ms", "2000"),
            ("partition.assignment.strategy", "range"),
            ("queued.max.messages.kbytes", "8192"),
            ("queued.min.messages", "20000"),
            ("fetch.queue.backoff.ms", "2"),
            ("fetch.wait.max.ms", "100"),
            ("fetch.max.bytes", "8388608"),
        ];
        for (name, value) in defaults {
            if !self.client.contains_key(name) {
                config.set(name, value);
            }
        }
        // What the promise rests on is not for the configuration to change.
        config
            .set("group.id", &self.group)
            .set("group.protocol", "classic")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("allow.auto.create.topics", "false")
            .set("statistics.interval.ms", "5000");
        if let Some(id) = &self.instance_id {
            config.set("group.instance.id", id);
        }
        config.create_with_context(GroupContext {
            source: Arc::clone(&setup.info.name),
            group: Mutex::new(Group::default()),
            subscribed: AtomicBool::new(false),
            report: Arc::clone(report),
            start: self.start,
            metrics: Arc::clone(&feed.metrics),
            owned: Arc::clone(&self.owned),
        })
    }
}

/// The polling loop's state.
struct Member<'a> {
    source: &'a KafkaSource,
    setup: &'a Setup,
    feed: &'a Feed,
    client: &'a Client,
    report: Arc<Report>,
    credit: Arc<Credit>,
    gather: Gather<'a>,
    with_headers: bool,
    committed_at: Instant,
    /// Since when some window has been full.
    full_since: Option<Instant>,
}

impl<'a> Member<'a> {
    fn new(source: &'a KafkaSource, setup: &'a Setup, feed: &'a Feed, client: &'a Client, report: Arc<Report>) -> Self {
        let credit = Arc::new(Credit::new(setup.window));
        Self {
            source,
            setup,
            feed,
            client,
            gather: Gather::new(setup, &feed.lanes, &report, &credit),
            report,
            credit,
            with_headers: setup.keeps_http || reads_headers(&setup.info),
            committed_at: time::now(),
            full_since: None,
        }
    }

    fn consume(&mut self) -> Result<(), String> {
        let families = &self.feed.metrics.families;
        let own = labels([("source", &self.setup.info.name)]);
        let (events, bytes) =
            (families.source_events.get_or_create_owned(&own), families.source_bytes.get_or_create_owned(&own));
        let in_flight = families.source_in_flight.get_or_create_owned(&own);
        self.feed.metrics.health.set(&self.setup.info.name, Some("no partitions assigned yet".into()));
        let mut wait = Duration::ZERO;
        while !self.feed.stop.is_set() {
            self.subscribe()?;
            match self.client.poll(wait) {
                Some(Ok(message)) => {
                    events.inc();
                    bytes.inc_by(message.payload_len() as u64);
                    // More may be at hand; only when there is not, or the batch is full, is it sent.
                    wait = Duration::ZERO;
                    if !self.take(&message) {
                        continue;
                    }
                }
                Some(Err(error)) => self.trouble(&error)?,
                None => wait = Duration::from_millis(50),
            }
            if !self.gather.flush(&mut self.client.context().lock().tracker) {
                return Err("the workers are gone".into());
            }
            self.settle(Duration::ZERO);
            self.press();
            in_flight.set(self.credit.events());
        }
        Ok(())
    }

    /// Subscribes, also again after an assignment that could not be taken up.
    fn subscribe(&mut self) -> Result<(), String> {
        if self.client.context().subscribed.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let topics: Vec<&str> = self.source.topics.iter().map(String::as_str).collect();
        self.client.subscribe(&topics).map_err(|error| format!("cannot subscribe: {error}"))
    }

    /// Takes a record; returns whether its batch is full.
    fn take(&mut self, message: &BorrowedMessage<'_>) -> bool {
        let mut group = self.client.context().lock();
        let number = group.number(message.topic(), message.partition());
        let topic = Arc::clone(&group.names[number as usize].0);
        // Asking for headers parses them.
        let headers = if self.with_headers { message.headers() } else { None };
        let headers = headers.map_or_else(Vec::new, |headers| {
            let pair = |header: Header<'_, &[u8]>| (header.key.to_owned(), header.value.unwrap_or_default().to_vec());
            headers.iter().map(pair).collect()
        });
        let reading = Reading {
            topic: &topic,
            partition: message.partition(),
            number,
            offset: message.offset(),
            order: message.offset(),
            key: message.key(),
            payload: message.payload().unwrap_or_default(),
            headers,
            time_millis: message.timestamp().to_millis().unwrap_or_else(time::wall_millis),
        };
        self.gather.push(reading, &group.tracker)
    }

    /// Takes reports and commits at intervals.
    fn settle(&mut self, wait: Duration) {
        let runs = self.report.take(wait);
        let due = self.committed_at.elapsed() >= COMMIT_INTERVAL;
        if runs.is_empty() && !due {
            return;
        }
        let mut group = self.client.context().lock();
        group.settle(&runs);
        if due {
            self.committed_at = time::now();
            group.commit(self.client, CommitMode::Async);
        }
    }

    /// Back-pressure: a full window is waited for, then the partitions that fill it are paused, until half is free.
    fn press(&mut self) {
        while !self.full().is_empty() && !self.feed.stop.is_set() {
            let since = *self.full_since.get_or_insert_with(time::now);
            if since.elapsed() >= STALL {
                return self.pause();
            }
            self.settle(Duration::from_millis(5));
        }
        self.full_since = None;
        if !self.client.context().lock().paused.is_empty() {
            self.resume();
        }
    }

    /// The partitions that may not be read further now.
    fn full(&self) -> Vec<u32> {
        let group = self.client.context().lock();
        let assigned: Vec<u32> = group.assigned().collect();
        let share = assigned.len().max(1) as u64;
        let (events, bytes) = (u64::from(self.setup.window.events) / share, self.setup.window.bytes / share);
        let all = self.credit.exhausted();
        let over = |number: &u32| {
            let (open_events, open_bytes) = group.tracker.in_flight(*number);
            open_events > 0 && (all || open_events >= events.max(1) || open_bytes >= bytes.max(1))
        };
        assigned.into_iter().filter(|number| !group.paused.contains(number) && over(number)).collect()
    }

    fn pause(&mut self) {
        self.full_since = None;
        let numbers = self.full();
        let mut group = self.client.context().lock();
        if let Err(error) = self.client.pause(&group.list(numbers.iter().copied())) {
            tracing::warn!("cannot pause: {error}");
            return;
        }
        tracing::info!(source = %self.setup.info.name, partitions = numbers.len(), "paused: deliveries do not settle");
        group.paused.extend(numbers);
        self.note_paused(group.paused.len());
    }

    fn resume(&mut self) {
        let mut group = self.client.context().lock();
        let share = group.assigned().count().max(1) as u64;
        let half = (u64::from(self.setup.window.events) / share / 2, self.setup.window.bytes / share / 2);
        let exhausted = self.credit.exhausted();
        let free: Vec<u32> = group
            .paused
            .iter()
            .copied()
            .filter(|&number| {
                let (events, bytes) = group.tracker.in_flight(number);
                events <= half.0 && bytes <= half.1 && !exhausted
            })
            .collect();
        if free.is_empty() {
            return;
        }
        if let Err(error) = self.client.resume(&group.list(free.iter().copied())) {
            tracing::warn!("cannot resume: {error}");
            return;
        }
        group.paused.retain(|number| !free.contains(number));
        self.note_paused(group.paused.len());
    }

    fn note_paused(&self, count: usize) {
        let own = labels([("source", &self.setup.info.name)]);
        let gauge = self.feed.metrics.families.source_paused.get_or_create_owned(&own);
        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Decides whether the source can go on after an error.
    fn trouble(&self, error: &KafkaError) -> Result<(), String> {
        let fatal = match error {
            KafkaError::MessageConsumptionFatal(code) => Some(*code),
            KafkaError::MessageConsumption(code) => matches!(
                code,
                RDKafkaErrorCode::AutoOffsetReset
                    | RDKafkaErrorCode::OffsetOutOfRange
                    | RDKafkaErrorCode::FencedInstanceId
                    | RDKafkaErrorCode::GroupAuthorizationFailed
                    | RDKafkaErrorCode::TopicAuthorizationFailed
            )
            .then_some(*code),
            _ => None,
        };
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::InconsistentGroupProtocol) {
            let why = "the group's other members have another partition.assignment.strategy; stop them, or take theirs";
            tracing::warn!(source = %self.setup.info.name, "{why}");
            self.feed.metrics.health.set(&self.setup.info.name, Some(why.into()));
        }
        let Some(code) = fatal else {
            tracing::debug!(source = %self.setup.info.name, "consumer: {error}");
            return Ok(());
        };
        let remedy = match code {
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => {
                "the committed offset is gone from the topic, events were removed unread; set the group's offset with \
                 kafka-consumer-groups --reset-offsets and start again"
            }
            RDKafkaErrorCode::FencedInstanceId => "another process runs with the same instance_id; give each its own",
            RDKafkaErrorCode::GroupAuthorizationFailed | RDKafkaErrorCode::TopicAuthorizationFailed => {
                "allow the client to read the group and its topics"
            }
            _ => "the client cannot go on",
        };
        Err(format!("{code}: {remedy}"))
    }

    /// Reads no more, but polls until everything is settled, then commits. The process ends at its deadline anyway.
    fn drain(&mut self) {
        let mut group = self.client.context().lock();
        self.gather.flush(&mut group.tracker);
        if planted::on(Bug::FlushSkipped) {
            group.tracker.give_up();
            return group.commit(self.client, CommitMode::Sync);
        }
        let assigned: Vec<u32> = group.assigned().collect();
        drop(self.client.pause(&group.list(assigned)));
        drop(group);
        while !self.client.context().lock().tracker.idle() {
            // Paused partitions give nothing; polling keeps the membership. What was fetched before is read again.
            drop(self.client.poll(Duration::ZERO));
            self.settle(Duration::from_millis(10));
        }
        self.client.context().lock().commit(self.client, CommitMode::Sync);
    }
}

/// Whether the framing takes anything from headers.
fn reads_headers(info: &SourceInfo) -> bool {
    match &info.framing {
        Framing::EventBridge => false,
        Framing::CloudEvents => true,
        Framing::Raw { source, detail_type } => {
            [source, detail_type].iter().any(|origin| matches!(origin, Origin::Header(_)))
        }
    }
}

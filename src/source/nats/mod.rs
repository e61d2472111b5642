//! NATS: a JetStream pull consumer, acknowledged when settled; or a subject of core NATS, best effort.
//!
//! One subject always takes the same lane, so its first attempts keep their order (I8). While a delivery is open the
//! server is told so at a third of `ack_wait`; after a crash it gives the messages to another instance. Messages are
//! pulled only as credit allows, so none waits unread with us (I7).

mod core;
mod jetstream;
mod removals;

pub use jetstream::JetStream;

use super::batch::{Gather, Reading};
use super::{Feed, Setup};
use crate::ack::{OffsetTracker, Report};
use crate::catalog::NatsClient;
use crate::credit::Credit;
use crate::metrics::labels;
use crate::transform::wrap::Framing;
use async_nats::{Event, Message, Subject};
use futures_util::{FutureExt, Stream, StreamExt};
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

/// The most messages asked for at once.
const PULL: usize = 1024;
/// How long an idle source waits before it looks around.
const LOOK: Duration = Duration::from_millis(50);
/// The same while deliveries are open: their reports become acknowledgements.
const LOOK_BUSY: Duration = Duration::from_millis(5);

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

impl NatsSource {
    /// Reads until [`super::Stop`], then until everything read is settled and acknowledged.
    pub fn run(self, setup: &Setup, feed: &Feed) {
        let read = match self {
            Self::JetStream(source) => source.run(setup, feed),
            Self::Core { client, subject, queue } => core::run(&client, &subject, queue, setup, feed),
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
    in_flight: prometheus_client::metrics::gauge::Gauge,
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
            with_headers: setup.keeps_http || setup.info.framing != Framing::EventBridge,
            events: families.source_events.get_or_create_owned(&own),
            bytes: families.source_bytes.get_or_create_owned(&own),
            in_flight: families.source_in_flight.get_or_create_owned(&own),
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
        self.in_flight.set(self.credit.events());
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

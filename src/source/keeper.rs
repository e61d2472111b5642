//! Buses whose own topic or stream keeps what comes over HTTP: written there before the request is answered.
//!
//! In: [`Arrival`]s. Out: a record or message each, and for each arrival a word when the broker has acknowledged it.
//! Promises: nothing of an event stays in this process; what waits for the broker is bounded (I7); an answer is given
//! by the deadline. Leaves to others: reading the event back and routing it, which the bus's own source does (`kafka`,
//! `nats`) as with everything else it reads.

use super::inlet::{Arrival, Refused};
use super::room::{Room, Taken};
use crate::catalog::NatsClient;
use crate::credit::Window;
use crate::envelope::TRACE_HEADER;
use crate::kafka::producer::{Outgoing, Producers, TopicSink};
use crate::metrics::Metrics;
use crate::nats::{self, Refusals};
use crate::time;
use async_nats::Event;
use async_nats::jetstream::context::{ContextBuilder, PublishErrorKind};
use async_nats::jetstream::{Context, message::PublishMessage};
use bytes::Bytes;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout_at};

/// Commands that the NATS client holds, an event each: with a server that does not read they stay in memory.
const COMMANDS: usize = 64;
/// How long a stream that nobody answers for may take to come up, and how often it is asked meanwhile.
const COMING_UP: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_millis(100);

/// The keepers of all such buses.
pub struct Keepers {
    buses: HashMap<String, Keeper>,
    producers: Producers<Record>,
    room: Room,
    /// How long a broker may take.
    patience: Duration,
    metrics: Arc<Metrics>,
}

struct Keeper {
    place: Place,
    /// The last event was not kept.
    failing: AtomicBool,
}

enum Place {
    Topic(TopicSink<Record>),
    Stream(Box<Stream>),
}

impl Keepers {
    /// No keepers yet, of events of `event_bytes` at most; all of them together hold no more than `window`.
    pub fn new(event_bytes: u64, window: Window, patience: Duration, metrics: &Arc<Metrics>) -> Self {
        let producers = Producers::new(event_bytes, metrics);
        Self { buses: HashMap::new(), producers, room: Room::new(window), patience, metrics: Arc::clone(metrics) }
    }

    /// Has a topic keep the events of a bus.
    ///
    /// # Errors
    /// Properties that the client refuses.
    pub fn topic(&mut self, bus: &str, mut client: BTreeMap<String, String>, topic: &str) -> Result<(), String> {
        // Nobody hears of it after that, so it need not be tried any longer; 0 would mean for ever.
        client.insert("message.timeout.ms".into(), self.patience.as_millis().max(1000).to_string());
        let sink = self.producers.topic(&Arc::new(client), topic)?;
        self.add(bus, Place::Topic(sink));
        Ok(())
    }

    /// Has a stream keep the events of a bus, under one subject.
    ///
    /// # Errors
    /// Certificates or credentials that cannot be used.
    pub async fn stream(&mut self, bus: &str, client: &NatsClient, stream: &str, subject: &str) -> Result<(), String> {
        let stream = Stream::open(client, stream, subject, self.patience).await?;
        self.add(bus, Place::Stream(Box::new(stream)));
        Ok(())
    }

    fn add(&mut self, bus: &str, place: Place) {
        self.buses.insert(bus.to_owned(), Keeper { place, failing: AtomicBool::new(false) });
    }

    /// Writes an event and waits until the broker has it, `deadline` at most.
    ///
    /// # Errors
    /// [`Refused`]; the event may be delivered all the same where no answer came.
    pub async fn keep(&self, arrival: Arrival, deadline: Instant) -> Result<(), Refused> {
        let Some(keeper) = self.buses.get(&*arrival.info.bus) else {
            return Err(Refused::Broker(format!("no topic or stream of bus {} is known", arrival.info.bus)));
        };
        let room = self.room.take(arrival.event.len(), deadline).await?;
        arrival.count(&self.metrics);
        let bus = Arc::clone(&arrival.info.bus);
        let kept = match &keeper.place {
            Place::Topic(topic) => write(topic, arrival, room, deadline).await,
            Place::Stream(stream) => stream.publish(arrival, deadline).await,
        };
        if keeper.failing.swap(kept.is_err(), Ordering::Relaxed) || kept.is_err() {
            let why = kept.as_ref().err();
            let note = why.map(|why| format!("the last event that came over HTTP was not kept: {why}"));
            self.metrics.health.note(&format!("bus {bus}"), note);
        }
        kept.map_err(Refused::Broker)
    }
}

/// What says that nobody knows.
fn late(place: &str, why: Option<String>) -> String {
    let why = why.map_or_else(String::new, |why| format!(" ({why})"));
    format!("{place}: no acknowledgement in time{why}; the event may still be delivered")
}

/// An event on its way to a topic. It takes its room along: the client may hold it longer than its caller waits.
struct Record {
    event: Bytes,
    trace: Option<Arc<str>>,
    word: oneshot::Sender<Result<(), KafkaError>>,
    _room: Taken,
}

impl Outgoing for Record {
    type Bytes = Bytes;

    fn payload(&self) -> Bytes {
        self.event.clone()
    }

    fn key(&self) -> Option<Bytes> {
        None
    }

    fn headers(&self) -> OwnedHeaders {
        let trace = self.trace.as_ref().map(|trace| Header { key: TRACE_HEADER, value: Some(trace.as_ref()) });
        trace.map_or_else(OwnedHeaders::new, |trace| OwnedHeaders::new().insert(trace))
    }

    fn written(self, _topic: &str, result: Result<(), KafkaError>) {
        // A caller that has gone does not hear it.
        self.word.send(result).unwrap_or_default();
    }
}

async fn write(topic: &TopicSink<Record>, arrival: Arrival, room: Taken, deadline: Instant) -> Result<(), String> {
    let (word, heard) = oneshot::channel();
    topic.submit(Record { event: arrival.event.into(), trace: arrival.trace, word, _room: room });
    let place = format!("topic {}", topic.name());
    match timeout_at(deadline, heard).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(error))) if error.rdkafka_error_code() != Some(RDKafkaErrorCode::MessageTimedOut) => {
            Err(format!("{place}: {error}"))
        }
        _ => Err(late(&place, topic.trouble())),
    }
}

/// A subject of a stream.
struct Stream {
    context: Context,
    stream: String,
    subject: String,
    /// See [`is_up`].
    link: watch::Receiver<u64>,
    refusals: Arc<Refusals>,
}

/// Whether there is a connection. It is counted how often there was one and how often none, beginning with none.
fn is_up(count: u64) -> bool {
    !count.is_multiple_of(2)
}

impl Stream {
    async fn open(client: &NatsClient, stream: &str, subject: &str, patience: Duration) -> Result<Self, String> {
        let refusals = Arc::new(Refusals::default());
        let (told, link) = watch::channel(0);
        let noting = Arc::clone(&refusals);
        let options = nats::options(client).await?.retry_on_initial_connect().client_capacity(COMMANDS);
        let options = options.event_callback(move |event| {
            nats::log(&event);
            noting.note(&event);
            let up = match event {
                Event::Connected => Some(true),
                Event::Disconnected | Event::Closed => Some(false),
                _ => None,
            };
            told.send_if_modified(|count| {
                let turned = up.is_some_and(|up| up != is_up(*count));
                *count += u64::from(turned);
                turned
            });
            std::future::ready(())
        });
        let connection = options.connect(client.servers.as_slice()).await.map_err(|error| nats::causes(&error))?;
        let context = ContextBuilder::new().timeout(patience).ack_timeout(patience).build(connection);
        Ok(Self { context, stream: stream.to_owned(), subject: subject.to_owned(), link, refusals })
    }

    /// Publishes an event until the stream has it. What goes with a connection is published again on the next one: the
    /// stream knows the event by its id.
    async fn publish(&self, arrival: Arrival, deadline: Instant) -> Result<(), String> {
        let mut message = PublishMessage::build().message_id(&arrival.id).expected_stream(&self.stream);
        if let Some(trace) = &arrival.trace {
            message = message.header(TRACE_HEADER, trace.as_ref());
        }
        let message = message.payload(arrival.event.into());
        let place = format!("subject {}", self.subject);
        let (mut link, refused, begin) = (self.link.clone(), self.refusals.count(), time::now());
        let published = async {
            loop {
                // The client would send what it holds whenever it has a connection, long after we said that it failed.
                let Ok(since) = link.wait_for(|count| is_up(*count)).await.map(|count| *count) else {
                    return Err("the connection has ended".to_owned());
                };
                let answer = async { self.context.send_publish(self.subject.clone(), message.clone()).await?.await };
                let error = tokio::select! {
                    answer = answer => match answer {
                        Ok(_) => return Ok(()),
                        Err(error) => error,
                    },
                    _ = link.wait_for(|count| *count != since) => continue,
                };
                match error.kind() {
                    // Nobody answers for the stream: it may be coming up, or having an election.
                    PublishErrorKind::StreamNotFound if begin.elapsed() < COMING_UP => tokio::time::sleep(AGAIN).await,
                    PublishErrorKind::StreamNotFound => return Err(format!("stream {} is not there", self.stream)),
                    PublishErrorKind::TimedOut => return std::future::pending().await,
                    _ => return Err(nats::causes(&error)),
                }
            }
        };
        match timeout_at(deadline, published).await {
            Ok(result) => result.map_err(|why| format!("{place}: {why}")),
            Err(_) if self.refusals.publishing(&self.subject, refused) => {
                let help = "give the user of `auth` permission for it";
                Err(format!("{place}: the NATS server does not let us publish; {help}"))
            }
            Err(_) if !is_up(*self.link.borrow()) => {
                Err(late(&place, Some("no connection to the NATS servers".to_owned())))
            }
            Err(_) => Err(late(&place, None)),
        }
    }
}

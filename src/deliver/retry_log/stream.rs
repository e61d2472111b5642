//! A retry log in a JetStream stream: for sources that read from JetStream, so that what waits needs no disk and comes to
//! whichever instance has room for it.
//!
//! The stream keeps a message until it is acknowledged; each target has a subject and a durable consumer of its own. What
//! is not due is given back with a delay, so the server holds it, and it stands before nothing. An attempt that failed
//! publishes its message anew with its new state, under an identity that the stream takes once, and acknowledges the old
//! one. There is no order among instances; targets that keep one do not wait here.

use super::Ticket;
use super::store::Kind;
use crate::catalog::NatsClient;
use crate::deliver::parcel::Kept;
use crate::journal::{JournalError, Outcome};
use crate::nats::{self, NatsError};
use crate::time;
use async_nats::Client;
use async_nats::jetstream;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy};
use bytes::Bytes;
use futures_util::StreamExt;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// After how long without a word a message is given to another instance.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// How often it is said that messages are being worked on.
const PROGRESS: Duration = Duration::from_secs(10);
/// Messages and bytes that are here at once.
const HERE: (usize, usize) = (1_000, 4 << 20);
/// What is due later is given back.
const SOON: Duration = Duration::from_secs(1);
/// How often it is asked for what others have left.
const ASK: Duration = Duration::from_secs(5);
/// Publications under way at once.
const WINDOW: usize = 2_048;
/// How long one may take, and how long a request for messages.
const PATIENCE: Duration = Duration::from_secs(10);
const PULL: Duration = Duration::from_millis(100);

/// The retry stream of one source.
pub struct RetryStream {
    /// The source.
    pub source: Arc<str>,
    /// The bus that it feeds.
    pub bus: String,
    /// The stream that the source reads.
    pub of: String,
    /// The retry stream; what begins its subjects, too.
    pub stream: String,
    /// Largest event.
    pub event_bytes: u64,
    client: NatsClient,
    runtime: Handle,
    connection: tokio::sync::OnceCell<Client>,
}

impl RetryStream {
    /// The retry stream of `source`, which feeds `bus` from stream `of`.
    pub fn new(
        (source, bus): (&str, &str),
        (of, stream): (&str, &str),
        client: NatsClient,
        event_bytes: u64,
        runtime: &Handle,
    ) -> Arc<Self> {
        Arc::new(Self {
            source: source.into(),
            bus: bus.to_owned(),
            of: of.to_owned(),
            stream: stream.to_owned(),
            event_bytes,
            client,
            runtime: runtime.clone(),
            connection: tokio::sync::OnceCell::new(),
        })
    }

    fn subject(&self, target: &str) -> String {
        format!("{}.{target}", self.stream)
    }

    async fn connection(&self) -> Result<Client, NatsError> {
        self.connection.get_or_try_init(|| nats::connect(&self.client, |_| {})).await.cloned()
    }

    /// Makes the stream where it is missing, with as many replicas as the source's.
    ///
    /// # Errors
    /// No server answers, or a stream is there that forgets or does not fit.
    pub fn prepare(&self) -> Result<(), NatsError> {
        self.runtime.block_on(async {
            let client = self.connection().await?;
            let refused = |why: String| {
                NatsError::Refused(format!("source {}: retry stream {}: {why}", self.source, self.stream))
            };
            let whose = format!("source {}: retry stream {}", self.source, self.stream);
            nats::takes(&whose, client.max_payload() as u64, self.event_bytes)?;
            let subjects = vec![format!("{}.>", self.stream)];
            match nats::stream(&client, &self.stream).await {
                Ok(found) => {
                    let config = &found.cached_info().config;
                    let bounded = config.max_messages > 0 || config.max_bytes > 0;
                    if config.retention != RetentionPolicy::WorkQueue || config.subjects != subjects {
                        Err(refused(format!("it is no work queue of {}; name another", subjects[0])))
                    } else if !config.max_age.is_zero() || (bounded && config.discard == DiscardPolicy::Old) {
                        let help = "set its max_age to 0, and discard to new where it has limits";
                        Err(refused(format!("it forgets what waits; {help}")))
                    } else {
                        Ok(())
                    }
                }
                Err(NatsError::Missing(_)) => {
                    let num_replicas = nats::stream(&client, &self.of).await?.cached_info().config.num_replicas;
                    let (name, retention) = (self.stream.clone(), RetentionPolicy::WorkQueue);
                    let config = Config { name, subjects, retention, num_replicas, ..Config::default() };
                    let made = jetstream::new(client).create_stream(config).await;
                    let made = made.map_err(|error| refused(nats::causes(&error)))?;
                    tracing::info!(stream = made.cached_info().config.name, "retry stream created");
                    Ok(())
                }
                Err(error) => Err(error),
            }
        })
    }

    /// The targets that something waits for.
    ///
    /// # Errors
    /// No server answers.
    pub fn existing(&self) -> Result<Vec<String>, NatsError> {
        let begin = format!("{}.", self.stream);
        self.runtime.block_on(async {
            let client = self.connection().await?;
            let stream = nats::stream(&client, &self.stream).await?;
            let unknown = |why: String| NatsError::Unreachable(format!("stream {}: {why}", self.stream));
            let info = stream.info_with_subjects(format!("{begin}>")).await;
            let mut subjects = info.map_err(|error| unknown(nats::causes(&error)))?;
            let mut targets = Vec::new();
            while let Some(subject) = subjects.next().await {
                let (subject, _) = subject.map_err(|error| unknown(nats::causes(&error)))?;
                targets.extend(subject.strip_prefix(&begin).map(str::to_owned));
            }
            Ok(targets)
        })
    }
}

/// One target's log in its source's retry stream.
pub struct StreamStore {
    /// The subject.
    pub subject: String,
    /// What it shares with the logs of other targets.
    pub shared: Arc<RetryStream>,
    target: String,
    state: Mutex<State>,
    /// A publication has ended.
    written: Condvar,
    outcome: Outcome<Ticket>,
}

#[derive(Default)]
struct State {
    next: u64,
    here: HashMap<u64, Message>,
    bytes: usize,
    consumer: Option<PullConsumer>,
    /// Publications under way.
    publishing: usize,
    /// Messages that the server has for us, as far as is known.
    pending: u64,
    asked_at: Option<Instant>,
    told_at: Option<Instant>,
    /// Nothing is asked of the server before.
    pause: Option<Instant>,
}

/// A message that the server gave us.
struct Message {
    reply: String,
    body: Bytes,
}

impl StreamStore {
    /// The log of a target.
    pub(super) fn new(target: &str, shared: &Arc<RetryStream>, outcome: Outcome<Ticket>) -> Arc<Self> {
        Arc::new(Self {
            subject: shared.subject(target),
            shared: Arc::clone(shared),
            target: target.to_owned(),
            // What is there is not known before it is asked for.
            state: Mutex::new(State { pending: 1, ..State::default() }),
            written: Condvar::new(),
            outcome,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`crate::journal::Journal::put`].
    pub(super) fn put(
        self: &Arc<Self>,
        kind: Kind,
        body: Vec<u8>,
        ticket: Ticket,
    ) -> Result<u64, (Ticket, JournalError)> {
        let mut state = self.state();
        let refusal = match state.publishing {
            _ if kind.ordered => Some("it keeps no order"),
            WINDOW.. => Some("too many messages are under way to it"),
            _ => None,
        };
        if let Some(why) = refusal {
            return Err((ticket, JournalError::Full(format!("stream {}: {why}", self.shared.stream))));
        }
        let sequence = state.next;
        state.next += 1;
        state.publishing += 1;
        drop(state);
        let store = Arc::clone(self);
        self.shared.runtime.spawn(async move {
            let result = store.publish(body).await;
            let mut state = store.state();
            state.publishing -= 1;
            state.pending += u64::from(result.is_ok());
            drop(state);
            store.written.notify_all();
            let result = result.map_err(|why| JournalError::Full(format!("stream {}: {why}", store.shared.stream)));
            (store.outcome)(vec![(ticket, sequence)], result);
        });
        Ok(sequence)
    }

    async fn publish(&self, body: Vec<u8>) -> Result<(), String> {
        let client = self.shared.connection().await.map_err(|error| error.to_string())?;
        let mut message = PublishMessage::build();
        // The same state of the same delivery is kept once: two that fail together after a crash become one again.
        if let Some((kept, _)) = Kept::decode(&body).filter(|(kept, _)| kept.attempts.failed > 0) {
            message = message.message_id(format!("{:032x}-{}", kept.id(), kept.attempts.failed));
        }
        let sent = jetstream::new(client).send_publish(self.subject.clone(), message.payload(body.into())).await;
        let ack = sent.map_err(|error| nats::causes(&error))?;
        match tokio::time::timeout(PATIENCE, ack).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(nats::causes(&error)),
            Err(_) => Err("the server does not answer".to_owned()),
        }
    }

    /// A record is done with.
    pub fn remove(&self, sequence: u64) {
        if let Some(message) = self.take(sequence) {
            self.say(vec![message.reply], Bytes::from_static(b"+ACK"));
        }
    }

    fn take(&self, sequence: u64) -> Option<Message> {
        let mut state = self.state();
        let message = state.here.remove(&sequence)?;
        state.bytes -= message.body.len();
        Some(message)
    }

    /// Says a word about messages; one that is lost has the message come again.
    fn say(&self, replies: Vec<String>, word: Bytes) {
        let shared = Arc::clone(&self.shared);
        self.shared.runtime.spawn(async move {
            let Ok(client) = shared.connection().await else { return };
            for reply in replies {
                if client.publish(reply, word.clone()).await.is_err() {
                    return;
                }
            }
        });
    }

    /// Whether a record is here.
    pub fn is_known(&self, sequence: u64) -> bool {
        self.state().here.contains_key(&sequence)
    }

    /// Reads a record.
    pub fn read(&self, sequence: u64) -> io::Result<Vec<u8>> {
        let gone = || io::Error::new(io::ErrorKind::NotFound, format!("record {sequence} is gone"));
        self.state().here.get(&sequence).map(|message| message.body.to_vec()).ok_or_else(gone)
    }

    /// Messages that are not done with, as far as is known.
    pub fn live(&self) -> u64 {
        let state = self.state();
        state.pending + state.here.len() as u64
    }

    /// How many wait that are not here, as far as is known.
    pub fn unread(&self) -> u64 {
        self.state().pending
    }

    /// Takes messages where there is room for them, and says that those here are being worked on.
    pub fn tend(&self, room: bool) -> Vec<(u64, Vec<u8>)> {
        let now = time::now();
        self.progress(now);
        let mut state = self.state();
        let due = state.pending > 0 || state.asked_at.is_none_or(|at| now.duration_since(at) >= ASK);
        let full = state.here.len() >= HERE.0 || state.bytes >= HERE.1;
        if !room || !due || full || state.pause.is_some_and(|until| now < until) {
            return Vec::new();
        }
        state.asked_at = Some(now);
        let wanted = HERE.0 - state.here.len();
        drop(state);
        match self.shared.runtime.block_on(self.pull(wanted)) {
            Ok(messages) => self.taken(messages),
            Err(why) => {
                tracing::warn!(
                    sluice_target = self.target,
                    "retry stream {}: {why}; it is tried again",
                    self.shared.stream
                );
                let mut state = self.state();
                (state.pause, state.consumer) = (Some(now + SOON), None);
                Vec::new()
            }
        }
    }

    fn progress(&self, now: Instant) {
        let mut state = self.state();
        if state.told_at.is_none_or(|at| now.duration_since(at) >= PROGRESS) {
            state.told_at = Some(now);
            let replies: Vec<String> = state.here.values().map(|message| message.reply.clone()).collect();
            drop(state);
            self.say(replies, Bytes::from_static(b"+WPI"));
        }
    }

    async fn consumer(&self) -> Result<PullConsumer, String> {
        if let Some(consumer) = self.state().consumer.clone() {
            return Ok(consumer);
        }
        let client = self.shared.connection().await.map_err(|error| error.to_string())?;
        let stream = nats::stream(&client, &self.shared.stream).await.map_err(|error| error.to_string())?;
        // Names of consumers have no dots.
        let durable = self.target.replace('.', "_");
        let config = pull::Config {
            durable_name: Some(durable.clone()),
            description: Some("sluice".into()),
            filter_subject: self.subject.clone(),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_deliver: -1,
            max_ack_pending: -1,
            ..pull::Config::default()
        };
        let made = stream.create_consumer(config).await;
        let made = made.map_err(|error| format!("consumer {durable}: {}", nats::causes(&error)))?;
        self.state().consumer = Some(made.clone());
        Ok(made)
    }

    async fn pull(&self, wanted: usize) -> Result<Vec<jetstream::Message>, String> {
        let consumer = self.consumer().await?;
        let batch = consumer.batch().max_messages(wanted).max_bytes(HERE.1).expires(PULL).messages().await;
        let mut batch = batch.map_err(|error| nats::causes(&error))?;
        let mut messages = Vec::new();
        while let Some(message) = batch.next().await {
            match message {
                Ok(message) => messages.push(message),
                // A request that has been answered as far as its bounds allow.
                Err(error) if error.to_string().contains("Exceeds MaxBytes") => break,
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(messages)
    }

    fn taken(&self, messages: Vec<jetstream::Message>) -> Vec<(u64, Vec<u8>)> {
        let mut records = Vec::new();
        let mut state = self.state();
        if messages.is_empty() {
            state.pending = 0;
        }
        for message in messages {
            state.pending = message.info().map_or(0, |info| info.pending);
            let Some(reply) = message.message.reply.as_ref().map(ToString::to_string) else { continue };
            let body = message.message.payload.clone();
            let due = Kept::decode(&body).map_or(0, |(kept, _)| kept.attempts.due_millis) - time::wall_millis();
            let wait = Duration::from_millis(u64::try_from(due).unwrap_or(0)).min(Duration::from_mins(15));
            if wait > SOON {
                let word = format!("-NAK {{\"delay\": {}}}", wait.as_nanos());
                self.say(vec![reply], word.into());
                continue;
            }
            let sequence = state.next;
            state.next += 1;
            state.bytes += body.len();
            records.push((sequence, body.to_vec()));
            state.here.insert(sequence, Message { reply, body });
        }
        records
    }

    /// Waits until what was published is kept, and gives back what is here.
    pub fn flush(&self, deadline: Instant) {
        let here: Vec<String> =
            std::mem::take(&mut self.state().here).into_values().map(|message| message.reply).collect();
        self.say(here, Bytes::from_static(b"-NAK"));
        let Some(client) = self.shared.connection.get().cloned() else { return };
        let left = deadline.saturating_duration_since(time::now());
        drop(self.written.wait_timeout_while(self.state(), left, |state| state.publishing > 0));
        let left = deadline.saturating_duration_since(time::now());
        let flushed = self.shared.runtime.block_on(async { tokio::time::timeout(left, client.flush()).await });
        if !matches!(flushed, Ok(Ok(()))) {
            tracing::warn!("retry stream {} not flushed: what is done with may come again", self.shared.stream);
        }
    }
}

//! Archived events in a JetStream stream: read by a consumer that lasts as long as it is used, written one message an event.

use super::broker::{ARCHIVE_HEADER, Bounds, Record};
use crate::catalog::NatsTarget;
use crate::nats;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{Message, stream::Stream};
use async_nats::{Client, HeaderMap};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use siphasher::sip128::{Hasher128, SipHasher13};
use std::collections::VecDeque;
use std::hash::Hasher;
use std::io;
use std::time::Duration;
use tokio::runtime::Handle;

/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Messages and bytes of a request.
const TOGETHER: (usize, usize) = (1000, 4 << 20);
/// After how long without a request the server forgets the consumer.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// Publications under way at once.
const WINDOW: usize = 256;

/// Reads a stream.
pub(super) struct StreamReader {
    runtime: Handle,
    stream: Stream,
    subject: String,
    name: String,
    /// What the server gives next begins here.
    consumer: Option<(u64, PullConsumer)>,
    /// Messages that were given beyond what was wanted.
    ahead: VecDeque<Message>,
}

/// What a server says of a request that it has answered as far as its bounds allow.
const ENDS: [&str; 2] = ["Exceeds MaxBytes", "Batch Completed"];

/// It may be there again later.
fn away(name: &str, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, format!("stream {name}: {why}"))
}

fn link(target: &NatsTarget) -> impl Future<Output = io::Result<Client>> {
    let connecting = nats::connect(&target.client, |_| {});
    async { connecting.await.map_err(|error| io::Error::new(io::ErrorKind::NotConnected, error.to_string())) }
}

impl StreamReader {
    pub async fn open(target: &NatsTarget, name: &str, runtime: &Handle) -> io::Result<Self> {
        let client = link(target).await?;
        let stream = nats::stream(&client, name).await.map_err(|error| away(name, &error.to_string()))?;
        let (subject, name, runtime) = (target.subject.to_string(), name.to_owned(), runtime.clone());
        Ok(Self { runtime, stream, subject, name, consumer: None, ahead: VecDeque::new() })
    }

    pub fn bounds(&mut self) -> io::Result<Vec<Bounds>> {
        let runtime = self.runtime.clone();
        let asked = runtime.block_on(async { tokio::time::timeout(PATIENCE, self.stream.info()).await });
        match asked {
            Ok(Ok(info)) => {
                let (first, end) = (info.state.first_sequence.max(1), info.state.last_sequence + 1);
                Ok(vec![Bounds { partition: 0, first, end }])
            }
            Ok(Err(error)) => Err(away(&self.name, &nats::causes(&error))),
            Err(_) => Err(away(&self.name, "the server does not answer")),
        }
    }

    pub fn read(
        &mut self,
        (first, end): (u64, u64),
        take: &mut dyn FnMut(&Record<'_>) -> io::Result<()>,
    ) -> io::Result<u64> {
        let mut next = first;
        while next < end {
            let Some(message) = self.message(next)? else { return Ok(end) };
            let info = message.info().map_err(|error| away(&self.name, &error.to_string()))?;
            let (sequence, published) = (info.stream_sequence, info.published.unix_timestamp_nanos() / 1_000_000);
            if sequence >= end {
                self.ahead.push_front(message);
                self.consumer.iter_mut().for_each(|(at, _)| *at = end);
                return Ok(end);
            }
            let of = message.headers.as_ref().and_then(|headers| headers.get(ARCHIVE_HEADER));
            let record = Record {
                offset: sequence,
                written: i64::try_from(published).unwrap_or(i64::MAX),
                of: of.map(|of| of.as_str().as_bytes()),
                text: &message.payload,
            };
            next = sequence + 1;
            take(&record)?;
        }
        Ok(next)
    }

    /// The first message from a sequence on; none where there is no more.
    fn message(&mut self, from: u64) -> io::Result<Option<Message>> {
        let sequence = |message: &Message| message.info().map_or(0, |info| info.stream_sequence);
        let is_next = match (self.ahead.front(), &self.consumer) {
            (Some(message), Some((at, _))) => *at == from && sequence(message) >= from,
            (None, Some((at, _))) => *at == from,
            _ => false,
        };
        if !is_next {
            self.ahead.clear();
            self.consumer = None;
        }
        if self.ahead.is_empty() {
            let runtime = self.runtime.clone();
            self.ahead = runtime.block_on(self.pull(from))?;
        }
        let message = self.ahead.pop_front();
        if let (Some(message), Some((at, _))) = (&message, &mut self.consumer) {
            *at = sequence(message) + 1;
        }
        Ok(message)
    }

    /// Begins what is read anew: a consumer that rests is forgotten by its server.
    pub fn rest(&mut self) {
        self.ahead.clear();
        self.consumer = None;
    }

    async fn pull(&mut self, from: u64) -> io::Result<VecDeque<Message>> {
        let mut messages = VecDeque::new();
        let pulled = tokio::time::timeout(PATIENCE, self.pull_into(from, &mut messages)).await;
        match pulled {
            Ok(Ok(())) => Ok(messages),
            Ok(Err(why)) => Err(away(&self.name, &why)),
            // A server says nothing at the end of a request whose bytes are used up exactly.
            Err(_) if !messages.is_empty() => Ok(messages),
            Err(_) => Err(away(&self.name, "the server does not answer")),
        }
    }

    async fn pull_into(&mut self, from: u64, messages: &mut VecDeque<Message>) -> Result<(), String> {
        let consumer = match &self.consumer {
            Some((_, consumer)) => consumer,
            None => {
                let config = pull::Config {
                    description: Some("sluice".into()),
                    deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: from },
                    ack_policy: AckPolicy::None,
                    filter_subject: self.subject.clone(),
                    inactive_threshold: FORGOTTEN,
                    memory_storage: true,
                    num_replicas: 1,
                    ..pull::Config::default()
                };
                let made = self.stream.create_consumer(config).await.map_err(|error| nats::causes(&error))?;
                &self.consumer.insert((from, made)).1
            }
        };
        let asked = consumer.fetch().max_messages(TOGETHER.0).max_bytes(TOGETHER.1).messages().await;
        let mut asked = asked.map_err(|error| nats::causes(&error))?;
        while let Some(message) = asked.next().await {
            match message {
                Ok(message) => messages.push_back(message),
                // A request that has been answered as far as its bounds allow.
                Err(error) if ENDS.iter().any(|end| error.to_string().contains(end)) => break,
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }
}

/// Publishes a message for each line; the stream has them when this returns. One that it has had within its
/// `duplicate_window` is kept once.
pub(super) async fn write(target: &NatsTarget, archive: &str, lines: &[u8]) -> io::Result<()> {
    let failed =
        |why: String| io::Error::new(io::ErrorKind::NotConnected, format!("subject {}: {why}", target.subject));
    let client = link(target).await?;
    let context = ContextBuilder::new().timeout(PATIENCE).ack_timeout(PATIENCE).build(client);
    let mut open = FuturesUnordered::new();
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let mut hasher = SipHasher13::new();
        hasher.write(archive.as_bytes());
        hasher.write(line);
        let mut headers = HeaderMap::new();
        headers.insert(ARCHIVE_HEADER, archive);
        let id = format!("{:032x}", hasher.finish128().as_u128());
        let message = PublishMessage::build().headers(headers).message_id(id).payload(line.to_vec().into());
        let sent = context.send_publish(target.subject.to_string(), message).await;
        open.push(sent.map_err(|error| failed(nats::causes(&error)))?.into_future());
        if open.len() >= WINDOW
            && let Some(Err(error)) = open.next().await
        {
            return Err(failed(nats::causes(&error)));
        }
    }
    while let Some(answer) = open.next().await {
        answer.map_err(|error| failed(nats::causes(&error)))?;
    }
    Ok(())
}

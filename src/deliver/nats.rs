//! Publishing to NATS: one connection per set of servers and credentials, many publications under way at once.
//!
//! JetStream settles by the stream's acknowledgement, with `Nats-Msg-Id` so that the stream itself drops what it has
//! seen. Core NATS settles when the server has read the message: best effort.

use super::retry::Failure;
use super::{Delivery, Sink, TRACE_HEADER, dead_letter};
use crate::archive::ARCHIVE_HEADER;
use crate::catalog::{NatsClient, NatsTarget};
use crate::nats::{self, Refusals};
use crate::transform::Subject;
use async_nats::jetstream::context::{ContextBuilder, PublishErrorKind};
use async_nats::jetstream::{Context, message::PublishMessage};
use async_nats::{Client, HeaderMap, PublishError};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, WeakUnboundedSender, unbounded_channel};

/// Publications under way at once; the client's own bound is 5,000.
const WINDOW: usize = 2048;
/// How long a publication may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections by their servers and credentials.
#[derive(Default)]
pub struct Connections {
    /// Sinks keep them open.
    open: Vec<(Arc<NatsClient>, WeakUnboundedSender<Box<Delivery>>)>,
}

impl Connections {
    /// A sink for a subject, on a connection shared with other targets of the same servers and credentials.
    pub fn subject(&mut self, target: &NatsTarget) -> SubjectSink {
        self.open.retain(|(_, queue)| queue.strong_count() > 0);
        let known = self.open.iter().find(|(client, _)| *client == target.client);
        let queue = match known.and_then(|(_, queue)| queue.upgrade()) {
            Some(queue) => queue,
            None => {
                let (queue, deliveries) = unbounded_channel();
                self.open.push((Arc::clone(&target.client), queue.downgrade()));
                spawn(Arc::clone(&target.client), deliveries);
                queue
            }
        };
        SubjectSink { subject: target.subject.clone(), jetstream: target.jetstream, archive: None, queue }
    }

    /// A sink for a subject of a stream that keeps an archive.
    pub fn archive(&mut self, target: &NatsTarget, archive: &str) -> SubjectSink {
        SubjectSink { archive: Some(archive.into()), ..self.subject(target) }
    }
}

/// One subject, or one template of subjects.
pub struct SubjectSink {
    subject: Subject,
    jetstream: bool,
    /// The archive that it keeps, if it does.
    archive: Option<Arc<str>>,
    /// Bounded by the credit of the events in it.
    queue: UnboundedSender<Box<Delivery>>,
}

impl SubjectSink {
    /// Queues a delivery for the connection.
    pub fn submit(&self, delivery: Delivery) {
        if let Err(refused) = self.queue.send(Box::new(delivery)) {
            refused.0.finish(Err(Failure::retry("CONNECTION_FAILURE", "the NATS connection has ended")));
        }
    }

    /// Where a delivery goes: its own subject where the target has a template.
    fn subject(&self, delivery: &Delivery) -> String {
        match (self.subject.fixed(), &delivery.key) {
            (None, Some(subject)) => String::from_utf8_lossy(subject).into_owned(),
            _ => self.subject.to_string(),
        }
    }
}

/// What there was when something was sent.
#[derive(Clone, Copy)]
struct Since {
    connection: u64,
    refusals: u64,
}

impl Since {
    fn now(client: &Client, refusals: &Refusals) -> Self {
        Self { connection: connection(client), refusals: refusals.count() }
    }
}

/// A connection, and what was refused on it.
type Link = (Client, Arc<Refusals>);
type Ended = (Box<Delivery>, Result<(), Failure>);

/// A connection has a thread of its own. What is ready first there runs first, so the server's refusals, which the
/// client tells through a task of their own, are noted before the answers that came after them are seen.
fn spawn(servers: Arc<NatsClient>, deliveries: UnboundedReceiver<Box<Delivery>>) {
    let work = move || match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run(servers, deliveries)),
        Err(error) => tracing::error!("cannot start a NATS connection: {error}"),
    };
    if let Err(error) = std::thread::Builder::new().name("sluice-out-nats".into()).spawn(work) {
        tracing::error!("cannot start a NATS connection: {error}");
    }
}

/// Publishes until no sink is left.
async fn run(servers: Arc<NatsClient>, mut deliveries: UnboundedReceiver<Box<Delivery>>) {
    // What was fine when the plan was made may not be any more, a file gone: each attempt says so, and tries anew.
    let refusals = Arc::new(Refusals::default());
    let client = loop {
        match connect(&servers, &refusals).await {
            Ok(client) => break client,
            Err(why) => match deliveries.recv().await {
                Some(delivery) => delivery.finish(Err(Failure::retry("CONNECTION_FAILURE", why))),
                None => return,
            },
        }
    };
    let context = ContextBuilder::new()
        .timeout(PATIENCE)
        .ack_timeout(PATIENCE)
        .max_ack_inflight(WINDOW * 2)
        .backpressure_on_inflight(true)
        .build(client.clone());
    let mut acknowledged = FuturesUnordered::new();
    let mut flushed = FuturesUnordered::new();
    let mut arrived = Vec::new();
    loop {
        tokio::select! {
            Some(ended) = acknowledged.next(), if !acknowledged.is_empty() => finish(ended),
            Some(all) = flushed.next(), if !flushed.is_empty() => {
                let all: Vec<Ended> = all;
                all.into_iter().for_each(finish);
            }
            count = deliveries.recv_many(&mut arrived, 256), if acknowledged.len() + flushed.len() < WINDOW => {
                if count == 0 {
                    break;
                }
                let (mut sent, since) = (Vec::new(), Since::now(&client, &refusals));
                for delivery in arrived.drain(..) {
                    let Sink::Nats(sink) = &delivery.outlet.sink else { continue };
                    let (subject, jetstream) = (sink.subject(&delivery), sink.jetstream);
                    if jetstream {
                        match publish(&context, &subject, &delivery).await {
                            Ok(ack) => {
                                let link = (client.clone(), Arc::clone(&refusals));
                                acknowledged.push(acknowledge(ack, delivery, link, since, subject));
                            }
                            Err(failure) => delivery.finish(Err(failure)),
                        }
                    } else {
                        let message = Bytes::copy_from_slice(&delivery.payload);
                        match client.publish_with_headers(subject.clone(), headers(&delivery), message).await {
                            Ok(()) => sent.push((delivery, subject)),
                            Err(error) => delivery.finish(Err(unsent(&error))),
                        }
                    }
                }
                if !sent.is_empty() {
                    flushed.push(confirm((client.clone(), Arc::clone(&refusals)), since, sent));
                }
            }
        }
    }
    while let Some(ended) = acknowledged.next().await {
        finish(ended);
    }
    while let Some(all) = flushed.next().await {
        all.into_iter().for_each(finish);
    }
}

fn finish((delivery, result): Ended) {
    delivery.finish(result);
}

/// Connects however long it takes: servers were there when the plan was made.
async fn connect(servers: &NatsClient, refusals: &Arc<Refusals>) -> Result<Client, String> {
    let refusals = Arc::clone(refusals);
    let options = nats::options(servers).await?.retry_on_initial_connect().event_callback(move |event| {
        nats::log(&event);
        refusals.note(&event);
        std::future::ready(())
    });
    options.connect(servers.servers.as_slice()).await.map_err(|error| nats::causes(&error))
}

async fn publish(
    context: &Context,
    subject: &str,
    delivery: &Delivery,
) -> Result<async_nats::jetstream::context::PublishAckFuture, Failure> {
    let message = PublishMessage::build()
        .payload(Bytes::copy_from_slice(&delivery.payload))
        .headers(headers(delivery))
        .message_id(delivery.id.to_string());
    context.send_publish(subject.to_owned(), message).await.map_err(|error| match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => too_large(&nats::causes(&error)),
        PublishErrorKind::TimedOut => Failure::retry("TIMEOUT", format!("subject {subject}: the server does not read")),
        _ => Failure::retry("CONNECTION_FAILURE", format!("subject {subject}: {}", nats::causes(&error))),
    })
}

async fn acknowledge(
    ack: async_nats::jetstream::context::PublishAckFuture,
    delivery: Box<Delivery>,
    (client, refusals): Link,
    since: Since,
    subject: String,
) -> Ended {
    let result = match ack.await {
        Ok(_) => Ok(()),
        Err(error) => {
            let why = format!("subject {subject}: {}", nats::causes(&error));
            Err(match error.kind() {
                PublishErrorKind::TimedOut if refusals.publishing(&subject, since.refusals) => not_allowed(&subject),
                PublishErrorKind::TimedOut => Failure::retry("TIMEOUT", format!("{why}; is the server up?")),
                // Nobody listens: no stream has the subject, or JetStream is not there now.
                PublishErrorKind::StreamNotFound => match nats::stream_of(&client, &subject).await {
                    Ok(None) => {
                        let help = "create a stream with it, then send the dead letters again";
                        Failure::permanent("NO_RESOURCE", format!("no stream keeps subject {subject}; {help}"))
                    }
                    _ => Failure::retry("CONNECTION_FAILURE", why),
                },
                _ if why.contains("exceeds maximum") => too_large(&why),
                _ => Failure::retry("ERROR_FROM_TARGET", why),
            })
        }
    };
    (delivery, result)
}

/// Settles what was sent on one connection when the server has read it, but for what it refused.
async fn confirm((client, refusals): Link, since: Since, sent: Vec<(Box<Delivery>, String)>) -> Vec<Ended> {
    let result = match tokio::time::timeout(PATIENCE, nats::read_through(&client, &refusals)).await {
        Ok(Err(why)) => Err(Failure::retry("CONNECTION_FAILURE", why)),
        Ok(Ok(())) if connection(&client) == since.connection => Ok(()),
        Ok(Ok(())) => Err(Failure::retry("CONNECTION_FAILURE", "the connection was made anew meanwhile")),
        Err(_) => Err(Failure::retry("TIMEOUT", "the server does not answer; is it up?")),
    };
    let end = |(delivery, subject): (Box<Delivery>, String)| match refusals.publishing(&subject, since.refusals) {
        true => (delivery, Err(not_allowed(&subject))),
        false => (delivery, result.clone()),
    };
    sent.into_iter().map(end).collect()
}

/// How many connections there were: what is sent before the first goes over the first.
fn connection(client: &Client) -> u64 {
    client.statistics().connects.load(Ordering::Relaxed).max(1)
}

/// Permissions are for people to mend, so the event waits for that as long as its policy says.
fn not_allowed(subject: &str) -> Failure {
    let help = "give the user of `auth` permission for it";
    Failure::retry("NO_PERMISSIONS", format!("the NATS server does not let us publish to {subject}; {help}"))
}

/// Why the client did not take a message.
fn unsent(error: &PublishError) -> Failure {
    let why = nats::causes(error);
    match error.kind() {
        async_nats::client::PublishErrorKind::MaxPayloadExceeded => too_large(&why),
        async_nats::client::PublishErrorKind::InvalidSubject => Failure::permanent("INVALID_PARAMETER", why),
        async_nats::client::PublishErrorKind::Send => Failure::retry("CONNECTION_FAILURE", why),
    }
}

fn too_large(why: &str) -> Failure {
    Failure::permanent(
        "INVALID_PARAMETER",
        format!("{why}; raise max_payload of the server and max_msg_size of the stream"),
    )
}

fn headers(delivery: &Delivery) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("sluice-delivery-id", delivery.id.to_string());
    headers.insert("sluice-bus", delivery.bus.as_ref());
    if let Some(rule) = &delivery.rule {
        headers.insert("sluice-rule", rule.name.as_ref());
    }
    if let Sink::Nats(SubjectSink { archive: Some(archive), .. }) = &delivery.outlet.sink {
        headers.insert(ARCHIVE_HEADER, archive.as_ref());
    }
    if let Some(trace) = &delivery.trace {
        headers.insert(TRACE_HEADER, trace.replace(|c: char| c.is_control(), " "));
    }
    if let Some(letter) = &delivery.letter {
        for (name, value) in dead_letter::attributes(delivery, letter) {
            // A line end would begin another header.
            headers.insert(name, value.replace(|c: char| c.is_control(), " "));
        }
    }
    headers
}

//! What source and sink share of a NATS connection: how it is made, and questions before anything starts.

use crate::catalog::{NatsAuth, NatsClient, NatsTarget};
use crate::tls;
use async_nats::jetstream::{self, context::GetStreamByNameErrorKind};
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, RequestErrorKind, ServerError};
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// How long a question may take.
pub const PATIENCE: Duration = Duration::from_secs(8);

/// Why a server is of no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NatsError {
    /// No server answers; time may heal it.
    Unreachable(String),
    /// A stream or the like that somebody may be about to make.
    Missing(String),
    /// The configuration does not fit the server.
    Refused(String),
}

impl std::fmt::Display for NatsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable(why) | Self::Missing(why) | Self::Refused(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for NatsError {}

/// How to connect; reconnects for ever once connected.
///
/// # Errors
/// Certificates or credentials that cannot be used.
pub async fn options(client: &NatsClient) -> Result<ConnectOptions, String> {
    let mut options = ConnectOptions::new()
        .name("sluice")
        .connection_timeout(Duration::from_secs(5))
        .max_reconnects(None)
        .reconnect_delay_callback(|attempt| Duration::from_millis(50 << attempt.min(5)));
    options = match &client.auth {
        NatsAuth::None => options,
        NatsAuth::Basic(user, password) => options.user_and_password(user.clone(), password.expose().to_owned()),
        NatsAuth::Token(token) => options.token(token.expose().to_owned()),
        NatsAuth::Nkey(seed) => options.nkey(seed.expose().to_owned()),
        NatsAuth::Creds(path) => {
            let read = options.credentials_file(path).await;
            read.map_err(|error| format!("{}: cannot use the credentials: {error}", path.display()))?
        }
    };
    if let Some(certificates) = &client.tls {
        options = options.require_tls(true).tls_client_config(tls::client_config(certificates)?);
    }
    Ok(options)
}

/// Connects, waiting for a server up to [`PATIENCE`].
///
/// # Errors
/// What is wrong with address, credentials or certificates.
pub async fn connect(
    client: &NatsClient,
    on_event: impl Fn(&Event) + Send + Sync + 'static,
) -> Result<Client, NatsError> {
    connect_with(client, 65_536, on_event).await
}

/// The same, with a bound of the messages of one subscription that wait to be taken.
///
/// # Errors
/// See [`connect`].
pub async fn connect_with(
    client: &NatsClient,
    capacity: usize,
    on_event: impl Fn(&Event) + Send + Sync + 'static,
) -> Result<Client, NatsError> {
    let options = options(client).await.map_err(NatsError::Refused)?;
    let options = options.subscription_capacity(capacity).event_callback(move |event| {
        log(&event);
        on_event(&event);
        std::future::ready(())
    });
    let connecting = options.connect(client.servers.as_slice());
    let servers = client.servers.join(",");
    let unreachable = |why: &str| NatsError::Unreachable(format!("no answer from the NATS servers {servers}: {why}"));
    let error = match tokio::time::timeout(PATIENCE, connecting).await {
        Ok(Ok(client)) => return Ok(client),
        Ok(Err(error)) => error,
        Err(_) => return Err(unreachable("time is out; check the address; --wait waits for it")),
    };
    let why = causes(&error);
    let certificates = ["alert", "ertificate", "corrupt message"].iter().any(|part| why.contains(part));
    Err(match error.kind() {
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
            NatsError::Refused(format!("the NATS servers {servers} refuse us: {why}; check `auth`"))
        }
        ConnectErrorKind::ServerParse => NatsError::Refused(format!("{servers}: no address of a NATS server: {why}")),
        kind if kind == ConnectErrorKind::Tls || certificates => NatsError::Refused(format!(
            "no trusted connection to the NATS servers {servers}: {why}; check the server's certificate, `tls.ca`, our own \
             `tls.cert`, the name in the address, and that the server speaks TLS"
        )),
        _ if client.tls.is_none() && why.contains("ecord overflow") => unreachable("the port speaks TLS; set `tls`"),
        _ => unreachable(&format!("{why}; check the address and that a server listens there; --wait waits for it")),
    })
}

/// Says what happens to a connection. Who reads a subscription says what is lost of it.
pub fn log(event: &Event) {
    match event {
        Event::Connected | Event::Closed | Event::Draining | Event::SlowConsumer(_) => {
            tracing::debug!(target: "nats", "{event}");
        }
        _ => tracing::warn!(target: "nats", "{event}"),
    }
}

/// What the server has refused on a connection: it says so beside the stream of answers.
#[derive(Default)]
pub struct Refusals {
    /// When each was last said, by how many had been said.
    said: Mutex<HashMap<Refusal, u64>>,
    count: AtomicU64,
    news: Notify,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Refusal {
    Publish(String),
    Subscribe(String),
}

/// Refusals that are remembered at once.
const REFUSALS: usize = 1000;

impl Refusals {
    /// Notes what an event says: `Permissions Violation for Publish to "SUBJECT"`, or `Subscription`.
    pub fn note(&self, event: &Event) {
        let Event::ServerError(ServerError::Other(text)) = event else { return };
        let Some((_, rest)) = text.split_once("ermissions Violation for ") else { return };
        let Some(subject) = rest.split('"').nth(1).map(str::to_owned) else { return };
        let refusal = if rest.starts_with("Publish") { Refusal::Publish(subject) } else { Refusal::Subscribe(subject) };
        let mut said = self.said();
        if said.len() >= REFUSALS
            && let Some(oldest) = said.iter().min_by_key(|(_, last)| **last).map(|(refusal, _)| refusal.clone())
        {
            said.remove(&oldest);
        }
        said.insert(refusal, self.count.fetch_add(1, Ordering::Relaxed) + 1);
        drop(said);
        self.news.notify_waiters();
    }

    fn said(&self) -> MutexGuard<'_, HashMap<Refusal, u64>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many were said.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether a message to a subject was refused after the first `count` refusals. All messages to it are then: the
    /// server's words name no message, and some of them may be lost where they are many.
    pub fn publishing(&self, subject: &str, count: u64) -> bool {
        self.said().get(&Refusal::Publish(subject.to_owned())).is_some_and(|&last| last > count)
    }

    /// Whether we may not subscribe to a subject.
    pub fn subscribing(&self, subject: &str) -> bool {
        self.said().contains_key(&Refusal::Subscribe(subject.to_owned()))
    }

    /// Whether answers can reach us.
    fn unanswered(&self) -> bool {
        self.said()
            .keys()
            .any(|refusal| matches!(refusal, Refusal::Subscribe(subject) if subject.starts_with("_INBOX.")))
    }

    /// Waits until a question to `inbox` is refused, or no answer can reach us.
    async fn heard(&self, inbox: &str) {
        loop {
            let news = self.news.notified();
            let asked = Refusal::Publish(inbox.to_owned());
            if self.unanswered() || self.said().remove(&asked).is_some() {
                return;
            }
            news.await;
        }
    }
}

/// Waits until the server has read what was sent before: it answers in order, and that nobody hears a subject made for this
/// question is an answer, as is its refusal. Who may not even hear answers waits until it is written.
///
/// # Errors
/// No answer.
pub async fn read_through(client: &Client, refusals: &Refusals) -> Result<(), String> {
    // What is refused is told apart from the answers; by the second one it has been noted.
    for _ in 0..2 {
        let inbox = client.new_inbox();
        tokio::select! {
            asked = client.request(inbox.clone(), Bytes::new()) => match asked {
                Err(error) if error.kind() != RequestErrorKind::NoResponders => return Err(causes(&error)),
                _ => {}
            },
            () = refusals.heard(&inbox) => {}
        }
    }
    if refusals.unanswered() {
        return client.flush().await.map_err(|error| causes(&error));
    }
    Ok(())
}

/// Whether some subject fits both.
pub fn overlap(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('.'), other.split('.'));
    loop {
        match (one.next(), other.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(a), Some(b)) if a == b || a == "*" || b == "*" => {}
            _ => return false,
        }
    }
}

/// An error with what led to it.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// Looks for a stream.
///
/// # Errors
/// It does not exist, or nobody says.
pub async fn stream(client: &Client, name: &str) -> Result<jetstream::stream::Stream, NatsError> {
    let context = jetstream::new(client.clone());
    let asked = tokio::time::timeout(PATIENCE, context.get_stream(name)).await;
    let error = match asked {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(error)) => error,
        Err(_) => return Err(NatsError::Unreachable(format!("JetStream does not say whether stream {name} exists"))),
    };
    let missing = format!("stream {name} does not exist; create it with `nats stream add {name} --subjects ...`");
    Err(match error.kind() {
        jetstream::context::GetStreamErrorKind::JetStream(inner)
            if inner.error_code() == jetstream::ErrorCode::STREAM_NOT_FOUND =>
        {
            NatsError::Missing(missing)
        }
        jetstream::context::GetStreamErrorKind::JetStream(inner) => {
            NatsError::Refused(format!("stream {name}: {inner}"))
        }
        _ => NatsError::Unreachable(format!(
            "JetStream does not answer about stream {name}: {}; is it enabled (`nats-server -js`)?",
            causes(&error)
        )),
    })
}

/// Whether some stream keeps what is published to a subject; `Err` when nobody says.
///
/// # Errors
/// JetStream does not answer.
pub async fn stream_of(client: &Client, subject: &str) -> Result<Option<String>, String> {
    let context = jetstream::new(client.clone());
    match tokio::time::timeout(PATIENCE, context.stream_by_subject(subject)).await {
        Ok(Ok(name)) => Ok(Some(name)),
        Ok(Err(error)) if error.kind() == GetStreamByNameErrorKind::NotFound => Ok(None),
        Ok(Err(error)) => Err(causes(&error)),
        Err(_) => Err("JetStream does not answer".to_owned()),
    }
}

/// Whether a server's `largest` message takes an event.
///
/// # Errors
/// It does not, and what to do.
pub fn takes(whose: &str, largest: u64, event_bytes: u64) -> Result<(), NatsError> {
    // Headers count as well.
    let wanted = event_bytes + 8192;
    if largest >= wanted {
        return Ok(());
    }
    Err(NatsError::Refused(format!(
        "{whose}: the NATS server takes messages of {largest} bytes, an event may have {event_bytes}; raise max_payload to \
         {wanted}, or lower limits.event_bytes"
    )))
}

/// Looks whether a target can be published to: the connection, the largest event, and a stream for the subject.
///
/// # Errors
/// What is missing and what to do.
pub async fn check_target(name: &str, target: &NatsTarget, event_bytes: u64) -> Result<(), NatsError> {
    let client = connect(&target.client, |_| {}).await?;
    takes(&format!("target {name}"), client.max_payload() as u64, event_bytes)?;
    let Some(subject) = target.subject.fixed().filter(|_| target.jetstream) else { return Ok(()) };
    match stream_of(&client, subject).await {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(NatsError::Missing(format!(
            "target {name}: no stream keeps what is published to {subject}; create one with \
             `nats stream add NAME --subjects {subject}`, or set `jetstream: false`"
        ))),
        Err(why) => Err(NatsError::Unreachable(format!(
            "target {name}: JetStream does not answer: {why}; is it enabled (`nats-server -js`)?"
        ))),
    }
}

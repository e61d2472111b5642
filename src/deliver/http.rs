//! Posting to HTTP endpoints: connections are reused, attempts under way and begun are bounded, no redirect is followed.
//!
//! 2xx settles, its body read up to 64 KiB; 401, 407, 409, 429, 5xx, timeouts and broken connections are tried again;
//! every other answer goes to the dead-letter queue at once. Source: EventBridge user guide, "API destinations".

use super::retry::Failure;
use super::{Delivery, TRACE_HEADER, dead_letter};
use crate::catalog::{HttpAuth, HttpMethod, HttpTarget, Tls};
use crate::egress::Egress;
use crate::envelope::DeliveryId;
use crate::planted::{self, Bug};
use crate::{nats, time, tls, webhook};
use flate2::Compression;
use flate2::write::GzEncoder;
use governor::{DefaultDirectRateLimiter, Quota};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Response, StatusCode, redirect};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Bytes of an answer that are read.
const ANSWER_BYTES: usize = 64 << 10;
/// The longest pause that an endpoint can ask for.
const LONGEST_PAUSE: Duration = Duration::from_mins(15);
/// Refused credentials in a row after which nothing is given up any more: the key has expired, not the events.
const REFUSALS: u32 = 100;
/// Shorter than servers keep idle connections, so that a request seldom meets one that is being closed.
const IDLE: Duration = Duration::from_secs(4);

/// Makes sinks.
pub struct Endpoints {
    runtime: Handle,
    egress: Egress,
    /// Loading the system's authorities takes a while, so it is done once.
    known: Vec<(Tls, rustls::ClientConfig)>,
}

impl Endpoints {
    /// No clients yet.
    pub fn new(runtime: Handle, egress: Egress) -> Self {
        Self { runtime, egress, known: Vec::new() }
    }

    /// A sink for an endpoint.
    ///
    /// # Errors
    /// An address that egress does not allow, or certificates that cannot be used.
    pub fn endpoint(&mut self, target: &HttpTarget) -> Result<HttpSink, String> {
        self.egress.check_url(&target.url)?;
        let known = self.known.iter().find(|(tls, _)| *tls == target.tls).map(|(_, config)| config.clone());
        let config = match known {
            Some(config) => config,
            None => {
                let mut config = tls::client_config(&target.tls)?;
                config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
                self.known.push((target.tls.clone(), config.clone()));
                config
            }
        };
        let plain = target.url.starts_with("http:");
        let mut client = Client::builder()
            .tls_backend_preconfigured(config)
            .dns_resolver(self.egress.resolver(plain))
            .redirect(if planted::on(Bug::RedirectFollowed) {
                redirect::Policy::default()
            } else {
                redirect::Policy::none()
            })
            .retry(reqwest::retry::never())
            .no_proxy()
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(target.max_in_flight as usize)
            .timeout(target.timeout)
            .tcp_nodelay(true)
            .user_agent(concat!("Sluice/", env!("CARGO_PKG_VERSION")));
        if target.http2 {
            client = client.http2_prior_knowledge();
        }
        let client = client.build().map_err(|error| nats::causes(&error))?;
        let limiter = target.rate.and_then(|rate| {
            // Evenly spaced, so that no period ever sees more.
            let quota = Quota::with_period(rate.per / rate.count)?;
            Some(DefaultDirectRateLimiter::direct(quota))
        });
        let (headers, key) = (headers(target)?, target.signing_secret.as_ref());
        let key = key.map(|secret| webhook::standard_key(secret.expose())).transpose()?;
        let endpoint = Endpoint { client, target: target.clone(), headers, key, limiter, refusals: AtomicU32::new(0) };
        let (queue, deliveries) = unbounded_channel();
        self.runtime.spawn(run(Arc::new(endpoint), deliveries));
        Ok(HttpSink { queue })
    }
}

/// One endpoint.
pub struct HttpSink {
    /// Bounded by the credit of the events in it.
    queue: UnboundedSender<Box<Delivery>>,
}

impl HttpSink {
    /// Queues a delivery.
    pub fn submit(&self, delivery: Delivery) {
        if let Err(refused) = self.queue.send(Box::new(delivery)) {
            refused.0.finish(Err(Failure::retry("INTERNAL_ERROR", "the client has ended")));
        }
    }
}

struct Endpoint {
    client: Client,
    target: HttpTarget,
    headers: HeaderMap,
    key: Option<Vec<u8>>,
    limiter: Option<DefaultDirectRateLimiter>,
    /// Answers in a row that refused our credentials.
    refusals: AtomicU32,
}

/// Begins attempts as room and rate allow, until no sink is left.
async fn run(endpoint: Arc<Endpoint>, mut deliveries: UnboundedReceiver<Box<Delivery>>) {
    let room = Arc::new(Semaphore::new(endpoint.target.max_in_flight as usize));
    while let Some(delivery) = deliveries.recv().await {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        if let Some(limiter) = &endpoint.limiter {
            limiter.until_ready().await;
        }
        // What waited for its turn while the breaker opened waits on in the log.
        let Some(delivery) = delivery.divert() else { continue };
        let endpoint = Arc::clone(&endpoint);
        tokio::spawn(async move {
            let result = endpoint.attempt(&delivery).await;
            drop(permit);
            delivery.finish(result);
        });
    }
}

fn headers(target: &HttpTarget) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json; charset=utf-8"));
    let mut put = |name: &str, value: &str| {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is no header name"))?;
        let mut value = HeaderValue::from_str(value).map_err(|_| format!("the value of header `{name}` is none"))?;
        value.set_sensitive(true);
        headers.insert(name, value);
        Ok::<(), String>(())
    };
    for (name, value) in &target.headers {
        put(name, value.expose())?;
    }
    match &target.auth {
        HttpAuth::None => {}
        HttpAuth::Basic(user, password) => {
            use base64::Engine;
            let pair = format!("{user}:{}", password.expose());
            put("authorization", &format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))?;
        }
        HttpAuth::Bearer(token) => put("authorization", &format!("Bearer {}", token.expose()))?,
        HttpAuth::ApiKey(name, key) => put(name, key.expose())?,
    }
    Ok(headers)
}

impl Endpoint {
    async fn attempt(&self, delivery: &Delivery) -> Result<(), Failure> {
        let method = match self.target.method {
            HttpMethod::Post => Method::POST,
            HttpMethod::Put => Method::PUT,
            HttpMethod::Patch => Method::PATCH,
        };
        let own = if planted::on(Bug::IdPerAttempt) { u128::from(delivery.failed) << 8 } else { 0 };
        let (id, seconds) = (DeliveryId(delivery.id.0 ^ own).to_string(), time::wall_millis() / 1000);
        let mut request = self
            .client
            .request(method, &self.target.url)
            .headers(self.headers.clone())
            .header("webhook-id", &id)
            .header("webhook-timestamp", seconds)
            .header("sluice-bus", printable(&delivery.bus));
        if let Some(rule) = &delivery.rule {
            request = request.header("sluice-rule", printable(&rule.name));
        }
        if let Some(trace) = &delivery.trace {
            request = request.header(TRACE_HEADER, printable(trace));
        }
        if let Some(key) = &self.key {
            request = request.header("webhook-signature", webhook::sign(key, &id, seconds, &delivery.payload));
        }
        if let Some(letter) = &delivery.letter {
            for (name, value) in dead_letter::attributes(delivery, letter) {
                request = request.header(name, printable(&value));
            }
        }
        request = match self.target.gzip {
            true => request.header("content-encoding", "gzip").body(gzip(&delivery.payload)?),
            false => request.body(delivery.payload.to_vec()),
        };
        match request.send().await {
            Ok(answer) => self.judge(answer).await,
            Err(error) => Err(broken(&error)),
        }
    }

    /// What an answer means.
    async fn judge(&self, mut answer: Response) -> Result<(), Failure> {
        let status = answer.status();
        if status.is_success() {
            let mut read = 0;
            while read < ANSWER_BYTES {
                match answer.chunk().await {
                    Ok(Some(chunk)) => read += chunk.len(),
                    Ok(None) => break,
                    Err(error) => return Err(broken(&error)),
                }
            }
            self.refusals.store(0, Ordering::Relaxed);
            return Ok(());
        }
        let message = format!("{} answered {status}", host(&self.target.url));
        let code = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                "NO_PERMISSIONS"
            }
            StatusCode::NOT_FOUND | StatusCode::GONE => "NO_RESOURCE",
            StatusCode::TOO_MANY_REQUESTS => "THROTTLING",
            _ => "ERROR_FROM_TARGET",
        };
        let refusals = match code {
            "NO_PERMISSIONS" => self.refusals.fetch_add(1, Ordering::Relaxed) + 1,
            _ => {
                self.refusals.store(0, Ordering::Relaxed);
                0
            }
        };
        let passing = status.is_server_error() || matches!(status.as_u16(), 401 | 407 | 409 | 429);
        if !passing && refusals < REFUSALS {
            return Err(Failure::permanent(code, message));
        }
        match answer.headers().get("retry-after").and_then(|value| retry_after(value.to_str().ok()?)) {
            None => Err(Failure::retry(code, message)),
            Some(Ok(pause)) => Err(Failure::retry(code, message).not_before(pause.min(LONGEST_PAUSE))),
            // A negative pause asks never to come back.
            Some(Err(())) => Err(Failure::permanent(code, format!("{message} and asks not to be tried again"))),
        }
    }
}

/// `Retry-After`: seconds, or a date of RFC 9110; `Err` for a negative number.
fn retry_after(value: &str) -> Option<Result<Duration, ()>> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<i64>() {
        return Some(u64::try_from(seconds).map(Duration::from_secs).map_err(drop));
    }
    let at = time::parse_http_date(value)?;
    let left = u64::try_from(at - time::wall_millis()).unwrap_or(0);
    Some(Ok(Duration::from_millis(left)))
}

/// What a broken exchange means. Addresses stay out: they may hold keys in their queries.
fn broken(error: &reqwest::Error) -> Failure {
    let host = error.url().map(|url| host(url.as_str())).unwrap_or_default();
    let cause = std::error::Error::source(error).map(nats::causes).unwrap_or_default();
    if error.is_timeout() {
        return Failure::retry("TIMEOUT", format!("{host}: no whole answer in time"));
    }
    if error.is_builder() {
        return Failure::permanent("INVALID_PARAMETER", format!("{host}: {cause}"));
    }
    let what = if error.is_connect() { "cannot connect" } else { "the exchange broke off" };
    Failure::retry("CONNECTION_FAILURE", format!("{host}: {what}: {cause}"))
}

fn host(url: &str) -> String {
    reqwest::Url::parse(url).map(|url| url.origin().ascii_serialization()).unwrap_or_default()
}

fn gzip(payload: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(payload.len() / 2), Compression::fast());
    let packed = encoder.write_all(payload).and_then(|()| encoder.finish());
    packed.map_err(|error| Failure::permanent("INTERNAL_ERROR", format!("cannot compress: {error}")))
}

/// A header's value: a line end would begin another header.
fn printable(value: &str) -> String {
    value.replace(|c: char| c.is_control() || !c.is_ascii(), "?")
}

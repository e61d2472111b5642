//! Posting to HTTP endpoints: connections are reused, attempts under way and begun are bounded, no redirect is followed.
//!
//! 2xx settles, its body read up to 64 KiB; 401, 407, 409, 429, 5xx, timeouts and broken connections are tried again;
//! every other answer goes to the dead-letter queue at once. Source: EventBridge user guide, "API destinations".

use super::function::{self, Publish, Record};
use super::oauth::{Authority, Tokens};
use super::retry::{Exhausted, Failure};
use super::{Delivery, TRACE_HEADER, aws, dead_letter, invocation};
use crate::catalog::{Call, HttpAuth, HttpMethod, HttpTarget, OAuth, Rate, Tls};
use crate::egress::Egress;
use crate::envelope::DeliveryId;
use crate::planted::{self, Bug};
use crate::{nats, time, tls, webhook};
use flate2::Compression;
use flate2::write::GzEncoder;
use governor::{DefaultDirectRateLimiter, Quota};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, redirect};
use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
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
    /// Those of API destinations, by their ARNs.
    limiters: Vec<(String, Rate, Arc<DefaultDirectRateLimiter>)>,
    tokens: Vec<Arc<Tokens>>,
    /// Where records of functions go; set when there is an inlet.
    publish: Arc<OnceLock<Publish>>,
}

impl Endpoints {
    /// No clients yet.
    pub fn new(runtime: Handle, egress: Egress) -> Self {
        Self { runtime, egress, known: Vec::new(), limiters: Vec::new(), tokens: Vec::new(), publish: Arc::default() }
    }

    /// Records of functions go this way from now on.
    pub fn publish_by(&self, publish: Publish) {
        self.publish.get_or_init(|| publish);
    }

    /// A sink for an endpoint.
    ///
    /// # Errors
    /// An address that egress does not allow, or certificates that cannot be used.
    pub fn endpoint(&mut self, target: &HttpTarget) -> Result<HttpSink, String> {
        let client = self.client(target, &target.url)?;
        let tokens = match &target.auth {
            HttpAuth::OAuth(oauth) => Some(self.tokens(target, oauth)?),
            _ => None,
        };
        let limiter = self.limiter(target);
        let (headers, key) = (headers(target)?, target.signing_secret.as_ref());
        let key = key.map(|secret| webhook::standard_key(secret.expose())).transpose()?;
        let refusals = AtomicU32::new(0);
        let (target, publish) = (target.clone(), Arc::clone(&self.publish));
        let endpoint = Arc::new(Endpoint { client, target, headers, key, tokens, limiter, refusals, publish });
        let (queue, deliveries) = unbounded_channel();
        self.runtime.spawn(run(Arc::clone(&endpoint), deliveries));
        Ok(HttpSink { queue, endpoint, runtime: self.runtime.clone() })
    }

    /// A client for one of a target's addresses.
    fn client(&mut self, target: &HttpTarget, url: &str) -> Result<Client, String> {
        self.egress.check_url(url)?;
        let known = self.known.iter().find(|(tls, _)| *tls == target.tls).map(|(_, config)| config.clone());
        let mut config = match known {
            Some(config) => config,
            None => {
                let config = tls::client_config(&target.tls)?;
                self.known.push((target.tls.clone(), config.clone()));
                config
            }
        };
        // `Connection: close` is a word of HTTP/1.1.
        let versions: &[&[u8]] = if target.invocation.is_some() { &[b"http/1.1"] } else { &[b"h2", b"http/1.1"] };
        config.alpn_protocols = versions.iter().map(|version| version.to_vec()).collect();
        let mut client = Client::builder()
            .tls_backend_preconfigured(config)
            .dns_resolver(self.egress.resolver(url.starts_with("http:")))
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
        client.build().map_err(|error| nats::causes(&error))
    }

    /// The tokens of a client: targets with the same connection share them.
    fn tokens(&mut self, target: &HttpTarget, oauth: &OAuth) -> Result<Arc<Tokens>, String> {
        self.tokens.retain(|tokens| Arc::strong_count(tokens) > 1);
        if let Some(tokens) = self.tokens.iter().find(|tokens| tokens.oauth == *oauth) {
            return Ok(Arc::clone(tokens));
        }
        let tokens = Arc::new(Tokens::new(self.client(target, &oauth.url)?, oauth)?);
        self.tokens.push(Arc::clone(&tokens));
        Ok(tokens)
    }

    /// Who gives out tokens for a connection.
    ///
    /// # Errors
    /// An address that egress does not allow, or headers that are none.
    pub fn authority(&mut self, oauth: &OAuth) -> Result<Authority, String> {
        let target = HttpTarget { invocation: Some(Box::default()), ..HttpTarget::to(oauth.url.clone()) };
        self.tokens(&target, oauth).map(Authority)
    }

    /// What spaces the attempts for a target; all for one API destination share it.
    fn limiter(&mut self, target: &HttpTarget) -> Option<Arc<DefaultDirectRateLimiter>> {
        let rate = target.rate?;
        self.limiters.retain(|(.., limiter)| Arc::strong_count(limiter) > 1);
        let destination = target.invocation.as_ref().map(|invocation| &invocation.destination);
        let known = self.limiters.iter().find(|(of, at, _)| destination == Some(of) && *at == rate);
        if let Some((.., limiter)) = known {
            return Some(Arc::clone(limiter));
        }
        // Evenly spaced, so that no period ever sees more.
        let limiter = Arc::new(DefaultDirectRateLimiter::direct(Quota::with_period(rate.per / rate.count)?));
        self.limiters.extend(destination.map(|destination| (destination.clone(), rate, Arc::clone(&limiter))));
        Some(limiter)
    }
}

/// One endpoint.
pub struct HttpSink {
    /// Bounded by the credit of the events in it.
    queue: UnboundedSender<Box<Delivery>>,
    endpoint: Arc<Endpoint>,
    runtime: Handle,
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
    publish: Arc<OnceLock<Publish>>,
    client: Client,
    target: HttpTarget,
    headers: HeaderMap,
    key: Option<Vec<u8>>,
    tokens: Option<Arc<Tokens>>,
    limiter: Option<Arc<DefaultDirectRateLimiter>>,
    /// Answers in a row that refused our credentials.
    refusals: AtomicU32,
}

impl HttpSink {
    /// Ends a delivery that is given up: by a record for what wants to know, or else as a dead letter.
    pub(super) fn give_up(&self, delivery: Delivery, failure: Failure, exhausted: Option<Exhausted>) {
        let Some(to) = &self.endpoint.target.on_failure else { return delivery.lay_down(failure, exhausted) };
        let record = function::failure(&delivery, to, &failure, exhausted);
        let endpoint = Arc::clone(&self.endpoint);
        self.runtime.spawn(async move {
            match endpoint.tell(record).await {
                Ok(()) => delivery.settle(),
                Err(_) => delivery.lay_down(failure, exhausted),
            }
        });
    }
}

/// Begins attempts as room and rate allow, until no sink is left.
async fn run(endpoint: Arc<Endpoint>, mut deliveries: UnboundedReceiver<Box<Delivery>>) {
    let room = Arc::new(Semaphore::new(endpoint.target.max_in_flight as usize));
    while let Some(delivery) = deliveries.recv().await {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        endpoint.turn().await;
        // What waited for its turn while the breaker opened waits on in the log.
        let Some(delivery) = delivery.divert() else { continue };
        if endpoint.is_too_late(&delivery) {
            let message = "its turn did not come within the event's maximum age";
            delivery.finish(Err(Failure::permanent("THROTTLING", message)));
            continue;
        }
        let endpoint = Arc::clone(&endpoint);
        tokio::spawn(async move {
            let result = endpoint.attempt(&delivery).await;
            drop(permit);
            delivery.finish(result);
        });
    }
}

/// A header, its value kept out of whatever prints it.
pub(super) fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is no header name"))?;
    let value = HeaderValue::from_bytes(value.as_bytes());
    let mut value = value.map_err(|_| format!("the value of header `{name}` is none"))?;
    value.set_sensitive(true);
    Ok((name, value))
}

fn headers(target: &HttpTarget) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json; charset=utf-8"));
    let mut put = |name: &str, value: &str| {
        let (name, value) = header(name, value)?;
        headers.insert(name, value);
        Ok::<(), String>(())
    };
    if target.invocation.is_some() {
        invocation::HEADERS.into_iter().try_for_each(|(name, value)| put(name, value))?;
    }
    for (name, value) in &target.headers {
        put(name, value.expose())?;
    }
    match &target.auth {
        HttpAuth::None | HttpAuth::OAuth(_) | HttpAuth::SigV4(_) => {}
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

pub(super) fn method(method: HttpMethod) -> Method {
    match method {
        HttpMethod::Post => Method::POST,
        HttpMethod::Put => Method::PUT,
        HttpMethod::Patch => Method::PATCH,
        HttpMethod::Delete => Method::DELETE,
        HttpMethod::Options => Method::OPTIONS,
        HttpMethod::Get => Method::GET,
        HttpMethod::Head => Method::HEAD,
    }
}

impl Endpoint {
    /// Waits until the rate has room for one more.
    async fn turn(&self) {
        if let Some(limiter) = &self.limiter {
            limiter.until_ready().await;
        }
    }

    /// Whether a delivery became too old while it waited for its turn at an API destination.
    fn is_too_late(&self, delivery: &Delivery) -> bool {
        let age = time::now().saturating_duration_since(delivery.read_at);
        self.target.invocation.is_some() && delivery.letter.is_none() && age >= delivery.outlet.retry.max_age
    }

    async fn attempt(&self, delivery: &Delivery) -> Result<(), Failure> {
        if let Some(call) = &self.target.call {
            return self.call(call, delivery).await;
        }
        let request = self.request(delivery)?;
        let answer = match &self.tokens {
            None => request.send().await,
            Some(tokens) => self.authorised(tokens, request).await?,
        };
        let body = match answer {
            Ok(answer) => self.judge(answer).await?,
            Err(error) => return Err(broken(&error)),
        };
        match &self.target.on_success {
            Some(to) if delivery.letter.is_none() => self.tell(function::success(delivery, to, &body)).await,
            _ => Ok(()),
        }
    }

    /// Hands a delivery to a service of AWS; what is missing there and ours to make is made, once.
    async fn call(&self, call: &Call, delivery: &Delivery) -> Result<(), Failure> {
        let first = self.exchange(aws::shape(call, delivery)?).await;
        let missing = first.as_ref().is_err_and(|failure| failure.code == "NO_RESOURCE");
        let Some(making) = aws::make(call).filter(|_| missing) else { return first };
        // Others may have made it meanwhile.
        drop(self.exchange(making).await);
        self.exchange(aws::shape(call, delivery)?).await
    }

    async fn exchange(&self, shape: aws::Shape) -> Result<(), Failure> {
        let address = aws::address(&self.target.url, &shape.path)?;
        let request = self.client.post(address).headers(shape.headers).body(shape.body);
        let mut request = request.build().map_err(|error| broken(&error))?;
        if let HttpAuth::SigV4(with) = &self.target.auth {
            aws::sign(&mut request, with)?;
        }
        let answer = self.client.execute(request).await.map_err(|error| broken(&error))?;
        if answer.status().is_success() {
            return self.judge(answer).await.map(drop);
        }
        let (status, retry_after) = (answer.status(), answer.headers().get("retry-after").cloned());
        let header = answer.headers().get("x-amzn-errortype").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = read(answer).await?;
        let Some(refusal) = aws::refusal(status, header.as_deref(), &body) else { return Ok(()) };
        let message = format!("{} answered {status} ({})", host(&self.target.url), refusal.named);
        Err(self.refused((refusal.code, refusal.passing), message, retry_after.as_ref()))
    }

    /// Puts a record of a function on its way.
    async fn tell(&self, record: Record) -> Result<(), Failure> {
        let failed = |why: &str| Failure::retry("INTERNAL_ERROR", format!("the function's record is not kept: {why}"));
        let publish = self.publish.get().ok_or_else(|| failed("the process has only begun"))?;
        publish(record).await.map_err(|why| failed(&why))
    }

    /// Sends a request with a token, and once more with another one where that is refused.
    async fn authorised(&self, tokens: &Tokens, request: RequestBuilder) -> Result<reqwest::Result<Response>, Failure> {
        let again = request.try_clone();
        let token = tokens.get().await?;
        let answer = request.header("authorization", token.header.clone()).send().await;
        let refused = answer.as_ref().is_ok_and(|answer| matches!(answer.status().as_u16(), 401 | 407));
        let Some(again) = again.filter(|_| refused) else { return Ok(answer) };
        if !tokens.refused(&token).await {
            return Ok(answer);
        }
        let token = tokens.get().await?;
        self.turn().await;
        Ok(again.header("authorization", token.header).send().await)
    }

    fn request(&self, delivery: &Delivery) -> Result<RequestBuilder, Failure> {
        let own = if planted::on(Bug::IdPerAttempt) { u128::from(delivery.failed) << 8 } else { 0 };
        let (id, seconds) = (DeliveryId(delivery.id.0 ^ own).to_string(), time::wall_millis() / 1000);
        let made = self.target.invocation.as_ref().map(|it| invocation::request(&self.target, it, delivery));
        let (address, taken) = made.transpose()?.unzip();
        let mut request = self
            .client
            .request(method(self.target.method), address.as_ref().unwrap_or(&self.target.url))
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
        if let Some(taken) = taken {
            // What a caller sets stands alone.
            request = request.headers(self.headers.clone()).headers(taken);
        }
        let bodiless = matches!(self.target.method, HttpMethod::Get | HttpMethod::Head);
        Ok(match (&self.target.invocation, self.target.gzip) {
            (Some(_), _) if bodiless => request,
            (Some(invocation), _) => request.body(invocation::body(invocation, &delivery.payload).into_owned()),
            (None, true) => request.header("content-encoding", "gzip").body(gzip(&delivery.payload)?),
            (None, false) => request.body(delivery.payload.to_vec()),
        })
    }

    /// What an answer means; the body of a good one.
    async fn judge(&self, answer: Response) -> Result<Vec<u8>, Failure> {
        let status = answer.status();
        if status.is_success() {
            let body = read(answer).await?;
            self.refusals.store(0, Ordering::Relaxed);
            return Ok(body);
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
        let passing = status.is_server_error() || matches!(status.as_u16(), 401 | 407 | 409 | 429);
        Err(self.refused((code, passing), message, answer.headers().get("retry-after")))
    }

    /// What a refusal leads to.
    fn refused(
        &self,
        (code, passing): (&'static str, bool),
        message: String,
        retry_after: Option<&HeaderValue>,
    ) -> Failure {
        let refusals = match code {
            "NO_PERMISSIONS" => self.refusals.fetch_add(1, Ordering::Relaxed) + 1,
            _ => {
                self.refusals.store(0, Ordering::Relaxed);
                0
            }
        };
        if !passing && refusals < REFUSALS {
            return Failure::permanent(code, message);
        }
        match retry_after.and_then(|value| pause(value.to_str().ok()?)) {
            None => Failure::retry(code, message),
            Some(Ok(pause)) => Failure::retry(code, message).not_before(pause.min(LONGEST_PAUSE)),
            // A negative pause asks never to come back.
            Some(Err(())) => Failure::permanent(code, format!("{message} and asks not to be tried again")),
        }
    }
}

/// The body of an answer, as much of it as counts.
async fn read(mut answer: Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while body.len() < ANSWER_BYTES {
        match answer.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(error) => return Err(broken(&error)),
        }
    }
    Ok(body)
}

/// `Retry-After`: seconds, or a date of RFC 9110; `Err` for a negative number.
fn pause(value: &str) -> Option<Result<Duration, ()>> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<i64>() {
        return Some(u64::try_from(seconds).map(Duration::from_secs).map_err(drop));
    }
    let at = time::parse_http_date(value)?;
    let left = u64::try_from(at - time::wall_millis()).unwrap_or(0);
    Some(Ok(Duration::from_millis(left)))
}

/// What a broken exchange means. Addresses stay out: they may hold keys in their queries.
pub(super) fn broken(error: &reqwest::Error) -> Failure {
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

pub(super) fn host(url: &str) -> String {
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

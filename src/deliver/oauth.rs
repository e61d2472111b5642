//! Bearer tokens that are asked for with client credentials (RFC 6749, section 4.4, with a JSON body as EventBridge
//! sends it).
//!
//! In: who asks, and where. Out: tokens. Promises: attempts that need one share a request for it; a token is asked for
//! anew a minute before it expires, and once where it is refused; nothing of it is written anywhere. Leaves to others:
//! what is sent with it (`http`).

use super::http::{broken, header, host, method};
use super::invocation::{USER_AGENT, address};
use super::retry::Failure;
use crate::catalog::OAuth;
use crate::time;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Client, Response};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// Bytes of an answer that are read.
const ANSWER_BYTES: usize = 64 << 10;
/// How long before its end a token is not used any more; half its life where that is less.
const BEFORE: Duration = Duration::from_mins(1);
/// A token that took the place of a refused one is not replaced for the same reason before it is this old.
const AGAIN: Duration = Duration::from_mins(1);

/// What an authority may say of a refusal (RFC 6749, section 5.2). Nothing else of its answer is told.
const REASONS: [&str; 6] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
];
/// Bytes of a refusal that are read.
const REFUSAL_BYTES: usize = 4 << 10;
/// Pauses before a first token is asked for again where nobody answers, or nobody well.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];

/// Asks for a first token. As long as it lives, those who ask for the same share it.
#[derive(Clone)]
pub struct Authority(pub(super) Arc<Tokens>);

impl Authority {
    /// Whether a token comes.
    ///
    /// # Errors
    /// What the authority answers; nothing of the client's.
    pub async fn ask(&self) -> Result<(), String> {
        let mut pauses = PAUSES.into_iter();
        loop {
            let Err(failure) = self.0.get().await else { return Ok(()) };
            let final_one = matches!(failure.code, "NO_PERMISSIONS" | "INVALID_PARAMETER");
            let Some(pause) = pauses.next().filter(|_| !final_one) else { return Err(failure.message) };
            tokio::time::sleep(pause).await;
        }
    }
}

/// The tokens of one client at one authority.
pub(super) struct Tokens {
    pub(super) oauth: OAuth,
    client: Client,
    url: String,
    headers: HeaderMap,
    body: String,
    kept: Mutex<Kept>,
    /// Requests that have ended.
    ended: AtomicU64,
}

#[derive(Default)]
struct Kept {
    token: Option<Token>,
    /// How the last request failed.
    failure: Option<Failure>,
    /// The last token was refused.
    refused: bool,
}

/// A token.
#[derive(Clone)]
pub(super) struct Token {
    /// The value of `Authorization`.
    pub(super) header: HeaderValue,
    asked_at: Instant,
    until: Option<Instant>,
    /// It took the place of a refused one.
    instead: bool,
}

impl Tokens {
    /// No token yet.
    ///
    /// # Errors
    /// A header that is none.
    pub(super) fn new(client: Client, oauth: &OAuth) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        let own = [("content-type", "application/json; charset=utf-8"), ("user-agent", USER_AGENT)];
        let given = oauth.headers.iter().map(|(name, value)| (name.as_str(), value.expose()));
        for (name, value) in own.into_iter().chain(given) {
            let (name, value) = header(name, value)?;
            headers.insert(name, value);
        }
        let query: Vec<_> = oauth.query.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
        let mut body = Map::new();
        body.insert("client_id".into(), oauth.client_id.as_str().into());
        body.insert("client_secret".into(), oauth.client_secret.expose().into());
        body.extend(oauth.body.iter().map(|(name, value)| (name.clone(), Value::from(value.expose()))));
        body.entry("grant_type").or_insert_with(|| "client_credentials".into());
        Ok(Self {
            oauth: oauth.clone(),
            client,
            url: address(&oauth.url, &[], &query)?,
            headers,
            body: Value::from(body).to_string(),
            kept: Mutex::default(),
            ended: AtomicU64::new(0),
        })
    }

    /// A token that is good as far as we know.
    pub(super) async fn get(&self) -> Result<Token, Failure> {
        let before = self.ended.load(Ordering::Acquire);
        let mut kept = self.kept.lock().await;
        if let Some(token) = kept.token.as_ref().filter(|token| token.until.is_none_or(|until| time::now() < until)) {
            return Ok(token.clone());
        }
        // Who waited for a request that failed has its answer too.
        if let Some(failure) = kept.failure.as_ref().filter(|_| self.ended.load(Ordering::Acquire) > before) {
            return Err(failure.clone());
        }
        let asked = self.ask(kept.refused).await;
        self.ended.fetch_add(1, Ordering::Release);
        (kept.token, kept.failure) = (asked.as_ref().ok().cloned(), asked.as_ref().err().cloned());
        if asked.is_ok() {
            kept.refused = false;
        }
        asked
    }

    /// A token was refused. Whether it is worth to come with another one.
    pub(super) async fn refused(&self, token: &Token) -> bool {
        let mut kept = self.kept.lock().await;
        match &kept.token {
            Some(known) if known.asked_at == token.asked_at => {
                let again = !token.instead || token.asked_at.elapsed() >= AGAIN;
                if again {
                    (kept.token, kept.refused) = (None, true);
                }
                again
            }
            // It has been replaced already.
            _ => true,
        }
    }

    async fn ask(&self, instead: bool) -> Result<Token, Failure> {
        let asked_at = time::now();
        let request = self.client.request(method(self.oauth.method), &self.url).headers(self.headers.clone());
        let answer = request.body(self.body.clone()).send().await.map_err(|error| no_token(&broken(&error)))?;
        let answer = read(answer, &host(&self.url)).await?;
        let bad = |what: &str| {
            Failure::retry("ERROR_FROM_TARGET", format!("no token from {}: the answer has no {what}", host(&self.url)))
        };
        let answer: Value = serde_json::from_slice(&answer).map_err(|_| bad("JSON object"))?;
        let token = answer["access_token"].as_str().filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| bad("`access_token`"))?;
        let (_, header) =
            header("authorization", &format!("Bearer {token}")).map_err(|_| bad("token that can be sent"))?;
        // Some authorities write the number as a text.
        let life = &answer["expires_in"];
        let life = life.as_f64().or_else(|| life.as_str()?.trim().parse().ok());
        let life = life.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let until = life.and_then(|life| asked_at.checked_add(life.saturating_sub(BEFORE).max(life / 2)));
        Ok(Token { header, asked_at, until, instead })
    }
}

/// The body of an answer that has a token.
async fn read(mut answer: Response, host: &str) -> Result<Vec<u8>, Failure> {
    let status = answer.status();
    if !status.is_success() {
        let code = match status.as_u16() {
            429 => "THROTTLING",
            400..500 => "NO_PERMISSIONS",
            _ => "ERROR_FROM_TARGET",
        };
        let reason = reason(answer).await.map(|reason| format!(" ({reason})")).unwrap_or_default();
        return Err(Failure::retry(code, format!("no token: {host} answered {status}{reason}")));
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| no_token(&broken(&error)))? {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_BYTES {
            return Err(Failure::retry("ERROR_FROM_TARGET", format!("no token: {host} answers without end")));
        }
    }
    Ok(body)
}

/// The reason of a refusal, where it is one of those that have a name.
async fn reason(mut answer: Response) -> Option<&'static str> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > REFUSAL_BYTES {
            return None;
        }
    }
    let said: Value = serde_json::from_slice(&body).ok()?;
    REASONS.into_iter().find(|reason| said["error"] == *reason)
}

/// Whatever keeps a token from us can pass.
fn no_token(failure: &Failure) -> Failure {
    Failure::retry(failure.code, format!("no token: {}", failure.message))
}

//! Talking to a running process over its admin API.

use crate::app::{Exit, Failed};
use reqwest::{Client, Method, Response, StatusCode};
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Which process.
#[derive(clap::Args)]
pub struct Remote {
    /// Address of its admin endpoints
    #[arg(long, env = "SLUICE_ADMIN_URL", default_value = "http://127.0.0.1:4567")]
    admin_url: String,
    /// Token of server.auth, for a process on another machine
    #[arg(long, env = "SLUICE_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

/// A connection to it.
pub struct Session {
    client: Client,
    runtime: tokio::runtime::Runtime,
    base: String,
    token: Option<String>,
}

impl Remote {
    /// A session; connects at the first request.
    pub fn session(&self) -> Result<Session, Failed> {
        let failed = |error: &dyn std::fmt::Display| Failed::new(Exit::Io, format!("cannot start a client: {error}"));
        let tls = crate::tls::client_config(&crate::catalog::Tls::default()).map_err(|error| failed(&error))?;
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .connect_timeout(Duration::from_secs(5))
            .build()
            .map_err(|error| failed(&error))?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| failed(&error))?;
        let base = self.admin_url.trim_end_matches('/').to_owned();
        Ok(Session { client, runtime, base, token: self.token.clone() })
    }
}

impl Session {
    /// Runs a task to its end.
    pub fn block_on<F: Future>(&self, task: F) -> F::Output {
        self.runtime.block_on(task)
    }

    /// Asks, and gives the answer if it is a good one.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Option<String>,
    ) -> Result<Response, Failed> {
        let mut url = reqwest::Url::parse(&format!("{}{path}", self.base))
            .map_err(|error| Failed::new(Exit::Config, format!("{}: no address of a process: {error}", self.base)))?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.client.request(method, url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let answer = request.send().await.map_err(|error| {
            let why = crate::nats::causes(&error.without_url());
            let help = "is `sluice run` up with server.admin there? --admin-url names another address";
            Failed::new(Exit::Unreachable, format!("no answer from {}: {why}; {help}", self.base))
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let text = answer.text().await.unwrap_or_default();
        let said = serde_json::from_str::<serde_json::Value>(&text).ok();
        let said = said.and_then(|said| said["error"].as_str().map(str::to_owned)).unwrap_or(text);
        let exit = match status {
            StatusCode::NOT_FOUND | StatusCode::CONFLICT => Exit::No,
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::Config,
            _ => Exit::Unreachable,
        };
        Err(Failed::new(exit, said.trim().to_owned()))
    }

    /// Asks for a document.
    pub fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, String)]) -> Result<T, Failed> {
        self.document(Method::GET, path, query, None)
    }

    /// Sends a change and gives the document that answers it.
    pub fn put<T: DeserializeOwned>(&self, path: &str, body: String) -> Result<T, Failed> {
        self.document(Method::PUT, path, &[], Some(body))
    }

    /// Gives an order and takes the document that answers it.
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: String) -> Result<T, Failed> {
        self.document(Method::POST, path, &[], Some(body))
    }

    fn document<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Option<String>,
    ) -> Result<T, Failed> {
        self.block_on(async {
            let text = self.ask(method, path, query, body).await?.text().await;
            let text = text.map_err(|error| Failed::new(Exit::Unreachable, error.to_string()))?;
            serde_json::from_str(&text)
                .map_err(|error| Failed::new(Exit::Unreachable, format!("{}{path}: not our API: {error}", self.base)))
        })
    }
}

/// Server-sent events to the texts that they carry.
#[derive(Default)]
pub struct Feed {
    rest: Vec<u8>,
}

impl Feed {
    /// The texts that a further chunk completes.
    pub fn push(&mut self, chunk: &[u8]) -> Vec<String> {
        self.rest.extend_from_slice(chunk);
        let whole = self.rest.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
        let lines: Vec<u8> = self.rest.drain(..whole).collect();
        let data = lines.split(|&b| b == b'\n').filter_map(|line| line.strip_prefix(b"data: "));
        data.map(|data| String::from_utf8_lossy(data).into_owned()).collect()
    }
}

/// What the tap says of an event, and the event's own text, which follows the last member before it and stays as it is.
pub fn parts(shown: &str) -> (serde_json::Value, &str) {
    let (about, event) = shown.trim_end().split_once(",\"event\":").unwrap_or((shown, ""));
    // Without the event, which may be deeper than serde_json reads.
    (serde_json::from_str(&format!("{about}}}")).unwrap_or_default(), event.strip_suffix('}').unwrap_or(event))
}

/// A bus or rule in a path.
pub fn segment(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string()
}

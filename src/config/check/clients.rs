//! What the catalog and the clients need of a checked configuration.

use crate::catalog::{self, HttpAuth, HttpMethod, HttpTarget, NatsAuth, NatsClient};
use crate::config::ends::{self, Attribute, Compression, Envelope, Sasl, Tls, Verify};
use crate::config::values::Secret;
use crate::transform::JsonPath;
use crate::transform::wrap::{Framing, Origin};
use std::collections::BTreeMap;

/// A fault at a key.
#[derive(Debug)]
pub struct Fault {
    /// From the end's own key on.
    pub path: Vec<&'static str>,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: String,
}

impl Fault {
    /// A fault at one key.
    pub fn at(key: &'static str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { path: vec![key], message: message.into(), help: help.into() }
    }

    fn below(mut self, key: &'static str) -> Self {
        self.path.insert(0, key);
        self
    }
}

/// The properties of a Kafka client.
pub fn kafka(
    brokers: &str,
    sasl: Option<&Sasl>,
    tls: Option<&Tls>,
    properties: &BTreeMap<String, Secret>,
) -> BTreeMap<String, String> {
    let mut client: BTreeMap<String, String> =
        properties.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect();
    client.insert("bootstrap.servers".into(), brokers.to_owned());
    let protocol = match (sasl, tls) {
        (None, None) => None,
        (None, Some(_)) => Some("SSL"),
        (Some(_), None) => Some("SASL_PLAINTEXT"),
        (Some(_), Some(_)) => Some("SASL_SSL"),
    };
    if let Some(protocol) = protocol {
        client.entry("security.protocol".into()).or_insert_with(|| protocol.into());
    }
    if let Some(sasl) = sasl {
        client.insert("sasl.mechanism".into(), sasl.mechanism.as_str().to_owned());
        client.insert("sasl.username".into(), sasl.username.clone());
        client.insert("sasl.password".into(), sasl.password.expose().to_owned());
    }
    if let Some(tls) = tls {
        let files =
            [("ssl.ca.location", &tls.ca), ("ssl.certificate.location", &tls.cert), ("ssl.key.location", &tls.key)];
        for (property, file) in files {
            if let Some(file) = file {
                client.insert(property.into(), file.display().to_string());
            }
        }
    }
    client
}

/// Certificates.
///
/// # Errors
/// A certificate without a key, or the other way round.
pub fn tls(tls: &Tls) -> Result<catalog::Tls, Fault> {
    let identity = match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
        (None, None) => None,
        _ => return Err(Fault::at("tls", "`cert` and `key` belong together", "name both files, or neither")),
    };
    Ok(catalog::Tls { ca: tls.ca.clone(), identity })
}

/// A NATS connection.
///
/// # Errors
/// An address or certificates that cannot be.
pub fn nats(servers: &str, auth: Option<&ends::NatsAuth>, with: Option<&Tls>) -> Result<NatsClient, Fault> {
    let servers: Vec<String> = servers.split(',').map(|server| server.trim().to_owned()).collect();
    for server in &servers {
        let (scheme, rest) = server.split_once("://").unwrap_or(("nats", server));
        let good = !rest.is_empty() && !rest.contains(|c: char| c.is_whitespace() || c == '@' || c == '/');
        if !good || !matches!(scheme, "nats" | "tls") {
            let message = format!("`{server}` is not the address of a NATS server");
            return Err(Fault::at(
                "servers",
                message,
                "write nats://host:4222 or tls://host:4222; who we are stands in `auth`",
            ));
        }
    }
    let auth = match auth {
        None => NatsAuth::None,
        Some(ends::NatsAuth::Basic(basic)) => NatsAuth::Basic(basic.username.clone(), basic.password.keep()),
        Some(ends::NatsAuth::Token(token)) => NatsAuth::Token(token.keep()),
        Some(ends::NatsAuth::Nkey(seed)) => NatsAuth::Nkey(seed.keep()),
        Some(ends::NatsAuth::Creds(path)) => NatsAuth::Creds(path.clone()),
    };
    Ok(NatsClient { servers, auth, tls: with.map(tls).transpose()? })
}

/// The connection of a NATS source that says either `stream` and `durable`, or `subject`.
///
/// # Errors
/// Keys that do not go together, or a name that cannot be.
pub fn nats_source(source: &ends::NatsSource) -> Result<NatsClient, Fault> {
    let both = "JetStream: `stream` and `durable`; core NATS: `subject`, and `queue` to share it";
    let name = |key: &'static str, name: &Option<String>| match name {
        Some(name) if name.is_empty() || name.contains(|c: char| c.is_whitespace() || ".*>/\\".contains(c)) => {
            Err(Fault::at(key, format!("`{name}` is not a name"), "letters, digits, `-` and `_`"))
        }
        _ => Ok(()),
    };
    name("stream", &source.stream)?;
    name("durable", &source.durable)?;
    name("queue", &source.queue)?;
    name("retry_stream", &source.retry_stream)?;
    if source.retry_stream.is_some() && (source.stream.is_none() || source.stream == source.retry_stream) {
        let help = "name a `stream` to read, and another one for what waits";
        return Err(Fault::at("retry_stream", "a retry stream is for what is read from another stream", help));
    }
    match (&source.stream, &source.durable, &source.subject) {
        (Some(_), Some(_), _) if source.queue.is_some() => {
            return Err(Fault::at(
                "queue",
                "a JetStream consumer has no `queue`: its instances share by `durable`",
                both,
            ));
        }
        (Some(_), Some(_), _) => {}
        (Some(_), None, _) => return Err(Fault::at("stream", "`stream` needs `durable`, the consumer's name", both)),
        (None, Some(_), _) => return Err(Fault::at("durable", "`durable` needs `stream`", both)),
        (None, None, Some(_)) => {}
        (None, None, None) => return Err(Fault { path: vec![], message: "nothing to read".into(), help: both.into() }),
    }
    if let Some(subject) = &source.subject
        && !crate::transform::is_subscribable(subject)
    {
        let message = format!("`{subject}` is not a subject");
        return Err(Fault::at(
            "subject",
            message,
            "write tokens joined by dots; `*` stands for one, a last `>` for the rest",
        ));
    }
    if source.ack_wait.0.as_secs() < 2 {
        return Err(Fault::at("ack_wait", "too short to answer within", "write 2s or more; 30s is usual"));
    }
    nats(&source.servers, source.auth.as_ref(), source.tls.as_ref())
}

/// Headers that the exchange itself needs.
const OWN_HEADERS: [&str; 12] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "content-encoding",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
];

/// An HTTP endpoint.
///
/// # Errors
/// An address, header or secret that cannot be.
pub fn http(http: &ends::HttpTarget) -> Result<HttpTarget, Fault> {
    let parsed = reqwest::Url::parse(&http.url).ok().filter(|url| url.has_host());
    let help = "write https://host/path; who we are stands in `auth`";
    match &parsed {
        Some(url) if !matches!(url.scheme(), "http" | "https") => {
            return Err(Fault::at("url", format!("`{}` is not an http or https address", http.url), help));
        }
        Some(url) if !url.username().is_empty() || url.password().is_some() => {
            return Err(Fault::at("url", "the address holds a user name or password", help));
        }
        Some(_) => {}
        None => return Err(Fault::at("url", format!("`{}` is not an http or https address", http.url), help)),
    }
    for (name, value) in &http.headers {
        header(name, value).map_err(|fault| fault.below("headers"))?;
        ours(name).map_err(|fault| fault.below("headers"))?;
    }
    let auth = match &http.auth {
        None => HttpAuth::None,
        Some(ends::HttpAuth::Basic(basic)) => {
            if basic.username.contains(':') {
                return Err(Fault::at("auth", "a user name of basic authentication has no `:`", "RFC 7617 forbids it"));
            }
            HttpAuth::Basic(basic.username.clone(), basic.password.keep())
        }
        Some(ends::HttpAuth::Bearer(token)) => {
            header("authorization", token).map_err(|fault| fault.below("auth"))?;
            HttpAuth::Bearer(token.keep())
        }
        Some(ends::HttpAuth::ApiKey(key)) => {
            header(&key.name, &key.value).map_err(|fault| fault.below("auth"))?;
            ours(&key.name).map_err(|fault| fault.below("auth"))?;
            HttpAuth::ApiKey(key.name.clone(), key.value.keep())
        }
    };
    if http.timeout.0.is_zero() || http.max_in_flight == 0 {
        let key = if http.max_in_flight == 0 { "max_in_flight" } else { "timeout" };
        return Err(Fault::at(key, "nothing could be sent", "write a number above 0"));
    }
    if let Some(secret) = &http.signing_secret {
        webhook_secret(secret).map_err(|message| Fault::at("signing_secret", message, STANDARD_SECRET))?;
    }
    Ok(HttpTarget {
        url: http.url.clone(),
        method: match http.method {
            ends::Method::Post => HttpMethod::Post,
            ends::Method::Put => HttpMethod::Put,
            ends::Method::Patch => HttpMethod::Patch,
        },
        headers: http.headers.iter().map(|(name, value)| (name.clone(), value.keep())).collect(),
        auth,
        timeout: http.timeout.0,
        max_in_flight: http.max_in_flight,
        rate: http.rate_limit.map(|rate| rate.0),
        http2: http.http2,
        gzip: http.compression == Compression::Gzip,
        signing_secret: http.signing_secret.as_ref().map(Secret::keep),
        on_success: http.on_success.clone().map(catalog::Destination::Bus),
        on_failure: http.on_failure.clone().map(catalog::Destination::Bus),
        tls: http.tls.as_ref().map(tls).transpose()?.unwrap_or_default(),
        invocation: None,
        call: None,
    })
}

/// Refuses a header that is ours to set.
fn ours(name: &str) -> Result<(), Fault> {
    if !OWN_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
        return Ok(());
    }
    let message = format!("header `{name}` is not for the configuration to set");
    Err(Fault { path: vec![], message, help: "remove it: the exchange itself needs it".into() })
}

const STANDARD_SECRET: &str = "write `whsec_` and 24 to 64 bytes in base64";

fn header(name: &str, value: &Secret) -> Result<(), Fault> {
    if axum::http::HeaderName::from_bytes(name.as_bytes()).is_err() {
        let message = format!("`{}` is not a header name", name.escape_debug());
        return Err(Fault { path: vec![], message, help: "letters, digits and `-`".into() });
    }
    // The value may be a secret: it is not shown.
    if axum::http::HeaderValue::from_str(value.expose()).is_err() {
        let message = format!("the value of header `{name}` holds a line end or another control character");
        return Err(Fault { path: vec![], message, help: "a secret's file may end in a line end; remove it".into() });
    }
    Ok(())
}

/// The key of a Standard Webhooks secret. A reference that does not resolve is reported already.
fn webhook_secret(secret: &Secret) -> Result<(), String> {
    let text = secret.expose();
    if text.contains("${") {
        return Ok(());
    }
    crate::webhook::standard_key(text).map(drop)
}

/// Checks a webhook's path and secrets.
///
/// # Errors
/// A path or secret that cannot be.
pub fn webhook(webhook: &ends::Webhook) -> Result<(), Fault> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/' | '~');
    let path = &webhook.path;
    let taken = path == "/" || path == "/events" || path.starts_with("/events/");
    if taken || !path.starts_with('/') || path.len() > 256 || !path.chars().all(good) {
        let message = format!("`{path}` is not a path for a webhook");
        return Err(Fault::at(
            "path",
            message,
            "write /in/NAME with letters, digits, `.`, `-` and `_`; / and /events are taken",
        ));
    }
    let secrets: Vec<&Secret> = match &webhook.verify {
        Verify::None => vec![],
        Verify::StandardWebhooks(secrets) => {
            for secret in std::iter::once(&secrets.secret).chain(&secrets.also) {
                webhook_secret(secret).map_err(|message| Fault::at("verify", message, STANDARD_SECRET))?;
            }
            vec![]
        }
        Verify::Datadog(shared) => {
            header(&shared.header, &shared.secret).map_err(|fault| fault.below("verify"))?;
            std::iter::once(&shared.secret).chain(&shared.also).collect()
        }
        Verify::Zendesk(secrets)
        | Verify::Pagerduty(secrets)
        | Verify::Github(secrets)
        | Verify::Stripe(secrets)
        | Verify::Slack(secrets) => std::iter::once(&secrets.secret).chain(&secrets.also).collect(),
    };
    if secrets.iter().any(|secret| secret.expose().is_empty()) {
        return Err(Fault::at("verify", "the secret is empty", "anybody could sign; take the sender's secret"));
    }
    Ok(())
}

/// How a source's records become events.
///
/// # Errors
/// A path that is none.
pub fn framing(envelope: &Envelope) -> Result<Framing, String> {
    let origin = |attribute: &Attribute| match attribute {
        Attribute::Header(header) => Ok(Origin::Header(header.header.clone())),
        Attribute::Text(text) if text.starts_with('$') => JsonPath::parse(text).map(Origin::Path),
        Attribute::Text(text) => Ok(Origin::Text(text.clone())),
    };
    Ok(match envelope {
        Envelope::EventBridge => Framing::EventBridge,
        Envelope::CloudEvents => Framing::CloudEvents,
        Envelope::Raw(raw) => Framing::Raw { source: origin(&raw.source)?, detail_type: origin(&raw.detail_type)? },
    })
}

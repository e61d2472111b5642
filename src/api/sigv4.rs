//! AWS Signature Version 4, verified: who signed a request, and that it came as it was signed.
//!
//! In: a request's head and whole body, access keys, the time. Out: the key. Promises: the body's hash is our own; what
//! is not signed is not looked at; unknown ids cost as much time as known ones; a write counts once. Leaves to others:
//! the computation (`aws-sigv4`), what a caller may do (`access`).
//! Source: AWS General Reference, "Signature Version 4 signing process"; texts as the service answers.

use super::access::Role;
use crate::catalog::is_region;
use crate::config::access::AccessKey;
use crate::resources::ApiError;
use crate::resources::policy::Principal;
use crate::{plan, time};
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    self, PayloadChecksumKind, SignableBody, SignableRequest, SignatureLocation, SigningSettings,
};
use aws_sigv4::sign::v4;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, header};
use ring::hmac;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const SERVICE: &str = "events";
const TERMINATOR: &str = "aws4_request";
/// Headers that must be signed.
const SIGNED: [&str; 3] = ["host", "x-amz-date", "x-amz-target"];
/// Headers in a signature.
const MOST_SIGNED: usize = 64;
/// How far a client's clock may be from ours, seconds; and so how long a signature is good.
const SKEW: i64 = 5 * 60;
/// Signatures that are remembered.
const REMEMBERED: usize = 1 << 18;

/// Access keys, and what they have signed of late.
pub struct Keys {
    known: HashMap<String, Arc<Key>>,
    /// Stands in for ids that nobody has.
    nobody: Arc<Key>,
    /// Signatures are compared as keyed hashes, in constant time.
    compare: hmac::Key,
    seen: Mutex<Seen>,
}

/// An access key.
pub struct Key {
    credentials: Credentials,
    /// Whose it is.
    pub who: Principal,
    /// What its holder may do.
    pub role: Role,
    regions: Vec<String>,
}

/// What a request's head says of its signature; nothing of it is verified.
pub struct Claim {
    id: String,
    /// Of the scope.
    pub region: String,
    /// As the head has it.
    date: String,
    /// Seconds since the epoch.
    at: i64,
    headers: Vec<HeaderName>,
    signature: String,
}

impl Claim {
    /// Reads the head of a request.
    ///
    /// # Errors
    /// It is not signed, or not as it must be.
    pub fn read(head: &Parts) -> Result<Self, ApiError> {
        if head.uri.query().is_some() {
            return Err(incomplete("A signed request has no query here, and presigned URLs are not taken."));
        }
        let headers = &head.headers;
        let authorization = one(headers, &header::AUTHORIZATION)?.unwrap_or_default();
        let (algorithm, rest) = authorization.split_once(' ').unwrap_or((authorization, ""));
        if authorization.is_empty() {
            return Err(ApiError::new("MissingAuthenticationTokenException", "Missing Authentication Token"));
        }
        if algorithm != ALGORITHM {
            return Err(incomplete("Unsupported AWS 'algorithm' in the Authorization header; use AWS4-HMAC-SHA256."));
        }
        let parts = Parts4::read(rest)?;
        let date = one(headers, &HeaderName::from_static("x-amz-date"))?.unwrap_or_default();
        let at = time::parse_basic(date).filter(|at| *at >= 0);
        let at = at.ok_or_else(|| {
            incomplete("Authorization header requires existence of a 'X-Amz-Date' header in ISO-8601 basic format.")
        })?;
        let names = signed(headers, parts.headers)?;
        let (id, region) = scope(parts.credential, date)?;
        let signature = parts.signature.to_owned();
        Ok(Self { id, region, date: date.to_owned(), at, headers: names, signature })
    }
}

/// The three parts of the header.
struct Parts4<'h> {
    credential: &'h str,
    headers: &'h str,
    signature: &'h str,
}

impl<'h> Parts4<'h> {
    fn read(text: &'h str) -> Result<Self, ApiError> {
        let (mut credential, mut headers, mut signature) = (None, None, None);
        for part in text.split(',') {
            let (name, value) = part.trim_matches(' ').split_once('=').ok_or_else(|| {
                incomplete("A part of the Authorization header is not a key=value pair (missing equal-sign).")
            })?;
            let place = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut headers,
                "Signature" => &mut signature,
                _ => return Err(incomplete("The Authorization header has a parameter that is none.")),
            };
            if place.replace(value).is_some() {
                return Err(incomplete("A parameter stands in the Authorization header twice."));
            }
        }
        let rows = [("Credential", credential), ("Signature", signature), ("SignedHeaders", headers)];
        let missing = rows.iter().filter(|(_, value)| value.is_none_or(str::is_empty));
        let missing: Vec<_> =
            missing.map(|(name, _)| format!("Authorization header requires '{name}' parameter.")).collect();
        match (credential, headers, signature) {
            (Some(credential), Some(headers), Some(signature)) if missing.is_empty() => {
                Ok(Self { credential, headers, signature })
            }
            _ => Err(incomplete(&missing.join(" "))),
        }
    }
}

/// The headers that a signature covers: each once in the head, all that must be among them.
fn signed(headers: &HeaderMap, list: &str) -> Result<Vec<HeaderName>, ApiError> {
    let mut names = Vec::new();
    for text in list.split(';') {
        // Clients sort them, in small letters.
        let name = HeaderName::from_bytes(text.as_bytes()).ok().filter(|name| name.as_str() == text);
        let name = name.filter(|name| names.last().is_none_or(|last: &HeaderName| last.as_str() < name.as_str()));
        let name = name.filter(|_| names.len() < MOST_SIGNED);
        let name =
            name.ok_or_else(|| incomplete("SignedHeaders is no sorted list of header names in small letters."))?;
        if one(headers, &name)?.is_none() {
            return Err(mismatch(&format!("The header '{name}' is signed and not there.")));
        }
        names.push(name);
    }
    match SIGNED.iter().find(|wanted| names.iter().all(|name| name.as_str() != **wanted)) {
        Some(name) => Err(mismatch(&format!("'{name}' must be a 'SignedHeader' in the AWS Authorization."))),
        None => Ok(names),
    }
}

/// Key id and region of a scope.
fn scope(credential: &str, date: &str) -> Result<(String, String), ApiError> {
    let parts: Vec<&str> = credential.split('/').collect();
    let [id, day, region, service, terminator] = parts[..] else {
        let message = "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term.";
        return Err(incomplete(message));
    };
    if terminator != TERMINATOR {
        return Err(mismatch("Credential should be scoped with a valid terminator: 'aws4_request'."));
    }
    if service != SERVICE {
        return Err(mismatch("Credential should be scoped to correct service: 'events'."));
    }
    if !is_region(region) {
        return Err(no_region());
    }
    if date.get(..8) != Some(day) {
        let message = "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP.";
        return Err(mismatch(message));
    }
    Ok((id.to_owned(), region.to_owned()))
}

/// A header that stands in the head once, or not at all.
fn one<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, ApiError> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(incomplete(&format!("The header '{name}' stands there more than once.")));
    }
    let text = first.map(|value| value.to_str());
    text.transpose().map_err(|_| incomplete(&format!("The header '{name}' is not in visible ASCII.")))
}

impl Keys {
    /// Keys as files have them.
    pub fn new(keys: &[AccessKey]) -> Self {
        let random = || format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
        let none = Principal { account: String::new(), arn: String::new(), organization: None };
        let nobody = Key::new(("", &random()), none, Role::Put, Vec::new());
        let known = keys.iter().map(|key| {
            let name = key.name.as_ref().unwrap_or(&key.access_key_id);
            let arn = format!("arn:{}:iam::{}:user/{name}", plan::partition(""), key.account);
            let who = Principal { account: key.account.clone(), arn, organization: key.organization.clone() };
            let pair = (key.access_key_id.as_str(), key.secret_access_key.expose());
            (key.access_key_id.clone(), Arc::new(Key::new(pair, who, key.role, key.regions.clone())))
        });
        let compare = hmac::Key::new(hmac::HMAC_SHA256, random().as_bytes());
        Self { known: known.collect(), nobody: Arc::new(nobody), compare, seen: Mutex::default() }
    }

    /// The key that signed a request, all of which came as it was signed. `now` is in seconds since the epoch.
    ///
    /// # Errors
    /// Why it counts as nobody's.
    pub fn verify(&self, claim: &Claim, head: &Parts, body: &[u8], now: i64) -> Result<Arc<Key>, ApiError> {
        in_time(claim, now)?;
        let known = self.known.get(&claim.id);
        let key = known.unwrap_or(&self.nobody);
        let expected = key.signature(claim, head, body)?;
        let same = hmac::verify(
            &self.compare,
            claim.signature.as_bytes(),
            hmac::sign(&self.compare, expected.as_bytes()).as_ref(),
        );
        if known.is_none() {
            let message = "The security token included in the request is invalid.";
            return Err(ApiError::new("UnrecognizedClientException", message));
        }
        if same.is_err() {
            return Err(mismatch(
                "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
                 Access Key and signing method. Consult the service documentation for details.",
            ));
        }
        if !key.regions.is_empty() && !key.regions.contains(&claim.region) {
            return Err(no_region());
        }
        Ok(Arc::clone(key))
    }

    /// Takes a write that was verified. SDKs sign the same request twice within a second alike, so once more is fine over
    /// the connection that it came by; anywhere else it is somebody's copy.
    ///
    /// # Errors
    /// It has come before; clients sign anew and try again.
    pub fn once(&self, claim: &Claim, connection: u64, now: i64) -> Result<(), ApiError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.take(claim, connection, now) {
            true => Ok(()),
            false => Err(ApiError::new(
                "ThrottlingException",
                "A request with this signature has come before. Sign it anew to make it once more.",
            )),
        }
    }
}

impl Key {
    fn new((id, secret): (&str, &str), who: Principal, role: Role, regions: Vec<String>) -> Self {
        Self { credentials: Credentials::new(id, secret, None, None, "sluice"), who, role, regions }
    }

    /// The signature that a request must have.
    fn signature(&self, claim: &Claim, head: &Parts, body: &[u8]) -> Result<String, ApiError> {
        let failed = |_| mismatch("The request cannot be signed.");
        let mut settings = SigningSettings::default();
        // What is signed is what the client says, and nothing else.
        settings.excluded_headers = None;
        settings.signature_location = SignatureLocation::Headers;
        settings.payload_checksum_kind = PayloadChecksumKind::NoHeader;
        let identity = self.credentials.clone().into();
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&claim.region)
            .name(SERVICE)
            .time(SystemTime::UNIX_EPOCH + Duration::from_secs(claim.at.unsigned_abs()))
            .settings(settings)
            .build()
            .map_err(|_| mismatch("The request cannot be signed."))?
            .into();
        let mut headers = Vec::with_capacity(claim.headers.len());
        for name in &claim.headers {
            headers.push((name.as_str(), one(&head.headers, name)?.unwrap_or_default()));
        }
        let address = format!("http://localhost{}", head.uri.path());
        let request =
            SignableRequest::new(head.method.as_str(), address, headers.into_iter(), SignableBody::Bytes(body));
        let signed = http_request::sign(request.map_err(failed)?, &params).map_err(failed)?;
        Ok(signed.signature().to_owned())
    }
}

fn in_time(claim: &Claim, now: i64) -> Result<(), ApiError> {
    let (date, clock) = (&claim.date, time::basic(now));
    if claim.at < now - SKEW {
        let oldest = time::basic(now - SKEW);
        return Err(mismatch(&format!("Signature expired: {date} is now earlier than {oldest} ({clock} - 5 min.)")));
    }
    if claim.at > now + SKEW {
        let latest = time::basic(now + SKEW);
        return Err(mismatch(&format!(
            "Signature not yet current: {date} is still later than {latest} ({clock} + 5 min.)"
        )));
    }
    Ok(())
}

/// Signatures of writes, until they are no longer good, and the connections that they came by.
#[derive(Default)]
struct Seen {
    known: BTreeMap<(i64, String), u64>,
    /// What is not later than this is forgotten, and not taken any more.
    floor: i64,
}

impl Seen {
    fn take(&mut self, claim: &Claim, connection: u64, now: i64) -> bool {
        if now + SKEW < self.floor {
            // The clock was ahead: what was seen then is as good as never seen.
            (self.known, self.floor) = (BTreeMap::new(), i64::MIN);
        }
        self.forget(now - SKEW - 1);
        if claim.at <= self.floor {
            return false;
        }
        let by = *self.known.entry((claim.at, claim.signature.clone())).or_insert(connection);
        // At more than a thousand writes a second clocks may differ by less than five minutes.
        while self.known.len() > REMEMBERED {
            let oldest = self.known.first_key_value().map_or(now, |((at, _), _)| *at);
            self.forget(oldest);
        }
        by == connection
    }

    /// Forgets what was signed at that time or before.
    fn forget(&mut self, until: i64) {
        self.floor = self.floor.max(until);
        while let Some(first) = self.known.first_entry().filter(|first| first.key().0 <= until) {
            first.remove();
        }
    }
}

fn incomplete(message: &str) -> ApiError {
    ApiError::new("IncompleteSignatureException", message)
}

fn mismatch(message: &str) -> ApiError {
    ApiError::new("InvalidSignatureException", message)
}

fn no_region() -> ApiError {
    mismatch("Credential should be scoped to a valid region.")
}

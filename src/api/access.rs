//! Who calls, and what they may do: tokens and signatures to callers.
//!
//! In: heads and bodies of requests. Out: callers, or why they are nobody. Promises: without tokens and keys everybody is
//! the owner; with any, nobody gets in without one. Leaves to others: signatures (`sigv4`), policies (`resources`).

use super::Failures;
use super::server::Peer;
use super::sigv4::{self, Claim, Keys};
use crate::config::Config;
use crate::config::access::{FormedToken, Token};
use crate::plan;
use crate::resources::policy::Principal;
use crate::resources::{ApiError, Scope};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use ring::{digest, hmac};
use std::sync::Arc;

pub use crate::config::access::Role;

/// Tokens that open what is not open to all, by their SHA-256. The hashes are compared as keyed hashes, in constant time.
#[derive(Clone)]
pub struct Tokens(Arc<(hmac::Key, Vec<(hmac::Tag, Role)>)>);

impl Tokens {
    /// Keeps what tells the tokens, not the tokens.
    pub fn new(tokens: &[Token]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, uuid::Uuid::new_v4().as_bytes());
        let tags = tokens.iter().filter_map(|token| {
            let (hash, role) = match token {
                Token::Plain(token) => (hash(token.expose()), Role::Admin),
                Token::Formed(FormedToken { token: Some(token), role, .. }) => (hash(token.expose()), *role),
                Token::Formed(FormedToken { sha256: Some(sha256), role, .. }) => (sha256.to_ascii_lowercase(), *role),
                Token::Formed(_) => return None,
            };
            Some((hmac::sign(&key, hash.as_bytes()), role))
        });
        let tags = tags.collect();
        Self(Arc::new((key, tags)))
    }

    /// Whether there is any.
    pub fn is_empty(&self) -> bool {
        self.0.1.is_empty()
    }

    /// What a request may do by its token: `Authorization: Bearer TOKEN`.
    pub fn role(&self, headers: &HeaderMap) -> Option<Role> {
        let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let hash = hash(value.strip_prefix("Bearer ")?.trim());
        let (key, tags) = &*self.0;
        tags.iter().fold(None, |found, (tag, role)| {
            let same = hmac::verify(key, hash.as_bytes(), tag.as_ref()).is_ok();
            if same { Some(*role) } else { found }
        })
    }
}

/// The SHA-256 of a token, as configurations write it.
fn hash(token: &str) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(64);
    for byte in digest::digest(&digest::SHA256, token.as_bytes()).as_ref() {
        // A text takes all that is written.
        write!(text, "{byte:02x}").unwrap_or_default();
    }
    text
}

impl Role {
    /// Whether it may do an action of the EventBridge API.
    pub fn may(self, action: &str) -> bool {
        match self {
            Self::Admin => true,
            Self::Read => is_read(action),
            Self::Put => matches!(action, "PutEvents" | "PutPartnerEvents"),
        }
    }
}

/// Whether an action changes nothing.
fn is_read(action: &str) -> bool {
    action.starts_with("Describe") || action.starts_with("List") || action == "TestEventPattern"
}

/// Who may call the front.
pub struct Access {
    /// Tokens.
    pub tokens: Tokens,
    keys: Option<Keys>,
    failures: Failures,
    home: Scope,
}

/// Who calls.
pub struct Caller {
    /// The account and region that the call acts in.
    pub scope: Scope,
    /// Who it is, where policies of buses are enforced.
    pub who: Option<Principal>,
}

/// What a request's head says of who calls.
pub enum Claimed {
    /// Nobody is asked.
    Everybody,
    /// Who has a token.
    Token(Role),
    /// Who has a key: to be verified with the body.
    Signed(Claim),
}

impl Access {
    /// As a configuration says.
    pub fn new(config: &Config, home: Scope) -> Self {
        let auth = config.server.auth.as_ref();
        let tokens = auth.and_then(|auth| auth.bearer.as_deref()).unwrap_or_default();
        let keys = auth.and_then(|auth| auth.keys.as_ref()).map(|_| Keys::new(&config.keys));
        let failures = Failures::new(auth.map_or(0, |auth| auth.failures_per_minute));
        Self { tokens: Tokens::new(tokens), keys, failures, home }
    }

    /// Whether everybody may call.
    pub fn is_open(&self) -> bool {
        self.keys.is_none() && self.tokens.is_empty()
    }

    /// What a request may do by its token alone. `now` is in seconds since the epoch.
    ///
    /// # Errors
    /// Too many requests from its address have failed.
    pub fn token(&self, headers: &HeaderMap, peer: Option<Peer>, now: i64) -> Result<Option<Role>, ApiError> {
        self.admit(peer, now)?;
        let role = self.tokens.role(headers);
        if role.is_none() {
            self.failed(peer, now);
        }
        Ok(role)
    }

    fn admit(&self, peer: Option<Peer>, now: i64) -> Result<(), ApiError> {
        peer.map_or(Ok(()), |Peer(peer)| self.failures.admit(peer.ip(), now))
    }

    fn failed(&self, peer: Option<Peer>, now: i64) {
        if let Some(Peer(peer)) = peer {
            self.failures.note(peer.ip(), now);
        }
    }

    /// Reads who a request is from, before its body. `now` is in seconds since the epoch.
    ///
    /// # Errors
    /// It says nothing, or nothing that can be true, or too many requests from its address have failed.
    pub fn claimed(&self, head: &Parts, now: i64) -> Result<Claimed, ApiError> {
        if self.is_open() {
            return Ok(Claimed::Everybody);
        }
        let peer = head.extensions.get::<Peer>().copied();
        self.admit(peer, now)?;
        self.claim(head).inspect_err(|_| self.failed(peer, now))
    }

    fn claim(&self, head: &Parts) -> Result<Claimed, ApiError> {
        if let Some(role) = self.tokens.role(&head.headers) {
            return Ok(Claimed::Token(role));
        }
        match self.keys {
            Some(_) => Claim::read(head).map(Claimed::Signed),
            None => Err(ApiError::new(
                "AccessDeniedException",
                "this endpoint wants `Authorization: Bearer TOKEN` with a token of server.auth",
            )),
        }
    }

    /// Who calls, and whether they may do that.
    ///
    /// # Errors
    /// The service's.
    pub fn caller(
        &self,
        claimed: Claimed,
        (head, body): (&Parts, &[u8]),
        action: &str,
        (connection, now): (u64, i64),
    ) -> Result<Caller, ApiError> {
        let (role, who, scope) = match claimed {
            Claimed::Everybody => {
                return Ok(Caller { scope: super::wire::scope(&head.headers, &self.home), who: None });
            }
            Claimed::Token(role) => {
                let arn = format!("arn:{}:iam::{}:user/bearer", plan::partition(&self.home.region), self.home.account);
                let who = Principal { account: self.home.account.clone(), arn, organization: None };
                (role, who, self.home.clone())
            }
            Claimed::Signed(claim) => {
                let keys = self.keys.as_ref().ok_or_else(nobody)?;
                let verified = keys.verify(&claim, head, body, now);
                let peer = head.extensions.get::<Peer>().copied();
                let key: Arc<sigv4::Key> = verified.inspect_err(|_| self.failed(peer, now))?;
                if !is_read(action) {
                    keys.once(&claim, connection, now)?;
                }
                let scope = Scope { account: key.who.account.clone(), region: claim.region };
                (key.role, key.who.clone(), scope)
            }
        };
        if !role.may(action) {
            return Err(not_by_role(&who, action, &scope));
        }
        Ok(Caller { scope, who: self.keys.is_some().then_some(who) })
    }
}

fn nobody() -> ApiError {
    ApiError::new("UnrecognizedClientException", "The security token included in the request is invalid.")
}

fn not_by_role(who: &Principal, action: &str, scope: &Scope) -> ApiError {
    let message = format!(
        "User: {} is not authorized to perform: events:{action} on resource: {} because no identity-based policy allows \
         the events:{action} action",
        who.arn,
        scope.arn("*")
    );
    ApiError::new("AccessDeniedException", message)
}

/// The refusal of what is another account's.
pub fn not_by_policy(who: &Principal, action: &str, resource: &str) -> ApiError {
    let message = format!(
        "User: {} is not authorized to perform: events:{action} on resource: {resource} because no resource-based policy \
         allows the events:{action} action",
        who.arn
    );
    ApiError::new("AccessDeniedException", message)
}

/// The refusal of what a policy denies in so many words.
pub fn denied(who: &Principal, action: &str, resource: &str) -> ApiError {
    let message = format!(
        "User: {} is not authorized to perform: events:{action} on resource: {resource} with an explicit deny in a \
         resource-based policy",
        who.arn
    );
    ApiError::new("AccessDeniedException", message)
}

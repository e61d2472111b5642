//! Signatures of webhooks: those that senders put on what they post to us, and ours on what we post.
//!
//! In: headers, body, secrets, the time. Out: whether the body is the sender's. Promises: compares in constant time;
//! a time stamp is believed only as part of what is signed. Leaves to others: what an answer says (`api`).
//!
//! Each scheme follows its public description: Standard Webhooks 1.0 ("webhook-signature"), Zendesk ("Verifying
//! webhook authenticity"), PagerDuty ("Verifying signatures", V3), GitHub ("Validating webhook deliveries"), Stripe
//! ("Verify webhook signatures manually"), Slack ("Verifying requests from Slack"), Datadog (custom headers of a webhook).

use crate::time;
use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use ring::{digest, hmac};
use std::collections::{HashMap, VecDeque};

/// Seconds that a time stamp may be off, either way.
pub const TOLERANCE: i64 = 300;
/// Seconds in which a signature is not taken a second time.
const REPLAY_WINDOW: i64 = 2 * TOLERANCE;
/// Signatures that are remembered; beyond, the oldest are forgotten.
const REMEMBERED: usize = 100_000;

/// Secrets are also given out without padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How a sender signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scheme {
    /// `webhook-signature: v1,BASE64 ...` over id, time and body.
    StandardWebhooks,
    /// `x-zendesk-webhook-signature: BASE64` over time and body.
    Zendesk,
    /// `x-pagerduty-signature: v1=HEX,...` over the body.
    PagerDuty,
    /// `x-hub-signature-256: sha256=HEX` over the body.
    GitHub,
    /// `stripe-signature: t=SECONDS,v1=HEX,...` over time and body.
    Stripe,
    /// `x-slack-signature: v0=HEX` over version, time and body.
    Slack,
    /// A header of this name holds the secret itself.
    SharedSecret(String),
}

/// Why a body is not the sender's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A header is missing or cannot be read.
    Missing(String),
    /// No signature fits body and secret.
    Forged,
    /// The time stamp is too far from now.
    Stale,
    /// The signature was taken before.
    Replayed,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing(header) => write!(f, "header {header} is missing or cannot be read"),
            Self::Forged => f.write_str("no signature fits the body and the secret"),
            Self::Stale => write!(f, "the time stamp is more than {TOLERANCE} seconds from now"),
            Self::Replayed => f.write_str("this signature was taken before"),
        }
    }
}

impl std::error::Error for Refusal {}

/// What tells a repeated request from a new one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Proof(Vec<u8>);

/// Checks what one sender posts.
pub struct Verifier {
    scheme: Scheme,
    keys: Vec<hmac::Key>,
}

/// The key in a Standard Webhooks secret, `whsec_` and base64.
///
/// # Errors
/// What is wrong with it; the secret itself is not shown.
pub fn standard_key(secret: &str) -> Result<Vec<u8>, String> {
    let key = LENIENT
        .decode(secret.strip_prefix("whsec_").unwrap_or(secret))
        .map_err(|_| "the secret is not base64 behind `whsec_`".to_owned())?;
    if (24..=64).contains(&key.len()) {
        Ok(key)
    } else {
        Err(format!("the secret has {} bytes, 24 to 64 are wanted", key.len()))
    }
}

/// Signs as Standard Webhooks says: the value of `webhook-signature`.
pub fn sign(key: &[u8], id: &str, seconds: i64, body: &[u8]) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &standard_text(id, &seconds.to_string(), body));
    format!("v1,{}", STANDARD.encode(tag))
}

fn standard_text(id: &str, seconds: &str, body: &[u8]) -> Vec<u8> {
    [id.as_bytes(), b".", seconds.as_bytes(), b".", body].concat()
}

impl Verifier {
    /// A verifier that takes any of the secrets.
    ///
    /// # Errors
    /// A Standard Webhooks secret that is none.
    pub fn new(scheme: Scheme, secrets: &[&str]) -> Result<Self, String> {
        let key = |secret: &&str| {
            let bytes = match scheme {
                Scheme::StandardWebhooks => standard_key(secret)?,
                _ => secret.as_bytes().to_vec(),
            };
            Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
        };
        let keys = secrets.iter().map(key).collect::<Result<_, String>>()?;
        Ok(Self { scheme, keys })
    }

    /// Whether a second request with the same proof must be one that somebody else repeats. Where nothing signed
    /// holds a time, the sender itself repeats what it got no answer to.
    pub fn tells_replays(&self) -> bool {
        matches!(self.scheme, Scheme::StandardWebhooks | Scheme::Zendesk | Scheme::Stripe | Scheme::Slack)
    }

    /// Checks a request. `header` gives a header's value by its lower-case name; `now` is in seconds since the epoch.
    /// The proof is `None` where nothing is signed.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn verify<'h>(
        &self,
        header: impl Fn(&str) -> Option<&'h str>,
        body: &[u8],
        now: i64,
    ) -> Result<Option<Proof>, Refusal> {
        let need = |name: &str| {
            header(name).filter(|value| !value.is_empty()).ok_or_else(|| Refusal::Missing(name.to_owned()))
        };
        let (text, stamp, offered): (Vec<u8>, Option<i64>, Vec<Vec<u8>>) = match &self.scheme {
            Scheme::StandardWebhooks => {
                let (id, stamp) = (need("webhook-id")?, need("webhook-timestamp")?);
                let offered = need("webhook-signature")?.split(' ').filter_map(|one| one.strip_prefix("v1,"));
                (standard_text(id, stamp, body), Some(seconds(stamp)?), all_base64(offered))
            }
            Scheme::Zendesk => {
                let name = "x-zendesk-webhook-signature-timestamp";
                let stamp = need(name)?;
                let millis = time::parse_iso(stamp).ok_or(Refusal::Forged)?;
                let offered = all_base64(std::iter::once(need("x-zendesk-webhook-signature")?));
                ([stamp.as_bytes(), body].concat(), Some(millis.div_euclid(1000)), offered)
            }
            Scheme::PagerDuty => {
                let offered =
                    need("x-pagerduty-signature")?.split(',').filter_map(|one| one.trim().strip_prefix("v1="));
                (body.to_vec(), None, all_hex(offered))
            }
            Scheme::GitHub => {
                let offered = need("x-hub-signature-256")?.strip_prefix("sha256=");
                (body.to_vec(), None, all_hex(offered.into_iter()))
            }
            Scheme::Stripe => {
                let value = need("stripe-signature")?;
                let part = |name: &'static str| value.split(',').filter_map(move |part| part.trim().strip_prefix(name));
                let stamp = part("t=").next().ok_or(Refusal::Forged)?;
                let text = [stamp.as_bytes(), b".", body].concat();
                (text, Some(seconds(stamp)?), all_hex(part("v1=")))
            }
            Scheme::Slack => {
                let stamp = need("x-slack-request-timestamp")?;
                let offered = need("x-slack-signature")?.strip_prefix("v0=");
                let text = [b"v0:", stamp.as_bytes(), b":", body].concat();
                (text, Some(seconds(stamp)?), all_hex(offered.into_iter()))
            }
            Scheme::SharedSecret(name) => {
                let offered = need(&name.to_ascii_lowercase())?;
                // Equal secrets give equal tags, and tags are compared in constant time.
                let same = |key: &hmac::Key| {
                    let own = hmac::Key::new(hmac::HMAC_SHA256, offered.as_bytes());
                    hmac::verify(key, b"", hmac::sign(&own, b"").as_ref()).is_ok()
                };
                return if self.keys.iter().any(same) { Ok(None) } else { Err(Refusal::Forged) };
            }
        };
        let fits = |tag: &&Vec<u8>| self.keys.iter().any(|key| hmac::verify(key, &text, tag).is_ok());
        offered.iter().find(fits).ok_or(Refusal::Forged)?;
        if stamp.is_some_and(|stamp| stamp.abs_diff(now) > TOLERANCE.unsigned_abs()) {
            return Err(Refusal::Stale);
        }
        // GitHub gives two events of one body two delivery ids.
        let id = header("x-github-delivery").filter(|_| self.scheme == Scheme::GitHub).unwrap_or_default();
        // Of what is signed, not of the signature: there may be several.
        let signed = digest::digest(&digest::SHA256, &text);
        Ok(Some(Proof([signed.as_ref(), id.as_bytes()].concat())))
    }
}

/// A time stamp that is no number is nobody's.
fn seconds(text: &str) -> Result<i64, Refusal> {
    text.trim().parse().map_err(|_| Refusal::Forged)
}

fn all_base64<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<Vec<u8>> {
    texts.filter_map(|text| STANDARD.decode(text).ok()).collect()
}

fn all_hex<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<Vec<u8>> {
    texts.filter_map(hex).collect()
}

/// Bytes from lower-case hexadecimal digits, as all senders write them.
fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}

/// Proofs of late, so that none is taken twice.
#[derive(Default)]
pub struct Replays {
    /// Whether the event of a proof is kept, or still under way.
    known: HashMap<Proof, bool>,
    by_age: VecDeque<(i64, Proof)>,
}

/// What is known of a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Nothing, until now.
    New,
    /// Its event is being routed.
    UnderWay,
    /// Its event is kept.
    Kept,
}

impl Replays {
    /// Begins to take a proof, unless it is known.
    pub fn begin(&mut self, proof: &Proof, now: i64) -> Known {
        while let Some((_, old)) = self.by_age.pop_front_if(|(taken, _)| now - *taken > REPLAY_WINDOW) {
            self.known.remove(&old);
        }
        match self.known.get(proof) {
            Some(true) => return Known::Kept,
            Some(false) => return Known::UnderWay,
            None => {}
        }
        self.known.insert(proof.clone(), false);
        self.by_age.push_back((now, proof.clone()));
        while self.by_age.len() > REMEMBERED {
            if let Some((_, oldest)) = self.by_age.pop_front() {
                self.known.remove(&oldest);
            }
        }
        Known::New
    }

    /// Ends what [`Replays::begin`] began: the event is kept, or the sender has to come again.
    pub fn end(&mut self, proof: &Proof, kept: bool) {
        if kept {
            self.known.entry(proof.clone()).and_modify(|known| *known = true);
        } else {
            self.known.remove(proof);
            self.by_age.retain(|(_, known)| known != proof);
        }
    }
}

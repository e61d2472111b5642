//! A dead letter as it is kept: one JSON line of a file, or one record of a topic.

use crate::envelope::{DeliveryId, Position};
use crate::pattern::{self, Numbers, Pattern};
use crate::{event::Tree, time};
use base64::Engine;
use serde::{Deserialize, Serialize};

/// A dead letter; in JSON, the names that the delivery side writes (`deliver::dead_letter`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Letter {
    /// When it was buried.
    pub time: String,
    /// The bus.
    pub bus: String,
    /// Of the delivery: 32 hexadecimal digits.
    #[serde(rename = "sluice-delivery-id")]
    pub id: String,
    /// Absent where the source's record is no event.
    #[serde(rename = "RULE_ARN", default, skip_serializing_if = "Option::is_none")]
    pub rule_arn: Option<String>,
    /// The target; the source where there is no rule.
    #[serde(rename = "TARGET_ARN")]
    pub target_arn: String,
    /// As the service names causes.
    #[serde(rename = "ERROR_CODE")]
    pub code: String,
    /// What happened.
    #[serde(rename = "ERROR_MESSAGE", default)]
    pub message: String,
    /// Tries after the first.
    #[serde(rename = "RETRY_ATTEMPTS", default)]
    pub retries: String,
    /// The bound that ended retrying.
    #[serde(rename = "EXHAUSTED_RETRY_CONDITION", default, skip_serializing_if = "Option::is_none")]
    pub exhausted: Option<String>,
    /// The target's place in its rule, where the event stands as it was matched.
    #[serde(rename = "sluice-untransformed", default, skip_serializing_if = "Option::is_none")]
    pub untransformed: Option<String>,
    /// The source.
    #[serde(rename = "sluice-source", default)]
    pub source: String,
    /// Where the record stood in it.
    #[serde(rename = "sluice-position", default)]
    pub position: String,
    /// What ties the event to the call that brought it.
    #[serde(rename = "X-Amzn-Trace-Id", default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
    /// The record's key.
    #[serde(rename = "sluice-key", default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The same where it is no UTF-8.
    #[serde(rename = "sluice-key_base64", default, skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// The event as it was to be delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// The same where it is no UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_base64: Option<String>,
}

const BASE64: base64::engine::GeneralPurpose = base64::engine::general_purpose::STANDARD;

/// Bytes as text, or else in Base64.
fn texts(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(BASE64.encode(bytes))),
    }
}

fn bytes(text: Option<&String>, encoded: Option<&String>) -> Option<Vec<u8>> {
    match text {
        Some(text) => Some(text.clone().into_bytes()),
        None => BASE64.decode(encoded?).ok(),
    }
}

impl Letter {
    /// The letter of a line; `None` where it holds none.
    pub fn of_line(line: &[u8]) -> Option<Self> {
        let letter: Self = serde_json::from_slice(line).ok()?;
        (letter.delivery_id().is_some() && letter.payload().is_some()).then_some(letter)
    }

    /// The letter of a record; `None` where its headers are no letter's.
    pub fn of_record<'h>(
        headers: impl Iterator<Item = (&'h str, &'h [u8])>,
        millis: Option<i64>,
        key: Option<&[u8]>,
        payload: &[u8],
    ) -> Option<Self> {
        let mut letter = Self { time: millis.map(time::iso_millis).unwrap_or_default(), ..Self::default() };
        for (name, value) in headers {
            let value = String::from_utf8_lossy(value).into_owned();
            match name {
                "sluice-delivery-id" => letter.id = value,
                "sluice-bus" => letter.bus = value,
                "RULE_ARN" => letter.rule_arn = Some(value),
                "TARGET_ARN" => letter.target_arn = value,
                "ERROR_CODE" => letter.code = value,
                "ERROR_MESSAGE" => letter.message = value,
                "RETRY_ATTEMPTS" => letter.retries = value,
                "EXHAUSTED_RETRY_CONDITION" => letter.exhausted = Some(value),
                "sluice-untransformed" => letter.untransformed = Some(value),
                "sluice-source" => letter.source = value,
                "sluice-position" => letter.position = value,
                "X-Amzn-Trace-Id" => letter.trace = Some(value),
                _ => {}
            }
        }
        (letter.event, letter.event_base64) = texts(payload);
        (letter.key, letter.key_base64) = key.map(texts).unwrap_or_default();
        (letter.delivery_id().is_some() && !letter.code.is_empty()).then_some(letter)
    }

    /// The delivery's id.
    pub fn delivery_id(&self) -> Option<DeliveryId> {
        let whole = self.id.len() == 32;
        u128::from_str_radix(&self.id, 16).ok().filter(|_| whole).map(DeliveryId)
    }

    /// The target's name.
    pub fn target(&self) -> &str {
        self.target_arn.strip_prefix("arn:sluice:target:::").unwrap_or(&self.target_arn)
    }

    /// The rule's name.
    pub fn rule(&self) -> Option<&str> {
        self.rule_arn.as_ref().map(|arn| arn.rsplit('/').next().unwrap_or(arn))
    }

    /// The event's bytes.
    pub fn payload(&self) -> Option<Vec<u8>> {
        bytes(self.event.as_ref(), self.event_base64.as_ref())
    }

    /// The key's bytes.
    pub fn key(&self) -> Option<Vec<u8>> {
        bytes(self.key.as_ref(), self.key_base64.as_ref())
    }

    /// Where the record stood.
    pub fn record(&self) -> Position {
        let mut parts = self.position.rsplitn(3, '/');
        let mut number = || parts.next().and_then(|text| text.parse::<i64>().ok());
        let (offset, partition) = (number().unwrap_or(0), number().unwrap_or(0));
        let topic = parts.next().unwrap_or_default().into();
        Position { topic, partition: i32::try_from(partition).unwrap_or(0), offset }
    }
}

/// Which letters.
#[derive(Default)]
pub struct Filter {
    /// Of this bus.
    pub bus: Option<String>,
    /// For this target, or of this source.
    pub target: Option<String>,
    /// Of this rule.
    pub rule: Option<String>,
    /// With this cause.
    pub code: Option<String>,
    /// Whose event is JSON and matches.
    pub pattern: Option<Pattern>,
    /// How the pattern compares numbers.
    pub numbers: Numbers,
}

impl Filter {
    /// Whether every letter fits.
    pub fn is_empty(&self) -> bool {
        let Self { bus, target, rule, code, pattern, numbers: _ } = self;
        [bus, target, rule, code].iter().all(|part| part.is_none()) && pattern.is_none()
    }

    /// Whether a letter fits.
    pub fn fits(&self, letter: &Letter) -> bool {
        let is = |wanted: &Option<String>, it: &str| wanted.as_ref().is_none_or(|wanted| wanted == it);
        is(&self.bus, &letter.bus)
            && is(&self.target, letter.target())
            && is(&self.code, &letter.code)
            && self.rule.as_ref().is_none_or(|wanted| letter.rule() == Some(wanted))
            && self.pattern.as_ref().is_none_or(|pattern| {
                let event = letter.payload().unwrap_or_default();
                Tree::parse(&event).is_ok_and(|tree| pattern::matches(pattern, &tree, self.numbers))
            })
    }
}

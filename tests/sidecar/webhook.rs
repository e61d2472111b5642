//! Signatures of webhooks, against vectors that other libraries computed (`webhooks.py` makes them).

use base64::Engine;
use sluice::webhook::{Known, Refusal, Replays, Scheme, Verifier, sign, standard_key};
use std::collections::HashMap;

#[test]
fn vectors_of_other_libraries() {
    let mut counts: HashMap<String, u32> = HashMap::new();
    for line in include_str!("webhooks.jsonl").lines() {
        let row: serde_json::Value = serde_json::from_str(line).expect("a row");
        let text = |name: &str| row[name].as_str().expect("text");
        let (name, mut secret) = (text("name"), text("secret").to_owned());
        let scheme = match text("scheme") {
            "standard-webhooks" => Scheme::StandardWebhooks,
            "zendesk" => Scheme::Zendesk,
            "pagerduty" => Scheme::PagerDuty,
            "github" => Scheme::GitHub,
            "stripe" => Scheme::Stripe,
            "slack" => Scheme::Slack,
            "datadog" => Scheme::SharedSecret("X-Sluice-Token".into()),
            "datadog-basic" => {
                secret = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(secret));
                Scheme::SharedSecret("Authorization".into())
            }
            other => panic!("{other}"),
        };
        let headers: HashMap<String, String> = row["headers"]
            .as_object()
            .expect("headers")
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.as_str().expect("text").to_owned()))
            .collect();
        let verifier = Verifier::new(scheme, &[&secret]).unwrap_or_else(|why| panic!("{name}: {why}"));
        let now = row["now"].as_i64().expect("seconds");
        let got = verifier.verify(|name| headers.get(name).map(String::as_str), text("body").as_bytes(), now);
        let got = match got {
            Ok(_) => "ok",
            Err(Refusal::Missing(_)) => "missing",
            Err(Refusal::Forged) => "bad",
            Err(Refusal::Stale) => "stale",
            Err(Refusal::Replayed) => "replayed",
        };
        assert_eq!(got, text("want"), "{name}");
        *counts.entry(text("scheme").to_owned()).or_default() += 1;
    }
    assert!(counts.len() == 8 && counts.values().all(|&rows| rows >= 8), "{counts:?}");
}

#[test]
fn either_of_two_secrets_is_taken() {
    let (old, new) = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    let verifier = Verifier::new(Scheme::StandardWebhooks, &[old, new]).expect("a verifier");
    for secret in [old, new] {
        let signature = sign(&standard_key(secret).expect("a key"), "msg_1", 1000, b"{}");
        let header = |name: &str| match name {
            "webhook-id" => Some("msg_1"),
            "webhook-timestamp" => Some("1000"),
            _ => Some(signature.as_str()),
        };
        assert!(verifier.verify(header, b"{}", 1100).is_ok());
    }
    assert!(Verifier::new(Scheme::StandardWebhooks, &["whsec_???"]).is_err());
    assert!(standard_key("whsec_AAAA").is_err_and(|why| why.contains("3 bytes")));
}

#[test]
fn a_proof_is_taken_once_within_the_window() {
    let verifier = Verifier::new(Scheme::GitHub, &["secret"]).expect("a verifier");
    let body = b"Hello";
    let signature = github_signature("secret", "Hello");
    let proof = |delivery: &'static str| {
        let header = |name: &str| match name {
            "x-hub-signature-256" => Some(signature.as_str()),
            "x-github-delivery" => Some(delivery),
            _ => None,
        };
        verifier.verify(header, body, 0).expect("a good signature").expect("a proof")
    };
    let (first, second) = (proof("1"), proof("2"));
    let mut replays = Replays::default();
    assert_eq!(replays.begin(&first, 0), Known::New);
    assert_eq!(replays.begin(&first, 1), Known::UnderWay);
    replays.end(&first, true);
    assert_eq!(replays.begin(&first, 2), Known::Kept);
    assert_eq!(replays.begin(&second, 2), Known::New, "another delivery of the same body");
    replays.end(&second, false);
    assert_eq!(replays.begin(&second, 3), Known::New, "what was not kept may come again");
    assert_eq!(replays.begin(&first, 700), Known::New, "the window has passed");
}

fn github_signature(key: &str, text: &str) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.as_bytes());
    let tag = ring::hmac::sign(&key, text.as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256={hex}")
}

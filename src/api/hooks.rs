//! Webhooks: what others post, checked against who they say they are, put onto a bus. 2xx only when it is kept.

use super::server::{self, later, problem};
use super::{ENVELOPE_BYTES, Front};
use crate::envelope::{Aim, SourceInfo};
use crate::event::{Kind, Tree};
use crate::metrics::{Metrics, labels};
use crate::source::inlet::Arrival;
use crate::time;
use crate::transform::wrap::Framing;
use crate::webhook::{Known, Proof, Refusal, Replays, Verifier};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Request, Response, StatusCode};
use axum::response::IntoResponse;
use std::sync::{Arc, Mutex, PoisonError};

/// One path that others post to.
pub struct Hook {
    /// Name, bus and framing of its source.
    info: Arc<SourceInfo>,
    /// What its events are to the workers: events already.
    pub routed: Arc<SourceInfo>,
    verifier: Option<Verifier>,
    replays: Mutex<Replays>,
    metrics: Arc<Metrics>,
}

impl Hook {
    /// A hook of a source; without a verifier it takes everything.
    pub fn new(info: SourceInfo, verifier: Option<Verifier>, metrics: &Arc<Metrics>) -> Self {
        let routed = SourceInfo {
            name: Arc::clone(&info.name),
            bus: Arc::clone(&info.bus),
            framing: Framing::EventBridge,
            on_invalid: info.on_invalid,
            dead_letter: info.dead_letter.clone(),
            event_bytes: info.event_bytes + ENVELOPE_BYTES,
            identity: info.identity.clone(),
            aim: Aim::default(),
        };
        let (info, routed) = (Arc::new(info), Arc::new(routed));
        Self { info, routed, verifier, replays: Mutex::default(), metrics: Arc::clone(metrics) }
    }

    /// Whether it knows its sender.
    pub fn is_verified(&self) -> bool {
        self.verifier.is_some()
    }

    /// Checks who sent a body. `Ok(None)`: nothing tells a repetition.
    fn check(&self, headers: &HeaderMap, body: &[u8], now: i64) -> Result<Option<Proof>, Refusal> {
        let Some(verifier) = &self.verifier else { return Ok(None) };
        let value = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        verifier.verify(value, body, now)
    }

    /// The event of a body.
    fn event(&self, front: &Front, headers: &HeaderMap, body: &[u8], id: &str) -> Result<Vec<u8>, String> {
        let event = front.event(&self.info.framing, &server::pairs(headers), body, id)?;
        let tree = Tree::parse(&event).map_err(|fault| format!("the body is not JSON: {fault}"))?;
        let whole = tree.root().kind() == Kind::Object && tree.root().get(b"source").is_some();
        drop(tree);
        if whole { Ok(event) } else { Err("the body is not an event: it has no source".to_owned()) }
    }

    fn refuse(&self, status: StatusCode, reason: &'static str, text: &str) -> Response<Body> {
        let own = labels([("source", &self.info.name), ("reason", reason)]);
        self.metrics.families.source_rejected.get_or_create(&own).inc();
        problem(status, text)
    }

    fn replays(&self) -> std::sync::MutexGuard<'_, Replays> {
        self.replays.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes what a sender posts, and answers when its event is kept.
pub async fn post(State(front): State<Arc<Front>>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Some(hook) = front.hooks.get(parts.uri.path()) else {
        return problem(StatusCode::NOT_FOUND, "no such webhook");
    };
    let body = match server::body(body, hook.info.event_bytes).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    let now = time::wall_millis().div_euclid(1000);
    let proof = match hook.check(&parts.headers, &body, now) {
        Ok(proof) => proof,
        Err(refusal) => return hook.refuse(StatusCode::UNAUTHORIZED, "signature", &refusal.to_string()),
    };
    let claim = match Claim::new(hook, proof, now) {
        Ok(claim) => claim,
        Err(answer) => return *answer,
    };
    let id = uuid::Uuid::new_v4().to_string();
    let event = match hook.event(&front, &parts.headers, &body, &id) {
        Ok(event) => event,
        Err(why) => return hook.refuse(StatusCode::BAD_REQUEST, "INVALID_EVENT", &why),
    };
    let arrival = Arrival { info: Arc::clone(&hook.routed), id: id.as_str().into(), event, trace: None };
    match front.accept(arrival).await {
        Ok(()) => {
            claim.keep();
            (StatusCode::OK, axum::Json(serde_json::json!({ "accepted": 1, "id": id }))).into_response()
        }
        Err(why) => later(&why.to_string()),
    }
}

/// A proof while its event is under way. Dropped unkept, as when the sender hangs up, it can be used again.
struct Claim<'h> {
    hook: &'h Hook,
    proof: Option<Proof>,
}

impl<'h> Claim<'h> {
    fn new(hook: &'h Hook, proof: Option<Proof>, now: i64) -> Result<Self, Box<Response<Body>>> {
        if let Some(proof) = &proof {
            let known = hook.replays().begin(proof, now);
            let told = hook.verifier.as_ref().is_some_and(Verifier::tells_replays);
            match known {
                Known::New => {}
                Known::UnderWay => return Err(Box::new(later("this event is being routed"))),
                // Where a time is signed, only somebody else sends the same again.
                Known::Kept if told => {
                    let refused = hook.refuse(StatusCode::CONFLICT, "replayed", &Refusal::Replayed.to_string());
                    return Err(Box::new(refused));
                }
                // Otherwise the sender did not hear us.
                Known::Kept => {
                    let known = (StatusCode::OK, axum::Json(serde_json::json!({ "accepted": 0 })));
                    return Err(Box::new(known.into_response()));
                }
            }
        }
        Ok(Self { hook, proof })
    }

    fn keep(mut self) {
        if let Some(proof) = self.proof.take() {
            self.hook.replays().end(&proof, true);
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if let Some(proof) = &self.proof {
            self.hook.replays().end(proof, false);
        }
    }
}

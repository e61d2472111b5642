//! What Sluice answers over HTTP: at the front the EventBridge endpoint, CloudEvents and webhooks; behind, for who runs
//! it, health, metrics and the native API.
//!
//! In: requests. Out: events to the inlet, orders to control. Promises: a 2xx for an event says that it is kept;
//! bodies, heads, connections and waits are bounded. Leaves to others: routing.

mod admin;
mod cloud;
mod events;
mod hooks;
mod rules;
pub mod server;
mod stats;
mod tap;
mod wire;

pub use admin::{Admin, router as admin_router, routes};
pub use events::{ENVELOPE_BYTES, source as put_source};
pub use hooks::Hook;
pub use rules::{RuleState, RuleView};
pub use stats::{BusStats, RuleStats, SourceStats, Stats, TargetStats};

use crate::control::View;
use crate::metrics::Metrics;
use crate::plan::Identity;
use crate::source::inlet::Inlet;
use crate::time;
use crate::transform::wrap::{Framing, Record};
use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Request, Response, StatusCode, header};
use axum::middleware::{self, Next};
use axum::routing::post;
use ring::hmac;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use wire::ApiError;

/// Tokens that open what is not open to all. They are compared as keyed hashes, in constant time.
#[derive(Clone)]
pub struct Tokens(Arc<(hmac::Key, Vec<hmac::Tag>)>);

impl Tokens {
    /// Keeps what tells the tokens, not the tokens.
    pub fn new<'t>(tokens: impl Iterator<Item = &'t str>) -> Self {
        let seed = uuid::Uuid::new_v4();
        let key = hmac::Key::new(hmac::HMAC_SHA256, seed.as_bytes());
        let tags = tokens.map(|token| hmac::sign(&key, token.as_bytes())).collect();
        Self(Arc::new((key, tags)))
    }

    /// Whether there is any.
    pub fn is_empty(&self) -> bool {
        self.0.1.is_empty()
    }

    /// Whether a request carries one: `Authorization: Bearer TOKEN`.
    pub fn open_for(&self, headers: &HeaderMap) -> bool {
        let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some(token) = value.and_then(|value| value.strip_prefix("Bearer ")) else { return false };
        let (key, tags) = &*self.0;
        tags.iter().fold(false, |open, tag| open | hmac::verify(key, token.trim().as_bytes(), tag.as_ref()).is_ok())
    }
}

/// What requests at the front work with.
pub struct Front {
    /// Where events go.
    pub inlet: Inlet,
    /// What is in effect.
    pub view: Arc<ArcSwap<View>>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Account and region.
    pub identity: Identity,
    /// Largest event.
    pub event_bytes: usize,
    /// How long a caller waits until its events are kept.
    pub accept_timeout: Duration,
    /// Who may put events; everybody when there is none.
    pub tokens: Tokens,
    /// Whether only this machine reaches us.
    pub loopback: bool,
    /// Webhooks by path.
    pub hooks: HashMap<String, Hook>,
}

impl Front {
    fn bus_exists(&self, bus: &str) -> bool {
        self.view.load().catalog.has_bus(bus)
    }

    /// The event of a body; the result is not validated.
    fn event(
        &self,
        framing: &Framing,
        headers: &[(String, Vec<u8>)],
        body: &[u8],
        id: &str,
    ) -> Result<Vec<u8>, String> {
        let record = Record {
            payload: body,
            headers,
            id,
            time: &time::iso_seconds(time::wall_millis()),
            account: &self.identity.account,
            region: &self.identity.region,
        };
        framing.event(&record).map(Cow::into_owned).map_err(|error| error.to_string())
    }
}

/// Routes of the front.
pub fn front_router(front: Front) -> Router {
    let front = Arc::new(front);
    let events = Router::new()
        .route("/", post(aws))
        .route("/events/{*bus}", post(cloud::post))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&front), known));
    let hooks = front.hooks.keys().fold(Router::new(), |router, path| router.route(path, post(hooks::post)));
    let router = events.merge(hooks).fallback(nothing_here);
    router.layer(middleware::from_fn_with_state(Arc::clone(&front), local)).with_state(front)
}

async fn nothing_here(request: Request<Body>) -> Response<Body> {
    let text = format!(
        "nothing answers {} {}; EventBridge: POST / with X-Amz-Target, CloudEvents: POST /events/BUS",
        request.method(),
        request.uri().path()
    );
    server::problem(StatusCode::NOT_FOUND, &text)
}

/// Refuses what a page in a browser sends to this machine under a name of its own.
async fn local(State(front): State<Arc<Front>>, request: Request<Body>, next: Next) -> Response<Body> {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    // A webhook that is verified may come through a proxy under the name that the sender knows.
    let verified = front.hooks.get(request.uri().path()).is_some_and(Hook::is_verified);
    if front.loopback && !verified && !server::names_this_machine(host) {
        return server::problem(StatusCode::MISDIRECTED_REQUEST, "the Host header does not name this machine");
    }
    next.run(request).await
}

/// Refuses who shows no token, where tokens are wanted.
async fn known(State(front): State<Arc<Front>>, request: Request<Body>, next: Next) -> Response<Body> {
    if front.tokens.is_empty() || front.tokens.open_for(request.headers()) {
        return next.run(request).await;
    }
    match wire::action(request.headers()) {
        Some(_) => wire::answer(Err(ApiError::new(
            "AccessDeniedException",
            "this endpoint wants `Authorization: Bearer TOKEN` with a token of server.auth",
        ))),
        None => server::problem(StatusCode::UNAUTHORIZED, "`Authorization: Bearer TOKEN` is missing or wrong"),
    }
}

/// The EventBridge endpoint.
async fn aws(State(front): State<Arc<Front>>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Some(action) = wire::action(&parts.headers) else {
        return wire::answer(Err(ApiError::new("UnknownOperationException", "X-Amz-Target names no action")));
    };
    // A byte of an event can be six in a JSON text within JSON.
    let bytes = match server::body(body, front.event_bytes * 6 + ENVELOPE_BYTES).await {
        Ok(bytes) => bytes,
        Err(answer) => return answer,
    };
    let region = wire::region(&parts.headers).unwrap_or(&front.identity.region);
    let members = match wire::members(&bytes) {
        Ok(members) => members,
        Err(error) => return wire::answer(Err(error)),
    };
    wire::answer(match action {
        "PutEvents" => events::put_events(&front, region, &members).await,
        "TestEventPattern" => events::test_event_pattern(&members),
        other => Err(ApiError::new("UnknownOperationException", format!("{other} is not an action of this endpoint"))),
    })
}

//! What Sluice answers over HTTP: at the front the EventBridge endpoint, CloudEvents and webhooks; behind, for who runs
//! it, health, metrics and the native API.
//!
//! In: requests. Out: events to the inlet or to keepers, orders to control. Promises: a 2xx for an event says that it
//! is kept; bodies, heads, connections and waits are bounded. Leaves to others: routing.

mod access;
mod admin;
mod archives;
mod cloud;
mod dlq;
mod events;
mod failures;
mod hooks;
pub mod model;
mod rates;
mod replays;
mod rules;
pub mod server;
pub mod sigv4;
mod stats;
mod tap;
mod wire;

pub use access::{Access, Role, Tokens};
pub use admin::{Admin, Running, router as admin_router, routes};
pub use archives::{ArchiveView, exported};
pub use events::{ENVELOPE_BYTES, source as put_source};
pub use failures::Failures;
pub use hooks::Hook;
pub use rates::Rates;
pub use replays::{ReplayView, Wanted};
pub use rules::{RuleState, RuleView};
pub use stats::{BusStats, RuleStats, SourceStats, Stats, TargetStats};

use crate::control::{Registry, View};
use crate::metrics::Metrics;
use crate::plan::Identity;
use crate::resources::policy;
use crate::source::inlet::Inlet;
use crate::source::keeper::Keepers;
use crate::time;
use crate::transform::wrap::{Framing, Record};
use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response, StatusCode, header};
use axum::middleware::{self, Next};
use axum::routing::post;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use wire::ApiError;

/// What requests at the front work with.
pub struct Front {
    /// Where events go.
    pub inlet: Inlet,
    /// What callers make.
    pub registry: Arc<Registry>,
    /// Where those of buses go whose own topic or stream keeps them.
    pub keepers: Keepers,
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
    /// Who may call.
    pub access: Access,
    /// How often.
    pub rates: Rates,
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
        .route("/events/{*bus}", post(cloud::post))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&front), known))
        .route("/", post(aws));
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
    let origin = request.headers().get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or_default());
    let origin = origin.map(|origin| origin.split_once("://").map_or(origin, |(_, host)| host));
    if front.loopback && !verified && origin.is_some_and(|origin| !server::names_this_machine(Some(origin))) {
        return server::problem(StatusCode::FORBIDDEN, "pages of other machines may not call this one (Origin)");
    }
    next.run(request).await
}

/// Refuses who shows no token to put events with, where callers are asked who they are.
async fn known(State(front): State<Arc<Front>>, request: Request<Body>, next: Next) -> Response<Body> {
    if front.access.is_open() {
        return next.run(request).await;
    }
    let peer = request.extensions().get::<server::Peer>().copied();
    match front.access.token(request.headers(), peer, time::wall_millis() / 1000) {
        Err(error) => server::problem(StatusCode::TOO_MANY_REQUESTS, &error.message),
        Ok(Some(role)) if role.may("PutEvents") => next.run(request).await,
        Ok(Some(_)) => server::problem(StatusCode::FORBIDDEN, "this token is not for putting events"),
        Ok(None) => server::problem(StatusCode::UNAUTHORIZED, "`Authorization: Bearer TOKEN` is missing or wrong"),
    }
}

/// The EventBridge endpoint.
async fn aws(State(front): State<Arc<Front>>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let now = time::wall_millis() / 1000;
    let claimed = match front.access.claimed(&parts, now) {
        Ok(claimed) => claimed,
        Err(error) => return wire::answer(Err(error)),
    };
    let Some(action) = wire::action(&parts.headers) else {
        return wire::answer(Err(ApiError::new("UnknownOperationException", "X-Amz-Target names no action")));
    };
    // A byte of an event can be six in a JSON text within JSON.
    let bytes = match server::body(body, front.event_bytes * 6 + ENVELOPE_BYTES).await {
        Ok(bytes) => bytes,
        Err(answer) if answer.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            return wire::answer(Err(ApiError::invalid("Total size of the entries in the request is over the limit.")));
        }
        Err(_) => return wire::answer(Err(ApiError::new("SerializationException", "the body did not come whole"))),
    };
    let connection = parts.extensions.get::<server::Connection>().map_or(0, |connection| connection.0);
    let caller = front.access.caller(claimed, (&parts, &bytes), action, (connection, now));
    let checked = caller.and_then(|caller| {
        front.rates.admit(&caller.scope, action)?;
        let mut members = wire::members(&bytes)?;
        model::model().check(action, &mut members)?;
        if let Some(who) = &caller.who
            && let Some(arn) = policy::foreign(&members, &who.account)
        {
            return Err(access::not_by_policy(who, action, arn));
        }
        Ok((caller, members))
    });
    wire::answer(match (checked, action) {
        (Err(error), _) => Err(error),
        (Ok((caller, members)), "PutEvents") => events::put_events(&front, &caller, &members).await,
        (Ok((_, members)), "TestEventPattern") => events::test_event_pattern(&members),
        (Ok((caller, members)), action) => {
            let by = caller.who.map(|who| who.arn);
            front.registry.act(action, (caller.scope, by), members).await
        }
    })
}

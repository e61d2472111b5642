//! The admin endpoints: health, metrics and the native API. What only says how the process is, is open; everything else
//! is for this machine, and for who has a token.

use super::server::{self, Peer, problem};
use super::{Role, Tokens, archives, dlq, replays, rules, stats, tap};
use crate::control::{Control, Registry, View};
use crate::dlq::Desk;
use crate::metrics::Metrics;
use crate::tap::Taps;
use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{Method, Request, Response, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get, post, put};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use tokio::sync::watch;

/// What the admin endpoints work with.
pub struct Admin {
    /// Counters and health.
    pub metrics: Arc<Metrics>,
    /// What can be asked once the process has started.
    pub running: Arc<OnceLock<Running>>,
    /// Whether everything that was made through the API may be removed at once.
    pub allow_reset: bool,
    /// What is in effect.
    pub view: Arc<ArcSwap<View>>,
    /// Who watches.
    pub taps: Arc<Taps>,
    /// Names of sources.
    pub sources: Vec<String>,
    /// Largest event that an archive takes, its envelope included.
    pub event_bytes: usize,
    /// Who may call from another machine.
    pub tokens: Tokens,
    /// Whether the process is about to end.
    pub stop: watch::Receiver<bool>,
}

/// What runs.
pub struct Running {
    /// The single writer.
    pub control: Arc<Mutex<Control>>,
    /// The dead letters.
    pub letters: Arc<Desk>,
    /// What callers make.
    pub registry: Arc<Registry>,
}

impl Running {
    /// What can be asked from now on.
    pub fn new(control: &Arc<Mutex<Control>>, letters: &Arc<Desk>, registry: &Arc<Registry>) -> Self {
        Self { control: Arc::clone(control), letters: Arc::clone(letters), registry: Arc::clone(registry) }
    }
}

const OPENAPI: &str = include_str!("../../config/openapi.json");

const INDEX: &str = "\
Sluice admin endpoints
  /livez      the process turns over
  /readyz     fit for traffic (503 when not); ?verbose lists why, ?exclude=PART leaves a part out
  /startupz   has started (503 before)
  /metrics    Prometheus
  /version    version
  /api/v1     rules, stats, tap, dead letters, archives, replays, reset; described by /api/v1/openapi.json
";

/// Every route of the native API: path, method, what answers. The OpenAPI document says the same.
pub fn routes() -> [(&'static str, &'static str, MethodRouter<Arc<Admin>>); 19] {
    let openapi = get(|| async { ([(header::CONTENT_TYPE, "application/json")], OPENAPI) });
    [
        ("/api/v1/openapi.json", "get", openapi),
        ("/api/v1/rules", "get", get(rules::list)),
        ("/api/v1/rules/{bus}/{rule}", "get", get(rules::show)),
        ("/api/v1/rules/{bus}/{rule}/state", "put", put(rules::set_state)),
        ("/api/v1/archives", "get", get(archives::list)),
        ("/api/v1/archives/{archive}/events", "get", get(archives::export)),
        ("/api/v1/archives/{archive}/events", "post", post(archives::import)),
        ("/api/v1/replays", "get", get(replays::list)),
        ("/api/v1/replays", "post", post(replays::start)),
        ("/api/v1/replays/{replay}", "get", get(replays::show)),
        ("/api/v1/replays/{replay}/cancel", "post", post(replays::cancel)),
        ("/api/v1/dlq", "get", get(dlq::summary)),
        ("/api/v1/dlq/letters", "get", get(dlq::letters)),
        ("/api/v1/dlq/purge", "post", post(dlq::purge)),
        ("/api/v1/dlq/redrive", "post", post(dlq::redrive)),
        ("/api/v1/dlq/redrive/{job}", "get", get(dlq::progress)),
        ("/api/v1/reset", "post", post(reset)),
        ("/api/v1/stats", "get", get(stats::stats)),
        ("/api/v1/tap", "get", get(tap::tap)),
    ]
}

/// The admin endpoints.
pub fn router(admin: Admin) -> Router {
    let admin = Arc::new(admin);
    let native = routes().into_iter().fold(Router::new(), |router, (path, _, answer)| router.route(path, answer));
    let native = native.route_layer(middleware::from_fn_with_state(Arc::clone(&admin), trusted));
    Router::new()
        .route("/", get(|| async { INDEX }))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/health", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/startupz", get(started))
        .route("/metrics", get(render))
        .route("/version", get(|| async { concat!("{\"version\":\"", env!("CARGO_PKG_VERSION"), "\"}\n") }))
        .merge(native)
        .fallback(|request: Request<Body>| async move {
            let text =
                format!("nothing answers {} {}; GET / lists what there is", request.method(), request.uri().path());
            problem(StatusCode::NOT_FOUND, &text)
        })
        .with_state(admin)
}

/// Lets through who calls from this machine by a name of it, and who has a token.
async fn trusted(State(admin): State<Arc<Admin>>, request: Request<Body>, next: Next) -> Response<Body> {
    let headers = request.headers();
    let peer = request.extensions().get::<Peer>();
    let near = peer.is_some_and(|Peer(peer)| peer.ip().to_canonical().is_loopback());
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    // A page in a browser reaches this machine too, and says where it is from.
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let foreign = text("sec-fetch-site").is_some_and(|from| !matches!(from, "none" | "same-origin"))
        || (text("origin").is_some() && text("sec-fetch-site") != Some("same-origin"));
    let role = admin.tokens.role(headers);
    let looks = *request.method() == Method::GET;
    let enough = role.is_some_and(|role| role == Role::Admin || (looks && role == Role::Read));
    if enough || (near && !foreign && server::names_this_machine(host)) {
        return next.run(request).await;
    }
    if role.is_some() {
        return problem(StatusCode::FORBIDDEN, "this token is not for that; take one with the role admin");
    }
    match admin.tokens.is_empty() {
        true => problem(StatusCode::FORBIDDEN, "open from this machine only; for others set server.auth.bearer"),
        false => problem(StatusCode::UNAUTHORIZED, "`Authorization: Bearer TOKEN` is missing or wrong"),
    }
}

async fn ready(State(admin): State<Arc<Admin>>, Query(query): Query<HashMap<String, String>>) -> impl IntoResponse {
    let mut reasons = admin.metrics.health.not_ready();
    if let Some(part) = query.get("exclude") {
        reasons.remove(part);
    }
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut body = match (reasons.is_empty(), query.contains_key("verbose")) {
        (true, _) => "ok\n".to_owned(),
        (false, true) => reasons.iter().map(|(part, reason)| format!("{part}: {reason}\n")).collect(),
        (false, false) => "not ready\n".to_owned(),
    };
    if query.contains_key("verbose") {
        body.extend(admin.metrics.health.notes().iter().map(|(part, note)| format!("{part}: {note}\n")));
    }
    (status, body)
}

/// `POST /api/v1/reset`: removes everything that was made through the API, where that is allowed.
async fn reset(State(admin): State<Arc<Admin>>) -> Response<Body> {
    if !admin.allow_reset {
        let text = "nothing is removed here; `server.allow_reset: true`, as in `sluice dev`, allows it";
        return problem(StatusCode::FORBIDDEN, text);
    }
    let Some(running) = admin.running.get() else {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "the process is starting");
    };
    match running.registry.reset().await {
        Ok(removed) => axum::Json(serde_json::json!({ "removed": removed })).into_response(),
        Err(error) => problem(StatusCode::CONFLICT, &error.message),
    }
}

async fn started(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    match admin.metrics.health.started() {
        true => (StatusCode::OK, "ok\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
    }
}

async fn render(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], admin.metrics.render())
}

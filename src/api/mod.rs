//! The admin endpoints: health, metrics, version. Read-only.

use crate::metrics::Metrics;
use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::net::TcpListener;

type Shared = Arc<Metrics>;

const INDEX: &str = "\
Sluice admin endpoints
  /livez      the process turns over
  /readyz     fit for traffic (503 when not); ?verbose lists why, ?exclude=PART leaves a part out
  /startupz   has started (503 before)
  /metrics    Prometheus
  /version    version
";

/// Serves until the process ends.
///
/// # Errors
/// The listener fails.
pub async fn serve(listener: TcpListener, metrics: Shared) -> std::io::Result<()> {
    let router = Router::new()
        .route("/", get(|| async { INDEX }))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/health", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/startupz", get(started))
        .route("/metrics", get(render))
        .route("/version", get(|| async { concat!("{\"version\":\"", env!("CARGO_PKG_VERSION"), "\"}\n") }))
        .with_state(metrics);
    axum::serve(listener, router).await
}

async fn ready(State(metrics): State<Shared>, Query(query): Query<HashMap<String, String>>) -> impl IntoResponse {
    let mut reasons = metrics.health.not_ready();
    if let Some(part) = query.get("exclude") {
        reasons.remove(part);
    }
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = match (reasons.is_empty(), query.contains_key("verbose")) {
        (true, _) => "ok\n".to_owned(),
        (false, true) => reasons.iter().map(|(part, reason)| format!("{part}: {reason}\n")).collect(),
        (false, false) => "not ready\n".to_owned(),
    };
    (status, body)
}

async fn started(State(metrics): State<Shared>) -> impl IntoResponse {
    match metrics.health.started() {
        true => (StatusCode::OK, "ok\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
    }
}

async fn render(State(metrics): State<Shared>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], metrics.render())
}

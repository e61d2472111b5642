//! Dead letters of the running process.

use super::Admin;
use super::server::{self, problem};
use crate::dlq::{Desk, Filter, Selection};
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{Request, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde_json::{Value, json};
use std::sync::Arc;

/// Letters of one answer: by default, and at most.
const LIMIT: usize = 10;
const MAX_LIMIT: usize = 1_000;

/// `GET /api/v1/dlq?bus=&target=&rule=&code=&pattern=&queue=`
pub async fn summary(State(admin): State<Arc<Admin>>, Query(wanted): Query<Selection>) -> Response<Body> {
    answer(&admin, wanted, |desk, wanted, filter| Ok(json!(desk.summary(wanted.queue.as_deref(), &filter)?))).await
}

/// `GET /api/v1/dlq/letters`, with `limit` beside what selects.
pub async fn letters(State(admin): State<Arc<Admin>>, Query(wanted): Query<Selection>) -> Response<Body> {
    answer(&admin, wanted, |desk, wanted, filter| {
        let limit = wanted.limit.unwrap_or(LIMIT).min(MAX_LIMIT);
        Ok(json!({ "letters": desk.newest(wanted.queue.as_deref(), &filter, limit)? }))
    })
    .await
}

/// `POST /api/v1/dlq/purge` with what selects; without any filter it takes `"all": true`.
pub async fn purge(State(admin): State<Arc<Admin>>, request: Request<Body>) -> Response<Body> {
    let wanted = match selection(request).await {
        Ok(wanted) => wanted,
        Err(answer) => return answer,
    };
    answer(&admin, wanted, |desk, wanted, filter| {
        if filter.is_empty() && !wanted.all && !wanted.dry_run {
            return Err("nothing is selected: name a bus, target, rule, code or pattern, or say `all`".into());
        }
        let count = desk.purge(wanted.queue.as_deref(), &filter, wanted.dry_run)?;
        Ok(json!({ "selected": count, "purged": if wanted.dry_run { 0 } else { count } }))
    })
    .await
}

/// `POST /api/v1/dlq/redrive` with what selects; answers how the redrive stands, or with `dry_run` what there is.
pub async fn redrive(State(admin): State<Arc<Admin>>, request: Request<Body>) -> Response<Body> {
    let wanted = match selection(request).await {
        Ok(wanted) => wanted,
        Err(answer) => return answer,
    };
    answer(&admin, wanted, |desk, wanted, filter| match wanted.dry_run {
        true => Ok(json!(desk.summary(wanted.queue.as_deref(), &filter)?)),
        false => Ok(json!(desk.redrive(wanted.queue.as_deref(), filter)?)),
    })
    .await
}

/// `GET /api/v1/dlq/redrive/{job}`
pub async fn progress(State(admin): State<Arc<Admin>>, Path(job): Path<u64>) -> Response<Body> {
    match admin.running.get().and_then(|running| running.letters.progress(job)) {
        Some(progress) => axum::Json(progress).into_response(),
        None => problem(StatusCode::NOT_FOUND, &format!("there is no redrive {job}")),
    }
}

async fn selection(request: Request<Body>) -> Result<Selection, Response<Body>> {
    // A page in a browser can send other types to this machine without being asked first.
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if !kind.is_some_and(|kind| kind.starts_with("application/json")) {
        return Err(problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body is to be application/json"));
    }
    let body = server::body(request.into_body(), 64 << 10).await?;
    serde_json::from_slice(&body).map_err(|error| problem(StatusCode::BAD_REQUEST, &format!("the body: {error}")))
}

/// Reads and writes files and topics, which takes a while, aside from who answers other requests.
async fn answer(
    admin: &Admin,
    wanted: Selection,
    act: impl FnOnce(&Arc<Desk>, &Selection, Filter) -> Result<Value, String> + Send + 'static,
) -> Response<Body> {
    let Some(desk) = admin.running.get().map(|running| Arc::clone(&running.letters)) else {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "the process is starting");
    };
    if let Some(own) = wanted.data_dir.as_deref().and_then(|folder| desk.is_other(folder)) {
        let text =
            format!("this process has another data_dir, {own}; name its own, or with --admin-url the other process");
        return problem(StatusCode::CONFLICT, &text);
    }
    let filter = match wanted.filter() {
        Ok(filter) => filter,
        Err(why) => return problem(StatusCode::BAD_REQUEST, &why),
    };
    match tokio::task::spawn_blocking(move || act(&desk, &wanted, filter)).await {
        Ok(Ok(value)) => axum::Json(value).into_response(),
        Ok(Err(why)) => problem(StatusCode::CONFLICT, &why),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

//! Replays of the running process: started, shown, cancelled.

use super::Admin;
use super::archives::{No, Where, find, registry};
use super::model::model;
use super::server::{self, problem};
use crate::control::Registry;
use crate::resources::{ApiError, Arn, Item, Kind, Members, Scope};
use crate::time;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{Request, Response, StatusCode};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;

/// A replay as it is shown.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReplayView {
    /// Its name.
    pub name: String,
    /// Its archive.
    pub archive: String,
    /// Its account.
    pub account: String,
    /// Its region.
    pub region: String,
    /// STARTING, RUNNING, CANCELLING, COMPLETED, CANCELLED or FAILED.
    pub state: String,
    /// Why, where there is something to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Events that were sent.
    pub sent: u64,
    /// At most how many there are, once that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<u64>,
    /// The time of the last one that was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reached: Option<String>,
    /// When it began.
    pub started: String,
    /// Whether it has ended.
    pub done: bool,
}

/// What is to be replayed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The archive.
    pub archive: String,
    /// The replay's name; made of the archive's and the time without it.
    pub name: Option<String>,
    /// From when on: a time, or how long ago; everything without it.
    pub from: Option<String>,
    /// Up to when; now without it.
    pub to: Option<String>,
    /// The rules that see it; all without them.
    #[serde(default)]
    pub rules: Vec<String>,
    /// The archive's region, where several have one of its name.
    pub region: Option<String>,
    /// Its account.
    pub account: Option<String>,
}

fn view(scope: &Scope, name: &str, item: &Item) -> ReplayView {
    let archive = item.setting("EventSourceArn").and_then(Arn::parse).and_then(|arn| arn.of("archive/"));
    ReplayView {
        name: name.to_owned(),
        archive: archive.unwrap_or_default().to_owned(),
        account: scope.account.clone(),
        region: scope.region.clone(),
        state: item.state.clone(),
        reason: item.state_reason.clone(),
        sent: item.sent,
        expected: item.expected,
        reached: item.reached.map(time::iso_millis),
        started: time::iso_millis(item.created),
        done: item.is_finished(),
    }
}

/// Replays, those of a name where one is given.
fn all(registry: &Registry, name: Option<&str>, wanted: &Where) -> Vec<(Scope, ReplayView)> {
    let (made, now) = (registry.made(), time::wall_millis());
    let all = made.all(Kind::Replay).filter(|(scope, own, item)| {
        name.is_none_or(|name| name == *own) && wanted.fits(scope) && !item.is_forgotten(now)
    });
    all.map(|(scope, name, item)| (scope.clone(), view(scope, name, item))).collect()
}

/// The one replay of a name.
fn one(registry: &Registry, name: &str, wanted: &Where) -> Result<(Scope, ReplayView), No> {
    let mut found = all(registry, Some(name), wanted).into_iter();
    match (found.next(), found.next()) {
        (Some(replay), None) => Ok(replay),
        (None, _) => Err((StatusCode::NOT_FOUND, format!("Replay {name} does not exist."))),
        _ => Err((StatusCode::CONFLICT, format!("several accounts or regions have a replay {name}; say which"))),
    }
}

/// `GET /api/v1/replays`
pub async fn list(State(admin): State<Arc<Admin>>, Query(wanted): Query<Where>) -> Response<Body> {
    match registry(&admin) {
        Ok(registry) => {
            let replays = all(&registry, None, &wanted).into_iter().map(|(_, view)| view).collect::<Vec<_>>();
            axum::Json(json!({ "replays": replays })).into_response()
        }
        Err(no) => told(no),
    }
}

/// `GET /api/v1/replays/{replay}`
pub async fn show(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    Query(wanted): Query<Where>,
) -> Response<Body> {
    match registry(&admin).and_then(|registry| one(&registry, &name, &wanted)) {
        Ok((_, view)) => axum::Json(view).into_response(),
        Err(no) => told(no),
    }
}

/// `POST /api/v1/replays/{replay}/cancel`
pub async fn cancel(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    Query(wanted): Query<Where>,
) -> Response<Body> {
    let found = registry(&admin).and_then(|registry| Ok((one(&registry, &name, &wanted)?.0, registry)));
    let (scope, registry) = match found {
        Ok(found) => found,
        Err(no) => return told(no),
    };
    let members = Members::from_iter([("ReplayName".to_owned(), name.as_str().into())]);
    match registry.act("CancelReplay", (scope.clone(), None), members).await {
        Ok(_) => shown(&registry, &scope, &name),
        Err(error) => told(refused(&error)),
    }
}

/// `POST /api/v1/replays` with what is to be replayed.
pub async fn start(State(admin): State<Arc<Admin>>, request: Request<Body>) -> Response<Body> {
    let body = match server::body(request.into_body(), 64 << 10).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    let wanted: Wanted = match serde_json::from_slice(&body) {
        Ok(wanted) => wanted,
        Err(error) => return problem(StatusCode::BAD_REQUEST, &format!("the body: {error}")),
    };
    let prepared = registry(&admin).and_then(|registry| {
        let (scope, members) = members(&registry, &admin, &wanted)?;
        Ok((registry, scope, members))
    });
    let (registry, scope, members) = match prepared {
        Ok(prepared) => prepared,
        Err(no) => return told(no),
    };
    let name = members.get("ReplayName").and_then(Value::as_str).unwrap_or_default().to_owned();
    match registry.act("StartReplay", (scope.clone(), None), members).await {
        Ok(_) => shown(&registry, &scope, &name),
        Err(error) => told(refused(&error)),
    }
}

/// The request as callers of the EventBridge API make it.
fn members(registry: &Registry, admin: &Admin, wanted: &Wanted) -> Result<(Scope, Members), No> {
    let bad = |why: String| (StatusCode::BAD_REQUEST, why);
    let place = Where { region: wanted.region.clone(), account: wanted.account.clone(), ..Where::default() };
    let (scope, item) = find(registry, &wanted.archive, &place)?;
    let now = time::wall_millis();
    let time = |text: &Option<String>| text.as_ref().map(|text| time::parse_since(text, now)).transpose().map_err(bad);
    let (from, till) = (time(&wanted.from)?.unwrap_or(0), time(&wanted.to)?.unwrap_or(now));
    let to = item.setting("EventSourceArn").unwrap_or_default();
    let bus = Arn::parse(to).and_then(|arn| arn.bus()).unwrap_or_default();
    let key = registry.route(&scope, bus).unwrap_or_default();
    let view = admin.view.load();
    if let Some(rule) = wanted.rules.iter().find(|rule| view.catalog.rule(&key, rule).is_none()) {
        return Err((StatusCode::NOT_FOUND, format!("Rule {rule} does not exist on EventBus {bus}.")));
    }
    let filters: Vec<String> = wanted.rules.iter().map(|rule| scope.rule_arn(bus, rule)).collect();
    let mut destination = json!({ "Arn": to });
    if !filters.is_empty() {
        destination["FilterArns"] = json!(filters);
    }
    let named = || format!("{}-{}", wanted.archive, time::iso_seconds(now).replace(['-', ':', 'Z'], ""));
    let members = json!({
        "ReplayName": wanted.name.clone().unwrap_or_else(named),
        "EventSourceArn": item.arn,
        "EventStartTime": from as f64 / 1000.0,
        "EventEndTime": till as f64 / 1000.0,
        "Destination": destination,
    });
    let mut members = members.as_object().cloned().unwrap_or_default();
    model().check("StartReplay", &mut members).map_err(|error| refused(&error))?;
    Ok((scope, members))
}

fn told((status, why): No) -> Response<Body> {
    problem(status, &why)
}

fn shown(registry: &Registry, scope: &Scope, name: &str) -> Response<Body> {
    let place = Where { region: Some(scope.region.clone()), account: Some(scope.account.clone()), ..Where::default() };
    match one(registry, name, &place) {
        Ok((_, view)) => axum::Json(view).into_response(),
        Err(no) => told(no),
    }
}

fn refused(error: &ApiError) -> No {
    let status = match error.code {
        "ResourceNotFoundException" => StatusCode::NOT_FOUND,
        "ValidationException" => StatusCode::BAD_REQUEST,
        "InternalException" | "ThrottlingException" => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::CONFLICT,
    };
    (status, error.message.clone())
}

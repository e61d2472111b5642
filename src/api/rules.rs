//! Rules of the running process: what they are, and whether they are active.

use super::Admin;
use super::server::{self, problem};
use crate::catalog::{self, Rule};
use crate::config::model::NumberMatching;
use crate::control::{ControlError, View};
use crate::resources::TWIN;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{Request, Response, StatusCode};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

/// Whether a rule is active.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleState {
    /// Matches and delivers.
    Enabled,
    /// Rests.
    Disabled,
    /// Matches and counts, delivers nothing.
    Shadow,
}

impl From<catalog::RuleState> for RuleState {
    fn from(state: catalog::RuleState) -> Self {
        match state {
            catalog::RuleState::Enabled => Self::Enabled,
            catalog::RuleState::Disabled => Self::Disabled,
            catalog::RuleState::Shadow => Self::Shadow,
        }
    }
}

impl From<RuleState> for catalog::RuleState {
    fn from(state: RuleState) -> Self {
        match state {
            RuleState::Enabled => Self::Enabled,
            RuleState::Disabled => Self::Disabled,
            RuleState::Shadow => Self::Shadow,
        }
    }
}

/// A rule as it is shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RuleView {
    /// Its bus.
    pub bus: String,
    /// Its name.
    pub name: String,
    /// What is in effect.
    pub state: RuleState,
    /// Whether an operator has set the state; it lasts until the process ends.
    pub overridden: bool,
    /// The pattern as it was given.
    pub pattern: String,
    /// How its bus compares numbers.
    pub number_matching: NumberMatching,
    /// Names of targets, in order.
    pub targets: Vec<String>,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whom to ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

impl RuleView {
    fn new(rule: &Rule, view: &View) -> Self {
        let numbers = view.catalog.bus(&rule.bus).map(|bus| bus.numbers).unwrap_or_default();
        Self {
            bus: rule.bus.clone(),
            name: rule.name.clone(),
            state: rule.state.into(),
            overridden: view.overrides.contains_key(&(rule.bus.clone(), rule.name.clone())),
            pattern: rule.text.to_string(),
            number_matching: numbers.into(),
            targets: rule.targets.iter().map(|target| target.target.clone()).collect(),
            description: rule.about.description.clone(),
            owner: rule.about.owner.clone(),
        }
    }
}

/// `GET /api/v1/rules?bus=NAME`
pub async fn list(State(admin): State<Arc<Admin>>, Query(query): Query<HashMap<String, String>>) -> Response<Body> {
    let view = admin.view.load();
    let bus = query.get("bus");
    let rules: Vec<RuleView> = view
        .catalog
        .rules()
        .filter(|rule| bus.is_none_or(|bus| *bus == rule.bus) && !rule.bus.starts_with(TWIN))
        .map(|rule| RuleView::new(rule, &view))
        .collect();
    axum::Json(serde_json::json!({ "generation": view.generation, "rules": rules })).into_response()
}

/// `GET /api/v1/rules/{bus}/{rule}`; slashes in a bus's name are `%2F`.
pub async fn show(State(admin): State<Arc<Admin>>, Path((bus, rule)): Path<(String, String)>) -> Response<Body> {
    let view = admin.view.load();
    match view.catalog.rule(&bus, &rule) {
        Some(rule) => axum::Json(RuleView::new(rule, &view)).into_response(),
        None => problem(StatusCode::NOT_FOUND, &ControlError::UnknownRule(bus, rule).to_string()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// `null` gives the rule back to its file.
    state: Option<RuleState>,
}

/// `PUT /api/v1/rules/{bus}/{rule}/state` with `{"state": "enabled" | "disabled" | "shadow" | null}`
pub async fn set_state(
    State(admin): State<Arc<Admin>>,
    Path((bus, rule)): Path<(String, String)>,
    request: Request<Body>,
) -> Response<Body> {
    let body = match server::body(request.into_body(), 4096).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    let wanted: Wanted = match serde_json::from_slice(&body) {
        Ok(wanted) => wanted,
        Err(error) => {
            let text =
                format!("the body is to be {{\"state\": \"enabled\" | \"disabled\" | \"shadow\" | null}}: {error}");
            return problem(StatusCode::BAD_REQUEST, &text);
        }
    };
    // Compiling takes a while, and other requests are to be answered meanwhile.
    let Some(control) = admin.running.get().map(|running| Arc::clone(&running.control)) else {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "the process is starting");
    };
    let changed = tokio::task::spawn_blocking(move || {
        let mut control = control.lock().unwrap_or_else(PoisonError::into_inner);
        control.set_state(&bus, &rule, wanted.state.map(Into::into))
    });
    match changed.await {
        Ok(Ok(generation)) => axum::Json(serde_json::json!({ "generation": generation })).into_response(),
        Ok(Err(error @ ControlError::UnknownRule(..))) => problem(StatusCode::NOT_FOUND, &error.to_string()),
        Ok(Err(ControlError::Refused(why))) => problem(StatusCode::CONFLICT, &why),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

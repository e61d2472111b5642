//! Live events as server-sent events: `GET /api/v1/tap?bus=&stage=&pattern=&number_matching=&rule=&rate=&limit=`.

use super::Admin;
use super::server::problem;
use crate::catalog::Rate;
use crate::event::Tree;
use crate::pattern::{self, Numbers, Pattern};
use crate::tap::{Seen, Stage, Watching};
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use governor::{DefaultDirectRateLimiter, Quota};
use serde::Deserialize;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Events a second when nothing else is asked for.
const RATE: Rate = Rate { count: 100, per: std::time::Duration::from_secs(1) };

/// What to watch.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    bus: Option<String>,
    stage: Option<String>,
    pattern: Option<String>,
    number_matching: Option<String>,
    rule: Option<String>,
    rate: Option<String>,
    limit: Option<u64>,
}

/// Shows events until the client goes, `limit` are shown, or the process drains.
pub async fn tap(State(admin): State<Arc<Admin>>, Query(wanted): Query<Wanted>) -> Response<Body> {
    let view = match View::new(&admin, wanted) {
        Ok(view) => view,
        Err(why) => return problem(StatusCode::BAD_REQUEST, &why),
    };
    let events = futures_util::stream::unfold(view, |mut view| async move {
        let shown = view.next().await?;
        // The text is one line, so it cannot be refused.
        Some((Ok::<_, Infallible>(Event::default().data(shown)), view))
    });
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

/// One client's view.
struct View {
    watching: Watching,
    pattern: Option<Pattern>,
    numbers: Numbers,
    rule: Option<String>,
    limiter: DefaultDirectRateLimiter,
    left: u64,
    /// Events that the pattern wanted and the rate did not allow.
    held: u64,
    stop: tokio::sync::watch::Receiver<bool>,
}

impl View {
    fn new(admin: &Admin, wanted: Wanted) -> Result<Self, String> {
        let usual = if wanted.rule.is_some() { "matched" } else { "ingress" };
        let name = wanted.stage.as_deref().unwrap_or(usual);
        let stages = Stage::ALL.map(|(name, _)| name).join(", ");
        let stage = Stage::ALL.iter().find(|(known, _)| *known == name).map(|(_, stage)| *stage);
        let stage = stage.ok_or_else(|| format!("`{name}` is no stage; there are {stages}"))?;
        if let Some(bus) = wanted.bus.as_deref().filter(|bus| !admin.view.load().catalog.has_bus(bus)) {
            return Err(format!("bus {bus} does not exist"));
        }
        if let Some(rule) = &wanted.rule {
            if matches!(stage, Stage::Ingress | Stage::Unmatched) {
                return Err(format!("at stage {name} no rule has matched; leave out `rule`, or watch `matched`"));
            }
            let on = |bus: &str| wanted.bus.as_ref().is_none_or(|wanted| wanted == bus);
            if !admin.view.load().catalog.rules().any(|known| known.name == *rule && on(&known.bus)) {
                return Err(format!("rule {rule} does not exist"));
            }
        }
        let pattern = wanted.pattern.map(|text| pattern::parse(text.as_bytes(), &pattern::Limits::default()));
        let pattern = pattern.transpose().map_err(|error| format!("the pattern is not valid: {}", error.message))?;
        let numbers = match wanted.number_matching.as_deref() {
            None | Some("value") => Numbers::Value,
            Some("text") => Numbers::Text,
            Some(other) => return Err(format!("number_matching is `value` or `text`, not `{other}`")),
        };
        let rate = wanted.rate.map_or(Ok(RATE), |rate| Rate::parse(&rate))?;
        let quota = Quota::with_period(rate.per / rate.count).ok_or("the rate is too high")?;
        let burst = NonZeroU32::new(rate.count).unwrap_or(NonZeroU32::MIN);
        Ok(Self {
            watching: admin.taps.open(stage, wanted.bus),
            pattern,
            numbers,
            rule: wanted.rule,
            limiter: DefaultDirectRateLimiter::direct(quota.allow_burst(burst)),
            left: wanted.limit.unwrap_or(u64::MAX),
            held: 0,
            stop: admin.stop.clone(),
        })
    }

    /// The next event to show, as one line of JSON.
    async fn next(&mut self) -> Option<String> {
        self.left = self.left.checked_sub(1)?;
        loop {
            let seen = tokio::select! {
                seen = self.watching.events.recv() => seen?,
                _ = self.stop.wait_for(|stop| *stop) => return None,
            };
            if !self.wants(&seen) {
                continue;
            }
            if self.limiter.check().is_err() {
                self.held += 1;
                continue;
            }
            return Some(self.line(&seen));
        }
    }

    fn wants(&self, seen: &Seen) -> bool {
        if self.rule.as_ref().is_some_and(|rule| !seen.rules.iter().any(|matched| **matched == **rule)) {
            return false;
        }
        let Some(pattern) = &self.pattern else { return true };
        Tree::parse(&seen.event).is_ok_and(|tree| pattern::matches(pattern, &tree, self.numbers))
    }

    fn line(&mut self, seen: &Seen) -> String {
        let event = match Tree::parse(&seen.event) {
            Ok(_) => String::from_utf8_lossy(&seen.event).replace(['\n', '\r'], " "),
            Err(_) => Value::from(String::from_utf8_lossy(&seen.event)).to_string(),
        };
        let skipped = self.watching.skipped.swap(0, Ordering::Relaxed) + std::mem::take(&mut self.held);
        let rules: Vec<&str> = seen.rules.iter().map(|rule| &**rule).collect();
        let mut line = json!({ "bus": &*seen.bus, "rules": rules, "skipped": skipped });
        if let Some(target) = &seen.target {
            line["target"] = json!(&**target);
        }
        if let Some(error) = &seen.error {
            line["error"] = json!(error);
        }
        // The event's own text, so that numbers keep their spelling.
        let line = line.to_string();
        format!("{},\"event\":{event}}}", &line[..line.len() - 1])
    }
}

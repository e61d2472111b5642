//! CloudEvents 1.0 over HTTP: `POST /events/BUS`, binary, structured or in a batch.
//! Source: CloudEvents, "HTTP Protocol Binding" and "JSON Event Format".

use super::Front;
use super::server::{self, later, problem};
use crate::event::{Kind, Tree};
use crate::transform::wrap::Framing;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Request, Response, StatusCode, header};
use axum::response::IntoResponse;
use std::sync::Arc;

/// Events of one batch.
const BATCH: usize = 1000;

/// Takes one CloudEvent or a batch, and answers when all of it is settled.
pub async fn post(State(front): State<Arc<Front>>, Path(bus): Path<String>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    front.registry.settled(tokio::time::Instant::now() + front.accept_timeout).await;
    // Names with a colon stand for buses of other regions.
    if bus.contains(':') || !front.bus_exists(&bus) {
        return problem(StatusCode::NOT_FOUND, &format!("bus {bus} does not exist"));
    }
    if bus.starts_with("aws.partner/") {
        return problem(StatusCode::FORBIDDEN, "events of partners come through their webhooks");
    }
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let batch = kind.starts_with("application/cloudevents-batch+json");
    let binary = parts.headers.contains_key("ce-specversion");
    if !batch && !binary && !kind.starts_with("application/cloudevents+json") {
        let text =
            "not a CloudEvent: send application/cloudevents+json, application/cloudevents-batch+json, or ce- headers";
        return problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, text);
    }
    let limit = if batch { front.event_bytes * 8 } else { front.event_bytes };
    let body = match server::body(body, limit).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    match read(&front, &body, batch, &parts.headers) {
        Ok(events) => accept(&front, &bus, events).await,
        Err((status, why)) => problem(status, &why),
    }
}

type Event = (String, Vec<u8>);

/// The events of a request; all of them, or the first fault.
fn read(front: &Front, body: &[u8], batch: bool, headers: &HeaderMap) -> Result<Vec<Event>, (StatusCode, String)> {
    let bad = |why: String| (StatusCode::BAD_REQUEST, why);
    if !batch {
        return Ok(vec![event(front, body, &server::pairs(headers)).map_err(bad)?]);
    }
    // A list cannot be the root of an event's tree, so it stands in one.
    let wrapped = [b"{\"batch\":", body, b"}"].concat();
    let tree = Tree::parse(&wrapped).map_err(|fault| bad(format!("the body is not JSON: {fault}")))?;
    let list = tree.root().get(b"batch").filter(|list| list.kind() == Kind::Array);
    let list = list.ok_or_else(|| bad("the body of a batch is a list".to_owned()))?;
    let mut events = Vec::new();
    for (n, element) in list.children().enumerate() {
        if n == BATCH {
            return Err((StatusCode::PAYLOAD_TOO_LARGE, format!("a batch has at most {BATCH} events")));
        }
        if element.raw().len() > front.event_bytes {
            let why = format!("event {n} has more than {} bytes", front.event_bytes);
            return Err((StatusCode::PAYLOAD_TOO_LARGE, why));
        }
        events.push(event(front, element.raw(), &[]).map_err(|why| bad(format!("event {n}: {why}")))?);
    }
    Ok(events)
}

fn event(front: &Front, body: &[u8], headers: &[(String, Vec<u8>)]) -> Result<Event, String> {
    let id = uuid::Uuid::new_v4().to_string();
    let event = front.event(&Framing::CloudEvents, headers, body, &id)?;
    let tree = Tree::parse(&event).map_err(|fault| format!("the event is not JSON: {fault}"))?;
    if tree.root().get(b"source").is_some_and(|source| source.text().starts_with(b"aws.")) {
        return Err("not authorized for the source: `aws.` is the service's own".to_owned());
    }
    drop(tree);
    Ok((id, event))
}

async fn accept(front: &Front, bus: &str, events: Vec<Event>) -> Response<Body> {
    let count = events.len();
    let all = events.into_iter().map(|(id, event)| async move { front.put(bus, &id, event, None).await });
    let refused: Vec<_> = futures_util::future::join_all(all).await.into_iter().filter_map(Result::err).collect();
    match refused.first() {
        None => (StatusCode::OK, axum::Json(serde_json::json!({ "accepted": count }))).into_response(),
        Some(why) => later(&format!("{} of {count} events: {why}", refused.len())),
    }
}

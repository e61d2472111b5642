//! Archives of the running process: what there is, and their events as JSON lines, out and in.

use super::Admin;
use super::server::{self, later, problem};
use crate::archive::{self, Archives};
use crate::control::Registry;
use crate::resources::{Arn, Item, Scope};
use crate::time;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{Request, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{Semaphore, mpsc};

/// Bytes of the lines of one request.
const IMPORT_BYTES: usize = 8 << 20;
/// Exports at once; each holds a window of events.
static EXPORTS: Semaphore = Semaphore::const_new(2);
/// Bytes that are sent at once, and how many such pieces wait for the reader.
const PIECE: usize = 256 << 10;
const PIECES: usize = 4;
/// How long an import waits for what was changed before it.
const SETTLED: Duration = Duration::from_secs(5);
/// How long an export waits for its reader to take something.
const UNREAD: Duration = Duration::from_secs(30);

/// An archive as it is shown.
#[derive(Debug, Serialize, Deserialize)]
pub struct ArchiveView {
    /// Its name.
    pub name: String,
    /// Its bus.
    pub bus: String,
    /// Its account.
    pub account: String,
    /// Its region.
    pub region: String,
    /// Events in it.
    pub events: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Days that it keeps them; 0 is for ever.
    pub retention_days: i64,
    /// What it keeps; everything without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
}

/// Which archive or replay is meant where several have the name, and which of its events.
#[derive(Debug, Default, Deserialize)]
pub struct Where {
    /// Its region.
    pub region: Option<String>,
    /// Its account.
    pub account: Option<String>,
    /// Its events from a time on.
    pub from: Option<String>,
    /// Its events before a time.
    pub to: Option<String>,
}

/// Why there is no answer: the status and the words.
pub type No = (StatusCode, String);

impl Where {
    /// Whether something of an account and region is meant.
    pub fn fits(&self, scope: &Scope) -> bool {
        self.region.as_ref().is_none_or(|region| *region == scope.region)
            && self.account.as_ref().is_none_or(|account| *account == scope.account)
    }

    /// The account and region in which something of files is shown.
    fn scope(&self, home: &Scope) -> Scope {
        let or = |given: &Option<String>, own: &String| given.as_ref().unwrap_or(own).clone();
        Scope { account: or(&self.account, &home.account), region: or(&self.region, &home.region) }
    }

    /// From when on, and up to when.
    fn range(&self) -> Result<(i64, i64), String> {
        let now = time::wall_millis();
        let time = |text: &Option<String>| text.as_ref().map(|text| time::parse_since(text, now)).transpose();
        Ok((time(&self.from)?.unwrap_or(i64::MIN), time(&self.to)?.unwrap_or(i64::MAX)))
    }
}

/// What there is once the process has started.
pub fn registry(admin: &Admin) -> Result<Arc<Registry>, No> {
    let starting = || (StatusCode::SERVICE_UNAVAILABLE, "the process is starting".to_owned());
    admin.running.get().map(|running| Arc::clone(&running.registry)).ok_or_else(starting)
}

/// The one archive of a name.
pub fn find(registry: &Registry, name: &str, wanted: &Where) -> Result<(Scope, Item), No> {
    let scope = wanted.scope(registry.home());
    let all = registry.made().all_archives(&registry.declared().0, &scope, Some(name));
    let mut all = all.into_iter().filter(|(scope, ..)| wanted.fits(scope));
    match (all.next(), all.next()) {
        (Some((scope, _, item)), None) => Ok((scope, item)),
        (None, _) => Err((StatusCode::NOT_FOUND, format!("Archive {name} does not exist."))),
        _ => {
            let text = format!("several accounts or regions have an archive {name}; say which");
            Err((StatusCode::CONFLICT, text))
        }
    }
}

/// `GET /api/v1/archives`
pub async fn list(State(admin): State<Arc<Admin>>, Query(wanted): Query<Where>) -> Response<Body> {
    let registry = match registry(&admin) {
        Ok(registry) => registry,
        Err((status, why)) => return problem(status, &why),
    };
    let counted = tokio::task::spawn_blocking(move || {
        let all = registry.made().all_archives(&registry.declared().0, &wanted.scope(registry.home()), None);
        let all = all.into_iter().filter(|(scope, ..)| wanted.fits(scope));
        all.map(|(scope, name, item)| view(registry.archives(), (scope, name), &item)).collect::<Vec<_>>()
    });
    match counted.await {
        Ok(archives) => axum::Json(serde_json::json!({ "archives": archives })).into_response(),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn view(archives: &Archives, (scope, name): (Scope, String), item: &Item) -> ArchiveView {
    let held = archives.held(&item.folder(&scope, &name));
    let bus = item.setting("EventSourceArn").and_then(Arn::parse).and_then(|arn| arn.bus());
    ArchiveView {
        bus: bus.unwrap_or_default().to_owned(),
        events: held.events,
        bytes: held.bytes,
        retention_days: item.days(),
        pattern: item.setting("EventPattern").map(str::to_owned),
        name,
        account: scope.account,
        region: scope.region,
    }
}

/// `GET /api/v1/archives/{archive}/events?from=&to=`: JSON lines in order of time.
pub async fn export(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    Query(wanted): Query<Where>,
) -> Response<Body> {
    let found = registry(&admin).and_then(|registry| {
        let (scope, item) = find(&registry, &name, &wanted)?;
        let range = wanted.range().map_err(|why| (StatusCode::BAD_REQUEST, why))?;
        Ok((Arc::clone(registry.archives()), item.folder(&scope, &name), range))
    });
    let (archives, folder, (from, till)) = match found {
        Ok(found) => found,
        Err((status, why)) => return problem(status, &why),
    };
    let Ok(permit) = EXPORTS.try_acquire() else { return later("as many exports as may be are under way") };
    let lines = exported(archives.select(&folder, from, till), permit, UNREAD);
    ([(header::CONTENT_TYPE, "application/x-ndjson")], lines).into_response()
}

/// All events as lines. Whoever takes nothing of them for `patience` gets no more, and an answer that breaks off: it is
/// not all. `held` is let go when nothing more is read from the disk.
pub fn exported(selection: archive::Selection, held: impl Send + 'static, patience: Duration) -> Body {
    let (pieces, sent) = mpsc::channel(PIECES);
    let reader = pieces.clone();
    let mut selection = selection.unless(move || reader.is_closed());
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        let put = |piece: Piece| {
            let taken = runtime.block_on(pieces.send_timeout(piece, patience));
            if let Err(SendTimeoutError::Timeout(_)) = &taken {
                tracing::warn!("an export breaks off: its reader has taken nothing for {patience:?}");
            }
            taken.map_err(drop)
        };
        // Who does not take them has gone, or is told by the end that is missing.
        send(&mut selection, put).unwrap_or_default();
        drop((selection, held));
    });
    Body::from_stream(futures_util::stream::unfold(Some(sent), async |sent| {
        let mut sent: mpsc::Receiver<Piece> = sent?;
        match sent.recv().await {
            Some(Ok(None)) => None,
            Some(Ok(Some(piece))) => Some((Ok(piece), Some(sent))),
            Some(Err(error)) => Some((Err(error), None)),
            None => Some((Err(io::Error::new(io::ErrorKind::TimedOut, "the export was not read")), None)),
        }
    }))
}

/// Lines; nothing behind the last ones.
type Piece = io::Result<Option<Bytes>>;

/// Puts all events, until somebody does not take them.
fn send(selection: &mut archive::Selection, put: impl Fn(Piece) -> Result<(), ()>) -> Result<(), ()> {
    loop {
        let window = match selection.window() {
            Ok(window) => window,
            // The answer breaks off: the reader must not take it for all.
            Err(error) => return put(Err(error)),
        };
        if window.is_empty() {
            return put(Ok(None));
        }
        let mut piece = Vec::with_capacity(PIECE);
        let last = window.len() - 1;
        for (number, event) in window.into_iter().enumerate() {
            piece.extend_from_slice(&event.text);
            piece.push(b'\n');
            if piece.len() >= PIECE || number == last {
                put(Ok(Some(std::mem::take(&mut piece).into())))?;
            }
        }
    }
}

/// `POST /api/v1/archives/{archive}/events`: JSON lines, all of them or none; they are on the disk, or the
/// broker has them, when this answers.
pub async fn import(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
    Query(wanted): Query<Where>,
    request: Request<Body>,
) -> Response<Body> {
    let found = registry(&admin).and_then(|registry| {
        let (scope, item) = find(&registry, &name, &wanted)?;
        Ok((Arc::clone(registry.archives()), item.folder(&scope, &name)))
    });
    let (archives, folder) = match found {
        Ok(found) => found,
        Err((status, why)) => return problem(status, &why),
    };
    let body = match server::body(request.into_body(), IMPORT_BYTES).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    if let Ok(registry) = registry(&admin) {
        // Until an archive that was just made is in effect it is not known where it is.
        registry.settled(tokio::time::Instant::now() + SETTLED).await;
    }
    let most = admin.event_bytes;
    let (lines, count) = match lines(&body, most) {
        Ok(lines) => lines,
        Err(why) => return problem(StatusCode::BAD_REQUEST, &why),
    };
    match tokio::task::spawn_blocking(move || archives.import(&folder, &lines)).await {
        Ok(Ok(())) => axum::Json(serde_json::json!({ "imported": count, "event_bytes": most })).into_response(),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotConnected => {
            let help = "send them again: what is archived twice is read once";
            problem(StatusCode::SERVICE_UNAVAILABLE, &format!("cannot write: {error}; {help}"))
        }
        Ok(Err(error)) => problem(StatusCode::INSUFFICIENT_STORAGE, &format!("cannot write: {error}")),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// The lines of a body, each an event, and how many they are.
fn lines(body: &[u8], most: usize) -> Result<(Vec<u8>, u64), String> {
    let (mut lines, mut count) = (Vec::with_capacity(body.len() + 1), 0);
    for (number, line) in (1..).zip(body.split(|byte| *byte == b'\n')) {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        archive::check(line, most).map_err(|why| format!("line {number}: {why}"))?;
        lines.extend_from_slice(line);
        lines.push(b'\n');
        count += 1;
    }
    Ok((lines, count))
}

//! Replays: a thread each sends what was archived, in order of time, until it is through, cancelled, or fails.

use super::schedules::derived_id;
use super::{LOOK, PATIENCE, Service};
use crate::archive::Event;
use crate::envelope::{Aim, SourceInfo};
use crate::event::Tree;
use crate::resources::{Arn, Change, Item, Key, Kind, Record, Resources, Scope};
use crate::source::inlet::{Arrival, Refused};
use crate::time;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Events that share a sync of the journal.
const TOGETHER: usize = 256;

/// Replays that run at once, of all accounts and regions; the others are about to start.
const AT_ONCE: usize = 32;

/// How long an archive is let alone whose broker is away.
const AWAY: Duration = Duration::from_secs(1);

/// A replay that runs.
pub struct Running {
    scope: Scope,
    name: String,
    /// Its thread.
    pub thread: JoinHandle<()>,
}

/// Starts replays that are to run and do not.
pub fn look(service: &Service, running: &mut Vec<Running>) {
    running.retain(|replay| !replay.thread.is_finished());
    let made = service.registry.made();
    let runs = |scope: &Scope, name: &str| running.iter().any(|it| it.scope == *scope && it.name == name);
    let waiting: Vec<(Scope, String, Item)> = made
        .all(Kind::Replay)
        .filter(|(scope, name, item)| !item.is_finished() && !runs(scope, name))
        .map(|(scope, name, item)| (scope.clone(), name.to_owned(), item.clone()))
        .collect();
    drop(made);
    for (scope, name, item) in waiting.into_iter().take(AT_ONCE.saturating_sub(running.len())) {
        let replay = Replay { service: service.clone(), scope: scope.clone(), name: name.clone(), item };
        match std::thread::Builder::new().name("sluice-replay".into()).spawn(move || replay.run()) {
            Ok(thread) => running.push(Running { scope, name, thread }),
            Err(error) => tracing::error!("replay {name} cannot start: {error}; it is tried again"),
        }
    }
}

/// The rules that see a replay, by the name of its source.
pub fn aim(made: &Resources, source: &str) -> Aim {
    let mut parts = source.splitn(3, '/');
    let (Some(account), Some(region), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
        return Aim::Matching;
    };
    let scope = Scope { account: account.to_owned(), region: region.to_owned() };
    made.item(Kind::Replay, &scope, name).map_or(Aim::Matching, aim_of)
}

fn aim_of(item: &Item) -> Aim {
    let filters = item.settings.get("Destination").and_then(|to| to.get("FilterArns"));
    let filters = filters.and_then(serde_json::Value::as_array).filter(|filters| !filters.is_empty());
    let bus = item.settings.get("Destination").and_then(|to| Arn::parse(to.get("Arn")?.as_str()?));
    let at = bus.and_then(|arn| Some((arn.scope()?, arn.bus()?)));
    let rule = |arn: &serde_json::Value| {
        let arn = Arn::parse(arn.as_str()?)?;
        let (bus, rule) = arn.rule()?;
        (Some((arn.scope()?, bus)) == at).then(|| rule.to_owned())
    };
    filters.map_or(Aim::Matching, |filters| Aim::Among(filters.iter().filter_map(rule).collect()))
}

struct Replay {
    service: Service,
    scope: Scope,
    name: String,
    item: Item,
}

/// How a replay has ended.
enum End {
    /// Places of the archive are damaged, as many as this, and left out.
    Through(usize),
    Cancelled,
    /// It goes on after the next start.
    Draining,
    Failed(String),
}

impl Replay {
    fn run(self) {
        let end = self.note(|item| {
            if item.state == "STARTING" {
                item.state = "RUNNING".to_owned();
            }
        });
        if let Err(why) = end {
            tracing::warn!(replay = self.name, "a replay waits: {why}");
            return std::thread::park_timeout(PATIENCE);
        }
        let end = self.send().unwrap_or_else(End::Failed);
        let (state, why) = match end {
            End::Draining => return,
            End::Through(0) => ("COMPLETED", None),
            End::Through(damaged) => {
                ("COMPLETED", Some(format!("incomplete: {damaged} damaged places of the archive are left out")))
            }
            End::Cancelled => ("CANCELLED", None),
            End::Failed(why) => ("FAILED", Some(why)),
        };
        let now = time::wall_millis();
        let noted = self.note(move |item| {
            (item.state, item.state_reason, item.finished) = (state.to_owned(), why, Some(now));
        });
        match noted {
            Ok(()) => tracing::info!(replay = self.name, state, "a replay has ended"),
            Err(why) => tracing::error!("the end of replay {} is not written down: {why}", self.name),
        }
    }

    fn send(&self) -> Result<End, String> {
        let millis = |name: &str| {
            let seconds = self.item.settings.get(name).and_then(serde_json::Value::as_f64).unwrap_or(0.0);
            (seconds * 1000.0).round() as i64
        };
        let (from, till) = (millis("EventStartTime"), millis("EventEndTime"));
        let source = self.item.setting("EventSourceArn").and_then(Arn::parse);
        let archive = source.and_then(|arn| Some((arn.scope()?, arn.of("archive/")?)));
        let registry = &self.service.registry;
        let found = archive.and_then(|(scope, name)| {
            let (made, declared) = (registry.made(), registry.declared().0);
            let item = made.archive(&declared, &scope, name)?;
            // One of files has the events of all accounts.
            let own = self.service.is_signed && item.of_files.is_some() && scope.account != registry.home().account;
            Some((item.folder(&scope, name), own.then_some(scope.account)))
        });
        let (folder, own) = found.ok_or("its archive does not exist any more")?;
        // What was sent before a restart is sent again from its last second on, with the same ids.
        let begin = self.item.reached.map_or(from, |reached| reached.max(from));
        let archives = registry.archives();
        let own_service = (self.service.clone(), self.scope.clone(), self.name.clone());
        let unwanted = move || {
            let (service, scope, name) = &own_service;
            service.stop.is_set() || is_cancelled(service, scope, name)
        };
        let mut selection = archives.select(&folder, begin, till).unless(unwanted);
        if self.item.expected.is_none() {
            let Some(expected) = self.patiently(|| selection.at_most())? else { return Ok(self.unwanted()) };
            if !self.insist(move |item| item.expected = Some(expected)) {
                return Ok(End::Draining);
            }
        }
        let info = Arc::new(self.info()?);
        loop {
            let Some(mut window) = self.patiently(|| selection.window())? else { return Ok(self.unwanted()) };
            if window.is_empty() {
                break;
            }
            if let Some(account) = &own {
                window.retain(|event| is_of(&event.text, account));
            }
            for together in window.chunks(TOGETHER) {
                if self.is_cancelled() {
                    return Ok(End::Cancelled);
                }
                if !self.keep(together, &info) {
                    return Ok(End::Draining);
                }
                let (reached, sent) = (together.last().map(|event| event.time), together.len() as u64);
                if !self.insist(move |item| (item.reached, item.sent) = (reached, item.sent + sent)) {
                    return Ok(End::Draining);
                }
            }
        }
        Ok(if self.is_cancelled() { End::Cancelled } else { End::Through(archives.damage(&folder, from, till)) })
    }

    /// Leaves events in the journal, however long it takes; `false` when the process drains.
    fn keep(&self, events: &[Event], info: &Arc<SourceInfo>) -> bool {
        let service = &self.service;
        let mut left: Vec<&Event> = events.iter().filter(|event| self.arrival(event, info).is_some()).collect();
        while !left.is_empty() {
            let deadline = tokio::time::Instant::now() + PATIENCE;
            let all = left.iter().filter_map(|event| self.arrival(event, info));
            let all: Vec<_> = all.map(|arrival| service.inlet.keep(arrival, deadline)).collect();
            let kept = service.runtime.block_on(futures_util::future::join_all(all));
            if kept.contains(&Err(Refused::Draining)) || service.stop.is_set() {
                return false;
            }
            let refused: Vec<bool> = kept.iter().map(Result::is_err).collect();
            let mut refused = refused.into_iter();
            left.retain(|_| refused.next().unwrap_or_default());
            if !left.is_empty() {
                // The journal is full or the disk is; what it has is delivered meanwhile.
                std::thread::park_timeout(LOOK);
            }
        }
        true
    }

    /// Asks an archive until there is an answer: its broker may be away. None when the answer is not wanted any more.
    fn patiently<T>(&self, mut ask: impl FnMut() -> io::Result<T>) -> Result<Option<T>, String> {
        loop {
            match ask() {
                Ok(answer) => return Ok(Some(answer)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                    tracing::warn!(replay = self.name, "a replay waits for its archive: {error}");
                    if self.service.stop.is_set() || self.is_cancelled() {
                        return Ok(None);
                    }
                    std::thread::park_timeout(AWAY);
                }
                Err(error) => return Err(format!("its archive cannot be read: {error}")),
            }
        }
    }

    fn unwanted(&self) -> End {
        if self.is_cancelled() { End::Cancelled } else { End::Draining }
    }

    fn is_cancelled(&self) -> bool {
        is_cancelled(&self.service, &self.scope, &self.name)
    }

    fn info(&self) -> Result<SourceInfo, String> {
        let to = self.item.settings.get("Destination").and_then(|to| to.get("Arn")).and_then(serde_json::Value::as_str);
        let at = to.and_then(Arn::parse).and_then(|arn| Some((arn.scope()?, arn.bus()?)));
        let bus = at.and_then(|(scope, bus)| self.service.registry.route(&scope, bus));
        let bus = bus.ok_or("its bus does not exist any more")?;
        Ok(self.service.info(super::replay_source(&self.scope, &self.name), &bus, aim_of(&self.item)))
    }

    /// An archived event as it is sent again.
    fn arrival(&self, event: &Event, info: &Arc<SourceInfo>) -> Option<Arrival> {
        let (event, id) = again(&event.text, &self.name, &self.item.arn)?;
        Some(Arrival { info: Arc::clone(info), id: id.into(), event, trace: None })
    }

    /// Notes how far it is, however long that takes; `false` when the process drains.
    fn insist(&self, change: impl Fn(&mut Item) + Clone + Send + 'static) -> bool {
        while let Err(why) = self.note(change.clone()) {
            tracing::warn!(replay = self.name, "a replay waits: {why}");
            if self.service.stop.is_set() {
                return false;
            }
            std::thread::park_timeout(PATIENCE);
        }
        true
    }

    fn note(&self, change: impl FnOnce(&mut Item) + Send + 'static) -> Result<(), String> {
        let key = Key::Item(Kind::Replay, self.scope.clone(), self.name.clone());
        let (scope, name) = (self.scope.clone(), self.name.clone());
        let noted = self.service.registry.note(move |made| {
            let Some(mut item) = made.item(Kind::Replay, &scope, &name).cloned() else { return Vec::new() };
            change(&mut item);
            vec![(key, Some(Record::Item(item)))] as Vec<Change>
        });
        noted.map_err(|error| error.to_string())
    }
}

fn is_cancelled(service: &Service, scope: &Scope, name: &str) -> bool {
    let made = service.registry.made();
    made.item(Kind::Replay, scope, name).is_none_or(|item| item.state == "CANCELLING")
}

/// An archived event with the name of its replay behind `region` and an id of its own, always the same one; all other
/// members are as they were.
pub fn again(event: &[u8], replay: &str, arn: &str) -> Option<(Vec<u8>, String)> {
    let tree = Tree::parse(event).ok()?;
    // Of all of its text: two events may have one id.
    let id = derived_id(&[arn, &String::from_utf8_lossy(event)]);
    let name = format!(r#""replay-name":"{replay}""#);
    let mut members: Vec<Vec<u8>> = Vec::new();
    let mut named = false;
    for member in tree.root().children() {
        let key = member.key();
        if *key == *b"replay-name" {
            continue;
        }
        let mut text = Vec::from(b"\"");
        crate::event::text::escape_json(&key, &mut text);
        text.extend_from_slice(b"\":");
        match &*key {
            b"id" => text.extend_from_slice(format!("\"{id}\"").as_bytes()),
            _ => text.extend_from_slice(member.raw()),
        }
        let region = *key == *b"region";
        members.push(text);
        if region {
            members.push(name.clone().into_bytes());
            named = true;
        }
    }
    if !named {
        members.push(name.into_bytes());
    }
    Some(([b"{", &*members.join(&b","[..]), b"}"].concat(), id))
}

/// Whether an event is of an account.
pub fn is_of(event: &[u8], account: &str) -> bool {
    let Ok(tree) = Tree::parse(event) else { return false };
    tree.root().get(b"account").is_some_and(|own| *own.text() == *account.as_bytes())
}

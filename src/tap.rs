//! Looking at live events without slowing them: a copy is offered to whoever watches, and left out when they are behind.

use arc_swap::ArcSwap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Where on its way an event is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// As it arrives on a bus.
    Ingress,
    /// When a rule has matched it.
    Matched,
    /// When none has.
    Unmatched,
    /// When a target has taken it.
    Delivered,
    /// When a dead-letter queue has.
    Dead,
}

impl Stage {
    /// All of them, with their names.
    pub const ALL: [(&'static str, Stage); 5] = [
        ("ingress", Stage::Ingress),
        ("matched", Stage::Matched),
        ("unmatched", Stage::Unmatched),
        ("delivered", Stage::Delivered),
        ("dead", Stage::Dead),
    ];
}

/// An event as it was seen.
pub struct Seen {
    /// The bus.
    pub bus: Arc<str>,
    /// The rules that matched, or the one that it was delivered for.
    pub rules: Vec<Arc<str>>,
    /// The target.
    pub target: Option<Arc<str>>,
    /// Why it is a dead letter.
    pub error: Option<String>,
    /// Its bytes.
    pub event: Vec<u8>,
}

/// Events that wait for a watcher; further ones are left out.
const WAITING: usize = 256;

struct Tap {
    stage: Stage,
    bus: Option<String>,
    out: Sender<Seen>,
    skipped: Arc<AtomicU64>,
}

/// Who watches.
#[derive(Default)]
pub struct Taps {
    any: AtomicBool,
    /// Held while the list changes, so that `any` says what is in it.
    changing: Mutex<()>,
    list: ArcSwap<Vec<Arc<Tap>>>,
}

/// One watcher's end. Dropping it ends the watching.
pub struct Watching {
    /// What is seen.
    pub events: Receiver<Seen>,
    /// How many were left out.
    pub skipped: Arc<AtomicU64>,
}

impl Taps {
    /// Begins to watch a stage, of one bus where it is given.
    pub fn open(&self, stage: Stage, bus: Option<String>) -> Watching {
        let (out, events) = channel(WAITING);
        let skipped = Arc::new(AtomicU64::new(0));
        let tap = Arc::new(Tap { stage, bus, out, skipped: Arc::clone(&skipped) });
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.list.rcu(|list| {
            let mut list: Vec<_> = list.iter().filter(|tap| !tap.out.is_closed()).cloned().collect();
            list.push(Arc::clone(&tap));
            list
        });
        self.any.store(true, Ordering::Release);
        Watching { events, skipped }
    }

    /// Whether anybody watches anything: one load, for every event.
    pub fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Shows an event to those who watch its stage and bus; `make` copies it only then.
    pub fn offer(&self, stage: Stage, bus: &str, make: impl Fn() -> Seen) {
        if !self.any() {
            return;
        }
        let list = self.list.load();
        let mut gone = false;
        for tap in list.iter() {
            gone |= tap.out.is_closed();
            if tap.stage == stage && tap.bus.as_deref().is_none_or(|wanted| wanted == bus) {
                match tap.out.try_reserve() {
                    Ok(place) => place.send(make()),
                    Err(_) => {
                        tap.skipped.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
        if gone {
            self.close();
        }
    }

    /// Forgets watchers that have gone.
    fn close(&self) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.list.rcu(|list| list.iter().filter(|tap| !tap.out.is_closed()).cloned().collect::<Vec<_>>());
        self.any.store(!self.list.load().is_empty(), Ordering::Release);
    }
}

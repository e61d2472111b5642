//! The one writer of what callers make through the API, and its readers.
//!
//! In: actions. Out: answers, when what they changed is on the disk. Promises: changes come one after another; those
//! that wait together share a sync and a plan. Leaves to others: what actions do (`resources`), plans (`Control`).

use super::{Control, View};
use crate::archive::Archives;
use crate::catalog::Catalog;
use crate::resources::{ApiError, Call, Change, Desired, Key, Members, Quotas, Record, Resources, Scope};
use crate::store::Store;
use crate::time;
use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

/// Changes that wait; beyond, callers are told to come again.
const WAITING: usize = 1024;
/// When a plan that could not take effect is tried again.
const AGAIN: Duration = Duration::from_secs(10);
/// Changes that share a sync.
const TOGETHER: usize = 256;

/// What callers have made, for whoever looks.
pub type Made = Arc<RwLock<Resources>>;

type Reply = Result<Members, ApiError>;

/// Takes actions.
pub struct Registry {
    made: Made,
    view: Arc<ArcSwap<View>>,
    home: Scope,
    quotas: Quotas,
    archives: Arc<Archives>,
    requests: Option<Sender<Request>>,
    /// Whether files alone say what there is; replays are started all the same.
    only_files: bool,
    /// Counts changes that were made.
    written: Arc<AtomicU64>,
    /// How many of them are in effect.
    published: watch::Sender<u64>,
}

struct Request {
    work: Work,
    reply: oneshot::Sender<Reply>,
}

enum Work {
    /// An action of a caller.
    Act { action: String, scope: Scope, by: Option<String>, members: Members },
    /// Remove everything.
    Reset,
    /// Something that came about by itself, and whether it changes the plan.
    Note(Note, bool),
}

type Note = Box<dyn FnOnce(&Resources) -> Vec<Change> + Send>;

/// What the writer works with.
struct Writer {
    registry: Arc<Registry>,
    store: Store,
    /// Whether the disk knows the age of default buses.
    begun_kept: Cell<bool>,
    dirty: Sender<()>,
}

impl Registry {
    /// A registry of what was made before; it changes nothing until it is [opened](Self::open).
    pub fn new(
        made: &Made,
        archives: &Arc<Archives>,
        view: &Arc<ArcSwap<View>>,
        (home, quotas, only_files): (Scope, Quotas, bool),
    ) -> Self {
        let (published, _) = watch::channel(0);
        let (made, view, archives) = (Arc::clone(made), Arc::clone(view), Arc::clone(archives));
        Self { made, view, home, quotas, archives, requests: None, only_files, written: Arc::default(), published }
    }

    /// Takes changes from now on: they go into `store` and, by `control`, into effect.
    ///
    /// # Errors
    /// The system has no threads to give.
    pub fn open(mut self, store: Store, control: &Arc<Mutex<Control>>) -> std::io::Result<Arc<Self>> {
        let (requests, waiting) = bounded(WAITING);
        let (dirty, changed) = bounded(1);
        self.requests = Some(requests);
        let registry = Arc::new(self);
        let writer = Writer { registry: Arc::clone(&registry), store, begun_kept: Cell::new(false), dirty };
        std::thread::Builder::new().name("sluice-registry".into()).spawn(move || writer.run(&waiting))?;
        let (publisher, control) = (Arc::clone(&registry), Arc::clone(control));
        std::thread::Builder::new().name("sluice-plans".into()).spawn(move || publisher.publish(&changed, &control))?;
        Ok(registry)
    }

    /// Where this process is.
    pub fn home(&self) -> &Scope {
        &self.home
    }

    /// What was archived.
    pub fn archives(&self) -> &Arc<Archives> {
        &self.archives
    }

    /// What callers have made.
    pub fn made(&self) -> RwLockReadGuard<'_, Resources> {
        self.made.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What files declare, and the generation of the plan that it is in.
    pub fn declared(&self) -> (Arc<Catalog>, u64) {
        let view = self.view.load();
        (Arc::clone(&view.declared), view.generation)
    }

    /// The bus that events for a bus of a scope come to, by the plan in effect.
    pub fn route(&self, scope: &Scope, bus: &str) -> Option<String> {
        Resources::route(&self.view.load().catalog, &self.home, scope, bus)
    }

    /// Whether a bus was made, in effect or not.
    pub fn has_made(&self, scope: &Scope, bus: &str) -> bool {
        self.made().has_bus(scope, bus)
    }

    /// Whether what callers make is kept here.
    pub fn is_open(&self) -> bool {
        self.requests.is_some()
    }

    /// Counts what callers have changed: another number, something new.
    pub fn version(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Writes down what came about by itself: `note` makes records of what was made. Blocks until it is on the disk.
    ///
    /// # Errors
    /// Why it could not be written.
    pub fn note(&self, note: impl FnOnce(&Resources) -> Vec<Change> + Send + 'static) -> Result<(), ApiError> {
        self.work(Work::Note(Box::new(note), false))
    }

    /// The same, of what changes where events go.
    ///
    /// # Errors
    /// Why it could not be written.
    pub fn note_anew(&self, note: impl FnOnce(&Resources) -> Vec<Change> + Send + 'static) -> Result<(), ApiError> {
        self.work(Work::Note(Box::new(note), true))
    }

    fn work(&self, work: Work) -> Result<(), ApiError> {
        let ended = || ApiError::new("InternalException", "the process ends");
        let requests = self.requests.as_ref().ok_or_else(ended)?;
        let (reply, answer) = oneshot::channel();
        requests.send(Request { work, reply }).map_err(|_| ended())?;
        answer.blocking_recv().unwrap_or_else(|_| Err(ended())).map(drop)
    }

    /// Does what an action wants, for whom it says, if that is known; it is on the disk then.
    ///
    /// # Errors
    /// The service's.
    pub async fn act(&self, action: &str, (scope, by): (Scope, Option<String>), members: Members) -> Reply {
        if action.starts_with("Describe") || action.starts_with("List") {
            let decided = tokio::task::block_in_place(|| {
                if action.ends_with("Archive") || action.ends_with("Archives") {
                    self.count_archives(&scope);
                }
                self.decide(&self.made(), action, &scope, &members)
            });
            return decided.map(|(_, answer)| answer);
        }
        let declares = !matches!(action, "StartReplay" | "CancelReplay");
        let Some(requests) = self.requests.as_ref().filter(|_| !(self.only_files && declares)) else {
            let message = "rules are in files only here (`catalog: files`); change them there";
            return Err(ApiError::new("OperationDisabledException", message));
        };
        let (reply, answer) = oneshot::channel();
        let busy = |_| ApiError::new("ThrottlingException", "too many changes wait; come again");
        let work = Work::Act { action: action.to_owned(), scope, by, members };
        requests.try_send(Request { work, reply }).map_err(busy)?;
        answer.await.unwrap_or_else(|_| Err(ApiError::new("InternalException", "the process ends")))
    }

    /// Counts on the disk what archives hold, while nobody waits for what was made: later only what is new is read.
    fn count_archives(&self, scope: &Scope) {
        let all = self.made().all_archives(&self.declared().0, scope, None);
        for (at, name, item) in all.iter().filter(|(at, ..)| at == scope) {
            self.archives.held(&item.folder(at, name));
        }
    }

    /// Removes everything that callers have made. Returns how many records there were.
    ///
    /// # Errors
    /// Why it could not be removed.
    pub async fn reset(&self) -> Result<usize, ApiError> {
        let ended = || ApiError::new("InternalException", "the process ends, or has no catalog of its own");
        let requests = self.requests.as_ref().ok_or_else(ended)?;
        let count = self.made().keys().len();
        let (reply, answer) = oneshot::channel();
        requests.try_send(Request { work: Work::Reset, reply }).map_err(|_| ended())?;
        answer.await.unwrap_or_else(|_| Err(ended())).map(|_| count)
    }

    /// Waits until what was changed before is in effect, or until the deadline.
    pub async fn settled(&self, deadline: Instant) {
        let wanted = self.written.load(Ordering::Acquire);
        if *self.published.borrow() < wanted {
            let mut published = self.published.subscribe();
            // At the deadline the event meets the plan that there is.
            drop(tokio::time::timeout_at(deadline, published.wait_for(|done| *done >= wanted)).await);
        }
    }

    fn decide(
        &self,
        made: &Resources,
        action: &str,
        scope: &Scope,
        members: &Members,
    ) -> Result<(Vec<Change>, Members), ApiError> {
        let view = self.view.load();
        let (home, quotas) = (&self.home, self.quotas);
        let sizes = |folder: &str| {
            let held = self.archives.held(folder);
            (held.events, held.bytes)
        };
        let desired = Desired { made, declared: &view.declared, home, quotas, sizes: &sizes };
        let id = uuid::Uuid::new_v4().to_string();
        let call = Call { scope: scope.clone(), members, now: time::wall_millis(), id };
        desired.act(action, &call).map(|done| (done.changes, done.answer))
    }

    /// Puts what changed into effect, as often as there is something new.
    fn publish(&self, changed: &Receiver<()>, control: &Mutex<Control>) {
        let mut wait = None;
        loop {
            let said = wait.map_or_else(|| changed.recv().map_err(Into::into), |wait| changed.recv_timeout(wait));
            if said == Err(RecvTimeoutError::Disconnected) {
                return;
            }
            let version = self.written.load(Ordering::Acquire);
            let published = control.lock().unwrap_or_else(PoisonError::into_inner).refresh();
            wait = published.as_ref().err().map(|_| AGAIN);
            if let Err(error) = published {
                tracing::error!(
                    "what was changed through the API is kept, but not in effect: {error}; it is tried again"
                );
            }
            self.published.send_replace(version);
        }
    }
}

impl Writer {
    /// Works until the process ends.
    fn run(self, waiting: &Receiver<Request>) {
        while let Ok(first) = waiting.recv() {
            let together = std::iter::once(first).chain(waiting.try_iter()).take(TOGETHER);
            let (mut changes, mut undo, mut replies) = (Vec::new(), Vec::new(), Vec::new());
            let mut new_plan = false;
            for Request { work, reply } in together {
                let acts = matches!(work, Work::Act { .. } | Work::Reset | Work::Note(_, true));
                let answer = self.one(work, &mut changes, &mut undo);
                new_plan |= acts && answer.is_ok();
                replies.push((reply, answer));
            }
            if let Err(why) = self.keep(&changes, undo, new_plan) {
                let failed = ApiError::new("InternalException", why);
                replies.iter_mut().for_each(|(_, answer)| *answer = Err(failed.clone()));
            }
            for (reply, answer) in replies {
                // Who hung up does not want to know.
                drop(reply.send(answer));
            }
        }
    }

    /// Makes one request so, for those after it to see.
    fn one(&self, work: Work, changes: &mut Vec<Change>, undo: &mut Vec<Change>) -> Reply {
        let mut made = self.registry.made.write().unwrap_or_else(PoisonError::into_inner);
        let (mut own, answer) = match work {
            Work::Act { action, scope, by, members } => {
                let done = self.registry.decide(&made, &action, &scope, &members)?;
                audit(&action, (&scope, by.as_deref()), &members);
                done
            }
            Work::Reset => {
                tracing::info!(target: "sluice::audit", "everything that was made through the API is removed");
                (made.keys().into_iter().map(|key| (key, None)).collect(), Members::new())
            }
            Work::Note(note, _) => (note(&made), Members::new()),
        };
        if !self.begun_kept.get() && !own.is_empty() {
            own.insert(0, (Key::Begun, Some(Record::Begun(made.begun))));
        }
        for (key, record) in &own {
            let old = made.set(key.clone(), record.clone()).map_err(|why| ApiError::new("InternalException", why))?;
            undo.push((key.clone(), old));
        }
        changes.extend(own);
        Ok(answer)
    }

    /// Writes changes down; what cannot be is taken back.
    fn keep(&self, changes: &[Change], undo: Vec<Change>, new_plan: bool) -> Result<(), String> {
        if changes.is_empty() {
            return Ok(());
        }
        if let Err(why) = self.store.append(changes.iter()) {
            let mut made = self.registry.made.write().unwrap_or_else(PoisonError::into_inner);
            made.apply(undo.into_iter().rev().collect())?;
            drop(made);
            // A plan that was made meanwhile must not keep what was taken back.
            self.dirty.try_send(()).unwrap_or_default();
            return Err(why);
        }
        self.begun_kept.set(true);
        if !new_plan {
            return Ok(());
        }
        self.registry.written.fetch_add(changes.len() as u64, Ordering::AcqRel);
        // A plan that is due anyway will have it.
        self.dirty.try_send(()).unwrap_or_default();
        Ok(())
    }
}

/// Says who changed what; values of members may be secrets and stay out.
fn audit(action: &str, (scope, by): (&Scope, Option<&str>), members: &Members) {
    let named = ["Name", "Rule", "ArchiveName", "ReplayName", "ResourceARN", "EventBusName"];
    let name = named.iter().find_map(|name| members.get(*name)?.as_str()).unwrap_or_default();
    let Scope { account, region } = scope;
    tracing::info!(target: "sluice::audit", action, name, account, region, by, "a change through the API");
}

//! The one place that sees all: builds the parts, starts them, drains them.
//!
//! A process's life: check the brokers, lock the data directory, publish the first plan, start workers, then sources;
//! run until a signal, the end of all input, or trouble; drain with a deadline.

mod archives;
mod brokers;
mod front;
mod made;
mod sources;

use crate::api::{Admin, ENVELOPE_BYTES, Running};
use crate::careful::Careful;
use crate::catalog::{Catalog, FILE_ARCHIVE_TARGETS, Target};
use crate::config::Loaded;
use crate::config::model::Config;
use crate::config::values::Listen;
use crate::control::{Control, Made, Publish, View};
use crate::deliver;
use crate::deliver::Outlets;
use crate::deliver::blocked::{self, Queues};
use crate::deliver::retry_log::Elsewhere;
use crate::dlq::Desk;
use crate::egress::Egress;
use crate::envelope::Lanes;
use crate::journal::Reserve;
use crate::metrics::{Health, Metrics, labels};
use crate::plan::{Identity, Plan};
use crate::planted::{self, Bug};
use crate::reload::{self, Reloader};
use crate::source::{Feed, Setup, Source, Stop};
use crate::tap::Taps;
use crate::time;
use crate::worker::{Route, Worker};
use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, Sender, bounded, select};
use front::Listeners;
use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::watch;

/// What the process leaves with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0
    Good,
    /// 1: a check said no.
    No,
    /// 2: wrong usage; what grep calls trouble.
    Usage,
    /// 69: a broker cannot be reached.
    Unreachable,
    /// 70: a bug of ours.
    Bug,
    /// 74: files or streams.
    Io,
    /// 75: the drain ran out of time.
    DrainTimeout,
    /// 78: the configuration, or what it names on the brokers.
    Config,
}

impl Exit {
    /// The process's exit code (sysexits.h).
    pub fn code(self) -> i32 {
        match self {
            Self::Good => 0,
            Self::No => 1,
            Self::Usage => 2,
            Self::Unreachable => 69,
            Self::Bug => 70,
            Self::Io => 74,
            Self::DrainTimeout => 75,
            Self::Config => 78,
        }
    }
}

/// Why the process does not start or go on: an exit code and what to do.
#[derive(Debug)]
pub struct Failed {
    /// What it leaves with.
    pub exit: Exit,
    /// What happened and what to do.
    pub message: String,
    /// Whether time may heal it: `--wait` waits for brokers and topics.
    passing: bool,
}

impl Failed {
    /// A failure.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), passing: exit == Exit::Unreachable }
    }

    /// Something on the brokers that somebody may be about to make.
    fn missing(message: String) -> Self {
        Self { exit: Exit::Config, message, passing: true }
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failed {}

/// The drain's deadline when the process stops for trouble.
const TROUBLED_DRAIN: Duration = Duration::from_secs(2);

/// How to run.
#[derive(Default)]
pub struct Options {
    /// Files and folders to watch and reload.
    pub paths: Vec<PathBuf>,
    /// Whether to reload on changes.
    pub watch: bool,
    /// Whether to wait for brokers and topics that are not there.
    pub wait: bool,
    /// Overrides the configuration's drain timeout.
    pub drain_timeout: Option<Duration>,
    /// A source beside those of the configuration: its name, bus and lines.
    pub extra: Option<(String, String, Box<dyn std::io::Read + Send>)>,
}

/// A running router.
pub struct App {
    /// What it says of itself.
    pub metrics: Arc<Metrics>,
    outlets: Arc<Mutex<Outlets>>,
    desk: Arc<Desk>,
    reloader: Reloader,
    stop: Stop,
    /// Tells the listeners that the router drains.
    draining: watch::Sender<bool>,
    sources: Vec<JoinHandle<()>>,
    /// What comes over HTTP.
    front: Option<front::Served>,
    /// Whether input never ends by itself.
    endless: bool,
    workers: Vec<JoinHandle<()>>,
    fatal: Receiver<String>,
    drain_timeout: Duration,
    data_dir: PathBuf,
    _watch: Option<reload::Watch>,
    changed: Receiver<()>,
    _lock: File,
    _runtime: Network,
    signals: Receiver<Signal>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signal {
    Terminate,
    Reload,
}

fn io(what: &str) -> impl FnOnce(std::io::Error) -> Failed {
    let what = what.to_owned();
    move |error| Failed::new(Exit::Io, format!("{what}: {error}"))
}

impl App {
    /// Builds and starts everything.
    ///
    /// # Errors
    /// [`Failed`]; nothing is running then.
    pub fn start(loaded: Loaded, mut options: Options) -> Result<Self, Failed> {
        let Loaded { config, catalog, files, places: _ } = loaded;
        let metrics = Arc::new(Metrics::new(config.metrics.max_rules));
        let lock = lock(&config.data_dir)?;
        let (store, made) = made::open(&config)?;
        let runtime = Network::start().map_err(io("cannot start the network threads"))?;
        let mut listeners = Listeners::bind(&config, &runtime.handle())?;
        let (taps, view) = (Arc::<Taps>::default(), Arc::<ArcSwap<View>>::default());
        let running: Arc<OnceLock<Running>> = Arc::default();
        let (draining, drain) = watch::channel(false);
        listeners.serve_admin(&runtime.handle(), |tokens| Admin {
            metrics: Arc::clone(&metrics),
            running: Arc::clone(&running),
            allow_reset: config.server.allow_reset,
            view: Arc::clone(&view),
            taps: Arc::clone(&taps),
            sources: names(&config, &options.extra),
            event_bytes: front::event_bytes(&config) + ENVELOPE_BYTES,
            tokens,
            stop: drain.clone(),
        });
        let signals = signals(&runtime.handle())?;
        let needs = prepare(&config, &catalog, &runtime.handle(), (options.wait, &signals, &metrics.health))?;
        let (fatal_out, fatal) = bounded(16);
        let reserve = Arc::new(Reserve::new(&config.data_dir));
        let shared = Shared { metrics: &metrics, taps: &taps, view: &view, fatal: &fatal_out, reserve: &reserve };
        let identity = Identity { account: config.identity.account.clone(), region: config.identity.region.clone() };
        let elsewhere = sources::elsewhere(&config, &runtime.handle())?;
        let (outlets, routes, writer) =
            first_plan(&config, (&catalog, &made), &identity, (needs, &elsewhere), &shared)?;
        let registry = made::registry(&config, (store, &made), (&view, &outlets), &writer)?;

        let (lanes, workers) =
            start_workers(config.workers, &routes, (&fatal_out, &config.data_dir), (&metrics, &taps))?;
        let desk = Desk::new(sources::letters(&config, &identity, &routes, &outlets)?, lanes.clone());
        running.get_or_init(|| Running::new(&writer, &desk, &registry));
        let stop = Stop::default();
        let feed = Feed {
            lanes,
            stop: stop.clone(),
            fatal: fatal_out,
            metrics: Arc::clone(&metrics),
            runtime: runtime.handle(),
        };
        let sources = spawn(sources::of(&config, &identity, &elsewhere, options.extra.take())?, &feed)?;
        let endless = endless(&config, &sources);
        let (own, ways) = ((&config, &identity, &metrics), (&feed, &reserve, &outlets));
        let front = listeners.serve_front(own, ways, (&view, &registry), &drain)?;
        drop(feed);
        let (changed, watch) = watch(&options, &files)?;
        metrics.health.set_started();
        tracing::info!(workers = workers.len(), sources = sources.len(), "started");
        Ok(Self {
            drain_timeout: options.drain_timeout.unwrap_or(config.server.shutdown.drain_timeout.0),
            data_dir: config.data_dir.clone(),
            reloader: Reloader::new(options.paths, config, writer, &metrics),
            metrics,
            outlets,
            desk,
            stop,
            draining,
            sources,
            front,
            endless,
            workers,
            fatal,
            _watch: watch,
            changed,
            _lock: lock,
            _runtime: runtime,
            signals,
        })
    }

    /// Set when the router begins to drain.
    pub fn stopping(&self) -> Stop {
        self.stop.clone()
    }

    /// Runs until a signal, the end of all input, or trouble; then drains. `tick` is called about ten times a second
    /// and ends the run by returning `false`.
    ///
    /// # Errors
    /// Why the router could not go on, or that the drain ran out of time.
    pub fn run(mut self, mut tick: impl FnMut(&Metrics) -> bool) -> Result<(), Failed> {
        let mut trouble = None;
        loop {
            select! {
                recv(self.signals) -> signal => match signal {
                    Ok(Signal::Reload) => self.reloader.reload(),
                    _ => break,
                },
                recv(self.changed) -> changed => {
                    if changed.is_ok() {
                        self.settle_files();
                        self.reloader.reload();
                    }
                }
                recv(self.fatal) -> reason => {
                    trouble = reason.ok();
                    break;
                }
                default(Duration::from_millis(100)) => {}
            }
            let exhausted = !self.endless
                && self.sources.iter().all(JoinHandle::is_finished)
                && self.outlets.lock().unwrap_or_else(PoisonError::into_inner).is_idle();
            if !tick(&self.metrics) || exhausted {
                break;
            }
        }
        if trouble.is_some() {
            // What can settle does so at once; what caused the trouble never will.
            self.drain_timeout = self.drain_timeout.min(TROUBLED_DRAIN);
        }
        let drained = self.drain();
        // Whatever the reason, this is no death.
        if let Err(error) = Careful::end(&self.data_dir) {
            tracing::warn!("cannot tidy up in data_dir: {error}");
        }
        match trouble.or_else(|| self.fatal.try_recv().ok()) {
            Some(message) => Err(Failed::new(Exit::Io, message)),
            None => drained,
        }
    }

    /// Waits until files have not changed for a moment, two seconds at most: a change is often several.
    fn settle_files(&self) {
        let deadline = time::now() + Duration::from_secs(2);
        while self.changed.recv_timeout(Duration::from_millis(100)).is_ok() && time::now() < deadline {}
    }

    fn drain(&mut self) -> Result<(), Failed> {
        let deadline = time::now() + self.drain_timeout;
        self.metrics.health.set_draining();
        self.stop.set();
        self.desk.close();
        self.draining.send_replace(true);
        let mut answering = None;
        if let Some((threads, served)) = self.front.take() {
            self.sources.extend(threads);
            answering = served;
        }
        let answered = |served: &tokio::task::JoinHandle<()>| served.is_finished();
        let done = |handles: &[JoinHandle<()>]| handles.iter().all(JoinHandle::is_finished);
        // Sources end when everything is settled and committed; workers when the sources have let go of the lanes.
        while !done(&self.sources) || !done(&self.workers) || !answering.as_ref().is_none_or(answered) {
            let again = self.signals.recv_timeout(Duration::from_millis(5)).is_ok_and(|s| s == Signal::Terminate);
            if again || time::now() >= deadline {
                let open = self.sources.iter().filter(|source| !source.is_finished()).count();
                let message = format!(
                    "the drain did not end within {}: {open} sources have unsettled events, which are read again at the next start",
                    time::format_duration(self.drain_timeout)
                );
                return Err(Failed::new(Exit::DrainTimeout, message));
            }
        }
        // A thread that panicked has said so itself; what it held is read again at the next start.
        let panicked =
            self.sources.drain(..).chain(self.workers.drain(..)).filter_map(|thread| thread.join().err()).count();
        if panicked > 0 {
            return Err(Failed::new(Exit::Bug, "a thread has failed inside Sluice; please report it"));
        }
        if !planted::on(Bug::FlushSkipped) {
            self.outlets.lock().unwrap_or_else(PoisonError::into_inner).flush(deadline);
        }
        tracing::info!("drained");
        Ok(())
    }
}

/// What the parts of a process share.
struct Shared<'a> {
    metrics: &'a Arc<Metrics>,
    taps: &'a Arc<Taps>,
    view: &'a Arc<ArcSwap<View>>,
    fatal: &'a Sender<String>,
    reserve: &'a Arc<Reserve>,
}

type Planned = (Arc<Mutex<Outlets>>, Arc<ArcSwap<Route>>, Arc<Mutex<Control>>);

/// Opens the outlets and publishes the first plan.
fn first_plan(
    config: &Config,
    (catalog, made): (&Catalog, &Made),
    identity: &Identity,
    (needs, elsewhere): (brokers::Needs, &[Elsewhere]),
    shared: &Shared<'_>,
) -> Result<Planned, Failed> {
    let refused = |message: String| Failed::new(Exit::Config, message);
    let public = config.server.listen.is_public() || config.server.admin.is_public();
    let egress = Egress::new(public, &config.egress.allow).map_err(refused)?;
    let network = (&needs.runtime, egress);
    let bytes = (needs.event_bytes, config.limits.retry_log_bytes.0, elsewhere.to_vec());
    let queues = Arc::<Queues>::default();
    watch_letters(&needs.runtime, &queues, shared.metrics);
    let told = (shared.metrics, shared.taps, &queues);
    let kept = (&*config.data_dir, made::archives(config, shared.metrics));
    let opened = Outlets::new(kept, bytes, network, shared.fatal, shared.reserve, told);
    let outlets = Arc::new(Mutex::new(opened.map_err(|message| Failed::new(Exit::Io, message))?));
    let empty = Route::new(Plan::empty(), deliver::Dispatcher::empty(), shared.metrics);
    let routes: Arc<ArcSwap<Route>> = Arc::new(ArcSwap::from_pointee(empty));
    let prepared = catalog.targets().cloned().collect();
    let publish = publisher(&outlets, &routes, shared.metrics, needs, prepared);
    let seed = std::hash::RandomState::new().build_hasher().finish();
    let mut writer = Control::new((identity.clone(), seed), (made, made::mapping(config)), shared.view, publish);
    writer.replace(catalog).map_err(|error| refused(error.to_string()))?;
    outlets.lock().unwrap_or_else(PoisonError::into_inner).prepare_logs()?;
    Ok((outlets, routes, Arc::new(Mutex::new(writer))))
}

/// Asks the brokers for what sources and targets need.
fn prepare(
    config: &Config,
    catalog: &Catalog,
    runtime: &tokio::runtime::Handle,
    (wait, signals, health): (bool, &Receiver<Signal>, &Health),
) -> Result<brokers::Needs, Failed> {
    let wait = (wait, signals, health);
    let partitions = wait_for(wait, || brokers::prepare_sources(config, runtime))?;
    let queues = config.sources.values().filter_map(|source| source.dead_letter.clone()).collect();
    let event_bytes = config.limits.event_bytes.0;
    let needs = brokers::Needs { event_bytes, partitions, queues, runtime: runtime.clone() };
    let targets: Vec<_> = catalog.targets().cloned().collect();
    wait_for(wait, || {
        brokers::prepare_targets(&targets, &needs)?;
        archives::prepare_buses(catalog, &needs)
    })?;
    Ok(needs)
}

/// Says, from now on, which dead-letter queues are blocked.
fn watch_letters(runtime: &tokio::runtime::Handle, queues: &Arc<Queues>, metrics: &Arc<Metrics>) {
    let (queues, metrics) = (Arc::clone(queues), Arc::clone(metrics));
    runtime.spawn(async move {
        loop {
            tokio::time::sleep(blocked::LOOK).await;
            queues.look(time::now(), &metrics);
        }
    });
}

/// Tells when files change, if that is wanted.
fn watch(options: &Options, files: &[PathBuf]) -> Result<(Receiver<()>, Option<reload::Watch>), Failed> {
    if !options.watch {
        return Ok((crossbeam_channel::never(), None));
    }
    let (out, changed) = bounded(1);
    // A change that finds the channel full is seen by the reload that is due anyway.
    let watch = reload::watch(&options.paths, files, move || out.try_send(()).unwrap_or_default())
        .map_err(|error| Failed::new(Exit::Io, format!("cannot watch the configuration: {error}")))?;
    Ok((changed, Some(watch)))
}

/// Where everything that speaks over the network runs.
struct Network(Option<tokio::runtime::Runtime>);

impl Network {
    fn start() -> std::io::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).thread_name("sluice-net").enable_all().build().map(|runtime| Self(Some(runtime)))
    }

    fn handle(&self) -> tokio::runtime::Handle {
        self.0.as_ref().map_or_else(tokio::runtime::Handle::current, |runtime| runtime.handle().clone())
    }
}

impl Drop for Network {
    /// Waits for nothing: a name that is being looked up would hold the process beyond its deadline.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Whether input never ends by itself: without a source of its own, with webhooks, or with schedules.
fn endless(config: &Config, sources: &[JoinHandle<()>]) -> bool {
    let webhooks = || config.sources.values().any(|source| source.webhook.is_some());
    sources.is_empty() || !config.schedules.is_empty() || webhooks()
}

/// Starts the sources.
fn spawn(sources: Vec<(Setup, Source)>, feed: &Feed) -> Result<Vec<JoinHandle<()>>, Failed> {
    let spawned = sources.into_iter().map(|(setup, source)| source.spawn(setup, feed.clone()));
    spawned.collect::<std::io::Result<_>>().map_err(io("cannot start a source"))
}

/// Starts the workers, `count` of them or one a core.
fn start_workers(
    count: u32,
    routes: &Arc<ArcSwap<Route>>,
    (fatal, data_dir): (&Sender<String>, &Path),
    (metrics, taps): (&Arc<Metrics>, &Arc<Taps>),
) -> Result<(Lanes, Vec<JoinHandle<()>>), Failed> {
    let count = match count {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n as usize,
    };
    let careful = Careful::begin(data_dir, count).map_err(io("cannot use data_dir"))?.map(Arc::new);
    let (lanes, ends) = Lanes::new(count);
    let mut workers = Vec::new();
    for (number, lane) in ends.into_iter().enumerate() {
        let worker = Worker::new(number, lane, Arc::clone(routes), (fatal.clone(), careful.clone()), (metrics, taps));
        let spawned = std::thread::Builder::new().name(format!("sluice-worker-{number}")).spawn(move || worker.run());
        workers.push(spawned.map_err(io("cannot start a worker"))?);
    }
    Ok((lanes, workers))
}

/// Opens a plan's outlets and swaps it in. The old route is dropped here, never by a worker.
fn publisher(
    outlets: &Arc<Mutex<Outlets>>,
    routes: &Arc<ArcSwap<Route>>,
    metrics: &Arc<Metrics>,
    needs: brokers::Needs,
    prepared: Vec<Target>,
) -> Publish {
    let (outlets, routes, metrics) = (Arc::clone(outlets), Arc::clone(routes), Arc::clone(metrics));
    let mut retired: Vec<Arc<Route>> = Vec::new();
    let by_name = |targets: &[Target]| targets.iter().map(|target| (target.name.clone(), target.clone())).collect();
    let mut prepared: HashMap<String, Target> = by_name(&prepared);
    Box::new(move |plan: Plan| {
        // Brokers are asked about new and changed targets only: a change of rules needs none of them. Targets that
        // callers name by their ARN are found out about when they are used.
        let callers = |name: &str| name.starts_with("arn:") && !name.starts_with(FILE_ARCHIVE_TARGETS);
        let known = |target: &Target| callers(&target.name) || prepared.get(&target.name) == Some(target);
        let fresh: Vec<Target> = plan.targets.iter().filter(|target| !known(target)).cloned().collect();
        brokers::prepare_targets(&fresh, &needs).map_err(|failed| failed.message)?;
        prepared = by_name(&plan.targets);
        let dispatcher = outlets.lock().unwrap_or_else(PoisonError::into_inner).dispatcher(&plan)?;
        count_rules(&plan, &metrics);
        retired.push(routes.swap(Arc::new(Route::new(plan, dispatcher, &metrics))));
        retired.retain(|route| Arc::strong_count(route) > 1);
        Ok(())
    })
}

fn count_rules(plan: &Plan, metrics: &Metrics) {
    let families = &metrics.families;
    families.ruleset_generation.get_or_create(&labels([])).set(i64::try_from(plan.generation).unwrap_or(i64::MAX));
    for bus in &plan.buses {
        let shadow = bus.rules.iter().filter(|rule| rule.shadow).count();
        for (state, count) in [("enabled", bus.rules.len() - shadow), ("shadow", shadow), ("disabled", bus.disabled)] {
            let own = labels([("bus", &bus.name), ("state", state)]);
            families.ruleset_rules.get_or_create(&own).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

/// Asks until there is an answer, if that is wanted.
fn wait_for<T>(
    (wait, signals, health): (bool, &Receiver<Signal>, &Health),
    ask: impl Fn() -> Result<T, Failed>,
) -> Result<T, Failed> {
    loop {
        let answer = ask();
        let waits_for = answer.as_ref().err().map(|failed| failed.message.clone());
        health.set("brokers", waits_for);
        match answer {
            Err(failed) if wait && failed.passing => {
                tracing::warn!("{}; trying again", failed.message);
                if signals.recv_timeout(Duration::from_secs(1)) == Ok(Signal::Terminate) {
                    return Err(Failed::new(Exit::Unreachable, "told to end while waiting"));
                }
            }
            answer => return answer,
        }
    }
}

/// Takes a data directory that exists; `None` where a process runs on it.
///
/// # Errors
/// It cannot be written to.
pub fn take(data_dir: &Path) -> Result<Option<File>, Failed> {
    let lock = File::create(data_dir.join("sluice.lock")).map_err(io(&format!("data_dir {}", data_dir.display())))?;
    Ok(lock.try_lock().is_ok().then_some(lock))
}

/// Takes the data directory for this process.
fn lock(data_dir: &Path) -> Result<File, Failed> {
    let shown = data_dir.display();
    let made = std::fs::create_dir_all(data_dir).and_then(|()| File::create(data_dir.join("sluice.lock")));
    let lock = made.map_err(|error| {
        Failed::new(Exit::Io, format!("cannot use data_dir {shown}: {error}; make it writable or name another one"))
    })?;
    lock.try_lock().map_err(|_| {
        let message =
            format!("data_dir {shown} is in use by another sluice; stop it, or give each process its own data_dir");
        Failed::new(Exit::Io, message)
    })?;
    Ok(lock)
}

/// Names of all sources, as metrics have them.
fn names(config: &Config, extra: &sources::Extra) -> Vec<String> {
    let declared = config.sources.keys().cloned();
    let front = matches!(config.server.listen, Listen::At(_)).then(|| "http".to_owned());
    declared.chain(extra.iter().map(|(name, ..)| name.clone())).chain(front).collect()
}

fn signals(runtime: &tokio::runtime::Handle) -> Result<Receiver<Signal>, Failed> {
    use tokio::signal::unix::{SignalKind, signal};
    let (out, signals) = bounded(8);
    let listen = |kind: SignalKind, meaning: Signal, out: Sender<Signal>| {
        let _guard = runtime.enter();
        let mut stream = signal(kind).map_err(io("cannot listen for signals"))?;
        runtime.spawn(async move {
            while stream.recv().await.is_some() {
                // More signals than the channel holds say nothing new.
                out.try_send(meaning).unwrap_or_default();
            }
        });
        Ok::<(), Failed>(())
    };
    listen(SignalKind::terminate(), Signal::Terminate, out.clone())?;
    listen(SignalKind::interrupt(), Signal::Terminate, out.clone())?;
    listen(SignalKind::hangup(), Signal::Reload, out)?;
    Ok(signals)
}

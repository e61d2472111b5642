//! The outlets of one plan, and how deliveries find theirs.

use super::blocked::Queues;
use super::dead_letter::Letter;
use super::function::Publish;
use super::http::Endpoints;
use super::kafka::{Producers, TopicSink};
use super::log::{LineSink, Writer};
use super::nats::Connections;
use super::oauth::Authority;
use super::parcel::Hold;
use super::retry::Failure;
use super::retry_log::{Elsewhere, Logs, Route, Unprepared};
use super::{Delivery, Outlet, Parcel, Payload, RuleName, Shared, Sink, Timer};
use crate::ack::Pending;
use crate::archive::Archives;
use crate::catalog::{DEFAULT_BUS, OAuth, Order, RetryPolicy, Storage, Target, TargetKind};
use crate::egress::Egress;
use crate::envelope::{Batch, DeliveryId, Envelope, Position};
use crate::journal::Reserve;
use crate::metrics::Metrics;
use crate::plan::{Plan, TargetId};
use crate::tap::Taps;
use crate::time;
use crossbeam_channel::Sender;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Makes outlets and keeps those that a reload did not change.
pub struct Outlets {
    data_dir: PathBuf,
    producers: Producers,
    connections: Connections,
    endpoints: Endpoints,
    files: Arc<Writer>,
    archives: Arc<Archives>,
    /// Where brokers that keep archives are asked.
    runtime: tokio::runtime::Handle,
    /// Started for the first archive.
    archiver: Option<Arc<Writer>>,
    fatal: Sender<String>,
    stdout: Arc<Writer>,
    shared: Shared,
    open: HashMap<String, (Target, Arc<Outlet>)>,
    queues: HashMap<Arc<str>, Arc<Outlet>>,
}

impl Outlets {
    /// Starts the threads that deliveries need. `fatal` takes the reason when the process must stop.
    ///
    /// # Errors
    /// The system has no threads to give, or the retry logs cannot be used.
    pub fn new(
        (data_dir, archives): (&Path, Arc<Archives>),
        (event_bytes, log_bytes, elsewhere): (u64, u64, Vec<Elsewhere>),
        (runtime, egress): (&tokio::runtime::Handle, Egress),
        fatal: &Sender<String>,
        reserve: &Arc<Reserve>,
        (metrics, taps, queues): (&Arc<Metrics>, &Arc<Taps>, &Arc<Queues>),
    ) -> Result<Self, String> {
        let no_thread = |error: std::io::Error| format!("cannot start a thread: {error}");
        let timer = Timer::spawn().map_err(no_thread)?;
        let logs = Logs::open(data_dir, (log_bytes, elsewhere), reserve, (&timer, metrics));
        let logs = logs.map_err(|error| error.to_string())?;
        Ok(Self {
            data_dir: data_dir.to_owned(),
            producers: Producers::new(event_bytes, metrics),
            connections: Connections::default(),
            endpoints: Endpoints::new(runtime.clone(), egress),
            files: Writer::spawn("sluice-files", fatal).map_err(no_thread)?,
            archives,
            runtime: runtime.clone(),
            archiver: None,
            fatal: fatal.clone(),
            stdout: Writer::spawn("sluice-stdout", fatal).map_err(no_thread)?,
            shared: Shared {
                timer,
                logs,
                metrics: Arc::clone(metrics),
                taps: Arc::clone(taps),
                queues: Arc::clone(queues),
            },
            open: HashMap::new(),
            queues: HashMap::new(),
        })
    }

    /// The dispatcher of a plan. Outlets of unchanged targets go on; those that no plan names any more end with their
    /// last delivery.
    ///
    /// # Errors
    /// A Kafka client that cannot be made from its properties.
    pub fn dispatcher(&mut self, plan: &Plan) -> Result<Dispatcher, String> {
        let mut open = HashMap::new();
        let mut outlets = Vec::new();
        for target in &plan.targets {
            let outlet = match self.open.get(&target.name) {
                Some((known, outlet)) if known == target => Some(Arc::clone(outlet)),
                _ => self
                    .sink(target)?
                    .map(|sink| Outlet::new(&target.name, sink, (target.retry, target.ordering), &self.shared)),
            };
            if let Some(outlet) = &outlet {
                open.insert(target.name.clone(), (target.clone(), Arc::clone(outlet)));
            }
            outlets.push(outlet);
        }
        self.open = open;
        let queue_of = |target: &Target| {
            target.dead_letter.as_ref().and_then(|name| self.open.get(name)).map(|(_, outlet)| Arc::clone(outlet))
        };
        let own_queues: Vec<_> = plan.targets.iter().map(queue_of).collect();
        let routes = outlets.iter().zip(&own_queues).filter_map(|(outlet, queue)| {
            let outlet = Arc::clone(outlet.as_ref()?);
            Some((outlet.name.to_string(), Route { outlet, queue: queue.clone() }))
        });
        let routes: HashMap<_, _> = routes.collect();
        let queues: HashMap<_, _> =
            plan.buses.iter().map(|bus| (Arc::clone(&bus.name), self.default_queue(&bus.name))).collect();
        let logs = &self.shared.logs;
        logs.route(routes, queues.clone());
        for outlet in outlets.iter().flatten().filter(|outlet| outlet.logs.is_some()) {
            outlet.set_elsewhere(logs.elsewhere((&outlet.name, outlet.ordering), plan)?);
        }
        let named = self.open.iter().map(|(name, (_, outlet))| (name.clone(), Arc::clone(outlet))).collect();
        Ok(Dispatcher { outlets, own_queues, queues, named })
    }

    /// Makes the retry topics and streams that are missing, and takes up what waits for targets that are no more.
    ///
    /// # Errors
    /// Nobody answers, or what is there cannot be used.
    pub fn prepare_logs(&self) -> Result<(), Unprepared> {
        self.shared.logs.prepare()
    }

    /// Who gives out tokens for a connection.
    ///
    /// # Errors
    /// An address that egress does not allow, or headers that are none.
    pub fn authority(&mut self, oauth: &OAuth) -> Result<Authority, String> {
        self.endpoints.authority(oauth)
    }

    /// Records of functions go this way from now on.
    pub fn publish_by(&self, publish: Publish) {
        self.endpoints.publish_by(publish);
    }

    /// Where archived events go.
    pub fn archives(&self) -> Arc<Archives> {
        Arc::clone(&self.archives)
    }

    /// Ends the files that lines go to in `folder`; what comes begins new ones.
    pub fn roll(&self, folder: &Path) {
        let outlets = self.open.values().map(|(_, outlet)| outlet).chain(self.queues.values());
        for outlet in outlets {
            if let Sink::Log(lines) = &outlet.sink {
                lines.roll(folder);
            }
        }
    }

    /// Whether no delivery waits in a retry log.
    pub fn is_idle(&self) -> bool {
        self.shared.logs.is_empty()
    }

    /// Waits until retry logs have ended what they began, up to a second, and producers have sent what they hold, up to
    /// `deadline`.
    pub fn flush(&self, deadline: Instant) {
        self.shared.logs.drain(deadline.min(time::now() + Duration::from_secs(1)));
        self.producers.flush(deadline);
    }

    fn sink(&mut self, target: &Target) -> Result<Option<Sink>, String> {
        Ok(match &target.kind {
            TargetKind::Bus(_) => None,
            TargetKind::Nowhere(why) => Some(Sink::Nowhere("NO_RESOURCE", why.as_str().into())),
            TargetKind::Forbidden(why) => Some(Sink::Nowhere("NO_PERMISSIONS", why.as_str().into())),
            TargetKind::Stdout => Some(Sink::Log(LineSink::stdout(&self.stdout))),
            TargetKind::Log { group } => {
                let folder = group_folder(&self.data_dir, group);
                Some(Sink::Log(LineSink::folder(&self.files, folder, false)))
            }
            TargetKind::Archive { folder, storage, days } => Some(self.archive(folder, storage, *days)?),
            TargetKind::Nats(nats) => Some(Sink::Nats(self.connections.subject(nats))),
            TargetKind::Http(http) => {
                match self.endpoints.endpoint(http) {
                    Ok(endpoint) => Some(Sink::Http(endpoint)),
                    // What callers make through the API must not keep a plan from its way: its events say what is wrong.
                    Err(why) if target.name.starts_with("arn:") => Some(Sink::Nowhere("NO_RESOURCE", why.into())),
                    Err(why) => return Err(format!("target {}: {why}", target.name)),
                }
            }
            TargetKind::Kafka(kafka) => {
                let topic = self.producers.topic(&kafka.client, &kafka.topic)?;
                Some(Sink::Kafka(TopicSink::new(topic)))
            }
        })
    }

    fn archive(&mut self, folder: &str, storage: &Storage, days: i64) -> Result<Sink, String> {
        self.archives.keep(folder, storage, days, &self.runtime);
        Ok(match storage {
            Storage::Disk => {
                let no_thread = |error: std::io::Error| format!("cannot start a thread: {error}");
                let writer = match self.archiver.take() {
                    Some(writer) => writer,
                    None => Writer::spawn("sluice-archives", &self.fatal).map_err(no_thread)?,
                };
                let sink = LineSink::archive(&writer, self.archives.appender(folder));
                self.archiver = Some(writer);
                Sink::Log(sink)
            }
            Storage::Topic(kafka) => {
                Sink::Kafka(TopicSink::archive(self.producers.topic(&kafka.client, &kafka.topic)?, folder))
            }
            Storage::Stream(nats, _) => Sink::Nats(self.connections.archive(nats, folder)),
        })
    }

    /// The queue in the data directory for dead letters that have no other.
    fn default_queue(&mut self, bus: &Arc<str>) -> Arc<Outlet> {
        let (data_dir, files, shared) = (&self.data_dir, &self.files, &self.shared);
        let made = self.queues.entry(Arc::clone(bus)).or_insert_with(|| {
            let folder = letters_folder(data_dir).join(bus.trim_start_matches('/'));
            let sink = Sink::Log(LineSink::folder(files, folder, true));
            let retry = RetryPolicy { max: Duration::from_secs(10), ..RetryPolicy::default() };
            Outlet::new(&format!("dead-letters/{bus}"), sink, (retry, Order::Partition), shared)
        });
        Arc::clone(made)
    }
}

/// The folder of the default dead-letter queues, one below it a bus.
pub fn letters_folder(data_dir: &Path) -> PathBuf {
    data_dir.join("dead-letters")
}

/// The folder of all archives.
pub fn archives_folder(data_dir: &Path) -> PathBuf {
    data_dir.join("archives")
}

/// The folder of a log group below the data directory.
pub fn group_folder(data_dir: &Path, group: &str) -> PathBuf {
    data_dir.join("logs").join(group.trim_start_matches('/'))
}

/// The outlets of one plan; immutable.
pub struct Dispatcher {
    outlets: Vec<Option<Arc<Outlet>>>,
    /// Per target: its own dead-letter queue.
    own_queues: Vec<Option<Arc<Outlet>>>,
    /// Per bus: the default queue.
    queues: HashMap<Arc<str>, Arc<Outlet>>,
    named: HashMap<String, Arc<Outlet>>,
}

/// Where an event came from: what all its deliveries share, made only when there is one.
#[derive(Clone, Copy)]
pub struct Origin<'a> {
    /// The batch that it was read in.
    pub batch: &'a Batch,
    /// Its record.
    pub envelope: &'a Envelope,
    /// The way it came through chained buses; see [`crate::envelope::way`].
    pub way: u64,
}

impl Origin<'_> {
    /// The bus that the event arrived on.
    pub fn arrival(&self) -> &Arc<str> {
        &self.batch.source.bus
    }

    /// Where its record stood.
    pub fn position(&self) -> Position {
        let run = &self.batch.runs[self.envelope.run];
        Position { topic: Arc::clone(&run.topic), partition: run.partition, offset: self.envelope.offset }
    }

    /// The record's bytes.
    pub fn payload(&self) -> Payload {
        Payload::Shared(Arc::clone(&self.batch.bytes), self.envelope.payload.clone())
    }

    /// The record's key.
    pub fn key(&self) -> Option<Payload> {
        let key = self.envelope.key.clone()?;
        Some(Payload::Shared(Arc::clone(&self.batch.bytes), key))
    }

    /// One more delivery that must settle before the record does.
    pub fn pending(&self) -> Pending {
        self.batch.runs[self.envelope.run].receipt.pending()
    }
}

/// A dead letter on its way to its target once more.
pub struct Again {
    /// The id that it had.
    pub id: DeliveryId,
    /// The target's name.
    pub target: String,
    /// The bus.
    pub bus: Arc<str>,
    /// The rule.
    pub rule: Option<RuleName>,
    /// What the target receives.
    pub payload: Payload,
    /// As in [`Delivery::key`].
    pub key: Option<Payload>,
    /// As in [`Delivery::trace`].
    pub trace: Option<Arc<str>>,
    /// Where the event came from.
    pub source: Arc<str>,
    /// Where its record stood.
    pub position: Position,
    /// What to settle.
    pub pending: Pending,
}

impl Dispatcher {
    /// The dispatcher of the empty plan.
    pub fn empty() -> Self {
        Self { outlets: Vec::new(), own_queues: Vec::new(), queues: HashMap::new(), named: HashMap::new() }
    }

    /// Submits a delivery for the `nth` target of a rule on `bus`. What no outlet of this plan takes stays unsettled and
    /// is read again (I2).
    pub fn submit(
        &self,
        origin: Origin<'_>,
        bus: &Arc<str>,
        rule: RuleName,
        (target, nth): (TargetId, usize),
        (key, payload): (Option<Payload>, Payload),
    ) {
        let pending = origin.pending();
        let (Some(outlet), Some(last_resort)) = (&self.outlets[target.0 as usize], self.queues.get(bus)) else {
            return;
        };
        let position = origin.position();
        let away = outlet.away(&origin.batch.source.name);
        let (lanes, order) = outlet.lane(away.as_ref(), origin.key().as_deref(), &position);
        let parcel = Parcel {
            id: DeliveryId::new(
                (&origin.batch.source.name, &position),
                origin.arrival(),
                (bus, &rule.name),
                (&outlet.name, nth),
                origin.way,
            ),
            queue: self.own_queues[target.0 as usize].clone(),
            last_resort: Arc::clone(last_resort),
            payload,
            key,
            bus: Arc::clone(bus),
            trace: origin.envelope.trace.clone(),
            rule: Some(rule),
            source: Arc::clone(&origin.batch.source.name),
            position,
            read_at: origin.batch.read_at,
            order,
            lanes,
            away,
            begun: AtomicU32::new(0),
            hold: Mutex::new(Hold::Source(pending)),
        };
        Outlet::submit(Delivery {
            parcel: Arc::new(parcel),
            outlet: Arc::clone(outlet),
            attempt_at: origin.batch.read_at,
            failed: 0,
            letter: None,
        });
    }

    /// Submits once more what had become a dead letter, as if it were new. Of what has to do with a target or a bus that
    /// is no more, nothing is done.
    ///
    /// # Errors
    /// What is missing.
    pub fn again(&self, again: Again) -> Result<(), String> {
        let index = self.outlets.iter().position(|outlet| outlet.as_ref().is_some_and(|it| *it.name == *again.target));
        let outlet = index.and_then(|index| self.outlets[index].as_ref());
        let (Some(index), Some(outlet)) = (index, outlet) else {
            return Err(format!("target {} does not exist", again.target));
        };
        let Some(last_resort) = self.queues.get(&again.bus) else {
            return Err(format!("bus {} does not exist", again.bus));
        };
        // Its partition may be another instance's.
        let (lanes, order) = outlet.lane(None, again.key.as_deref(), &again.position);
        let parcel = Parcel {
            id: again.id,
            queue: self.own_queues[index].clone(),
            last_resort: Arc::clone(last_resort),
            payload: again.payload,
            key: again.key,
            bus: again.bus,
            trace: again.trace,
            rule: again.rule,
            source: again.source,
            position: again.position,
            read_at: time::now(),
            order,
            lanes,
            away: None,
            begun: AtomicU32::new(0),
            hold: Mutex::new(Hold::Source(again.pending)),
        };
        let (parcel, outlet) = (Arc::new(parcel), Arc::clone(outlet));
        Outlet::submit(Delivery { parcel, outlet, attempt_at: time::now(), failed: 0, letter: None });
        Ok(())
    }

    /// Keeps what cannot be routed: in the queue named `queue`, else in the default one of the bus it arrived on. `to`
    /// is the target that it was meant for, the `nth` of its rule; the source where it is no event.
    pub fn reject(
        &self,
        origin: Origin<'_>,
        queue: Option<&str>,
        (rule, to, nth): (Option<RuleName>, &str, usize),
        payload: Payload,
        failure: Failure,
    ) {
        let pending = origin.pending();
        // The bus may have gone since its event was taken; `default` never does.
        let queue_of = |bus: &str| self.queues.get(bus);
        let Some(last_resort) = queue_of(origin.arrival()).or_else(|| queue_of(DEFAULT_BUS)) else { return };
        let outlet = queue.and_then(|name| self.named.get(name)).unwrap_or(last_resort);
        let rule_name = rule.as_ref().map_or("", |rule| &rule.arn);
        let (position, arrival) = (origin.position(), origin.arrival());
        // What has a rule and was never tried has not got its target's form yet.
        let untransformed = rule.is_some().then_some(nth);
        let letter = Letter { target: to.into(), failure, exhausted: None, retries: 0, untransformed };
        let parcel = Parcel {
            id: DeliveryId::new(
                (&origin.batch.source.name, &position),
                arrival,
                (arrival, rule_name),
                (to, nth),
                origin.way,
            ),
            queue: None,
            last_resort: Arc::clone(last_resort),
            payload,
            key: origin.key(),
            bus: Arc::clone(arrival),
            trace: origin.envelope.trace.clone(),
            rule,
            source: Arc::clone(&origin.batch.source.name),
            position,
            read_at: origin.batch.read_at,
            order: 0,
            lanes: None,
            away: None,
            begun: AtomicU32::new(0),
            hold: Mutex::new(Hold::Source(pending)),
        };
        Outlet::attempt(Delivery {
            parcel: Arc::new(parcel),
            outlet: Arc::clone(outlet),
            attempt_at: origin.batch.read_at,
            failed: 0,
            letter: Some(Box::new(letter)),
        });
    }
}

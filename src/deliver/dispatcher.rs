//! The outlets of one plan, and how deliveries find theirs.

use super::dead_letter::Letter;
use super::http::Endpoints;
use super::kafka::Producers;
use super::log::{LineSink, Writer};
use super::nats::Connections;
use super::parcel::Hold;
use super::retry::Failure;
use super::retry_log::{Logs, Route};
use super::{Delivery, Outlet, Parcel, Payload, RuleName, Shared, Sink, Timer};
use crate::ack::Pending;
use crate::catalog::{Order, RetryPolicy, Target, TargetKind};
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
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Makes outlets and keeps those that a reload did not change.
pub struct Outlets {
    data_dir: PathBuf,
    producers: Producers,
    connections: Connections,
    endpoints: Endpoints,
    files: Arc<Writer>,
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
        data_dir: &Path,
        (event_bytes, log_bytes): (u64, u64),
        (runtime, egress): (&tokio::runtime::Handle, Egress),
        fatal: &Sender<String>,
        reserve: &Arc<Reserve>,
        (metrics, taps): (&Arc<Metrics>, &Arc<Taps>),
    ) -> Result<Self, String> {
        let no_thread = |error: std::io::Error| format!("cannot start a thread: {error}");
        let timer = Timer::spawn().map_err(no_thread)?;
        let logs = match log_bytes {
            0 => None,
            _ => {
                let logs = Logs::open(data_dir, log_bytes, reserve, (&timer, metrics));
                Some(logs.map_err(|error| error.to_string())?)
            }
        };
        Ok(Self {
            data_dir: data_dir.to_owned(),
            producers: Producers::new(event_bytes),
            connections: Connections::default(),
            endpoints: Endpoints::new(runtime.clone(), egress),
            files: Writer::spawn("sluice-files", fatal).map_err(no_thread)?,
            stdout: Writer::spawn("sluice-stdout", fatal).map_err(no_thread)?,
            shared: Shared { timer, logs, metrics: Arc::clone(metrics), taps: Arc::clone(taps) },
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
        if let Some(logs) = &self.shared.logs {
            logs.route(routes, queues.clone());
        }
        let named = self.open.iter().map(|(name, (_, outlet))| (name.clone(), Arc::clone(outlet))).collect();
        Ok(Dispatcher { outlets, own_queues, queues, named })
    }

    /// Whether no delivery waits in a retry log.
    pub fn is_idle(&self) -> bool {
        self.shared.logs.as_ref().is_none_or(|logs| logs.is_empty())
    }

    /// Waits until retry logs have ended what they began, up to a second, and producers have sent what they hold, up to
    /// `deadline`.
    pub fn flush(&self, deadline: Instant) {
        if let Some(logs) = &self.shared.logs {
            logs.drain(deadline.min(time::now() + Duration::from_secs(1)));
        }
        self.producers.flush(deadline);
    }

    fn sink(&mut self, target: &Target) -> Result<Option<Sink>, String> {
        Ok(match &target.kind {
            TargetKind::Bus(_) => None,
            TargetKind::Stdout => Some(Sink::Log(LineSink::stdout(&self.stdout))),
            TargetKind::Log { group } => {
                let folder = group_folder(&self.data_dir, group);
                Some(Sink::Log(LineSink::folder(&self.files, folder, false)))
            }
            TargetKind::Nats(nats) => Some(Sink::Nats(self.connections.subject(nats))),
            TargetKind::Http(http) => {
                let made = self.endpoints.endpoint(http).map_err(|why| format!("target {}: {why}", target.name));
                Some(Sink::Http(made?))
            }
            TargetKind::Kafka(kafka) => Some(Sink::Kafka(self.producers.topic(kafka)?)),
        })
    }

    /// The queue in the data directory for dead letters that have no other.
    fn default_queue(&mut self, bus: &Arc<str>) -> Arc<Outlet> {
        let (data_dir, files, shared) = (&self.data_dir, &self.files, &self.shared);
        let made = self.queues.entry(Arc::clone(bus)).or_insert_with(|| {
            let folder = data_dir.join("dead-letters").join(bus.trim_start_matches('/'));
            let sink = Sink::Log(LineSink::folder(files, folder, true));
            let retry = RetryPolicy { max: Duration::from_secs(10), ..RetryPolicy::default() };
            Outlet::new(&format!("dead-letters/{bus}"), sink, (retry, Order::Partition), shared)
        });
        Arc::clone(made)
    }
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
        let (lanes, order) = outlet.lane(origin.key().as_deref(), &position);
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
        let Some(last_resort) = self.queues.get(origin.arrival()) else { return };
        let outlet = queue.and_then(|name| self.named.get(name)).unwrap_or(last_resort);
        let rule_name = rule.as_ref().map_or("", |rule| &rule.arn);
        let (position, arrival) = (origin.position(), origin.arrival());
        let letter = Letter { target: to.into(), failure, exhausted: None, retries: 0 };
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

//! The outlets of one plan, and how deliveries find theirs.

use super::dead_letter::Letter;
use super::kafka::Producers;
use super::log::{LineSink, Writer};
use super::retry::Failure;
use super::{Delivery, Outlet, Payload, RuleName, Sink, Timer};
use crate::ack::Pending;
use crate::catalog::{RetryPolicy, Target, TargetKind};
use crate::envelope::{Batch, DeliveryId, Envelope, Position};
use crate::metrics::Metrics;
use crate::plan::{Plan, TargetId};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Makes outlets and keeps those that a reload did not change.
pub struct Outlets {
    data_dir: PathBuf,
    producers: Producers,
    files: Arc<Writer>,
    stdout: Arc<Writer>,
    timer: Arc<Timer>,
    metrics: Arc<Metrics>,
    open: HashMap<String, (Target, Arc<Outlet>)>,
    queues: HashMap<Arc<str>, Arc<Outlet>>,
}

impl Outlets {
    /// Starts the threads that deliveries need.
    ///
    /// # Errors
    /// The system has no threads to give.
    pub fn new(data_dir: &Path, metrics: &Arc<Metrics>) -> std::io::Result<Self> {
        Ok(Self {
            data_dir: data_dir.to_owned(),
            producers: Producers::default(),
            files: Writer::spawn("sluice-files")?,
            stdout: Writer::spawn("sluice-stdout")?,
            timer: Timer::spawn()?,
            metrics: Arc::clone(metrics),
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
                    .map(|sink| Outlet::new(&target.name, sink, target.retry, &self.timer, &self.metrics)),
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
        let own_queues = plan.targets.iter().map(queue_of).collect();
        let queues = plan.buses.iter().map(|bus| (Arc::clone(&bus.name), self.default_queue(&bus.name))).collect();
        let named = self.open.iter().map(|(name, (_, outlet))| (name.clone(), Arc::clone(outlet))).collect();
        Ok(Dispatcher { outlets, own_queues, queues, named })
    }

    /// Waits until producers have sent what they hold, up to `deadline`.
    pub fn flush(&self, deadline: Instant) {
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
            TargetKind::Kafka(kafka) => Some(Sink::Kafka(self.producers.topic(kafka)?)),
        })
    }

    /// The queue in the data directory for dead letters that have no other.
    fn default_queue(&mut self, bus: &Arc<str>) -> Arc<Outlet> {
        let (data_dir, files, timer, metrics) = (&self.data_dir, &self.files, &self.timer, &self.metrics);
        let made = self.queues.entry(Arc::clone(bus)).or_insert_with(|| {
            let folder = data_dir.join("dead-letters").join(bus.trim_start_matches('/'));
            let sink = Sink::Log(LineSink::folder(files, folder, true));
            let retry = RetryPolicy { max: Duration::from_secs(10), ..RetryPolicy::default() };
            Outlet::new(&format!("dead-letters/{bus}"), sink, retry, timer, metrics)
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

    /// The outlet of a target; `None` where the target is a bus.
    pub fn outlet(&self, target: TargetId) -> Option<&Arc<Outlet>> {
        self.outlets[target.0 as usize].as_ref()
    }

    /// A delivery for the `nth` target of a rule on `bus`, ready to submit. `None` where the bus is not of this plan.
    pub fn delivery(
        &self,
        origin: Origin<'_>,
        bus: &Arc<str>,
        rule: RuleName,
        (target, nth): (TargetId, usize),
        outlet: &Arc<Outlet>,
        (key, payload): (Option<Payload>, Payload),
    ) -> Option<Delivery> {
        let last_resort = Arc::clone(self.queues.get(bus)?);
        let position = origin.position();
        Some(Delivery {
            id: DeliveryId::new(&position, origin.arrival(), bus, &rule.name, &outlet.name, nth),
            outlet: Arc::clone(outlet),
            queue: self.own_queues[target.0 as usize].clone(),
            last_resort,
            payload,
            key,
            bus: Arc::clone(bus),
            rule: Some(rule),
            source: Arc::clone(&origin.batch.source.name),
            position,
            read_at: origin.batch.read_at,
            attempt_at: origin.batch.read_at,
            failed: 0,
            letter: None,
            pending: origin.pending(),
        })
    }

    /// Keeps what cannot be routed: in the queue named `queue`, else in the default one of the bus it arrived on.
    pub fn reject(
        &self,
        origin: Origin<'_>,
        queue: Option<&str>,
        rule: Option<RuleName>,
        payload: Payload,
        failure: Failure,
    ) {
        let Some(last_resort) = self.queues.get(origin.arrival()) else {
            // A plan without the bus cannot keep the event; unsettled, it is read again (I2).
            return drop(origin.pending());
        };
        let outlet = queue.and_then(|name| self.named.get(name)).unwrap_or(last_resort);
        let rule_name = rule.as_ref().map_or("", |rule| &rule.name);
        let (position, arrival, source) = (origin.position(), origin.arrival(), &origin.batch.source.name);
        let letter = Letter { target: Arc::clone(source), failure, exhausted: None, retries: 0 };
        Outlet::submit(Delivery {
            id: DeliveryId::new(&position, arrival, arrival, rule_name, &outlet.name, usize::MAX),
            outlet: Arc::clone(outlet),
            queue: None,
            last_resort: Arc::clone(last_resort),
            payload,
            key: origin.key(),
            bus: Arc::clone(arrival),
            rule,
            source: Arc::clone(source),
            position,
            read_at: origin.batch.read_at,
            attempt_at: origin.batch.read_at,
            failed: 0,
            letter: Some(Box::new(letter)),
            pending: origin.pending(),
        });
    }
}

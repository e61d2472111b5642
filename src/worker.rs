//! The loop of one worker: decode, match, transform, hand over. No call back up, no wait but for the next batch.

use crate::catalog::{KafkaKey, OnInvalid, TargetKind};
use crate::deliver::dispatcher::{Dispatcher, Origin};
use crate::deliver::retry::Failure;
use crate::deliver::{Outlet, Payload, RuleName};
use crate::envelope::{Batch, Envelope, Position};
use crate::event::{Scanner, Tree, decode};
use crate::matcher::Scratch;
use crate::metrics::{Latency, Metrics, labels};
use crate::plan::{BusId, BusPlan, Plan, PlannedTarget, RulePlan, TargetId};
use crate::time;
use crate::transform::wrap::{Framing, Record};
use crate::transform::{Context, Input};
use arc_swap::ArcSwap;
use bumpalo::Bump;
use crossbeam_channel::{Receiver, Sender};
use prometheus_client::metrics::counter::Counter;
use std::borrow::Cow;
use std::cell::OnceCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Bus-to-bus steps of one event; beyond, it is a dead letter.
pub const MAX_HOPS: usize = 8;

/// A plan with what runs it; swapped as one.
pub struct Route {
    /// The plan.
    pub plan: Plan,
    /// Its outlets.
    pub dispatcher: Dispatcher,
    /// Per bus: matched, unmatched, duration.
    buses: Vec<(Counter, Counter, Latency)>,
    /// Per bus and rule.
    rules: Vec<Vec<Counter>>,
}

impl Route {
    /// Looks up the counters of a plan.
    pub fn new(plan: Plan, dispatcher: Dispatcher, metrics: &Metrics) -> Self {
        let families = &metrics.families;
        let bus_metrics = |bus: &BusPlan| {
            let outcome =
                |outcome| families.bus_events.get_or_create_owned(&labels([("bus", &bus.name), ("outcome", outcome)]));
            let duration = families.match_duration.get_or_create_owned(&labels([("bus", &bus.name)]));
            (outcome("matched"), outcome("unmatched"), duration)
        };
        let buses = plan.buses.iter().map(bus_metrics).collect();
        let rule_metrics =
            |bus: &BusPlan| bus.rules.iter().map(|rule| metrics.rule(&bus.name, &rule.name, rule.shadow)).collect();
        let rules = plan.buses.iter().map(rule_metrics).collect();
        Self { plan, dispatcher, buses, rules }
    }
}

/// One worker.
pub struct Worker {
    lane: Receiver<Batch>,
    routes: Arc<ArcSwap<Route>>,
    /// Takes the reason when the process must stop.
    fatal: Sender<String>,
    metrics: Arc<Metrics>,
    busy: Counter<f64, AtomicU64>,
    queued: Latency,
    scanner: Scanner,
    scratch: Scratch,
    bump: Bump,
    matched: Vec<u32>,
}

/// An event on a bus, on its way through chained buses.
struct Step {
    bus: BusId,
    payload: Payload,
    hops: usize,
}

/// What the events of a batch share while they are routed.
struct Batched<'a> {
    batch: &'a Batch,
    route: &'a Route,
    ingestion_time: OnceCell<String>,
}

impl Worker {
    /// A worker at the end of `lane`.
    pub fn new(
        number: usize,
        lane: Receiver<Batch>,
        routes: Arc<ArcSwap<Route>>,
        fatal: Sender<String>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let busy = metrics.families.worker_busy.get_or_create_owned(&labels([("worker", &number.to_string())]));
        let queued = metrics.families.queue_duration.get_or_create_owned(&labels([("worker", &number.to_string())]));
        Self {
            lane,
            routes,
            fatal,
            metrics: Arc::clone(metrics),
            busy,
            queued,
            scanner: Scanner::default(),
            scratch: Scratch::default(),
            bump: Bump::new(),
            matched: Vec::new(),
        }
    }

    /// Works until every sender of the lane is gone.
    pub fn run(mut self) {
        while let Ok(batch) = self.lane.recv() {
            let begin = time::now();
            self.queued.record(begin.duration_since(batch.read_at), 1);
            // I4: one batch sees one plan.
            let route = self.routes.load_full();
            self.batch(&route, &batch);
            let spent = begin.elapsed();
            if let Some(bus) = route.plan.bus(&batch.source.bus) {
                let count = batch.envelopes.len().max(1) as u32;
                route.buses[bus.0 as usize].2.record(spent / count, u64::from(count));
            }
            self.busy.inc_by(spent.as_secs_f64());
            for run in batch.runs {
                run.receipt.close();
            }
        }
    }

    fn batch(&mut self, route: &Route, batch: &Batch) {
        let batched = Batched { batch, route, ingestion_time: OnceCell::new() };
        for envelope in &batch.envelopes {
            let key = envelope.key.clone().map(|key| Payload::Shared(Arc::clone(&batch.bytes), key));
            let run = &batch.runs[envelope.run];
            let position =
                Position { topic: Arc::clone(&run.topic), partition: run.partition, offset: envelope.offset };
            let origin = Origin {
                source: &batch.source.name,
                arrival: &batch.source.bus,
                position: &position,
                read_at: batch.read_at,
                key: key.as_ref(),
            };
            // A panic is a bug of ours; the event is kept and the process goes on.
            let routed = catch_unwind(AssertUnwindSafe(|| self.event(&batched, envelope, &origin)));
            let failure = match routed {
                Ok(Ok(())) => continue,
                Ok(Err(failure)) => failure,
                Err(_) => {
                    (self.scanner, self.scratch, self.bump) = (Scanner::default(), Scratch::default(), Bump::new());
                    Failure::permanent("INTERNAL_ERROR", "routing this event failed inside Sluice; please report it")
                }
            };
            self.invalid(&batched, envelope, &origin, failure);
        }
    }

    /// What the source wants done with a record that is no valid event.
    fn invalid(&mut self, batched: &Batched<'_>, envelope: &Envelope, origin: &Origin<'_>, failure: Failure) {
        let (batch, families) = (batched.batch, &self.metrics.families);
        let source = labels([("source", &batch.source.name), ("reason", failure.code)]);
        families.source_rejected.get_or_create(&source).inc();
        let pending = batch.runs[envelope.run].receipt.pending();
        match batch.source.on_invalid {
            OnInvalid::DeadLetter => {
                let payload = Payload::Shared(Arc::clone(&batch.bytes), envelope.payload.clone());
                let queue = batch.source.dead_letter.as_deref();
                families.dlq_events.get_or_create(&labels([("target", origin.source), ("reason", failure.code)])).inc();
                batched.route.dispatcher.reject(origin, queue, None, payload, failure, pending);
            }
            OnInvalid::Drop => {
                families.dropped_events.get_or_create(&labels([("stage", "decode"), ("reason", failure.code)])).inc();
                pending.settle();
            }
            // Pending stays open: the record is read again after the restart.
            OnInvalid::Fail => drop(self.fatal.try_send(format!(
                "source {}: invalid event at {}: {} (on_invalid: fail)",
                batch.source.name, origin.position, failure.message
            ))),
        }
    }

    fn event(&mut self, batched: &Batched<'_>, envelope: &Envelope, origin: &Origin<'_>) -> Result<(), Failure> {
        let (batch, route) = (batched.batch, batched.route);
        let limit = batch.source.event_bytes;
        if envelope.payload.len() > limit {
            let message = format!("the record has {} bytes, limits.event_bytes is {limit}", envelope.payload.len());
            return Err(Failure::permanent("INVALID_EVENT", message));
        }
        let Some(bus) = route.plan.bus(&batch.source.bus) else {
            return Err(Failure::permanent("NO_RESOURCE", format!("bus {} does not exist", batch.source.bus)));
        };
        let payload = framed(batch, envelope, origin)?;
        let mut steps = vec![Step { bus, payload, hops: 0 }];
        while let Some(step) = steps.pop() {
            let outcome = self.step(batched, envelope, origin, &step, &mut steps);
            if let Err(failure) = outcome {
                if step.hops == 0 {
                    return Err(failure);
                }
                let pending = batch.runs[envelope.run].receipt.pending();
                route.dispatcher.reject(origin, None, None, step.payload, failure, pending);
            }
        }
        Ok(())
    }

    /// One event on one bus. Buses as targets come back as further steps, under the same receipt.
    fn step(
        &mut self,
        batched: &Batched<'_>,
        envelope: &Envelope,
        origin: &Origin<'_>,
        step: &Step,
        steps: &mut Vec<Step>,
    ) -> Result<(), Failure> {
        let route = batched.route;
        let bus = &route.plan.buses[step.bus.0 as usize];
        self.bump.reset();
        let mut matched = std::mem::take(&mut self.matched);
        matched.clear();
        {
            let fields = decode(&step.payload, bus.matcher.paths(), &mut self.scanner, &self.bump)
                .map_err(|fault| Failure::permanent("INVALID_EVENT", format!("the event is not valid: {fault}")))?;
            matched.extend_from_slice(bus.matcher.matches(&fields, &mut self.scratch));
        }
        let (hits, misses, _) = &route.buses[step.bus.0 as usize];
        if matched.is_empty() {
            misses.inc()
        } else {
            hits.inc()
        };
        for &number in &matched {
            route.rules[step.bus.0 as usize][number as usize].inc();
            let rule = &bus.rules[number as usize];
            if !rule.shadow {
                for (nth, target) in rule.targets.iter().enumerate() {
                    self.target(batched, envelope, origin, step, bus, rule, (nth, target), steps);
                }
            }
        }
        self.matched = matched;
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the innermost of four loops over one batch")]
    fn target(
        &mut self,
        batched: &Batched<'_>,
        envelope: &Envelope,
        origin: &Origin<'_>,
        step: &Step,
        bus: &BusPlan,
        rule: &RulePlan,
        (nth, target): (usize, &PlannedTarget),
        steps: &mut Vec<Step>,
    ) {
        let (batch, route) = (batched.batch, batched.route);
        let receipt = &batch.runs[envelope.run].receipt;
        let name = || RuleName { name: Arc::clone(&rule.name), arn: Arc::clone(&rule.arn) };
        let payload = match self.render(batched, rule, &target.input, &step.payload) {
            Ok(payload) => payload,
            Err(failure) => {
                let queue = route.plan.targets[target.target.0 as usize].dead_letter.as_deref();
                self.metrics
                    .families
                    .dlq_events
                    .get_or_create(&labels([
                        ("target", &route.plan.targets[target.target.0 as usize].name),
                        ("reason", failure.code),
                    ]))
                    .inc();
                let payload = step.payload.clone();
                return route.dispatcher.reject(origin, queue, Some(name()), payload, failure, receipt.pending());
            }
        };
        if let Some(next) = target.bus {
            if step.hops + 1 > MAX_HOPS {
                let failure = Failure::permanent("INTERNAL_ERROR", format!("more than {MAX_HOPS} bus-to-bus hops"));
                return route.dispatcher.reject(origin, None, Some(name()), payload, failure, receipt.pending());
            }
            let payload = if is_event(&payload) { payload } else { step.payload.clone() };
            steps.push(Step { bus: next, payload, hops: step.hops + 1 });
            return;
        }
        let Some(outlet) = route.dispatcher.outlet(target.target) else { return };
        let key = self.key(batched, target.target, origin, &step.payload);
        let delivery = route.dispatcher.delivery(
            origin,
            &bus.name,
            name(),
            (target.target, nth),
            outlet,
            payload,
            key,
            receipt.pending(),
        );
        Outlet::submit(delivery);
    }

    fn render(
        &mut self,
        batched: &Batched<'_>,
        rule: &RulePlan,
        input: &Input,
        event: &Payload,
    ) -> Result<Payload, Failure> {
        if *input == Input::Event {
            return Ok(event.clone());
        }
        let ingestion_time = batched.ingestion_time.get_or_init(|| time::iso_millis(time::wall_millis()));
        let context = Context { rule_name: &rule.name, rule_arn: &rule.arn, ingestion_time };
        match input.render(event, &context, &mut self.scanner) {
            Ok(rendered) => Ok(Payload::Own(rendered.into())),
            Err(error) => Err(Failure::permanent("INVALID_JSON", error.to_string())),
        }
    }

    /// The key of a record for a topic.
    fn key(&mut self, batched: &Batched<'_>, target: TargetId, origin: &Origin<'_>, event: &[u8]) -> Option<Payload> {
        let TargetKind::Kafka(kafka) = &batched.route.plan.targets[target.0 as usize].kind else { return None };
        match &kafka.key {
            KafkaKey::Source => origin.key.cloned(),
            KafkaKey::None => None,
            KafkaKey::Path(path) => {
                let bump = Bump::new();
                let tree = Tree::parse_with(event, &mut self.scanner, &bump).ok()?;
                let text = path.select(tree.root()).text()?;
                Some(Payload::Own(text.into_bytes().into()))
            }
        }
    }
}

/// The event of a record, as its source frames it.
fn framed(batch: &Batch, envelope: &Envelope, origin: &Origin<'_>) -> Result<Payload, Failure> {
    let shared = Payload::Shared(Arc::clone(&batch.bytes), envelope.payload.clone());
    if batch.source.framing == Framing::EventBridge {
        return Ok(shared);
    }
    let id = crate::envelope::DeliveryId::new(origin.position, origin.arrival, "", "", "", 0);
    let record = Record {
        payload: &shared,
        headers: &envelope.headers,
        id: &uuid::Builder::from_random_bytes(id.0.to_be_bytes()).into_uuid().to_string(),
        time: &time::iso_seconds(envelope.time_millis),
        account: &batch.source.identity.account,
        region: &batch.source.identity.region,
    };
    match batch.source.framing.event(&record) {
        Ok(Cow::Borrowed(_)) => Ok(shared),
        Ok(Cow::Owned(event)) => Ok(Payload::Own(event.into())),
        Err(error) => Err(Failure::permanent("INVALID_EVENT", error.to_string())),
    }
}

/// Whether a transformed event can stand on another bus: an object with `source` and `detail-type`.
fn is_event(payload: &[u8]) -> bool {
    Tree::parse(payload)
        .is_ok_and(|tree| tree.root().get(b"source").is_some() && tree.root().get(b"detail-type").is_some())
}

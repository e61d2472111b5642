//! The loop of one worker: decode, match, transform, hand over. No call back up, no wait but for the next batch.

use crate::careful::Careful;
use crate::catalog::{KafkaKey, OnInvalid, Target, TargetKind};
use crate::deliver::dispatcher::{Dispatcher, Origin};
use crate::deliver::retry::Failure;
use crate::deliver::{Payload, RuleName};
use crate::envelope::{self, Aim, Batch, DeliveryId};
use crate::event::{Fault, Scanner, Tree, decode};
use crate::matcher::Scratch;
use crate::metrics::{Latency, Metrics, labels};
use crate::plan::{BusId, BusPlan, Plan, PlannedTarget, RulePlan};
use crate::planted;
use crate::tap::{Seen, Stage, Taps};
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
    number: usize,
    /// Where events are written down, after unclean ends.
    careful: Option<Arc<Careful>>,
    metrics: Arc<Metrics>,
    taps: Arc<Taps>,
    busy: Counter<f64, AtomicU64>,
    queued: Latency,
    scanner: Scanner,
    scratch: Scratch,
    bump: Bump,
    matched: Vec<u32>,
    steps: Vec<Step>,
    /// Per bus: events of this batch that matched, and that did not.
    tally: Vec<(u64, u64)>,
}

/// An event on a bus, on its way through chained buses.
struct Step {
    bus: BusId,
    /// What stands for the record; `None` where the record is the event.
    payload: Option<Payload>,
    hops: usize,
    /// Whether one of the steps led to another account or region: no second one may.
    crossed: bool,
    way: u64,
}

impl Step {
    fn bytes<'a>(&'a self, origin: Origin<'a>) -> &'a [u8] {
        match &self.payload {
            Some(payload) => payload,
            None => &origin.batch.bytes[origin.envelope.payload.clone()],
        }
    }

    fn payload(&self, origin: Origin<'_>) -> Payload {
        self.payload.clone().unwrap_or_else(|| origin.payload())
    }
}

/// What the events of a batch share while they are routed.
struct Batched<'a> {
    route: &'a Route,
    ingestion_time: OnceCell<String>,
}

impl Worker {
    /// A worker at the end of `lane`.
    pub fn new(
        number: usize,
        lane: Receiver<Batch>,
        routes: Arc<ArcSwap<Route>>,
        (fatal, careful): (Sender<String>, Option<Arc<Careful>>),
        (metrics, taps): (&Arc<Metrics>, &Arc<Taps>),
    ) -> Self {
        let busy = metrics.families.worker_busy.get_or_create_owned(&labels([("worker", &number.to_string())]));
        let queued = metrics.families.queue_duration.get_or_create_owned(&labels([("worker", &number.to_string())]));
        Self {
            lane,
            routes,
            fatal,
            number,
            careful,
            metrics: Arc::clone(metrics),
            taps: Arc::clone(taps),
            busy,
            queued,
            scanner: Scanner::default(),
            scratch: Scratch::default(),
            bump: Bump::new(),
            matched: Vec::new(),
            steps: Vec::new(),
            tally: Vec::new(),
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
        let batched = Batched { route, ingestion_time: OnceCell::new() };
        self.tally.clear();
        self.tally.resize(route.buses.len(), (0, 0));
        for envelope in &batch.envelopes {
            let origin = Origin { batch, envelope, way: 0 };
            if let Some(failure) = self.parked(origin) {
                self.invalid(&batched, origin, failure);
                continue;
            }
            // A panic is a bug of ours; the event is kept and the process goes on.
            let routed = catch_unwind(AssertUnwindSafe(|| self.event(&batched, origin)));
            let failure = match routed {
                Ok(Ok(())) => continue,
                Ok(Err(failure)) => failure,
                Err(_) => {
                    (self.scanner, self.scratch, self.bump) = (Scanner::default(), Scratch::default(), Bump::new());
                    Failure::permanent("INTERNAL_ERROR", "routing this event failed inside Sluice; please report it")
                }
            };
            self.invalid(&batched, origin, failure);
        }
        if let Some(careful) = &self.careful {
            careful.idle(self.number);
        }
        // Counters are shared among workers: once a batch, not once an event.
        for ((hits, misses, _), (matched, unmatched)) in route.buses.iter().zip(&self.tally) {
            hits.inc_by(*matched);
            misses.inc_by(*unmatched);
        }
    }

    /// Why an event is not routed: the process has died on it.
    fn parked(&self, origin: Origin<'_>) -> Option<Failure> {
        let careful = self.careful.as_ref()?;
        let position = format!("{} {}", origin.batch.source.name, origin.position());
        careful.is_parked(self.number, &position).then(|| {
            Failure::permanent("INTERNAL_ERROR", "Sluice died twice while it routed this event; please report it")
        })
    }

    /// What the source wants done with a record that is no valid event.
    fn invalid(&mut self, batched: &Batched<'_>, origin: Origin<'_>, failure: Failure) {
        let (source, families) = (&origin.batch.source, &self.metrics.families);
        families.source_rejected.get_or_create(&labels([("source", &source.name), ("reason", failure.code)])).inc();
        // Only invalid events are the source's to decide about; our own trouble is always kept.
        let policy = if failure.code == "INVALID_EVENT" { source.on_invalid } else { OnInvalid::DeadLetter };
        match policy {
            OnInvalid::DeadLetter => {
                families.dlq_events.get_or_create(&labels([("target", &source.name), ("reason", failure.code)])).inc();
                let queue = source.dead_letter.as_deref();
                batched.route.dispatcher.reject(origin, queue, (None, &source.name, 0), origin.payload(), failure);
            }
            OnInvalid::Drop => {
                families.dropped_events.get_or_create(&labels([("stage", "decode"), ("reason", failure.code)])).inc();
            }
            OnInvalid::Fail => {
                // Never settled: the record is read again after the restart (I2).
                drop(origin.pending());
                let (position, why) = (origin.position(), failure.message);
                let message = format!("source {}: invalid event at {position}: {why} (on_invalid: fail)", source.name);
                // The process stops for the first reason; later ones find the channel full.
                self.fatal.try_send(message).unwrap_or_default();
            }
        }
    }

    fn event(&mut self, batched: &Batched<'_>, origin: Origin<'_>) -> Result<(), Failure> {
        let (source, route) = (&origin.batch.source, batched.route);
        let (len, limit) = (origin.envelope.payload.len(), source.event_bytes);
        if len > limit {
            let message = format!("the record has {len} bytes, limits.event_bytes is {limit}");
            return Err(Failure::permanent("INVALID_EVENT", message));
        }
        let Some(bus) = route.plan.bus(&source.bus) else {
            return Err(Failure::permanent("NO_RESOURCE", format!("bus {} does not exist", source.bus)));
        };
        let payload = framed(origin)?;
        planted::obey(&origin.batch.bytes[origin.envelope.payload.clone()]);
        let mut steps = std::mem::take(&mut self.steps);
        steps.clear();
        steps.push(Step { bus, payload, hops: 0, crossed: false, way: 0 });
        let mut outcome = Ok(());
        while let Some(step) = steps.pop() {
            let origin = Origin { way: step.way, ..origin };
            if let Err(failure) = self.step(batched, origin, &step, &mut steps) {
                if step.hops == 0 {
                    outcome = Err(failure);
                } else {
                    let bus = &route.plan.buses[step.bus.0 as usize].name;
                    route.dispatcher.reject(origin, None, (None, bus, 0), step.payload(origin), failure);
                }
            }
        }
        self.steps = steps;
        outcome
    }

    /// One event on one bus. Buses as targets come back as further steps, under the same receipt.
    fn step(
        &mut self,
        batched: &Batched<'_>,
        origin: Origin<'_>,
        step: &Step,
        steps: &mut Vec<Step>,
    ) -> Result<(), Failure> {
        let route = batched.route;
        let bus = &route.plan.buses[step.bus.0 as usize];
        if let (Aim::Fired(rule), 0) = (&origin.batch.source.aim, step.hops) {
            self.fired(batched, origin, step, (bus, rule), steps);
            return Ok(());
        }
        self.bump.reset();
        let mut matched = std::mem::take(&mut self.matched);
        matched.clear();
        {
            let fields =
                decode(step.bytes(origin), bus.matcher.paths(), &mut self.scanner, &self.bump).map_err(invalid)?;
            matched.extend_from_slice(bus.matcher.matches(&fields, &mut self.scratch).map_err(invalid)?);
        }
        if self.taps.any() {
            self.show(bus, step.bytes(origin), &matched);
        }
        if let (Aim::Among(rules), 0) = (&origin.batch.source.aim, step.hops) {
            matched.retain(|&number| rules.contains(&*bus.rules[number as usize].name));
        }
        let (hits, misses) = &mut self.tally[step.bus.0 as usize];
        *(if matched.is_empty() { misses } else { hits }) += 1;
        for &number in &matched {
            route.rules[step.bus.0 as usize][number as usize].inc();
            let rule = &bus.rules[number as usize];
            if !rule.shadow {
                for target in rule.targets.iter().enumerate() {
                    self.target(batched, origin, step, (bus, rule), target, steps);
                }
            }
        }
        self.matched = matched;
        Ok(())
    }

    /// What a rule does when its schedule fires; nothing where it has gone or rests by now.
    fn fired(
        &mut self,
        batched: &Batched<'_>,
        origin: Origin<'_>,
        step: &Step,
        (bus, rule): (&BusPlan, &str),
        steps: &mut Vec<Step>,
    ) {
        let (hits, misses) = &mut self.tally[step.bus.0 as usize];
        let Some(rule) = bus.scheduled.get(rule) else { return *misses += 1 };
        *hits += 1;
        for target in rule.targets.iter().enumerate() {
            self.target(batched, origin, step, (bus, rule), target, steps);
        }
    }

    /// Shows an event to those who watch.
    fn show(&self, bus: &BusPlan, event: &[u8], matched: &[u32]) {
        let rules: Vec<_> = matched.iter().map(|&number| Arc::clone(&bus.rules[number as usize].name)).collect();
        let seen = |rules: &[Arc<str>]| Seen {
            bus: Arc::clone(&bus.name),
            rules: rules.to_vec(),
            target: None,
            error: None,
            event: event.to_vec(),
        };
        self.taps.offer(Stage::Ingress, &bus.name, || seen(&[]));
        let stage = if matched.is_empty() { Stage::Unmatched } else { Stage::Matched };
        self.taps.offer(stage, &bus.name, || seen(&rules));
    }

    fn target(
        &mut self,
        batched: &Batched<'_>,
        origin: Origin<'_>,
        step: &Step,
        (bus, rule): (&BusPlan, &RulePlan),
        (nth, target): (usize, &PlannedTarget),
        steps: &mut Vec<Step>,
    ) {
        let dispatcher = &batched.route.dispatcher;
        let declared = &batched.route.plan.targets[target.target.0 as usize];
        let name = RuleName { name: Arc::clone(&rule.name), arn: Arc::clone(&rule.arn) };
        let payload = match self.render(batched, rule, &target.input, step.payload(origin)) {
            Ok(payload) => payload,
            Err(failure) => {
                let event = step.payload(origin);
                return self.unsuitable(batched, origin, (name, declared, nth), event, failure);
            }
        };
        if let Some(next) = target.bus {
            if step.hops + 1 > MAX_HOPS {
                let failure = Failure::permanent("INTERNAL_ERROR", format!("more than {MAX_HOPS} bus-to-bus hops"));
                return dispatcher.reject(origin, None, (Some(name), &declared.name, nth), payload, failure);
            }
            let crosses = crossing(&bus.name, &batched.route.plan.buses[next.0 as usize].name);
            if let Some(code) = crosses.filter(|_| step.crossed) {
                let message = "the event has come from another account or region already, and goes to a third one";
                let failure = Failure::permanent(code, message);
                return dispatcher.reject(origin, None, (Some(name), &declared.name, nth), payload, failure);
            }
            // A form that yields no event does not change what is forwarded.
            let event = target.input == Input::Event || is_event(&payload);
            let payload = if event { Some(payload) } else { step.payload.clone() };
            let way = envelope::way(step.way, &rule.arn, nth);
            let crossed = step.crossed || crosses.is_some();
            steps.push(Step { bus: next, payload, hops: step.hops + 1, crossed, way });
            return;
        }
        let key = match key(declared, step.bytes(origin), origin.key(), &mut self.scanner) {
            Ok(key) => key,
            Err(failure) => {
                let event = step.payload(origin);
                return self.unsuitable(batched, origin, (name, declared, nth), event, failure);
            }
        };
        dispatcher.submit(origin, &bus.name, name, (target.target, nth), (key, payload));
    }

    /// An event that cannot be given its target's form, or finds no place in it.
    fn unsuitable(
        &self,
        batched: &Batched<'_>,
        origin: Origin<'_>,
        (rule, target, nth): (RuleName, &Target, usize),
        payload: Payload,
        failure: Failure,
    ) {
        let (families, to) = (&self.metrics.families, target.name.as_str());
        families.dlq_events.get_or_create(&labels([("target", to), ("reason", failure.code)])).inc();
        families.target_deliveries.get_or_create(&labels([("target", to), ("outcome", "dead_lettered")])).inc();
        let queue = target.dead_letter.as_deref();
        batched.route.dispatcher.reject(origin, queue, (Some(rule), to, nth), payload, failure);
    }

    fn render(
        &mut self,
        batched: &Batched<'_>,
        rule: &RulePlan,
        input: &Input,
        event: Payload,
    ) -> Result<Payload, Failure> {
        if *input == Input::Event {
            return Ok(event);
        }
        let ingestion_time = batched.ingestion_time.get_or_init(|| time::iso_millis(time::wall_millis()));
        let context = Context { rule_name: &rule.name, rule_arn: &rule.arn, ingestion_time };
        match input.render(&event, &context, &mut self.scanner) {
            Ok(rendered) => Ok(Payload::Own(rendered.into())),
            Err(error) => Err(Failure::permanent("INVALID_JSON", error.to_string())),
        }
    }
}

/// The service's word for a second step from one account or region to another; `None` where both buses are of one.
fn crossing(from: &str, to: &str) -> Option<&'static str> {
    let scope = |bus: &str| bus.rsplit_once(':').map(|(scope, _)| scope.to_owned()).filter(|scope| scope != "*");
    let account = |scope: &Option<String>| scope.as_ref()?.split_once(':').map(|(account, _)| account.to_owned());
    let (from, to) = (scope(from), scope(to));
    match from == to {
        true => None,
        false if account(&from) == account(&to) => Some("THIRD_REGION_HOP_DETECTED"),
        false => Some("THIRD_ACCOUNT_HOP_DETECTED"),
    }
}

/// What the target takes from the event beside the payload: a record's key, a message's subject, parameters of a request.
/// `own` is the key of the record that the event came in.
///
/// # Errors
/// The event has no subject for this target, or no place.
pub fn key(
    target: &Target,
    event: &[u8],
    own: Option<Payload>,
    scanner: &mut Scanner,
) -> Result<Option<Payload>, Failure> {
    let made = |text: String| Some(Payload::Own(text.into_bytes().into()));
    match &target.kind {
        TargetKind::Kafka(kafka) => match &kafka.key {
            KafkaKey::Source => Ok(own),
            KafkaKey::None => Ok(None),
            KafkaKey::Path(path) => {
                let tree = Tree::parse_with(event, scanner).ok();
                Ok(tree.and_then(|tree| path.select(tree.root()).text()).and_then(made))
            }
        },
        TargetKind::Nats(nats) if nats.subject.fixed().is_none() => {
            let tree = Tree::parse_with(event, scanner).map_err(invalid)?;
            let filled = nats.subject.fill(tree.root());
            filled.map(made).map_err(|why| Failure::permanent("INVALID_PARAMETER", why))
        }
        TargetKind::Http(http) if let Some(path) = http.call.as_ref().and_then(|call| call.key()) => {
            let tree = Tree::parse_with(event, scanner).ok();
            Ok(tree.and_then(|tree| path.select(tree.root()).text()).and_then(made))
        }
        TargetKind::Http(http) => match http.invocation.as_ref().filter(|invocation| invocation.takes()) {
            None => Ok(None),
            Some(invocation) => {
                let tree = Tree::parse_with(event, scanner).map_err(invalid)?;
                let taken = invocation.taken(|path| path.select(tree.root()).flat());
                taken.map(made).map_err(|why| Failure::permanent("INVALID_PARAMETER", why))
            }
        },
        _ => Ok(None),
    }
}

/// The event of a record that is none by itself; `None` where the record is the event.
fn invalid(fault: Fault) -> Failure {
    Failure::permanent("INVALID_EVENT", format!("the event is not valid: {fault}"))
}

fn framed(origin: Origin<'_>) -> Result<Option<Payload>, Failure> {
    let source = &origin.batch.source;
    if source.framing == Framing::EventBridge {
        return Ok(None);
    }
    let id = DeliveryId::new((&source.name, &origin.position()), origin.arrival(), ("", ""), ("", 0), 0);
    let record = Record {
        payload: &origin.payload(),
        headers: &origin.envelope.headers,
        id: &uuid::Builder::from_random_bytes(id.0.to_be_bytes()).into_uuid().to_string(),
        time: &time::iso_seconds(origin.envelope.time_millis),
        account: &source.identity.account,
        region: &source.identity.region,
    };
    match source.framing.event(&record) {
        Ok(Cow::Borrowed(_)) => Ok(None),
        Ok(Cow::Owned(event)) => Ok(Some(Payload::Own(event.into()))),
        Err(error) => Err(Failure::permanent("INVALID_EVENT", error.to_string())),
    }
}

/// Whether a transformed event can stand on another bus: an object with `source` and `detail-type`.
fn is_event(payload: &[u8]) -> bool {
    Tree::parse(payload)
        .is_ok_and(|tree| tree.root().get(b"source").is_some() && tree.root().get(b"detail-type").is_some())
}

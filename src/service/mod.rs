//! What runs by itself for what callers made: schedules fire, replays run, archives age, connections get their tokens.
//!
//! In: what was made. Out: events into the journal, and notes of how far they came. Promises: an event is in the journal
//! before it counts as sent; what was sent again after a crash has the same ids. Leaves to others: routing.

mod connections;
mod replays;
pub mod schedules;

pub use replays::{again, is_of};

use crate::catalog::FILE_ARCHIVES;
use crate::control::Registry;
use crate::deliver::Outlets;
use crate::envelope::{Aim, REPLAY_SOURCE, SourceInfo};
use crate::metrics::{Metrics, labels};
use crate::plan::Identity;
use crate::resources::{Change, Fired, Key, Kind, Record, Resources, Scope};
use crate::source::Stop;
use crate::source::inlet::{Arrival, Inlet, Refused};
use crate::time;
use crate::transform::wrap::{Framing, Head};
use connections::Connections;
use schedules::{Due, Schedules};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often it is looked whether something is due.
const LOOK: Duration = Duration::from_millis(200);
/// How long the journal may take for an event.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often archives are looked at for what is to be sealed, and for what is to go, in looks.
const SEAL: u64 = 25;
const SWEEP: u64 = 300;
/// How long archives that brokers keep are counted at a time.
const COUNTING: Duration = Duration::from_secs(5);
/// What the names of our sources begin with.
const SCHEDULE: &str = "schedule/";

/// What the service works with.
#[derive(Clone)]
pub struct Service {
    /// What callers have made.
    pub registry: Arc<Registry>,
    /// Where events go.
    pub inlet: Inlet,
    /// Where the journal answers.
    pub runtime: tokio::runtime::Handle,
    /// Account and region.
    pub identity: Identity,
    /// Largest event, its envelope included.
    pub event_bytes: usize,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Who asks for tokens.
    pub outlets: Arc<Mutex<Outlets>>,
    /// Whether accounts are known by signatures, and what is one's is nothing to others.
    pub is_signed: bool,
    /// Set when the process drains.
    pub stop: Stop,
}

impl Service {
    /// Runs until the process drains.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn spawn(self) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name("sluice-service".into()).spawn(move || self.run())
    }

    fn run(self) {
        let own = self.clone();
        let tidy = std::thread::Builder::new().name("sluice-tidy".into()).spawn(move || own.tidy());
        let tidy = tidy.inspect_err(|error| tracing::error!("archives are not tidied up: {error}")).ok();
        let (mut schedules, mut replays, mut connections) = (Schedules::default(), Vec::new(), Connections::new());
        while !self.stop.is_set() {
            self.schedules(&mut schedules);
            replays::look(&self, &mut replays);
            connections.look(&self);
            std::thread::park_timeout(LOOK);
        }
        for thread in replays.into_iter().map(|replay| replay.thread).chain(tidy) {
            // A thread that panicked has said so itself; its replay goes on after the next start.
            drop(thread.join());
        }
    }

    /// Seals archives and lets them age, aside from what is to be on time.
    fn tidy(&self) {
        let (mut known, mut looks) = (BTreeMap::new(), 0u64);
        while !self.stop.is_set() {
            let late = time::now() + COUNTING;
            let counted = self.registry.archives().count(|| self.stop.is_set() || time::now() > late);
            if let Err(error) = counted {
                tracing::warn!("what an archive holds is not counted, until somebody asks again: {error}");
            }
            if looks.is_multiple_of(SEAL) {
                let sealed = self.registry.archives().seal(time::wall_millis(), || self.stop.is_set());
                if let Err(error) = sealed {
                    tracing::warn!("an archive's segment stays as it is, and is tried again: {error}");
                }
            }
            if looks.is_multiple_of(SWEEP) {
                self.sweep(&mut known);
            }
            looks += 1;
            std::thread::park_timeout(LOOK);
        }
    }

    /// Fires what is due.
    fn schedules(&self, schedules: &mut Schedules) {
        let (declared, generation) = self.registry.declared();
        let (now, version) = (time::wall_millis(), (self.registry.version(), generation));
        schedules.follow(&self.registry.made(), (&declared, self.registry.home()), now, version);
        let unmarked = schedules.unmarked(&self.registry.made());
        if !unmarked.is_empty() {
            self.note("when schedules have begun", move |_| {
                let change = |(bus, name, mark): (String, String, Option<Fired>)| {
                    (Key::Fired(bus, name), mark.map(Record::Fired))
                };
                unmarked.into_iter().map(change).collect()
            });
        }
        for round in schedules::together(&schedules.due(now)) {
            if !self.fire(schedules, round) {
                break;
            }
        }
        for (rule, count) in schedules.skipped() {
            self.metrics.schedule(&self.metrics.families.schedule_skipped, &rule).inc_by(count);
        }
    }

    /// Sends events of schedules together, and then notes that; whether the journal has them all. What it does not have
    /// stays due, and what comes after it waits.
    fn fire(&self, schedules: &mut Schedules, round: &[Due]) -> bool {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let all = round.iter().map(|due| self.inlet.keep(self.arrival(due), deadline));
        let kept = self.runtime.block_on(futures_util::future::join_all(all));
        let now = time::wall_millis();
        let mut fired = Vec::new();
        for (due, _) in round.iter().zip(&kept).filter(|(_, kept)| kept.is_ok()) {
            schedules.note(due);
            self.metrics.schedule(&self.metrics.families.schedule_fires, &due.place.rule).inc();
            let delay = Duration::from_millis(u64::try_from(now - due.at).unwrap_or(0));
            self.metrics.families.schedule_delay.get_or_create(&labels([])).record(delay, 1);
            fired.push((schedules.mark(&due.place, Some(due.at)), due.clone()));
        }
        self.fired(fired);
        let refused = round.iter().zip(&kept).find_map(|(due, kept)| Some((due, kept.as_ref().err()?)));
        if let Some((due, why)) = refused.filter(|(_, why)| **why != Refused::Draining) {
            let others = kept.iter().filter(|kept| kept.is_err()).count() - 1;
            tracing::warn!(others, "schedule of rule {}: {why}; it is tried again", due.place.rule);
        }
        refused.is_none()
    }

    /// The event of a schedule.
    fn arrival(&self, Due { place, at }: &Due) -> Arrival {
        let schedules::Place { scope, bus, rule, .. } = place;
        let arn = scope.rule_arn(bus, rule);
        let id = schedules::event_id(&arn, *at);
        let head = Head {
            id: &id,
            detail_type: "Scheduled Event",
            source: "aws.events",
            account: &scope.account,
            time: &time::iso_seconds(*at),
            region: &scope.region,
        };
        let event = head.event(&[&arn], b"{}");
        let bus = Resources::key(self.registry.home(), scope, bus);
        let info = only_for(rule, &bus, &self.identity, self.event_bytes);
        Arrival { info: Arc::new(info), id: id.into(), event, trace: None }
    }

    /// Notes that schedules have fired, those of files by their marks.
    fn fired(&self, fired: Vec<(Option<Fired>, Due)>) {
        if fired.is_empty() {
            return;
        }
        self.note("that schedules have fired, so they may fire again after a restart", move |made| {
            let change = |(mark, Due { place, at }): (Option<Fired>, Due)| {
                if let Some(mark) = mark {
                    return Some((Key::Fired(place.bus, place.rule), Some(Record::Fired(mark))));
                }
                let mut rule = made.rule(&place.scope, &place.bus, &place.rule)?.clone();
                rule.fired = Some(at);
                Some((Key::Rule(place.scope, place.bus, place.rule), Some(Record::Rule(rule))))
            };
            fired.into_iter().filter_map(change).collect()
        });
    }

    fn note(&self, what: &str, note: impl FnOnce(&Resources) -> Vec<Change> + Send + 'static) {
        if let Err(why) = self.registry.note(note) {
            tracing::warn!("it is not written down {what}: {why}");
        }
    }

    fn info(&self, name: String, bus: &str, aim: Aim) -> SourceInfo {
        info((&name, bus, aim), &self.identity, self.event_bytes)
    }

    /// Removes what archives do not keep any longer, and what those held that were deleted since the last time. What
    /// no archive is known to have held stays where it is.
    fn sweep(&self, known: &mut BTreeMap<String, i64>) {
        let mut live: BTreeMap<String, i64> = self
            .registry
            .made()
            .all(Kind::Archive)
            .map(|(scope, name, item)| (item.folder(scope, name), item.days()))
            .collect();
        live.extend(self.registry.declared().0.archives().map(|archive| (archive.folder(), archive.days)));
        let archives = self.registry.archives();
        // A section that is missing from a file for a while is no order to remove events.
        known.retain(|folder, _| !live.contains_key(folder) && !folder.starts_with(FILE_ARCHIVES));
        known.retain(|folder, _| {
            let removed = archives.remove(folder);
            removed.inspect_err(|error| tracing::warn!("a deleted archive stays, and is tried again: {error}")).is_err()
        });
        if let Err(error) = archives.age(&live, time::wall_millis()) {
            tracing::warn!("archives cannot be tidied up: {error}");
        }
        known.extend(live);
        let now = time::wall_millis();
        let forgotten: Vec<Key> = self
            .registry
            .made()
            .all(Kind::Replay)
            .filter(|(.., item)| item.is_forgotten(now))
            .map(|(scope, name, _)| Key::Item(Kind::Replay, scope.clone(), name.to_owned()))
            .collect();
        if !forgotten.is_empty() {
            let removed = self.registry.note(move |_| forgotten.into_iter().map(|key| (key, None)).collect());
            if let Err(why) = removed {
                tracing::warn!("old replays cannot be removed: {why}");
            }
        }
    }
}

fn info((name, bus, aim): (&str, &str, Aim), identity: &Identity, event_bytes: usize) -> SourceInfo {
    SourceInfo {
        name: name.into(),
        bus: bus.into(),
        framing: Framing::EventBridge,
        on_invalid: crate::catalog::OnInvalid::DeadLetter,
        dead_letter: None,
        event_bytes,
        identity: identity.clone(),
        aim,
    }
}

/// The source of events that one rule of a bus is for, and no other sees.
pub fn only_for(rule: &str, bus: &str, identity: &Identity, event_bytes: usize) -> SourceInfo {
    info((&format!("{SCHEDULE}{rule}"), bus, Aim::Fired(rule.to_owned())), identity, event_bytes)
}

/// The source of an event of ours that the journal has from before; `None` where it is none of ours.
pub fn known(
    made: &Resources,
    (name, bus): (&str, &str),
    identity: &Identity,
    event_bytes: usize,
) -> Option<SourceInfo> {
    let aim = match (name.strip_prefix(SCHEDULE), name.strip_prefix(REPLAY_SOURCE)) {
        (Some(rule), _) => Aim::Fired(rule.to_owned()),
        (_, Some(replay)) => replays::aim(made, replay),
        _ => return None,
    };
    Some(info((name, bus, aim), identity, event_bytes))
}

/// The name of a replay's source, which tells the replay.
fn replay_source(scope: &Scope, name: &str) -> String {
    format!("{REPLAY_SOURCE}{}/{}/{name}", scope.account, scope.region)
}

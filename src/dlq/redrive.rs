//! The dead letters of the running process: it alone marks and removes while it runs, for it alone appends.
//!
//! A redrive is a job with a thread of its own: it keeps a bounded number of letters under way and marks each as gone
//! when it is settled again. A job that the process's end cuts short leaves the others where they are.

use super::files::Place;
use super::topic::Topic;
use super::{Counting, Files, Filter, Letter, Newest, Summary, purge};
use crate::ack::{OffsetTracker, Receipt, Report, Run};
use crate::catalog::{KafkaTarget, OnInvalid, TargetKind};
use crate::credit::{Credit, Window};
use crate::deliver::dispatcher::{Again, group_folder, letters_folder};
use crate::deliver::{Outlets, Payload, RuleName};
use crate::envelope::{Aim, Batch, DeliveryId, Envelope, Lanes, OpenRun, SourceInfo};
use crate::event::Scanner;
use crate::plan::Identity;
use crate::time;
use crate::transform::Context;
use crate::transform::wrap::Framing;
use crate::worker::{Route, key};
use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What one job may have under way.
const WINDOW: Window = Window { events: 256, bytes: 16 << 20 };
/// Jobs at once; the progress of as many that have ended is kept.
const JOBS: usize = 16;
/// How often a job that waits looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(100);

/// What the desk works with.
pub struct Parts {
    /// The data directory.
    pub data_dir: PathBuf,
    /// What is in effect.
    pub routes: Arc<ArcSwap<Route>>,
    /// The sinks, whose files end where letters are removed.
    pub outlets: Arc<Mutex<Outlets>>,
    /// Sources that frame records themselves, by name.
    pub sources: HashMap<String, Arc<SourceInfo>>,
    /// Account and region of wrapped records.
    pub identity: Identity,
    /// Largest event.
    pub event_bytes: usize,
}

/// Where dead letters are asked for.
pub struct Desk {
    parts: Parts,
    /// None when the process drains.
    lanes: Mutex<Option<Lanes>>,
    /// Letters under way, so that no two jobs send the same one; a topic as a whole.
    under_way: Mutex<HashSet<(PathBuf, u64)>>,
    jobs: Mutex<BTreeMap<u64, Progress>>,
}

/// How far a redrive has come.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Its number.
    pub job: u64,
    /// Letters sent back so far.
    pub sent: u64,
    /// Those of them that are settled: delivered, or dead letters anew.
    pub settled: u64,
    /// Letters that could not be sent back and stay.
    pub stay: u64,
    /// Why the last one of them could not.
    pub why: Option<String>,
    /// Settled letters of a topic that show again, for others before them stay.
    pub shown_again: u64,
    /// Whether it has ended.
    pub done: bool,
    /// Why it ended early.
    pub error: Option<String>,
}

enum Queue {
    Files(Files),
    Topic(Box<KafkaTarget>),
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    /// A desk; `parts` is what the process runs on, `lanes` lead to its workers.
    pub fn new(parts: Parts, lanes: Lanes) -> Arc<Self> {
        Arc::new(Self { parts, lanes: Mutex::new(Some(lanes)), under_way: Mutex::default(), jobs: Mutex::default() })
    }

    /// Ends all jobs: the process drains.
    pub fn close(&self) {
        *held(&self.lanes) = None;
    }

    /// The data directory of this process, if `folder` is another one.
    pub fn is_other(&self, folder: &str) -> Option<String> {
        let own = self.parts.data_dir.canonicalize().unwrap_or_else(|_| self.parts.data_dir.clone());
        (own != Path::new(folder)).then(|| own.display().to_string())
    }

    fn queue(&self, name: Option<&str>) -> Result<Queue, String> {
        let Some(name) = name else { return Ok(Queue::Files(Files::defaults(letters_folder(&self.parts.data_dir)))) };
        let route = self.parts.routes.load();
        let target = route.plan.targets.iter().find(|target| target.name == name);
        match target.map(|target| &target.kind) {
            Some(TargetKind::Kafka(kafka)) => Ok(Queue::Topic(Box::new(kafka.clone()))),
            Some(TargetKind::Log { group }) => {
                Ok(Queue::Files(Files::group(group_folder(&self.parts.data_dir, group))))
            }
            Some(_) => {
                Err(format!("{name} is neither a Kafka topic nor a log group: letters in it cannot be read back"))
            }
            None => Err(format!("there is no target {name}")),
        }
    }

    /// Counts letters by their fate.
    ///
    /// # Errors
    /// What cannot be read, and why.
    pub fn summary(&self, queue: Option<&str>, filter: &Filter) -> Result<Summary, String> {
        match self.queue(queue)? {
            Queue::Files(files) => super::summary(&files, filter).map_err(|error| error.to_string()),
            Queue::Topic(target) => {
                let mut counting = Counting::default();
                let unreadable = Topic::open(&target)?.each(&mut |_, _, letter| {
                    letter.iter().filter(|letter| filter.fits(letter)).for_each(|letter| counting.add(letter));
                    true
                })?;
                Ok(counting.summary(unreadable))
            }
        }
    }

    /// The newest letters, newest last.
    ///
    /// # Errors
    /// What cannot be read, and why.
    pub fn newest(&self, queue: Option<&str>, filter: &Filter, limit: usize) -> Result<Vec<Letter>, String> {
        match self.queue(queue)? {
            Queue::Files(files) => super::newest(&files, filter, limit).map_err(|error| error.to_string()),
            Queue::Topic(target) => {
                let mut last = Newest::new(limit);
                Topic::open(&target)?.each(&mut |_, _, letter| {
                    letter.into_iter().filter(|letter| filter.fits(letter)).for_each(|letter| last.add(letter));
                    true
                })?;
                Ok(last.letters())
            }
        }
    }

    /// Removes letters; returns how many there are, with `dry_run` without removing them.
    ///
    /// # Errors
    /// What cannot be removed, and why.
    pub fn purge(&self, queue: Option<&str>, filter: &Filter, dry_run: bool) -> Result<u64, String> {
        match self.queue(queue)? {
            Queue::Files(files) => {
                let roll = |folder: &Path| held(&self.parts.outlets).roll(folder);
                purge(&files, filter, dry_run, roll).map_err(|error| error.to_string())
            }
            Queue::Topic(target) => Err(format!(
                "records cannot be picked out of topic {}; redrive them, let its retention remove them, or delete \
                 everything before an offset with kafka-delete-records.sh",
                target.topic
            )),
        }
    }

    /// How far a redrive has come.
    pub fn progress(&self, job: u64) -> Option<Progress> {
        held(&self.jobs).get(&job).cloned()
    }

    /// Starts a redrive, and returns how it stands.
    ///
    /// # Errors
    /// Why it cannot start.
    pub fn redrive(self: &Arc<Self>, queue: Option<&str>, filter: Filter) -> Result<Progress, String> {
        let queue = self.queue(queue)?;
        let progress = {
            let mut jobs = held(&self.jobs);
            if jobs.values().filter(|job| !job.done).count() >= JOBS {
                return Err(format!("{JOBS} redrives are under way; wait for one of them"));
            }
            if jobs.len() >= 2 * JOBS
                && let Some(old) = jobs.values().find(|job| job.done).map(|job| job.job)
            {
                jobs.remove(&old);
            }
            let number = jobs.keys().next_back().map_or(1, |last| last + 1);
            jobs.entry(number).or_insert(Progress { job: number, ..Progress::default() }).clone()
        };
        let (desk, number) = (Arc::clone(self), progress.job);
        let run = move || {
            let mut job = Job::new(&desk, number);
            let ended = match queue {
                Queue::Files(files) => job.files(&files, &filter),
                Queue::Topic(target) => job.topic(&target, &filter),
            };
            desk.note(number, |progress| (progress.done, progress.error) = (true, ended.err()));
        };
        let spawned = std::thread::Builder::new().name("sluice-redrive".into()).spawn(run);
        spawned.map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(progress)
    }

    fn note(&self, job: u64, change: impl FnOnce(&mut Progress)) {
        if let Some(progress) = held(&self.jobs).get_mut(&job) {
            change(progress);
        }
    }

    fn draining(&self) -> bool {
        held(&self.lanes).is_none()
    }

    /// Sends a letter to where it was meant for; `receipt` completes when it is settled again.
    fn send(&self, letter: &Letter, receipt: Receipt, scanner: &mut Scanner) -> Result<(), String> {
        let route = self.parts.routes.load_full();
        let kind = |name: &str| route.plan.targets.iter().find(|target| target.name == name).map(|target| &target.kind);
        match (&letter.rule_arn, kind(letter.target())) {
            (None, _) if letter.target() != letter.source && route.plan.bus(letter.target()).is_some() => {
                self.offer(letter, letter.target(), receipt)
            }
            (None, _) => self.offer(letter, &letter.bus, receipt),
            (Some(_), Some(TargetKind::Bus(bus))) => self.offer(letter, bus, receipt),
            (Some(arn), _) => {
                let (payload, key) = form(&route, letter, arn, scanner)?;
                route.dispatcher.again(Again {
                    id: letter.delivery_id().ok_or("it has no delivery id")?,
                    target: letter.target().to_owned(),
                    bus: letter.bus.as_str().into(),
                    rule: letter.rule().map(|name| RuleName { name: name.into(), arn: arn.as_str().into() }),
                    payload,
                    key,
                    trace: letter.trace.as_deref().map(Into::into),
                    source: letter.source.as_str().into(),
                    position: letter.record(),
                    pending: receipt.pending(),
                })?;
                receipt.close();
                Ok(())
            }
        }
    }

    /// Gives a bus the event as its source did, and so with the same delivery ids.
    fn offer(&self, letter: &Letter, bus: &str, receipt: Receipt) -> Result<(), String> {
        let Some(lanes) = held(&self.lanes).clone() else { return Err("the process drains".into()) };
        if self.parts.routes.load().plan.bus(bus).is_none() {
            return Err(format!("bus {bus} does not exist"));
        }
        let known =
            self.parts.sources.get(&letter.source).filter(|info| *info.bus == *bus && letter.rule_arn.is_none());
        let source = known.map(Arc::clone).unwrap_or_else(|| {
            Arc::new(SourceInfo {
                name: letter.source.as_str().into(),
                bus: bus.into(),
                framing: Framing::EventBridge,
                on_invalid: OnInvalid::DeadLetter,
                dead_letter: None,
                event_bytes: self.parts.event_bytes,
                identity: self.parts.identity.clone(),
                aim: Aim::default(),
            })
        });
        let (mut bytes, key, position) = (letter.payload().unwrap_or_default(), letter.key(), letter.record());
        let payload = 0..bytes.len();
        let key = key.map(|key| {
            bytes.extend_from_slice(&key);
            payload.end..bytes.len()
        });
        let envelope = Envelope {
            payload,
            key,
            headers: Vec::new(),
            trace: letter.trace.as_deref().map(Into::into),
            run: 0,
            offset: position.offset,
            time_millis: time::parse_iso(&letter.time).unwrap_or_else(time::wall_millis),
        };
        let lane = usize::try_from(position.offset).unwrap_or_default() % lanes.count();
        let run = OpenRun { topic: position.topic, partition: position.partition, receipt };
        let batch =
            Batch { source, bytes: Arc::new(bytes), envelopes: vec![envelope], runs: vec![run], read_at: time::now() };
        if lanes.send(lane, batch) { Ok(()) } else { Err("the process drains".into()) }
    }
}

/// The letter's event in its target's form, and its key. What was buried before it had them gets them from the rule as it
/// is now.
fn form(
    route: &Route,
    letter: &Letter,
    arn: &str,
    scanner: &mut Scanner,
) -> Result<(Payload, Option<Payload>), String> {
    let own = |bytes: Vec<u8>| Payload::Own(bytes.into());
    let event = letter.payload().ok_or("its event cannot be read")?;
    let key_of_record = letter.key().map(own);
    let Some(nth) = letter.untransformed.as_ref().and_then(|nth| nth.parse::<usize>().ok()) else {
        return Ok((own(event), key_of_record));
    };
    let rule = route.plan.buses.iter().flat_map(|bus| &bus.rules).find(|rule| *rule.arn == *arn);
    let rule =
        rule.ok_or_else(|| format!("rule {} is not in effect, and the event has no form without it", rule_name(arn)))?;
    let is_it =
        |target: &&crate::plan::PlannedTarget| route.plan.targets[target.target.0 as usize].name == letter.target();
    let target = rule.targets.get(nth).filter(is_it).or_else(|| rule.targets.iter().find(is_it));
    let target = target.ok_or_else(|| format!("rule {} has no target {} any more", rule.name, letter.target()))?;
    let ingestion_time = &time::iso_millis(time::wall_millis());
    let context = Context { rule_name: &rule.name, rule_arn: &rule.arn, ingestion_time };
    let rendered = target.input.render(&event, &context, scanner).map_err(|error| error.to_string())?.into_owned();
    let declared = &route.plan.targets[target.target.0 as usize];
    let key = key(declared, &event, key_of_record, scanner).map_err(|failure| failure.message)?;
    Ok((own(rendered), key))
}

fn rule_name(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or(arn)
}

/// One redrive under way.
struct Job<'d> {
    desk: &'d Desk,
    number: u64,
    report: Arc<Report>,
    credit: Arc<Credit>,
    scanner: Scanner,
}

impl<'d> Job<'d> {
    fn new(desk: &'d Desk, number: u64) -> Self {
        Self {
            desk,
            number,
            report: Arc::default(),
            credit: Arc::new(Credit::new(WINDOW)),
            scanner: Scanner::default(),
        }
    }

    fn note(&self, change: impl FnOnce(&mut Progress)) {
        self.desk.note(self.number, change);
    }

    /// Sends a letter; says whether it is under way.
    fn send(&mut self, letter: &Letter, run: Run) -> bool {
        let receipt = Receipt::open(run, &self.report, &self.credit);
        match self.desk.send(letter, receipt, &mut self.scanner) {
            Ok(()) => {
                self.note(|progress| progress.sent += 1);
                true
            }
            Err(why) => {
                // Its receipt never completes; what it holds of the window is given back here.
                self.credit.give(run.events, run.bytes);
                self.note(|progress| (progress.stay, progress.why) = (progress.stay + 1, Some(why)));
                false
            }
        }
    }

    /// Takes what has settled, waiting for it when `all` is wanted or nothing more may be under way. `None` when the
    /// process drains.
    fn settled(&self, all: bool) -> Option<Vec<Run>> {
        loop {
            let wait = self.credit.events() > 0 && (all || self.credit.exhausted());
            let runs = self.report.take(if wait { LOOK } else { Duration::ZERO });
            if self.desk.draining() {
                return None;
            }
            if !runs.is_empty() || !wait {
                return Some(runs);
            }
        }
    }

    fn files(&mut self, files: &Files, filter: &Filter) -> Result<(), String> {
        let mut open: HashMap<u64, (Place, DeliveryId)> = HashMap::new();
        let (mut next, mut trouble) = (0, Ok(()));
        let read = files.each(&mut |path, at, letter| {
            let claim = (path.to_path_buf(), at);
            let Some(id) = letter.delivery_id().filter(|_| filter.fits(&letter)) else { return true };
            if !held(&self.desk.under_way).insert(claim.clone()) {
                return true;
            }
            let bytes = letter.event.as_ref().map_or(0, String::len) as u64;
            let run = Run { partition: 0, generation: 0, sequence: next, after: 0, events: 1, bytes };
            // Before it is sent: it may be settled at once.
            open.insert(next, ((path.clone(), at), id));
            if !self.send(&letter, run) {
                open.remove(&next);
                held(&self.desk.under_way).remove(&claim);
            }
            next += 1;
            // Each mark is synced, so several share one.
            if next % 64 == 0 || self.credit.exhausted() {
                trouble = self.mark(files, &mut open, false);
            }
            trouble.is_ok() && !self.desk.draining()
        });
        while trouble.is_ok() && !open.is_empty() && !self.desk.draining() {
            trouble = self.mark(files, &mut open, true);
        }
        for ((path, at), _) in open.into_values() {
            held(&self.desk.under_way).remove(&(path.to_path_buf(), at));
        }
        read.map_err(|error| error.to_string())?;
        trouble?;
        if self.desk.draining() {
            return Err("the process drains; what is not settled is still there".into());
        }
        let roll = |folder: &Path| held(&self.desk.parts.outlets).roll(folder);
        files.sweep(false, roll).map_err(|error| error.to_string())
    }

    /// Marks what has settled as gone.
    fn mark(&self, files: &Files, open: &mut HashMap<u64, (Place, DeliveryId)>, all: bool) -> Result<(), String> {
        let runs = self.settled(all).unwrap_or_default();
        let gone: Vec<_> = runs.iter().filter_map(|run| open.remove(&run.sequence)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let marked = files.gone(&gone);
        let mut under_way = held(&self.desk.under_way);
        for ((path, at), _) in &gone {
            under_way.remove(&(path.to_path_buf(), *at));
        }
        drop(under_way);
        self.note(|progress| progress.settled += gone.len() as u64);
        marked.map_err(|error| format!("what was sent cannot be marked as gone, and will show again: {error}"))
    }

    fn topic(&mut self, target: &KafkaTarget, filter: &Filter) -> Result<(), String> {
        let claim = (PathBuf::from(&target.topic), u64::MAX);
        if !held(&self.desk.under_way).insert(claim.clone()) {
            return Err(format!("a redrive of topic {} is under way", target.topic));
        }
        let done = self.topic_alone(target, filter);
        held(&self.desk.under_way).remove(&claim);
        done
    }

    fn topic_alone(&mut self, target: &KafkaTarget, filter: &Filter) -> Result<(), String> {
        let topic = Topic::open(target)?;
        let mut tracker = OffsetTracker::default();
        let mut numbers: BTreeMap<i32, u32> = BTreeMap::new();
        let mut trouble = Ok(());
        topic.each(&mut |partition, offset, letter| {
            let number = *numbers.entry(partition).or_insert_with(|| {
                let number = tracker.add();
                tracker.assign(number);
                number
            });
            let bytes = letter.as_ref().and_then(|letter| letter.event.as_ref()).map_or(0, String::len) as u64;
            // What is not selected stays open, and holds what comes after it.
            let run = tracker.open(number, offset + 1, 1, bytes);
            if let Some(letter) = letter.filter(|letter| filter.fits(letter)) {
                self.send(&letter, run);
            }
            trouble = self.commit(&topic, &mut tracker, &numbers, false);
            trouble.is_ok() && !self.desk.draining()
        })?;
        while trouble.is_ok() && self.credit.events() > 0 && !self.desk.draining() {
            trouble = self.commit(&topic, &mut tracker, &numbers, true);
        }
        // What completed while the credit went to nothing.
        trouble = trouble.and_then(|()| self.commit(&topic, &mut tracker, &numbers, false));
        trouble?;
        let open: u64 = numbers.values().map(|&number| tracker.waiting(number)).sum();
        self.note(|progress| progress.shown_again = open);
        if self.desk.draining() { Err("the process drains; what is not settled is still there".into()) } else { Ok(()) }
    }

    /// Commits the offsets before which everything is settled.
    fn commit(
        &self,
        topic: &Topic,
        tracker: &mut OffsetTracker,
        numbers: &BTreeMap<i32, u32>,
        all: bool,
    ) -> Result<(), String> {
        let runs = self.settled(all).unwrap_or_default();
        for run in &runs {
            tracker.settle(run);
        }
        self.note(|progress| progress.settled += runs.len() as u64);
        let committable: BTreeMap<u32, i64> = tracker.committable().into_iter().collect();
        let offset = |(&partition, number): (&i32, &u32)| Some((partition, *committable.get(number)?));
        let offsets: Vec<(i32, i64)> = numbers.iter().filter_map(offset).collect();
        if offsets.is_empty() { Ok(()) } else { topic.gone(&offsets) }
    }
}

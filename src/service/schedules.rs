//! When schedules are due. Time comes in as an argument.

use crate::catalog::{Catalog, DEFAULT_BUS};
use crate::resources::{Fired, Resources, Scope};
use crate::schedule::Schedule;
use siphasher::sip128::{Hasher128, SipHasher13};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::Hasher;

/// How far back it is looked for due times that were missed: the first of these that finds enough counts.
const BACK_MINUTES: [i64; 6] = [1, 60, 24 * 60, 31 * 24 * 60, 366 * 24 * 60, 5 * 366 * 24 * 60];
/// How long a due time is on time.
const ON_TIME: i64 = 60_000;
/// How many missed due times of a rule of a caller are caught up.
const CATCH_UP: u32 = 1;
/// Due times that share a sync of the journal, and then one of the store.
const TOGETHER: usize = 1024;
/// Skipped due times that are counted one by one in a look; of more, each rule's count as one.
const COUNTED: usize = 100_000;

/// A rule with a schedule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Its account and region.
    pub scope: Scope,
    /// Its bus.
    pub bus: String,
    /// Its name.
    pub rule: String,
    /// Whether it stands in a file.
    pub of_files: bool,
}

/// A due time of a rule's schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The rule.
    pub place: Place,
    /// Milliseconds since the epoch.
    pub at: i64,
}

/// All schedules, and when they are due next.
#[derive(Default)]
pub struct Schedules {
    known: BTreeMap<Place, Known>,
    version: Option<(u64, u64)>,
    skipped: Skipped,
}

/// Due times that were left out, by rule, until somebody asks.
#[derive(Default)]
struct Skipped {
    rules: BTreeMap<String, u64>,
    counted: usize,
}

impl Skipped {
    /// Counts the due times of a rule from the next one on, up to and without another one.
    fn count(&mut self, rule: &str, known: &Known, till: i64) {
        let mut next = known.next.filter(|at| *at < till);
        let mut count = 0;
        while let Some(at) = next {
            count += 1;
            self.counted += 1;
            next = known.schedule.next(known.since, at).filter(|at| *at < till && self.counted < COUNTED);
        }
        if count > 0 {
            *self.rules.entry(rule.to_owned()).or_default() += count;
        }
    }
}

struct Known {
    schedule: Schedule,
    since: i64,
    next: Option<i64>,
    catch_up: u32,
}

impl Schedules {
    /// Takes over what was made and what files declare, if `version` says that something has changed. A schedule of a
    /// file counts from `now` on where nothing is known of it.
    pub fn follow(&mut self, made: &Resources, (declared, home): (&Catalog, &Scope), now: i64, version: (u64, u64)) {
        if self.version == Some(version) {
            return;
        }
        self.version = Some(version);
        let mut old = std::mem::take(&mut self.known);
        let mut put = |place: Place, schedule: Schedule, (since, fired): (i64, Option<i64>), catch_up: u32| {
            let same = old.remove(&place).filter(|old| old.schedule == schedule && old.since == since);
            let fired = fired.filter(|fired| *fired >= since);
            let next = same.map_or_else(|| schedule.next(since, fired.unwrap_or(since)), |same| same.next);
            self.known.insert(place, Known { schedule, since, next, catch_up });
        };
        for (scope, bus, name, rule) in made.all_rules() {
            let text = rule.setting("ScheduleExpression").filter(|_| bus == DEFAULT_BUS && rule.is_enabled());
            let Some(schedule) = text.and_then(|text| Schedule::parse(text).ok()) else { continue };
            if declared.timed_rule(bus, name).is_some() {
                continue;
            }
            let (scope, bus, rule_name) = (scope.clone(), bus.to_owned(), name.to_owned());
            let place = Place { scope, bus, rule: rule_name, of_files: false };
            put(place, schedule, (rule.since, rule.fired), CATCH_UP);
        }
        for timed in declared.timed().filter(|timed| timed.is_enabled) {
            let mark = made.fired(&timed.bus, &timed.name);
            let mark = mark.filter(|mark| mark.expression == timed.schedule.to_string());
            let place = Place { scope: home.clone(), bus: timed.bus.clone(), rule: timed.name.clone(), of_files: true };
            put(place, timed.schedule.clone(), mark.map_or((now, None), |mark| (mark.since, mark.at)), timed.catch_up);
        }
    }

    /// How far a schedule of a file has come, to be written down; nothing where it is none.
    pub fn mark(&self, place: &Place, at: Option<i64>) -> Option<Fired> {
        let known = self.known.get(place).filter(|_| place.of_files)?;
        Some(Fired { expression: known.schedule.to_string(), since: known.since, at })
    }

    /// Marks that are missing, and those that no schedule has any more, by bus and name.
    pub fn unmarked(&self, made: &Resources) -> Vec<(String, String, Option<Fired>)> {
        let of_files = self.known.keys().filter(|place| place.of_files);
        let missing = of_files.filter_map(|place| {
            let mark = self.mark(place, None)?;
            let there = made.fired(&place.bus, &place.rule);
            let same = there.is_some_and(|there| (&there.expression, there.since) == (&mark.expression, mark.since));
            (!same).then(|| (place.bus.clone(), place.rule.clone(), Some(mark)))
        });
        let there: BTreeSet<(&str, &str)> =
            self.known.keys().filter(|place| place.of_files).map(|place| (&*place.bus, &*place.rule)).collect();
        let gone = made.all_fired().filter(move |((bus, rule), _)| !there.contains(&(bus.as_str(), rule.as_str())));
        missing.chain(gone.map(|((bus, rule), _)| (bus.clone(), rule.clone(), None))).collect()
    }

    /// What is due, the earliest first: of due times that were missed the last ones, as many as are caught up. Each
    /// stays due until it is [noted](Self::note) or its rule changes.
    pub fn due(&mut self, now: i64) -> Vec<Due> {
        let mut due = Vec::new();
        for (place, known) in &mut self.known {
            let Some(first) = known.next.filter(|at| *at <= now) else { continue };
            let last = known.last_due(first, now);
            let is_missed = |at: &&i64| known.catch_up == 0 && **at + ON_TIME <= now;
            let on_time: Vec<i64> = last.iter().filter(|at| !is_missed(at)).copied().collect();
            if let Some(last) = last.back().filter(|_| on_time.is_empty()) {
                // Nothing of it is caught up.
                self.skipped.count(&place.rule, known, *last + 1);
                known.next = known.schedule.next(known.since, *last);
            }
            due.extend(on_time.into_iter().map(|at| Due { place: place.clone(), at }));
        }
        due.sort_by_key(|due| due.at);
        due
    }

    /// What was due has been sent; due times before it are not.
    pub fn note(&mut self, due: &Due) {
        if let Some(known) = self.known.get_mut(&due.place) {
            self.skipped.count(&due.place.rule, known, due.at);
            known.next = known.schedule.next(known.since, due.at);
        }
    }

    /// How many due times were skipped since the last time this was asked, by rule.
    pub fn skipped(&mut self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.skipped).rules
    }
}

/// What is due in rounds of what is sent together. No round has two due times of one rule: the later one could overtake.
pub fn together(mut due: &[Due]) -> impl Iterator<Item = &[Due]> {
    std::iter::from_fn(move || {
        let mut rules = BTreeSet::new();
        let count = due.iter().take(TOGETHER).take_while(|due| rules.insert(&due.place)).count();
        let (round, rest) = due.split_at(count);
        due = rest;
        (count > 0).then_some(round)
    })
}

impl Known {
    /// The last due times up to now, of which `first` is one.
    fn last_due(&self, first: i64, now: i64) -> VecDeque<i64> {
        let most = self.catch_up.max(1) as usize;
        let mut last = VecDeque::new();
        for minutes in BACK_MINUTES {
            let from = (first - 1).max(now - minutes * 60_000 - 1);
            last.clear();
            let mut next = self.schedule.next(self.since, from).filter(|at| *at <= now);
            while let Some(at) = next {
                last.push_back(at);
                if last.len() > most {
                    last.pop_front();
                }
                next = self.schedule.next(self.since, at).filter(|at| *at <= now);
            }
            if last.len() == most || from == first - 1 {
                break;
            }
        }
        if last.is_empty() {
            last.push_back(first);
        }
        last
    }
}

/// The id of the event of a due time: always the same one.
pub fn event_id(arn: &str, at: i64) -> String {
    derived_id(&[arn, &at.to_string()])
}

/// An id that is made of texts, in the form of a UUID (version 8: custom).
pub(super) fn derived_id(parts: &[&str]) -> String {
    let mut hasher = SipHasher13::new_with_keys(0x736c_7569_6365, 3);
    for part in parts {
        hasher.write_usize(part.len());
        hasher.write(part.as_bytes());
    }
    uuid::Builder::from_custom_bytes(hasher.finish128().as_bytes()).into_uuid().to_string()
}

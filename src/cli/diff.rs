//! `sluice diff`: what two sets of rules match of recorded events.
//!
//! In: two sets of rules, files of events. Out: per rule the events that it kept, gained and lost, and what else of it
//! changed. Promises: both sets decide with the code that routes events. Leaves to others: the targets' own settings.

use super::rules::Form;
use super::{output, recorded};
use crate::app::{Exit, Failed};
use crate::catalog::{Catalog, Rule, RuleState, RuleTarget};
use crate::config::{self, Outside, Problems};
use crate::event::{Kind, Tree};
use crate::matcher::Judge;
use crate::pattern::Pattern;
use crate::plan::{BusPlan, Identity, Plan, compile};
use crate::time;
use console::style;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Characters of an event that are shown.
const SHOWN: usize = 120;

/// Compare what two sets of rules match of recorded events
#[derive(clap::Args)]
pub struct Diff {
    /// File or folder with the old rules
    old: PathBuf,
    /// File or folder with the new rules
    new: PathBuf,
    /// Recorded events, as JSON lines, plain, .gz or .zst, or - for standard input; may be repeated
    #[arg(long, value_name = "FILE", required = true)]
    events: Vec<PathBuf>,
    /// Only events whose `time` is this or later, as 2024-01-31T09:00:00Z
    #[arg(long, value_name = "TIME", value_parser = instant)]
    from: Option<i64>,
    /// Only events whose `time` is before this
    #[arg(long, value_name = "TIME", value_parser = instant)]
    to: Option<i64>,
    /// The bus that the events arrive on; needed where several have rules
    #[arg(long)]
    bus: Option<String>,
    /// How many of the events that a rule gained, and that it lost, to show
    #[arg(long, value_name = "N", default_value_t = 3)]
    max_samples: usize,
    /// Leave with 1 when a rule lost events, or when any lost or gained some
    #[arg(long, value_enum)]
    fail_on: Option<FailOn>,
    /// How to print it
    #[arg(short, long, default_value = "text")]
    output: Form,
}

/// Milliseconds since the epoch.
fn instant(text: &str) -> Result<i64, String> {
    time::parse_iso(text).ok_or_else(|| format!("`{text}` is no time; write it as 2024-01-31T09:00:00Z"))
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum FailOn {
    /// A rule lost events
    Lost,
    /// A rule lost or gained events
    Any,
}

/// One set of rules.
struct Side {
    catalog: Catalog,
    plan: Plan,
}

/// What became of a rule, and of its events.
#[derive(Default)]
struct Change {
    status: Status,
    /// What is otherwise in the new rules, in words.
    changes: Vec<String>,
    kept: u64,
    gained: Events,
    lost: Events,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Status {
    #[default]
    Same,
    Changed,
    New,
    Gone,
}

/// Events, the first few of them whole.
#[derive(Default)]
struct Events {
    count: u64,
    samples: Vec<Sample>,
}

struct Sample {
    file: String,
    line: u64,
    id: Option<String>,
    event: String,
}

/// What became of the events.
#[derive(Default)]
struct Totals {
    events: u64,
    /// That some rule matched and none matches any more.
    unmatched: u64,
    /// That no rule matched and some does now.
    newly: u64,
    /// Left out: not in the window of --from and --to.
    outside: u64,
    /// Left out: in no window, having no `time` that can be read.
    untimed: u64,
}

impl Diff {
    pub fn run(self) -> Result<(), Failed> {
        if let (Some(from), Some(to)) = (self.from, self.to)
            && from >= to
        {
            return Err(Failed::new(Exit::Usage, "no time lies between --from and --to: --from is not before --to"));
        }
        let (old, new) = (Side::load(&self.old)?, Side::load(&self.new)?);
        let bus = self.bus(&old, &new)?;
        let mut rules = changes(&old.catalog, &new.catalog, &bus);
        let totals = self.compare(old.bus(&bus), new.bus(&bus), &mut rules)?;
        let out = &mut std::io::stdout().lock();
        match self.output {
            Form::Text => print(out, &rules, &totals),
            Form::Json => writeln!(out, "{:#}", as_json(&bus, &rules, &totals)),
        }
        .map_err(output)?;
        let lost = rules.values().any(|rule| rule.lost.count > 0);
        let gained = rules.values().any(|rule| rule.gained.count > 0);
        match self.fail_on {
            Some(on) if lost || (on == FailOn::Any && gained) => Err(Failed::new(Exit::No, "")),
            _ => Ok(()),
        }
    }

    /// The bus that was asked for, or the only one with rules.
    fn bus(&self, old: &Side, new: &Side) -> Result<String, Failed> {
        let rules = old.catalog.rules().chain(new.catalog.rules());
        let buses: BTreeSet<&str> = rules.map(|rule| rule.bus.as_str()).collect();
        let all = || buses.iter().copied().collect::<Vec<_>>().join(", ");
        match (&self.bus, buses.first()) {
            (_, None) => Err(Failed::new(Exit::Config, "there are no rules in either of the two")),
            (Some(bus), _) if buses.contains(bus.as_str()) => Ok(bus.clone()),
            (Some(bus), _) => {
                Err(Failed::new(Exit::Usage, format!("no rule is on bus {bus}; buses with rules are {}", all())))
            }
            (None, Some(only)) if buses.len() == 1 => Ok((*only).to_owned()),
            (None, _) => {
                Err(Failed::new(Exit::Usage, format!("several buses have rules: name one with --bus: {}", all())))
            }
        }
    }

    /// Puts every event to both sets.
    fn compare(
        &self,
        old: Option<&BusPlan>,
        new: Option<&BusPlan>,
        rules: &mut BTreeMap<String, Change>,
    ) -> Result<Totals, Failed> {
        let mut totals = Totals::default();
        let (mut before, mut after) = (Asked::new(old), Asked::new(new));
        recorded::each(&self.events, |file, line, text| {
            let invalid = |fault: crate::event::Fault| {
                Failed::new(Exit::Config, format!("{}:{line}: the event is not valid: {fault}", file.display()))
            };
            match self.window(text).map_err(invalid)? {
                Window::Inside => {}
                Window::Outside => {
                    totals.outside += 1;
                    return Ok(());
                }
                Window::Untimed => {
                    totals.untimed += 1;
                    return Ok(());
                }
            }
            let was = before.matches(text).map_err(invalid)?;
            let is = after.matches(text).map_err(invalid)?;
            totals.events += 1;
            totals.unmatched += u64::from(!was.is_empty() && is.is_empty());
            totals.newly += u64::from(was.is_empty() && !is.is_empty());
            for name in &was {
                let Some(rule) = rules.get_mut(*name) else { continue };
                match is.contains(name) {
                    true => rule.kept += 1,
                    false => rule.lost.add(self.max_samples, file, line, text),
                }
            }
            for name in is.iter().filter(|name| !was.contains(*name)) {
                let Some(rule) = rules.get_mut(*name) else { continue };
                rule.gained.add(self.max_samples, file, line, text);
            }
            Ok(())
        })?;
        match totals.events {
            0 if totals.outside + totals.untimed == 0 => {
                Err(Failed::new(Exit::Config, "there are no events in the files of --events"))
            }
            0 => {
                let left = left_out(&totals);
                Err(Failed::new(Exit::Config, format!("there are no events between --from and --to: {left}")))
            }
            _ => Ok(totals),
        }
    }

    /// Where an event lies; without --from and --to all do inside.
    fn window(&self, event: &[u8]) -> Result<Window, crate::event::Fault> {
        if self.from.is_none() && self.to.is_none() {
            return Ok(Window::Inside);
        }
        let tree = Tree::parse(event)?;
        let time = tree.root().get(b"time").filter(|time| time.kind() == Kind::String);
        let Some(time) = time.and_then(|time| time::parse_iso(&String::from_utf8_lossy(&time.text()))) else {
            return Ok(Window::Untimed);
        };
        let inside = self.from.is_none_or(|from| time >= from) && self.to.is_none_or(|to| time < to);
        Ok(if inside { Window::Inside } else { Window::Outside })
    }
}

/// Where the time of an event lies.
enum Window {
    Inside,
    Outside,
    Untimed,
}

fn left_out(totals: &Totals) -> String {
    format!("{} at other times and {} without a readable `time` are left out", totals.outside, totals.untimed)
}

impl Side {
    fn load(path: &Path) -> Result<Self, Failed> {
        let invalid = |problems: Problems| Failed::new(Exit::Config, problems.to_string());
        let catalog = config::load(&[path.to_owned()], &Outside::only_rules()).map_err(invalid)?.catalog;
        let plan = compile(&catalog, &Identity::default(), std::process::id().into());
        Ok(Self { catalog, plan })
    }

    /// Nothing where this set does not have the bus.
    fn bus(&self, name: &str) -> Option<&BusPlan> {
        self.plan.bus(name).map(|id| &self.plan.buses[id.0 as usize])
    }
}

/// One set's rules of the bus, and what it takes to put events to them.
struct Asked<'p>(Option<(&'p BusPlan, Judge<'p>)>);

impl<'p> Asked<'p> {
    fn new(bus: Option<&'p BusPlan>) -> Self {
        Self(bus.map(|bus| (bus, Judge::new(&bus.matcher))))
    }

    /// The names of the rules that match.
    fn matches(&mut self, event: &[u8]) -> Result<BTreeSet<&'p str>, crate::event::Fault> {
        let Some((bus, judge)) = &mut self.0 else { return Ok(BTreeSet::new()) };
        Ok(judge.matches(event)?.iter().map(|&n| &*bus.rules[n as usize].name).collect())
    }
}

impl Events {
    fn add(&mut self, most: usize, file: &Path, line: u64, text: &[u8]) {
        self.count += 1;
        if self.samples.len() >= most {
            return;
        }
        let id = Tree::parse(text).ok().and_then(|tree| {
            let id = tree.root().get(b"id")?;
            Some(String::from_utf8_lossy(&id.text()).into_owned())
        });
        let whole = String::from_utf8_lossy(text);
        let mut event: String = whole.chars().take(SHOWN).collect();
        if event.len() < whole.len() {
            event.push_str("...");
        }
        self.samples.push(Sample { file: file.display().to_string(), line, id, event });
    }
}

/// The rules of a bus in either set, and what became of each but for its events.
fn changes(old: &Catalog, new: &Catalog, bus: &str) -> BTreeMap<String, Change> {
    let of = |catalog: &'_ Catalog| -> BTreeSet<String> {
        catalog.rules().filter(|rule| rule.bus == bus).map(|rule| rule.name.clone()).collect()
    };
    let names: BTreeSet<String> = of(old).union(&of(new)).cloned().collect();
    let change = |name: &str| match (old.rule(bus, name), new.rule(bus, name)) {
        (Some(old), Some(new)) => {
            let changes = between(old, new);
            let status = if changes.is_empty() { Status::Same } else { Status::Changed };
            Change { status, changes, ..Change::default() }
        }
        (None, _) => Change { status: Status::New, ..Change::default() },
        (Some(_), None) => Change { status: Status::Gone, ..Change::default() },
    };
    names.into_iter().map(|name| (name.clone(), change(&name))).collect()
}

/// What is otherwise in the new form of a rule, in words.
fn between(old: &Rule, new: &Rule) -> Vec<String> {
    let mut told = Vec::new();
    if !same_pattern(&old.pattern, &new.pattern) {
        told.push("pattern".to_owned());
    }
    if old.state != new.state {
        told.push(format!("state: {} to {}", word(old.state), word(new.state)));
    }
    let (was, is) = (forms(&old.targets), forms(&new.targets));
    let added = is.keys().filter(|name| !was.contains_key(*name)).map(|name| format!("+{name}"));
    let removed = was.keys().filter(|name| !is.contains_key(*name)).map(|name| format!("-{name}"));
    let targets: Vec<String> = added.chain(removed).collect();
    if !targets.is_empty() {
        told.push(format!("targets: {}", targets.join(" ")));
    }
    let formed: Vec<&str> = was
        .iter()
        .filter(|(name, inputs)| is.get(*name).is_some_and(|now| now != *inputs))
        .map(|(name, _)| *name)
        .collect();
    if !formed.is_empty() {
        told.push(format!("input of {}", formed.join(", ")));
    }
    told
}

/// The inputs of each target.
fn forms(targets: &[RuleTarget]) -> BTreeMap<&str, Vec<&RuleTarget>> {
    let mut forms: BTreeMap<&str, Vec<&RuleTarget>> = BTreeMap::new();
    for target in targets {
        forms.entry(&target.target).or_default().push(target);
    }
    forms
}

/// Whether patterns say the same in the same order, however they are written.
fn same_pattern(a: &Pattern, b: &Pattern) -> bool {
    let said = |pattern: &'_ Pattern| -> Vec<Vec<_>> {
        let alternatives = pattern.alternatives.iter();
        alternatives.map(|one| one.conditions.iter().map(|it| (it.path.clone(), it.tests.clone())).collect()).collect()
    };
    said(a) == said(b)
}

fn word(state: RuleState) -> &'static str {
    match state {
        RuleState::Enabled => "enabled",
        RuleState::Disabled => "disabled",
        RuleState::Shadow => "shadow",
    }
}

impl Change {
    fn status(&self) -> &'static str {
        match self.status {
            Status::Same => "same",
            Status::Changed => "changed",
            Status::New => "new",
            Status::Gone => "gone",
        }
    }

    /// Whether there is nothing to say of it.
    fn is_quiet(&self) -> bool {
        self.status == Status::Same && self.gained.count == 0 && self.lost.count == 0
    }
}

fn print(out: &mut dyn Write, rules: &BTreeMap<String, Change>, totals: &Totals) -> io::Result<()> {
    let plural = |count: u64| if count == 1 { "" } else { "s" };
    for (name, rule) in rules.iter().filter(|(_, rule)| !rule.is_quiet()) {
        let status = match (rule.status, rule.changes.is_empty()) {
            // The numbers of its bus compare in another way now.
            (Status::Same, _) => String::new(),
            (_, true) => format!(" ({})", rule.status()),
            (_, false) => format!(" ({}: {})", rule.status(), rule.changes.join("; ")),
        };
        let (kept, gained, lost) = (rule.kept, rule.gained.count, rule.lost.count);
        writeln!(out, "{}{status}: {kept} kept, {gained} gained, {lost} lost", style(format!("rule {name}")).bold())?;
        for (mark, events) in [(style("gained").green(), &rule.gained), (style("lost  ").red(), &rule.lost)] {
            for Sample { file, line, id, event } in &events.samples {
                let id = id.as_ref().map_or_else(String::new, |id| format!(" id {id}"));
                writeln!(out, "  {mark} {file}:{line}{id} {event}")?;
            }
        }
    }
    let quiet = rules.values().filter(|rule| rule.is_quiet()).count() as u64;
    if quiet > 0 {
        writeln!(out, "{quiet} rule{} did not change", plural(quiet))?;
    }
    let Totals { events, unmatched, newly, .. } = totals;
    writeln!(
        out,
        "{events} event{} read: {unmatched} that no rule matches any more, {newly} newly matched",
        plural(*events)
    )?;
    if totals.outside + totals.untimed > 0 {
        writeln!(out, "{}", left_out(totals))?;
    }
    Ok(())
}

fn as_json(bus: &str, rules: &BTreeMap<String, Change>, totals: &Totals) -> Value {
    let events = |events: &Events| {
        let sample = |it: &Sample| json!({ "file": it.file, "line": it.line, "id": it.id, "event": it.event });
        json!({ "count": events.count, "samples": events.samples.iter().map(sample).collect::<Vec<_>>() })
    };
    let rule = |(name, rule): (&String, &Change)| {
        json!({
            "rule": name,
            "status": rule.status(),
            "changes": rule.changes,
            "kept": rule.kept,
            "gained": events(&rule.gained),
            "lost": events(&rule.lost),
        })
    };
    json!({
        "bus": bus,
        "events": totals.events,
        "no_longer_matched": totals.unmatched,
        "newly_matched": totals.newly,
        "outside": totals.outside,
        "untimed": totals.untimed,
        "rules": rules.iter().map(rule).collect::<Vec<_>>(),
    })
}

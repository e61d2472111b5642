//! Rule tests: YAML files beside the rules to typed tests, every name in them known to the catalog.
//!
//! In: paths and the catalog. Out: [`TestFile`]s, or every [`Problem`] of every file at once. Promises: each test has a
//! valid event, names only what exists and expects something. Leaves to others: running them (`cli`).

use super::place::json_place;
use super::problem::{At, Problem, Problems};
use super::values::Json;
use super::yaml::{self, Document, Kind, NodeId};
use super::{Loaded, de};
use crate::catalog::Catalog;
use crate::event::Tree;
use crate::time;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// When events are taken to have arrived where a test does not say.
const INGESTION_TIME: &str = "2000-01-01T00:00:00Z";

/// Ends of the names of files with rule tests.
const ENDS: [&str; 2] = [".test.yaml", ".test.yml"];

/// Tests of rules.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Sluice rule tests")]
struct File<T> {
    /// Each an event, and what is to become of it.
    tests: Vec<T>,
}

/// Not derived: it would want a default of a test, too.
impl<T> Default for File<T> {
    fn default() -> Self {
        Self { tests: Vec::new() }
    }
}

/// An event, and what is to become of it: one of `event` and `event_file`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Test {
    /// What it shows; unique in its file.
    name: String,
    /// The bus that the event arrives on; needed where several have rules.
    #[serde(default)]
    bus: Option<String>,
    /// The event, as YAML or as a JSON text.
    #[serde(default)]
    event: Option<Json>,
    /// A file with the event as JSON, relative to this one.
    #[serde(default)]
    event_file: Option<PathBuf>,
    /// What `<aws.events.event.ingestion-time>` stands for.
    #[serde(default)]
    ingestion_time: Option<String>,
    /// What is to become of it.
    expect: Expect,
}

/// What is to become of an event: at least one of these.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// Exactly the rules that match.
    pub rules: Option<Vec<String>>,
    /// Rules that do not match.
    pub no_rules: Vec<String>,
    /// What targets receive, by name: a JSON value, as YAML or as a JSON text; text where it is no JSON.
    pub outputs: BTreeMap<String, Json>,
    /// Targets that receive nothing.
    pub no_outputs: Vec<String>,
}

/// A test as it stands in its file, not read yet.
struct Unread(NodeId);

impl<'de> Deserialize<'de> for Unread {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl serde::de::Visitor<'_> for Number {
            type Value = Unread;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a test")
            }

            fn visit_u64<E: serde::de::Error>(self, id: u64) -> Result<Unread, E> {
                usize::try_from(id).map(Unread).map_err(E::custom)
            }
        }
        deserializer.deserialize_newtype_struct(de::NODE, Number)
    }
}

/// A file of tests.
#[derive(Debug)]
pub struct TestFile {
    /// The file.
    pub file: PathBuf,
    /// In its order.
    pub tests: Vec<RuleTest>,
}

/// A test that can be run.
#[derive(Debug)]
pub struct RuleTest {
    /// Unique in its file.
    pub name: String,
    /// Where it stands.
    pub line: usize,
    /// The bus that the event arrives on.
    pub bus: String,
    /// A valid event.
    pub event: Vec<u8>,
    /// ISO 8601.
    pub ingestion_time: String,
    /// What is to become of the event.
    pub expect: Expect,
}

/// The JSON Schema of files of tests.
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(File<Test>)
}

/// Whether a file has the name of a file of tests.
pub fn is_named_so(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    ENDS.iter().any(|end| name.ends_with(end))
}

/// What files hold the rules where nothing but files of tests is named: those beside them.
pub fn rules_of(tests: &[PathBuf]) -> Vec<PathBuf> {
    let beside = tests.iter().filter_map(|path| {
        let text = path.to_string_lossy();
        let stem = ENDS.iter().find_map(|end| text.strip_suffix(end))?;
        [".yaml", ".yml", ".json"].iter().map(|end| PathBuf::from(format!("{stem}{end}"))).find(|file| file.is_file())
    });
    beside.collect()
}

/// The files of tests: those that are named, those of folders, and those beside the files of rules that were read.
pub fn find(paths: &[PathBuf], rules: &[PathBuf], problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in paths {
        gather(path, true, &mut found, problems);
    }
    for file in rules {
        found.extend(ENDS.iter().map(|end| file.with_extension(&end[1..])).filter(|test| test.is_file()));
    }
    // One file may be spelled in several ways.
    let mut seen = BTreeSet::new();
    found.retain(|path| seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())));
    found
}

fn gather(path: &Path, named: bool, found: &mut Vec<PathBuf>, problems: &mut Vec<Problem>) {
    let hidden = path.file_name().unwrap_or_default().to_string_lossy().starts_with('.');
    if !named && hidden {
        return;
    }
    if !path.is_dir() {
        found.extend(is_named_so(path).then(|| path.to_owned()));
        return;
    }
    match std::fs::read_dir(path) {
        Ok(entries) => {
            let mut inside: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
            inside.sort();
            inside.iter().for_each(|path| gather(path, false, found, problems));
        }
        Err(error) => {
            problems.push(Problem::plain("E0002", format!("cannot read folder {}: {error}", path.display())));
        }
    }
}

/// Reads files of tests of these rules; what has problems is left out.
pub fn read(files: &[PathBuf], loaded: &Loaded, problems: &mut Vec<Problem>) -> Vec<TestFile> {
    let names = Names::of(&loaded.catalog);
    let mut all = Vec::new();
    for file in files {
        match std::fs::read_to_string(file) {
            Ok(text) => all.extend(read_text(file, text, &names, problems)),
            Err(error) => {
                let problem = Problem::plain("E0002", format!("cannot read {}: {error}", file.display()));
                problems.push(problem.help("check the path and its permissions"));
            }
        }
    }
    all
}

/// A file of tests with another text than it has.
///
/// # Errors
/// Every problem of the text.
pub fn reread(file: &Path, text: String, loaded: &Loaded) -> Result<TestFile, Problems> {
    let mut problems = Vec::new();
    match read_text(file, text, &Names::of(&loaded.catalog), &mut problems) {
        Some(read) if problems.is_empty() => Ok(read),
        _ => Err(Problems(problems)),
    }
}

fn read_text(file: &Path, text: String, names: &Names<'_>, problems: &mut Vec<Problem>) -> Option<TestFile> {
    let document = yaml::parse(file, text, problems)?;
    let mut reading = Reading { document: &document, names, seen: BTreeMap::new(), problems };
    let unread: File<Unread> = de::read(&document, reading.problems);
    let tests = unread.tests.into_iter().filter_map(|Unread(id)| reading.test(id)).collect();
    Some(TestFile { file: file.to_owned(), tests })
}

/// What tests may name.
struct Names<'c> {
    /// Buses that exist.
    buses: BTreeSet<&'c str>,
    /// Buses that have rules.
    ruled: BTreeSet<&'c str>,
    /// Rules and their buses.
    rules: BTreeSet<(&'c str, &'c str)>,
    targets: BTreeSet<&'c str>,
}

impl<'c> Names<'c> {
    fn of(catalog: &'c Catalog) -> Self {
        Self {
            buses: catalog.buses().map(|bus| bus.name.as_str()).collect(),
            ruled: catalog.rules().map(|rule| rule.bus.as_str()).collect(),
            rules: catalog.rules().map(|rule| (rule.name.as_str(), rule.bus.as_str())).collect(),
            targets: catalog.targets().map(|target| target.name.as_str()).collect(),
        }
    }
}

struct Reading<'r> {
    document: &'r Document,
    names: &'r Names<'r>,
    /// The line of each test's name.
    seen: BTreeMap<String, usize>,
    problems: &'r mut Vec<Problem>,
}

impl Reading<'_> {
    fn test(&mut self, id: NodeId) -> Option<RuleTest> {
        let before = self.problems.len();
        let Test { name, bus, event, event_file, ingestion_time, expect } =
            de::read_at(self.document, id, self.problems)?;
        // What was taken out for a fault is neither missing nor unsaid.
        let whole = self.problems.len() == before;
        let line = self.place(id, &["name"]).line;
        if let Some(first) = self.seen.insert(name.clone(), line) {
            let problem = Problem::plain("E0301", format!("two tests have the name `{name}`"));
            self.report(
                id,
                &["name"],
                problem.help(format!("the first one is in line {first}; name each for what it shows")),
            );
        }
        let event = match (event, event_file) {
            (Some(event), None) => self.event(id, event),
            (None, Some(file)) => self.event_file(id, &file),
            (None, None) if !whole => None,
            (event, _) => {
                let problem = match event {
                    None => Problem::plain("E0302", "the test has no event").help("add `event:` or `event_file:`"),
                    Some(_) => {
                        Problem::plain("E0302", "the test has both `event` and `event_file`").help("keep one of them")
                    }
                };
                self.report(id, &["event"], problem);
                None
            }
        };
        let ingestion_time = ingestion_time.unwrap_or_else(|| INGESTION_TIME.to_owned());
        if time::parse_iso(&ingestion_time).is_none() {
            let problem = Problem::plain("E0303", format!("`{ingestion_time}` is no time"));
            self.report(id, &["ingestion_time"], problem.help(format!("write it as in `{INGESTION_TIME}`")));
        }
        let bus = self.bus(id, bus);
        if let Some(bus) = &bus {
            self.names_of(id, bus, &expect);
        }
        let nothing = expect.rules.is_none() && expect.no_rules.is_empty();
        if nothing && whole && expect.outputs.is_empty() && expect.no_outputs.is_empty() {
            let problem = Problem::plain("E0304", "the test expects nothing");
            self.report(
                id,
                &["expect"],
                problem.help("say which `rules`, `no_rules`, `outputs` or `no_outputs`; `rules: []` is none"),
            );
        }
        Some(RuleTest { name, line, bus: bus?, event: event?, ingestion_time, expect })
    }

    /// An event that stands in the test.
    fn event(&mut self, id: NodeId, event: Json) -> Option<Vec<u8>> {
        let text = event.0.into_bytes();
        let Err(fault) = Tree::parse(&text) else { return Some(text) };
        let mut problem = Problem::plain("E0305", format!("the event is not valid: {fault}"));
        problem.at = self.child(id, &["event"]).map(|event| json_place(self.document, event, fault.at));
        self.problems.push(problem.help("an event is a JSON object, written as YAML or as a JSON text"));
        None
    }

    fn event_file(&mut self, id: NodeId, name: &Path) -> Option<Vec<u8>> {
        let file = self.document.file.parent().unwrap_or(Path::new(".")).join(name);
        let problem = match std::fs::read(&file) {
            Ok(text) => match Tree::parse(&text) {
                Ok(_) => return Some(text),
                Err(fault) => Problem::plain("E0305", format!("the event in {} is not valid: {fault}", file.display()))
                    .help("the file holds one JSON object"),
            },
            Err(error) => Problem::plain("E0002", format!("cannot read {}: {error}", file.display()))
                .help("the path is relative to the file of tests"),
        };
        self.report(id, &["event_file"], problem);
        None
    }

    fn bus(&mut self, id: NodeId, bus: Option<String>) -> Option<String> {
        let ruled = || self.names.ruled.iter().copied().collect::<Vec<_>>().join(", ");
        match bus {
            Some(bus) if self.names.buses.contains(bus.as_str()) => Some(bus),
            Some(bus) => {
                let help = near(&bus, &self.names.buses).unwrap_or_else(|| format!("buses with rules are {}", ruled()));
                self.report(id, &["bus"], Problem::plain("E0207", format!("there is no bus `{bus}`")).help(help));
                None
            }
            None => match self.names.ruled.iter().collect::<Vec<_>>()[..] {
                [only] => Some((*only).to_owned()),
                [] => Some(crate::catalog::DEFAULT_BUS.to_owned()),
                [..] => {
                    let problem = Problem::plain("E0105", "key `bus` is missing: several buses have rules");
                    let help = format!("add `bus:` and one of {}", ruled());
                    self.report(id, &[], problem.help(help));
                    None
                }
            },
        }
    }

    /// Rules and targets that a test names.
    fn names_of(&mut self, id: NodeId, bus: &str, expect: &Expect) {
        let lists = [("rules", expect.rules.as_deref().unwrap_or_default()), ("no_rules", &expect.no_rules)];
        for (key, rule) in lists.iter().flat_map(|(key, list)| list.iter().map(move |rule| (*key, rule))) {
            if self.names.rules.contains(&(rule, bus)) {
                continue;
            }
            let elsewhere = self.names.rules.iter().find(|(name, _)| name == rule);
            let known = self.names.rules.iter().filter(|(_, on)| *on == bus).map(|(name, _)| *name).collect();
            let help = match elsewhere {
                Some((_, other)) => format!("it is on bus {other}; write `bus: {other}`"),
                None => near(rule, &known)
                    .unwrap_or_else(|| "check the name, or name the file with the rule, too".to_owned()),
            };
            let problem = Problem::plain("E0207", format!("there is no rule `{rule}` on bus {bus}")).help(help);
            self.report_name(id, key, rule, problem);
        }
        let outputs = expect.outputs.keys().map(|target| ("outputs", target));
        for (key, target) in outputs.chain(expect.no_outputs.iter().map(|target| ("no_outputs", target))) {
            if !self.names.targets.contains(target.as_str()) {
                let help = near(target, &self.names.targets).unwrap_or_else(|| "check the name".to_owned());
                let problem = Problem::plain("E0207", format!("there is no target `{target}`")).help(help);
                self.report_name(id, key, target, problem);
            }
        }
    }

    /// A problem with a name in a list, or as a key.
    fn report_name(&mut self, id: NodeId, key: &str, name: &str, mut problem: Problem) {
        let list = self.child(id, &["expect", key]);
        let node = list.and_then(|list| match &self.document.node(list).kind {
            Kind::Sequence(items) => items.iter().copied().find(|item| self.document.key(*item) == name),
            Kind::Mapping(entries) => entries.iter().map(|(key, _)| *key).find(|key| self.document.key(*key) == name),
            Kind::Scalar { .. } => None,
        });
        let node = node.or(list).unwrap_or(id);
        problem.at = Some(self.document.at(node, &self.document.path_of(node)));
        self.problems.push(problem);
    }

    fn report(&mut self, id: NodeId, path: &[&str], mut problem: Problem) {
        problem.at = Some(self.place(id, path));
        self.problems.push(problem);
    }

    /// Where a part of a test stands, or else the test.
    fn place(&self, id: NodeId, path: &[&str]) -> At {
        let node = self.child(id, path).unwrap_or(id);
        self.document.at(node, &self.document.path_of(node))
    }

    fn child(&self, id: NodeId, path: &[&str]) -> Option<NodeId> {
        path.iter().try_fold(id, |at, step| match &self.document.node(at).kind {
            Kind::Mapping(entries) => {
                entries.iter().find(|(key, _)| self.document.key(*key) == *step).map(|(_, value)| *value)
            }
            _ => None,
        })
    }
}

/// What may have been meant.
fn near(name: &str, known: &BTreeSet<&str>) -> Option<String> {
    let (distance, near) = known.iter().map(|known| (strsim::damerau_levenshtein(name, known), *known)).min()?;
    (distance <= 3).then(|| format!("did you mean `{near}`?"))
}

//! Configuration: YAML files to typed values and a catalog; the only reader of configuration files and of the
//! environment.
//!
//! In: paths. Out: [`Config`] and [`Catalog`], or every [`Problem`] of every file at once. Promises: nothing of an
//! invalid configuration takes effect. Leaves to others: running it (`app`).

pub mod access;
pub mod archives;
pub mod check;
mod de;
pub mod ends;
pub mod expected;
pub mod model;
mod outside;
mod place;
mod problem;
pub mod rule_tests;
pub mod services;
pub mod values;
mod yaml;

pub use model::Config;
pub use problem::{At, Level, Problem, Problems};

use crate::catalog::Catalog;
use std::path::{Path, PathBuf};

/// A valid configuration.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// All files together, defaults filled in.
    pub config: Config,
    /// Its buses, targets and rules.
    pub catalog: Catalog,
    /// The files that were read.
    pub files: Vec<PathBuf>,
    /// Where things stand in them.
    pub places: Places,
}

/// The files as they were read, to find places in.
#[derive(Debug, Clone)]
pub struct Places(Vec<yaml::Document>);

impl Places {
    /// Where a byte of a rule's pattern text stands.
    pub fn pattern(&self, rule: &str, offset: usize) -> Option<At> {
        let path = ["rules", rule, "pattern"];
        self.0.iter().find_map(|document| Some(place::json_place(document, document.find(&path)?, offset)))
    }

    /// How many rules there are, those that have problems included.
    pub fn rules(&self) -> usize {
        self.0.iter().map(|document| document.names("rules").len()).sum()
    }

    /// Where a part of a rule stands, or else the rule.
    pub fn rule(&self, rule: &str, part: &str) -> Option<At> {
        let document = self.0.iter().find(|document| document.find(&["rules", rule]).is_some())?;
        Some(document.at_path(&["rules", rule, part]))
    }
}

/// Values that a configuration takes from outside its files.
pub struct Outside<'a> {
    /// Environment variables by name.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Whether rules are all that matters: what is not set or cannot be read is taken by its name, and buses and targets
    /// that no file declares at all are taken to be declared elsewhere.
    pub only_rules: bool,
}

impl Default for Outside<'_> {
    fn default() -> Self {
        Self { env: &|name| std::env::var(name).ok(), only_rules: false }
    }
}

impl Outside<'_> {
    /// For those who look at rules and run nothing.
    pub fn only_rules() -> Self {
        Self { only_rules: true, ..Self::default() }
    }
}

/// Reads `paths`, each a file or a folder of them.
///
/// # Errors
/// Every problem found, with file, line, column, key path and remedy.
pub fn load(paths: &[PathBuf], outside: &Outside<'_>) -> Result<Loaded, Problems> {
    let (loaded, problems) = inspect(paths, outside);
    if problems.0.is_empty() { Ok(loaded) } else { Err(problems) }
}

/// Reads `paths` as [`load`] does; what has problems is left out.
pub fn inspect(paths: &[PathBuf], outside: &Outside<'_>) -> (Loaded, Problems) {
    let mut problems = Vec::new();
    let mut files = Vec::new();
    let mut todo: Vec<PathBuf> = Vec::new();
    for path in paths {
        gather(path, &mut todo, &mut problems);
    }
    let mut documents = Vec::new();
    let mut next = 0;
    while next < todo.len() {
        let path = todo[next].clone();
        next += 1;
        if files.contains(&path) {
            continue;
        }
        files.push(path.clone());
        let Some((document, model)) = read(&path, outside, &mut problems) else { continue };
        for include in &model.include {
            let base = path.parent().unwrap_or(Path::new("."));
            gather(&base.join(include), &mut todo, &mut problems);
        }
        documents.push((document, model));
    }
    if files.is_empty() && problems.is_empty() {
        problems.push(Problem::plain("E0001", "no configuration file found").help("name one with --config FILE"));
    }
    let (mut config, catalog) = check::all(&documents, outside.only_rules, &mut problems);
    if let Some(keys) = config.server.auth.as_ref().and_then(|auth| auth.keys.as_ref()).filter(|_| !outside.only_rules)
    {
        let mut found = Vec::new();
        config.keys = access::keys(keys, outside, &mut found);
        found.iter_mut().for_each(Problem::hide);
        problems.extend(found);
    }
    problems.sort_by_key(Problem::place);
    let places = Places(documents.into_iter().map(|(document, _)| document).collect());
    (Loaded { config, catalog, files, places }, Problems(problems))
}

fn read(
    path: &Path,
    outside: &Outside<'_>,
    problems: &mut Vec<Problem>,
) -> Option<(yaml::Document, model::FileConfig)> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            problems.push(
                Problem::plain("E0002", format!("cannot read {}: {error}", path.display()))
                    .help("check the path and its permissions"),
            );
            return None;
        }
    };
    let mut document = yaml::parse(path, text, problems)?;
    outside::resolve(&mut document, outside, problems);
    let model = de::read(&document, problems);
    Some((document, model))
}

/// Adds a file, or the YAML and JSON files of a folder and its sub-folders, in order of their names. Rule tests, the events
/// in folders named `fixtures`, and hidden files (as those that ConfigMaps are made of) are left out.
fn gather(path: &Path, found: &mut Vec<PathBuf>, problems: &mut Vec<Problem>) {
    if !path.is_dir() {
        found.push(path.to_owned());
        return;
    }
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => {
            problems.push(Problem::plain("E0002", format!("cannot read folder {}: {error}", path.display())));
            return;
        }
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let yaml = [".yaml", ".yml", ".json"].iter().any(|end| name.ends_with(end));
        let other = name.starts_with('.') || rule_tests::is_named_so(&path) || name.ends_with(".schema.json");
        if path.is_dir() && !name.starts_with('.') && name != "fixtures" {
            gather(&path, found, problems);
        } else if yaml && !other {
            found.push(path);
        }
    }
}

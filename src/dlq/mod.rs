//! Dead letters after they were buried: what there is, sending it to its targets once more, removing it.
//!
//! In: dead-letter files and topics, and what an operator selects of them. Out: deliveries, as new as any, and marks of
//! what is gone. Promises: a letter is marked as gone only when it is settled again, so a crash repeats it with the same
//! delivery id and loses nothing. Leaves to others: how letters are buried (`deliver`).

pub mod files;
pub mod letter;
mod redrive;
mod topic;

pub use files::Files;
pub use letter::{Filter, Letter};
pub use redrive::{Desk, Parts, Progress};

use crate::config::model::NumberMatching;
use crate::pattern::{self, Limits};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// What an operator selects; the body and the query of the API.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Selection {
    /// Of this bus.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bus: Option<String>,
    /// For this target, or of this source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Of this rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// With this `ERROR_CODE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Whose event matches this pattern.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// How the pattern compares numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number_matching: Option<NumberMatching>,
    /// In this declared target; in the default queues otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// At most so many, the newest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// The data directory that is meant, as an absolute path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<String>,
    /// To remove without any filter.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// Count only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

impl Selection {
    /// As letters are tried against it.
    ///
    /// # Errors
    /// What is wrong with the pattern.
    pub fn filter(&self) -> Result<Filter, String> {
        let pattern = self.pattern.as_ref().map(|text| pattern::parse(text.as_bytes(), &Limits::default()));
        Ok(Filter {
            bus: self.bus.clone(),
            target: self.target.clone(),
            rule: self.rule.clone(),
            code: self.code.clone(),
            pattern: pattern
                .transpose()
                .map_err(|error| format!("the event pattern is not valid: {}", error.message))?,
            numbers: self.number_matching.map(Into::into).unwrap_or_default(),
        })
    }
}

/// Letters that have the same fate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Their bus.
    pub bus: String,
    /// Their target; the source where there is no rule.
    pub target: String,
    /// Their rule.
    pub rule: Option<String>,
    /// Their cause.
    pub code: String,
    /// How many.
    pub count: u64,
    /// When the first was buried.
    pub first: String,
    /// When the last was.
    pub last: String,
}

/// How many letters there are of each fate.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// By bus, target, rule and cause.
    pub groups: Vec<Group>,
    /// Lines or records that are no letters.
    pub unreadable: u64,
}

/// Counts letters by their fate.
#[derive(Default)]
pub struct Counting(BTreeMap<Fate, (u64, String, String)>);

/// Bus, target, rule, cause.
type Fate = (String, String, Option<String>, String);

impl Counting {
    /// One more.
    pub fn add(&mut self, letter: &Letter) {
        let rule = letter.rule().map(str::to_owned);
        let fate = (letter.bus.clone(), letter.target().to_owned(), rule, letter.code.clone());
        let group = self.0.entry(fate).or_insert_with(|| (0, letter.time.clone(), letter.time.clone()));
        group.0 += 1;
        if letter.time < group.1 {
            group.1.clone_from(&letter.time);
        }
        if letter.time > group.2 {
            group.2.clone_from(&letter.time);
        }
    }

    /// What was counted.
    pub fn summary(self, unreadable: u64) -> Summary {
        let group =
            |((bus, target, rule, code), (count, first, last))| Group { bus, target, rule, code, count, first, last };
        Summary { groups: self.0.into_iter().map(group).collect(), unreadable }
    }
}

/// The letters of files by their fate.
///
/// # Errors
/// A file cannot be read.
pub fn summary(files: &Files, filter: &Filter) -> std::io::Result<Summary> {
    let mut counting = Counting::default();
    let unreadable = files.each(&mut |_, _, letter| {
        if filter.fits(&letter) {
            counting.add(&letter);
        }
        true
    })?;
    Ok(counting.summary(unreadable))
}

/// The newest letters of files, newest last.
///
/// # Errors
/// A file cannot be read.
pub fn newest(files: &Files, filter: &Filter, limit: usize) -> std::io::Result<Vec<Letter>> {
    let mut last = Newest::new(limit);
    files.each(&mut |_, _, letter| {
        if filter.fits(&letter) {
            last.add(letter);
        }
        true
    })?;
    Ok(last.letters())
}

/// The last so many letters.
pub struct Newest {
    limit: usize,
    kept: VecDeque<Letter>,
}

impl Newest {
    /// None yet.
    pub fn new(limit: usize) -> Self {
        Self { limit, kept: VecDeque::new() }
    }

    /// One more.
    pub fn add(&mut self, letter: Letter) {
        self.kept.push_back(letter);
        if self.kept.len() > self.limit {
            self.kept.pop_front();
        }
    }

    /// Newest last.
    pub fn letters(self) -> Vec<Letter> {
        let mut letters: Vec<Letter> = self.kept.into();
        letters.sort_by(|a, b| a.time.cmp(&b.time));
        letters
    }
}

/// Removes letters of files; returns how many there are, with `dry_run` without removing them. `roll` is as in
/// [`Files::sweep`].
///
/// # Errors
/// A file cannot be read, or what is gone cannot be noted.
pub fn purge(files: &Files, filter: &Filter, dry_run: bool, roll: impl Fn(&std::path::Path)) -> std::io::Result<u64> {
    let mut selected = Vec::new();
    files.each(&mut |path, at, letter| {
        if filter.fits(&letter)
            && let Some(id) = letter.delivery_id()
        {
            selected.push(((path.clone(), at), id));
        }
        true
    })?;
    if !dry_run {
        files.gone(&selected)?;
        files.sweep(filter.is_empty(), roll)?;
    }
    Ok(selected.len() as u64)
}

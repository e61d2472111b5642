//! `sluice dlq`: what became of events that no target took, and sending them once more.
//!
//! The default queues are files: they are listed where they lie. The process that runs on the data directory alone
//! changes them; where none runs, this one takes its lock and does.

use super::admin::{Remote, Session};
use super::rules::print_json;
use super::{output, patterns};
use crate::app::{self, Exit, Failed};
use crate::deliver::dispatcher::letters_folder;
use crate::dlq::{self, Files, Letter, Progress, Selection, Summary};
use serde::Deserialize;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

/// Dead letters: list, show, send again, remove
#[derive(clap::Subcommand)]
pub enum Dlq {
    /// Count dead letters by bus, target, rule and cause
    Ls {
        /// Only of this bus
        #[arg(conflicts_with = "bus")]
        on: Option<String>,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        chosen: Chosen,
    },
    /// Print dead letters, the newest last
    Show {
        /// At most so many, the newest
        #[arg(short = 'n', long, default_value_t = 10)]
        limit: usize,
        /// Print one JSON line a letter
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        chosen: Chosen,
    },
    /// Send dead letters to their targets once more; those that are settled again are gone
    Redrive {
        /// Only say what would be sent
        #[arg(long)]
        dry_run: bool,
        /// Do not wait until they are settled
        #[arg(long)]
        no_wait: bool,
        #[command(flatten)]
        chosen: Chosen,
    },
    /// Remove dead letters for good
    Purge {
        /// Only say how many would be removed
        #[arg(long)]
        dry_run: bool,
        /// Needed to remove all of them, without any filter
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        chosen: Chosen,
    },
}

/// Which letters, and where.
#[derive(clap::Args)]
pub struct Chosen {
    /// Only of this bus
    #[arg(long)]
    bus: Option<String>,
    /// Only for this target; of this source where the record was no event
    #[arg(long)]
    target: Option<String>,
    /// Only of this rule
    #[arg(long)]
    rule: Option<String>,
    /// Only with this ERROR_CODE, as in CONNECTION_FAILURE
    #[arg(long)]
    code: Option<String>,
    /// Only those whose event is JSON and matches this EventBridge pattern
    #[arg(long)]
    pattern: Option<String>,
    #[command(flatten)]
    comparing: patterns::Comparing,
    /// In this target of the running process, a Kafka topic or a log group, instead of the default queues
    #[arg(long)]
    queue: Option<String>,
    /// The data directory of the router
    #[arg(long, env = "SLUICE_DATA_DIR", default_value = "data")]
    data_dir: PathBuf,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Deserialize)]
struct Letters {
    letters: Vec<Letter>,
}

#[derive(Deserialize)]
struct Purged {
    selected: u64,
}

impl Dlq {
    pub fn run(self) -> Result<(), Failed> {
        match self {
            Self::Ls { on, json, mut chosen } => {
                chosen.bus = on.or(chosen.bus);
                let summary = chosen.summary()?;
                if json { print_json(&summary) } else { list(&summary) }
            }
            Self::Show { limit, json, chosen } => show(&chosen.newest(limit)?, json),
            Self::Redrive { dry_run, no_wait, chosen } => chosen.redrive(dry_run, no_wait),
            Self::Purge { dry_run, all, chosen } => chosen.purge(dry_run, all),
        }
    }
}

impl Chosen {
    fn selection(&self) -> Result<Selection, Failed> {
        if let Some(text) = &self.pattern {
            patterns::pattern(text.as_bytes())?;
        }
        Ok(Selection {
            bus: self.bus.clone(),
            target: self.target.clone(),
            rule: self.rule.clone(),
            code: self.code.clone(),
            pattern: self.pattern.clone(),
            number_matching: Some(self.comparing.numbers().into()),
            queue: self.queue.clone(),
            ..Selection::default()
        })
    }

    fn filter(&self) -> Result<dlq::Filter, Failed> {
        self.selection()?.filter().map_err(|why| Failed::new(Exit::Config, why))
    }

    /// The default queues.
    fn files(&self) -> Result<Files, Failed> {
        if self.data_dir.is_dir() {
            return Ok(Files::defaults(letters_folder(&self.data_dir)));
        }
        let text = format!("there is no data directory {}; --data-dir names it", self.data_dir.display());
        Err(Failed::new(Exit::Io, text))
    }

    fn query(&self, limit: Option<usize>) -> Result<Vec<(&'static str, String)>, Failed> {
        let Selection { bus, target, rule, code, pattern, queue, .. } = self.selection()?;
        let limit = limit.map(|limit| limit.to_string());
        let named = [("bus", bus), ("target", target), ("rule", rule), ("code", code), ("pattern", pattern)];
        let numbers = match self.comparing.numbers() {
            crate::pattern::Numbers::Value => "value",
            crate::pattern::Numbers::Text => "text",
        };
        let more = [("queue", queue), ("limit", limit), ("number_matching", Some(numbers.to_owned()))];
        Ok(named.into_iter().chain(more).filter_map(|(name, value)| Some((name, value?))).collect())
    }

    fn summary(&self) -> Result<Summary, Failed> {
        match self.queue {
            Some(_) => self.remote.session()?.get("/api/v1/dlq", &self.query(None)?),
            None => dlq::summary(&self.files()?, &self.filter()?).map_err(|error| self.io(&error)),
        }
    }

    fn newest(&self, limit: usize) -> Result<Vec<Letter>, Failed> {
        match self.queue {
            Some(_) => {
                let letters: Letters = self.remote.session()?.get("/api/v1/dlq/letters", &self.query(Some(limit))?)?;
                Ok(letters.letters)
            }
            None => dlq::newest(&self.files()?, &self.filter()?, limit).map_err(|error| self.io(&error)),
        }
    }

    fn io(&self, error: &std::io::Error) -> Failed {
        Failed::new(Exit::Io, format!("dead letters in {}: {error}", self.data_dir.display()))
    }

    /// What is asked of the running process; it says no if it runs on another data directory than the one here.
    fn order(&self, all: bool, dry_run: bool) -> Result<String, Failed> {
        let folder = self.data_dir.canonicalize().ok().filter(|_| self.queue.is_none());
        let data_dir = folder.map(|folder| folder.display().to_string());
        let selection = Selection { all, dry_run, data_dir, ..self.selection()? };
        serde_json::to_string(&selection).map_err(|error| Failed::new(Exit::Bug, error.to_string()))
    }

    fn redrive(&self, dry_run: bool, no_wait: bool) -> Result<(), Failed> {
        if dry_run {
            let summary = self.summary()?;
            list(&summary)?;
            let count: u64 = summary.groups.iter().map(|group| group.count).sum();
            return said(&format!("{count} letters would be sent"));
        }
        let session = self.remote.session()?;
        let mut progress: Progress = session.post("/api/v1/dlq/redrive", self.order(false, false)?)?;
        if no_wait {
            return said(&format!("redrive {} is under way", progress.job));
        }
        progress = follow(&session, progress)?;
        report(&progress)
    }

    fn purge(&self, dry_run: bool, all: bool) -> Result<(), Failed> {
        let filter = self.filter()?;
        if filter.is_empty() && !all && !dry_run {
            let text = "nothing is selected; --bus, --target, --rule, --code or --pattern do, --all takes everything";
            return Err(Failed::new(Exit::Usage, text));
        }
        let local = self.queue.is_none() && self.data_dir.is_dir();
        let count = match if local { app::take(&self.data_dir)? } else { None } {
            Some(lock) => {
                let count = dlq::purge(&self.files()?, &filter, dry_run, |_| {}).map_err(|error| self.io(&error))?;
                drop(lock);
                count
            }
            None => {
                let order = self.order(all, dry_run)?;
                self.remote.session()?.post::<Purged>("/api/v1/dlq/purge", order)?.selected
            }
        };
        said(&format!("{count} letters {}", if dry_run { "would be removed" } else { "removed" }))
    }
}

fn said(text: &str) -> Result<(), Failed> {
    writeln!(std::io::stdout(), "{text}").map_err(output)
}

/// Waits until a redrive has ended.
fn follow(session: &Session, mut progress: Progress) -> Result<Progress, Failed> {
    let path = format!("/api/v1/dlq/redrive/{}", progress.job);
    let mut pause = Duration::from_millis(20);
    while !progress.done {
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(500));
        progress = session.get(&path, &[])?;
        if std::io::stderr().is_terminal() {
            eprint!("\r{} sent, {} settled; Ctrl-C leaves it to the process ", progress.sent, progress.settled);
        }
    }
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
    Ok(progress)
}

fn report(progress: &Progress) -> Result<(), Failed> {
    let Progress { sent, settled, stay, why, shown_again, error, .. } = progress;
    said(&format!("{sent} letters sent, {settled} settled: delivered, or dead letters anew"))?;
    if let Some(why) = why {
        said(&format!("{stay} stay: {why}"))?;
    }
    if *shown_again > 0 {
        said(&format!("{shown_again} of them show again: a topic forgets only what has nothing left before it"))?;
    }
    match error {
        Some(error) => Err(Failed::new(Exit::Io, error.clone())),
        None if *stay > 0 => Err(Failed::new(Exit::No, "")),
        None => Ok(()),
    }
}

fn list(summary: &Summary) -> Result<(), Failed> {
    let mut out = std::io::stdout().lock();
    if !summary.groups.is_empty() {
        writeln!(out, "{:>7} {:<16} {:<16} {:<20} {:<20} first and last", "letters", "bus", "target", "rule", "cause")
            .map_err(output)?;
    }
    for group in &summary.groups {
        let dlq::Group { bus, target, rule, code, count, first, last } = group;
        let rule = rule.as_deref().unwrap_or("-");
        writeln!(out, "{count:>7} {bus:<16} {target:<16} {rule:<20} {code:<20} {first} {last}").map_err(output)?;
    }
    if summary.unreadable > 0 {
        writeln!(out, "{} lines or records are no letters", summary.unreadable).map_err(output)?;
    }
    Ok(())
}

fn show(letters: &[Letter], json: bool) -> Result<(), Failed> {
    let mut out = std::io::stdout().lock();
    for letter in letters {
        if json {
            let text = serde_json::to_string(letter).map_err(|error| Failed::new(Exit::Bug, error.to_string()))?;
            writeln!(out, "{text}").map_err(output)?;
            continue;
        }
        let way = letter.rule().map_or_else(String::new, |rule| format!("rule {rule} to "));
        let end = letter.exhausted.as_ref().map(|bound| format!(", {bound}")).unwrap_or_default();
        let event = letter.payload().unwrap_or_default();
        let lines = [
            format!("{}  bus {}  {way}{}", letter.time, letter.bus, letter.target()),
            format!("  {}: {}", letter.code, letter.message),
            format!(
                "  retries {}{end}, from {} at {}, delivery {}",
                letter.retries, letter.source, letter.position, letter.id
            ),
            format!("  {}", String::from_utf8_lossy(&event)),
        ];
        writeln!(out, "{}", lines.join("\n")).map_err(output)?;
    }
    Ok(())
}

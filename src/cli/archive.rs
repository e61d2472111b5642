//! `sluice archive`: what a running process has archived, out and in as JSON lines.

use super::admin::{Remote, segment};
use super::rules::print_json;
use super::{output, recorded};
use crate::api::ArchiveView;
use crate::app::{Exit, Failed};
use crate::archive;
use reqwest::Method;
use serde::Deserialize;
use std::io::Write;
use std::path::PathBuf;

/// Bytes of lines that are sent at once.
const BATCH: usize = 4 << 20;

/// Archives: list them, write their events out as JSON lines, take some in
#[derive(clap::Subcommand)]
pub enum Archive {
    /// List archives with what they hold
    Ls {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Print the events of an archive as JSON lines, in order of time
    Export {
        /// The archive
        name: String,
        /// Only events from this time on: 15m ago, or 2024-01-31T09:00:00Z
        #[arg(long)]
        from: Option<String>,
        /// Only events before this time
        #[arg(long)]
        to: Option<String>,
        #[command(flatten)]
        place: Place,
    },
    /// Put events into an archive, from JSON lines; no rule sees them before they are replayed
    Import {
        /// The archive
        name: String,
        /// The file, plain, .gz or .zst; standard input without it
        #[arg(default_value = "-")]
        file: PathBuf,
        #[command(flatten)]
        place: Place,
    },
}

/// Which process, and where in it.
#[derive(clap::Args)]
pub struct Place {
    /// The region, where several have something of the name
    #[arg(long)]
    region: Option<String>,
    /// The account, where several have something of the name
    #[arg(long)]
    account: Option<String>,
    #[command(flatten)]
    pub remote: Remote,
}

impl Place {
    /// The region and the account, as a query.
    pub fn query(&self) -> Vec<(&'static str, String)> {
        let named = [("region", self.region.clone()), ("account", self.account.clone())];
        named.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// The region, and the account.
    pub fn parts(&self) -> (Option<String>, Option<String>) {
        (self.region.clone(), self.account.clone())
    }
}

#[derive(Deserialize)]
struct Archives {
    archives: Vec<ArchiveView>,
}

#[derive(Deserialize)]
struct Imported {
    imported: u64,
    /// The largest event that is taken.
    event_bytes: usize,
}

impl Archive {
    pub fn run(self) -> Result<(), Failed> {
        match self {
            Self::Ls { json, place } => ls(json, &place),
            Self::Export { name, from, to, place } => {
                let range = [("from", from), ("to", to)].into_iter().filter_map(|(name, value)| Some((name, value?)));
                export(&name, &place.query().into_iter().chain(range).collect::<Vec<_>>(), &place)
            }
            Self::Import { name, file, place } => import(&name, file, &place),
        }
    }
}

fn ls(json: bool, place: &Place) -> Result<(), Failed> {
    let Archives { archives } = place.remote.session()?.get("/api/v1/archives", &place.query())?;
    if json {
        return print_json(&archives);
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:<24} {:<20} {:<16} {:>10} {:>14} kept", "archive", "bus", "region", "events", "bytes")
        .map_err(output)?;
    for archive in archives {
        let ArchiveView { name, bus, region, events, bytes, retention_days, .. } = archive;
        let kept = if retention_days == 0 { "for ever".to_owned() } else { format!("{retention_days}d") };
        writeln!(out, "{name:<24} {bus:<20} {region:<16} {events:>10} {bytes:>14} {kept}").map_err(output)?;
    }
    Ok(())
}

fn path(name: &str) -> String {
    format!("/api/v1/archives/{}/events", segment(name))
}

fn export(name: &str, query: &[(&str, String)], place: &Place) -> Result<(), Failed> {
    let session = place.remote.session()?;
    session.block_on(async {
        let mut answer = session.ask(Method::GET, &path(name), query, None).await?;
        let mut out = std::io::stdout().lock();
        let broken = |error: reqwest::Error| {
            let message = format!("the events broke off, so there are more: {}", error.without_url());
            Failed::new(Exit::Unreachable, message)
        };
        while let Some(piece) = answer.chunk().await.map_err(broken)? {
            out.write_all(&piece).map_err(output)?;
        }
        out.flush().map_err(output)
    })
}

fn import(name: &str, file: PathBuf, place: &Place) -> Result<(), Failed> {
    let session = place.remote.session()?;
    let (mut batch, mut imported) = (String::new(), 0);
    let send = |batch: &mut String, imported: &mut u64| {
        let body = std::mem::take(batch);
        let answer = session.block_on(async {
            let answer = session.ask(Method::POST, &path(name), &place.query(), Some(body)).await?;
            answer.text().await.map_err(|error| Failed::new(Exit::Unreachable, error.to_string()))
        });
        let answer = answer.map_err(|failed| after(*imported, failed))?;
        let answer: Imported = serde_json::from_str(&answer)
            .map_err(|error| Failed::new(Exit::Unreachable, format!("not our API: {error}")))?;
        *imported += answer.imported;
        Ok::<usize, Failed>(answer.event_bytes)
    };
    // That there is such an archive is said before anything is read, and what it takes.
    let most = send(&mut batch, &mut imported)?;
    recorded::each(&[file], |file, number, text| {
        let bad =
            |why: String| after(imported, Failed::new(Exit::Config, format!("{}:{number}: {why}", file.display())));
        archive::check(text, most).map_err(bad)?;
        let text = std::str::from_utf8(text).map_err(|error| bad(error.to_string()))?;
        if text.len() > BATCH {
            return Err(bad(format!("the event has more than {BATCH} bytes")));
        }
        if !batch.is_empty() && batch.len() + text.len() > BATCH {
            send(&mut batch, &mut imported)?;
        }
        batch.push_str(text);
        batch.push('\n');
        Ok(())
    })?;
    if !batch.is_empty() {
        send(&mut batch, &mut imported)?;
    }
    writeln!(std::io::stdout(), "{imported} events imported into {name}").map_err(output)
}

/// A failure, and what was done before.
fn after(imported: u64, failed: Failed) -> Failed {
    match imported {
        0 => failed,
        count => Failed::new(failed.exit, format!("{}; {count} events before are imported", failed.message)),
    }
}

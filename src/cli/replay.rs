//! `sluice replay`: archived events once more, watched until they are sent.

use super::admin::{Session, segment};
use super::archive::Place;
use super::output;
use super::rules::print_json;
use crate::api::{ReplayView, Wanted};
use crate::app::{Exit, Failed};
use crate::time;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// How often the process is asked, and how often a line tells of it where there is no terminal.
const ASK: Duration = Duration::from_millis(200);
const TELL: Duration = Duration::from_secs(5);

/// Send archived events to their bus once more
#[derive(clap::Subcommand)]
pub enum Replay {
    /// Start a replay and wait until all its events are sent
    Start {
        /// The archive
        archive: String,
        /// Name of the replay, which its events have as `replay-name`; made of the archive's and the time without it
        #[arg(long)]
        name: Option<String>,
        /// Only events from this time on: 15m ago, or 2024-01-31T09:00:00Z
        #[arg(long)]
        from: Option<String>,
        /// Only events before this time; now without it
        #[arg(long)]
        to: Option<String>,
        /// Only for this rule; may be repeated
        #[arg(long)]
        rule: Vec<String>,
        /// Do not wait until it ends
        #[arg(long)]
        no_wait: bool,
        /// Print one JSON document at the end
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// List replays
    Ls {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Cancel a replay; what was sent stays sent
    Cancel {
        /// The replay
        name: String,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Deserialize)]
struct Replays {
    replays: Vec<ReplayView>,
}

impl Replay {
    pub fn run(self) -> Result<(), Failed> {
        match self {
            Self::Start { archive, name, from, to, rule: rules, no_wait, json, place } => {
                let session = place.remote.session()?;
                let (region, account) = place.parts();
                let wanted = Wanted { archive, name, from, to, rules, region, account };
                let body = serde_json::to_string(&wanted).map_err(|error| Failed::new(Exit::Bug, error.to_string()))?;
                let mut replay: ReplayView = session.post("/api/v1/replays", body)?;
                if !no_wait {
                    replay = follow(&session, replay)?;
                }
                said(&replay, json)?;
                match replay.state.as_str() {
                    "FAILED" | "CANCELLED" => Err(Failed::new(Exit::No, "")),
                    _ => Ok(()),
                }
            }
            Self::Ls { json, place } => ls(json, &place),
            Self::Cancel { name, json, place } => {
                let session = place.remote.session()?;
                let path = format!("/api/v1/replays/{}/cancel?{}", segment(&name), query(&place));
                said(&session.post(&path, String::new())?, json)
            }
        }
    }
}

/// The place, as a path ends.
fn query(place: &Place) -> String {
    let parts = place.query().into_iter().map(|(name, value)| format!("{name}={}", segment(&value)));
    parts.collect::<Vec<_>>().join("&")
}

/// Waits until a replay has ended.
fn follow(session: &Session, mut replay: ReplayView) -> Result<ReplayView, Failed> {
    let path = format!("/api/v1/replays/{}", segment(&replay.name));
    let query = [("region", replay.region.clone()), ("account", replay.account.clone())];
    let terminal = std::io::stderr().is_terminal();
    let bar = if terminal { ProgressBar::new(0) } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("{bar:30} {pos} of {len} events, {msg}; Ctrl-C leaves it to the process")
        .map_err(|error| Failed::new(Exit::Bug, error.to_string()))?;
    bar.set_style(style);
    let mut told = None;
    while !replay.done {
        let expected = replay.expected.unwrap_or(0).max(replay.sent);
        bar.set_length(expected);
        bar.set_position(replay.sent);
        bar.set_message(replay.reached.clone().unwrap_or_default());
        if !terminal && told.is_none_or(|at| time::now().duration_since(at) >= TELL) {
            eprintln!("{}: {}, {} of {expected} events sent", replay.name, replay.state, replay.sent);
            told = Some(time::now());
        }
        std::thread::sleep(ASK);
        replay = session.get(&path, &query)?;
    }
    bar.finish_and_clear();
    Ok(replay)
}

fn said(replay: &ReplayView, json: bool) -> Result<(), Failed> {
    if json {
        return print_json(replay);
    }
    let why = replay.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let ReplayView { name, state, sent, .. } = replay;
    writeln!(std::io::stdout(), "{name} is {state}, {sent} events sent{why}").map_err(output)
}

fn ls(json: bool, place: &Place) -> Result<(), Failed> {
    let Replays { replays } = place.remote.session()?.get("/api/v1/replays", &place.query())?;
    if json {
        return print_json(&replays);
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:<32} {:<24} {:<16} {:<10} {:>10} started", "replay", "archive", "region", "state", "events")
        .map_err(output)?;
    for replay in replays {
        let ReplayView { name, archive, region, state, sent, started, .. } = replay;
        writeln!(out, "{name:<32} {archive:<24} {region:<16} {state:<10} {sent:>10} {started}").map_err(output)?;
    }
    Ok(())
}

//! The fault suite: real brokers and real processes, one fault a scenario, and an oracle that judges what arrived.
//!
//! `cargo test --test faults -- [F01 F05 ...] [--small] [--seed N]`, or `--planted [BUG ...]`. Each scenario ends in one JSON line with its
//! figures; the same seed gives the same schedule. The process fails when any assertion does.

#![allow(clippy::disallowed_methods, clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod caller;
#[path = "../shared/certificates.rs"]
#[allow(dead_code)]
mod certificates;
mod crash;
mod credentials;
mod disk;
mod group;
#[path = "../shared/guard.rs"]
mod guard;
mod handover;
mod http;
mod jetstream;
#[path = "../shared/kafka.rs"]
#[allow(dead_code)]
mod kafka;
mod keeper;
mod load;
#[path = "../shared/nats.rs"]
#[allow(dead_code)]
mod nats;
mod oracle;
mod planted;
mod poison;
#[path = "../shared/ports.rs"]
mod ports;
#[path = "../shared/process.rs"]
#[allow(dead_code)]
mod process;
mod proxy;
#[path = "../shared/receiver.rs"]
#[allow(dead_code)]
mod receiver;
mod reload;
mod secrets;
mod setup;
mod shutdown;
mod slow;
mod stage;
mod state;
mod sync;

use stage::Stage;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

type Scenario = (&'static str, &'static str, fn(&Stage));

const SCENARIOS: &[Scenario] = &[
    ("F01", "the process is killed in mid-stream", crash::sidecar_dies),
    ("F01b", "the process is killed while the oldest deliveries hang", handover::oldest_hang),
    ("F02", "the broker is killed", crash::broker_dies),
    ("F03", "the broker freezes", crash::broker_freezes),
    ("F04", "the NATS server and the process are killed", jetstream::server_and_process_die),
    ("F05", "endpoints misbehave", http::endpoints_misbehave),
    ("F06", "one of several targets hangs", slow::one_target_hangs),
    ("F07", "a target stalls at full speed", slow::memory_stays_bounded),
    ("F08", "the dead-letter topic refuses writes", slow::dead_letters_are_refused),
    ("F09", "members come, go and die", group::storm),
    ("F09b", "a partition moves on while its deliveries are under way", handover::late_settlements),
    ("F10", "a member sleeps past its session", group::zombie),
    ("F11", "files change under load", reload::files_change),
    ("F12", "the state is killed and damaged", state::killed_and_damaged),
    ("F13", "SIGTERM in every state", shutdown::every_state),
    ("F14", "bad records among good ones", poison::bad_records),
    ("F14b", "a record that ends the process", poison::fatal_record),
    ("F15", "hostile records", poison::hostile_records),
    ("F16", "records that are too large", poison::large_records),
    ("F18", "the disk is full", disk::is_full),
    ("F18b", "files may not grow", disk::files_may_not_grow),
    ("F19", "the disk does not sync", sync::order_and_errors),
    ("F21", "passwords and certificates do not fit", credentials::do_not_fit),
    ("F22", "targets that lead into our own network", secrets::forbidden_addresses),
    ("F24", "secrets that nothing may show", secrets::canaries),
];

/// What no scenario takes; the longest takes half of it.
const LIMIT: Duration = Duration::from_secs(300);

struct Arguments {
    wanted: Vec<String>,
    seed: u64,
    small: bool,
    /// Whether to look for planted faults, not for our own.
    planted: bool,
}

fn arguments() -> Arguments {
    let mut found = Arguments { wanted: Vec::new(), seed: 1, small: false, planted: false };
    let mut all = std::env::args().skip(1);
    while let Some(argument) = all.next() {
        match argument.as_str() {
            "--seed" => found.seed = all.next().and_then(|seed| seed.parse().ok()).expect("--seed NUMBER"),
            "--planted" => found.planted = true,
            "--small" => found.small = true,
            name if !name.starts_with('-') => {
                let known = found.planted || SCENARIOS.iter().any(|(known, ..)| *known == name);
                assert!(known, "there is no scenario {name}");
                found.wanted.push(name.to_owned());
            }
            _ => {}
        }
    }
    found
}

/// What a panic said.
fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// Runs a scenario: whether it could be played here, or why it failed.
fn play(stage: &mut Stage, (name, about, run): &Scenario) -> Result<bool, String> {
    stage.begin();
    let (begin, running) = (Instant::now(), guard::guard(name, LIMIT));
    let result = catch_unwind(AssertUnwindSafe(|| run(stage))).map_err(|panic| words(&*panic));
    drop(running);
    let mut line = serde_json::Map::new();
    line.insert("scenario".into(), (*name).into());
    line.insert("about".into(), (*about).into());
    line.insert("seed".into(), stage.seed.into());
    line.insert("good".into(), result.is_ok().into());
    line.extend(stage.figures());
    line.insert("seconds".into(), ((begin.elapsed().as_secs_f64() * 10.0).round() / 10.0).into());
    if let Err(why) = &result {
        line.insert("why".into(), why.chars().take(2000).collect::<String>().into());
        stage.renew();
    }
    let played = !line.contains_key("skipped");
    println!("{}", serde_json::Value::Object(line));
    result.map(|()| played)
}

/// What processes have in their environment beside our own.
fn environment() -> Vec<(&'static str, String)> {
    planted::chosen().map(|bug| ("SLUICE_PLANTED", bug.to_owned())).into_iter().collect()
}

fn main() {
    let Arguments { wanted, seed, small, planted } = arguments();
    // Without a backtrace: the line of a scenario says why it failed.
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    let mut stage = Stage::new(seed, small);
    let mut failed = Vec::new();
    if planted {
        failed = planted::hunt(&mut stage, &wanted);
    }
    for scenario in
        SCENARIOS.iter().filter(|_| !planted).filter(|(name, ..)| wanted.is_empty() || wanted.iter().any(|w| w == name))
    {
        if play(&mut stage, scenario).is_err() {
            failed.push(scenario.0);
        }
    }
    drop(stage);
    if !failed.is_empty() {
        eprintln!("failed: {}", failed.join(", "));
        std::process::exit(1);
    }
}

//! `sluice rules`: the rules of a running process.

use super::admin::{Remote, Session, segment};
use super::output;
use crate::api::{RuleState, RuleView, Stats};
use crate::app::{Exit, Failed};
use serde::Deserialize;
use std::collections::HashMap;
use std::io::Write;

/// The rules of a running process
#[derive(clap::Subcommand)]
pub enum Rules {
    /// List rules
    Ls(Listed),
    /// Show one rule whole
    Show(One),
    /// Count what rules matched
    Stats(Listed),
    /// Make a rule match and deliver, until the process ends
    Enable(One),
    /// Make a rule rest, until the process ends
    Disable(One),
    /// Make a rule match and count without delivering, until the process ends
    Shadow(One),
    /// Give a rule the state of its file again
    Reset(One),
}

/// Rules, and how to print them.
#[derive(clap::Args)]
pub struct Listed {
    /// Only of this bus
    #[arg(long)]
    bus: Option<String>,
    /// How to print them
    #[arg(short, long, default_value = "text")]
    output: Form,
    #[command(flatten)]
    remote: Remote,
}

/// A rule.
#[derive(clap::Args)]
pub struct One {
    /// Its name
    name: String,
    /// Its bus; needed where several buses have such a rule
    #[arg(long)]
    bus: Option<String>,
    #[command(flatten)]
    remote: Remote,
}

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// For people
    Text,
    /// One document
    Json,
}

#[derive(Deserialize)]
struct Listing {
    rules: Vec<RuleView>,
}

impl Rules {
    pub fn run(self) -> Result<(), Failed> {
        match self {
            Rules::Ls(Listed { bus, output, remote }) => ls(&list(&remote.session()?, bus)?, output),
            Rules::Show(one) => show(&one.find(&one.remote.session()?)?),
            Rules::Stats(Listed { bus, output, remote }) => stats(&remote.session()?, bus, output),
            Rules::Enable(one) => one.set(Some(RuleState::Enabled)),
            Rules::Disable(one) => one.set(Some(RuleState::Disabled)),
            Rules::Shadow(one) => one.set(Some(RuleState::Shadow)),
            Rules::Reset(one) => one.set(None),
        }
    }
}

fn list(session: &Session, bus: Option<String>) -> Result<Vec<RuleView>, Failed> {
    let query: Vec<_> = bus.into_iter().map(|bus| ("bus", bus)).collect();
    Ok(session.get::<Listing>("/api/v1/rules", &query)?.rules)
}

impl One {
    fn find(&self, session: &Session) -> Result<RuleView, Failed> {
        let mut found = list(session, self.bus.clone())?;
        found.retain(|rule| rule.name == self.name);
        let on = self.bus.as_ref().map(|bus| format!(" on bus {bus}")).unwrap_or_default();
        match found.len() {
            0 => {
                Err(Failed::new(Exit::No, format!("there is no rule {}{on}; `sluice rules ls` lists them", self.name)))
            }
            1 => Ok(found.remove(0)),
            _ => {
                let buses: Vec<&str> = found.iter().map(|rule| rule.bus.as_str()).collect();
                let text = format!("rule {} is on buses {}; name one with --bus", self.name, buses.join(", "));
                Err(Failed::new(Exit::Config, text))
            }
        }
    }

    fn set(&self, state: Option<RuleState>) -> Result<(), Failed> {
        let session = self.remote.session()?;
        let rule = self.find(&session)?;
        let path = format!("/api/v1/rules/{}/{}/state", segment(&rule.bus), segment(&rule.name));
        session.put::<serde_json::Value>(&path, serde_json::json!({ "state": state }).to_string())?;
        let now = self.find(&session)?;
        let until = if now.overridden { " until the process ends; its file says otherwise" } else { "" };
        writeln!(std::io::stdout(), "{} is {}{until}", now.name, word(now.state)).map_err(output)
    }
}

fn word(state: RuleState) -> &'static str {
    match state {
        RuleState::Enabled => "enabled",
        RuleState::Disabled => "disabled",
        RuleState::Shadow => "shadow",
    }
}

/// One document on standard output.
pub fn print_json(value: &impl serde::Serialize) -> Result<(), Failed> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failed::new(Exit::Io, error.to_string()))?;
    writeln!(std::io::stdout(), "{text}").map_err(output)
}

fn ls(rules: &[RuleView], form: Form) -> Result<(), Failed> {
    if form == Form::Json {
        return print_json(&rules);
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:<20} {:<28} {:<10} targets", "bus", "rule", "state").map_err(output)?;
    for rule in rules {
        let state = format!("{}{}", word(rule.state), if rule.overridden { "*" } else { "" });
        let targets = rule.targets.join(", ");
        writeln!(out, "{:<20} {:<28} {state:<10} {targets}", rule.bus, rule.name).map_err(output)?;
    }
    if rules.iter().any(|rule| rule.overridden) {
        writeln!(out, "* set while running; the file says otherwise").map_err(output)?;
    }
    Ok(())
}

fn show(rule: &RuleView) -> Result<(), Failed> {
    let mut out = std::io::stdout().lock();
    let mut line = |name: &str, value: &str| writeln!(out, "{name:<12} {value}").map_err(output);
    line("rule", &rule.name)?;
    line("bus", &rule.bus)?;
    line("state", &format!("{}{}", word(rule.state), if rule.overridden { " (set while running)" } else { "" }))?;
    for (name, value) in [("description", &rule.description), ("owner", &rule.owner)] {
        if let Some(value) = value {
            line(name, value)?;
        }
    }
    line("targets", &rule.targets.join(", "))?;
    line("pattern", &rule.pattern)
}

fn stats(session: &Session, bus: Option<String>, form: Form) -> Result<(), Failed> {
    let mut stats: Stats = session.get("/api/v1/stats", &[])?;
    stats.rules.retain(|rule| bus.as_ref().is_none_or(|bus| *bus == rule.bus));
    stats.rules.sort_by_key(|rule| std::cmp::Reverse(rule.matches));
    if form == Form::Json {
        return print_json(&stats.rules);
    }
    let events: HashMap<&str, u64> =
        stats.buses.iter().map(|bus| (bus.name.as_str(), bus.matched + bus.unmatched)).collect();
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:<20} {:<28} {:>12} {:>8}", "bus", "rule", "matches", "share").map_err(output)?;
    for rule in &stats.rules {
        let all = events.get(rule.bus.as_str()).copied().unwrap_or(0);
        let (count, share) = match rule.matches {
            Some(count) if all > 0 => (count.to_string(), format!("{:.1} %", count as f64 * 100.0 / all as f64)),
            Some(count) => (count.to_string(), String::new()),
            None => ("?".to_owned(), String::new()),
        };
        writeln!(out, "{:<20} {:<28} {count:>12} {share:>8}", rule.bus, rule.name).map_err(output)?;
    }
    Ok(())
}

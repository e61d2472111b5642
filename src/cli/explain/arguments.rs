//! The command line of `sluice explain`: flags that do not go together are told apart by where they come from.
//!
//! In: flags and their twins in the environment. Out: [`Explain`], in which everything goes together. Promises: what is
//! typed wins over what the environment says; of what is typed nothing is ignored.

use super::super::admin::Remote;
use super::super::patterns::numbers;
use super::super::rules::Form;
use super::Explain;
use crate::pattern::Numbers;
use crate::time;
use clap::error::{Error, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Args)]
pub struct Given {
    /// The event: a file, JSON text, or - for standard input
    #[arg(long)]
    event: Option<String>,
    /// Explain events of a running process as they come, until interrupted
    #[arg(long)]
    live: bool,
    /// A pattern: JSON text, or @file
    #[arg(long)]
    pattern: Option<String>,
    /// Configuration file or folder with rules; may be repeated [with --live: the rules of the process]
    #[arg(short, long, value_name = "PATH", env = "SLUICE_CONFIG", value_delimiter = ':')]
    config: Vec<PathBuf>,
    /// Only this rule
    #[arg(long)]
    rule: Option<String>,
    /// Only rules of this bus, and with --live only its events
    #[arg(long)]
    bus: Option<String>,
    /// How many of the rules that came nearest to show whole
    #[arg(long, value_name = "N", default_value_t = 3)]
    near: usize,
    /// Show every rule whole
    #[arg(long)]
    all: bool,
    /// How to print it; with --live, json is one line an event
    #[arg(short, long, default_value = "text")]
    output: Form,
    /// With --pattern, how numbers compare: by value, as the service does, or by text, as its documentation says
    #[arg(long, value_parser = numbers())]
    number_matching: Option<Numbers>,
    /// With --live, which events
    #[arg(long, value_enum, default_value = "unmatched")]
    stage: Stage,
    /// With --live, the most events to look at, as in 100/s; what is beyond is counted
    #[arg(long, default_value = "100/s")]
    rate: String,
    /// With --live, stop after so many explained events
    #[arg(long)]
    limit: Option<u64>,
    /// With --live, stop after this long, as in 10s
    #[arg(long = "for", value_parser = time::parse_duration)]
    duration: Option<Duration>,
    #[command(flatten)]
    remote: Remote,
}

/// Which live events are explained.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Stage {
    /// That the rule that is named does not match, or else no rule.
    Unmatched,
    /// That the rule that is named matches, or else any rule.
    Matched,
    /// All.
    Ingress,
}

/// What events are put to.
pub enum Asked {
    /// A pattern's argument.
    Pattern(String, Numbers),
    /// Rules of files.
    Config(Vec<PathBuf>),
    /// Rules of the running process.
    Process,
}

/// Where events come from.
pub enum Events {
    /// The argument of one.
    One(String),
    /// A running process.
    Live(Live),
}

/// How to look at a running process.
pub struct Live {
    pub stage: Stage,
    pub rate: String,
    pub limit: Option<u64>,
    pub duration: Option<Duration>,
    pub remote: Remote,
}

impl FromArgMatches for Explain {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        Given::from_arg_matches(matches)?.resolve(&|name| matches.value_source(name) == Some(ValueSource::CommandLine))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Explain {
    fn augment_args(command: Command) -> Command {
        Given::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Given::augment_args_for_update(command)
    }
}

fn refused(why: &str) -> Error {
    Error::raw(ErrorKind::ArgumentConflict, why)
}

impl Given {
    fn resolve(mut self, typed: &dyn Fn(&str) -> bool) -> Result<Explain, Error> {
        let live = self.live && (typed("live") || !typed("event"));
        if live && typed("event") {
            return Err(refused("--live takes its events from the running process; leave out --event"));
        }
        if !live {
            let only_live = ["stage", "rate", "limit", "duration"].into_iter().find(|name| typed(name));
            if let Some(name) = only_live {
                let name = if name == "duration" { "for" } else { name };
                return Err(refused(&format!("--{name} is for --live, which is not asked for")));
            }
        }
        let asked = self.asked(live, typed)?;
        if matches!(asked, Asked::Pattern(..)) {
            self.rule = self.rule.filter(|_| typed("rule"));
            self.bus = self.bus.filter(|_| typed("bus") || live);
            if self.rule.is_some() || (self.bus.is_some() && !live) {
                return Err(refused("--rule and --bus choose among the rules of -c; a --pattern stands alone"));
            }
        }
        let events = match (live, self.event) {
            (true, _) => Events::Live(Live {
                stage: self.stage,
                rate: self.rate,
                limit: self.limit,
                duration: self.duration,
                remote: self.remote,
            }),
            (false, Some(event)) => Events::One(event),
            (false, None) => {
                let why = "give an event: --event FILE, JSON text or -; or --live for those of a running process";
                return Err(Error::raw(ErrorKind::MissingRequiredArgument, why));
            }
        };
        let (rule, bus, near, all, output) = (self.rule, self.bus, self.near, self.all, self.output);
        Ok(Explain { events, asked, rule, bus, near, all, output })
    }

    fn asked(&mut self, live: bool, typed: &dyn Fn(&str) -> bool) -> Result<Asked, Error> {
        let config = std::mem::take(&mut self.config);
        // Of live events the process's own rules are explained, whatever files the environment names.
        let files = !config.is_empty() && (typed("config") || !live);
        if typed("config") && typed("pattern") {
            return Err(refused("events are explained against a --pattern or the rules of -c, not both"));
        }
        if let Some(pattern) = self.pattern.take().filter(|_| typed("pattern") || !(typed("config") || typed("rule"))) {
            return Ok(Asked::Pattern(pattern, self.number_matching.unwrap_or_default()));
        }
        if self.number_matching.is_some() && (typed("number_matching") || !(typed("config") || live)) {
            let why =
                "--number-matching goes with --pattern; rules compare numbers as `number_matching` of their bus says";
            return Err(refused(why));
        }
        match (files, live) {
            (true, _) => Ok(Asked::Config(config)),
            (false, true) => Ok(Asked::Process),
            (false, false) => {
                let why = "give a --pattern, or -c PATH with rules";
                Err(Error::raw(ErrorKind::MissingRequiredArgument, why))
            }
        }
    }
}

//! Flags of all verbs: what is logged, colour, and a twin in the environment for every flag.

use super::Logging;
use crate::config::model::LogFormat;
use clap::builder::BoolishValueParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

/// What every verb takes.
#[derive(clap::Args)]
pub struct Global {
    /// Log filter on standard error: error, warn, info, debug, trace
    #[arg(long, global = true, env = "SLUICE_LOG_LEVEL")]
    log_level: Option<String>,
    /// How log lines look
    #[arg(long, global = true, env = "SLUICE_LOG_FORMAT", value_enum)]
    log_format: Option<Format>,
    /// Log only errors, whatever the log level
    #[arg(short, long, global = true, env = "SLUICE_QUIET")]
    quiet: bool,
    /// Log more, whatever the log level: debug, given twice trace
    #[arg(short, long, global = true, env = VERBOSE, action = ArgAction::Count)]
    verbose: u8,
    /// When to print in colour; `auto` is on terminals, unless NO_COLOR is set
    #[arg(long, global = true, env = "SLUICE_COLOR", value_enum, value_name = "WHEN", default_value = "auto")]
    color: Color,
}

const VERBOSE: &str = "SLUICE_VERBOSE";

#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    Auto,
    Text,
    Json,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Color {
    Auto,
    Always,
    Never,
}

impl Global {
    /// Takes colour into effect, for results and logs; returns what is said about logs. `matches` tell what was typed,
    /// which wins over the environment.
    pub fn apply(self, matches: &ArgMatches) -> Logging {
        let colored = match self.color {
            Color::Auto => None,
            Color::Always => Some(true),
            Color::Never => Some(false),
        };
        if let Some(colored) = colored {
            console::set_colors_enabled(colored);
            console::set_colors_enabled_stderr(colored);
        }
        let typed = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
        let level = match (self.quiet, self.verbose) {
            _ if typed("log_level") && !typed("quiet") && !typed("verbose") => self.log_level,
            (true, more) if more == 0 || typed("quiet") || !typed("verbose") => Some("error".to_owned()),
            (_, 0) => self.log_level,
            (_, 1) => Some("debug".to_owned()),
            (..) => Some("trace".to_owned()),
        };
        let format = self.log_format.map(|format| match format {
            Format::Auto => LogFormat::Auto,
            Format::Text => LogFormat::Text,
            Format::Json => LogFormat::Json,
        });
        Logging { level, format }
    }
}

/// A command line whose `match` keeps `-v` as grep has it, and whose flags can all be given in the environment:
/// `SLUICE_`, verb and flag, as `SLUICE_MATCH_COUNT`, unless the flag names its own.
pub fn complete(command: Command) -> Command {
    // In the place of the global one, which would come with its `-v`.
    let long_only = Arg::new("verbose").long("verbose").action(ArgAction::Count).env(VERBOSE).hide(true);
    twins(command.mut_subcommand("match", |grep| grep.arg(long_only)), "SLUICE")
}

fn twins(command: Command, prefix: &str) -> Command {
    command.mut_args(|arg| twin(arg, prefix)).mut_subcommands(|verb| {
        let prefix = format!("{prefix}_{}", upper(verb.get_name()));
        twins(verb, &prefix)
    })
}

fn twin(mut arg: Arg, prefix: &str) -> Arg {
    let Some(name) = arg.get_long().map(|long| format!("{prefix}_{}", upper(long))) else { return arg };
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        // `false`, `0`, `no` and `off` are off.
        arg = arg.value_parser(BoolishValueParser::new());
    }
    match arg.get_env() {
        Some(_) => arg,
        None => arg.env(name).hide_env_values(true),
    }
}

fn upper(name: &str) -> String {
    name.replace('-', "_").to_ascii_uppercase()
}

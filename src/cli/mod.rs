//! The command line: one file a verb. Results go to standard output, everything else to standard error.

mod admin;
mod archive;
mod bench;
mod bench_api;
mod bench_archive;
mod bench_bare;
mod bench_broker;
mod bench_latency;
mod bench_match;
mod config;
#[path = "../../benches/corpus/mod.rs"]
pub mod corpus;
mod demo;
mod destination;
mod dev;
mod diff;
mod dlq;
mod explain;
mod flags;
mod grep;
mod health;
mod hint;
mod lint;
mod logs;
mod orders;
mod patterns;
mod publish;
mod put;
mod recorded;
mod replay;
mod rules;
mod run;
mod tap;
mod test;
mod test_pattern;
mod top;

use crate::app::{Exit, Failed};
use crate::config::model::LogFormat;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::io::IsTerminal;
use std::path::PathBuf;

const TWINS: &str = "Every flag can be given in the environment: SLUICE_, the verb and the flag, as SLUICE_MATCH_COUNT=1 for \
                     `match --count`; a verb's --help names those that are called otherwise.";

/// EventBridge-compatible event router: Kafka, NATS and HTTP in, rules, Kafka, NATS, HTTP and logs out, nothing lost.
#[derive(Parser)]
#[command(name = "sluice", version, about, max_term_width = 100, after_help = TWINS)]
struct Arguments {
    #[command(flatten)]
    global: flags::Global,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Route events as the configuration says
    Run(run::Run),
    /// See it work: no file, no broker, no account
    Demo(demo::Demo),
    /// EventBridge on this machine, without files
    Dev(dev::Dev),
    /// Send events to a topic or a subject
    Put(put::Put),
    /// Try a pattern on an event, or many pairs
    TestPattern(test_pattern::TestPattern),
    /// Say why a pattern or rules match an event, or do not
    Explain(explain::Explain),
    /// Print the JSON lines that match a pattern
    Match(grep::Match),
    /// Check a configuration; every problem in one run
    Validate(config::Validate),
    /// Find rules that are valid and hardly meant so
    Lint(lint::Lint),
    /// Run the tests that stand beside rules
    Test(test::Test),
    /// Compare what two sets of rules match of recorded events
    Diff(diff::Diff),
    /// Show, describe or begin a configuration
    #[command(subcommand)]
    Config(config::Config),
    /// Watch live events of a running process, without slowing it
    Tap(tap::Tap),
    /// The rules of a running process
    #[command(subcommand)]
    Rules(rules::Rules),
    /// Watch what a running process is doing
    Top(top::Top),
    /// Ask a running process whether it is ready
    Health(health::Health),
    /// Read log groups
    #[command(subcommand)]
    Logs(logs::Logs),
    /// Dead letters: list, show, send again, remove
    #[command(subcommand)]
    Dlq(dlq::Dlq),
    /// Archives: list them, write their events out as JSON lines, take some in
    #[command(subcommand)]
    Archive(archive::Archive),
    /// Send archived events to their bus once more
    #[command(subcommand)]
    Replay(replay::Replay),
    /// Measure
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Print shell completions
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Configuration files or folders.
#[derive(clap::Args)]
struct Paths {
    /// Configuration file or folder; may be repeated
    #[arg(short, long = "config", env = "SLUICE_CONFIG", value_delimiter = ':', required = true)]
    config: Vec<PathBuf>,
}

/// The whole command line.
pub fn command() -> clap::Command {
    flags::complete(Arguments::command())
}

/// Runs the command line and returns the exit code.
pub fn main() -> i32 {
    let matches = command().get_matches();
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let logging = arguments.global.apply(&matches);
    match verb(arguments.verb, &logging) {
        Ok(()) => 0,
        Err(failed) => {
            if !failed.message.is_empty() {
                eprintln!("sluice: {}", failed.message);
            }
            failed.exit.code()
        }
    }
}

fn verb(verb: Verb, logging: &Logging) -> Result<(), Failed> {
    match verb {
        Verb::Run(run) => run.run(logging),
        Verb::Demo(demo) => demo.run(logging),
        Verb::Dev(dev) => dev.run(logging),
        Verb::Put(put) => put.run(logging),
        Verb::TestPattern(test) => test.run(),
        Verb::Explain(explain) => explain.run(),
        Verb::Match(grep) => grep.run(),
        Verb::Validate(validate) => validate.run(),
        Verb::Lint(lint) => lint.run(),
        Verb::Test(test) => test.run(),
        Verb::Diff(diff) => diff.run(),
        Verb::Config(config) => config.run(),
        Verb::Tap(tap) => tap.run(),
        Verb::Rules(rules) => rules.run(),
        Verb::Top(top) => top.run(),
        Verb::Health(health) => health.run(),
        Verb::Logs(logs) => logs.run(),
        Verb::Dlq(dlq) => dlq.run(),
        Verb::Archive(archive) => archive.run(),
        Verb::Replay(replay) => replay.run(),
        Verb::Bench(bench) => bench.run(logging),
        Verb::Completions { shell } => {
            clap_complete::generate(shell, &mut command(), "sluice", &mut std::io::stdout());
            Ok(())
        }
    }
}

/// What the command line says about logs.
struct Logging {
    level: Option<String>,
    format: Option<LogFormat>,
}

impl Logging {
    /// Starts logging; the command line wins over the configuration.
    fn start(&self, level: &str, format: LogFormat) -> Result<(), Failed> {
        let level = self.level.as_deref().unwrap_or(level);
        // Clients tell every step of connecting and signing; what matters of it is ours to say.
        let filter = tracing_subscriber::EnvFilter::try_new(format!("async_nats=warn,aws_sigv4=warn,{level}"))
            .map_err(|error| Failed::new(Exit::Config, format!("`{level}` is no log filter: {error}")))?;
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_target(false)
            .with_ansi(console::colors_enabled_stderr());
        let json = match self.format.unwrap_or(format) {
            LogFormat::Auto => !std::io::stderr().is_terminal(),
            LogFormat::Text => false,
            LogFormat::Json => true,
        };
        // A second start in one process leaves the first one in effect.
        if json {
            builder.json().flatten_event(true).try_init().ok()
        } else {
            builder.try_init().ok()
        };
        Ok(())
    }
}

/// A failure to write results.
fn output(error: std::io::Error) -> Failed {
    // Whoever closed the pipe, as `head` does, wants no more and no message.
    match error.kind() {
        std::io::ErrorKind::BrokenPipe => Failed::new(Exit::Io, ""),
        _ => Failed::new(Exit::Io, format!("cannot write the result: {error}")),
    }
}

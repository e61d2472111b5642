//! `sluice validate` and `sluice config`: check, print, describe, begin.

use super::{Paths, output};
use crate::app::{Exit, Failed};
use crate::config::{self, Outside, model::FileConfig};
use std::io::Write;
use std::path::PathBuf;

/// Check a configuration; every problem in one run
#[derive(clap::Args)]
pub struct Validate {
    #[command(flatten)]
    paths: Paths,
}

impl Validate {
    pub fn run(self) -> Result<(), Failed> {
        let loaded = load(&self.paths)?;
        let (rules, targets) = (loaded.config.rules.len(), loaded.config.targets.len());
        let sources = loaded.config.sources.len();
        println!("{} files: {sources} sources, {rules} rules, {targets} targets, no problems", loaded.files.len());
        Ok(())
    }
}

fn load(paths: &Paths) -> Result<config::Loaded, Failed> {
    config::load(&paths.config, &Outside::default()).map_err(|problems| Failed::new(Exit::Config, problems.to_string()))
}

/// Show, describe or begin a configuration
#[derive(clap::Subcommand)]
pub enum Config {
    /// Print the effective configuration, secrets masked
    Print {
        #[command(flatten)]
        paths: Paths,
        /// Print JSON instead of YAML
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema for editors
    Schema {
        /// Of which files
        #[arg(long, value_enum, default_value = "config")]
        kind: Files,
    },
    /// Write starter files
    Init {
        /// What to begin with
        #[arg(long, value_enum, default_value = "stream")]
        kind: Kind,
        /// Where to
        #[arg(default_value = "sluice")]
        folder: PathBuf,
    },
}

/// Files that have a schema.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Files {
    /// Configurations and rules
    Config,
    /// Rule tests
    Test,
}

/// What to begin with.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Kind {
    /// Kafka to Kafka and log groups
    Stream,
    /// JetStream to JetStream and log groups
    Nats,
    /// The EventBridge endpoint on this machine
    Endpoint,
    /// Beside an application, what it posts to Kafka
    Sidecar,
    /// Lines on standard input to lines on standard output
    Pipe,
}

impl Config {
    pub fn run(self) -> Result<(), Failed> {
        match self {
            Self::Print { paths, json } => print(&paths, json),
            Self::Schema { kind } => {
                let schema = match kind {
                    Files::Config => schemars::schema_for!(FileConfig),
                    Files::Test => config::rule_tests::schema(),
                };
                let schema = serde_json::to_string_pretty(&schema).map_err(unprintable)?;
                writeln!(std::io::stdout(), "{schema}").map_err(output)
            }
            Self::Init { kind, folder } => init(kind, &folder),
        }
    }
}

fn unprintable(error: impl std::fmt::Display) -> Failed {
    Failed::new(Exit::Io, format!("cannot print: {error}"))
}

fn print(paths: &Paths, json: bool) -> Result<(), Failed> {
    let config = load(paths)?.config;
    let text = match json {
        true => serde_json::to_string_pretty(&config).map_err(unprintable)?,
        false => serde_saphyr::to_string(&config).map_err(unprintable)?,
    };
    writeln!(std::io::stdout(), "{}", text.trim_end()).map_err(output)
}

/// The starters, which tests run too.
const STREAM: [(&str, &str); 3] = [
    ("sluice.yaml", include_str!("../../config/stream/sluice.yaml")),
    ("rules/orders.yaml", include_str!("../../config/stream/rules/orders.yaml")),
    ("rules/orders.test.yaml", include_str!("../../config/stream/rules/orders.test.yaml")),
];
const NATS: [(&str, &str); 1] = [("sluice.yaml", include_str!("../../config/nats/sluice.yaml"))];
const ENDPOINT: [(&str, &str); 1] = [("sluice.yaml", include_str!("../../config/endpoint/sluice.yaml"))];
const SIDECAR: [(&str, &str); 2] = [
    ("sluice.yaml", include_str!("../../config/sidecar/sluice.yaml")),
    ("rules/orders.yaml", include_str!("../../config/sidecar/rules/orders.yaml")),
];
const PIPE: [(&str, &str); 1] = [("sluice.yaml", include_str!("../../config/pipe/sluice.yaml"))];

fn init(kind: Kind, folder: &std::path::Path) -> Result<(), Failed> {
    let files: &[(&str, &str)] = match kind {
        Kind::Stream => &STREAM,
        Kind::Nats => &NATS,
        Kind::Endpoint => &ENDPOINT,
        Kind::Sidecar => &SIDECAR,
        Kind::Pipe => &PIPE,
    };
    let schema = serde_json::to_string_pretty(&schemars::schema_for!(FileConfig)).map_err(unprintable)?;
    // In the project the schema stands one folder up; beside the starters here.
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        if path.exists() {
            let message = format!("{} exists; remove it or name another folder", path.display());
            return Err(Failed::new(Exit::Io, message));
        }
        let parent = path.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&path, text))
            .map_err(|error| Failed::new(Exit::Io, format!("cannot write {}: {error}", path.display())))?;
        println!("{}", path.display());
        Ok(())
    };
    for (name, text) in files {
        write(name, &text.replace("$schema=../", "$schema="))?;
    }
    write("sluice.schema.json", &schema)?;
    println!("next: sluice validate -c {0} && sluice run -c {0}", folder.display());
    Ok(())
}

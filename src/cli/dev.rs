//! `sluice dev`: EventBridge on a laptop. No files: everything is made through the API, and stays.

use super::Logging;
use super::admin::Remote;
use crate::app::{App, Exit, Failed, Options};
use crate::config::{self, Outside};
use std::net::SocketAddr;
use std::path::PathBuf;

/// EventBridge on this machine, without files: `aws events`, boto3 and the SDKs make everything
#[derive(clap::Args)]
pub struct Dev {
    /// Where the EventBridge endpoint listens
    #[arg(long, env = "SLUICE_LISTEN", default_value = "127.0.0.1:4566")]
    listen: SocketAddr,
    /// Where the admin endpoints listen
    #[arg(long, env = "SLUICE_ADMIN", default_value = "127.0.0.1:4567")]
    admin: SocketAddr,
    /// Where everything is kept: remove the folder to begin anew
    #[arg(long, env = "SLUICE_STATE", default_value = "data")]
    state: PathBuf,
    /// Files with rules, targets and the rest beside what is made through the API
    #[arg(long, env = "SLUICE_LOAD")]
    load: Vec<PathBuf>,
    #[command(subcommand)]
    then: Option<Then>,
}

/// What to do with one that runs.
#[derive(clap::Subcommand)]
enum Then {
    /// Remove everything that was made in the process that runs
    Reset {
        #[command(flatten)]
        remote: Remote,
    },
}

const CONFIG: &str = include_str!("../../config/dev.yaml");

impl Dev {
    pub fn run(self, logging: &Logging) -> Result<(), Failed> {
        if let Some(Then::Reset { remote }) = self.then {
            let removed: serde_json::Value = remote.session()?.post("/api/v1/reset", String::new())?;
            println!("{} removed", removed["removed"]);
            return Ok(());
        }
        logging.start("info", config::model::LogFormat::Text)?;
        let shown = self.state.display().to_string();
        let fail = |error: std::io::Error| Failed::new(Exit::Io, format!("cannot use {shown}: {error}"));
        std::fs::create_dir_all(&self.state).map_err(fail)?;
        let path = self.state.join("dev.yaml");
        std::fs::write(&path, CONFIG).map_err(fail)?;
        let outside = |name: &str| match name {
            "DEV_LISTEN" => Some(self.listen.to_string()),
            "DEV_ADMIN" => Some(self.admin.to_string()),
            "DEV_STATE" => Some(shown.clone()),
            other => std::env::var(other).ok(),
        };
        let paths: Vec<PathBuf> = std::iter::once(path).chain(self.load).collect();
        let loaded = config::load(&paths, &Outside { env: &outside, only_rules: false })
            .map_err(|problems| Failed::new(Exit::Config, problems.to_string()))?;
        println!("EventBridge on http://{}, any credentials; what is made is kept in {shown}", self.listen);
        println!(
            "export AWS_ENDPOINT_URL_EVENTBRIDGE=http://{} AWS_ACCESS_KEY_ID=any AWS_SECRET_ACCESS_KEY=any",
            self.listen
        );
        App::start(loaded, Options::default())?.run(|_| true)
    }
}

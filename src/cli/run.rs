//! `sluice run`: the router.

use super::{Logging, Paths};
use crate::app::{App, Exit, Failed, Options};
use crate::config::values::Listen;
use crate::config::{self, Outside};
use crate::time;

/// Route events as the configuration says
#[derive(clap::Args)]
pub struct Run {
    #[command(flatten)]
    paths: Paths,
    /// Do not reload when the files change (SIGHUP still does)
    #[arg(long, env = "SLUICE_NO_WATCH")]
    no_watch: bool,
    /// Wait for brokers and topics that are not there, instead of leaving with an error
    #[arg(long, env = "SLUICE_WAIT")]
    wait: bool,
    /// Check the configuration and leave
    #[arg(long)]
    check: bool,
    /// From SIGTERM to the hard exit, as in 25s; overrides server.shutdown.drain_timeout
    #[arg(long, env = "SLUICE_DRAIN_TIMEOUT", value_parser = time::parse_duration)]
    drain_timeout: Option<std::time::Duration>,
}

impl Run {
    pub fn run(self, logging: &Logging) -> Result<(), Failed> {
        let loaded = config::load(&self.paths.config, &Outside::default())
            .map_err(|problems| Failed::new(Exit::Config, problems.to_string()))?;
        if self.check {
            return Ok(());
        }
        logging.start(&loaded.config.log.level, loaded.config.log.format)?;
        let config = &loaded.config;
        if config.sources.is_empty() && config.schedules.is_empty() && config.server.listen == Listen::Off {
            let message = "the configuration has no source; declare one under `sources:` (`sluice config init` shows how), \
                 or let events come over HTTP with `server.listen`";
            return Err(Failed::new(Exit::Config, message));
        }
        let options = Options {
            paths: self.paths.config,
            watch: !self.no_watch,
            wait: self.wait,
            drain_timeout: self.drain_timeout,
            extra: None,
        };
        App::start(loaded, options)?.run(|_| true)
    }
}

//! `sluice health`: the health check of an image that holds nothing but `sluice`.

use super::admin::Remote;
use crate::app::{Exit, Failed};
use reqwest::Method;

/// Ask a running process whether it is ready; leaves with 0 or 1
#[derive(clap::Args)]
pub struct Health {
    #[command(flatten)]
    remote: Remote,
}

impl Health {
    pub fn run(self) -> Result<(), Failed> {
        let session = self.remote.session()?;
        let asked = session.block_on(session.ask(Method::GET, "/readyz", &[("verbose", String::new())], None));
        match asked {
            Ok(_) => {
                println!("ready");
                Ok(())
            }
            // Docker knows 0 and 1 only.
            Err(failed) => Err(Failed::new(Exit::No, failed.message)),
        }
    }
}

//! `sluice bench`: measurements that a README figure can name.

use super::Logging;
use crate::app::Failed;

/// Measure
#[derive(clap::Subcommand)]
pub enum Bench {}

impl Bench {
    pub fn run(self, _: &Logging) -> Result<(), Failed> {
        match self {}
    }
}

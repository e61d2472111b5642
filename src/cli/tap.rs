//! `sluice tap`: live events of a running process.

use super::admin::{Feed, Remote, parts};
use super::output;
use super::patterns::Comparing;
use crate::app::{Exit, Failed};
use crate::pattern::Numbers;
use crate::time;
use reqwest::Method;
use std::io::Write;
use std::time::Duration;

/// Watch live events of a running process, without slowing it
#[derive(clap::Args)]
pub struct Tap {
    /// The bus; all when absent
    bus: Option<String>,
    /// Where to look: ingress, matched, unmatched, delivered or dead [default: ingress; with --rule: matched]
    #[arg(long)]
    stage: Option<String>,
    /// Only events that this pattern matches
    #[arg(long)]
    pattern: Option<String>,
    /// Only events that this rule matched
    #[arg(long)]
    rule: Option<String>,
    /// The most to show, as in 100/s; what is beyond is counted
    #[arg(long, default_value = "100/s")]
    rate: String,
    /// Stop after so many
    #[arg(long)]
    limit: Option<u64>,
    /// Stop after this long, as in 10s
    #[arg(long = "for", value_parser = time::parse_duration)]
    duration: Option<Duration>,
    /// Print rules, target and error as well, as one JSON object a line
    #[arg(short, long)]
    long: bool,
    #[command(flatten)]
    comparing: Comparing,
    #[command(flatten)]
    remote: Remote,
}

impl Tap {
    pub fn run(self) -> Result<(), Failed> {
        let mut query = vec![("rate", self.rate)];
        if self.comparing.numbers() == Numbers::Text {
            query.push(("number_matching", "text".to_owned()));
        }
        let limit = self.limit.map(|limit| limit.to_string());
        for (name, value) in
            [("bus", self.bus), ("stage", self.stage), ("pattern", self.pattern), ("rule", self.rule), ("limit", limit)]
        {
            query.extend(value.map(|value| (name, value)));
        }
        let session = self.remote.session()?;
        session.block_on(async {
            let mut answer = session.ask(Method::GET, "/api/v1/tap", &query, None).await?;
            let mut lines = Lines { long: self.long, feed: Feed::default(), skipped: 0 };
            let end = self.duration.map(|duration| tokio::time::Instant::now() + duration);
            loop {
                let chunk = match end {
                    Some(end) => match tokio::time::timeout_at(end, answer.chunk()).await {
                        Ok(chunk) => chunk,
                        Err(_) => break,
                    },
                    None => answer.chunk().await,
                };
                match chunk {
                    Ok(Some(chunk)) => lines.push(&chunk)?,
                    Ok(None) => break,
                    Err(error) => {
                        let why = format!("the process has ended: {}", crate::nats::causes(&error));
                        return Err(Failed::new(Exit::Unreachable, why));
                    }
                }
            }
            if lines.skipped > 0 {
                eprintln!("sluice: {} further events were not shown (--rate)", lines.skipped);
            }
            Ok(())
        })
    }
}

/// Server-sent events to lines.
struct Lines {
    long: bool,
    feed: Feed,
    skipped: u64,
}

impl Lines {
    fn push(&mut self, chunk: &[u8]) -> Result<(), Failed> {
        let mut out = std::io::stdout().lock();
        for data in self.feed.push(chunk) {
            let (about, event) = parts(&data);
            self.skipped += about["skipped"].as_u64().unwrap_or(0);
            let shown = if self.long { data.trim_end() } else { event };
            writeln!(out, "{shown}").and_then(|()| out.flush()).map_err(output)?;
        }
        Ok(())
    }
}

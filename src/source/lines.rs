//! JSON lines from standard input and files: read once, from the first line to the last.
//!
//! The line's number is its offset, so a file that is read again gives the same delivery ids. Nothing is committed.

use super::batch::{Gather, Reading};
use super::{Feed, Setup};
use crate::ack::{OffsetTracker, Report};
use crate::credit::Credit;
use crate::metrics::labels;
use crate::time;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The longest line that is read; a longer one ends the source with an error.
const LINE_BYTES: u64 = 64 << 20;

/// Where lines come from.
pub enum LineSource {
    /// Standard input.
    Stdin,
    /// A file.
    File(PathBuf),
    /// Lines that something in this process makes, and their name.
    Reader(String, Box<dyn Read + Send>),
}

impl LineSource {
    /// Reads to the end, then waits until everything is settled.
    pub fn run(self, setup: &Setup, feed: &Feed) {
        let opened: (Arc<str>, std::io::Result<Box<dyn Read>>) = match self {
            Self::Stdin => ("stdin".into(), Ok(Box::new(std::io::stdin()))),
            Self::File(path) => {
                let name = path.display().to_string().into();
                (name, std::fs::File::open(path).map(|file| Box::new(file) as Box<dyn Read>))
            }
            Self::Reader(name, lines) => (name.into(), Ok(lines)),
        };
        let (name, result) = opened;
        let read =
            result.and_then(|input| Reader::new(setup, feed, &name).read(BufReader::with_capacity(256 << 10, input)));
        if let Err(error) = read {
            // The process stops for it; there may be nobody left to tell.
            drop(feed.fatal.try_send(format!("source {}: cannot read {name}: {error}", setup.info.name)));
        }
    }
}

struct Reader<'a> {
    setup: &'a Setup,
    feed: &'a Feed,
    name: &'a Arc<str>,
    tracker: OffsetTracker,
    report: Arc<Report>,
    credit: Arc<Credit>,
}

impl<'a> Reader<'a> {
    fn new(setup: &'a Setup, feed: &'a Feed, name: &'a Arc<str>) -> Self {
        let mut tracker = OffsetTracker::default();
        let partition = tracker.add();
        tracker.assign(partition);
        let credit = Arc::new(Credit::new(setup.window));
        Self { setup, feed, name, tracker, report: Arc::default(), credit }
    }

    fn read(mut self, mut input: BufReader<Box<dyn Read>>) -> std::io::Result<()> {
        let families = &self.feed.metrics.families;
        let own = labels([("source", &self.setup.info.name)]);
        let (events, bytes) =
            (families.source_events.get_or_create_owned(&own), families.source_bytes.get_or_create_owned(&own));
        let mut gather = Gather::new(self.setup, &self.feed.lanes, &self.report, &self.credit);
        let (mut line, mut number) = (Vec::new(), 0i64);
        while !self.feed.stop.is_set() {
            line.clear();
            let read = input.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line)?;
            if read == 0 {
                break;
            }
            if read as u64 == LINE_BYTES {
                let message = format!("line {} is longer than {LINE_BYTES} bytes", number + 1);
                return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, message));
            }
            let payload = line.trim_ascii_end();
            if !payload.trim_ascii().is_empty() {
                events.inc();
                bytes.inc_by(payload.len() as u64);
                let reading = Reading {
                    topic: self.name,
                    partition: 0,
                    number: 0,
                    offset: number,
                    key: None,
                    payload,
                    headers: Vec::new(),
                    time_millis: time::wall_millis(),
                };
                let full = gather.push(reading, &self.tracker);
                // Nothing more at hand: what is there must not wait.
                if full || !input.buffer().contains(&b'\n') {
                    gather.flush(&mut self.tracker);
                    self.settle(Duration::ZERO, |credit, _| credit.exhausted());
                }
            }
            number += 1;
        }
        gather.flush(&mut self.tracker);
        self.settle(Duration::from_millis(50), |_, tracker| !tracker.idle());
        Ok(())
    }

    /// Takes reports, and goes on waiting for them while `busy`.
    fn settle(&mut self, first: Duration, busy: impl Fn(&Credit, &OffsetTracker) -> bool) {
        let mut wait = first;
        loop {
            for run in self.report.take(wait) {
                self.tracker.settle(&run);
            }
            if !busy(&self.credit, &self.tracker) {
                return;
            }
            wait = Duration::from_millis(50);
        }
    }
}

//! JSON lines from standard input and files: read once, from the first line to the last.
//!
//! The line's number is its offset, so a file that is read again gives the same delivery ids. Nothing is committed.

use super::batch::{Gather, Reading};
use super::{Feed, Setup};
use crate::ack::{OffsetTracker, Report};
use crate::credit::Credit;
use crate::metrics::labels;
use crate::time;
use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The longest line that is read; a longer one ends the source with an error.
const LINE_BYTES: usize = 64 << 20;
/// Bytes read at once, and how many such pieces wait to be cut into lines.
const PIECE_BYTES: usize = 64 << 10;
const PIECES: usize = 8;
/// How often a source without input looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(50);

/// Where lines come from.
pub enum LineSource {
    /// Standard input.
    Stdin,
    /// A file.
    File(PathBuf),
    /// Lines that something in this process makes, and their name. Read to their end even when the process drains:
    /// who makes them ends them.
    Reader(String, Box<dyn Read + Send>),
}

impl LineSource {
    /// Reads to the end, then waits until everything is settled.
    pub fn run(self, setup: &Setup, feed: &Feed) {
        let to_the_end = matches!(self, Self::Reader(..));
        let (name, input): (Arc<str>, io::Result<Box<dyn Read + Send>>) = match self {
            // Line numbers begin anew with every process, so the name must differ as well: no two events share ids.
            Self::Stdin => (format!("stdin-{}", time::wall_millis()).into(), Ok(Box::new(io::stdin()))),
            Self::File(path) => {
                let name = path.display().to_string().into();
                (name, std::fs::File::open(path).map(|file| Box::new(file) as Box<dyn Read + Send>))
            }
            Self::Reader(name, lines) => (name.into(), Ok(lines)),
        };
        let read =
            input.and_then(Lines::start).and_then(|lines| Reader::new(setup, feed, &name).read(lines, to_the_end));
        if let Err(error) = read {
            let message = format!("source {}: cannot read {name}: {error}", setup.info.name);
            // The process stops for the first reason; later ones find the channel full.
            feed.fatal.try_send(message).unwrap_or_default();
        }
    }
}

/// Input cut into lines. A thread of its own reads, for reading may block for ever.
struct Lines {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    at: usize,
    /// The beginning of a line whose end has not been read.
    line: Vec<u8>,
}

/// What there is to take.
enum Next {
    /// A line, without its end.
    Line(Vec<u8>),
    /// Nothing now.
    Later,
    /// Nothing any more.
    End,
}

impl Lines {
    fn start(mut input: Box<dyn Read + Send>) -> io::Result<Self> {
        let (out, pieces) = bounded(PIECES);
        std::thread::Builder::new().name("sluice-lines".into()).spawn(move || {
            loop {
                let mut piece = vec![0; PIECE_BYTES];
                let read = match input.read(&mut piece) {
                    Ok(0) => return,
                    Ok(read) => {
                        piece.truncate(read);
                        Ok(piece)
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                let over = read.is_err();
                if out.send(read).is_err() || over {
                    return;
                }
            }
        })?;
        Ok(Self { pieces, piece: Vec::new(), at: 0, line: Vec::new() })
    }

    /// The next line; waits for it up to `wait`.
    fn next(&mut self, wait: Duration) -> io::Result<Next> {
        loop {
            let rest = &self.piece[self.at..];
            if let Some(end) = rest.iter().position(|&b| b == b'\n') {
                self.line.extend_from_slice(&rest[..end]);
                self.at += end + 1;
                return Ok(Next::Line(std::mem::take(&mut self.line)));
            }
            self.line.extend_from_slice(rest);
            self.at = self.piece.len();
            if self.line.len() > LINE_BYTES {
                let message = format!("a line is longer than {LINE_BYTES} bytes");
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            match self.pieces.recv_timeout(wait) {
                Ok(piece) => (self.piece, self.at) = (piece?, 0),
                Err(RecvTimeoutError::Timeout) => return Ok(Next::Later),
                Err(RecvTimeoutError::Disconnected) if self.line.is_empty() => return Ok(Next::End),
                Err(RecvTimeoutError::Disconnected) => return Ok(Next::Line(std::mem::take(&mut self.line))),
            }
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

    fn read(mut self, mut lines: Lines, to_the_end: bool) -> io::Result<()> {
        let families = &self.feed.metrics.families;
        let own = labels([("source", &self.setup.info.name)]);
        let (events, bytes) =
            (families.source_events.get_or_create_owned(&own), families.source_bytes.get_or_create_owned(&own));
        let mut gather = Gather::new(self.setup, &self.feed.lanes, &self.report, &self.credit);
        let (mut number, mut wait) = (0i64, Duration::ZERO);
        while to_the_end || !self.feed.stop.is_set() {
            let full = match lines.next(wait)? {
                Next::End => break,
                // Nothing more at hand: what is there must not wait.
                Next::Later => {
                    wait = LOOK;
                    true
                }
                Next::Line(line) => {
                    wait = Duration::ZERO;
                    number += 1;
                    let payload = line.trim_ascii_end();
                    if payload.trim_ascii().is_empty() {
                        continue;
                    }
                    events.inc();
                    bytes.inc_by(payload.len() as u64);
                    gather.push(self.reading(number - 1, payload), &self.tracker)
                }
            };
            if full {
                self.flush(&mut gather)?;
                self.settle(Duration::ZERO, |credit, _| credit.exhausted());
            }
        }
        self.flush(&mut gather)?;
        self.settle(LOOK, |_, tracker| !tracker.idle());
        Ok(())
    }

    fn reading<'r>(&'r self, offset: i64, payload: &'r [u8]) -> Reading<'r> {
        Reading {
            topic: self.name,
            partition: 0,
            number: 0,
            offset,
            order: offset,
            key: None,
            payload,
            headers: Vec::new(),
            time_millis: time::wall_millis(),
        }
    }

    fn flush(&mut self, gather: &mut Gather<'_>) -> io::Result<()> {
        let sent = gather.flush(&mut self.tracker);
        sent.then_some(()).ok_or_else(|| io::Error::other("the workers are gone"))
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
            wait = LOOK;
        }
    }
}

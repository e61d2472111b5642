//! `sluice logs`: list, follow and search log groups.

use super::output;
use super::patterns::Comparing;
use crate::app::{Exit, Failed};
use crate::deliver::dispatcher::group_folder;
use crate::event::Tree;
use crate::pattern::{self, Limits, Numbers, Pattern};
use crate::time;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

/// Read log groups
#[derive(clap::Subcommand)]
pub enum Logs {
    /// List log groups with their streams and sizes
    Ls {
        #[command(flatten)]
        place: Place,
    },
    /// Print the last events of a group, and with --follow those to come
    Tail {
        /// The group, as in /aws/events/orders
        group: String,
        /// How many events
        #[arg(short = 'n', long, default_value_t = 10)]
        lines: usize,
        /// Go on until interrupted
        #[arg(short, long)]
        follow: bool,
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        place: Place,
    },
    /// Print all events of a group that fit
    Search {
        /// The group, as in /aws/events/orders
        group: String,
        #[command(flatten)]
        filter: Filter,
        #[command(flatten)]
        place: Place,
    },
}

/// Where log groups are.
#[derive(clap::Args)]
pub struct Place {
    /// The data directory of the router
    #[arg(long, env = "SLUICE_DATA_DIR", default_value = "data")]
    data_dir: PathBuf,
}

/// Which events.
#[derive(clap::Args)]
pub struct Filter {
    /// Only events that match this EventBridge pattern
    #[arg(long)]
    pattern: Option<String>,
    /// Only events whose `time` is not before this: 15m ago, or 2024-01-31T09:00:00Z
    #[arg(long)]
    since: Option<String>,
    #[command(flatten)]
    comparing: Comparing,
}

impl Logs {
    pub fn run(self) -> Result<(), Failed> {
        match self {
            Self::Ls { place } => ls(&place),
            Self::Tail { group, lines, follow, filter, place } => tail(&group, lines, follow, &filter.ready()?, &place),
            Self::Search { group, filter, place } => {
                let test = filter.ready()?;
                let mut out = std::io::stdout().lock();
                for stream in streams(&place, &group)? {
                    each_line(&stream, |line| if test.fits(line) { put(&mut out, line) } else { Ok(()) })?;
                }
                Ok(())
            }
        }
    }
}

/// A filter, parsed.
struct Ready {
    pattern: Option<Pattern>,
    numbers: Numbers,
    since: Option<i64>,
}

impl Filter {
    fn ready(&self) -> Result<Ready, Failed> {
        let pattern = self.pattern.as_ref().map(|text| pattern::parse(text.as_bytes(), &Limits::default())).transpose();
        let pattern =
            pattern.map_err(|error| Failed::new(Exit::Config, format!("the pattern is not valid: {error}")))?;
        let since = self.since.as_ref().map(|text| time::parse_since(text, time::wall_millis())).transpose();
        let numbers = self.comparing.numbers();
        Ok(Ready { pattern, numbers, since: since.map_err(|message| Failed::new(Exit::Config, message))? })
    }
}

impl Ready {
    fn fits(&self, line: &[u8]) -> bool {
        if self.pattern.is_none() && self.since.is_none() {
            return true;
        }
        let Ok(tree) = Tree::parse(line) else { return false };
        let late = |since| {
            let time = tree.root().get(b"time").map(|node| node.text().into_owned());
            time.and_then(|text| time::parse_iso(&String::from_utf8_lossy(&text))).is_some_and(|time| time >= since)
        };
        self.since.is_none_or(late)
            && self.pattern.as_ref().is_none_or(|pattern| pattern::matches(pattern, &tree, self.numbers))
    }
}

fn unreadable(path: &Path) -> impl FnOnce(std::io::Error) -> Failed {
    let path = path.display().to_string();
    move |error| Failed::new(Exit::Io, format!("cannot read {path}: {error}"))
}

fn put(out: &mut impl Write, line: &[u8]) -> Result<(), Failed> {
    out.write_all(line).and_then(|()| out.write_all(b"\n")).map_err(output)
}

fn each_line(path: &Path, mut take: impl FnMut(&[u8]) -> Result<(), Failed>) -> Result<(), Failed> {
    let mut reader = BufReader::new(File::open(path).map_err(unreadable(path))?);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).map_err(unreadable(path))? > 0 {
        take(line.trim_ascii_end())?;
        line.clear();
    }
    Ok(())
}

/// The streams of a group, oldest first.
fn streams(place: &Place, group: &str) -> Result<Vec<PathBuf>, Failed> {
    let folder = group_folder(&place.data_dir, group);
    let entries = std::fs::read_dir(&folder).map_err(|error| {
        let help = format!("`sluice logs ls --data-dir {}` lists the groups", place.data_dir.display());
        Failed::new(Exit::Io, format!("no log group {group}: {error}; {help}"))
    })?;
    let mut streams: Vec<(std::time::SystemTime, PathBuf)> = entries
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|end| end == "jsonl"))
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    streams.sort();
    Ok(streams.into_iter().map(|(_, path)| path).collect())
}

fn ls(place: &Place) -> Result<(), Failed> {
    let top = place.data_dir.join("logs");
    let mut groups: BTreeMap<String, (usize, u64)> = BTreeMap::new();
    let mut todo = vec![top.clone()];
    while let Some(folder) = todo.pop() {
        for entry in std::fs::read_dir(&folder).map_err(unreadable(&folder))?.flatten() {
            let path = entry.path();
            if path.is_dir() {
                todo.push(path);
            } else if let Ok(group) = folder.strip_prefix(&top) {
                let (streams, bytes) = groups.entry(format!("/{}", group.display())).or_default();
                *streams += 1;
                *bytes += entry.metadata().map_or(0, |data| data.len());
            }
        }
    }
    let mut out = std::io::stdout().lock();
    for (group, (streams, bytes)) in groups {
        writeln!(out, "{group}\t{streams} streams\t{bytes} bytes").map_err(output)?;
    }
    Ok(())
}

fn tail(group: &str, lines: usize, follow: bool, test: &Ready, place: &Place) -> Result<(), Failed> {
    let mut out = std::io::stdout().lock();
    let mut last = std::collections::VecDeque::new();
    let mut positions: BTreeMap<PathBuf, u64> = BTreeMap::new();
    for stream in streams(place, group)? {
        let mut read = 0;
        each_line(&stream, |line| {
            read += line.len() as u64 + 1;
            if test.fits(line) {
                last.push_back(line.to_vec());
                if last.len() > lines {
                    last.pop_front();
                }
            }
            Ok(())
        })?;
        positions.insert(stream, read);
    }
    for line in last {
        put(&mut out, &line)?;
    }
    if !follow {
        return Ok(());
    }
    loop {
        for stream in streams(place, group)? {
            let position = positions.entry(stream.clone()).or_default();
            follow_file(&stream, position, test, &mut out)?;
        }
        out.flush().map_err(output)?;
        // Looks again a few times a second, until interrupted.
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

fn follow_file(path: &Path, position: &mut u64, test: &Ready, out: &mut impl Write) -> Result<(), Failed> {
    use std::io::{Seek, SeekFrom};
    let mut file = File::open(path).map_err(unreadable(path))?;
    file.seek(SeekFrom::Start(*position)).map_err(unreadable(path))?;
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).map_err(unreadable(path))? > 0 && line.ends_with(b"\n") {
        *position += line.len() as u64;
        let event = line.trim_ascii_end();
        if test.fits(event) {
            put(out, event)?;
        }
        line.clear();
    }
    Ok(())
}

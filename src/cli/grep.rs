//! `sluice match`: grep for JSON lines, on all cores, in the order of the input.

use super::output;
use super::patterns::{Comparing, compile, pattern, pattern_in};
use super::recorded::open;
use crate::app::{Exit, Failed};
use crate::event::{Kind, Scanner, Tree};
use crate::matcher::Judge;
use crate::matcher::Matcher;
use crate::transform::{JsonPath, Selection};
use crossbeam_channel::{Receiver, Sender, bounded};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// Bytes of a block: whole lines, decided on one core.
const BLOCK: usize = 1 << 20;

/// Print the JSON lines that match a pattern: leaves with 0 when there are some, 1 when there are none, 2 on trouble
#[derive(clap::Args)]
pub struct Match {
    /// The pattern, unless -f gives some; then files, plain, .gz or .zst, or - for standard input, which is read when there
    /// are none
    #[arg(value_name = "PATTERN [FILE]", required_unless_present = "file")]
    arguments: Vec<String>,
    /// Take the patterns from a file, or - for standard input, one a line; a line matches when any of them does
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Print the lines that do not match: blank ones, too, and those that are no events
    #[arg(short = 'v', long)]
    invert_match: bool,
    /// Print only how many lines there are
    #[arg(short, long)]
    count: bool,
    /// Print line numbers
    #[arg(short = 'n', long)]
    line_number: bool,
    /// Where in each line the event is, as detail.original or $.records[*]: an object, or its JSON text; of several, one
    /// has to match
    #[arg(long, value_name = "PATH", value_parser = inside)]
    path: Option<JsonPath>,
    /// Print the file before each line, as for several files
    #[arg(short = 'H', long)]
    with_filename: bool,
    /// Print no files before lines, unless -H is given
    #[arg(long)]
    no_filename: bool,
    #[command(flatten)]
    comparing: Comparing,
}

/// A path, with or without its `$.`.
fn inside(text: &str) -> Result<JsonPath, String> {
    match text.starts_with('$') {
        true => JsonPath::parse(text),
        false => JsonPath::parse(&format!("$.{text}")),
    }
}

/// What is wanted of each line.
#[derive(Clone, Copy)]
struct Wanted<'w> {
    path: Option<&'w JsonPath>,
    invert: bool,
    count: bool,
    numbers: bool,
}

/// Whole lines of one input.
struct Block {
    bytes: Vec<u8>,
    /// The number of its first line, from 1; counted only where numbers are printed.
    first: u64,
}

/// What a block comes to.
#[derive(Default)]
struct Found {
    text: Vec<u8>,
    lines: u64,
    /// Lines that are no JSON objects, and what is wrong with the first.
    invalid: u64,
    why: Option<String>,
}

impl Match {
    pub fn run(self) -> Result<(), Failed> {
        let files = self.files()?;
        let patterns = self.patterns().map_err(|failed| Failed::new(Exit::Usage, failed.message))?;
        let matcher = compile(&patterns, self.comparing.numbers());
        let wanted = Wanted {
            path: self.path.as_ref(),
            invert: self.invert_match,
            count: self.count,
            numbers: self.line_number,
        };
        let (mut some, mut trouble) = (false, false);
        for file in &files {
            let named = self.with_filename || (files.len() > 1 && !self.no_filename);
            let label = named.then_some(if *file == "-" { "(standard input)" } else { file });
            match search(&matcher, file, label, wanted) {
                Ok(found) => some |= found > 0,
                Err(failed) if failed.exit == Exit::Usage => {
                    eprintln!("sluice: {}", failed.message);
                    trouble = true;
                }
                Err(failed) => return Err(failed),
            }
        }
        match (trouble, some) {
            (true, _) => Err(Failed::new(Exit::Usage, "")),
            (false, true) => Ok(()),
            (false, false) => Err(Failed::new(Exit::No, "")),
        }
    }

    /// The files to search.
    fn files(&self) -> Result<Vec<&str>, Failed> {
        let mut files: Vec<&str> =
            self.arguments.iter().skip(usize::from(self.file.is_none())).map(String::as_str).collect();
        if files.is_empty() {
            files.push("-");
        }
        if self.file.as_deref() == Some(Path::new("-")) && files.contains(&"-") {
            let message = "standard input gives the patterns (-f -); name the FILE to search";
            return Err(Failed::new(Exit::Usage, message));
        }
        Ok(files)
    }

    fn patterns(&self) -> Result<Vec<crate::pattern::Pattern>, Failed> {
        let Some(file) = &self.file else {
            return self.arguments.first().map(|text| pattern(text.as_bytes())).into_iter().collect();
        };
        let mut text = Vec::new();
        open(file)
            .and_then(|mut input| input.read_to_end(&mut text))
            .map_err(|error| unreadable(&file.display().to_string(), &error))?;
        let mut next = 0;
        let lines = text.split(|&b| b == b'\n').map(|line| {
            let from = next;
            next += line.len() + 1;
            from..from + line.len()
        });
        let lines = lines.enumerate().filter(|(_, line)| !text[line.clone()].trim_ascii().is_empty());
        let parsed = lines.map(|(n, line)| {
            pattern_in(&text, line)
                .map_err(|failed| Failed::new(failed.exit, format!("{}:{}: {}", file.display(), n + 1, failed.message)))
        });
        parsed.collect()
    }
}

fn unreadable(file: &str, error: &std::io::Error) -> Failed {
    Failed::new(Exit::Usage, format!("cannot read {file}: {error}"))
}

/// Prints what a file has; returns how many lines.
fn search(matcher: &Matcher, file: &str, label: Option<&str>, wanted: Wanted<'_>) -> Result<u64, Failed> {
    let mut input = open(Path::new(file)).map_err(|error| unreadable(file, &error))?;
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let (work, todo) = bounded::<(Block, Sender<Found>)>(workers);
    // Answers in the order of the blocks; so many wait at most.
    let (order, answers) = bounded::<Receiver<Found>>(workers * 2);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            let todo = todo.clone();
            scope.spawn(move || {
                let mut asked = Asked { judge: Judge::new(matcher), path: wanted.path, scanner: Scanner::default() };
                while let Ok((block, answer)) = todo.recv() {
                    // Nobody waits for it any more when the output is closed.
                    answer.send(look(&mut asked, &block, label, wanted)).unwrap_or_default();
                }
            });
        }
        drop(todo);
        let reader = scope.spawn(move || {
            blocks(&mut input, wanted.numbers, |block| {
                let (answer, found) = bounded(1);
                order.send(found).is_ok() && work.send((block, answer)).is_ok()
            })
        });
        let printed = print(answers, file, label, wanted);
        let read = reader.join().map_err(|_| Failed::new(Exit::Bug, "reading failed inside Sluice"))?;
        let found = printed?;
        read.map_err(|error| unreadable(file, &error))?;
        Ok(found)
    })
}

/// Cuts an input into blocks of whole lines until `take` wants no more.
fn blocks(input: &mut dyn Read, numbered: bool, mut take: impl FnMut(Block) -> bool) -> std::io::Result<()> {
    let (mut rest, mut first) = (Vec::new(), 1);
    loop {
        let mut bytes = std::mem::take(&mut rest);
        let mut at_end = false;
        // A line longer than a block makes it grow.
        let end = loop {
            let before = bytes.len();
            // One read: lines of a slow pipe are not kept back until a block is full.
            bytes.resize(before + BLOCK, 0);
            let read = input.read(&mut bytes[before..])?;
            bytes.truncate(before + read);
            at_end |= read == 0;
            if at_end {
                break bytes.len();
            }
            if let Some(end) = bytes[before..].iter().rposition(|&b| b == b'\n') {
                break before + end + 1;
            }
        };
        rest.extend_from_slice(&bytes[end..]);
        bytes.truncate(end);
        if bytes.is_empty() {
            return Ok(());
        }
        let lines = if numbered { bytes.iter().filter(|&&b| b == b'\n').count() as u64 } else { 0 };
        if !take(Block { bytes, first }) || at_end {
            return Ok(());
        }
        first += lines;
    }
}

/// The patterns, and where the event is in a line.
struct Asked<'m> {
    judge: Judge<'m>,
    path: Option<&'m JsonPath>,
    /// For lines around events.
    scanner: Scanner,
}

impl Asked<'_> {
    /// Whether some pattern matches; or what is wrong with the line.
    fn matches(&mut self, line: &[u8]) -> Result<bool, String> {
        let mut decide = |event: &[u8]| self.judge.matches(event).map(|rules| !rules.is_empty());
        let Some(path) = self.path else { return decide(line).map_err(|fault| fault.to_string()) };
        let tree = Tree::parse_wrapped(line, &mut self.scanner).map_err(|fault| fault.to_string())?;
        let events = match path.select(tree.root()) {
            Selection::One(event) => event.into_iter().collect(),
            Selection::Every(events) => events,
        };
        let mut verdict = Ok(false);
        for event in events {
            let text = if event.kind() == Kind::String { event.text() } else { event.raw().into() };
            match decide(&text) {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(fault) => verdict = verdict.and(Err(format!("{fault} of the value at {path}"))),
            }
        }
        verdict
    }
}

/// The lines of a block that are wanted. A line that is no event matches nothing.
fn look(asked: &mut Asked<'_>, block: &Block, label: Option<&str>, wanted: Wanted<'_>) -> Found {
    let mut found = Found::default();
    for (n, line) in block.bytes.split_inclusive(|&b| b == b'\n').enumerate() {
        let event = line.trim_ascii();
        let matched = !event.is_empty()
            && asked.matches(event).unwrap_or_else(|why| {
                found.invalid += 1;
                found.why.get_or_insert(why);
                false
            });
        if matched == wanted.invert {
            continue;
        }
        found.lines += 1;
        if wanted.count {
            continue;
        }
        if let Some(label) = label {
            found.text.extend_from_slice(label.as_bytes());
            found.text.push(b':');
        }
        if wanted.numbers {
            found.text.extend_from_slice(format!("{}:", block.first + n as u64).as_bytes());
        }
        found.text.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
        found.text.push(b'\n');
    }
    found
}

fn print(
    answers: Receiver<Receiver<Found>>,
    file: &str,
    label: Option<&str>,
    wanted: Wanted<'_>,
) -> Result<u64, Failed> {
    let mut out = BufWriter::with_capacity(BLOCK, std::io::stdout().lock());
    let (mut lines, mut invalid, mut why) = (0, 0, None);
    for answer in &answers {
        let found = answer.recv().map_err(|_| Failed::new(Exit::Bug, "matching failed inside Sluice"))?;
        out.write_all(&found.text).map_err(output)?;
        if answers.is_empty() {
            // Nothing more at hand: what is there must not wait.
            out.flush().map_err(output)?;
        }
        lines += found.lines;
        invalid += found.invalid;
        why = why.or(found.why);
    }
    if wanted.count {
        let label = label.map(|label| format!("{label}:")).unwrap_or_default();
        writeln!(out, "{label}{lines}").map_err(output)?;
    }
    out.flush().map_err(output)?;
    if let Some(why) = why {
        let lines = if invalid == 1 { "line is no event and matches" } else { "lines are no events and match" };
        eprintln!("sluice: {file}: {invalid} {lines} nothing; the first: {why}");
    }
    Ok(lines)
}

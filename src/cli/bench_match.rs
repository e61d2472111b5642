//! `sluice bench match`: decode and match at scale, beside simd-json's tape of the same bytes in the same run.

use super::corpus::hostile::Set;
use super::corpus::orders::{self, Mix};
use super::output;
use super::patterns::Comparing;
use crate::app::{Exit, Failed};
use crate::catalog::MAX_ALTERNATIVES;
use crate::event::{FaultKind, Scanner, Tree, decode};
use crate::matcher::{Builder, Matcher, Scratch};
use crate::metrics::Usage;
use crate::pattern::{self, Limits, Pattern};
use crate::time;
use bumpalo::Bump;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::json;
use simd_json::{Buffers, Tape, fill_tape};
use std::hint::black_box;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Decode and match, beside simd-json's tape of the same bytes
#[derive(clap::Args)]
pub struct Match {
    /// Rules as JSON lines: {"name": …, "pattern": {…}}
    #[arg(long, required_unless_present = "generate")]
    rules: Option<PathBuf>,
    /// Events as JSON lines; with --generate how many to make
    #[arg(long, default_value = "10000")]
    events: String,
    /// Make rules and events instead: `orders`, or a set that is made to hurt (the README says what each asks)
    #[arg(long, value_parser = kinds())]
    generate: Option<Kind>,
    /// How many rules to make
    #[arg(long, default_value_t = 1000, requires = "generate")]
    count: u64,
    /// What they are made from
    #[arg(long, default_value_t = 1, requires = "generate")]
    seed: u64,
    /// Which operators rules on orders use
    #[arg(long, value_enum, default_value = "full", requires = "generate")]
    mix: Operators,
    /// Order lines of an event, 2 if not said, or objects of one, 1000 if not said
    #[arg(long, requires = "generate")]
    items: Option<u64>,
    /// Sources that rules and events on orders are spread over: as many more of them as rules keep the matches an event has
    #[arg(long, default_value_t = orders::SHOPS, requires = "generate")]
    sources: u64,
    /// Write what was made to rules.jsonl and events.jsonl in this folder, and measure nothing
    #[arg(long, requires = "generate", value_name = "FOLDER")]
    write: Option<PathBuf>,
    /// Threads, each on all events
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,
    /// How often to go through the events
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat: u32,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    comparing: Comparing,
}

/// What is made: orders, or a set.
#[derive(Clone, Copy)]
struct Kind(Option<Set>);

fn kinds() -> impl TypedValueParser<Value = Kind> {
    let names = std::iter::once("orders").chain(Set::ALL.iter().map(|(set, _)| set.name()));
    let set = |name: String| Set::ALL.iter().map(|(set, _)| *set).find(|set| set.name() == name);
    PossibleValuesParser::new(names).map(move |name| Kind(set(name)))
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Operators {
    Common,
    Full,
}

/// What was measured.
struct Measured {
    build: Duration,
    retained: u64,
    matches: u64,
    /// Events whose arrays would take more steps than an event has.
    refused: u64,
    /// Nanoseconds an event of each repetition.
    ours: Vec<f64>,
    tape: Vec<f64>,
}

impl Match {
    pub fn run(self) -> Result<(), Failed> {
        let (rules, events) = self.input()?;
        if let Some(folder) = &self.write {
            return write(folder, &rules, &events);
        }
        let patterns = rules.iter().map(|rule| self.pattern(rule)).collect::<Result<Vec<_>, _>>()?;
        let alternatives: usize = patterns.iter().map(|pattern| pattern.alternatives.len()).sum();
        if alternatives > MAX_ALTERNATIVES {
            let message = format!(
                "the rules have {alternatives} alternatives, `$or` multiplied out: more than {MAX_ALTERNATIVES} together"
            );
            return Err(Failed::new(Exit::Config, message));
        }
        let measured = self.measure(&patterns, &events)?;
        self.report(&measured, rules.len(), &events)
    }

    fn input(&self) -> Result<(Vec<Line>, Vec<Line>), Failed> {
        let Some(Kind(kind)) = self.generate else {
            let rules = self.rules.as_deref().map(lines).transpose()?.unwrap_or_default();
            return Ok((rules, lines(Path::new(&self.events))?));
        };
        let mix = match self.mix {
            Operators::Common => Mix::Common,
            Operators::Full => Mix::Full,
        };
        let count: u64 = self.events.parse().map_err(|_| {
            Failed::new(Exit::Usage, format!("with --generate, --events is a number, not `{}`", self.events))
        })?;
        let rule = |number| {
            let pattern = match kind {
                None => orders::pattern(self.seed, number, self.sources, mix),
                Some(set) => set.pattern(self.seed, number),
            };
            Line { number: number + 1, text: format!("{{\"name\":\"r{number}\",\"pattern\":{pattern}}}").into_bytes() }
        };
        let event = |number| {
            let event = match kind {
                None => orders::event(self.seed, number, self.sources, self.items.unwrap_or(2)),
                Some(set) => set.event(self.seed, number, self.items.unwrap_or(1000)),
            };
            Line { number: number + 1, text: event.into_bytes() }
        };
        Ok(((0..self.count).map(rule).collect(), (0..count).map(event).collect()))
    }

    /// Where a line stands.
    fn place(&self, file: Option<&Path>, line: &Line) -> String {
        let file = file.filter(|_| self.generate.is_none()).map_or("made".into(), |file| file.display().to_string());
        format!("{file}:{}", line.number)
    }

    fn pattern(&self, rule: &Line) -> Result<Pattern, Failed> {
        let place = self.place(self.rules.as_deref(), rule);
        let refuse = |why: String| Failed::new(Exit::Config, format!("{place}: {why}"));
        let tree = Tree::parse(&rule.text).map_err(|fault| refuse(format!("the rule is not valid: {fault}")))?;
        let node = tree.root().get(b"pattern").ok_or_else(|| refuse("the rule lacks `pattern`".to_owned()))?;
        pattern::parse(&node.text(), &Limits::default())
            .map_err(|error| refuse(format!("the event pattern is not valid: {}", error.message)))
    }

    fn measure(&self, patterns: &[Pattern], events: &[Line]) -> Result<Measured, Failed> {
        let before = Usage::read().resident_bytes;
        let begin = time::now();
        let mut builder = Builder::new(u64::from(std::process::id()), self.comparing.numbers());
        for pattern in patterns {
            builder.add(pattern);
        }
        let matcher = builder.build();
        let build = begin.elapsed();
        let retained = (Usage::read().resident_bytes - before).max(0.0) as u64;
        let mut measured = Measured { build, retained, matches: 0, refused: 0, ours: Vec::new(), tape: Vec::new() };
        let mut own = Own::new(&matcher);
        // Once for memory to grow to its size, and for what is no event to be found.
        for event in events {
            match own.matches(&event.text) {
                Ok(matches) => measured.matches += matches as u64,
                Err(fault) if fault.kind == FaultKind::TooManyChoices => measured.refused += 1,
                Err(fault) => {
                    let place = self.place(Some(Path::new(&self.events)), event);
                    return Err(Failed::new(Exit::Config, format!("{place}: the event is not valid: {fault}")));
                }
            }
        }
        let mut tape = Yardstick::default();
        let count = events.len() as f64;
        for _ in 0..self.repeat {
            let begin = time::now();
            events.iter().for_each(|event| tape.parse(&event.text));
            measured.tape.push(begin.elapsed().as_nanos() as f64 / count);
            let begin = time::now();
            match self.threads {
                1 => events.iter().for_each(|event| own.judge(&event.text)),
                _ => self.together(&matcher, events),
            }
            measured.ours.push(begin.elapsed().as_nanos() as f64 / (count * f64::from(self.threads)));
        }
        Ok(measured)
    }

    fn together(&self, matcher: &Matcher, events: &[Line]) {
        std::thread::scope(|scope| {
            for _ in 0..self.threads {
                scope.spawn(|| {
                    let mut own = Own::new(matcher);
                    events.iter().for_each(|event| own.judge(&event.text));
                });
            }
        });
    }

    fn report(&self, measured: &Measured, rules: usize, events: &[Line]) -> Result<(), Failed> {
        let bytes = events.iter().map(|event| event.text.len()).sum::<usize>() as f64 / events.len().max(1) as f64;
        let (ours, tape) = (spread(&measured.ours), spread(&measured.tape));
        let ratios: Vec<f64> = measured.ours.iter().zip(&measured.tape).map(|(ours, tape)| ours / tape).collect();
        let ratio = spread(&ratios);
        let rate = |ns: f64| 1e9 / ns;
        let peak = Usage::peak();
        let mut out = std::io::stdout().lock();
        if self.json {
            let told = json!({
                "rules": rules, "events": events.len(), "threads": self.threads, "bytes_per_event": bytes,
                "build_seconds": measured.build.as_secs_f64(), "retained_bytes": measured.retained, "peak_rss_bytes": peak,
                "matches": measured.matches, "refused": measured.refused, "ns_per_event": ours, "tape_ns_per_event": tape, "times_tape": ratio,
                "events_per_second": ours.map(rate), "mb_per_second": ours.map(|ns| bytes * 1e3 / ns),
            });
            return writeln!(out, "{told}").map_err(output);
        }
        let [low, middle, high] = ours;
        let text = format!(
            "{rules} rules built in {:.1} ms, {:.1} MiB retained ({:.0} bytes a rule), {:.0} MiB peak\n\
             {} events of {bytes:.0} bytes, {} matches{}\n\
             decode and match  {low:>8.0} / {middle:.0} / {high:.0} ns an event (min / median / max of {})\n\
             tape of simd-json {:>8.0} / {:.0} / {:.0} ns an event\n\
             times tape        {:>8.2} / {:.2} / {:.2}\n\
             {:.0} events/s, {:.0} MB/s, {} thread{}",
            measured.build.as_secs_f64() * 1e3,
            measured.retained as f64 / 1_048_576.0,
            measured.retained as f64 / rules.max(1) as f64,
            peak as f64 / 1_048_576.0,
            events.len(),
            measured.matches,
            match measured.refused {
                0 => String::new(),
                refused => format!(", {refused} refused for what their arrays would take"),
            },
            measured.ours.len(),
            tape[0],
            tape[1],
            tape[2],
            ratio[0],
            ratio[1],
            ratio[2],
            rate(middle),
            bytes * 1e3 / middle,
            self.threads,
            if self.threads == 1 { "" } else { "s" },
        );
        writeln!(out, "{text}").map_err(output)
    }
}

/// Least, middle and greatest.
fn spread(values: &[f64]) -> [f64; 3] {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let at = |n: usize| values.get(n).copied().unwrap_or(0.0);
    [at(0), at(values.len() / 2), at(values.len().saturating_sub(1))]
}

/// A line of a file, from 1.
struct Line {
    number: u64,
    text: Vec<u8>,
}

/// The lines of a file that are not empty.
fn lines(path: &Path) -> Result<Vec<Line>, Failed> {
    let failed = |error: std::io::Error| Failed::new(Exit::Io, format!("cannot read {}: {error}", path.display()));
    let file = BufReader::new(std::fs::File::open(path).map_err(failed)?);
    let mut all = Vec::new();
    for (number, line) in (1..).zip(file.split(b'\n')) {
        let text = line.map_err(failed)?;
        if !text.trim_ascii().is_empty() {
            all.push(Line { number, text });
        }
    }
    match all.is_empty() {
        true => Err(Failed::new(Exit::Config, format!("{} holds no lines", path.display()))),
        false => Ok(all),
    }
}

fn write(folder: &Path, rules: &[Line], events: &[Line]) -> Result<(), Failed> {
    let failed =
        |error: std::io::Error| Failed::new(Exit::Io, format!("cannot write to {}: {error}", folder.display()));
    let write = |name: &str, lines: &mut dyn Iterator<Item = &[u8]>| {
        let mut file = BufWriter::new(std::fs::File::create(folder.join(name))?);
        for line in lines {
            file.write_all(line)?;
            file.write_all(b"\n")?;
        }
        file.flush()
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    write("rules.jsonl", &mut rules.iter().map(|rule| rule.text.as_slice())).map_err(failed)?;
    write("events.jsonl", &mut events.iter().map(|event| event.text.as_slice())).map_err(failed)
}

/// What a worker has of its own.
struct Own<'m> {
    matcher: &'m Matcher,
    scanner: Scanner,
    scratch: Scratch,
    bump: Bump,
}

impl<'m> Own<'m> {
    fn new(matcher: &'m Matcher) -> Self {
        Self { matcher, scanner: Scanner::default(), scratch: Scratch::default(), bump: Bump::new() }
    }

    fn judge(&mut self, event: &[u8]) {
        black_box(self.matches(event).is_ok());
    }

    fn matches(&mut self, event: &[u8]) -> Result<usize, crate::event::Fault> {
        self.bump.reset();
        let fields = decode(event, self.matcher.paths(), &mut self.scanner, &self.bump)?;
        Ok(self.matcher.matches(&fields, &mut self.scratch)?.len())
    }
}

/// simd-json's tape, its buffers reused.
#[derive(Default)]
struct Yardstick {
    buffers: Buffers,
    copy: Vec<u8>,
    tape: Option<Tape<'static>>,
}

impl Yardstick {
    fn parse(&mut self, event: &[u8]) {
        self.copy.clear();
        self.copy.extend_from_slice(event);
        let mut tape = self.tape.take().unwrap_or_else(Tape::null).reset();
        black_box(fill_tape(&mut self.copy, &mut self.buffers, &mut tape).is_ok());
        self.tape = Some(tape.reset());
    }
}

//! `sluice lint`: what is wrong with rules that are valid.

use super::hint::hint;
use super::rules::Form;
use super::{output, recorded};
use crate::app::{Exit, Failed};
use crate::config::{self, Level, Outside, Places, Problem};
use crate::event::{Kind, Tree};
use crate::lint::{CODES, Finding, Options, Sample, Spot, lint};
use crate::pattern::explain::{Paths, paths};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

/// Find rules that cannot match, match everything, or say what others say: leaves with 1 when it finds any, with 78 when a file of rules cannot be read
#[derive(clap::Args)]
pub struct Lint {
    /// Files or folders with rules
    #[arg(required = true, env = "SLUICE_CONFIG", value_delimiter = ':')]
    paths: Vec<PathBuf>,
    /// Recorded events, as JSON lines, plain, .gz or .zst: fields that none of them has are found; may be repeated
    #[arg(long, value_name = "FILE")]
    events: Vec<PathBuf>,
    /// Say nothing of these codes
    #[arg(long, value_name = "CODE", value_delimiter = ',')]
    allow: Vec<String>,
    /// Find what Amazon EventBridge itself would not take
    #[arg(long)]
    aws_portable: bool,
    /// How to print it
    #[arg(short, long, default_value = "text")]
    output: Form,
}

impl Lint {
    pub fn run(self) -> Result<(), Failed> {
        if let Some(code) = self.allow.iter().find(|code| !CODES.iter().any(|(known, _)| known == code)) {
            let known: Vec<_> = CODES.iter().map(|(code, what)| format!("  {code}  {what}")).collect();
            let message = format!("`{code}` is no code of lint; there are\n{}", known.join("\n"));
            return Err(Failed::new(Exit::Usage, message));
        }
        let (loaded, problems) = config::inspect(&self.paths, &Outside::only_rules());
        let (sample, known) = self.sample()?;
        let options = Options { portable: self.aws_portable, sample };
        let mut all = problems.0;
        let found = lint(&loaded.catalog, &options);
        let told = found.into_iter().filter(|finding| !self.allow.iter().any(|code| code == finding.code));
        all.extend(told.map(|finding| problem(finding, &loaded.places, &known)));
        all.sort_by_key(Problem::place);
        let rules = loaded.places.rules();
        match self.output {
            Form::Json => {
                let all: Vec<Value> = all.iter().map(as_json).collect();
                writeln!(std::io::stdout(), "{:#}", Value::from(all)).map_err(output)?;
            }
            Form::Text => print(&all, rules).map_err(output)?,
        }
        match all.iter().any(|problem| matches!(problem.code, "E0001" | "E0002")) {
            true => Err(Failed::new(Exit::Config, "")),
            false if all.is_empty() => Ok(()),
            false => Err(Failed::new(Exit::No, "")),
        }
    }

    /// The paths of the sampled events, and what stands at each.
    fn sample(&self) -> Result<(Option<Sample>, Paths), Failed> {
        if self.events.is_empty() {
            return Ok((None, Paths::new()));
        }
        let (mut sample, mut known) = (Sample::default(), BTreeSet::new());
        recorded::each(&self.events, |file, line, text| {
            let event = Tree::parse(text).map_err(|fault| {
                Failed::new(Exit::Config, format!("{}:{line}: the event is not valid: {fault}", file.display()))
            })?;
            sample.events += 1;
            for (path, kind) in paths(&event) {
                if !matches!(kind, Kind::Object | Kind::Array) {
                    sample.paths.insert(path.clone().into_bytes());
                }
                known.insert((path, kind));
            }
            Ok(())
        })?;
        if sample.events == 0 {
            return Err(Failed::new(Exit::Config, "there are no events in the files of --events"));
        }
        Ok((Some(sample), known.into_iter().collect()))
    }
}

/// A finding where it stands.
fn problem(finding: Finding, places: &Places, known: &[(String, Kind)]) -> Problem {
    let (_, rule) = &finding.rule;
    let at = match finding.spot {
        Spot::Pattern(offset) => places.pattern(rule, offset),
        Spot::Targets => places.rule(rule, "targets"),
    };
    let near = finding.unseen.map(|path| hint(&path, known)).filter(|near| !near.is_empty());
    let help = near.map_or(finding.help, |near| near.trim_start_matches([':', ';', ' ']).to_owned());
    Problem { level: Level::Warning, at, ..Problem::plain(finding.code, finding.message).help(help) }
}

fn print(all: &[Problem], rules: usize) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for problem in all {
        writeln!(out, "{problem}\n")?;
    }
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    match all.len() {
        0 => writeln!(out, "{rules} rule{}, no findings", plural(rules)),
        count => writeln!(out, "{rules} rule{}, {count} finding{}", plural(rules), plural(count)),
    }
}

fn as_json(problem: &Problem) -> Value {
    let at = problem.at.as_ref();
    json!({
        "code": problem.code,
        "level": if problem.level == Level::Error { "error" } else { "warning" },
        "message": problem.message,
        "file": at.map(|at| at.file.display().to_string()),
        "line": at.map(|at| at.line),
        "column": at.map(|at| at.column),
        "path": at.map(|at| at.path.clone()),
        "service": problem.service,
        "help": problem.help,
    })
}

//! `sluice explain`: why rules match an event or do not.

use super::hint::hint;
use super::output;
use super::patterns::{Comparing, pattern, place, read};
use crate::app::{Exit, Failed};
use crate::catalog::Rule;
use crate::config::{self, Outside};
use crate::event::{Kind, Tree};
use crate::pattern::explain::{Branch, Explanation, Finding, Verdict, explain, paths};
use crate::pattern::{Numbers, Pattern};
use console::style;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

/// Say why a pattern or rules match an event, or do not
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["pattern", "config"])))]
pub struct Explain {
    /// The event: a file, JSON text, or - for standard input
    #[arg(long)]
    event: String,
    /// A pattern: JSON text, or @file
    #[arg(long)]
    pattern: Option<String>,
    /// Configuration file or folder with rules; may be repeated
    #[arg(short, long, value_name = "PATH")]
    config: Vec<PathBuf>,
    /// Only this rule
    #[arg(long, requires = "config")]
    rule: Option<String>,
    /// Only rules of this bus
    #[arg(long, requires = "config")]
    bus: Option<String>,
    /// How many of the rules that came nearest to show whole
    #[arg(long, value_name = "N", default_value_t = 3)]
    near: usize,
    /// Show every rule whole
    #[arg(long)]
    all: bool,
    /// How to print it
    #[arg(short, long, default_value = "text")]
    output: super::rules::Form,
    #[command(flatten)]
    comparing: Comparing,
}

/// Name and bus of a rule, nothing for a pattern from the command line; its pattern; how numbers compare.
type Asked = (Option<(String, String)>, Arc<Pattern>, Numbers);

const TOO_MANY: &str = "the event's arrays offer too many choices of elements to explain";

/// One rule, explained.
struct Told {
    /// Name and bus; nothing for a pattern from the command line.
    rule: Option<(String, String)>,
    explanation: Explanation,
}

impl Explain {
    pub fn run(self) -> Result<(), Failed> {
        let text = self.event_text()?;
        let event = Tree::parse(&text).map_err(|fault| {
            Failed::new(Exit::Config, format!("the event is not valid: {fault}\n{}", place(&text, fault.at)))
        })?;
        let mut told = Vec::new();
        for (rule, pattern, numbers) in self.patterns()? {
            match (explain(&pattern, &event, numbers), rule) {
                (Some(explanation), rule) => told.push(Told { rule, explanation }),
                (None, Some((rule, bus))) => eprintln!("sluice: rule {rule} on bus {bus} is left out: {TOO_MANY}"),
                (None, None) => return Err(Failed::new(Exit::Config, TOO_MANY)),
            }
        }
        // Those that match first, then those that came nearest.
        told.sort_by_key(|told| {
            let nearest = told.explanation.branches.get(told.explanation.nearest);
            (!told.explanation.matched, nearest.map_or(0, |branch| branch.failed))
        });
        let known = paths(&event);
        let whole = if self.all || told.len() == 1 { usize::MAX } else { self.near };
        if self.output == super::rules::Form::Json {
            let matched = told.iter().filter(|told| told.explanation.matched).count();
            let shown = told.iter().take(matched.saturating_add(whole));
            let shown: Vec<Value> = shown.map(|told| as_json(told, &known)).collect();
            return writeln!(std::io::stdout(), "{:#}", Value::from(shown)).map_err(output);
        }
        print(&told, whole, &known)
    }

    /// Text that begins as an object is the event; anything else names a file.
    fn event_text(&self) -> Result<Vec<u8>, Failed> {
        let given = self.event.trim_start();
        match given.starts_with(['{', '@']) || given == "-" {
            true => read(given),
            false => read(&format!("@{given}")),
        }
    }

    fn patterns(&self) -> Result<Vec<Asked>, Failed> {
        if let Some(text) = &self.pattern {
            return Ok(vec![(None, Arc::new(pattern(&read(text)?)?), self.comparing.numbers())]);
        }
        let loaded = config::load(&self.config, &Outside::only_rules())
            .map_err(|problems| Failed::new(Exit::Config, problems.to_string()))?;
        let numbers: HashMap<&str, Numbers> =
            loaded.catalog.buses().map(|bus| (bus.name.as_str(), bus.numbers)).collect();
        let wanted = |rule: &&Rule| {
            self.rule.as_ref().is_none_or(|name| *name == rule.name)
                && self.bus.as_ref().is_none_or(|bus| *bus == rule.bus)
        };
        let found: Vec<_> = loaded
            .catalog
            .rules()
            .filter(wanted)
            .map(|rule| {
                let numbers = numbers.get(rule.bus.as_str()).copied().unwrap_or_default();
                (Some((rule.name.clone(), rule.bus.clone())), Arc::clone(&rule.pattern), numbers)
            })
            .collect();
        match found.is_empty() {
            true => Err(Failed::new(Exit::Config, "there is no such rule; `sluice validate -c PATH` counts them")),
            false => Ok(found),
        }
    }
}

fn print(told: &[Told], whole: usize, known: &[(String, Kind)]) -> Result<(), Failed> {
    let mut out = std::io::stdout().lock();
    let mut shown = 0;
    for told in told {
        let explanation = &told.explanation;
        let Some(nearest) = explanation.branches.get(explanation.nearest) else { continue };
        if !explanation.matched {
            shown += 1;
        }
        let full = explanation.matched || shown <= whole;
        let name =
            told.rule.as_ref().map_or("the pattern".to_owned(), |(rule, bus)| format!("rule {rule} on bus {bus}"));
        if !full {
            continue;
        }
        let verdict = match explanation.matched {
            true => style("matches").green().to_string(),
            false => format!(
                "{}: {} of {} conditions in the way",
                style("does not match").red(),
                nearest.failed,
                nearest.findings.len()
            ),
        };
        let branch = match explanation.branches.len() {
            1 => String::new(),
            count => format!(
                " (branch {} of {count} of $or{})",
                explanation.nearest + 1,
                if explanation.matched { "" } else { ", the nearest" }
            ),
        };
        writeln!(out, "{} {verdict}{branch}", style(name).bold()).map_err(output)?;
        for finding in &nearest.findings {
            writeln!(out, "{}", line(finding, known)).map_err(output)?;
        }
    }
    let rest = shown.saturating_sub(whole);
    if rest > 0 {
        writeln!(out, "{rest} further rules do not match; --near {shown} or --all shows them").map_err(output)?;
    }
    Ok(())
}

/// A condition, what was seen, and what to look at.
pub(super) fn line(finding: &Finding, known: &[(String, Kind)]) -> String {
    let mark = match finding.verdict {
        Verdict::Holds => style("  ok  ").green(),
        _ => style("  FAIL").red().bold(),
    };
    let wanted = finding.tests.join(" or ");
    let mut text = format!("{mark} {} {wanted}", style(&finding.path).cyan());
    let mut values: Vec<String> = finding
        .values
        .iter()
        .take(8)
        .map(|value| {
            let at = if value.at == finding.path { String::new() } else { format!("{} = ", value.at) };
            let sign = match (value.accepted, value.chosen) {
                _ if finding.values.len() == 1 => "",
                (false, _) => " (not accepted)",
                (true, false) => " (accepted, in another element)",
                (true, true) => "",
            };
            format!("{at}{}{sign}", value.text)
        })
        .collect();
    if finding.values.len() > values.len() {
        values.push(format!("and {} more", finding.values.len() - values.len()));
    }
    let values = values.join(", ");
    text += &match finding.verdict {
        Verdict::Holds if finding.values.is_empty() => "\n         there is no value, as wanted".to_owned(),
        Verdict::Holds | Verdict::Rejected => format!("\n         {values}"),
        Verdict::Present => format!("\n         there is a value: {values}"),
        Verdict::Apart => format!("\n         holds by itself, but in other elements than the rest: {values}"),
        Verdict::Missing => format!("\n         the event has no value there{}", hint(&finding.path, known)),
    };
    text
}

fn as_json(told: &Told, known: &[(String, Kind)]) -> Value {
    let finding = |finding: &Finding| {
        let values: Vec<Value> = finding
            .values
            .iter()
            .map(|value| json!({ "at": value.at, "text": value.text, "accepted": value.accepted, "chosen": value.chosen }))
            .collect();
        let mut told = json!({
            "path": finding.path,
            "tests": finding.tests,
            "verdict": word(finding.verdict),
            "values": values,
        });
        if finding.verdict == Verdict::Missing {
            let hint = hint(&finding.path, known);
            if !hint.is_empty() {
                told["hint"] = Value::from(hint.trim_start_matches([';', ':', ' ']));
            }
        }
        told
    };
    let branch = |branch: &Branch| {
        json!({
            "matched": branch.matched,
            "failed": branch.failed,
            "conditions": branch.findings.iter().map(finding).collect::<Vec<_>>(),
        })
    };
    let (rule, bus) = told.rule.clone().unzip();
    json!({
        "rule": rule,
        "bus": bus,
        "matched": told.explanation.matched,
        "nearest": told.explanation.nearest,
        "branches": told.explanation.branches.iter().map(branch).collect::<Vec<_>>(),
    })
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Holds => "holds",
        Verdict::Missing => "missing",
        Verdict::Rejected => "rejected",
        Verdict::Present => "present",
        Verdict::Apart => "apart",
    }
}

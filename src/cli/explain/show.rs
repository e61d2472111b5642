//! Explanations for people and for programs.

use super::super::hint::missing;
use super::Told;
use crate::api::RuleState;
use crate::event::{Kind, Tree};
use crate::pattern::explain::{Branch, Finding, Paths, Seen, Verdict, paths};
use crate::pattern::way::Way;
use console::style;
use serde_json::{Value, json};
use std::cell::OnceCell;

/// Most bytes of a text that are shown; of longer ones the beginning and the end.
const LONGEST: usize = 256;
const TAIL: usize = 40;

/// Most values and most tests of a condition that are shown.
const MOST: usize = 8;

/// An event, to look up what stands in it.
pub struct Event<'e> {
    tree: &'e Tree<'e>,
    known: OnceCell<Paths>,
}

impl<'e> Event<'e> {
    pub fn new(tree: &'e Tree<'e>) -> Self {
        Self { tree, known: OnceCell::new() }
    }

    /// What stands on the way to a path that leads to no value, and what to say of it.
    fn missing(&self, path: &str) -> (Way, String) {
        let way = Way::new(self.tree, path);
        let said = missing(path, self.known.get_or_init(|| paths(self.tree)), &way);
        (way, said)
    }
}

/// A text as a terminal may show it: without control characters and what turns the direction of writing, and not long.
pub fn safe(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(LONGEST));
    if text.len() <= LONGEST {
        escape(text, &mut out);
        return out;
    }
    let (mut head, mut tail) = (LONGEST - TAIL, text.len() - TAIL);
    while !text.is_char_boundary(head) {
        head -= 1;
    }
    while !text.is_char_boundary(tail) {
        tail += 1;
    }
    escape(&text[..head], &mut out);
    out.push('…');
    escape(&text[tail..], &mut out);
    out + &format!(" ({} bytes)", text.len())
}

fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        let hidden =
            matches!(c as u32, 0xAD | 0x200B..=0x200F | 0x2028..=0x202E | 0x2060..=0x206F | 0xFEFF | 0xE0000..=0xE0FFF);
        if c.is_control() || hidden {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(c);
        }
    }
}

/// The explanations as text: those that match, and of the others as many `whole` as are asked for.
pub fn text(told: &[Told], whole: usize, event: &Event<'_>) -> String {
    let mut out = String::new();
    let mut shown = 0;
    for told in told {
        shown += usize::from(!told.explanation.matched);
        if told.explanation.matched || shown <= whole {
            rule(told, event, &mut out);
        }
    }
    let rest = shown.saturating_sub(whole);
    if rest > 0 {
        let rules = if rest == 1 { "rule does" } else { "rules do" };
        out += &format!("{rest} further {rules} not match; --near {shown} or --all shows them\n");
    }
    out
}

fn rule(told: &Told, event: &Event<'_>, out: &mut String) {
    let explanation = &told.explanation;
    let Some(nearest) = explanation.branches.get(explanation.nearest) else { return };
    let name = told.rule.as_ref().map_or("the pattern".to_owned(), |rule| {
        let state = match rule.state {
            RuleState::Enabled => "",
            RuleState::Disabled => " (disabled)",
            RuleState::Shadow => " (shadow)",
        };
        format!("rule {} on bus {}{state}", safe(&rule.name), safe(&rule.bus))
    });
    let verdict = match explanation.matched {
        true => style("matches").green().to_string(),
        false => {
            let (failed, all) = (nearest.failed, nearest.findings.len());
            let plural = if all == 1 { "" } else { "s" };
            format!("{}: {failed} of {all} condition{plural} in the way", style("does not match").red())
        }
    };
    let branch = match explanation.branches.len() {
        1 => String::new(),
        count => {
            let nearest = if explanation.matched { "" } else { ", the nearest" };
            format!(" (branch {} of {count} of $or{nearest})", explanation.nearest + 1)
        }
    };
    *out += &format!("{} {verdict}{branch}\n", style(name).bold());
    for finding in &nearest.findings {
        *out += &line(finding, event);
        out.push('\n');
    }
}

/// A condition, what was seen, and what to look at.
pub fn line(finding: &Finding, event: &Event<'_>) -> String {
    let mark = match finding.verdict {
        Verdict::Holds => style("  ok  ").green(),
        _ => style("  FAIL").red().bold(),
    };
    let mut tests: Vec<String> = finding.tests.iter().take(MOST).map(|test| safe(test)).collect();
    if finding.tests.len() > MOST {
        tests.push(format!("{} more", finding.tests.len() - MOST));
    }
    let mut text = format!("{mark} {} {}\n         ", style(safe(&finding.path)).cyan(), tests.join(" or "));
    text += &match finding.verdict {
        Verdict::Holds if finding.values.is_empty() => "there is no value, as wanted".to_owned(),
        Verdict::Holds | Verdict::Rejected => values(finding, |_| true),
        Verdict::Present => format!("there is a value: {}", values(finding, |_| true)),
        Verdict::Apart if finding.values.iter().any(|value| value.accepted) => {
            let accepted = values(finding, |value| value.accepted);
            format!("holds by itself, but in other elements than the rest: {accepted}")
        }
        Verdict::Apart => {
            format!(
                "holds by itself, but in other elements than the rest; there is a value: {}",
                values(finding, |_| true)
            )
        }
        Verdict::Missing => format!("the event has no value there{}", event.missing(&finding.path).1),
    };
    text
}

/// Those values of a condition that are wanted, what decided first.
fn values(finding: &Finding, wanted: impl Fn(&Seen) -> bool) -> String {
    let mut values: Vec<&Seen> = finding.values.iter().filter(|value| wanted(value)).collect();
    values.sort_by_key(|value| !(value.accepted && value.chosen));
    let absent = finding.verdict == Verdict::Holds && !values.iter().any(|value| value.accepted && value.chosen);
    let mut shown: Vec<String> = values
        .iter()
        .take(MOST)
        .map(|value| {
            let at = if value.at == finding.path { String::new() } else { format!("{} = ", safe(&value.at)) };
            let why = match (value.accepted, value.chosen) {
                (true, true) => String::new(),
                (true, false) => " (accepted, in another element)".to_owned(),
                (false, true) if value.why.is_empty() => String::new(),
                (false, true) => format!(" ({})", value.why),
                (false, false) if absent => String::new(),
                (false, false) => " (not accepted)".to_owned(),
            };
            format!("{at}{}{why}", safe(&value.text))
        })
        .collect();
    if values.len() > MOST {
        shown.push(format!("and {} more", values.len() - MOST));
    }
    let absent = if absent { "there is no value in that element, as wanted; elsewhere " } else { "" };
    format!("{absent}{}", shown.join(", "))
}

/// The explanations for programs: of those that do not match, as many as are asked for.
pub fn as_json(told: &[Told], whole: usize, event: &Event<'_>) -> Value {
    let matched = told.iter().filter(|told| told.explanation.matched).count();
    told.iter().take(matched.saturating_add(whole)).map(|told| one(told, event)).collect()
}

fn one(told: &Told, event: &Event<'_>) -> Value {
    let finding = |finding: &Finding| {
        let values: Vec<Value> = finding
            .values
            .iter()
            .map(|value| {
                let mut said =
                    json!({ "at": value.at, "text": value.text, "accepted": value.accepted, "chosen": value.chosen });
                if !value.why.is_empty() {
                    said["why"] = Value::from(value.why);
                }
                said
            })
            .collect();
        let mut told = json!({
            "path": finding.path,
            "tests": finding.tests,
            "verdict": word(finding.verdict),
            "values": values,
        });
        if finding.verdict == Verdict::Missing {
            let (way, hint) = event.missing(&finding.path);
            told["hint"] = Value::from(hint.trim_start_matches([';', ':', ' ']));
            told["parent"] = parent(&way);
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
    json!({
        "rule": told.rule.as_ref().map(|rule| &rule.name),
        "bus": told.rule.as_ref().map(|rule| &rule.bus),
        "state": told.rule.as_ref().map(|rule| rule.state),
        "matched": told.explanation.matched,
        "nearest": told.explanation.nearest,
        "branches": told.explanation.branches.iter().map(branch).collect::<Vec<_>>(),
    })
}

/// What stands deepest on the way to a path.
fn parent(way: &Way) -> Value {
    let kinds = way.kinds.iter().map(|kind| match kind {
        Kind::Object => "object",
        Kind::Array => "array",
        Kind::String => "string",
        Kind::Number => "number",
        Kind::Bool(_) => "boolean",
        Kind::Null => "null",
    });
    let mut kinds: Vec<&str> = way.list.then_some("array").into_iter().chain(kinds).collect();
    kinds.dedup();
    let mut said = json!({ "at": way.at, "kinds": kinds, "keys": way.keys, "key_count": way.count });
    if let Some(inside) = way.inside {
        said["holds_json"] = json!({ "has_value": inside });
    }
    said
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

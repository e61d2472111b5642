//! `sluice explain`: why rules match an event or do not.

mod arguments;
mod live;
mod show;

pub(super) use show::{Event, line, safe};

use super::output;
use super::patterns::{pattern, place, read};
use super::rules::Form;
use crate::api::RuleState;
use crate::app::{Exit, Failed};
use crate::catalog::Rule;
use crate::config::{self, Outside};
use crate::event::Tree;
use crate::pattern::explain::{Branch, Explanation, explain};
use crate::pattern::{Numbers, Pattern};
use arguments::{Asked, Events};
use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

/// Say why a pattern or rules match an event, or do not
pub struct Explain {
    events: Events,
    asked: Asked,
    rule: Option<String>,
    bus: Option<String>,
    near: usize,
    all: bool,
    output: Form,
}

/// A pattern, and whose it is.
struct Ask {
    /// Nothing for a pattern from the command line.
    rule: Option<Arc<Named>>,
    pattern: Arc<Pattern>,
    numbers: Numbers,
}

/// A rule.
struct Named {
    name: String,
    bus: String,
    state: RuleState,
}

const TOO_MANY: &str = "the event's arrays offer too many choices of elements to explain";

/// One rule, explained.
struct Told {
    /// Nothing for a pattern from the command line.
    rule: Option<Arc<Named>>,
    explanation: Explanation,
}

impl Told {
    /// Whether events that match it go anywhere or are counted.
    fn takes(&self) -> bool {
        self.explanation.matched && self.rule.as_ref().is_none_or(|rule| rule.state != RuleState::Disabled)
    }
}

impl Explain {
    pub fn run(self) -> Result<(), Failed> {
        let given = match &self.events {
            Events::Live(live) => return live::run(&self, live),
            Events::One(given) => given,
        };
        let text = event_text(given)?;
        let tree = Tree::parse(&text).map_err(|fault| {
            let place = place(&text, fault.at).replace(|c: char| c.is_control() && c != '\n', " ");
            Failed::new(Exit::Config, format!("the event is not valid: {fault}\n{place}"))
        })?;
        let (told, hard) = tell(&self.asks()?, &tree);
        for rule in hard {
            match rule {
                Some(rule) => eprintln!("sluice: rule {} on bus {} is left out: {TOO_MANY}", rule.name, rule.bus),
                None => return Err(Failed::new(Exit::Config, TOO_MANY)),
            }
        }
        let (event, whole) = (Event::new(&tree), self.whole(told.len()));
        let said = match self.output {
            Form::Json => format!("{:#}\n", show::as_json(&told, whole, &event)),
            Form::Text => show::text(&told, whole, &event),
        };
        std::io::stdout().write_all(said.as_bytes()).map_err(output)
    }

    /// How many of the rules that do not match are shown.
    fn whole(&self, told: usize) -> usize {
        if self.all || told == 1 { usize::MAX } else { self.near }
    }

    /// Whether a rule is asked for.
    fn wants(&self, name: &str, bus: &str) -> bool {
        self.rule.as_ref().is_none_or(|rule| rule == name) && self.bus.as_ref().is_none_or(|wanted| wanted == bus)
    }

    /// The patterns of the command line or of files; the process's own are asked of it.
    fn asks(&self) -> Result<Vec<Ask>, Failed> {
        match &self.asked {
            Asked::Pattern(text, numbers) => {
                Ok(vec![Ask { rule: None, pattern: Arc::new(pattern(&read(text)?)?), numbers: *numbers }])
            }
            Asked::Config(paths) => self.rules(paths),
            Asked::Process => Ok(Vec::new()),
        }
    }

    fn rules(&self, paths: &[PathBuf]) -> Result<Vec<Ask>, Failed> {
        let loaded = config::load(paths, &Outside::only_rules())
            .map_err(|problems| Failed::new(Exit::Config, problems.to_string()))?;
        let numbers: HashMap<&str, Numbers> =
            loaded.catalog.buses().map(|bus| (bus.name.as_str(), bus.numbers)).collect();
        let ask = |rule: &Rule| {
            let named = Named { name: rule.name.clone(), bus: rule.bus.clone(), state: rule.state.into() };
            let numbers = numbers.get(rule.bus.as_str()).copied().unwrap_or_default();
            Ask { rule: Some(Arc::new(named)), pattern: Arc::clone(&rule.pattern), numbers }
        };
        let found: Vec<Ask> =
            loaded.catalog.rules().filter(|rule| self.wants(&rule.name, &rule.bus)).map(ask).collect();
        match found.is_empty() {
            true => Err(Failed::new(Exit::Config, "there is no such rule; `sluice validate -c PATH` counts them")),
            false => Ok(found),
        }
    }
}

/// Explains an event: rules that match first, then those that came nearest; and apart, for which it is too hard.
fn tell<'a>(asks: impl IntoIterator<Item = &'a Ask>, event: &Tree<'_>) -> (Vec<Told>, Vec<Option<Arc<Named>>>) {
    let (mut told, mut hard) = (Vec::new(), Vec::new());
    for ask in asks {
        match explain(&ask.pattern, event, ask.numbers) {
            Some(explanation) => told.push(Told { rule: ask.rule.clone(), explanation }),
            None => hard.push(ask.rule.clone()),
        }
    }
    told.sort_by_key(|told| told.explanation.branches.get(told.explanation.nearest).map(Branch::distance));
    (told, hard)
}

/// Text that begins as an object, or by mistake as a list, is the event; anything else names a file.
fn event_text(given: &str) -> Result<Vec<u8>, Failed> {
    let given = given.trim_start();
    match given.starts_with(['{', '[', '@']) || given == "-" {
        true => read(given),
        false => read(&format!("@{given}")),
    }
}

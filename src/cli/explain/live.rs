//! `sluice explain --live`: events of a running process, explained as they come.
//!
//! In: the process's tap and rules, over its admin API. Out: text, or one line of JSON an event. Promises: what it does
//! not look at is counted; rules that change there are read again. Leaves to others: explaining.

use super::super::admin::{Feed, Session, parts};
use super::arguments::{Asked, Live, Stage};
use super::{Ask, Event, Explain, Named, TOO_MANY, Told, output, safe, show, tell};
use crate::api::RuleView;
use crate::app::{Exit, Failed};
use crate::cli::rules::Form;
use crate::event::Tree;
use crate::pattern::{Limits, PatternError, parse};
use reqwest::Method;
use serde::Deserialize;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long the rules of the process are taken for what they are.
const FRESH: Duration = Duration::from_secs(2);

/// The process's rules, or those given.
struct Rules {
    asks: Vec<Ask>,
    generation: u64,
    read: Option<Instant>,
}

#[derive(Deserialize)]
struct Listing {
    generation: u64,
    rules: Vec<RuleView>,
}

/// An event as the tap shows it.
struct Seen<'s> {
    bus: String,
    text: &'s str,
}

/// Explains until it is interrupted, the process ends, or enough is explained.
pub fn run(explain: &Explain, live: &Live) -> Result<(), Failed> {
    let session = live.remote.session()?;
    let rules = Rules { asks: explain.asks()?, generation: 0, read: None };
    let mut watch = Watch { explain, live, session: &session, rules, told: 0, skipped: 0 };
    let done = session.block_on(watch.run());
    if watch.skipped > 0 {
        eprintln!("sluice: {} further events were not looked at (--rate)", watch.skipped);
    }
    done
}

struct Watch<'w> {
    explain: &'w Explain,
    live: &'w Live,
    session: &'w Session,
    rules: Rules,
    told: u64,
    skipped: u64,
}

impl Watch<'_> {
    async fn run(&mut self) -> Result<(), Failed> {
        // A name that is nowhere is said before the first event.
        self.refresh().await?;
        let mut query = vec![("stage", self.stage().to_owned()), ("rate", self.live.rate.clone())];
        query.extend(self.explain.bus.clone().map(|bus| ("bus", bus)));
        let mut answer = self.session.ask(Method::GET, "/api/v1/tap", &query, None).await?;
        let (mut feed, mut enough) = (Feed::default(), self.live.limit == Some(0));
        let end = async {
            match self.live.duration {
                Some(duration) => tokio::time::sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        let interrupted = tokio::signal::ctrl_c();
        tokio::pin!(end, interrupted);
        while !enough {
            let chunk = tokio::select! {
                chunk = answer.chunk() => chunk,
                () = &mut end => break,
                _ = &mut interrupted => break,
            };
            match chunk {
                Ok(Some(chunk)) => {
                    for line in feed.push(&chunk) {
                        enough = enough || self.event(&line).await?;
                    }
                }
                Ok(None) => {
                    eprintln!("sluice: the process has ended the stream");
                    break;
                }
                Err(error) => {
                    let why = format!("the process has ended: {}", crate::nats::causes(&error));
                    return Err(Failed::new(Exit::Unreachable, why));
                }
            }
        }
        Ok(())
    }

    /// Where to look. What another set of rules, or one rule, decides is found among all events.
    fn stage(&self) -> &'static str {
        match (self.live.stage, &self.explain.asked, &self.explain.rule) {
            (Stage::Unmatched, Asked::Process, None) => "unmatched",
            (Stage::Matched, Asked::Process, None) => "matched",
            _ => "ingress",
        }
    }

    /// Explains an event if it is one of those asked for; whether that was the last.
    async fn event(&mut self, line: &str) -> Result<bool, Failed> {
        let (about, text) = parts(line);
        self.skipped += about["skipped"].as_u64().unwrap_or(0);
        self.refresh().await?;
        let seen = Seen { bus: about["bus"].as_str().unwrap_or_default().to_owned(), text };
        let Ok(tree) = Tree::parse(seen.text.as_bytes()) else { return Ok(false) };
        let of_bus = |ask: &&Ask| ask.rule.as_ref().is_none_or(|rule| rule.bus == seen.bus);
        let (told, hard) = tell(self.rules.asks.iter().filter(of_bus), &tree);
        let too_hard = !hard.is_empty();
        for rule in hard {
            let name = rule.map_or("the pattern".to_owned(), |rule| format!("rule {}", rule.name));
            eprintln!("sluice: {name} is left out for an event on bus {}: {TOO_MANY}", seen.bus);
        }
        let matched = told.iter().any(Told::takes);
        let wanted = match self.live.stage {
            Stage::Unmatched => !matched,
            Stage::Matched => matched,
            Stage::Ingress => true,
        };
        // Rules of other buses, and those that are left out, say nothing of it.
        if !wanted || (told.is_empty() && (too_hard || self.explain.rule.is_some())) {
            return Ok(false);
        }
        self.print(&seen, &told, &Event::new(&tree))?;
        self.told += 1;
        Ok(self.live.limit.is_some_and(|limit| self.told >= limit))
    }

    fn print(&self, seen: &Seen<'_>, told: &[Told], event: &Event<'_>) -> Result<(), Failed> {
        let whole = self.explain.whole(told.len());
        let said = match self.explain.output {
            Form::Json => {
                let head =
                    serde_json::json!({ "bus": seen.bus, "rules": show::as_json(told, whole, event) }).to_string();
                // The event's own text, so that numbers keep their spelling.
                format!("{},\"event\":{}}}\n", &head[..head.len() - 1], seen.text)
            }
            Form::Text => {
                let none = if told.is_empty() { "the bus has no rules\n" } else { "" };
                let rules = show::text(told, whole, event);
                format!("event on bus {}: {}\n{none}{rules}\n", safe(&seen.bus), safe(seen.text))
            }
        };
        let mut out = std::io::stdout().lock();
        out.write_all(said.as_bytes()).and_then(|()| out.flush()).map_err(output)
    }

    /// Reads the process's rules, unless that was just done.
    async fn refresh(&mut self) -> Result<(), Failed> {
        let fresh = self.rules.read.is_some_and(|read| read.elapsed() < FRESH);
        if fresh || !matches!(self.explain.asked, Asked::Process) {
            return Ok(());
        }
        let query: Vec<_> = self.explain.bus.iter().map(|bus| ("bus", bus.clone())).collect();
        let text = self.session.ask(Method::GET, "/api/v1/rules", &query, None).await?.text().await;
        let text = text.map_err(|error| Failed::new(Exit::Unreachable, crate::nats::causes(&error)))?;
        let listing: Listing = serde_json::from_str(&text)
            .map_err(|error| Failed::new(Exit::Unreachable, format!("/api/v1/rules: not our API: {error}")))?;
        let first = self.rules.read.replace(Instant::now()).is_none();
        if !first && listing.generation == self.rules.generation {
            return Ok(());
        }
        self.rules.generation = listing.generation;
        let wanted = listing.rules.into_iter().filter(|rule| self.explain.wants(&rule.name, &rule.bus));
        self.rules.asks = wanted.filter_map(ask).collect();
        match &self.explain.rule {
            Some(rule) if self.rules.asks.is_empty() => {
                let on = self.explain.bus.as_ref().map(|bus| format!(" on bus {bus}")).unwrap_or_default();
                Err(Failed::new(Exit::No, format!("there is no rule {rule}{on}; `sluice rules ls` lists them")))
            }
            _ => Ok(()),
        }
    }
}

fn ask(rule: RuleView) -> Option<Ask> {
    let parsed = parse(rule.pattern.as_bytes(), &Limits::default());
    let left_out =
        |error: &PatternError| eprintln!("sluice: rule {} on bus {} is left out: {error}", rule.name, rule.bus);
    let pattern = parsed.inspect_err(left_out).ok()?;
    let numbers = rule.number_matching.into();
    let named = Named { name: rule.name, bus: rule.bus, state: rule.state };
    Some(Ask { rule: Some(Arc::new(named)), pattern: Arc::new(pattern), numbers })
}

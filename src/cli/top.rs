//! `sluice top`: what a running process is doing, once a second.

use super::admin::Remote;
use super::output;
use crate::api::Stats;
use crate::app::Failed;
use crate::time;
use console::Term;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::Duration;

/// Watch what a running process is doing
#[derive(clap::Args)]
pub struct Top {
    /// Between two looks, as in 1s
    #[arg(long, default_value = "1s", value_parser = time::parse_duration)]
    interval: Duration,
    /// Look so often, then leave
    #[arg(short = 'n', long)]
    count: Option<u64>,
    #[command(flatten)]
    remote: Remote,
}

/// Rules and targets shown.
const SHOWN: usize = 12;

impl Top {
    pub fn run(self) -> Result<(), Failed> {
        let session = self.remote.session()?;
        let terminal = Term::stdout();
        let mut before: Option<Stats> = None;
        let mut looks = 0;
        loop {
            let now: Stats = session.get("/api/v1/stats", &[])?;
            let page = page(&now, before.as_ref());
            if terminal.is_term() {
                terminal.clear_screen().map_err(output)?;
            }
            let mut out = std::io::stdout().lock();
            out.write_all(page.as_bytes()).and_then(|()| out.flush()).map_err(output)?;
            drop(out);
            before = Some(now);
            looks += 1;
            if self.count.is_some_and(|count| looks >= count) {
                return Ok(());
            }
            std::thread::sleep(self.interval);
        }
    }
}

fn page(now: &Stats, before: Option<&Stats>) -> String {
    let seconds = before.map_or(0.0, |before| (now.time_millis - before.time_millis) as f64 / 1000.0);
    let rate = |now: u64, before: Option<u64>| match before {
        Some(before) if seconds > 0.0 => format!("{:.0}/s", now.saturating_sub(before) as f64 / seconds),
        _ => "-".to_owned(),
    };
    let cpu = before.filter(|_| seconds > 0.0).map(|before| (now.cpu_seconds - before.cpu_seconds) / seconds);
    let cpu = cpu.map_or("-".to_owned(), |cores| format!("{cores:.2}"));
    let mut page = format!(
        "sluice   generation {}   memory {:.0} MiB   cores {cpu}\n",
        now.generation,
        now.resident_bytes / 1048576.0
    );
    // Writing to a String cannot fail.
    let mut line = |text: String| writeln!(page, "{text}").unwrap_or_default();
    line(format!(
        "\n{:<24} {:>10} {:>12} {:>10} {:>10} {:>9}",
        "source", "rate", "events", "in flight", "lag", "rejected"
    ));
    let known: HashMap<&str, u64> =
        sums(before, |stats| stats.sources.iter().map(|s| (s.name.as_str(), s.events)).collect());
    for source in &now.sources {
        let rate = rate(source.events, known.get(source.name.as_str()).copied());
        line(format!(
            "{:<24} {rate:>10} {:>12} {:>10} {:>10} {:>9}",
            source.name, source.events, source.in_flight, source.lag, source.rejected
        ));
    }
    line(format!("\n{:<24} {:>10} {:>12} {:>12}", "bus", "rate", "matched", "unmatched"));
    let known =
        sums(before, |stats| stats.buses.iter().map(|bus| (bus.name.as_str(), bus.matched + bus.unmatched)).collect());
    for bus in &now.buses {
        let rate = rate(bus.matched + bus.unmatched, known.get(bus.name.as_str()).copied());
        line(format!("{:<24} {rate:>10} {:>12} {:>12}", bus.name, bus.matched, bus.unmatched));
    }
    line(format!(
        "\n{:<24} {:>10} {:>12} {:>10} {:>9} {:>7} {:>8} {:>8}",
        "target", "rate", "delivered", "in flight", "retries", "dead", "p50 ms", "p99 ms"
    ));
    let known = sums(before, |stats| stats.targets.iter().map(|t| (t.name.as_str(), t.delivered)).collect());
    let mut targets: Vec<_> = now.targets.iter().collect();
    targets.sort_by_key(|target| std::cmp::Reverse(target.delivered));
    for target in targets.iter().take(SHOWN) {
        let rate = rate(target.delivered, known.get(target.name.as_str()).copied());
        line(format!(
            "{:<24} {rate:>10} {:>12} {:>10} {:>9} {:>7} {:>8.1} {:>8.1}",
            target.name,
            target.delivered,
            target.in_flight,
            target.retries,
            target.dead_lettered,
            target.age_p50_millis,
            target.age_p99_millis
        ));
    }
    line(format!("\n{:<24} {:>10} {:>12}   bus", "rule", "rate", "matches"));
    let known: HashMap<(&str, &str), u64> = before
        .map(|stats| {
            let count = |rule: &crate::api::RuleStats| rule.matches.unwrap_or(0);
            stats.rules.iter().map(|rule| ((rule.bus.as_str(), rule.name.as_str()), count(rule))).collect()
        })
        .unwrap_or_default();
    let mut rules: Vec<_> = now.rules.iter().filter_map(|rule| Some((rule, rule.matches?))).collect();
    rules.sort_by_key(|(_, matches)| std::cmp::Reverse(*matches));
    for (rule, matches) in rules.into_iter().take(SHOWN) {
        let rate = rate(matches, known.get(&(rule.bus.as_str(), rule.name.as_str())).copied());
        line(format!("{:<24} {rate:>10} {matches:>12}   {}", rule.name, rule.bus));
    }
    page
}

fn sums<'s>(before: Option<&'s Stats>, of: impl Fn(&'s Stats) -> HashMap<&'s str, u64>) -> HashMap<&'s str, u64> {
    before.map(of).unwrap_or_default()
}

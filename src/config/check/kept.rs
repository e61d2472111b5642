//! Archives and schedules, as far as types do not say it.

use super::{Check, File};
use crate::catalog::{self, ARCHIVE_RULE, Command};
use crate::config::archives;
use crate::config::model;
use crate::config::problem::Problem;
use crate::config::yaml::Document;
use crate::pattern;
use crate::schedule::Schedule;
use std::sync::Arc;
use std::time::Duration;

const DAY: Duration = Duration::from_hours(24);
/// Most due times that are caught up.
const CATCH_UP: u32 = 1000;
/// Longest name of an archive, as the service has it.
const ARCHIVE_NAME: usize = 48;

impl Check<'_> {
    pub(super) fn archive(
        &mut self,
        document: &Document,
        name: &str,
        archive: &archives::Archive,
        limits: &pattern::Limits,
        files: &[File],
    ) {
        let at = ["archives", name];
        if !is_name(name, ARCHIVE_NAME) {
            let problem = Problem::plain("E0201", format!("`{name}` is not an archive name"));
            self.report(document, &at, problem.help("letters, digits, `.`, `-` and `_`, at most 48"));
        }
        let kept = archive.retention.map_or(Duration::ZERO, |retention| retention.0);
        let days = i64::try_from(kept.as_secs() / DAY.as_secs()).unwrap_or(i64::MAX);
        if archive.retention.is_some() && (days == 0 || !kept.as_millis().is_multiple_of(DAY.as_millis())) {
            let problem = Problem::plain("E0201", "retention is whole days");
            let help = "write `1d` or more, or leave it out to keep events for ever";
            self.report(document, &["archives", name, "retention"], problem.help(help));
        }
        let sound = self.refers(document, &["archives", name, "bus"], files, "buses", &archive.bus);
        let given = archive.pattern.as_ref().map(|pattern| pattern.0.clone());
        if let Some(Err(error)) = given.as_ref().map(|text| pattern::parse(text.as_bytes(), limits)) {
            return self.bad_pattern(document, &at, &error);
        }
        let text = catalog::without_replays(given.as_deref());
        let pattern = match pattern::parse(text.as_bytes(), &pattern::Limits::default()) {
            Ok(pattern) => Arc::new(pattern),
            Err(error) => return self.bad_pattern(document, &at, &error),
        };
        let storage = self.storage(document, &at, (archive.kafka.as_ref(), archive.nats.as_ref()));
        let rule = format!("{ARCHIVE_RULE}{name}");
        let Some(storage) = storage.filter(|_| sound) else { return };
        if self.is_taken(document, &at, (&archive.bus, &rule)) {
            return;
        }
        let (name, bus, description) = (name.to_owned(), archive.bus.clone(), archive.description.clone());
        let archive = catalog::Archive { name, bus, days, description, given, pattern, storage };
        // Who looks at rules means those that somebody wrote.
        if !self.only_rules {
            self.apply(document, &at, Command::PutArchive(archive));
        }
    }

    pub(super) fn schedule(&mut self, document: &Document, name: &str, schedule: &model::Schedule, files: &[File]) {
        let at = ["schedules", name];
        self.rule_name(document, &at);
        let expression = Schedule::parse(&schedule.expression);
        let expression = expression.map_err(|error| {
            let help = "write rate(5 minutes), or six fields as in cron(0 2 * * ? *)";
            let problem = Problem::plain("E0205", format!("no schedule: {error}")).help(help);
            self.report(document, &["schedules", name, "expression"], problem);
        });
        if schedule.catch_up > CATCH_UP {
            let problem = Problem::plain("E0201", format!("at most {CATCH_UP} due times are caught up"));
            self.report(document, &["schedules", name, "catch_up"], problem.help("write 0 to 1000"));
        }
        let sound = self.refers(document, &["schedules", name, "bus"], files, "buses", &schedule.bus);
        let targets = self.rule_targets(document, &at, &schedule.targets, files);
        let (Ok(expression), Some(targets), true) = (expression, targets, sound) else { return };
        if self.is_taken(document, &at, (&schedule.bus, name)) {
            return;
        }
        let timed = catalog::Timed {
            name: name.to_owned(),
            bus: schedule.bus.clone(),
            schedule: expression,
            catch_up: schedule.catch_up,
            is_enabled: schedule.state == model::ScheduleState::Enabled,
            description: schedule.description.clone(),
            targets,
        };
        self.apply(document, &at, Command::PutTimed(timed));
    }

    /// Says so when a rule of a file has the name that something else is to have.
    fn is_taken(&mut self, document: &Document, at: &[&str], (bus, rule): (&str, &str)) -> bool {
        let taken = self.catalog.rule(bus, rule).is_some() || self.catalog.timed_rule(bus, rule).is_some();
        if taken {
            let problem = Problem::plain("E0202", format!("bus `{bus}` has a rule `{rule}` already"));
            self.report(document, at, problem.help("give one of them another name"));
        }
        taken
    }
}

/// Whether a text can name something that is a part of paths and ARNs.
pub(super) fn is_name(name: &str, most: usize) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    !name.is_empty() && name.len() <= most && name.chars().all(good)
}

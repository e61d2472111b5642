//! Rules. Those of files are shown like others and refuse changes.

use super::page::Page;
use super::{ApiError, At, Call, Desired, Done, FILES, Key, Members, Outcome, Record, Rule, tags};
use crate::catalog::{self, DEFAULT_BUS, MAX_ALTERNATIVES};
use crate::pattern::{self, Limits, Pattern};
use crate::schedule::Schedule;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

const SETTINGS: [&str; 5] = ["EventPattern", "ScheduleExpression", "State", "Description", "RoleArn"];

impl Rule {
    /// Whether it matches and fires.
    pub fn is_enabled(&self) -> bool {
        self.setting("State") != Some("DISABLED")
    }

    /// Its pattern, if it has one.
    pub fn pattern(&self) -> Option<&Arc<Pattern>> {
        self.pattern.as_ref()
    }

    /// Its targets, in order of insertion.
    pub fn targets(&self) -> impl Iterator<Item = &Members> {
        self.targets.iter().map(|(_, target)| target)
    }

    /// One of its settings.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).and_then(Value::as_str)
    }

    /// Reads its pattern, unless that is done.
    ///
    /// # Errors
    /// The service's words about the pattern.
    pub(super) fn read(&mut self) -> Result<(), String> {
        if self.pattern.is_none() {
            self.pattern = self.setting("EventPattern").map(read_pattern).transpose()?.map(Arc::new);
        }
        Ok(())
    }

    fn from_file(rule: &catalog::Rule) -> Self {
        let state = if rule.state == catalog::RuleState::Enabled { "ENABLED" } else { "DISABLED" };
        let mut settings = Members::new();
        settings.insert("EventPattern".into(), (*rule.text).into());
        settings.insert("State".into(), state.into());
        settings.extend(rule.about.description.iter().map(|text| ("Description".to_owned(), text.as_str().into())));
        let pattern = Some(Arc::clone(&rule.pattern));
        Self { pattern, ..Self::declared(settings, &rule.targets) }
    }

    fn from_schedule(timed: &catalog::Timed) -> Self {
        let mut settings = Members::new();
        settings.insert("ScheduleExpression".into(), timed.schedule.to_string().into());
        settings.insert("State".into(), if timed.is_enabled { "ENABLED" } else { "DISABLED" }.into());
        settings.extend(timed.description.iter().map(|text| ("Description".to_owned(), text.as_str().into())));
        Self::declared(settings, &timed.targets)
    }

    fn declared(settings: Members, targets: &[catalog::RuleTarget]) -> Self {
        let target = |target: &catalog::RuleTarget| {
            let id = target.target.as_str();
            let arn = if id.starts_with("arn:") { id.to_owned() } else { format!("arn:sluice:target:::{id}") };
            Members::from_iter([("Id".to_owned(), id.into()), ("Arn".to_owned(), arn.into())])
        };
        let targets = (0..).zip(targets.iter().map(target)).collect();
        Self { settings, managed_by: Some(FILES.to_owned()), targets, ..Self::default() }
    }

    fn shown(&self, (scope, bus): &At, name: &str) -> Members {
        let mut shown = Members::new();
        shown.insert("Name".into(), name.into());
        shown.insert("Arn".into(), scope.rule_arn(bus, name).into());
        shown.extend(self.settings.clone());
        shown.extend(self.managed_by.iter().map(|by| ("ManagedBy".to_owned(), by.as_str().into())));
        shown.insert("EventBusName".into(), bus.as_str().into());
        shown
    }

    /// Refuses changes by others than who manages it.
    pub(super) fn changeable(&self, force: bool) -> Result<(), ApiError> {
        match &self.managed_by {
            Some(by) if !force || by == FILES => Err(ApiError::managed("Rule", by)),
            _ => Ok(()),
        }
    }
}

/// Reads a pattern.
fn read_pattern(text: &str) -> Result<Pattern, String> {
    pattern::parse(text.as_bytes(), &Limits::default())
        .map_err(|error| format!("Event pattern is not valid. Reason: {}", error.message))
}

impl Desired<'_> {
    /// A rule, or the service's error.
    pub(super) fn known_rule(&self, (scope, bus): &At, name: &str) -> Result<Cow<'_, Rule>, ApiError> {
        let rule = || self.declared.rule(bus, name).map(Rule::from_file);
        let timed = || self.declared.timed_rule(bus, name).map(Rule::from_schedule);
        let declared = || rule().or_else(timed).map(Cow::Owned);
        let made = || self.made.rules.get(&(scope.clone(), bus.clone(), name.to_owned())).map(Cow::Borrowed);
        let missing = || ApiError::missing(format!("Rule {name} does not exist on EventBus {bus}."));
        declared().or_else(made).ok_or_else(missing)
    }

    /// The bus and the rule that a call names by `member`.
    pub(super) fn named_rule(&self, call: &Call<'_>, member: &str) -> Result<(At, String, Cow<'_, Rule>), ApiError> {
        let at = call.bus("EventBusName");
        self.known_bus(&at)?;
        let name = call.text(member).unwrap_or_default().to_owned();
        let rule = self.known_rule(&at, &name)?;
        Ok((at, name, rule))
    }

    pub(super) fn put_rule(&self, call: &Call<'_>) -> Outcome {
        let at = call.bus("EventBusName");
        let name = call.text("Name").unwrap_or_default();
        let (text, schedule) = (call.text("EventPattern"), call.text("ScheduleExpression"));
        if text.is_none() && schedule.is_none() {
            let message = "Parameter(s) EventPattern or ScheduleExpression must be specified.";
            return Err(ApiError::invalid(message));
        }
        if let Some(schedule) = schedule {
            if at.1 != DEFAULT_BUS {
                return Err(ApiError::invalid("ScheduleExpression is supported only on the default event bus."));
            }
            let read = Schedule::parse(schedule);
            read.map_err(|_| ApiError::invalid("Parameter ScheduleExpression is not valid."))?;
        }
        let pattern = text.map(|text| self.checked_pattern(text)).transpose()?.map(Arc::new);
        self.known_bus(&at)?;
        let old = self.known_rule(&at, name).ok();
        old.as_ref().map_or(Ok(()), |old| old.changeable(false))?;
        self.room(&at, old.as_deref(), pattern.as_deref())?;
        let mut settings = call.some(&SETTINGS);
        settings.entry("State").or_insert_with(|| "ENABLED".into());
        let mut rule = Rule { since: call.now, settings, pattern, ..Rule::default() };
        match old.map(Cow::into_owned) {
            Some(old) => {
                let same = old.is_enabled() && old.setting("ScheduleExpression") == rule.setting("ScheduleExpression");
                rule.since = if same { old.since } else { call.now };
                (rule.targets, rule.numbered) = (old.targets, old.numbered);
                (rule.tags, rule.fired) = (old.tags, old.fired);
            }
            None => rule.tags = tags::first(call, self.quotas.tags)?,
        }
        let arn = at.0.rule_arn(&at.1, name);
        let done = Done::change(Key::Rule(at.0, at.1, name.to_owned()), Some(Record::Rule(rule)));
        Ok(done.with(json!({ "RuleArn": arn })))
    }

    /// Reads a pattern within the quota.
    pub(super) fn checked_pattern(&self, text: &str) -> Result<Pattern, ApiError> {
        let bad = |why: String| ApiError::new("InvalidEventPatternException", why);
        if let Some(most) = self.quotas.pattern.filter(|most| text.chars().count() > *most) {
            return Err(bad(format!("Event pattern is not valid. Reason: it has more than {most} characters")));
        }
        read_pattern(text).map_err(bad)
    }

    /// Whether there is room for a rule, and for its pattern beside the others of its bus.
    pub(super) fn room(&self, at: &At, old: Option<&Rule>, new: Option<&Pattern>) -> Result<(), ApiError> {
        let rules = || self.made.rules_of(&at.0, &at.1);
        if old.is_none() && self.quotas.rules.is_some_and(|most| rules().count() >= most) {
            return Err(ApiError::too_many());
        }
        let own = |pattern: &Pattern| pattern.alternatives.len();
        let added = new.map_or(0, own);
        // Counting all rules is for those that could make the difference.
        if added <= 1 {
            return Ok(());
        }
        let of_files = self.declared.rules().filter(|rule| rule.bus == at.1).map(|rule| own(&rule.pattern));
        let made = rules().filter_map(|(_, rule)| rule.pattern()).map(|pattern| own(pattern));
        let others = of_files.chain(made).sum::<usize>() - old.and_then(Rule::pattern).map_or(0, |old| own(old));
        if others + added > MAX_ALTERNATIVES {
            return Err(ApiError::too_many());
        }
        Ok(())
    }

    pub(super) fn describe_rule(&self, call: &Call<'_>) -> Outcome {
        let (at, name, rule) = self.named_rule(call, "Name")?;
        let mut answer = rule.shown(&at, &name);
        answer.insert("CreatedBy".into(), at.0.account.as_str().into());
        Ok(Done { changes: Vec::new(), answer })
    }

    /// Rules of a bus by name: those of files, and those that were made.
    pub(super) fn all_rules(&self, (scope, bus): &At) -> BTreeMap<&str, Cow<'_, Rule>> {
        let made = self.made.rules_of(scope, bus).map(|(name, rule)| (name, Cow::Borrowed(rule)));
        let rules = self.declared.rules().filter(|rule| rule.bus == *bus);
        let rules = rules.map(|rule| (rule.name.as_str(), Rule::from_file(rule)));
        let timed = self.declared.timed().filter(|timed| timed.bus == *bus);
        let timed = timed.map(|timed| (timed.name.as_str(), Rule::from_schedule(timed)));
        made.chain(rules.chain(timed).map(|(name, rule)| (name, Cow::Owned(rule)))).collect()
    }

    pub(super) fn list_rules(&self, call: &Call<'_>) -> Outcome {
        let at = call.bus("EventBusName");
        self.known_bus(&at)?;
        let rules = self.all_rules(&at);
        Ok(Page::of(call, rules.iter().map(|(name, rule)| (*name, rule.shown(&at, name))))?.answer("Rules"))
    }

    pub(super) fn list_rule_names(&self, call: &Call<'_>) -> Outcome {
        let at = call.bus("EventBusName");
        self.known_bus(&at)?;
        let arn = call.text("TargetArn").unwrap_or_default();
        let has = |rule: &Rule| rule.targets().any(|target| target.get("Arn").is_some_and(|of| of == arn));
        let rules = self.all_rules(&at);
        let names = rules.iter().filter(|(_, rule)| has(rule)).map(|(name, _)| (*name, *name));
        Ok(Page::of(call, names)?.answer("RuleNames"))
    }

    pub(super) fn set_state(&self, call: &Call<'_>, state: &str) -> Outcome {
        let (at, name, rule) = self.named_rule(call, "Name")?;
        rule.changeable(false)?;
        let mut rule = rule.into_owned();
        if !rule.is_enabled() && state == "ENABLED" {
            rule.since = call.now;
        }
        rule.settings.insert("State".into(), state.into());
        Ok(Done::change(Key::Rule(at.0, at.1, name), Some(Record::Rule(rule))))
    }

    pub(super) fn delete_rule(&self, call: &Call<'_>) -> Outcome {
        let at = call.bus("EventBusName");
        let name = call.text("Name").unwrap_or_default();
        let Ok(rule) = self.known_rule(&at, name) else { return Ok(Done::default()) };
        rule.changeable(call.flag("Force"))?;
        if !rule.targets.is_empty() {
            return Err(ApiError::invalid("Rule can't be deleted since it has targets."));
        }
        Ok(Done::change(Key::Rule(at.0, at.1, name.to_owned()), None))
    }
}

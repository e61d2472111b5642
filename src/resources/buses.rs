//! Event buses. Those of files are in every account and region, for the API to see and use, not to change.

use super::page::Page;
use super::{ApiError, At, Bus, Call, Desired, Done, FILES, Key, Members, Outcome, Record, Scope, tags, timestamp};
use crate::catalog::DEFAULT_BUS;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;

const SETTINGS: [&str; 4] = ["Description", "KmsKeyIdentifier", "DeadLetterConfig", "LogConfig"];

impl Desired<'_> {
    /// A bus, if it exists in that account and region.
    pub(super) fn bus(&self, scope: &Scope, name: &str) -> Option<Cow<'_, Bus>> {
        let made = self.made.buses.get(&(scope.clone(), name.to_owned())).map(Cow::Borrowed);
        let begun = Bus { created: self.made.begun, modified: self.made.begun, ..Bus::default() };
        made.or_else(|| (name == DEFAULT_BUS || self.declared.has_bus(name)).then_some(Cow::Owned(begun)))
    }

    /// The same, or the service's error.
    pub(super) fn known_bus(&self, (scope, name): &At) -> Result<Cow<'_, Bus>, ApiError> {
        self.bus(scope, name).ok_or_else(|| ApiError::missing(format!("Event bus {name} does not exist.")))
    }

    /// A bus to be changed. Those of files are changed there; `default` is everybody's.
    pub(super) fn own_bus(&self, at: &At) -> Result<Bus, ApiError> {
        let bus = self.known_bus(at)?.into_owned();
        match at.1 != DEFAULT_BUS && self.declared.has_bus(&at.1) {
            true => Err(ApiError::managed("Event bus", FILES)),
            false => Ok(bus),
        }
    }

    pub(super) fn create_bus(&self, call: &Call<'_>) -> Outcome {
        let name = call.text("Name").unwrap_or_default();
        if let Some(source) = call.text("EventSourceName") {
            return Err(ApiError::missing(format!("Event source {source} does not exist.")));
        }
        if name.contains('/') {
            return Err(ApiError::invalid("Event bus name must not contain '/'."));
        }
        if name.chars().all(|c| c == '.') {
            return Err(ApiError::invalid("Event bus name must not be made of dots alone."));
        }
        if self.bus(&call.scope, name).is_some() {
            return Err(ApiError::exists(format!("Event bus {name} already exists.")));
        }
        let made = self.made.buses.keys().filter(|(scope, name)| *scope == call.scope && name != DEFAULT_BUS);
        // `default` is one of them.
        if self.quotas.buses.is_some_and(|most| made.count() + 1 >= most) {
            return Err(ApiError::too_many());
        }
        let settings = call.some(&SETTINGS);
        let bus = Bus {
            created: call.now,
            modified: call.now,
            settings: settings.clone(),
            policy: None,
            tags: tags::first(call, self.quotas.tags)?,
        };
        let mut done = Done::change(Key::Bus(call.scope.clone(), name.to_owned()), Some(Record::Bus(bus)));
        done.answer = settings;
        done.answer.insert("EventBusArn".into(), call.scope.bus_arn(name).into());
        Ok(done)
    }

    pub(super) fn describe_bus(&self, call: &Call<'_>) -> Outcome {
        let at = call.bus("Name");
        let bus = self.known_bus(&at)?;
        let mut answer = bus.settings.clone();
        answer.extend(self.shown_bus(&at, &bus));
        Ok(Done { changes: Vec::new(), answer })
    }

    /// What lists show of a bus.
    fn shown_bus(&self, (scope, name): &At, bus: &Bus) -> Members {
        let mut shown = Members::new();
        shown.insert("Name".into(), name.as_str().into());
        shown.insert("Arn".into(), scope.bus_arn(name).into());
        shown.extend(bus.settings.get("Description").map(|text| ("Description".to_owned(), text.clone())));
        shown.extend(bus.policy.as_ref().map(|policy| ("Policy".to_owned(), Value::from(policy.to_string()))));
        shown.insert("CreationTime".into(), timestamp(bus.created));
        shown.insert("LastModifiedTime".into(), timestamp(bus.modified));
        if name != DEFAULT_BUS && self.declared.has_bus(name) {
            shown.insert("ManagedBy".into(), FILES.into());
        }
        shown
    }

    pub(super) fn list_buses(&self, call: &Call<'_>) -> Outcome {
        let made = self.made.buses.keys().filter(|(scope, _)| *scope == call.scope).map(|(_, name)| name.as_str());
        let declared = self.declared.buses().map(|bus| bus.name.as_str());
        let names = made.chain(declared).chain([DEFAULT_BUS]);
        let buses: BTreeMap<&str, Cow<'_, Bus>> =
            names.filter_map(|name| Some((name, self.bus(&call.scope, name)?))).collect();
        let shown =
            buses.iter().map(|(name, bus)| (*name, self.shown_bus(&(call.scope.clone(), (*name).to_owned()), bus)));
        let page = Page::of(call, shown)?;
        Ok(page.answer("EventBuses"))
    }

    pub(super) fn update_bus(&self, call: &Call<'_>) -> Outcome {
        let at = call.bus("Name");
        let mut bus = self.own_bus(&at)?;
        bus.settings.extend(call.some(&SETTINGS));
        bus.modified = call.now;
        let mut answer = bus.settings.clone();
        answer.insert("Arn".into(), at.0.bus_arn(&at.1).into());
        answer.insert("Name".into(), at.1.as_str().into());
        let mut done = Done::change(Key::Bus(at.0, at.1), Some(Record::Bus(bus)));
        done.answer = answer;
        Ok(done)
    }

    pub(super) fn delete_bus(&self, call: &Call<'_>) -> Outcome {
        let (scope, name) = call.bus("Name");
        if name == DEFAULT_BUS {
            return Err(ApiError::invalid("Cannot delete event bus default."));
        }
        if self.made.rules_of(&scope, &name).next().is_some() {
            return Err(ApiError::invalid("EventBus can't be deleted since it has rules."));
        }
        if self.declared.has_bus(&name) {
            let message = format!("Event bus {name} stands in a configuration file; delete it there.");
            return Err(ApiError::invalid(message));
        }
        let there = self.made.buses.contains_key(&(scope.clone(), name.clone()));
        let change = there.then(|| (Key::Bus(scope, name), None));
        Ok(Done { changes: change.into_iter().collect(), answer: Members::new() })
    }
}

impl<T: Into<Value>> Page<T> {
    /// The answer of a list.
    pub fn answer(self, member: &str) -> Done {
        let elements: Vec<Value> = self.elements.into_iter().map(Into::into).collect();
        let mut answer = json!({ member: elements });
        if let Some(next) = self.next {
            answer["NextToken"] = next.into();
        }
        Done::answer(answer)
    }
}

//! Replays: what was archived, once more.

use super::archives::at_most_one;
use super::page::Page;
use super::{ApiError, Arn, Call, Desired, Done, Item, Kind, Members, Outcome, Record, timestamp};
use serde_json::Value;

/// How long a finished one is shown.
const SHOWN_DAYS: i64 = 90;
const SETTINGS: [&str; 5] = ["Description", "EventSourceArn", "Destination", "EventStartTime", "EventEndTime"];

impl Desired<'_> {
    fn replay(&self, call: &Call<'_>) -> Result<&Item, ApiError> {
        let name = call.text("ReplayName").unwrap_or_default();
        let missing = || ApiError::missing(format!("Replay {name} does not exist."));
        let item = self.made.item(Kind::Replay, &call.scope, name).filter(|item| !item.is_forgotten(call.now));
        item.ok_or_else(missing)
    }

    pub(super) fn start_replay(&self, call: &Call<'_>) -> Outcome {
        let name = call.text("ReplayName").unwrap_or_default();
        let to = call.members.get("Destination").and_then(|to| to.get("Arn")).and_then(Value::as_str);
        let bad =
            || ApiError::invalid("Parameter Destination.Arn is not valid. Reason: Must contain an event bus ARN.");
        let bus =
            to.and_then(Arn::parse).and_then(|arn| Some((arn.scope()?, arn.bus()?.to_owned()))).ok_or_else(bad)?;
        self.known_bus(&bus)?;
        let source = call.text("EventSourceArn").unwrap_or_default();
        let archive = Arn::parse(source).and_then(|arn| Some((arn.scope()?, arn.of("archive/")?.to_owned())));
        let of = archive.as_ref().map_or(source, |(_, name)| name);
        let missing = || {
            ApiError::invalid(format!("Parameter EventSourceArn is not valid. Reason: Archive {of} does not exist."))
        };
        let (scope, archive) = archive.as_ref().ok_or_else(missing)?;
        let archive = self.made.archive(self.declared, scope, archive).ok_or_else(missing)?;
        let filters = call.members.get("Destination").and_then(|to| to.get("FilterArns")).and_then(Value::as_array);
        let is_rule = |arn: &Value| arn.as_str().and_then(Arn::parse).is_some_and(|arn| arn.rule().is_some());
        if !filters.is_none_or(|filters| filters.iter().all(is_rule)) {
            let message = "Parameter Destination.FilterArns is not valid. Reason: Must contain rule ARNs.";
            return Err(ApiError::invalid(message));
        }
        if archive.setting("EventSourceArn") != to {
            let message = "Parameter Destination.Arn is not valid. Reason: Cross event bus replay is not permitted.";
            return Err(ApiError::invalid(message));
        }
        let time = |name: &str| millis(call.members.get(name));
        let (Some(from), Some(till)) = (time("EventStartTime"), time("EventEndTime")) else {
            return Err(ApiError::new("SerializationException", "EventStartTime or EventEndTime is no time"));
        };
        if from >= till {
            let message = "Parameter EventEndTime is not valid. Reason: EventStartTime must be before EventEndTime.";
            return Err(ApiError::invalid(message));
        }
        if self.replay(call).is_ok() {
            return Err(ApiError::exists(format!("Replay {name} already exists.")));
        }
        let running = self.made.items(Kind::Replay, &call.scope).filter(|(_, item)| !item.is_finished());
        if self.quotas.replays.is_some_and(|most| running.count() >= most) {
            return Err(ApiError::too_many());
        }
        let mut item = Item::new(call, format!("replay/{name}"));
        item.state = "STARTING".to_owned();
        item.settings = call.some(&SETTINGS);
        item.settings.insert("EventStartTime".into(), timestamp(from));
        item.settings.insert("EventEndTime".into(), timestamp(till));
        let mut answer = item.replay_state();
        answer.insert("ReplayArn".into(), item.arn.as_str().into());
        answer.insert("ReplayStartTime".into(), timestamp(item.created));
        Ok(Done::change(call.key(Kind::Replay, name), Some(Record::Item(item))).with_members(answer))
    }

    pub(super) fn describe_replay(&self, call: &Call<'_>) -> Outcome {
        let item = self.replay(call)?;
        let mut answer = item.replay_state();
        answer.insert("ReplayArn".into(), item.arn.as_str().into());
        answer.insert("ReplayName".into(), call.text("ReplayName").unwrap_or_default().into());
        answer.extend(item.settings.clone());
        answer.extend(item.replay_times());
        Ok(Done::answer(answer.into()))
    }

    pub(super) fn list_replays(&self, call: &Call<'_>) -> Outcome {
        at_most_one(call, "ListReplays", &["NamePrefix", "EventSourceArn", "State"])?;
        let wanted = |item: &Item| {
            call.text("EventSourceArn").is_none_or(|arn| item.setting("EventSourceArn") == Some(arn))
                && call.text("State").is_none_or(|state| item.state == state)
                && !item.is_forgotten(call.now)
        };
        let items = self.made.items(Kind::Replay, &call.scope).filter(|(_, item)| wanted(item));
        let shown = items.map(|(name, item)| {
            let mut shown = item.replay_state();
            shown.insert("ReplayName".into(), name.into());
            shown.extend(item.settings.clone().into_iter().filter(|(name, _)| name.starts_with("Event")));
            shown.extend(item.replay_times());
            (name, shown)
        });
        Ok(Page::of(call, shown)?.answer("Replays"))
    }

    pub(super) fn cancel_replay(&self, call: &Call<'_>) -> Outcome {
        let name = call.text("ReplayName").unwrap_or_default();
        let mut item = self.replay(call)?.clone();
        if item.is_finished() {
            let message = format!("Replay {name} is not in a valid state for this operation.");
            return Err(ApiError::new("IllegalStatusException", message));
        }
        item.state = "CANCELLING".to_owned();
        let mut answer = item.replay_state();
        answer.insert("ReplayArn".into(), item.arn.as_str().into());
        Ok(Done::change(call.key(Kind::Replay, name), Some(Record::Item(item))).with_members(answer))
    }
}

impl Item {
    /// Whether a replay has ended, one way or the other.
    pub fn is_finished(&self) -> bool {
        matches!(self.state.as_str(), "COMPLETED" | "CANCELLED" | "FAILED")
    }

    /// Whether a replay ended so long ago that it is not shown any more.
    pub fn is_forgotten(&self, now: i64) -> bool {
        self.finished.is_some_and(|at| now - at > SHOWN_DAYS * 24 * 3_600_000)
    }

    fn replay_state(&self) -> Members {
        let mut answer = Members::from_iter([("State".to_owned(), self.state.as_str().into())]);
        answer.extend(self.reason());
        answer
    }

    fn replay_times(&self) -> Members {
        let times = [
            ("ReplayStartTime", Some(self.created)),
            ("EventLastReplayedTime", self.reached),
            ("ReplayEndTime", self.finished),
        ];
        times.into_iter().filter_map(|(name, at)| Some((name.to_owned(), timestamp(at?)))).collect()
    }
}

/// A timestamp of a call, as milliseconds since the epoch.
fn millis(value: Option<&Value>) -> Option<i64> {
    match value? {
        Value::Number(seconds) => seconds.as_f64().map(|seconds| (seconds * 1000.0).round() as i64),
        Value::String(text) => text.parse::<jiff::Timestamp>().ok().map(|at| at.as_millisecond()),
        _ => None,
    }
}

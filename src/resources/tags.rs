//! Tags of buses and rules.

use super::{ApiError, Arn, Call, Desired, Done, Key, Outcome, Record};
use serde_json::{Value, json};

type Tags = Vec<(String, String)>;

/// Tags that come with a creation, `most` at most.
///
/// # Errors
/// Too many, or names that only the service may give.
pub fn first(call: &Call<'_>, most: Option<usize>) -> Result<Tags, ApiError> {
    with(Vec::new(), call, most)
}

/// Tags with those of a call over them.
fn with(mut tags: Tags, call: &Call<'_>, most: Option<usize>) -> Result<Tags, ApiError> {
    let given = call.members.get("Tags").and_then(Value::as_array).into_iter().flatten();
    let text = |tag: &Value, member: &str| tag.get(member).and_then(Value::as_str).unwrap_or_default().to_owned();
    for (key, value) in given.map(|tag| (text(tag, "Key"), text(tag, "Value"))) {
        if key.starts_with("aws:") {
            return Err(ApiError::invalid(format!("Tag key {key} is not valid. Reason: it begins with aws:.")));
        }
        match tags.iter_mut().find(|(known, _)| *known == key) {
            Some((_, old)) => *old = value,
            None => tags.push((key, value)),
        }
    }
    if most.is_some_and(|most| tags.len() > most) { Err(ApiError::too_many()) } else { Ok(tags) }
}

impl Desired<'_> {
    pub(super) fn tag(&self, call: &Call<'_>) -> Outcome {
        self.change_tags(call, |tags| with(tags, call, self.quotas.tags))
    }

    pub(super) fn untag(&self, call: &Call<'_>) -> Outcome {
        let keys = call.members.get("TagKeys").and_then(Value::as_array);
        let gone: Vec<&str> = keys.into_iter().flatten().filter_map(Value::as_str).collect();
        self.change_tags(call, |mut tags| {
            tags.retain(|(key, _)| !gone.contains(&key.as_str()));
            Ok(tags)
        })
    }

    pub(super) fn list_tags(&self, call: &Call<'_>) -> Outcome {
        let (_, record) = self.tagged(call)?;
        let tags = match &record {
            Record::Rule(rule) => &rule.tags[..],
            Record::Bus(bus) => &bus.tags,
            Record::Begun(_) | Record::Fired(_) | Record::Item(_) => &[],
        };
        let tags: Vec<Value> = tags.iter().map(|(key, value)| json!({ "Key": key, "Value": value })).collect();
        Ok(Done::answer(json!({ "Tags": tags })))
    }

    fn change_tags(&self, call: &Call<'_>, change: impl FnOnce(Tags) -> Result<Tags, ApiError>) -> Outcome {
        let (key, mut record) = self.tagged(call)?;
        match &mut record {
            Record::Rule(rule) => {
                if let Some(by) = &rule.managed_by {
                    return Err(ApiError::managed("Rule", by));
                }
                rule.tags = change(std::mem::take(&mut rule.tags))?;
            }
            Record::Bus(bus) => {
                if let Key::Bus(scope, name) = &key {
                    self.own_bus(&(scope.clone(), name.clone()))?;
                }
                bus.tags = change(std::mem::take(&mut bus.tags))?;
            }
            Record::Begun(_) | Record::Fired(_) | Record::Item(_) => {}
        }
        Ok(Done::change(key, Some(record)))
    }

    /// What the call's ARN names.
    fn tagged(&self, call: &Call<'_>) -> Result<(Key, Record), ApiError> {
        let text = call.text("ResourceARN").unwrap_or_default();
        let bad = || {
            ApiError::invalid(format!("Parameter {text} is not valid. Reason: Provided Arn is not in correct format."))
        };
        let arn = Arn::parse(text).ok_or_else(bad)?;
        let scope = arn.scope().ok_or_else(bad)?;
        if let Some((bus, name)) = arn.rule() {
            let at = (scope, bus.to_owned());
            self.known_bus(&at)?;
            let rule = self.known_rule(&at, name)?.into_owned();
            return Ok((Key::Rule(at.0, at.1, name.to_owned()), Record::Rule(rule)));
        }
        let at = (scope, arn.bus().ok_or_else(bad)?.to_owned());
        let bus = self.known_bus(&at)?.into_owned();
        Ok((Key::Bus(at.0, at.1), Record::Bus(bus)))
    }
}

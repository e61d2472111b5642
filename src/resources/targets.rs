//! Targets of rules, kept as they came.

use super::page::Page;
use super::{ApiError, Arn, Call, Desired, Done, Key, Members, Outcome, Record, Rule};
use crate::transform::{Input, JsonPath, Template, TemplateError, check_constant};
use serde_json::{Value, json};
use std::fmt;

impl Desired<'_> {
    pub(super) fn put_targets(&self, call: &Call<'_>) -> Outcome {
        let given: Vec<&Members> = list(call, "Targets").filter_map(Value::as_object).collect();
        given.iter().try_for_each(|target| check(target))?;
        let (at, name, rule) = self.named_rule(call, "Rule")?;
        rule.changeable(false)?;
        let mut rule = rule.into_owned();
        for target in given {
            match rule.targets.iter_mut().find(|(_, known)| known.get("Id") == target.get("Id")) {
                Some((_, known)) => known.clone_from(target),
                None => {
                    rule.targets.push((rule.numbered, target.clone()));
                    rule.numbered += 1;
                }
            }
        }
        if self.quotas.targets.is_some_and(|most| rule.targets.len() > most) {
            return Err(ApiError::too_many());
        }
        Ok(Done::change(Key::Rule(at.0, at.1, name), Some(Record::Rule(rule))).with(all_good()))
    }

    pub(super) fn remove_targets(&self, call: &Call<'_>) -> Outcome {
        let (at, name, rule) = self.named_rule(call, "Rule")?;
        rule.changeable(call.flag("Force"))?;
        let mut rule = rule.into_owned();
        rule.targets.retain(|(_, target)| !list(call, "Ids").any(|id| target.get("Id") == Some(id)));
        Ok(Done::change(Key::Rule(at.0, at.1, name), Some(Record::Rule(rule))).with(all_good()))
    }

    pub(super) fn list_targets(&self, call: &Call<'_>) -> Outcome {
        let (_, _, rule) = self.named_rule(call, "Rule")?;
        Ok(Page::inserted(call, rule.targets.iter().cloned())?.answer("Targets"))
    }
}

impl Rule {
    /// What a target of it receives.
    ///
    /// # Errors
    /// What is wrong with the form.
    pub fn input(target: &Members) -> Result<Input, Unfit> {
        if let Some(constant) = text(target, "Input") {
            check_constant(constant.as_bytes()).map_err(|fault| Unfit::Constant(fault.to_string()))?;
            return Ok(Input::Constant(constant.as_bytes().to_vec()));
        }
        if let Some(path) = text(target, "InputPath") {
            return JsonPath::parse(path).map(Input::Path).map_err(Unfit::Path);
        }
        let Some(transformer) = target.get("InputTransformer") else { return Ok(Input::Event) };
        let paths = transformer.get("InputPathsMap").and_then(Value::as_object).into_iter().flatten();
        let paths: Vec<_> = paths.filter_map(|(name, path)| Some((name.clone(), path.as_str()?.to_owned()))).collect();
        let template = transformer.get("InputTemplate").and_then(Value::as_str).unwrap_or_default();
        Template::new(&paths, template).map(Input::Template).map_err(Unfit::Template)
    }
}

/// What is wrong with what a target is to receive.
#[derive(Debug)]
pub enum Unfit {
    /// `Input` is no JSON.
    Constant(String),
    /// `InputPath` is no path.
    Path(String),
    /// `InputTransformer`
    Template(TemplateError),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(why) => write!(f, "the constant is not JSON: {why}"),
            Self::Path(why) => f.write_str(why),
            Self::Template(why) => why.fmt(f),
        }
    }
}

/// A text of a target; an empty one counts as absent.
pub(super) fn text<'t>(target: &'t Members, name: &str) -> Option<&'t str> {
    target.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
}

fn list<'c>(call: &'c Call<'_>, name: &str) -> impl Iterator<Item = &'c Value> {
    call.members.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn all_good() -> Value {
    json!({ "FailedEntryCount": 0, "FailedEntries": [] })
}

/// What can be said of a target without its rule.
fn check(target: &Members) -> Result<(), ApiError> {
    let (id, arn) = (text(target, "Id").unwrap_or_default(), text(target, "Arn").unwrap_or_default());
    let queue = target.get("DeadLetterConfig").and_then(|queue| queue.get("Arn")).and_then(Value::as_str);
    for arn in [Some(arn), queue].into_iter().flatten() {
        let bad = || format!("Parameter {arn} is not valid. Reason: Provided Arn is not in correct format.");
        Arn::parse(arn).ok_or_else(|| ApiError::invalid(bad()))?;
    }
    let group = target.get("SqsParameters").and_then(|queue| queue.get("MessageGroupId")).and_then(Value::as_str);
    if arn.contains(":sqs:") && arn.ends_with(".fifo") && group.is_none() {
        return Err(ApiError::invalid(format!("Parameter(s) SqsParameters must be specified for target: {id}.")));
    }
    let forms =
        [text(target, "Input").is_some(), text(target, "InputPath").is_some(), target.contains_key("InputTransformer")];
    if forms.iter().filter(|given| **given).count() > 1 {
        let message = format!("Only one of Input, InputPath, or InputTransformer must be provided for target {id}.");
        return Err(ApiError::invalid(message));
    }
    Rule::input(target).map(drop).map_err(|why| {
        ApiError::invalid(match why {
            Unfit::Constant(_) => format!("JSON syntax error in input for target {id}: {why}."),
            Unfit::Path(why) => format!("Parameter InputPath is not valid for target {id}. Reason: {why}."),
            Unfit::Template(TemplateError::Placeholder(name)) => {
                format!("InputTemplate for target {id} contains invalid placeholder {name}.")
            }
            Unfit::Template(why) => format!("Parameter InputTransformer is not valid for target {id}. Reason: {why}."),
        })
    })
}

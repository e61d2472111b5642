//! Resource policies of buses: who else may put events.

use super::{ApiError, At, Call, Desired, Done, Key, Outcome, Record};
use serde_json::{Value, json};

/// Characters of a policy.
const MOST: usize = 10_240;
const VERSION: &str = "2012-10-17";

impl Desired<'_> {
    pub(super) fn put_permission(&self, call: &Call<'_>) -> Outcome {
        let at = call.bus("EventBusName");
        let mut bus = self.own_bus(&at)?;
        let policy = match call.text("Policy") {
            Some(text) => whole(text)?,
            None => with_statement(bus.policy.take(), statement(call, &at)?),
        };
        if policy.to_string().chars().count() > MOST {
            let message = format!("The policy would have more than {MOST} characters.");
            return Err(ApiError::new("PolicyLengthExceededException", message));
        }
        bus.policy = Some(policy);
        bus.modified = call.now;
        Ok(Done::change(Key::Bus(at.0, at.1), Some(Record::Bus(bus))))
    }

    pub(super) fn remove_permission(&self, call: &Call<'_>) -> Outcome {
        let at = call.bus("EventBusName");
        let mut bus = self.own_bus(&at)?;
        if call.flag("RemoveAllPermissions") {
            bus.policy = None;
        } else {
            let absent = || ApiError::missing("Statement with the provided id does not exist.");
            let id = call.text("StatementId").ok_or_else(|| {
                ApiError::invalid("Parameter StatementId must be specified unless RemoveAllPermissions is true.")
            })?;
            let mut policy = bus.policy.take().ok_or_else(absent)?;
            let statements = policy.get_mut("Statement").ok_or_else(absent)?;
            if statements.is_object() {
                *statements = Value::Array(vec![statements.take()]);
            }
            let statements = statements.as_array_mut().ok_or_else(absent)?;
            let before = statements.len();
            statements.retain(|statement| statement["Sid"] != id);
            let (left, found) = (statements.len(), statements.len() < before);
            found.then_some(()).ok_or_else(absent)?;
            bus.policy = (left > 0).then_some(policy);
        }
        bus.modified = call.now;
        Ok(Done::change(Key::Bus(at.0, at.1), Some(Record::Bus(bus))))
    }
}

/// A policy that came as a text.
fn whole(text: &str) -> Result<Value, ApiError> {
    let bad = |why: &str| ApiError::invalid(format!("Parameter Policy is not valid. Reason: {why}."));
    let policy: Value = serde_json::from_str(text).map_err(|error| bad(&format!("it is not JSON: {error}")))?;
    match policy.get("Statement") {
        Some(Value::Array(_) | Value::Object(_)) => Ok(policy),
        _ => Err(bad("it has no Statement")),
    }
}

/// The statement of a call's members.
fn statement(call: &Call<'_>, (scope, bus): &At) -> Result<Value, ApiError> {
    let needs = |name: &str| {
        let missing = || ApiError::invalid(format!("Parameter {name} must be specified."));
        call.text(name).ok_or_else(missing)
    };
    let action = needs("Action")?;
    if action != "events:PutEvents" {
        return Err(ApiError::invalid("Provided value in parameter 'action' is not supported."));
    }
    let principal = match needs("Principal")? {
        "*" => json!("*"),
        account => json!({ "AWS": scope.root_arn(account) }),
    };
    let mut statement = json!({
        "Sid": needs("StatementId")?,
        "Effect": "Allow",
        "Principal": principal,
        "Action": action,
        "Resource": scope.bus_arn(bus),
    });
    if let Some(condition) = call.members.get("Condition") {
        let part = |name: &str| condition.get(name).and_then(Value::as_str).unwrap_or_default();
        if (part("Type"), part("Key")) != ("StringEquals", "aws:PrincipalOrgID") {
            let message = "Parameter Condition is not valid. Reason: Type is StringEquals and Key aws:PrincipalOrgID.";
            return Err(ApiError::invalid(message));
        }
        statement["Condition"] = json!({ part("Type"): { part("Key"): part("Value") } });
    }
    Ok(statement)
}

/// A policy with a statement; one of the same id makes way.
fn with_statement(policy: Option<Value>, statement: Value) -> Value {
    let mut policy = policy.unwrap_or_else(|| json!({ "Version": VERSION, "Statement": [] }));
    let mut statements = match policy["Statement"].take() {
        Value::Array(list) => list,
        one => vec![one],
    };
    statements.retain(|known| known["Sid"] != statement["Sid"]);
    statements.push(statement);
    policy["Statement"] = Value::Array(statements);
    policy
}

//! The model of the API: every bound of its table, violated in turn.

use serde_json::{Map, Value, json};
use sluice::api::model::{Model, model};
use std::collections::BTreeMap;

const TABLE: &str = include_str!("../../src/api/model.txt");

/// Values out of a type's bounds, and what is said of each.
fn violations(kind: &str) -> Vec<(Value, String)> {
    let (kind, rest) = kind.split_once(' ').unwrap_or((kind, ""));
    let bounds = rest.split(' ').next().unwrap_or_default();
    let bound = |text: &str| text.parse::<i64>().ok();
    let (least, most) = bounds.split_once("..").map_or((None, None), |(a, b)| (bound(a), bound(b)));
    let below = |what: &str, n: i64| format!("Member must have {what} greater than or equal to {n}");
    let above = |what: &str, n: i64| format!("Member must have {what} less than or equal to {n}");
    let mut found = Vec::new();
    match kind {
        "number" => {
            found.extend(least.map(|n| (json!(n - 1), below("value", n))));
            found.extend(most.map(|n| (json!(n + 1), above("value", n))));
        }
        "string" | "secret" => {
            found.extend(most.filter(|n| *n < 10_000).map(|n| (json!("a".repeat(n as usize + 1)), above("length", n))));
            if let Some((_, pattern)) = rest.split_once(' ').filter(|(_, pattern)| *pattern != ".*") {
                found.push((json!("\u{7}"), format!("Member must satisfy regular expression pattern: {pattern}")));
            }
        }
        "enum" => {
            found.push((json!("nope"), format!("Member must satisfy enum value set: [{}]", rest.replace(" | ", ", "))))
        }
        _ => {}
    }
    found
}

#[test]
fn every_bound_is_held() {
    let mut types = BTreeMap::new();
    let mut actions = Vec::new();
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.splitn(3, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some("type"), Some(name), Some(kind)) => drop(types.insert(name, kind)),
            (Some("action"), Some(name), Some(members)) => actions.push((name, members)),
            _ => {}
        }
    }
    let mut count = 0;
    for (action, members) in &actions {
        for member in members.trim_matches(['{', '}', ' ']).split(", ") {
            let (name, kind) = member.split_once(' ').expect("a member and its type");
            let (name, required) = (name.trim_end_matches('!'), name.ends_with('!'));
            let path = name[..1].to_lowercase() + &name[1..];
            let check = |members: Map<String, Value>| model().check(action, &mut members.clone());
            if required {
                let said = check(Map::new()).expect_err(action).message;
                assert!(said.contains(&format!(
                    "Value null at '{path}' failed to satisfy constraint: Member must not be null"
                )));
            }
            for (value, said) in types.get(kind).map_or_else(Vec::new, |kind| violations(kind)) {
                let error = check(Map::from_iter([(name.to_owned(), value.clone())])).expect_err(action);
                let wanted = format!("at '{path}' failed to satisfy constraint: {said}");
                assert_eq!(error.code, "ValidationException");
                assert!(error.message.contains(&wanted), "{action} {value}\n{wanted}\n{}", error.message);
                count += 1;
            }
        }
    }
    assert!(actions.len() == 57 && count > 150, "{} actions, {count} bounds", actions.len());
}

/// Deep members, lists and maps; of several faults each is told, and secrets are not.
#[test]
fn what_is_wrong_is_told_with_its_place() {
    let rows = [
        (
            "PutTargets",
            json!({ "Rule": "r", "Targets": [{ "Id": "a", "Arn": "b" }, { "Id": "a b", "Arn": "" }] }),
            "2 validation errors detected: Value 'a b' at 'targets.2.member.id' failed to satisfy constraint: Member must satisfy \
             regular expression pattern: [\\.\\-_A-Za-z0-9]+; Value '' at 'targets.2.member.arn' failed to satisfy constraint: \
             Member must have length greater than or equal to 1",
        ),
        (
            "RemoveTargets",
            json!({ "Rule": "r", "Ids": ["a", "a b"] }),
            "1 validation error detected: Value '[a, a b]' at 'ids' failed to satisfy constraint: Member must satisfy constraint: \
             [Member must have length less than or equal to 64, Member must have length greater than or equal to 1, Member must \
             satisfy regular expression pattern: [\\.\\-_A-Za-z0-9]+]",
        ),
        (
            "PutTargets",
            json!({ "Rule": "r", "Targets": [] }),
            "1 validation error detected: Value '[]' at 'targets' failed to satisfy constraint: Member must have length greater \
             than or equal to 1",
        ),
        (
            "CreateConnection",
            json!({ "Name": "c", "AuthorizationType": "BASIC", "AuthParameters": { "BasicAuthParameters": { "Username": "u", "Password": "se:cret" } } }),
            "1 validation error detected: Value at 'authParameters.basicAuthParameters.password' failed to satisfy constraint: \
             Member must satisfy regular expression pattern: ^[ \\t]*[^\\x00-\\x1F:\\x7F]+([ \\t]+[^\\x00-\\x1F:\\x7F]+)*[ \\t]*$",
        ),
        (
            "CreateEventBus",
            json!({ "Name": "a", "Tags": [{ "Key": "", "Value": "v" }] }),
            "1 validation error detected: Value '' at 'tags.1.member.key' failed to satisfy constraint: Member must have length \
             greater than or equal to 1",
        ),
    ];
    for (action, members, said) in rows {
        let mut members = members.as_object().expect("members").clone();
        assert_eq!(model().check(action, &mut members).expect_err(action).message, said);
    }
}

/// Values of another type are no matter of bounds, members that the model does not have are none.
#[test]
fn types_are_held() {
    let rows = [
        ("PutRule", json!({ "Name": 1 }), Some("name must be of type RuleName and is a number")),
        ("PutTargets", json!({ "Rule": "r", "Targets": {} }), Some("targets must be of type list and is an object")),
        ("ListRules", json!({ "Limit": "1" }), Some("limit must be of type LimitMax100 and is a string")),
        ("DeleteRule", json!({ "Name": "r", "Force": 1 }), Some("force must be of type boolean and is a number")),
        ("ListRules", json!({ "Nope": 1, "name": 2, "NextToken": null }), None),
        ("PutRule", json!({ "Name": "r", "Description": "", "EventPattern": "{}" }), None),
    ];
    for (action, members, said) in rows {
        let mut members = members.as_object().expect("members").clone();
        match (model().check(action, &mut members), said) {
            (Err(error), Some(said)) => {
                assert_eq!((error.code, error.message.as_str()), ("SerializationException", said));
            }
            (checked, said) => assert_eq!(checked.err().map(|error| error.message), said.map(str::to_owned)),
        }
        assert!(!members.contains_key("Nope") && !members.contains_key("Description"), "{members:?}");
    }
}

#[test]
fn tables_that_are_none_are_refused() {
    for (table, said) in [("action A { B C }", "type C is missing"), ("type A nope", "type A nope"), ("x", "x")] {
        let error = Model::read(table).err().expect("an error");
        assert!(error.contains(said), "{table}: {error}");
    }
}

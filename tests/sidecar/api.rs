//! The management API: what callers make, and what they are told. Stories of `api.jsonl` are told to running processes.

use crate::endpoint::Endpoint;
use crate::process::until;
use serde_json::{Value, json};

pub const NONE: &str = "";
pub const MISSING: &str = "ResourceNotFoundException";

/// Action, members, the code of the error, and what the answer has or says.
pub type Step = (&'static str, Value, &'static str, Value);

pub const FILES: &str = "buses: { Orders: {} }\ntargets: { log: { log: { group: orders } } }\n\
                         rules: { filed: { bus: Orders, pattern: { source: [filed] }, targets: [log] } }\n";

/// A line: `story`, `action`, `members`, and `error` with what it `says`, or what the answer `has`.
const STORIES: &str = include_str!("api.jsonl");

pub fn arn(resource: &str) -> String {
    format!("arn:aws:events:eu-west-1:000000000000:{resource}")
}

/// Takes one step after the other; an expected text is part of the message, expected members are those of the answer.
pub fn check(endpoint: &Endpoint, steps: Vec<Step>) {
    for (action, members, code, expected) in steps {
        step(endpoint, action, &members, code, &expected);
    }
}

/// Tells a story; `$connection` in it stands for `connection`, and then for the one that was spoken of last.
fn tell(endpoint: &Endpoint, story: &str, connection: &str) {
    let (mut connection, mut steps) = (connection.to_owned(), 0);
    for line in STORIES.lines() {
        let line: Value = serde_json::from_str(&line.replace("$connection", &connection)).expect("JSON");
        if line["story"] != story {
            continue;
        }
        let (action, error) = (line["action"].as_str().expect("an action"), line["error"].as_str());
        let expected = if error.is_some() { &line["says"] } else { &line["has"] };
        let answer = step(endpoint, action, &line["members"], error.unwrap_or(NONE), expected);
        connection = answer["ConnectionArn"].as_str().unwrap_or(&connection).to_owned();
        steps += 1;
    }
    assert!(steps > 0, "{story}");
}

fn step(endpoint: &Endpoint, action: &str, members: &Value, code: &str, expected: &Value) -> Value {
    let (status, answer) = endpoint.call(action, members);
    let place = format!("{action} {members}: {answer}");
    assert_eq!(status, if code == NONE { 200 } else { 400 }, "{place}");
    match expected {
        Value::String(text) => {
            assert_eq!(answer["__type"], code, "{place}");
            assert!(answer["message"].as_str().unwrap_or_default().contains(text), "{place}\n{text}");
        }
        _ => assert!(holds(&answer, expected), "{place}\n{expected}"),
    }
    answer
}

/// Whether an answer has all that is expected; lists are whole, and `null` stands for what must not be there.
fn holds(answer: &Value, expected: &Value) -> bool {
    match (answer, expected) {
        (_, Value::Null) => answer.is_null(),
        (Value::Object(_), Value::Object(members)) => members.iter().all(|(name, value)| holds(&answer[name], value)),
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(found, wanted)| holds(found, wanted))
        }
        _ => answer == expected,
    }
}

/// Stories that stand for themselves; the last is what a provider of Terraform asks for, from creating to destroying.
#[test]
fn stories() {
    for story in ["buses", "rules", "terraform"] {
        let endpoint = Endpoint::start("", FILES);
        tell(&endpoint, story, "");
        endpoint.stop();
    }
}

#[test]
fn targets_come_back_as_they_came() {
    let endpoint = Endpoint::start("", "");
    tell(&endpoint, "targets", "");
    let (_, page) = endpoint.call("ListTargetsByRule", &json!({ "Rule": "r", "Limit": 2 }));
    let token = page["NextToken"].clone();
    endpoint.call("RemoveTargets", &json!({ "Rule": "r", "Ids": ["0", "1"] }));
    let rest = json!({ "Targets": [{ "Id": "2" }, { "Id": "3" }, { "Id": "4" }], "NextToken": null });
    check(&endpoint, vec![("ListTargetsByRule", json!({ "Rule": "r", "NextToken": token }), NONE, rest)]);
    endpoint.stop();
}

#[test]
fn permissions_make_a_policy() {
    let endpoint = Endpoint::start("", "");
    tell(&endpoint, "permissions", "");
    let (_, bus) = endpoint.call("DescribeEventBus", &json!({}));
    let policy: Value = serde_json::from_str(bus["Policy"].as_str().expect("a text")).expect("JSON");
    let resource = arn("event-bus/default");
    let statement =
        json!({ "Sid": "a", "Effect": "Allow", "Principal": "*", "Action": "events:PutEvents", "Resource": resource });
    assert_eq!(policy, json!({ "Version": "2012-10-17", "Statement": [statement] }));
    tell(&endpoint, "no permissions", "");
    endpoint.stop();
}

#[test]
fn secrets_go_in_and_never_come_out() {
    let endpoint = Endpoint::start("", "");
    tell(&endpoint, "connections", "");
    let (_, described) = endpoint.call("DescribeConnection", &json!({ "Name": "c" }));
    tell(&endpoint, "API destinations", described["ConnectionArn"].as_str().expect("an ARN"));
    let store = std::fs::read(endpoint.place.path().join("data/catalog.redb")).expect("a store");
    assert!(!store.windows(6).any(|bytes| bytes == b"S3cret"), "secrets are sealed on the disk");
    endpoint.stop();
}

#[test]
fn archives_and_replays_are_as_the_service_has_them() {
    let endpoint = Endpoint::start("", "");
    tell(&endpoint, "archives", "");
    let described = || endpoint.call("DescribeReplay", &json!({ "ReplayName": "p" })).1;
    until("the replay has ended", || described()["State"] == "COMPLETED");
    tell(&endpoint, "archives end", "");
    endpoint.stop();
}

/// Pages of one element each hold every element once, whatever comes and goes between them.
#[test]
fn pages_lose_and_repeat_nothing() {
    let endpoint = Endpoint::start("", "");
    let rule = |name: &str| json!({ "Name": name, "EventPattern": "{\"source\":[\"x\"]}" });
    for name in ["b", "d", "f", "h"] {
        endpoint.call("PutRule", &rule(name));
    }
    let (mut names, mut token) = (Vec::new(), Value::Null);
    loop {
        let (_, page) = endpoint.call("ListRules", &json!({ "Limit": 1, "NextToken": token }));
        let page_names = page["Rules"].as_array().expect("a list").iter().map(|rule| rule["Name"].to_string());
        names.extend(page_names);
        endpoint.call("PutRule", &rule("a"));
        endpoint.call("DeleteRule", &json!({ "Name": "d" }));
        token = page["NextToken"].clone();
        if token.is_null() {
            break;
        }
    }
    assert_eq!(names, ["\"b\"", "\"f\"", "\"h\""]);
    endpoint.stop();
}

//! Callers that change one rule at the same time: each is answered in the service's words, and what they leave behind is
//! what one order of their calls leaves, before and after a restart.

use crate::endpoint::Endpoint;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

const CALLERS: u64 = 8;
const CALLS: u64 = 60;
const IDS: [&str; 3] = ["a", "b", "c"];

/// One call and its answer.
struct Call {
    action: &'static str,
    members: Value,
    code: String,
    begun: Instant,
    ended: Instant,
}

impl Call {
    /// Whether it says what becomes of a target, or without one of the rule.
    fn decides(&self, id: Option<&str>) -> bool {
        let about = |id: &str| match self.action {
            "PutTargets" => self.members["Targets"][0]["Id"] == id,
            "RemoveTargets" => self.members["Ids"][0] == id,
            _ => false,
        };
        let done = self.code.is_empty();
        done && id.map_or(matches!(self.action, "PutRule" | "DisableRule" | "DeleteRule"), about)
    }
}

/// The n-th call of a caller.
fn wanted(caller: u64, n: u64) -> (&'static str, Value) {
    let mark = format!("{caller}-{n}");
    let draw = (caller * CALLS + n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    let id = IDS[(draw / 16 % 3) as usize];
    match draw % 16 {
        0..5 => ("PutRule", json!({ "Name": "one", "EventPattern": "{\"source\":[\"x\"]}", "Description": mark })),
        5..9 => {
            let target =
                json!({ "Id": id, "Arn": "arn:aws:sqs:eu-west-1:000000000000:q", "Input": json!(mark).to_string() });
            ("PutTargets", json!({ "Rule": "one", "Targets": [target] }))
        }
        9..12 => ("RemoveTargets", json!({ "Rule": "one", "Ids": [id] })),
        12..14 => ("DisableRule", json!({ "Name": "one" })),
        _ => ("DeleteRule", json!({ "Name": "one" })),
    }
}

fn ask(endpoint: &Endpoint, caller: u64, n: u64) -> Call {
    let (action, members) = wanted(caller, n);
    let begun = Instant::now();
    let (status, answer) = endpoint.call(action, &members);
    let code = answer["__type"].as_str().unwrap_or_default().to_owned();
    let place = format!("{action} {members}: {status} {answer}");
    match (status, action, code.as_str()) {
        (200, ..) => assert!(answer["FailedEntryCount"].as_u64().unwrap_or(0) == 0, "{place}"),
        (400, _, "ConcurrentModificationException") => {}
        (400, "PutTargets" | "RemoveTargets" | "DisableRule", "ResourceNotFoundException") => {}
        (400, "DeleteRule", "ValidationException") => {
            assert!(answer["message"].to_string().contains("since it has targets"), "{place}");
        }
        _ => panic!("{place}"),
    }
    Call { action, members, code, begun, ended: Instant::now() }
}

/// The rule and its targets, as all who look at the same time see them.
fn seen(endpoint: &Endpoint) -> [Value; 3] {
    let look = || {
        let ask = |action: &str, members: Value| endpoint.call(action, &members).1;
        [
            ask("ListRules", json!({}))["Rules"].clone(),
            ask("DescribeRule", json!({ "Name": "one" })),
            ask("ListTargetsByRule", json!({ "Rule": "one" })),
        ]
    };
    let all: Vec<_> = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(look)).collect();
        readers.into_iter().map(|reader| reader.join().expect("a reader")).collect()
    });
    assert!(all.iter().all(|one| *one == all[0]), "{all:?}");
    all.into_iter().next().expect("a reader")
}

/// Whether some order of the calls, each within its time, ends with what is there: nothing that was over after the call
/// that made it so says otherwise.
fn explained(calls: &[Call], id: Option<&str>, is: impl Fn(&Call) -> bool) -> bool {
    let deciding = || calls.iter().filter(|call| call.decides(id));
    deciding().filter(|call| is(call)).any(|last| deciding().all(|other| other.begun <= last.ended))
}

fn check(calls: &[Call], [rules, described, targets]: &[Value; 3]) {
    let rule = &rules[0];
    assert_eq!(rule["Name"], described["Name"], "{rules} {described}");
    assert_eq!(rule["State"], described["State"], "{rules} {described}");
    let gone = rule.is_null();
    let wrote = calls.iter().find(|call| gone || call.members["Description"] == rule["Description"]);
    assert!(wrote.is_some(), "{rule}");
    let last = |call: &Call| match call.action {
        "DeleteRule" => gone,
        "DisableRule" => rule["State"] == "DISABLED",
        _ => rule["State"] == "ENABLED" && call.members["Description"] == rule["Description"],
    };
    assert!(explained(calls, None, last), "{rule}");
    for id in IDS {
        let target = targets["Targets"].as_array().into_iter().flatten().find(|target| target["Id"] == id);
        let never = !calls.iter().any(|call| call.action == "PutTargets" && call.decides(Some(id)));
        let last = |call: &Call| match target {
            Some(target) => call.members["Targets"][0]["Input"] == target["Input"],
            None => call.action == "RemoveTargets",
        };
        assert!((target.is_none() && never) || explained(calls, Some(id), last), "{id}: {targets}");
    }
}

#[test]
fn callers_that_edit_one_rule_come_one_after_another() {
    // Nobody reads its log.
    let mut endpoint = Endpoint::start("", "log: { level: warn }\n");
    for round in 0..3 {
        let done = AtomicBool::new(false);
        let calls: Vec<Call> = std::thread::scope(|scope| {
            let endpoint = &endpoint;
            let reader = scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(endpoint.call("ListRules", &json!({})).0, 200);
                }
            });
            let begin = round * CALLS;
            let caller =
                |caller| scope.spawn(move || (begin..begin + CALLS).map(|n| ask(endpoint, caller, n)).collect());
            let callers: Vec<std::thread::ScopedJoinHandle<'_, Vec<Call>>> = (0..CALLERS).map(caller).collect();
            let calls = callers.into_iter().flat_map(|caller| caller.join().expect("a caller")).collect();
            done.store(true, Ordering::Relaxed);
            reader.join().expect("a reader");
            calls
        });
        let left = seen(&endpoint);
        check(&calls, &left);
        endpoint = endpoint.restart("-KILL");
        assert_eq!(seen(&endpoint), left);
        // The next round begins with nothing.
        endpoint.call("RemoveTargets", &json!({ "Rule": "one", "Ids": IDS }));
        endpoint.call("DeleteRule", &json!({ "Name": "one" }));
    }
    endpoint.stop();
}

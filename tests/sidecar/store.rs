//! What was made, on the disk: it survives kills at any moment, and a file that is damaged is refused by name.

use crate::endpoint::Endpoint;
use crate::process::{Place, exchange};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Rules of the default bus, over all pages.
fn rules(endpoint: &Endpoint) -> BTreeSet<String> {
    let (mut names, mut token) = (BTreeSet::new(), Value::Null);
    loop {
        let (_, page) = endpoint.call("ListRules", &json!({ "NextToken": token }));
        let rules = page["Rules"].as_array().expect("a list");
        names.extend(rules.iter().map(|rule| rule["Name"].as_str().expect("a name").to_owned()));
        token = page["NextToken"].clone();
        if token.is_null() {
            return names;
        }
    }
}

/// Four callers make rules as fast as they can until the process is killed under them: what was answered is there, and
/// what is there was asked for.
#[test]
fn what_was_answered_survives_kills() {
    let mut endpoint = Endpoint::start("", "");
    let (mut answered, mut asked) = (BTreeSet::new(), BTreeSet::new());
    for round in 0..5 {
        let made = AtomicUsize::new(0);
        let caller = |caller: usize| {
            let (mut answered, mut asked) = (Vec::new(), Vec::new());
            for n in 0.. {
                let name = format!("r{round}-{caller}-{n}");
                asked.push(name.clone());
                let body = json!({ "Name": name, "EventPattern": "{\"source\":[\"x\"]}" }).to_string();
                let headers = [("X-Amz-Target", "AWSEvents.PutRule"), ("Authorization", "Credential=a/b/eu-west-1/")];
                match exchange(&endpoint.listen, "POST /", &headers, body.as_bytes()) {
                    Some((200, ..)) => answered.push(name),
                    _ => break,
                }
                made.fetch_add(1, Ordering::Relaxed);
            }
            (answered, asked)
        };
        std::thread::scope(|scope| {
            let callers: Vec<_> = (0..4).map(|n| scope.spawn(move || caller(n))).collect();
            while made.load(Ordering::Relaxed) < 40 + 13 * round {
                std::thread::yield_now();
            }
            endpoint.child.signal("-KILL");
            for caller in callers {
                let (a, b) = caller.join().expect("a caller");
                answered.extend(a);
                asked.extend(b);
            }
        });
        endpoint = endpoint.restart("-KILL");
        let there = rules(&endpoint);
        assert!(answered.is_subset(&there), "lost: {:?}", answered.difference(&there).collect::<Vec<_>>());
        assert!(there.is_subset(&asked), "never asked for: {:?}", there.difference(&asked).collect::<Vec<_>>());
    }
    assert!(answered.len() > 200, "{} rules", answered.len());
    endpoint.stop();
}

/// What a process says that is to start on a data directory.
fn says(place: &Place) -> (Option<i32>, String) {
    let said = Place::finish(place.command(&["run", "-c", "c.yaml"]), "");
    (said.code, said.err)
}

#[test]
fn damage_is_refused_by_name() {
    let connection = json!({
        "Name": "c",
        "AuthorizationType": "BASIC",
        "AuthParameters": { "BasicAuthParameters": { "Username": "u", "Password": "p" } },
    });
    let endpoint = Endpoint::start("", "");
    endpoint.call("CreateConnection", &connection);
    let Endpoint { place, mut child, .. } = endpoint;
    child.signal("-TERM");
    child.0.wait().expect("a status");
    let data = place.path().join("data");
    let (store, key) = (data.join("catalog.redb"), data.join("catalog.key"));
    assert_eq!(std::fs::metadata(&key).expect("a key").permissions().mode() & 0o777, 0o600);
    let (good, good_key) = (std::fs::read(&store).expect("a store"), std::fs::read(&key).expect("a key"));
    type Damage<'d> = (&'d dyn Fn(&Path, &Path), &'d str);
    let rows: [Damage<'_>; 5] = [
        (&|store, _| std::fs::write(store, b"something else entirely").expect("written"), "catalog.redb"),
        (&|store, _| std::fs::write(store, &good[..good.len() / 2]).expect("written"), "catalog.redb"),
        (&|_, key| std::fs::remove_file(key).expect("removed"), "catalog.key"),
        (&|_, key| std::fs::write(key, [7; 32]).expect("written"), "sealed with another key"),
        (&|_, key| std::fs::write(key, b"short").expect("written"), "is no key"),
    ];
    for (damage, said) in rows {
        damage(&store, &key);
        let (code, err) = says(&place);
        assert_eq!(code, Some(74), "{said}: {err}");
        assert!(err.contains(said) && err.contains("put a copy of it back"), "{said}: {err}");
        std::fs::write(&store, &good).expect("written");
        std::fs::write(&key, &good_key).expect("written");
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    }
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("a mode");
    let (code, err) = says(&place);
    assert!(code == Some(74) && err.contains("set its mode to 0600"), "{err}");
}

/// A key from outside seals, and leaves none on the disk; with another one, or without, what it sealed is refused.
#[test]
fn secrets_are_sealed_with_a_key_from_outside() {
    let connection = json!({
        "Name": "c",
        "AuthorizationType": "BASIC",
        "AuthParameters": { "BasicAuthParameters": { "Username": "u", "Password": "canary-password" } },
    });
    let key = |letter: &str| format!("catalog_key: \"{}=\"\n", letter.repeat(43));
    let endpoint = Endpoint::start("", &key("A"));
    assert_eq!(endpoint.call("CreateConnection", &connection).0, 200);
    let endpoint = endpoint.restart("-KILL");
    assert_eq!(endpoint.call("DescribeConnection", &json!({ "Name": "c" })).0, 200);
    let Endpoint { place, mut child, .. } = endpoint;
    child.signal("-TERM");
    child.0.wait().expect("a status");
    let data = place.path().join("data");
    let stored = std::fs::read(data.join("catalog.redb")).expect("a store");
    assert!(!stored.windows(15).any(|part| part == b"canary-password") && !data.join("catalog.key").exists());
    let config = std::fs::read_to_string(place.path().join("c.yaml")).expect("a file");
    for (text, said) in [(key("E"), "sealed with another key"), (String::new(), "catalog.key, cannot be read")] {
        std::fs::write(place.path().join("c.yaml"), config.replace(&key("A"), &text)).expect("written");
        let (code, err) = says(&place);
        assert!(code == Some(74) && err.contains(said), "{said}: {err}");
    }
}

#[test]
fn files_alone_can_be_all_there_is() {
    let rest = format!("{}catalog: files\n", crate::api::FILES);
    let endpoint = Endpoint::start("", &rest);
    let (status, answer) = endpoint.call("CreateEventBus", &json!({ "Name": "a" }));
    assert_eq!((status, &answer["__type"]), (400, &json!("OperationDisabledException")), "{answer}");
    assert_eq!(endpoint.call("DescribeEventBus", &json!({ "Name": "Orders" })).1["ManagedBy"], "sluice.files");
    assert!(!endpoint.place.path().join("data/catalog.redb").exists());
    endpoint.stop();
}

/// ARNs that the configuration maps lead to declared targets; what nothing stands for is a dead letter that says so.
#[test]
fn arns_lead_to_declared_targets() {
    let rest = "targets: { functions: { log: { group: functions } } }\narn_map: { \"arn:aws:lambda:*\": functions }\n";
    let endpoint = Endpoint::start("", rest);
    let function = "arn:aws:lambda:us-east-1:123456789012:function:f";
    let queue = "arn:aws:sqs:us-east-1:123456789012:q";
    let targets = json!([{ "Id": "f", "Arn": function }, { "Id": "q", "Arn": queue }]);
    endpoint.call("PutRule", &json!({ "Name": "r", "EventPattern": "{\"source\":[\"x\"]}" }));
    endpoint.call("PutTargets", &json!({ "Rule": "r", "Targets": targets }));
    let entry = json!({ "Source": "x", "DetailType": "t", "Detail": "{}" });
    endpoint.call("PutEvents", &json!({ "Entries": [entry] }));
    crate::process::until("the function has it", || endpoint.lines("functions").len() == 1);
    let letters = endpoint.place.path().join("data/dead-letters/eu-west-1:default");
    let text = || {
        let files = std::fs::read_dir(&letters).into_iter().flatten().flatten();
        files.map(|file| std::fs::read_to_string(file.path()).expect("text")).collect::<String>()
    };
    crate::process::until("the queue's is a dead letter", || text().contains(queue));
    assert!(text().contains("arn_map"), "{}", text());
    endpoint.stop();
}

/// The service's own quotas, and the one on targets by itself.
#[test]
fn quotas_are_held_where_they_are_set() {
    let long = json!({ "Name": "r", "EventPattern": json!({ "source": ["x".repeat(2048)] }).to_string() });
    let two = json!([{ "Id": "1", "Arn": "arn:aws:sqs:r:1:q" }, { "Id": "2", "Arn": "arn:aws:sqs:r:1:q" }]);
    let rows = [
        ("limits: { profile: aws }\n", "InvalidEventPatternException", ""),
        ("limits: { targets_per_rule: 1 }\n", "", "LimitExceededException"),
        ("limits: { profile: aws, targets_per_rule: 2 }\n", "InvalidEventPatternException", ""),
    ];
    for (limits, rule, targets) in rows {
        let endpoint = Endpoint::start("", limits);
        let code = |(_, answer): (u16, Value)| answer["__type"].as_str().unwrap_or_default().to_owned();
        assert_eq!(code(endpoint.call("PutRule", &long)), rule, "{limits}");
        endpoint.call("PutRule", &json!({ "Name": "r", "EventPattern": "{\"source\":[\"x\"]}" }));
        assert_eq!(code(endpoint.call("PutTargets", &json!({ "Rule": "r", "Targets": two }))), targets, "{limits}");
        endpoint.stop();
    }
}

/// Each by itself, over the profile's: one is made, and one more is one too many.
#[test]
fn each_quota_can_be_set_by_itself() {
    let rule = |name: &str| json!({ "Name": name, "EventPattern": "{\"source\":[\"x\"]}" });
    let bus = "arn:aws:events:eu-west-1:000000000000:event-bus/default";
    let archive = |name: &str| json!({ "ArchiveName": name, "EventSourceArn": bus });
    let basic = json!({ "BasicAuthParameters": { "Username": "u", "Password": "p" } });
    let connection = |name: &str| json!({ "Name": name, "AuthorizationType": "BASIC", "AuthParameters": basic });
    let tags = |count: usize| {
        let tags: Vec<_> = (0..count).map(|n| json!({ "Key": n.to_string(), "Value": "v" })).collect();
        json!({ "Name": format!("tagged-{count}"), "Tags": tags })
    };
    let long =
        |length: usize| json!({ "Name": "r", "EventPattern": json!({ "source": ["x".repeat(length)] }).to_string() });
    let put = json!({ "Entries": [{ "Source": "s", "DetailType": "t", "Detail": "{}" }] });
    let rows = [
        ("buses: 2", "CreateEventBus", json!({ "Name": "a" }), json!({ "Name": "b" }), "LimitExceededException"),
        ("rules_per_bus: 1", "PutRule", rule("a"), rule("b"), "LimitExceededException"),
        ("pattern_characters: 40", "PutRule", long(20), long(40), "InvalidEventPatternException"),
        ("pattern_characters: 4096", "PutRule", long(3000), long(4096), "ValidationException"),
        ("archives: 1", "CreateArchive", archive("a"), archive("b"), "LimitExceededException"),
        ("connections: 1", "CreateConnection", connection("a"), connection("b"), "LimitExceededException"),
        ("tags: 2", "CreateEventBus", tags(2), tags(3), "LimitExceededException"),
        ("put_events_per_second: 1", "PutEvents", put.clone(), put, "ThrottlingException"),
        ("actions_per_second: 1", "ListRules", json!({}), json!({}), "ThrottlingException"),
    ];
    for (limit, action, good, bad, code) in rows {
        let endpoint = Endpoint::start("", &format!("limits: {{ profile: aws, {limit} }}\n"));
        let (status, said) = endpoint.call(action, &good);
        assert_eq!(status, 200, "{limit}: {said}");
        // One that comes in the next second is none too many.
        let refused = (0..20).map(|_| endpoint.call(action, &bad)).find(|(status, _)| *status != 200);
        let (status, said) = refused.unwrap_or_else(|| panic!("{limit} is not held"));
        assert_eq!((status, &said["__type"]), (400, &json!(code)), "{limit}: {said}");
        assert!(code != "ThrottlingException" || said["message"] == "Rate exceeded", "{limit}: {said}");
        endpoint.stop();
    }
    let none = crate::process::Place::new(&[("c.yaml", "limits: { rules_per_bus: 0 }\n")])
        .run(&["validate", "-c", "c.yaml"], "");
    assert!(none.code == Some(78) && none.err.contains("limits.rules_per_bus"), "{}", none.err);
}

//! Functions: HTTP endpoints whose answers become events.

use crate::endpoint::Endpoint;
use crate::process::{Place, until};
use crate::receiver::{Act, Receiver};
use serde_json::{Value, json};

/// An order goes to a function; its answer, or that there was none, comes onto a bus as an execution record.
#[test]
fn answers_become_records() {
    let receiver = Receiver::start(|_, before| match before {
        0 => Act::Answer("200 OK", vec![], "{\"stock\":7}"),
        _ => Act::status("404 Not Found"),
    });
    let rest = format!(
        "targets: {{ functions: {{ http: {{ url: \"{}\", on_success: Inventory, on_failure: Inventory }} }} }}\n\
         arn_map: {{ \"arn:aws:lambda:*\": functions }}\n",
        receiver.url
    );
    let endpoint = Endpoint::start("", &rest);
    let function = "arn:aws:lambda:eu-west-1:000000000000:function:InventoryFunction";
    let log = "arn:aws:logs:eu-west-1:000000000000:log-group:inventory";
    let steps = [
        ("CreateEventBus", json!({ "Name": "Inventory" })),
        ("PutRule", json!({ "Name": "orders", "EventPattern": "{\"source\":[\"orders\"]}" })),
        ("PutTargets", json!({ "Rule": "orders", "Targets": [{ "Id": "f", "Arn": function }] })),
        ("PutRule", json!({ "Name": "all", "EventBusName": "Inventory", "EventPattern": "{\"source\":[\"lambda\"]}" })),
        ("PutTargets", json!({ "Rule": "all", "EventBusName": "Inventory", "Targets": [{ "Id": "l", "Arn": log }] })),
    ];
    for (action, members) in steps {
        assert_eq!(endpoint.call(action, &members).0, 200, "{action}");
    }
    let entry = |n: u32| json!({ "Source": "orders", "DetailType": "t", "Detail": json!({ "n": n }).to_string() });
    for n in 1..=2 {
        endpoint.call("PutEvents", &json!({ "Entries": [entry(n)] }));
        until("it is told", || endpoint.lines("inventory").len() == n as usize);
    }
    let records = endpoint.lines("inventory");
    let expected: [(&str, &str, Value); 2] = [
        ("Lambda Function Invocation Result - Success", "Success", json!({ "stock": 7 })),
        ("Lambda Function Invocation Result - Failure", "RetriesExhausted", json!({ "errorType": "NO_RESOURCE" })),
    ];
    for (record, (kind, condition, response)) in records.iter().zip(expected) {
        assert_eq!(record["detail-type"], kind, "{record}");
        assert_eq!(record["source"], "lambda");
        assert!(record["detail"]["requestPayload"]["detail"]["n"].is_u64(), "{record}");
        assert_eq!(record["resources"], json!(["arn:aws:events:eu-west-1:000000000000:event-bus/Inventory", function]));
        let (context, payload) = (&record["detail"]["requestContext"], &record["detail"]["responsePayload"]);
        assert_eq!(context["condition"], condition, "{record}");
        assert_eq!(context["functionArn"], format!("{function}:$LATEST"));
        assert_eq!(context["approximateInvokeCount"], 1);
        let (name, value) = response.as_object().and_then(|members| members.iter().next()).expect("a member");
        assert_eq!(&payload[name], value, "{record}");
    }
    assert_eq!(records[1]["detail"]["responseContext"]["functionError"], "Unhandled");
    endpoint.stop();
}

/// A function of `functions` stands for the ARNs of its name; what fails is tried twice more, each pause twice the one
/// before, and then told to `on_failure`.
#[test]
fn functions_have_names_and_two_retries() {
    let receiver = Receiver::start(|request, _| match request.path.ends_with("/good") {
        true => Act::Answer("200 OK", vec![], "\"done\""),
        false => Act::status("500 Internal Server Error"),
    });
    let url = receiver.url.trim_end_matches("/hook");
    let rest = format!(
        "buses: {{ Results: {{}} }}\n\
         functions:\n  Good: {{ url: \"{url}/good\", on_success: {{ bus: Results }} }}\n  \
         Bad: {{ url: \"{url}/bad\", on_failure: {{ bus: Results }}, retry: {{ initial: 300ms }} }}\n\
         targets: {{ log: {{ log: {{ group: results }} }} }}\n\
         rules: {{ all: {{ bus: Results, pattern: {{ source: [lambda] }}, targets: [log] }} }}\n"
    );
    let endpoint = Endpoint::start("", &rest);
    let arns = [
        "arn:aws:lambda:eu-west-1:000000000000:function:Good",
        "arn:aws:lambda:eu-west-1:000000000000:function:Good:live",
        "arn:aws:states:eu-west-1:000000000000:stateMachine:Good",
        "arn:aws:lambda:eu-west-1:000000000000:function:Bad",
    ];
    endpoint.call("PutRule", &json!({ "Name": "orders", "EventPattern": "{\"source\":[\"orders\"]}" }));
    let targets: Vec<Value> =
        arns.iter().enumerate().map(|(n, arn)| json!({ "Id": n.to_string(), "Arn": arn })).collect();
    let (_, answer) = endpoint.call("PutTargets", &json!({ "Rule": "orders", "Targets": targets }));
    assert_eq!(answer["FailedEntryCount"], 0);
    endpoint.call("PutEvents", &json!({ "Entries": [{ "Source": "orders", "DetailType": "t", "Detail": "{}" }] }));
    until("all are told", || endpoint.lines("results").len() == arns.len());
    let records = endpoint.lines("results");
    for arn in arns {
        let of = |record: &&Value| record["detail"]["requestContext"]["functionArn"] == format!("{arn}:$LATEST");
        let record = records.iter().find(of).expect("a record");
        let context = &record["detail"]["requestContext"];
        let want = if arn.contains("Bad") { ("RetriesExhausted", 3) } else { ("Success", 1) };
        assert_eq!(
            (context["condition"].as_str(), context["approximateInvokeCount"].as_u64()),
            (Some(want.0), Some(want.1))
        );
    }
    let bad: Vec<_> = receiver.requests().into_iter().filter(|request| request.path == "/bad").collect();
    let pauses: Vec<u128> = bad.windows(2).map(|two| (two[1].at - two[0].at).as_millis()).collect();
    assert!(pauses.len() == 2 && pauses[0] >= 290 && pauses[1] >= 590, "{pauses:?}");
    endpoint.stop();
}

/// A destination that is a target has the records themselves; also where nothing listens.
#[test]
fn records_go_to_targets_as_they_are() {
    let receiver = Receiver::start(|request, _| match request.path.ends_with("/good") {
        true => Act::Answer("200 OK", vec![], "{\"stock\":7}"),
        false => Act::status("400 Bad Request"),
    });
    let url = receiver.url.trim_end_matches("/hook");
    let config = format!(
        "data_dir: data\nserver: {{ listen: \"off\", admin: \"off\" }}\nsources: {{ in: {{ file: {{ path: in.jsonl }} }} }}\n\
         targets: {{ good: {{ log: {{ group: good }} }}, bad: {{ log: {{ group: bad }} }} }}\n\
         functions:\n  Good: {{ url: \"{url}/good\", on_success: {{ target: good }} }}\n  \
         Bad: {{ url: \"{url}/bad\", on_failure: {{ target: bad }} }}\n\
         rules: {{ all: {{ pattern: {{ source: [s] }}, targets: [Good, Bad] }} }}\n"
    );
    let event = "{\"source\":\"s\",\"detail-type\":\"t\",\"detail\":{\"n\":1}}\n";
    let place = Place::new(&[("c.yaml", &config), ("in.jsonl", event)]);
    let ran = place.run(&["run", "-c", "c.yaml"], "");
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    for (group, condition, response) in
        [("good", "Success", json!({ "stock": 7 })), ("bad", "RetriesExhausted", json!("ERROR_FROM_TARGET"))]
    {
        let files = std::fs::read_dir(place.path().join("data/logs").join(group)).expect("a group").flatten();
        let text: String = files.map(|file| std::fs::read_to_string(file.path()).expect("text")).collect();
        let record: Value = serde_json::from_str(text.trim()).expect("one record");
        assert_eq!((&record["version"], &record["requestContext"]["condition"]), (&json!("1.0"), &json!(condition)));
        assert_eq!(record["requestPayload"]["detail"]["n"], 1, "{record}");
        let payload = &record["responsePayload"];
        assert!(*payload == response || payload["errorType"] == response, "{record}");
    }
    assert!(!place.path().join("data/dead-letters").exists(), "a record takes the dead letter's place");
}

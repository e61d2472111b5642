//! `sluice bench match`: what it counts, what it makes, what it refuses and where.

use crate::process::Place;
use serde_json::Value;

const RULES: &str = r#"{"name":"x","pattern":{"kind":["x"]}}
{"name":"any","pattern":{"kind":[{"exists":true}],"tenth":[{"numeric":["<",10]}]}}
"#;
const EVENTS: &str = r#"{"kind":"x","tenth":1}

{"kind":"y","tenth":9.9}
{"kind":"x","tenth":10}
"#;

fn check(arguments: &[&str], code: i32, parts: &[&str]) -> String {
    let hostile = format!(
        "{{\"r\":[{elements}],\"r\":[{elements}],\"r\":[{elements}]}}",
        elements = vec![r#"{"x":1},{"y":1},{"z":1},{"v":1}"#; 500].join(",")
    );
    let or = |field| (0..10).map(move |n| format!(r#"{{"{field}{n}":[1]}}"#)).collect::<Vec<_>>().join(",");
    let product = format!(
        r#"{{"pattern":{{"x":{{"$or":[{}]}},"y":{{"$or":[{}]}},"z":{{"$or":[{}]}}}}}}"#,
        or("a"),
        or("b"),
        or("c")
    );
    let place = Place::new(&[
        ("rules", RULES),
        ("events", EVENTS),
        ("empty", "\n\n"),
        ("unclosed", "{\"pattern\":{\"a\":[1]}}\n\n{\"pattern\":{\"a\":[1]}\n"),
        ("without", "{\"name\":\"a\"}\n"),
        ("invalid", "\n{\"name\":\"a\",\"pattern\":{\"a\":1}}\n"),
        ("broken", "{\"a\":1}\n\n{\"a\":01}\n"),
        ("thrice", r#"{"pattern":{"r":{"v":[1],"x":[1],"y":[1],"z":[1]}}}"#),
        ("hostile", &hostile),
        ("product", &vec![product; 1001].join("\n")),
    ]);
    let said = place.run(&[&["bench", "match"], arguments].concat(), "");
    assert_eq!(said.code, Some(code), "{arguments:?}: {}", said.err);
    for part in parts {
        assert!(said.out.contains(part) || said.err.contains(part), "`{part}` is not in:\n{}{}", said.out, said.err);
    }
    said.out
}

fn told(arguments: &[&str]) -> Value {
    serde_json::from_str(&check(&[arguments, &["--json"]].concat(), 0, &[])).expect("JSON")
}

#[test]
fn it_counts_matches_beside_the_tape() {
    let told = told(&["--rules", "rules", "--events", "events", "--repeat", "3"]);
    let number = |name: &str| told[name].as_u64();
    assert_eq!((number("rules"), number("events"), number("matches")), (Some(2), Some(3), Some(4)), "{told}");
    for name in ["ns_per_event", "tape_ns_per_event", "times_tape", "events_per_second", "mb_per_second"] {
        let spread: Vec<f64> = told[name].as_array().expect(name).iter().filter_map(Value::as_f64).collect();
        assert_eq!(spread.len(), 3, "{name}: {told}");
        assert!(spread.iter().all(|value| *value > 0.0), "{name}: {told}");
    }
    assert!(number("peak_rss_bytes") > Some(1 << 20) && told["build_seconds"].as_f64() > Some(0.0), "{told}");
    let text = ["--rules", "rules", "--events", "events", "--threads", "2"];
    check(&text, 0, &["2 rules built in", "3 events of", ", 4 matches\n", "times tape", "2 threads"]);
}

#[test]
fn what_it_makes_is_the_same_each_time() {
    let made = |seed: &str, mix: &str| {
        told(&["--generate", "orders", "--count", "300", "--events", "200", "--seed", seed, "--mix", mix])["matches"]
            .clone()
    };
    assert_eq!(made("5", "full"), made("5", "full"));
    assert_ne!(made("5", "full"), made("6", "full"));
    assert_ne!(made("5", "full"), made("5", "common"));
    let place = Place::new(&[]);
    let make = ["bench", "match", "--generate", "orders", "--count", "300", "--events", "200", "--seed", "5"];
    assert_eq!(place.run(&[&make[..], &["--write", "made"]].concat(), "").code, Some(0));
    let files = ["bench", "match", "--rules", "made/rules.jsonl", "--events", "made/events.jsonl", "--json"];
    let told: Value = serde_json::from_str(&place.run(&files, "").out).expect("JSON");
    assert_eq!(told["matches"], made("5", "full"));
}

#[test]
fn sets_that_are_made_to_hurt_are_made() {
    for kind in ["wildcards", "behind", "anything-but", "ranges", "suffixes", "one-value", "objects", "products"] {
        let told = told(&["--generate", kind, "--count", "50", "--events", "50", "--repeat", "1", "--items", "100"]);
        assert!(told["matches"].as_u64() > Some(0) && told["refused"] == 0, "{kind}: {told}");
    }
}

#[test]
fn what_it_refuses_has_a_place() {
    let rules = |rules, parts: &[&str]| check(&["--rules", rules, "--events", "events"], 78, parts);
    rules("unclosed", &["unclosed:3: the rule is not valid"]);
    rules("without", &["without:1: the rule lacks `pattern`"]);
    rules("invalid", &["invalid:2: the event pattern is not valid", "must be an object or an array"]);
    rules("empty", &["empty holds no lines"]);
    rules("product", &["1001000 alternatives", "more than 1000000 together"]);
    check(&["--rules", "rules", "--events", "broken"], 78, &["broken:3: the event is not valid"]);
    check(&["--rules", "gone", "--events", "events"], 74, &["cannot read gone"]);
    check(&["--events", "events"], 2, &["--rules"]);
    check(&["--generate", "orders", "--events", "many"], 2, &["is a number, not `many`"]);
    check(&["--rules", "thrice", "--events", "hostile", "--repeat", "1"], 0, &[", 1 refused for what their arrays"]);
}

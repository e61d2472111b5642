//! The case set of the pattern language, through both evaluators.

use crate::equal;
use sluice::event::Tree;
use sluice::pattern::{Limits, Numbers, parse};

fn raw(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[test]
fn every_case_comes_out_as_the_service_decides() {
    let mut failures = Vec::new();
    let mut count = 0;
    for line in include_str!("cases.jsonl").lines() {
        let case: serde_json::Value = serde_json::from_str(line).expect("a case is JSON");
        let (pattern, event) = (raw(&case["pattern"]), raw(&case["event"]));
        let verdict = check(&pattern, &event);
        let expected = match &case["expect"] {
            serde_json::Value::Bool(b) => Ok(*b),
            _ => Err(case["why"].as_str().unwrap_or_default()),
        };
        let good = match (&verdict, &expected) {
            (Ok(got), Ok(want)) => got == want,
            (Err(got), Err(why)) => why.starts_with(got.as_str()) || !prescribed(why),
            _ => false,
        };
        if !good {
            failures.push(format!("{}: expected {expected:?}, got {verdict:?}", case["name"]));
        }
        count += 1;
    }
    assert_eq!(count, 270);
    assert!(failures.is_empty(), "{} of {count} cases differ:\n{}", failures.len(), failures.join("\n"));
}

/// Cases about malformed JSON and our own limits prescribe no message.
fn prescribed(why: &str) -> bool {
    why.starts_with(|c: char| c.is_uppercase() || c == '"')
        && !why.contains("JSON text")
        && !why.contains("malformed JSON")
}

fn check(pattern: &str, event: &str) -> Result<bool, String> {
    let pattern = parse(pattern.as_bytes(), &Limits::default()).map_err(|error| error.message)?;
    Tree::parse(event.as_bytes()).map_err(|fault| fault.to_string())?;
    Ok(equal::both(&[pattern], event.as_bytes(), Numbers::Value)[0])
}

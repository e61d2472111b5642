//! `sluice test --update`: what comes of tests is written where they expect it, and nothing else changes.

use crate::process::Place;

const RULES: &str = "\
buses: { orders: {} }
targets: { crm: { stdout: {} }, audit: { stdout: {} }, note: { stdout: {} }, text: { stdout: {} } }
rules:
  big:
    bus: orders
    pattern: { source: [shop], detail: { total: [{ numeric: [\">\", 100] }] } }
    targets:
      - { target: crm, input_transformer: { paths: { id: $.detail.id, n: $.detail.total }, template: '{\"order\": <id>, \"total\": <n>}' } }
      - { target: note, input_transformer: { paths: { id: $.detail.id }, template: '\"<id>\"' } }
      - { target: text, input_transformer: { template: \"\\\"it''s\\\"\\n\\\"# 2\\\"\" } }
  \"42\": { bus: orders, pattern: { detail.kind: [a] }, targets: [audit] }
  all: { bus: orders, pattern: { source: [shop] }, targets: [{ target: audit, input_path: $.detail.id }] }
  twin: { bus: orders, pattern: { detail.kind: [a] }, targets: [{ target: note, input: 7 }] }
  broken: { bus: orders, pattern: { source: [none] }, targets: [{ target: note, input_path: $.none }] }
";

const EVENT: &str = "{ source: shop, detail: { id: \"42\", total: 900.0 } }";

/// Two tests, of which the first fails: what it expects before and after, and what is said of it.
fn check(event: &str, before: &str, after: &str, said: &str) {
    let file = |expect: &str| {
        format!(
            "# Tests of r.yaml.\ntests:\n  - name: it   # the first\n    event: {event}   # sold\n    expect: {expect}\n\n\
             \x20 # Another.\n  - {{ name: other, event: {{ source: \"x\" }}, expect: {{ rules: [ ] }} }}   # none\n"
        )
    };
    let place = Place::new(&[("r.yaml", RULES), ("r.test.yaml", &file(before))]);
    let ran = place.run(&["test", "r.yaml", "--update"], "");
    let text = std::fs::read_to_string(place.path().join("r.test.yaml")).expect("the file");
    assert_eq!(text, file(after), "{}{}", ran.out, ran.err);
    assert!(ran.err.contains(said) && ran.err.is_empty() == said.is_empty(), "{before}: {}", ran.err);
    let mended = said.is_empty() || said.ends_with("updated\n");
    assert_eq!(ran.code, Some(i32::from(!mended)), "{before}: {}{}", ran.out, ran.err);
    assert_eq!(ran.out.contains("2 tests passed, 0 failed"), mended, "{before}: {}", ran.out);
    // A second time there is nothing to do.
    let again = place.run(&["test", "r.yaml", "--update"], "");
    assert_eq!((again.code, again.err.contains("updated")), (ran.code, false), "{}", again.err);
    assert_eq!(std::fs::read_to_string(place.path().join("r.test.yaml")).expect("the file"), text);
}

#[test]
fn lists_and_outputs_are_written_where_they_stand() {
    let updated = "sluice: r.test.yaml:3: it: updated\n";
    let row = |before: &str, after: &str| check(EVENT, before, after, updated);
    check(EVENT, "{ rules: [big, all] }", "{ rules: [big, all] }", "");
    row("{ rules: [] }   # none", "{ rules: [all, big] }   # none");
    row("{ rules: [ big,twin ] }", "{ rules: [big, all] }");
    row(
        "\n      rules:   # all of them\n      - big\n      # end",
        "\n      rules:   # all of them\n      - big\n      - all\n      # end",
    );
    row(
        "\n      rules:\n        - twin\n        - big\n        - all\n      no_rules: [twin, big]  # \u{fc}",
        "\n      rules:\n        - big\n        - all\n      no_rules: [twin]  # \u{fc}",
    );
    row("\n      rules: [all, big]\n      no_rules:\n        - all", "\n      rules: [all, big]\n      no_rules: []");
    row(
        "{ outputs: { crm: { order: \"42\", total: 1 } } }",
        "{ outputs: { crm: {\"order\":\"42\",\"total\":900.0} } }",
    );
    row(
        "\n      outputs:\n        crm:\n          order: 1\n          total: 1\n        audit: x   # why",
        "\n      outputs:\n        crm:\n          {\"order\":\"42\",\"total\":900.0}\n        audit: '\"42\"'   # why",
    );
    row(
        "\n      outputs:\n        audit: |\n          4\n          3\n      no_rules: [twin]",
        "\n      outputs:\n        audit: '\"42\"'\n      no_rules: [twin]",
    );
    row(
        "{ outputs: { text: a }, no_outputs: [audit, crm] }",
        "{ outputs: { text: \"\\\"it''s\\\"\\n\\\"# 2\\\"\" }, no_outputs: [] }",
    );
    check("{ source: shop, detail: { kind: a, id: 1 } }", "{ rules: [] }", "{ rules: [\"42\", all, twin] }", updated);
}

#[test]
fn what_cannot_be_written_is_left() {
    let row = |event: &str, expect: &str, why: &str| {
        check(event, expect, expect, &format!("sluice: r.test.yaml:3: it: left as it is: {why}"));
    };
    row(EVENT, "{ no_rules: [big] }", "it cannot be edited safely: the test expects nothing");
    row(EVENT, "\n      rules:\n        - big   # large\n        - twin", "a comment stands in what is to be replaced");
    row(
        EVENT,
        "\n      no_rules: # none\n        - big\n      outputs: { crm: 1 }",
        "a comment stands before its list",
    );
    row(
        "{ source: x }",
        "{ outputs: { crm: 1 } }",
        "target crm receives nothing: take it out, or name it in `no_outputs`",
    );
    row(
        "{ source: shop, detail: { kind: a, id: 1, total: 200 } }",
        "{ outputs: { note: x } }",
        "target note receives several outputs: choose one",
    );
    row("{ source: none }", "{ rules: [] }", "target note of rule broken gets nothing");
}

#[test]
fn only_tests_that_are_asked_for_are_updated() {
    let test = |name: &str, rules: &str| {
        format!(
            "- {{ name: {name}, event: {{ source: shop, detail: {{ id: 1 }} }}, expect: {{ rules: [{rules}] }} }}\n"
        )
    };
    let file = |two: &str| format!("tests:\n{}{}", test("one", ""), test("two", two));
    let place = Place::new(&[("r.yaml", RULES), ("r.test.yaml", &file(""))]);
    let said = place.run(&["test", "r.yaml", "--update", "--filter", "two", "-o", "json"], "");
    assert_eq!(said.code, Some(0), "{}", said.err);
    let told: serde_json::Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!(told["passed"], 1);
    let text = std::fs::read_to_string(place.path().join("r.test.yaml")).expect("the file");
    assert_eq!(text, file("all"));
}

//! `sluice lint`: what it finds, where, and that it finds nothing in rules that are right.

use crate::process::Place;
use serde_json::Value;

/// Code and place of each finding.
fn findings(rules: &str, arguments: &[&str]) -> (Vec<String>, Option<i32>) {
    let place = Place::new(&[
        ("rules.yaml", rules),
        (
            "events.jsonl",
            "{\"detail\":{\"location\":\"eu-1\",\"customer\":{\"tier\":\"gold\"}}}\n\n{\"source\":\"s\"}\n",
        ),
    ]);
    let said = place.run(&[&["lint", "rules.yaml", "-o", "json"], arguments].concat(), "");
    let all: Vec<Value> = serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {}", said.err));
    for finding in &all {
        let told = |key: &str| finding[key].as_str().is_some_and(|text| !text.is_empty());
        assert!(told("message") && told("help") && finding["file"] == "rules.yaml", "{finding}");
    }
    let shown = all.iter().map(|it| format!("{} {}:{}", it["code"].as_str().unwrap_or("?"), it["line"], it["column"]));
    (shown.collect(), said.code)
}

/// What is found in rules, which stand from line 2 on, one a line.
fn check(rules: &[&str], arguments: &[&str], want: &[&str]) {
    let (found, code) = findings(&format!("rules:\n  {}\n", rules.join("\n  ")), arguments);
    assert_eq!(found, want, "{rules:?}");
    assert_eq!(code, Some(i32::from(!want.is_empty())), "{rules:?}");
}

#[test]
fn each_finding_has_its_code_and_place() {
    let narrow = "[\">\", 5, \"<\", 5.000000000000001]";
    check(&["a: { pattern: { x: [1] }, targets: [t] }"], &[], &[]);
    check(&[&format!("a: {{ pattern: {{ x: [{{ numeric: {narrow} }}] }}, targets: [t] }}")], &[], &["L0301 2:22"]);
    check(
        &[&format!("a: {{ pattern: {{ $or: [{{ x: [{{ numeric: {narrow} }}] }}, {{ y: [1] }}] }}, targets: [t] }}")],
        &[],
        &["L0302 2:30"],
    );
    check(&["a: { pattern: { x.y: [1], x: { y: [2] } }, targets: [t] }"], &[], &["L0303 2:24"]);
    check(
        &[
            "a: { pattern: { x: [{ numeric: [\">\", 5] }], $or: [{ x: [{ numeric: [\"<\", 3] }] }, { y: [1] }] }, targets: [t] }",
        ],
        &[],
        &["L0303 2:22"],
    );
    let eu = "a: { pattern: { x: [{ prefix: eu- }] }, targets: [t] }";
    check(&[eu, "b: { pattern: { x: [{ prefix: eu- }] }, targets: [u] }"], &[], &["L0304 3:17"]);
    check(&[eu, "b: { pattern: { x: [{ wildcard: eu-* }] }, targets: [u] }"], &[], &["L0305 3:17"]);
    check(&[eu, "b: { pattern: { x: [eu-1], y: [1] }, targets: [t] }"], &[], &["L0306 3:17"]);
    check(
        &[
            eu,
            "b: { pattern: { x: [{ prefix: eu-1 }, { prefix: eu-2 }], $or: [{ y: [1] }, { y: [2] }] }, targets: [t] }",
        ],
        &[],
        &["L0306 3:17"],
    );
    check(
        &[
            "a: { pattern: { x: [p, q] }, targets: [t] }",
            "b: { pattern: { $or: [{ x: [q] }, { x: [p] }] }, targets: [t] }",
        ],
        &[],
        &["L0305 3:17"],
    );
    // Each for a purpose of its own.
    check(&[eu, "b: { pattern: { x: [eu-1], y: [1] }, targets: [u] }"], &[], &[]);
    check(&[eu, "b: { pattern: { x: [eu-1] }, targets: [{ target: t, input_path: $.x }] }"], &[], &[]);
    check(&[eu, "b: { bus: other, pattern: { x: [{ prefix: eu- }] }, targets: [t] }"], &[], &[]);
    check(&[eu, "b: { state: disabled, pattern: { x: [{ prefix: eu- }] }, targets: [t] }"], &[], &[]);
    check(&["a: { pattern: { source: [{ wildcard: \"*\" }] }, targets: [t] }"], &[], &["L0307 2:27"]);
    check(&["a: { pattern: { source: [{ anything-but: x }] }, targets: [t] }"], &[], &[]);
    let either = "a: { pattern: { $or: [{ source: [x] }, { source: [{ anything-but: x }] }] }, targets: [t] }";
    check(&[either], &[], &["L0307 2:35"]);
    check(&["a: { pattern: { x: [1] } }"], &[], &["L0309 2:6"]);
    let events = &["--events", "events.jsonl"];
    check(&["a: { pattern: { location: [eu-1] }, targets: [t] }"], events, &["L0308 2:29"]);
    check(&["a: { pattern: { location: [eu-1, { exists: false }] }, targets: [t] }"], events, &[]);
    check(&["a: { pattern: { detail: { location: [us-1] }, source: [s] }, targets: [t] }"], events, &[]);
    check(
        &["a: { pattern: { location: [eu-1] }, targets: [t] }"],
        &["--events", "events.jsonl", "--allow", "L0308"],
        &[],
    );
    check(&["a: { pattern: { source: [{ prefx: x }] }, targets: [t] }"], &[], &["E0213 2:30"]);
}

#[test]
fn what_the_service_does_not_take_is_found() {
    let portable = &["--aws-portable"];
    let long = format!("a: {{ pattern: {{ source: [{}] }}, targets: [t] }}", vec!["aaaaaaa"; 210].join(", "));
    check(&[&long], portable, &["L0311 2:17"]);
    check(&["a: { pattern: { source: [s] }, targets: [a, b, c, d, e, f] }"], portable, &["L0312 2:43"]);
    check(&["a: { pattern: { source: [{ exactly: s }] }, targets: [a] }"], portable, &["L0313 2:27"]);
    check(&["a: { pattern: { x: [s] }, targets: [a] }"], portable, &["L0313 2:22"]);
    let wild: Vec<String> = (10..41)
        .map(|n| format!("r{n}: {{ pattern: {{ detail: {{ x: [{{ wildcard: \"a*{n}\" }}] }} }}, targets: [t] }}"))
        .collect();
    let wild: Vec<&str> = wild.iter().map(String::as_str).collect();
    check(&wild, portable, &["L0312 32:19"]);
    check(&wild, &[], &[]);
}

/// Patterns that are texts have places inside, however YAML writes the text.
#[test]
fn patterns_written_as_text_have_places() {
    let check = |pattern: &str, code: &str, there: &str, path: &str| {
        let text = format!("rules:\n  a:\n    targets: [t]\n    pattern: {pattern}\n");
        let (before, _) = text.split_once(there).unwrap_or_else(|| panic!("{text}"));
        let (above, left) = before.rsplit_once('\n').unwrap_or_default();
        let want = (code.to_owned(), above.lines().count() as u64 + 1, left.chars().count() as u64 + 1);
        let said = Place::new(&[("r.yaml", &text)]).run(&["lint", "r.yaml", "-o", "json"], "");
        let all: Vec<Value> = serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {}", said.err));
        let number = |it: &Value, key: &str| it[key].as_u64().unwrap_or(0);
        let shown: Vec<_> = all
            .iter()
            .map(|it| (it["code"].as_str().unwrap_or("?").to_owned(), number(it, "line"), number(it, "column")))
            .collect();
        assert_eq!(shown, [want], "{pattern}");
        assert_eq!(all[0]["path"], format!("rules.a.pattern{path}"), "{pattern}");
    };
    let narrow = r#"{"é": ["it's"], "x": {"y": [{"numeric": [">", 5, "<", 5.000000000000001]}]}}"#;
    let empty = |pattern: &str| check(pattern, "L0301", "[{", ".x.y");
    let lines = narrow.replace(", ", ",\n       ");
    empty(narrow);
    empty(&format!("|\n      {narrow}"));
    empty(&format!("|-\n\n      {lines}"));
    empty(&format!(">\n      {}", narrow.replace(", ", ",\n      ")));
    empty(&format!("'{}'", narrow.replace('\'', "''")));
    empty(&format!("'{}'", lines.replace('\'', "''")));
    let quoted = narrow.replace('"', "\\\"");
    empty(&format!("\"{quoted}\""));
    empty(&format!("\"{}\"", quoted.replace('é', "\\u00e9").replace(", ", ",\\n ")));
    empty(&format!("\"{}\"", quoted.replace(", ", ", \\\n      ")));
    check("|\n      {\"x\": [{\"prefx\": \"y\"}]}", "E0213", "\"prefx", ".x[0].prefx");
    check("|\n      {\"x\": [1,\n       }", "E0213", "}", "");
}

/// A file of rules may leave the rest of a configuration to others; one that has targets must have all.
#[test]
fn rules_are_looked_at_without_the_rest() {
    let with = "rules:\n  a: { pattern: { x: [1] }, targets: [t] }\n";
    assert_eq!(findings(&format!("targets: {{ u: {{ stdout: {{}} }} }}\n{with}"), &[]).0, ["E0207 3:39"]);
    let unset = "targets: { t: { kafka: { brokers: \"${env:NOBODY_SETS_THIS}\", topic: x } } }\n";
    assert_eq!(findings(&format!("{unset}{with}"), &[]), (vec![], Some(0)));
}

#[test]
fn people_see_the_line_and_what_to_do() {
    let place = Place::new(&[
        ("r.yaml", "rules:\n  a: { pattern: { location: [eu-1] }, targets: [t] }\n"),
        ("e", "{\"detail\":{\"location\":\"eu-1\"}}"),
    ]);
    let said = place.run(&["lint", "r.yaml", "--events", "e"], "");
    assert_eq!(said.code, Some(1));
    for part in [
        "warning[L0308]: none of the 1 sampled events has a value at `location`\n --> r.yaml:2:29   rules.a.pattern.location\n",
        "2 |   a: { pattern: { location: [eu-1] }, targets: [t] }\n  |                             ^\n",
        "help: detail.location has one: put the condition into `detail`",
        "1 rule, 1 finding\n",
    ] {
        assert!(said.out.contains(part), "{part} in {}", said.out);
    }
    let said = place.run(&["lint", "r.yaml"], "");
    assert_eq!((said.code, said.out.as_str()), (Some(0), "1 rule, no findings\n"));
    let said = place.run(&["lint", "r.yaml", "--allow", "L9999"], "");
    assert!(said.code == Some(2) && said.err.contains("`L9999` is no code of lint"), "{}", said.err);
    let said = place.run(&["lint", "gone.yaml"], "");
    assert!(said.code == Some(78) && said.out.contains("cannot read gone.yaml"), "{}", said.out);
    let wrong = Place::new(&[(
        "r.yaml",
        "rules:\n  a: { pattern: { x: 1 }, targets: [t] }\n  b: { pattern: { x: [1] }, targets: [t] }\n",
    )]);
    let said = wrong.run(&["lint", "r.yaml"], "");
    assert!(said.code == Some(1) && said.out.ends_with("2 rules, 1 finding\n"), "{}", said.out);
}

/// Many rules of one shape, and of many branches each, are compared in little time; what is alike among them is found.
#[test]
fn many_rules_are_compared() {
    let check = |rules: usize, pattern: &dyn Fn(usize) -> String, want: usize| {
        let rule = |n| format!("  r{n}: {{ pattern: {}, targets: [t] }}\n", pattern(n));
        let text: String = std::iter::once("rules:\n".to_owned()).chain((0..rules).map(rule)).collect();
        let began = std::time::Instant::now();
        let found = findings(&text, &[]).0;
        assert_eq!(found.len(), want, "{}", pattern(1));
        assert!(began.elapsed().as_secs() < 20, "{:?} for {}", began.elapsed(), pattern(1));
    };
    check(4000, &|n| format!(r#"{{"a":[{{"prefix":"p{n}-"}}],"b":[{{"anything-but":"q{n}"}}]}}"#), 0);
    check(4000, &|n| format!(r#"{{"a":[{{"prefix":"p{}-"}}],"b":[{{"anything-but":"q{}"}}]}}"#, n / 2, n / 2), 2000);
    check(2000, &|n| format!(r#"{{"a":[{{"numeric":[">",{n}]}}],"b":[{{"anything-but":"{n}"}}]}}"#), 0);
    check(2000, &|n| format!(r#"{{"a":[{{"numeric":[">",{n}]}}]}}"#), 1999);
    let branches =
        |n| (0..100).map(|m| format!(r#"{{"a":["{n}-{m}"],"b":[{{"numeric":[">",{m}]}}]}}"#)).collect::<Vec<_>>();
    check(200, &|n| format!(r#"{{"$or":[{}]}}"#, branches(n).join(",")), 0);
    check(200, &|n| format!(r#"{{"$or":[{}]}}"#, branches(n / 2).join(",")), 100);
}

/// Every pattern of the case set that is valid, as a rule of its own; what is told of a few is true of them.
#[test]
fn rules_of_the_case_set_are_right() {
    let mut found = Vec::new();
    for line in include_str!("../core/cases.jsonl").lines() {
        let case: Value = serde_json::from_str(line).expect("a case");
        if case["expect"].is_boolean() {
            let pattern = case["pattern"].as_str().map_or_else(|| case["pattern"].to_string(), str::to_owned);
            let rule = sluice::catalog::Rule {
                name: case["name"].as_str().unwrap_or_default().to_owned(),
                bus: sluice::catalog::DEFAULT_BUS.to_owned(),
                state: sluice::catalog::RuleState::Shadow,
                pattern: std::sync::Arc::new(
                    sluice::pattern::parse(pattern.as_bytes(), &Default::default()).expect("valid"),
                ),
                text: pattern.into(),
                about: Default::default(),
                targets: Vec::new(),
            };
            let mut catalog = sluice::catalog::Catalog::new();
            catalog.apply(sluice::catalog::Command::PutRule(rule)).expect("a rule");
            let told = sluice::lint::lint(&catalog, &Default::default());
            found.extend(told.into_iter().map(|finding| format!("{} {}", finding.code, finding.rule.1)));
        }
    }
    let wanted = [
        "L0303 dots/both-spellings-last-wins",
        "L0303 dup/pattern-last-wins",
        "L0303 dup/pattern-last-wins-2",
        "L0303 or/override-after",
        "L0303 or/override-after-old",
        "L0303 or/override-before",
    ];
    assert_eq!(found, wanted);
}

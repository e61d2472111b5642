//! `sluice test`: what it finds, what it says of failures and of bad files, coverage, and what build servers read.

use crate::process::Place;
use serde_json::Value;

const RULES: &str = "\
buses: { orders: {} }
targets: { crm: { stdout: {} }, audit: { stdout: {} }, note: { stdout: {} } }
rules:
  big:
    bus: orders
    pattern: { source: [shop], detail: { total: [{ numeric: [\">\", 100] }] } }
    targets:
      - { target: crm, input_transformer: { paths: { id: $.detail.id, n: $.detail.total }, template: '{\"order\": <id>, \"total\": <n>}' } }
      - { target: note, input_transformer: { paths: { id: $.detail.id }, template: '\"order <id>\"' } }
  any:
    bus: orders
    pattern: { source: [shop], $or: [{ detail.kind: [a] }, { detail.kind: [b] }, { detail.total: [7] }] }
    targets: [{ target: audit, input_path: $.detail }]
  shadow: { bus: orders, state: shadow, pattern: { source: [shop] }, targets: [audit] }
  off: { bus: orders, state: disabled, pattern: { source: [shop] }, targets: [audit] }
";

const EVENT: &str = "event: { source: shop, detail: { id: \"42\", total: 900.0 } }";

/// Rules in `rules/r.yaml` with one test beside them, of this body.
fn place(body: &str) -> Place {
    Place::new(&[("rules/r.yaml", RULES), ("rules/r.test.yaml", &format!("tests:\n  - name: it\n    {body}\n"))])
}

#[test]
fn a_test_passes_or_says_why_not() {
    let rows: [(&str, &[&str]); 21] = [
        ("expect: { rules: [shadow, big] }", &[]),
        ("expect: { no_rules: [any, off] }", &[]),
        ("expect: { outputs: { crm: { total: 900, order: \"42\" } }, no_outputs: [audit] }", &[]),
        ("expect: { outputs: { crm: '{\"total\": 9e2, \"order\": \"42\"}' } }", &[]),
        ("expect: { outputs: { note: order 42 } }", &[]),
        ("expect: { outputs: { note: \"order 42\" } }", &[]),
        ("expect: { outputs: { note: '\"order 42\"' } }", &[]),
        (
            "expect: { rules: [big] }",
            &["FAIL rules/r.test.yaml:2: it\n     rule shadow matches and should not\n", "0 tests passed, 1 failed\n"],
        ),
        ("expect: { rules: [] }", &["rule big matches and should not\n     rule shadow matches and should not\n"]),
        ("expect: { no_rules: [big] }", &["rule big matches and should not\n"]),
        (
            "expect: { rules: [any, big, shadow] }",
            &[
                "     rule any should match and does not\n       branch 1 of 3 of $or came nearest\n",
                "         FAIL detail.kind \"a\"\n",
                "the event has no value there",
            ],
        ),
        (
            "expect: { rules: [off, big, shadow] }",
            &["rule off should match and does not\n       its state is `disabled`\n"],
        ),
        (
            "expect: { outputs: { crm: { order: \"42\", total: 901 } } }",
            &[
                "     target crm receives something else\n       expected {\"order\":\"42\",\"total\":901}\n       received \
                 {\"order\":\"42\",\"total\":900.0} from rule big\n       they differ at total\n",
            ],
        ),
        (
            "expect: { outputs: { note: \"order 43\" } }",
            &["expected order 43\n       received \"order 42\" from rule big\n"],
        ),
        ("expect: { outputs: { audit: {} } }", &["target audit should receive something and receives nothing\n"]),
        (
            "expect: { no_outputs: [crm] }",
            &["target crm should receive nothing\n       received {\"order\":\"42\",\"total\":900.0} from rule big\n"],
        ),
        ("bus: default\n    expect: { rules: [] }", &[]),
        ("bus: orders\n    expect: { rules: [big, shadow] }", &[]),
        ("ingestion_time: 2026-01-31T09:00:00Z\n    expect: { no_rules: [any] }", &[]),
        ("expect: { rules: [big, shadow], outputs: { crm: 1 } }", &["expected 1\n", "received"]),
        ("expect: { outputs: { crm: null } }", &["expected null\n"]),
    ];
    for (body, parts) in rows {
        let said = place(&format!("{EVENT}\n    {body}")).run(&["test", "rules"], "");
        assert_eq!(said.code, Some(i32::from(!parts.is_empty())), "{body}: {}{}", said.out, said.err);
        for part in parts {
            assert!(said.out.contains(part), "{body}: `{part}` is not in\n{}", said.out);
        }
        if parts.is_empty() {
            assert_eq!(said.out, "ok   rules/r.test.yaml:2: it\n1 test passed, 0 failed\n");
        }
    }
}

/// What a target receives, what a test expects, and where they differ.
#[test]
fn outputs_are_compared_by_value() {
    let rows = [
        ("input: '{ \"b\": [true, null], \"a\": 1.0 }'", "{ a: 1, b: [true, null] }", None),
        ("input: '100'", "'1e2'", None),
        ("input: '0.0'", "'-0'", None),
        ("input: '9007199254740992'", "9007199254740993", Some("received 9007199254740992 from")),
        ("input: '-5'", "5", Some("received -5 from")),
        ("input: '\"a\"'", "'\"\\u0061\"'", None),
        ("input: '\"42\"'", "42", Some("expected 42\n       received \"42\" from")),
        ("input: { a: { b: [1, 3] } }", "{ a: { b: [1, 2] } }", Some("they differ at a.b[1]")),
        ("input: { a: [1, 2] }", "{ a: [1] }", Some("they differ at a[1]")),
        ("input: { a: 1, b: 2 }", "{ a: 1 }", Some("they differ at b")),
        ("input: { a: 1 }", "{ a: 1, b: 2 }", Some("they differ at b")),
        ("input: '{\"a\":1,\"a\":2}'", "{ a: 2 }", None),
        ("input: [1]", "{ a: 1 }", Some("received [1] from")),
        ("input: 1", "'1},\"x\":{'", Some("expected 1},\"x\":{\n")),
        ("input: '{ \"a b\\\" c\" : [ 1, 2 ] }'", "[]", Some("received {\"a b\\\" c\":[1,2]} from")),
        // Lines of values are no JSON together.
        ("input_transformer: { template: \"\\\"a\\\"\\n\\\"b  c\\\"\" }", "\"\\\"a\\\"\\n\\\"b  c\\\"\\n\"", None),
        ("input_transformer: { template: \"1\\n2\" }", "\"1\\n3\"", Some("expected 1\n3\n       received 1\n2 from")),
    ];
    let (mut rules, mut tests) = (String::from("rules:\n"), String::from("tests:\n"));
    for (n, (form, expected, _)) in rows.iter().enumerate() {
        rules += &format!("  r{n}: {{ pattern: {{ n: [{n}] }}, targets: [{{ target: t, {form} }}] }}\n");
        tests += &format!("  - {{ name: n{n}, event: {{ n: {n} }}, expect: {{ outputs: {{ t: {expected} }} }} }}\n");
    }
    let said = Place::new(&[("r.yaml", &rules), ("r.test.yaml", &tests)]).run(&["test", "r.yaml"], "");
    let told: Vec<&str> = said.out.split_inclusive(": n").collect();
    assert_eq!(told.len(), rows.len() + 1, "{}{}", said.out, said.err);
    for ((form, expected, at), (mark, text)) in rows.iter().zip(told.iter().zip(&told[1..])) {
        assert_eq!(mark.contains("FAIL r"), at.is_some(), "{expected} of {form}: {text}");
        assert!(text.contains(at.unwrap_or("")), "{expected} of {form}: {text}");
    }
}

#[test]
fn an_event_that_cannot_be_given_its_form_fails_the_test() {
    let rules = "rules:\n  a: { pattern: { x: [1] }, targets: [{ target: t, input_path: $.y }] }\n";
    let tests = "tests: [{ name: n, event: '{\"x\":1}', expect: { rules: [a] } }]";
    let said = Place::new(&[("r.yaml", rules), ("r.test.yaml", tests)]).run(&["test", "r.yaml"], "");
    assert_eq!(said.code, Some(1), "{}", said.err);
    assert!(said.out.contains("target t of rule a gets nothing: input path $.y selects nothing"), "{}", said.out);
}

#[test]
fn the_ingestion_time_is_the_tests() {
    let rules = "rules:\n  a: { pattern: { x: [1] }, targets: [{ target: t, input_transformer: { template: \
                 '{\"at\": <aws.events.event.ingestion-time>, \"rule\": <aws.events.rule-name>}' } }] }\n";
    let tests = "tests:\n  - { name: n, event: { x: 1 }, expect: { outputs: { t: { at: \"2000-01-01T00:00:00Z\", rule: a } } } }\n\
                 \x20 - { name: m, event: { x: 1 }, ingestion_time: \"2026-01-31T09:00:00Z\", expect: { outputs: { t: { at: \
                 \"2026-01-31T09:00:00Z\", rule: a } } } }\n";
    let said = Place::new(&[("r.yaml", rules), ("r.test.yaml", tests)]).run(&["test", "r.yaml"], "");
    assert!(said.code == Some(0) && said.out.ends_with("2 tests passed, 0 failed\n"), "{}{}", said.out, said.err);
}

#[test]
fn bad_files_are_refused_with_their_places() {
    let expect = "expect: { rules: [] }";
    let rows: [(&str, i32, &[&str]); 18] = [
        (
            &format!("{EVENT}\n    expect: {{}}"),
            78,
            &["E0304", "r.test.yaml:4:13   tests[0].expect", "expects nothing"],
        ),
        (EVENT, 78, &["E0105", "r.test.yaml:2:5   tests[0]", "key `expect` is missing"]),
        (expect, 78, &["E0302", "r.test.yaml:2:5", "has no event", "add `event:` or `event_file:`"]),
        (&format!("{EVENT}\n    event_file: e.json\n    {expect}"), 78, &["E0302", "r.test.yaml:3:12", "has both"]),
        (&format!("{EVENT}\n    expct: 1\n    {expect}"), 78, &["E0103", "r.test.yaml:4:5", "did you mean `expect`?"]),
        (
            &format!("{EVENT}\n    expect: {{ rule: [big] }}"),
            78,
            &["E0103", ":4:15", "did you mean `rules`?", "1 problem found"],
        ),
        (&format!("{EVENT}\n    {expect}\n    {expect}"), 78, &["E0107", "r.test.yaml:5:5", "stands twice"]),
        (
            &format!("{EVENT}\n    expect: {{ rules: [bug] }}"),
            78,
            &["E0207", ":4:23   tests[0].expect.rules[0]", "did you mean `big`?"],
        ),
        (
            &format!("bus: default\n    {EVENT}\n    expect: {{ no_rules: [big] }}"),
            78,
            &[":5:26", "it is on bus orders; write `bus: orders`"],
        ),
        (
            &format!("{EVENT}\n    expect: {{ outputs: {{ cmr: 1 }} }}"),
            78,
            &[":4:26   tests[0].expect.outputs.cmr", "did you mean `crm`?"],
        ),
        (&format!("{EVENT}\n    expect: {{ no_outputs: [nowhere] }}"), 78, &[":4:28", "there is no target `nowhere`"]),
        (
            &format!("bus: order\n    {EVENT}\n    {expect}"),
            78,
            &["E0207", ":3:10   tests[0].bus", "did you mean `orders`?"],
        ),
        (&format!("event: [1]\n    {expect}"), 78, &["E0305", ":3:12", "the event is not valid: not a JSON object"]),
        (
            &format!("event: {{ a: 0x1f }}\n    {expect}"),
            78,
            &[":3:17", "a number that JSON writes differently", "1 problem found"],
        ),
        (&format!("event_file: gone.json\n    {expect}"), 74, &["E0002", ":3:17", "cannot read rules/gone.json"]),
        (
            &format!("event_file: r.yaml\n    {expect}"),
            78,
            &["E0305", ":3:17", "the event in rules/r.yaml is not valid"],
        ),
        (&format!("ingestion_time: today\n    {EVENT}\n    {expect}"), 78, &["E0303", ":3:21", "`today` is no time"]),
        (
            &format!(
                "{EVENT}\n    expect: {{ rules: [x] }}\n  - name: it\n    {EVENT}\n    expect: {{ no_rules: [y] }}\n    z: 1"
            ),
            78,
            &["E0301", "E0103", ":4:23", ":7:26", "the first one is in line 2", "4 problems found"],
        ),
    ];
    for (body, code, parts) in rows {
        let said = place(body).run(&["test", "rules"], "");
        assert_eq!((said.code, said.out.as_str()), (Some(code), ""), "{body}: {}", said.err);
        for part in parts {
            assert!(said.err.contains(part), "{body}: `{part}` is not in\n{}", said.err);
        }
    }
}

#[test]
fn files_are_found_beside_rules_and_in_folders() {
    let tests = |name: &str| format!("tests: [{{ name: {name}, event: {{ a: 1 }}, expect: {{ rules: [a] }} }}]");
    let rule = |name: &str| format!("rules: {{ {name}: {{ pattern: {{ {name}: [1] }}, targets: [t] }} }}");
    let place = Place::new(&[
        ("x/main.yaml", "include: [more]\n"),
        ("x/more/a.yaml", &rule("a")),
        ("x/more/a.test.yaml", &tests("beside")),
        ("x/more/b.yaml", &rule("b")),
        ("x/more/other.test.yml", &tests("other")),
        ("x/.hidden/c.test.yaml", &tests("hidden")),
        ("y/a.json", "{\"rules\":{\"a\":{\"pattern\":{\"a\":[2]},\"targets\":[\"t\"]}}}"),
        ("y/a.test.yml", &tests("why")),
        ("f/a.yaml", &rule("a")),
        ("f/a.test.yaml", "tests: [{ name: fixed, event_file: fixtures/a.json, expect: { rules: [a] } }]"),
        ("f/fixtures/a.json", "{\"a\":1}"),
        ("z/r.yaml", &rule("a")),
        ("empty/e.yaml", &rule("a")),
        ("empty/e.test.yaml", "tests: []"),
        ("lone.test.yaml", &tests("lone")),
    ]);
    let rows: [(&[&str], i32, &str); 15] = [
        (&["f"], 0, "ok   f/a.test.yaml:1: fixed\n1 test passed, 0 failed\n"),
        (
            &["x"],
            0,
            "ok   x/more/a.test.yaml:1: beside\nok   x/more/other.test.yml:1: other\n2 tests passed, 0 failed\n",
        ),
        (&["x/main.yaml"], 0, "ok   x/more/a.test.yaml:1: beside\n1 test passed, 0 failed\n"),
        (&["x", "x/more/a.yaml", "./x/more/a.test.yaml", "--filter", "side"], 0, "beside\n1 test passed, 0 failed\n"),
        (&["x/more/a.test.yaml"], 0, "ok   x/more/a.test.yaml:1: beside\n1 test passed, 0 failed\n"),
        (&["x/more/a.yaml", "lone.test.yaml"], 0, "lone\nok   x/more/a.test.yaml:1: beside\n2 tests passed"),
        (&["y"], 1, "FAIL y/a.test.yml:1: why\n"),
        (&["z"], 78, "there are no tests; write them to NAME.test.yaml beside"),
        (&["empty"], 78, "there are no tests"),
        (&["lone.test.yaml"], 78, "there are no rules beside the files of tests"),
        (&["gone"], 78, "cannot read gone"),
        (&["z", "gone.test.yaml"], 78, "cannot read gone.test.yaml"),
        (&["x", "--filter", "nobody"], 2, "no test has `nobody` in its name"),
        (&["x", "--min-coverage", "101"], 2, "101"),
        (&[], 2, "PATHS"),
    ];
    for (arguments, code, part) in rows {
        let said = place.run(&[&["test"], arguments].concat(), "");
        assert_eq!(said.code, Some(code), "{arguments:?}: {}{}", said.out, said.err);
        let (out, err) = (said.out, said.err);
        assert!(out.contains(part) || err.contains(part), "{arguments:?}: `{part}` is not in\n{out}{err}");
    }
    let bad = Place::new(&[("r.yaml", "rules: { a: { pattern: { a: [] } } }"), ("r.test.yaml", &tests("n"))]);
    let said = bad.run(&["test", "r.yaml"], "");
    assert!(
        said.code == Some(78) && said.err.contains("E0213") && said.err.contains("1 problem found"),
        "{}",
        said.err
    );
}

#[test]
fn several_buses_must_be_told_apart() {
    let rules = "rules:\n  a: { bus: x, pattern: { a: [1] }, targets: [t] }\n  b: { bus: y, pattern: { a: [1] }, targets: [t] }\n";
    let place = Place::new(&[
        ("r.yaml", rules),
        ("r.test.yaml", "tests: [{ name: n, event: { a: 1 }, expect: { rules: [a] } }]"),
    ]);
    let said = place.run(&["test", "r.yaml"], "");
    assert_eq!(said.code, Some(78));
    for part in
        ["r.test.yaml:1:9   tests[0]", "key `bus` is missing: several buses have rules", "add `bus:` and one of x, y"]
    {
        assert!(said.err.contains(part), "`{part}` is not in\n{}", said.err);
    }
}

const COVERED: &str = "tests:
  - { name: of kind b, event: { source: shop, detail: { kind: b } }, expect: { rules: [any, shadow] } }
  - { name: seven of kind b, event: { source: shop, detail: { kind: b, total: 7 } }, expect: { rules: [any, shadow] } }
";

#[test]
fn coverage_names_rules_and_branches() {
    let place = Place::new(&[("r.yaml", RULES), ("r.test.yaml", COVERED)]);
    let rows: [(&[&str], i32, &[&str], &str); 5] = [
        (
            &["--coverage"],
            0,
            &[
                "r.yaml:6:14: no test matches rule big\n",
                "r.yaml:12:53: no test matches branch 1 of 3 of rule any: detail.kind \"a\"\n",
                "coverage: 3 of 5 branches, 60 %\n2 tests passed, 0 failed\n",
            ],
            "",
        ),
        (&["--coverage", "--filter", "of kind b"], 0, &["3 of 5"], ""),
        (&["--coverage", "--filter", "seven"], 0, &["3 of 5"], ""),
        (&["--min-coverage", "60"], 0, &["60 %"], ""),
        (&["--min-coverage", "61"], 1, &["60 %"], "the tests match less than 61 % of all branches"),
    ];
    for (arguments, code, parts, err) in rows {
        let said = place.run(&[&["test", "r.yaml"], arguments].concat(), "");
        assert_eq!(said.code, Some(code), "{arguments:?}: {}{}", said.out, said.err);
        assert!(said.err.contains(err), "{arguments:?}: {}", said.err);
        for part in parts {
            assert!(said.out.contains(part), "{arguments:?}: `{part}` is not in\n{}", said.out);
        }
    }
    let said = place.run(&["test", "r.yaml", "--coverage", "-o", "json"], "");
    let told: Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!((&told["passed"], &told["coverage"]["percent"]), (&2.into(), &60.into()));
    assert_eq!(told["tests"][0]["matched"], serde_json::json!(["any", "shadow"]));
    let missed = &told["coverage"]["missed"];
    assert_eq!((&missed[0]["rule"], &missed[0]["branch"]), (&"big".into(), &Value::Null));
    assert_eq!((&missed[1]["rule"], &missed[1]["branch"], &missed[1]["line"]), (&"any".into(), &1.into(), &12.into()));
}

#[test]
fn build_servers_read_junit() {
    let tests = "tests:\n  - { name: 'a < b & \"c\"', event: { source: shop, detail: { total: 900 } }, expect: { no_rules: [big] } }\n\
                 \x20 - { name: passes, event: { source: x }, expect: { rules: [] } }\n\
                 \x20 - { name: \"bell \\a\", event: { source: shop, detail: { id: \"<i>\", total: 900 } }, expect: { outputs: { note: x } } }\n";
    let place = Place::new(&[("r.yaml", RULES), ("r.test.yaml", tests)]);
    let said = place.run(&["test", "r.yaml", "-o", "junit"], "");
    assert_eq!(said.code, Some(1), "{}", said.err);
    for part in [
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"sluice test\" tests=\"3\" failures=\"2\">\n",
        "<testsuite name=\"r.test.yaml\" tests=\"3\" failures=\"2\" errors=\"0\" skipped=\"0\">\n",
        "<testcase classname=\"r.test.yaml\" name=\"a &lt; b &amp; &quot;c&quot;\" file=\"r.test.yaml\" line=\"2\">\n",
        "<failure message=\"rule big matches and should not\" type=\"unexpected_rule\">rule big matches and should not</failure>\n",
        "<testcase classname=\"r.test.yaml\" name=\"passes\" file=\"r.test.yaml\" line=\"3\"/>\n",
        "name=\"bell \u{fffd}\"",
        "received &quot;order &lt;i&gt;&quot; from rule big",
    ] {
        assert!(said.out.contains(part), "`{part}` is not in\n{}", said.out);
    }
    let mut reader = quick_xml::Reader::from_str(&said.out);
    let mut cases = 0;
    loop {
        match reader.read_event().expect("well-formed XML") {
            quick_xml::events::Event::Eof => break,
            quick_xml::events::Event::Start(tag) if tag.name().as_ref() == "testcase" => cases += 1,
            _ => {}
        }
    }
    assert_eq!(cases, 2);
}

#[test]
fn the_starter_has_tests_that_pass() {
    let place = Place::new(&[]);
    assert_eq!(place.run(&["config", "init", "--kind", "stream", "new"], "").code, Some(0));
    let said = place.run(&["test", "new", "--min-coverage", "100"], "");
    assert!(said.code == Some(0) && said.out.ends_with("2 tests passed, 0 failed\n"), "{}{}", said.out, said.err);
}

#[test]
fn tests_have_a_schema() {
    let said = Place::new(&[]).run(&["config", "schema", "--kind", "test"], "");
    let schema: Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!(schema["title"], "Sluice rule tests");
    assert!(schema["$defs"]["Expect"]["properties"]["no_outputs"].is_object(), "{schema}");
}

//! The verbs that put patterns to events.

use crate::process::Place;
use serde_json::Value;
use sluice::pattern::{Limits, parse};
use std::fmt::Write as _;
use std::io::Write as _;

#[test]
fn every_case_is_decided_line_by_line() {
    let cases = include_str!("../core/cases.jsonl");
    let place = Place::new(&[("cases.jsonl", cases)]);
    for (arguments, input) in
        [(&["test-pattern", "--jsonl"][..], cases), (&["test-pattern", "--jsonl", "cases.jsonl"], "")]
    {
        let said = place.run(arguments, input);
        assert_eq!(said.code, Some(0), "{}", said.err);
        assert_eq!(said.out.lines().count(), cases.lines().count());
        for (case, line) in cases.lines().zip(said.out.lines()) {
            let (case, line): (Value, Value) =
                (serde_json::from_str(case).expect("a case"), serde_json::from_str(line).expect("a line"));
            assert_eq!(case["name"], line["name"]);
            match case["expect"].as_bool() {
                Some(wanted) => assert_eq!(line["result"].as_bool(), Some(wanted), "{case}"),
                None => {
                    let error = line["error"].as_str().unwrap_or_else(|| panic!("{case}: {line}"));
                    let text = case["pattern"].as_str().map_or_else(|| case["pattern"].to_string(), str::to_owned);
                    match parse(text.as_bytes(), &Limits::default()) {
                        Err(refused) => assert_eq!(error, refused.message, "{case}"),
                        Ok(_) => assert!(error.starts_with("the event is not valid: "), "{case}: {error}"),
                    }
                }
            }
        }
    }
}

#[test]
fn a_pair_has_its_exit_code_and_its_message() {
    let place = Place::new(&[("p.json", "{\n  \"a\": [{\"prefix\": 5}]\n}"), ("e.json", "{\"a\":\"x\"}")]);
    let numeric = "{\"a\":[{\"numeric\":[\">=\",\"5\"]}]}";
    let rows: [(&[&str], &str, i32, &str, &str); 13] = [
        (&["--pattern", "{\"a\":[1]}", "--event", "{\"a\":1.0}"], "", 0, "match\n", ""),
        (&["--pattern", "{\"a\":[1]}", "--event", "{\"a\":1.0}", "--number-matching", "text"], "", 1, "no match\n", ""),
        (&["--pattern", "{\"a\":[\"x\"]}", "--event", "@e.json"], "", 0, "match\n", ""),
        (&["--pattern", "{\"a\":[\"y\"]}", "--event", "-"], "{\"a\":\"x\"}", 1, "no match\n", ""),
        (
            &["--pattern", "@p.json", "--event", "{}"],
            "",
            78,
            "",
            "prefix match pattern must be a string\n  line 2, column 20\n",
        ),
        (&["--pattern", numeric, "--event", "{}"], "", 78, "", "Value of >= must be numeric\n  line 1, column 24\n"),
        (&["--pattern", "{\"a\":[1]}", "--event", "{\"a\":1.}"], "", 78, "", "the event is not valid"),
        (&["--pattern", "{\"a\":[1]}", "--event", "[1]"], "", 78, "", "not a JSON object"),
        (&["--pattern", "@gone", "--event", "{}"], "", 74, "", "cannot read gone"),
        (&["--pattern", "-", "--event", "-"], "", 2, "", "cannot both come from standard input"),
        (&["--pattern", "{}"], "", 2, "", "--event"),
        (&[], "", 2, "", "--jsonl"),
        (
            &["--jsonl"],
            "{\"pattern\":\"{\\\"a\\\":[1e400]}\",\"event\":\"{\\\"a\\\":1e400}\"}\n\n{\"name\":\"n\",\"pattern\":{\"a\":[1]},\"event\":\"x\"}\nno\n{\"name\":1}\n",
            78,
            "{\"name\":null,\"result\":true}\n{\"name\":\"n\",\"error\":\"the event is not valid: not a JSON object at byte 0\"}\n\
             {\"name\":null,\"error\":\"the line is not a JSON object: not a JSON object at byte 0\"}\n\
             {\"name\":1,\"error\":\"the line lacks `pattern` or `event`\"}\n",
            "2 of 5 lines are no pairs",
        ),
    ];
    for (arguments, input, code, out, err) in rows {
        let said = place.run(&[&["test-pattern"], arguments].concat(), input);
        assert_eq!((said.code, said.out.as_str()), (Some(code), out), "{arguments:?}: {}", said.err);
        assert!(said.err.contains(err), "{arguments:?}: {}", said.err);
    }
}

/// The line around a pattern or an event is no level of it.
#[test]
fn lines_of_pairs_are_as_deep_as_pairs() {
    let deep = |levels: usize, inside: &str| format!("{}{inside}{}", "{\"a\":".repeat(levels), "}".repeat(levels));
    let line = |levels: usize| {
        let both = deep(levels - 1, "[1]");
        format!("{{\"name\":{levels},\"pattern\":{both},\"event\":{both}}}\n")
    };
    let said = Place::new(&[]).run(&["test-pattern", "--jsonl"], &[line(1001), line(1000), line(1002)].concat());
    assert_eq!(said.code, Some(0), "{}", said.err);
    let wanted = "{\"name\":1001,\"result\":true}\n{\"name\":1000,\"result\":true}\n\
                  {\"name\":1002,\"error\":\"nested too deeply (at most 1001 levels) at byte ";
    assert!(said.out.starts_with(wanted), "{}", said.out);
}

#[test]
fn match_is_grep_for_events() {
    let lines = "{\"a\":1}\n{\"a\":2}\nno event\n\n{\"a\":[1,3]}\n{\"b\":1.0}";
    let place = Place::new(&[
        ("l.jsonl", lines),
        ("other", "{\"a\":1}\n"),
        ("patterns", "{\"a\":[2]}\n\n{\"b\":[1]}\n"),
        ("bad", "{\"a\":[2]}\n{\"a\":[]}\n"),
        ("short", "\n{\"a\":[2\n"),
    ]);
    let one = "{\"a\":[1]}";
    let rows: [(&[&str], i32, &str, &str); 21] = [
        (&[one], 0, "{\"a\":1}\n{\"a\":[1,3]}\n", "1 line is no event"),
        (&[one, "-"], 0, "{\"a\":1}\n{\"a\":[1,3]}\n", ""),
        (&["-n", one, "l.jsonl"], 0, "1:{\"a\":1}\n5:{\"a\":[1,3]}\n", ""),
        (&["-v", one], 0, "{\"a\":2}\nno event\n\n{\"b\":1.0}\n", ""),
        (&["-vn", one], 0, "2:{\"a\":2}\n3:no event\n4:\n6:{\"b\":1.0}\n", "1 line is no event"),
        (&["-c", one], 0, "2\n", ""),
        (&["-vc", one], 0, "4\n", ""),
        (&["-H", one], 0, "(standard input):{\"a\":1}\n(standard input):{\"a\":[1,3]}\n", ""),
        (&["-cH", one, "other"], 0, "other:1\n", ""),
        (&["--no-filename", one, "other", "other"], 0, "{\"a\":1}\n{\"a\":1}\n", ""),
        (&["-f", "-"], 2, "", "standard input gives the patterns (-f -); name the FILE"),
        (&["-f", "-", "other", "-"], 2, "", "name the FILE"),
        (&["-c", one, "l.jsonl", "other"], 0, "l.jsonl:2\nother:1\n", ""),
        (&["-n", one, "other", "l.jsonl"], 0, "other:1:{\"a\":1}\nl.jsonl:1:{\"a\":1}\nl.jsonl:5:{\"a\":[1,3]}\n", ""),
        (&["-f", "patterns"], 0, "{\"a\":2}\n{\"b\":1.0}\n", ""),
        (&["-f", "patterns", "--number-matching", "text", "l.jsonl"], 0, "{\"a\":2}\n", ""),
        (&["{\"a\":[9]}"], 1, "", ""),
        (
            &["-f", "bad"],
            2,
            "",
            "bad:2: the event pattern is not valid: Empty arrays are not allowed\n  line 2, column 6\n",
        ),
        (
            &["-f", "short"],
            2,
            "",
            "short:2: the event pattern is not valid: the text ends too early at byte 7\n  line 2, column 8\n",
        ),
        (&[one, "gone", "other"], 2, "other:{\"a\":1}\n", "cannot read gone"),
        (&[], 2, "", "PATTERN"),
    ];
    for (arguments, code, out, err) in rows {
        let said = place.run(&[&["match"], arguments].concat(), lines);
        assert_eq!((said.code, said.out.as_str()), (Some(code), out), "{arguments:?}: {}", said.err);
        assert!(said.err.contains(err), "{arguments:?}: {}", said.err);
    }
}

#[test]
fn match_takes_patterns_from_standard_input() {
    let place = Place::new(&[("l.jsonl", "{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n")]);
    let said = place.run(&["match", "-f", "-", "l.jsonl"], "{\"a\":[3]}\n{\"a\":[1]}\n");
    assert_eq!((said.code, said.out.as_str()), (Some(0), "{\"a\":1}\n{\"a\":3}\n"), "{}", said.err);
    let said = place.run(&["match", "-f", "-", "l.jsonl"], "{\"a\":[3]}\n{}\n");
    assert!(said.code == Some(2) && said.err.contains("-:2: the event pattern is not valid"), "{}", said.err);
}

#[test]
fn match_reads_packed_files() {
    let (lines, place) = ("{\"a\":1}\n{\"a\":2}\n", Place::new(&[]));
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(lines.as_bytes()).expect("bytes");
    std::fs::write(place.path().join("e.gz"), gz.finish().expect("an end")).expect("a file");
    let zst = zstd::encode_all(lines.as_bytes(), 1).expect("packed");
    std::fs::write(place.path().join("e.zst"), zst).expect("a file");
    let said = place.run(&["match", "-n", "{\"a\":[2]}", "e.gz", "e.zst"], "");
    assert_eq!((said.code, &*said.out), (Some(0), "e.gz:2:{\"a\":2}\ne.zst:2:{\"a\":2}\n"), "{}", said.err);
    std::fs::write(place.path().join("no.gz"), lines).expect("a file");
    let said = place.run(&["match", "{\"a\":[2]}", "no.gz"], "");
    assert!(said.code == Some(2) && said.err.contains("cannot read no.gz"), "{}", said.err);
}

#[test]
fn match_finds_events_inside_lines() {
    let deep = format!("{}1{}", "{\"a\":".repeat(1001), "}".repeat(1001));
    let check = |path: &str, line: &str, want: bool, err: &str| {
        let said = Place::new(&[]).run(&["match", "--path", path, "{\"a\":[1,{\"exists\":false}]}"], line);
        assert_eq!((said.code, !said.out.is_empty()), (Some(i32::from(!want)), want), "{path} {line}: {}", said.err);
        assert!(said.err.contains(err) && said.err.is_empty() == err.is_empty(), "{path} {line}: {}", said.err);
    };
    check("event", r#"{"event":{"a":1}}"#, true, "");
    check("event", r#"{"event":{"a":2},"a":1}"#, false, "");
    check("$.event", r#"{"event":"{\"a\":1.0}"}"#, true, "");
    check("detail.original", r#"{"detail":{"original":{"a":1}}}"#, true, "");
    check("records[*].body", r#"{"records":[{"body":"no"},{"body":"{\"a\":1}"}]}"#, true, "");
    check("records[0]", r#"{"records":[{"a":2},{"a":1}]}"#, false, "");
    check("event", r#"{"event":{"a":2},"event":{"a":1}}"#, true, "");
    // Without it a line does not match, not even for what is absent.
    check("event", r#"{"a":1}"#, false, "");
    check("event.x", r#"{"event":"{\"x\":{\"a\":1}}"}"#, false, "");
    check("event", r#"{"event":5}"#, false, "not a JSON object at byte 0 of the value at $.event");
    check("event", r#"{"event":"#, false, "the text ends too early");
    check("event", &format!("{{\"event\":{deep}}}"), true, "");
    let said = Place::new(&[]).run(&["match", "--path", "a..b", "{\"a\":[1]}"], "");
    assert!(said.code == Some(2) && said.err.contains("is not a JSON path"), "{}", said.err);
}

/// Many blocks on all cores, and one line longer than a block: everything in the order of the input.
#[test]
fn match_keeps_the_order_of_a_large_input() {
    let (mut input, mut wanted) = (String::new(), String::new());
    for n in 0..60_000 {
        let fill = if n == 30_000 { 3_000_000 } else { n % 97 };
        let line = format!("{{\"n\":{n},\"odd\":{},\"fill\":\"{}\"}}", n % 2 == 1, "x".repeat(fill));
        if n % 2 == 1 || n == 30_000 {
            writeln!(wanted, "{}:{line}", n + 1).expect("a String takes everything");
        }
        writeln!(input, "{line}").expect("a String takes everything");
    }
    let pattern = "{\"$or\":[{\"odd\":[true]},{\"n\":[30000]}]}";
    let said = Place::new(&[]).run(&["match", "-n", pattern], &input);
    assert_eq!(said.code, Some(0));
    assert!(said.out == wanted, "{} lines", said.out.lines().count());
}

#[test]
#[expect(clippy::too_many_lines, reason = "rows")]
fn explain_says_what_is_in_the_way() {
    let rules = "buses: { text: { number_matching: text } }\ntargets: { out: { stdout: {} } }\nrules:\n\
                 \x20 big: { pattern: { source: [shop], total: [{ numeric: [\">\", 100] }] }, targets: [out] }\n\
                 \x20 eu: { pattern: { source: [shop], detail: { region: [{ prefix: eu- }], total: [99] } }, targets: [out] }\n\
                 \x20 far: { pattern: { source: [x], region: [y], account: [z] }, targets: [out] }\n\
                 \x20 shop: { pattern: { source: [shop] }, targets: [out] }\n\
                 \x20 texts: { bus: text, pattern: { detail: { total: [99.0] } }, targets: [out] }\n";
    let event = "{\"source\":\"shop\",\"detail\":{\"total\":99,\"region\":\"us-east\",\"items\":[{\"sku\":\"a\",\"n\":1},{\"sku\":\"b\",\"n\":2}]}}";
    let key = format!("{{\"{}\":", "k".repeat(100));
    let leaves = (0..8000).map(|n| format!("\"x{n}\":1")).collect::<Vec<_>>().join(",");
    let deep = format!("{}{{{leaves}}}{}", key.repeat(900), "}".repeat(900));
    // Choices multiply over eight arrays of one path.
    let elements = ["a", "b", "c", "d", "e", "f"].map(|key| vec![format!("{{\"{key}\":1}}"); 5].join(",")).join(",");
    let dup = format!("{{\"q\":\"x\",{}}}", vec![format!("\"r\":[{elements}]"); 8].join(","));
    let hard = "targets: { out: { stdout: {} } }\nrules:\n\
                \x20 hard: { pattern: { r: { a: [1], b: [1], c: [1], d: [1], e: [1], f: [1], z: [q] } }, targets: [out] }\n\
                \x20 easy: { pattern: { q: [x] }, targets: [out] }\n";
    let place = Place::new(&[
        ("rules.yaml", rules),
        ("e.json", event),
        ("deep.json", &deep),
        ("dup.json", &dup),
        ("hard.yaml", hard),
    ]);
    let pattern = |text: &'static str| ["--event", "e.json", "--pattern", text];
    let rows: [(&[&str], i32, &[&str]); 22] = [
        (
            &["--event", "e.json", "-c", "rules.yaml", "--rule", "big"],
            0,
            &[
                "rule big on bus default does not match: 1 of 2 conditions in the way\n",
                "  ok   source \"shop\"\n         \"shop\"\n",
                "  FAIL total {\"numeric\":[\">\",100]}\n         the event has no value there; detail.total has one: put the condition into `detail`\n",
            ],
        ),
        (
            &["--event", "e.json", "-c", "rules.yaml", "--near", "1"],
            0,
            &[
                "rule shop on bus default matches\n",
                "does not match: 1 of",
                "3 further rules do not match; --near 4 or --all shows them\n",
            ],
        ),
        (&["--event", "e.json", "-c", "rules.yaml", "--all"], 0, &["rule far on bus default does not match: 3 of 3"]),
        (
            &["--event", "e.json", "-c", "rules.yaml", "--bus", "text"],
            0,
            &["  FAIL detail.total 99.0\n         99 (the same number, spelled differently"],
        ),
        (
            &pattern("{\"detail\":{\"items\":{\"sku\":[\"a\"],\"n\":[2]}}}"),
            0,
            &["does not match: 1 of 2", "holds by itself, but in other elements than the rest: detail.items[1].n = 2"],
        ),
        (
            &pattern("{\"detail\":{\"items\":{\"sku\":[\"b\"],\"n\":[2]}}}"),
            0,
            &["the pattern matches\n", "detail.items[1].sku = \"b\", detail.items[0].sku = \"a\" (not accepted)\n"],
        ),
        (
            &pattern("{\"detail\":{\"items\":[\"a\"]}}"),
            0,
            &["it is a list without plain values; name a field of it: n, sku\n"],
        ),
        (
            &pattern("{\"detail\":[{\"exists\":true}]}"),
            0,
            &["it is an object; name a field of it: items, region, total\n"],
        ),
        (&pattern("{\"detail\":{\"totl\":[99]}}"), 0, &["the nearest path is detail.total\n"]),
        (&pattern("{\"source\":[{\"exists\":false}]}"), 0, &["there is a value: \"shop\"\n"]),
        (&pattern("{\"id\":[{\"exists\":false}]}"), 0, &["the pattern matches\n", "there is no value, as wanted\n"]),
        (
            &pattern("{\"$or\":[{\"source\":[\"a\"],\"id\":[\"b\"]},{\"source\":[\"b\"]}]}"),
            0,
            &["(branch 2 of 2 of $or, the nearest)\n"],
        ),
        // As many in the way, and more that hold.
        (
            &pattern("{\"$or\":[{\"id\":[\"b\"]},{\"source\":[\"shop\"],\"id\":[\"b\"]}]}"),
            0,
            &["1 of 2 conditions in the way (branch 2 of 2 of $or, the nearest)\n"],
        ),
        (
            &["--event", "{\"r\":[{\"a\":1}]}", "--pattern", "{\"r\":{\"a\":[{\"exists\":false}]}}"],
            0,
            &["does not match: 1 of 1", "  FAIL r.a {\"exists\":false}\n         there is a value: r[0].a = 1"],
        ),
        (
            &[
                "--event",
                "{\"r\":[{\"a\":\"x\"},{\"b\":\"y\"}]}",
                "--pattern",
                "{\"r\":{\"b\":[\"y\"],\"a\":[{\"exists\":false}]}}",
            ],
            0,
            &["does not match: 1 of 2", "  FAIL r.a {\"exists\":false}\n         there is a value", "  ok   r.b"],
        ),
        (
            &[
                "--event",
                "{\"r\":[{\"a\":1,\"b\":2},{\"a\":3,\"b\":4}],\"s\":[{\"z\":1}]}",
                "--pattern",
                "{\"r\":{\"a\":[1],\"b\":[4]},\"s\":{\"z\":[1]}}",
            ],
            0,
            &["  FAIL r.a", "  FAIL r.b", "  ok   s.z"],
        ),
        (
            &[
                "--event",
                "{\"r\":[{\"s\":\"a\",\"n\":1},{\"s\":\"b\",\"n\":5}]}",
                "--pattern",
                "{\"r\":{\"n\":[1,5],\"s\":[\"b\"]}}",
            ],
            0,
            &["the pattern matches", "r[1].n = 5, r[0].n = 1 (accepted, in another element)\n"],
        ),
        (&["--event", "deep.json", "--pattern", "{\"a\":[\"x\"]}"], 0, &["the event has no value there"]),
        (&["--event", "dup.json", "-c", "hard.yaml", "--bus", "default"], 0, &["rule easy on bus default matches"]),
        (&["--event", "{", "--pattern", "{\"a\":[1]}"], 78, &["the event is not valid"]),
        (&["--event", "[{}]", "--pattern", "{\"a\":[1]}"], 78, &["the event is not valid: not a JSON object"]),
        (&["--event", "e.json", "-c", "rules.yaml", "--rule", "gone"], 78, &["no such rule"]),
    ];
    for (arguments, code, parts) in rows {
        let said = place.run(&[&["explain"], arguments].concat(), "");
        assert_eq!(said.code, Some(code), "{arguments:?}: {}", said.err);
        let text = if code == 0 { &said.out } else { &said.err };
        for part in parts {
            assert!(text.contains(part), "{arguments:?}: `{part}` is not in\n{text}");
        }
    }
    let said = place.run(&["explain", "--event", "-", "-c", "rules.yaml", "-o", "json"], event);
    let told: Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!((&told[0]["rule"], &told[0]["matched"]), (&"shop".into(), &true.into()));
    let near = place.run(&["explain", "--event", "-", "-c", "rules.yaml", "-o", "json", "--near", "0"], event);
    let near: Value = serde_json::from_str(&near.out).expect("JSON");
    assert!(near.as_array().expect("a list").iter().all(|told| told["matched"] == true), "{near}");
    let big = told.as_array().expect("a list").iter().find(|told| told["rule"] == "big").expect("a rule");
    let missing = &big["branches"][0]["conditions"][1];
    assert_eq!((&missing["path"], &missing["verdict"]), (&"total".into(), &"missing".into()));
    assert!(missing["hint"].as_str().is_some_and(|hint| hint.contains("detail.total")), "{missing}");
}

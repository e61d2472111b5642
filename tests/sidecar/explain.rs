//! What `sluice explain` says, as its user reads it.

use crate::process::Place;
use serde_json::Value;

/// What is said below the verdict, with the environment that is given.
fn check(place: &Place, arguments: &[&str], environment: &[(&str, &str)], code: i32, parts: &[&str]) -> String {
    let mut command = place.command(&[&["explain"], arguments].concat());
    let output = command.envs(environment.iter().copied()).output().expect("a process");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?} {environment:?}: {out}{err}");
    let said = if code == 0 { out } else { err };
    for part in parts {
        assert!(said.contains(part), "{arguments:?} {environment:?}: `{part}` is not in\n{said}");
    }
    said
}

/// Where a value is missing and no path is near, what stands deepest on the way is named.
#[test]
#[expect(clippy::too_many_lines, reason = "rows")]
fn a_missing_value_has_a_parent() {
    let total = "{\"detail\":{\"order\":{\"total\":[5]}}}";
    let rows = [
        ("{\"detail\":{\"order\":[1,2]}}", total, "; detail.order is a list of numbers\n"),
        ("{\"detail\":{\"order\":[[1],\"x\",null]}}", total, "; detail.order is a list of text and numbers and null\n"),
        ("{\"detail\":{\"order\":[]}}", total, "; detail.order is an empty list\n"),
        ("{\"detail\":{\"order\":\"two\"}}", total, "; detail.order is text: \"two\"\n"),
        ("{\"detail\":{\"order\":5.0}}", total, "; detail.order is a number: 5.0\n"),
        ("{\"detail\":{\"order\":false}}", total, "; detail.order is false\n"),
        ("{\"detail\":{\"order\":null}}", total, "; detail.order is null\n"),
        ("{\"detail\":{\"order\":{}}}", total, "; detail.order is an empty object\n"),
        ("{\"detail\":{\"order\":{\"zzz\":1}}}", total, "; detail.order has the only key zzz\n"),
        (
            "{\"detail\":{\"order\":[{\"zzz\":1},{\"y\":1}]}}",
            total,
            "; detail.order is a list of objects; its objects have the keys y, zzz\n",
        ),
        (
            "{\"detail\":{\"order\":[{\"zzz\":1},4]}}",
            total,
            "; detail.order is a list of objects and numbers; its objects have the only key zzz\n",
        ),
        ("{\"detail\":{\"a\":1,\"b\":2}}", total, "; detail has the keys a, b\n"),
        (
            "{\"detail\":{\"k9\":1,\"k8\":1,\"k7\":1,\"k6\":1,\"k5\":1,\"k4\":1,\"k3\":1,\"k2\":1,\"k1\":1,\"k0\":1}}",
            total,
            "; detail has the keys k0, k1, k2, k3, k4, k5, k6, k7 and 2 more\n",
        ),
        (
            "{\"detail\":{\"a\":1},\"detail\":7}",
            total,
            "; detail is an object and a number; its objects have the only key a\n",
        ),
        ("{\"x\":1}", total, "; the event has the only key x\n"),
        ("{}", total, "; the event is an empty object\n"),
        ("{\"detail.order\":{\"q\":1}}", total, "; detail.order has the only key q\n"),
        ("{\"detailed\":{\"order\":1}}", total, "; the event has the only key detailed\n"),
        // A path that is near, or with and without `detail`, says more.
        ("{\"detail\":{\"order\":{\"totl\":5}}}", total, "; the nearest path is detail.order.totl\n"),
        ("{\"order\":{\"total\":5}}", total, "; order.total has one: take the condition out of `detail`\n"),
        ("{\"detail\":{\"id\":5}}", "{\"id\":[5]}", "; detail.id has one: put the condition into `detail`\n"),
        // Text that holds JSON: the usual mistake of who builds events by hand.
        (
            "{\"detail\":\"{\\\"order\\\":{\\\"total\\\":5}}\"}",
            total,
            "; detail is text that holds JSON: as an object it would have order.total\n",
        ),
        (
            "{\"detail\":{\"order\":\" {\\\"total\\\": [1, 2]}\"},\"total\":1}",
            total,
            "; detail.order is text that holds JSON: as an object it would have total\n",
        ),
        (
            "{\"detail\":\"{\\\"order\\\":{\\\"total\\\":{}}}\"}",
            total,
            "; detail is text that holds JSON, and has no order.total inside either\n",
        ),
        ("{\"detail\":\"{order}\"}", total, "; detail is text: \"{order}\"\n"),
        ("{\"detail\":[]}", "{\"detail\":[1]}", ": it is an empty list\n"),
        ("{\"detail\":{}}", "{\"detail\":[1]}", ": it is an empty object\n"),
    ];
    let place = Place::new(&[]);
    for (event, pattern, part) in rows {
        let wanted = format!("the event has no value there{part}");
        check(&place, &["--event", event, "--pattern", pattern], &[], 0, &[&wanted]);
    }
    let said = check(&place, &["-o", "json", "--event", rows[12].0, "--pattern", total], &[], 0, &[]);
    let said: Value = serde_json::from_str(&said).expect("JSON");
    let parent = &said[0]["branches"][0]["conditions"][0]["parent"];
    assert_eq!(
        (&parent["at"], &parent["key_count"], &parent["kinds"][0]),
        (&"detail".into(), &10.into(), &"object".into())
    );
    assert_eq!(parent["keys"].as_array().map(Vec::len), Some(8), "{parent}");
}

/// Why a value is not accepted.
#[test]
fn a_value_that_is_refused_has_a_reason() {
    let quotes = "quotes make the difference";
    let rows = [
        ("\"Eu\"", "\"eu\"", "\"Eu\" (differs in case only)"),
        ("\"eu \"", "\"eu\"", "\"eu \" (differs in white space only)"),
        ("\"us\"", "\"eu\"", "\"us\" (another text)"),
        ("\"us\"", "\"eu\",\"af\"", "\"us\" (none of these)"),
        ("\"EU\"", "\"af\",\"eu\",5", "\"EU\" (differs in case only)"),
        ("300", "\"300\"", quotes),
        ("\"3e2\"", "300", quotes),
        ("\"500\"", "{\"numeric\":[\">\",1]}", quotes),
        ("\"true\"", "true", quotes),
        ("\"x\"", "5,6", "\"x\" (text, and a number is wanted)"),
        ("null", "5", "null (null, and a number is wanted)"),
        ("null", "\"x\"", "null (null is no text)"),
        ("5", "{\"prefix\":\"x\"}", "5 (a number, and text is wanted)"),
        ("[true]", "\"x\"", "a[0] = true (text is wanted)"),
        ("true", "false", "true (the other one)"),
        ("5", "true", "5 (true or false is wanted)"),
        ("5", "null", "5 (null is wanted)"),
        ("\"\"", "null", "\"\" (an empty text is not null)"),
        ("5.0", "6", "5.0 (another number)"),
        ("1E400", "1e400", "1E400 (another text; numbers that 64 bits do not hold exactly compare by it)"),
        ("9007199254740993", "9007199254740992", "9007199254740993 (another text; numbers"),
        ("5", "{\"numeric\":[\">\",5]}", "5 (not in that range)"),
        ("5", "{\"numeric\":[\"=\",6]}", "5 (another number)"),
        ("1e400", "{\"numeric\":[\">\",5]}", "1e400 (outside the numbers that `numeric` compares)"),
        ("\"10.0.1.1\"", "{\"cidr\":\"10.0.0.0/24\"}", "(not in that network)"),
        ("\"10.0.1\"", "{\"cidr\":\"10.0.0.0/24\"}", "(not an address)"),
        ("\"xab\"", "{\"prefix\":\"ab\"}", "(does not begin so)"),
        ("\"ABC\"", "{\"prefix\":\"ab\"}", "(differs in case only)"),
        ("\"abx\"", "{\"suffix\":\"ab\"}", "(does not end so)"),
        ("\"x\"", "{\"suffix\":{\"equals-ignore-case\":\"ab\"}}", "(does not end so)"),
        ("\"x\"", "{\"prefix\":{\"equals-ignore-case\":\"ab\"}}", "(does not begin so)"),
        ("\"x\"", "{\"equals-ignore-case\":\"ab\"}", "(another text)"),
        ("\"a.txt\"", "{\"wildcard\":\"*.csv\"}", "(does not fit)"),
        ("\"a.CSV\"", "{\"wildcard\":\"*.csv\"}", "(differs in case only)"),
        ("\"a\"", "{\"anything-but\":[\"a\",\"b\"]}", "\"a\" (excluded)"),
        ("\"ab\"", "{\"anything-but\":{\"prefix\":\"a\"}}", "(excluded: it begins so)"),
        ("\"ab\"", "{\"anything-but\":{\"suffix\":\"b\"}}", "(excluded: it ends so)"),
        ("\"AB\"", "{\"anything-but\":{\"equals-ignore-case\":\"ab\"}}", "(excluded, apart from case)"),
        ("\"ab\"", "{\"anything-but\":{\"wildcard\":\"a*\"}}", "(excluded: it fits)"),
        ("null", "{\"exists\":false}", "there is a value: null (null is a value, too)\n"),
        ("\"\"", "{\"exists\":false}", "there is a value: \"\" (an empty text is a value, too)\n"),
        ("5", "{\"exists\":false}", "there is a value: 5\n"),
    ];
    let place = Place::new(&[]);
    for (value, tests, part) in rows {
        let (event, pattern) = (format!("{{\"a\":{value}}}"), format!("{{\"a\":[{tests}]}}"));
        check(&place, &["--event", &event, "--pattern", &pattern], &[], 0, &["does not match: 1 of 1 condition", part]);
    }
}

/// What decided comes first, however long the array; long lists and texts are cut; a terminal gets no control characters.
#[test]
fn output_is_short_and_harmless() {
    let numbers = (0..100).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let long = "ä".repeat(300);
    let place = Place::new(&[]);
    let rows = [
        (
            format!("{{\"a\":[{numbers}]}}"),
            "{\"a\":[57]}".to_owned(),
            "         a[57] = 57, a[0] = 0 (another number), ",
        ),
        (format!("{{\"a\":[{numbers}]}}"), "{\"a\":[57]}".to_owned(), "a[6] = 6 (another number), and 92 more\n"),
        (
            "{\"a\":-1}".to_owned(),
            format!("{{\"a\":[{numbers}]}}"),
            "  FAIL a 0 or 1 or 2 or 3 or 4 or 5 or 6 or 7 or 92 more\n",
        ),
        (format!("{{\"a\":\"{long}\"}}"), "{\"a\":[\"x\"]}".to_owned(), "ä…ä"),
        (format!("{{\"a\":\"{long}\"}}"), "{\"a\":[\"x\"]}".to_owned(), "\" (602 bytes) (another text)\n"),
        ("{\"a\":1}".to_owned(), format!("{{\"a\":[\"{long}\"]}}"), "…"),
        (format!("{{\"{long}\":1}}"), "{\"a\":[1]}".to_owned(), " (600 bytes)\n"),
        ("{\"\\u001b[2J\":1}".to_owned(), "{\"\\u001b[2J\":[2]}".to_owned(), "  FAIL \\u001b[2J 2\n"),
        ("{\"\\u001b[2J\":1}".to_owned(), "{\"a\":[2]}".to_owned(), "the only key \\u001b[2J\n"),
        (
            "{\"\\u001b[2J\":{\"zebra\":1}}".to_owned(),
            "{\"\\u001b[2J\":{\"zebr\":[2]}}".to_owned(),
            "the nearest path is \\u001b[2J.zebra\n",
        ),
        ("{\"a\":\"\u{7f}\u{9b}2J\u{202e}x\"}".to_owned(), "{\"a\":[2]}".to_owned(), "\"\\u007f\\u009b2J\\u202ex\""),
        ("{\"a\":2}".to_owned(), "{\"a\":[\"\u{9b}2J\"]}".to_owned(), "  FAIL a \"\\u009b2J\"\n"),
    ];
    let hidden = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    for (event, pattern, part) in rows {
        let said = check(&place, &["--event", &event, "--pattern", &pattern], &[], 0, &[part]);
        assert!(!said.contains(hidden) && said.lines().all(|line| line.len() < 700), "{said}");
    }
    let said = check(&place, &["--event", "{\"a\":\u{1b}[2J}", "--pattern", "{\"a\":[1]}"], &[], 78, &["is not valid"]);
    assert!(!said.contains(hidden), "{said}");
    // Programs get all of it.
    let event = format!("{{\"a\":\"{long}\u{9b}\"}}");
    let said = check(&place, &["-o", "json", "--event", &event, "--pattern", "{\"a\":[1]}"], &[], 0, &[]);
    let said: Value = serde_json::from_str(&said).expect("JSON");
    let value = &said[0]["branches"][0]["conditions"][0]["values"][0];
    assert_eq!(value["text"], format!("\"{long}\u{9b}\""));
    assert_eq!(value["why"], "text, and a number is wanted");
}

/// Arguments, environment, exit code and what is said.
type Row<'r> = (&'r [&'r str], &'r [(&'r str, &'r str)], i32, &'r [&'r str]);

/// Flags that do not go together are wrong usage when typed; what is typed wins over the environment.
#[test]
fn flags_and_their_twins() {
    let rules = "buses: { text: { number_matching: text } }\ntargets: { out: { stdout: {} } }\nrules:\n\
                 \x20 one: { pattern: { a: [1] }, targets: [out] }\n\
                 \x20 rests: { state: disabled, pattern: { a: [1] }, targets: [out] }\n\
                 \x20 two: { bus: text, pattern: { a: [2] }, targets: [out] }\n";
    let place = Place::new(&[("r.yaml", rules), ("e.json", "{\"a\":1.0}")]);
    let config = ("SLUICE_CONFIG", "r.yaml");
    let event = ("SLUICE_EXPLAIN_EVENT", "e.json");
    let pattern = ("SLUICE_EXPLAIN_PATTERN", "{\"a\":[1]}");
    let text = ("SLUICE_EXPLAIN_NUMBER_MATCHING", "text");
    let given = ["--event", "e.json"];
    let by_text = "`number_matching` of their bus";
    let rows: [Row<'_>; 21] = [
        (&["--event", "e.json", "-c", "r.yaml", "--number-matching", "text"], &[], 2, &[by_text]),
        (&["--event", "e.json", "-c", "r.yaml", "--number-matching", "value"], &[], 2, &[by_text]),
        (&["--event", "e.json", "-c", "r.yaml", "--pattern", "{}"], &[], 2, &["not both"]),
        (&["--event", "e.json", "--pattern", "{}", "--rule", "one"], &[], 2, &["stands alone"]),
        (&["--event", "e.json", "-c", "r.yaml", "--limit", "1"], &[], 2, &["--limit is for --live"]),
        (&["--event", "e.json", "-c", "r.yaml", "--for", "1s"], &[], 2, &["--for is for --live"]),
        (&given, &[], 2, &["give a --pattern, or -c"]),
        (&["-c", "r.yaml"], &[], 2, &["give an event"]),
        (
            &[],
            &[config, event],
            0,
            &["rule one on bus default matches", "rule rests on bus default (disabled) matches"],
        ),
        (&[], &[config, event, ("SLUICE_EXPLAIN_RULE", "two")], 0, &["rule two on bus text does not"]),
        (&[], &[config, event, ("SLUICE_EXPLAIN_BUS", "text")], 0, &["rule two on bus text does not"]),
        (&[], &[config, event, ("SLUICE_EXPLAIN_OUTPUT", "json")], 0, &["\"state\": \"disabled\""]),
        (&[], &[config, event, ("SLUICE_EXPLAIN_NEAR", "0")], 0, &["1 further rule does not match"]),
        (&[], &[config, event, ("SLUICE_EXPLAIN_NEAR", "0"), ("SLUICE_EXPLAIN_ALL", "yes")], 0, &["rule two on bus"]),
        (&[], &[config, event, ("SLUICE_EXPLAIN_NEAR", "0"), ("SLUICE_EXPLAIN_ALL", "false")], 0, &["1 further rule"]),
        (&[], &[config, event, ("SLUICE_EXPLAIN_LIVE", "off"), ("SLUICE_EXPLAIN_LIMIT", "1")], 0, &["rule one"]),
        (&[], &[config, event, ("SLUICE_EXPLAIN_ALL", "perhaps")], 2, &["'perhaps' for '--all'"]),
        (&[], &[config, event, text], 2, &[by_text]),
        (&[], &[pattern, event, text], 0, &["the pattern does not match"]),
        (&["-c", "r.yaml", "--rule", "one"], &[pattern, event, text], 0, &["rule one on bus default matches"]),
        (&["--pattern", "{\"a\":[2]}"], &[config, event, ("SLUICE_EXPLAIN_RULE", "one")], 0, &["the pattern does not"]),
    ];
    for (arguments, environment, code, parts) in rows {
        check(&place, arguments, environment, code, parts);
    }
    // What is asked of a process goes to the process.
    let nobody = [config, event, ("SLUICE_ADMIN_URL", "http://127.0.0.1:9")];
    check(&place, &["--live"], &nobody, 69, &["no answer from http://127.0.0.1:9"]);
}

//! `sluice diff`: what rules kept, gained and lost, what else changed of them, and when it says no.

use crate::process::Place;
use serde_json::{Value, json};
use std::io::Write;

const OLD: &str = "\
rules:
  big: { pattern: { total: [{ numeric: [\">\", 100] }] }, targets: [a, b] }
  old: { pattern: { kind: [x] }, targets: [a] }
  form: { pattern: { kind: [x] }, targets: [a, { target: b, input_path: $.x }] }
  same: { pattern: '{\"kind\": [\"x\"]}', targets: [a] }
  sleeps: { pattern: { kind: [y] }, targets: [a] }
";
const NEW: &str = "\
rules:
  big: { pattern: { total: [{ numeric: [\">\", 50, \"<\", 300] }] }, targets: [a, b] }
  fresh: { pattern: { kind: [y] }, targets: [a] }
  form: { pattern: { kind: [x] }, targets: [c, { target: b, input_path: $.y }] }
  same: { pattern: { kind: [x] }, targets: [a] }
  sleeps: { state: disabled, pattern: { kind: [y] }, targets: [a] }
";
const EVENTS: &str = "\
{\"id\":\"e1\",\"total\":60}
{\"id\":\"e2\",\"total\":200}

{\"id\":4,\"total\":400}
{\"kind\":\"x\"}
{\"kind\":\"y\"}
";

fn place() -> Place {
    Place::new(&[("old/r.yaml", OLD), ("new/r.yaml", NEW), ("e.jsonl", EVENTS)])
}

#[test]
fn rules_keep_gain_and_lose_events() {
    let said = place().run(&["diff", "old", "new", "--events", "e.jsonl"], "");
    assert_eq!(said.code, Some(0), "{}", said.err);
    let wanted = "\
rule big (changed: pattern): 1 kept, 1 gained, 1 lost
  gained e.jsonl:1 id e1 {\"id\":\"e1\",\"total\":60}
  lost   e.jsonl:4 id 4 {\"id\":4,\"total\":400}
rule form (changed: targets: +c -a; input of b): 1 kept, 0 gained, 0 lost
rule fresh (new): 0 kept, 1 gained, 0 lost
  gained e.jsonl:6 {\"kind\":\"y\"}
rule old (gone): 0 kept, 0 gained, 1 lost
  lost   e.jsonl:5 {\"kind\":\"x\"}
rule sleeps (changed: state: enabled to disabled): 0 kept, 0 gained, 1 lost
  lost   e.jsonl:6 {\"kind\":\"y\"}
1 rule did not change
5 events read: 1 that no rule matches any more, 1 newly matched
";
    assert_eq!(said.out, wanted);
    let said = place().run(&["diff", "old", "new", "--events", "-", "-o", "json", "--max-samples", "0"], EVENTS);
    let told: Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!((&told["bus"], &told["events"], &told["no_longer_matched"]), (&"default".into(), &5.into(), &1.into()));
    let none = json!({ "count": 1, "samples": [] });
    let big =
        json!({ "rule": "big", "status": "changed", "changes": ["pattern"], "kept": 1, "gained": none, "lost": none });
    assert_eq!(told["rules"][0], big);
    assert_eq!(told["rules"].as_array().map(Vec::len), Some(6));
}

#[test]
fn samples_are_few_and_short() {
    let place = Place::new(&[
        ("o.yaml", "rules: { r: { pattern: { a: [1] }, targets: [t] } }"),
        ("n.yaml", "rules: { r: { pattern: { a: [2] }, targets: [t] } }"),
    ]);
    let line = format!("{{\"a\":1,\"text\":\"{}\"}}\n", "\u{fc}".repeat(500));
    let packed = std::fs::File::create(place.path().join("e.gz")).expect("a file");
    let mut packed = flate2::write::GzEncoder::new(packed, flate2::Compression::fast());
    packed.write_all(line.repeat(4).as_bytes()).expect("bytes");
    packed.finish().expect("an end");
    let said = place.run(&["diff", "o.yaml", "n.yaml", "--events", "e.gz"], "");
    assert!(
        said.out.starts_with("rule r (changed: pattern): 0 kept, 0 gained, 4 lost\n  lost   e.gz:1 {"),
        "{}",
        said.out
    );
    // Two frames with one between them that is to be skipped.
    let frame = |count| zstd::encode_all(line.repeat(count).as_bytes(), 1).expect("packed");
    let skipped = [&0x184D_2A50u32.to_le_bytes()[..], &3u32.to_le_bytes()[..], b"abc"].concat();
    std::fs::write(place.path().join("e.zst"), [frame(3), skipped, frame(1)].concat()).expect("a file");
    let zstd = place.run(&["diff", "o.yaml", "n.yaml", "--events", "e.zst"], "");
    assert_eq!(zstd.out, said.out.replace("e.gz", "e.zst"), "{}", zstd.err);
    std::fs::write(place.path().join("cut.zst"), &frame(3)[..30]).expect("a file");
    let cut = place.run(&["diff", "o.yaml", "n.yaml", "--events", "cut.zst"], "");
    assert!(cut.code == Some(74) && cut.err.contains("cannot read cut.zst"), "{}", cut.err);
    let samples: Vec<&str> = said.out.lines().filter(|line| line.contains("lost   ")).collect();
    assert_eq!(samples.len(), 3);
    assert!(
        samples.iter().all(|line| line.ends_with("\u{fc}...") && line.chars().count() == 16 + 120 + 3),
        "{samples:?}"
    );
}

#[test]
fn it_says_no_when_asked_to() {
    let rule = |pattern: &str| format!("rules: {{ r: {{ pattern: {pattern}, targets: [t] }} }}");
    let buses = "rules:\n  r: { bus: x, pattern: { a: [1] }, targets: [t] }\n  s: { bus: y, pattern: { a: [2] }, targets: [t] }\n";
    let place = Place::new(&[
        ("one.yaml", &rule("{ a: [1] }")),
        ("two.yaml", &rule("{ a: [1, 2] }")),
        ("text.yaml", &format!("buses: {{ default: {{ number_matching: text }} }}\n{}", rule("{ a: [1] }"))),
        ("bad.yaml", &rule("{ a: [] }")),
        ("buses.yaml", buses),
        ("none.yaml", "buses: {}"),
        ("e", "{\"a\":1}\n{\"a\":2}\n{\"a\":1.0}\n"),
        ("broken", "{\"a\":1}\n{\"a\":\n"),
        ("empty", "\n"),
    ]);
    let events = ["--events", "e"];
    let rows: [(&[&str], i32, &str); 18] = [
        (&["one.yaml", "two.yaml"], 0, "rule r (changed: pattern): 2 kept, 1 gained, 0 lost\n"),
        (&["one.yaml", "two.yaml", "--fail-on", "lost"], 0, "1 newly matched"),
        (&["one.yaml", "two.yaml", "--fail-on", "any"], 1, "1 gained"),
        (&["two.yaml", "one.yaml", "--fail-on", "lost"], 1, "1 that no rule matches any more"),
        (&["two.yaml", "one.yaml", "--fail-on", "any"], 1, "1 lost"),
        (&["one.yaml", "one.yaml", "--fail-on", "any"], 0, "1 rule did not change\n3 events read: 0 that no rule"),
        (&["one.yaml", "text.yaml"], 0, "rule r: 1 kept, 0 gained, 1 lost\n  lost   e:3 {\"a\":1.0}\n"),
        (&["one.yaml", "none.yaml"], 0, "rule r (gone): 0 kept, 0 gained, 2 lost\n"),
        (&["buses.yaml", "none.yaml"], 2, "several buses have rules: name one with --bus: x, y"),
        (&["buses.yaml", "none.yaml", "--bus", "y"], 0, "rule s (gone): 0 kept, 0 gained, 1 lost\n"),
        (&["buses.yaml", "none.yaml", "--bus", "z"], 2, "no rule is on bus z; buses with rules are x, y"),
        (&["none.yaml", "none.yaml"], 78, "there are no rules in either"),
        (&["one.yaml", "bad.yaml"], 78, "E0213"),
        (&["one.yaml", "gone.yaml"], 78, "cannot read gone.yaml"),
        (
            &["one.yaml", "two.yaml", "--events", "broken"],
            78,
            "broken:2: the event is not valid: the text ends too early",
        ),
        (&["one.yaml", "two.yaml", "--events", "gone"], 74, "cannot read gone"),
        (&["one.yaml"], 2, "<NEW>"),
        (&["one.yaml", "two.yaml", "--fail-on", "none"], 2, "lost, any"),
    ];
    for (arguments, code, part) in rows {
        let said = place.run(&[&["diff"], arguments, &events].concat(), "");
        assert_eq!(said.code, Some(code), "{arguments:?}: {}{}", said.out, said.err);
        let all = said.out + &said.err;
        assert!(all.contains(part), "{arguments:?}: `{part}` is not in\n{all}");
    }
    let said = place.run(&["diff", "one.yaml", "two.yaml", "--events", "empty"], "");
    assert!(said.code == Some(78) && said.err.contains("there are no events"), "{}", said.err);
    assert_eq!(place.run(&["diff", "one.yaml", "two.yaml"], "").code, Some(2));
}

/// From the first moment on, until before the second; what has no time that can be read lies in no window.
#[test]
fn a_window_of_time_is_compared() {
    let rule = |pattern: &str| format!("rules: {{ r: {{ pattern: {pattern}, targets: [t] }} }}");
    let events = "{\"time\":\"2026-01-01T09:00:00Z\",\"a\":1}\n{\"time\":\"2026-01-01T10:00:00Z\",\"a\":1}\n\
                  {\"time\":\"2026-01-01T12:30:00+02:00\",\"a\":1}\n{\"time\":\"2026-01-01T11:00:00Z\",\"a\":1}\n\
                  {\"time\":1767261600,\"a\":1}\n{\"a\":1}\n{\"time\":\"noon\",\"a\":1}\n";
    let place = Place::new(&[
        ("o.yaml", &rule("{ a: [1] }")),
        ("n.yaml", &rule("{ a: [2] }")),
        ("e", events),
        ("bad", "{\"time\":"),
    ]);
    let check = |arguments: &[&str], code: i32, part: &str| {
        let said = place.run(&[&["diff", "o.yaml", "n.yaml"], arguments].concat(), "");
        let all = said.out + &said.err;
        assert_eq!(said.code, Some(code), "{arguments:?}: {all}");
        assert!(all.contains(part), "{arguments:?}: `{part}` is not in\n{all}");
    };
    let (ten, eleven) = ("2026-01-01T10:00:00Z", "2026-01-01T11:00:00Z");
    let e = ["--events", "e"];
    check(&e, 0, "7 events read: 7 that");
    check(&[&e[..], &["--from", ten, "--to", eleven]].concat(), 0, "2 events read: 2 that");
    check(
        &[&e[..], &["--from", ten, "--to", eleven]].concat(),
        0,
        "\n2 at other times and 3 without a readable `time` are left out\n",
    );
    check(&[&e[..], &["--from", ten]].concat(), 0, "3 events read");
    check(&[&e[..], &["--to", ten]].concat(), 0, "1 event read");
    check(&[&e[..], &["--to", ten, "-o", "json"]].concat(), 0, "\"untimed\": 3");
    check(&[&e[..], &["--from", "2027-01-01T00:00:00Z"]].concat(), 78, "no events between --from and --to: 4 at other");
    check(&[&e[..], &["--from", eleven, "--to", eleven]].concat(), 2, "--from is not before --to");
    check(&[&e[..], &["--from", "yesterday"]].concat(), 2, "`yesterday` is no time");
    check(&["--events", "bad", "--from", ten], 78, "bad:1: the event is not valid");
}

//! Configuration: what is refused, where, and with which remedy; what is printed.

use crate::process::Place;
use sluice::config::{Outside, Problems, load};
use std::path::PathBuf;

/// Valid pieces around the line under test.
const BASE: &str = "targets: { out: { stdout: {} } }\n";

fn problems(files: &[(&str, &str)]) -> Problems {
    let place = Place::new(files);
    let env = |name: &str| (name == "SET").then(|| "7".to_owned());
    load(&[place.path().to_owned()], &Outside { env: &env, only_rules: false }).expect_err("problems")
}

/// One row: the file's text after `BASE`, then code, line:column, key path, and parts of message and remedy.
#[track_caller]
fn check(text: &str, code: &str, place: (usize, usize), path: &str, parts: &[&str]) {
    let found = problems(&[("c.yaml", &format!("{BASE}{text}"))]);
    assert_eq!(found.0.len(), 1, "{found}");
    let problem = &found.0[0];
    let at = problem.at.as_ref().expect("a place");
    assert_eq!((problem.code, (at.line, at.column), at.path.as_str()), (code, place, path), "{found}");
    let shown = problem.to_string();
    for part in parts {
        assert!(shown.contains(part), "`{part}` is not in:\n{shown}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "rows")]
fn every_fault_has_a_place_and_a_remedy() {
    check("rulez: {}", "E0103", (2, 1), "rulez", &["unknown key `rulez`", "did you mean `rules`?"]);
    check(
        "rules: { r: { pattern: { a: [1] }, target: [out] } }",
        "E0103",
        (2, 36),
        "rules.r.target",
        &["did you mean `targets`?"],
    );
    check("rules: { r: { targets: [out] } }", "E0105", (2, 13), "rules.r", &["key `pattern` is missing"]);
    check("buses: { a: {}, a: {} }", "E0107", (2, 17), "a", &["stands twice", "line 2"]);
    check("workers: many", "E0104", (2, 10), "workers", &["the text `many`", "expected u32"]);
    check("server: { admin: here }", "E0104", (2, 18), "server.admin", &["127.0.0.1:4567"]);
    check("limits: { event_bytes: 1MB }", "E0104", (2, 24), "limits.event_bytes", &["256KiB"]);
    check(
        "server: { shutdown: { drain_timeout: 5 } }",
        "E0104",
        (2, 38),
        "server.shutdown.drain_timeout",
        &["as in `5s`"],
    );
    check("a: [", "E0101", (2, 4), "", &["not YAML"]);
    check("log: { level: &x info }\nidentity: { region: *x }", "E0102", (3, 21), "", &["aliases are not supported"]);
    check("log: { level: !str info }", "E0102", (2, 20), "", &["tags are not supported"]);
    check("version: 2", "E0201", (2, 10), "version", &["write `version: 1`"]);
    let kafka = "sources: { in: { kafka: { brokers: b, group: g, topics: [a], retry_topics: \"a b\" } } }";
    let at = "sources.in.kafka.retry_topics";
    check(kafka, "E0201", (2, 76), at, &["no name that a topic can begin with"]);
    let kafka = "sources: { in: { kafka: { brokers: b, group: g, topics: [a, b], retry_topics: r } } }";
    check(kafka, "E0201", (2, 79), at, &["retry topics are for a source of one topic"]);
    let nats = "sources: { in: { nats: { servers: nats://n, stream: S, durable: d, retry_stream: S } } }";
    check(nats, "E0201", (2, 82), "sources.in.nats.retry_stream", &["another one for what waits"]);
    check("log: { level: \"${env:UNSET}\" }", "E0106", (2, 15), "log.level", &["UNSET is not set", ":-default"]);
    check("log: { level: \"${file:/no/file}\" }", "E0106", (2, 15), "log.level", &["cannot read /no/file"]);
    check("log: { level: \"${what}\" }", "E0106", (2, 15), "log.level", &["is no reference"]);
    check(
        "rules: { r: { pattern: { a: [1] }, targets: [oud] } }",
        "E0207",
        (2, 46),
        "rules.r.targets.0",
        &["target `oud`", "did you mean `out`?"],
    );
    check(
        "rules: { r: { bus: b, pattern: { a: [1] } } }",
        "E0207",
        (2, 20),
        "rules.r.bus",
        &["bus `b` is not declared"],
    );
    check("sources: { s: { stdin: {}, file: { path: x } } }", "E0203", (2, 15), "sources.s", &["exactly one of"]);
    check(
        "sources: { s: { stdin: {}, dead_letter: gone } }",
        "E0207",
        (2, 41),
        "sources.s.dead_letter",
        &["target `gone`"],
    );
    check(
        "sources: { s: { kafka: { brokers: b, topics: [t], group: g, properties: { enable.auto.commit: \"true\" } } } }",
        "E0206",
        (2, 95),
        "sources.s.kafka.properties.enable.auto.commit",
        &["is not for the configuration to set"],
    );
    check(
        "sources: { s: { kafka: { brokers: b, topics: [t], group: g, properties: { partition.assignment.strategy: sticky } } } }",
        "E0206",
        (2, 106),
        "sources.s.kafka.properties.partition.assignment.strategy",
        &["`sticky` is not a way to share partitions out", "cooperative-sticky"],
    );
    check("rules: { \"a b\": { pattern: { a: [1] } } }", "E0201", (2, 17), "rules.a b", &["is not a rule name"]);
    check("archives: { \"a/b\": {} }", "E0201", (2, 20), "archives.a/b", &["is not an archive name"]);
    check("archives: { a: { bus: b } }", "E0207", (2, 23), "archives.a.bus", &["bus `b` is not declared"]);
    check("archives: { a: { retention: 36h } }", "E0201", (2, 29), "archives.a.retention", &["whole days", "`1d`"]);
    check("archives: { a: { pattern: { a: 1 } } }", "E0213", (2, 32), "archives.a.pattern.a", &["not valid"]);
    let taken = "rules: { Events-Archive-a: { pattern: { a: [1] } } }\narchives: { a: {} }";
    check(taken, "E0202", (3, 16), "archives.a", &["has a rule `Events-Archive-a` already"]);
    let topic = "kafka: { brokers: b, topic: t }";
    let both = format!("archives: {{ a: {{ {topic}, nats: {{ servers: b, stream: s, subject: s }} }} }}");
    check(&both, "E0203", (2, 16), "archives.a", &["in a topic or in a stream, not in both", "keep one of"]);
    let acks = "archives: { a: { kafka: { brokers: b, topic: t, properties: { acks: \"1\" } } } }";
    check(acks, "E0206", (2, 69), "archives.a.kafka.properties.acks", &["`acks` is not for the configuration to set"]);
    let many = "archives: { a: { nats: { servers: b, stream: s, subject: s.* } } }";
    check(many, "E0201", (2, 58), "archives.a.nats.subject", &["is a wildcard", "name one subject of the stream"]);
    let filled = "archives: { a: { nats: { servers: b, stream: s, subject: \"s.{$.id}\" } } }";
    check(filled, "E0201", (2, 58), "archives.a.nats.subject", &["no one subject to publish to"]);
    let named = "archives: { a: { nats: { servers: b, stream: s.t, subject: s } } }";
    check(named, "E0201", (2, 46), "archives.a.nats.stream", &["`s.t` is not a name"]);
    check("buses: { b: { archives: {} } }", "E0203", (2, 25), "buses.b.archives", &["give it `kafka` or `nats`"]);
    let both = format!("buses: {{ b: {{ archives: {{ {topic}, nats: {{ servers: b, stream: s, subject: s }} }} }} }}");
    check(&both, "E0203", (2, 25), "buses.b.archives", &["not in both"]);
    let schedule = "schedules: { s: { expression: \"cron(* * * * * *)\" } }";
    check(schedule, "E0205", (2, 31), "schedules.s.expression", &["no schedule", "rate(5 minutes)"]);
    let schedule = "schedules: { s: { expression: rate(1 day), catch_up: 1001 } }";
    check(schedule, "E0201", (2, 54), "schedules.s.catch_up", &["write 0 to 1000"]);
    let schedule = "schedules: { s: { expression: rate(1 day), targets: [oud] } }";
    check(schedule, "E0207", (2, 54), "schedules.s.targets.0", &["did you mean `out`?"]);
    let taken = "rules: { s: { pattern: { a: [1] } } }\nschedules: { s: { expression: rate(1 day) } }";
    check(taken, "E0202", (3, 17), "schedules.s", &["has a rule `s` already"]);
    check("buses: { a//b: {} }", "E0201", (2, 16), "buses.a//b", &["is not a bus name"]);
    check(
        "rules: { r: { pattern: { a: [1] }, targets: [{ target: out, input_transformer: { template: '{\"x\": <y>}' } }] } }",
        "E0214",
        (2, 80),
        "rules.r.targets.0.input_transformer",
        &["invalid placeholder y"],
    );
    check(
        "rules: { r: { pattern: { a: [1] }, targets: [{ target: out, input: '{', input_path: $ }] } }",
        "E0214",
        (2, 56),
        "rules.r.targets.0.target",
        &["only one of"],
    );
    // Rules of a thousand alternatives each, one more than a bus may have; what is on another bus does not count.
    let ten = |field| (0..10).map(move |n| format!("{{ {field}{n}: [1] }}")).collect::<Vec<_>>().join(", ");
    let or = |field| format!("{field}: {{ $or: [{}] }}", ten(field));
    let pattern = ["x", "y", "z"].map(or).join(", ");
    let rule =
        |n| format!("  r{n:04}: {{ bus: {}, pattern: {{ {pattern} }} }}\n", if n == 7 { "b" } else { "default" });
    let rules: String = (0..1002).map(rule).collect();
    check(
        &format!("buses: {{ b: {{}} }}\nrules:\n{rules}"),
        "E0215",
        (1005, 35),
        "rules.r1001.pattern",
        &["has 1000 alternatives", "bus `default` have 1000000: more than 1000000", "in a list instead of `$or`"],
    );
}

/// A bus that keeps its events in a broker has one source to write to and to read back from.
#[test]
#[expect(clippy::too_many_lines, reason = "rows")]
fn a_broker_that_keeps_events_is_one_and_fits() {
    let with = |sources: &str| format!("buses: {{ b: {{ durability: broker }} }}\nsources: {{ {sources} }}");
    let good = [
        "s: { bus: b, kafka: { brokers: h, topics: [t], group: g } }",
        "s: { bus: b, nats: { servers: \"nats://h\", stream: S, durable: d, subject: a.b } }",
        "s: { bus: b, nats: { servers: \"nats://h\", stream: S, durable: d, subject: a.b } }, o: { bus: b, nats: { servers: \"nats://h\", subject: c } }",
        "s: { bus: b, kafka: { brokers: h, topics: [t], group: g } }, o: { kafka: { brokers: h, topics: [u], group: g, start: latest } }",
    ];
    for sources in good {
        let place = Place::new(&[("c.yaml", &with(sources))]);
        let outside = Outside { env: &|_| None, only_rules: false };
        load(&[place.path().to_owned()], &outside).unwrap_or_else(|found| panic!("{sources}\n{found}"));
    }
    check(
        &with("s: { bus: b, nats: { servers: \"nats://h\", subject: a.b } }"),
        "E0210",
        (2, 27),
        "buses.b.durability",
        &["no source of bus `b` reads a topic or a stream", "or write `durability: journal`"],
    );
    check(
        &with("s: { kafka: { brokers: h, topics: [t], group: g } }"),
        "E0210",
        (2, 27),
        "buses.b.durability",
        &["no source of bus `b` reads a topic or a stream"],
    );
    check(
        &with(
            "s: { bus: b, kafka: { brokers: h, topics: [t], group: g } }, o: { bus: b, kafka: { brokers: h, topics: [u], group: g } }",
        ),
        "E0210",
        (2, 27),
        "buses.b.durability",
        &["sources `o`, `s` of bus `b` read a broker each", "a target `bus: b`"],
    );
    check(
        &with("s: { bus: b, kafka: { brokers: h, topics: [t], group: g }, envelope: cloudevents }"),
        "E0210",
        (3, 81),
        "sources.s.envelope",
        &["what is written are events", "remove `envelope`"],
    );
    check(
        &with("s: { bus: b, kafka: { brokers: h, topics: [t, u], group: g } }"),
        "E0210",
        (3, 54),
        "sources.s.kafka.topics",
        &["bus `b` keeps its events here", "of 2 topics none is the one to write to"],
    );
    check(
        &with("s: { bus: b, kafka: { brokers: h, topics: [t], group: g, start: latest } }"),
        "E0210",
        (3, 76),
        "sources.s.kafka.start",
        &["would be skipped", "write `start: earliest`"],
    );
    check(
        &with("s: { bus: b, nats: { servers: \"nats://h\", stream: S, durable: d, subject: a.b, start: latest } }"),
        "E0210",
        (3, 98),
        "sources.s.nats.start",
        &["would be skipped", "write `start: earliest`"],
    );
    check(
        &with("s: { bus: b, nats: { servers: \"nats://h\", stream: S, durable: d } }"),
        "E0210",
        (3, 31),
        "sources.s.nats",
        &["no subject to publish to is named"],
    );
    check(
        &with("s: { bus: b, nats: { servers: \"nats://h\", stream: S, durable: d, subject: \"a.>\" } }"),
        "E0210",
        (3, 86),
        "sources.s.nats.subject",
        &["`a.>` is no one subject to publish to"],
    );
    check("buses: { b: { durability: broker } }", "E0210", (2, 27), "buses.b.durability", &["no source of bus `b`"]);
}

#[test]
fn every_problem_has_a_remedy() {
    let found = problems(&[(
        "c.yaml",
        "log: { level: \"a=b=c\" }\nworkers: x\nrulez: 1\nsources: { s: { stdin: {}, bus: no, envelope: { raw: { source: $., detail_type: t } } } }\n\
         targets: { t: { kafka: { brokers: b, topic: t, key: x } } }\nrules: { r: { pattern: { a: 1 }, targets: [{ target: t, input: '{' }] } }\n",
    )]);
    assert_eq!(found.0.len(), 8, "{found}");
    for problem in &found.0 {
        assert!(problem.help.is_some() && problem.at.is_some(), "{problem}");
    }
}

#[test]
fn pattern_faults_point_into_the_yaml() {
    let rule = |pattern: &str| format!("rules:\n  big:\n    pattern:\n{pattern}\n    targets: [out]\n");
    check(
        &rule("      detail:\n        total: [{ numeric: [\">=\", \"500\"] }]"),
        "E0213",
        (6, 35),
        "rules.big.pattern.detail.total[0].numeric[1]",
        &["Value of >= must be numeric"],
    );
    check(
        &rule("      detail: { a: [] }"),
        "E0213",
        (5, 20),
        "rules.big.pattern.detail.a",
        &["Empty arrays are not allowed"],
    );
    check(
        &rule("      detail: x"),
        "E0213",
        (5, 15),
        "rules.big.pattern.detail",
        &["\"detail\" must be an object or an array"],
    );
    check(
        &rule("      a: [{ prefx: x }]"),
        "E0213",
        (5, 13),
        "rules.big.pattern.a[0].prefx",
        &["Unrecognized match type prefx"],
    );
    // Of malformed JSON the service has words of its own.
    check(
        &rule("      '{\"a\": [1,]}'"),
        "E0213",
        (5, 17),
        "rules.big.pattern",
        &["the event pattern is not valid: unexpected character at byte 9"],
    );
    check(
        &rule("      a: [0x10]"),
        "E0104",
        (5, 11),
        "rules.big.pattern.a[0]",
        &["a number that JSON writes differently"],
    );
}

#[test]
fn all_problems_of_all_files_come_in_one_run() {
    let found = problems(&[
        (
            "a.yaml",
            "targets: { out: { stdout: {} } }\nrules: { r: { pattern: { a: [] }, targets: [gone] } }\nworkers: x\n",
        ),
        (
            "b.yaml",
            "rules: { r: { pattern: { a: [1] }, colour: red, targets: [out] } }\ntargets: { out: { log: { group: /x } } }\n",
        ),
        ("sub/c.yaml", "sources: [\n"),
        ("sub/d.test.yaml", "not: [ours"),
    ]);
    let mut codes: Vec<_> = found.0.iter().map(|problem| problem.code).collect();
    codes.sort_unstable();
    assert_eq!(codes, ["E0101", "E0103", "E0104", "E0202", "E0202", "E0207", "E0213"], "{found}");
    let shown = found.to_string();
    assert!(
        shown.contains("declared twice") && shown.contains("a.yaml:1") && shown.ends_with("7 problems found"),
        "{shown}"
    );
}

#[test]
fn loops_and_chained_queues_are_refused() {
    let text = "buses: { a: {}, b: {} }\ntargets: { a: { bus: a }, b: { bus: b } }\n\
        rules: { one: { bus: a, pattern: { x: [1] }, targets: [b] }, two: { bus: b, pattern: { x: [1] }, targets: [a] } }\n";
    let found = problems(&[("c.yaml", text)]);
    assert!(found.to_string().contains("in circles: b -> a -> b"), "{found}");
    let text = "targets: { a: { stdout: {}, dead_letter: b }, b: { stdout: {}, dead_letter: c }, c: { stdout: {} } }\n";
    assert!(problems(&[("c.yaml", text)]).to_string().contains("takes dead letters and has a `dead_letter` itself"));
    let text = "targets: { a: { stdout: {}, dead_letter: b }, b: { bus: default } }\n";
    assert!(problems(&[("c.yaml", text)]).to_string().contains("is a bus and cannot take dead letters"));
    let nats = |more: &str| {
        let text = format!(
            "targets: {{ a: {{ stdout: {{}}, dead_letter: b }}, b: {{ nats: {{ servers: nats://n, {more} }} }} }}\n\
            sources: {{ s: {{ stdin: {{}}, dead_letter: b }} }}\n"
        );
        problems(&[("c.yaml", &text)])
    };
    for (more, part) in [
        ("subject: dead, jetstream: false", "is core NATS, which keeps nothing, and cannot take dead letters"),
        (
            "subject: \"dead.{$.source}\", jetstream: true",
            "has a subject with values of the event and cannot take dead letters",
        ),
    ] {
        let found = nats(more);
        assert_eq!(found.0.len(), 2, "{found}");
        assert!(found.0.iter().all(|problem| problem.to_string().contains(part)), "{found}");
    }
}

#[test]
fn values_come_from_outside_but_not_into_patterns() {
    let text = "workers: \"${env:SET}\"\nlog: { level: \"${env:NONE:-warn}\" }\n\
        rules: { r: { pattern: { a: [\"${env:SET}\"], n: [007x, no, 1e400, ~] } } }\n";
    let place = Place::new(&[("c.yaml", text)]);
    let env = |name: &str| (name == "SET").then(|| "7".to_owned());
    let loaded = load(&[place.path().join("c.yaml")], &Outside { env: &env, only_rules: false }).expect("a valid file");
    assert_eq!((loaded.config.workers, loaded.config.log.level.as_str()), (7, "warn"));
    assert_eq!(loaded.config.rules["r"].pattern.0, "{\"a\":[\"${env:SET}\"],\"n\":[\"007x\",\"no\",1e400,null]}");
}

#[test]
fn printing_masks_secrets_and_reads_back() {
    let text = "sources: { s: { kafka: { brokers: b, topics: [t], group: g, sasl: { username: u, password: canary-1 }, \
        properties: { ssl.key.password: canary-2 } } } }\n";
    let place = Place::new(&[("c.yaml", text)]);
    for arguments in [&["config", "print", "-c", "c.yaml"][..], &["config", "print", "--json", "-c", "c.yaml"]] {
        let said = place.run(arguments, "");
        assert_eq!(said.code, Some(0), "{}", said.err);
        assert!(said.out.contains("***") && !said.out.contains("canary"), "{}", said.out);
        place.write("again.yaml", &said.out);
        let again = place.run(&["validate", "-c", "again.yaml"], "");
        assert_eq!(again.code, Some(0), "{}\n{}", said.out, again.err);
    }
}

/// The schema that the starters name is the one that the types give.
#[test]
fn the_schema_is_current() {
    let said = Place::new(&[]).run(&["config", "schema"], "");
    let kept =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/sluice.schema.json")).expect("a file");
    assert!(said.out == kept, "run: sluice config schema > config/sluice.schema.json");
}

#[test]
fn every_file_in_config_is_valid() {
    let top = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/config"));
    // What the examples take from outside: secrets, and nothing else without a default.
    let env = |name: &str| match name {
        "ZENDESK_SECRET" | "PAGERDUTY_SECRET" => Some("a-secret-of-thirty-two-characters".to_owned()),
        _ => std::env::var(name).ok(),
    };
    let files = [
        "demo.yaml",
        "stream",
        "pipe",
        "endpoint",
        "sidecar",
        "nats",
        "webhooks/zendesk.yaml",
        "webhooks/pagerduty.yaml",
    ];
    for path in files {
        load(&[top.join(path)], &Outside { env: &env, only_rules: false })
            .unwrap_or_else(|problems| panic!("{path}: {problems}"));
    }
}

/// Services of AWS and functions.
#[test]
#[expect(clippy::too_many_lines, reason = "rows")]
fn services_and_functions_are_checked() {
    let aws = "aws: { access_key_id: a, secret_access_key: b }\n";
    let target = |arn: &str, more: &str| format!("targets: {{ q: {{ aws: {{ arn: \"{arn}\"{more} }} }} }}\n");
    let queue = "arn:aws:sqs:eu-west-1:123456789012:orders";
    for good in [
        format!("{aws}{}", target(queue, "")),
        format!("{aws}{}", target(&format!("{queue}.fifo"), ", message_group_id: g")),
        "functions: { F: { url: \"http://localhost:1/f\", on_success: { bus: made-by-callers } } }\n\
         rules: { r: { pattern: { a: [1] }, targets: [F] } }"
            .to_owned(),
    ] {
        let place = Place::new(&[("c.yaml", &good)]);
        let outside = Outside { env: &|_| None, only_rules: false };
        load(&[place.path().to_owned()], &outside).unwrap_or_else(|found| panic!("{good}\n{found}"));
    }
    let rows: [(String, &str, &str, &[&str]); 12] = [
        (
            "catalog_key: c2hvcnQ=".to_owned(),
            "E0201",
            "catalog_key",
            &["the key is not 32 bytes in base64", "openssl rand -base64 32"],
        ),
        (
            "functions: { F: { url: \"http://h/\", on_success: { target: F } } }".to_owned(),
            "E0208",
            "functions.F.on_success.target",
            &["function `F` has destinations itself", "could lead in a circle"],
        ),
        (
            "functions: { F: { url: \"http://h/\", on_failure: { target: nowhere } } }".to_owned(),
            "E0207",
            "functions.F.on_failure.target",
            &["target `nowhere` is not declared"],
        ),
        (target(queue, ""), "E0207", "targets.q.aws", &["nothing says how AWS is reached", "set `aws:"]),
        (
            format!("{aws}{}", target("arn:aws:ec2:r:1:x", "")),
            "E0205",
            "targets.q.aws.arn",
            &["of no service", "sqs, sns"],
        ),
        (
            format!("{aws}{}", target("arn:aws:kinesis:eu-west-1:123456789012:orders", "")),
            "E0205",
            "targets.q.aws.arn",
            &["names nothing that takes events"],
        ),
        (
            format!("{aws}{}", target(&format!("{queue}.fifo"), "")),
            "E0201",
            "targets.q.aws",
            &["set `message_group_id`"],
        ),
        (
            format!("{aws}{}", target("arn:aws:kinesis:eu-west-1:123456789012:stream/s", ", partition_key: a")),
            "E0205",
            "targets.q.aws.partition_key",
            &["write a path as $.detail.orderId"],
        ),
        (
            "aws: { access_key_id: a, secret_access_key: b, endpoint: localhost }".to_owned(),
            "E0201",
            "aws.endpoint",
            &["not an http or https address", "http://localhost:5000"],
        ),
        (
            "aws: { access_key_id: a, secret_access_key: b, endpoints: { ec2: \"http://h\" } }".to_owned(),
            "E0201",
            "aws.endpoints.ec2",
            &["nothing is sent to a service `ec2`"],
        ),
        (
            "aws: { access_key_id: \"\", secret_access_key: b }".to_owned(),
            "E0201",
            "aws.access_key_id",
            &["the access key is empty"],
        ),
        (
            "functions: { F: { url: \"http://h/\" } }\ntargets: { F: { stdout: {} } }".to_owned(),
            "E0202",
            "functions.F",
            &["is declared under `targets` too", "rename one of them"],
        ),
    ];
    for (text, code, path, parts) in rows {
        let place = Place::new(&[("c.yaml", &text)]);
        let outside = Outside { env: &|_| None, only_rules: false };
        let found = load(&[place.path().to_owned()], &outside).expect_err(&text).to_string();
        for part in [&[code, path], parts].concat() {
            assert!(found.contains(part), "{text}\n{part}\n{found}");
        }
    }
}

//! The native API, and the verbs that speak it.

use crate::process::{Guard, Place, exchange, free_address, get, until};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

/// A process that routes lines, with its admin address.
struct Running {
    place: Place,
    admin: String,
    child: Guard,
    sent: u64,
}

impl Running {
    fn start() -> Self {
        let admin = free_address();
        let config = format!(
            "data_dir: data\nserver: {{ listen: \"off\", admin: \"{admin}\", allow_reset: true }}\nbuses: {{ a/b: {{}} }}\n\
             sources: {{ in: {{ stdin: {{}}, bus: a/b }} }}\ntargets: {{ log: {{ log: {{ group: all }} }}, gone: {{ stdout: {{}} }} }}\n\
             rules:\n  big: {{ bus: a/b, description: big ones, owner: pay, pattern: {{ detail: {{ n: [{{ numeric: [\">\", 5] }}] }} }}, targets: [log] }}\n\
             \x20 odd: {{ bus: a/b, state: disabled, pattern: '{{\"detail\":{{\"odd\":[true]}}}}', targets: [log] }}\n\
             archives: {{ week: {{ bus: a/b, pattern: {{ source: [never] }} }} }}\n"
        );
        let place = Place::new(&[("c.yaml", &config)]);
        let child = Guard(place.command(&["run", "-c", "c.yaml"]).spawn().expect("a process"));
        until("it has started", || get(&admin, "/startupz").is_some_and(|(status, _)| status.contains("200")));
        Self { place, admin, child, sent: 0 }
    }

    /// Sends an event; the largest number stands for a line that is none.
    fn send(&mut self, n: u64) {
        let stdin = self.child.0.stdin.as_mut().expect("a pipe");
        if n == u64::MAX {
            return writeln!(stdin, "no event").expect("a line");
        }
        self.sent += 1;
        writeln!(stdin, "{{\"source\":\"s\",\"detail\":{{\"n\":{n},\"odd\":{}}}}}", n % 2 == 1).expect("a line");
    }

    fn sluice(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let url = format!("http://{}", self.admin);
        let said = self.place.run(&[arguments, &["--admin-url", &url]].concat(), "");
        (said.code, said.out, said.err)
    }

    /// Lines of the log group.
    fn lines(&self) -> usize {
        let files = std::fs::read_dir(self.place.path().join("data/logs/all")).into_iter().flatten().flatten();
        files.map(|file| std::fs::read_to_string(file.path()).expect("text").lines().count()).sum()
    }
}

#[test]
fn the_document_names_every_route() {
    let document: Value = serde_json::from_str(include_str!("../../config/openapi.json")).expect("JSON");
    let methods = ["get", "put", "post", "delete", "patch"];
    let mut said: Vec<(String, String)> = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        let item = item.as_object().expect("an item");
        said.extend(
            item.keys().filter(|key| methods.contains(&key.as_str())).map(|method| (path.clone(), method.clone())),
        );
    }
    said.sort();
    let mut routes: Vec<(String, String)> =
        sluice::api::routes().iter().map(|(path, method, _)| ((*path).to_owned(), (*method).to_owned())).collect();
    routes.sort();
    assert_eq!(said, routes);
    let running = Running::start();
    let from_a_page = [("Origin", "http://elsewhere.example"), ("Content-Type", "text/plain")];
    let (status, _, text) = exchange(&running.admin, "POST /api/v1/reset", &from_a_page, b"").expect("an answer");
    assert_eq!(status, 403, "{text}");
    for (path, method) in routes {
        let path = path.replace("{bus}", "a%2Fb").replace("{rule}", "big").replace("{job}", "1");
        let path = path.replace("{archive}", "week").replace("{replay}", "p");
        if path.ends_with("/tap") {
            continue;
        }
        let request = format!("{} {path}", method.to_ascii_uppercase());
        let json = ("Content-Type", "application/json");
        let body = match (&*method, &*path) {
            ("post", "/api/v1/replays") => r#"{"archive":"week","name":"p"}"#,
            ("post", "/api/v1/archives/week/events") => "",
            ("post", _) => r#"{"all":true}"#,
            _ => r#"{"state":"shadow"}"#,
        };
        let (status, _, text) = exchange(&running.admin, &request, &[json], body.as_bytes()).expect("an answer");
        // A replay of nothing has ended before it is cancelled.
        assert!(status == 200 || (status == 409 && path.ends_with("/cancel")), "{request}: {status} {text}");
        assert_eq!(exchange(&running.admin, &format!("PATCH {path}"), &[], b"").expect("an answer").0, 405);
    }
    let (_, served) = get(&running.admin, "/api/v1/openapi.json").expect("an answer");
    assert_eq!(serde_json::from_str::<Value>(&served).expect("JSON"), document);
}

#[test]
fn rules_are_listed_shown_counted_and_switched() {
    let mut running = Running::start();
    let (_, listed, _) = running.sluice(&["rules", "ls"]);
    assert!(listed.contains("a/b") && listed.contains("big") && listed.contains("disabled"), "{listed}");
    let (_, shown, _) = running.sluice(&["rules", "show", "big"]);
    for part in ["big ones", "pay", "log", "\"numeric\""] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    (0..10).for_each(|n| running.send(n));
    until("four are big", || running.lines() == 4);
    let (_, said, _) = running.sluice(&["rules", "enable", "odd", "--bus", "a/b"]);
    assert_eq!(said, "odd is enabled until the process ends; its file says otherwise\n");
    running.send(1);
    until("an odd one", || running.lines() == 5);
    running.sluice(&["rules", "shadow", "big"]);
    running.send(8);
    running.send(3);
    until("the shadow delivers nothing", || running.lines() == 6);
    let (_, counted, _) = running.sluice(&["rules", "stats", "-o", "json"]);
    let counted: Value = serde_json::from_str(&counted).expect("JSON");
    let matches = |name: &str| {
        let rules = counted.as_array().expect("a list");
        rules.iter().find(|rule| rule["name"] == name).expect("the rule")["matches"].as_u64()
    };
    assert_eq!((matches("big"), matches("odd")), (Some(5), Some(2)));
    // A reload keeps what was said; a reset takes it back.
    let config = std::fs::read_to_string(running.place.path().join("c.yaml")).expect("text");
    running.place.write("c.yaml", &config.replace("big ones", "really big ones"));
    until("the file is read again", || running.sluice(&["rules", "show", "big"]).1.contains("really big ones"));
    assert!(running.sluice(&["rules", "show", "big"]).1.contains("shadow (set while running)"));
    assert_eq!(running.sluice(&["rules", "reset", "big"]).1, "big is enabled\n");
    let (code, _, err) = running.sluice(&["rules", "disable", "nothing"]);
    assert!(code == Some(1) && err.contains("there is no rule nothing"), "{err}");
    let (status, _, text) =
        exchange(&running.admin, "PUT /api/v1/rules/a%2Fb/big/state", &[], b"{\"state\":\"off\"}").expect("an answer");
    assert!(status == 400 && text.contains("enabled"), "{text}");
    let (_, top, _) = running.sluice(&["top", "-n", "1"]);
    assert!(top.contains("source") && top.contains("a/b") && top.contains("log"), "{top}");
    assert_eq!(running.sluice(&["health"]), (Some(0), "ready\n".into(), String::new()));
}

#[test]
fn tap_shows_each_stage_through_a_pattern() {
    let mut running = Running::start();
    let url = format!("http://{}", running.admin);
    let rows: [(&[&str], u64, &str); 7] = [
        (&["a/b", "--limit", "1"], 3, "{\"source\":\"s\",\"detail\":{\"n\":3,\"odd\":true}}"),
        (&["--rule", "big", "--limit", "1"], 7, "\"n\":7"),
        (&["--stage", "matched", "--rule", "big", "--limit", "1"], 7, "\"n\":7"),
        (&["--stage", "dead", "--long", "--limit", "1"], u64::MAX, "\"error\":\"INVALID_EVENT: "),
        (
            &[
                "--stage",
                "matched",
                "--pattern",
                "{\"detail\":{\"n\":[8]}}",
                "--number-matching",
                "text",
                "--limit",
                "1",
            ],
            8,
            "\"n\":8",
        ),
        (&["--stage", "unmatched", "--pattern", "{\"detail\":{\"n\":[4]}}", "--limit", "1"], 4, "\"n\":4"),
        (&["--stage", "delivered", "--long", "--limit", "1"], 9, "\"target\":\"log\""),
    ];
    for (arguments, n, part) in rows {
        let mut tap = running.place.command(&[&["tap"], arguments, &["--admin-url", &url]].concat());
        let mut tap = Guard(tap.stdout(Stdio::piped()).spawn().expect("a process"));
        let mut out = BufReader::new(tap.0.stdout.take().expect("a pipe"));
        let (line_out, line) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            let mut line = String::new();
            out.read_line(&mut line).expect("a line");
            line_out.send(line).expect("a listener");
        });
        // The watcher may not have arrived when the first event passes.
        let mut seen = None;
        until("it is seen", || {
            running.send(n);
            seen = line.recv_timeout(std::time::Duration::from_millis(50)).ok();
            seen.is_some()
        });
        reader.join().expect("a reader");
        let seen = seen.expect("a line");
        assert!(seen.contains(part), "{arguments:?}: {seen}");
        assert_eq!(tap.0.wait().expect("a status").code(), Some(0), "{arguments:?}: ends at its limit");
    }
    let refused = [
        ("stage=x", "no stage"),
        ("bus=x", "bus x does not exist"),
        ("rule=x", "rule x does not exist"),
        ("bus=default&rule=big", "rule big does not exist"),
        ("stage=ingress&rule=big", "no rule has matched"),
        ("pattern=%7B", "not valid"),
        ("rate=x", "rate"),
        ("number_matching=x", "`value` or `text`"),
    ];
    for (query, part) in refused {
        let (status, body) = get(&running.admin, &format!("/api/v1/tap?{query}")).expect("an answer");
        assert!(status.contains("400") && body.contains(part), "{query}: {status} {body}");
    }
}

/// Whoever reads slowly sees less and is told how much less; the stream goes on.
#[test]
fn tap_counts_what_it_does_not_show() {
    let mut running = Running::start();
    let mut stream = std::net::TcpStream::connect(&running.admin).expect("a connection");
    write!(stream, "GET /api/v1/tap?rate=1/s HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
    let (skipped_out, skipped) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let lines = BufReader::new(stream).lines().map(|line| line.expect("a line"));
        let seen = lines.filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok());
        let counted = seen.map(|seen| seen["skipped"].as_u64().expect("a count"));
        skipped_out.send(counted.take(3).collect::<Vec<_>>()).expect("a listener");
    });
    // Those shown say how many were not since the one before.
    let mut sent = 0;
    let mut counts = Vec::new();
    until("three are shown", || {
        (0..100).for_each(|_| running.send(6));
        sent += 100;
        skipped.recv_timeout(std::time::Duration::from_millis(20)).is_ok_and(|seen| {
            counts = seen;
            true
        })
    });
    reader.join().expect("a reader");
    assert!(counts[1] > 0 && counts[2] > 0 && counts.iter().sum::<u64>() < sent, "{counts:?} of {sent}");
    until("all are routed", || running.lines() as u64 == sent);
}

/// What `explain --live` says, with an event sent again and again until it ends by itself.
fn live(running: &mut Running, arguments: &[&str], n: u64) -> (Option<i32>, String, String) {
    let url = format!("http://{}", running.admin);
    until("what was sent before has passed", || {
        let (_, stats) = get(&running.admin, "/api/v1/stats").expect("an answer");
        let stats: Value = serde_json::from_str(&stats).expect("JSON");
        let buses = stats["buses"].as_array().expect("a list");
        let count = |name: &str| buses.iter().filter_map(|bus| bus[name].as_u64()).sum::<u64>();
        count("matched") + count("unmatched") == running.sent
    });
    let mut command = running.place.command(&[&["explain", "--live"], arguments, &["--admin-url", &url]].concat());
    let mut child = Guard(command.spawn().expect("a process"));
    until("it has ended", || {
        running.send(n);
        child.0.try_wait().expect("a status").is_some()
    });
    let (mut out, mut err) = (String::new(), String::new());
    child.0.stdout.take().expect("a pipe").read_to_string(&mut out).expect("text");
    child.0.stderr.take().expect("a pipe").read_to_string(&mut err).expect("text");
    (child.0.wait().expect("a status").code(), out, err)
}

#[test]
fn explain_tells_of_live_events() {
    let mut running = Running::start();
    let mine = "buses: { a/b: { number_matching: text } }\ntargets: { out: { stdout: {} } }\n\
                rules: { mine: { bus: a/b, pattern: { detail: { n: [2.0] } }, targets: [out] } }\n";
    running.place.write("mine.yaml", mine);
    let one = ["--limit", "1"];
    let rows: [(&[&str], u64, &[&str]); 8] = [
        (
            &["--rule", "big"],
            3,
            &[
                "event on bus a/b: {\"source\":\"s\",\"detail\":{\"n\":3,\"odd\":true}}\n\
                 rule big on bus a/b does not match: 1 of 1 condition in the way\n",
                "  FAIL detail.n {\"numeric\":[\">\",5]}\n         3 (not in that range)\n",
            ],
        ),
        (&["--rule", "big", "--stage", "matched"], 7, &["\"n\":7", "rule big on bus a/b matches\n"]),
        (&["--rule", "big", "--stage", "ingress"], 9, &["\"n\":9", "rule big on bus a/b matches\n"]),
        (&["--bus", "a/b"], 4, &["rule big on bus a/b does", "rule odd on bus a/b (disabled) does not match"]),
        // What only a rule that rests matches goes nowhere.
        (&[], 5, &["rule odd on bus a/b (disabled) matches\n", "rule big on bus a/b does not"]),
        (&["-c", "mine.yaml"], 2, &["rule mine on bus a/b does not match", "2 (the same number, spelled differently"]),
        (
            &["--pattern", "{\"detail\":{\"n\":[2.0,3]}}", "--number-matching", "text"],
            2,
            &["the pattern does not match", "2 (the same number, spelled differently"],
        ),
        (
            &["--rule", "big", "-o", "json"],
            1,
            &[
                "{\"bus\":\"a/b\",\"rules\":[{\"rule\":\"big\",",
                "\"verdict\":\"rejected\"",
                ",\"event\":{\"source\":\"s\",\"detail\":{\"n\":1,\"odd\":true}}}\n",
            ],
        ),
    ];
    for (arguments, n, parts) in rows {
        let (code, out, err) = live(&mut running, &[arguments, &one].concat(), n);
        assert_eq!(code, Some(0), "{arguments:?}: {err}");
        for part in parts {
            assert!(out.contains(part), "{arguments:?}: `{part}` is not in\n{out}");
        }
    }
    let refused: [(&[&str], i32, &str); 4] = [
        (&["--rule", "gone"], 1, "there is no rule gone; `sluice rules ls` lists them"),
        (&["--bus", "gone"], 78, "bus gone does not exist"),
        (&["--rate", "x"], 78, "rate"),
        (&["--event", "{}"], 2, "leave out --event"),
    ];
    for (arguments, code, part) in refused {
        let said = live(&mut running, arguments, 1);
        assert!(said.0 == Some(code) && said.2.contains(part), "{arguments:?}: {said:?}");
    }
    assert_eq!(live(&mut running, &["--for", "10ms"], 9).0, Some(0));
}

/// Events deeper than serde_json reads; what the rate leaves out; a rule that changes meanwhile; an interrupt.
#[test]
fn explain_goes_on_until_it_is_interrupted() {
    let mut running = Running::start();
    let url = format!("http://{}", running.admin);
    let arguments = ["explain", "--live", "--rule", "big", "-o", "json", "--rate", "20/s", "--admin-url", &url];
    let mut child = Guard(running.place.command(&arguments).spawn().expect("a process"));
    let out = BufReader::new(child.0.stdout.take().expect("a pipe"));
    let (lines_out, lines) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in out.lines() {
            lines_out.send(line.expect("a line")).expect("a listener");
        }
    });
    let seen = |running: &mut Running, what: &str, part: &str| {
        until(what, || {
            for _ in 0..50 {
                let stdin = running.child.0.stdin.as_mut().expect("a pipe");
                let deep = format!("{}1{}", "[".repeat(500), "]".repeat(500));
                writeln!(stdin, "{{\"detail\":{{\"n\":3,\"deep\":{deep}}}}}").expect("a line");
            }
            lines.try_iter().any(|line| line.contains("[[[[1]]]]") && line.contains(part))
        });
    };
    seen(&mut running, "it is explained", "\"tests\":[\"{\\\"numeric\\\":[\\\">\\\",5]}\"]");
    let config = std::fs::read_to_string(running.place.path().join("c.yaml")).expect("text");
    running.place.write("c.yaml", &config.replace("[\">\", 5]", "[\">\", 4]"));
    seen(&mut running, "the new rule is", "[\\\">\\\",4]");
    child.signal("-INT");
    assert_eq!(child.0.wait().expect("a status").code(), Some(0));
    reader.join().expect("a reader");
    let mut err = String::new();
    child.0.stderr.take().expect("a pipe").read_to_string(&mut err).expect("text");
    assert!(err.contains("further events were not looked at (--rate)"), "{err}");
}

/// One of ten thousand rules is switched while the workers are as busy as they can be: what the caller waits for, and the
/// longest pause between two events that come out meanwhile.
#[test]
fn one_of_ten_thousand_rules_changes_under_load() {
    let admin = free_address();
    let rules: String = (0..9_999)
        .map(|n| {
            format!("  r{n}: {{ pattern: {{ detail: {{ kind: [k{}], id: [i{n}] }} }}, targets: [out] }}\n", n % 50)
        })
        .collect();
    let config = format!(
        "data_dir: data\nserver: {{ listen: \"off\", admin: \"{admin}\" }}\nsources: {{ in: {{ stdin: {{}} }} }}\n\
         targets: {{ out: {{ stdout: {{}} }} }}\nrules:\n{rules}  hit: {{ pattern: {{ source: [s] }}, targets: [out] }}\n"
    );
    let place = Place::new(&[("c.yaml", &config)]);
    let mut child = Guard(place.command(&["run", "--no-watch", "-c", "c.yaml"]).spawn().expect("a process"));
    until("it has started", || get(&admin, "/startupz").is_some_and(|(status, _)| status.contains("200")));
    let mut stdin = child.0.stdin.take().expect("a pipe");
    let piece = "{\"source\":\"s\",\"detail\":{\"kind\":\"k1\",\"id\":\"none\"}}\n".repeat(1000);
    let feed = std::thread::spawn(move || while stdin.write_all(piece.as_bytes()).is_ok() {});
    let mut stdout = child.0.stdout.take().expect("a pipe");
    let (count, pauses) = (std::sync::atomic::AtomicU64::new(0), std::sync::Mutex::new(Vec::new()));
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut bytes, mut last) = (vec![0; 1 << 16], std::time::Instant::now());
            while let Ok(read @ 1..) = stdout.read(&mut bytes) {
                let lines = bytes[..read].iter().filter(|&&b| b == b'\n').count() as u64;
                count.fetch_add(lines, relaxed);
                pauses.lock().expect("a list").push(std::mem::replace(&mut last, std::time::Instant::now()).elapsed());
            }
        });
        until("it is busy", || count.load(relaxed) > 10_000);
        let set = |rule: &str, state: &str| {
            let begin = std::time::Instant::now();
            let body = format!("{{\"state\":\"{state}\"}}");
            let headers = [("Content-Type", "application/json")];
            let path = format!("PUT /api/v1/rules/default/{rule}/state");
            let said = exchange(&admin, &path, &headers, body.as_bytes());
            assert_eq!(said.expect("an answer").0, 200);
            begin.elapsed().as_secs_f64() * 1e3
        };
        pauses.lock().expect("a list").clear();
        let mut took: Vec<f64> = (0..20).map(|n| set("r7", if n % 2 == 0 { "disabled" } else { "enabled" })).collect();
        let longest = pauses.lock().expect("a list").iter().max().map_or(0.0, |pause| pause.as_secs_f64() * 1e3);
        took.sort_by(f64::total_cmp);
        let (least, median, most) = (took[0], took[10], took[19]);
        println!(
            "{{\"scenario\":\"change_under_load\",\"rules\":10000,\"changes\":20,\"millis\":[{least:.1},{median:.1},{most:.1}],\"longest_pause_millis\":{longest:.1}}}"
        );
        assert!(median < 2000.0, "{took:?}");
        // The rule that all events match goes, and with it all output, while events go on.
        set("hit", "disabled");
        let unmatched = || {
            let (_, text) = get(&admin, "/metrics").expect("metrics");
            let line = text.lines().find(|line| line.contains("bus_events_total") && line.contains("unmatched"));
            line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or(0.0)
        };
        until("nothing comes out any more", || {
            let (begin, before) = (count.load(relaxed), unmatched());
            until("events go on", || unmatched() > before + 10_000.0);
            count.load(relaxed) == begin
        });
        drop(child);
    });
    feed.join().expect("a feeder");
}

#[test]
fn the_api_is_for_this_machine_and_for_who_has_a_token() {
    let running = Running::start();
    let ask = |host: &str| exchange(&running.admin, "GET /api/v1/rules", &[("Host", host)], b"").expect("an answer").0;
    assert_eq!((ask("localhost:4567"), ask("127.0.0.1"), ask("evil.example")), (200, 200, 403));
    assert_eq!(exchange(&running.admin, "GET /metrics", &[("Host", "evil.example")], b"").expect("an answer").0, 200);
    let (code, _, err) = running.place.run(&["rules", "ls", "--admin-url", "http://127.0.0.1:9"], "").into_parts();
    assert!(code == Some(69) && err.contains("no answer from"), "{err}");
}

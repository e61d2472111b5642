//! The command line, end to end, without brokers.

use crate::process::{Guard, Place, free_address, get, until};
use std::io::{BufRead, BufReader, Write};

const PIPE: &str = "data_dir: data\nserver: { listen: \"off\", admin: \"off\" }\nsources: { in: { stdin: {} } }\ntargets: { out: { stdout: {} } }\n\
                    rules: { r: { pattern: { detail: { n: [{ numeric: [\">\", 1] }] } }, targets: [out] } }\n";

#[test]
fn lines_flow_through_a_pipe() {
    let place = Place::new(&[("c.yaml", PIPE)]);
    let input = "{\"detail\":{\"n\":1}}\n{\"detail\": {\"n\":2}}\n\n{\"detail\":{\"n\":3.0}}";
    let said = place.run(&["run", "-c", "c.yaml"], input);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let mut lines: Vec<_> = said.out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["{\"detail\": {\"n\":2}}", "{\"detail\":{\"n\":3.0}}"], "byte for byte");
}

#[test]
fn a_single_event_does_not_wait() {
    let place = Place::new(&[("c.yaml", PIPE)]);
    let mut child = Guard(place.command(&["run", "-c", "c.yaml"]).spawn().expect("a process"));
    let mut stdin = child.0.stdin.take().expect("a pipe");
    let mut stdout = BufReader::new(child.0.stdout.take().expect("a pipe"));
    for n in 2..5 {
        writeln!(stdin, "{{\"detail\":{{\"n\":{n}}}}}").expect("a line");
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a line");
        assert_eq!(line, format!("{{\"detail\":{{\"n\":{n}}}}}\n"));
    }
}

#[test]
fn invalid_events_are_kept_dropped_or_fatal() {
    let with = |policy: &str| PIPE.replace("stdin: {}", &format!("stdin: {{}}, on_invalid: {policy}"));
    let input = "{\"detail\":{\"n\":2}}\nbroken\n";
    let letters = |place: &Place| -> Vec<String> {
        let folder = place.path().join("data/dead-letters/default");
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        files
            .flat_map(|file| {
                std::fs::read_to_string(file.path()).expect("text").lines().map(str::to_owned).collect::<Vec<_>>()
            })
            .collect()
    };
    let place = Place::new(&[("c.yaml", &with("dead_letter"))]);
    assert_eq!(place.run(&["run", "-c", "c.yaml"], input).code, Some(0));
    let kept = letters(&place);
    let letter: serde_json::Value = serde_json::from_str(&kept[0]).expect("JSON");
    assert_eq!((letter["event"].as_str(), letter["ERROR_CODE"].as_str()), (Some("broken"), Some("INVALID_EVENT")));
    let position = letter["sluice-position"].as_str().expect("a position");
    assert!(position.starts_with("stdin-") && position.ends_with("/0/1"), "{position}");

    let place = Place::new(&[("c.yaml", &with("drop"))]);
    assert_eq!(place.run(&["run", "-c", "c.yaml"], input).code, Some(0));
    assert_eq!(letters(&place).len(), 0);

    let place = Place::new(&[("c.yaml", &with("fail"))]);
    let mut child =
        Guard(place.command(&["run", "-c", "c.yaml", "--drain-timeout", "200ms"]).spawn().expect("a process"));
    child.0.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("lines");
    assert_eq!(child.0.wait().expect("an end").code(), Some(74));
}

#[test]
fn buses_chain_and_inputs_apply() {
    let config = "data_dir: data\nserver: { listen: \"off\", admin: \"off\" }\nbuses: { first: {}, second: {} }\n\
        sources: { in: { bus: first, stdin: {} } }\n\
        targets: { on: { bus: second }, out: { stdout: {} } }\n\
        rules:\n  forward: { bus: first, pattern: { source: [a] }, targets: [on] }\n  \
        shadow: { bus: first, state: shadow, pattern: { source: [a] }, targets: [out] }\n  \
        resting: { bus: first, state: disabled, pattern: { source: [a] }, targets: [out] }\n  \
        take:\n    bus: second\n    pattern: { source: [a] }\n    targets:\n      - { target: out, input_path: $.detail }\n      \
        - { target: out, input: { constant: 1.50 } }\n      - { target: out, input_path: $.missing }\n";
    let place = Place::new(&[("c.yaml", config)]);
    let said = place.run(&["run", "-c", "c.yaml"], "{\"source\":\"a\",\"detail\":{\"x\":1e2}}\n");
    assert_eq!(said.code, Some(0), "{}", said.err);
    let mut lines: Vec<_> = said.out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["{\"constant\":1.50}", "{\"x\":1e2}"]);
    let letters = std::fs::read_dir(place.path().join("data/dead-letters/first")).expect("a queue").flatten();
    let letters: String = letters.map(|file| std::fs::read_to_string(file.path()).expect("text")).collect();
    assert!(
        letters.contains("input path $.missing selects nothing") && letters.contains("rule/second/take"),
        "{letters}"
    );
}

#[test]
fn a_second_process_on_one_data_directory_is_refused() {
    let place = Place::new(&[("c.yaml", PIPE)]);
    let first = Guard(place.command(&["run", "-c", "c.yaml"]).spawn().expect("a process"));
    until("the first process has its lock", || place.path().join("data/sluice.lock").exists());
    until("the second is refused", || {
        let said = place.run(&["run", "-c", "c.yaml"], "");
        said.code == Some(74) && said.err.contains("in use by another sluice")
    });
    drop(first);
    let said = place.run(&["run", "-c", "c.yaml"], "");
    assert_eq!(said.code, Some(0), "{}", said.err);
}

#[test]
fn health_metrics_and_reload() {
    let address = free_address();
    let config = PIPE.replace("admin: \"off\"", &format!("admin: \"{address}\""));
    let place = Place::new(&[("config/c.yaml", &config)]);
    let mut child =
        Guard(place.command(&["run", "-c", "config", "--drain-timeout", "10s"]).spawn().expect("a process"));
    let mut stdin = child.0.stdin.take().expect("a pipe");
    let status = |path: &str| get(&address, path).map(|(status, _)| status).unwrap_or_default();
    until("it is ready", || status("/readyz").contains("200"));
    for path in ["/livez", "/startupz", "/version", "/", "/health"] {
        assert!(status(path).contains("200"), "{path}");
    }
    let metric = |line: &str| get(&address, "/metrics").is_some_and(|(_, body)| body.contains(line));
    writeln!(stdin, "{{\"detail\":{{\"n\":5}}}}").expect("a line");
    until("the event is counted", || metric("sluice_bus_events_total{bus=\"default\",outcome=\"matched\"} 1"));
    until("its delivery is timed", || metric("sluice_event_age_seconds_count{target=\"out\"} 1"));
    assert!(metric("# EOF"));

    place.write("config/c.yaml", "rules: [");
    until("a broken file is reported", || metric("sluice_config_last_reload_successful{} 0"));
    place.write("config/c.yaml", &config.replace("numeric: [\">\", 1]", "numeric: [\">\", 100]"));
    until("the new rule serves", || metric("sluice_ruleset_generation{} 2"));
    writeln!(stdin, "{{\"detail\":{{\"n\":5}}}}").expect("a line");
    until("it no longer matches", || metric("outcome=\"unmatched\"} 1"));
    let begin = std::time::Instant::now();
    child.signal("-TERM");
    assert_eq!(child.0.wait().expect("an end").code(), Some(0));
    assert!(begin.elapsed().as_secs() < 3, "an idle input does not hold up the drain");
    drop(stdin);
}

/// A ConfigMap changes by swapping a symbolic link beside the files.
#[test]
fn a_swapped_link_is_a_change() {
    let address = free_address();
    let config = PIPE.replace("admin: \"off\"", &format!("admin: \"{address}\""));
    let place =
        Place::new(&[("v1/c.yaml", &config), ("v2/c.yaml", &config.replace("rules: { r:", "rules: { renamed:"))]);
    let mount = place.path().join("mount");
    std::fs::create_dir(&mount).expect("a folder");
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, mount.join(name)).expect("a link");
    link("../v1", "..data");
    link("..data/c.yaml", "c.yaml");
    let child = Guard(place.command(&["run", "-c", "mount"]).spawn().expect("a process"));
    until("it is ready", || get(&address, "/readyz").is_some_and(|(status, _)| status.contains("200")));
    link("../v2", "..new");
    std::fs::rename(mount.join("..new"), mount.join("..data")).expect("a swap");
    until("the new rules serve", || {
        get(&address, "/metrics").is_some_and(|(_, body)| body.contains("rule=\"renamed\""))
    });
    drop(child);
}

#[test]
fn demo_counts_what_it_sent() {
    let place = Place::new(&[]);
    let said = place.run(&["demo", "--for", "2s", "--rate", "3000", "--data-dir", "d"], "");
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    assert!(said.out.contains("every order is where it belongs"), "{}", said.out);
    let ls = place.run(&["logs", "ls", "--data-dir", "d"], "");
    assert_eq!(ls.out.lines().count(), 4, "{}", ls.out);
    let group = "/aws/events/orders";
    let all = place.run(&["logs", "search", group, "--data-dir", "d"], "").out.lines().count();
    assert!(all > 4000, "{all} lines");
    let pattern = "{\"detail\":{\"location\":[{\"prefix\":\"eu-\"}]}}";
    let eu = place.run(&["logs", "search", group, "--data-dir", "d", "--pattern", pattern], "").out.lines().count();
    let own = place.run(&["logs", "search", "/aws/events/eu-orders", "--data-dir", "d"], "").out.lines().count();
    assert_eq!(eu, own);
    let tail = place.run(&["logs", "tail", group, "-n", "3", "--data-dir", "d", "--since", "1h"], "");
    assert_eq!(tail.out.lines().count(), 3);
    let none = place.run(&["logs", "search", "/no/group", "--data-dir", "d"], "");
    assert_eq!(none.code, Some(74));
    assert!(none.err.contains("no log group /no/group") && none.err.contains("logs ls"), "{}", none.err);
}

#[test]
fn log_groups_are_searched_as_numbers_compare() {
    let place = Place::new(&[("data/logs/g/1.jsonl", "{\"a\":1.0}\n{\"a\":1}\n")]);
    for (how, lines) in [(&[][..], 2), (&["--number-matching", "text"], 1)] {
        let said = place.run(&[&["logs", "search", "/g", "--pattern", "{\"a\":[1]}"], how].concat(), "");
        assert_eq!((said.code, said.out.lines().count()), (Some(0), lines), "{}", said.err);
    }
}

/// Ctrl-C in the middle: the generator stops, what it made is routed, and the counts agree.
#[test]
fn demo_counts_after_an_interrupt() {
    let place = Place::new(&[]);
    let child = Guard(place.command(&["demo", "--rate", "5000", "--data-dir", "d"]).spawn().expect("a process"));
    until("orders are routed", || place.path().join("d/logs/aws/events/orders").exists());
    std::thread::sleep(std::time::Duration::from_millis(300));
    child.signal("-INT");
    let mut child = child;
    let mut out = String::new();
    std::io::Read::read_to_string(&mut child.0.stdout.take().expect("a pipe"), &mut out).expect("text");
    assert_eq!(child.0.wait().expect("an end").code(), Some(0), "{out}");
    assert!(out.contains("every order is where it belongs"), "{out}");
}

#[test]
fn a_closed_standard_output_ends_the_process() {
    let place = Place::new(&[("c.yaml", PIPE)]);
    let mut child = Guard(place.command(&["run", "-c", "c.yaml"]).spawn().expect("a process"));
    drop(child.0.stdout.take());
    let mut stdin = child.0.stdin.take().expect("a pipe");
    writeln!(stdin, "{{\"detail\":{{\"n\":5}}}}").expect("a line");
    assert_eq!(child.0.wait().expect("an end").code(), Some(74));
}

#[test]
fn starters_are_written_and_valid() {
    for kind in ["stream", "pipe"] {
        let place = Place::new(&[]);
        let said = place.run(&["config", "init", "--kind", kind, "new"], "");
        assert_eq!(said.code, Some(0), "{}", said.err);
        assert_eq!(place.run(&["validate", "-c", "new"], "").code, Some(0));
        let again = place.run(&["config", "init", "--kind", kind, "new"], "");
        assert_eq!(again.code, Some(74));
        assert!(again.err.contains("exists"), "{}", again.err);
    }
}

#[test]
fn usage_errors_are_two() {
    let place = Place::new(&[]);
    assert_eq!(place.run(&["nonsense"], "").code, Some(2));
    assert_eq!(place.run(&["run"], "").code, Some(2));
    let none = place.run(&["run", "-c", "missing.yaml"], "");
    assert_eq!(none.code, Some(78));
    assert!(none.err.contains("cannot read missing.yaml"), "{}", none.err);
    assert!(place.run(&["completions", "bash"], "").out.contains("_sluice"));
}

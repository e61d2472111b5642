//! `sluice archive` and `sluice replay`, against a running process.

use crate::process::{Guard, Place, free_address, get, until};
use serde_json::Value;

struct Running {
    place: Place,
    url: String,
    _child: Guard,
}

impl Running {
    fn start() -> Self {
        let (listen, admin) = (free_address(), free_address());
        let config = format!(
            "data_dir: data\nserver: {{ listen: \"{listen}\", admin: \"{admin}\" }}\nbuses: {{ orders: {{}} }}\n\
             targets: {{ seen: {{ log: {{ group: seen }} }}, other: {{ log: {{ group: other }} }} }}\n\
             rules:\n  again: {{ bus: orders, pattern: {{ replay-name: [{{ exists: true }}] }}, targets: [seen] }}\n\
             \x20 more: {{ bus: orders, pattern: {{ source: [{{ exists: true }}] }}, targets: [other] }}\n\
             archives: {{ week: {{ bus: orders, retention: 7d }}, none: {{}} }}\n"
        );
        let place = Place::new(&[("c.yaml", &config)]);
        let child = Guard(place.command(&["run", "-c", "c.yaml"]).spawn().expect("a process"));
        until("it has started", || get(&admin, "/startupz").is_some_and(|(status, _)| status.contains("200")));
        Self { place, url: format!("http://{admin}"), _child: child }
    }

    /// Runs a verb: its exit code, and what must be in its output and its errors.
    #[track_caller]
    fn check(&self, arguments: &[&str], input: &str, code: i32, out: &str, err: &str) -> String {
        let said = self.place.run(&[arguments, &["--admin-url", &self.url]].concat(), input);
        assert_eq!(said.code, Some(code), "{arguments:?}: {}{}", said.out, said.err);
        assert!(said.out.contains(out) && said.err.contains(err), "{arguments:?}: {}{}", said.out, said.err);
        said.out
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.check(arguments, "", 0, "", "")).expect("JSON")
    }

    fn lines(&self, group: &str) -> usize {
        let files = std::fs::read_dir(self.place.path().join("data/logs").join(group)).into_iter().flatten().flatten();
        files.map(|file| std::fs::read_to_string(file.path()).expect("text").lines().count()).sum()
    }
}

fn line(n: u32) -> String {
    format!(
        "{{\"id\":\"{n}\",\"detail-type\":\"t\",\"source\":\"s\",\"time\":\"2024-01-31T09:00:0{n}Z\",\"detail\":{{\"n\":{n}}}}}\n"
    )
}

#[test]
fn archives_go_out_and_in() {
    let running = Running::start();
    let lines = [line(3), "\n".to_owned(), line(1), line(2)].concat();
    running.check(&["archive", "ls"], "", 0, "week", "");
    running.check(&["archive", "import", "week"], &lines, 0, "3 events imported into week", "");
    running.place.write("bad.jsonl", &[line(4), "{\"id\":1}".to_owned()].concat());
    running.check(
        &["archive", "import", "week", "bad.jsonl"],
        "",
        78,
        "",
        "bad.jsonl:2: no event: `detail-type` is missing",
    );
    running.check(&["archive", "import", "week"], &line(5).replace("2024-", "24-"), 78, "", "-:1: `time` is no time");
    let large = line(6).replace("\"n\":", &format!("\"x\":\"{}\",\"n\":", "x".repeat(400_000)));
    let said = format!("-:2: the event has {} bytes, and the limit is {}", large.trim_end().len(), (256 + 64) << 10);
    running.check(&["archive", "import", "week"], &[line(7), large.clone()].concat(), 78, "", &said);
    let said = crate::process::exchange(
        &running.url["http://".len()..],
        "POST /api/v1/archives/week/events",
        &[],
        large.as_bytes(),
    );
    let (status, _, text) = said.expect("an answer");
    assert!(status == 400 && text.contains("line 1: the event has 400"), "{status} {text}");
    for verb in ["import", "export"] {
        running.check(&["archive", verb, "nope"], "", 1, "", "Archive nope does not exist.");
    }
    let out = running.check(&["archive", "export", "week"], "", 0, "", "");
    assert_eq!(out, [line(1), line(2), line(3)].concat(), "what is refused is not there");
    let range = ["archive", "export", "week", "--from", "2024-01-31T09:00:02Z", "--to", "2024-01-31T09:00:03Z"];
    assert_eq!(running.check(&range, "", 0, "", ""), line(2));
    running.check(&["archive", "export", "week", "--from", "then"], "", 78, "", "`then` is neither");
    let listed = running.json(&["archive", "ls", "--json"]);
    let week = listed.as_array().and_then(|all| all.iter().find(|archive| archive["name"] == "week")).expect("week");
    assert_eq!(
        (&week["events"], &week["bytes"], &week["retention_days"]),
        (&3.into(), &(3 * line(1).len()).into(), &7.into())
    );
    assert_eq!((running.lines("seen"), running.lines("other")), (0, 0), "no rule has seen them");
    let nobody = running.place.run(&["archive", "ls", "--admin-url", "http://127.0.0.1:9"], "");
    assert_eq!(nobody.code, Some(69), "{}", nobody.err);
}

#[test]
fn replays_are_started_listed_and_cancelled() {
    let running = Running::start();
    running.check(&["archive", "import", "week"], &[line(3), line(1), line(2)].concat(), 0, "", "");
    let only = ["replay", "start", "week", "--name", "p", "--rule", "again", "--from", "2024-01-31T09:00:02Z"];
    running.check(&only, "", 0, "p is COMPLETED, 2 events sent", "p: STARTING, 0 of");
    until("its rule has seen them", || running.lines("seen") == 2);
    running.check(&only, "", 1, "", "Replay p already exists.");
    let all = running.json(&["replay", "start", "week", "--json"]);
    assert_eq!((&all["state"], &all["sent"], &all["expected"]), (&"COMPLETED".into(), &3.into(), &3.into()));
    until("every rule has seen them", || running.lines("seen") == 5 && running.lines("other") == 3);
    running.check(
        &["replay", "start", "week", "--rule", "nope"],
        "",
        1,
        "",
        "Rule nope does not exist on EventBus orders.",
    );
    running.check(&["replay", "start", "nope"], "", 1, "", "Archive nope does not exist.");
    running.check(&["replay", "start", "week", "--name", "a/b"], "", 78, "", "replayName");
    let none = ["replay", "start", "week", "--from", "2024-01-31T09:00:02Z", "--to", "2024-01-31T09:00:02Z"];
    running.check(&none, "", 78, "", "EventStartTime must be before EventEndTime.");
    let listed = running.json(&["replay", "ls", "--json"]);
    let names: Vec<&str> =
        listed.as_array().expect("a list").iter().filter_map(|replay| replay["name"].as_str()).collect();
    assert!(names.len() == 2 && names.contains(&"p"), "{names:?}");
    running.check(&["replay", "ls"], "", 0, "COMPLETED", "");
    running.check(&["replay", "cancel", "p"], "", 1, "", "Replay p is not in a valid state");
    running.check(&["replay", "cancel", "nope"], "", 1, "", "Replay nope does not exist.");
    // Long enough that it does not end by itself before it is told to.
    let many: String = (0..60_000).map(|n| line(n % 10).replace("\"n\":", &format!("\"m\":{n},\"n\":"))).collect();
    running.check(&["archive", "import", "none"], &many, 0, "60000 events imported", "");
    running.check(&["replay", "start", "none", "--name", "long", "--no-wait"], "", 0, "long is STARTING", "");
    running.check(&["replay", "cancel", "long"], "", 0, "long is CANCELLING", "");
    until("it is cancelled", || running.check(&["replay", "ls"], "", 0, "", "").contains("CANCELLED"));
}

//! Dead letters after they were buried: what lists, sends again and removes them, and what shows that a queue is blocked.

use crate::process::{Guard, Place, exchange, free_address, get, until};
use crate::receiver::{Act, Receiver};
use serde_json::Value;
use sluice::dlq::{Files, Filter, Letter};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A router of lines with an endpoint that takes what it is told to take.
struct Router {
    place: Place,
    admin: String,
    child: Option<Guard>,
    takes: Arc<AtomicBool>,
    receiver: Receiver,
}

impl Router {
    fn start() -> Self {
        let takes = Arc::<AtomicBool>::default();
        let open = Arc::clone(&takes);
        let receiver = Receiver::start(move |_, _| match open.load(Ordering::SeqCst) {
            true => Act::ok(),
            false => Act::status("400 Bad Request"),
        });
        let admin = free_address();
        let config = format!(
            "data_dir: data\nserver: {{ listen: \"off\", admin: \"{admin}\" }}\nsources: {{ in: {{ stdin: {{}} }} }}\n\
             targets:\n  crm: {{ http: {{ url: \"{}\" }} }}\n  own: {{ http: {{ url: \"{}\" }}, dead_letter: kept }}\n  kept: {{ log: {{ group: /kept }} }}\n\
             rules:\n  big: {{ pattern: {{ source: [s] }}, targets: [{{ target: crm, input_transformer: {{ paths: {{ n: $.detail.n }}, template: '{{\"n\": <n>}}' }} }}] }}\n\
             \x20 mine: {{ pattern: {{ source: [own] }}, targets: [own] }}\n",
            receiver.url, receiver.url
        );
        let place = Place::new(&[("c.yaml", &config)]);
        let mut router = Self { place, admin, child: None, takes, receiver };
        router.run();
        router
    }

    fn run(&mut self) {
        self.child = None;
        self.child = Some(Guard(self.place.command(&["run", "-c", "c.yaml"]).spawn().expect("a process")));
        until("it has started", || get(&self.admin, "/startupz").is_some_and(|(status, _)| status.contains("200")));
    }

    fn send(&mut self, lines: &[&str]) {
        let stdin = self.child.as_mut().expect("a process").0.stdin.as_mut().expect("a pipe");
        lines.iter().for_each(|line| writeln!(stdin, "{line}").expect("a line"));
    }

    fn dlq(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let url = format!("http://{}", self.admin);
        self.place.run(&[&["dlq"], arguments, &["--admin-url", &url]].concat(), "").into_parts()
    }

    fn count(&self, arguments: &[&str]) -> u64 {
        let (code, out, err) = self.dlq(&[&["ls", "--json"], arguments].concat());
        assert_eq!(code, Some(0), "{err}");
        let summary: Value = serde_json::from_str(&out).expect("JSON");
        summary["groups"]
            .as_array()
            .expect("groups")
            .iter()
            .map(|group| group["count"].as_u64().expect("a count"))
            .sum()
    }

    fn files(&self) -> usize {
        std::fs::read_dir(self.place.path().join("data/dead-letters/default")).into_iter().flatten().count()
    }
}

const ONE: &str = "{\"source\":\"s\",\"detail\":{\"n\":1}}";
const TWO: &str = "{\"source\":\"s\",\"detail\":{\"n\":2}}";
const NONE: &str = "no event";

#[test]
fn letters_are_selected() {
    let mut router = Router::start();
    router.send(&[ONE, TWO, NONE]);
    until("three letters", || router.count(&[]) == 3);
    let rows: &[(&[&str], u64)] = &[
        (&["default"], 3),
        (&["other"], 0),
        (&["--bus", "default"], 3),
        (&["--target", "crm"], 2),
        (&["--target", "in"], 1),
        (&["--rule", "big"], 2),
        (&["--rule", "mine"], 0),
        (&["--code", "INVALID_EVENT"], 1),
        (&["--pattern", "{\"n\":[2]}"], 1),
        (&["--pattern", "{\"n\":[{\"exists\":true}]}", "--target", "in"], 0),
    ];
    for (arguments, count) in rows {
        assert_eq!(router.count(arguments), *count, "{arguments:?}");
    }
    let (_, shown, _) = router.dlq(&["show", "--json", "--target", "crm", "--limit", "1"]);
    let letter: Value = serde_json::from_str(&shown).expect("one line");
    assert_eq!(
        (
            letter["event"].as_str().is_some_and(|event| event.starts_with("{\"n\": ")),
            letter["RETRY_ATTEMPTS"].as_str()
        ),
        (true, Some("0")),
        "{letter}"
    );
    let (_, shown, _) = router.dlq(&["show"]);
    for part in ["rule big to crm", "INVALID_EVENT: ", "from in at ", NONE] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let (_, listed, _) = router.dlq(&["ls"]);
    assert!(listed.contains("cause") && listed.contains("INVALID_EVENT"), "{listed}");
    let (code, _, err) = router.dlq(&["ls", "--pattern", "{"]);
    assert!(code == Some(78) && err.contains("not valid"), "{err}");
}

#[test]
fn letters_go_back_with_their_id_and_are_gone_when_settled() {
    let mut router = Router::start();
    router.send(&[ONE, TWO, NONE]);
    until("three letters", || router.count(&[]) == 3);
    let first: Vec<_> = router.receiver.requests();
    let (_, said, _) = router.dlq(&["redrive", "--dry-run", "--target", "crm"]);
    assert!(said.contains("2 letters would be sent"), "{said}");
    assert_eq!(router.receiver.requests().len(), 2, "a dry run sends nothing");
    // Refused again: letters anew, and the old ones gone.
    let (code, said, err) = router.dlq(&["redrive", "--target", "crm"]);
    assert_eq!((code, said.contains("2 letters sent, 2 settled")), (Some(0), true), "{said}{err}");
    assert_eq!((router.count(&[]), router.receiver.requests().len()), (3, 4));
    router.takes.store(true, Ordering::SeqCst);
    // What is gone stays gone.
    router.run();
    router.dlq(&["redrive", "--pattern", "{\"n\":[1]}"]);
    assert_eq!(router.count(&["--target", "crm"]), 1);
    router.dlq(&["redrive"]);
    // The line that is no event was offered to its bus, and is a letter anew.
    assert_eq!((router.count(&[]), router.count(&["--code", "INVALID_EVENT"])), (1, 1));
    let after = router.receiver.requests();
    assert_eq!(after.len(), 6, "each letter once");
    for again in &after[4..] {
        let before = first.iter().find(|request| request.body == again.body).expect("the same event");
        assert_eq!(before.header("webhook-id"), again.header("webhook-id"));
    }
}

#[test]
fn letters_are_purged_with_and_without_a_process() {
    let mut router = Router::start();
    router.send(&[ONE, TWO, NONE]);
    until("three letters", || router.count(&[]) == 3);
    let (code, _, err) = router.dlq(&["purge"]);
    assert!(code == Some(2) && err.contains("--all"), "{err}");
    assert_eq!(router.dlq(&["purge", "--all", "--dry-run"]).1, "3 letters would be removed\n");
    assert_eq!(router.dlq(&["purge", "--code", "INVALID_EVENT"]).1, "1 letters removed\n");
    assert_eq!(router.count(&[]), 2);
    // A page in a browser cannot: it may not name JSON as the type without being asked first.
    let (status, ..) = exchange(&router.admin, "POST /api/v1/dlq/purge", &[], b"{\"all\":true}").expect("an answer");
    assert_eq!(status, 415);
    let other = b"{\"all\":true,\"data_dir\":\"/elsewhere\"}";
    let json = [("Content-Type", "application/json")];
    let (status, _, text) = exchange(&router.admin, "POST /api/v1/dlq/purge", &json, other).expect("an answer");
    assert!(status == 409 && text.contains("another data_dir"), "{text}");
    assert_eq!(router.dlq(&["purge", "--all"]).1, "2 letters removed\n");
    assert_eq!(router.files(), 0, "nothing is left in the file, nor the file");
    // The process goes on in a file of its own.
    router.send(&[ONE]);
    until("one letter", || router.count(&[]) == 1);
    router.child = None;
    let (code, _, err) = router.dlq(&["redrive"]);
    assert!(code == Some(69) && err.contains("sluice run"), "{err}");
    assert_eq!(router.dlq(&["purge", "--target", "crm"]).1, "1 letters removed\n");
    assert_eq!(router.files(), 0);
}

#[test]
fn letters_of_a_log_group_are_read_back() {
    let mut router = Router::start();
    router.send(&["{\"source\":\"own\"}"]);
    until("a letter", || router.count(&["--queue", "kept"]) == 1);
    assert_eq!(router.count(&[]), 0);
    router.takes.store(true, Ordering::SeqCst);
    router.dlq(&["redrive", "--queue", "kept"]);
    assert_eq!(router.count(&["--queue", "kept"]), 0);
    assert_eq!(router.receiver.requests().last().expect("a request").body, b"{\"source\":\"own\"}");
    let rows = [("crm", "cannot be read back"), ("nobody", "there is no target nobody")];
    for (queue, said) in rows {
        let (code, _, err) = router.dlq(&["ls", "--queue", queue]);
        assert!(code == Some(1) && err.contains(said), "{err}");
    }
}

#[test]
fn a_queue_that_takes_nothing_is_shown_and_holds_up_no_other() {
    let mut router = Router::start();
    // A file where the folder of the queue is to be.
    let folder = router.place.path().join("data/dead-letters");
    std::fs::write(&folder, "").expect("a file");
    let blocked = |admin: &str| {
        let metrics = get(admin, "/metrics").expect("metrics").1;
        let value = |start: &str| {
            metrics
                .lines()
                .find(|line| line.starts_with(start))
                .and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        };
        let named = "{target=\"dead-letters/default\"}";
        (
            value("sluice_blocked{by=\"dlq\",target=\"dead-letters/default\"}"),
            value(&format!("sluice_dlq_write_errors_total{named}")).unwrap_or(0) > 0,
        )
    };
    router.send(&[ONE, NONE]);
    let begin = std::time::Instant::now();
    until("two letters wait", || blocked(&router.admin) == (Some(2), true));
    assert!(begin.elapsed() < std::time::Duration::from_secs(3), "{:?}", begin.elapsed());
    let (status, ready) = get(&router.admin, "/readyz?verbose").expect("an answer");
    assert!(status.contains("200") && ready.contains("queue dead-letters/default"), "{status} {ready}");
    // Another queue goes on meanwhile.
    router.send(&["{\"source\":\"own\"}"]);
    until("a letter in the other queue", || router.count(&["--queue", "kept"]) == 1);
    std::fs::remove_file(&folder).expect("removed");
    until("it is over", || blocked(&router.admin).0 == Some(0));
    assert_eq!(router.count(&[]), 2);
    assert_eq!(get(&router.admin, "/readyz?verbose").expect("an answer").1, "ok\n");
}

fn line(id: u128, event: &str) -> String {
    format!(
        "{{\"time\":\"2024-01-01T00:00:00Z\",\"bus\":\"b\",\"sluice-delivery-id\":\"{id:032x}\",\
         \"TARGET_ARN\":\"arn:sluice:target:::t\",\"ERROR_CODE\":\"C\",\"event\":\"{event}\"}}\n"
    )
}

/// What stands in a folder after a crash: torn lines, lists that speak of other files.
#[test]
fn files_after_a_crash() {
    let (one, two) = (line(1, "x"), line(2, "y"));
    let second = one.len();
    let gone = |at: usize, id: u128| format!("\n{at} {id:032x}\n");
    let rows = [
        ("whole", format!("{one}{two}"), String::new(), vec![1, 2], 0),
        ("a torn line was never kept", format!("{one}{}", &two[..20]), String::new(), vec![1], 0),
        ("a line that is no letter", format!("{one}zeros\n{two}"), String::new(), vec![1, 2], 1),
        ("the first is gone", format!("{one}{two}"), gone(0, 1), vec![2], 0),
        ("both are", format!("{one}{two}"), gone(second, 2) + &gone(0, 1), vec![], 0),
        ("a torn mark says nothing", format!("{one}{two}"), gone(0, 1)[..20].to_owned(), vec![1, 2], 0),
        ("a mark after a torn one", format!("{one}{two}"), format!("\n{second} 0000{}", gone(0, 1)), vec![2], 0),
        ("the mark of another file", format!("{one}{two}"), gone(0, 7), vec![1, 2], 0),
    ];
    for (what, lines, marks, left, unreadable) in rows {
        let place = Place::new(&[("q/b/f.jsonl", &lines), ("q/b/f.jsonl.gone", &marks)]);
        let files = Files::defaults(place.path().join("q"));
        let mut seen = Vec::new();
        let count = files.each(&mut |_, _, letter| {
            seen.push(letter.delivery_id().expect("an id").0);
            true
        });
        assert_eq!((&seen, count.expect("files")), (&left, unreadable), "{what}");
        files.sweep(false, |_| {}).expect("a sweep");
        assert_eq!(place.path().join("q/b/f.jsonl").exists(), !left.is_empty(), "{what}");
        let purged = sluice::dlq::purge(&files, &Filter::default(), false, |_| {}).expect("a purge");
        assert_eq!(purged, left.len() as u64, "{what}");
        assert_eq!(std::fs::read_dir(place.path().join("q/b")).expect("a folder").count(), 0, "{what}");
    }
    assert_eq!(Letter::of_line(b"{\"time\":1}"), None);
}

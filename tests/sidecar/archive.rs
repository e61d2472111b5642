//! Archives on the disk: order, both forms of segments, crashes, damage, age; and replays that are cancelled or killed.

use crate::api::{NONE, arn, check};
use crate::endpoint::Endpoint;
use crate::process::until;
use prometheus_client::metrics::counter::Counter;
use serde_json::{Value, json};
use sluice::archive::{Archives, Held};
use sluice::service::again;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};
use tempfile::TempDir;

const DAY: i64 = 24 * 3_600_000;
/// 2024-01-31T09:00:00Z
const NINE: i64 = 1_706_691_600;

/// An event of a second after nine, with a number.
fn line(second: u64, n: u64) -> String {
    let (minute, second) = (second / 60, second % 60);
    format!("{{\"id\":\"1\",\"time\":\"2024-01-31T09:{minute:02}:{second:02}Z\",\"detail\":{{\"n\":{n}}}}}\n")
}

struct Disk {
    folder: TempDir,
    archives: Arc<Archives>,
    damaged: Counter,
}

impl Disk {
    fn new(files: &[(&str, String)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(folder.path().join("a")).expect("a folder");
        for (name, text) in files {
            std::fs::write(folder.path().join("a").join(name), text).expect("a file");
        }
        let damaged = Counter::default();
        let archives = Archives::new(folder.path().to_owned(), damaged.clone());
        Self { folder, archives, damaged }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("a").join(name)
    }

    fn seal(&self) -> usize {
        self.archives.seal(sluice::time::wall_millis(), || false).expect("sealed")
    }

    /// The numbers of all events, in the order in which a replay has them, over any number of windows.
    fn numbers(&self) -> Vec<u64> {
        let mut selection = self.archives.select("a", 0, i64::MAX);
        let mut numbers = Vec::new();
        loop {
            let window = selection.window().expect("a window");
            if window.is_empty() {
                return numbers;
            }
            assert!(window.is_sorted_by_key(|event| event.time));
            numbers.extend(window.iter().map(|event| number(&event.text)));
        }
    }

    fn names(&self) -> Vec<String> {
        names(&self.folder.path().join("a"))
    }
}

fn number(event: &[u8]) -> u64 {
    let event: Value = serde_json::from_slice(event).expect("an event");
    event["detail"]["n"].as_u64().expect("a number")
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Plain, sealed, and sealed between a window and the next one: the same events in the same order, and the same sizes.
#[test]
fn both_forms_hold_the_same() {
    // Times in disorder, across files; of one time in the order of their files.
    let disk = Disk::new(&[
        ("x.jsonl", [line(5, 0), line(1, 1), line(3, 2)].concat()),
        ("y.jsonl", [line(2, 3), line(5, 4), line(0, 5), "{\"time\":\"2024-".to_owned()].concat()),
        ("z.jsonl", String::new()),
    ]);
    let expected = ([5, 1, 3, 2, 0, 4].to_vec(), Held { events: 6, bytes: 6 * line(0, 0).len() as u64 });
    let now = || (disk.numbers(), disk.archives.held("a"));
    assert_eq!(now(), expected, "a torn line is none");
    assert_eq!(disk.seal(), 3);
    assert_eq!(disk.names(), ["x.jsonl.zst", "y.jsonl.zst", "z.jsonl.zst"]);
    assert_eq!(now(), expected);
    assert_eq!((disk.seal(), disk.damaged.get()), (0, 0));
    let text = zstd::decode_all(std::fs::File::open(disk.path("x.jsonl.zst")).expect("a file")).expect("any tool's");
    assert_eq!(String::from_utf8(text).expect("text"), [line(5, 0), line(1, 1), line(3, 2)].concat());
    let within = |from: i64, till: i64| {
        let window = disk.archives.select("a", (NINE + from) * 1000, (NINE + till) * 1000).window().expect("a window");
        window.iter().map(|event| number(&event.text)).collect::<Vec<_>>()
    };
    assert_eq!((within(1, 3), within(5, 6), within(6, 9)), (vec![1, 3], vec![0, 4], vec![]));
}

/// More than a window holds, in no order at all: each event once, in order, whatever is sealed meanwhile.
#[test]
fn windows_follow_each_other() {
    let padding = "x".repeat(2000);
    let text = |from: u64| {
        let lines = (from..from + 6000).map(|n| {
            let second = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 54;
            line(second, n).replace("\"id\"", &format!("\"pad\":\"{padding}\",\"id\""))
        });
        lines.collect::<String>()
    };
    let disk = Disk::new(&[("x.jsonl", text(0)), ("y.jsonl", text(6000))]);
    let mut selection = disk.archives.select("a", 0, i64::MAX);
    let (mut seen, mut windows, mut last) = (BTreeSet::new(), 0, i64::MIN);
    loop {
        let window = selection.window().expect("a window");
        let Some(end) = window.last() else { break };
        assert!(window.iter().map(|event| event.text.len()).sum::<usize>() <= 16 << 20);
        assert!(last <= window[0].time && window.is_sorted_by_key(|event| event.time));
        last = end.time;
        windows += 1;
        assert!(window.iter().all(|event| seen.insert(number(&event.text))), "each once");
        disk.seal();
    }
    assert_eq!((seen.len(), windows), (12_000, 2));
}

/// What was archived twice is read once; events that share an id and a time and nothing else are two.
#[test]
fn repetitions_are_known_by_all_of_an_event() {
    let disk = Disk::new(&[("x.jsonl", [line(0, 1), line(0, 2), line(0, 1)].concat()), ("y.jsonl", line(0, 2))]);
    assert_eq!(disk.numbers(), [1, 2]);
    let ids = [1, 2, 1].map(|n| again(line(0, n).as_bytes(), "r", "arn").expect("an event").1);
    assert!(ids[0] == ids[2] && ids[0] != ids[1], "{ids:?}");
}

/// What a crash leaves of sealing at any step: nothing is lost and nothing is there twice, before and after it goes on.
#[test]
fn sealing_survives_a_crash_at_any_step() {
    let text = [line(0, 1), line(1, 2)].concat();
    let sealed = {
        let disk = Disk::new(&[("x.jsonl", text.clone())]);
        disk.seal();
        std::fs::read(disk.path("x.jsonl.zst")).expect("a file")
    };
    let rows: [(&str, &str, &[u8]); 4] = [
        ("while it is written", "x.jsonl.new", &sealed[..20]),
        ("before it is renamed", "x.jsonl.new", &sealed),
        ("before the plain one is removed", "x.jsonl.zst", &sealed),
        ("with a sealed one that is torn all the same", "x.jsonl.zst", &sealed[..20]),
    ];
    for (what, name, left) in rows {
        let disk = Disk::new(&[("x.jsonl", text.clone())]);
        std::fs::write(disk.path(name), left).expect("a file");
        if left.len() > 20 || name.ends_with("new") {
            assert_eq!((disk.numbers(), disk.archives.held("a").events), (vec![1, 2], 2), "{what}");
        }
        assert_eq!(disk.seal(), 1, "{what}");
        assert_eq!((disk.numbers(), disk.archives.held("a").events), (vec![1, 2], 2), "{what}");
        assert_eq!(disk.names(), ["x.jsonl.zst"], "{what}");
    }
}

/// Earlier versions gave a name twice: what is sealed under it is not taken for what is plain.
#[test]
fn a_name_that_was_used_twice_loses_nothing() {
    let disk = Disk::new(&[("2024-01-31-1.jsonl", line(0, 1))]);
    disk.seal();
    std::fs::write(disk.path("2024-01-31-1.jsonl"), [line(1, 2), line(2, 3)].concat()).expect("a file");
    disk.seal();
    assert_eq!(disk.numbers(), [1, 2, 3]);
    disk.seal();
    assert_eq!((disk.numbers(), disk.names().len()), (vec![1, 2, 3], 2));
}

/// What is written to is not sealed before it is full or old, and is read meanwhile.
#[test]
fn the_newest_lines_stay_plain() {
    let disk = Disk::new(&[]);
    let appender = disk.archives.appender("a");
    appender.append(line(1, 1).as_bytes()).expect("written");
    assert_eq!((disk.seal(), disk.numbers()), (0, vec![1]));
    let later = sluice::time::wall_millis() + 3_600_000;
    assert_eq!(disk.archives.seal(later, || false).expect("sealed"), 1);
    appender.append(line(0, 2).as_bytes()).expect("written");
    assert_eq!((disk.seal(), disk.numbers(), disk.archives.held("a").events), (0, vec![2, 1], 2));
    // A full one is followed by another.
    appender.append(&line(2, 3).repeat((64 << 20) / line(2, 3).len() + 1).into_bytes()).expect("written");
    appender.append(line(3, 4).as_bytes()).expect("written");
    assert_eq!((disk.seal(), disk.numbers()), (1, vec![2, 1, 3, 4]));
    assert!(disk.names().last().is_some_and(|name| name.ends_with(".jsonl")), "{:?}", disk.names());
}

/// Damage is named and counted once, and costs what it hit.
#[test]
fn damage_costs_what_it_hit() {
    let padding = "x".repeat(1000);
    let text: String =
        (0..600).map(|n| line(n, n).replace("\"id\"", &format!("\"pad\":\"{padding}\",\"id\""))).collect();
    let whole = Disk::new(&[("x.jsonl", text.clone())]);
    whole.seal();
    let sealed = std::fs::read(whole.path("x.jsonl.zst")).expect("a file");
    let flipped = |at: usize| {
        let mut bytes = sealed.clone();
        bytes[at] ^= 0x40;
        bytes
    };
    let mut plain = text.into_bytes();
    plain[0] = b'?';
    // Blocks are of 256 KiB: some 250 events.
    let rows: [(&str, &str, Vec<u8>, std::ops::Range<usize>); 5] = [
        ("a block", "x.jsonl.zst", flipped(100), 300..400),
        ("the index", "x.jsonl.zst", flipped(sealed.len() - 20), 600..601),
        ("the end", "x.jsonl.zst", sealed[..sealed.len() - 100].to_vec(), 100..601),
        ("everything", "x.jsonl.zst", vec![7; 5000], 0..1),
        ("a line", "x.jsonl", plain, 599..600),
    ];
    for (what, name, bytes, left) in rows {
        let disk = Disk::new(&[("w.jsonl", line(0, 1000)), ("y.jsonl", line(700, 1001))]);
        std::fs::write(disk.path(name), bytes).expect("a file");
        for _ in 0..2 {
            let numbers = disk.numbers();
            assert!(left.contains(&(numbers.len() - 2)), "{what}: {} are left", numbers.len());
            assert!(numbers.contains(&1000) && numbers.last() == Some(&1001), "{what}: the others are whole");
            assert!((1..=2).contains(&disk.damaged.get()), "{what}: {}", disk.damaged.get());
            assert_eq!(disk.archives.damage("a", 0, i64::MAX) as u64, disk.damaged.get());
        }
    }
}

/// What is damaged is missing from the ranges of times that it can have had events of, and from no other.
#[test]
fn damage_is_missing_where_it_was() {
    let lines = |seconds: std::ops::Range<u64>| seconds.map(|second| line(second, second)).collect::<String>();
    let sealed = |seconds| {
        let disk = Disk::new(&[("x.jsonl", lines(seconds))]);
        disk.seal();
        std::fs::read(disk.path("x.jsonl.zst")).expect("a file")
    };
    let mut block = sealed(100..200);
    block[50] ^= 0x40;
    let mut index = sealed(100..200);
    let end = index.len() - 20;
    index[end] ^= 0x40;
    let plain = format!("{}?\n{}", lines(100..150), lines(150..200)).into_bytes();
    let rows = [
        ("a block", "x.jsonl.zst", block, false),
        ("a line", "x.jsonl", plain, false),
        ("a line of nothing but such lines", "x.jsonl", b"?\n".to_vec(), true),
        ("the index", "x.jsonl.zst", index, true),
    ];
    for (what, name, bytes, anywhere) in rows {
        let disk = Disk::new(&[("w.jsonl", lines(0..100)), ("y.jsonl", lines(200..300))]);
        std::fs::write(disk.path(name), bytes).expect("a file");
        disk.numbers();
        assert_eq!(disk.damaged.get(), 1, "{what}");
        let missing = |from: i64, till: i64| disk.archives.damage("a", (NINE + from) * 1000, (NINE + till) * 1000);
        for (from, till, within) in
            [(0, 100, anywhere), (0, 101, true), (150, 160, true), (199, 300, true), (200, 300, anywhere)]
        {
            assert_eq!(missing(from, till), usize::from(within), "{what}: {from} to {till}");
        }
        assert_eq!(disk.archives.damage("b", 0, i64::MAX), 0, "{what}");
    }
}

/// Thousands of segments, some windows: what a window cannot have is not opened for it, but for its times once.
#[test]
fn segments_are_opened_for_the_windows_that_want_them() {
    const SEGMENTS: u64 = 2000;
    const EACH: u64 = 10;
    let padding = "x".repeat(2000);
    let name = |n: u64| format!("s{n:04}.jsonl");
    let text = |n: u64| {
        let lines =
            (0..EACH).map(|m| line(n, n * EACH + m).replace("\"id\"", &format!("\"pad\":\"{padding}\",\"id\"")));
        lines.collect::<String>()
    };
    let files: Vec<(String, String)> = (0..SEGMENTS).map(|n| (name(n), text(n))).collect();
    let files: Vec<(&str, String)> = files.into_iter().map(|(name, text)| (&*name.leak(), text)).collect();
    let disk = Disk::new(&files);
    assert_eq!(disk.seal() as u64, SEGMENTS);
    let path = |n: u64| disk.path(&format!("{}.zst", name(n)));
    let mut selection = disk.archives.select("a", 0, i64::MAX);
    let (mut seen, mut windows, mut took) = (0, 0, Duration::ZERO);
    loop {
        // Who opens what is before the next window, or far behind it, finds it damaged.
        let (given, behind) = (seen / EACH, seen / EACH + SEGMENTS / 2);
        let unwanted = |n: &u64| windows > 0 && (*n + 1 < given || *n > behind);
        let aside: Vec<(u64, Vec<u8>)> =
            (0..SEGMENTS).filter(unwanted).map(|n| (n, std::fs::read(path(n)).expect("a file"))).collect();
        aside.iter().for_each(|(n, _)| std::fs::write(path(*n), "damaged").expect("a file"));
        let begun = std::time::Instant::now();
        let window = selection.window().expect("a window");
        took += begun.elapsed();
        aside.into_iter().for_each(|(n, bytes)| std::fs::write(path(n), bytes).expect("a file"));
        if window.is_empty() {
            break;
        }
        let numbers: Vec<u64> = window.iter().map(|event| number(&event.text)).collect();
        assert_eq!(numbers, (seen..seen + numbers.len() as u64).collect::<Vec<_>>());
        (seen, windows) = (seen + numbers.len() as u64, windows + 1);
    }
    eprintln!("{seen} events of {SEGMENTS} segments in {windows} windows: {took:?}");
    assert_eq!((seen, disk.damaged.get()), (SEGMENTS * EACH, 0));
    assert!(windows > 2, "{windows} windows");
}

/// An export that nobody reads lets go of what it holds, and is not taken for all.
#[test]
fn an_export_that_is_not_read_ends() {
    let text: String =
        (0..3000).map(|n| line(n, n).replace("\"id\"", &format!("\"pad\":\"{}\",\"id\"", "x".repeat(2000)))).collect();
    let disk = Disk::new(&[("x.jsonl", text)]);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().expect("a runtime");
    runtime.block_on(async {
        for (what, patience, reads) in
            [("read", Duration::from_secs(20), true), ("not read", Duration::from_millis(50), false)]
        {
            let (held, mut free) = tokio::sync::oneshot::channel::<()>();
            let body = sluice::api::exported(disk.archives.select("a", 0, i64::MAX), held, patience);
            if !reads {
                assert!((&mut free).await.is_err(), "it lets go");
            }
            let all = axum::body::to_bytes(body, usize::MAX).await;
            match all {
                Ok(all) => assert!(reads && all.iter().filter(|byte| **byte == b'\n').count() == 3000, "{what}"),
                Err(error) => assert!(!reads, "{what}: {error}"),
            }
            if reads {
                assert!(free.await.is_err(), "it lets go");
            }
        }
    });
}

/// What an archive has kept for longer than its retention goes, file by file; sealing makes nothing younger.
#[test]
fn archives_age() {
    for sealed in [false, true] {
        let disk = Disk::new(&[]);
        for (archive, file, days) in [("a", "old", 8), ("a", "new", 6), ("b", "old", 800)] {
            let path = disk.folder.path().join(archive);
            std::fs::create_dir_all(&path).expect("a folder");
            std::fs::write(path.join(format!("{file}.jsonl")), line(0, 0)).expect("a file");
            let written = UNIX_EPOCH + Duration::from_millis((1000 * DAY - days * DAY) as u64);
            let file = std::fs::File::options().write(true).open(path.join(format!("{file}.jsonl"))).expect("a file");
            file.set_modified(written).expect("a time");
        }
        if sealed {
            assert_eq!(disk.seal(), 3);
        }
        let sizes = || ["a", "b"].map(|archive| disk.archives.held(archive).events);
        assert_eq!(sizes(), [2, 1]);
        let live = BTreeMap::from([("a".to_owned(), 7), ("b".to_owned(), 0)]);
        disk.archives.age(&live, 1000 * DAY).expect("aged");
        assert_eq!(sizes(), [1, 1], "seven days, and for ever");
        disk.archives.remove("b").expect("removed");
        assert_eq!(sizes(), [1, 0]);
    }
}

/// An endpoint with an archive `a` of `count` events, one a second, and a rule that logs what is replayed.
fn archived(count: u64) -> Endpoint {
    let endpoint = Endpoint::start("", "");
    let log = json!({ "Id": "l", "Arn": "arn:aws:logs:eu-west-1:000000000000:log-group:seen" });
    let replayed = json!({ "Name": "r", "EventPattern": "{\"replay-name\":[{\"exists\":true}]}" });
    check(
        &endpoint,
        vec![
            (
                "CreateArchive",
                json!({ "ArchiveName": "a", "EventSourceArn": arn("event-bus/default") }),
                NONE,
                json!({}),
            ),
            ("PutRule", replayed, NONE, json!({})),
            ("PutTargets", json!({ "Rule": "r", "Targets": [log] }), NONE, json!({})),
        ],
    );
    let entry = json!({ "Source": "s", "DetailType": "t", "Detail": "{}" });
    endpoint.call("PutEvents", &json!({ "Entries": [entry] }));
    let folder = endpoint.place.path().join("data/archives/000000000000/eu-west-1");
    until("there is a folder", || names(&folder).len() == 1);
    let text: String = (0..count).map(|n| line(n / 4, n)).collect();
    std::fs::write(folder.join(&names(&folder)[0]).join("2024-01-31-1.jsonl"), text).expect("a file");
    endpoint
}

fn start(endpoint: &Endpoint) {
    let replay = json!({ "ReplayName": "p", "EventSourceArn": arn("archive/a"), "EventStartTime": NINE, "EventEndTime": NINE + 3600, "Destination": { "Arn": arn("event-bus/default") } });
    check(endpoint, vec![("StartReplay", replay, NONE, json!({ "State": "STARTING" }))]);
}

fn described(endpoint: &Endpoint) -> Value {
    endpoint.call("DescribeReplay", &json!({ "ReplayName": "p" })).1
}

#[test]
fn a_replay_under_way_is_cancelled() {
    let endpoint = archived(14_000);
    start(&endpoint);
    until("it is under way", || described(&endpoint)["EventLastReplayedTime"].is_number());
    check(&endpoint, vec![("CancelReplay", json!({ "ReplayName": "p" }), NONE, json!({ "State": "CANCELLING" }))]);
    until("it is cancelled", || described(&endpoint)["State"] == "CANCELLED");
    let ended = described(&endpoint);
    let reached = ended["EventLastReplayedTime"].as_f64().expect("a time") as i64;
    assert!(ended["ReplayEndTime"].is_number() && reached < NINE + 3499, "{ended}");
    until("what was sent is delivered", || endpoint.lines("seen").len() as i64 >= 4 * (reached - NINE));
    let sent = endpoint.lines("seen").len();
    assert!(sent < 14_000, "{sent}");
    // What is cancelled stays so.
    let endpoint = endpoint.restart("-TERM");
    assert_eq!(described(&endpoint)["State"], "CANCELLED");
    assert_eq!(endpoint.lines("seen").len(), sent);
    endpoint.stop();
}

/// Killed twice on its way, sealed in between: every event comes, and what comes again has the same id.
#[test]
fn a_replay_goes_on_after_a_kill() {
    const COUNT: u64 = 12_000;
    let mut endpoint = archived(COUNT);
    start(&endpoint);
    for kill in 1..=2 {
        let some = NINE as f64 + 300.0 * f64::from(kill);
        until("it is under way", || {
            described(&endpoint)["EventLastReplayedTime"].as_f64().is_some_and(|at| at >= some)
        });
        endpoint = endpoint.restart("-KILL");
        assert_ne!(described(&endpoint)["State"], "COMPLETED", "killed on its way");
    }
    until("it is through", || described(&endpoint)["State"] == "COMPLETED");
    let ids = || {
        let events = endpoint.lines("seen");
        let of = |event: &Value| (event["detail"]["n"].as_u64().expect("a number"), event["id"].to_string());
        events.iter().map(of).collect::<BTreeSet<_>>()
    };
    until("all are delivered", || ids().len() as u64 >= COUNT);
    let numbers: Vec<u64> = ids().iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (0..COUNT).collect::<Vec<_>>(), "each with one id");
    let folder = endpoint.place.path().join("data/archives/000000000000/eu-west-1");
    let sealed = || names(&folder.join(&names(&folder)[0])).contains(&"2024-01-31-1.jsonl.zst".to_owned());
    until("what is not written to any longer is sealed", sealed);
    let size = endpoint.call("DescribeArchive", &json!({ "ArchiveName": "a" })).1["EventCount"].clone();
    assert_eq!(size, COUNT + 1);
    endpoint.stop();
}

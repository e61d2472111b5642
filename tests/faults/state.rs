//! F12: what is kept on the disk, killed while it is written and damaged while nothing runs: what callers made, and events.

use crate::caller::{Book, Caller};
use crate::keeper::Keeper;
use crate::process::Running;
use crate::setup::LONG;
use crate::stage::{Rng, Stage, rest, until, worst};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long a start may take, or a refusal. The development build is slower than what users run.
const START: Duration = Duration::from_secs(4);

/// F12.
pub fn killed_and_damaged(stage: &Stage) {
    // Where the callers are: another region would have buses of its own.
    let keeper = Keeper::new("identity: { region: eu-west-1 }\n");
    let (made, book) = kills(stage, &keeper);
    catalog(stage, &keeper, &made);
    journals(stage, &keeper, &book);
}

/// Rules of the default bus.
pub fn rules(keeper: &Keeper) -> BTreeSet<String> {
    let (mut caller, mut names, mut token) = (Caller::new(&keeper.listen), BTreeSet::new(), Value::Null);
    loop {
        let body = json!({ "NextToken": token }).to_string();
        let (status, answer) = caller.act("ListRules", body.as_bytes()).expect("an answer");
        let page: Value = serde_json::from_slice(&answer).expect("JSON");
        assert_eq!(status, 200, "{page}");
        let rules = page["Rules"].as_array().expect("a list").iter();
        names.extend(
            rules.filter_map(|rule| rule["Name"].as_str()).filter(|name| name.starts_with("made")).map(str::to_owned),
        );
        token = page["NextToken"].clone();
        if token.is_null() {
            return names;
        }
    }
}

/// One caller makes rules until the connection breaks: those that were asked for, and of them those that were answered.
fn make(keeper: &Keeper, name: &str, count: &AtomicUsize) -> (Vec<String>, Vec<String>) {
    let (mut caller, mut asked, mut answered) = (Caller::new(&keeper.listen), Vec::new(), Vec::new());
    for n in 0.. {
        let rule = format!("made-{name}-{n}");
        asked.push(rule.clone());
        let body = json!({ "Name": rule, "EventPattern": "{\"source\":[\"nobody\"]}" }).to_string();
        match caller.act("PutRule", body.as_bytes()) {
            Some((200, _)) => answered.push(rule),
            _ => break,
        }
        count.fetch_add(1, Ordering::Relaxed);
    }
    (asked, answered)
}

/// Kills in a burst of changes and events; all that was answered is there after each.
fn kills(stage: &Stage, keeper: &Keeper) -> (BTreeSet<String>, Book) {
    let (mut rng, mut running, mut book) = (stage.rng(), keeper.start(), Book::default());
    let (mut asked, mut answered, mut took) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    let kills = stage.pick(100, 10);
    for kill in 0..kills {
        let count = AtomicUsize::new(0);
        let moment = 1 + rng.below(60) as usize;
        let begin = 1000 * kill as u64;
        let no = book.put(&mut Caller::new(&keeper.listen), begin..begin + 20, 100);
        assert_eq!(no, 0, "events are refused: {}", book.why);
        std::thread::scope(|scope| {
            let makers: Vec<_> = (0..4)
                .map(|maker| {
                    let count = &count;
                    scope.spawn(move || make(keeper, &format!("{kill}-{maker}"), count))
                })
                .collect();
            until("rules are made", LONG, || count.load(Ordering::Relaxed) >= moment);
            running.kill();
            for maker in makers {
                let (all, good) = maker.join().expect("a caller");
                asked.extend(all);
                answered.extend(good);
            }
        });
        let begin = Instant::now();
        running = keeper.start();
        took.push(begin.elapsed());
        let there = rules(keeper);
        let lost: Vec<_> = answered.difference(&there).collect();
        assert!(lost.is_empty(), "rules that were made are lost: {lost:?}");
        assert!(there.is_subset(&asked), "rules are there that nobody asked for");
        answered = there;
    }
    running.kill();
    stage.note("kills", kills);
    stage.note("rules", answered.len());
    stage.note("start_seconds", worst(&took));
    assert!(worst(&took) <= START.as_secs_f64(), "{took:?}");
    (answered, book)
}

/// Damages a copy of a file: a bit is turned, or its end is missing. Says what was done, and whether it was cut.
fn damage(rng: &mut Rng, good: &[u8]) -> (String, Vec<u8>, bool) {
    let mut bytes = good.to_vec();
    let at = rng.below(bytes.len() as u64) as usize;
    if rng.below(4) == 0 {
        bytes.truncate(at);
        return (format!("cut at {at}"), bytes, true);
    }
    let bit = rng.below(8);
    bytes[at] ^= 1 << bit;
    (format!("bit {bit} of byte {at} turned"), bytes, false)
}

/// Starts a process on damaged files: it answers, or it ends by itself and names the file.
fn begin(keeper: &Keeper, what: &str, file: &Path) -> Option<Running> {
    std::fs::remove_file(keeper.sluice.path().join("log")).ok();
    let begin = Instant::now();
    let mut running = keeper.sluice.start(&[]);
    let ready = |running: &Running| running.get("/readyz").is_some_and(|(status, _)| status.contains("200"));
    until(what, LONG, || !running.lives() || ready(&running));
    let took = begin.elapsed();
    let started = running.lives();
    assert!(took <= START, "{what}: {took:?}");
    if started {
        return Some(running);
    }
    let (code, log) = (running.wait(LONG).code(), keeper.sluice.log());
    let name = file.file_name().expect("a name").to_string_lossy();
    assert!(code == Some(74) && log.contains(&*name), "{what}: {code:?} {log}");
    None
}

/// The file of what was made: it is refused by name, or all of it is there.
fn catalog(stage: &Stage, keeper: &Keeper, made: &BTreeSet<String>) {
    let file = keeper.sluice.path().join("data/catalog.redb");
    let good = std::fs::read(&file).expect("a catalog");
    let (mut rng, mut refused, count) = (stage.rng(), 0, stage.pick(100, 10));
    for _ in 0..count {
        let (what, bytes, _) = damage(&mut rng, &good);
        std::fs::write(&file, bytes).expect("written");
        match begin(keeper, &format!("catalog, {what}"), &file) {
            None => refused += 1,
            Some(running) => {
                let there = rules(keeper);
                running.kill();
                assert_eq!(there.len(), made.len(), "catalog, {what}: it started with other rules than were made");
                assert!(there == *made, "catalog, {what}: it started with other rules than were made");
            }
        }
        std::fs::write(&file, &good).expect("written");
    }
    stage.note("catalogs_damaged", count);
    stage.note("catalogs_refused", refused);
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(segments(&path)),
            path if path.extension().is_some_and(|end| end == "segment") => found.push(path),
            _ => {}
        }
    }
    found.sort();
    found
}

/// Segments of the journal and of the retry log: what cannot be read is counted, and everything else is delivered.
fn journals(stage: &Stage, keeper: &Keeper, book: &Book) {
    let data = keeper.sluice.path().join("data");
    let good: Vec<(PathBuf, Vec<u8>)> =
        segments(&data).into_iter().map(|path| (path.clone(), std::fs::read(path).expect("a segment"))).collect();
    assert!(!good.is_empty(), "there are events on the disk");
    let (mut rng, count) = (Rng::new(stage.seed, 1), stage.pick(60, 10));
    let (mut skipped, mut refused) = (0.0, 0);
    keeper.hang(false);
    for _ in 0..count {
        let (path, bytes) = &good[rng.below(good.len() as u64) as usize];
        let (what, bytes, cut) = damage(&mut rng, bytes);
        let what = format!("{}, {what}", path.strip_prefix(&data).expect("below").display());
        std::fs::write(path, bytes).expect("written");
        let before = keeper.requests();
        match begin(keeper, &what, path) {
            None => refused += 1,
            Some(running) => {
                let of = |running: &Running| running.metric("sluice_journal_skipped_records_total", "");
                let lost = |before: usize| keeper.lost_since(book, before);
                rest(Duration::from_secs(1), || lost(before), |lost| *lost == 0 || *lost as f64 == of(&running));
                // A file that is cut has an end like that of a write under way.
                let (lost, missing) = (lost(before), of(&running));
                assert!(
                    cut || lost as f64 <= missing,
                    "{what}: {lost} events are gone and {missing} said so: {}",
                    keeper.sluice.log()
                );
                skipped += missing;
                running.kill();
            }
        }
        for segment in segments(&data) {
            std::fs::remove_file(segment).expect("removed");
        }
        for (path, bytes) in &good {
            std::fs::write(path, bytes).expect("written");
        }
    }
    stage.note("segments_damaged", count);
    stage.note("segments_refused", refused);
    stage.note("records_skipped", skipped);
    // With the files as they were everything comes to its end.
    let running = keeper.start();
    keeper.judge(stage, book);
    running.stop();
}

//! What a journal keeps through crashes and damage.

use proptest::prelude::*;
use sluice::journal::{self, Journal, JournalError, Kind, Piece, Reserve};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

type Kept = (Vec<(u32, u64)>, Result<(), JournalError>);

fn open(folder: &Path, max_bytes: u64) -> Result<(Journal<u32>, journal::Recovered, Receiver<Kept>), JournalError> {
    let reserve = Arc::new(Reserve::new(folder.parent().unwrap()));
    let (out, kept) = channel();
    let outcome = Box::new(move |tickets, result| out.send((tickets, result)).unwrap_or_default());
    let (journal, found) = Journal::open(("test-journal", folder), max_bytes, &reserve, outcome)?;
    Ok((journal, found, kept))
}

/// Puts a body and waits until it is on the disk.
fn put(journal: &Journal<u32>, kept: &Receiver<Kept>, body: &[u8]) -> u64 {
    let sequence = journal.put(body.to_vec(), 7).unwrap();
    assert_eq!(kept.recv_timeout(Duration::from_secs(10)).unwrap(), (vec![(7, sequence)], Ok(())));
    assert_eq!(journal.read(sequence).unwrap(), body);
    sequence
}

fn flush(journal: &Journal<u32>) {
    journal.flush(Instant::now() + Duration::from_secs(10));
}

fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn live(found: &journal::Recovered) -> Vec<(u64, Option<&[u8]>)> {
    found.live.iter().map(|live| (live.sequence, live.note.as_deref())).collect()
}

#[test]
fn what_was_kept_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("journal");
    let (journal, found, kept) = open(&folder, 1 << 30).unwrap();
    assert_eq!(found, journal::Recovered::default());
    let [one, two, three] = [b"one".as_slice(), b"two", b"three"].map(|body| put(&journal, &kept, body));
    journal.note(three, b"tried once".to_vec());
    journal.note(three, b"tried twice".to_vec());
    journal.remove(one);
    journal.remove(one);
    assert!(journal.read(one).is_err());
    assert_eq!(journal.size().0, 2);
    flush(&journal);
    drop(journal);
    let (journal, found, kept) = open(&folder, 1 << 30).unwrap();
    assert_eq!(live(&found), [(two, None), (three, Some(b"tried twice".as_slice()))]);
    assert_eq!((found.skipped, found.cut), (0, 0));
    assert_eq!(journal.read(three).unwrap(), b"three");
    assert!(put(&journal, &kept, b"four") > three, "numbers are never given twice");
}

/// Rows: what happens to the bytes of a segment with three records (and their heads), and what is found then: bodies,
/// places skipped, whether something was cut.
#[test]
fn damage_costs_what_is_damaged() {
    type Damage = fn(&mut Vec<u8>);
    let rows: [(&str, Damage, &[&str], u64, bool); 9] = [
        ("none", |_| {}, &["first", "second", "third"], 0, false),
        ("a torn body", |b| b.truncate(b.len() - 2), &["first", "second"], 0, true),
        ("a torn head", |b| b.truncate(b.len() - 10), &["first", "second"], 0, true),
        ("zeros at the end", |b| b.extend([0; 100]), &["first", "second", "third"], 0, true),
        ("a flipped bit in a body", |b| b[journal_head(1)] ^= 1, &["first", "third"], 1, false),
        ("a flipped bit in a head", |b| b[journal_head(1) - 3] ^= 1, &["first", "third"], 1, false),
        ("a length that leads beyond the end", |b| b[journal_head(1) - 19] ^= 1, &["first", "third"], 1, false),
        ("an empty file", Vec::clear, &[], 0, false),
        ("half a header", |b| b.truncate(9), &[], 0, true),
    ];
    for (name, damage, want, skipped, cut) in rows {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("journal");
        let (journal, _, kept) = open(&folder, 1 << 30).unwrap();
        for body in ["first", "second", "third"] {
            put(&journal, &kept, body.as_bytes());
        }
        flush(&journal);
        drop(journal);
        let path = segments(&folder).pop().unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        damage(&mut bytes);
        std::fs::write(&path, &bytes).unwrap();
        for again in 0..2 {
            let (journal, found, _) = open(&folder, 1 << 30).unwrap();
            let bodies: Vec<_> = found
                .live
                .iter()
                .map(|live| String::from_utf8(journal.read(live.sequence).unwrap()).unwrap())
                .collect();
            assert_eq!(bodies, want, "{name}");
            assert_eq!(found.skipped, skipped, "{name}");
            assert_eq!(found.cut > 0, cut && again == 0, "{name}: cut once, and for good");
        }
    }
}

/// Where the body of the `n`th of the records `first`, `second`, `third` begins.
fn journal_head(n: usize) -> usize {
    28 + [21, 21 + 5 + 21, 21 + 5 + 21 + 6 + 21][n]
}

#[test]
fn foreign_files_are_refused_by_name() {
    let other_version = |bytes: &mut Vec<u8>| bytes[14] = 9;
    type Change = fn(&mut Vec<u8>);
    let rows: [(&str, Option<Change>, &str); 3] = [
        ("notes.txt", None, "notes.txt is no file of a journal; move it away"),
        ("0000000001.segment", Some(|b| b[0] = b'x'), "0000000001.segment is no file of a journal; move it away"),
        (
            "0000000001.segment",
            Some(other_version),
            "0000000001.segment was written by another version of Sluice (format 9)",
        ),
    ];
    for (name, change, want) in rows {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("journal");
        let (journal, _, kept) = open(&folder, 1 << 30).unwrap();
        put(&journal, &kept, b"body");
        drop(journal);
        let mut bytes = std::fs::read(folder.join("0000000001.segment")).unwrap();
        match change {
            Some(change) => change(&mut bytes),
            None => bytes = b"milk, eggs".to_vec(),
        }
        std::fs::write(folder.join(name), bytes).unwrap();
        let Err(JournalError::Unusable(message)) = open(&folder, 1 << 30).map(|_| ()) else { panic!("{name}: taken") };
        assert!(message.contains(want), "{message}");
    }
}

#[test]
fn a_full_journal_refuses_and_keeps_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("journal");
    let (journal, _, kept) = open(&folder, 10_000).unwrap();
    let first = put(&journal, &kept, &[b'a'; 9_000]);
    let Err((7, JournalError::Full(why))) = journal.put(vec![b'b'; 2_000], 7) else { panic!("taken") };
    assert!(why.contains("journal holds 10000 bytes, its bound"), "{why}");
    assert_eq!(journal.read(first).unwrap().len(), 9_000);
    assert!(journal.put(vec![b'c'; 100], 7).is_ok());
}

#[test]
fn space_is_given_back() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("journal");
    let (journal, _, kept) = open(&folder, 1 << 30).unwrap();
    let body = vec![b'x'; 1 << 20];
    // One record stays; what surrounds it goes.
    let stuck = put(&journal, &kept, b"stuck");
    for _ in 0..40 {
        let sequence = put(&journal, &kept, &body);
        journal.remove(sequence);
    }
    assert_eq!(journal.crowded(), [stuck]);
    let moved = put(&journal, &kept, &journal.read(stuck).unwrap());
    journal.remove(stuck);
    let after = put(&journal, &kept, &body);
    assert!(journal.crowded().is_empty());
    assert!(journal.size().1 < 20 << 20, "{:?}", journal.size());
    journal.remove(moved);
    journal.remove(after);
    let last = put(&journal, &kept, b"the last");
    assert_eq!(segments(&folder).len(), 1, "a segment without anything live goes");
    drop(journal);
    let (_journal, found, _) = open(&folder, 1 << 30).unwrap();
    assert_eq!(live(&found), [(last, None)]);
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8),
    Note(u8, u8),
    Remove(u8),
    /// The process ends; so many bytes of what was not synced are lost.
    Crash(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<u8>().prop_map(Step::Put),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(which, note)| Step::Note(which, note)),
        3 => any::<u8>().prop_map(Step::Remove),
        1 => any::<u8>().prop_map(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, failure_persistence: None, ..ProptestConfig::default() })]

    /// Against a map: nothing that was kept is lost, whatever is cut off behind the last sync.
    #[test]
    fn a_journal_agrees_with_a_map(steps in prop::collection::vec(step(), 1..60)) {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("journal");
        let (mut journal, _, mut kept) = open(&folder, 1 << 30).unwrap();
        let mut model: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        let mut gone: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        let mut synced = 0;
        for step in steps {
            let pick = |model: &BTreeMap<u64, Vec<u8>>, n: u8| model.keys().nth(n as usize % model.len().max(1)).copied();
            match step {
                Step::Put(n) => {
                    let body = vec![n; n as usize + 1];
                    model.insert(put(&journal, &kept, &body), body);
                    // What came before is as durable as the record itself.
                    gone.clear();
                    synced = segments(&folder).last().map_or(0, |path| std::fs::metadata(path).unwrap().len());
                }
                Step::Note(n, note) => if let Some(sequence) = pick(&model, n) { journal.note(sequence, vec![note]) },
                Step::Remove(n) => if let Some(sequence) = pick(&model, n) {
                    journal.remove(sequence);
                    gone.insert(sequence, model.remove(&sequence).unwrap());
                },
                Step::Crash(n) => {
                    flush(&journal);
                    drop(journal);
                    if let Some(path) = segments(&folder).last() {
                        let len = std::fs::metadata(path).unwrap().len();
                        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
                        file.set_len(len.saturating_sub(u64::from(n)).max(synced.min(len))).unwrap();
                    }
                    let found;
                    (journal, found, kept) = open(&folder, 1 << 30).unwrap();
                    let live: Vec<u64> = found.live.iter().map(|live| live.sequence).collect();
                    for sequence in model.keys() {
                        prop_assert!(live.contains(sequence), "{sequence} is lost");
                    }
                    for sequence in &live {
                        // What was removed without a sync may come back, as it was.
                        if let Some(body) = gone.remove(sequence) {
                            model.insert(*sequence, body);
                        }
                        prop_assert_eq!(&journal.read(*sequence).unwrap(), &model[sequence]);
                    }
                    gone.clear();
                    synced = u64::MAX;
                }
            }
        }
    }

    /// Whatever stands in a segment, reading it ends and finds every sound record before the damage.
    #[test]
    fn any_bytes_are_read(bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..10), at in any::<prop::sample::Index>(), junk in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut bytes = journal::header(1).to_vec();
        let mut ends = Vec::new();
        for (n, body) in bodies.iter().enumerate() {
            journal::push(&mut bytes, Kind::Put, n as u64 + 1, body);
            ends.push(bytes.len());
        }
        let at = 28 + at.index(bytes.len() - 28);
        bytes.splice(at..at, junk.clone());
        let whole = ends.iter().filter(|end| **end <= at).count();
        let sound = journal::scan(&bytes).into_iter().take_while(|piece| matches!(piece, Piece::Record(_))).count();
        prop_assert!(sound >= whole, "{sound} of {whole}");
        if junk.is_empty() { prop_assert_eq!(sound, bodies.len()); }
    }
}

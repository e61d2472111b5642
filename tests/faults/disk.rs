//! F18: a data directory on a disk that is full, and files that may not grow.

use crate::caller::{Book, Caller};
use crate::keeper::Keeper;
use crate::process::{Running, program};
use crate::setup::LONG;
use crate::stage::{Stage, pass, until};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A small disk of its own; gone when dropped.
struct Disk(PathBuf);

impl Disk {
    /// Mounts one of 32 MiB; why it cannot be had here otherwise.
    fn mount(place: &Path) -> Result<Self, String> {
        std::fs::create_dir_all(place).expect("a folder");
        let made = Command::new("mount").args(["-t", "tmpfs", "-o", "size=32m", "none"]).arg(place).output();
        match made {
            Ok(done) if done.status.success() => Ok(Self(place.to_owned())),
            Ok(done) => Err(format!("no disk of its own: {}", String::from_utf8_lossy(&done.stderr).trim())),
            Err(error) => Err(format!("no disk of its own: mount: {error}")),
        }
    }

    /// Takes all the space that is left.
    fn fill(&self) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.0.join("filler")).expect("a file");
        for bytes in [1 << 20, 4096] {
            while file.write_all(&vec![0; bytes]).is_ok() {}
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).expect("a file removed");
    }

    /// Bytes of the segments below a folder.
    fn segments(&self, folder: &str) -> u64 {
        let all = std::fs::read_dir(self.0.join(folder)).into_iter().flatten().flatten();
        all.map(|entry| match entry.path().is_dir() {
            true => self.segments(&format!("{folder}/{}", entry.file_name().display())),
            false => entry.metadata().map_or(0, |found| found.len()),
        })
        .sum()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

/// F18: the disk of the data directory is full, twice, and the process is killed meanwhile.
pub fn is_full(stage: &Stage) {
    let keeper = Keeper::new("");
    let disk = match Disk::mount(&keeper.sluice.path().join("data")) {
        Ok(disk) => disk,
        Err(why) => return stage.skip(&why),
    };
    let running = keeper.start();
    let (mut book, mut caller) = (Book::default(), Caller::new(&keeper.listen));
    // The endpoint hangs: the retry log holds some, the journal the others.
    assert_eq!(book.put(&mut caller, 0..250, 20_000), 0, "there is room");
    until("the retry log holds some", LONG, || running.metric("sluice_target_retry_log_events", "hook") >= 100.0);
    assert_eq!(book.put(&mut caller, 250..300, 20_000), 0, "there is room");
    disk.fill();
    until("a full disk refuses events", LONG, || book.put(&mut caller, 300..400, 1000) > 0);
    assert!(book.why.contains("free space"), "the refusal says what to do: {}", book.why);
    until("health says what is wrong", LONG, || {
        // It is tried again and again whether there is room.
        book.put(&mut caller, 400..401, 1000);
        let why = running.get("/readyz?verbose").unwrap_or_default().1;
        why.contains("journal: ") && why.contains("free space")
    });

    let held = || disk.segments("retry") + disk.segments("journal");
    let before = held();
    keeper.hang(false);
    let drained =
        until("what was accepted is delivered from a full disk; else it is lost", LONG, || keeper.lost(&book).0 == 0);
    until("what is done with is deleted on a full disk", LONG, || held() < before / 2);
    stage.note("freed_bytes", before - held());
    stage.note("drain_seconds", drained.as_secs_f64());

    disk.fill();
    keeper.hang(true);
    until("it refuses again", LONG, || book.put(&mut caller, 1000..1100, 20_000) == 100);
    running.kill();
    let running = keeper.start();
    let mut caller = Caller::new(&keeper.listen);
    disk.fill();
    let mut from = 2000;
    let mut next = || {
        from += 10;
        from
    };
    until("it refuses after a restart", LONG, || {
        let n = next();
        book.put(&mut caller, n..n + 10, 20_000) > 0
    });
    disk.free();
    let recovered = until("events are accepted again", LONG, || {
        let n = next();
        book.put(&mut caller, n..n + 1, 1000) == 0
    });
    stage.note("recovery_seconds", recovered.as_secs_f64());
    book.put(&mut caller, 100_000..100_200, 1000);
    running.kill();
    keeper.hang(false);
    let running = keeper.start();
    keeper.judge(stage, &book);
    assert_eq!(keeper.uncalled(&book), 0, "events that were refused are delivered");
    let whole = running.get("/readyz?verbose").unwrap_or_default().1;
    running.stop();
    assert!(!whole.contains("journal: "), "nothing is wrong any more: {whole}");
    assert!(recovered <= Duration::from_secs(5), "{recovered:?} until a freed disk was used again");
}

/// KiB that no file may grow beyond.
const KIB: u32 = 512;

/// F18b: no file may grow beyond a size, which every system has: a retry log, a dead-letter file, the journal.
pub fn files_may_not_grow(stage: &Stage) {
    retry_log_is_full(stage);
    dead_letters_are_full(stage);
    journal_is_full(stage);
    catalog_is_full(stage);
}

fn retry_log_is_full(stage: &Stage) {
    // Segments of the journal stay small, the retry log's do not.
    let keeper = Keeper::new("limits: { journal_bytes: 2MiB }\n");
    let running = bounded(&keeper, KIB);
    let (mut book, mut caller) = (Book::default(), Caller::new(&keeper.listen));
    let said = |part: &str| keeper.sluice.log().contains(part);
    let mut n = 0;
    until("the retry log is full", LONG, || {
        book.put(&mut caller, n..n + 10, 1000);
        n += 10;
        said("retry/hook takes nothing more")
    });
    // What was done with is written a little later.
    pass(Duration::from_millis(500));
    running.kill();
    stage.note("bytes_of_retry_log", retry_log(&keeper));
    keeper.hang(false);
    let running = keeper.start();
    keeper.judge(stage, &book);
    assert_eq!(keeper.uncalled(&book), 0, "events that were refused are delivered");
    running.stop();
}

fn dead_letters_are_full(stage: &Stage) {
    let keeper = Keeper::new("limits: { journal_bytes: 2MiB }\n");
    keeper.hang(false);
    let running = bounded(&keeper, KIB);
    let (mut book, mut caller, mut n) = (Book::default(), Caller::new(&keeper.listen), 0);
    until("the dead-letter file is full", LONG, || {
        n += 10;
        book.put(&mut caller, n..n + 10, 4000);
        running.metric("sluice_dlq_write_errors_total", "") > 0.0
    });
    // What is done with is written a little later.
    pass(Duration::from_millis(500));
    running.kill();
    let running = keeper.start();
    keeper.judge(stage, &book);
    running.stop();
}

fn journal_is_full(stage: &Stage) {
    let keeper = Keeper::new("");
    keeper.hang(false);
    let running = bounded(&keeper, KIB);
    let (mut book, mut caller, mut n) = (Book::default(), Caller::new(&keeper.listen), 0);
    until("the journal is full", LONG, || {
        n += 10;
        book.put(&mut caller, n..n + 10, 20_000) > 0 || keeper.sluice.log().contains("journal takes nothing more")
    });
    running.kill();
    let running = keeper.start();
    keeper.judge(stage, &book);
    assert_eq!(keeper.uncalled(&book), 0, "events that were refused are delivered");
    running.stop();
}

/// What callers make when its file may not grow: all that was answered is there, nothing of what was refused, and events
/// are taken all the while.
fn catalog_is_full(stage: &Stage) {
    let keeper = Keeper::new("identity: { region: eu-west-1 }\n");
    keeper.hang(false);
    let running = bounded(&keeper, KIB);
    let (mut caller, mut made) = (Caller::new(&keeper.listen), BTreeSet::new());
    let put = |caller: &mut Caller, name: &str| {
        let pattern = json!({ "source": ["y".repeat(2000)] }).to_string();
        let body = json!({ "Name": name, "EventPattern": pattern }).to_string();
        let (status, answer) = caller.act("PutRule", body.as_bytes()).expect("an answer");
        (status, String::from_utf8_lossy(&answer).into_owned())
    };
    let why = (0..1000).map(|n| format!("made-{n}")).find_map(|name| match put(&mut caller, &name) {
        (200, _) => {
            made.insert(name);
            None
        }
        refused => Some(refused),
    });
    let (status, why) = why.expect("a catalog that is full refuses");
    assert!(status == 500 && why.contains("catalog.redb cannot be written"), "{status} {why}");
    assert_eq!(crate::state::rules(&keeper), made, "what was refused is not there");
    let mut book = Book::default();
    assert_eq!(book.put(&mut caller, 0..20, 100), 0, "events are taken: {}", book.why);
    running.kill();
    let running = keeper.start();
    assert_eq!(crate::state::rules(&keeper), made, "what was answered is there");
    assert_eq!(put(&mut Caller::new(&keeper.listen), "made-anew").0, 200);
    stage.note("rules", made.len());
    keeper.judge(stage, &book);
    running.stop();
}

fn retry_log(keeper: &Keeper) -> u64 {
    let segment = keeper.sluice.path().join("data/retry/hook/0000000001.segment");
    File::open(segment).and_then(|file| file.metadata()).map_or(0, |found| found.len())
}

/// Starts a process so that none of its files may have more than so many KiB.
fn bounded(keeper: &Keeper, kib: u32) -> Running {
    let script = format!("trap '' XFSZ; ulimit -f {kib}; exec \"$0\" run -c sluice.yaml");
    keeper.spawn(Command::new("bash").args(["-c", &script]).arg(program()))
}

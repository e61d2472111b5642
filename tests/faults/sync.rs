//! F19: nothing is answered before it is on the disk, and nothing more once the disk has failed to sync.
//!
//! The kernel's word for it: the process runs under strace, which also injects the errors.

use crate::caller::{Book, Caller};
use crate::keeper::Keeper;
use crate::process::{Running, program};
use crate::setup::LONG;
use crate::stage::{Stage, until};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Callers at once.
const CALLERS: u64 = 4;

/// A system call as it was traced; its begin and end are lines of the trace.
struct Step {
    call: String,
    words: String,
    begin: usize,
    end: usize,
}

impl Step {
    fn is(&self, call: &str) -> bool {
        self.call == call
    }

    fn good(&self) -> bool {
        !self.words.contains(") = -1 ")
    }

    /// The segment of a journal that it is about.
    fn segment(&self) -> Option<&str> {
        let path = self.words.split_once('<')?.1.split_once('>')?.0;
        path.ends_with(".segment").then_some(path)
    }

    /// Events that it says are accepted.
    fn accepts(&self) -> impl Iterator<Item = &str> {
        let answer = self.words.contains("HTTP/1.1 200 ") && !self.is("fdatasync");
        let ids = self.words.split("EventId\\\":\\\"").skip(1).filter_map(|rest| rest.get(..36));
        ids.filter(move |_| answer)
    }
}

/// The calls of a trace, in the order of their ends.
fn steps(trace: &Path) -> Vec<Step> {
    let text = String::from_utf8_lossy(&std::fs::read(trace).expect("a trace")).into_owned();
    let (mut open, mut steps): (HashMap<String, (usize, String)>, _) = (HashMap::new(), Vec::new());
    for (line, text) in text.lines().enumerate() {
        let Some((thread, rest)) = text.split_once(' ') else { continue };
        let rest = rest.trim_start();
        let (begin, words) = if let Some(begun) = rest.strip_suffix(" <unfinished ...>") {
            open.insert(thread.to_owned(), (line, begun.to_owned()));
            continue;
        } else if let Some(resumed) = rest.strip_prefix("<... ") {
            let Some((begin, begun)) = open.remove(thread) else { continue };
            (begin, begun + resumed.split_once(" resumed>").map_or("", |(_, rest)| rest))
        } else {
            (line, rest.to_owned())
        };
        if let Some((call, _)) = words.split_once('(') {
            steps.push(Step { call: call.to_owned(), begin, end: line, words });
        }
    }
    steps
}

/// How many events were answered, and how many of them before a sync that covers their record.
fn early(steps: &[Step]) -> (usize, usize) {
    let writes: Vec<&Step> = steps.iter().filter(|step| step.is("write") && step.segment().is_some()).collect();
    let syncs: Vec<&Step> = steps.iter().filter(|step| step.is("fdatasync") && step.good()).collect();
    let covered = |id: &str, answer: &Step| {
        let written = writes.iter().filter(|write| write.end < answer.begin && write.words.contains(id));
        written.into_iter().any(|write| {
            let after = |sync: &&&Step| write.end < sync.begin && sync.end < answer.begin;
            syncs.iter().filter(after).any(|sync| sync.segment() == write.segment())
        })
    };
    let answered: Vec<(&str, &Step)> = steps.iter().flat_map(|step| step.accepts().map(move |id| (id, step))).collect();
    let early = answered.iter().filter(|(id, answer)| !covered(id, answer)).count();
    (answered.len(), early)
}

fn traced(keeper: &Keeper, more: &[&str]) -> (Running, PathBuf) {
    let trace = keeper.sluice.path().join("trace");
    let mut command = Command::new("strace");
    // The tracer is no parent of the process, so that signals reach the process itself.
    command.args(["-D", "-f", "-y", "-s", "100000", "-e", "trace=fdatasync,fsync,write,writev,sendto,sendmsg"]);
    command.args(more).arg("-o").arg(&trace).arg(program()).args(["run", "-c", "sluice.yaml"]);
    (keeper.spawn(&mut command), trace)
}

/// Why processes cannot be traced here.
fn untraceable() -> Option<String> {
    match Command::new("strace").args(["-D", "-f", "-o", "/dev/null", "true"]).output() {
        Ok(done) if done.status.success() => None,
        Ok(done) => Some(format!("no tracing: {}", String::from_utf8_lossy(&done.stderr).trim())),
        Err(error) => Some(format!("no tracing: strace: {error}")),
    }
}

/// F19.
pub fn order_and_errors(stage: &Stage) {
    if let Some(why) = untraceable() {
        return stage.skip(&why);
    }
    order(stage);
    for error in ["EIO", "ENOSPC"] {
        failed_sync(stage, error);
    }
}

/// Callers side by side: each answer comes after a sync that began after its record was written.
fn order(stage: &Stage) {
    let keeper = Keeper::new("");
    keeper.hang(false);
    let (running, trace) = traced(&keeper, &[]);
    let calls = stage.pick(100, 20);
    let books: Vec<Book> = std::thread::scope(|scope| {
        let keeper = &keeper;
        let call = |caller: u64| {
            let (mut book, mut connection) = (Book::default(), Caller::new(&keeper.listen));
            for n in caller * calls..(caller + 1) * calls {
                book.put(&mut connection, n * 2..n * 2 + 2, 200);
            }
            book
        };
        let callers: Vec<_> = (0..CALLERS).map(|caller| scope.spawn(move || call(caller))).collect();
        callers.into_iter().map(|caller| caller.join().expect("a caller")).collect()
    });
    running.kill();
    let accepted: usize = books.iter().map(|book| book.accepted.len()).sum();
    let steps = steps(&trace);
    let (answered, early) = early(&steps);
    stage.note("answered", answered);
    stage.note("syncs", steps.iter().filter(|step| step.is("fdatasync")).count());
    stage.note("early", early);
    assert_eq!(early, 0, "{early} of {answered} events were answered before their sync");
    assert_eq!(answered, accepted, "the trace has every answer");
}

/// One sync fails, later ones would not: nothing is accepted any more until the process starts anew, and nothing is lost.
fn failed_sync(stage: &Stage, error: &str) {
    const GOOD: usize = 5;
    let keeper = Keeper::new("");
    keeper.hang(false);
    let inject = format!("inject=fdatasync:error={error}:when={}", GOOD + 1);
    let (running, trace) = traced(&keeper, &["-e", &inject]);
    let (mut book, mut caller) = (Book::default(), Caller::new(&keeper.listen));
    for n in (0..40).map(|n| n * 10) {
        book.put(&mut caller, n..n + 1, 200);
    }
    assert!(book.why.contains("could not be synced"), "{error}: the refusal says why: {}", book.why);
    until(&format!("{error}: health says what is wrong"), LONG, || {
        let why = running.get("/readyz?verbose").unwrap_or_default().1;
        why.contains("journal: ") && why.contains("could not be synced")
    });
    running.kill();
    let steps = steps(&trace);
    let failed = steps.iter().find(|step| step.words.contains("(INJECTED)")).expect("a sync that failed");
    let after = steps.iter().filter(|step| step.begin > failed.begin).flat_map(Step::accepts).count();
    assert_eq!(after, 0, "{error}: {after} events were accepted after a sync had failed");
    assert_eq!(early(&steps), (GOOD, 0), "{error}: what was accepted before is on the disk");
    assert_eq!(book.accepted.len(), GOOD, "{error}");
    let running = keeper.start();
    assert_eq!(book.put(&mut Caller::new(&keeper.listen), 1000..1010, 200), 0, "{error}: a new process accepts events");
    keeper.judge(stage, &book);
    // The one whose sync failed: nobody can say whether the disk has it, so it may come.
    assert!(keeper.uncalled(&book) <= 1, "events that were refused are delivered");
    running.stop();
}

//! A process that takes events over HTTP and keeps them, and what became of them.

use crate::caller::Book;
use crate::oracle::letters;
use crate::ports::free_port;
use crate::process::{Running, Sluice};
use crate::receiver::{Act, Receiver};
use crate::setup::{LONG, Route, config, gets};
use crate::stage::{Stage, rest, until};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const TO_HOOK: [u64; 7] = [0, 1, 2, 3, 4, 5, 6];
const TO_NOBODY: [u64; 3] = [7, 8, 9];

/// A process that takes events over HTTP: for an endpoint that may hang, and for one that refuses everything.
pub struct Keeper {
    pub sluice: Sluice,
    pub listen: String,
    hook: Receiver,
    hangs: Arc<AtomicBool>,
    _no: Receiver,
}

impl Keeper {
    pub fn new(limits: &str) -> Self {
        let hangs = Arc::new(AtomicBool::new(true));
        let flag = Arc::clone(&hangs);
        let hook = Receiver::start(move |_, _| if flag.load(Ordering::Relaxed) { Act::Hang } else { Act::ok() });
        let no = Receiver::start(|_, _| Act::status("400 Bad Request"));
        let listen = format!("127.0.0.1:{}", free_port());
        let patient = "retry: { initial: 100ms, max: 500ms, max_attempts: 185 }";
        let routes = [
            Route {
                name: "hook",
                remainders: &TO_HOOK,
                target: format!("http: {{ url: \"{}\", timeout: 2s, max_in_flight: 32 }}, {patient}", hook.url),
            },
            Route { name: "no", remainders: &TO_NOBODY, target: format!("http: {{ url: \"{}\" }}", no.url) },
        ];
        let head = format!(
            "{limits}server: {{ listen: \"{listen}\", admin: \"{{admin}}\", accept_timeout: 5s, shutdown: {{ drain_timeout: 5s }} }}\n"
        );
        Self { sluice: Sluice::new(&config(&head, "", &routes, "")), listen, hook, hangs, _no: no }
    }

    fn ready(&self, running: Running) -> Running {
        until("it is ready", LONG, || running.get("/readyz").is_some_and(|(status, _)| status.contains("200")));
        running
    }

    pub fn start(&self) -> Running {
        self.ready(self.sluice.start(&[]))
    }

    /// Starts it by a command of its own.
    pub fn spawn(&self, command: &mut Command) -> Running {
        self.ready(self.sluice.spawn(command))
    }

    pub fn hang(&self, hangs: bool) {
        self.hangs.store(hangs, Ordering::Relaxed);
    }

    /// What was accepted and is at its end: for the endpoint, and as dead letters.
    pub fn lost(&self, book: &Book) -> (usize, usize) {
        let requests = self.hook.requests();
        let good = requests.iter().filter(|request| request.answer.starts_with('2')).map(|request| &*request.body);
        let letters = letters(&self.sluice);
        let dead = letters.iter().filter_map(|letter| letter["event"].as_str()).map(str::as_bytes);
        (book.lost(good, gets(&TO_HOOK)), book.lost(dead, gets(&TO_NOBODY)))
    }

    /// Requests that the endpoint has had.
    pub fn requests(&self) -> usize {
        self.hook.count()
    }

    /// How many accepted events are not among the requests after so many.
    pub fn lost_since(&self, book: &Book, before: usize) -> usize {
        let requests = self.hook.requests();
        let good = requests[before..].iter().filter(|request| request.answer.starts_with('2'));
        book.lost(good.map(|request| &*request.body), gets(&TO_HOOK))
    }

    /// Waits until all that was accepted has come to its end, or nothing more comes; judges.
    pub fn judge(&self, stage: &Stage, book: &Book) {
        rest(Duration::from_secs(8), || self.lost(book), |lost| *lost == (0, 0));
        let (lost, dead) = self.lost(book);
        stage.note("accepted", book.accepted.len());
        stage.note("refused", book.refused.len());
        stage.note("lost", lost + dead);
        assert_eq!(lost, 0, "events that were accepted are lost, of {}", book.accepted.len());
        assert_eq!(dead, 0, "accepted events that are lost as dead letters, of {}", book.accepted.len());
    }

    /// How many events were delivered though they had been refused.
    pub fn uncalled(&self, book: &Book) -> usize {
        book.uncalled(self.hook.requests().iter().map(|request| &*request.body))
    }
}

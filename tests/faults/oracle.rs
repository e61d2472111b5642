//! What must arrive where, and what did. It knows nothing of Sluice but the form of its outputs: an id is (producer,
//! sequence), and payload, key and targets are functions of it.

use crate::kafka::Kafka;
use crate::process::Sluice;
use crate::receiver::Receiver;
use serde_json::Value;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};

/// Distinct keys.
pub const KEYS: u64 = 96;

/// The key of an event; its order is kept within it.
pub fn key(n: u64) -> u64 {
    n % KEYS
}

/// The detail of the event of an id.
pub fn detail(p: u16, n: u64) -> String {
    let pad = "x".repeat(100 + (n % 200) as usize);
    format!("{{\"p\":{p},\"n\":{n},\"m\":{},\"h\":{},\"k\":\"k{}\",\"pad\":\"{pad}\"}}", n % 10, n % 12, key(n))
}

/// The event of an id.
pub fn event(p: u16, n: u64) -> String {
    format!(
        "{{\"version\":\"0\",\"id\":\"{p}-{n}\",\"source\":\"faults\",\"account\":\"123456789012\",\"time\":\"2026-01-01T00:00:00Z\",\
         \"region\":\"us-east-1\",\"resources\":[],\"detail-type\":\"step\",\"detail\":{}}}",
        detail(p, n)
    )
}

/// The id that a payload says it has, and whether it is that event, whole.
fn read(payload: &[u8]) -> Option<(u16, u64, bool)> {
    let text = std::str::from_utf8(payload).ok()?;
    let rest = text.strip_prefix("{\"version\":\"0\",\"id\":\"")?;
    let (p, n) = rest.split_once('"')?.0.split_once('-')?;
    let (p, n) = (p.parse().ok()?, n.parse().ok()?);
    Some((p, n, text == event(p, n)))
}

/// What was found at one target.
#[derive(Debug, Default, Clone)]
pub struct Verdict {
    pub expected: u64,
    pub lost: u64,
    pub first_lost: Option<(usize, u64)>,
    pub duplicates: u64,
    /// Events of which some delivery came more than once.
    pub duplicate_events: u64,
    /// First deliveries behind a later one of the same key.
    pub inversions: u64,
    pub altered: u64,
    /// Deliveries that the model does not expect there.
    pub stray: u64,
    /// Repetitions with another delivery id.
    pub renamed: u64,
}

impl Verdict {
    pub fn figures(&self) -> [(&'static str, u64); 5] {
        [
            ("deliveries", self.expected),
            ("lost", self.lost),
            ("duplicates", self.duplicates),
            ("inversions", self.inversions),
            ("altered", self.altered),
        ]
    }
}

/// One target's counters, one per id.
pub struct Ledger<'a> {
    expects: &'a dyn Fn(u64) -> bool,
    /// How often each id came, by producer.
    counts: Vec<Vec<u8>>,
    names: HashMap<(u16, u64), String>,
    last: HashMap<(u16, u64), u64>,
    found: Verdict,
    /// Whether order is promised here.
    ordered: bool,
}

impl<'a> Ledger<'a> {
    /// A ledger for producers that sent `sent` events each; `expects` says which of them belong here.
    pub fn new(sent: &[u64], expects: &'a dyn Fn(u64) -> bool) -> Self {
        let counts = sent.iter().map(|&count| vec![0; count as usize]).collect();
        Self { expects, counts, names: HashMap::new(), last: HashMap::new(), found: Verdict::default(), ordered: true }
    }

    /// Notes a delivery.
    pub fn take(&mut self, payload: &[u8], delivery: Option<&str>) {
        let Some((p, n, whole)) = read(payload) else {
            self.found.altered += 1;
            return;
        };
        self.found.altered += u64::from(!whole);
        let known = self.counts.get_mut(usize::from(p)).and_then(|all| all.get_mut(n as usize));
        let Some(count) = known.filter(|_| (self.expects)(n)) else {
            self.found.stray += 1;
            return;
        };
        *count = count.saturating_add(1);
        if *count == 1 {
            let last = self.last.entry((p, key(n))).or_insert(n);
            self.found.inversions += u64::from(self.ordered && *last > n);
            *last = n.max(*last);
        } else {
            self.found.duplicates += 1;
            self.found.duplicate_events += u64::from(*count == 2);
        }
        if let Some(delivery) = delivery {
            let first = self.names.entry((p, n)).or_insert_with(|| delivery.to_owned());
            self.found.renamed += u64::from(first != delivery);
        }
    }

    /// The sum.
    pub fn close(mut self) -> Verdict {
        for (p, counts) in self.counts.iter().enumerate() {
            for (n, count) in (0..).zip(counts) {
                if (self.expects)(n) {
                    self.found.expected += 1;
                    if *count == 0 {
                        self.found.lost += 1;
                        self.found.first_lost = self.found.first_lost.or(Some((p, n)));
                    }
                }
            }
        }
        self.found
    }

    /// Notes everything in a topic.
    pub fn topic(mut self, kafka: &Kafka, topic: &str) -> Self {
        kafka.each(topic, |record| self.take(&record.payload, record.header("sluice-delivery-id")));
        self
    }

    /// Leaves order out.
    pub fn unordered(mut self) -> Self {
        self.ordered = false;
        self
    }

    /// Notes every request that a receiver answered well. Attempts run side by side, so they have no order.
    pub fn receiver(self, receiver: &Receiver) -> Self {
        let mut ledger = self.unordered();
        for request in receiver.requests().iter().filter(|request| request.answer.starts_with('2')) {
            ledger.take(&request.body, request.header("webhook-id"));
        }
        ledger
    }

    /// Notes every dead letter in a data directory that `wanted` picks.
    pub fn dead_letters(self, sluice: &Sluice, wanted: impl Fn(&Value) -> bool) -> Self {
        let mut ledger = self.unordered();
        for letter in letters(sluice).iter().filter(|letter| wanted(letter)) {
            ledger.take(letter["event"].as_str().unwrap_or_default().as_bytes(), letter["sluice-delivery-id"].as_str());
        }
        ledger
    }
}

/// How many dead letters the default bus has; for more than fit into memory.
pub fn letter_count(sluice: &Sluice) -> u64 {
    let files = std::fs::read_dir(sluice.path().join("data/dead-letters/default")).into_iter().flatten().flatten();
    let count = |file: std::fs::DirEntry| {
        let lines = BufReader::new(File::open(file.path()).expect("a file")).split(b'\n');
        lines.filter(|line| line.as_ref().is_ok_and(|line| !line.is_empty())).count() as u64
    };
    files.filter(|file| file.path().is_file()).map(count).sum()
}

/// The dead letters of the default bus.
pub fn letters(sluice: &Sluice) -> Vec<Value> {
    // A process that was killed may have left the beginning of a line.
    sluice.lines("dead-letters/default").iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

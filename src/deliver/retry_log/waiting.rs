//! What waits in a retry log, and in which order it may be tried. Pure: `D` is a delivery that is still in memory.
//!
//! Records come out when they are due, whatever stands before them. Those with an order, a hash other than 0, come one
//! at a time a **lane**: the next one after the first has settled. In a lane deliveries in memory stand among records,
//! so that a target whose log is in use keeps its order.

use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};

/// Attempts of one log under way at once, and their bytes.
pub const WINDOW: (usize, u64) = (1024, 8 << 20);

/// A record that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Milliseconds since the log was opened.
    pub due: u64,
    /// The record's number.
    pub sequence: u64,
    /// Attempts that failed.
    pub failed: u32,
    /// What it must not be overtaken by; 0 is nothing.
    pub order: u64,
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The earliest first; in the order in which they were put where they are due together.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.due, other.sequence).cmp(&(self.due, self.sequence))
    }
}

/// The records of a log, and the lanes of its target.
#[derive(Debug)]
pub struct Waiting<D> {
    due: BinaryHeap<Entry>,
    lanes: HashMap<u64, Lane<D>>,
    under_way: usize,
    bytes: u64,
}

/// Deliveries of one order. There is one as long as its first is on its way.
#[derive(Debug)]
struct Lane<D> {
    /// The log has the first: what comes goes there, too.
    logged: bool,
    behind: VecDeque<Next<D>>,
}

/// What comes after the first of a lane.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<D> {
    /// In memory.
    Here(D),
    /// In the log.
    Logged(Entry),
}

impl<D> Default for Waiting<D> {
    fn default() -> Self {
        Self { due: BinaryHeap::new(), lanes: HashMap::new(), under_way: 0, bytes: 0 }
    }
}

impl<D> Waiting<D> {
    /// A delivery of this order arrives that is in memory: it comes back where it may be tried at once.
    pub fn arrive(&mut self, order: u64, delivery: D) -> Option<D> {
        match self.lanes.get_mut(&order) {
            None => {
                self.lanes.insert(order, Lane { logged: false, behind: VecDeque::new() });
                Some(delivery)
            }
            Some(lane) => {
                lane.behind.push_back(Next::Here(delivery));
                None
            }
        }
    }

    /// Whether what arrives in this order must be put into the log. Not behind what only memory has: a crash would leave
    /// the later one alone in the log.
    pub fn is_logged(&self, order: u64) -> bool {
        let in_log = |lane: &Lane<D>| lane.logged && !matches!(lane.behind.back(), Some(Next::Here(_)));
        self.lanes.get(&order).is_some_and(in_log)
    }

    /// The log has the first of a lane now. Returns what waits in memory behind it, to be put in this order.
    pub fn logged(&mut self, order: u64) -> Vec<D> {
        let Some(lane) = self.lanes.get_mut(&order) else { return Vec::new() };
        lane.logged = true;
        let in_memory = lane.behind.iter().position(|next| matches!(next, Next::Here(_))).unwrap_or(lane.behind.len());
        let here = |next| match next {
            Next::Here(delivery) => Some(delivery),
            Next::Logged(_) => None,
        };
        lane.behind.split_off(in_memory).into_iter().filter_map(here).collect()
    }

    /// A record waits: for its time, or in its lane.
    pub fn add(&mut self, entry: Entry) {
        if entry.order != 0 {
            if let Some(lane) = self.lanes.get_mut(&entry.order) {
                return lane.behind.push_back(Next::Logged(entry));
            }
            self.lanes.insert(entry.order, Lane { logged: true, behind: VecDeque::new() });
        }
        self.due.push(entry);
    }

    /// A record waits that is the first of its lane, if it has one.
    pub fn again(&mut self, entry: Entry) {
        self.due.push(entry);
    }

    /// A record could not be kept: its delivery stays in memory. It comes back where it was the first of its lane.
    pub fn unkept(&mut self, order: u64, sequence: u64, delivery: D) -> Option<D> {
        let Some(lane) = self.lanes.get_mut(&order) else { return Some(delivery) };
        let at = |next: &Next<D>| matches!(next, Next::Logged(entry) if entry.sequence == sequence);
        if let Some(next) = lane.behind.iter_mut().find(|next| at(next)) {
            *next = Next::Here(delivery);
            return None;
        }
        lane.logged = false;
        self.due.retain(|entry| entry.sequence != sequence);
        Some(delivery)
    }

    /// The first of a lane has settled. The next one comes back where it is in memory.
    pub fn end(&mut self, order: u64) -> Option<D> {
        let lane = self.lanes.get_mut(&order)?;
        match lane.behind.pop_front() {
            None => {
                self.lanes.remove(&order);
                None
            }
            Some(Next::Here(delivery)) => {
                lane.logged = false;
                Some(delivery)
            }
            Some(Next::Logged(entry)) => {
                lane.logged = true;
                self.due.push(entry);
                None
            }
        }
    }

    /// How many wait for their time.
    pub fn count(&self) -> usize {
        self.due.len()
    }

    /// What is due first.
    pub fn first(&self) -> Option<Entry> {
        self.due.peek().copied()
    }

    /// Takes what is due first, for an attempt.
    pub fn take(&mut self) -> Option<Entry> {
        let entry = self.due.pop()?;
        self.under_way += 1;
        Some(entry)
    }

    /// An attempt holds so many bytes.
    pub fn holds(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// An attempt has ended that was taken here, of so many bytes. Whether there was no room for another.
    pub fn ended(&mut self, bytes: u64) -> bool {
        let full = self.is_full();
        self.under_way = self.under_way.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        full
    }

    /// Whether no more may be taken.
    pub fn is_full(&self) -> bool {
        self.under_way >= WINDOW.0 || self.bytes >= WINDOW.1
    }

    /// Attempts that were taken here.
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    /// Takes out those of these records, ascending, that wait for their time and have no order.
    pub fn take_out(&mut self, sequences: &[u64]) -> Vec<Entry> {
        let wanted = |entry: &Entry| entry.order == 0 && sequences.binary_search(&entry.sequence).is_ok();
        let (out, rest) = std::mem::take(&mut self.due).into_vec().into_iter().partition(wanted);
        self.due = Vec::into(rest);
        out
    }

    /// Drops the records of a partition that is taken away, and what is in memory of it: by sequence, and by whether a
    /// delivery is one of them. A lane whose first is under way waits for its end.
    pub fn drop_out(&mut self, records: &HashSet<u64>, here: impl Fn(&D) -> bool) -> Dropped<D> {
        let mut dropped = Dropped { entries: Vec::new(), deliveries: Vec::new(), next: Vec::new() };
        let all = std::mem::take(&mut self.due).into_vec().into_iter();
        let (out, rest): (Vec<_>, Vec<_>) = all.partition(|entry| records.contains(&entry.sequence));
        self.due = rest.into();
        let first: HashSet<u64> = out.iter().map(|entry| entry.order).filter(|order| *order != 0).collect();
        dropped.entries.extend(out);
        for lane in self.lanes.values_mut() {
            for next in std::mem::take(&mut lane.behind) {
                match next {
                    Next::Logged(entry) if records.contains(&entry.sequence) => dropped.entries.push(entry),
                    Next::Here(delivery) if here(&delivery) => dropped.deliveries.push(delivery),
                    other => lane.behind.push_back(other),
                }
            }
        }
        dropped.next = first.into_iter().filter_map(|order| self.end(order)).collect();
        dropped
    }
}

/// What was dropped, and what follows it.
#[derive(Debug)]
pub struct Dropped<D> {
    /// Records that waited.
    pub entries: Vec<Entry>,
    /// Deliveries in memory.
    pub deliveries: Vec<D>,
    /// Deliveries of other partitions whose turn has come.
    pub next: Vec<D>,
}

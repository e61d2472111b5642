//! Which records of one partition of a retry topic are live: plain state, and the form in which a commit carries it.
//!
//! A committed offset alone says that everything before it is done with. Deliveries end in any order, so the commit's
//! metadata names what is done with after it, as ranges.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use std::collections::BTreeMap;

/// What brokers take as metadata by default is 4,096 bytes; more than this is not written.
const METADATA: usize = 3_000;
/// Ranges beyond which the oldest records should be put anew.
const RANGES: usize = 500;

/// One partition's records, by offset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offsets {
    /// Every record before it is in `live`, or gone.
    frontier: i64,
    /// After the last record that is known of.
    end: i64,
    /// Those that are known and not done with, and what their user calls them.
    live: BTreeMap<i64, u64>,
    /// Those that are done with and not before `frontier`: the first, and the one after the last.
    gone: BTreeMap<i64, i64>,
}

impl Offsets {
    /// The state of a partition that begins at `low` and ends before `end`, as it was committed, if it was.
    pub fn restore((low, end): (i64, i64), committed: Option<(i64, &str)>) -> Self {
        // A topic that was made anew begins anew.
        let committed = committed.filter(|(at, _)| *at <= end);
        let (at, gone) = committed.map_or((low, BTreeMap::new()), |(at, text)| (at, decode(at, text)));
        // What is no more was done with.
        let mut offsets = Self { frontier: at.max(low), end, live: BTreeMap::new(), gone };
        offsets.absorb();
        offsets
    }

    /// The next record to be read, unless there is none.
    pub fn unread(&self) -> Option<(i64, i64)> {
        (self.frontier < self.end).then_some((self.frontier, self.end))
    }

    /// How many records are not done with, those not read among them.
    pub fn count(&self) -> u64 {
        let unread = u64::try_from(self.end - self.frontier).unwrap_or(0);
        let known = self.live.range(self.frontier..).count() as u64;
        let gone: i64 = self.gone.iter().map(|(from, to)| to - from).sum();
        (self.live.len() as u64 + unread).saturating_sub(known + u64::try_from(gone).unwrap_or(0))
    }

    /// What is known of every record before this offset.
    pub fn known_until(&self) -> i64 {
        self.frontier
    }

    /// What the user calls the record at `offset`.
    pub fn sequence(&self, offset: i64) -> Option<u64> {
        self.live.get(&offset).copied()
    }

    /// How many records are known and not done with.
    pub fn live(&self) -> usize {
        self.live.len()
    }

    /// A record has been written at `offset`. Where it does not follow what is known, or there is no `room`, it is left
    /// to be read later, unless it `must` be known. Whether it is.
    pub fn written(&mut self, offset: i64, sequence: u64, (must, room): (bool, bool)) -> bool {
        self.end = self.end.max(offset + 1);
        // Before the frontier nothing is read any more.
        let known = must || offset < self.frontier || (room && offset == self.frontier);
        if known {
            self.live.insert(offset, sequence);
            self.absorb();
        }
        known
    }

    /// From the oldest record that is not done with to the last: how many it may be.
    pub fn span(&self) -> i64 {
        self.end - self.live.keys().next().map_or(self.frontier, |first| self.frontier.min(*first))
    }

    /// Whether a record is news; it is given `sequence` then.
    pub fn read(&mut self, offset: i64, sequence: u64) -> bool {
        if offset < self.frontier {
            return false;
        }
        // Offsets that no record has are done with.
        self.frontier = offset;
        self.absorb();
        let news = offset == self.frontier;
        if news {
            self.live.insert(offset, sequence);
            self.absorb();
        }
        news
    }

    /// Nothing is to be read before `offset` any more.
    pub fn passed(&mut self, offset: i64) {
        self.frontier = self.frontier.max(offset);
        self.absorb();
    }

    /// A record is done with.
    pub fn end(&mut self, offset: i64) {
        self.live.remove(&offset);
        if offset >= self.frontier {
            self.forget(offset);
        }
    }

    fn forget(&mut self, offset: i64) {
        let mut range = (offset, offset + 1);
        if let Some((&from, &to)) = self.gone.range(..=offset).next_back()
            && to >= offset
        {
            range = (from, to.max(offset + 1));
        }
        if let Some(to) = self.gone.remove(&range.1) {
            range.1 = to;
        }
        self.gone.insert(range.0, range.1);
    }

    /// Moves the frontier over what is known.
    fn absorb(&mut self) {
        loop {
            if self.live.contains_key(&self.frontier) {
                self.frontier += 1;
            } else if let Some((&from, &to)) = self.gone.first_key_value()
                && from <= self.frontier
            {
                self.gone.remove(&from);
                self.frontier = self.frontier.max(to);
            } else {
                break;
            }
        }
        self.end = self.end.max(self.frontier);
    }

    /// The offset to commit, and what is done with after it.
    pub fn commit(&self) -> (i64, String) {
        let mut at = self.live.keys().next().map_or(self.frontier, |first| self.frontier.min(*first));
        let first = at;
        let mut gone = Vec::new();
        for &offset in self.live.range(..self.frontier).map(|(offset, _)| offset) {
            if offset > at {
                gone.push((at, offset));
            }
            at = offset + 1;
        }
        if self.frontier > at {
            gone.push((at, self.frontier));
        }
        gone.extend(self.gone.iter().map(|(&from, &to)| (from, to)));
        (first, encode(first, gone))
    }

    /// The oldest records, where so many others have gone after them that a commit can hardly name those.
    pub fn crowded(&self) -> Vec<u64> {
        let mut holes = self.gone.len();
        let mut before = None;
        for &offset in self.live.keys() {
            holes += usize::from(before.is_some_and(|before| before + 1 < offset));
            before = Some(offset);
        }
        let worth = holes > RANGES;
        self.live.values().copied().take(if worth { RANGES } else { 0 }).collect()
    }
}

/// Ranges as pairs of how many are left out and how many are in, each in groups of seven bits.
fn encode(at: i64, gone: impl IntoIterator<Item = (i64, i64)>) -> String {
    let mut bytes = Vec::new();
    let mut at = at;
    for (from, to) in gone {
        let mut pair = Vec::new();
        for number in [from - at, to - from] {
            let mut rest = u64::try_from(number).unwrap_or(0);
            while rest > 0x7f {
                pair.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            pair.push(rest as u8);
        }
        if (bytes.len() + pair.len()).div_ceil(3) * 4 > METADATA {
            break;
        }
        bytes.extend(pair);
        at = to;
    }
    STANDARD_NO_PAD.encode(bytes)
}

/// What is no such text names nothing: those records come again.
fn decode(at: i64, text: &str) -> BTreeMap<i64, i64> {
    let bytes = STANDARD_NO_PAD.decode(text).unwrap_or_default();
    let mut numbers = Vec::new();
    let (mut number, mut shift) = (0_u64, 0_u32);
    for byte in bytes {
        number |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        shift += 7;
        if byte & 0x80 == 0 {
            numbers.push(i64::try_from(number).unwrap_or(0));
            (number, shift) = (0, 0);
        }
    }
    let mut gone = BTreeMap::new();
    let mut at = at;
    for pair in numbers.chunks_exact(2) {
        let (Some(from), Some(to)) =
            (at.checked_add(pair[0]), at.checked_add(pair[0]).and_then(|f| f.checked_add(pair[1])))
        else {
            break;
        };
        if to > from {
            gone.insert(from, to);
        }
        at = to;
    }
    gone
}

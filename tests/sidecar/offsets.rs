//! Which records of a retry topic's partition are live, against a set that knows: through writes, records of others,
//! reading, ends, and deaths at any moment.

use sluice::deliver::retry_log::topic::lines::{Line, Lines};
use sluice::deliver::retry_log::topic::offsets::Offsets;
use std::collections::{BTreeMap, BTreeSet};

/// xorshift64*, so that a seed is a row.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below
    }
}

/// What the topic has, and what one process knows of it.
struct World {
    offsets: Offsets,
    low: i64,
    /// After the last record.
    end: i64,
    /// Records that are not done with.
    open: BTreeSet<i64>,
    /// Those that the process knows, by what it calls them.
    known: BTreeMap<u64, i64>,
    next: u64,
    committed: Option<(i64, String)>,
}

impl World {
    fn write(&mut self, random: &mut Random) {
        let (offset, sequence) = (self.end, self.next);
        (self.end, self.next) = (self.end + 1, self.next + 1);
        self.open.insert(offset);
        if self.offsets.written(offset, sequence, (random.next(3) == 0, random.next(8) != 0)) {
            self.known.insert(sequence, offset);
        }
    }

    /// Another process writes, or an offset is left out.
    fn stray(&mut self, random: &mut Random) {
        if random.next(2) == 0 {
            self.open.insert(self.end);
        }
        self.end += 1;
    }

    fn read(&mut self) {
        let Some((from, to)) = self.offsets.unread() else { return };
        let there: Vec<i64> = self.open.range(from..to).copied().take(3).collect();
        if there.is_empty() {
            return self.offsets.passed(to);
        }
        for offset in there {
            if self.offsets.read(offset, self.next) {
                assert!(!self.known.values().any(|known| *known == offset), "{offset} is given out twice");
                self.known.insert(self.next, offset);
                self.next += 1;
            }
        }
    }

    fn end(&mut self, random: &mut Random) {
        let nth = random.next(self.known.len().max(1) as u64) as usize;
        let Some((&sequence, &offset)) = self.known.iter().nth(nth) else { return };
        self.known.remove(&sequence);
        self.open.remove(&offset);
        self.offsets.end(offset);
    }

    fn commit(&mut self) {
        let (offset, text) = self.offsets.commit();
        assert!(
            offset <= self.open.first().copied().unwrap_or(self.end),
            "{offset} is committed, {:?} are open",
            self.open
        );
        self.committed = Some((offset, text));
    }

    /// The next process begins with what was committed; the cluster may have forgotten what is before that.
    fn die(&mut self, random: &mut Random) {
        if let Some((offset, _)) = &self.committed
            && random.next(2) == 0
        {
            self.low = *offset;
        }
        let committed = self.committed.as_ref().map(|(offset, text)| (*offset, text.as_str()));
        self.offsets = Offsets::restore((self.low, self.end), committed);
        self.known.clear();
    }
}

fn check(seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut world = World {
        offsets: Offsets::restore((0, 0), None),
        low: 0,
        end: 0,
        open: BTreeSet::new(),
        known: BTreeMap::new(),
        next: 0,
        committed: None,
    };
    for _ in 0..200 {
        match random.next(40) {
            0..12 => world.write(&mut random),
            12 => world.stray(&mut random),
            13..20 => world.read(),
            20..34 => world.end(&mut random),
            34..39 => world.commit(),
            _ => world.die(&mut random),
        }
    }
    // A clean end: the next process finds what is open, and nothing else.
    world.commit();
    world.die(&mut random);
    while world.offsets.unread().is_some() {
        world.read();
    }
    let found: BTreeSet<i64> = world.known.values().copied().collect();
    assert_eq!(found, world.open, "seed {seed}");
    assert_eq!(world.offsets.count(), found.len() as u64, "seed {seed}");
}

#[test]
fn what_is_open_is_found_and_nothing_else() {
    (0..5_000).for_each(check);
}

/// Rows: what stands in a commit's metadata. What is no such text repeats deliveries, and loses none.
#[test]
fn metadata_that_is_not_ours_names_nothing() {
    for text in ["", "!", "hello", "////////////////////", "AAAA", "gICAgICAgICAgICAgICAAQ"] {
        let mut offsets = Offsets::restore((0, 4), Some((1, text)));
        let mut found = Vec::new();
        while let Some((from, to)) = offsets.unread() {
            (from..to).for_each(|offset| found.extend(offsets.read(offset, 0).then_some(offset)));
        }
        assert!(found.is_empty() || found.iter().all(|offset| (1..4).contains(offset)), "{text}: {found:?}");
    }
    let mut offsets = Offsets::restore((0, 4), Some((1, "hello")));
    assert!(offsets.read(1, 0));
}

/// More holes than a commit has room for: the rest comes again, and the oldest are asked to be put anew.
#[test]
fn a_commit_is_never_longer_than_brokers_take() {
    let mut offsets = Offsets::restore((0, 0), None);
    for n in 0..20_000 {
        assert!(offsets.written(n, n as u64, (true, true)));
    }
    (0..20_000).filter(|n| n % 2 == 1).for_each(|n| offsets.end(n));
    let (at, text) = offsets.commit();
    assert!(at == 0 && text.len() <= 4096 && text.len() > 2000, "{} bytes", text.len());
    assert_eq!(offsets.crowded().len(), 500);
}

/// Of the records of one delivery the one that has come farthest counts, of equals the last.
#[test]
fn one_record_of_a_delivery_counts() {
    // Rows: records as delivery and failed attempts, in the order in which they come; those that do not count.
    for (records, losers) in [
        (&[(1, 0), (1, 1), (1, 2)][..], &[0, 1][..]),
        (&[(1, 0), (2, 0), (1, 1)], &[0]),
        // What a dead process had on its way comes behind what its successor has written.
        (&[(1, 1), (1, 3), (1, 2)], &[0, 2]),
        (&[(1, 2), (1, 2)], &[0]),
        (&[(1, 0), (2, 0)], &[]),
    ] {
        let mut lines = Lines::default();
        let take = |(n, (id, failed)): (usize, &(u128, u32))| lines.take(Line { id: *id, failed: *failed }, n as u64);
        let out: Vec<u64> = records.iter().enumerate().filter_map(take).collect();
        assert_eq!(out, losers, "{records:?}");
        for (n, (id, failed)) in records.iter().enumerate() {
            lines.forget(Line { id: *id, failed: *failed }, n as u64);
        }
        assert_eq!(lines.count(), 0, "{records:?}");
    }
}

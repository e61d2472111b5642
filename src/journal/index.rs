//! Which records are live and where they stand. Pure; eight bytes a record of every segment that is still there.

use std::collections::VecDeque;

/// Where a record's head and body stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The segment's number.
    pub segment: u64,
    /// Of the record's head, in bytes.
    pub offset: u32,
    /// Of head and body together.
    pub len: u32,
}

/// Records by segment; sequences ascend through all of them.
#[derive(Debug, Default)]
pub struct Index {
    segments: VecDeque<Segment>,
    live: u64,
    live_bytes: u64,
    bytes: u64,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    /// The sequence of the first slot.
    first: u64,
    /// Offset and length; length 0 is a record that is gone or never was.
    slots: Vec<(u32, u32)>,
    live: u64,
    bytes: u64,
}

impl Index {
    /// Begins a segment; its records have sequences from `first` on.
    pub fn begin(&mut self, number: u64, first: u64) {
        self.segments.push_back(Segment { number, first, slots: Vec::new(), live: 0, bytes: 0 });
    }

    /// Notes that the newest segment has so many bytes more.
    pub fn grow(&mut self, bytes: u64) {
        if let Some(segment) = self.segments.back_mut() {
            segment.bytes += bytes;
            self.bytes += bytes;
        }
    }

    /// Notes a record of the newest segment. Sequences must ascend; one that does not is ignored.
    pub fn place(&mut self, sequence: u64, offset: u32, len: u32) {
        let Some(segment) = self.segments.back_mut() else { return };
        let Some(slot) = sequence.checked_sub(segment.first).and_then(|slot| usize::try_from(slot).ok()) else {
            return;
        };
        if slot < segment.slots.len() || len == 0 {
            return;
        }
        segment.slots.resize(slot, (0, 0));
        segment.slots.push((offset, len));
        segment.live += 1;
        self.live += 1;
        self.live_bytes += u64::from(len);
    }

    /// Notes that a record is done with. Whether it was live.
    pub fn remove(&mut self, sequence: u64) -> bool {
        let Some((segment, slot)) = self.slot(sequence) else { return false };
        let segment = &mut self.segments[segment];
        let len = std::mem::take(&mut segment.slots[slot].1);
        if len == 0 {
            return false;
        }
        segment.live -= 1;
        self.live -= 1;
        self.live_bytes -= u64::from(len);
        true
    }

    /// Where a live record stands.
    pub fn find(&self, sequence: u64) -> Option<Place> {
        let (segment, slot) = self.slot(sequence)?;
        let segment = &self.segments[segment];
        let (offset, len) = segment.slots[slot];
        (len > 0).then_some(Place { segment: segment.number, offset, len })
    }

    fn slot(&self, sequence: u64) -> Option<(usize, usize)> {
        let segment = self.segments.partition_point(|segment| segment.first <= sequence).checked_sub(1)?;
        let slot = usize::try_from(sequence - self.segments[segment].first).ok()?;
        (slot < self.segments[segment].slots.len()).then_some((segment, slot))
    }

    /// Sequences of live records, ascending.
    pub fn live_records(&self) -> impl Iterator<Item = u64> + '_ {
        self.segments.iter().flat_map(|segment| {
            let live = segment.slots.iter().zip(segment.first..).filter(|((_, len), _)| *len > 0);
            live.map(|(_, sequence)| sequence)
        })
    }

    /// Live records of the oldest segment, ascending.
    pub fn oldest(&self) -> Vec<u64> {
        let Some(segment) = self.segments.front() else { return Vec::new() };
        let live = segment.slots.iter().zip(segment.first..).filter(|((_, len), _)| *len > 0);
        live.map(|(_, sequence)| sequence).collect()
    }

    /// Forgets the oldest segments that hold nothing live, but for the newest `keep`, and returns their numbers. Only
    /// from the front: what a later segment says of an earlier record must last as long as that record.
    pub fn take_spent(&mut self, keep: usize) -> Vec<u64> {
        let mut spent = Vec::new();
        while self.segments.len() > keep && self.segments.front().is_some_and(|segment| segment.live == 0) {
            if let Some(segment) = self.segments.pop_front() {
                self.bytes -= segment.bytes;
                spent.push(segment.number);
            }
        }
        spent
    }

    /// How many records are live.
    pub fn live(&self) -> u64 {
        self.live
    }

    /// Their bytes.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many segments there are.
    pub fn segments(&self) -> usize {
        self.segments.len()
    }
}

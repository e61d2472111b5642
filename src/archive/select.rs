//! The events of a part of an archive in order of time, a window at a time.
//!
//! In: segments, or the records that a broker keeps. Out: windows of events. Promises: bounded memory, however large the
//! archive is; each event once, what was archived twice included; damage is passed over. A window is what comes next in
//! order: all segments, or stretches of partitions, that can have such events are read for it, which are few where events
//! were archived about in order, and all where they were not.

use super::broker::{Broker, Reader, Record, Stretch};
use super::segment::{self, Block, Sealed};
use super::{Archives, DAMAGED, Form, Segment, event_time};
use crate::event::Scanner;
use siphasher::sip128::{Hasher128, SipHasher13};
use std::borrow::Cow;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::fs::File;
use std::hash::Hasher;
use std::io::{self, BufRead, BufReader};
use std::sync::Arc;

/// Events of a window, and their bytes but for the last one.
const WINDOW: (usize, usize) = (65_536, 16 << 20);
/// Events of one time among which repetitions are known.
const KNOWN: usize = 1 << 20;
/// Sealed segments whose times are known from one window to the next; some 100 bytes each.
const SPANS: usize = 1 << 16;

/// An archived event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its own time, milliseconds since the epoch.
    pub time: i64,
    /// All of it, without a line end.
    pub text: Vec<u8>,
}

/// The times of what may have been anything.
const ALL: (i64, i64) = (i64::MIN, i64::MAX);

/// Time, segment or partition by number, and place among the segment's lines or offset.
type Place = (i64, u32, u64);

/// Part of an archive.
pub struct Selection {
    archives: Arc<Archives>,
    folder: String,
    from: i64,
    till: i64,
    /// The last event that was given: its time, its segment's name, and its place there.
    given: Option<(i64, String, u64)>,
    /// The same of an archive that a broker keeps.
    given_by: Option<Place>,
    reader: Option<Reader>,
    /// Times of sealed segments that were opened, by name: those that a window cannot have are not opened again.
    spans: HashMap<String, (i64, i64)>,
    /// Whether nobody wants more.
    stop: Box<dyn Fn() -> bool + Send>,
    /// Events of the time of the last one.
    known: HashSet<u128>,
    known_time: i64,
}

impl Selection {
    pub(super) fn new(archives: &Arc<Archives>, folder: &str, (from, till): (i64, i64)) -> Self {
        let (archives, folder) = (Arc::clone(archives), folder.to_owned());
        let (given, spans, given_by, reader, known) = Default::default();
        let stop = Box::new(|| false);
        Self { archives, folder, from, till, given, spans, given_by, reader, stop, known, known_time: i64::MIN }
    }

    /// Has a window that takes long end with `Interrupted` once nobody wants it.
    #[must_use]
    pub fn unless(mut self, stop: impl Fn() -> bool + Send + 'static) -> Self {
        self.stop = Box::new(stop);
        self
    }

    /// At most how many events there are.
    ///
    /// # Errors
    /// See [`Selection::window`].
    pub fn at_most(&self) -> io::Result<u64> {
        let Some(broker) = self.archives.broker(&self.folder) else {
            return Ok(self.archives.at_most(&self.folder, self.from, self.till));
        };
        broker.follow(&self.archives, &self.stop)?;
        Ok(broker.at_most(self.from, self.till))
    }

    /// The next events in order of time; none when all were given.
    ///
    /// # Errors
    /// A file cannot be read; a broker does not answer (`NotConnected`), and the same window can be asked for again.
    pub fn window(&mut self) -> io::Result<Vec<Event>> {
        loop {
            let events = match self.archives.broker(&self.folder) {
                Some(broker) => self.kept(&broker)?,
                None => self.filed()?,
            };
            let Some(((time, ..), _)) = events.last() else { return Ok(Vec::new()) };
            self.from = *time;
            let fresh = events.into_iter().map(|((time, ..), text)| Event { time, text });
            let fresh: Vec<Event> = fresh.filter(|event| self.is_new(event)).collect();
            if !fresh.is_empty() {
                return Ok(fresh);
            }
        }
    }

    /// The next events of segments.
    fn filed(&mut self) -> io::Result<Vec<(Place, Vec<u8>)>> {
        let segments = self.archives.segments(&self.folder)?;
        let mut window = Window { from: self.from, till: self.till, after: self.after(&segments), ..Window::default() };
        for segment in &segments {
            let span = self.spans.get(&segment.name).filter(|_| segment.form == Form::Sealed);
            if span.is_some_and(|span| !window.overlaps(*span)) {
                continue;
            }
            let (new, room) = (span.is_none(), self.spans.len() < SPANS);
            if let Some(span) = window.read(&self.archives, segment)?.filter(|_| new && room) {
                self.spans.insert(segment.name.clone(), span);
            }
        }
        let events = window.heap.into_sorted_vec();
        if let Some(((time, number, offset), _)) = events.last() {
            self.given = Some((*time, segments[*number as usize].name.clone(), *offset));
        }
        Ok(events)
    }

    /// The next events of those that a broker keeps.
    fn kept(&mut self, broker: &Broker) -> io::Result<Vec<(Place, Vec<u8>)>> {
        broker.follow(&self.archives, &self.stop)?;
        let mut window = Window { from: self.from, till: self.till, after: self.given_by, ..Window::default() };
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => broker.reader()?,
        };
        for (partition, stretch) in in_turn(broker.stretches(|partition, stretch| window.wants_of(partition, stretch)))
        {
            // What has been read since may have made it too late a one.
            if window.wants_of(partition, &stretch) {
                window.stretch(
                    (broker, &mut reader),
                    (partition, stretch),
                    (&self.archives, &self.folder),
                    &self.stop,
                )?;
            }
        }
        reader.rest();
        // What failed is opened anew.
        self.reader = Some(reader);
        let events = window.heap.into_sorted_vec();
        self.given_by = events.last().map(|(place, _)| *place).or(self.given_by);
        Ok(events)
    }

    /// The last place that was given, by the numbers that segments have now.
    fn after(&self, segments: &[Segment]) -> Option<Place> {
        let (time, name, offset) = self.given.as_ref()?;
        match segments.binary_search_by(|segment| segment.name.cmp(name)) {
            Ok(number) => Some((*time, u32::try_from(number).ok()?, *offset)),
            // It is not kept any longer; what was in those before it is given.
            Err(number) => Some((*time, u32::try_from(number.checked_sub(1)?).ok()?, u64::MAX)),
        }
    }

    /// Whether no event of its time has the same bytes. An id alone says nothing, for producers may give one twice.
    fn is_new(&mut self, event: &Event) -> bool {
        if self.known_time != event.time || self.known.len() >= KNOWN {
            self.known.clear();
            self.known_time = event.time;
        }
        let mut hasher = SipHasher13::new();
        hasher.write(&event.text);
        self.known.insert(hasher.finish128().as_u128())
    }
}

/// Stretches in the order in which they are read: the earliest first, about as many as a window holds; those of a
/// partition one after another, for a client that goes to another place throws away what it has read ahead.
fn in_turn(mut stretches: Vec<(u32, Stretch)>) -> impl Iterator<Item = (u32, Stretch)> {
    stretches.sort_unstable_by_key(|(_, stretch)| stretch.times.0);
    let mut bytes = 0;
    let mut turns: Vec<(u64, u32, Stretch)> = Vec::with_capacity(stretches.len());
    for (partition, stretch) in stretches {
        turns.push((bytes / WINDOW.1 as u64, partition, stretch));
        bytes += stretch.held.bytes;
    }
    turns.sort_unstable_by_key(|(turn, partition, stretch)| (*turn, *partition, stretch.first));
    turns.into_iter().map(|(_, partition, stretch)| (partition, stretch))
}

/// The first events after a place, as many as a window holds.
#[derive(Default)]
struct Window {
    from: i64,
    till: i64,
    after: Option<Place>,
    /// The last one on top.
    heap: BinaryHeap<(Place, Vec<u8>)>,
    bytes: usize,
    /// The first place that there was no room for.
    end: Option<Place>,
    scanner: Scanner,
}

impl Window {
    /// Takes what it has room for; the times of a segment that tells them, and will have no others.
    fn read(&mut self, archives: &Archives, segment: &Segment) -> io::Result<Option<(i64, i64)>> {
        match segment.form {
            Form::Plain => match File::open(&segment.path) {
                Ok(file) => {
                    let mut lines = BufReader::with_capacity(256 << 10, file);
                    self.lines(archives, segment, 0, &mut lines).map(|()| None)
                }
                // It was sealed a moment ago.
                Err(error) if error.kind() == io::ErrorKind::NotFound => match segment.sealed() {
                    Some(sealed) => self.read(archives, &sealed),
                    None => Ok(None),
                },
                Err(error) => Err(error),
            },
            Form::Sealed => match Sealed::open(&segment.path) {
                Ok(sealed) => {
                    let span = sealed.span();
                    self.blocks(archives, segment, sealed).map(|()| Some(span))
                }
                // It is not kept any longer.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) if is_damage(&error) => {
                    archives.damaged((&segment.path, u64::MAX), ALL, &error.to_string());
                    // What can be read without the index is, up to whatever else is damaged.
                    let all = segment::unpacked(&segment.path);
                    all.and_then(|mut all| self.lines(archives, segment, 0, &mut all)).unwrap_or_default();
                    Ok(None)
                }
                Err(error) => Err(error),
            },
        }
    }

    fn blocks(&mut self, archives: &Archives, segment: &Segment, mut sealed: Sealed) -> io::Result<()> {
        for block in std::mem::take(&mut sealed.blocks) {
            if !self.wants(&block, segment.number) {
                continue;
            }
            match sealed.lines(&block) {
                Ok(lines) => self.lines(archives, segment, block.offset, &mut &lines[..])?,
                Err(error) if is_damage(&error) => {
                    archives.damaged((&segment.path, block.at), block.times, &error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether it can take something of these times.
    fn overlaps(&self, (first, last): (i64, i64)) -> bool {
        last >= self.from && first < self.till && self.end.is_none_or(|end| first <= end.0)
    }

    fn stretch(
        &mut self,
        (broker, reader): (&Broker, &mut Reader),
        (partition, stretch): (u32, Stretch),
        (archives, folder): (&Archives, &str),
        stop: &dyn Fn() -> bool,
    ) -> io::Result<()> {
        let mut put = |record: &Record<'_>| {
            if broker.has(record) {
                match event_time(record.text, &mut self.scanner) {
                    Ok(Some(time)) => self.put((time, partition, record.offset), &one_line(record.text)),
                    Ok(None) => {}
                    Err(why) => archives.unreadable(folder, partition, record.offset, why),
                }
            }
        };
        reader.read(partition, (stretch.first, stretch.end), &mut put, stop).map(drop)
    }

    fn wants(&self, block: &Block, number: u32) -> bool {
        self.wants_some(block.times, number, (block.offset, block.offset + u64::from(block.bytes)))
    }

    fn wants_of(&self, partition: u32, stretch: &Stretch) -> bool {
        self.wants_some(stretch.times, partition, (stretch.first, stretch.end))
    }

    fn wants_some(&self, (first, last): (i64, i64), number: u32, (begin, end): (u64, u64)) -> bool {
        last >= self.from
            && first < self.till
            && self.after.is_none_or(|after| (last, number, end) > after)
            && self.end.is_none_or(|late| (first, number, begin) < late)
    }

    fn lines(&mut self, archives: &Archives, segment: &Segment, base: u64, input: &mut impl BufRead) -> io::Result<()> {
        let (mut times, mut damaged) = ((i64::MAX, i64::MIN), Vec::new());
        let read = segment::each_line(input, |offset, line| {
            let text = line.trim_ascii_end();
            match event_time(text, &mut self.scanner) {
                Ok(Some(time)) => {
                    times = (times.0.min(time), times.1.max(time));
                    self.put((time, segment.number, base + offset), text);
                }
                // Without a time it is in no range of times.
                Ok(None) => {}
                Err(why) if damaged.len() < DAMAGED => damaged.push((base + offset, why)),
                Err(_) => {}
            }
            Ok(())
        });
        // Such a line was written among the others.
        let times = if times.0 <= times.1 { times } else { ALL };
        damaged.into_iter().for_each(|(place, why)| archives.damaged((&segment.path, place), times, why));
        read
    }

    fn put(&mut self, place: Place, text: &[u8]) {
        let within = (self.from..self.till).contains(&place.0);
        if !within || self.after.is_some_and(|after| place <= after) || self.end.is_some_and(|end| place >= end) {
            return;
        }
        self.bytes += text.len();
        self.heap.push((place, text.to_vec()));
        while self.heap.len() > 1 && (self.heap.len() > WINDOW.0 || self.bytes > WINDOW.1) {
            if let Some((place, text)) = self.heap.pop() {
                self.bytes -= text.len();
                self.end = Some(place);
            }
        }
    }
}

/// Whether an error says that a file is there and not as it was written.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// An event on one line: a broker keeps it as it came, and outside of texts a line's end is a space.
fn one_line(text: &[u8]) -> Cow<'_, [u8]> {
    let ends = |byte: &u8| matches!(byte, b'\n' | b'\r');
    match text.iter().any(ends) {
        true => text.iter().map(|byte| if ends(byte) { b' ' } else { *byte }).collect::<Vec<_>>().into(),
        false => text.into(),
    }
}

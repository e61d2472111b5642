//! What a node asks the table for, gathered before any answer is looked at: the look-ups of one node do not wait
//! for each other's memory.
//!
//! In: the values of an event. Out: the places of lists. Promises: a key that a value satisfies is asked for; a place is
//! confirmed by bytes (I9).

use super::index::{Grams, Index, Place, Step, gram, salt};
use super::keys::{GRAM, Kind, address_key, word};
use super::table::{NOTHING, salted};
use crate::event::Value;
use crate::event::address::Address;

/// A look-up to be made.
#[derive(Clone, Copy)]
struct Probe {
    hash: u64,
    place: Place,
    owner: u32,
    /// The value it was cut out of; [`OWN`] where the operand lies in [`Probes::operands`].
    value: u32,
    start: u32,
    len: u32,
    kind: Kind,
    /// Whether the event may lead to the same list again.
    again: bool,
}

const OWN: u32 = u32::MAX;

/// A list that a value leads to.
pub(super) struct Found {
    pub place: Place,
    pub again: bool,
}

/// Where the probes of a node begin.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    probes: usize,
    operands: usize,
}

/// Reused memory of one worker.
#[derive(Default)]
pub(super) struct Probes {
    all: Vec<Probe>,
    /// Operands that do not stand in the event as they are.
    operands: Vec<u8>,
    /// What the last text was found to be, by where it lies.
    address: Option<(At, Option<Address>)>,
    /// By length, from one byte to [`GRAM`].
    runs: [Runs; GRAM],
}

/// Where a text lies, and its length.
type At = (usize, usize);

fn at(text: &[u8]) -> At {
    (text.as_ptr() as usize, text.len())
}

/// Where in a text grams that are filed may stand.
#[derive(Default)]
struct Runs {
    of: At,
    /// Grams with a place of each.
    all: Vec<(u32, u32)>,
}

/// Places of grams that are kept as they come; of more, each gram keeps one.
const FEW: usize = 256;

impl Runs {
    /// Looks for grams of `LEN` bytes.
    fn find<const LEN: usize>(&mut self, text: &[u8], grams: &Grams) {
        self.of = at(text);
        self.all.clear();
        let mut most = FEW;
        let (mut rest, mut start) = (text, 0);
        while let Some(bytes) = rest.first_chunk::<LEN>() {
            let gram = gram(bytes);
            if grams.may_hold(gram) {
                self.all.push((gram, start));
                if self.all.len() == most {
                    self.all.sort_unstable();
                    self.all.dedup_by_key(|(gram, _)| *gram);
                    most = FEW.max(self.all.len() * 2);
                }
            }
            rest = &rest[1..];
            start += 1;
        }
    }
}

/// A step with the place of a value for it.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub step: Step,
    /// Index among all values of the event.
    pub value: u32,
    /// Whether the event has other values for the step.
    pub many: bool,
}

impl Probes {
    /// Forgets the event before.
    pub fn start(&mut self) {
        self.all.clear();
        self.operands.clear();
        self.address = None;
        self.runs.iter_mut().for_each(|runs| runs.of = (0, 0));
    }

    pub fn mark(&self) -> Mark {
        Mark { probes: self.all.len(), operands: self.operands.len() }
    }

    pub fn cut(&mut self, mark: Mark) {
        self.all.truncate(mark.probes);
        self.operands.truncate(mark.operands);
    }

    /// Adds what a step looks up for a value; ranges are not looked up.
    #[inline(always)]
    pub fn add(&mut self, index: &Index, asked: Asked, value: &Value<'_>) {
        let (kind, part) = (asked.step.kind, asked.step.len);
        match *value {
            Value::String(text) if part as usize > text.len() && kind != Kind::Cidr => {}
            Value::String(text) => match kind {
                Kind::Text => self.cut_out(index, asked, text, 0, text.len() as u32),
                Kind::Prefix => self.cut_out(index, asked, text, 0, part),
                Kind::Suffix => self.cut_out(index, asked, text, text.len() as u32 - part, part),
                Kind::Gram => self.grams(index, asked, text),
                _ => self.changed(index, asked, text),
            },
            Value::Number(text, value) => match (kind, value) {
                (Kind::NumberText, _) => self.own(index, asked, text),
                (Kind::Number, Some(value)) => self.own(index, asked, &value.to_bits().to_le_bytes()),
                _ => {}
            },
            Value::Bool(value) if kind == Kind::Word => self.own(index, asked, &[word(Some(value))]),
            Value::Null if kind == Kind::Word => self.own(index, asked, &[word(None)]),
            Value::Bool(_) | Value::Null => {}
        }
    }

    fn grams(&mut self, index: &Index, asked: Asked, text: &[u8]) {
        let (grams, len) = (&index.grams[asked.step.field.0 as usize], asked.step.len);
        let which = len as usize - 1;
        if self.runs[which].of != at(text) {
            match len {
                1 => self.runs[which].find::<1>(text, grams),
                2 => self.runs[which].find::<2>(text, grams),
                3 => self.runs[which].find::<3>(text, grams),
                _ => self.runs[which].find::<GRAM>(text, grams),
            }
        }
        for n in 0..self.runs[which].all.len() {
            self.cut_out(index, asked, text, self.runs[which].all[n].1, len);
        }
    }

    /// Adds what is looked up in another form than it stands in the text.
    fn changed(&mut self, index: &Index, asked: Asked, text: &[u8]) {
        let part = asked.step.len as usize;
        let piece = match asked.step.kind {
            Kind::CaseText => text,
            Kind::CasePrefix => &text[..part],
            Kind::CaseSuffix => &text[text.len() - part..],
            Kind::Address | Kind::Cidr => return self.address(index, asked, text),
            _ => return,
        };
        let start = self.operands.len() as u32;
        self.operands.extend(piece.iter().map(u8::to_ascii_lowercase));
        self.owned(index, asked, start, piece.len() as u32);
    }

    fn address(&mut self, index: &Index, asked: Asked, text: &[u8]) {
        let known = self.address.filter(|known| known.0 == at(text));
        let known = known.unwrap_or_else(|| (at(text), Address::parse(text).ok()));
        self.address = Some(known);
        let Some(address) = known.1 else { return };
        let width = if matches!(address, Address::V4(_)) { 32 } else { 128 };
        let bits = (asked.step.kind == Kind::Cidr).then_some(asked.step.len as u8);
        if bits.is_none_or(|bits| bits <= width) {
            let mut operand = [0; 18];
            let len = address_key(address, bits, &mut operand);
            self.own(index, asked, &operand[..len]);
        }
    }

    fn own(&mut self, index: &Index, asked: Asked, operand: &[u8]) {
        let start = self.operands.len() as u32;
        self.operands.extend_from_slice(operand);
        self.owned(index, asked, start, operand.len() as u32);
    }

    fn owned(&mut self, index: &Index, asked: Asked, start: u32, len: u32) {
        let hash = index.seed.hash(&self.operands[start as usize..(start + len) as usize]);
        self.push(asked, hash, OWN, start, len);
    }

    #[inline(always)]
    fn cut_out(&mut self, index: &Index, asked: Asked, text: &[u8], start: u32, len: u32) {
        let hash = index.seed.hash(&text[start as usize..(start + len) as usize]);
        self.push(asked, hash, asked.value, start, len);
    }

    #[inline(always)]
    fn push(&mut self, Asked { step, many, .. }: Asked, hash: u64, value: u32, start: u32, len: u32) {
        let (owner, kind, again) = (step.owner, step.kind, many || step.kind == Kind::Gram);
        let hash = salted(hash, salt(owner, kind));
        self.all.push(Probe { hash, place: NOTHING, owner, value, start, len, kind, again });
    }

    /// Looks up what was added since `mark`; what is surely absent goes, the rest waits for [`Probes::found`].
    pub fn look_up(&mut self, mark: Mark, index: &Index) {
        let mut kept = mark.probes;
        for at in mark.probes..self.all.len() {
            let probe = self.all[at];
            self.all[kept] = probe;
            kept += usize::from(index.table.may_hold(probe.hash));
        }
        self.all.truncate(kept);
        for probe in &mut self.all[mark.probes..] {
            probe.place = index.table.first(probe.hash);
        }
        // So that the lists are under way before the first is read.
        let touched = self.all[mark.probes..].iter().map(|probe| index.blob.get(probe.place as usize).copied());
        std::hint::black_box(touched.fold(0, |sum, word| sum ^ word.unwrap_or(0)));
    }

    /// How many probes wait.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    pub fn first(mark: Mark) -> usize {
        mark.probes
    }

    /// The list of probe number `at`, if there is one.
    pub fn found<'e>(&self, at: usize, index: &Index, text: impl Fn(u32) -> &'e [u8]) -> Option<Found> {
        let Probe { hash, place, owner, value, start, len, kind, again } = self.all[at];
        let all = if value == OWN { &self.operands } else { text(value) };
        let operand = &all[start as usize..(start + len) as usize];
        let is = |place| index.is(place, owner, kind, operand);
        let place = if place != NOTHING && is(place) { Some(place) } else { index.table.find(hash, is) };
        place.map(|place| Found { place, again })
    }
}

//! Payload bytes to the fields that some rule names.
//!
//! Everything lives in the worker's arena for one event (I3). A value remembers its place: for every array that it
//! lies in through an object or a nested array, which element (pattern language, section 8.1).

use super::paths::{Branch, FieldId, PathTree};
use super::scan::{Scan, Scanner};
use super::walk::{Fault, Scalar, Visit, walk_as};
use super::{number, text};
use bumpalo::{Bump, collections::Vec as BumpVec};

/// A leaf of the event: strings decoded, numbers as they are spelled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'b> {
    /// Decoded text.
    String(&'b [u8]),
    /// The number's exact text, and its value where it is comparable.
    Number(&'b [u8], Option<f64>),
    /// `true` or `false`.
    Bool(bool),
    /// `null`.
    Null,
}

/// One value at one named path.
#[derive(Debug, Clone, Copy)]
pub struct Field<'b> {
    /// The path.
    pub id: FieldId,
    /// The leaf.
    pub value: Value<'b>,
    /// Which array elements it lies in; see [`Fields::places`].
    pub place: Place,
    next: u32,
}

/// A chain of array elements; [`Place::NONE`] for a value that lies in none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(u32);

impl Place {
    /// No array of objects around the value.
    pub const NONE: Place = Place(0);

    /// Elements are numbered in document order.
    pub fn number(self) -> u32 {
        self.0
    }
}

/// An element of one array of the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element {
    /// Number of the array within the event, in document order.
    pub array: u32,
    /// Index of the element.
    pub index: u32,
}

const NONE: u32 = u32::MAX;

/// The values of a field, as indexes into [`Fields::all`].
#[derive(Clone, Copy, Default)]
struct Mark {
    /// The event that it is of; in another one the field has no values.
    epoch: u32,
    first: u32,
    last: u32,
    count: u32,
    /// Whether any of them lies in an array of objects, and whether any does not.
    placed: bool,
    loose: bool,
}

/// Reused: a mark for every field of the largest tree seen, so that an event pays for the fields it has only.
#[derive(Default)]
pub(super) struct Marks {
    epoch: u32,
    all: Vec<Mark>,
}

impl Marks {
    fn next(&mut self, fields: usize) -> (u32, &mut [Mark]) {
        if self.epoch == u32::MAX {
            *self = Self::default();
        }
        self.epoch += 1;
        if self.all.len() < fields {
            self.all.resize(fields, Mark::default());
        }
        (self.epoch, &mut self.all)
    }
}

/// The named fields of one event.
pub struct Fields<'b> {
    values: BumpVec<'b, Field<'b>>,
    epoch: u32,
    marks: &'b mut [Mark],
    /// Element and the chain around it; entry 0 is no place.
    places: BumpVec<'b, (Element, Place)>,
}

impl<'b> Fields<'b> {
    #[inline(always)]
    fn mark(&self, id: FieldId) -> Option<&Mark> {
        self.marks.get(id.0 as usize).filter(|mark| mark.epoch == self.epoch)
    }

    /// The values at a path, in document order.
    pub fn values(&self, id: FieldId) -> impl Iterator<Item = &Field<'b>> {
        self.numbered(id).map(|(_, field)| field)
    }

    /// The values at a path, each with its index in [`Fields::all`].
    pub fn numbered(&self, id: FieldId) -> impl Iterator<Item = (u32, &Field<'b>)> {
        let mut at = self.mark(id).map_or(NONE, |mark| mark.first);
        std::iter::from_fn(move || {
            let field = self.values.get(at as usize)?;
            Some((std::mem::replace(&mut at, field.next), field))
        })
    }

    /// The text of the value at an index of [`Fields::all`]; empty for what is no string.
    pub fn text(&self, at: u32) -> &'b [u8] {
        match self.values.get(at as usize).map(|field| field.value) {
            Some(Value::String(text)) => text,
            _ => b"",
        }
    }

    /// Every value, in document order.
    pub fn all(&self) -> &[Field<'b>] {
        &self.values
    }

    /// Whether the event has a value at the path.
    pub fn has(&self, id: FieldId) -> bool {
        self.mark(id).is_some()
    }

    /// How many values the event has at the path.
    pub fn count(&self, id: FieldId) -> usize {
        self.mark(id).map_or(0, |mark| mark.count as usize)
    }

    /// Whether any value may lie in an array of objects.
    pub fn placed(&self) -> bool {
        self.places.len() > 1
    }

    /// Whether a value at the path lies in an array of objects.
    pub fn placed_at(&self, id: FieldId) -> bool {
        self.mark(id).is_some_and(|mark| mark.placed)
    }

    /// Whether a value at the path lies in no array of objects.
    pub fn loose_at(&self, id: FieldId) -> bool {
        self.mark(id).is_some_and(|mark| mark.loose)
    }

    /// The array elements around a value, innermost first, each with the place that it is.
    pub fn places(&self, place: Place) -> impl Iterator<Item = (Place, Element)> {
        let mut at = place;
        std::iter::from_fn(move || {
            if at == Place::NONE {
                return None;
            }
            let (element, outer) = self.places[at.0 as usize];
            Some((std::mem::replace(&mut at, outer), element))
        })
    }
}

/// Reads `payload` and keeps the values at the paths of `tree`.
///
/// # Errors
/// A [`Fault`] when the payload is not exactly one JSON object; the whole document is validated, whatever is kept.
pub fn decode<'b>(
    payload: &[u8],
    tree: &PathTree,
    scanner: &'b mut Scanner,
    bump: &'b Bump,
) -> Result<Fields<'b>, Fault> {
    let scan = scanner.stage.scan(payload)?;
    let marks = scanner.marks.next(tree.fields());
    match scan.escapes {
        true => read::<true>(&scan, tree, marks, bump),
        false => read::<false>(&scan, tree, marks, bump),
    }
}

#[inline(always)]
fn read<'b, const ESCAPES: bool>(
    scan: &Scan<'b>,
    tree: &PathTree,
    (epoch, marks): (u32, &'b mut [Mark]),
    bump: &'b Bump,
) -> Result<Fields<'b>, Fault> {
    let mut places = BumpVec::with_capacity_in(8, bump);
    places.push((Element { array: NONE, index: NONE }, Place::NONE));
    let values = BumpVec::with_capacity_in(32, bump);
    let mut reader = Reader::<ESCAPES> {
        tree,
        bump,
        padded: scan.padded,
        at: tree.root(),
        frame: Frame { at: tree.root(), place: Place::NONE, array: None },
        outer: BumpVec::with_capacity_in(16, bump),
        arrays: 0,
        fields: Fields { values, epoch, marks, places },
    };
    walk_as::<ESCAPES, _>(scan, &mut reader)?;
    Ok(reader.fields)
}

/// An open container.
#[derive(Clone, Copy)]
struct Frame {
    /// Where its values hang in the path tree.
    at: Branch,
    place: Place,
    /// Number and next index of an array; `None` for an object.
    array: Option<Element>,
}

/// `ESCAPES`: whether any string of the document may have escapes.
struct Reader<'b, 't, const ESCAPES: bool> {
    tree: &'t PathTree,
    bump: &'b Bump,
    /// The document with its padding.
    padded: &'b [u8],
    /// Where the value to come hangs in the path tree.
    at: Branch,
    frame: Frame,
    outer: BumpVec<'b, Frame>,
    arrays: u32,
    fields: Fields<'b>,
}

impl<'b, const ESCAPES: bool> Reader<'b, '_, ESCAPES> {
    #[inline(always)]
    fn decoded(&self, raw: &'b [u8]) -> &'b [u8] {
        if ESCAPES { self.unescaped(raw) } else { raw }
    }

    #[cold]
    fn unescaped(&self, raw: &'b [u8]) -> &'b [u8] {
        if memchr::memchr(b'\\', raw).is_none() {
            return raw;
        }
        let mut out = BumpVec::with_capacity_in(raw.len(), self.bump);
        text::unescape_into(raw, |piece| out.extend_from_slice(piece));
        out.into_bump_slice()
    }

    /// Where the key at `at` leads from the open object.
    #[inline(always)]
    fn under(&self, at: usize, raw: &'b [u8]) -> Branch {
        match (self.frame.at, ESCAPES) {
            (Branch::NONE, _) => Branch::NONE,
            (from, false) => self.tree.descend_at(from, raw, self.padded.get(at + 1..at + 9)),
            (from, true) => self.tree.descend(from, self.decoded(raw)),
        }
    }

    /// Counts an element of the open array, if one is open; returns the array and the element's index.
    #[inline(always)]
    fn element(&mut self) -> Option<Element> {
        let array = self.frame.array.as_mut()?;
        let here = *array;
        array.index += 1;
        self.at = self.frame.at;
        Some(here)
    }

    #[inline(always)]
    fn keep(&mut self, id: FieldId, value: Scalar<'b>) {
        let value = match value {
            Scalar::String(raw) => Value::String(self.decoded(raw)),
            Scalar::Number(text) => Value::Number(text, number::comparable(text)),
            Scalar::Bool(b) => Value::Bool(b),
            Scalar::Null => Value::Null,
        };
        let Fields { values, epoch, marks, .. } = &mut self.fields;
        let (fresh, placed) = (values.len() as u32, self.frame.place != Place::NONE);
        values.push(Field { id, value, place: self.frame.place, next: NONE });
        let mark = &mut marks[id.0 as usize];
        if mark.epoch == *epoch {
            values[mark.last as usize].next = fresh;
            (mark.last, mark.count) = (fresh, mark.count + 1);
            mark.placed |= placed;
            mark.loose |= !placed;
        } else {
            *mark = Mark { epoch: *epoch, first: fresh, last: fresh, count: 1, placed, loose: !placed };
        }
    }
}

impl<'b, const ESCAPES: bool> Visit<'b> for Reader<'b, '_, ESCAPES> {
    #[inline(always)]
    fn key(&mut self, at: usize, raw: &'b [u8]) {
        self.at = self.under(at, raw);
    }

    #[inline(always)]
    fn member(&mut self, (key, raw): (usize, &'b [u8]), _: (usize, usize), value: Scalar<'b>) {
        let at = self.under(key, raw);
        if at != Branch::NONE
            && let Some(id) = self.tree.field(at)
        {
            self.keep(id, value);
        }
    }

    #[inline(always)]
    fn scalar(&mut self, _at: usize, _end: usize, value: Scalar<'b>) {
        self.element();
        if self.at != Branch::NONE
            && let Some(id) = self.tree.field(self.at)
        {
            self.keep(id, value);
        }
    }

    #[inline(always)]
    fn open(&mut self, _at: usize, object: bool) {
        let mut place = self.frame.place;
        if let Some(element) = self.element()
            && self.at != Branch::NONE
        {
            place = Place(self.fields.places.len() as u32);
            self.fields.places.push((element, self.frame.place));
        }
        let array = (!object).then(|| {
            self.arrays += 1;
            Element { array: self.arrays, index: 0 }
        });
        self.outer.push(self.frame);
        self.frame = Frame { at: self.at, place, array };
    }

    #[inline(always)]
    fn close(&mut self, _end: usize) {
        if let Some(outer) = self.outer.pop() {
            self.frame = outer;
        }
    }
}

//! Payload bytes to the fields that some rule names.
//!
//! Everything lives in the worker's arena for one event (I3). A value remembers its place: for every array that it
//! lies in through an object or a nested array, which element (pattern language, section 8.1).

use super::paths::{Branch, FieldId, PathTree};
use super::scan::Scanner;
use super::walk::{Fault, Scalar, Visit, walk};
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

/// The named fields of one event.
pub struct Fields<'b> {
    values: BumpVec<'b, Field<'b>>,
    /// First and last value of each field, as indexes into `values`, and how many there are.
    ends: &'b mut [(u32, u32, u32)],
    /// Element and the chain around it; entry 0 is no place.
    places: BumpVec<'b, (Element, Place)>,
}

impl<'b> Fields<'b> {
    /// The values at a path, in document order.
    pub fn values(&self, id: FieldId) -> impl Iterator<Item = &Field<'b>> {
        let mut at = self.ends[id.0 as usize].0;
        std::iter::from_fn(move || {
            let field = self.values.get(at as usize)?;
            at = field.next;
            Some(field)
        })
    }

    /// Every value, in document order.
    pub fn all(&self) -> &[Field<'b>] {
        &self.values
    }

    /// Whether the event has a value at the path.
    pub fn has(&self, id: FieldId) -> bool {
        self.ends[id.0 as usize].0 != NONE
    }

    /// How many values the event has at the path.
    pub fn count(&self, id: FieldId) -> usize {
        self.ends[id.0 as usize].2 as usize
    }

    /// Whether any value lies in an array of objects.
    pub fn placed(&self) -> bool {
        self.places.len() > 1
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
pub fn decode<'b>(payload: &[u8], tree: &PathTree, scanner: &mut Scanner, bump: &'b Bump) -> Result<Fields<'b>, Fault> {
    let scan = scanner.scan(payload, bump)?;
    let mut reader = Reader {
        tree,
        bump,
        padded: scan.padded,
        escapes: scan.escapes,
        at: Some(tree.root()),
        frames: BumpVec::with_capacity_in(16, bump),
        arrays: 0,
        fields: Fields {
            values: BumpVec::with_capacity_in(32, bump),
            ends: bump.alloc_slice_fill_copy(tree.fields(), (NONE, NONE, 0)),
            places: BumpVec::with_capacity_in(8, bump),
        },
    };
    reader.fields.places.push((Element { array: NONE, index: NONE }, Place::NONE));
    walk(&scan, &mut reader)?;
    Ok(reader.fields)
}

/// An open container.
#[derive(Clone, Copy)]
struct Frame {
    /// Where its values hang in the path tree; `None` once no path goes on.
    at: Option<Branch>,
    place: Place,
    /// Number and next index of an array; `None` for an object.
    array: Option<Element>,
}

struct Reader<'b, 't> {
    tree: &'t PathTree,
    bump: &'b Bump,
    /// The document with its padding.
    padded: &'b [u8],
    /// Whether any string of the document may have escapes.
    escapes: bool,
    /// Where the value to come hangs in the path tree.
    at: Option<Branch>,
    frames: BumpVec<'b, Frame>,
    arrays: u32,
    fields: Fields<'b>,
}

impl<'b> Reader<'b, '_> {
    fn decoded(&self, raw: &'b [u8]) -> &'b [u8] {
        if !self.escapes || !raw.contains(&b'\\') {
            return raw;
        }
        let mut out = BumpVec::with_capacity_in(raw.len(), self.bump);
        text::unescape_into(raw, |piece| out.extend_from_slice(piece));
        out.into_bump_slice()
    }

    /// Counts an element of the open array; returns the array and the element's index.
    fn element(&mut self) -> Option<(Element, Place)> {
        let frame = self.frames.last_mut()?;
        let array = frame.array.as_mut()?;
        let here = *array;
        array.index += 1;
        self.at = frame.at;
        Some((here, frame.place))
    }
}

impl<'b> Visit<'b> for Reader<'b, '_> {
    fn key(&mut self, at: usize, raw: &'b [u8]) {
        let from = self.frames.last().and_then(|frame| frame.at);
        self.at = from.and_then(|from| match self.escapes {
            false => self.tree.descend_at(from, self.padded, at + 1, raw.len()),
            true => self.tree.descend(from, self.decoded(raw)),
        });
    }

    fn scalar(&mut self, _at: usize, _end: usize, value: Scalar<'b>) {
        self.element();
        let Some(id) = self.at.and_then(|branch| self.tree.field(branch)) else { return };
        let value = match value {
            Scalar::String(raw) => Value::String(self.decoded(raw)),
            Scalar::Number(text) => Value::Number(text, number::comparable(text)),
            Scalar::Bool(b) => Value::Bool(b),
            Scalar::Null => Value::Null,
        };
        let place = self.frames.last().map_or(Place::NONE, |frame| frame.place);
        let fresh = self.fields.values.len() as u32;
        self.fields.values.push(Field { id, value, place, next: NONE });
        let (first, last, count) = &mut self.fields.ends[id.0 as usize];
        *count += 1;
        match *last {
            NONE => *first = fresh,
            last => self.fields.values[last as usize].next = fresh,
        }
        *last = fresh;
    }

    fn open(&mut self, _at: usize, object: bool) {
        let mut place = self.frames.last().map_or(Place::NONE, |frame| frame.place);
        if let Some((element, outer)) = self.element()
            && self.at.is_some()
        {
            place = Place(self.fields.places.len() as u32);
            self.fields.places.push((element, outer));
        }
        let array = (!object).then(|| {
            self.arrays += 1;
            Element { array: self.arrays, index: 0 }
        });
        self.frames.push(Frame { at: self.at, place, array });
    }

    fn close(&mut self, _end: usize) {
        self.frames.pop();
    }
}

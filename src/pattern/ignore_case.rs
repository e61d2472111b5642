//! `equals-ignore-case`: every character of the operand in its lower- or upper-case mapping (section 5.2).
//!
//! Not Unicode case folding: only the operand's characters are mapped, each by itself, and a mapping may be longer
//! than one character. The mappings of an ASCII letter are ASCII.

use crate::event::text::chars;

/// An operand as the texts that are accepted at each place.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IgnoreCase {
    /// Lower- and upper-case mapping of each character.
    places: Vec<[Box<[u8]>; 2]>,
    /// As it was given.
    operand: Box<[u8]>,
}

impl IgnoreCase {
    /// Maps the characters of `operand`, which is decoded text.
    pub fn new(operand: &[u8]) -> Self {
        let places = chars(operand).map(|(c, bytes)| match c {
            Some(c) => {
                let lower: String = c.to_lowercase().collect();
                let upper: String = c.to_uppercase().collect();
                [lower.into_bytes().into(), upper.into_bytes().into()]
            }
            None => [bytes.into(), bytes.into()],
        });
        Self { places: places.collect(), operand: operand.into() }
    }

    /// Lower- and upper-case mapping of each character.
    pub(super) fn places(&self) -> &[[Box<[u8]>; 2]] {
        &self.places
    }

    /// The same with an operand in lower case, where that accepts the same texts.
    pub(super) fn canonical(&self) -> Self {
        let lower: Vec<u8> = self.places.iter().flat_map(|[lower, _]| lower.iter().copied()).collect();
        let canonical = Self::new(&lower);
        if canonical.places == self.places { canonical } else { self.clone() }
    }

    /// The operand as it was given.
    pub fn operand(&self) -> &[u8] {
        &self.operand
    }

    /// Whether the whole of `text` is accepted.
    pub fn equals(&self, text: &[u8]) -> bool {
        if self.operand.is_ascii() {
            return text.eq_ignore_ascii_case(&self.operand);
        }
        self.ends(text, false).any(|rest| rest.is_empty())
    }

    /// Whether `text` starts with the operand.
    pub fn starts(&self, text: &[u8]) -> bool {
        if self.operand.is_ascii() {
            return text.get(..self.operand.len()).is_some_and(|start| start.eq_ignore_ascii_case(&self.operand));
        }
        self.ends(text, false).next().is_some()
    }

    /// Whether `text` ends with the operand.
    pub fn finishes(&self, text: &[u8]) -> bool {
        if self.operand.is_ascii() {
            let end = text.len().checked_sub(self.operand.len()).map(|at| &text[at..]);
            return end.is_some_and(|end| end.eq_ignore_ascii_case(&self.operand));
        }
        self.ends(text, true).next().is_some()
    }

    /// What can remain of `text` when the operand is taken from its start, or from its end when `backwards`.
    ///
    /// Both mappings of one character may fit with different lengths, so a small set of remainders is carried along;
    /// it never holds more than one entry a length.
    fn ends<'t>(&self, text: &'t [u8], backwards: bool) -> impl Iterator<Item = &'t [u8]> {
        let mut rests = vec![text];
        let mut next = Vec::new();
        let take = |rest: &'t [u8], part: &[u8]| match backwards {
            false => rest.strip_prefix(part),
            true => rest.strip_suffix(part),
        };
        for step in 0..self.places.len() {
            let place = if backwards { self.places.len() - 1 - step } else { step };
            let [lower, upper] = &self.places[place];
            for rest in rests.drain(..) {
                next.extend(take(rest, lower));
                if lower != upper {
                    next.extend(take(rest, upper));
                }
            }
            next.sort_by_key(|rest| rest.len());
            next.dedup_by_key(|rest| rest.len());
            std::mem::swap(&mut rests, &mut next);
            if rests.is_empty() {
                break;
            }
        }
        rests.into_iter()
    }
}

//! What can be proved of patterns without events: that one matches all that another does, that a list accepts nothing.
//!
//! In: patterns. Out: [`Normal`] forms, in which two spellings of one condition are the same sets of values. Promises:
//! one-sided answers, `true` is proved, `false` says nothing. Leaves to others: which rules are compared (`lint`).

mod numbers;
mod texts;
mod witness;

use super::{Alternative, AnythingBut, Numbers, Pattern, Test};
use numbers::Span;
use std::collections::HashMap;
use std::sync::Arc;
use texts::Shape;

/// Values of one kind.
trait Set: Sized {
    /// Whether every value of `other` is one of these; sets by exclusion answer for themselves.
    fn contains(&self, other: &Self) -> bool;
    /// Whether no value is in both.
    fn apart(&self, other: &Self) -> bool;
    /// What is left out, where the set is all but that.
    fn excluded(&self) -> Option<&[Self]>;

    /// Whether this set alone covers another.
    fn covers(&self, other: &Self) -> bool {
        match self.excluded() {
            Some(excluded) => excluded.iter().all(|it| it.apart(other)),
            None => self.contains(other),
        }
    }
}

/// Whether a union covers a set: one member does, or one does but for what it excludes, which others cover.
fn covered<S: Set>(union: &[S], set: &S) -> bool {
    let but_for = |(n, member): (usize, &S)| {
        let others = || union.iter().enumerate().filter(move |(other, _)| *other != n).map(|(_, other)| other);
        let excluded = |it: &S| it.apart(set) || others().any(|other| other.covers(it));
        member.excluded().is_some_and(|list| list.iter().all(excluded))
    };
    union.iter().any(|member| member.covers(set)) || union.iter().enumerate().any(but_for)
}

/// The values that a condition's list accepts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct List {
    texts: Vec<Shape>,
    numbers: Vec<Span>,
    /// `false`, `true`, `null`, and no value at all.
    others: [bool; 4],
}

const PRESENT: [bool; 4] = [true, true, true, false];
const ABSENT: [bool; 4] = [false, false, false, true];

impl List {
    fn of(tests: &[Test], numbers: Numbers) -> Self {
        let mut list = Self::default();
        for test in tests {
            list.add(test, numbers);
        }
        list.in_order()
    }

    fn add(&mut self, test: &Test, numbers: Numbers) {
        let mut others = [false; 4];
        match test {
            Test::Number(number) => self.numbers.push(numbers::plain(number, numbers)),
            Test::Numeric(range) => self.numbers.extend(numbers::range(range)),
            Test::Bool(value) => others[usize::from(*value)] = true,
            Test::Null => others[2] = true,
            Test::Exists(false) => others = ABSENT,
            Test::Exists(true) => {
                self.texts.push(texts::all());
                self.numbers.push(numbers::all());
                others = PRESENT;
            }
            Test::AnythingBut(excluded) => {
                self.texts.push(texts::but(excluded));
                self.numbers.push(match excluded {
                    AnythingBut::Numbers(list) => numbers::but(list, numbers),
                    _ => numbers::all(),
                });
                others = PRESENT;
            }
            text => self.texts.extend(texts::of(text)),
        }
        self.others = std::array::from_fn(|n| self.others[n] || others[n]);
    }

    fn union(&self, other: &Self) -> Self {
        Self {
            texts: [&*self.texts, &*other.texts].concat(),
            numbers: [&*self.numbers, &*other.numbers].concat(),
            others: std::array::from_fn(|n| self.others[n] || other.others[n]),
        }
        .in_order()
    }

    fn in_order(mut self) -> Self {
        self.texts.sort_unstable();
        self.texts.dedup();
        numbers::join(&mut self.numbers);
        self
    }

    fn accepts_nothing(&self) -> bool {
        self.texts.is_empty() && self.numbers.is_empty() && !self.others.contains(&true)
    }

    fn absence(&self) -> bool {
        self.others[3]
    }

    fn covers(&self, other: &Self) -> bool {
        (0..4).all(|n| self.others[n] || !other.others[n])
            && other.texts.iter().all(|shape| covered(&self.texts, shape))
            && other.numbers.iter().all(|span| covered(&self.numbers, span))
    }

    fn every_text(&self) -> bool {
        covered(&self.texts, &texts::all())
    }

    /// Every value there is; absence is no value.
    fn every_value(&self) -> bool {
        self.every_text() && covered(&self.numbers, &numbers::all()) && self.others[..3] == PRESENT[..3]
    }
}

/// A path and what is accepted there.
type Field = (Arc<[u8]>, List);

/// A pattern as sets of values. Alternatives that can never match are left out, and those that differ in one field are
/// one: a list of either. (A value of either list is chosen as one of both would be, section 8.)
#[derive(Debug, Clone)]
pub struct Normal {
    alternatives: Vec<Vec<Field>>,
}

impl Normal {
    /// The form of a pattern, whose numbers compare as given.
    pub fn of(pattern: &Pattern, numbers: Numbers) -> Self {
        let fields = |alternative: &Alternative| {
            let field = |it: &super::Condition| (Arc::clone(&it.path), List::of(&it.tests, numbers));
            alternative.conditions.iter().map(field).collect::<Vec<_>>()
        };
        let mut alternatives: Vec<_> = pattern.alternatives.iter().map(fields).collect();
        alternatives.retain(|fields| !fields.iter().any(|(_, list)| list.accepts_nothing()));
        while merge(&mut alternatives) {}
        Self { alternatives }
    }

    /// Whether no event matches.
    pub fn never(&self) -> bool {
        self.alternatives.is_empty()
    }

    /// Whether every event matches that has the members of an EventBridge event.
    pub fn always(&self) -> bool {
        self.alternatives.iter().any(|fields| {
            fields.iter().all(|(path, list)| {
                (ENVELOPE.contains(&&**path) && list.every_text()) || (list.every_value() && list.absence())
            })
        })
    }

    /// Whether this matches every event that `narrow` does.
    pub fn covers(&self, narrow: &Self) -> bool {
        narrow.alternatives.iter().all(|narrow| self.alternatives.iter().any(|wide| covers(wide, narrow)))
    }

    /// Events that match, one or a few an alternative, such that few other patterns match them. Not each is sure to.
    pub fn witnesses(&self) -> impl Iterator<Item = Vec<u8>> {
        // Other values of the same lists tell more patterns apart.
        let each = if self.alternatives.len() > 8 { 1 } else { 3 };
        self.alternatives.iter().flat_map(move |fields| (0..each).map(|turn| witness::event(fields, turn)))
    }
}

/// Fields that every event has, each with one text.
const ENVELOPE: [&[u8]; 7] = [b"version", b"id", b"detail-type", b"source", b"account", b"time", b"region"];

/// Makes one of alternatives that differ in one field only; tells whether it did.
fn merge(alternatives: &mut Vec<Vec<Field>>) -> bool {
    let before = alternatives.len();
    let longest = alternatives.iter().map(Vec::len).max().unwrap_or(0);
    for field in 0..longest {
        let mut kept: Vec<Vec<Field>> = Vec::with_capacity(alternatives.len());
        let mut like: HashMap<Vec<Field>, usize> = HashMap::new();
        for mut fields in alternatives.drain(..) {
            if field >= fields.len() {
                kept.push(fields);
                continue;
            }
            let list = std::mem::take(&mut fields[field].1);
            match like.get(&fields) {
                Some(&other) => kept[other][field].1 = kept[other][field].1.union(&list),
                None => {
                    like.insert(fields.clone(), kept.len());
                    fields[field].1 = list;
                    kept.push(fields);
                }
            }
        }
        *alternatives = kept;
    }
    alternatives.len() < before
}

/// Whether one alternative matches every event that another does: it asks no more of any path.
///
/// Values that satisfy the narrow one are a choice for the wide one, too. Absence alone depends on the elements chosen
/// before (section 8.2), so where it is what may satisfy the narrow one, both must have chosen at the same paths.
fn covers(wide: &[Field], narrow: &[Field]) -> bool {
    wide.iter().enumerate().all(|(n, (path, list))| {
        let Some(at) = narrow.iter().position(|(other, _)| other == path) else { return false };
        let other = &narrow[at].1;
        let paths = |fields: &[Field]| fields.iter().map(|(path, _)| Arc::clone(path)).collect::<Vec<_>>();
        list.covers(other) && (!other.absence() || paths(&wide[..n]) == paths(&narrow[..at]))
    })
}

/// Whether a list accepts every value there is; absence is no value.
pub fn everything(tests: &[Test], numbers: Numbers) -> bool {
    List::of(tests, numbers).every_value()
}

/// Whether no event satisfies the list.
pub fn nothing(tests: &[Test]) -> bool {
    List::of(tests, Numbers::Value).accepts_nothing()
}

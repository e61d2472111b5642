//! Sets of texts.

use super::Set;
use crate::event::address::{Address, Block};
use crate::pattern::{AnythingBut, IgnoreCase, Test, Wildcard};

/// A set of texts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Shape {
    /// Literals with any text between them; one literal is that text alone.
    Glob(Wildcard),
    /// A text apart from case, and whether any text may stand before and after it.
    Folded(IgnoreCase, bool, bool),
    /// Every spelling of an address.
    Address(Address),
    /// Every spelling of its addresses.
    Block(Block),
    /// All but these, which are of the kinds before.
    AllBut(Vec<Shape>),
}

/// Every text.
pub fn all() -> Shape {
    glob(&[b"", b""])
}

fn glob(literals: &[&[u8]]) -> Shape {
    Shape::Glob(Wildcard::between(literals.iter().map(|&literal| literal.into()).collect()))
}

/// What a test for texts accepts; nothing for other tests.
pub fn of(test: &Test) -> Option<Shape> {
    Some(match test {
        Test::Text(_, Some(address)) => Shape::Address(*address),
        Test::Text(text, None) | Test::Exactly(text) => glob(&[text]),
        Test::Prefix(operand) => glob(&[operand, b""]),
        Test::Suffix(operand) => glob(&[b"", operand]),
        Test::Wildcard(operand) => Shape::Glob(operand.clone()),
        Test::EqualsIgnoreCase(operand) => folded(operand, false, false),
        Test::PrefixIgnoreCase(operand) => folded(operand, false, true),
        Test::SuffixIgnoreCase(operand) => folded(operand, true, false),
        Test::Cidr(block) => Shape::Block(block.canonical()),
        _ => return None,
    })
}

/// The texts of an `anything-but`.
pub fn but(excluded: &AnythingBut) -> Shape {
    let mut excluded: Vec<Shape> = match excluded {
        AnythingBut::Text(list) => list.iter().map(|text| glob(&[text])).collect(),
        AnythingBut::Numbers(_) => Vec::new(),
        AnythingBut::Prefix(list) => list.iter().map(|operand| glob(&[operand, b""])).collect(),
        AnythingBut::Suffix(list) => list.iter().map(|operand| glob(&[b"", operand])).collect(),
        AnythingBut::EqualsIgnoreCase(list) => list.iter().map(|operand| folded(operand, false, false)).collect(),
        AnythingBut::Wildcard(list) => list.iter().map(|operand| Shape::Glob(operand.clone())).collect(),
    };
    excluded.sort_unstable();
    excluded.dedup();
    if excluded.is_empty() { all() } else { Shape::AllBut(excluded) }
}

fn folded(operand: &IgnoreCase, before: bool, after: bool) -> Shape {
    let operand = operand.canonical();
    if operand.places().iter().any(|[lower, upper]| lower != upper) {
        return Shape::Folded(operand, before, after);
    }
    let mut literals = vec![operand.operand()];
    if before {
        literals.insert(0, b"");
    }
    if after {
        literals.push(b"");
    }
    glob(&literals)
}

/// Stands for any run of characters; no byte of a text.
const STAR: u8 = 0xFF;

impl Shape {
    /// The one text of the set.
    fn alone(&self) -> Option<&[u8]> {
        match self {
            Shape::Glob(glob) if glob.literals().len() == 1 => Some(&glob.literals()[0]),
            _ => None,
        }
    }

    /// Whether a text is in the set.
    pub fn accepts(&self, text: &[u8]) -> bool {
        match self {
            Shape::Glob(glob) => glob.matches(text),
            Shape::Folded(operand, false, false) => operand.equals(text),
            Shape::Folded(operand, false, true) => operand.starts(text),
            Shape::Folded(operand, ..) => operand.finishes(text),
            Shape::Address(address) => Address::parse(text) == Ok(*address),
            Shape::Block(block) => Address::parse(text).is_ok_and(|address| block.contains(address)),
            Shape::AllBut(excluded) => !excluded.iter().any(|it| it.accepts(text)),
        }
    }

    /// Literals and stars that every text of the set fits.
    fn outline(&self) -> Vec<u8> {
        match self {
            Shape::Glob(glob) => glob.literals().join(&STAR),
            Shape::Folded(operand, before, after) => {
                let mut outline = if *before { vec![STAR] } else { Vec::new() };
                for [lower, upper] in operand.places() {
                    match lower == upper {
                        true => outline.extend_from_slice(lower),
                        false => outline.push(STAR),
                    }
                }
                outline.extend(after.then_some(STAR));
                outline
            }
            Shape::Address(_) | Shape::Block(_) | Shape::AllBut(_) => vec![STAR],
        }
    }
}

impl Set for Shape {
    fn contains(&self, other: &Self) -> bool {
        if let Some(text) = other.alone() {
            return self.accepts(text);
        }
        match (self, other) {
            (Shape::Glob(glob), _) => glob.matches(&other.outline()),
            (Shape::Folded(operand, before, after), Shape::Folded(narrow, from, to)) => {
                (*before || !from) && (*after || !to) && within(operand, narrow, *before, *after)
            }
            (Shape::Folded(operand, false, true), Shape::Glob(glob)) => operand.starts(&glob.literals()[0]),
            (Shape::Folded(operand, true, false), Shape::Glob(glob)) => {
                glob.literals().last().is_some_and(|tail| operand.finishes(tail))
            }
            (Shape::Address(one), Shape::Address(other)) => one == other,
            (Shape::Block(block), Shape::Address(address)) => block.contains(*address),
            (Shape::Block(block), Shape::Block(other)) => block.covers(other),
            _ => false,
        }
    }

    fn apart(&self, other: &Self) -> bool {
        match (self, other) {
            (Shape::AllBut(excluded), one) | (one, Shape::AllBut(excluded)) => {
                excluded.iter().any(|it| it.contains(one))
            }
            (Shape::Address(one), Shape::Address(other)) => one != other,
            (Shape::Address(address), Shape::Block(block)) | (Shape::Block(block), Shape::Address(address)) => {
                !block.contains(*address)
            }
            (Shape::Block(one), Shape::Block(other)) => !one.covers(other) && !other.covers(one),
            _ => match (self.alone(), other.alone()) {
                (Some(text), _) => !other.accepts(text),
                (_, Some(text)) => !self.accepts(text),
                _ => ends_differ(&self.outline(), &other.outline()),
            },
        }
    }

    fn excluded(&self) -> Option<&[Self]> {
        match self {
            Shape::AllBut(excluded) => Some(excluded),
            _ => None,
        }
    }
}

/// Whether an operand accepts, at its side of a text, all that the other one does there.
fn within(wide: &IgnoreCase, narrow: &IgnoreCase, before: bool, after: bool) -> bool {
    let (wide, narrow) = (wide.places(), narrow.places());
    let skipped = match narrow.len().checked_sub(wide.len()) {
        Some(0) => 0,
        Some(more) if before => more,
        Some(_) if after => 0,
        _ => return false,
    };
    wide.iter().zip(&narrow[skipped..]).all(|(wide, narrow)| narrow.iter().all(|text| wide.contains(text)))
}

/// Whether no text fits two outlines: they begin or end in different ways.
fn ends_differ(one: &[u8], other: &[u8]) -> bool {
    fn differ<'o>(pairs: impl Iterator<Item = (&'o u8, &'o u8)>) -> bool {
        let mut literal = pairs.take_while(|(a, b)| **a != STAR && **b != STAR);
        literal.any(|(a, b)| a != b)
    }
    differ(one.iter().zip(other)) || differ(one.iter().rev().zip(other.iter().rev()))
}

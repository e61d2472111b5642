//! `wildcard` operands: literals between stars (section 5.3).

use memchr::memmem::Finder;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

/// A parsed operand: the literals before, between and after its stars.
#[derive(Debug, Clone)]
pub struct Wildcard {
    /// One more than there are stars.
    literals: Vec<Box<[u8]>>,
    /// What looks for those between two stars: making it takes longer than a search.
    finders: Box<[Finder<'static>]>,
}

impl PartialEq for Wildcard {
    fn eq(&self, other: &Self) -> bool {
        self.literals == other.literals
    }
}

impl Eq for Wildcard {}

impl Hash for Wildcard {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.literals.hash(state);
    }
}

impl PartialOrd for Wildcard {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Wildcard {
    fn cmp(&self, other: &Self) -> Ordering {
        self.literals.cmp(&other.literals)
    }
}

impl Wildcard {
    /// Reads an operand, which is decoded text.
    ///
    /// # Errors
    /// The service's message; positions count bytes with an opening quote at 0.
    pub fn parse(operand: &[u8]) -> Result<Self, String> {
        let (mut literals, mut literal) = (Vec::new(), Vec::new());
        let mut last_star = None;
        let mut at = 0;
        while let Some(&byte) = operand.get(at) {
            match byte {
                b'\\' => match operand.get(at + 1) {
                    Some(&escaped @ (b'*' | b'\\')) => {
                        literal.push(escaped);
                        at += 1;
                    }
                    _ => return Err(format!("Invalid escape character at pos {}", at + 1)),
                },
                b'*' if last_star == at.checked_sub(1) && at > 0 => {
                    return Err(format!("Consecutive wildcard characters at pos {at}"));
                }
                b'*' => {
                    literals.push(std::mem::take(&mut literal).into_boxed_slice());
                    last_star = Some(at);
                }
                other => literal.push(other),
            }
            at += 1;
        }
        literals.push(literal.into_boxed_slice());
        Ok(Self::between(literals))
    }

    /// Literals with a star between each two; at least one.
    pub(super) fn between(literals: Vec<Box<[u8]>>) -> Self {
        let middle = literals.get(1..literals.len() - 1).unwrap_or_default();
        let finders = middle.iter().map(|literal| Finder::new(literal).into_owned()).collect();
        Self { literals, finders }
    }

    /// The literals before, between and after the stars.
    pub fn literals(&self) -> &[Box<[u8]>] {
        &self.literals
    }

    /// Whether the whole of `text` fits. Time is linear in `text` for a given operand.
    pub fn matches(&self, text: &[u8]) -> bool {
        let [first, .., last] = self.literals.as_slice() else {
            return self.literals[0].as_ref() == text;
        };
        let Some(mut rest) = text.strip_prefix(first.as_ref()) else { return false };
        for finder in &self.finders {
            match finder.find(rest) {
                Some(at) => rest = &rest[at + finder.needle().len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

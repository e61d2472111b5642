//! `wildcard` operands: literals between stars (section 5.3).

/// A parsed operand: the literals before, between and after its stars.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Wildcard {
    /// One more than there are stars.
    literals: Vec<Box<[u8]>>,
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
        Ok(Self { literals })
    }

    /// Literals with a star between each two; at least one.
    pub(super) fn between(literals: Vec<Box<[u8]>>) -> Self {
        Self { literals }
    }

    /// The literals before, between and after the stars.
    pub fn literals(&self) -> &[Box<[u8]>] {
        &self.literals
    }

    /// Whether the whole of `text` fits. Time is linear in `text` for a given operand.
    pub fn matches(&self, text: &[u8]) -> bool {
        let [first, middle @ .., last] = self.literals.as_slice() else {
            return self.literals[0].as_ref() == text;
        };
        let Some(mut rest) = text.strip_prefix(first.as_ref()) else { return false };
        for literal in middle {
            match memchr::memmem::find(rest, literal) {
                Some(at) => rest = &rest[at + literal.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

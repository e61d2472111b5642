//! A matcher together with the memory it works in.

use super::{Matcher, Scratch};
use crate::event::{Fault, Scanner, decode};
use bumpalo::Bump;

/// Puts the texts of events to a matcher, one after another.
pub struct Judge<'m> {
    matcher: &'m Matcher,
    scanner: Scanner,
    scratch: Scratch,
    bump: Bump,
}

impl<'m> Judge<'m> {
    /// A judge of its own memory; one a thread.
    pub fn new(matcher: &'m Matcher) -> Self {
        Self { matcher, scanner: Scanner::default(), scratch: Scratch::default(), bump: Bump::new() }
    }

    /// The numbers of the patterns that match an event, in ascending order.
    ///
    /// # Errors
    /// The text is no event, or its arrays make a pattern too hard to decide.
    pub fn matches(&mut self, event: &[u8]) -> Result<&[u32], Fault> {
        self.bump.reset();
        let fields = decode(event, self.matcher.paths(), &mut self.scanner, &self.bump)?;
        self.matcher.matches(&fields, &mut self.scratch)
    }
}

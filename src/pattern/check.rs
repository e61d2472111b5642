//! The wildcard complexity score (section 9.2): how many partial matches one string can keep alive at one path.

use super::{AnythingBut, Condition, Pattern, Test, Wildcard};
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

/// The service's words for a score that is too high.
pub const TOO_COMPLEX: &str = "Rule is too complex - try using fewer wildcard characters or fewer repeating \
                               character sequences after a wildcard character";

/// Sets of positions that are looked at, beside four for each position, so that long texts are scored; what needs more
/// counts as too complex.
const MOST_SETS: usize = 50_000;

/// The largest score of any path, or something above `limit` as soon as that is certain.
pub fn complexity(pattern: &Pattern, limit: usize) -> usize {
    // Alternatives share lists; each is scored once.
    let mut known = HashSet::new();
    let conditions = pattern.alternatives.iter().flat_map(|alternative| &alternative.conditions);
    let fresh = conditions.filter(|condition| known.insert(Arc::as_ptr(&condition.tests)));
    fresh.map(|condition| path_score(condition, limit)).max().unwrap_or(0)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Token {
    Byte(u8),
    Star,
}

/// What a text begins and ends with; one inside of it is the same byte.
const QUOTE: Token = Token::Byte(b'"');

/// Positions of all matchers of a path, merged where the score counts them as one.
#[derive(Default)]
struct Machine {
    /// For each position: the token that leads on, and where to; more than one only at merged positions.
    next: Vec<Vec<(Token, u32)>>,
    star: Vec<bool>,
}

impl Machine {
    fn position(&mut self, star: bool) -> u32 {
        self.next.push(Vec::new());
        self.star.push(star);
        (self.next.len() - 1) as u32
    }

    /// Adds the operands of one matcher, sharing positions up to and including the first star, and the end.
    fn add(&mut self, operands: &[&Wildcard]) -> u32 {
        let start = self.position(false);
        let end = self.position(false);
        for operand in operands {
            let (mut at, mut shared) = (start, true);
            let tokens = tokens(operand);
            for (n, &token) in tokens.iter().enumerate() {
                let found = self.next[at as usize].iter().find(|(t, _)| shared && *t == token).map(|&(_, to)| to);
                let last = n + 1 == tokens.len();
                let to = match found {
                    Some(to) => to,
                    None => {
                        let to = if last { end } else { self.position(token == Token::Star) };
                        self.next[at as usize].push((token, to));
                        to
                    }
                };
                shared &= token != Token::Star;
                at = to;
            }
        }
        start
    }

    fn enter(&self, at: u32, alive: &mut BTreeSet<u32>) {
        if alive.insert(at) {
            for &(token, to) in &self.next[at as usize] {
                if token == Token::Star {
                    self.enter(to, alive);
                }
            }
        }
    }

    /// The bytes that some of the positions wait for, and one that none does.
    fn inputs(&self, alive: &BTreeSet<u32>) -> BTreeSet<Option<Token>> {
        let awaited = alive.iter().flat_map(|&at| &self.next[at as usize]).map(|&(token, _)| token);
        awaited.filter(|token| *token != Token::Star).map(Some).chain([None]).collect()
    }

    /// The positions alive after `byte`; `None` is a byte that no operand names.
    fn feed(&self, alive: &BTreeSet<u32>, byte: Option<Token>) -> BTreeSet<u32> {
        let mut after = BTreeSet::new();
        for &at in alive {
            if self.star[at as usize] {
                self.enter(at, &mut after);
            }
            for &(token, to) in &self.next[at as usize] {
                if Some(token) == byte {
                    self.enter(to, &mut after);
                }
            }
        }
        after
    }
}

fn tokens(operand: &Wildcard) -> Vec<Token> {
    let mut tokens = vec![QUOTE];
    for (n, literal) in operand.literals().iter().enumerate() {
        if n > 0 {
            tokens.push(Token::Star);
        }
        tokens.extend(literal.iter().map(|&b| Token::Byte(b)));
    }
    tokens.push(QUOTE);
    tokens
}

fn path_score(condition: &Condition, limit: usize) -> usize {
    let mut machine = Machine::default();
    let mut start = BTreeSet::new();
    let mut seen: Vec<Vec<&Wildcard>> = Vec::new();
    for test in &*condition.tests {
        let operands: Vec<&Wildcard> = match test {
            Test::Wildcard(wildcard) => vec![wildcard],
            Test::AnythingBut(AnythingBut::Wildcard(list)) => list.iter().collect(),
            _ => continue,
        };
        if !seen.contains(&operands) {
            start.insert(machine.add(&operands));
            seen.push(operands);
        }
    }
    if start.is_empty() {
        return 0;
    }
    let most = MOST_SETS + 4 * machine.next.len();
    let (mut best, mut visited, mut queue) = (0, HashSet::new(), vec![start]);
    while let Some(alive) = queue.pop() {
        for input in machine.inputs(&alive) {
            let after = machine.feed(&alive, input);
            best = best.max(after.len());
            if best > limit || visited.len() > most {
                return best.max(limit + 1);
            }
            if !after.is_empty() && visited.insert(after.clone()) {
                queue.push(after);
            }
        }
    }
    best
}

//! The naive evaluator: the normative procedure of section 3, word for word. The oracle of invariant I6.

use super::{Alternative, AnythingBut, Number, Pattern, Test};
use crate::event::address::Address;
use crate::event::{Kind, Node, Tree, number};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// How plain numbers and `anything-but` numbers are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Numbers {
    /// By value, as the service does.
    #[default]
    Value,
    /// By text, as the service's documentation says.
    Text,
}

/// A leaf with its array places: array number and element index, outermost first.
pub(super) struct Leaf<'t> {
    pub node: Node<'t>,
    pub kind: Kind,
    pub text: Cow<'t, [u8]>,
    pub places: Vec<(u32, u32)>,
}

/// A node to visit, its path and its places.
type Visit<'t> = (Node<'t>, Option<Vec<u8>>, Vec<(u32, u32)>);

pub(super) type Leaves<'t> = HashMap<Vec<u8>, Vec<Leaf<'t>>>;

/// Whether `event` matches `pattern`.
pub fn matches(pattern: &Pattern, event: &Tree<'_>, numbers: Numbers) -> bool {
    let leaves = flatten(event, |_| true);
    let holds = |alternative| Search::new(alternative, &leaves, numbers, u64::MAX).run() == Some(true);
    pattern.alternatives.iter().any(holds)
}

/// Every leaf under its path (section 1.2), without recursion.
pub(super) fn flatten<'t>(event: &'t Tree<'t>, leads: impl Fn(&[u8]) -> bool) -> Leaves<'t> {
    let mut leaves = Leaves::new();
    let mut arrays = 0;
    let mut todo: Vec<Visit<'t>> = vec![(event.root(), None, Vec::new())];
    while let Some((node, path, places)) = todo.pop() {
        match node.kind() {
            Kind::Object => {
                for child in node.children() {
                    let key = child.key();
                    let path = match &path {
                        None => key.into_owned(),
                        Some(path) => [path.as_slice(), b".", key.as_ref()].concat(),
                    };
                    if leads(&path) {
                        todo.push((child, Some(path), places.clone()));
                    }
                }
            }
            Kind::Array => {
                arrays += 1;
                for (index, child) in node.children().enumerate() {
                    let mut inner = places.clone();
                    if matches!(child.kind(), Kind::Object | Kind::Array) {
                        inner.push((arrays, index as u32));
                    }
                    todo.push((child, path.clone(), inner));
                }
            }
            kind => {
                let leaf = Leaf { node, kind, text: node.text(), places };
                leaves.entry(path.unwrap_or_default()).or_default().push(leaf);
            }
        }
    }
    leaves
}

/// Array and element of each container chosen, outermost first for each value.
pub(super) type Choice = Vec<(u32, u32)>;

pub(super) fn consistent(places: &[(u32, u32)], choice: &[(u32, u32)]) -> bool {
    places.iter().all(|(array, index)| choice.iter().all(|(a, i)| a != array || i == index))
}

/// The procedure of section 3 for one alternative. What failed is remembered: a choice fails again when it agrees with
/// one that failed on every array that a path still to come has values in.
pub(super) struct Search<'a, 't> {
    alternative: &'a Alternative,
    leaves: &'a Leaves<'t>,
    numbers: Numbers,
    /// The elements chosen; after success those of the whole alternative.
    pub choice: Choice,
    failed: HashSet<(usize, Choice)>,
    steps: u64,
}

impl<'a, 't> Search<'a, 't> {
    /// A search that gives up after so many steps.
    pub fn new(alternative: &'a Alternative, leaves: &'a Leaves<'t>, numbers: Numbers, steps: u64) -> Self {
        Self { alternative, leaves, numbers, choice: Choice::new(), failed: HashSet::new(), steps }
    }

    /// Whether the alternative matches; nothing when the steps are used up before that is known.
    pub fn run(&mut self) -> Option<bool> {
        let mut arrays = vec![HashSet::new(); self.alternative.conditions.len() + 1];
        for n in (0..self.alternative.conditions.len()).rev() {
            arrays[n] = arrays[n + 1].clone();
            arrays[n].extend(self.values(n).iter().flat_map(|leaf| &leaf.places).map(|(array, _)| *array));
        }
        self.from(0, &arrays)
    }

    fn values(&self, n: usize) -> &'a [Leaf<'t>] {
        self.leaves.get(&*self.alternative.conditions[n].path).map_or(&[], Vec::as_slice)
    }

    fn from(&mut self, n: usize, arrays: &[HashSet<u32>]) -> Option<bool> {
        let Some(condition) = self.alternative.conditions.get(n) else { return Some(true) };
        let mut state: Choice = self.choice.iter().filter(|(array, _)| arrays[n].contains(array)).copied().collect();
        state.sort_unstable();
        state.dedup();
        if self.failed.contains(&(n, state.clone())) {
            return Some(false);
        }
        let mut present = false;
        for leaf in self.values(n) {
            self.steps = self.steps.checked_sub(1)?;
            if !consistent(&leaf.places, &self.choice) {
                continue;
            }
            present = true;
            if condition.tests.iter().any(|test| accepts(test, leaf, self.numbers)) {
                let depth = self.choice.len();
                self.choice.extend_from_slice(&leaf.places);
                if self.from(n + 1, arrays)? {
                    return Some(true);
                }
                self.choice.truncate(depth);
            }
        }
        let absent_is_fine = condition.tests.contains(&Test::Exists(false));
        if !present && absent_is_fine && self.from(n + 1, arrays)? {
            return Some(true);
        }
        self.failed.insert((n, state));
        Some(false)
    }
}

/// Whether one test accepts one value.
pub(super) fn accepts(test: &Test, leaf: &Leaf<'_>, numbers: Numbers) -> bool {
    let text = leaf.text.as_ref();
    let string = leaf.kind == Kind::String;
    match test {
        Test::Text(want, address) => string && (text == want || address.is_some_and(|a| Address::parse(text) == Ok(a))),
        Test::Exactly(want) => string && text == want,
        Test::Number(want) => leaf.kind == Kind::Number && same_number(want, text, numbers),
        Test::Bool(want) => leaf.kind == Kind::Bool(*want),
        Test::Null => leaf.kind == Kind::Null,
        Test::Prefix(want) => string && text.starts_with(want),
        Test::PrefixIgnoreCase(want) => string && want.starts(text),
        Test::Suffix(want) => string && text.ends_with(want),
        Test::SuffixIgnoreCase(want) => string && want.finishes(text),
        Test::EqualsIgnoreCase(want) => string && want.equals(text),
        Test::Wildcard(want) => string && fits(want.literals(), text),
        Test::AnythingBut(excluded) => !excludes(excluded, leaf, numbers),
        Test::Exists(wanted) => *wanted,
        Test::Numeric(range) => {
            leaf.kind == Kind::Number && number::comparable(text).is_some_and(|value| range.contains(value))
        }
        Test::Cidr(block) => string && Address::parse(text).is_ok_and(|address| block.contains(address)),
    }
}

fn excludes(excluded: &AnythingBut, leaf: &Leaf<'_>, numbers: Numbers) -> bool {
    let text = leaf.text.as_ref();
    let string = leaf.kind == Kind::String;
    match excluded {
        AnythingBut::Text(list) => string && list.iter().any(|want| want == text),
        AnythingBut::Numbers(list) => {
            leaf.kind == Kind::Number
                && match numbers {
                    Numbers::Text => list.iter().any(|want| want.text == text),
                    Numbers::Value => {
                        number::comparable(text).is_some_and(|value| list.iter().any(|want| want.value == Some(value)))
                    }
                }
        }
        AnythingBut::Prefix(list) => string && list.iter().any(|want| text.starts_with(want)),
        AnythingBut::Suffix(list) => string && list.iter().any(|want| text.ends_with(want)),
        AnythingBut::EqualsIgnoreCase(list) => string && list.iter().any(|want| want.equals(text)),
        AnythingBut::Wildcard(list) => string && list.iter().any(|want| fits(want.literals(), text)),
    }
}

fn same_number(want: &Number, text: &[u8], numbers: Numbers) -> bool {
    match (numbers, want.value, number::comparable(text)) {
        (Numbers::Value, Some(want), Some(value)) => want == value,
        _ => want.text == text,
    }
}

/// Whether a text is a number of the same value.
pub(super) fn same_value(want: &Number, text: &[u8]) -> bool {
    number::comparable(text).is_some_and(|value| want.value == Some(value))
}

/// Literals with stars between them against `text`, by trying every place for the first star's run.
fn fits(literals: &[Box<[u8]>], text: &[u8]) -> bool {
    // reach[n]: the first literal and n bytes of text can be used up together.
    let mut reach: Vec<bool> = (0..=text.len()).map(|n| text[..n] == *literals[0]).collect();
    for literal in &literals[1..] {
        let mut open = false;
        let starts: Vec<bool> = reach
            .iter()
            .map(|&r| {
                open |= r;
                open
            })
            .collect();
        reach = (0..=text.len())
            .map(|n| n.checked_sub(literal.len()).is_some_and(|s| starts[s] && text[s..n] == **literal))
            .collect();
    }
    reach[text.len()]
}

//! Why a pattern matches an event or does not, field by field. Built on the naive evaluator, whose verdict it gives.

use super::eval::{Leaf, Leaves, Search, accepts, consistent, flatten};
use super::why::why;
use super::{Alternative, Condition, Numbers, Pattern, Test};
use crate::event::{Kind, Node, Tree};
use std::collections::{BTreeSet, HashMap, VecDeque};

/// Why a pattern matches or not.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// As [`super::matches`] says.
    pub matched: bool,
    /// In the pattern's order; several only through `$or`.
    pub branches: Vec<Branch>,
    /// The branch that matched, or that came nearest.
    pub nearest: usize,
}

/// One alternative.
#[derive(Debug, Clone, PartialEq)]
pub struct Branch {
    /// Whether it holds.
    pub matched: bool,
    /// How many conditions stand in the way; one where each holds by itself, and not in the same elements.
    pub failed: usize,
    /// In the order of their paths.
    pub findings: Vec<Finding>,
}

/// One field's condition.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Its path.
    pub path: String,
    /// The tests, as JSON texts.
    pub tests: Vec<String>,
    /// What came of it.
    pub verdict: Verdict,
    /// What the event has at the path.
    pub values: Vec<Seen>,
}

/// What came of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Holds,
    /// The event has no value there.
    Missing,
    /// No value there is accepted.
    Rejected,
    /// There are values, and none was wanted.
    Present,
    /// It holds by itself, in other elements of an array than the rest.
    Apart,
}

/// A value of the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Where it stands, as in `detail.items[1].sku`.
    pub at: String,
    /// Its JSON text.
    pub text: String,
    /// Whether a test accepts it.
    pub accepted: bool,
    /// Why no test does, in few words; empty where one does, and where no value is wanted.
    pub why: &'static str,
    /// Whether it lies in the elements of arrays by which the branch matched; where none did, none is left out.
    pub chosen: bool,
}

/// Values that may be looked at for one alternative.
const STEPS: u64 = 20_000_000;

/// Explains `pattern` on `event`; nothing when the event's arrays offer too many choices for that.
pub fn explain(pattern: &Pattern, event: &Tree<'_>, numbers: Numbers) -> Option<Explanation> {
    let conditions = pattern.alternatives.iter().flat_map(|alternative| &alternative.conditions);
    let named: BTreeSet<&[u8]> = conditions.map(|condition| &*condition.path).collect();
    let leads = |path: &[u8]| named.range(path..).next().is_some_and(|named| named.starts_with(path));
    let (leaves, places) = (flatten(event, leads), places(event.root(), leads));
    let none = Vec::new();
    let mut branches = Vec::with_capacity(pattern.alternatives.len());
    for alternative in &pattern.alternatives {
        let mut search = Search::new(alternative, &leaves, numbers, STEPS);
        let matched = search.run()?;
        let values = |condition: &Condition| leaves.get(&*condition.path).unwrap_or(&none).as_slice();
        let mut findings: Vec<Finding> = alternative
            .conditions
            .iter()
            .map(|condition| finding(condition, values(condition), (matched, &search.choice), &places, numbers))
            .collect();
        let mut failed = findings.iter().filter(|finding| finding.verdict != Verdict::Holds).count();
        if !matched && failed == 0 {
            failed = apart(alternative, &leaves, numbers, &mut findings)?;
        }
        branches.push(Branch { matched, failed, findings });
    }
    let nearest = (0..branches.len()).min_by_key(|&n| branches[n].distance()).unwrap_or(0);
    Some(Explanation { matched: branches.iter().any(|branch| branch.matched), branches, nearest })
}

impl Branch {
    /// Orders branches by how near they came: few conditions in the way, and then many that hold.
    pub fn distance(&self) -> impl Ord + use<> {
        let holding = if self.matched { 0 } else { self.findings.len() - self.failed };
        (!self.matched, self.failed, std::cmp::Reverse(holding))
    }
}

/// A condition by itself; in a branch that matched, by the elements that were chosen.
fn finding(
    condition: &Condition,
    values: &[Leaf<'_>],
    (matched, choice): (bool, &[(u32, u32)]),
    places: &HashMap<usize, String>,
    numbers: Numbers,
) -> Finding {
    let mut ordered: Vec<&Leaf<'_>> = values.iter().collect();
    ordered.sort_by_key(|leaf| leaf.node.at());
    let seen: Vec<Seen> = ordered
        .into_iter()
        .map(|leaf| {
            let takes = |test: &Test| !matches!(test, Test::Exists(false)) && accepts(test, leaf, numbers);
            let accepted = condition.tests.iter().any(takes);
            Seen {
                at: places.get(&leaf.node.at()).cloned().unwrap_or_default(),
                text: String::from_utf8_lossy(leaf.node.raw()).into_owned(),
                accepted,
                why: if accepted { "" } else { why(&condition.tests, leaf, numbers) },
                chosen: !matched || consistent(&leaf.places, choice),
            }
        })
        .collect();
    let absence = condition.tests.contains(&Test::Exists(false));
    // Among elements of arrays, absence may hold for those that are chosen.
    let may_be_absent = absence && values.iter().all(|leaf| !leaf.places.is_empty());
    let verdict = match () {
        () if matched || may_be_absent || seen.iter().any(|value| value.accepted) => Verdict::Holds,
        () if seen.is_empty() => Verdict::Missing,
        () if *condition.tests == [Test::Exists(false)] => Verdict::Present,
        () => Verdict::Rejected,
    };
    let tests = condition.tests.iter().map(ToString::to_string).collect();
    Finding { path: String::from_utf8_lossy(&condition.path).into_owned(), tests, verdict, values: seen }
}

/// Marks what is in the way where each condition seems to hold by itself: an absence that does not hold in any element, or
/// else the conditions whose values lie in one array, in different elements. How many things are in the way.
fn apart(alternative: &Alternative, leaves: &Leaves<'_>, numbers: Numbers, findings: &mut [Finding]) -> Option<usize> {
    let mut present = 0;
    for (condition, finding) in alternative.conditions.iter().zip(&mut *findings) {
        let alone = Alternative { conditions: vec![condition.clone()] };
        if !Search::new(&alone, leaves, numbers, STEPS).run()? {
            let only = *condition.tests == [Test::Exists(false)];
            finding.verdict = if only { Verdict::Present } else { Verdict::Rejected };
            present += 1;
        }
    }
    if present > 0 {
        return Some(present);
    }
    let arrays = |condition: &Condition| -> BTreeSet<u32> {
        leaves.get(&*condition.path).into_iter().flatten().flat_map(|leaf| &leaf.places).map(|place| place.0).collect()
    };
    let arrays: Vec<BTreeSet<u32>> = alternative.conditions.iter().map(arrays).collect();
    for (n, finding) in findings.iter_mut().enumerate() {
        if arrays.iter().enumerate().any(|(other, theirs)| other != n && !theirs.is_disjoint(&arrays[n])) {
            finding.verdict = Verdict::Apart;
        }
    }
    Some(1)
}

/// Where each value stands whose path leads to a named one, by its offset.
fn places(root: Node<'_>, leads: impl Fn(&[u8]) -> bool) -> HashMap<usize, String> {
    let mut places = HashMap::new();
    let mut todo = vec![(root, Vec::new(), String::new())];
    while let Some((node, path, at)) = todo.pop() {
        match node.kind() {
            Kind::Object => {
                for child in node.children() {
                    let key = child.key();
                    let dot: &[u8] = if node.at() == root.at() { b"" } else { b"." };
                    let path = [&path, dot, &key].concat();
                    if leads(&path) {
                        let key = String::from_utf8_lossy(&key);
                        todo.push((child, path, if at.is_empty() { key.into_owned() } else { format!("{at}.{key}") }));
                    }
                }
            }
            Kind::Array => {
                let children = node.children().enumerate();
                todo.extend(children.map(|(n, child)| (child, path.clone(), format!("{at}[{n}]"))));
            }
            _ => {
                places.insert(node.at(), at);
            }
        }
    }
    places
}

/// Paths with what stands there.
pub type Paths = Vec<(String, Kind)>;

/// Most bytes of paths that are kept of an event.
const MOST_PATHS: usize = 8 << 20;

/// The paths of an event with what stands there: leaves, and the objects and arrays that hold them; of an event that has
/// very many, those nearest the root.
pub fn paths(event: &Tree<'_>) -> Paths {
    let (mut paths, mut todo) = (Vec::new(), VecDeque::from([(event.root(), String::new())]));
    let mut bytes = 0;
    while let Some((node, path)) = todo.pop_front() {
        for child in node.children() {
            if bytes > MOST_PATHS {
                break;
            }
            let key = child.key();
            let key = String::from_utf8_lossy(&key);
            let inner = match (node.kind(), path.is_empty()) {
                (Kind::Array, _) => path.clone(),
                (_, true) => key.into_owned(),
                (_, false) => format!("{path}.{key}"),
            };
            bytes += inner.len();
            paths.push((inner.clone(), child.kind()));
            todo.push_back((child, inner));
        }
    }
    paths.sort_by(|a, b| a.0.cmp(&b.0));
    paths.dedup();
    paths
}

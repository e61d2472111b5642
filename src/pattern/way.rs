//! What an event has on the way to a path that leads to no value.

use crate::event::{Kind, Node, Tree};
use std::collections::BTreeSet;

/// What stands deepest on the way to a path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Way {
    /// Its path; empty for the event itself.
    pub at: String,
    /// What stands there, or in the list that does; several through elements and repeated keys.
    pub kinds: Vec<Kind>,
    /// Whether it is a list.
    pub list: bool,
    /// The first keys of objects there, in order, at most [`MOST_KEYS`].
    pub keys: Vec<String>,
    /// How many keys there are.
    pub count: usize,
    /// The first value there that is no object or list, as JSON text.
    pub value: Option<String>,
    /// Whether it is text that holds a JSON object, and whether that has a value at the rest of the path.
    pub inside: Option<bool>,
}

/// Most keys that a [`Way`] names.
pub const MOST_KEYS: usize = 8;

/// Most texts that are tried as JSON.
const MOST_TEXTS: usize = 8;

impl Way {
    /// Follows `path`, keys joined with dots, as far as `event` goes.
    pub fn new(event: &Tree<'_>, path: &str) -> Self {
        let (deepest, here) = follow(event, path.as_bytes());
        let mut way = Self { at: path.get(..deepest).unwrap_or(path).to_owned(), ..Self::default() };
        let (mut kinds, mut keys) = (BTreeSet::new(), BTreeSet::new());
        for node in &here {
            match node.kind() {
                Kind::Array => {
                    way.list = true;
                    continue;
                }
                Kind::Object => keys.extend(node.children().map(|child| child.key())),
                _ if way.value.is_none() => way.value = Some(String::from_utf8_lossy(node.raw()).into_owned()),
                _ => {}
            }
            kinds.insert(node.kind());
        }
        way.kinds = kinds.into_iter().collect();
        way.count = keys.len();
        way.keys = keys.iter().take(MOST_KEYS).map(|key| String::from_utf8_lossy(key).into_owned()).collect();
        let rest = path.get(deepest + 1..).unwrap_or_default();
        if !rest.is_empty() && deepest > 0 {
            let texts = here.iter().filter(|node| node.kind() == Kind::String).take(MOST_TEXTS);
            way.inside = texts.filter_map(|node| holds(&node.text(), rest)).max();
        }
        way
    }
}

/// How many bytes of `path` the event has, and the nodes there: elements of lists after their list.
fn follow<'t>(event: &'t Tree<'t>, path: &[u8]) -> (usize, Vec<Node<'t>>) {
    let (mut deepest, mut here) = (0, Vec::new());
    let mut next = vec![(event.root(), 0)];
    while let Some((node, at)) = next.pop() {
        if at > deepest {
            (deepest, here) = (at, Vec::new());
        }
        if at == deepest {
            here.push(node);
        }
        match node.kind() {
            Kind::Object => {
                let from = if node.at() == event.root().at() { 0 } else { at + 1 };
                let leads = |child: Node<'t>| {
                    let key = child.key();
                    let end = from + key.len();
                    let fits = path.get(from..end) == Some(&*key) && matches!(path.get(end), None | Some(b'.'));
                    fits.then_some((child, end))
                };
                next.extend(node.children().filter_map(leads));
            }
            Kind::Array => next.extend(node.children().map(|child| (child, at))),
            _ => {}
        }
    }
    (deepest, here)
}

/// Whether a text is a JSON object, and whether it has a value at `path`.
fn holds(text: &[u8], path: &str) -> Option<bool> {
    if !text.trim_ascii_start().starts_with(b"{") {
        return None;
    }
    let inner = Tree::parse(text).ok()?;
    let (deepest, here) = follow(&inner, path.as_bytes());
    let value = |node: &Node<'_>| !matches!(node.kind(), Kind::Object | Kind::Array);
    Some(deepest == path.len() && here.iter().any(value))
}

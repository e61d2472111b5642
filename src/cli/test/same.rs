//! Whether two texts are the same JSON value, whatever their spelling.
//!
//! In: what is expected and what came. Out: nothing, or the path where they differ. Promises: the order of keys does not
//! matter, numbers compare by their exact values. Leaves to others: what to say of it.

use crate::event::{Kind, Node, Tree, number};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Where two outputs differ; an empty path is the whole. Text that is no JSON is the same as that text, quoted
/// or not, apart from white space around it.
pub fn difference(expected: &str, received: &[u8]) -> Option<String> {
    let (expected, received) = (expected.trim_ascii().as_bytes(), received.trim_ascii());
    let (want, got) = (wrap(expected), wrap(received));
    let (want, got) = (tree(&want), tree(&got));
    let (want, got) = (want.as_ref().and_then(value), got.as_ref().and_then(value));
    let same = match (want, got) {
        (Some(want), Some(got)) => return nodes(want, got, String::new()),
        // A YAML text without quotes, or one that is no JSON.
        (Some(want), None) => want.kind() == Kind::String && *want.text() == *received,
        (None, Some(got)) => got.kind() == Kind::String && *got.text() == *expected,
        (None, None) => expected == received,
    };
    (!same).then(String::new)
}

/// A text without the white space around its JSON's parts; as it is when it is no JSON.
pub fn compact(text: &[u8]) -> String {
    let wrapped = wrap(text);
    if tree(&wrapped).as_ref().and_then(value).is_none() {
        return String::from_utf8_lossy(text).into_owned();
    }
    let (mut out, mut quoted, mut escaped) = (Vec::with_capacity(text.len()), false, false);
    for &byte in text {
        if quoted || !byte.is_ascii_whitespace() {
            out.push(byte);
        }
        quoted ^= byte == b'"' && !escaped;
        escaped = quoted && byte == b'\\' && !escaped;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Only objects are documents here.
fn wrap(text: &[u8]) -> Vec<u8> {
    [b"{\"\":", text.trim_ascii(), b"}"].concat()
}

fn tree(wrapped: &[u8]) -> Option<Tree<'_>> {
    Tree::parse(wrapped).ok()
}

/// The value that was wrapped; none when it closed the object by itself.
fn value<'t>(tree: &'t Tree<'t>) -> Option<Node<'t>> {
    let value = tree.root().children().next()?;
    (value.raw().len() + b"{\"\":}".len() == tree.root().raw().len()).then_some(value)
}

fn nodes(want: Node<'_>, got: Node<'_>, path: String) -> Option<String> {
    let same = match (want.kind(), got.kind()) {
        (Kind::Object, Kind::Object) => {
            let (want, got) = (members(want), members(got));
            let step = |key: &[u8]| {
                let dot = if path.is_empty() { "" } else { "." };
                format!("{path}{dot}{}", String::from_utf8_lossy(key))
            };
            if let Some(key) = want.keys().find(|key| !got.contains_key(*key)) {
                return Some(step(key));
            }
            if let Some(key) = got.keys().find(|key| !want.contains_key(*key)) {
                return Some(step(key));
            }
            return want.iter().find_map(|(key, value)| nodes(*value, *got.get(key)?, step(key)));
        }
        (Kind::Array, Kind::Array) => {
            let (mut want, mut got) = (want.children(), got.children());
            for n in 0.. {
                let step = format!("{path}[{n}]");
                match (want.next(), got.next()) {
                    (None, None) => return None,
                    (Some(want), Some(got)) => {
                        if let Some(at) = nodes(want, got, step) {
                            return Some(at);
                        }
                    }
                    _ => return Some(step),
                }
            }
            true
        }
        (Kind::Number, Kind::Number) => number::equal(want.raw(), got.raw()),
        (a, b) => a == b && want.text() == got.text(),
    };
    (!same).then_some(path)
}

/// The last value of each key, as JSON readers take it.
fn members<'t>(object: Node<'t>) -> BTreeMap<Cow<'t, [u8]>, Node<'t>> {
    object.children().map(|child| (child.key(), child)).collect()
}

//! Members put into a JSON object, beside what it has.

use crate::event::text::escape_json;
use crate::event::{Kind, Scanner, Tree};

/// An object with members set to texts: those of the same names go, all others keep their spelling. `None` where `json`
/// is no object.
pub fn with_members(json: &[u8], members: &[(&str, &str)]) -> Option<Vec<u8>> {
    let tree = Tree::parse_wrapped(json, &mut Scanner::default()).ok()?;
    let root = tree.root();
    if root.kind() != Kind::Object {
        return None;
    }
    let mut out = Vec::with_capacity(json.len() + 64);
    for child in root.children() {
        let key = child.key();
        if members.iter().all(|(name, _)| name.as_bytes() != key.as_ref()) {
            out.push(if out.is_empty() { b'{' } else { b',' });
            out.extend_from_slice(&json[child.key_at()..child.at() + child.raw().len()]);
        }
    }
    for (name, value) in members {
        out.push(if out.is_empty() { b'{' } else { b',' });
        put(name, &mut out);
        out.push(b':');
        put(value, &mut out);
    }
    if out.is_empty() {
        out.push(b'{');
    }
    out.push(b'}');
    Some(out)
}

fn put(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    escape_json(text.as_bytes(), out);
    out.push(b'"');
}

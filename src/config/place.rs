//! Places inside JSON values that files give as YAML, or as a text of JSON.

use super::problem::At;
use super::yaml::{Document, Kind, NodeId};
use crate::event::{self, Node, Tree};

/// Where a byte of a node's JSON form stands.
pub fn json_place(document: &Document, id: NodeId, offset: usize) -> At {
    if let Kind::Scalar { text, .. } = &document.node(id).kind {
        let path = document.path_of(id) + &path_within(text, offset);
        return document.at_text(id, offset, &path);
    }
    let node = match document.json(id) {
        Ok((_, origins)) => {
            let after = origins.partition_point(|(at, _)| *at <= offset);
            origins[after.saturating_sub(1)].1
        }
        Err((node, _)) => node,
    };
    document.at(node, &document.path_of(node))
}

/// The key path of a byte of a JSON text, as it goes on after a key path; nothing in a text that is not JSON.
fn path_within(text: &str, offset: usize) -> String {
    let Ok(tree) = Tree::parse(text.as_bytes()) else { return String::new() };
    let (mut path, mut at) = (String::new(), tree.root());
    loop {
        let keyed = at.kind() == event::Kind::Object;
        let begin = |node: &Node<'_>| if keyed { node.key_at() } else { node.at() };
        let within = |(_, node): &(usize, Node<'_>)| (begin(node)..node.at() + node.raw().len()).contains(&offset);
        let Some((n, child)) = at.children().enumerate().find(within) else { return path };
        path += &match keyed {
            true => format!(".{}", String::from_utf8_lossy(&child.key())),
            false => format!("[{n}]"),
        };
        at = child;
    }
}

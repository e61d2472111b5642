//! JSON paths of the EventBridge API: `$`, dot notation, `[0]` and `[*]`; no filters, no recursive descent.

use crate::event::{Kind, Node};
use std::borrow::Cow;
use std::fmt;

/// A parsed path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonPath {
    text: String,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Member(String),
    Element(usize),
    Every,
}

/// What a path found.
pub enum Selection<'t> {
    /// One value, or none.
    One(Option<Node<'t>>),
    /// The values below a `[*]`, in order.
    Every(Vec<Node<'t>>),
}

impl Selection<'_> {
    /// The selection as JSON text; `None` when nothing was found. Several values become a list.
    pub fn json(&self) -> Option<Cow<'_, [u8]>> {
        match self {
            Selection::One(node) => node.as_ref().map(|node| Cow::Borrowed(node.raw())),
            Selection::Every(nodes) if nodes.is_empty() => None,
            Selection::Every(nodes) => {
                let parts: Vec<&[u8]> = nodes.iter().map(Node::raw).collect();
                Some(Cow::Owned([b"[", parts.join(&b","[..]).as_slice(), b"]"].concat()))
            }
        }
    }

    /// A single string's decoded text, or a single number's or boolean's.
    pub fn text(&self) -> Option<String> {
        match self {
            Selection::One(Some(node)) if !matches!(node.kind(), Kind::Object | Kind::Array | Kind::Null) => {
                Some(String::from_utf8_lossy(&node.text()).into_owned())
            }
            _ => None,
        }
    }

    /// The same; a list's or an object's JSON text.
    pub fn flat(&self) -> Option<String> {
        let null = matches!(self, Selection::One(Some(node)) if node.kind() == Kind::Null);
        let json = || self.json().map(|json| String::from_utf8_lossy(&json).into_owned());
        self.text().or_else(|| json().filter(|_| !null))
    }
}

impl JsonPath {
    /// Reads a path.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = |why: &str| format!("`{text}` is not a JSON path: {why}");
        let mut rest = text.strip_prefix('$').ok_or_else(|| bad("it must start with `$`"))?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('.') {
                let member = |c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '/'));
                let end = after.find(member).unwrap_or(after.len());
                if end == 0 {
                    return Err(bad("a name must follow `.` (letters, digits, `_`, `-`, `/`)"));
                }
                steps.push(Step::Member(after[..end].to_owned()));
                rest = &after[end..];
            } else if let Some(after) = rest.strip_prefix('[') {
                let end = after.find(']').ok_or_else(|| bad("`[` without `]`"))?;
                steps.push(match &after[..end] {
                    "*" => Step::Every,
                    index => {
                        Step::Element(index.parse().map_err(|_| bad("only `[0]` and `[*]` may stand in brackets"))?)
                    }
                });
                rest = &after[end + 1..];
            } else {
                return Err(bad("expected `.` or `[`"));
            }
        }
        Ok(Self { text: text.to_owned(), steps })
    }

    /// The path of an event's detail.
    pub fn detail() -> Self {
        Self { text: "$.detail".to_owned(), steps: vec![Step::Member("detail".to_owned())] }
    }

    /// What the path selects below `root`.
    pub fn select<'t>(&self, root: Node<'t>) -> Selection<'t> {
        let mut nodes = vec![root];
        let mut every = false;
        for step in &self.steps {
            nodes = match step {
                Step::Member(name) => nodes.iter().filter_map(|node| node.get(name.as_bytes())).collect(),
                Step::Element(index) => nodes
                    .iter()
                    .filter(|node| node.kind() == Kind::Array)
                    .filter_map(|node| node.children().nth(*index))
                    .collect(),
                Step::Every => {
                    every = true;
                    nodes.iter().filter(|node| node.kind() == Kind::Array).flat_map(Node::children).collect()
                }
            };
        }
        if every { Selection::Every(nodes) } else { Selection::One(nodes.first().copied()) }
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

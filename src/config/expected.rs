//! Edits of files of tests: what a test expects, written anew where it stands, and everything else byte for byte.

use super::yaml::{self, Document, Kind, NodeId, Scalar};
use std::ops::Range;
use std::path::Path;

/// What is to stand in the `expect` of a test.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// Lists of names, by key.
    pub lists: Vec<(&'static str, Vec<String>)>,
    /// What targets receive, as YAML that stands in one line.
    pub outputs: Vec<(String, String)>,
}

/// The text of a file in which a test expects something else. Only what is there already is replaced.
///
/// # Errors
/// Why it cannot be edited, as the end of a sentence.
pub fn rewrite(file: &Path, text: &str, test: &str, expected: &Expected) -> Result<String, String> {
    let document =
        yaml::parse(file, text.to_owned(), &mut Vec::new()).ok_or_else(|| "the file is no YAML".to_owned())?;
    let expect = find(&document, test).ok_or_else(|| "it is not found in its file".to_owned())?;
    let mut edits = Vec::new();
    for (key, names) in &expected.lists {
        let (key, value) = member(&document, expect, key)?;
        edits.push(list(&document, text, key, value, names)?);
    }
    if !expected.outputs.is_empty() {
        let (_, outputs) = member(&document, expect, "outputs")?;
        for (target, output) in &expected.outputs {
            let (key, value) = member(&document, outputs, target)?;
            edits.push((replaced(&document, text, key, value)?, output.clone()));
        }
    }
    edits.sort_by_key(|(span, _)| span.start);
    let mut edited = text.to_owned();
    for (span, new) in edits.into_iter().rev() {
        edited.replace_range(span, &new);
    }
    Ok(edited)
}

/// The `expect` of a test.
fn find(document: &Document, test: &str) -> Option<NodeId> {
    let Kind::Sequence(tests) = &document.node(document.find(&["tests"])?).kind else { return None };
    let named = |id: &&NodeId| member(document, **id, "name").is_ok_and(|(_, name)| document.key(name) == test);
    let found = tests.iter().find(named)?;
    member(document, *found, "expect").ok().map(|(_, expect)| expect)
}

/// A key and its value.
fn member(document: &Document, id: NodeId, name: &str) -> Result<(NodeId, NodeId), String> {
    let entries = match &document.node(id).kind {
        Kind::Mapping(entries) => entries.as_slice(),
        _ => &[],
    };
    let found = entries.iter().find(|(key, _)| document.key(*key) == name);
    found.copied().ok_or_else(|| format!("it has no `{name}`"))
}

/// A list of names in the form in which one stands there.
fn list(
    document: &Document,
    text: &str,
    key: NodeId,
    value: NodeId,
    names: &[String],
) -> Result<(Range<usize>, String), String> {
    let span = replaced(document, text, key, value)?;
    let names: Vec<String> = names.iter().map(|name| scalar(name)).collect();
    if !text[span.clone()].starts_with('-') {
        return Ok((span, format!("[{}]", names.join(", "))));
    }
    if names.is_empty() {
        // A list in lines cannot be empty, and `[]` need not stand where its first line does.
        let after = document.node(key).span.end;
        return match text[after..span.start].trim() {
            ":" => Ok((after..span.end, ": []".to_owned())),
            _ => Err("a comment stands before its list".to_owned()),
        };
    }
    let line = text[..span.start].rfind('\n').map_or(0, |at| at + 1);
    let indent = " ".repeat(text[line..span.start].chars().count());
    let lines: Vec<String> = names.iter().map(|name| format!("- {name}")).collect();
    Ok((span, lines.join(&format!("\n{indent}"))))
}

/// The bytes of a value, if no comment stands among them.
fn replaced(document: &Document, text: &str, key: NodeId, id: NodeId) -> Result<Range<usize>, String> {
    let Range { mut start, end } = document.node(id).span.clone();
    // A text in lines of its own begins with the mark before them.
    let after = document.node(key).span.end;
    let before = text.get(after..start).unwrap_or_default();
    let mark = before.trim_start_matches(|c: char| c == ':' || c.is_whitespace());
    if mark.starts_with(['|', '>']) {
        start -= mark.len();
    }
    // And ends with its last line.
    let span = start..start + text.get(start..end).unwrap_or_default().trim_end().len();
    if span.is_empty() {
        return Err("a value without text stands there".to_owned());
    }
    let (mut leaves, mut from, mut comment) = (Vec::new(), span.start, false);
    gather(document, id, &mut leaves);
    for leaf in leaves {
        comment |= text.get(from..leaf.start).unwrap_or_default().contains('#');
        from = leaf.end;
    }
    comment |= text.get(from..span.end).unwrap_or_default().contains('#');
    if comment { Err("a comment stands in what is to be replaced".to_owned()) } else { Ok(span) }
}

fn gather(document: &Document, id: NodeId, leaves: &mut Vec<Range<usize>>) {
    let node = document.node(id);
    match &node.kind {
        Kind::Scalar { .. } => leaves.push(node.span.clone()),
        Kind::Sequence(items) => items.iter().for_each(|item| gather(document, *item, leaves)),
        Kind::Mapping(entries) => entries.iter().for_each(|(key, value)| {
            gather(document, *key, leaves);
            gather(document, *value, leaves);
        }),
    }
}

/// A name as YAML, in quotes where it needs them.
fn scalar(name: &str) -> String {
    let simple = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    let plain = name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(simple);
    if plain && Scalar::of(name, true) == Scalar::Text { name.to_owned() } else { serde_json::json!(name).to_string() }
}

//! `${env:NAME}`, `${env:NAME:-default}` and `${file:/path}` in string values; never in keys, patterns or templates.

use super::Outside;
use super::problem::Problem;
use super::yaml::{Document, Kind, NodeId};

/// Keys whose values are data and stay as they are.
const DATA: [&str; 3] = ["pattern", "input_transformer", "input"];

/// Replaces references in all values of a document.
pub fn resolve(document: &mut Document, outside: &Outside<'_>, problems: &mut Vec<Problem>) {
    let mut todo = vec![document.root];
    let mut leaves = Vec::new();
    while let Some(id) = todo.pop() {
        match &document.node(id).kind {
            Kind::Scalar { text, .. } if text.contains("${") => leaves.push(id),
            Kind::Scalar { .. } => {}
            Kind::Sequence(items) => todo.extend(items),
            Kind::Mapping(entries) => todo
                .extend(entries.iter().filter(|(key, _)| !DATA.contains(&document.key(*key))).map(|&(_, value)| value)),
        }
    }
    for leaf in leaves {
        if let Err((message, help)) = replace(document, leaf, outside) {
            let mut problem = Problem::plain("E0106", message).help(help);
            problem.at = Some(document.at(leaf, &document.path_of(leaf)));
            problems.push(problem);
        }
    }
}

fn replace(document: &mut Document, leaf: NodeId, outside: &Outside<'_>) -> Result<(), (String, String)> {
    let Kind::Scalar { text, plain } = &mut document.nodes[leaf].kind else { return Ok(()) };
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    let mut whole = false;
    while let Some(start) = rest.find("${") {
        let end = rest[start..].find('}').map(|end| start + end).ok_or_else(|| {
            ("`${` without `}`".to_owned(), "write ${env:NAME}, ${env:NAME:-default} or ${file:/path}".to_owned())
        })?;
        whole = start == 0 && end + 1 == rest.len() && out.is_empty();
        out.push_str(&rest[..start]);
        out.push_str(&value(&rest[start + 2..end], outside)?);
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    // A value that is wholly one reference may become a number or a boolean.
    *plain = *plain || whole;
    *text = out;
    Ok(())
}

fn value(reference: &str, outside: &Outside<'_>) -> Result<String, (String, String)> {
    match reference.split_once(':') {
        Some(("env", rest)) => {
            let (name, default) = match rest.split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (rest, None),
            };
            let stand_in = || outside.only_rules.then(|| name.to_owned());
            (outside.env)(name).or(default.map(str::to_owned)).or_else(stand_in).ok_or_else(|| {
                (
                    format!("environment variable {name} is not set"),
                    format!("set it, or write ${{env:{name}:-default}}"),
                )
            })
        }
        Some(("file", path)) => std::fs::read_to_string(path)
            .map(|text| text.trim_end_matches(['\n', '\r']).to_owned())
            .or_else(|error| if outside.only_rules { Ok(path.to_owned()) } else { Err(error) })
            .map_err(|error| (format!("cannot read {path}: {error}"), "check the path and its permissions".to_owned())),
        _ => Err((
            format!("`${{{reference}}}` is no reference"),
            "write ${env:NAME}, ${env:NAME:-default} or ${file:/path}".to_owned(),
        )),
    }
}

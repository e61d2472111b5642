//! Where a value may be that a path does not find.

use super::explain::safe;
use crate::event::Kind;
use crate::pattern::way::Way;
use std::collections::BTreeSet;

/// Most paths that are compared with the one that is missing, and how long they may be.
const MOST_TRIED: usize = 10_000;
const LONGEST: usize = 512;

/// What to say of `path`, which leads to no value: what stands there instead, or the nearest of the `known` paths. Begins
/// with `: ` or `; `; nothing where no path is near.
pub fn hint(path: &str, known: &[(String, Kind)]) -> String {
    let leaf = |(_, kind): &&(String, Kind)| !matches!(kind, Kind::Object | Kind::Array);
    if let Some((_, kind)) = known.iter().find(|(at, _)| at == path) {
        let below: BTreeSet<&str> = known
            .iter()
            .filter_map(|(at, _)| at.strip_prefix(path)?.strip_prefix('.'))
            .filter(|rest| !rest.contains('.'))
            .collect();
        let below: Vec<String> = below.into_iter().take(6).map(safe).collect();
        let object = *kind == Kind::Object;
        return match below.is_empty() {
            true => format!(": it is an empty {}", if object { "object" } else { "list" }),
            false => {
                let what = if object { "an object" } else { "a list without plain values" };
                format!(": it is {what}; name a field of it: {}", below.join(", "))
            }
        };
    }
    let within = format!("detail.{path}");
    if known.iter().filter(leaf).any(|(at, _)| *at == within) {
        return format!("; {} has one: put the condition into `detail`", safe(&within));
    }
    if let Some(outside) =
        path.strip_prefix("detail.").filter(|outside| known.iter().filter(leaf).any(|(at, _)| at == outside))
    {
        return format!("; {} has one: take the condition out of `detail`", safe(outside));
    }
    let (parent, last) = path.rsplit_once('.').unwrap_or(("", path));
    let near = |at: &str| {
        let (its_parent, its_last) = at.rsplit_once('.').unwrap_or(("", at));
        // Beside each other, only the last key tells.
        if its_parent == parent {
            return strsim::normalized_damerau_levenshtein(its_last, last) + 0.2;
        }
        strsim::normalized_damerau_levenshtein(at, path) + if its_last == last { 0.5 } else { 0.0 }
    };
    let tried = known.iter().filter(leaf).filter(|(at, _)| at.len() <= LONGEST).take(MOST_TRIED);
    let best = tried.map(|(at, _)| (near(at), at)).max_by(|a, b| a.0.total_cmp(&b.0));
    match best {
        Some((score, at)) if score >= 0.7 => format!("; the nearest path is {}", safe(at)),
        _ => String::new(),
    }
}

/// As [`hint`], for one event; where no path is near, what stands deepest on the `way`.
pub fn missing(path: &str, known: &[(String, Kind)], way: &Way) -> String {
    let rest = safe(path.get(way.at.len() + 1..).unwrap_or_default());
    let at = if way.at.is_empty() { "the event".to_owned() } else { safe(&way.at) };
    match way.inside {
        Some(true) => {
            return format!("; {at} is text that holds JSON: as an object it would have {rest}");
        }
        Some(false) => {
            return format!("; {at} is text that holds JSON, and has no {rest} inside either");
        }
        None => {}
    }
    let near = hint(path, known);
    if !near.is_empty() {
        return near;
    }
    match (keys(way), way.list) {
        (Some(keys), false) if way.kinds.len() == 1 => format!("; {at} has {keys}"),
        (keys, _) => {
            let keys = keys.map(|keys| format!("; its objects have {keys}")).unwrap_or_default();
            format!("; {at} is {}{keys}", what(way))
        }
    }
}

/// The keys of objects there, where there are any.
fn keys(way: &Way) -> Option<String> {
    let more = way.count - way.keys.len();
    let keys: Vec<String> = way.keys.iter().map(|key| safe(key)).collect();
    match (way.count, more) {
        (0, _) => None,
        (1, _) => Some(format!("the only key {}", keys.join(", "))),
        (_, 0) => Some(format!("the keys {}", keys.join(", "))),
        (_, more) => Some(format!("the keys {} and {more} more", keys.join(", "))),
    }
}

fn what(way: &Way) -> String {
    let name = |kind: &Kind, many: bool| match (kind, many) {
        (Kind::Object, true) => "objects",
        (Kind::Object, false) if way.count == 0 => "an empty object",
        (Kind::Object, false) => "an object",
        (Kind::Array, _) => "lists",
        (Kind::String, _) => "text",
        (Kind::Number, true) => "numbers",
        (Kind::Number, false) => "a number",
        (Kind::Bool(true), _) => "true",
        (Kind::Bool(false), _) => "false",
        (Kind::Null, _) => "null",
    };
    let kinds: Vec<&str> = way.kinds.iter().map(|kind| name(kind, way.list)).collect();
    match (way.list, &*kinds, &way.value) {
        (true, [], _) => "an empty list".to_owned(),
        (true, ..) => format!("a list of {}", kinds.join(" and ")),
        (false, [one], Some(value)) if !matches!(way.kinds[..], [Kind::Bool(_) | Kind::Null]) => {
            format!("{one}: {}", safe(value))
        }
        (false, ..) if kinds.is_empty() => "empty".to_owned(),
        (false, ..) => kinds.join(" and "),
    }
}

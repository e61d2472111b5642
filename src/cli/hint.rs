//! Where a value may be that a path does not find.

use crate::event::Kind;
use std::collections::BTreeSet;

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
        let below: Vec<&str> = below.into_iter().take(6).collect();
        let what = if *kind == Kind::Object { "an object" } else { "a list without plain values" };
        return match below.is_empty() {
            true => format!(": it is {what}, and empty"),
            false => format!(": it is {what}; name a field of it: {}", below.join(", ")),
        };
    }
    let within = format!("detail.{path}");
    if known.iter().filter(leaf).any(|(at, _)| *at == within) {
        return format!("; {within} has one: put the condition into `detail`");
    }
    let last = path.rsplit('.').next().unwrap_or(path);
    let near = |at: &str| {
        let same = at.rsplit('.').next() == Some(last);
        strsim::normalized_damerau_levenshtein(at, path) + if same { 0.5 } else { 0.0 }
    };
    let best = known.iter().filter(leaf).map(|(at, _)| (near(at), at)).max_by(|a, b| a.0.total_cmp(&b.0));
    match best {
        Some((score, at)) if score >= 0.7 => format!("; the nearest path is {at}"),
        _ => String::new(),
    }
}

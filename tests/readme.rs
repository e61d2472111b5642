//! Every example of the README does what it says.
//!
//! `console` blocks run in bash, in order, in one folder, with `sluice` on the path; each line of shown output must be in
//! what the command printed. The quickstarts of [`GROUPS`] run with the brokers' tests. `yaml config` blocks must be valid.

#![allow(clippy::expect_used, clippy::panic)]

#[path = "readme/blocks.rs"]
mod blocks;

use sluice::config::{Outside, load};
use sluice::event::Tree;
use sluice::pattern::{Limits, Numbers, matches, parse};

/// Quickstarts that want brokers or clients.
const GROUPS: [&str; 7] = ["kafka", "nats", "aws", "workshop", "webhook", "sidecar", "broker"];

#[test]
fn commands_print_what_is_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    for block in blocks::all().iter().filter(|block| block.is("console") && !GROUPS.iter().any(|group| block.is(group)))
    {
        for (command, shown) in block.commands() {
            let (printed, missing) = blocks::run(&command, folder.path(), &[], &shown);
            assert!(missing.is_none(), "`{command}` should print `{}`:\n{printed}", missing.unwrap_or_default());
        }
    }
}

#[test]
fn configurations_are_valid() {
    let mut count = 0;
    for block in blocks::all().iter().filter(|block| block.is("config")) {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("c.yaml"), &block.text).expect("a file");
        load(&[folder.path().join("c.yaml")], &Outside::default()).unwrap_or_else(|problems| panic!("{problems}"));
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn the_pattern_table_is_true() {
    let mut rows = 0;
    for line in blocks::README.lines().filter(|line| line.starts_with("| `") && line.matches('|').count() == 4) {
        let cells: Vec<&str> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let [_, matcher, accepted, refused, _] = cells[..] else { panic!("{line}") };
        let matcher = matcher.split("` (").next().unwrap_or(matcher);
        let Ok(pattern) = parse(format!("{{\"a\":[{matcher}]}}").as_bytes(), &Limits::default()) else { continue };
        for (value, want) in [(accepted, true), (refused, false)] {
            let event = format!("{{\"a\":{value}}}");
            let tree = Tree::parse(event.as_bytes()).unwrap_or_else(|fault| panic!("{event}: {fault}"));
            assert_eq!(matches(&pattern, &tree, Numbers::Value), want, "{matcher} on {value}");
        }
        rows += 1;
    }
    assert_eq!(rows, 22, "rows of the table");
}

//! A pattern and the bytes of an event, through both evaluators and the explanation, which must agree.
#![no_main]

use bumpalo::Bump;
use libfuzzer_sys::fuzz_target;
use sluice::event::{Scanner, Tree, decode};
use sluice::matcher::{Builder, Scratch};
use sluice::pattern::explain::explain;
use sluice::pattern::{Limits, Numbers, matches, parse};

/// Stands between pattern and event: no byte of a valid text.
const BETWEEN: u8 = 0xFF;

fuzz_target!(|data: &[u8]| {
    let at = data.iter().position(|&byte| byte == BETWEEN).unwrap_or(0);
    let (pattern, event) = (&data[..at], &data[at..]);
    let event = event.strip_prefix(&[BETWEEN]).unwrap_or(event);
    let limits = Limits { alternatives: 50, ..Limits::default() };
    let pattern = parse(pattern, &limits);
    for numbers in [Numbers::Value, Numbers::Text] {
        let mut builder = Builder::new(7, numbers);
        if let Ok(pattern) = &pattern {
            builder.add(pattern);
        }
        let (matcher, bump, mut scratch) = (builder.build(), Bump::new(), Scratch::default());
        let mut scanner = Scanner::default();
        let fields = decode(event, matcher.paths(), &mut scanner, &bump);
        let tree = Tree::parse(event);
        let (fields, tree) = match (fields, tree) {
            (Ok(fields), Ok(tree)) => (fields, tree),
            (fields, tree) => {
                assert_eq!(fields.map(|_| ()).err(), tree.map(|_| ()).err());
                return;
            }
        };
        let (Ok(pattern), Ok(rules)) = (&pattern, matcher.matches(&fields, &mut scratch)) else { return };
        assert_eq!(matches(pattern, &tree, numbers), !rules.is_empty());
        if let Some(explained) = explain(pattern, &tree, numbers) {
            assert_eq!(explained.matched, !rules.is_empty());
        }
    }
});

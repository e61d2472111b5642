//! I6: the matcher decides as the naive evaluator, on generated rules and events, through the bytes of the event.

use crate::generate::{event, pattern, tied_event, tied_pattern};
use bumpalo::Bump;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestCaseError, TestRunner};
use sluice::event::{Scanner, Tree, decode};
use sluice::matcher::{Builder, Matcher, Scratch};
use sluice::pattern::explain::explain;
use sluice::pattern::{Limits, Numbers, Pattern, matches, parse};
use std::cell::Cell;

pub fn compiled<'p>(patterns: impl Iterator<Item = &'p Pattern>, numbers: Numbers) -> Matcher {
    let mut builder = Builder::new(7, numbers);
    patterns.for_each(|pattern| {
        builder.add(pattern);
    });
    builder.build()
}

/// By the matcher, from the bytes of the event on.
pub fn verdicts(matcher: &Matcher, event: &[u8], rules: usize) -> Vec<bool> {
    let bump = Bump::new();
    let mut scanner = Scanner::default();
    let fields = decode(event, matcher.paths(), &mut scanner, &bump).expect("a valid event");
    let mut verdicts = vec![false; rules];
    for &rule in matcher.matches(&fields, &mut Scratch::default()).expect("a verdict") {
        verdicts[rule as usize] = true;
    }
    verdicts
}

pub fn naive<'p>(patterns: impl IntoIterator<Item = &'p Pattern>, event: &[u8], numbers: Numbers) -> Vec<bool> {
    let tree = Tree::parse(event).expect("a valid event");
    patterns.into_iter().map(|pattern| matches(pattern, &tree, numbers)).collect()
}

/// What each pattern decides, by both evaluators, which must agree.
pub fn both(patterns: &[Pattern], event: &[u8], numbers: Numbers) -> Vec<bool> {
    let naive = naive(patterns, event, numbers);
    let tree = Tree::parse(event).expect("a valid event");
    for (pattern, &matched) in patterns.iter().zip(&naive) {
        let explained = explain(pattern, &tree, numbers).expect("few choices");
        assert_eq!(explained.matched, matched, "explain on {}", String::from_utf8_lossy(event));
        assert_eq!(explained.branches[explained.nearest].failed == 0, matched, "{explained:?}");
        // What it shows of the tests is what was read.
        for (alternative, branch) in pattern.alternatives.iter().zip(&explained.branches) {
            for (condition, finding) in alternative.conditions.iter().zip(&branch.findings) {
                let shown = format!("{{\"a\":[{}]}}", finding.tests.join(","));
                let read =
                    parse(shown.as_bytes(), &Limits::default()).unwrap_or_else(|error| panic!("{shown}: {error}"));
                assert_eq!(read.alternatives[0].conditions[0].tests, condition.tests, "{shown}");
            }
        }
    }
    let compiled = verdicts(&compiled(patterns.iter(), numbers), event, patterns.len());
    assert_eq!(compiled, naive, "event {}", String::from_utf8_lossy(event));
    compiled
}

/// How many pairs of pattern and event are tried at least.
const PAIRS: u64 = 100_000;

/// Runs `check` on generated values, from a seed that is printed: `PROPTEST_RNG_SEED` repeats a run, and
/// `SLUICE_TEST_CASES` asks for more. A failure is shrunk and shown as it would stand in [`rows`].
pub fn run<S: Strategy>(name: &str, usual: u32, strategy: &S, check: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let seed = std::env::var("PROPTEST_RNG_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand_seed);
    let cases = std::env::var("SLUICE_TEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(usual);
    println!("{name}: PROPTEST_RNG_SEED={seed}");
    let config =
        ProptestConfig { cases, failure_persistence: None, rng_seed: RngSeed::Fixed(seed), ..Default::default() };
    if let Err(error) = TestRunner::new(config).run(strategy, check) {
        panic!("{name}, PROPTEST_RNG_SEED={seed}: {error}");
    }
}

fn rand_seed() -> u64 {
    std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0)
}

pub fn valid(patterns: &[String]) -> Vec<Pattern> {
    patterns.iter().filter_map(|pattern| parse(pattern.as_bytes(), &Limits::default()).ok()).collect()
}

/// Holds the matcher against the naive evaluator on generated sets of patterns and events; returns how many pairs were
/// tried and how many matched.
fn agree(
    name: &str,
    cases: u32,
    pattern: impl Strategy<Value = String>,
    event: impl Strategy<Value = String>,
) -> (u64, u64) {
    let (pairs, hits) = (Cell::new(0), Cell::new(0));
    let strategy = (prop::collection::vec(pattern, 12..24), prop::collection::vec(event, 12..16), any::<bool>());
    run(name, cases, &strategy, |(patterns, events, by_text)| {
        let (patterns, numbers) = (valid(&patterns), if by_text { Numbers::Text } else { Numbers::Value });
        let matcher = compiled(patterns.iter(), numbers);
        for event in &events {
            let naive = naive(&patterns, event.as_bytes(), numbers);
            prop_assert_eq!(&verdicts(&matcher, event.as_bytes(), patterns.len()), &naive, "event {}", event);
            pairs.set(pairs.get() + naive.len() as u64);
            hits.set(hits.get() + naive.iter().filter(|&&hit| hit).count() as u64);
        }
        Ok(())
    });
    println!("{name}: {} pairs, {} matches", pairs.get(), hits.get());
    (pairs.get(), hits.get())
}

#[test]
fn matcher_agrees_with_eval() {
    let (pairs, hits) = agree("matcher_agrees_with_eval", 1200, pattern(), event());
    assert!(pairs >= PAIRS && hits >= PAIRS / 50, "{pairs} pairs, {hits} matches");
}

#[test]
fn matcher_agrees_on_arrays() {
    let (pairs, hits) = agree("matcher_agrees_on_arrays", 400, tied_pattern(), tied_event());
    assert!(hits >= pairs / 100, "{pairs} pairs, {hits} matches");
}

/// Rules come and go in any order; what is compiled together decides as each rule alone.
#[test]
fn a_large_set_decides_like_each_rule_alone() {
    let strategy = (
        prop::collection::vec(pattern(), 2000..2001),
        prop::collection::vec(event(), 12),
        prop::collection::vec((any::<prop::sample::Index>(), 1..2000usize), 6),
    );
    run("a_large_set", 1, &strategy, |(patterns, events, changes)| {
        let all = valid(&patterns);
        let mut present: Vec<&Pattern> = Vec::new();
        for (at, many) in changes {
            // So many from a place on are turned: what was there goes, what was not comes, at the front.
            for n in 0..many {
                let pattern = &all[(at.index(all.len()) + n * 7) % all.len()];
                match present.iter().position(|known| std::ptr::eq(*known, pattern)) {
                    Some(found) => drop(present.swap_remove(found)),
                    None => present.insert(0, pattern),
                }
            }
            let matcher = compiled(present.iter().copied(), Numbers::Value);
            for event in &events {
                let naive = naive(present.iter().copied(), event.as_bytes(), Numbers::Value);
                prop_assert_eq!(&verdicts(&matcher, event.as_bytes(), present.len()), &naive, "event {}", event);
            }
        }
        Ok(())
    });
}

/// Bytes that are nearly a pattern or an event: cut, turned, put in, or said twice.
fn mangled() -> impl Strategy<Value = Vec<u8>> {
    let change =
        (0..6u8, any::<prop::sample::Index>(), any::<u8>(), prop::sample::select(&b"{}[]:,\"\\0e-.\xFF\0 "[..]));
    let text = prop_oneof![pattern(), event(), tied_pattern(), tied_event()];
    (text, prop::collection::vec(change, 0..3)).prop_map(|(text, changes)| {
        let mut bytes = text.into_bytes();
        for (kind, at, any, mark) in changes {
            let at = at.index(bytes.len().max(1));
            match kind {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, any),
                2 => bytes.insert(at, mark),
                3 => bytes.extend_from_within(at..),
                _ if bytes.is_empty() => {}
                4 => bytes[at] ^= 1 << (any % 8),
                _ => drop(bytes.remove(at)),
            }
        }
        bytes
    })
}

#[test]
fn any_bytes_are_read_or_refused() {
    let (read, refused, patterns) = (Cell::new(0u32), Cell::new(0u32), Cell::new(0u32));
    let count = |counter: &Cell<u32>| counter.set(counter.get() + 1);
    let bytes = prop_oneof![1 => prop::collection::vec(any::<u8>(), 0..64), 15 => mangled()];
    run("any_bytes", 6000, &bytes, |bytes| {
        let ours = Tree::parse(&bytes).is_ok();
        prop_assert_eq!(ours, standard(&bytes), "{}", String::from_utf8_lossy(&bytes));
        count(if ours { &read } else { &refused });
        let parsed = parse(&bytes, &Limits::default());
        prop_assert!(ours || parsed.is_err(), "a pattern that is no JSON object");
        if let Ok(pattern) = &parsed {
            count(&patterns);
            // What is read can be compiled and asked.
            verdicts(&compiled(std::iter::once(pattern), Numbers::Value), b"{\"a\":1}", 1);
        }
        Ok(())
    });
    let counts = [read.get(), refused.get(), patterns.get()];
    println!("any_bytes: {counts:?} read, refused, patterns");
    assert!(counts.iter().all(|&count| count >= 500), "{counts:?} read, refused, patterns");
}

/// Whether another reader of JSON takes it as an object. It decodes no strings and no numbers, of which lone surrogates
/// and `1e400` are ours alone.
fn standard(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| text.trim_start().starts_with('{'))
        && serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok()
}

/// Each row once went wrong, or nearly did.
#[test]
fn rows() {
    let check = |pattern: &str, event: &str, want: bool| {
        let parsed = parse(pattern.as_bytes(), &Limits::default()).expect("a valid pattern");
        assert_eq!(both(&[parsed], event.as_bytes(), Numbers::Value), [want], "{pattern} on {event}");
    };
    check(r#"{"r":{"a":["x"],"b":[{"exists":false}]}}"#, r#"{"r":[{"a":"x"},{"b":"y"}]}"#, true);
    check(r#"{"r":{"b":["x"],"a":[{"exists":false}]}}"#, r#"{"r":[{"b":"x"},{"a":"y"}]}"#, false);
    check(r#"{"a":[{"exists":false}],"b":[1]}"#, r#"{"b":1,"c":[{"d":1}]}"#, true);
    check(r#"{"a":[{"exists":false},"x"],"b":[1]}"#, r#"{"b":1,"a":[{"d":1}],"c":[{"d":2}]}"#, true);
    check(r#"{"a":[{"exists":false}]}"#, "{}", true);
    check(r#"{"":{"a":["x"]}}"#, r#"{".a":"x"}"#, true);
    check(r#"{".a":["x"]}"#, r#"{"":{"a":"x"}}"#, true);
    // Leading zeros, of which groups may have any number; four numbers have at most 15 characters.
    check(r#"{"a":[{"cidr":"2001:db8::/32"}]}"#, r#"{"a":"2001:00db8::1"}"#, true);
    check(r#"{"a":[{"cidr":"2001:00db8::/32"}]}"#, r#"{"a":"2001:db8:0::000000:1"}"#, true);
    check(r#"{"a":["::1"]}"#, r#"{"a":"::00001"}"#, true);
    check(r#"{"a":["::1"]}"#, r#"{"a":":::00001"}"#, false);
    check(r#"{"a":["::ffff:a00:1"]}"#, r#"{"a":"10.0.00.001"}"#, true);
    check(r#"{"a":["10.0.0.1"]}"#, r#"{"a":"0010.000.000.001"}"#, false);
}

/// What both ways of comparing plain numbers decide: by value, and by text.
#[test]
fn numbers_compare_as_the_bus_says() {
    let check = |pattern: &str, event: &str, by_value: bool, by_text: bool| {
        let parsed = parse(pattern.as_bytes(), &Limits::default()).expect("a valid pattern");
        for (numbers, want) in [(Numbers::Value, by_value), (Numbers::Text, by_text)] {
            let parsed = std::slice::from_ref(&parsed);
            assert_eq!(both(parsed, event.as_bytes(), numbers), [want], "{pattern} on {event}, {numbers:?}");
        }
    };
    check(r#"{"a":[300]}"#, r#"{"a":300}"#, true, true);
    check(r#"{"a":[300]}"#, r#"{"a":300.0}"#, true, false);
    check(r#"{"a":[3.0e2]}"#, r#"{"a":300}"#, true, false);
    check(r#"{"a":[3.0e2]}"#, r#"{"a":3.0e2}"#, true, true);
    check(r#"{"a":[0]}"#, r#"{"a":-0}"#, true, false);
    check(r#"{"a":[98765432109876543210]}"#, r#"{"a":98765432109876543210}"#, true, true);
    check(r#"{"a":[98765432109876543210]}"#, r#"{"a":9.8765432109876543210e19}"#, false, false);
    check(r#"{"a":[9007199254740992]}"#, r#"{"a":9007199254740993}"#, false, false);
    check(r#"{"a":[{"anything-but":300}]}"#, r#"{"a":300.0}"#, false, true);
    check(r#"{"a":[{"anything-but":[300,1]}]}"#, r#"{"a":1}"#, false, false);
    check(r#"{"a":[{"numeric":["=",300]}]}"#, r#"{"a":300.0}"#, true, true);
    check(r#"{"a":[300]}"#, r#"{"a":"300"}"#, false, false);
}

#[test]
fn messages_are_the_services() {
    let check = |pattern: &str, message: &str| {
        let said = parse(pattern.as_bytes(), &Limits::default()).expect_err("an invalid pattern").message;
        assert_eq!(said, message, "{pattern}");
    };
    check(r#"{"a":[{"cidr":"219.101.0001.247/8"}]}"#, "Invalid IP address: 219.101.0001.247");
    check(r#"{"a":[{"cidr":"99999999999999999999999.1.1.1/8"}]}"#, "Invalid IP address: 99999999999999999999999.1.1.1");
    check(r#"{"a":[{"cidr":"1.2.3.4.5/8"}]}"#, "Nonstandard IP address: 1.2.3.4.5");
    check(r#"{"a":[{"cidr":"2001:1db88::/32"}]}"#, "Invalid IP address: 2001:1db88::");
}

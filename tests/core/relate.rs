//! What is proved of patterns holds on every event.

use crate::equal::run;
use crate::generate::{event, pattern, scalar, test, tied_event, tied_pattern};
use proptest::prelude::*;
use sluice::event::Tree;
use sluice::pattern::relate::{always, covers, everything, nothing};
use sluice::pattern::{Limits, Numbers, Pattern, matches, parse};
use std::cell::Cell;

fn read(pattern: &str) -> Option<Pattern> {
    parse(pattern.as_bytes(), &Limits::default()).ok()
}

fn decides(pattern: &Pattern, event: &str, numbers: Numbers) -> bool {
    matches(pattern, &Tree::parse(event.as_bytes()).expect("a valid event"), numbers)
}

/// Where one pattern is said to cover another, it does on generated events; returns how often one was.
fn sound(
    name: &str,
    cases: u32,
    pattern: impl Strategy<Value = String>,
    event: impl Strategy<Value = String>,
) -> (u64, u64) {
    let (proved, hits) = (Cell::new(0), Cell::new(0));
    let strategy = (prop::collection::vec(pattern, 16), prop::collection::vec(event, 12), any::<bool>());
    run(name, cases, &strategy, |(patterns, events, by_text)| {
        let numbers = if by_text { Numbers::Text } else { Numbers::Value };
        let patterns: Vec<_> = patterns.iter().filter_map(|text| Some((text, read(text)?))).collect();
        for (wide_text, wide) in &patterns {
            for (narrow_text, narrow) in &patterns {
                if wide_text == narrow_text || !covers(wide, narrow, numbers) {
                    continue;
                }
                proved.set(proved.get() + 1);
                for event in &events {
                    let narrow = decides(narrow, event, numbers);
                    hits.set(hits.get() + u64::from(narrow));
                    let told = (wide_text, narrow_text, event);
                    prop_assert!(!narrow || decides(wide, event, numbers), "{:?}", told);
                }
            }
        }
        Ok(())
    });
    println!("{name}: {} proved, {} matches", proved.get(), hits.get());
    (proved.get(), hits.get())
}

#[test]
fn a_pattern_that_covers_another_matches_what_it_matches() {
    let field = (prop::collection::vec(test(), 1..3), prop::sample::select(vec!["a", "b"]))
        .prop_map(|(tests, key)| format!("{{\"{key}\":[{}]}}", tests.join(",")));
    let one = prop::collection::vec((prop::sample::select(vec!["a", "b"]), scalar()), 1..4).prop_map(|members| {
        let members: Vec<_> = members.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    });
    let (proved, hits) = sound("covers_field", 600, field, one);
    assert!(proved > 500 && hits > 300, "{proved} proved, {hits} matches");
    let (proved, hits) = sound("covers_tied", 400, tied_pattern(), tied_event());
    assert!(proved > 100 && hits > 50, "{proved} proved, {hits} matches");
    sound("covers_any", 200, pattern(), event());
}

#[test]
fn lists_that_accept_all_or_nothing_do() {
    let strategy = (prop::collection::vec(test(), 1..4), prop::collection::vec(scalar(), 24), any::<bool>());
    let proved = Cell::new(0);
    run("all_or_nothing", 3000, &strategy, |(tests, values, by_text)| {
        let numbers = if by_text { Numbers::Text } else { Numbers::Value };
        let text = format!("{{\"a\":[{}]}}", tests.join(","));
        let Some(pattern) = read(&text) else { return Ok(()) };
        let tests = &pattern.alternatives[0].conditions[0].tests;
        for value in &values {
            let accepted = decides(&pattern, &format!("{{\"a\":{value}}}"), numbers);
            prop_assert!(accepted || !everything(tests), "{} on {}", text, value);
            prop_assert!(!accepted || !nothing(tests), "{} on {}", text, value);
        }
        proved.set(proved.get() + u64::from(everything(tests)));
        Ok(())
    });
    assert!(proved.get() > 50, "{} lists accept everything", proved.get());
}

#[test]
fn rows() {
    let check = |wide: &str, narrow: &str, want: bool| {
        let (wide, narrow) = (read(wide).expect("a pattern"), read(narrow).expect("a pattern"));
        assert_eq!(covers(&wide, &narrow, Numbers::Value), want, "{narrow:?} by {wide:?}");
    };
    check(r#"{"a":[1]}"#, r#"{"a":[1],"b":[2]}"#, true);
    check(r#"{"a":[1],"b":[2]}"#, r#"{"a":[1]}"#, false);
    check(r#"{"a":[{"prefix":"eu-"}]}"#, r#"{"a":["eu-west-1",{"wildcard":"eu-*-2"}]}"#, true);
    check(r#"{"a":[{"prefix":"10."}]}"#, r#"{"a":["10.0.0.1"]}"#, false);
    check(r#"{"a":[{"cidr":"10.0.0.0/8"}]}"#, r#"{"a":["10.0.0.1",{"cidr":"10.1.0.0/16"}]}"#, true);
    check(r#"{"a":[{"wildcard":"*b*"}]}"#, r#"{"a":[{"wildcard":"a*b*c"}]}"#, true);
    check(r#"{"a":[{"wildcard":"a*b"}]}"#, r#"{"a":[{"prefix":"a"}]}"#, false);
    check(r#"{"a":[{"numeric":[">",0]}]}"#, r#"{"a":[{"numeric":[">",1,"<",5]},7]}"#, true);
    check(r#"{"a":[{"numeric":[">",0]}]}"#, r#"{"a":[{"numeric":[">=",0]}]}"#, false);
    check(r#"{"a":[{"anything-but":["x"]}]}"#, r#"{"a":[{"anything-but":["x","y"]},5,null,"z"]}"#, true);
    check(r#"{"a":[{"anything-but":{"prefix":"x"}}]}"#, r#"{"a":[{"prefix":"y"}]}"#, true);
    check(r#"{"a":[{"exists":true}]}"#, r#"{"a":[{"exists":true},{"exists":false}]}"#, false);
    check(r#"{"$or":[{"a":[1]},{"b":[1]}]}"#, r#"{"b":[1],"c":[1]}"#, true);
    // Another path may choose the element whose `b` is absent.
    check(r#"{"r":{"b":[{"exists":false}]}}"#, r#"{"r":{"a":[1],"b":[{"exists":false}]}}"#, false);
    let always = |text: &str| read(text).expect("a pattern").alternatives.iter().any(always);
    assert!(always(r#"{"source":[{"prefix":""}]}"#));
    assert!(always(r#"{"source":[{"anything-but":["a"]},{"anything-but":["b"]}],"account":[{"exists":true}]}"#));
    assert!(!always(r#"{"source":[{"anything-but":["a"]}]}"#));
    assert!(!always(r#"{"detail":{"a":[{"exists":true}]}}"#));
}

//! What is proved of patterns holds on every event.

use crate::equal::run;
use crate::generate::{event, pattern, scalar, test, tied_event, tied_pattern};
use proptest::prelude::*;
use sluice::event::Tree;
use sluice::pattern::relate::{Normal, everything, nothing};
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
        let normal = |text: &String| read(text).map(|pattern| (text.clone(), Normal::of(&pattern, numbers), pattern));
        let patterns: Vec<_> = patterns.iter().filter_map(normal).collect();
        for (wide_text, covering, wide) in &patterns {
            for (narrow_text, covered, narrow) in &patterns {
                if wide_text == narrow_text || !covering.covers(covered) {
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

/// Nearly every pattern has an event made for it that it matches, and so do those that cover it.
#[test]
fn witnesses_match() {
    let (asked, found) = (Cell::new(0), Cell::new(0));
    let strategy = (prop::collection::vec(pattern(), 16), any::<bool>());
    run("witnesses", 200, &strategy, |(patterns, by_text)| {
        let numbers = if by_text { Numbers::Text } else { Numbers::Value };
        for pattern in patterns.iter().filter_map(|text| read(text)) {
            let normal = Normal::of(&pattern, numbers);
            let matching = |event: &Vec<u8>| matches(&pattern, &Tree::parse(event).expect("an event"), numbers);
            asked.set(asked.get() + u64::from(!normal.never()));
            found.set(found.get() + u64::from(normal.witnesses().any(|event| matching(&event))));
        }
        Ok(())
    });
    let (asked, found) = (asked.get(), found.get());
    println!("{found} of {asked} patterns have a witness");
    assert!(asked > 1000 && found * 10 > asked * 9, "{found} of {asked}");
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
            prop_assert!(accepted || !everything(tests, numbers), "{} on {}", text, value);
            prop_assert!(!accepted || !nothing(tests), "{} on {}", text, value);
        }
        proved.set(proved.get() + u64::from(everything(tests, numbers)));
        Ok(())
    });
    assert!(proved.get() > 50, "{} lists accept everything", proved.get());
}

#[test]
fn rows() {
    let form = |text: &str, numbers| Normal::of(&read(text).expect("a pattern"), numbers);
    let check = |wide: &str, narrow: &str, want: bool| {
        let said = form(wide, Numbers::Value).covers(&form(narrow, Numbers::Value));
        assert_eq!(said, want, "{narrow} by {wide}");
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
    check(r#"{"$or":[{"a":[1]},{"b":[1]}]}"#, r#"{"c":[1]}"#, false);
    // Another path may choose the element whose `b` is absent.
    check(r#"{"r":{"b":[{"exists":false}]}}"#, r#"{"r":{"a":[1],"b":[{"exists":false}]}}"#, false);
    // What no double lies in matches nothing, so anything covers it.
    check(r#"{"b":[1]}"#, r#"{"a":[{"numeric":[">",5,"<",5.000000000000001]}]}"#, true);
    check(r#"{"a":[{"numeric":["<",5]},{"numeric":[">=",5]}]}"#, r#"{"a":[{"numeric":[">",0]}]}"#, true);
    check(r#"{"a":[{"numeric":["<",5]},{"numeric":[">",5]}]}"#, r#"{"a":[{"numeric":[">",0]}]}"#, false);
    check(r#"{"a":[{"prefix":{"equals-ignore-case":"ab"}}]}"#, r#"{"a":[{"equals-ignore-case":"ABc"}, "aBd"]}"#, true);
    check(r#"{"a":[{"prefix":{"equals-ignore-case":"ab"}}]}"#, r#"{"a":[{"prefix":"a"}]}"#, false);
    check(r#"{"a":[{"prefix":"12"}]}"#, r#"{"a":[{"equals-ignore-case":"12a"}]}"#, true);
    check(r#"{"a":[{"anything-but":{"wildcard":"x*y"}}]}"#, r#"{"a":[{"wildcard":"x*z"}]}"#, true);
    check(r#"{"a":[{"anything-but":["10.0.0.1"]}]}"#, r#"{"a":[{"cidr":"11.0.0.0/8"}]}"#, true);
}

#[test]
fn spellings_of_one_condition_are_the_same() {
    let check = |one: &str, other: &str, numbers: Numbers, want: bool| {
        let form = |text: &str| Normal::of(&read(text).unwrap_or_else(|| panic!("{text}")), numbers);
        let (one_form, other_form) = (form(one), form(other));
        let said = one_form.covers(&other_form) && other_form.covers(&one_form);
        assert_eq!(said, want, "{one} and {other}, {numbers:?}");
    };
    let field = |list: &str| format!("{{\"a\":[{list}]}}");
    let lists = |one: &str, other: &str, want| check(&field(one), &field(other), Numbers::Value, want);
    lists(r#""x""#, r#"{"exactly":"x"}"#, true);
    lists(r#""10.0.0.1""#, r#"{"exactly":"10.0.0.1"}"#, false);
    lists(r#""::1""#, r#""0:0::1""#, true);
    lists(r#""x""#, r#"{"wildcard":"x"}"#, true);
    lists(r#"{"prefix":"x"}"#, r#"{"wildcard":"x*"}"#, true);
    lists(r#"{"wildcard":"*"}"#, r#"{"prefix":""}"#, true);
    lists(r#"{"equals-ignore-case":"aB1"}"#, r#"{"equals-ignore-case":"Ab1"}"#, true);
    lists(r#"{"equals-ignore-case":"123"}"#, r#""123""#, true);
    lists(r#"5"#, r#"{"numeric":["=",5]}"#, true);
    lists(r#"5"#, r#"5.0"#, true);
    lists(r#"{"anything-but":5}"#, r#"{"anything-but":[5.0]}"#, true);
    lists(r#"{"anything-but":["x","y"]}"#, r#"{"anything-but":["y","x"]}"#, true);
    lists(r#"{"anything-but":["x"]}"#, r#"{"anything-but":{"wildcard":"x"}}"#, true);
    lists(r#"{"anything-but":["x"]}"#, r#"{"anything-but":{"prefix":"x"}}"#, false);
    lists(r#"{"cidr":"10.1.2.3/8"}"#, r#"{"cidr":"10.0.0.0/8"}"#, true);
    lists(r#"{"exists":true}"#, r#"{"anything-but":["x"]},"x""#, true);
    lists(r#"{"exists":true}"#, r#"{"anything-but":["x"]},{"anything-but":[1]}"#, true);
    lists(r#"{"exists":true}"#, r#"{"prefix":""},true,false,null"#, false);
    check(&field("5"), &field("5.0"), Numbers::Text, false);
    check(&field("5"), r#"{"a":[{"numeric":["=",5]}]}"#, Numbers::Text, false);
    let values = |one: &str, other: &str, want| check(one, other, Numbers::Value, want);
    values(r#"{"a":["x","y"]}"#, r#"{"$or":[{"a":["x"]},{"a":["y"]}]}"#, true);
    values(
        r#"{"a":["x","y"],"b":[1,2]}"#,
        r#"{"$or":[{"a":["x"],"b":[1]},{"a":["x"],"b":[2]},{"a":["y"],"b":[2]},{"a":["y"],"b":[1]}]}"#,
        true,
    );
    values(
        r#"{"a":["x","y"],"b":[1,2]}"#,
        r#"{"$or":[{"a":["x"],"b":[1]},{"a":["x"],"b":[2]},{"a":["y"],"b":[2]}]}"#,
        false,
    );
    values(r#"{"a":{"b":["x"]}}"#, r#"{"a.b":["x"]}"#, true);
    values(r#"{"$or":[{"a":[1]},{"b":[1]}]}"#, r#"{"$or":[{"b":[1]},{"a":[1]}]}"#, true);
}

#[test]
fn patterns_that_match_all_events_are_known() {
    let check = |text: &str, numbers: Numbers, want: bool| {
        assert_eq!(Normal::of(&read(text).expect("a pattern"), numbers).always(), want, "{text}");
    };
    let always = |text: &str, want| check(text, Numbers::Value, want);
    always(r#"{"source":[{"prefix":""}]}"#, true);
    always(r#"{"source":[{"anything-but":["a"]},{"anything-but":["b"]}],"account":[{"exists":true}]}"#, true);
    always(r#"{"source":[{"anything-but":["a"]}]}"#, false);
    always(r#"{"source":[{"anything-but":["a"]}, "a"]}"#, true);
    always(r#"{"detail":{"a":[{"exists":true}]}}"#, false);
    always(r#"{"detail":{"a":["x",{"anything-but":["x"]},{"exists":false}]}}"#, true);
    always(r#"{"$or":[{"detail":{"a":[{"exists":true}]}},{"detail":{"a":[{"exists":false}]}}]}"#, true);
    always(r#"{"$or":[{"source":["a"]},{"source":[{"anything-but":"a"}]}]}"#, true);
    always(r#"{"$or":[{"source":["a"]},{"source":[{"anything-but":"b"}]}]}"#, false);
    always(r#"{"$or":[{"source":["a"]},{"region":[{"anything-but":"a"}]}]}"#, false);
    let numbers = r#"{"detail":{"a":[{"anything-but":5},5.0,{"exists":false}]}}"#;
    check(numbers, Numbers::Value, true);
    check(numbers, Numbers::Text, false);
}

//! I6: the matcher decides as the naive evaluator, on generated rules and events, through the bytes of the event.

use bumpalo::Bump;
use proptest::prelude::*;
use sluice::event::{Scanner, Tree, decode};
use sluice::matcher::{Builder, Scratch};
use sluice::pattern::{Limits, Numbers, Pattern, matches, parse};

/// What each pattern decides, by both evaluators, which must agree.
pub fn both(patterns: &[Pattern], event: &[u8], numbers: Numbers) -> Vec<bool> {
    let tree = Tree::parse(event).expect("a valid event");
    let naive: Vec<bool> = patterns.iter().map(|pattern| matches(pattern, &tree, numbers)).collect();
    let mut builder = Builder::new(7, numbers);
    for pattern in patterns {
        builder.add(pattern);
    }
    let matcher = builder.build();
    let bump = Bump::new();
    let fields = decode(event, matcher.paths(), &mut Scanner::default(), &bump).expect("a valid event");
    let mut scratch = Scratch::default();
    let mut compiled = vec![false; patterns.len()];
    for &rule in matcher.matches(&fields, &mut scratch) {
        compiled[rule as usize] = true;
    }
    assert_eq!(compiled, naive, "event {}", String::from_utf8_lossy(event));
    compiled
}

fn key() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c", "a.b", "", "ü", "d-t"])
}

fn scalar() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "\"x\"",
        "\"xy\"",
        "\"X\"",
        "\"yx\"",
        "\"\"",
        "\"10.0.0.7\"",
        "\"fd00::7\"",
        "\"FUSS\"",
        "\"fuß\"",
        "\"a*b\"",
        "\"a/b/c.log\"",
        "\"\\u0078\"",
        "\"\\ud800\"",
        "\"\\ud83d\\ude00\"",
        "\"😀\"",
        "\"5\"",
        "5",
        "5.0",
        "0.5e1",
        "-0",
        "0",
        "1e400",
        "98765432109876543210",
        "9.8765432109876543210e19",
        "9007199254740993",
        "7",
        "true",
        "false",
        "null",
    ])
    .prop_map(str::to_owned)
}

fn value(depth: u32) -> impl Strategy<Value = String> {
    scalar().prop_recursive(depth, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            object(inner),
        ]
    })
}

/// An object; keys may repeat.
fn object(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    prop::collection::vec((key(), value), 0..4).prop_map(|members| {
        let members: Vec<_> = members.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    })
}

fn test() -> impl Strategy<Value = String> {
    let operators = vec![
        r#"{"prefix":"x"}"#,
        r#"{"prefix":""}"#,
        r#"{"prefix":{"equals-ignore-case":"X"}}"#,
        r#"{"suffix":"x"}"#,
        r#"{"suffix":{"equals-ignore-case":"Y"}}"#,
        r#"{"suffix":".log"}"#,
        r#"{"equals-ignore-case":"fuß"}"#,
        r#"{"equals-ignore-case":"x"}"#,
        r#"{"wildcard":"a*b"}"#,
        r#"{"wildcard":"a/*/*.log"}"#,
        r#"{"wildcard":"*"}"#,
        r#"{"wildcard":"a\\*b"}"#,
        r#"{"anything-but":"x"}"#,
        r#"{"anything-but":["x","5"]}"#,
        r#"{"anything-but":5}"#,
        r#"{"anything-but":[0,7]}"#,
        r#"{"anything-but":{"prefix":"x"}}"#,
        r#"{"anything-but":{"suffix":["x","y"]}}"#,
        r#"{"anything-but":{"equals-ignore-case":"x"}}"#,
        r#"{"anything-but":{"wildcard":"*x*"}}"#,
        r#"{"exists":true}"#,
        r#"{"exists":false}"#,
        r#"{"numeric":["=",5]}"#,
        r#"{"numeric":[">",0,"<=",6]}"#,
        r#"{"numeric":["<",1]}"#,
        r#"{"cidr":"10.0.0.0/8"}"#,
        r#"{"cidr":"fd00::/8"}"#,
        r#"{"exactly":"x"}"#,
    ];
    prop_oneof![scalar(), prop::sample::select(operators).prop_map(str::to_owned)]
}

fn pattern() -> impl Strategy<Value = String> {
    let list = prop::collection::vec(test(), 1..3).prop_map(|tests| format!("[{}]", tests.join(",")));
    let fields = |inner: BoxedStrategy<String>| {
        prop::collection::vec((key(), inner), 1..4).prop_map(|members| {
            members.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect::<Vec<_>>().join(",")
        })
    };
    let leaf = fields(list.boxed());
    let nested = leaf.prop_recursive(3, 16, 3, move |inner| {
        let branch = inner.clone().prop_map(|fields| format!("{{{fields}}}"));
        prop_oneof![
            3 => fields(prop_oneof![
                branch.clone(),
                prop::collection::vec(test(), 1..3).prop_map(|tests| format!("[{}]", tests.join(",")))
            ].boxed()),
            1 => (inner, prop::collection::vec(branch, 2..4))
                .prop_map(|(fields, branches)| format!("{fields},\"$or\":[{}]", branches.join(","))),
        ]
    });
    nested.prop_map(|fields| format!("{{{fields}}}"))
}

fn cases() -> u32 {
    std::env::var("SLUICE_TEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(4_000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn matcher_agrees_with_eval(patterns in prop::collection::vec(pattern(), 1..12), event in object(value(4)), by_text: bool) {
        let patterns: Vec<_> =
            patterns.iter().filter_map(|p| parse(p.as_bytes(), &Limits::default()).ok()).collect();
        both(&patterns, event.as_bytes(), if by_text { Numbers::Text } else { Numbers::Value });
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let ours = Tree::parse(&bytes).is_ok();
        let theirs = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&bytes).is_ok();
        prop_assert_eq!(ours, theirs);
        drop(parse(&bytes, &Limits::default()));
    }
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
}

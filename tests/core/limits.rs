//! Large and hostile patterns and events: a verdict or a clear refusal, in bounded time.

use bumpalo::Bump;
use sluice::event::{Fault, FaultKind, Scanner, Tree, decode};
use sluice::matcher::{Builder, Scratch};
use sluice::pattern::{Limits, Numbers, parse};
use std::time::{Duration, Instant};

fn verdict(pattern: &str, event: &[u8]) -> Result<bool, Fault> {
    let mut builder = Builder::new(7, Numbers::Value);
    builder.add(&parse(pattern.as_bytes(), &Limits::default()).expect("a valid pattern"));
    let (matcher, bump) = (builder.build(), Bump::new());
    let mut scanner = Scanner::default();
    let fields = decode(event, matcher.paths(), &mut scanner, &bump)?;
    matcher.matches(&fields, &mut Scratch::default()).map(|rules| !rules.is_empty())
}

/// A generous multiple of what each row takes, which is milliseconds: what grows faster than the event takes minutes.
const SOON: Duration = Duration::from_secs(5);

#[test]
fn large_events_are_decided() {
    let check = |what: &str, pattern: &str, event: &str, want: Result<bool, FaultKind>| {
        let begin = Instant::now();
        let verdict = verdict(pattern, event.as_bytes()).map_err(|fault| fault.kind);
        assert_eq!(verdict, want, "{what}");
        assert!(begin.elapsed() < SOON, "{what} took {:?}", begin.elapsed());
    };
    let many = |one: &str, count: usize| vec![one; count].join(",");
    let long = "x".repeat(1 << 20);
    check("a long string", r#"{"a":[{"suffix":"xy"}]}"#, &format!("{{\"a\":\"{long}y\"}}"), Ok(true));
    check("a star in a long string", r#"{"a":[{"wildcard":"x*y*z"}]}"#, &format!("{{\"a\":\"{long}y\"}}"), Ok(false));
    let half: String = (0..3000).map(|n| format!("<{n}>")).collect();
    check(
        "a long literal",
        &format!("{{\"a\":[{{\"wildcard\":\"*{half}y*\"}}]}}"),
        &format!("{{\"a\":\"{long}\"}}"),
        Ok(false),
    );
    let keys: Vec<_> = (0..100_000).map(|n| format!("\"k{n}\":{n}")).collect();
    let keys = keys.join(",");
    check("many keys", r#"{"k99999":[99999],"k7":[7]}"#, &format!("{{{keys}}}"), Ok(true));
    check(
        "one key many times",
        r#"{"a":[2],"b":[1]}"#,
        &format!("{{{},\"b\":1}}", many("\"a\":1", 100_000)),
        Ok(false),
    );

    // One array a path: every element is met a few times at most.
    let apart = many(r#"{"x":1},{"y":2}"#, 60_000);
    check("elements apart", r#"{"r":{"x":[1],"y":[2]}}"#, &format!("{{\"r\":[{apart}]}}"), Ok(false));
    check(
        "and one together",
        r#"{"r":{"x":[1],"y":[2]}}"#,
        &format!("{{\"r\":[{apart},{{\"x\":1,\"y\":2}}]}}"),
        Ok(true),
    );
    let nested = many(r#"{"s":[{"x":1,"y":3},{"x":3,"y":2}],"z":1}"#, 20_000);
    check("arrays in arrays", r#"{"r":{"s":{"x":[1],"y":[2]},"z":[1]}}"#, &format!("{{\"r\":[{nested}]}}"), Ok(false));
    let absent = many(r#"{"x":1,"z":1}"#, 60_000);
    check("absence", r#"{"r":{"x":[1],"z":[{"exists":false}]}}"#, &format!("{{\"r\":[{absent}]}}"), Ok(false));
    let lists: Vec<_> = (0..20).map(|n| format!("\"r{n}\":[{}]", many(r#"{"x":1}"#, 500))).collect();
    let tests: Vec<_> = (0..20).map(|n| format!("\"r{n}\":{{\"x\":[1],\"y\":[{{\"exists\":false}}]}}")).collect();
    let (lists, tests) = (lists.join(","), tests.join(","));
    check("many arrays", &format!("{{{tests},\"z\":[1]}}"), &format!("{{{lists},\"z\":1}}"), Ok(true));

    // The same path again and again: choices multiply.
    let thrice = format!("[{}]", many(r#"{"x":1},{"y":1},{"z":1},{"v":1}"#, 500));
    let event = format!("{{\"r\":{thrice},\"r\":{thrice},\"r\":{thrice}}}");
    check("equal keys", r#"{"r":{"v":[1],"x":[1],"y":[1],"z":[1]}}"#, &event, Err(FaultKind::TooManyChoices));
    check("equal keys that fit", r#"{"r":{"v":[1],"x":[1],"y":[1]}}"#, &event, Ok(true));
}

#[test]
fn bytes_that_are_no_text_are_refused() {
    let check = |event: &[u8], want: Result<bool, FaultKind>| {
        let pattern = r#"{"a":["x",{"prefix":""}]}"#;
        assert_eq!(verdict(pattern, event).map_err(|fault| fault.kind), want, "{}", String::from_utf8_lossy(event));
        assert_eq!(Tree::parse(event).map(|_| ()).map_err(|fault| fault.kind), want.map(|_| ()));
    };
    check(b"\xEF\xBB\xBF{\"a\":\"x\"}", Err(FaultKind::ByteOrderMark));
    check(b"{\"a\":\"\xC3\x28\"}", Err(FaultKind::Utf8));
    check(b"{\"a\":\"\xED\xA0\x80\"}", Err(FaultKind::Utf8));
    check(b"{\"a\":\"\xF8\x88\x80\x80\x80\"}", Err(FaultKind::Utf8));
    check(b"{\"b\":\"\xFF\"}", Err(FaultKind::Utf8));
    check(b"{\"a\":\"\0\"}", Err(FaultKind::BadString));
    check(b"{\"a\":1}\0", Err(FaultKind::Trailing));
    check(b"\0{\"a\":1}", Err(FaultKind::NotAnObject));
    check(b"{\"a\":\"\\u0000\"}", Ok(true));
    check(b"{\"a\":\"\\ud800\"}", Ok(true));
    check(b"{\"a\":\"\\ud800\\ud800\\udc00\"}", Ok(true));
}

/// What stands before an object that is none is named; where a pattern is no object, in the service's words.
#[test]
fn bytes_before_a_pattern_are_named() {
    let check = |pattern: &[u8], message: &str| {
        let error = parse(pattern, &Limits::default()).expect_err("an invalid pattern");
        assert_eq!(error.message, message, "{}", String::from_utf8_lossy(pattern));
    };
    check(b"\xEF\xBB\xBF{\"a\":[1]}", "a byte order mark, which JSON does not allow, at byte 0");
    check(b" \xEF\xBB\xBF{\"a\":[1]}", "a byte order mark, which JSON does not allow, at byte 1");
    check(b"\xFE\xFF\0{\0}", "invalid UTF-8 at byte 0");
    check(b"\xC3{\"a\":[1]}", "invalid UTF-8 at byte 0");
    check(b"\n\xED\xA0\x80{\"a\":[1]}", "invalid UTF-8 at byte 1");
    check(b"{\"a\":[\"\xFF\"]}", "invalid UTF-8 at byte 7");
    for no_object in [&b""[..], b" ", b"[1]", b"\"x\"", b"x\xFF", b"\0{}", "\u{e9}{}".as_bytes(), b"5"] {
        check(no_object, "Filter is not an object");
    }
}

/// Nothing recurses: the deepest pattern and event are read, compiled and decided on a stack of 64 KiB.
#[test]
fn depth_takes_no_stack() {
    let decide = |pattern: String, event: String| {
        let thread = std::thread::Builder::new().stack_size(64 << 10);
        let decided = thread.spawn(move || verdict(&pattern, event.as_bytes())).expect("a thread").join();
        assert_eq!(decided.expect("room on the stack"), Ok(true));
    };
    let nested = |levels: usize, inside: &str| format!("{}{inside}{}", "{\"a\":".repeat(levels), "}".repeat(levels));
    decide(nested(1000, "[1]"), nested(1000, "1"));
    let ors = format!("{}{{\"b\":[1]}}{}", "{\"$or\":[{\"a\":[1]},".repeat(499), "]}".repeat(499));
    decide(ors, "{\"b\":1}".to_owned());
}

#[test]
fn hostile_patterns_are_read_or_refused_soon() {
    let check = |what: &str, pattern: &str, good: bool| {
        let begin = Instant::now();
        let parsed = parse(pattern.as_bytes(), &Limits { text_bytes: 1 << 20, ..Limits::default() });
        assert_eq!(parsed.is_ok(), good, "{what}: {:?}", parsed.err());
        assert!(begin.elapsed() < SOON, "{what} took {:?}", begin.elapsed());
    };
    let many = |count: usize, one: &dyn Fn(usize) -> String| (0..count).map(one).collect::<Vec<_>>().join(",");
    let branches = many(1000, &|n| format!("{{\"b\":[{n}]}}"));
    let list = many(5000, &|n| format!("\"v{n}\""));
    check("a list shared by a thousand alternatives", &format!("{{\"a\":[{list}],\"$or\":[{branches}]}}"), true);
    let ors = many(12, &|n| format!("\"k{n}\":{{\"$or\":[{{\"a\":[1]}},{{\"b\":[2]}}]}}"));
    check("four thousand combinations", &format!("{{{ors}}}"), false);
    let stars = many(5, &|n| format!("{{\"wildcard\":\"{}*\"}}", "ab*".repeat(n + 1)));
    check("stars that add up", &format!("{{\"a\":[{stars}]}}"), false);
    check(
        "quotes are what a text begins and ends with",
        &format!(r#"{{"a":[{{"wildcard":"*{}"}}]}}"#, r#"\""#.repeat(9)),
        false,
    );
    let texts = [1, 2, 3].map(|n| format!(r#"{{"wildcard":"*{}"}}"#, r#"\""#.repeat(n)));
    check("in several operands, too", &format!(r#"{{"a":[{}]}}"#, texts.join(",")), false);
    check("a long text without a star", &format!(r#"{{"a":[{{"wildcard":"{}"}}]}}"#, "x".repeat(60_000)), true);
    let long: String = (0..20_000u32).map(|n| format!("{:x}", n.wrapping_mul(0x9E37_79B9) >> 20)).collect();
    check("a long text behind a star", &format!(r#"{{"a":[{{"wildcard":"*{}"}}]}}"#, &long[..50_000]), true);
    let wild = many(3000, &|n| format!("\"p{n:04}*s{n}\""));
    check("three thousand wildcards", &format!("{{\"a\":[{{\"anything-but\":{{\"wildcard\":[{wild}]}}}}]}}"), true);
    let but = many(20_000, &|n| format!("\"v{n}\""));
    check("much excluded", &format!("{{\"a\":[{{\"anything-but\":[{but}]}}]}}"), true);
    check("deep", &format!("{}[1]{}", "{\"a\":".repeat(900), "}".repeat(900)), true);
    check("too deep", &format!("{}[1]{}", "{\"a\":".repeat(5000), "}".repeat(5000)), false);
}

//! Ten thousand rules of one kind, hostile kinds too: they decide as each rule alone, are built soon and use little time
//! an event.

use crate::corpus::hostile::{self, Set};
use crate::corpus::orders::Dice;
use crate::equal::{compiled, naive, valid, verdicts};
use bumpalo::Bump;
use sluice::event::{Scanner, decode};
use sluice::matcher::Scratch;
use sluice::pattern::Numbers;
use std::time::{Duration, Instant};

const RULES: u64 = 10_000;

fn word(number: u64, letters: usize) -> String {
    hostile::word(1, number, 0, letters)
}

/// Forty words.
fn text(n: u64) -> String {
    (0..40).map(|at| word(n * 1000 + at, 3 + at as usize % 4)).collect::<Vec<_>>().join(" ")
}

/// Builds soon: a minute would be a cliff, and a second is usual.
const BUILT: Duration = Duration::from_secs(10);
/// No event holds a worker longer, on a machine a few times slower than usual.
const DECIDED: Duration = Duration::from_millis(200);

fn timed<T>(what: &str, limit: Duration, work: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let result = work();
    assert!(begin.elapsed() < limit, "{what} took {:?}", begin.elapsed());
    result
}

/// Compiles so many rules and holds what they decide on the events against each rule alone; some must match, not all.
fn check(what: &str, rules: u64, rule: impl Fn(u64) -> String, events: &[String]) {
    let patterns = valid(&(0..rules).map(rule).collect::<Vec<_>>());
    assert_eq!(patterns.len() as u64, rules, "{what}");
    let matcher = timed(what, BUILT, || compiled(patterns.iter(), Numbers::Value));
    let mut matches = 0;
    for event in events {
        let decided = timed(what, DECIDED, || verdicts(&matcher, event.as_bytes(), patterns.len()));
        let alone = naive(&patterns, event.as_bytes(), Numbers::Value);
        for (n, (together, alone)) in decided.iter().zip(&alone).enumerate() {
            assert_eq!(together, alone, "{what}: rule {n} on {event}");
        }
        matches += alone.iter().filter(|&&matched| matched).count();
    }
    assert!(matches > 0 && matches < patterns.len() * events.len(), "{what}: {matches} matches");
}

fn events(count: u64, event: impl Fn(u64) -> String) -> Vec<String> {
    (0..count).map(event).collect()
}

#[test]
fn sets_that_are_made_to_hurt() {
    for (set, rules) in Set::ALL {
        // Each rule alone takes a thousand alternatives, or forty objects, one after the other.
        let (rules, count) = if set == Set::Products { (100, 4) } else { (rules, 3) };
        check(&format!("{set:?}"), rules, |n| set.pattern(1, n), &events(count, |n| set.event(1, n, 40)));
    }
}

/// A thousand objects, and ten thousand rules that ask for three of their members together.
#[test]
fn large_arrays_take_little_time() {
    let patterns = valid(&(0..RULES).map(|n| Set::Objects.pattern(1, n)).collect::<Vec<_>>());
    let matcher = compiled(patterns.iter(), Numbers::Value);
    let event = Set::Objects.event(1, 3, 1000);
    let (mut scanner, bump) = (Scanner::default(), Bump::new());
    let fields = decode(event.as_bytes(), matcher.paths(), &mut scanner, &bump).expect("a valid event");
    let matched = timed("a thousand objects", DECIDED, || {
        matcher.matches(&fields, &mut Scratch::default()).expect("few choices").len()
    });
    assert!(matched > 100, "{matched} matches");
}

#[test]
fn texts() {
    let alike = |n| format!(r#"{{"f":[{{"wildcard":"*foo*{}*"}}]}}"#, word(n, 1 + n as usize % 3));
    check("wildcards that begin alike", RULES, alike, &events(3, |n| format!(r#"{{"f":"foo {} foo"}}"#, text(n))));
    let never = |n| format!(r#"{{"f":[{{"anything-but":["{}","q"]}}]}}"#, word(n, 6));
    let comes = |n: u64| format!(r#"{{"f":"{}"}}"#, ["q", "r", "s"][n as usize]);
    check("anything-but what comes", RULES, never, &events(3, comes));
    let prefix = |n| format!(r#"{{"f":[{{"prefix":"{}{}"}}]}}"#, "x".repeat(n as usize % 900), word(n, 8));
    let begun = |n: u64| format!(r#"{{"f":"{}{}"}}"#, "x".repeat(n as usize * 90 % 900), word(n * 90, 8));
    check("prefixes of many lengths", RULES, prefix, &events(6, begun));
}

#[test]
fn numbers() {
    let holding = |n| format!(r#"{{"f":[{{"numeric":[">=",{n},"<=",{}]}}]}}"#, 2 * RULES - n);
    check("ranges in ranges", RULES, holding, &events(8, |n| format!(r#"{{"f":{}}}"#, n * RULES / 4)));
    // The ends of blocks of them: each reaches exactly the last value.
    let point = |n| format!(r#"{{"f":[{{"numeric":[">",{n},"<=",{}]}}]}}"#, n + 1);
    check("ranges side by side", RULES, point, &events(16, |n| format!(r#"{{"f":{}}}"#, 16 * n * n + 16)));
    let one = |n| format!(r#"{{"f":[{{"numeric":["=",{}]}}],"g":[{{"numeric":["<=",{n}]}}]}}"#, n % 1000);
    check("equal numbers", RULES, one, &events(8, |n| format!(r#"{{"f":[{n},1e2],"g":{}}}"#, n * 1000)));
}

#[test]
fn fields() {
    // Keys that differ from their ninth byte on only.
    let long = |n: u64| format!(r#"{{"resource_{:05}":["v"]}}"#, n * 2);
    check("keys alike", RULES, long, &events(40, |n| format!(r#"{{"resource_{n:05}":"v"}}"#)));
    // Most rules name the source, some of them several, and what does not name it stands beside.
    let sources = |n: u64| match n % 60 {
        0 => format!(r#"{{"d":{{"id":["{}"]}}}}"#, n % 50),
        1 => format!(r#"{{"source":[{{"prefix":"s{}"}}],"d":{{"id":["{}"]}}}}"#, n % 7, n % 50),
        2 => format!(r#"{{"source":[{{"exists":false}}],"d":{{"id":["{}"]}}}}"#, n % 50),
        _ => format!(r#"{{"source":["s{}","s{}"],"d":{{"id":["{}"]}}}}"#, n % 7, n % 11, n % 50),
    };
    let from = |n: u64| {
        let source = match n % 6 {
            0 => String::new(),
            1 => r#""source":[],"#.into(),
            2 => r#""source":"elsewhere","#.into(),
            3 => format!(r#""source":["s{n}","elsewhere"],"#),
            4 => format!(r#""source":["elsewhere","s1","s{n}","s{n}"],"#),
            _ => format!(r#""source":"s{n}","#),
        };
        format!(r#"{{{source}"d":{{"id":["{}","{}"]}}}}"#, n, n + 1)
    };
    check("a field that most name", RULES, sources, &events(36, from));
    let or = |n: u64| format!(r#"{{"$or":[{{"a":["{}"]}},{{"b":["{}"]}}],"c":["{}"]}}"#, n % 90, n % 80, n % 70);
    // Each of a thousand alternatives asks for one of three thousand values.
    let list = (0..3000).map(|n| format!(r#""v{n}""#)).collect::<Vec<_>>().join(",");
    let branches = (0..1000).map(|n| format!(r#"{{"b":[{{"anything-but":{n}}}]}}"#)).collect::<Vec<_>>().join(",");
    let shared = |n: u64| format!(r#"{{"a":[{list}],"c":[{n}],"$or":[{branches}]}}"#);
    check("a long list of many", 10, shared, &events(4, |n| format!(r#"{{"a":"v{n}","b":{n},"c":{}}}"#, n * 3)));
    let alone = |n: u64| format!(r#"{{"a":[{list}],"d":[{{"anything-but":{n}}}],"$or":[{branches}]}}"#);
    check("a long list alone", 10, alone, &events(4, |n| format!(r#"{{"a":"v{n}","b":{n},"d":{n}}}"#)));
    check("$or", RULES, or, &events(8, |n| format!(r#"{{"a":"{n}","b":"{}","c":["{n}","{}"]}}"#, n + 1, n + 2)));
}

/// Objects whose members rules ask for together.
fn objects(n: u64, count: u64) -> String {
    let mut dice = Dice::new(1, 4, n);
    let one = |_| format!(r#"{{"a":"{}","b":"{}"}}"#, dice.roll(100), dice.roll(100));
    (0..count).map(one).collect::<Vec<_>>().join(",")
}

#[test]
fn arrays() {
    let absent = |n| format!(r#"{{"r":{{"a":["{}"],"b":[{{"exists":false}}]}}}}"#, n % 500);
    check("absence in objects", RULES, absent, &events(2, |n| format!(r#"{{"r":[{},{{"a":"7"}}]}}"#, objects(n, 20))));
    let nested = |n| format!(r#"{{"r":{{"s":{{"a":["{}"],"b":["{}"]}},"z":["1"]}}}}"#, n % 100, n / 100 % 100);
    let outer = |n: u64| {
        let inner = |at| format!(r#"{{"z":"{}","s":[{}]}}"#, at % 3, objects(n * 10 + at, 10));
        format!(r#"{{"r":[{}]}}"#, (0..10).map(inner).collect::<Vec<_>>().join(","))
    };
    check("arrays in arrays", RULES, nested, &events(2, outer));
}

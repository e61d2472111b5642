//! Patterns and events as JSON texts, drawn from one small world of keys and values so that they meet; the same key or
//! value is spelled in many ways.

use proptest::prelude::*;
use proptest::sample::select;

/// One character, or what stands for one: its spellings inside a JSON string.
const PIECES: &[&[&str]] = &[
    &["a", "\\u0061"],
    &["b"],
    &["x", "\\u0078"],
    &["A"],
    &["X"],
    &["5"],
    &[".", "\\u002e"],
    &["*"],
    &["/", "\\/"],
    &["-"],
    &[" "],
    &["é", "\\u00e9"],
    &["e\\u0301"],
    &["ß", "\\u00DF"],
    &["SS"],
    &["ſ"],
    &["İ"],
    &["ı"],
    &["i"],
    &["I"],
    &["K"],
    &["k"],
    &["σ"],
    &["ς"],
    &["Σ"],
    &["ǅ"],
    &["ǆ"],
    &["ŉ"],
    &["ﬁ"],
    &["😀", "\\ud83d\\ude00", "\\uD83D\\uDE00"],
    &["𐐀"],
    &["𐐨"],
    &["\\ud800"],
    &["\\udc00"],
    &["\\u0000"],
    &["\\n", "\\u000a"],
    &["\\\"", "\\u0022"],
    &["\\\\", "\\u005c"],
    &["\u{7f}"],
    &["\u{2028}", "\\u2028"],
];

/// What stands between the quotes of a string.
fn inside() -> impl Strategy<Value = String> {
    let piece = (0..PIECES.len(), any::<prop::sample::Index>()).prop_map(|(n, way)| *way.get(PIECES[n]));
    let few = (0..9usize, any::<prop::sample::Index>()).prop_map(|(n, way)| *way.get(PIECES[n]));
    prop_oneof![
        3 => prop::collection::vec(few, 0..4).prop_map(|pieces| pieces.concat()),
        1 => prop::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat()),
        1 => address(),
    ]
}

/// Addresses, and what only looks like one.
fn address() -> impl Strategy<Value = String> {
    let four = (0..3u8, select(vec!["10.0.0.", "10.0.1.", "010.000.0.", "192.0.2.", "256.0.0.", "1.2."]))
        .prop_map(|(last, begin)| format!("{begin}{last}"));
    let six = select(vec![
        "::",
        "::1",
        "fd00::7",
        "FD00:0:0:0:0:0:0:7",
        "fd00:0:0::7",
        "::ffff:a00:1",
        "::ffff:10.0.0.1",
        "fd00::7%eth0",
        "[fd00::7]",
        "a14::1",
        "1:2:3:4:5:6:7:8:9",
        "12345::",
        "fd00::7::",
    ]);
    prop_oneof![four, six.prop_map(str::to_owned)]
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => select(vec!["a", "b", "c", "\\u0061", "a.b", "b.c", "a\\u002eb", ""]).prop_map(str::to_owned),
        1 => inside(),
    ]
}

/// Numbers, the same value in many spellings, and those that no double carries.
fn number() -> impl Strategy<Value = String> {
    let small = (-3i32..8, select(vec!["", ".0", ".00", "e0", "E0", "e+00", ".5", "e1", "0e-1"]))
        .prop_map(|(whole, end)| format!("{whole}{end}"))
        .prop_map(|text| if text.starts_with("00e") { "0e-1".to_owned() } else { text });
    let edge = select(vec![
        "-0",
        "-0.0",
        "0e9",
        "9007199254740992",
        "9007199254740993",
        "9007199254740993.0",
        "1e400",
        "-1e400",
        "1e-400",
        "5e-324",
        "4.9e-324",
        "1.7976931348623157e308",
        "2e23",
        "0.1",
        "0.10",
        "1e-1",
        "0.1234567890123456789",
        "98765432109876543210",
        "9.8765432109876543210e19",
        "1234567890123456789012345678901234567890",
        "1e1",
        "10",
        "10.0",
        "0.5e1",
        "50e-1",
        "1E22",
        "1e23",
    ]);
    let any = (any::<i64>(), -30i32..30).prop_map(|(digits, exponent)| format!("{digits}e{exponent}"));
    prop_oneof![4 => small, 3 => edge.prop_map(str::to_owned), 1 => any]
}

fn string() -> impl Strategy<Value = String> {
    inside().prop_map(|text| format!("\"{text}\""))
}

pub fn scalar() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => string(),
        3 => number(),
        1 => select(vec!["true", "false", "null"]).prop_map(str::to_owned),
    ]
}

fn value() -> impl Strategy<Value = String> {
    scalar().prop_recursive(6, 40, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(" , "))),
            members(inner),
        ]
    })
}

/// An object; keys may repeat.
fn members(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    prop::collection::vec((key(), value), 0..5).prop_map(|members| {
        let members: Vec<_> = members.iter().map(|(key, value)| format!("\"{key}\" :{value}")).collect();
        format!("{{{}}}", members.join(","))
    })
}

/// An event: an object with a few members; rarely, something very deep stands in it.
pub fn event() -> impl Strategy<Value = String> {
    let deep = (members(value()), 1..200usize)
        .prop_map(|(inner, levels)| format!("{{\"a\":{}{inner}{}}}", "{\"b\":[".repeat(levels), "]}".repeat(levels)));
    prop_oneof![30 => members(value()), 1 => deep]
}

fn operand(operator: &'static str) -> impl Strategy<Value = String> {
    string().prop_map(move |text| format!("{{\"{operator}\":{text}}}"))
}

/// A wildcard's inside: pieces, stars, escaped stars and backslashes. Two live stars in a row are for the parser's tests.
fn wildcard() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        3 => (0..9usize).prop_map(|n| PIECES[n][0].to_owned()).prop_filter("a star is added apart", |piece| piece != "*"),
        3 => Just("*".to_owned()),
        1 => Just("\\\\*".to_owned()),
        1 => Just("\\\\\\\\".to_owned()),
    ];
    prop::collection::vec(part, 0..6).prop_map(|parts| parts.concat())
}

fn numeric() -> impl Strategy<Value = String> {
    let one = (select(vec!["=", "<", "<=", ">", ">="]), number())
        .prop_map(|(op, n)| format!("{{\"numeric\":[\"{op}\",{n}]}}"));
    let two = (select(vec![">", ">="]), number(), select(vec!["<", "<="]), number())
        .prop_map(|(low, a, high, b)| format!("{{\"numeric\":[\"{low}\",{a},\"{high}\",{b}]}}"));
    prop_oneof![one, two]
}

fn anything_but() -> impl Strategy<Value = String> {
    let list = |of: BoxedStrategy<String>| {
        prop_oneof![of.clone(), prop::collection::vec(of, 1..4).prop_map(|all| format!("[{}]", all.join(",")))]
    };
    let plain = prop_oneof![list(string().boxed()), list(number().boxed())];
    let nested = prop_oneof![
        (select(vec!["prefix", "suffix", "equals-ignore-case"]), list(string().boxed())),
        (Just("wildcard"), list(wildcard().prop_map(|text| format!("\"{text}\"")).boxed())),
    ];
    prop_oneof![
        plain.prop_map(|operand| format!("{{\"anything-but\":{operand}}}")),
        nested.prop_map(|(operator, operand)| format!("{{\"anything-but\":{{\"{operator}\":{operand}}}}}")),
    ]
}

pub fn test() -> impl Strategy<Value = String> {
    let folded = (select(vec!["prefix", "suffix"]), string())
        .prop_map(|(operator, text)| format!("{{\"{operator}\":{{\"equals-ignore-case\":{text}}}}}"));
    let cidr =
        select(vec!["10.0.0.0/24", "10.0.0.0/8", "0.0.0.0/0", "fd00::/8", "::/0", "::ffff:a00:0/100", "10.0.0.1/31"])
            .prop_map(|block| format!("{{\"cidr\":\"{block}\"}}"));
    prop_oneof![
        8 => scalar(),
        2 => operand("prefix"),
        2 => operand("suffix"),
        1 => operand("equals-ignore-case"),
        1 => operand("exactly"),
        1 => folded,
        2 => wildcard().prop_map(|text| format!("{{\"wildcard\":\"{text}\"}}")),
        2 => anything_but(),
        1 => numeric(),
        1 => cidr,
        2 => select(vec!["{\"exists\":true}", "{\"exists\":false}"]).prop_map(str::to_owned),
    ]
}

fn tests() -> impl Strategy<Value = String> {
    prop::collection::vec(test(), 1..4).prop_map(|tests| format!("[{}]", tests.join(",")))
}

fn fields(of: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    prop::collection::vec((key(), of), 1..4).prop_map(|members| {
        members.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect::<Vec<_>>().join(",")
    })
}

/// Conditions on fields of arrays, absence among them; a few paths that lie in each other.
pub fn tied_pattern() -> impl Strategy<Value = String> {
    let path = select(vec!["r.a", "r.b", "r.c", "r.s.a", "r.s.b", "r.s.c", "r.s", "a", "q.a"]);
    let tests =
        select(vec!["[1]", "[2]", "[1,2]", "[{\"exists\":false}]", "[1,{\"exists\":false}]", "[{\"exists\":true}]"]);
    prop::collection::vec((path, tests), 2..6).prop_map(|fields| {
        let fields: Vec<_> = fields.iter().map(|(path, tests)| format!("\"{path}\":{tests}")).collect();
        format!("{{{}}}", fields.join(","))
    })
}

/// Arrays in arrays for those, with keys that repeat and keys with dots that lead to the same paths.
pub fn tied_event() -> impl Strategy<Value = String> {
    let scalar = select(vec!["1", "2", "3", "[1,2]", "[]", "{}"]).prop_map(str::to_owned);
    let value = scalar.prop_recursive(4, 40, 4, |inner| {
        let key = select(vec!["a", "b", "c", "s", "s.a", "s.b"]);
        let members = prop::collection::vec((key, inner), 0..4).prop_map(|members| {
            let members: Vec<_> = members.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
            format!("{{{}}}", members.join(","))
        });
        let elements = prop::collection::vec(members.clone(), 0..4).prop_map(|all| format!("[{}]", all.join(",")));
        prop_oneof![2 => members, 3 => elements.clone(), 1 => elements.prop_map(|array| format!("[{array},{array}]"))]
    });
    let key = select(vec!["r", "r", "r", "r.s", "r.a", "a", "q"]);
    prop::collection::vec((key, value), 1..4).prop_map(|members| {
        let members: Vec<_> = members.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        format!("{{{}}}", members.join(","))
    })
}

/// A pattern; most are valid. `$or` stands anywhere a key may, in any order with its siblings, also in `$or`.
pub fn pattern() -> impl Strategy<Value = String> {
    let nested = fields(tests()).prop_recursive(4, 24, 3, |inner| {
        let object = inner.clone().prop_map(|fields| format!("{{{fields}}}"));
        let or = prop::collection::vec(object.clone(), 2..4).prop_map(|all| format!("\"$or\":[{}]", all.join(",")));
        prop_oneof![
            3 => fields(prop_oneof![object, tests()]),
            1 => (inner.clone(), or.clone()).prop_map(|(fields, or)| format!("{fields},{or}")),
            1 => (or, inner).prop_map(|(or, fields)| format!("{or},{fields}")),
        ]
    });
    nested.prop_map(|fields| format!("{{{fields}}}"))
}

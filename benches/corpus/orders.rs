//! Orders and rules on them, for measurements: the same from the same seed, on every machine.
//!
//! In: a seed, a number, a mix of operators. Out: JSON texts. Rules draw their conditions independently, so the matches an
//! event has grow with their number: about 2 at 10,000 rules, 20 at 100,000. `load/`, the benches and
//! `sluice bench match --generate orders` all draw from here.

use std::fmt::Write;

/// Which operators rules use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    /// Exact values, prefix, suffix, wildcard, anything-but, exists.
    Common,
    /// Numeric, cidr, equals-ignore-case and `$or` as well.
    Full,
}

/// Numbers that look random and are not (splitmix64, Steele, Lea and Flood 2014).
pub struct Dice(u64);

impl Dice {
    /// A sequence of its own for each number of each stream of a seed.
    pub fn new(seed: u64, stream: u64, number: u64) -> Self {
        let mut dice = Self(seed ^ stream.rotate_left(32) ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        dice.next();
        dice
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    /// Below `sides`.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.next() % sides
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.roll(from.len() as u64) as usize]
    }
}

/// How many shops there are, each a source: rules and events of one seed must agree on it.
pub const SHOPS: u64 = 12;
const TYPES: [&str; 5] = ["Order Placed", "Order Paid", "Order Shipped", "Order Cancelled", "Order Returned"];
const STATES: [&str; 8] = ["new", "open", "paid", "packed", "shipped", "held", "closed", "lost"];
const PLACES: [&str; 12] = [
    "eu-west",
    "eu-north",
    "eu-south",
    "eu-central",
    "us-east",
    "us-west",
    "us-south",
    "ap-east",
    "ap-south",
    "ap-north",
    "sa-east",
    "af-south",
];
const CITIES: [&str; 12] =
    ["Zurich", "Geneva", "Lyon", "Turin", "Vienna", "Porto", "Leeds", "Ghent", "Malmo", "Gdansk", "Seville", "Bergen"];
const NAMES: [&str; 10] = ["Maria", "Noah", "Lea", "Luca", "Emma", "Elias", "Mia", "Jonas", "Sofia", "Samuel"];
const METHODS: [&str; 5] = ["card", "invoice", "transfer", "wallet", "cash"];
const CARRIERS: [&str; 6] = ["post", "northline", "swift-parcel", "kurier", "drone", "pickup"];
const ENDS: [&str; 5] = ["pdf", "xml", "csv", "json", "txt"];

/// An event by number, of one of `shops` sources, with `items` order lines; about 930 bytes with two.
pub fn event(seed: u64, number: u64, shops: u64, items: u64) -> String {
    let mut d = Dice::new(seed, 1, number);
    let mut line = String::with_capacity(960 + 60 * items as usize);
    let place = d.pick(&PLACES);
    let customer = d.roll(20_000);
    let written = write!(
        line,
        "{{\"version\":\"0\",\"id\":\"{:08x}-{:04x}-4f6a-9b8e-{:012x}\",\"detail-type\":\"{}\",\"source\":\"shop.{}\",\
         \"account\":\"123456789012\",\"time\":\"2026-01-31T{:02}:{:02}:{:02}Z\",\"region\":\"eu-central-1\",\
         \"resources\":[\"arn:aws:orders:eu-central-1:123456789012:order/{number}\"],\"detail\":{{\"orderId\":\"o-{:07}\",\
         \"state\":\"{}\",\"location\":\"{place}-{}\",\"total\":{}.{:02},\"currency\":\"CHF\",\"express\":{},\
         \"customer\":{{\"id\":\"c-{customer:05}\",\"name\":\"{} {}\",\"tier\":\"t{}\",\"email\":\"m{customer}@mail-{:02}.example\",\
         \"address\":{{\"street\":\"Bahnhofstrasse {}\",\"city\":\"{}\",\"zip\":\"{}\",\"country\":\"CH\"}}}},",
        d.next() >> 32,
        d.roll(65_536),
        d.next() >> 16,
        d.pick(&TYPES),
        d.roll(shops.max(1)),
        d.roll(24),
        d.roll(60),
        d.roll(60),
        d.roll(10_000_000),
        d.pick(&STATES),
        d.roll(8),
        d.roll(5000),
        d.roll(100),
        d.roll(2) == 0,
        d.pick(&NAMES),
        d.pick(&NAMES).to_uppercase(),
        d.roll(4),
        customer % 50,
        d.roll(90),
        d.pick(&CITIES),
        1000 + d.roll(8999),
    );
    debug_assert!(written.is_ok(), "a String takes everything");
    line.push_str("\"items\":[");
    for item in 0..items {
        let comma = if item > 0 { "," } else { "" };
        let written = write!(
            line,
            "{comma}{{\"sku\":\"sku-{:02}-{:03}\",\"quantity\":{},\"price\":{}.{:02}}}",
            d.roll(40),
            d.roll(500),
            1 + d.roll(9),
            d.roll(300),
            d.roll(100)
        );
        debug_assert!(written.is_ok(), "a String takes everything");
    }
    let written = write!(
        line,
        "],\"payment\":{{\"method\":\"{}\",\"captured\":true,\"ip\":\"10.{}.{}.{}\"}},\
         \"document\":\"archive/{:02}/batch-{:03}/invoice-{:04}.{}\",\"carrier\":\"{}\",\"channel\":\"web\"{},\"client\":{{\"agent\":\"storefront/3.{}\",\"session\":\"{:016x}\",\"locale\":\"de-CH\",\"campaign\":null,\
         \"visits\":{}}}}}}}",
        d.pick(&METHODS),
        d.roll(64),
        d.roll(256),
        d.roll(256),
        d.roll(20),
        d.roll(400),
        d.roll(10_000),
        d.pick(&ENDS),
        d.pick(&CARRIERS),
        if d.roll(4) == 0 { ",\"coupon\":\"WELCOME\"" } else { "" },
        d.roll(30),
        d.next(),
        d.roll(200),
    );
    debug_assert!(written.is_ok(), "a String takes everything");
    line
}

/// A pattern by number. Most name a source and a detail type; one to three conditions on the detail follow.
pub fn pattern(seed: u64, number: u64, shops: u64, mix: Mix) -> String {
    let mut d = Dice::new(seed, 2, number);
    let mut top = vec![format!("\"source\":[\"shop.{}\"]", d.roll(shops.max(1)))];
    if d.roll(10) < 8 {
        top.push(format!("\"detail-type\":[\"{}\"]", d.pick(&TYPES)));
    }
    let mut detail = Vec::new();
    // One that few events meet, then up to two that many do; each field once.
    let narrow = d.roll(if mix == Mix::Common { 6 } else { 9 });
    detail.push(self::narrow(&mut d, narrow));
    let mut broad: Vec<u64> = (0..if mix == Mix::Common { 4 } else { 6 }).collect();
    for _ in 0..d.roll(3) {
        let kind = broad.swap_remove(d.roll(broad.len() as u64) as usize);
        detail.push(self::broad(&mut d, kind));
    }
    top.push(format!("\"detail\":{{{}}}", members(&detail)));
    format!("{{{}}}", top.join(","))
}

/// The conditions as members of one object. What begins with `items.` goes into one of its own: its conditions want one
/// order line that meets them all.
fn members(conditions: &[String]) -> String {
    let (lines, mut members): (Vec<_>, Vec<_>) = conditions.iter().cloned().partition(|it| it.starts_with("items."));
    if !lines.is_empty() {
        let lines: Vec<_> = lines.iter().map(|it| it.trim_start_matches("items.")).collect();
        members.push(format!("\"items\":{{{}}}", lines.join(",")));
    }
    members.join(",")
}

/// A condition that about one event in a hundred meets, or fewer.
fn narrow(d: &mut Dice, kind: u64) -> String {
    match kind {
        0 => format!("\"customer\":{{\"id\":[\"c-{:05}\",\"c-{:05}\"]}}", d.roll(20_000), d.roll(20_000)),
        1 => format!("\"location\":[\"{}-{}\"]", d.pick(&PLACES), d.roll(8)),
        2 => format!("\"orderId\":[{{\"prefix\":\"o-{:02}\"}}]", d.roll(100)),
        3 => format!("\"customer\":{{\"email\":[{{\"suffix\":\"@mail-{:02}.example\"}}]}}", d.roll(50)),
        4 => format!("\"document\":[{{\"wildcard\":\"*/batch-{:03}/*.{}\"}}]", d.roll(400), d.pick(&ENDS)),
        5 => format!("items.\"sku\":[{{\"prefix\":\"sku-{:02}-{}\"}}]", d.roll(40), d.roll(5)),
        6 => format!("\"payment\":{{\"ip\":[{{\"cidr\":\"10.{}.{}.0/20\"}}]}}", d.roll(64), d.roll(256)),
        7 => {
            let low = d.roll(4950);
            format!("\"total\":[{{\"numeric\":[\">=\",{low},\"<\",{}]}}]", low + 20 + d.roll(60))
        }
        _ => format!(
            "\"$or\":[{{\"location\":[\"{}-{}\"]}},{{\"document\":[{{\"prefix\":\"archive/{:02}/batch-{}\"}}]}}]",
            d.pick(&PLACES),
            d.roll(8),
            d.roll(20),
            d.roll(4)
        ),
    }
}

/// A condition that many events meet.
fn broad(d: &mut Dice, kind: u64) -> String {
    match kind {
        0 => format!("\"state\":[{{\"anything-but\":[\"{}\",\"{}\"]}}]", d.pick(&STATES), d.pick(&STATES)),
        1 => format!("\"coupon\":[{{\"exists\":{}}}]", d.roll(4) == 0),
        2 => format!("\"carrier\":[\"{}\",\"{}\"]", d.pick(&CARRIERS), d.pick(&CARRIERS)),
        3 => format!("\"express\":[{}]", d.roll(2) == 0),
        4 => format!("items.\"quantity\":[{{\"numeric\":[\">\",{}]}}]", d.roll(6)),
        _ => format!("\"channel\":[{{\"equals-ignore-case\":\"{}\"}}]", ["WEB", "Web", "App"][d.roll(3) as usize]),
    }
}

//! Events and rules for measurements: about 690 bytes an event, a tenth of them matched, whatever the number of rules.

use std::fmt::Write;

fn mix(number: u64) -> u64 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20
}

/// Whether rules for so many tenths of the events match an event.
pub fn matched(number: u64, tenths: u64) -> bool {
    mix(number) % 10 < tenths
}

/// The number of an event, from its bytes.
pub fn number(event: &[u8]) -> Option<u64> {
    let digits = event.strip_prefix(b"{\"version\":\"0\",\"id\":\"")?.split(|byte| *byte == b'-').next()?;
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// An event by number; its fields spread evenly.
pub fn event(number: u64) -> String {
    let mix = mix(number);
    let mut line = String::with_capacity(900);
    let written = write!(
        line,
        "{{\"version\":\"0\",\"id\":\"{number:08x}-1d2c-4f6a-9b8e-3c5d7e9f1a2b\",\"detail-type\":\"Order Placed\",\
         \"source\":\"shop.orders\",\"account\":\"123456789012\",\"time\":\"2026-01-31T09:{:02}:{:02}Z\",\"region\":\"eu-west-1\",\
         \"resources\":[\"arn:aws:orders:eu-west-1:123456789012:order/{number}\"],\"detail\":{{\"orderId\":\"o-{number}\",\
         \"tenth\":\"t{}\",\"slot100\":\"s{}\",\"slot1000\":\"s{}\",\"slot10000\":\"s{}\",\
         \"customer\":{{\"id\":\"c-{}\",\"name\":\"Maria Muster\",\"tier\":\"gold\",\"address\":{{\"street\":\"Bahnhofstrasse 12\",\
         \"city\":\"Zurich\",\"zip\":\"8001\",\"country\":\"CH\"}}}},\"total\":{}.{:02},\"currency\":\"CHF\",\
         \"items\":[{{\"sku\":\"sku-{}\",\"quantity\":2,\"price\":19.90}},{{\"sku\":\"sku-{}\",\"quantity\":1,\"price\":5.00}}],\
         \"payment\":{{\"method\":\"card\",\"captured\":true}},\"channel\":\"web\",\"notes\":null}}}}",
        number / 60 % 60,
        number % 60,
        mix % 10,
        mix / 10 % 100,
        mix / 10 % 1000,
        mix / 10 % 10_000,
        mix % 5000,
        mix % 900,
        mix % 100,
        mix % 331,
        mix % 337,
    );
    debug_assert!(written.is_ok(), "a String takes everything");
    line
}

/// Numbers of rules that a set may have.
pub const SIZES: [u64; 4] = [1, 100, 1000, 10_000];

/// The pattern of rule `number` of a set of `rules`, one of [`SIZES`]: together they match so many tenths of the
/// events, each event at most once.
pub fn pattern(number: u64, rules: u64, tenths: u64) -> String {
    let slot = match rules {
        1 => String::new(),
        _ => format!(",\"slot{rules}\":[\"s{number}\"]"),
    };
    let values: Vec<String> = (0..tenths).map(|tenth| format!("\"t{tenth}\"")).collect();
    format!(
        "{{\"source\":[\"shop.orders\"],\"detail-type\":[\"Order Placed\"],\"detail\":{{\"tenth\":[{}]{slot}}}}}",
        values.join(",")
    )
}

//! The only caller of now(): clocks for everything outside the core.

use jiff::{Timestamp, civil::Date, tz::Offset};
use std::time::{Duration, Instant};

/// The monotonic clock, for waits and latencies.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> Instant {
    Instant::now()
}

/// The wall clock, milliseconds since the epoch.
pub fn wall_millis() -> i64 {
    Timestamp::now().as_millisecond()
}

/// Milliseconds since the epoch as `2024-01-31T09:00:00Z`, the precision of the service's events.
pub fn iso_seconds(millis: i64) -> String {
    Timestamp::from_second(millis.div_euclid(1000)).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

/// Milliseconds since the epoch as `2024-01-31T09:00:00.123Z`.
pub fn iso_millis(millis: i64) -> String {
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

/// The UTC day, as in `2024-01-31`.
pub fn day(millis: i64) -> Date {
    Offset::UTC.to_datetime(Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH)).date()
}

/// A duration as `250ms`, `5s`, `15m`, `24h` or `7d`.
///
/// # Errors
/// What is wrong with the text, and what would be right.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let bad = || format!("`{text}` is not a duration; write a whole number and ms, s, m, h or d, as in `5s`");
    let number: u64 = number.parse().map_err(|_| bad())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(bad()),
    };
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(bad)
}

/// A duration in the largest unit that keeps it whole.
pub fn format_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if millis >= size && millis.is_multiple_of(size) {
            return format!("{}{unit}", millis / size);
        }
    }
    format!("{millis}ms")
}

/// A point in time as the commands take it: a duration before now (`15m`), or an ISO 8601 time.
///
/// # Errors
/// What is wrong with the text.
pub fn parse_since(text: &str, now_millis: i64) -> Result<i64, String> {
    if let Ok(ago) = parse_duration(text) {
        return Ok(now_millis.saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)));
    }
    parse_iso(text).ok_or_else(|| format!("`{text}` is neither a duration (`15m`) nor a time (`2024-01-31T09:00:00Z`)"))
}

/// A date of an HTTP header (RFC 9110) as milliseconds since the epoch.
pub fn parse_http_date(text: &str) -> Option<i64> {
    let parsed = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(parsed.timestamp().as_millisecond())
}

/// The basic form of ISO 8601 in UTC, `20240131T090000Z`, as seconds since the epoch.
pub fn parse_basic(text: &str) -> Option<i64> {
    let bytes: &[u8; 16] = text.as_bytes().try_into().ok()?;
    let digits = |range: std::ops::Range<usize>| {
        let digit = |sum: Option<i16>, b: &u8| Some(sum? * 10 + i16::from(b.is_ascii_digit().then(|| b - b'0')?));
        bytes[range].iter().fold(Some(0), digit)
    };
    let small = |range| digits(range).and_then(|n| i8::try_from(n).ok());
    if bytes[8] != b'T' || bytes[15] != b'Z' {
        return None;
    }
    let date = Date::new(digits(0..4)?, small(4..6)?, small(6..8)?).ok()?;
    let time = jiff::civil::Time::new(small(9..11)?, small(11..13)?, small(13..15)?, 0).ok()?;
    Offset::UTC.to_timestamp(date.to_datetime(time)).ok().map(Timestamp::as_second)
}

/// Seconds since the epoch in the basic form of ISO 8601, `20240131T090000Z`.
pub fn basic(seconds: i64) -> String {
    iso_seconds(seconds.saturating_mul(1000)).replace(['-', ':'], "")
}

/// An ISO 8601 time as milliseconds since the epoch.
pub fn parse_iso(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond)
}

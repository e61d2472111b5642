//! Tests as they would stand in a pattern's text.

use super::{AnythingBut, Range, Test, Wildcard};
use crate::event::address::{Address, Block};
use crate::event::text::escape_json;
use std::fmt;

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Test::Text(text, _) => f.write_str(&quoted(text)),
            Test::Exactly(text) => operator(f, "exactly", &quoted(text)),
            Test::Number(number) => f.write_str(&String::from_utf8_lossy(&number.text)),
            Test::Bool(value) => write!(f, "{value}"),
            Test::Null => f.write_str("null"),
            Test::Prefix(text) => operator(f, "prefix", &quoted(text)),
            Test::PrefixIgnoreCase(text) => operator(f, "prefix", &ignoring(text.operand())),
            Test::Suffix(text) => operator(f, "suffix", &quoted(text)),
            Test::SuffixIgnoreCase(text) => operator(f, "suffix", &ignoring(text.operand())),
            Test::EqualsIgnoreCase(text) => f.write_str(&ignoring(text.operand())),
            Test::Wildcard(wildcard) => operator(f, "wildcard", &stars(wildcard)),
            Test::AnythingBut(excluded) => operator(f, "anything-but", &but(excluded)),
            Test::Exists(wanted) => operator(f, "exists", &wanted.to_string()),
            Test::Numeric(range) => operator(f, "numeric", &numeric(*range)),
            Test::Cidr(block) => operator(f, "cidr", &quoted(cidr(block).as_bytes())),
        }
    }
}

fn operator(f: &mut fmt::Formatter<'_>, name: &str, operand: &str) -> fmt::Result {
    write!(f, "{{\"{name}\":{operand}}}")
}

fn quoted(text: &[u8]) -> String {
    let mut out = vec![b'"'];
    escape_json(text, &mut out);
    out.push(b'"');
    String::from_utf8_lossy(&out).into_owned()
}

fn ignoring(operand: &[u8]) -> String {
    format!("{{\"equals-ignore-case\":{}}}", quoted(operand))
}

/// A list, or its only element.
fn list<T>(all: &[T], show: impl Fn(&T) -> String) -> String {
    match all {
        [one] => show(one),
        all => format!("[{}]", all.iter().map(show).collect::<Vec<_>>().join(",")),
    }
}

fn but(excluded: &AnythingBut) -> String {
    let texts = |all: &[Vec<u8>]| list(all, |text| quoted(text));
    match excluded {
        AnythingBut::Text(all) => texts(all),
        AnythingBut::Numbers(all) => list(all, |number| String::from_utf8_lossy(&number.text).into_owned()),
        AnythingBut::Prefix(all) => format!("{{\"prefix\":{}}}", texts(all)),
        AnythingBut::Suffix(all) => format!("{{\"suffix\":{}}}", texts(all)),
        AnythingBut::EqualsIgnoreCase(all) => {
            format!("{{\"equals-ignore-case\":{}}}", list(all, |text| quoted(text.operand())))
        }
        AnythingBut::Wildcard(all) => format!("{{\"wildcard\":{}}}", list(all, stars)),
    }
}

fn stars(wildcard: &Wildcard) -> String {
    let literal = |literal: &[u8]| {
        let escape = |&b: &u8| if matches!(b, b'*' | b'\\') { vec![b'\\', b] } else { vec![b] };
        literal.iter().flat_map(escape).collect::<Vec<u8>>()
    };
    quoted(&wildcard.literals().iter().map(|part| literal(part)).collect::<Vec<_>>().join(&b'*'))
}

fn numeric(range: Range) -> String {
    let sign = |sign: &str, included: bool| if included { format!("\"{sign}=\"") } else { format!("\"{sign}\"") };
    match (range.low, range.high) {
        (Some((low, true)), Some((high, true))) if low == high => format!("[\"=\",{low}]"),
        (low, high) => {
            let parts: Vec<String> = low
                .map(|(bound, included)| format!("{},{bound}", sign(">", included)))
                .into_iter()
                .chain(high.map(|(bound, included)| format!("{},{bound}", sign("<", included))))
                .collect();
            format!("[{}]", parts.join(","))
        }
    }
}

fn cidr(block: &Block) -> String {
    match block.base {
        Address::V4(base) => format!("{}/{}", std::net::Ipv4Addr::from_bits(base), block.bits),
        Address::V6(base) => format!("{}/{}", std::net::Ipv6Addr::from_bits(base), block.bits),
    }
}

//! One element of a matcher list: operators, their operands and the messages for bad ones (section 5).

use super::parse::{error, ours};
use super::{AnythingBut, IgnoreCase, Number, PatternError, Range, Test, Wildcard};
use crate::event::address::{Address, Block, NotAddress};
use crate::event::{Kind, Node};

type Parsed<T> = Result<T, PatternError>;

const MANY: &str = "Too many elements in numeric expression";
const VALUE_OF_ANYTHING_BUT: &str = "Value of anything-but must be an array or single string/number value.";
const INSIDE_ANYTHING_BUT: &str = "Inside anything but list, start|null|boolean is not supported.";
const INSIDE_IGNORE_CASE: &str =
    "Inside anything-but/equals-ignore-case list, number|start|null|boolean is not supported.";
const MIXED: &str = "Inside anything but list, either all values are number or string, mixed type is not supported";

/// Reads one matcher.
pub(super) fn test(node: Node<'_>) -> Parsed<Test> {
    match node.kind() {
        Kind::String => {
            let text = node.text().into_owned();
            let address = Address::parse(&text).ok();
            Ok(Test::Text(text, address))
        }
        Kind::Number => Ok(Test::Number(Number::new(node.raw()))),
        Kind::Bool(b) => Ok(Test::Bool(b)),
        Kind::Null => Ok(Test::Null),
        Kind::Array => Err(error("Match value must be String, number, true, false, or null", node.at())),
        Kind::Object => operator(node),
    }
}

fn operator(node: Node<'_>) -> Parsed<Test> {
    let mut members = node.children();
    let Some(operand) = members.next() else {
        return Err(error("Match expression name not found", node.at()));
    };
    let name = operand.key();
    let (test, second_key) = match name.as_ref() {
        b"exactly" => (Test::Exactly(string(operand, "exact match pattern must be a string")?), ONE_KEY),
        b"prefix" => (affix(operand, "prefix", "Prefix", Test::Prefix, Test::PrefixIgnoreCase)?, ONE_KEY),
        b"suffix" => (affix(operand, "suffix", "Suffix", Test::Suffix, Test::SuffixIgnoreCase)?, ONE_KEY),
        b"equals-ignore-case" => (Test::EqualsIgnoreCase(ignore_case(operand)?), ONE_KEY),
        b"wildcard" => (Test::Wildcard(wildcard(operand)?), ONE_KEY),
        b"anything-but" => (Test::AnythingBut(anything_but(operand)?), MANY),
        b"exists" => match operand.kind() {
            Kind::Bool(b) => (Test::Exists(b), ONE_KEY),
            _ => return Err(error("exists match pattern must be either true or false.", operand.at())),
        },
        b"numeric" => (Test::Numeric(numeric(operand)?), MANY),
        b"cidr" => (Test::Cidr(cidr(operand)?), ONE_KEY),
        other => {
            let message = format!("Unrecognized match type {}", String::from_utf8_lossy(other));
            return Err(error(message, operand.key_at()));
        }
    };
    match members.next() {
        Some(second) => Err(error(second_key, second.key_at())),
        None => Ok(test),
    }
}

const ONE_KEY: &str = "Only one key allowed in match expression";

fn string(node: Node<'_>, message: &str) -> Parsed<Vec<u8>> {
    match node.kind() {
        Kind::String => Ok(node.text().into_owned()),
        _ => Err(error(message, node.at())),
    }
}

fn ignore_case(node: Node<'_>) -> Parsed<IgnoreCase> {
    string(node, "equals-ignore-case match pattern must be a string").map(|text| IgnoreCase::new(&text))
}

fn wildcard(node: Node<'_>) -> Parsed<Wildcard> {
    let text = string(node, "wildcard match pattern must be a string")?;
    Wildcard::parse(&text).map_err(|message| error(message, node.at()))
}

/// `prefix` and `suffix`: a string, or `{"equals-ignore-case": string}`.
fn affix(
    node: Node<'_>,
    name: &str,
    title: &str,
    plain: fn(Vec<u8>) -> Test,
    folded: fn(IgnoreCase) -> Test,
) -> Parsed<Test> {
    if node.kind() != Kind::Object {
        return string(node, &format!("{name} match pattern must be a string")).map(plain);
    }
    let mut members = node.children();
    let Some(operand) = members.next() else {
        return Err(error(format!("{title} expression name not found"), node.at()));
    };
    if operand.key().as_ref() != b"equals-ignore-case" {
        let other = String::from_utf8_lossy(&operand.key()).into_owned();
        return Err(error(format!("Unsupported {name} pattern: {other}"), operand.key_at()));
    }
    let test = folded(ignore_case(operand)?);
    match members.next() {
        Some(second) => Err(error(ONE_KEY, second.key_at())),
        None => Ok(test),
    }
}

fn anything_but(node: Node<'_>) -> Parsed<AnythingBut> {
    match node.kind() {
        Kind::String => Ok(AnythingBut::Text(vec![node.text().into_owned()])),
        Kind::Number => Ok(AnythingBut::Numbers(vec![comparable(node)?])),
        Kind::Array => anything_but_list(node),
        Kind::Object => anything_but_nested(node),
        Kind::Bool(_) | Kind::Null => Err(error(VALUE_OF_ANYTHING_BUT, node.at())),
    }
}

fn anything_but_list(list: Node<'_>) -> Parsed<AnythingBut> {
    let (mut texts, mut numbers) = (Vec::new(), Vec::new());
    for item in list.children() {
        match item.kind() {
            Kind::String => texts.push(item.text().into_owned()),
            Kind::Number => numbers.push(comparable(item)?),
            _ => return Err(error(INSIDE_ANYTHING_BUT, item.at())),
        }
    }
    match (texts.is_empty(), numbers.is_empty()) {
        (false, true) => Ok(AnythingBut::Text(texts)),
        (true, false) => Ok(AnythingBut::Numbers(numbers)),
        _ => Err(error(MIXED, list.at())),
    }
}

fn anything_but_nested(node: Node<'_>) -> Parsed<AnythingBut> {
    let mut members = node.children();
    let Some(operand) = members.next() else {
        return Err(error("Anything-But expression name not found", node.at()));
    };
    let excluded = match operand.key().as_ref() {
        b"prefix" => AnythingBut::Prefix(excluded(operand, affix_operand)?),
        b"suffix" => AnythingBut::Suffix(excluded(operand, affix_operand)?),
        b"equals-ignore-case" => AnythingBut::EqualsIgnoreCase(excluded(operand, |item| {
            string(item, INSIDE_IGNORE_CASE).map(|text| IgnoreCase::new(&text))
        })?),
        b"wildcard" => AnythingBut::Wildcard(excluded(operand, wildcard)?),
        other => {
            let message = format!("Unsupported anything-but pattern: {}", String::from_utf8_lossy(other));
            return Err(error(message, operand.key_at()));
        }
    };
    match members.next() {
        Some(second) => Err(error(MANY, second.key_at())),
        None => Ok(excluded),
    }
}

fn affix_operand(item: Node<'_>) -> Parsed<Vec<u8>> {
    let text = string(item, "prefix/suffix match pattern must be a string")?;
    if text.is_empty() {
        return Err(error("Null prefix/suffix not allowed", item.at()));
    }
    Ok(text)
}

/// A single operand or a list of them.
fn excluded<T>(operand: Node<'_>, read: impl Fn(Node<'_>) -> Parsed<T>) -> Parsed<Vec<T>> {
    match operand.kind() {
        Kind::String | Kind::Number => read(operand).map(|one| vec![one]),
        Kind::Array if operand.children().next().is_none() => Err(ours("Empty arrays are not allowed", operand.at())),
        Kind::Array => operand.children().map(read).collect(),
        _ => Err(error(VALUE_OF_ANYTHING_BUT, operand.at())),
    }
}

fn comparable(node: Node<'_>) -> Parsed<Number> {
    let number = Number::new(node.raw());
    match number.value {
        Some(_) => Ok(number),
        None => {
            let message = format!("Cannot compare number : {}", String::from_utf8_lossy(node.raw()));
            Err(error(message, node.at()))
        }
    }
}

fn numeric(node: Node<'_>) -> Parsed<Range> {
    if node.kind() != Kind::Array {
        return Err(error("Value of numeric must be an array.", node.at()));
    }
    let mut items = node.children();
    let end = node.at() + node.raw().len() - 1;
    let Some(first) = items.next() else {
        return Err(error("Invalid member in numeric match: ]", end));
    };
    if first.kind() != Kind::String {
        let message = format!("Invalid member in numeric match: {}", token(first));
        return Err(error(message, first.at()));
    }
    let op = first.text();
    let name = match op.as_ref() {
        b"=" => "equals".to_owned(),
        b"<" | b"<=" | b">" | b">=" => String::from_utf8_lossy(&op).into_owned(),
        other => {
            let message = format!("Unrecognized numeric range operator: {}", String::from_utf8_lossy(other));
            return Err(error(message, first.at()));
        }
    };
    let bound = operand(items.next(), &name, end)?;
    let third = items.next();
    let range = match (op.as_ref(), &third) {
        (b"=", None) => Range { low: Some((bound, true)), high: Some((bound, true)) },
        (b"<" | b"<=", None) => Range { low: None, high: Some((bound, op.as_ref() == b"<=")) },
        (b">" | b">=", None) => Range { low: Some((bound, op.as_ref() == b">=")), high: None },
        (b">" | b">=", Some(third)) => {
            let low = (bound, op.as_ref() == b">=");
            return upper(low, *third, items, end);
        }
        _ => return Err(error(MANY, third.map_or(end, |node| node.at()))),
    };
    Ok(range)
}

fn upper<'t>(
    low: (f64, bool),
    third: Node<'t>,
    mut items: impl Iterator<Item = Node<'t>>,
    end: usize,
) -> Parsed<Range> {
    if third.kind() != Kind::String {
        return Err(error(format!("Bad value in numeric range: {}", token(third)), third.at()));
    }
    let op = third.text();
    let name = String::from_utf8_lossy(&op).into_owned();
    if !matches!(op.as_ref(), b"<" | b"<=") {
        return Err(error(format!("Bad numeric range operator: {name}"), third.at()));
    }
    let bound = operand(items.next(), &name, end)?;
    if let Some(fifth) = items.next() {
        return Err(error("Too many terms in numeric range expression", fifth.at()));
    }
    if low.0 >= bound {
        return Err(error("Bottom must be less than top", third.at()));
    }
    Ok(Range { low: Some(low), high: Some((bound, op.as_ref() == b"<=")) })
}

fn operand(node: Option<Node<'_>>, name: &str, end: usize) -> Parsed<f64> {
    let number = match node {
        Some(node) if node.kind() == Kind::Number => comparable(node)?,
        Some(node) => return Err(error(format!("Value of {name} must be numeric"), node.at())),
        None => return Err(error(format!("Value of {name} must be numeric"), end)),
    };
    Ok(number.value.unwrap_or(f64::NAN))
}

/// How the service's reader prints a token of the wrong type.
fn token(node: Node<'_>) -> String {
    match node.kind() {
        Kind::Object => "{".to_owned(),
        Kind::Array => "[".to_owned(),
        _ => String::from_utf8_lossy(&node.text()).into_owned(),
    }
}

fn cidr(node: Node<'_>) -> Parsed<Block> {
    let text = string(node, "prefix match pattern must be a string")?;
    let fail = |message: String| Err(error(message, node.at()));
    let mut parts = text.split(|&b| b == b'/');
    let (Some(address), Some(mask), None) = (parts.next(), parts.next(), parts.next()) else {
        return fail("Malformed CIDR, one '/' required".into());
    };
    if mask.is_empty() {
        return fail("Malformed CIDR, one '/' required".into());
    }
    let Some(bits) = std::str::from_utf8(mask).ok().and_then(|mask| mask.parse::<i32>().ok()) else {
        return fail("Malformed CIDR, mask bits must be an integer".into());
    };
    let Ok(bits) = u32::try_from(bits) else {
        return fail("Malformed CIDR, mask bits must not be negative".into());
    };
    let shown = String::from_utf8_lossy(address);
    let base = match Address::parse(address) {
        Ok(base) => base,
        Err(NotAddress::Shape) => return fail(format!("Nonstandard IP address: {shown}")),
        Err(NotAddress::Range) => return fail(format!("Invalid IP address: {shown}")),
    };
    match base {
        Address::V4(_) if bits >= 32 => fail("IPv4 mask bits must be < 32".into()),
        Address::V6(_) if bits >= 128 => fail("IPv6 mask bits must be < 128".into()),
        _ => Ok(Block { base, bits: bits as u8 }),
    }
}

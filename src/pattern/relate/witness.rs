//! Events that a pattern matches and few others do.

use super::Field;
use super::List;
use super::numbers::{self, Span};
use super::texts::Shape;
use crate::event::address::Address;
use crate::event::text::escape_json;

/// A text that nobody writes into a pattern.
const ODD: &[u8] = "\u{2}~\u{2}".as_bytes();

/// An event with a value of each field's list: by `turn` the first, the last or the middle one of what the list accepts,
/// so that lists that are in order and overlap are told apart.
pub fn event(fields: &[Field], turn: usize) -> Vec<u8> {
    let mut event = vec![b'{'];
    for (path, list) in fields {
        if let Some(value) = value(list, turn) {
            if event.len() > 1 {
                event.push(b',');
            }
            quoted(path, &mut event);
            event.push(b':');
            event.extend(value);
        }
    }
    event.push(b'}');
    event
}

fn quoted(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    escape_json(text, out);
    out.push(b'"');
}

/// A value as JSON; nothing for absence.
fn value(list: &List, turn: usize) -> Option<Vec<u8>> {
    let others = ["false", "true", "null"].iter().zip(list.others).filter_map(|(text, there)| there.then_some(*text));
    let mut values: Vec<Box<dyn Fn() -> Vec<u8> + '_>> = Vec::new();
    for shape in &list.texts {
        values.push(Box::new(|| {
            let mut out = Vec::new();
            quoted(&text(shape), &mut out);
            out
        }));
    }
    for span in &list.numbers {
        values.push(Box::new(|| number(span)));
    }
    for other in others {
        values.push(Box::new(move || other.as_bytes().to_vec()));
    }
    let count = values.len() + usize::from(list.absence());
    let chosen = match turn {
        0 => 0,
        1 => count.saturating_sub(1),
        _ => count / 2,
    };
    values.get(chosen).map(|value| value())
}

fn text(shape: &Shape) -> Vec<u8> {
    match shape {
        Shape::Glob(glob) => glob.literals().join(ODD),
        Shape::Folded(operand, before, after) => {
            let side = |open: bool| if open { ODD } else { b"" };
            [side(*before), operand.operand(), side(*after)].concat()
        }
        Shape::Address(address) => spelled(*address),
        Shape::Block(block) => spelled(block.base),
        Shape::AllBut(_) => {
            let mut odd = (0..8).map(|n| [ODD, &[b'0' + n], ODD].concat());
            odd.find(|text| shape.accepts(text)).unwrap_or_default()
        }
    }
}

fn spelled(address: Address) -> Vec<u8> {
    match address {
        Address::V4(bits) => std::net::Ipv4Addr::from_bits(bits).to_string().into_bytes(),
        Address::V6(bits) => std::net::Ipv6Addr::from_bits(bits).to_string().into_bytes(),
    }
}

fn number(span: &Span) -> Vec<u8> {
    let shown = |place: i64| format!("{:e}", numbers::value(place)).into_bytes();
    match span {
        // Near the bounds fewer ranges overlap than near zero; the largest doubles are no bounds that anyone wrote.
        Span::Range(low, high) if numbers::value(*low) == f64::MIN => shown(*high),
        Span::Range(low, _) => shown(*low),
        Span::Spelled(text, _) => text.clone(),
        Span::AllBut(_) => b"1.0203040506070809e-7".to_vec(),
    }
}

//! Numbers by value, with the textual fall-back (pattern language, section 4.2).

/// Whether `text` is a number of the JSON grammar: no `+1`, `01`, `.5` or `1.`.
pub fn is_json(text: &[u8]) -> bool {
    let rest = text.strip_prefix(b"-").unwrap_or(text);
    let int = digits(rest);
    if int == 0 || (int > 1 && rest[0] == b'0') {
        return false;
    }
    let mut rest = &rest[int..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let n = digits(fraction);
        if n == 0 {
            return false;
        }
        rest = &fraction[n..];
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = exponent.strip_prefix(b"-").or(exponent.strip_prefix(b"+")).unwrap_or(exponent);
        let n = digits(exponent);
        if n == 0 {
            return false;
        }
        rest = &exponent[n..];
    }
    rest.is_empty()
}

fn digits(text: &[u8]) -> usize {
    text.iter().take_while(|b| b.is_ascii_digit()).count()
}

/// The value of a comparable number: it has a finite nearest double, and the text's exact decimal value is that of
/// the double's shortest decimal. `None` for every other number (`9007199254740993`, `1e999`, 20 digits).
/// Negative zero comes back as zero.
pub fn comparable(text: &[u8]) -> Option<f64> {
    short(text).or_else(|| long(text))
}

/// Powers of ten that doubles hold exactly.
const POWERS: [f64; 16] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// The value of a number of at most 15 digits without exponent: a quotient of two exact doubles, so rounded right
/// (Clinger, PLDI 1990), and comparable.
#[inline]
fn short(text: &[u8]) -> Option<f64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    if digits.len() > 16 {
        return None;
    }
    let (mut whole, mut point) = (0u64, None);
    for (at, &byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' => whole = whole * 10 + u64::from(byte - b'0'),
            b'.' => point = Some(digits.len() - 1 - at),
            _ => return None,
        }
    }
    if digits.len() == 16 && point.is_none() {
        return None;
    }
    let value = whole as f64 / POWERS.get(point.unwrap_or(0))?;
    Some(if negative && whole != 0 { -value } else { value })
}

fn long(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    let value: f64 = text.parse().ok()?;
    if !value.is_finite() {
        return None;
    }
    let exact = Decimal::of(text.as_bytes());
    if exact.digits == 0 {
        return Some(0.0);
    }
    // Up to 15 digits always survive, within the range of normal doubles.
    if exact.digits <= 15 && (-290..290).contains(&exact.exponent) {
        return Some(value);
    }
    let shortest = format!("{value:e}");
    exact.equals(&Decimal::of(shortest.as_bytes())).then_some(value)
}

/// Whether two numbers have the same exact decimal value, however they are spelled and however large they are.
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    let (x, y) = (Decimal::of(a), Decimal::of(b));
    let negative = |text: &[u8]| text.starts_with(b"-");
    x.equals(&y) && (x.digits == 0 || negative(a) == negative(b))
}

/// Significant digits (no leading or trailing zeros) times a power of ten, borrowed from the text.
struct Decimal<'a> {
    /// The text's mantissa from the first to the last non-zero digit, a point possibly among them.
    mantissa: &'a [u8],
    digits: usize,
    /// Power of ten of the first significant digit.
    exponent: i64,
}

impl<'a> Decimal<'a> {
    fn of(text: &'a [u8]) -> Self {
        let text = text.strip_prefix(b"-").unwrap_or(text);
        let split = text.iter().position(|b| matches!(b, b'e' | b'E')).unwrap_or(text.len());
        let (mantissa, power) = text.split_at(split);
        let power = power.get(1..).map_or(0, saturating_integer);
        let point = mantissa.iter().position(|&b| b == b'.').unwrap_or(mantissa.len());
        let significant = |b: &u8| matches!(b, b'1'..=b'9');
        let Some(first) = mantissa.iter().position(significant) else {
            return Self { mantissa: &[], digits: 0, exponent: 0 };
        };
        let last = mantissa.iter().rposition(significant).unwrap_or(first);
        let span = &mantissa[first..=last];
        let digits = span.iter().filter(|&&b| b != b'.').count();
        let place = if first < point { point - first - 1 } else { first - point };
        let place = i64::try_from(place).unwrap_or(i64::MAX);
        let exponent = power.saturating_add(if first < point { place } else { -place });
        Self { mantissa: span, digits, exponent }
    }

    fn equals(&self, other: &Decimal<'_>) -> bool {
        let significant = |d: &'_ [u8]| d.iter().copied().filter(|&b| b != b'.').collect::<Vec<_>>();
        self.exponent == other.exponent
            && self.digits == other.digits
            && significant(self.mantissa) == significant(other.mantissa)
    }
}

fn saturating_integer(text: &[u8]) -> i64 {
    let (negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let value = text.iter().fold(0i64, |n, d| n.saturating_mul(10).saturating_add(i64::from(d - b'0')));
    if negative { -value } else { value }
}

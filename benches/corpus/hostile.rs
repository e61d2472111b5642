//! Sets of rules made to hurt: each asks one thing of a matcher that an index may not answer.
//!
//! In: a seed and a number. Out: JSON texts. An event has something of the rule of its own number. The core's tests, the
//! instruction counts and `sluice bench match --generate` all draw from here.

use super::orders::Dice;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Set {
    /// Two short words anywhere in one text.
    Wildcards,
    /// The same, behind a value that all rules share.
    Behind,
    /// Whatever is not one word: nearly all rules match.
    AnythingBut,
    /// Overlapping ranges of numbers.
    Ranges,
    /// Ends of a text, of many lengths.
    Suffixes,
    /// A field each, behind one value that all rules share.
    OneValue,
    /// Members of one object among a thousand.
    Objects,
    /// `$or` of ten in three objects: a thousand alternatives a rule.
    Products,
}

impl Set {
    /// As it is called on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wildcards => "wildcards",
            Self::Behind => "behind",
            Self::AnythingBut => "anything-but",
            Self::Ranges => "ranges",
            Self::Suffixes => "suffixes",
            Self::OneValue => "one-value",
            Self::Objects => "objects",
            Self::Products => "products",
        }
    }

    /// All of them, with how many rules each is meant for.
    pub const ALL: [(Self, u64); 8] = [
        (Self::Wildcards, 10_000),
        (Self::Behind, 10_000),
        (Self::AnythingBut, 10_000),
        (Self::Ranges, 10_000),
        (Self::Suffixes, 10_000),
        (Self::OneValue, 10_000),
        (Self::Objects, 10_000),
        (Self::Products, 1000),
    ];

    /// The pattern of a number.
    pub fn pattern(self, seed: u64, number: u64) -> String {
        let word = |at, letters| word(seed, number, at, letters);
        match self {
            Self::Wildcards => format!(r#"{{"f":[{{"wildcard":"*{}*{}*"}}]}}"#, word(0, 3), word(1, 3)),
            Self::Behind => format!(r#"{{"s":["a"],"f":[{{"wildcard":"*{}*{}*"}}]}}"#, word(0, 3), word(1, 3)),
            Self::AnythingBut => format!(r#"{{"f":[{{"anything-but":"{}"}}]}}"#, word(0, 8)),
            Self::Ranges => {
                let (low, width) = range(seed, number);
                format!(r#"{{"f":[{{"numeric":[">=",{low},"<",{}]}}]}}"#, low + width)
            }
            Self::Suffixes => format!(r#"{{"f":[{{"suffix":"{}"}}]}}"#, word(0, 2 + number as usize % 60)),
            Self::OneValue => format!(r#"{{"s":["a"],"d":{{"k{number}":["v"]}}}}"#),
            Self::Objects => {
                let (a, b, c) = (number % 100, number / 100 % 100, number % 10);
                format!(r#"{{"r":{{"a":["{a}"],"b":["{b}"],"c":[{{"numeric":[">",{c}]}}]}}}}"#)
            }
            Self::Products => {
                let ten = |field, first| {
                    let one = |at: u64| format!(r#"{{"{field}{at}":["{}"]}}"#, word(first + at, 5));
                    (0..10).map(one).collect::<Vec<_>>().join(",")
                };
                let (x, y, z) = (ten("a", 0), ten("b", 10), ten("c", 20));
                format!(r#"{{"x":{{"$or":[{x}]}},"y":{{"$or":[{y}]}},"z":{{"$or":[{z}]}}}}"#)
            }
        }
    }

    /// The event of a number; `objects` of [`Set::Objects`] lie in its array.
    pub fn event(self, seed: u64, number: u64, objects: u64) -> String {
        let word = |at, letters| word(seed, number, at, letters);
        match self {
            Self::Wildcards | Self::Behind => {
                let words: Vec<String> = (2..42).map(|at| word(at, 3 + at as usize % 4)).collect();
                let s = if number.is_multiple_of(2) { "a" } else { "b" };
                format!(r#"{{"s":"{s}","f":"{} {} {}"}}"#, word(0, 3), words.join(" "), word(1, 3))
            }
            Self::AnythingBut => format!(r#"{{"f":"{}"}}"#, word(0, 8)),
            // The ends of a range, and beside them.
            Self::Ranges => {
                let (low, width) = range(seed, number / 4);
                let at = [low, low + width, low.saturating_sub(1), low + width - 1][number as usize % 4];
                format!(r#"{{"f":{at}}}"#)
            }
            Self::Suffixes => format!(r#"{{"f":"no word {}"}}"#, word(0, 2 + number as usize % 60)),
            Self::OneValue => {
                format!(r#"{{"s":"a","d":{{"k{number}":"v","k{}":"v","k{}":"w"}}}}"#, number + 7, number + 9)
            }
            Self::Objects => {
                let mut dice = Dice::new(seed, 4, number);
                let one = |at| format!(r#"{{"a":"{}","b":"{}","c":{at}}}"#, dice.roll(100), dice.roll(100));
                format!(r#"{{"r":[{}]}}"#, (0..objects).map(one).collect::<Vec<_>>().join(","))
            }
            Self::Products => {
                let [x, y, z] = [1, 12, 23 + number % 2].map(|at| word(at, 5));
                format!(r#"{{"x":{{"a1":"{x}"}},"y":{{"b2":"{y}"}},"z":{{"c3":"{z}"}}}}"#)
            }
        }
    }
}

/// A word of so many letters, one of several of a number.
pub fn word(seed: u64, number: u64, at: u64, letters: usize) -> String {
    let mut dice = Dice::new(seed, 3 + at, number);
    (0..letters).map(|_| char::from(b'a' + dice.roll(26) as u8)).collect()
}

/// The lower end of a range, and how wide it is.
fn range(seed: u64, number: u64) -> (u64, u64) {
    let mut dice = Dice::new(seed, 3, number);
    (dice.roll(1_000_000), 1 + dice.roll(2000))
}

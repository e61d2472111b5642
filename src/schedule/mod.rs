//! When a rule with a schedule is due: `rate(5 minutes)`, `cron(0 9 ? * MON-FRI *)`.
//!
//! In: the text of a schedule expression; times. Out: the next due time, UTC. Promises: takes what the service takes,
//! refuses the rest, and answers any text and any time at once. Leaves to others: clocks, and the event that is sent.

mod cron;
mod field;
mod rate;

use cron::Cron;
use rate::Rate;
use std::fmt;

const MINUTE_MS: i64 = 60_000;

/// A schedule expression; prints as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    text: String,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Rate(Rate),
    Cron(Cron),
}

impl Schedule {
    /// Reads a schedule expression.
    ///
    /// # Errors
    /// What is wrong with the text, and what would be right.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        let inside = |name| text.strip_prefix(name).and_then(|rest| rest.strip_suffix(')'));
        let kind = if let Some(body) = inside("rate(") {
            Kind::Rate(Rate::parse(body)?)
        } else if let Some(body) = inside("cron(") {
            Kind::Cron(Cron::parse(body)?)
        } else {
            return Err(ScheduleError::Form);
        };
        Ok(Self { text: text.to_owned(), kind })
    }

    /// The first due time after `after_ms`, or `None` when it is never due again. A rate counts its periods from
    /// `begin_ms`, when the rule was made or enabled. All are milliseconds since the epoch.
    pub fn next(&self, begin_ms: i64, after_ms: i64) -> Option<i64> {
        match &self.kind {
            Kind::Rate(rate) => rate.next(begin_ms, after_ms),
            Kind::Cron(cron) => cron.next(after_ms),
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why a text is no schedule expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScheduleError {
    /// Neither `rate(...)` nor `cron(...)`.
    Form,
    /// What a rate counts is no positive whole number.
    Value(String),
    /// The unit of a rate is none, or has the wrong number.
    Unit {
        /// The unit as given.
        unit: String,
        /// The value that it follows.
        value: String,
        /// The units that go with the value.
        want: &'static str,
    },
    /// White space before the first or after the last field.
    Blank,
    /// How many fields there are, other than six.
    Fields(usize),
    /// Day of month and day of week: none of them is `?`, or both are.
    Days,
    /// Something in a field that it does not take.
    Item {
        /// The field.
        field: &'static str,
        /// What is wrong in it, as given.
        item: String,
        /// What it takes.
        want: &'static str,
    },
}

impl fmt::Display for ScheduleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => {
                f.write_str("a schedule is `rate(5 minutes)` or `cron(0 9 ? * MON-FRI *)`, without blanks around")
            }
            Self::Value(value) => write!(f, "`{value}` is not a positive whole number; write `rate(5 minutes)`"),
            Self::Unit { unit, value, want } => write!(f, "after {value}, `{unit}` is not a unit; write {want}"),
            Self::Blank => f.write_str("white space stands only between the fields of `cron(...)`"),
            Self::Fields(count) => write!(
                f,
                "`cron(...)` has six fields: minutes, hours, day of month, month, day of week, year; here are {count}"
            ),
            Self::Days => f.write_str("one of day of month and day of week must be `?`, and the other must not"),
            Self::Item { field, item, want } => write!(f, "`{item}` is wrong in the {field}; write {want}"),
        }
    }
}

impl std::error::Error for ScheduleError {}

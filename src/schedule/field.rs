//! One field of `cron(...)`.
//!
//! In: its text. Out: the values it selects. Promises: every value lies within the field. Leaves to others: what only
//! one of the fields takes (`?`, `L`, `W`, `#`).

use super::ScheduleError;
use std::collections::BTreeSet;

pub(super) type Values = BTreeSet<i16>;

/// What a field takes.
pub(super) struct Field {
    name: &'static str,
    min: i16,
    max: i16,
    /// Names for the values from `min` on.
    names: &'static [&'static str],
    /// Whether the least value follows the greatest, as in `FRI-MON`.
    cyclic: bool,
    want: &'static str,
}

pub(super) const MINUTES: Field = Field {
    name: "minutes",
    min: 0,
    max: 59,
    names: &[],
    cyclic: true,
    want: "`*`, 0-59, `0/15`, or a list of them as in `0,10-20`",
};

pub(super) const HOURS: Field = Field {
    name: "hours",
    min: 0,
    max: 23,
    names: &[],
    cyclic: true,
    want: "`*`, 0-23, `0/6`, or a list of them as in `0,8-17`",
};

pub(super) const DAY_OF_MONTH: Field = Field {
    name: "day of month",
    min: 1,
    max: 31,
    names: &[],
    cyclic: true,
    want: "`*`, `?`, 1-31, `1/7`, `L`, `LW`, `15W`, or a list as in `1,10-20,L`",
};

pub(super) const MONTH: Field = Field {
    name: "month",
    min: 1,
    max: 12,
    names: &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
    cyclic: true,
    want: "`*`, 1-12, JAN-DEC, `1/3`, or a list of them as in `JAN,APR-JUN`",
};

pub(super) const DAY_OF_WEEK: Field = Field {
    name: "day of week",
    min: 1,
    max: 7,
    names: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
    cyclic: true,
    want: "`*`, `?`, 1-7 (1 is Sunday), SUN-SAT, `L`, `FRIL`, at most one like `MON#3`, or a list as in `TUE,FRI-SUN`",
};

pub(super) const YEAR: Field = Field {
    name: "year",
    min: 1970,
    max: 2199,
    names: &[],
    cyclic: false,
    want: "`*`, 1970-2199, `2024/4`, or a list of them as in `2024,2026-2028`",
};

impl Field {
    /// The values of a text. `special` is asked first about each item of a list, and says whether it took it.
    pub(super) fn read(&self, text: &str, mut special: impl FnMut(&str) -> bool) -> Result<Values, ScheduleError> {
        if text == "*" {
            return Ok((self.min..=self.max).collect());
        }
        let mut values = Values::new();
        for item in text.split(',').filter(|item| !special(item)) {
            let wrong = || ScheduleError::Item { field: self.name, item: item.to_owned(), want: self.want };
            values.extend(self.item(item).ok_or_else(wrong)?);
        }
        Ok(values)
    }

    /// A single value, by number or name.
    pub(super) fn value(&self, text: &str) -> Option<i16> {
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        match named {
            Some(position) => Some(self.min + i16::try_from(position).ok()?),
            None => number(text, self.min, self.max),
        }
    }

    fn item(&self, item: &str) -> Option<impl Iterator<Item = i16>> {
        let (base, step) = match item.split_once('/') {
            // A step beyond the field's values is out of range as well.
            Some((base, step)) => (base, Some(number(step, 1, self.max)?)),
            None => (item, None),
        };
        let (from, to) = match (base.split_once('-'), step) {
            (Some((from, to)), _) => (self.value(from)?, self.value(to)?),
            (None, Some(_)) if base == "*" => (self.min, self.max),
            (None, Some(_)) => (self.value(base)?, self.max),
            (None, None) => (self.value(base)?, self.value(base)?),
        };
        if from > to && !self.cyclic {
            return None;
        }
        let (min, size) = (self.min, self.max - self.min + 1);
        let to = if from > to { to + size } else { to };
        let step = usize::try_from(step.unwrap_or(1)).ok()?;
        Some((from..=to).step_by(step).map(move |value| min + (value - min) % size))
    }
}

/// A number without sign, from `min` to `max`.
pub(super) fn number(text: &str, min: i16, max: i16) -> Option<i16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|value| digits && (min..=max).contains(value))
}

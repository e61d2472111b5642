//! `rate(5 minutes)`.
//!
//! In: what stands in the brackets; when counting began. Out: the next end of a period. Promises: the first is one
//! period after the beginning; when it is asked moves none. Leaves to others: when counting begins anew.

use super::{MINUTE_MS, ScheduleError};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rate {
    /// Positive.
    period_ms: i64,
}

const UNITS: [(&str, &str, i64); 3] =
    [("minute", "minutes", MINUTE_MS), ("hour", "hours", 60 * MINUTE_MS), ("day", "days", 24 * 60 * MINUTE_MS)];

impl Rate {
    pub(super) fn parse(body: &str) -> Result<Self, ScheduleError> {
        let (value, unit) = body.split_once(' ').unwrap_or((body, ""));
        if !value.bytes().all(|byte| byte.is_ascii_digit()) || value.bytes().all(|byte| byte == b'0') {
            return Err(ScheduleError::Value(value.to_owned()));
        }
        // A number that is too large for us makes a period that never ends.
        let count = value.parse().unwrap_or(i64::MAX);
        let found = UNITS.iter().find(|(one, many, _)| unit == if count == 1 { *one } else { *many });
        let Some((.., unit_ms)) = found else {
            let want = if count == 1 { "`minute`, `hour` or `day`" } else { "`minutes`, `hours` or `days`" };
            return Err(ScheduleError::Unit { unit: unit.to_owned(), value: value.to_owned(), want });
        };
        Ok(Self { period_ms: count.saturating_mul(*unit_ms) })
    }

    pub(super) fn next(&self, begin_ms: i64, after_ms: i64) -> Option<i64> {
        let (begin, period) = (i128::from(begin_ms), i128::from(self.period_ms));
        let periods = (i128::from(after_ms) - begin).div_euclid(period) + 1;
        i64::try_from(begin + periods.max(1) * period).ok()
    }
}

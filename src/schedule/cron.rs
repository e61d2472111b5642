//! `cron(0 9 ? * MON-FRI *)`.
//!
//! In: what stands in the brackets; a time. Out: the first whole minute after it on which all fields agree, UTC.
//! Promises: looks at days, not at minutes, and at none twice. Leaves to others: the calendar (jiff).

use super::field::{DAY_OF_MONTH, DAY_OF_WEEK, HOURS, MINUTES, MONTH, Values, YEAR, number};
use super::{MINUTE_MS, ScheduleError};
use jiff::Timestamp;
use jiff::civil::{Date, Time, Weekday};
use jiff::tz::Offset;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cron {
    minutes: Values,
    hours: Values,
    days: Days,
    months: Values,
    years: Values,
}

/// The field of the two that is not `?`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Days {
    OfMonth(MonthDays),
    OfWeek(WeekDays),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct MonthDays {
    days: Values,
    /// `15W`
    nearest: Values,
    /// `L`
    last: bool,
    /// `LW`
    last_weekday: bool,
}

/// Days of the week count from 1, Sunday.
#[derive(Debug, Clone, PartialEq, Eq)]
struct WeekDays {
    days: Values,
    /// `5L`
    last: Values,
    /// `2#3`
    nth: Option<(i16, i16)>,
}

impl Cron {
    pub(super) fn parse(body: &str) -> Result<Self, ScheduleError> {
        if body.trim_ascii() != body {
            return Err(ScheduleError::Blank);
        }
        let fields: Vec<&str> = body.split_ascii_whitespace().collect();
        let [minutes, hours, of_month, month, of_week, year] = fields[..] else {
            return Err(ScheduleError::Fields(fields.len()));
        };
        let days = match (of_month, of_week) {
            ("?", "?") => return Err(ScheduleError::Days),
            (of_month, "?") => Days::OfMonth(MonthDays::parse(of_month)?),
            ("?", of_week) => Days::OfWeek(WeekDays::parse(of_week)?),
            _ => return Err(ScheduleError::Days),
        };
        let none = |_: &str| false;
        Ok(Self {
            minutes: MINUTES.read(minutes, none)?,
            hours: HOURS.read(hours, none)?,
            days,
            months: MONTH.read(month, none)?,
            years: YEAR.read(year, none)?,
        })
    }

    pub(super) fn next(&self, after_ms: i64) -> Option<i64> {
        let minute = (after_ms.div_euclid(MINUTE_MS) + 1).max(0);
        let start = Offset::UTC.to_datetime(Timestamp::from_second(minute * 60).ok()?);
        let due = self.dates(start.date()).find_map(|date| {
            let from = if date == start.date() { start.time() } else { Time::midnight() };
            Some(date.to_datetime(self.time(from)?))
        })?;
        Some(Offset::UTC.to_timestamp(due).ok()?.as_millisecond())
    }

    /// The days on which it is due, from one on.
    fn dates(&self, from: Date) -> impl Iterator<Item = Date> {
        let months = self.years.range(from.year()..).flat_map(|year| {
            self.months.iter().filter_map(|month| Date::new(*year, i8::try_from(*month).ok()?, 1).ok())
        });
        months
            .filter(move |first| first.last_of_month() >= from)
            .flat_map(|first| (1..=first.days_in_month()).filter_map(move |day| on(first, day)))
            .filter(move |date| *date >= from && self.days.hold(*date))
    }

    /// The first due time of a due day, from one on.
    fn time(&self, from: Time) -> Option<Time> {
        let (hour, minute) = (i16::from(from.hour()), i16::from(from.minute()));
        let this_hour = self.minutes.range(minute..).next().filter(|_| self.hours.contains(&hour));
        let (hour, minute) = match this_hour {
            Some(minute) => (hour, *minute),
            None => (*self.hours.range(hour + 1..).next()?, *self.minutes.first()?),
        };
        Time::new(i8::try_from(hour).ok()?, i8::try_from(minute).ok()?, 0, 0).ok()
    }
}

impl Days {
    fn hold(&self, date: Date) -> bool {
        match self {
            Self::OfMonth(days) => days.hold(date),
            Self::OfWeek(days) => days.hold(date),
        }
    }
}

impl MonthDays {
    fn parse(text: &str) -> Result<Self, ScheduleError> {
        let (mut nearest, mut last, mut last_weekday) = (Values::new(), false, false);
        let days = DAY_OF_MONTH.read(text, |item| {
            if item.eq_ignore_ascii_case("L") {
                last = true;
            } else if item.eq_ignore_ascii_case("LW") {
                last_weekday = true;
            } else {
                let day = item.strip_suffix(['W', 'w']).and_then(|day| DAY_OF_MONTH.value(day));
                nearest.extend(day);
                return day.is_some();
            }
            true
        })?;
        Ok(Self { days, nearest, last, last_weekday })
    }

    fn hold(&self, date: Date) -> bool {
        let near = |day: &i16| {
            // A month without that day has no weekday near it.
            let day = i8::try_from(*day).ok().and_then(|day| on(date, day));
            day.and_then(nearest_weekday) == Some(date)
        };
        self.days.contains(&i16::from(date.day()))
            || self.last && date == date.last_of_month()
            || self.last_weekday && nearest_weekday(date.last_of_month()) == Some(date)
            || self.nearest.iter().any(near)
    }
}

impl WeekDays {
    fn parse(text: &str) -> Result<Self, ScheduleError> {
        let (mut last, mut nth, mut saturday) = (Values::new(), None, None);
        let mut days = DAY_OF_WEEK.read(text, |item| {
            if item.eq_ignore_ascii_case("L") {
                saturday = Some(7);
                true
            } else if let Some(day) = item.strip_suffix(['L', 'l']) {
                let day = DAY_OF_WEEK.value(day);
                last.extend(day);
                day.is_some()
            } else if let (None, Some((day, n))) = (nth, item.split_once('#')) {
                nth = DAY_OF_WEEK.value(day).zip(number(n, 1, 5));
                nth.is_some()
            } else {
                false
            }
        })?;
        days.extend(saturday);
        Ok(Self { days, last, nth })
    }

    fn hold(&self, date: Date) -> bool {
        let day = i16::from(date.weekday().to_sunday_one_offset());
        let nth = i16::from((date.day() - 1) / 7 + 1);
        self.days.contains(&day)
            || self.last.contains(&day) && date.day() + 7 > date.days_in_month()
            || self.nth == Some((day, nth))
    }
}

/// A day of the month of another.
fn on(month: Date, day: i8) -> Option<Date> {
    Date::new(month.year(), month.month(), day).ok()
}

/// The day from Monday to Friday that is nearest to a day and in its month.
fn nearest_weekday(date: Date) -> Option<Date> {
    let day = match (date.weekday(), date.day()) {
        (Weekday::Saturday, 1) => 3,
        (Weekday::Saturday, day) => day - 1,
        (Weekday::Sunday, day) if day == date.days_in_month() => day - 2,
        (Weekday::Sunday, day) => day + 1,
        (_, day) => day,
    };
    on(date, day)
}

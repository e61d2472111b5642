//! Schedule expressions: which are valid, and when they are due. The naive reading at the end decides single minutes
//! from the text; walking `next` must find the same minutes.

use jiff::civil::{Date, date};
use jiff::{Timestamp, tz::Offset};
use proptest::prelude::*;
use sluice::schedule::Schedule;
use std::time::{Duration, Instant};

#[test]
fn valid_texts() {
    let check = |text: &str| match Schedule::parse(text) {
        Ok(schedule) => assert_eq!(schedule.to_string(), text),
        Err(error) => panic!("{text}: {error}"),
    };
    let rates = "rate(1 minute)|rate(1 hour)|rate(1 day)|rate(2 minutes)|rate(10 minutes)|rate(24 hours)|rate(7 days)|\
        rate(01 minute)|rate(99999999999999999999999 days)";
    rates.split('|').for_each(check);
    let crons = "cron(* * ? * MON-FRI *)|cron(0 10 * * ? *)|cron(15 12 * * ? *)|cron(0 18 ? * MON-FRI *)|\
        cron(0 8 1 * ? *)|cron(0/15 * * * ? *)|cron(0/10 * ? * MON-FRI *)|cron(0/5 8-17 ? * MON-FRI *)|\
        cron(*/5 */2 */3 */4 ? */5)|cron(0-30/7 8-17/2 1-10/3 JAN-JUN/2 ? 2020-2030/2)|\
        cron(0,5,10-20,40/5 0,23 1,15,31 1,DEC,3-5 ? 2002-2005)|cron(00 09 01 02 ? *)|cron(59 23 31 12 ? 2199)|\
        cron(0 0 1 1 ? 1970)|cron(0 0 ? * 1,7 *)|cron(0 0 ? * SUN-SAT *)|cron(0 0 ? * mon-fri *)|\
        cron(0 0 1 jan,Feb ? *)|cron(0 0 ? * 1-7 *)|cron(0 0 ? * MON/2 *)|cron(0 0 ? * * *)|cron(0 0 L * ? *)|\
        cron(0 0 LW * ? *)|cron(0 0 3W * ? *)|cron(0 0 31W * ? *)|cron(0 0 1,15W,L,LW * ? *)|cron(0 0 ? * L *)|\
        cron(0 0 ? * 5L *)|cron(0 0 ? * THUL *)|cron(0 0 ? * thul *)|cron(0 0 ? * 2#3 *)|cron(0 0 ? * SAT#3 *)|\
        cron(0 0 ? * 2#1 *)|cron(0 0 ? * 2#5 *)|cron(0 0 ? * 2#3,FRI,7L *)|cron(0 0 ? * FRI-MON *)|\
        cron(50-10 22-2/2 28-3 NOV-FEB ? *)|cron(5/59 5/23 5/31 5/12 ? 2000/2199)|cron(0  10\t*  *  ?  *)|\
        cron(0 0 31 2 ? *)|cron(0 0 1 1 ? 2002-2005)";
    crons.split('|').for_each(check);
}

#[test]
fn invalid_texts() {
    let check = |text: &str| assert!(Schedule::parse(text).is_err(), "{text} is invalid");
    let forms = "||rate|rate()|rate(10)|cron()|rate(5 minutes|5 minutes|(5 minutes)|Rate(5 minutes)|CRON(0 10 * * ? *)|\
        rate(5 minutes) | rate(10 minutes)| cron(0 10 * * ? *)|cron(0 10 * * ? *)\n|at(2024-01-01T00:00:00)|\
        rate(5 minutes)rate(5 minutes)|rate((5 minutes))|0 10 * * ? *";
    forms.split('|').for_each(check);
    let rates = "rate(1 minutes)|rate(1 hours)|rate(1 days)|rate(10 minute)|rate(10 hour)|rate(10 day)|rate(0 minutes)|\
        rate(0 minute)|rate(-10 minutes)|rate(+10 minutes)|rate(10 seconds)|rate(10 weeks)|rate(10 years)|\
        rate(10 MINUTES)|rate(10 Minutes)|rate( 10 minutes )|rate(10  minutes)|rate(10\tminutes)|rate(10minutes)|\
        rate(1.5 hours)|rate(foo minutes)|rate(10 minutess)|rate(10 minutes 5 hours)|rate(٣ minutes)|rate(minutes)|\
        rate(1 )|rate( minutes)";
    rates.split('|').for_each(check);
    let counts = "cron(0 10 * * ?)|cron(0 10 * * ? * *)|cron(* * * * *)|cron(0)|cron( )|cron( 0 10 * * ? *)|\
        cron(0 10 * * ? * )|cron(0 10 * * ? *\u{a0})";
    counts.split('|').for_each(check);
    let days = "cron(0 1 * * * *)|cron(0 1 ? * ? *)|cron(0 1 1 * MON *)|cron(0 1 * * MON *)|cron(0 1 1 * * *)|\
        cron(0 1 L * L *)";
    days.split('|').for_each(check);
    let ranges = "cron(60 1 * * ? *)|cron(71 8 1 * ? *)|cron(0 24 * * ? *)|cron(0 1 0 * ? *)|cron(0 1 32 * ? *)|\
        cron(0 1 1 0 ? *)|cron(0 1 1 13 ? *)|cron(0 1 ? * 0 *)|cron(0 1 ? * 8 *)|cron(0 1 1 * ? 1969)|\
        cron(0 1 1 * ? 2200)|cron(0 1 1 * ? 24)|cron(-1 1 * * ? *)|cron(+1 1 * * ? *)|cron(0-60 1 * * ? *)|\
        cron(99999999999 1 * * ? *)|cron(0/0 1 * * ? *)|cron(*/0 1 * * ? *)|cron(0/60 1 * * ? *)|cron(0 0/24 * * ? *)|\
        cron(0 1 1/32 * ? *)|cron(0 1 ? * 1/8 *)|cron(0 1 1 1 ? 2005-2002)|cron(60/5 1 * * ? *)";
    ranges.split('|').for_each(check);
    let items = "cron(/5 1 * * ? *)|cron(0/ 1 * * ? *)|cron(0/5/5 1 * * ? *)|cron(0/-5 1 * * ? *)|cron(, 1 * * ? *)|\
        cron(0, 1 * * ? *)|cron(,0 1 * * ? *)|cron(0,,5 1 * * ? *)|cron(*,5 1 * * ? *)|cron(5,* 1 * * ? *)|\
        cron(1-2-3 1 * * ? *)|cron(1- 1 * * ? *)|cron(-5 1 * * ? *)|cron(*-5 1 * * ? *)|cron(** 1 * * ? *)|\
        cron(1.5 1 * * ? *)|cron(0x5 1 * * ? *)|cron(? 1 * * ? *)|cron(0 ? * * ? *)|cron(0 1 * ? ? *)|\
        cron(0 1 * * ? ?)|cron(0 1 ?,1 * ? *)|cron(0 1 ? * ?,2 *)|cron(0 1 ?/2 * ? *)|cron(٣ 1 * * ? *)|\
        cron(* dummy ? * MON-FRI *)|cron(INVALID)|cron(0 dummy ? * MON-FRI *)";
    items.split('|').for_each(check);
    let names = "cron(7 20 * * NOT *)|cron(7 20 ? * NOT *)|cron(0 1 ? * MONDAY *)|cron(0 1 ? * JAN *)|\
        cron(0 1 1 MON ? *)|cron(0 1 1 JANUARY ? *)|cron(0 1 1 JANFEB ? *)|cron(JAN 1 1 * ? *)|cron(0 MON 1 * ? *)|\
        cron(0 1 MON * ? *)|cron(0 1 1 * ? JAN)|cron(0 1 ? * MON-XYZ *)|cron(0 1 ? * ΜON *)";
    names.split('|').for_each(check);
    let specials = "cron(L 1 * * ? *)|cron(0 L * * ? *)|cron(0 1 1 L ? *)|cron(0 1 1 * ? L)|cron(W 1 * * ? *)|\
        cron(0 1 W * ? *)|cron(0 1 0W * ? *)|cron(0 1 32W * ? *)|cron(0 1 3WW * ? *)|cron(0 1 WL * ? *)|\
        cron(0 1 W3 * ? *)|cron(0 1 1-5W * ? *)|cron(0 1 3W/2 * ? *)|cron(0 1 5L * ? *)|cron(0 1 L5 * ? *)|\
        cron(0 1 L-3 * ? *)|cron(0 1 1-L * ? *)|cron(0 1 L/2 * ? *)|cron(0 1 LL * ? *)|cron(0 1 2#3 * ? *)|\
        cron(0 1 ? * 3W *)|cron(0 1 ? * LW *)|cron(0 1 ? * W *)|cron(0 1 ? * 8L *)|cron(0 1 ? * 0L *)|\
        cron(0 1 ? * XYZL *)|cron(0 1 ? * LL *)|cron(0 1 ? * L5 *)|cron(0 1 ? * MON-FRIL *)|cron(0 1 ? * 2#0 *)|\
        cron(0 1 ? * 2#6 *)|cron(0 1 ? * SAT#6 *)|cron(0 1 ? * 8#1 *)|cron(0 1 ? * 0#1 *)|cron(0 1 ? * #1 *)|\
        cron(0 1 ? * 2# *)|cron(0 1 ? * # *)|cron(0 1 ? * *#1 *)|cron(0 1 ? * 2#+1 *)|cron(0 1 ? * 2#1#2 *)|\
        cron(0 1 ? * 2-3#1 *)|cron(0 1 ? * 2#1,3#1 *)|cron(0 1 ? * MON#1,MON#1 *)|cron(0 1 ? * 2#L *)|\
        cron(2#1 1 * * ? *)|cron(0 1 1 1#1 ? *)";
    specials.split('|').for_each(check);
}

#[test]
fn errors_say_what_is_wrong() {
    let check = |text: &str, want: &str| {
        let error = Schedule::parse(text).unwrap_err().to_string();
        assert!(error.contains(want), "{text}: {error}");
    };
    check("5 minutes", "a schedule is `rate(5 minutes)` or");
    check("rate(-10 minutes)", "`-10` is not a positive whole number");
    check("rate(1 minutes)", "after 1, `minutes` is not a unit; write `minute`");
    check("rate(10 minute)", "after 10, `minute` is not a unit; write `minutes`");
    check("cron( 0 1 * * ? *)", "only between the fields");
    check("cron(0 1 * * *)", "here are 5");
    check("cron(0 1 * * * *)", "one of day of month and day of week must be `?`");
    check("cron(0 1,24 * * ? *)", "`24` is wrong in the hours; write `*`, 0-23");
    check("cron(0 1 ? * 2#1,3#1 *)", "`3#1` is wrong in the day of week");
}

fn millis(text: &str) -> i64 {
    text.parse::<Timestamp>().expect(text).as_millisecond()
}

/// Checks due times, one after the other. `never` is the end of them.
fn walk(text: &str, begin: &str, after: &str, want: &[&str]) {
    let schedule = Schedule::parse(text).expect(text);
    let mut at = millis(after);
    for want in want {
        let next = schedule.next(millis(begin), at);
        let shown = next.map_or("never".to_owned(), |ms| Timestamp::from_millisecond(ms).unwrap().to_string());
        assert_eq!(shown, *want, "{text} after {}", Timestamp::from_millisecond(at).unwrap());
        at = next.unwrap_or(at);
    }
}

#[test]
fn rates_count_from_their_beginning() {
    let begin = "2024-02-28T23:59:30.5Z";
    let check = |text: &str, after: &str, want: &[&str]| walk(text, begin, after, want);
    check("rate(1 minute)", begin, &["2024-02-29T00:00:30.5Z", "2024-02-29T00:01:30.5Z"]);
    check("rate(5 minutes)", begin, &["2024-02-29T00:04:30.5Z", "2024-02-29T00:09:30.5Z"]);
    check("rate(2 hours)", begin, &["2024-02-29T01:59:30.5Z"]);
    check("rate(1 day)", begin, &["2024-02-29T23:59:30.5Z", "2024-03-01T23:59:30.5Z"]);
    check("rate(5 minutes)", "2024-02-29T00:04:30.499Z", &["2024-02-29T00:04:30.5Z"]);
    check("rate(5 minutes)", "2024-02-29T12:00:00Z", &["2024-02-29T12:04:30.5Z"]);
    // Asked about a time before it was made: the first is one period after that all the same.
    check("rate(5 minutes)", "2020-01-01T00:00:00Z", &["2024-02-29T00:04:30.5Z"]);
    check("rate(99999999999999999999999 days)", begin, &["never"]);
}

#[test]
fn crons_are_due() {
    let check = |text: &str, after: &str, want: &[&str]| walk(text, "2024-01-01T00:00:00Z", after, want);
    let new_year = "2024-01-01T00:00:00Z";
    // A due time is a whole minute, and after the time asked about.
    check("cron(* * * * ? *)", "2024-01-01T00:00:00.001Z", &["2024-01-01T00:01:00Z", "2024-01-01T00:02:00Z"]);
    check("cron(* * * * ? *)", "2023-12-31T23:59:59.999Z", &["2024-01-01T00:00:00Z"]);
    check("cron(0 0 1 1 ? *)", new_year, &["2025-01-01T00:00:00Z", "2026-01-01T00:00:00Z"]);
    check("cron(0 0 1 1 ? *)", "1969-12-31T23:59:59Z", &["1970-01-01T00:00:00Z", "1971-01-01T00:00:00Z"]);
    check("cron(0 0 1 1 ? *)", "-001000-01-01T00:00:00Z", &["1970-01-01T00:00:00Z"]);
    check("cron(* * ? * MON-FRI *)", "2024-01-05T23:59:00Z", &["2024-01-08T00:00:00Z", "2024-01-08T00:01:00Z"]);
    // The examples of the service's documentation.
    check("cron(0 10 * * ? *)", new_year, &["2024-01-01T10:00:00Z", "2024-01-02T10:00:00Z"]);
    check("cron(0 18 ? * MON-FRI *)", "2024-01-05T12:00:00Z", &["2024-01-05T18:00:00Z", "2024-01-08T18:00:00Z"]);
    check("cron(0/15 * * * ? *)", "2024-01-01T00:44:00Z", &["2024-01-01T00:45:00Z", "2024-01-01T01:00:00Z"]);
    check("cron(0/5 8-17 ? * MON-FRI *)", "2024-01-05T17:54:00Z", &["2024-01-05T17:55:00Z", "2024-01-08T08:00:00Z"]);
    // Steps: from a value to the field's end, from the smallest value, and within a range.
    check(
        "cron(50/4 0 1 1 ? 2024)",
        new_year,
        &["2024-01-01T00:50:00Z", "2024-01-01T00:54:00Z", "2024-01-01T00:58:00Z", "never"],
    );
    check("cron(0 */9 1 1 ? 2024)", new_year, &["2024-01-01T09:00:00Z", "2024-01-01T18:00:00Z", "never"]);
    check("cron(0 0 */15 1 ? 2024)", new_year, &["2024-01-16T00:00:00Z", "2024-01-31T00:00:00Z", "never"]);
    check("cron(0 0 1 */5 ? 2024)", new_year, &["2024-06-01T00:00:00Z", "2024-11-01T00:00:00Z", "never"]);
    check(
        "cron(0 0 ? 1 */3 2024)",
        "2024-01-20T00:00:00Z",
        &["2024-01-21T00:00:00Z", "2024-01-24T00:00:00Z", "2024-01-27T00:00:00Z"],
    );
    check("cron(0 0 1 1 ? */100)", new_year, &["2070-01-01T00:00:00Z", "2170-01-01T00:00:00Z", "never"]);
    check("cron(0 0 1 1 ? 2000/99)", new_year, &["2099-01-01T00:00:00Z", "2198-01-01T00:00:00Z", "never"]);
    check("cron(10-20/6 0 1 1 ? 2025)", new_year, &["2025-01-01T00:10:00Z", "2025-01-01T00:16:00Z", "never"]);
    check(
        "cron(30,10-11 0 1 1 ? 2025)",
        new_year,
        &["2025-01-01T00:10:00Z", "2025-01-01T00:11:00Z", "2025-01-01T00:30:00Z", "never"],
    );
    // Ranges over a field's end.
    check(
        "cron(0 22-1 1 1 ? 2025)",
        new_year,
        &["2025-01-01T00:00:00Z", "2025-01-01T01:00:00Z", "2025-01-01T22:00:00Z"],
    );
    check(
        "cron(0 0 ? * FRI-MON *)",
        "2024-01-05T00:00:00Z",
        &["2024-01-06T00:00:00Z", "2024-01-07T00:00:00Z", "2024-01-08T00:00:00Z", "2024-01-12T00:00:00Z"],
    );
    check(
        "cron(0 22-2/2 1 1 ? 2025)",
        new_year,
        &["2025-01-01T00:00:00Z", "2025-01-01T02:00:00Z", "2025-01-01T22:00:00Z", "never"],
    );
    // Months of different lengths.
    check("cron(0 0 31 * ? *)", "2024-01-31T00:00:00Z", &["2024-03-31T00:00:00Z", "2024-05-31T00:00:00Z"]);
    check("cron(0 0 29 2 ? *)", "2096-02-29T00:00:00Z", &["2104-02-29T00:00:00Z", "2108-02-29T00:00:00Z"]);
    check("cron(59 23 31 12 ? 2199)", new_year, &["2199-12-31T23:59:00Z", "never"]);
}

#[test]
fn days_counted_from_the_calendar() {
    let check = |fields: &str, year: &str, want: &[&str]| {
        let text = format!("cron(0 0 {fields} {year})");
        let want: Vec<_> = want.iter().map(|day| format!("{year}-{day}T00:00:00Z")).collect();
        let want: Vec<_> = want.iter().map(String::as_str).chain(["never"]).collect();
        walk(&text, "2020-01-01T00:00:00Z", "2020-01-01T00:00:00Z", &want);
    };
    check("L 1-4 ?", "2023", &["01-31", "02-28", "03-31", "04-30"]);
    check("L 2 ?", "2024", &["02-29"]);
    // June 2024 ends on a Sunday, August on a Saturday, September on a Monday.
    check("LW 6,8,9 ?", "2024", &["06-28", "08-30", "09-30"]);
    check("L,LW 6,9 ?", "2024", &["06-28", "06-30", "09-30"]);
    check("lw,l 6 ?", "2024", &["06-28", "06-30"]);
    // The 3rd is a Saturday in February, a Sunday in March, a Monday in June 2024.
    check("3W 2,3,6 ?", "2024", &["02-02", "03-04", "06-03"]);
    // Within the month: June 2024 begins on a Saturday, September on a Sunday.
    check("1W 6,9 ?", "2024", &["06-03", "09-02"]);
    // March 2024 ends on a Sunday, August on a Saturday; June has no 31st.
    check("31W 3,6,8 ?", "2024", &["03-29", "08-30"]);
    check("30W 6 ?", "2024", &["06-28"]);
    check("29W 2 ?", "2023", &[]);
    check("1w,15W,20,L 6 ?", "2024", &["06-03", "06-14", "06-20", "06-30"]);
    // `L` alone is Saturday.
    check("? 2 L", "2024", &["02-03", "02-10", "02-17", "02-24"]);
    check("? 2 7", "2024", &["02-03", "02-10", "02-17", "02-24"]);
    check("? 2 1", "2024", &["02-04", "02-11", "02-18", "02-25"]);
    check("? 2 MON,L", "2025", &["02-01", "02-03", "02-08", "02-10", "02-15", "02-17", "02-22", "02-24"]);
    check("? 2,3 5L", "2024", &["02-29", "03-28"]);
    check("? 2,3 THUL", "2024", &["02-29", "03-28"]);
    check("? 2,3 fril,5l", "2024", &["02-23", "02-29", "03-28", "03-29"]);
    check("? 1-3 2#3", "2024", &["01-15", "02-19", "03-18"]);
    check("? 1-3 SAT#3", "2024", &["01-20", "02-17", "03-16"]);
    check("? 1-4 2#5", "2024", &["01-29", "04-29"]);
}

#[test]
fn what_is_never_due_is_known_at_once() {
    let begin = Instant::now();
    let check = |text: &str| walk(text, "2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z", &["never"]);
    check("cron(0 0 31 2 ? *)");
    check("cron(0 0 30,31 2 ? *)");
    check("cron(* * 31,31W 2,4,6,9,11 ? *)");
    check("cron(0 0 29 2 ? 2025-2027)");
    check("cron(0 0 29 2 ? 2100)");
    check("cron(* * * * ? 2002-2005)");
    check("cron(* * * * ? 1970)");
    for text in ["cron(* * * * ? *)", "cron(0 0 31 2 ? *)", "rate(1 minute)", "rate(99999999999999999999999 days)"] {
        let schedule = Schedule::parse(text).expect(text);
        assert_eq!(schedule.next(0, i64::MAX), None, "{text}");
        assert!(schedule.next(i64::MIN, i64::MIN).is_none_or(|next| next > i64::MIN), "{text}");
        assert_eq!(schedule.next(i64::MAX, i64::MIN).is_some(), text == "cron(* * * * ? *)", "{text}");
    }
    assert!(begin.elapsed() < Duration::from_secs(1), "took {:?}", begin.elapsed());
}

/// Whether a text selects a value, item by item; `special` answers for the items that only one field has.
fn selects(text: &str, value: i16, (min, max): (i16, i16), special: impl Fn(&str) -> Option<bool>) -> bool {
    let number = |text: &str| {
        let month = "JANFEBMARAPRMAYJUNJULAUGSEPOCTNOVDEC".find(text).map(|at| at / 3 + 1);
        let day = "SUNMONTUEWEDTHUFRISAT".find(text).map(|at| at / 3 + 1);
        text.parse().unwrap_or_else(|_| month.or(day).expect(text) as i16)
    };
    text.split(',').any(|item| {
        if let Some(answer) = special(item) {
            return answer;
        }
        let (base, step) = item.split_once('/').unwrap_or((item, ""));
        let (from, to) = match base.split_once('-') {
            Some((from, to)) => (number(from), number(to)),
            None if base == "*" => (min, max),
            None if step.is_empty() => (number(base), number(base)),
            None => (number(base), max),
        };
        // Count up from the beginning, round the end where the range goes over it.
        let (mut at, mut steps) = (from, 0);
        while at != value && at != to {
            at = if at == max { min } else { at + 1 };
            steps += 1;
        }
        at == value && steps % step.parse().unwrap_or(1) == 0
    })
}

fn is_weekday(date: Date) -> bool {
    (1..=5).contains(&date.weekday().to_monday_one_offset())
}

/// Whether an upper-case cron is due at some time of a day.
fn day_is_due(fields: &[&str], date: Date) -> bool {
    let (day, length) = (date.day(), date.days_in_month());
    let month: Vec<Date> = (1..=length).map(|day| date.with().day(day).build().unwrap()).collect();
    let of_month = |item: &str| match item.strip_suffix('W') {
        Some("L") => Some(month.iter().rfind(|date| is_weekday(**date)) == Some(&date)),
        Some(near) => {
            let near: i8 = near.parse().unwrap();
            let nearest = month.iter().filter(|date| is_weekday(**date)).min_by_key(|date| (date.day() - near).abs());
            Some(near <= length && nearest == Some(&date))
        }
        None => (item == "L").then_some(day == length),
    };
    let weekday = i16::from(date.weekday().to_sunday_one_offset());
    let same: Vec<&Date> = month.iter().filter(|other| other.weekday() == date.weekday()).collect();
    let is = |name: &str| selects(name, weekday, (1, 7), |_| None);
    let of_week = |item: &str| match (item.strip_suffix('L'), item.split_once('#')) {
        (Some(""), _) => Some(weekday == 7),
        (Some(name), _) => Some(is(name) && same.last() == Some(&&date)),
        (_, Some((name, n))) => Some(is(name) && same.get(n.parse::<usize>().unwrap() - 1) == Some(&&date)),
        _ => None,
    };
    selects(fields[5], date.year(), (1970, 2199), |_| None)
        && selects(fields[3], date.month().into(), (1, 12), |_| None)
        && (fields[2] == "?" || selects(fields[2], day.into(), (1, 31), of_month))
        && (fields[4] == "?" || selects(fields[4], weekday, (1, 7), of_week))
}

/// All due minutes of some days, by asking each minute whether it is due.
fn naive(text: &str, from: Date, to: Date) -> Vec<i64> {
    let upper = text.to_uppercase();
    let fields: Vec<_> = upper["cron(".len()..upper.len() - 1].split_whitespace().collect();
    let hours: Vec<i8> = (0..24).filter(|hour| selects(fields[1], (*hour).into(), (0, 23), |_| None)).collect();
    let minutes: Vec<i8> = (0..60).filter(|minute| selects(fields[0], (*minute).into(), (0, 59), |_| None)).collect();
    let mut due = Vec::new();
    for date in from.series(jiff::Span::new().days(1)).take_while(|date| *date < to) {
        let midnight = Offset::UTC.to_timestamp(date.at(0, 0, 0, 0)).unwrap().as_millisecond();
        let on = day_is_due(&fields, date);
        for (hour, minute) in (0..24).flat_map(|hour| (0..60).map(move |minute| (hour, minute))) {
            if on && hours.contains(&hour) && minutes.contains(&minute) {
                due.push(midnight + (i64::from(hour) * 60 + i64::from(minute)) * 60_000);
            }
        }
    }
    due
}

/// The same, by walking from one due time to the next.
fn walked(text: &str, from: Date, to: Date) -> Vec<i64> {
    let schedule = Schedule::parse(text).expect(text);
    let bound = |date: Date| Offset::UTC.to_timestamp(date.at(0, 0, 0, 0)).unwrap().as_millisecond();
    let next = |after| schedule.next(0, after).filter(|at| *at < bound(to));
    std::iter::successors(next(bound(from) - 1), |at| next(*at)).collect()
}

#[test]
fn a_year_walked_is_a_year_asked_minute_by_minute() {
    let check = |text: &str, least: usize| {
        let (from, to) = (date(2024, 1, 1), date(2025, 1, 1));
        let due = naive(text, from, to);
        assert!(due.len() >= least, "{text} is due {} times", due.len());
        assert!(walked(text, from, to) == due, "{text}");
    };
    check("cron(* * ? * MON-FRI *)", 377_280);
    check("cron(0/15 8-17 ? * MON-FRI *)", 10_480);
    check("cron(*/7 22-4/3 1,10-20/3,LW jan-jun/2 ? *)", 100);
    check("cron(5,55-5 0 L,LW,1W,15W,31W * ? 2020-2030)", 400);
    check("cron(59 23 ? * 2#3,FRIL,SAT *)", 70);
    check("cron(30 12 31W 2/1 ? */2)", 6);
    check("cron(0 0 ? * 1,thul,L *)", 110);
}

/// Expressions that are valid.
fn crons() -> impl Strategy<Value = String> {
    let list = |special: &'static str, min: i16, max: i16| {
        let value = move || min..=max;
        let item = prop_oneof![
            4 => value().prop_map(|value| value.to_string()),
            2 => (value(), value()).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
            1 => (value(), 1..=max).prop_map(|(a, step)| format!("{a}/{step}")),
            1 => (value(), value(), 1..=max).prop_map(|(a, b, step)| format!("{}-{}/{step}", a.min(b), a.max(b))),
            1 => (1..=max).prop_map(|step| format!("*/{step}")),
            2 => proptest::sample::select(special.split(' ').collect::<Vec<_>>()).prop_map(str::to_owned),
        ];
        let list = proptest::collection::vec(item, 1..4).prop_map(|items| items.join(","));
        prop_oneof![1 => Just("*".to_owned()), 4 => list]
    };
    let days = prop_oneof![
        (list("L LW 1W 2W 15W 28W 29W 30W 31W", 1, 31), list("FEB DEC", 1, 12)).prop_map(|(d, m)| format!("{d} {m} ?")),
        (list("FEB DEC", 1, 12), list("L MONL 1L 7L 6L TUE-SUN FRI-MON", 1, 7)).prop_map(|(m, d)| format!("? {m} {d}")),
        (1..=7, 1..=5).prop_map(|(day, n)| format!("? * {day}#{n},L")),
    ];
    (list("50-10", 0, 59), list("22-2 23-1/2", 0, 23), days, list("2023-2025", 2020, 2027))
        .prop_map(|(minute, hour, days, year)| format!("cron({minute} {hour} {days} {year})"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_cron_walked_is_asked_minute_by_minute(text in crons(), month in 0_i32..36) {
        let from = date(2022, 1, 1).saturating_add(jiff::Span::new().months(month));
        let to = from.saturating_add(jiff::Span::new().days(45));
        prop_assert!(walked(&text, from, to) == naive(&text, from, to));
    }

    #[test]
    fn any_text_is_answered(
        text in prop_oneof![
            "\\PC{0,40}",
            "(rate|cron)\\([-0-9*?,/#LWmonijausteh ]{0,40}\\)",
            "cron\\([*0-5] [*0-9,/-]{1,4} ([0-9LW,]{1,4}|[*]) [*1-9] [?] \\*\\)",
            "cron\\([*0-5] [*0-9] [?] [*1-9] [1-7L#/,-]{1,4} \\*\\)",
        ],
        after in any::<i64>(),
    ) {
        if let Ok(schedule) = Schedule::parse(&text) {
            prop_assert!(schedule.next(0, after).is_none_or(|next| next > after));
        }
    }
}

#[test]
fn long_texts_are_read_once() {
    let begin = Instant::now();
    let list = "*/1,".repeat(100_000);
    let check = |text: String, valid: bool| assert_eq!(Schedule::parse(&text).is_ok(), valid, "{} bytes", text.len());
    check(format!("cron({list}0 * * * ? *)"), true);
    check(format!("cron({list} * * * ? *)"), false);
    check(format!("cron(0 0 1 1 {}? *)", " ".repeat(1_000_000)), true);
    check(format!("cron({})", "* ".repeat(1_000_000)), false);
    check(format!("cron(0 0 ? * {}L *)", "5L,".repeat(100_000)), true);
    check(format!("cron({}1 0 1 1 ? *)", "0".repeat(1_000_000)), true);
    check(format!("rate({}1 minute)", "0".repeat(1_000_000)), true);
    check(format!("rate({} minutes)", "9".repeat(1_000_000)), true);
    check("(".repeat(1_000_000), false);
    assert!(begin.elapsed() < Duration::from_secs(10), "took {:?}", begin.elapsed());
}

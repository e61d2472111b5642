//! Thousands of schedules that are due at once: all fire in seconds, each due time once, and what is left out is counted.

use crate::endpoint::Endpoint;
use crate::process::{Place, free_address, get, until};
use serde_json::{Value, json};
use sluice::catalog::Catalog;
use sluice::resources::{Change, Key, Record, Resources, Rule, Scope};
use sluice::service::schedules::{Due, Schedules, event_id, together};
use sluice::store::Store;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

const COUNT: usize = 5000;
const MINUTE: i64 = 60_000;
/// Before the first run that is to be missed.
const MISSED: i64 = 10 * MINUTE;
/// 2024-01-01T00:00:00Z, a Monday.
const MONDAY: i64 = 1_704_067_200_000;

fn scope() -> Scope {
    Scope { account: "000000000000".into(), region: "eu-west-1".into() }
}

fn name(n: usize) -> String {
    format!("s{n:04}")
}

/// Makes as many copies of the rule `tick`, with the same target, made a while ago.
fn copies(data: &Path) {
    let (store, made) = Store::open(data, None).expect("a store");
    let rule = made.rule(&scope(), "default", "tick").expect("the rule").clone();
    let copy = |n| -> Change {
        let mut rule = rule.clone();
        rule.since -= MISSED;
        (Key::Rule(scope(), "default".into(), name(n)), Some(Record::Rule(rule)))
    };
    let changes: Vec<Change> = (0..COUNT).map(copy).collect();
    store.append(changes.iter()).expect("written");
}

/// Rules that have fired, by their ARNs, and all of their events' ids.
fn fired(endpoint: &Endpoint) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut rules, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for event in endpoint.lines("ticks") {
        let arn = event["resources"][0].as_str().expect("an ARN").to_owned();
        let at = event["time"].as_str().and_then(sluice::time::parse_iso).expect("a time");
        assert_eq!(event["id"], json!(event_id(&arn, at)), "an id for each due time");
        if !arn.ends_with("/tick") {
            rules.insert(arn);
        }
        ids.insert(event["id"].to_string());
    }
    (rules, ids)
}

/// The sum of a metric, and its series.
fn metric(admin: &str, name: &str) -> (f64, usize) {
    let (_, text) = get(admin, "/metrics").expect("metrics");
    let series: Vec<f64> = text
        .lines()
        .filter(|line| line.starts_with(name))
        .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
        .collect();
    (series.iter().sum(), series.len())
}

#[test]
fn thousands_that_are_due_at_once_fire_in_seconds() {
    let (listen, admin) = (free_address(), free_address());
    let config = format!(
        "data_dir: data\nserver: {{ listen: \"{listen}\", admin: \"{admin}\" }}\nlog: {{ level: warn }}\n\
         metrics: {{ max_rules: 100 }}\n"
    );
    let endpoint = Endpoint::launch(Place::new(&[("c.yaml", &config)]), listen, &[]);
    let log = json!({ "Id": "1", "Arn": "arn:aws:logs:eu-west-1:000000000000:log-group:ticks" });
    endpoint.call("PutRule", &json!({ "Name": "tick", "ScheduleExpression": "cron(* * * * ? *)" }));
    endpoint.call("PutTargets", &json!({ "Rule": "tick", "Targets": [log] }));
    let endpoint = endpoint.restart_after("-TERM", copies);
    let begun = Instant::now();
    until("some have fired", || fired(&endpoint).0.len() >= 100);
    // Those under way when the process dies fire again, with the same ids.
    let endpoint = endpoint.restart("-KILL");
    until("all have fired", || fired(&endpoint).0.len() == COUNT);
    let took = begun.elapsed();
    eprintln!("{COUNT} schedules fired in {took:?}, a kill and a start included");
    assert!(took < Duration::from_secs(10), "{took:?}");
    until("it is counted", || metric(&admin, "sluice_schedule_skipped_fires_total").0 > 0.0);
    let (fires, series) = metric(&admin, "sluice_schedule_fires_total");
    assert!(fires >= 1.0 && series <= 101, "{fires} fires in {series} series");
    assert!(metric(&admin, "sluice_schedule_delay_seconds_count").0 >= fires, "each has a delay");
    // How far they have come is written down: another start fires nothing of it again.
    let endpoint = endpoint.restart("-TERM");
    let (_, before) = fired(&endpoint);
    let next = || fired(&endpoint).1.difference(&before).count();
    assert!(next() == 0 || next() <= 2 * (COUNT + 1), "only what is due since");
    let lines = endpoint.lines("ticks").len();
    let ids = fired(&endpoint).1.len();
    assert!(lines - ids <= 2 * 1024, "{} came twice", lines - ids);
    endpoint.stop();
}

fn made(rules: &[(&str, &str)]) -> Resources {
    let mut made = Resources::default();
    let change = |(name, schedule): &(&str, &str)| -> Change {
        let mut rule = Rule::default();
        rule.since = MONDAY;
        rule.settings.insert("ScheduleExpression".into(), Value::from(*schedule));
        (Key::Rule(scope(), "default".into(), (*name).into()), Some(Record::Rule(rule)))
    };
    made.apply(rules.iter().map(change).collect()).expect("rules");
    made
}

/// Each due time that is left out is counted, once.
#[test]
fn what_is_skipped_is_counted() {
    let rows: [(&str, &[i64], u64); 5] = [
        ("cron(* * * * ? *)", &[1, 2, 3], 0),
        ("cron(* * * * ? *)", &[10], 9),
        ("cron(* * * * ? *)", &[10, 10, 20], 18),
        ("rate(5 minutes)", &[4, 23], 3),
        ("cron(0 0 1 1 ? 2023)", &[100], 0),
    ];
    for (expression, looks, expected) in rows {
        let mut schedules = Schedules::default();
        schedules.follow(&made(&[("r", expression)]), (&Catalog::new(), &scope()), MONDAY, (1, 1));
        let mut skipped = 0;
        for look in looks {
            // What could not be sent the first time is due again, and is not counted twice.
            drop(schedules.due(MONDAY + look * MINUTE));
            let due = schedules.due(MONDAY + look * MINUTE);
            due.iter().for_each(|due| schedules.note(due));
            skipped += schedules.skipped().into_values().sum::<u64>();
        }
        assert_eq!(skipped, expected, "{expression} {looks:?}");
    }
}

/// Rounds have what is due first, and of no rule a later due time beside an earlier one.
#[test]
fn rounds_overtake_nothing() {
    let due = |rule: &str, minute: i64| {
        let place = sluice::service::schedules::Place {
            scope: scope(),
            bus: "default".into(),
            rule: rule.into(),
            of_files: false,
        };
        Due { place, at: MONDAY + minute * MINUTE }
    };
    let all = [due("a", 1), due("b", 1), due("a", 2), due("c", 2), due("b", 3), due("b", 4)];
    let rounds: Vec<usize> = together(&all).map(<[Due]>::len).collect();
    assert_eq!(rounds, [2, 3, 1]);
    let many: Vec<Due> = (0..COUNT).map(|n| due(&name(n), 1)).collect();
    assert_eq!(together(&many).map(<[Due]>::len).sum::<usize>(), COUNT);
    assert!(together(&many).count() < 10, "few syncs");
}

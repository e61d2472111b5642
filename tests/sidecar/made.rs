//! What callers made, as it runs: rules, regions, schedules, archives and replays.

use crate::api::{FILES, MISSING, NONE, arn, check};
use crate::endpoint::Endpoint;
use crate::process::until;
use serde_json::{Value, json};
use sluice::catalog::Catalog;
use sluice::resources::{Change, Key, Record, Resources, Rule, Scope};
use sluice::service::schedules::{Due, Schedules};
use sluice::store::Store;
use std::collections::BTreeSet;

fn put(endpoint: &Endpoint, bus: &str, source: &str) {
    let entry = json!({ "EventBusName": bus, "Source": source, "DetailType": "t", "Detail": "{}" });
    let (status, answer) = endpoint.call("PutEvents", &json!({ "Entries": [entry] }));
    assert_eq!((status, &answer["FailedEntryCount"]), (200, &json!(0)), "{answer}");
}

/// Events in a log group; what was delivered once more after a kill counts once.
fn events(endpoint: &Endpoint, group: &str) -> usize {
    endpoint.lines(group).iter().map(|event| event["id"].to_string()).collect::<BTreeSet<_>>().len()
}

/// What was answered is there after a kill, runs, and an event that comes after an answer meets what was made.
#[test]
fn what_was_made_runs_and_survives_a_kill() {
    let mut endpoint = Endpoint::start("", FILES);
    let log =
        |group: &str| json!({ "Id": "l", "Arn": format!("arn:aws:logs:eu-west-1:000000000000:log-group:{group}") });
    let chain = json!({ "Id": "b", "Arn": arn("event-bus/second") });
    let rule = |name: &str, bus: &str| json!({ "Name": name, "EventBusName": bus, "EventPattern": "{\"source\":[{\"prefix\":\"made\"}]}" });
    check(
        &endpoint,
        vec![
            ("CreateEventBus", json!({ "Name": "second" }), NONE, json!({})),
            ("PutRule", rule("one", "Orders"), NONE, json!({})),
            (
                "PutTargets",
                json!({ "Rule": "one", "EventBusName": "Orders", "Targets": [log("made/one"), chain, { "Id": "d", "Arn": "arn:sluice:target:::log" }] }),
                NONE,
                json!({}),
            ),
            ("PutRule", rule("two", "second"), NONE, json!({})),
            (
                "PutTargets",
                json!({ "Rule": "two", "EventBusName": "second", "Targets": [log("made/two")] }),
                NONE,
                json!({}),
            ),
        ],
    );
    for round in 1..=2 {
        put(&endpoint, "Orders", &format!("made.{round}"));
        put(&endpoint, "Orders", "filed");
        for (group, count) in [("made/one", round), ("made/two", round), ("orders", 2 * round)] {
            until(&format!("{group} has {count}"), || events(&endpoint, group) == count);
        }
        endpoint = endpoint.restart("-KILL");
    }
    check(&endpoint, vec![("DisableRule", json!({ "Name": "one", "EventBusName": "Orders" }), NONE, json!({}))]);
    put(&endpoint, "Orders", "made.3");
    put(&endpoint, "Orders", "filed");
    until("the rule of the file goes on", || events(&endpoint, "orders") == 5);
    assert_eq!(events(&endpoint, "made/one"), 2, "a disabled rule rests");
    endpoint.stop();
}

/// Every region has its own; what stands in files is in all of them.
#[test]
fn regions_are_apart() {
    let endpoint = Endpoint::start("", FILES);
    let rule = json!({ "Name": "here", "EventBusName": "Orders", "EventPattern": "{\"source\":[\"filed\"]}" });
    let target = json!({ "Id": "l", "Arn": "arn:aws:logs:x:1:log-group:here" });
    let there = |action: &str, members: &Value| endpoint.call_in("ap-south-1", action, members);
    assert_eq!(there("PutRule", &rule).1["RuleArn"], "arn:aws:events:ap-south-1:000000000000:rule/Orders/here");
    there("PutTargets", &json!({ "Rule": "here", "EventBusName": "Orders", "Targets": [target] }));
    check(
        &endpoint,
        vec![("DescribeRule", json!({ "Name": "here", "EventBusName": "Orders" }), MISSING, json!("does not exist"))],
    );
    put(&endpoint, "Orders", "filed");
    until("the rule of the file runs", || endpoint.lines("orders").len() == 1);
    let entry = json!({ "EventBusName": "Orders", "Source": "filed", "DetailType": "t", "Detail": "{}" });
    there("PutEvents", &json!({ "Entries": [entry] }));
    until("both rules run there", || endpoint.lines("orders").len() == 2 && endpoint.lines("here").len() == 1);
    assert_eq!(endpoint.lines("here")[0]["region"], "ap-south-1");
    endpoint.stop();
}

/// An archive keeps what its pattern matches; a replay sends it to the rules that it names, with ids of its own, and
/// nothing of it is archived again.
#[test]
fn archived_events_are_replayed() {
    let mut endpoint = Endpoint::start("", "");
    let log =
        |group: &str| json!({ "Id": "l", "Arn": format!("arn:aws:logs:eu-west-1:000000000000:log-group:{group}") });
    let bus = arn("event-bus/default");
    let archive = |endpoint: &Endpoint| endpoint.call("DescribeArchive", &json!({ "ArchiveName": "a" })).1;
    check(
        &endpoint,
        vec![(
            "CreateArchive",
            json!({ "ArchiveName": "a", "EventSourceArn": bus, "EventPattern": "{\"source\":[\"kept\"]}" }),
            NONE,
            json!({}),
        )],
    );
    for (name, group) in [("one", "one"), ("two", "two")] {
        let rule = json!({ "Name": name, "EventPattern": "{\"source\":[{\"prefix\":\"\"}]}" });
        let targets = json!({ "Rule": name, "Targets": [log(group)] });
        check(&endpoint, vec![("PutRule", rule, NONE, json!({})), ("PutTargets", targets, NONE, json!({}))]);
    }
    let mut entries = Vec::new();
    for (n, time) in [(1, 1_700_000_060), (0, 1_700_000_000), (2, 1_700_000_120), (3, 1_700_000_180)] {
        let detail = json!({ "n": n }).to_string().replace('}', ", \"x\": 1.50}");
        entries.push(json!({ "Source": "kept", "DetailType": "t", "Detail": detail, "Time": time }));
    }
    entries.push(json!({ "Source": "other", "DetailType": "t", "Detail": "{}" }));
    endpoint.call("PutEvents", &json!({ "Entries": entries }));
    until("all are archived", || archive(&endpoint)["EventCount"] == 4);
    until("all are delivered", || events(&endpoint, "one") == 5 && events(&endpoint, "two") == 5);
    endpoint = endpoint.restart("-TERM");
    assert_eq!(archive(&endpoint)["EventCount"], 4);
    let replay = json!({ "ReplayName": "again", "EventSourceArn": arn("archive/a"), "EventStartTime": 1_700_000_000, "EventEndTime": 1_700_000_180, "Destination": { "Arn": bus, "FilterArns": [arn("rule/two")] } });
    check(&endpoint, vec![("StartReplay", replay, NONE, json!({ "State": "STARTING" }))]);
    let described = || endpoint.call("DescribeReplay", &json!({ "ReplayName": "again" })).1;
    until("the replay is through", || described()["State"] == "COMPLETED");
    assert_eq!(described()["EventLastReplayedTime"], 1_700_000_120.0);
    until("the rule has seen it", || events(&endpoint, "two") == 8);
    let replayed: Vec<Value> =
        endpoint.lines("two").into_iter().filter(|event| event["replay-name"] == "again").collect();
    let numbers: Vec<&Value> = replayed.iter().map(|event| &event["detail"]["n"]).collect();
    assert_eq!(numbers, [0, 1, 2], "in order of time, without the end");
    let first = replayed[0].to_string();
    assert!(first.contains(r#""region":"eu-west-1","replay-name":"again","resources":[]"#), "{first}");
    let ids: BTreeSet<String> = endpoint.lines("one").iter().map(|event| event["id"].to_string()).collect();
    assert!(replayed.iter().all(|event| !ids.contains(&event["id"].to_string())), "their ids are new");
    assert_eq!(events(&endpoint, "one"), 5, "other rules do not see it");
    assert_eq!(archive(&endpoint)["EventCount"], 4, "nothing is archived again");
    check(&endpoint, vec![("DeleteArchive", json!({ "ArchiveName": "a" }), NONE, json!({}))]);
    endpoint.stop();
}

/// An archive that is made again under its old name begins empty.
#[test]
fn deleted_archives_stay_gone() {
    let endpoint = Endpoint::start("", "");
    let make = json!({ "ArchiveName": "..", "EventSourceArn": arn("event-bus/default") });
    let size = || endpoint.call("DescribeArchive", &json!({ "ArchiveName": ".." })).1["EventCount"].clone();
    check(&endpoint, vec![("CreateArchive", make.clone(), NONE, json!({}))]);
    put(&endpoint, "default", "x");
    until("it is archived", || size() == 1);
    let gone = json!({ "ArchiveName": ".." });
    check(&endpoint, vec![("DeleteArchive", gone, NONE, json!({})), ("CreateArchive", make, NONE, json!({}))]);
    assert_eq!(size(), 0);
    endpoint.stop();
}

fn home() -> Scope {
    Scope { account: "000000000000".into(), region: "us-east-1".into() }
}

/// What callers made: rules of the default bus with these schedules, since a time.
fn made(rules: &[(&str, &str, i64)]) -> Resources {
    let mut made = Resources::default();
    let change = |(name, schedule, since): &(&str, &str, i64)| -> Change {
        let mut rule = Rule::default();
        rule.since = *since;
        rule.settings.insert("ScheduleExpression".into(), (*schedule).into());
        (Key::Rule(home(), "default".into(), (*name).into()), Some(Record::Rule(rule)))
    };
    made.apply(rules.iter().map(change).collect()).expect("rules");
    made
}

/// 2024-01-01T00:00:00Z, a Monday.
const MONDAY: i64 = 1_704_067_200_000;
const MINUTE: i64 = 60_000;

fn follow(schedules: &mut Schedules, made: &Resources) {
    schedules.follow(made, (&Catalog::new(), &home()), MONDAY, (1, 1));
}

/// A year, a minute at a time: how often each fires.
#[test]
fn a_year_of_schedules() {
    let rules = [
        ("minutely", "rate(1 minute)", MONDAY),
        ("workdays", "cron(* * ? * MON-FRI *)", MONDAY),
        ("monthly", "cron(0 2 L * ? *)", MONDAY),
        ("never", "cron(0 0 1 1 ? 2023)", MONDAY),
    ];
    let mut schedules = Schedules::default();
    follow(&mut schedules, &made(&rules));
    let (mut counts, minutes) = (std::collections::BTreeMap::new(), 366 * 24 * 60);
    for minute in 1..=minutes {
        for due in schedules.due(MONDAY + minute * MINUTE) {
            assert_eq!(due.at, MONDAY + minute * MINUTE, "{due:?} on time");
            schedules.note(&due);
            *counts.entry(due.place.rule).or_insert(0) += 1;
        }
    }
    let expected = [("minutely", minutes), ("monthly", 12), ("workdays", 262 * 24 * 60)];
    assert_eq!(counts, expected.map(|(rule, count)| (rule.to_owned(), count)).into());
}

/// What was due while nothing ran, or the clock was elsewhere: the last due time counts, once.
#[test]
fn missed_runs_are_caught_up_once() {
    let rows: [(&str, i64, Vec<i64>, Vec<i64>); 5] = [
        ("three were missed", 0, vec![3], vec![3]),
        ("half a year was missed", 0, vec![180 * 24 * 60], vec![180 * 24 * 60]),
        ("the clock jumps forward and back", 0, vec![1, 100, 2, 50, 101], vec![1, 100, 101]),
        ("made later than its due times", 5, vec![4, 5, 6], vec![6]),
        ("nothing is due twice", 0, vec![1, 1, 1], vec![1]),
    ];
    for (what, since, looks, expected) in rows {
        let mut schedules = Schedules::default();
        follow(&mut schedules, &made(&[("r", "cron(* * * * ? *)", MONDAY + since * MINUTE)]));
        let mut fired = Vec::new();
        for look in looks {
            for due in schedules.due(MONDAY + look * MINUTE) {
                let Due { at, .. } = due;
                schedules.note(&due);
                fired.push((at - MONDAY) / MINUTE);
            }
        }
        assert_eq!(fired, expected, "{what}");
    }
}

/// A schedule fires, its event goes to its rule's targets in their form, and to nobody else.
#[test]
fn schedules_fire() {
    let endpoint = Endpoint::start("", "");
    let log = |id: &str, group: &str| json!({ "Id": id, "Arn": format!("arn:aws:logs:eu-west-1:000000000000:log-group:{group}") });
    let mut formed = log("2", "formed");
    formed["InputPath"] = json!("$.resources");
    let everything = json!({ "Name": "everything", "EventPattern": "{\"source\":[{\"prefix\":\"\"}]}" });
    check(
        &endpoint,
        vec![
            ("PutRule", everything, NONE, json!({})),
            ("PutTargets", json!({ "Rule": "everything", "Targets": [log("1", "everything")] }), NONE, json!({})),
            ("PutRule", json!({ "Name": "tick", "ScheduleExpression": "cron(* * * * ? *)" }), NONE, json!({})),
            ("PutTargets", json!({ "Rule": "tick", "Targets": [log("1", "ticks"), formed] }), NONE, json!({})),
        ],
    );
    // As if nothing had run for an hour: what was missed is caught up at once.
    let endpoint = endpoint.restart_after("-TERM", |data| {
        let (store, made) = Store::open(data, None).expect("a store");
        let scope = Scope { region: "eu-west-1".into(), ..home() };
        let mut rule = made.rule(&scope, "default", "tick").expect("the rule").clone();
        rule.since -= 60 * MINUTE;
        let key = Key::Rule(scope, "default".into(), "tick".into());
        store.append([(key, Some(Record::Rule(rule)))].iter()).expect("written");
    });
    until("it has fired", || !endpoint.lines("formed").is_empty());
    let event = endpoint.lines("ticks")[0].clone();
    let expected = [
        ("source", json!("aws.events")),
        ("detail-type", json!("Scheduled Event")),
        ("detail", json!({})),
        ("resources", json!([arn("rule/tick")])),
        ("region", json!("eu-west-1")),
    ];
    for (member, value) in expected {
        assert_eq!(event[member], value, "{event}");
    }
    assert!(event["time"].as_str().expect("a time").ends_with(":00Z"), "{event}");
    assert_eq!(endpoint.lines("formed")[0], json!([arn("rule/tick")]));
    assert_eq!(events(&endpoint, "everything"), 0, "rules do not see it");
    endpoint.stop();
}

/// An event goes from one region to another, as it is, and not on to a third one.
#[test]
fn events_cross_one_border() {
    let endpoint = Endpoint::start("", "");
    let regions = ["eu-west-1", "ap-south-1", "us-west-2"];
    for (n, region) in regions.iter().enumerate() {
        let rule = json!({ "Name": "on", "EventPattern": "{\"source\":[\"x\"]}" });
        let log = json!({ "Id": "l", "Arn": format!("arn:aws:logs:{region}:000000000000:log-group:{region}") });
        let next = regions.get(n + 1).map(|next| format!("arn:aws:events:{next}:000000000000:event-bus/default"));
        let next = next.map(|arn| json!({ "Id": "n", "Arn": arn }));
        let targets: Vec<Value> = std::iter::once(log).chain(next).collect();
        endpoint.call_in(region, "PutRule", &rule);
        // The bus that a target leads to need not be there yet.
        let (status, answer) = endpoint.call_in(region, "PutTargets", &json!({ "Rule": "on", "Targets": targets }));
        assert_eq!((status, &answer["FailedEntryCount"]), (200, &json!(0)), "{answer}");
    }
    put(&endpoint, "default", "x");
    until("it has crossed", || endpoint.lines("ap-south-1").len() == 1);
    assert_eq!(endpoint.lines("ap-south-1"), endpoint.lines("eu-west-1"), "unchanged");
    let letters = endpoint.place.path().join("data/dead-letters");
    let text = || {
        let folders = std::fs::read_dir(&letters).into_iter().flatten().flatten();
        let files = folders.flat_map(|folder| std::fs::read_dir(folder.path()).into_iter().flatten().flatten());
        files.map(|file| std::fs::read_to_string(file.path()).expect("text")).collect::<String>()
    };
    until("its second step is a dead letter", || text().contains("THIRD_REGION_HOP_DETECTED"));
    assert!(endpoint.lines("us-west-2").is_empty());
    endpoint.stop();
}

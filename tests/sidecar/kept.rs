//! Archives and schedules of files: shown and run as those that callers make, and theirs to change nowhere but there.

use crate::api::{MISSING, NONE, arn, check};
use crate::endpoint::Endpoint;
use crate::process::{Guard, Place, until};
use serde_json::{Value, json};
use sluice::catalog::{Catalog, Command, Timed};
use sluice::resources::{Fired, Key, Record, Resources, Scope};
use sluice::schedule::Schedule;
use sluice::service::schedules::{Schedules, event_id};
use sluice::store::Store;
use std::path::Path;

const MANAGED: &str = "ManagedRuleException";
const MINUTE: i64 = 60_000;
/// 2024-01-01T00:00:00Z, a Monday.
const MONDAY: i64 = 1_704_067_200_000;

const ARCHIVE: &str = "buses: { Orders: {} }\ntargets: { seen: { log: { group: seen } }, audit: { log: { group: audit } } }\n\
     rules: { again: { bus: Orders, pattern: { replay-name: [{ exists: true }] }, targets: [seen] } }\n\
     archives: { week: { bus: Orders, retention: 7d, description: d, pattern: { source: [kept] } } }\n\
     schedules: { OrdersReconciliation: { expression: \"cron(* * ? * MON-FRI *)\", bus: Orders, state: disabled, targets: [audit] } }\n";

fn put(endpoint: &Endpoint, region: &str, source: &str) {
    let entry =
        json!({ "EventBusName": "Orders", "Source": source, "DetailType": "t", "Detail": "{}", "Time": 1_700_000_000 });
    let (status, answer) = endpoint.call_in(region, "PutEvents", &json!({ "Entries": [entry] }));
    assert_eq!((status, &answer["FailedEntryCount"]), (200, &json!(0)), "{answer}");
}

/// A rule that leads to what an archive's target could be called: it takes no archive's place.
fn stray(endpoint: &Endpoint) {
    let targets = json!([{ "Id": "s", "Arn": "arn:sluice:archive:::week" }]);
    let rule = json!({ "Name": "zz", "EventBusName": "Orders", "EventPattern": "{\"source\":[\"nobody\"]}" });
    let put = json!({ "Rule": "zz", "EventBusName": "Orders", "Targets": targets });
    check(endpoint, vec![("PutRule", rule, NONE, json!({})), ("PutTargets", put, NONE, json!({}))]);
}

/// In every region, an archive of a file keeps what its pattern matches, and refuses changes; what it keeps is replayed,
/// also where files alone say what there is.
#[test]
fn archives_of_files_are_as_those_of_callers() {
    for (mode, refused) in [("layered", MANAGED), ("files", "OperationDisabledException")] {
        let mut endpoint = Endpoint::start("", &format!("{ARCHIVE}catalog: {mode}\n"));
        let named = json!({ "ArchiveName": "week" });
        let bus = arn("event-bus/Orders");
        let taken = if mode == "files" { refused } else { "ResourceAlreadyExistsException" };
        let update = json!({ "ArchiveName": "week", "RetentionDays": 1 });
        let create = json!({ "ArchiveName": "week", "EventSourceArn": bus });
        let rule = json!({ "Name": "OrdersReconciliation", "EventBusName": "Orders" });
        let held = |count: u64| json!({ "ArchiveArn": arn("archive/week"), "EventSourceArn": bus, "RetentionDays": 7, "Description": "d", "EventPattern": "{\"source\":[\"kept\"]}", "State": "ENABLED", "EventCount": count });
        check(
            &endpoint,
            vec![
                ("DescribeArchive", named.clone(), NONE, held(0)),
                (
                    "ListArchives",
                    json!({}),
                    NONE,
                    json!({ "Archives": [{ "ArchiveName": "week", "RetentionDays": 7 }] }),
                ),
                ("UpdateArchive", update, refused, json!("file")),
                ("DeleteArchive", named.clone(), refused, json!("file")),
                ("CreateArchive", create, taken, json!("")),
                (
                    "DeleteArchive",
                    json!({ "ArchiveName": "other" }),
                    if mode == "files" { refused } else { MISSING },
                    json!(""),
                ),
                (
                    "ListRules",
                    json!({ "EventBusName": "Orders" }),
                    NONE,
                    json!({ "Rules": [{ "Name": "Events-Archive-week", "ManagedBy": "sluice.files" }, { "Name": "OrdersReconciliation", "ScheduleExpression": "cron(* * ? * MON-FRI *)", "State": "DISABLED", "ManagedBy": "sluice.files" }, { "Name": "again" }] }),
                ),
                ("EnableRule", rule.clone(), refused, json!("file")),
                ("DeleteRule", rule.clone(), refused, json!("file")),
                (
                    "ListTargetsByRule",
                    json!({ "Rule": "OrdersReconciliation", "EventBusName": "Orders" }),
                    NONE,
                    json!({ "Targets": [{ "Arn": "arn:sluice:target:::audit" }] }),
                ),
            ],
        );
        if mode == "layered" {
            stray(&endpoint);
        }
        for (region, source) in
            [("us-east-1", "kept"), ("ap-south-1", "kept"), ("eu-west-1", "kept"), ("eu-west-1", "other")]
        {
            put(&endpoint, region, source);
        }
        let count = |endpoint: &Endpoint| endpoint.call("DescribeArchive", &named).1["EventCount"].clone();
        until("all are archived", || count(&endpoint) == 3);
        endpoint = endpoint.restart("-TERM");
        assert_eq!(count(&endpoint), 3, "{mode}");
        let replay = json!({ "ReplayName": "p", "EventSourceArn": arn("archive/week"), "EventStartTime": 1_700_000_000, "EventEndTime": 1_700_000_001, "Destination": { "Arn": bus } });
        check(&endpoint, vec![("StartReplay", replay, NONE, json!({ "State": "STARTING" }))]);
        let state =
            |endpoint: &Endpoint| endpoint.call("DescribeReplay", &json!({ "ReplayName": "p" })).1["State"].clone();
        until("it is through", || state(&endpoint) == "COMPLETED");
        until("all are seen", || endpoint.lines("seen").len() == 3);
        assert_eq!(count(&endpoint), 3, "nothing is archived again");
        endpoint = endpoint.restart("-TERM");
        assert_eq!((state(&endpoint), count(&endpoint)), (json!("COMPLETED"), json!(3)), "{mode}");
        endpoint.stop();
    }
}

/// A schedule of a file, and what is known of it.
fn follow(expression: &str, catch_up: u32, mark: Option<Fired>, now: i64) -> (Schedules, Resources) {
    let mut catalog = Catalog::new();
    let schedule = Schedule::parse(expression).expect("a schedule");
    let (name, bus, targets) = ("s".to_owned(), "default".to_owned(), Vec::new());
    let timed = Timed { name, bus, schedule, catch_up, is_enabled: true, description: None, targets };
    catalog.apply(Command::PutTimed(timed)).expect("a catalog");
    let mut made = Resources::default();
    made.set(Key::Fired("default".into(), "s".into()), mark.map(Record::Fired)).expect("a mark");
    let mut schedules = Schedules::default();
    schedules.follow(&made, (&catalog, &home()), now, (1, 1));
    (schedules, made)
}

fn home() -> Scope {
    Scope { account: "000000000000".into(), region: "us-east-1".into() }
}

/// As many due times are caught up as `catch_up` says, the last ones; with none, what is late by a minute is left out.
#[test]
fn missed_runs_are_caught_up_as_the_file_says() {
    let (minutely, daily) = ("cron(* * * * ? *)", "cron(0 0 * * ? *)");
    let day = 24 * 60 * MINUTE;
    let rows: [(&str, u32, i64, Vec<i64>); 9] = [
        (minutely, 0, 10 * MINUTE, vec![10 * MINUTE]),
        (minutely, 1, 10 * MINUTE, vec![10 * MINUTE]),
        (minutely, 3, 10 * MINUTE, vec![8 * MINUTE, 9 * MINUTE, 10 * MINUTE]),
        (minutely, 1000, 2 * MINUTE, vec![MINUTE, 2 * MINUTE]),
        (daily, 0, 3 * day + 30_000, vec![3 * day]),
        (daily, 0, 3 * day + MINUTE, vec![]),
        (daily, 1, 3 * day + MINUTE, vec![3 * day]),
        (daily, 2, 40 * day + MINUTE, vec![39 * day, 40 * day]),
        ("rate(2 days)", 5, 3 * day, vec![2 * day]),
    ];
    for (expression, catch_up, later, expected) in rows {
        let mark = Fired { expression: expression.into(), since: MONDAY, at: None };
        let (mut schedules, _) = follow(expression, catch_up, Some(mark), MONDAY + later);
        let due = schedules.due(MONDAY + later);
        let at: Vec<i64> = due.iter().map(|due| due.at - MONDAY).collect();
        assert_eq!(at, expected, "{expression}, {catch_up}");
        due.iter().for_each(|due| schedules.note(due));
        assert_eq!(schedules.due(MONDAY + later), [], "nothing is due twice");
        let next = schedules.due(MONDAY + (later / day + 2) * day).pop();
        assert!(next.is_some_and(|due| due.at > MONDAY + later), "it goes on");
    }
}

/// A schedule counts from when it was first seen, which is written down; another expression begins anew.
#[test]
fn schedules_of_files_are_marked() {
    let mark = |expression: &str, since: i64| Fired { expression: expression.into(), since, at: Some(since + MINUTE) };
    let rows = [
        (None, Some(MONDAY)),
        (Some(mark("rate(1 hour)", MONDAY - 9 * MINUTE)), None),
        (Some(mark("rate(2 hours)", MONDAY - 9 * MINUTE)), Some(MONDAY)),
    ];
    for (mark, expected) in rows {
        let (schedules, made) = follow("rate(1 hour)", 1, mark, MONDAY);
        let unmarked = schedules.unmarked(&made);
        let since = unmarked.first().and_then(|(_, _, mark)| mark.as_ref()).map(|mark| mark.since);
        assert_eq!(since, expected);
    }
    let made = follow("rate(1 hour)", 1, Some(mark("rate(1 hour)", MONDAY)), MONDAY).1;
    let mut none = Schedules::default();
    none.follow(&made, (&Catalog::new(), &home()), MONDAY, (1, 1));
    assert_eq!(none.unmarked(&made), [("default".to_owned(), "s".to_owned(), None)], "what is gone is forgotten");
}

/// Without a listener, too: a schedule of a file fires what was missed, as much as it says, each due time with one id.
#[test]
fn schedules_of_files_fire_without_a_listener() {
    let config = "data_dir: data\nserver: { listen: \"off\", admin: \"off\" }\ncatalog: files\nbuses: { Orders: {} }\n\
        targets: { audit: { log: { group: audit } }, seen: { log: { group: seen } } }\n\
        rules: { all: { bus: Orders, pattern: { source: [{ exists: true }] }, targets: [seen] } }\n\
        schedules:\n  tick: { expression: \"cron(* * * * ? *)\", bus: Orders, catch_up: 2, targets: [audit, { target: audit, input: \"{}\" }] }\n";
    let place = Place::new(&[("c.yaml", config)]);
    let data = place.path().join("data");
    let run = |what: &str, done: &dyn Fn() -> bool| {
        let mut child = Guard(place.command(&["run", "-c", "c.yaml"]).spawn().expect("a process"));
        until(what, done);
        child.signal("-TERM");
        assert_eq!(child.0.wait().expect("a status").code(), Some(0), "a clean drain");
    };
    let mark = |data: &Path| {
        let (store, made) = Store::open(data, None).expect("a store");
        (store, made.fired("Orders", "tick").cloned())
    };
    run("it is marked", &|| data.join("catalog.redb").exists());
    let (store, first) = mark(&data);
    let first = first.expect("a mark");
    // As if nothing had run for an hour.
    let back = Fired { since: first.since - 60 * MINUTE, at: None, ..first };
    let key = || Key::Fired("Orders".into(), "tick".into());
    store.append([(key(), Some(Record::Fired(back.clone())))].iter()).expect("written");
    drop(store);
    let events = || -> Vec<Value> {
        let files = std::fs::read_dir(data.join("logs/audit")).into_iter().flatten().flatten();
        let texts = files.map(|file| std::fs::read_to_string(file.path()).expect("text"));
        let lines = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>());
        lines.map(|line| serde_json::from_str(&line).expect("JSON")).collect()
    };
    run("two are caught up", &|| events().len() >= 4);
    let ids = |events: &[Value]| {
        let events = events.iter().filter(|event| event["id"].is_string());
        let of = |event: &Value| {
            assert_eq!(event["resources"], json!(["arn:aws:events:us-east-1:000000000000:rule/Orders/tick"]));
            let at = event["time"].as_str().and_then(sluice::time::parse_iso).expect("a time");
            assert_eq!(event["id"], json!(event_id("arn:aws:events:us-east-1:000000000000:rule/Orders/tick", at)));
            event["id"].to_string()
        };
        events.map(of).collect::<std::collections::BTreeSet<_>>()
    };
    let once = ids(&events());
    let (store, fired) = mark(&data);
    assert!(fired.is_some_and(|mark| mark.since == back.since && mark.at.is_some()), "how far it came is written down");
    // As if that had not been written down before the process died: what comes again has the same ids.
    let minutes = sluice::time::wall_millis();
    store.append([(key(), Some(Record::Fired(back)))].iter()).expect("written");
    drop(store);
    let before = events().len();
    run("it fires again", &|| events().len() >= before + 4);
    let more = (sluice::time::wall_millis() / MINUTE - minutes / MINUTE) as usize;
    assert!(ids(&events()).len() <= once.len() + 1 + more, "the same ids");
    assert!(!data.join("logs/seen").exists(), "other rules do not see it");
}

/// Tests of rules and lint are about the rules that somebody wrote.
#[test]
fn rules_of_archives_are_nobodys_to_test() {
    let rules = "buses: { orders: {} }\ntargets: { out: { stdout: {} } }\narchives: { all: { bus: orders } }\n\
        rules: { r: { bus: orders, pattern: { source: [a] }, targets: [out] } }\n";
    let tests = "tests:\n  - { name: t, event: { source: a, detail-type: d, detail: {} }, expect: { rules: [r] } }\n";
    let place = Place::new(&[("r.yaml", rules), ("r.test.yaml", tests)]);
    for verb in ["validate", "test", "lint"] {
        let arguments: &[&str] = if verb == "validate" { &["validate", "-c", "r.yaml"] } else { &[verb, "."] };
        let said = place.run(arguments, "");
        assert_eq!(said.code, Some(0), "{verb}: {}{}", said.out, said.err);
    }
}

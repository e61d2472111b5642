//! What should happen, by arithmetic on the id of an event: no pattern is read and no matcher asked.

use std::fmt::Write;

/// Rules of the test.
pub const RULES: u64 = 200;
/// Topics that their events go to.
pub const TOPICS: u64 = 8;
/// Partitions of the source topic.
pub const PARTITIONS: u64 = 4;

/// An event's id decides everything about it; there are twelve shapes.
pub fn shape(id: u64) -> u64 {
    id % 12
}

fn has_code(id: u64) -> bool {
    shape(id).is_multiple_of(2)
}

fn has_value(id: u64) -> bool {
    !shape(id).is_multiple_of(3)
}

fn has_path(id: u64) -> bool {
    shape(id) % 4 != 1
}

fn has_items(id: u64) -> bool {
    shape(id) >= 6
}

fn region(id: u64) -> u64 {
    id / 12 % 16
}

fn value(id: u64) -> u64 {
    id / 5 % 1000
}

/// The event, byte for byte.
pub fn event(id: u64) -> String {
    let mut detail = format!("\"id\":{id},\"region\":\"r{:02}\",\"ip\":\"10.{}.0.1\"", region(id), id / 7 % 200);
    let mut add = |text: &str| write!(detail, ",{text}").expect("a String takes everything");
    if has_code(id) {
        add(&format!("\"code\":\"{:03}-{:03}\"", id / 11 % 1000, id / 13 % 1000));
    }
    if has_value(id) {
        add(&match shape(id) {
            1 => format!("\"value\":{}.0", value(id)),
            2 => format!("\"value\":{}e0", value(id)),
            _ => format!("\"value\":{}", value(id)),
        });
    }
    if has_path(id) {
        add(&format!("\"path\":\"/a/{}/b/{}.log\"", id / 3 % 7, id / 17 % 11));
    }
    if has_items(id) {
        add(&format!(
            "\"items\":[{{\"sku\":\"s{}\",\"n\":{}}},{{\"sku\":\"s{}\",\"n\":{}}}]",
            id % 5,
            id / 5 % 3,
            id / 2 % 5,
            id / 9 % 3
        ));
    }
    let space = if shape(id) == 4 { " " } else { "" };
    format!(
        "{{\"version\":\"0\",\"id\":\"e{id}\",\"detail-type\":\"Shape {}\",{space}\"source\":\"test.s{}\",\"account\":\"000000000000\",\
         \"time\":\"2024-01-31T09:00:00Z\",\"region\":\"us-east-1\",\"resources\":[],\"detail\":{{{detail}}}}}",
        shape(id),
        id % 3
    )
}

/// How many events a rule matches.
pub fn count(rule: u64, events: u64) -> u64 {
    (0..events).filter(|id| matches(rule, *id)).count() as u64
}

/// How many deliveries to topics the rules make of events.
pub fn deliveries(events: u64) -> u64 {
    (0..RULES).map(|rule| count(rule, events)).sum()
}

/// Whether a rule matches, by arithmetic.
pub fn matches(rule: u64, id: u64) -> bool {
    let k = rule / 10;
    match rule % 10 {
        0 => region(id) == k % 16,
        1 => has_code(id) && id / 11 % 1000 / 10 == k * 5,
        2 => has_code(id) && id / 13 % 1000 % 100 == k,
        3 => has_value(id) && (k * 50..k * 50 + 25).contains(&value(id)),
        4 => shape(id) != k % 12 && region(id) == k % 16 && has_items(id),
        5 => has_path(id) && id / 17 % 11 == k % 11 && id % 3 == 1,
        6 => region(id) == k % 16 && id % 3 == 2,
        7 => id / 7 % 200 == k * 10,
        8 => region(id) == k % 16 && ((has_value(id) && value(id) == k) || !has_value(id)),
        9 => {
            has_items(id) && {
                let item = |sku: u64, n: u64| sku == k % 5 && n == k % 3;
                item(id % 5, id / 5 % 3) || item(id / 2 % 5, id / 9 % 3)
            }
        }
        _ => false,
    }
}

/// The rule's pattern, which the model does not use.
fn pattern(rule: u64) -> String {
    let k = rule / 10;
    match rule % 10 {
        0 => format!("{{ detail: {{ region: [r{:02}] }} }}", k % 16),
        1 => format!("{{ detail: {{ code: [{{ prefix: \"{:02}\" }}] }} }}", k * 5),
        2 => format!("{{ detail: {{ code: [{{ suffix: \"{k:02}\" }}] }} }}"),
        3 => format!("{{ detail: {{ value: [{{ numeric: [\">=\", {}, \"<\", {}] }}] }} }}", k * 50, k * 50 + 25),
        4 => format!(
            "{{ detail-type: [{{ anything-but: \"Shape {}\" }}], detail: {{ region: [r{:02}], items: {{ sku: [{{ exists: true }}] }} }} }}",
            k % 12,
            k % 16
        ),
        5 => format!("{{ source: [test.s1], detail: {{ path: [{{ wildcard: \"/a/*/b/{}.log\" }}] }} }}", k % 11),
        6 => format!("{{ source: [{{ equals-ignore-case: TEST.S2 }}], detail: {{ region: [r{:02}] }} }}", k % 16),
        7 => format!("{{ detail: {{ ip: [{{ cidr: 10.{}.0.0/16 }}] }} }}", k * 10),
        8 => format!(
            "{{ detail: {{ region: [r{:02}], $or: [{{ value: [{k}] }}, {{ value: [{{ exists: false }}] }}] }} }}",
            k % 16
        ),
        _ => format!("{{ detail: {{ items: {{ sku: [s{}], n: [{}] }} }} }}", k % 5, k % 3),
    }
}

/// The topic that a rule's events go to.
pub fn topic(rule: u64) -> u64 {
    rule % TOPICS
}

/// The log group that they go to as well, for some rules.
pub fn group(rule: u64) -> Option<u64> {
    (rule % 20 == 3).then_some(rule / 20 % 2)
}

/// Whether the rule's events are transformed on their way to the topic.
pub fn transformed(rule: u64) -> bool {
    rule % 50 == 7
}

/// What the topic receives.
pub fn payload(rule: u64, id: u64) -> String {
    if transformed(rule) { format!("{{\"id\": {id}, \"by\": \"rule-{rule:03}\"}}") } else { event(id) }
}

/// The whole configuration: a source, and what each of the [`TOPICS`] is.
pub fn config(source: &str, target: impl Fn(u64) -> String) -> String {
    let mut text = format!(
        "version: 1\ndata_dir: data\nserver: {{ listen: \"off\", admin: \"{{admin}}\" }}\nlimits: {{ in_flight_events: 4096 }}\nbuses: {{ test: {{}} }}\n\
         sources:\n  in:\n    bus: test\n    {source}\n\
         targets:\n  g0: {{ log: {{ group: /test/g0 }} }}\n  g1: {{ log: {{ group: /test/g1 }} }}\n"
    );
    let mut add = |line: String| text.push_str(&line);
    for topic in 0..TOPICS {
        add(format!("  t{topic}: {}\n", target(topic)));
    }
    add("rules:\n".to_owned());
    for rule in 0..RULES {
        let target = match transformed(rule) {
            true => format!(
                "{{ target: t{}, input_transformer: {{ paths: {{ id: $.detail.id }}, template: '{{\"id\": <id>, \"by\": \"<aws.events.rule-name>\"}}' }} }}",
                topic(rule)
            ),
            false => format!("t{}", topic(rule)),
        };
        let group = group(rule).map_or(String::new(), |group| format!(", g{group}"));
        add(format!("  rule-{rule:03}: {{ bus: test, pattern: {}, targets: [{target}{group}] }}\n", pattern(rule)));
    }
    text
}

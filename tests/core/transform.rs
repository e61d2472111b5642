//! Input forms and record framings.

use sluice::event::Scanner;
use sluice::transform::wrap::{Framing, Origin, Record};
use sluice::transform::{Context, Input, JsonPath, Template};

const EVENT: &str = r#"{"version":"0","id":"e1","detail-type":"T","source":"s","resources":["r0","r1"],"detail":{"id":"42","n":1.50,"ok":true,"q":"a\"b","list":[{"x":1},{"x":2}],"obj":{"acc_id":"0a78","sf_id":"baz"},"none":null}}"#;

fn context() -> Context<'static> {
    Context { rule_name: "R", rule_arn: "arn:aws:events:r:a:rule/R", ingestion_time: "2024-01-31T09:00:00Z" }
}

fn template(paths: &[(&str, &str)], template: &str) -> Input {
    let paths: Vec<_> = paths.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Input::Template(Template::new(&paths, template).expect("a valid template"))
}

fn render(input: &Input) -> Result<String, String> {
    let rendered = input.render(EVENT.as_bytes(), &context(), &mut Scanner::default());
    rendered.map(|bytes| String::from_utf8(bytes.into_owned()).expect("UTF-8")).map_err(|error| error.to_string())
}

#[test]
fn inputs_render() {
    let path = |text: &str| Input::Path(JsonPath::parse(text).expect("a valid path"));
    let all = &[
        ("id", "$.detail.id"),
        ("n", "$.detail.n"),
        ("ok", "$.detail.ok"),
        ("q", "$.detail.q"),
        ("o", "$.detail.obj"),
        ("xs", "$.detail.list[*].x"),
        ("no", "$.detail.missing"),
        ("l", "$.resources"),
        ("nil", "$.detail.none"),
    ];
    let json = |text: &str| template(all, text);
    let check = |input: Input, want: &str| assert_eq!(render(&input).as_deref(), Ok(want));
    check(Input::Event, EVENT);
    check(Input::Constant(b"{\"k\":1}".to_vec()), "{\"k\":1}");
    check(path("$.detail.n"), "1.50");
    check(path("$.detail.id"), "\"42\"");
    check(path("$.detail.list[1]"), "{\"x\":2}");
    check(path("$.detail.list[*].x"), "[1,2]");
    check(path("$.resources[0]"), "\"r0\"");
    check(path("$.detail-type"), "\"T\"");
    check(path("$"), EVENT);
    check(json(r#"{"order": <id>, "n": <n>, "ok": <ok>}"#), r#"{"order": "42", "n": 1.50, "ok": true}"#);
    check(json(r#"{"t": "id <id>, n <n>, <ok>, <nil>"}"#), r#"{"t": "id 42, n 1.50, true, null"}"#);
    check(json(r#"{"t": "<q>", "u": <q>}"#), r#"{"t": "a\"b", "u": "a\"b"}"#);
    check(
        json(r#"{"o": <o>, "xs": <xs>, "no": <no>, "in": "<no>"}"#),
        r#"{"o": {"acc_id":"0a78","sf_id":"baz"}, "xs": [1,2], "no": "", "in": ""}"#,
    );
    check(
        json(r#"{"a": "<aws.events.rule-name>", "b": <aws.events.rule-arn>, "t": <aws.events.event.ingestion-time>}"#),
        r#"{"a": "R", "b": "arn:aws:events:r:a:rule/R", "t": "2024-01-31T09:00:00Z"}"#,
    );
    check(json(r#"{"e": <aws.events.event.json>}"#), &format!("{{\"e\": {EVENT}}}"));
    check(
        json(r#"{"e": <aws.events.event>}"#),
        r#"{"e": {"version":"0","id":"e1","detailType":"T","source":"s","resources":["r0","r1"]}}"#,
    );
    check(json("\"order <id> is <ok>\""), "\"order 42 is true\"");
    check(json("\"<o> <l>\"\n\"second <n>\""), "\"{acc_id:0a78,sf_id:baz} [r0,r1]\"\n\"second 1.50\"");
    check(json("\"missing: <no>.\""), "\"missing: .\"");
    check(json(r#""say \"<id>\"""#), r#""say \"42\"""#);
}

#[test]
fn bad_inputs_say_why() {
    let check = |input: Input, want: &str| {
        let error = render(&input).expect_err("an error");
        assert!(error.contains(want), "{error}");
    };
    check(Input::Path(JsonPath::parse("$.nothing").expect("a path")), "selects nothing");
    check(template(&[("o", "$.detail.obj")], r#"{"o": "<o>"}"#), "within quotes");
    check(template(&[("o", "$.detail.obj")], r#"{"o": <o>"#), "not valid JSON");
    check(template(&[("id", "$.detail.id")], "plain <id>"), "not valid JSON");
    check(template(&[], "\"a\",\"b\":\"c\""), "not valid JSON");
    check(template(&[("no", "$.none")], "<no>"), "it is empty");
    check(Input::Path(JsonPath::parse("$.missing[*].x").expect("a path")), "selects nothing");

    let bad = |paths: &[(&str, &str)], text: &str, want: &str| {
        let paths: Vec<_> = paths.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let error = Template::new(&paths, text).expect_err("an error").to_string();
        assert!(error.contains(want), "{error}");
    };
    bad(&[], "{\"a\": <b>}", "invalid placeholder b");
    bad(&[("awsx", "$.a")], "{}", "reserved");
    bad(&[("a b", "$.a")], "{}", "not a variable name");
    bad(&[("a", "detail")], "{}", "must start with `$`");
    bad(&[("a", "$..b")], "{}", "a name must follow");
    bad(&[("a", "$.b[?(@.x)]")], "{}", "only `[0]` and `[*]`");
    bad(&[], "", "1 to 8192");
}

#[test]
fn records_become_events() {
    let headers: Vec<(String, Vec<u8>)> = [
        ("ce_specversion", "1.0"),
        ("ce_id", "c1"),
        ("ce_source", "/s"),
        ("ce_type", "t.x"),
        ("ce_subject", "S"),
        ("content-type", "application/json"),
        ("kind", "Placed"),
    ]
    .map(|(k, v)| (k.to_owned(), v.as_bytes().to_vec()))
    .to_vec();
    let wrap = |framing: &Framing, payload: &str, headers: &[(String, Vec<u8>)]| {
        let record = Record {
            payload: payload.as_bytes(),
            headers,
            id: "i1",
            time: "2024-01-31T09:00:00Z",
            account: "1",
            region: "r",
        };
        framing
            .event(&record)
            .map(|bytes| String::from_utf8(bytes.into_owned()).expect("UTF-8"))
            .map_err(|e| e.to_string())
    };
    let raw = |source: Origin, detail_type: Origin| Framing::Raw { source, detail_type };
    let text = |t: &str| Origin::Text(t.to_owned());
    let path = |t: &str| Origin::Path(JsonPath::parse(t).expect("a path"));

    assert_eq!(wrap(&Framing::EventBridge, "anything", &[]).as_deref(), Ok("anything"));
    assert_eq!(
        wrap(&raw(text("shop"), path("$.type")), r#" {"type":"A","n":1e400} "#, &[]).as_deref(),
        Ok(
            r#"{"version":"0","id":"i1","detail-type":"A","source":"shop","account":"1","time":"2024-01-31T09:00:00Z","region":"r","resources":[],"detail":{"type":"A","n":1e400}}"#
        )
    );
    let by_header = wrap(&raw(text("s"), Origin::Header("Kind".into())), "[1]", &headers).expect("an event");
    assert!(by_header.contains(r#""detail-type":"Placed""#) && by_header.ends_with(r#""detail":[1]}"#), "{by_header}");
    let smuggled = wrap(&raw(text("s"), text("t")), r#"{"a":1},"source":"evil","detail":{}"#, &[]);
    assert!(smuggled.expect_err("an error").contains("not JSON"));
    assert!(wrap(&raw(text("s"), path("$.x")), "{}", &[]).expect_err("an error").contains("text at $.x"));
    assert!(wrap(&raw(text("s"), text("t")), "{oops", &[]).expect_err("an error").contains("at byte 1"));

    let binary = wrap(&Framing::CloudEvents, r#"{"n":1}"#, &headers).expect("an event");
    assert_eq!(
        binary,
        r#"{"version":"0","id":"c1","detail-type":"t.x","source":"/s","account":"1","time":"2024-01-31T09:00:00Z","region":"r","resources":[],"cloudevents":{"specversion":"1.0","subject":"S","datacontenttype":"application/json"},"detail":{"n":1}}"#
    );
    let structured = r#"{"specversion":"1.0","id":"c1","source":"/s","type":"t.x","time":"2020-01-01T00:00:00Z","traceparent":"00-a","data":{"n":1}}"#;
    let event = wrap(&Framing::CloudEvents, structured, &[]).expect("an event");
    assert!(
        event.contains(r#""time":"2020-01-01T00:00:00Z""#)
            && event.contains(r#""traceparent":"00-a"},"detail":{"n":1}"#),
        "{event}"
    );
    assert!(
        wrap(&Framing::CloudEvents, r#"{"specversion":"0.3"}"#, &[]).expect_err("an error").contains("expected `1.0`")
    );
    assert!(
        wrap(&Framing::CloudEvents, r#"{"specversion":"1.0","id":"1"}"#, &[])
            .expect_err("an error")
            .contains("`source` is missing")
    );
}

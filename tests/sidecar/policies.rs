//! Policies of buses: what they let in when callers are known, and what they cannot.

use crate::access::{BOB, answer, keys};
use crate::destinations::letters;
use crate::endpoint::Endpoint;
use crate::process::until;
use crate::signed::Signed;
use serde_json::{Value, json};
use sluice::resources::policy::{Asked, Principal, Verdict, judge};

const BUS: &str = "arn:aws:events:eu-west-1:111111111111:event-bus/default";

/// A statement with these members; what it says to Bob, who puts an event with source `s` onto the bus.
const STATEMENTS: &[(&str, Verdict)] = &[
    (r#"{"Effect":"Allow","Principal":"*"}"#, Verdict::Allowed),
    (r#"{"Effect":"Allow","Principal":{"AWS":"*"}}"#, Verdict::Allowed),
    (r#"{"Effect":"Allow","Principal":{"AWS":"222222222222"}}"#, Verdict::Allowed),
    (r#"{"Effect":"Allow","Principal":{"AWS":["333333333333","arn:aws:iam::222222222222:root"]}}"#, Verdict::Allowed),
    (r#"{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::222222222222:user/bob"}}"#, Verdict::Allowed),
    (r#"{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::222222222222:user/eve"}}"#, Verdict::Silent),
    (r#"{"Effect":"Allow","Principal":{"AWS":"arn:aws:sqs::222222222222:root"}}"#, Verdict::Silent),
    (r#"{"Effect":"Allow","Principal":{"AWS":"333333333333"}}"#, Verdict::Silent),
    (r#"{"Effect":"Allow","Principal":{"Service":"events.amazonaws.com"}}"#, Verdict::Silent),
    (r#"{"Effect":"Allow","Principal":"222222222222"}"#, Verdict::Silent),
    (r#"{"Effect":"Allow"}"#, Verdict::Silent),
    (r#"{"Effect":"Deny","Principal":"*"}"#, Verdict::Denied),
    (r#"{"Effect":"Deny","Principal":{"AWS":"333333333333"}}"#, Verdict::Silent),
    (r#"{"Effect":"Deny","Principal":{"AWS":5}}"#, Verdict::Denied),
    (r#"{"Effect":"Deny","Principal":{"Service":"events.amazonaws.com"}}"#, Verdict::Silent),
    (r#"{"Effect":"Deny","NotPrincipal":{"AWS":"222222222222"},"Principal":"*"}"#, Verdict::Denied),
    (r#"{"Effect":"allow","Principal":"*"}"#, Verdict::Denied),
    (r#"{"Effect":"Allow","Principal":"*","Action":"events:*"}"#, Verdict::Allowed),
    (r#"{"Effect":"Allow","Principal":"*","Action":["events:DescribeRule","EVENTS:put?vents"]}"#, Verdict::Allowed),
    (r#"{"Effect":"Allow","Principal":"*","Action":"*"}"#, Verdict::Allowed),
    (r#"{"Effect":"Allow","Principal":"*","Action":"events:PutRule"}"#, Verdict::Silent),
    (r#"{"Effect":"Allow","Principal":"*","Action":"events:PutEvent"}"#, Verdict::Silent),
    (r#"{"Effect":"Allow","Principal":"*","Action":5}"#, Verdict::Silent),
    (r#"{"Effect":"Allow","Principal":"*","NotAction":"events:PutRule"}"#, Verdict::Silent),
    (r#"{"Effect":"Allow","Principal":"*","Resource":"arn:aws:events:*:111111111111:event-bus/*"}"#, Verdict::Allowed),
    (r#"{"Effect":"Allow","Principal":"*","Resource":["x","*"]}"#, Verdict::Allowed),
    (
        r#"{"Effect":"Allow","Principal":"*","Resource":"arn:aws:events:*:111111111111:event-bus/other"}"#,
        Verdict::Silent,
    ),
    (r#"{"Effect":"Allow","Principal":"*","Resource":"ARN:*"}"#, Verdict::Silent),
    (r#"{"Effect":"Allow","Principal":"*","NotResource":"x"}"#, Verdict::Silent),
    (
        r#"{"Effect":"Allow","Principal":"*","Condition":{"StringEquals":{"aws:PrincipalOrgID":"o-bobsorg"}}}"#,
        Verdict::Allowed,
    ),
    (
        r#"{"Effect":"Allow","Principal":"*","Condition":{"StringEquals":{"aws:principalorgid":["o-a","o-bobsorg"]}}}"#,
        Verdict::Allowed,
    ),
    (
        r#"{"Effect":"Allow","Principal":"*","Condition":{"StringEquals":{"aws:PrincipalOrgID":"o-other"}}}"#,
        Verdict::Silent,
    ),
    (
        r#"{"Effect":"Allow","Principal":"*","Condition":{"StringNotEquals":{"aws:PrincipalOrgID":"o-other"}}}"#,
        Verdict::Allowed,
    ),
    (
        r#"{"Effect":"Allow","Principal":"*","Condition":{"StringLike":{"aws:PrincipalArn":"arn:aws:iam::*:user/b*"}}}"#,
        Verdict::Allowed,
    ),
    (
        r#"{"Effect":"Allow","Principal":"*","Condition":{"StringEquals":{"aws:PrincipalAccount":"222222222222","events:source":"s"}}}"#,
        Verdict::Allowed,
    ),
    (r#"{"Effect":"Allow","Principal":"*","Condition":{"StringEquals":{"events:source":"t"}}}"#, Verdict::Silent),
    (r#"{"Effect":"Allow","Principal":"*","Condition":{"StringEquals":{"aws:SourceVpc":"v"}}}"#, Verdict::Silent),
    (
        r#"{"Effect":"Allow","Principal":"*","Condition":{"StringEqualsIfExists":{"aws:SourceVpc":"v"}}}"#,
        Verdict::Silent,
    ),
    (r#"{"Effect":"Allow","Principal":"*","Condition":{"IpAddress":{"aws:SourceIp":"0.0.0.0/0"}}}"#, Verdict::Silent),
    (
        r#"{"Effect":"Allow","Principal":"*","Condition":{"Bool":{"aws:SecureTransport":"false"},"StringEquals":{"events:source":"s"}}}"#,
        Verdict::Silent,
    ),
    (
        r#"{"Effect":"Allow","Principal":"*","Condition":{"ForAnyValue:StringEquals":{"events:source":"s"}}}"#,
        Verdict::Silent,
    ),
    (r#"{"Effect":"Allow","Principal":"*","Condition":{"StringStringEquals":{"events:source":"s"}}}"#, Verdict::Silent),
    (r#"{"Effect":"Allow","Principal":"*","Condition":{"StringEquals":"x"}}"#, Verdict::Silent),
    (r#"{"Effect":"Allow","Principal":"*","Condition":[]}"#, Verdict::Silent),
    (r#"{"Effect":"Deny","Principal":"*","Condition":{"Bool":{"aws:SecureTransport":"false"}}}"#, Verdict::Denied),
    (r#"{"Effect":"Deny","Principal":"*","Condition":{"StringEquals":{"events:source":"t"}}}"#, Verdict::Silent),
];

fn bob() -> Principal {
    Principal {
        account: BOB_ACCOUNT.to_owned(),
        arn: format!("arn:aws:iam::{BOB_ACCOUNT}:user/bob"),
        organization: Some("o-bobsorg".to_owned()),
    }
}

const BOB_ACCOUNT: &str = "222222222222";

#[test]
fn what_cannot_be_evaluated_never_allows() {
    let who = bob();
    let about = [("events:source", "s"), ("events:detail-type", "t")];
    let asked = Asked { who: &who, action: "events:PutEvents", resource: BUS, about: &about };
    let allow = json!({ "Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*" });
    for (text, verdict) in STATEMENTS {
        let mut statement: Value = serde_json::from_str(text).expect("JSON");
        let members = statement.as_object_mut().expect("an object");
        if !members.contains_key("NotAction") {
            members.entry("Action").or_insert_with(|| "events:PutEvents".into());
        }
        if !members.contains_key("NotResource") {
            members.entry("Resource").or_insert_with(|| BUS.into());
        }
        assert_eq!(judge(&json!({ "Statement": statement }), &asked), *verdict, "{text}");
        // One that denies wins, wherever it stands; one that is silent changes nothing.
        let both = if *verdict == Verdict::Denied { Verdict::Denied } else { Verdict::Allowed };
        assert_eq!(judge(&json!({ "Statement": [allow, statement] }), &asked), both, "{text}");
        assert_eq!(judge(&json!({ "Statement": [statement, allow] }), &asked), both, "{text}");
    }
    // Without an organisation, nobody is of one.
    let who = Principal { organization: None, ..bob() };
    let asked = Asked { who: &who, ..asked };
    let condition = |operator: &str| json!({ operator: { "aws:PrincipalOrgID": "o-bobsorg" } });
    let rows = [
        ("StringEquals", Verdict::Silent),
        ("StringNotEquals", Verdict::Allowed),
        ("StringEqualsIfExists", Verdict::Allowed),
    ];
    for (operator, verdict) in rows {
        let mut statement = allow.clone();
        statement["Condition"] = condition(operator);
        assert_eq!(judge(&json!({ "Statement": statement }), &asked), verdict, "{operator}");
    }
}

/// Two accounts of one process: Alice has the bus, Bob comes from elsewhere.
struct Accounts(Endpoint);

impl Accounts {
    fn start() -> Self {
        Self(Endpoint::start_beside(&[("keys.yaml", &keys())], ", auth: { keys: keys.yaml }", ""))
    }

    fn alice(&self, action: &str, members: &Value) -> Value {
        let (status, said) = answer(&self.0, &Signed::new(&self.0.listen, action, members.to_string().as_bytes()));
        assert_eq!(status, 200, "{action} {members}: {said}");
        said
    }

    fn bob(&self, action: &str, members: &Value) -> Value {
        let mut request = Signed::new(&self.0.listen, action, members.to_string().as_bytes());
        // Or the same twice within a second would have the same signature.
        request.set("amz-sdk-invocation-id", &uuid::Uuid::new_v4().to_string());
        answer(&self.0, &request.by(BOB.0, BOB.1)).1
    }

    fn bob_puts(&self, source: &str) -> Value {
        let entry = |bus: &str| json!({ "EventBusName": bus, "Source": source, "DetailType": "t", "Detail": "{}" });
        self.bob("PutEvents", &json!({ "Entries": [entry(BUS), entry("default")] }))
    }
}

const REFUSED: &str = "User: arn:aws:iam::222222222222:user/bob is not authorized to perform: events:PutEvents on \
     resource: arn:aws:events:eu-west-1:111111111111:event-bus/default because no resource-based policy allows the \
     events:PutEvents action";

#[test]
fn events_of_other_accounts_come_where_a_policy_lets_them() {
    let accounts = Accounts::start();
    let log = json!({ "Id": "l", "Arn": "arn:aws:logs:eu-west-1:111111111111:log-group:seen" });
    accounts.alice("PutRule", &json!({ "Name": "r", "EventPattern": "{\"source\":[{\"prefix\":\"\"}]}" }));
    accounts.alice("PutTargets", &json!({ "Rule": "r", "Targets": [log] }));
    let permit = |condition: Value, principal: &str| {
        let mut members = json!({ "StatementId": "bob", "Action": "events:PutEvents", "Principal": principal });
        if !condition.is_null() {
            members["Condition"] = json!({ "Type": "StringEquals", "Key": "aws:PrincipalOrgID", "Value": condition });
        }
        accounts.alice("PutPermission", &members);
    };
    let whole = |text: &str| accounts.alice("PutPermission", &json!({ "Policy": text })).is_object();
    let refused = |what: &str| {
        let said = accounts.bob_puts("no");
        let wanted = json!({ "ErrorCode": "AccessDeniedException", "ErrorMessage": REFUSED });
        assert_eq!((&said["FailedEntryCount"], &said["Entries"][0]), (&json!(1), &wanted), "{what}: {said}");
        assert!(said["Entries"][1]["EventId"].is_string(), "its own bus is open to it: {said}");
    };
    let taken = |source: &str| {
        let said = accounts.bob_puts(source);
        assert_eq!(said["FailedEntryCount"], 0, "{source}: {said}");
        until(source, || accounts.0.lines("seen").iter().any(|event| event["source"] == source));
        let lines = accounts.0.lines("seen");
        let event = lines.iter().find(|event| event["source"] == source).expect("an event");
        assert_eq!(event["account"], BOB_ACCOUNT, "{event}");
    };
    refused("no policy");
    permit(Value::Null, BOB_ACCOUNT);
    taken("by account");
    permit(Value::Null, "333333333333");
    refused("another account");
    permit(json!("o-bobsorg"), "*");
    taken("by organisation");
    permit(json!("o-other"), "*");
    refused("another organisation");
    let statement = |effect: &str| {
        format!(
            "{{\"Effect\":\"{effect}\",\"Principal\":{{\"AWS\":\"{BOB_ACCOUNT}\"}},\"Action\":\"events:Put*\",\"Resource\":\"{BUS}\"}}"
        )
    };
    assert!(whole(&format!("{{\"Statement\":{}}}", statement("Allow"))));
    taken("by a whole policy");
    assert!(whole(&format!("{{\"Statement\":[{},{}]}}", statement("Allow"), statement("Deny"))));
    let said = accounts.bob_puts("no")["Entries"][0]["ErrorMessage"].clone();
    assert!(
        said.as_str().is_some_and(|text| text.contains("with an explicit deny in a resource-based policy")),
        "{said}"
    );
    accounts.alice("RemovePermission", &json!({ "RemoveAllPermissions": true }));
    refused("no policy any more");
    assert!(accounts.0.lines("seen").iter().all(|event| event["source"] != "no"), "what was refused came nowhere");
    accounts.0.stop();
}

/// What is another account's is not there to be managed, whatever a policy says.
#[test]
fn buses_of_other_accounts_are_managed_there() {
    let accounts = Accounts::start();
    accounts.alice("PutPermission", &json!({ "StatementId": "a", "Action": "events:PutEvents", "Principal": "*" }));
    let of_alice = |resource: &str| format!("arn:aws:events:eu-west-1:111111111111:{resource}");
    let pattern = "{\"source\":[\"a\"]}";
    let rows = [
        ("DescribeEventBus", json!({ "Name": BUS })),
        ("PutRule", json!({ "Name": "r", "EventBusName": BUS, "EventPattern": pattern })),
        ("ListRules", json!({ "EventBusName": BUS })),
        ("DeleteRule", json!({ "Name": "r", "EventBusName": BUS })),
        ("TagResource", json!({ "ResourceARN": BUS, "Tags": [{ "Key": "a", "Value": "b" }] })),
        ("ListTagsForResource", json!({ "ResourceARN": BUS })),
        ("CreateArchive", json!({ "ArchiveName": "a", "EventSourceArn": BUS })),
        (
            "StartReplay",
            json!({ "ReplayName": "p", "EventSourceArn": of_alice("archive/a"), "EventStartTime": 1, "EventEndTime": 2,
                    "Destination": { "Arn": BUS } }),
        ),
        (
            "CreateApiDestination",
            json!({ "Name": "d", "HttpMethod": "POST", "InvocationEndpoint": "https://example.com",
                    "ConnectionArn": of_alice("connection/c/44ad4b7e-3c8a-4d19-8c07-3a4a4a1f5a5f") }),
        ),
        (
            "PutTargets",
            json!({ "Rule": "r", "Targets": [{ "Id": "1", "Arn": of_alice("api-destination/d/44ad4b7e") }] }),
        ),
    ];
    for (action, members) in rows {
        let said = accounts.bob(action, &members);
        let words = format!(
            "user/bob is not authorized to perform: events:{action} on resource: arn:aws:events:eu-west-1:1111"
        );
        assert_eq!(said["__type"], "AccessDeniedException", "{action}: {said}");
        assert!(said["message"].as_str().is_some_and(|text| text.contains(&words)), "{action}: {said}");
    }
    // By name, everybody has a bus of their own.
    assert_eq!(accounts.bob("DescribeEventBus", &json!({}))["Arn"], BUS.replace("111111111111", BOB_ACCOUNT));
    accounts.0.stop();
}

/// A target that is a bus of another account needs that bus's permission, when events go there.
#[test]
fn buses_send_to_other_accounts_where_a_policy_lets_them() {
    let accounts = Accounts::start();
    let log = json!({ "Id": "l", "Arn": "arn:aws:logs:eu-west-1:111111111111:log-group:seen" });
    accounts.alice("PutRule", &json!({ "Name": "r", "EventPattern": "{\"source\":[{\"prefix\":\"\"}]}" }));
    accounts.alice("PutTargets", &json!({ "Rule": "r", "Targets": [log] }));
    accounts.bob("PutRule", &json!({ "Name": "over", "EventPattern": "{\"source\":[{\"prefix\":\"\"}]}" }));
    let said = accounts.bob("PutTargets", &json!({ "Rule": "over", "Targets": [{ "Id": "b", "Arn": BUS }] }));
    assert_eq!(said["FailedEntryCount"], 0, "{said}");
    let put = |source: &str| {
        let entry = json!({ "Source": source, "DetailType": "t", "Detail": "{}" });
        assert_eq!(accounts.bob("PutEvents", &json!({ "Entries": [entry] }))["FailedEntryCount"], 0);
    };
    // Whose bus it is leads there as well: what one may is nothing to the other, whoever comes first.
    accounts.alice("PutRule", &json!({ "Name": "own", "EventPattern": "{\"source\":[\"nobody\"]}" }));
    accounts.alice("PutTargets", &json!({ "Rule": "own", "Targets": [{ "Id": "b", "Arn": BUS }] }));
    put("refused");
    until("it is a dead letter", || !letters(&accounts.0, "over").is_empty());
    assert!(accounts.0.lines("seen").is_empty(), "nothing has arrived");
    let letter = letters(&accounts.0, "over").remove(0);
    assert_eq!(letter["ERROR_CODE"], "NO_PERMISSIONS", "{letter}");
    assert!(letter["ERROR_MESSAGE"].as_str().is_some_and(|text| text.contains("policy does not allow")), "{letter}");
    accounts
        .alice("PutPermission", &json!({ "StatementId": "b", "Action": "events:PutEvents", "Principal": BOB_ACCOUNT }));
    put("allowed");
    until("it arrives", || accounts.0.lines("seen").len() == 1);
    assert_eq!((&accounts.0.lines("seen")[0]["source"], letters(&accounts.0, "over").len()), (&json!("allowed"), 1));
    let org = json!({ "Type": "StringEquals", "Key": "aws:PrincipalOrgID", "Value": "o-bobsorg" });
    accounts.alice(
        "PutPermission",
        &json!({ "StatementId": "b", "Action": "events:PutEvents", "Principal": "*", "Condition": org }),
    );
    put("by organisation");
    until("it arrives as well", || accounts.0.lines("seen").len() == 2);
    accounts.alice("RemovePermission", &json!({ "StatementId": "b" }));
    put("no more");
    until("it is a dead letter, too", || letters(&accounts.0, "over").len() == 2);
    accounts.0.stop();
}

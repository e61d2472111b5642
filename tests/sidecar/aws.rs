//! Services of AWS as targets: what each is sent, signed, and what its refusals mean.

use crate::endpoint::Endpoint;
use crate::process::until;
use crate::receiver::{Act, Receiver, Request};
use base64::Engine as _;
use reqwest::StatusCode;
use serde_json::{Value, json};
use sluice::catalog::aws::Parameters;
use sluice::catalog::{Access, Keys, Secret};
use sluice::deliver::aws::{Refusal, refusal};

/// An endpoint whose `aws` is a receiver.
fn start(receiver: &Receiver, rest: &str) -> Endpoint {
    let url = receiver.url.trim_end_matches("/hook");
    let keys = "access_key_id: AKIDEXAMPLE, secret_access_key: canary-secret, session_token: canary-token";
    Endpoint::start("", &format!("aws: {{ {keys}, endpoint: \"{url}\" }}\n{rest}"))
}

fn is(request: &Request, what: &str) -> bool {
    request.header("x-amz-target") == Some(what)
        || request.path.contains(what)
        || String::from_utf8_lossy(&request.body).starts_with(what)
}

fn body(request: &Request) -> Value {
    serde_json::from_slice(&request.body).expect("JSON")
}

fn decoded(data: &Value) -> Value {
    let text = base64::engine::general_purpose::STANDARD.decode(data.as_str().expect("text")).expect("base64");
    serde_json::from_slice(&text).expect("JSON")
}

/// Rows: the ARN, further members of the target, what the request is, and what its body must hold.
#[test]
#[expect(clippy::too_many_lines, reason = "rows")]
fn each_service_is_sent_the_event() {
    let receiver = Receiver::start(|_, _| Act::ok());
    let endpoint = start(&receiver, "");
    let arn = |rest: &str| format!("arn:aws:{rest}");
    let rows = [
        (arn("sqs:eu-west-1:123456789012:orders"), json!({}), "AmazonSQS.SendMessage"),
        (arn("sns:eu-west-1:123456789012:orders"), json!({}), "Action=Publish&"),
        (
            arn("kinesis:eu-west-1:123456789012:stream/orders"),
            json!({ "KinesisParameters": { "PartitionKeyPath": "$.detail.customer" } }),
            "Kinesis_20131202.PutRecord",
        ),
        (arn("firehose:eu-west-1:123456789012:deliverystream/orders"), json!({}), "Firehose_20150804.PutRecord"),
        (arn("states:eu-west-1:123456789012:stateMachine:Orders"), json!({}), "AWSStepFunctions.StartExecution"),
        (arn("lambda:eu-west-1:123456789012:function:orders"), json!({}), "/2015-03-31/functions/"),
    ];
    for (n, (arn, more, _)) in rows.iter().enumerate() {
        let name = format!("rule-{n}");
        let rule = json!({ "Name": name, "EventPattern": "{\"source\":[\"shop\"]}" });
        assert_eq!(endpoint.call("PutRule", &rule).0, 200);
        let mut target = json!({ "Id": "t", "Arn": arn });
        target.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let (status, answer) = endpoint.call("PutTargets", &json!({ "Rule": name, "Targets": [target] }));
        assert_eq!((status, &answer["FailedEntryCount"]), (200, &json!(0)), "{answer}");
    }
    let detail = json!({ "customer": "c-7", "text": "a&b=ü" }).to_string();
    let entry = json!({ "Source": "shop", "DetailType": "t", "Detail": detail });
    let (_, answer) = endpoint.call("PutEvents", &json!({ "Entries": [entry] }));
    let id = answer["Entries"][0]["EventId"].as_str().expect("an id").to_owned();
    until("all have come", || receiver.count() >= rows.len());
    for (arn, _, what) in &rows {
        let request = receiver.requests().into_iter().find(|request| is(request, what)).expect(what);
        let service = arn.split(':').nth(2).expect("a service");
        let signature = request.header("authorization").expect("a signature");
        assert!(signature.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"), "{signature}");
        assert!(signature.contains(&format!("/eu-west-1/{service}/aws4_request")), "{signature}");
        assert!(
            request.header("x-amz-date").is_some() && request.header("x-amz-security-token") == Some("canary-token")
        );
        assert_eq!(request.method, "POST");
        let event = match service {
            "sqs" => {
                assert!(body(&request)["QueueUrl"].as_str().expect("text").ends_with("/123456789012/orders"));
                serde_json::from_str(body(&request)["MessageBody"].as_str().expect("text")).expect("JSON")
            }
            "sns" => {
                let form = format!("http://form/?{}", String::from_utf8_lossy(&request.body));
                let form = reqwest::Url::parse(&form).expect("a form");
                let value = |name: &str| form.query_pairs().find(|(it, _)| it == name).expect("a value").1.into_owned();
                assert_eq!(value("TopicArn"), *arn);
                serde_json::from_str(&value("Message")).expect("JSON")
            }
            "kinesis" => {
                assert_eq!(
                    (&body(&request)["StreamName"], &body(&request)["PartitionKey"]),
                    (&json!("orders"), &json!("c-7"))
                );
                decoded(&body(&request)["Data"])
            }
            "firehose" => decoded(&body(&request)["Record"]["Data"]),
            "states" => {
                assert_eq!(body(&request)["stateMachineArn"], json!(arn));
                serde_json::from_str(body(&request)["input"].as_str().expect("text")).expect("JSON")
            }
            _ => {
                assert_eq!(request.header("x-amz-invocation-type"), Some("Event"));
                body(&request)
            }
        };
        assert_eq!((&event["id"], &event["detail"]["text"]), (&json!(id), &json!("a&b=ü")), "{arn}");
    }
    endpoint.stop();
}

/// A FIFO queue has groups, and a name for what comes twice; a queue for dead letters is told what went wrong; a log
/// group's stream is made where it is missing; what is in no file's `arn_map` and of no service is a dead letter here.
#[test]
fn queues_and_log_groups_have_their_ways() {
    let receiver = Receiver::start(|request, _| {
        let no = |body| Act::Answer("400 Bad Request", vec![], body);
        match () {
            () if is(request, "/gone") => Act::status("404 Not Found"),
            () if is(request, "Logs_20140328.PutLogEvents") => {
                no("{\"__type\":\"com.amazonaws.logs#ResourceNotFoundException\"}")
            }
            // Another delivery has made it meanwhile.
            () if is(request, "Logs_20140328.CreateLogStream") => no("{\"__type\":\"ResourceAlreadyExistsException\"}"),
            () => Act::ok(),
        }
    });
    let url = receiver.url.replace("/hook", "/gone");
    let rest = format!(
        "targets:\n  gone: {{ http: {{ url: \"{url}\" }}, dead_letter: dead }}\n  \
         dead: {{ aws: {{ arn: \"arn:aws:sqs:eu-west-1:123456789012:dead\" }} }}\n  \
         line: {{ aws: {{ arn: \"arn:aws:sqs:eu-west-1:123456789012:line.fifo\", message_group_id: g }} }}\n  \
         logs: {{ aws: {{ arn: \"arn:aws:logs:eu-west-1:123456789012:log-group:/aws/events/far:*\" }} }}\n\
         rules:\n  all: {{ pattern: {{ source: [shop] }}, targets: [gone, line, logs] }}\n"
    );
    let endpoint = start(&receiver, &rest);
    let entry = json!({ "Source": "shop", "DetailType": "t", "Detail": "{}" });
    endpoint.call("PutEvents", &json!({ "Entries": [entry] }));
    let sent = |what: &str| receiver.requests().into_iter().filter(|request| is(request, what)).collect::<Vec<_>>();
    until("all have come", || {
        sent("AmazonSQS.SendMessage").len() == 2 && sent("Logs_20140328.PutLogEvents").len() == 2
    });
    let messages: Vec<Value> = sent("AmazonSQS.SendMessage").iter().map(body).collect();
    let to = |queue: &str| {
        let of = |message: &&Value| message["QueueUrl"].as_str().is_some_and(|url| url.ends_with(queue));
        messages.iter().find(of).expect("a message")
    };
    assert_eq!(to("line.fifo")["MessageGroupId"], "g");
    assert_eq!(to("line.fifo")["MessageDeduplicationId"].as_str().map(str::len), Some(32));
    let attributes = &to("dead")["MessageAttributes"];
    for (name, value) in [
        ("ERROR_CODE", "NO_RESOURCE"),
        ("RULE_ARN", "arn:aws:events:us-east-1:000000000000:rule/all"),
        ("TARGET_ARN", "arn:sluice:target:::gone"),
        ("RETRY_ATTEMPTS", "0"),
    ] {
        assert_eq!(attributes[name], json!({ "DataType": "String", "StringValue": value }), "{attributes}");
    }
    let made = sent("Logs_20140328.CreateLogStream");
    assert_eq!(
        made.iter().map(body).collect::<Vec<_>>(),
        [json!({ "logGroupName": "/aws/events/far", "logStreamName": "sluice" })]
    );
    endpoint.stop();
}

/// Rows: status, the service's own code and how it is written, and what it means.
#[test]
fn refusals_have_their_meaning() {
    let json = |code: &str| format!("{{\"__type\":\"com.amazonaws.x#{code}\",\"message\":\"m\"}}");
    let xml =
        |code: &str| format!("<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code></Error></ErrorResponse>");
    for (status, code, want) in [
        (400, "ThrottlingException", ("THROTTLING", true)),
        (400, "ProvisionedThroughputExceededException", ("THROTTLING", true)),
        (429, "TooManyRequestsException", ("THROTTLING", true)),
        (500, "InternalFailure", ("ERROR_FROM_TARGET", true)),
        (503, "ServiceUnavailable", ("ERROR_FROM_TARGET", true)),
        (400, "QueueDoesNotExist", ("NO_RESOURCE", false)),
        (404, "NotFound", ("NO_RESOURCE", false)),
        (400, "ResourceNotFoundException", ("NO_RESOURCE", false)),
        (403, "AccessDeniedException", ("NO_PERMISSIONS", false)),
        (400, "UnrecognizedClientException", ("NO_PERMISSIONS", false)),
        (403, "SignatureDoesNotMatch", ("NO_PERMISSIONS", false)),
        (400, "InvalidParameterValue", ("SDK_CLIENT_ERROR", false)),
    ] {
        let status = StatusCode::from_u16(status).expect("a status");
        for (header, body) in [(None, json(code)), (None, xml(code)), (Some(code), String::new())] {
            let want = Refusal { code: want.0, passing: want.1, named: code.to_owned() };
            assert_eq!(refusal(status, header, body.as_bytes()), Some(want), "{status} {code}");
        }
    }
    // The execution is that of an attempt whose answer was lost.
    assert_eq!(refusal(StatusCode::BAD_REQUEST, None, json("ExecutionAlreadyExists").as_bytes()), None);
    let nameless = refusal(StatusCode::BAD_GATEWAY, None, b"<html>").expect("a refusal");
    assert_eq!((nameless.code, nameless.passing), ("ERROR_FROM_TARGET", true));
}

/// Rows: an ARN, and the address that it leads to; none where it is no resource, whatever it tries.
#[test]
fn arns_lead_to_no_other_host() {
    let keys = Keys { id: "id".into(), secret: Secret::new("s"), token: None };
    let access = Access { keys, endpoint: None, endpoints: [("sns".into(), "http://h:1/".into())].into() };
    for (arn, url) in [
        ("arn:aws:sqs:eu-west-1:123456789012:orders", Some("https://sqs.eu-west-1.amazonaws.com")),
        ("arn:aws-cn:sqs:cn-north-1:123456789012:orders", Some("https://sqs.cn-north-1.amazonaws.com.cn")),
        ("arn:aws:sns:eu-west-1:123456789012:orders", Some("http://h:1")),
        ("arn:aws:sqs:x@evil.example/:123456789012:orders", None),
        ("arn:aws:sqs:evil.example?:123456789012:orders", None),
        ("arn:aws:sqs:evil.example#:123456789012:orders", None),
        ("arn:aws:sqs::123456789012:orders", None),
        ("arn:aws:sqs:eu-west-1:1:orders", None),
        ("arn:aws:sqs:eu-west-1:123456789012:../orders", None),
        ("arn:aws:kinesis:eu-west-1:123456789012:orders", None),
        ("arn:aws:lambda:eu-west-1:123456789012:layer:x", None),
    ] {
        let target = access.target(arn, Parameters::default()).expect("a service that is known");
        assert_eq!(target.ok().map(|target| target.url).as_deref(), url, "{arn}");
    }
    assert!(access.target("arn:aws:ec2:eu-west-1:123456789012:x", Parameters::default()).is_none());
}

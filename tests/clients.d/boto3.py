"""boto3 against the endpoint given as the first argument; started by tests/clients."""

import json
import re
import sys
import uuid
from datetime import datetime, timezone

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

CLIENT, BUS = "boto3", "Orders"
RUN = uuid.uuid4().hex[:8]
ONCE = Config(parameter_validation=False, retries={"total_max_attempts": 1, "mode": "standard"})
events = boto3.client("events", endpoint_url=sys.argv[1], config=ONCE)

made = calls = 0
accepted, event_ids = [], []
instead = None  # what to send in place of the next request: (action, body)


def replace(params, **_):
    global instead
    if instead:
        params["headers"]["X-Amz-Target"] = f"AWSEvents.{instead[0]}"
        params["body"], instead = instead[1], None


events.meta.events.register("before-call.eventbridge.PutEvents", replace)


def fail(what):
    sys.exit(f"{CLIENT}: {what}")


def unexpected(_, error, trace):
    print(f"{CLIENT}: {error} (line {trace.tb_lineno} of boto3.py)", file=sys.stderr)


sys.excepthook = unexpected


def check(what, got, want):
    if got != want:
        fail(f"{what}: got {got!r}, want {want!r}")


def entry(**change):
    """A good entry with an id of its own; a member given as None is left out."""
    global made
    made += 1
    whole = {
        "EventBusName": BUS, "Source": "com.example.clients", "DetailType": "ClientTest",
        "Detail": json.dumps({"id": f"{CLIENT}-{RUN}-{made}", "client": CLIENT}),
    }
    return {name: value for name, value in {**whole, **change}.items() if value is not None}


def call(action, **members):
    global calls
    calls += 1
    return getattr(events, action)(**members)


def put(what, *entries):
    """Sends entries that are all good."""
    answer = call("put_events", Entries=list(entries))
    check(f"{what}: FailedEntryCount", answer["FailedEntryCount"], 0)
    check(f"{what}: number of answers", len(answer["Entries"]), len(entries))
    for sent, got in zip(entries, answer["Entries"]):
        taken(what, sent, got)
    return answer


def taken(what, sent, got):
    identity = got.get("EventId", "")
    if list(got) != ["EventId"] or not re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", identity):
        fail(f"{what}: want an EventId that is a UUID and nothing else, got {got}")
    if identity in event_ids:
        fail(f"{what}: EventId {identity} a second time")
    if sent.get("EventBusName", "").split("/")[-1] == BUS:
        accepted.append(json.loads(sent["Detail"])["id"])
        event_ids.append(identity)


def refused(what, code, message, action, **members):
    """`message` is a regular expression for the whole text."""
    try:
        fail(f"{what}: want {code}, got {call(action, **members)}")
    except ClientError as error:
        check(f"{what}: code", error.response["Error"]["Code"], code)
        check(f"{what}: status", error.response["ResponseMetadata"]["HTTPStatusCode"], 400)
        text = error.response["Error"]["Message"]
        if not re.fullmatch(message, text, re.DOTALL):
            fail(f"{what}: message {text!r} does not match {message!r}")


def raw(action, body):
    global instead
    instead = (action, body)
    return {"Entries": []}


answer = put("one good entry", entry())
meta = answer["ResponseMetadata"]
check("status", meta["HTTPStatusCode"], 200)
check("content type", meta["HTTPHeaders"].get("content-type"), "application/x-amz-json-1.1")
if not re.fullmatch("[0-9a-f-]{36}", meta.get("RequestId", "")):
    fail(f"x-amzn-RequestId is no UUID: {meta}")


def required(name):
    return ("InvalidArgument", f"Parameter {name} is not valid. Reason: {name} is a required argument.")


good = entry()
mixed = [
    (good, None),
    (entry(Source=None), required("Source")),
    (entry(DetailType=None), required("DetailType")),
    (entry(Detail=None), required("Detail")),
    (entry(Detail="not json"), ("MalformedDetail", "Detail is malformed.")),
    (entry(Detail="[1]"), ("MalformedDetail", "Detail is malformed.")),
    (entry(Source="aws.ec2"), ("NotAuthorizedForSourceException", "Not authorized for the source.")),
]
answer = call("put_events", Entries=[sent for sent, _ in mixed])
check("mixed: status", answer["ResponseMetadata"]["HTTPStatusCode"], 200)
check("mixed: FailedEntryCount", answer["FailedEntryCount"], 6)
check("mixed: number of answers", len(answer["Entries"]), 7)
taken("mixed: the good entry", good, answer["Entries"][0])
for number, ((_, want), got) in enumerate(zip(mixed, answer["Entries"])):
    if want:
        check(f"mixed: entry {number}", got, {"ErrorCode": want[0], "ErrorMessage": want[1]})

nothing = call("put_events", Entries=[entry(Source=""), entry(DetailType=""), entry(Detail="")])
check("empty strings", [(got.get("ErrorCode"), got.get("ErrorMessage")) for got in nothing["Entries"]],
      [required("Source"), required("DetailType"), required("Detail")])

put("ten entries", *[entry() for _ in range(10)])
refused("eleven entries", "ValidationException",
        r"1 validation error detected: Value '\[PutEventsRequestEntry\(.*\)\]' at 'entries' failed to satisfy constraint: "
        r"Member must have length less than or equal to 10", "put_events", Entries=[entry() for _ in range(11)])
refused("no entries", "ValidationException", ".+", "put_events", Entries=[])
refused("Entries absent", "ValidationException", ".+", "put_events")

LIMIT = 256 * 1024


def padded(size):
    """An entry of so many bytes as the service counts them, some of them in letters of two bytes."""
    one = entry(DetailType="größe")
    detail = json.loads(one["Detail"])
    rest = size - len((one["Source"] + one["DetailType"] + json.dumps({**detail, "pad": ""})).encode())
    return {**one, "Detail": json.dumps({**detail, "pad": "é" * (rest // 2) + "x" * (rest % 2)}, ensure_ascii=False)}


over = r"Total size of the entries in the request is over the limit\."
put("as large as may be", padded(LIMIT))
refused("one byte too large", "ValidationException", over, "put_events", Entries=[padded(LIMIT + 1)])
refused("too large together", "ValidationException", over, "put_events", Entries=[padded(LIMIT // 2), padded(LIMIT // 2 + 1)])
refused("too large with its time", "ValidationException", over, "put_events",
        Entries=[{**padded(LIMIT - 13), "Time": datetime.now(timezone.utc)}])

put("a bus that does not exist", entry(EventBusName=f"nowhere-{RUN}"))
put("the default bus", entry(EventBusName=None), entry(EventBusName="default"))
put("the bus by its ARN", entry(EventBusName=f"arn:aws:events:eu-west-1:000000000000:event-bus/{BUS}"))
put("every member", entry(Time=datetime(2024, 1, 31, 9, 0, 0, 500000, timezone.utc), Resources=["arn:aws:s3:::shop", "x"],
                          TraceHeader="Root=1-65ba0d50-000000000000000000000001;Parent=0000000000000001;Sampled=1"))

one = entry(Time="2024-01-31T09:00:00.500Z", Unknown=[1], Resources=[])
answer = call("put_events", **raw("PutEvents", json.dumps({"Entries": [one], "Unknown": {}}).encode()))
taken("time as text, members that are not in the model", one, answer["Entries"][0])
refused("body empty", "ValidationException", ".+", "put_events", **raw("PutEvents", b""))
refused("body no JSON", "SerializationException", ".*", "put_events", **raw("PutEvents", b"not json"))
refused("body no object", "SerializationException", ".*", "put_events", **raw("PutEvents", b"[]"))
refused("no such action", "UnknownOperationException", ".*", "put_events", **raw("PutNothing", b"{}"))

EVENT = {"version": "0", "id": "e-1", "detail-type": "OrderPlaced", "source": "com.example.shop", "account": "000000000000",
         "time": "2024-01-31T09:00:00Z", "region": "eu-west-1", "resources": [], "detail": {"total": 900, "country": "CH"}}
PATTERN = '{"source":["com.example.shop"],"detail":{"total":[{"numeric":[">=",500]}]}}'


def tested(pattern, event):
    return {"EventPattern": pattern, "Event": event if isinstance(event, str) else json.dumps(event)}


check("a pattern that matches", call("test_event_pattern", **tested(PATTERN, EVENT))["Result"], True)
small = {**EVENT, "detail": {"total": 499.99}}
check("a pattern that does not", call("test_event_pattern", **tested(PATTERN, small))["Result"], False)
for pattern, reason in [
    ('{"source":[]}', "Empty arrays are not allowed"),
    ('{"source":"a"}', '"source" must be an object or an array'),
    ('{"source":[{"FOO":"a"}]}', "Unrecognized match type FOO"),
    ('["a"]', "Filter is not an object"),
    ("not json", ""),
]:
    refused(f"pattern {pattern}", "InvalidEventPatternException",
            rf"Event pattern is not valid\. Reason: {re.escape(reason)}.*", "test_event_pattern", **tested(pattern, EVENT))
for event in ["[]", '"text"', "not json", {name: value for name, value in EVENT.items() if name != "id"}]:
    refused(f"event {event}", "ValidationException", r"Parameter Event is not valid\.", "test_event_pattern",
            **tested(PATTERN, event))

# Everything that a program makes, as the client's own model reads the answers. Its bus is made and removed here.
MADE = f"made-{CLIENT}"
BUS_ARN = f"arn:aws:events:eu-west-1:000000000000:event-bus/{MADE}"
on_bus = {"EventBusName": MADE}
check("bus", call("create_event_bus", Name=MADE, Tags=[{"Key": "k", "Value": "v"}])["EventBusArn"], BUS_ARN)
check("its age", call("describe_event_bus", Name=MADE)["CreationTime"].year > 2000, True)
check("tags", call("list_tags_for_resource", ResourceARN=BUS_ARN)["Tags"], [{"Key": "k", "Value": "v"}])
for name in ["a", "b"]:
    arn = call("put_rule", Name=name, EventPattern=PATTERN, **on_bus)["RuleArn"]
    check("rule", arn, f"arn:aws:events:eu-west-1:000000000000:rule/{MADE}/{name}")
target = {"Id": "1", "Arn": "arn:aws:logs:eu-west-1:000000000000:log-group:/made", "RetryPolicy": {"MaximumRetryAttempts": 2}}
check("targets", call("put_targets", Rule="a", Targets=[target], **on_bus)["FailedEntryCount"], 0)
check("as they came", call("list_targets_by_rule", Rule="a", **on_bus)["Targets"], [target])
page = call("list_rules", Limit=1, **on_bus)
rest = call("list_rules", NextToken=page["NextToken"], **on_bus)
check("pages", [rule["Name"] for rule in page["Rules"] + rest["Rules"]], ["a", "b"])
call("disable_rule", Name="b", **on_bus)
check("disabled", call("describe_rule", Name="b", **on_bus)["State"], "DISABLED")
key = {"ApiKeyAuthParameters": {"ApiKeyName": "x", "ApiKeyValue": "y"}}
connection = call("create_connection", Name=MADE, AuthorizationType="API_KEY", AuthParameters=key)
shown = call("describe_connection", Name=MADE)["AuthParameters"]
check("no secrets", shown, {"ApiKeyAuthParameters": {"ApiKeyName": "x"}})
call("create_api_destination", Name=MADE, ConnectionArn=connection["ConnectionArn"], HttpMethod="POST",
     InvocationEndpoint="https://example.com/*")
check("destination", call("describe_api_destination", Name=MADE)["ApiDestinationState"], "ACTIVE")
call("create_archive", ArchiveName=MADE, EventSourceArn=BUS_ARN)
check("archive", call("describe_archive", ArchiveName=MADE)["State"], "ENABLED")
refused("a bus with rules", "ValidationException", "EventBus can't be deleted since it has rules\\.", "delete_event_bus",
        Name=MADE)
call("delete_archive", ArchiveName=MADE)
call("delete_api_destination", Name=MADE)
call("delete_connection", Name=MADE)
call("remove_targets", Rule="a", Ids=["1"], **on_bus)
for name in ["a", "b"]:
    call("delete_rule", Name=name, **on_bus)
call("delete_event_bus", Name=MADE)
refused("what is gone", "ResourceNotFoundException", f"Event bus {MADE} does not exist\\.", "describe_event_bus", Name=MADE)

print(json.dumps({"client": CLIENT, "version": boto3.__version__, "calls": calls, "events_ok": len(accepted),
                  "ids": accepted, "event_ids": event_ids}))

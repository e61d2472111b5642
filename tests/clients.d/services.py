"""Rules of the endpoint given first lead to services that moto, given second, has: what they have then is read back.

Prints one line of JSON: the services that have what they should.
"""

import base64
import json
import sys
import time

import boto3

BUS, ACCOUNT, REGION = "services", "123456789012", "eu-west-1"
events = boto3.client("events", endpoint_url=sys.argv[1])


def moto(service):
    return boto3.client(service, endpoint_url=sys.argv[2])


sqs, kinesis, logs, states, firehose, s3 = map(moto, ("sqs", "kinesis", "logs", "stepfunctions", "firehose", "s3"))


def until(what, check):
    """Waits for what is delivered in the background."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        found = check()
        if found:
            return found
        time.sleep(0.1)
    sys.exit(f"services: {what} did not come")


def lead(name, arn, pattern=None, **more):
    """A rule for all events, or for those of a pattern, that leads to an ARN."""
    pattern = pattern or {"source": ["shop"]}
    events.put_rule(Name=name, EventBusName=BUS, EventPattern=json.dumps(pattern))
    answer = events.put_targets(Rule=name, EventBusName=BUS, Targets=[{"Id": "t", "Arn": arn, **more}])
    if answer["FailedEntryCount"]:
        sys.exit(f"services: {answer}")


def make():
    fifo = {"FifoQueue": "true"}
    for name, attributes in (("orders", {}), ("line.fifo", fifo), ("dead", {})):
        sqs.create_queue(QueueName=name, Attributes=attributes)
    kinesis.create_stream(StreamName="orders", ShardCount=1)
    logs.create_log_group(logGroupName="/far/orders")
    s3.create_bucket(Bucket="orders", CreateBucketConfiguration={"LocationConstraint": REGION})
    firehose.create_delivery_stream(
        DeliveryStreamName="orders",
        S3DestinationConfiguration={"RoleARN": f"arn:aws:iam::{ACCOUNT}:role/r", "BucketARN": "arn:aws:s3:::orders"},
    )
    definition = {"StartAt": "P", "States": {"P": {"Type": "Pass", "End": True}}}
    role = f"arn:aws:iam::{ACCOUNT}:role/r"
    return states.create_state_machine(name="orders", definition=json.dumps(definition), roleArn=role)["stateMachineArn"]


def message(queue):
    """The oldest message of a queue, taken out of it."""
    url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
    names = {"MessageAttributeNames": ["All"], "AttributeNames": ["All"]}
    found = until(f"a message in {queue}", lambda: sqs.receive_message(QueueUrl=url, **names).get("Messages"))[0]
    sqs.delete_message(QueueUrl=url, ReceiptHandle=found["ReceiptHandle"])
    return found


def records():
    shard = kinesis.describe_stream(StreamName="orders")["StreamDescription"]["Shards"][0]["ShardId"]
    at = kinesis.get_shard_iterator(StreamName="orders", ShardId=shard, ShardIteratorType="TRIM_HORIZON")
    return kinesis.get_records(ShardIterator=at["ShardIterator"])["Records"]


def objects():
    found = s3.list_objects_v2(Bucket="orders").get("Contents", [])
    return [s3.get_object(Bucket="orders", Key=one["Key"])["Body"].read() for one in found]


machine = make()
events.create_event_bus(Name=BUS)
arn = lambda service, rest: f"arn:aws:{service}:{REGION}:{ACCOUNT}:{rest}"
lead("queue", arn("sqs", "orders"))
lead("line", arn("sqs", "line.fifo"), SqsParameters={"MessageGroupId": "g"})
lead("stream", arn("kinesis", "stream/orders"), KinesisParameters={"PartitionKeyPath": "$.detail.customer"})
lead("hose", arn("firehose", "deliverystream/orders"))
lead("machine", machine)
lead("far", "arn:sluice:target:::far")
lead("nowhere", arn("sqs", "missing"), DeadLetterConfig={"Arn": arn("sqs", "dead")})
entry = {"EventBusName": BUS, "Source": "shop", "DetailType": "Order", "Detail": json.dumps({"customer": "c-7"})}
event_id = events.put_events(Entries=[entry])["Entries"][0]["EventId"]

have = []


def holds(service, text):
    if json.loads(text)["id"] != event_id:
        sys.exit(f"services: {service} has {text}")
    have.append(service)


holds("sqs", message("orders")["Body"])
line = message("line.fifo")
holds("sqs fifo", line["Body"])
if line["Attributes"]["MessageGroupId"] != "g":
    sys.exit(f"services: {line}")
record = until("a record", records)[0]
holds("kinesis", record["Data"])
if record["PartitionKey"] != "c-7":
    sys.exit(f"services: {record}")
holds("firehose", until("an object", objects)[0])
written = lambda: logs.filter_log_events(logGroupName="/far/orders")["events"] if logs.describe_log_streams(
    logGroupName="/far/orders")["logStreams"] else []
holds("logs", until("a log event", written)[0]["message"])
runs = until("an execution", lambda: states.list_executions(stateMachineArn=machine)["executions"])
holds("states", states.describe_execution(executionArn=runs[0]["executionArn"])["input"])
letter = message("dead")
said = {name: value["StringValue"] for name, value in letter["MessageAttributes"].items()}
want = {
    "RULE_ARN": f"arn:aws:events:{REGION}:000000000000:rule/{BUS}/nowhere", "TARGET_ARN": arn("sqs", "missing"),
    "ERROR_CODE": "NO_RESOURCE", "RETRY_ATTEMPTS": "0",
}
if {name: said.get(name) for name in want} != want:
    sys.exit(f"services: {said}")
holds("dead letters", letter["Body"])
print(json.dumps({"services": have}))

"""boto3 and the aws command with a key that the endpoint knows and with others; started by tests/clients."""

import json
import os
import subprocess
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

ENDPOINT, ID, SECRET = sys.argv[1], os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
AWS = os.path.join(os.environ["SLUICE_CLIENTS"], "venv/bin/aws")
UNKNOWN = ("UnrecognizedClientException", "The security token included in the request is invalid.")
MISMATCH = ("InvalidSignatureException", "The request signature we calculated does not match the signature you provided.")
ROWS = [
    ("the right key", ID, SECRET, None),
    ("another secret", ID, SECRET[::-1], MISMATCH),
    ("an unknown key", "AKIDNOBODY", SECRET, UNKNOWN),
]
calls = 0


def boto(key, secret):
    """What boto3 is told: nothing, or code and text."""
    once = Config(retries={"total_max_attempts": 1, "mode": "standard"})
    events = boto3.client("events", endpoint_url=ENDPOINT, config=once, aws_access_key_id=key, aws_secret_access_key=secret)
    try:
        assert events.list_rules()["Rules"] is not None
        # The same twice within a second is signed alike.
        for _ in range(2):
            events.put_rule(Name="signed", EventPattern='{"source":["signed"]}')
        events.delete_rule(Name="signed")
        return None
    except ClientError as error:
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 400, error.response
        return error.response["Error"]["Code"], error.response["Error"]["Message"]


def command(key, secret):
    """What the aws command is told."""
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_MAX_ATTEMPTS": "1"}
    arguments = [AWS, "--endpoint-url", ENDPOINT, "--output", "json", "events", "list-rules"]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        assert "Rules" in json.loads(done.stdout), done.stdout
        return None
    return done.stderr


for what, key, secret, wanted in ROWS:
    told, printed = boto(key, secret), command(key, secret)
    calls += 2
    if wanted is None:
        if told or printed:
            sys.exit(f"{what}: {told} {printed}")
    elif told is None or told[0] != wanted[0] or not told[1].startswith(wanted[1]):
        sys.exit(f"{what}: boto3 was told {told}")
    elif printed is None or not all(part in printed for part in wanted):
        sys.exit(f"{what}: the aws command was told {printed}")
print(json.dumps({"client": "keys", "version": boto3.__version__, "calls": calls}))

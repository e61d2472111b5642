"""The other ends of the workshop: an API destination, a workflow and a function, on one port.

    python3 partners.py [PORT]

POST /destination  wants the user myUsername with the password myPassword
POST /workflow     answers, and publishes "Order Processed" to the bus Orders
POST /inventory    answers with what is left
GET /seen          one line for each request that was answered well
"""

import base64
import json
import os
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SLUICE = os.environ.get("AWS_ENDPOINT_URL_EVENTBRIDGE", "http://localhost:4566")
USER = "Basic " + base64.b64encode(b"myUsername:myPassword").decode()
seen = []


def publish(order):
    """Puts the order back onto the bus, as a workflow's last step does."""
    entry = {
        "EventBusName": "Orders", "Source": "com.aws.orders", "DetailType": "Order Processed",
        "Detail": json.dumps(order),
    }
    headers = {"X-Amz-Target": "AWSEvents.PutEvents", "Content-Type": "application/x-amz-json-1.1"}
    region = os.environ.get("AWS_DEFAULT_REGION", "eu-west-1")
    headers["Authorization"] = f"AWS4-HMAC-SHA256 Credential=any/20240131/{region}/events/aws4_request, SignedHeaders=host"
    request = urllib.request.Request(SLUICE, json.dumps({"Entries": [entry]}).encode(), headers)
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.load(answer)["FailedEntryCount"] == 0


class Partners(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        order = event.get("detail", {})
        if self.path == "/destination":
            good = self.headers["Authorization"] == USER
            return self.answer(200 if good else 401, {"taken": good}, f"destination {json.dumps(order)}")
        if self.path == "/workflow":
            good = publish(order)
            return self.answer(200 if good else 500, {"processed": good}, f"workflow {json.dumps(order)}")
        if self.path == "/inventory":
            return self.answer(200, {"left": 41}, f"inventory {json.dumps(order)}")
        return self.answer(404, {}, None)

    def do_GET(self):
        self.reply(200, "".join(f"{line}\n" for line in seen).encode())

    def answer(self, status, body, line):
        if status == 200:
            seen.append(line)
        self.reply(status, json.dumps(body).encode())

    def reply(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9000
    ThreadingHTTPServer(("127.0.0.1", port), Partners).serve_forever()

"""Makes and reads CloudEvents over HTTP with the SDK of the CloudEvents project.

usage: cloud_events.py make < EVENTS, or cloud_events.py read < MESSAGES

An event is a line of JSON: {"Attributes": {...}, "Data": {...}}; one that is made also has its "Mode", "structured" or
"binary". A message is {"Headers": {...}, "Body": base64}. For each line there is one of the other kind.
"""

import base64
import json
import sys

from cloudevents.conversion import to_binary, to_structured
from cloudevents.http import CloudEvent, from_http

MODES = {"structured": to_structured, "binary": to_binary}


def make(event):
    headers, body = MODES[event["Mode"]](CloudEvent(event["Attributes"], event["Data"]))
    return {"Headers": headers, "Body": base64.b64encode(body).decode()}


def read(message):
    event = from_http(message["Headers"], base64.b64decode(message["Body"]))
    return {"Attributes": dict(event.get_attributes()), "Data": event.get_data()}


def main():
    convert = {"make": make, "read": read}[sys.argv[1]]
    for line in sys.stdin:
        print(json.dumps(convert(json.loads(line))))


if __name__ == "__main__":
    main()

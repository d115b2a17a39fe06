"""Publishes messages over AMQP with pika, as a producer does that knows nothing of Herald but its contract.

usage: producer.py URL < MESSAGES

A message is a line of JSON: {"Key": the routing key, "Body": base64, "Headers": texts by their names, "MessageId": optional,
"UserId": optional, "ContentType": optional, "Traceparent": optional, a header, "Encoding": optional, "Odd": optional, what
is odd: a property, "key" (the routing key) or "header_name" that is Latin-1, "deep" headers, or headers of all "types"}.
Each is published persistent and with a confirm; for each a line says "confirmed", or why not.
"""

import base64
import json
import struct
import sys

import pika
import pika.data

LATIN_1 = b"caf\xe9"


class Table:
    """A table of headers that pika itself would not write, as its bytes."""

    def __init__(self, entries):
        self.bytes = struct.pack(">I", len(entries)) + entries


def encode_table(pieces, table, encode=pika.data.encode_table):
    if not isinstance(table, Table):
        return encode(pieces, table)
    pieces.append(table.bytes)
    return len(table.bytes)


pika.data.encode_table = encode_table


def sized(kind, value):
    return kind + struct.pack(">I", len(value)) + value


def deep(levels):
    value = b"V"
    for _ in range(levels):
        value = sized(b"A", value)
    return Table(b"\x04deep" + value)


def all_types():
    inner = b"\x01n" + sized(b"A", b"V")
    headers = {
        b"void": b"V", b"bool": b"t\x01", b"byte": b"b\xff", b"unsigned byte": b"B\xff", b"short": b"s\xff\xff",
        b"unsigned short": b"u\xff\xff", b"int": b"I" + bytes(4), b"unsigned int": b"i" + bytes(4),
        b"long": b"l" + bytes(8), b"float": b"f" + bytes(4), b"double": b"d" + bytes(8), b"decimal": b"D\x01" + bytes(4),
        b"time": b"T" + b"\xff" * 8, b"bytes": sized(b"x", b"\xff"), b"big": sized(b"S", LATIN_1 * 20_000),
        b"table": sized(b"F", inner), b"list": sized(b"A", sized(b"F", inner)), b"": sized(b"S", b""),
        b"traceparent": b"I" + bytes(4), b"herald-account": sized(b"F", inner), b"herald-events": sized(b"x", b"\xff"),
        b"x-death": sized(b"S", b"none"),
    }
    return Table(b"".join(bytes([len(name)]) + name + value for name, value in headers.items()))


def odd(properties, what):
    """The routing key, if it is what is odd; else the properties are changed."""
    if what == "key":
        return LATIN_1
    if what == "header_name":
        properties.headers = Table(b"\x04" + LATIN_1 + b"t\x01")
    elif what == "deep":
        properties.headers = deep(20_000)
    elif what == "types":
        properties.headers = all_types()
    else:
        setattr(properties, what, LATIN_1)
    return None


def publish(channel, message):
    headers = dict(message["Headers"])
    if "Traceparent" in message:
        headers["traceparent"] = message["Traceparent"]
    properties = pika.BasicProperties(
        content_type=message.get("ContentType", "application/json"),
        delivery_mode=pika.DeliveryMode.Persistent.value,
        message_id=message.get("MessageId"),
        user_id=message.get("UserId"),
        headers=headers or None,
    )
    properties.content_encoding = message.get("Encoding")
    key = odd(properties, message["Odd"]) if "Odd" in message else None
    channel.basic_publish("herald.events", key or message["Key"], base64.b64decode(message["Body"]), properties)


def main():
    with pika.BlockingConnection(pika.URLParameters(sys.argv[1])) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        for line in sys.stdin:
            try:
                publish(channel, json.loads(line))
                print("confirmed")
            except (pika.exceptions.NackError, pika.exceptions.UnroutableError) as refusal:
                print(repr(refusal))
            except pika.exceptions.ChannelClosedByBroker as closed:
                # Such as for a right that is missing; the next message needs another channel.
                print(repr(closed))
                channel = connection.channel()
                channel.confirm_delivery()


if __name__ == "__main__":
    main()

"""Publishes messages over AMQP with pika, as a producer does that knows nothing of Herald but its contract.

usage: producer.py URL < MESSAGES

A message is a line of JSON: {"Key": the routing key, "Body": base64, "MessageId": optional, "UserId": optional,
"Traceparent": optional, a header}.
Each is published persistent and with a confirm; for each a line says "confirmed", or why not.
"""

import base64
import json
import sys

import pika


def publish(channel, message):
    properties = pika.BasicProperties(
        content_type="application/json",
        delivery_mode=pika.DeliveryMode.Persistent.value,
        message_id=message.get("MessageId"),
        user_id=message.get("UserId"),
        headers={"traceparent": message["Traceparent"]} if "Traceparent" in message else None,
    )
    channel.basic_publish("herald.events", message["Key"], base64.b64decode(message["Body"]), properties)


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

"""Prints the records of a topic from its beginning: consume.py BOOTSTRAP TOPIC COUNT."""

import json
import sys

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from lines import as_fields


def line(message) -> str:
    """Formats a record as a line of JSON."""
    headers = [{"key": name, **as_fields("value", value)} for name, value in message.headers() or []]
    return json.dumps(
        {
            "partition": message.partition(),
            "offset": message.offset(),
            "timestamp": message.timestamp()[1],
            **as_fields("key", message.key()),
            **as_fields("value", message.value()),
            "headers": headers,
        }
    )


def main(bootstrap: str, topic: str, count: str) -> None:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False})
    partitions = consumer.list_topics(topic, 60).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
    left = int(count)
    while left:
        for message in consumer.consume(left, timeout=60) or sys.exit(f"{left} records are missing"):
            if message.error():
                raise SystemExit(f"cannot read {topic}: {message.error()}")
            print(line(message))
            left -= 1
    consumer.close()


main(*sys.argv[1:])

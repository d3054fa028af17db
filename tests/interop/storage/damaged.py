"""Reads a partition with damaged records, with confluent-kafka: damaged.py BOOTSTRAP TOPIC.

Prints the values as JSON, the error with the position at which it came, and after it has sought the end that position.
"""

import json
import sys

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition


def main(bootstrap: str, topic: str) -> None:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False, "enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    position = 0
    while (message := consumer.poll(120)) is not None and message.error() is None:
        print(json.dumps({"value": message.value().decode()}))
        position = message.offset() + 1
    if message is None:
        raise SystemExit("neither a record nor an error")
    if message.error().name() == "_PARTITION_EOF":
        raise SystemExit(f"the end of the partition is at {message.offset()}, before the damage")
    print(json.dumps({"error": message.error().name(), "position": position}))
    _, end = consumer.get_watermark_offsets(TopicPartition(topic, 0), 60)
    consumer.seek(TopicPartition(topic, 0, end))
    # Errors of fetches that were sent before may still come.
    while (message := consumer.poll(120)) is not None and message.error() and message.error().name() != "_PARTITION_EOF":
        pass
    if message is None or message.error() is None:
        raise SystemExit(f"behind the damage came {message and message.value()}")
    print(json.dumps({"end": message.offset()}))
    consumer.close()


main(*sys.argv[1:])

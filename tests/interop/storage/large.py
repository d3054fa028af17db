"""Sends or reads very large records with confluent-kafka: large.py BOOTSTRAP produce TOPIC BYTES, or consume TOPIC COUNT.

Prints the offset and the SHA-256 of each record.
"""

import hashlib
import os
import sys

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

# Twice the largest batch: what a response holds besides, and a batch that is too large.
BYTES_MAX = 200 << 20


def produce(bootstrap: str, topic: str, size: str) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "message.max.bytes": BYTES_MAX, "socket.timeout.ms": 120_000})
    value = os.urandom(int(size))

    def delivered(error, message) -> None:
        if error is not None:
            raise SystemExit(f"not acknowledged: {error.name()}: {error}")
        print(message.offset(), hashlib.sha256(value).hexdigest())

    producer.produce(topic, value=value, on_delivery=delivered)
    if producer.flush(240):
        raise SystemExit("not acknowledged")


def consume(bootstrap: str, topic: str, count: str) -> None:
    limits = {"fetch.max.bytes": BYTES_MAX, "receive.message.max.bytes": BYTES_MAX + 1024, "message.max.bytes": BYTES_MAX}
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False, **limits})
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    for _ in range(int(count)):
        message = consumer.poll(240)
        if message is None or message.error():
            raise SystemExit(f"cannot read: {message and message.error()}")
        print(message.offset(), hashlib.sha256(message.value()).hexdigest())
    consumer.close()


{"produce": produce, "consume": consume}[sys.argv[2]](sys.argv[1], *sys.argv[3:])

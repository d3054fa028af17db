"""Writes many versions of few keys with confluent-kafka until the broker has compacted them: compaction.py BOOTSTRAP. Reads the topic from its start
again and again; the last value of every key must be there each time. Prints how many records were written and how many are left."""

import json
import sys
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

SECONDS = 60
DEADLINE_SECONDS = 300
TOPIC = "customers"
KEYS = 20
VERSIONS_PER_ROUND = 50
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


def create(bootstrap: str) -> None:
    """Creates the topic, and has it compacted afterwards, as an operator would."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    # What is in the segment that is written to stays until the next round.
    small = {"segment.bytes": "20000", "segment.ms": "1000", "min.cleanable.dirty.ratio": "0.01", "delete.retention.ms": "1000"}
    admin.create_topics([NewTopic(TOPIC, 1, 1, config=small)])[TOPIC].result(SECONDS)
    entry = ConfigEntry("cleanup.policy", "compact", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, TOPIC, incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result(SECONDS)


def write(bootstrap: str, number: int, expected: dict) -> int:
    """Writes a round of versions, with another codec each time. Returns the number of records."""
    codec = CODECS[number % len(CODECS)]
    producer = Producer({"bootstrap.servers": bootstrap, "compression.type": codec, "enable.idempotence": True})
    failed = []
    for version in range(VERSIONS_PER_ROUND):
        for key in range(KEYS):
            name, value = f"key {key}", f"round {number} version {version} {'x' * 100}"
            producer.produce(TOPIC, key=name, value=value, on_delivery=lambda error, _: failed.append(error) if error else None)
            expected[name] = value
        producer.poll(0)
    if number == 0:
        for value in ("a value", None):
            producer.produce(TOPIC, key="gone", value=value)
    if producer.flush(SECONDS) or failed:
        raise SystemExit(f"records were not acknowledged: {failed}")
    return VERSIONS_PER_ROUND * KEYS


def read(bootstrap: str) -> list:
    """Reads the topic from its start to its end."""
    config = {"bootstrap.servers": bootstrap, "group.id": "reader", "enable.auto.commit": False, "enable.partition.eof": True}
    consumer = Consumer(config)
    consumer.assign([TopicPartition(TOPIC, 0, OFFSET_BEGINNING)])
    records = []
    while True:
        message = consumer.poll(SECONDS)
        if message is None:
            raise SystemExit("the consumer finds neither a record nor the end")
        if message.error():
            if message.error().name() == "_PARTITION_EOF":
                break
            raise SystemExit(f"reading: {message.error()}")
        records.append((message.offset(), message.key().decode(), message.value()))
    consumer.close()
    return records


def check(records: list, expected: dict) -> None:
    """Compares the last value of every key."""
    if records != sorted(records, key=lambda record: record[0]):
        raise SystemExit("offsets do not rise")
    table: dict = {}
    for _, key, value in records:
        if value is None:
            table.pop(key, None)
        else:
            table[key] = value.decode()
    if table != expected:
        wrong = {key for key in table.keys() | expected.keys() if table.get(key) != expected.get(key)}
        raise SystemExit(f"these keys do not have their last values: {sorted(wrong)}")


def main() -> None:
    """Writes a round, reads until most of what was written is gone, and so on until the tombstone is gone too."""
    bootstrap = sys.argv[1]
    create(bootstrap)
    expected: dict = {}
    written, number, until = 0, 0, time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < until:
        written += write(bootstrap, number, expected)
        number += 1
        while time.monotonic() < until:
            records = read(bootstrap)
            check(records, expected)
            if len(records) < VERSIONS_PER_ROUND * KEYS * 3 // 2:
                break
            time.sleep(1)
        if not any(key == "gone" for _, key, _ in records):
            print(json.dumps({"written": written, "left": len(records)}))
            return
    raise SystemExit(f"after {DEADLINE_SECONDS} seconds {len(records)} of {written} records are left, with the tombstone or without")


if __name__ == "__main__":
    main()

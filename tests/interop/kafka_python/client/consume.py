"""Prints the records of a topic from its beginning: consume.py BOOTSTRAP TOPIC COUNT."""

import sys

from kafka import KafkaConsumer, TopicPartition

from lines import line


def main(bootstrap: str, topic: str, count: str) -> None:
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    partitions = [TopicPartition(topic, partition) for partition in consumer.partitions_for_topic(topic)]
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    left = int(count)
    while left:
        fetched = consumer.poll(timeout_ms=60_000, max_records=left) or sys.exit(f"{left} records are missing")
        for record in (record for records in fetched.values() for record in records):
            print(line(record))
            left -= 1
    consumer.close()


main(*sys.argv[1:])

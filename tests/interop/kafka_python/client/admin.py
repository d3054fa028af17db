"""Tests administrative requests with kafka-python: admin.py BOOTSTRAP. Fails at the first response that differs from Kafka's."""

import sys
import time

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import InvalidConfigurationError, TopicAlreadyExistsError, UnknownTopicOrPartitionError
from kafka.structs import OffsetAndMetadata

TOPIC = "orders"
GROUP = "billing"
START_MS = int(time.time() * 1000) - 3_600_000
PARTITIONS = [TopicPartition(TOPIC, partition) for partition in range(3)]


def equal(what: str, seen, wanted) -> None:
    """Asserts equality."""
    if seen != wanted:
        raise SystemExit(f"{what}: expected {wanted!r}, saw {seen!r}")


def rejected(what: str, wanted: type[Exception], call, *args) -> None:
    """Asserts that the call fails with this error."""
    try:
        call(*args)
    except wanted:
        return
    raise SystemExit(f"{what}: expected {wanted.__name__}, but it succeeded")


def config(admin: KafkaAdminClient, name: str) -> str:
    """Returns a setting of the topic."""
    described = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, TOPIC)], config_filter="all")
    return described["topic"][TOPIC][name]["value"]


def topics(admin: KafkaAdminClient) -> None:
    """Creates topics with a configuration, lists, extends, alters and deletes them."""
    admin.create_topics({TOPIC: {"num_partitions": 2, "configs": {"retention.ms": "86400000"}}, "short-lived": {}})
    rejected("creating a topic again", TopicAlreadyExistsError, admin.create_topics, {TOPIC: {}})
    rejected("a bad setting", InvalidConfigurationError, admin.create_topics, {"t": {"configs": {"colour": "red"}}})
    admin.create_partitions({TOPIC: 3})
    admin.delete_topics(["short-lived"])
    rejected("deleting it again", UnknownTopicOrPartitionError, admin.delete_topics, ["short-lived"])
    equal("topics", admin.list_topics(), [TOPIC])
    (described,) = admin.describe_topics([TOPIC])
    equal("partitions", sorted(p["partition_index"] for p in described["partitions"]), [0, 1, 2])
    equal("retention.ms as created", config(admin, "retention.ms"), "86400000")
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, TOPIC, {"retention.ms": "7200000"})])
    equal("retention.ms as changed", config(admin, "retention.ms"), "7200000")
    admin.reset_configs([ConfigResource(ConfigResourceType.TOPIC, TOPIC, ["retention.ms"])])
    equal("retention.ms as reset", config(admin, "retention.ms"), "604800000")


def offsets(admin: KafkaAdminClient, bootstrap: str) -> None:
    """Writes thirty records with timestamps a second apart, lists offsets by time and by name, and deletes records."""
    producer = KafkaProducer(bootstrap_servers=bootstrap)
    for n in range(30):
        producer.send(TOPIC, f"order {n}".encode(), partition=n % 3, timestamp_ms=START_MS + n * 1000).get(60)
    producer.close()
    admin.delete_records({PARTITIONS[0]: 4})
    for name, spec, wanted in (
        ("earliest offsets", -2, [4, 0, 0]),
        ("latest offsets", -1, [10, 10, 10]),
        ("offsets of the newest times", -3, [9, 9, 9]),
        ("offsets by time", START_MS + 20_000, [7, 7, 6]),
        ("offsets for a time after the last", START_MS + 60_000, [-1, -1, -1]),
    ):
        listed = admin.list_partition_offsets({partition: spec for partition in PARTITIONS})
        equal(name, [listed[partition].offset for partition in PARTITIONS], wanted)


def groups(admin: KafkaAdminClient, bootstrap: str) -> None:
    """Lists and describes groups, alters their offsets, and deletes them."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, group_id=GROUP, enable_auto_commit=False, auto_offset_reset="earliest")
    consumer.assign(PARTITIONS)
    consumer.commit({PARTITIONS[0]: OffsetAndMetadata(5, "up to order 12", -1)})
    equal("committed offset", consumer.committed(PARTITIONS[0]), 5)
    consumer.close()
    equal("groups", [group["group_id"] for group in admin.list_groups()], [GROUP])
    described = admin.describe_groups([GROUP])[GROUP]
    equal("its state without members", described["group_state"], "Empty")
    admin.alter_group_offsets(GROUP, {PARTITIONS[1]: OffsetAndMetadata(7, "", -1)})
    committed = admin.list_group_offsets({GROUP: None})[GROUP]
    equal("its offsets", {place.partition: kept.offset for place, kept in committed.items()}, {0: 5, 1: 7})
    admin.delete_groups([GROUP])
    equal("groups at the end", admin.list_groups(), [])


def main(bootstrap: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    equal("brokers", len(admin.describe_cluster()["brokers"]), 1)
    topics(admin)
    offsets(admin, bootstrap)
    groups(admin, bootstrap)
    admin.close()


main(*sys.argv[1:])

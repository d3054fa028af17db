"""Tests administrative requests with aiokafka: admin.py BOOTSTRAP. Fails at the first response that differs from Kafka's."""

import asyncio
import sys
import time

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.structs import OffsetAndMetadata

TOPIC = "orders"
GROUP = "billing"
START_MS = int(time.time() * 1000) - 3_600_000
PARTITIONS = [TopicPartition(TOPIC, partition) for partition in range(3)]
EXISTS = 36


def equal(what: str, seen, wanted) -> None:
    """Asserts equality."""
    if seen != wanted:
        raise SystemExit(f"{what}: expected {wanted!r}, saw {seen!r}")


async def topics(admin: AIOKafkaAdminClient) -> None:
    """Creates topics with a configuration, lists, extends and deletes them."""
    await admin.create_topics([NewTopic(TOPIC, 2, 1, topic_configs={"retention.ms": "86400000"}), NewTopic("short-lived", 1, 1)])
    again = await admin.create_topics([NewTopic(TOPIC, 1, 1)])
    equal("creating a topic again", [(name, code) for name, code, *_ in again.topic_errors], [(TOPIC, EXISTS)])
    await admin.create_partitions({TOPIC: NewPartitions(3)})
    await admin.delete_topics(["short-lived"])
    equal("topics", await admin.list_topics(), [TOPIC])
    (described,) = await admin.describe_topics([TOPIC])
    equal("partitions", sorted(p["partition"] for p in described["partitions"]), [0, 1, 2])
    resource = ConfigResource(ConfigResourceType.TOPIC, TOPIC)
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, TOPIC, {"retention.ms": "7200000"})])
    (answer,) = await admin.describe_configs([resource])
    ((*_, entries),) = answer.resources
    equal("retention.ms as replaced", {entry[0]: entry[1] for entry in entries}["retention.ms"], "7200000")


async def offsets(bootstrap: str, admin: AIOKafkaAdminClient) -> None:
    """Writes thirty records with timestamps a second apart, lists offsets by time, deletes records, and commits offsets."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    for n in range(30):
        await producer.send_and_wait(TOPIC, f"order {n}".encode(), partition=n % 3, timestamp_ms=START_MS + n * 1000)
    await producer.stop()
    await admin.delete_records({PARTITIONS[0]: _before(4)})
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, group_id=GROUP, enable_auto_commit=False)
    await consumer.start()
    consumer.assign(PARTITIONS)
    ends = await consumer.end_offsets(PARTITIONS)
    equal("latest offsets", [ends[p] for p in PARTITIONS], [10, 10, 10])
    begins = await consumer.beginning_offsets(PARTITIONS)
    equal("earliest offsets after deletion", [begins[p] for p in PARTITIONS], [4, 0, 0])
    found = await consumer.offsets_for_times({p: START_MS + 20_000 for p in PARTITIONS})
    equal("offsets for times", [found[p].offset for p in PARTITIONS], [7, 7, 6])
    nothing = await consumer.offsets_for_times({p: START_MS + 60_000 for p in PARTITIONS})
    equal("offsets for a time after the last", [nothing[p] for p in PARTITIONS], [None, None, None])
    await consumer.commit({PARTITIONS[0]: OffsetAndMetadata(5, "up to order 12")})
    equal("committed offset", await consumer.committed(PARTITIONS[0]), 5)
    await consumer.stop()
    listed = await admin.list_consumer_groups()
    equal("groups", [name for name, *_ in listed], [GROUP])
    committed = await admin.list_consumer_group_offsets(GROUP)
    equal("the group's offsets", {p.partition: o.offset for p, o in committed.items()}, {0: 5})


def _before(offset: int):
    """Argument of `delete_records`: the offset of a partition."""
    from aiokafka.admin import RecordsToDelete

    return RecordsToDelete(before_offset=offset)


async def main(bootstrap: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await topics(admin)
    await offsets(bootstrap, admin)
    await admin.close()


asyncio.run(main(*sys.argv[1:]))

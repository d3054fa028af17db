"""Tests administrative requests with confluent-kafka: admin.py BOOTSTRAP. Fails at the first response that differs from Kafka's."""

import sys
import time

from confluent_kafka import (
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    ConsumerGroupType,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

SECONDS = 60
TOPIC = "orders"
GROUP = "billing"
START_MS = int(time.time() * 1000) - 3_600_000


def all_of(futures: dict) -> list:
    """Returns the results of a request with several operations, and asserts that none has failed."""
    return [future.result(SECONDS) for future in futures.values()]


def equal(what: str, seen, wanted) -> None:
    """Asserts equality."""
    if seen != wanted:
        raise SystemExit(f"{what}: expected {wanted!r}, saw {seen!r}")


def rejected(what: str, code: int, futures: dict) -> None:
    """Asserts that the single operation of a request fails with this error."""
    (future,) = futures.values()
    try:
        future.result(SECONDS)
    except KafkaException as error:
        equal(what, error.args[0].name(), KafkaError(code).name())
    else:
        raise SystemExit(f"{what}: expected {KafkaError(code).name()}, but it succeeded")


def cluster(admin: AdminClient) -> None:
    """Checks that the cluster has one node, the same in all responses."""
    described = admin.describe_cluster().result(SECONDS)
    equal("number of brokers", len(described.nodes), 1)
    equal("the controller", described.controller.id, described.nodes[0].id)
    equal("the cluster's id", described.cluster_id, admin.list_topics(timeout=SECONDS).cluster_id)


def topics(admin: AdminClient) -> None:
    """Creates topics with a configuration, describes, extends and deletes them."""
    all_of(admin.create_topics([NewTopic(TOPIC, 2, 1, config={"retention.ms": "86400000"}), NewTopic("short-lived", 1, 1)]))
    rejected("creating a topic again", KafkaError.TOPIC_ALREADY_EXISTS, admin.create_topics([NewTopic(TOPIC, 1, 1)]))
    rejected("a bad name", KafkaError.TOPIC_EXCEPTION, admin.create_topics([NewTopic("no spaces", 1, 1)]))
    rejected("a bad setting", KafkaError.INVALID_CONFIG, admin.create_topics([NewTopic("t", 1, 1, config={"colour": "red"})]))
    rejected("three replicas on one node", KafkaError.INVALID_REPLICATION_FACTOR, admin.create_topics([NewTopic("t", 1, 3)]))
    all_of(admin.create_topics([NewTopic("only-asked", 1, 1)], validate_only=True))

    (described,) = all_of(admin.describe_topics(TopicCollection([TOPIC])))
    equal("partitions", [(p.id, len(p.replicas), len(p.isr)) for p in described.partitions], [(0, 1, 1), (1, 1, 1)])
    all_of(admin.create_partitions([NewPartitions(TOPIC, 3)]))
    rejected("fewer partitions", KafkaError.INVALID_PARTITIONS, admin.create_partitions([NewPartitions(TOPIC, 1)]))
    equal("partitions", len(admin.list_topics(TOPIC, SECONDS).topics[TOPIC].partitions), 3)

    all_of(admin.delete_topics(["short-lived"]))
    rejected("deleting it again", KafkaError.UNKNOWN_TOPIC_OR_PART, admin.delete_topics(["short-lived"]))
    equal("topics", list(admin.list_topics(timeout=SECONDS).topics), [TOPIC])


def topic_config(admin: AdminClient) -> dict:
    """Returns the configuration of the topic."""
    (entries,) = all_of(admin.describe_configs([ConfigResource(ResourceType.TOPIC, TOPIC)]))
    return entries


def configs(admin: AdminClient) -> None:
    """Describes, incrementally alters, and replaces a topic's configuration."""
    equal("retention.ms as created", topic_config(admin)["retention.ms"].value, "86400000")
    changes = [
        ConfigEntry("max.message.bytes", "2000000", incremental_operation=AlterConfigOpType.SET),
        ConfigEntry("cleanup.policy", "compact", incremental_operation=AlterConfigOpType.APPEND),
        ConfigEntry("retention.ms", None, incremental_operation=AlterConfigOpType.DELETE),
    ]
    all_of(admin.incremental_alter_configs([ConfigResource(ResourceType.TOPIC, TOPIC, incremental_configs=changes)]))
    seen = topic_config(admin)
    equal("max.message.bytes after SET", seen["max.message.bytes"].value, "2000000")
    equal("cleanup.policy after APPEND", seen["cleanup.policy"].value, "delete,compact")
    equal("retention.ms after DELETE", (seen["retention.ms"].value, seen["retention.ms"].is_default), ("604800000", True))

    all_of(admin.alter_configs([ConfigResource(ResourceType.TOPIC, TOPIC, set_config={"retention.ms": "7200000"})]))
    seen = topic_config(admin)
    equal("retention.ms as replaced", seen["retention.ms"].value, "7200000")
    equal("max.message.bytes, no longer given", seen["max.message.bytes"].is_default, True)
    bad = ConfigResource(ResourceType.TOPIC, TOPIC, set_config={"retention.ms": "soon"})
    rejected("a value that is no number", KafkaError.INVALID_CONFIG, admin.alter_configs([bad]))

    node = str(admin.describe_cluster().result(SECONDS).controller.id)
    (entries,) = all_of(admin.describe_configs([ConfigResource(ResourceType.BROKER, node)]))
    equal("num.partitions of the broker", entries["num.partitions"].value, "1")


def produce(bootstrap: str) -> None:
    """Writes thirty records with timestamps a second apart, round-robin to the three partitions."""
    producer = Producer({"bootstrap.servers": bootstrap})
    for n in range(30):
        producer.produce(TOPIC, value=f"order {n}", partition=n % 3, timestamp=START_MS + n * 1000)
    equal("records left", producer.flush(SECONDS), 0)


def listed(admin: AdminClient, spec: OffsetSpec) -> list[int]:
    """Returns the offset of each partition."""
    asked = {TopicPartition(TOPIC, partition): spec for partition in range(3)}
    futures = admin.list_offsets(asked, isolation_level=IsolationLevel.READ_UNCOMMITTED)
    return [info.offset for info in all_of(futures)]


def offsets(admin: AdminClient) -> None:
    """Lists offsets by time and by name, and deletes records before an offset."""
    equal("earliest offsets", listed(admin, OffsetSpec.earliest()), [0, 0, 0])
    equal("latest offsets", listed(admin, OffsetSpec.latest()), [10, 10, 10])
    equal("offsets of the newest times", listed(admin, OffsetSpec.max_timestamp()), [9, 9, 9])
    equal("offsets at the sixth second", listed(admin, OffsetSpec.for_timestamp(START_MS + 5_500)), [2, 2, 2])
    deleted = all_of(admin.delete_records([TopicPartition(TOPIC, 0, 4), TopicPartition(TOPIC, 1, -1)]))
    equal("low watermarks after deletion", [result.low_watermark for result in deleted], [4, 10])
    rejected("deleting beyond the end", KafkaError.OFFSET_OUT_OF_RANGE, admin.delete_records([TopicPartition(TOPIC, 2, 11)]))
    equal("earliest offsets after deletion", listed(admin, OffsetSpec.earliest()), [4, 10, 0])


def consumer_of(bootstrap: str, protocol: str = "classic") -> Consumer:
    """Creates a consumer of the group."""
    config = {"bootstrap.servers": bootstrap, "group.id": GROUP, "auto.offset.reset": "earliest", "enable.auto.commit": False}
    return Consumer({**config, "group.protocol": protocol})


def limits_and_times(admin: AdminClient, bootstrap: str) -> None:
    """Checks that the settings for the size and the timestamps of records take effect."""
    config = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": "1000"}
    all_of(admin.create_topics([NewTopic("short-notes", 1, 1, config=config)]))
    outcomes = []
    producer = Producer({"bootstrap.servers": bootstrap})
    for value in ("short", "long" * 1000):
        producer.produce("short-notes", value=value, timestamp=START_MS, on_delivery=lambda error, _: outcomes.append(error and error.name()))
        equal("records left", producer.flush(SECONDS), 0)
    equal("outcomes of the producer", outcomes, [None, "MSG_SIZE_TOO_LARGE"])
    consumer = consumer_of(bootstrap)
    consumer.assign([TopicPartition("short-notes", 0, 0)])
    message = consumer.poll(SECONDS)
    kind, time_ms = message.timestamp()
    equal("whose time it is", (message.value(), kind), (b"short", TIMESTAMP_LOG_APPEND_TIME))
    equal("that it is the broker's time", time_ms > START_MS, True)
    consumer.close()
    all_of(admin.delete_topics(["short-notes"]))


def commits(bootstrap: str) -> None:
    """Commits offsets with metadata, reads them back, and finds offsets by time."""
    consumer = consumer_of(bootstrap)
    times = [TopicPartition(TOPIC, partition, START_MS + 20_000) for partition in range(3)]
    equal("offsets for times", [p.offset for p in consumer.offsets_for_times(times, SECONDS)], [7, -1, 6])
    equal("watermarks", consumer.get_watermark_offsets(TopicPartition(TOPIC, 0), SECONDS), (4, 10))
    places = [TopicPartition(TOPIC, 0, 5, "up to order 15", 0), TopicPartition(TOPIC, 2, 3)]
    consumer.commit(offsets=places, asynchronous=False)
    seen = consumer.committed([TopicPartition(TOPIC, partition) for partition in range(3)], SECONDS)
    equal("committed offsets", [(p.offset, p.metadata or "") for p in seen], [(5, "up to order 15"), (-1001, ""), (3, "")])
    consumer.close()


def group_offsets(admin: AdminClient) -> list[tuple[int, int]]:
    """Returns the group's committed offsets."""
    (group,) = all_of(admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(GROUP)]))
    return sorted((p.partition, p.offset) for p in group.topic_partitions)


def groups(admin: AdminClient, bootstrap: str, protocol: str) -> None:
    """Lists and describes groups with and without members, alters their offsets, and deletes them."""
    equal("the group's offsets", group_offsets(admin), [(0, 5), (2, 3)])
    changed = ConsumerGroupTopicPartitions(GROUP, [TopicPartition(TOPIC, 1, 10), TopicPartition(TOPIC, 0, 8)])
    all_of(admin.alter_consumer_group_offsets([changed]))
    equal("the group's offsets, changed", group_offsets(admin), [(0, 8), (1, 10), (2, 3)])

    member = consumer_of(bootstrap, protocol)
    member.subscribe([TOPIC])
    read = [f"{m.partition()}:{m.offset()}" for m in member.consume(9, timeout=SECONDS)]
    equal("what the member reads", sorted(read), ["0:8", "0:9"] + [f"2:{n}" for n in range(3, 10)])
    (described,) = all_of(admin.describe_consumer_groups([GROUP]))
    equal("state with a member", described.state, ConsumerGroupState.STABLE)
    equal("its protocol", described.type, ConsumerGroupType[protocol.upper()])
    (seen,) = described.members
    equal("its assignment", sorted(p.partition for p in seen.assignment.topic_partitions), [0, 1, 2])
    (answer,) = all_of(admin.alter_consumer_group_offsets([changed]))
    errors = {p.error.code() for p in answer.topic_partitions}
    equal("changing a group in use", errors, {KafkaError.UNKNOWN_MEMBER_ID})
    rejected("deleting a group in use", KafkaError.NON_EMPTY_GROUP, admin.delete_consumer_groups([GROUP]))
    member.close()

    listing = admin.list_consumer_groups(states={ConsumerGroupState.EMPTY}).result(SECONDS)
    equal("groups without members", [(g.group_id, g.is_simple_consumer_group) for g in listing.valid], [(GROUP, False)])
    all_of(admin.delete_consumer_groups([GROUP]))
    rejected("deleting it again", KafkaError.GROUP_ID_NOT_FOUND, admin.delete_consumer_groups([GROUP]))
    equal("groups at the end", admin.list_consumer_groups().result(SECONDS).valid, [])


def main(bootstrap: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    cluster(admin)
    topics(admin)
    configs(admin)
    produce(bootstrap)
    offsets(admin)
    limits_and_times(admin, bootstrap)
    for protocol in ("classic", "consumer"):
        commits(bootstrap)
        groups(admin, bootstrap, protocol)


main(*sys.argv[1:])

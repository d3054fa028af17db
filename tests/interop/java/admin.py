"""Administrative tools: kafka-topics, kafka-configs, kafka-get-offsets, kafka-delete-records, kafka-broker-api-versions."""

import json
import re

from harness.cases import case
from harness.context import Context
from harness.expect import contains, equal, same_items, true
from java.kafka import Kafka


@case("java.topics", "kafka-topics creates, lists, describes, extends and deletes topics", short=True, needs=("java",))
def topics(ctx: Context) -> None:
    kafka = Kafka(ctx, ctx.broker())
    kafka.create("orders", 3, retention_ms="60000")
    kafka.tool("topics", "--create", "--topic", "bills")
    equal("the list of topics", kafka.tool("topics", "--list").lines, ["bills", "orders"])

    described = kafka.tool("topics", "--describe", "--topic", "orders").out
    contains("the description", described, "PartitionCount: 3", "ReplicationFactor: 1", "retention.ms=60000")
    true("it has a topic id", re.search(r"TopicId: [\w-]{22}\b", described), described)
    equal("partitions with a leader", len(re.findall(r"Partition: \d\s+Leader: \d+\s+Replicas: \d+\s+Isr: \d+", described)), 3)

    kafka.tool("topics", "--alter", "--topic", "orders", "--partitions", "5")
    contains("the description afterwards", kafka.tool("topics", "--describe", "--topic", "orders").out, "PartitionCount: 5")
    contains(
        "fewer partitions are rejected",
        kafka.rejected("topics", "--alter", "--topic", "orders", "--partitions", "2"),
        "InvalidPartitionsException",
    )
    contains(
        "a duplicate topic name is rejected", kafka.rejected("topics", "--create", "--topic", "orders"), "TopicExistsException"
    )
    kafka.tool("topics", "--create", "--topic", "orders", "--if-not-exists")

    kafka.tool("topics", "--delete", "--topic", "orders")
    equal("the list after a deletion", kafka.tool("topics", "--list").lines, ["bills"])
    contains("a deleted topic", kafka.rejected("topics", "--describe", "--topic", "orders"), "does not exist")


@case("java.configs", "kafka-configs shows, sets and resets a topic's settings, and shows those of the broker", needs=("java",))
def configs(ctx: Context) -> None:
    kafka = Kafka(ctx, ctx.broker())
    kafka.create("orders", 1)
    topic = ("--entity-type", "topics", "--entity-name", "orders")

    kafka.tool("configs", *topic, "--alter", "--add-config", "retention.ms=60000,cleanup.policy=[compact,delete],preallocate=true")
    set_now = kafka.tool("configs", *topic, "--describe").out
    contains(
        "the settings that were set",
        set_now,
        "cleanup.policy=compact,delete",
        "preallocate=true",
        "retention.ms=60000 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:retention.ms=60000, DEFAULT_CONFIG:log.retention.ms=",
    )
    everything = kafka.tool("configs", *topic, "--describe", "--all").out
    contains("all settings", everything, "segment.bytes=", "min.insync.replicas=1", "max.message.bytes=", "retention.ms=60000")

    kafka.tool("configs", *topic, "--alter", "--delete-config", "retention.ms,preallocate,cleanup.policy")
    equal("settings that are left", kafka.tool("configs", *topic, "--describe").lines[1:], [])

    for setting in ("nonsense=1", "retention.ms=soon"):
        refused = kafka.rejected("configs", *topic, "--alter", "--add-config", setting)
        contains(f"{setting} is rejected", refused, "InvalidConfigurationException", setting.split("=")[0])

    broker = kafka.tool("configs", "--entity-type", "brokers", "--entity-name", "0", "--describe", "--all").out
    contains("the broker's settings", broker, f"advertised.listeners=PLAINTEXT://{kafka.broker.kafka}", "num.partitions=1")
    contains(
        "the broker's settings cannot be changed",
        kafka.rejected("configs", "--entity-type", "brokers", "--entity-name", "0", "--alter", "--add-config", "num.partitions=2"),
        "cannot be changed",
    )


@case("java.offsets", "kafka-get-offsets at every special time, and kafka-delete-records", needs=("java",))
def offsets(ctx: Context) -> None:
    kafka = Kafka(ctx, ctx.broker())
    kafka.create("events", 2, retention_ms="-1")
    # The newest record is not the last one: the tool increments timestamps by a second, and the second run starts earlier.
    for start, count in ((1_700_000_000_000, 10), (1_600_000_000_000, 5)):
        settings = ("--max-messages", str(count), "--message-create-time", str(start), "--repeating-keys", "1")
        kafka.tool("verifiable-producer", "--topic", "events", *settings)
    kafka.tool("topics", "--create", "--topic", "empty")

    def at(time: str) -> list[str]:
        return kafka.tool("get-offsets", "--topic", "events|empty", "--time", time).lines

    by_partition = dict(line.rsplit(":", 1) for line in at("-1"))
    full = max(by_partition, key=lambda partition: int(by_partition[partition]))
    bare = next(partition for partition in by_partition if partition.startswith("events") and partition != full)
    same_items("ends (-1)", at("-1"), [f"{full}:15", f"{bare}:0", "empty:0:0"])
    same_items("beginnings (-2)", at("-2"), [f"{full}:0", f"{bare}:0", "empty:0:0"])
    newest = [line for line in at("-3") if line.startswith(full)]
    true("the newest record (-3) is one of the first ten", newest and int(newest[0].rsplit(":", 1)[1]) < 10, newest)
    same_items("local log starts (-4) without tiered storage", at("-4"), [f"{full}:0", f"{bare}:0", "empty:0:0"])
    equal("tiered ends (-5)", at("-5"), [])
    equal("the first record after a time", at("1500000000000"), [f"{full}:0"])
    equal("no record after a time", at("1800000000000"), [])

    topic, partition = full.split(":")
    wanted = {"partitions": [{"topic": topic, "partition": int(partition), "offset": 4}], "version": 1}
    deleted = kafka.tool("delete-records", "--offset-json-file", ctx.file("delete.json", json.dumps(wanted)))
    contains("the response", deleted.out, f"partition: {topic}-{partition}\tlow_watermark: 4")
    same_items("beginnings after a deletion", at("-2"), [f"{full}:4", f"{bare}:0", "empty:0:0"])
    wanted["partitions"][0]["offset"] = 99
    too_far = kafka.tool("delete-records", "--offset-json-file", ctx.file("too-far.json", json.dumps(wanted)), codes=(0, 1))
    contains("offsets beyond the end are rejected", too_far.out + too_far.err, "OffsetOutOfRangeException")
    kafka.broker.restart()
    same_items("beginnings after a restart", at("-2"), [f"{full}:4", f"{bare}:0", "empty:0:0"])


@case("java.api-versions", "kafka-broker-api-versions lists the requests that docs/kafka-compatibility.md lists as served", needs=("java",))
def api_versions(ctx: Context) -> None:
    kafka = Kafka(ctx, ctx.broker())
    shown = kafka.tool("broker-api-versions").out
    offered = {
        int(key): versions for key, versions in re.findall(r"\w+\((\d+)\): (\d+(?: to \d+)?) \[usable: \d+\]", shown)
    }
    table = (ctx.repository / "docs" / "kafka-compatibility.md").read_text()
    documented = {
        int(key): versions.replace("–", " to ")
        for key, versions in re.findall(r"^\| (\d+) \| \w+ \| ([\d–]+) \| served \|", table, re.MULTILINE)
    }
    equal("what the tool shows", offered, documented)


@case("java.one-node", "tools for directories, producers, elections, access control and quotas get correct responses for a single node", short=True, needs=("java",))
def one_node(ctx: Context) -> None:
    """Graphical user interfaces make the same requests."""
    kafka = Kafka(ctx, ctx.broker())
    kafka.create("a.b", 1, preallocate=" True ", max_message_bytes="52428800")
    contains("an existing topic", kafka.rejected("topics", "--create", "--topic", "a.b"), "Topic 'a.b' already exists.")
    collides = kafka.rejected("topics", "--create", "--topic", "a_b")
    contains("a name that collides", collides, "Topic 'a_b' collides with existing topic: a.b")
    reserved = kafka.rejected("topics", "--create", "--topic", "__consumer_offsets")
    contains("a reserved name", reserved, "InvalidTopicException", "reserved")
    kafka.tool("console-producer", "--topic", "a.b", "--command-property", "enable.idempotence=true", stdin="v\n")

    directories = kafka.tool("log-dirs", "--describe").lines[-1]
    (directory,) = json.loads(directories)["brokers"][0]["logDirs"]
    equal("its error", directory["error"], None)
    (partition,) = directory["partitions"]
    equal("the partition in the directory", partition["partition"], "a.b-0")
    true("the partition has a size", partition["size"] > 0, partition)
    producers = kafka.tool("transactions", "describe-producers", "--topic", "a.b", "--partition", "0").lines
    equal("lines about producers", len(producers), 2)
    equal("lines about transactions", len(kafka.tool("transactions", "list").lines), 1)
    elected = kafka.tool("leader-election", "--election-type", "preferred", "--topic", "a.b", "--partition", "0", codes=None)
    contains("an election", elected.out + elected.err, "Valid replica already elected for partitions a.b-0")
    contains("access control", kafka.rejected("acls", "--list"), "No Authorizer is configured.")
    equal("quotas and credentials", kafka.tool("configs", "--entity-type", "users", "--describe").lines, [])
    broker = kafka.tool("configs", "--entity-type", "brokers", "--entity-name", "0", "--describe", "--all").out
    contains("the broker's settings", broker, "message.max.bytes=1048588", "replica.fetch.max.bytes=1048576", "log.cleaner.enable=true")

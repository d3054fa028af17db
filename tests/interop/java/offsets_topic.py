"""The topic __consumer_offsets, as Kafka's tools read it."""

from collections.abc import Iterator
import json
from typing import Any

from harness.cases import case
from harness.context import Context
from harness.expect import contains, equal, eventually, true
from java.kafka import Kafka
from java.verifiable import Consumer, Producer

TOPIC = "__consumer_offsets"
OFFSETS = "org.apache.kafka.tools.consumer.OffsetsMessageFormatter"
GROUPS = "org.apache.kafka.tools.consumer.GroupMetadataMessageFormatter"


def records(kafka: Kafka, formatter: str) -> list[dict[str, Any]]:
    """Reads the topic from its beginning to its present end. Returns what the formatter prints of each record that it knows."""
    ends = (line.split(":")[1:] for line in kafka.tool("get-offsets", "--topic", TOPIC).lines)
    printed: list[dict[str, Any]] = []
    for partition, end in ends:
        if int(end) > 0:
            result = kafka.tool(
                "console-consumer", "--topic", TOPIC, "--partition", partition, "--offset", "earliest", "--max-messages", end,
                "--formatter", formatter,
            )  # fmt: skip
            printed += documents(result.out)
    return printed


def documents(text: str) -> Iterator[dict[str, Any]]:
    """Parses JSON documents; not every formatter separates them by lines."""
    decoder = json.JSONDecoder()
    at = 0
    while text := text[at:].lstrip():
        document, at = decoder.raw_decode(text)
        yield document


@case("java.offsets-topic", "Kafka's tools read __consumer_offsets with their formatters, and cannot write it", short=True, needs=("java",))
def offsets_topic(ctx: Context) -> None:
    kafka = Kafka(ctx, ctx.broker())
    kafka.create("t", 1)
    Producer(kafka, "t", "--max-messages", "50").finish()
    for group in ("classic", "consumer"):
        member = Consumer(kafka, "t", group, "--group-protocol", group)
        member.wait_for("the member has read and committed everything", lambda: member.committed == {0: 50})
        member.close()
        eventually("the group is empty", lambda: "Empty" in kafka.tool("consumer-groups", "--describe", "--state", "--group", group).out)

    true("it is listed", TOPIC in kafka.tool("topics", "--list").lines)
    true("it is listed as internal", TOPIC not in kafka.tool("topics", "--list", "--exclude-internal").lines)
    contains("its settings", kafka.tool("topics", "--describe", "--topic", TOPIC).out, "PartitionCount: 16", "cleanup.policy=compact")

    commits = {}
    for record in records(kafka, OFFSETS):
        key, value = record["key"], record["value"]
        equal("the type of an offset", key["type"], 1)
        if key["data"]["topic"] == "t":
            commits[key["data"]["group"]] = value and value["data"]["offset"]
    equal("the committed offsets", commits, {"classic": 50, "consumer": 50})
    groups = {record["key"]["data"]["group"]: record for record in records(kafka, GROUPS)}
    equal("the groups of the classic protocol", sorted(groups), ["classic"])
    equal("its members have left", groups["classic"]["value"]["data"]["members"], [])

    for failing in (
        ("topics", "--delete", "--topic", TOPIC),
        ("topics", "--alter", "--topic", TOPIC, "--partitions", "20"),
        ("configs", "--alter", "--topic", TOPIC, "--add-config", "cleanup.policy=delete"),
    ):
        contains("the error", kafka.rejected(*failing), "InvalidTopicException")
    sent = kafka.tool("console-producer", "--topic", TOPIC, stdin="k\n", codes=None)
    contains("the error", sent.out + sent.err, "InvalidTopicException")

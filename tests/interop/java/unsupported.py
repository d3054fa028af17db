"""Unsupported features: the tools that need them fail at once, and do not hang."""

from harness.cases import case
from harness.context import Context
from harness.expect import contains
from java.kafka import Kafka

NOT_SERVED = {
    "DESCRIBE_QUORUM": ("metadata-quorum", "describe", "--status"),
}
"""Tools, and the request that each reports as not supported."""


@case("java.unsupported", "tools for unsupported features, such as transactions and share groups, report that", needs=("java",))
def unsupported(ctx: Context) -> None:
    """The exit codes of the tools differ."""
    kafka = Kafka(ctx, ctx.broker())
    kafka.create("t", 1)
    for request, words in NOT_SERVED.items():
        said = kafka.tool(*words, codes=None)
        contains(f"kafka-{words[0]}", said.out + said.err, f"The node does not support {request}")

    one = ("--topic", "t", "--num-records", "1", "--record-size", "10", "--throughput", "-1", "--transactional-id", "pays")
    said = kafka.tool("producer-perf-test", *one, codes=(1,))
    contains("a transactional producer", said.err, "TransactionalIdAuthorizationException")
    share = kafka.tool("console-share-consumer", "--topic", "t", "--timeout-ms", "1000", codes=None)
    contains("a share consumer", share.err, "The cluster does not support the share group protocol")

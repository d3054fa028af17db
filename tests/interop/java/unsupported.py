"""What the broker does not serve: the tools that need it say so at once, and do not wait for an answer that never comes."""

from harness.cases import case
from harness.context import Context
from harness.expect import contains
from java.kafka import Kafka

NOT_SERVED = {
    "DESCRIBE_QUORUM": ("metadata-quorum", "describe", "--status"),
}
"""Tools, and the request that each names as not supported."""


@case("java.unsupported", "tools for what is not served, such as transactions and share groups, are told so", needs=("java",))
def unsupported(ctx: Context) -> None:
    """Exit codes differ from tool to tool."""
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

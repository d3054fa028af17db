"""kafka-topics."""

import re

from harness.cases import case
from harness.context import Context
from harness.expect import contains, equal, true
from java.kafka import Kafka


@case("java.topics", "kafka-topics creates, lists, describes, widens and deletes topics", short=True, needs=("java",))
def topics(ctx: Context) -> None:
    kafka = Kafka(ctx, ctx.broker())
    kafka.tool("topics", "--create", "--topic", "orders", "--partitions", "3", "--config", "retention.ms=60000")
    kafka.tool("topics", "--create", "--topic", "bills")
    equal("the list of topics", kafka.tool("topics", "--list").lines, ["bills", "orders"])

    described = kafka.tool("topics", "--describe", "--topic", "orders").out
    contains("the description", described, "PartitionCount: 3", "ReplicationFactor: 1", "retention.ms=60000")
    true("it has a topic id", re.search(r"TopicId: [\w-]{22}\b", described), described)
    equal("partitions with a leader", len(re.findall(r"Partition: \d\s+Leader: \d+\s+Replicas: \d+\s+Isr: \d+", described)), 3)

    kafka.tool("topics", "--alter", "--topic", "orders", "--partitions", "5")
    contains("the description afterwards", kafka.tool("topics", "--describe", "--topic", "orders").out, "PartitionCount: 5")
    fewer = kafka.tool("topics", "--alter", "--topic", "orders", "--partitions", "2", codes=(1,))
    contains("fewer partitions are refused", fewer.out + fewer.err, "InvalidPartitionsException")
    again = kafka.tool("topics", "--create", "--topic", "orders", codes=(1,))
    contains("a second topic of the name is refused", again.out + again.err, "TopicExistsException")
    kafka.tool("topics", "--create", "--topic", "orders", "--if-not-exists")

    kafka.tool("topics", "--delete", "--topic", "orders")
    equal("the list after a deletion", kafka.tool("topics", "--list").lines, ["bills"])
    gone = kafka.tool("topics", "--describe", "--topic", "orders", codes=(1,))
    contains("a topic that is gone", gone.out + gone.err, "does not exist")

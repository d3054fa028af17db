"""kafka-consumer-groups, on groups of both protocols."""

from datetime import datetime, timezone
import re

from harness.cases import case
from harness.context import Context
from harness.expect import contains, equal, eventually, same_items, true
from java.kafka import Kafka
from java.verifiable import Consumer, Producer

DAY = datetime(2026, 1, 1, tzinfo=timezone.utc)


class Groups:
    """kafka-consumer-groups for one group."""

    def __init__(self, kafka: Kafka, group: str) -> None:
        self.kafka = kafka
        self.group = group

    def tool(self, *args: str) -> str:
        """Runs the tool for the group. Returns its output."""
        return self.kafka.tool("consumer-groups", "--group", self.group, *args).out

    def offsets(self) -> dict[int, int]:
        """Returns the committed offsets, by partition."""
        rows = (line.split() for line in self.tool("--describe").splitlines())
        return {int(row[2]): int(row[3]) for row in rows if row and row[0] == self.group and row[3] != "-"}

    def reset(self, *args: str) -> dict[int, int]:
        """Resets offsets. Returns the new ones, as the tool shows them."""
        rows = (line.split() for line in self.tool("--reset-offsets", *args, "--execute").splitlines())
        return {int(row[2]): int(row[3]) for row in rows if row and row[0] == self.group}


def groups(ctx: Context, protocol: str) -> None:
    """Runs all functions of the tool on a group, first with members and then without."""
    kafka = Kafka(ctx, ctx.broker())
    kafka.create("t", 2, retention_ms="-1")
    # The second thousand records are a day newer than the first.
    for day in (0, 1):
        began = int(DAY.timestamp() + day * 86400) * 1000
        Producer(kafka, "t", "--max-messages", "1000", "--message-create-time", str(began), "--repeating-keys", "10").finish()
    ends = {int(p): int(n) for p, n in (line.split(":")[1:] for line in kafka.tool("get-offsets", "--topic", "t").lines)}
    equal("records in all", sum(ends.values()), 2000)
    group = Groups(kafka, "g")

    member = Consumer(kafka, "t", "g", "--group-protocol", protocol)
    member.wait_for("the member has read and committed everything", lambda: member.committed == ends)
    contains("the list", kafka.tool("consumer-groups", "--list").out, "g")
    contains("the state", group.tool("--describe", "--state"), "Stable")
    true("the member has both partitions", re.search(r"^g\s.*\s2\b", group.tool("--describe", "--members"), re.MULTILINE))
    contains("its partitions", group.tool("--describe", "--members", "--verbose"), "t:0,1")
    contains(
        "a group with members is not reset",
        kafka.tool("consumer-groups", "--group", "g", "--reset-offsets", "--to-earliest", "--topic", "t", "--execute", codes=(0, 1)).out,
        "inactive",
    )
    busy = kafka.tool("consumer-groups", "--group", "g", "--delete", codes=(0, 1))
    contains("a group with members is not deleted", busy.out + busy.err, "GroupNotEmptyException")
    busy = kafka.tool("consumer-groups", "--group", "g", "--delete-offsets", "--topic", "t", codes=(0, 1))
    contains("offsets that members need are not deleted", busy.out + busy.err, "GroupSubscribedToTopicException")
    member.close()

    eventually("the group is empty", lambda: "Empty" in group.tool("--describe", "--state"))
    contains("the states", kafka.tool("consumer-groups", "--list", "--state", "empty").out, "Empty")
    kinds = kafka.tool("consumer-groups", "--list", "--type", protocol).out
    contains("the types", kinds.lower(), protocol)
    equal("offsets of the empty group", group.offsets(), ends)
    equal("to-earliest", group.reset("--to-earliest", "--topic", "t"), {0: 0, 1: 0})
    equal("shift-by", group.reset("--shift-by", "3", "--all-topics"), {0: 3, 1: 3})
    equal("offsets afterwards", group.offsets(), {0: 3, 1: 3})
    second = group.reset("--to-datetime", "2026-01-02T00:00:00.000", "--topic", "t")
    equal("to-datetime finds the first record of the second day", sum(second.values()), 1000)
    equal("to-offset for one partition", group.reset("--to-offset", "5", "--topic", "t:1"), {1: 5})
    equal("to-latest", group.reset("--to-latest", "--topic", "t"), ends)
    dry = group.tool("--reset-offsets", "--to-earliest", "--topic", "t", "--dry-run")
    same_items("a dry run", re.findall(r"^g\s+t\s+(\d)\s+(\d+)", dry, re.MULTILINE), [("0", "0"), ("1", "0")])
    kafka.broker.kill9()
    kafka.broker.start()
    equal("offsets after a dry run, and a crash", group.offsets(), ends)

    contains("delete-offsets", group.tool("--delete-offsets", "--topic", "t:0"), "Successful")
    equal("offsets that are left", group.offsets(), {1: ends[1]})
    contains("delete", group.tool("--delete"), "successful")
    equal("groups that are left", kafka.tool("consumer-groups", "--list").out.split(), [])
    contains("a group that is gone", group.tool("--describe"), "GroupIdNotFoundException")


@case("java.groups-classic", "kafka-consumer-groups on a classic group: list, describe, reset, delete", needs=("java",))
def classic(ctx: Context) -> None:
    groups(ctx, "classic")


@case("java.groups-consumer", "kafka-consumer-groups on a group of the consumer protocol", needs=("java",))
def consumer(ctx: Context) -> None:
    groups(ctx, "consumer")

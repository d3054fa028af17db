"""Members join, leave and die during writes, with both group protocols and Kafka's assignors."""

from collections.abc import Callable

from harness.cases import case
from harness.context import Context
from harness.expect import equal, eventually, same_items, true
from java.kafka import NEW, OLD, Kafka
from java.verifiable import Consumer, Producer

PARTITIONS = set(range(6))


def shares(*members: Consumer) -> list[int]:
    """Returns the numbers of partitions of the members, sorted, or nothing if the partitions do not have one owner each."""
    for member in members:
        member.update()
    owned = [partition for member in members for partition in member.assigned]
    return sorted(len(member.assigned) for member in members) if sorted(owned) == sorted(PARTITIONS) else []


def divided(*members: Consumer) -> None:
    """Waits until the partitions are divided evenly among the members."""
    even = sorted(len(PARTITIONS) // len(members) + (i < len(PARTITIONS) % len(members)) for i in range(len(members)))
    eventually(f"{len(members)} members have {even} partitions", lambda: shares(*members) == even)


def rebalances(ctx: Context, first: Kafka, second: Kafka, *args: str) -> None:
    """Three members join, one is killed, one leaves. All records are read and committed, without gaps."""
    first.create("t", len(PARTITIONS))
    producer = Producer(first, "t", "--throughput", "200", "--repeating-keys", "100")
    join = lambda kafka: Consumer(kafka, "t", "g", "--verbose", *args)  # noqa: E731
    one = join(first)
    divided(one)
    two = join(second)
    divided(one, two)
    three = join(first)
    divided(one, two, three)
    one.process.kill()
    one.update()
    divided(two, three)
    two.close()
    divided(three)
    # A commit during a rebalance fails. The commit of the records after the last rebalance includes all earlier records.
    producer.wait_for_more(400)
    producer.close()
    equal("records that the producer could not send", producer.errors, [])

    sent = set(producer.acked)
    members = (one, two, three)
    three.wait_for("the remaining member has read all records", lambda: sent <= {value for member in members for _, _, value in member.read})
    ends: dict[int, int] = {}
    for partition, offset in producer.acked.values():
        ends[partition] = max(ends.get(partition, 0), offset + 1)
    known: dict[int, int] = {}

    def all_committed() -> bool:
        for member in members:
            for partition, offset in member.committed.items():
                known[partition] = max(known.get(partition, 0), offset)
        return known == ends

    three.wait_for("everything is committed", all_committed)
    for member in members:
        in_order = {partition: [o for p, o, _ in member.read if p == partition] for partition in PARTITIONS}
        true(
            "no member reads offsets of a partition twice or out of order, unless the partition is reassigned",
            member.rebalances > 1 or all(offsets == sorted(set(offsets)) for offsets in in_order.values()),
        )
    places = {(partition, offset): value for member in members for partition, offset, value in member.read}
    same_items("each value is in one place", [value for value in places.values() if value in sent], sent)


def strategy(name: str) -> tuple[str, ...]:
    """Returns the options for an assignor of the client, with the minimum session timeout, for members that die."""
    return ("--assignment-strategy", f"org.apache.kafka.clients.consumer.{name}", "--session-timeout", "6000")


@case("java.members-range", "members of the classic protocol join, leave and die: eager, range", needs=("java",))
def eager(ctx: Context) -> None:
    kafka = Kafka(ctx, ctx.broker())
    rebalances(ctx, kafka, kafka, *strategy("RangeAssignor"))


@case("java.members-cooperative", "the same with the CooperativeStickyAssignor", short=True, needs=("java",))
def cooperative(ctx: Context) -> None:
    kafka = Kafka(ctx, ctx.broker())
    rebalances(ctx, kafka, kafka, *strategy("CooperativeStickyAssignor"))


@case("java.members-mixed", "the same with members of 4.3 and of 3.9", needs=("java",))
def mixed(ctx: Context) -> None:
    broker = ctx.broker()
    rebalances(ctx, Kafka(ctx, broker, NEW), Kafka(ctx, broker, OLD), *strategy("RoundRobinAssignor"))


@case("java.members-uniform", "the same with the consumer protocol (KIP-848), assignor uniform", needs=("java",))
def uniform(ctx: Context) -> None:
    kafka = Kafka(ctx, ctx.broker())
    rebalances(ctx, kafka, kafka, "--group-protocol", "consumer")


@case("java.members-uniform-mixed", "the same with the consumer protocol, assignor range, members of 4.3 and of 3.9", needs=("java",))
def uniform_mixed(ctx: Context) -> None:
    broker = ctx.broker()
    extra = ("--group-protocol", "consumer", "--group-remote-assignor", "range")
    rebalances(ctx, Kafka(ctx, broker, NEW), Kafka(ctx, broker, OLD), *extra)


def static(ctx: Context, go: Callable[[Consumer], None], *args: str) -> None:
    """A static member that rejoins in time gets its partitions back, without a rebalance of the other member."""
    kafka = Kafka(ctx, ctx.broker())
    kafka.create("t", len(PARTITIONS))
    producer = Producer(kafka, "t", "--throughput", "200", "--repeating-keys", "100")
    join = lambda name: Consumer(kafka, "t", "g", "--verbose", "--group-instance-id", name, *args)  # noqa: E731
    one, two = join("one"), join("two")
    divided(one, two)
    before = set(two.assigned)
    rebalances_before = one.rebalances
    go(two)
    back = join("two")
    back.wait_for("it has its partitions again", lambda: back.assigned == before)
    back.wait_for("it reads on", lambda: back.count > 100)
    one.update()
    equal("rebalances that the other saw", one.rebalances, rebalances_before)
    divided(one, back)
    producer.close()
    read = lambda: {value for member in (one, two, back) for _, _, value in member.read}  # noqa: E731

    def everything() -> bool:
        for member in (one, two, back):
            member.update()
        return set(producer.acked) <= read()

    eventually("everything is read", everything)


@case("java.members-static", "a static member of the classic protocol dies and rejoins without a rebalance", needs=("java",))
def static_classic(ctx: Context) -> None:
    static(ctx, lambda member: member.process.kill())


@case("java.members-static-uniform", "a static member of the consumer protocol leaves and rejoins without a rebalance", needs=("java",))
def static_consumer(ctx: Context) -> None:
    # As in Kafka, a dead member cannot be replaced before its session timeout: UNRELEASED_INSTANCE_ID.
    static(ctx, Consumer.close, "--group-protocol", "consumer")

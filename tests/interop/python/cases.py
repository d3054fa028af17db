"""The cases of confluent-kafka, which is librdkafka for Python."""

from pathlib import Path

from clients.groups import by_pattern, come_and_go, outlive_the_broker, static_members
from clients.records import round_trip, through_crashes
from harness.cases import case
from harness.context import Context
from python.library import client


@case("python.records", "confluent-kafka writes with every codec, and reads back keys, values, headers and times", short=True)
def records(ctx: Context) -> None:
    """Round trips."""
    round_trip(ctx, client(ctx))


@case("python.admin", "confluent-kafka's AdminClient on topics, configurations, offsets, records and groups", short=True)
def admin(ctx: Context) -> None:
    """The program checks itself."""
    client(ctx).admin(ctx, ctx.broker())


@case("python.group-eager", "confluent-kafka members of a group join, leave and die; every rebalance stops all of them")
def group_eager(ctx: Context) -> None:
    """The classic protocol, range."""
    come_and_go(ctx, [client(ctx)], "range")


@case("python.group-cooperative", "confluent-kafka members join, leave and die; whoever stays goes on reading")
def group_cooperative(ctx: Context) -> None:
    """The classic protocol, cooperative-sticky."""
    come_and_go(ctx, [client(ctx)], "cooperative")


@case("python.group-consumer", "confluent-kafka members join, leave and die in the consumer protocol (KIP-848)")
def group_consumer(ctx: Context) -> None:
    """The broker assigns."""
    come_and_go(ctx, [client(ctx)], "consumer")


@case("python.group-static", "confluent-kafka members with an instance id come back after kill -9, and nobody else notices")
def group_static(ctx: Context) -> None:
    """The classic protocol, static members."""
    static_members(ctx, client(ctx), "cooperative")


@case("python.group-static-consumer", "members with an instance id come back in the consumer protocol (KIP-848)")
def group_static_consumer(ctx: Context) -> None:
    """The broker assigns, static members."""
    static_members(ctx, client(ctx), "consumer")


@case("python.group-broker-dies", "the broker is killed under confluent-kafka members of a group, which go on where they were")
def group_broker_dies(ctx: Context) -> None:
    """The classic protocol."""
    outlive_the_broker(ctx, client(ctx), "range")


@case("python.group-broker-dies-consumer", "the same in the consumer protocol (KIP-848)")
def group_broker_dies_consumer(ctx: Context) -> None:
    """The broker assigns."""
    outlive_the_broker(ctx, client(ctx), "consumer")


@case("python.group-pattern", "confluent-kafka members subscribe to a pattern, which the client matches")
def group_pattern(ctx: Context) -> None:
    """The classic protocol."""
    by_pattern(ctx, client(ctx), "range")


@case("python.group-pattern-consumer", "the same in the consumer protocol (KIP-848), where the broker matches")
def group_pattern_consumer(ctx: Context) -> None:
    """The broker assigns."""
    by_pattern(ctx, client(ctx), "consumer")


@case("python.records-broker-dies", "the broker is killed under confluent-kafka's idempotent producer: each record is there once, in order")
def records_broker_dies(ctx: Context) -> None:
    """Time and again."""
    through_crashes(ctx, client(ctx))


@case("python.refusals", "confluent-kafka stops at what is refused for good, transactions and SASL among it, and shows why", short=True)
def refusals(ctx: Context) -> None:
    """The program checks itself."""
    client(ctx).refusals(ctx, ctx.broker())


@case("python.compaction", "confluent-kafka reads the last value of every key of a compacted topic at any moment, and tombstones vanish")
def compaction(ctx: Context) -> None:
    """The program checks itself."""
    kafka, broker = client(ctx), ctx.broker()
    program = Path(kafka.argv["produce"][-1]).with_name("compaction.py")
    result = ctx.run([*kafka.argv["produce"][:-1], program, broker.kafka], name="python-compaction", env=kafka.env)
    ctx.note(result.lines[-1])

"""The cases of aiokafka."""

from aiokafka.library import client
from clients.groups import come_and_go, outlive_the_broker, static_members
from clients.records import round_trip, through_crashes
from harness.cases import case
from harness.context import Context


@case("aiokafka.records", "aiokafka writes with every codec, and reads back keys, values, headers and times", short=True)
def records(ctx: Context) -> None:
    """Round trips."""
    round_trip(ctx, client(ctx))


@case("aiokafka.admin", "aiokafka's admin client on topics, configurations, offsets by time, records and groups", short=True)
def admin(ctx: Context) -> None:
    """The program checks itself."""
    client(ctx).admin(ctx, ctx.broker())


@case("aiokafka.group", "aiokafka members of a group join, leave and die", short=True)
def group(ctx: Context) -> None:
    """The classic protocol, range."""
    come_and_go(ctx, [client(ctx)], "range")


@case("aiokafka.group-static", "aiokafka members with an instance id come back after kill -9, and nobody else notices")
def group_static(ctx: Context) -> None:
    """The classic protocol."""
    static_members(ctx, client(ctx), "range")


@case("aiokafka.group-broker-dies", "the broker is killed under aiokafka members of a group, which go on where they were")
def group_broker_dies(ctx: Context) -> None:
    """The classic protocol."""
    outlive_the_broker(ctx, client(ctx), "range")


@case("aiokafka.records-broker-dies", "the broker is killed under aiokafka's idempotent producer: each record is there once, in order")
def records_broker_dies(ctx: Context) -> None:
    """Time and again."""
    through_crashes(ctx, client(ctx))


@case("aiokafka.refusals", "aiokafka stops at what is refused for good, a transaction or a topic's name, and names the error", short=True)
def refusals(ctx: Context) -> None:
    """The program checks itself."""
    client(ctx).refusals(ctx, ctx.broker())

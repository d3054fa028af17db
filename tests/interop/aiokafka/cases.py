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
    """The program makes the assertions."""
    client(ctx).admin(ctx, ctx.broker())


@case("aiokafka.group", "aiokafka members of a group join, leave and die", short=True)
def group(ctx: Context) -> None:
    """The classic protocol, range."""
    come_and_go(ctx, [client(ctx)], "range")


@case("aiokafka.group-static", "static aiokafka members rejoin after kill -9 without a rebalance")
def group_static(ctx: Context) -> None:
    """The classic protocol."""
    static_members(ctx, client(ctx), "range")


@case("aiokafka.group-broker-dies", "aiokafka members of a group resume after a kill of the broker")
def group_broker_dies(ctx: Context) -> None:
    """The classic protocol."""
    outlive_the_broker(ctx, client(ctx), "range")


@case("aiokafka.records-broker-dies", "aiokafka's idempotent producer writes each record once, in order, through kills of the broker")
def records_broker_dies(ctx: Context) -> None:
    """The broker is killed repeatedly."""
    through_crashes(ctx, client(ctx))


@case("aiokafka.refusals", "aiokafka fails at once with permanent errors, such as those of transactions and invalid topic names, and names the error", short=True)
def refusals(ctx: Context) -> None:
    """The program makes the assertions."""
    client(ctx).refusals(ctx, ctx.broker())

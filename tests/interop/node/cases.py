"""The cases of kafkajs."""

from clients.groups import come_and_go, outlive_the_broker
from clients.records import round_trip
from harness.cases import case
from harness.context import Context
from node.library import client


@case("node.records", "kafkajs writes with gzip and Snappy, and reads back keys, values, headers and times", short=True, needs=("node", "npm"))
def records(ctx: Context) -> None:
    """Round trips."""
    round_trip(ctx, client(ctx))


@case("node.admin", "kafkajs's admin on topics, configurations, offsets, records and groups", short=True, needs=("node", "npm"))
def admin(ctx: Context) -> None:
    """The program makes the assertions."""
    client(ctx).admin(ctx, ctx.broker())


@case("node.group", "kafkajs members of a group join, leave and die", needs=("node", "npm"))
def group(ctx: Context) -> None:
    """The classic protocol, with kafkajs's own assignor, which is its only one."""
    come_and_go(ctx, [client(ctx)], "range")


@case("node.group-broker-dies", "kafkajs members of a group resume after a kill of the broker", needs=("node", "npm"))
def group_broker_dies(ctx: Context) -> None:
    """The classic protocol."""
    outlive_the_broker(ctx, client(ctx), "range")

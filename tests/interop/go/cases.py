"""The cases of franz-go."""

from clients.groups import come_and_go, outlive_the_broker, static_members
from clients.records import round_trip, through_crashes
from go.library import client
from go.own import run_own_tests
from harness.cases import case
from harness.context import Context


@case("go.records", "franz-go writes with every codec, and reads back keys, values, headers and times", short=True, needs=("go",))
def records(ctx: Context) -> None:
    """Round trips."""
    round_trip(ctx, client(ctx))


@case("go.admin", "kadm on topics, configurations, offsets, records and groups", short=True, needs=("go",))
def admin(ctx: Context) -> None:
    """The program makes the assertions."""
    client(ctx).admin(ctx, ctx.broker())


@case("go.group-eager", "franz-go members of a group join, leave and die, with eager rebalancing", needs=("go",))
def group_eager(ctx: Context) -> None:
    """The classic protocol, range."""
    come_and_go(ctx, [client(ctx)], "range")


@case("go.group-cooperative", "franz-go members join, leave and die, with cooperative rebalancing", short=True, needs=("go",))
def group_cooperative(ctx: Context) -> None:
    """The classic protocol, cooperative-sticky."""
    come_and_go(ctx, [client(ctx)], "cooperative")


@case("go.group-consumer", "franz-go members join, leave and die in the consumer protocol (KIP-848)", needs=("go",))
def group_consumer(ctx: Context) -> None:
    """The broker assigns."""
    come_and_go(ctx, [client(ctx)], "consumer")


@case("go.group-static", "static franz-go members rejoin after kill -9 without a rebalance", needs=("go",))
def group_static(ctx: Context) -> None:
    """The classic protocol only: in the consumer protocol, kgo leaves without its instance id, which Kafka and Highwater reject."""
    static_members(ctx, client(ctx), "cooperative")


@case("go.group-broker-dies", "franz-go members of a group resume after a kill of the broker", needs=("go",))
def group_broker_dies(ctx: Context) -> None:
    """The classic protocol."""
    outlive_the_broker(ctx, client(ctx), "range")


@case("go.group-broker-dies-consumer", "the same in the consumer protocol (KIP-848)", needs=("go",))
def group_broker_dies_consumer(ctx: Context) -> None:
    """The broker assigns."""
    outlive_the_broker(ctx, client(ctx), "consumer")


@case("go.records-broker-dies", "franz-go's idempotent producer writes each record once, in order, through kills of the broker", short=True, needs=("go",))
def records_broker_dies(ctx: Context) -> None:
    """The broker is killed repeatedly."""
    through_crashes(ctx, client(ctx))


@case("go.own-tests", "the integration tests of franz-go itself: pipelines of groups of every kind, produce, consume, pause", needs=("go",))
def own_tests(ctx: Context) -> None:
    """All tests of package kgo, except those of features that Highwater does not have."""
    run_own_tests(ctx, ctx.broker(), records=50_000)


@case("go.refusals", "franz-go fails at once with permanent errors, such as those of transactions and SASL, and shows the reason", short=True, needs=("go",))
def refusals(ctx: Context) -> None:
    """The program makes the assertions."""
    client(ctx).refusals(ctx, ctx.broker())

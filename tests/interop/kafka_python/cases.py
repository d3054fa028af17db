"""The cases of kafka-python."""

from clients.groups import come_and_go, outlive_the_broker, static_members
from clients.programs import Native
from clients.records import round_trip, through_crashes
from harness.broker import free_port
from harness.cases import case
from harness.context import Context
from harness.expect import equal
from kafka_python.library import client


@case("kafka-python.records", "kafka-python writes with every codec, and reads back keys, values, headers and times", short=True)
def records(ctx: Context) -> None:
    """Round trips."""
    round_trip(ctx, client(ctx))


@case("kafka-python.admin", "kafka-python's admin client on topics, configurations, offsets by time, records and groups", short=True)
def admin(ctx: Context) -> None:
    """The program makes the assertions."""
    client(ctx).admin(ctx, ctx.broker())


@case("kafka-python.group", "kafka-python members of a group join, leave and die", short=True)
def group(ctx: Context) -> None:
    """The classic protocol, range."""
    come_and_go(ctx, [client(ctx)], "range")


@case("kafka-python.group-static", "static kafka-python members rejoin after kill -9 without a rebalance")
def group_static(ctx: Context) -> None:
    """The classic protocol."""
    static_members(ctx, client(ctx), "range")


@case("kafka-python.group-broker-dies", "kafka-python members of a group resume after a kill of the broker")
def group_broker_dies(ctx: Context) -> None:
    """The classic protocol."""
    outlive_the_broker(ctx, client(ctx), "range")


@case("kafka-python.records-broker-dies", "kafka-python's idempotent producer writes each record once, in order, through kills of the broker")
def records_broker_dies(ctx: Context) -> None:
    """The broker is killed repeatedly."""
    through_crashes(ctx, client(ctx))


@case("kafka-python.addresses", "each listener advertises the address that the client connected to", short=True)
def addresses(ctx: Context) -> None:
    """One listener on the loopback address, and one on the wildcard address, which clients cannot connect to."""
    port, outside = free_port(), free_port()
    advertised = ("--kafka-advertise", f"auto,auto,localhost:{outside}", "--insecure")
    broker = ctx.broker(*advertised, also=(f"0.0.0.0:{port}", f"127.0.0.1:{outside}"))
    *python, program = client(ctx).argv["produce"]
    nodes = [*python, program.with_name("nodes.py")]
    for connect, advertised_address in (
        (broker.kafka, broker.kafka),
        (f"127.0.0.1:{port}", f"127.0.0.1:{port}"),
        (f"127.0.0.2:{port}", f"127.0.0.2:{port}"),
        (f"127.0.0.1:{outside}", f"localhost:{outside}"),
    ):
        equal(f"the advertised address for a client connected to {connect}", ctx.run([*nodes, connect]).lines, [advertised_address])
    Native().create(ctx, broker, "notes", 1)
    broker.kafka = f"127.0.0.2:{port}"
    client(ctx).write(ctx, broker, "notes", "none", ['{"key": "k", "value": "v", "headers": [], "timestamp": 1}'])
    equal("records written and read over it", len(client(ctx).read(ctx, broker, "notes", 1)), 1)


@case("kafka-python.refusals", "kafka-python fails at once with permanent errors, such as those of transactions and invalid topic names, and names the error", short=True)
def refusals(ctx: Context) -> None:
    """The program makes the assertions."""
    client(ctx).refusals(ctx, ctx.broker())

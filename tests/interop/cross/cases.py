"""Clients in different languages and with both protocols share topics and groups."""

from clients.groups import come_and_go
from clients.programs import Native
from clients.records import all_to_all
import go.library
from harness.cases import case
from harness.context import Context
import node.library
import python.library

EVERYBODY = ("go", "node", "npm")


@case("cross.records", "records of the native client and three Kafka clients are read by all, with the same partitions for keys", needs=EVERYBODY)
def records(ctx: Context) -> None:
    """Every codec that both sides have."""
    all_to_all(ctx, [Native(), python.library.client(ctx), go.library.client(ctx), node.library.client(ctx)])


@case("cross.native", "records written with the native protocol are read by a Kafka client, and vice versa", short=True)
def native(ctx: Context) -> None:
    """The same with one Kafka client."""
    all_to_all(ctx, [Native(), python.library.client(ctx)])


@case("cross.group", "members in Python and Go share a group of the classic protocol", needs=("go",))
def group(ctx: Context) -> None:
    """Their assignors have the same name and format."""
    come_and_go(ctx, [python.library.client(ctx), go.library.client(ctx)], "range")


@case("cross.group-consumer", "members in Python and Go share a group of the consumer protocol (KIP-848)", needs=("go",))
def group_consumer(ctx: Context) -> None:
    """The broker assigns."""
    come_and_go(ctx, [python.library.client(ctx), go.library.client(ctx)], "consumer")

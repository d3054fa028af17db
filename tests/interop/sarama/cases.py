"""The cases of sarama."""

import json
import time

from clients.groups import come_and_go, outlive_the_broker, static_members
from clients.programs import Native
from clients.records import round_trip, through_crashes
from harness.cases import case
from harness.context import Context
from harness.expect import equal, eventually
from sarama.library import CURRENT, client, program

OLD = "1.0.0"
"""`config.Version = sarama.V1_0_0_0`, which many programs say: requests of 2017."""
HOUR_MS = 3_600_000
HANG = 120.0
"""Seconds after which retention is taken to hang; it comes by every 15."""


@case("sarama.records", "sarama writes with every codec, and reads back keys, values, headers and times", short=True, needs=("go",))
def records(ctx: Context) -> None:
    """Round trips."""
    round_trip(ctx, client(ctx))


@case("sarama.records-1.0", "the same with the requests of Kafka 1.0", short=True, needs=("go",))
def records_old(ctx: Context) -> None:
    """Round trips."""
    round_trip(ctx, client(ctx, OLD))


@case("sarama.admin", "sarama's ClusterAdmin on topics, configurations, offsets by time, records and groups", short=True, needs=("go",))
def admin(ctx: Context) -> None:
    """The program checks itself."""
    client(ctx).admin(ctx, ctx.broker())


@case("sarama.admin-1.0", "the same with the requests of Kafka 1.0", short=True, needs=("go",))
def admin_old(ctx: Context) -> None:
    """The program checks itself."""
    client(ctx, OLD).admin(ctx, ctx.broker())


@case("sarama.admin-newest", "the same with the newest requests that sarama knows", needs=("go",))
def admin_newest(ctx: Context) -> None:
    """The program checks itself."""
    client(ctx, "4.1.0").admin(ctx, ctx.broker())


@case("sarama.group", "sarama members of a group join, leave and die", short=True, needs=("go",))
def group(ctx: Context) -> None:
    """The classic protocol, range."""
    come_and_go(ctx, [client(ctx)], "range")


@case("sarama.group-1.0", "the same with the requests of Kafka 1.0", needs=("go",))
def group_old(ctx: Context) -> None:
    """The classic protocol, range."""
    come_and_go(ctx, [client(ctx, OLD)], "range")


@case("sarama.group-static", "sarama members with an instance id come back after kill -9, and nobody else notices", needs=("go",))
def group_static(ctx: Context) -> None:
    """The classic protocol."""
    static_members(ctx, client(ctx), "range")


@case("sarama.group-broker-dies", "the broker is killed under sarama members of a group, which go on where they were", needs=("go",))
def group_broker_dies(ctx: Context) -> None:
    """The classic protocol."""
    outlive_the_broker(ctx, client(ctx), "range")


@case("sarama.records-broker-dies", "the broker is killed under sarama's idempotent producer: each record is there once, in order", needs=("go",))
def records_broker_dies(ctx: Context) -> None:
    """Time and again."""
    through_crashes(ctx, client(ctx))


@case("sarama.no-max-timestamp", "fresh records outlive retention though the producer leaves the batch's largest timestamp unset", short=True, needs=("go",))
def no_max_timestamp(ctx: Context) -> None:
    """sarama 1.43 leaves it at -1. A record of long ago in front of them, which retention deletes, does not take them with it."""
    broker, native = ctx.broker(), Native()
    old = json.dumps({"value": "long ago", "headers": [], "timestamp": int(time.time() * 1000) - 2 * HOUR_MS})
    for topic in ("mixed", "aged"):
        native.run(ctx, broker, "topic", "create", topic, "--partitions", "1", "--config", f"retention.ms={HOUR_MS}")
        native.write(ctx, broker, topic, "none", [old])
    ctx.run([program(ctx, "old.mod"), CURRENT, "fresh", broker.kafka, "mixed", "20"], name="sarama-fresh")

    def bounds(topic: str) -> tuple[int, int]:
        described = json.loads("".join(native.run(ctx, broker, "topic", "describe", topic, "--json")))["partitions"][0]
        return described["log_start"], described["high_watermark"]

    # Two records of long ago, each deleted before the next is written: retention has looked at both topics meanwhile.
    eventually("retention deletes a record of long ago", lambda: bounds("aged") == (1, 1), HANG)
    native.write(ctx, broker, "aged", "none", [old])
    eventually("retention deletes another one", lambda: bounds("aged") == (2, 2), HANG)
    values = [json.loads(text)["value"] for text in native.run(ctx, broker, "consume", "mixed", "--json")]
    equal("the fresh records", values[-20:], [f"fresh {n}" for n in range(20)])


@case("sarama.refusals", "sarama stops at what is refused for good, transactions and SASL among it, and shows why", short=True, needs=("go",))
def refusals(ctx: Context) -> None:
    """The program checks itself."""
    client(ctx).refusals(ctx, ctx.broker())

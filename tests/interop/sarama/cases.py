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
"""`config.Version = sarama.V1_0_0_0`, as in many programs: request versions of 2017."""
HOUR_MS = 3_600_000
HANG = 120.0
"""Seconds after which retention is considered to hang. It runs every 15 s."""


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
    """The program makes the assertions."""
    client(ctx).admin(ctx, ctx.broker())


@case("sarama.admin-1.0", "the same with the requests of Kafka 1.0", short=True, needs=("go",))
def admin_old(ctx: Context) -> None:
    """The program makes the assertions."""
    client(ctx, OLD).admin(ctx, ctx.broker())


@case("sarama.admin-newest", "the same with the newest requests that sarama knows", needs=("go",))
def admin_newest(ctx: Context) -> None:
    """The program makes the assertions."""
    client(ctx, "4.1.0").admin(ctx, ctx.broker())


@case("sarama.group", "sarama members of a group join, leave and die", short=True, needs=("go",))
def group(ctx: Context) -> None:
    """The classic protocol, range."""
    come_and_go(ctx, [client(ctx)], "range")


@case("sarama.group-1.0", "the same with the requests of Kafka 1.0", needs=("go",))
def group_old(ctx: Context) -> None:
    """The classic protocol, range."""
    come_and_go(ctx, [client(ctx, OLD)], "range")


@case("sarama.group-static", "static sarama members rejoin after kill -9 without a rebalance", needs=("go",))
def group_static(ctx: Context) -> None:
    """The classic protocol."""
    static_members(ctx, client(ctx), "range")


@case("sarama.group-broker-dies", "sarama members of a group resume after a kill of the broker", needs=("go",))
def group_broker_dies(ctx: Context) -> None:
    """The classic protocol."""
    outlive_the_broker(ctx, client(ctx), "range")


@case("sarama.records-broker-dies", "sarama's idempotent producer writes each record once, in order, through kills of the broker", needs=("go",))
def records_broker_dies(ctx: Context) -> None:
    """The broker is killed repeatedly."""
    through_crashes(ctx, client(ctx))


@case("sarama.no-max-timestamp", "retention keeps recent records even if the producer leaves the batch's maximum timestamp unset", short=True, needs=("go",))
def no_max_timestamp(ctx: Context) -> None:
    """sarama 1.43 leaves it at -1. Retention deletes an old record before them, but not the recent ones."""
    broker, native = ctx.broker(), Native()
    old = json.dumps({"value": "long ago", "headers": [], "timestamp": int(time.time() * 1000) - 2 * HOUR_MS})
    for topic in ("mixed", "aged"):
        native.run(ctx, broker, "topic", "create", topic, "--partitions", "1", "--config", f"retention.ms={HOUR_MS}")
        native.write(ctx, broker, topic, "none", [old])
    ctx.run([program(ctx, "old.mod"), CURRENT, "fresh", broker.kafka, "mixed", "20"], name="sarama-fresh")

    def bounds(topic: str) -> tuple[int, int]:
        described = json.loads("".join(native.run(ctx, broker, "topic", "describe", topic, "--json")))["partitions"][0]
        return described["log_start"], described["high_watermark"]

    # Two old records, the second written after the first is deleted: retention has checked both topics meanwhile.
    eventually("retention deletes an old record", lambda: bounds("aged") == (1, 1), HANG)
    native.write(ctx, broker, "aged", "none", [old])
    eventually("retention deletes another one", lambda: bounds("aged") == (2, 2), HANG)
    values = [json.loads(text)["value"] for text in native.run(ctx, broker, "consume", "mixed", "--json")]
    equal("the fresh records", values[-20:], [f"fresh {n}" for n in range(20)])


@case("sarama.refusals", "sarama fails at once with permanent errors, such as those of transactions and SASL, and shows the reason", short=True, needs=("go",))
def refusals(ctx: Context) -> None:
    """The program makes the assertions."""
    client(ctx).refusals(ctx, ctx.broker())

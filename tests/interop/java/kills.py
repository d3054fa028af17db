"""The broker is killed repeatedly while an idempotent producer and a group work: no acknowledged record is lost or duplicated."""

import os
import random
import time

from harness.cases import case
from harness.context import Context
from harness.expect import Failed, equal, eventually, same_items
from java.kafka import NEW, OLD, Kafka
from java.verifiable import Consumer, Producer

PARTITIONS = 3
REPLACED_EVERY = 4
"""Number of kills after which a member is killed with the broker and replaced."""


def cycles(ctx: Context) -> int:
    """Returns the number of kills."""
    named = os.environ.get("HIGHWATER_INTEROP_CYCLES")
    return int(named) if named else 5 if ctx.short else 200


class Floor:
    """The offsets that members knew to be committed at the last kill of the broker."""

    def __init__(self) -> None:
        self.killed_at = 0.0
        self.offsets: dict[int, int] = {}

    def rise(self, killed_at: float, members: list["Member"]) -> None:
        """Updates the offsets. Committed offsets only grow, so missing the latest ones weakens the check but does not invalidate it."""
        self.killed_at = killed_at
        for member in members:
            for partition, offset in member.committed.items():
                self.offsets[partition] = max(self.offsets.get(partition, 0), offset)


class Member(Consumer):
    """A member that checks the first offset it reads after the assignment of a partition, and that there are no gaps after it."""

    def __init__(self, kafka: Kafka, floor: Floor, *args: str) -> None:
        self._floor = floor
        self._from: dict[int, int] = {}
        """Minimum first offset of assigned partitions from which nothing was read yet."""
        self._next: dict[int, int] = {}
        """Next expected offset of the other assigned partitions."""
        super().__init__(kafka, "t", "g", "--verbose", *args)

    def on_event(self, name: str, event: dict) -> None:
        """Updates and checks the positions."""
        super().on_event(name, event)
        if name == "partitions_assigned":
            # A member that is assigned a partition after the kill must see the commits before it.
            after = event["timestamp"] / 1000 > self._floor.killed_at
            for each in event["partitions"]:
                self._from[each["partition"]] = self._floor.offsets.get(each["partition"], 0) if after else 0
        elif name == "record_data":
            self._position(event["partition"], event["offset"])

    def _position(self, partition: int, offset: int) -> None:
        least = self._from.pop(partition, None)
        if least is not None and offset < least:
            raise Failed(f"offset {least} of partition {partition} was committed, but a member resumes at {offset}")
        if least is None and offset != self._next[partition]:
            raise Failed(f"partition {partition}: expected offset {self._next[partition]}, read {offset}")
        self._next[partition] = offset + 1


def producer(kafka: Kafka) -> Producer:
    """Starts a VerifiableProducer with retries and idempotence, which it disables by default."""
    config = kafka.properties("producer", {"enable.idempotence": "true", "retries": 2147483647, "delivery.timeout.ms": 600_000})
    option = "--command-config" if kafka.version == NEW else "--producer.config"
    return Producer(kafka, "t", "--acks", "-1", "--throughput", "2000", "--repeating-keys", "1000", option, config)


def read_all(kafka: Kafka, count: int) -> list[tuple[int, tuple[int, int]]]:
    """Reads the topic. Returns the value and the position of each record."""
    shown = [word for each in ("partition", "offset") for word in ("--formatter-property", f"print.{each}=true")]
    lines = kafka.tool("console-consumer", "--topic", "t", "--from-beginning", "--max-messages", str(count), *shown).lines
    rows = (line.split("\t") for line in lines)
    return [(int(value), (int(partition.split(":")[1]), int(offset.split(":")[1]))) for partition, offset, value in rows]


def kills(ctx: Context, version: str, *args: str) -> None:
    """Kills the broker after given numbers of acknowledgements. Then compares the acknowledgements with the topic."""
    chance = random.Random()
    broker = ctx.broker()
    newest, kafka = Kafka(ctx, broker), Kafka(ctx, broker, version)
    newest.create("t", PARTITIONS)
    floor = Floor()
    sender = producer(kafka)
    members = [Member(kafka, floor, *args) for _ in range(2)]
    living = list(members)
    rounds = cycles(ctx)
    for number in range(rounds):
        sender.wait_for_more(chance.randrange(1, 3000))
        broker.kill9()
        killed_at = time.time()
        for member in members:
            member.update()
        floor.rise(killed_at, members)
        if number % REPLACED_EVERY == REPLACED_EVERY - 1:
            living.pop(0).process.kill()
            living.append(Member(kafka, floor, *args))
            members.append(living[-1])
        broker.start()
    sender.wait_for_more(1000)
    sender.close()
    equal("records that the producer could not send", sender.errors, [])

    ends = newest.tool("get-offsets", "--topic", "t").lines
    found = read_all(newest, sum(int(line.split(":")[2]) for line in ends))
    places = dict(found)
    same_items("values in the log, each once", [value for value, _ in found], range(len(found)))
    wrong = [(value, place, places.get(value)) for value, place in sender.acked.items() if places.get(value) != place]
    equal("acknowledged records that are not at the acknowledged position", wrong[:10], [])

    read: set[tuple[int, int]] = set()

    def everything() -> bool:
        for member in members:
            member.update()
            read.update((partition, offset) for partition, offset, _ in member.read)
            member.read.clear()
        return read >= set(places.values())

    eventually("the group has read everything", everything)
    ctx.note(f"{rounds} kills, {len(sender.acked)} acknowledged, {len(found)} in the log, {len(members)} members in all")


@case("java.kills", "kill -9 of the broker under an idempotent producer and a classic group of 4.3", short=True, needs=("java",))
def new(ctx: Context) -> None:
    kills(ctx, NEW, "--session-timeout", "6000")


@case("java.kills-consumer", "the same with a group of the consumer protocol", needs=("java",))
def new_consumer(ctx: Context) -> None:
    kills(ctx, NEW, "--group-protocol", "consumer")


@case("java.kills-old", "the same with clients of 3.9 and a classic group", needs=("java",))
def old(ctx: Context) -> None:
    kills(ctx, OLD, "--session-timeout", "6000")

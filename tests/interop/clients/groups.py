"""Group scenarios: members join, leave and die during writes. No record is missed, and each partition has one owner in the end."""

from collections.abc import Callable, Sequence
import itertools
import json
import signal

from clients.programs import Kafka, Native
from harness.broker import Broker
from harness.context import Context
from harness.expect import Failed, equal, eventually, same_items, true
from harness.proc import Process

GROUP = "workers"
TOPIC = "work"
PARTITIONS = 6
HANG = 300.0
"""Seconds after which a group is considered to hang. The session timeout of the consumer protocol alone is 45 s."""
BURST = 60
"""Number of records written after each change."""


class Member:
    """A running member. Its state is derived from its output."""

    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        self.process = process

    def _events(self, field: str) -> list:
        return [event[field] for event in map(json.loads, self.process.lines) if field in event]

    @property
    def assignments(self) -> list[list[int]]:
        """Returns the partitions it owned after each change."""
        return self._events("owns")

    @property
    def owns(self) -> list[int]:
        """Returns the partitions it owns."""
        return (self.assignments or [[]])[-1]

    @property
    def seen(self) -> list[str]:
        """Returns the values it has read."""
        return self._events("value")

    def leave(self) -> None:
        """Stops it with SIGTERM, so that it leaves the group."""
        self.process.signal(signal.SIGTERM)
        self.process.wait()

    def die(self) -> None:
        """Kills it with SIGKILL."""
        self.process.kill()


class Group:
    """The group of a case: its topic, and all current and former members."""

    def __init__(self, ctx: Context, protocol: str) -> None:
        self.ctx = ctx
        self.protocol = protocol
        self.broker: Broker = ctx.broker()
        self._native = Native()
        self._native.create(ctx, self.broker, TOPIC, PARTITIONS)
        self.written: list[str] = []
        self._names = itertools.count(1)
        self._members: list[Member] = []

    def join(self, client: Kafka, instance: str | None = None, topic: str = TOPIC) -> Member:
        """Starts another member. `topic` may be a pattern."""
        words = [GROUP, topic, self.protocol, *([instance] if instance else [])]
        member = Member(f"member {next(self._names)} ({client.name})", client.member(self.ctx, self.broker, *words))
        self._members.append(member)
        return member

    def settle(self, members: Sequence[Member]) -> None:
        """Waits until the partitions are divided evenly among these members; then writes, and waits until all records are read."""

        def divided() -> bool:
            owned = sorted(partition for member in members for partition in member.owns)
            even = {len(member.owns) for member in members} == {PARTITIONS // len(members)}
            return even and owned == list(range(PARTITIONS))

        names = ", ".join(member.name for member in members)
        self._await(f"{names} own the {PARTITIONS} partitions", members, divided)
        self.write()
        self._await(f"{names} have read all records", members, lambda: set(self.written) <= self._seen())

    def write(self) -> list[str]:
        """Writes more records to all partitions."""
        values = [f"task {len(self.written) + n}" for n in range(BURST)]
        lines = [json.dumps({"key": value, "value": value, "headers": []}) for value in values]
        self._native.write(self.ctx, self.broker, TOPIC, "none", lines)
        self.written += values
        return values

    def _seen(self) -> set[str]:
        return {value for member in self._members for value in member.seen}

    def _await(self, what: str, members: Sequence[Member], probe: Callable[[], bool]) -> None:
        def unless_somebody_ended() -> bool:
            for member in members:
                if not member.process.running:
                    raise Failed(f"{member.name} has ended unexpectedly\n{member.process.story()}")
            return probe()

        try:
            eventually(what, unless_somebody_ended, HANG)
        except Failed as failed:
            owned = "; ".join(f"{member.name} owns {member.owns}" for member in self._members)
            missing = sorted(set(self.written) - self._seen())
            raise Failed(f"{failed}: {owned}; {len(missing)} records were not read, such as {missing[:5]}") from None


def come_and_go(ctx: Context, clients: Sequence[Kafka], protocol: str) -> None:
    """Members of these clients join, leave and are killed. The last ones leave, and one rejoins."""
    group, clients = Group(ctx, protocol), itertools.cycle(clients)
    first = group.join(next(clients))
    group.settle([first])
    second, third = group.join(next(clients)), group.join(next(clients))
    group.settle([first, second, third])
    second.leave()
    group.settle([first, third])
    third.die()
    group.settle([first])
    if protocol != "range":
        true("the member that stays always owns partitions", [] not in first.assignments[1:], first.assignments)
    fourth = group.join(next(clients))
    group.settle([first, fourth])
    first.leave()
    fourth.leave()

    new = group.write()
    last = group.join(next(clients))
    group.settle([last])
    same_items("what a member reads that joins after all have left", last.seen, [*new, *group.written[-BURST:]])
    last.leave()


def static_members(ctx: Context, client: Kafka, protocol: str) -> None:
    """A static member leaves and rejoins: it gets its partitions back, without a rebalance of the others.

    It is not the leader of the group, which is the first member to join: some clients request a rebalance when the leader rejoins.
    """
    group = Group(ctx, protocol)
    stays = group.join(client, "a")
    group.settle([stays])
    goes = group.join(client, "b")
    group.settle([stays, goes])
    before = len(stays.assignments)
    if protocol == "consumer":
        # It announces its return. The instance id of a dead member is free only after the session timeout, also in Kafka.
        goes.leave()
    else:
        goes.die()
    again = group.join(client, "b")
    group.settle([stays, again])
    assigned = [owned for owned in goes.assignments if owned][-1]
    equal("partitions of the member that rejoined", again.owns, assigned)
    equal("changes of the partitions of the member that stayed", len(stays.assignments) - before, 0)
    stays.leave()
    again.leave()


def outlive_the_broker(ctx: Context, client: Kafka, protocol: str) -> None:
    """The broker is killed and restarted twice while members read. They resume where they were."""
    group = Group(ctx, protocol)
    members = [group.join(client), group.join(client)]
    group.settle(members)
    for _ in range(2):
        group.broker.kill9()
        group.broker.start()
        group.settle(members)
    for member in members:
        member.leave()
    new = group.write()
    last = group.join(client)
    group.settle([last])
    same_items("what a member reads that joins after all have left", last.seen, [*new, *group.written[-BURST:]])
    last.leave()


def by_pattern(ctx: Context, client: Kafka, protocol: str) -> None:
    """A member that subscribes to a pattern gets the matching topic, and shares it with a second member."""
    group = Group(ctx, protocol)
    Native().create(ctx, group.broker, "play", PARTITIONS)
    members = [group.join(client, topic="^w.rk$")]
    group.settle(members)
    members.append(group.join(client, topic="^w.rk$"))
    group.settle(members)
    for member in members:
        member.leave()

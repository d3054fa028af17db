"""A group whose members join, leave and die while records keep coming: none is missed, and each partition has one owner in the end."""

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
"""Seconds after which a group is taken to hang: sessions of the consumer protocol alone are 45 of them."""
BURST = 60
"""Records that are written after each change."""


class Member:
    """A running member, as what it printed tells."""

    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        self.process = process

    def _events(self, field: str) -> list:
        return [event[field] for event in map(json.loads, self.process.lines) if field in event]

    @property
    def assignments(self) -> list[list[int]]:
        """The partitions it has owned, after each change."""
        return self._events("owns")

    @property
    def owns(self) -> list[int]:
        """The partitions it owns."""
        return (self.assignments or [[]])[-1]

    @property
    def seen(self) -> list[str]:
        """The values it has read."""
        return self._events("value")

    def leave(self) -> None:
        """In order."""
        self.process.signal(signal.SIGTERM)
        self.process.wait()

    def die(self) -> None:
        """kill -9."""
        self.process.kill()


class Group:
    """The group of a case, its topic, and who was ever in it."""

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
        """One more member; `topic` may be a pattern."""
        words = [GROUP, topic, self.protocol, *([instance] if instance else [])]
        member = Member(f"member {next(self._names)} ({client.name})", client.member(self.ctx, self.broker, *words))
        self._members.append(member)
        return member

    def settle(self, members: Sequence[Member]) -> None:
        """Waits until these own the partitions, each as many as another; then writes, and waits until all of it was read."""

        def divided() -> bool:
            owned = sorted(partition for member in members for partition in member.owns)
            even = {len(member.owns) for member in members} == {PARTITIONS // len(members)}
            return even and owned == list(range(PARTITIONS))

        names = ", ".join(member.name for member in members)
        self._await(f"{names} own the {PARTITIONS} partitions", members, divided)
        self.write()
        self._await(f"{names} have read what was written", members, lambda: set(self.written) <= self._seen())

    def write(self) -> list[str]:
        """Some more records, on all partitions."""
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
                    raise Failed(f"{member.name} has ended by itself\n{member.process.story()}")
            return probe()

        try:
            eventually(what, unless_somebody_ended, HANG)
        except Failed as failed:
            owned = "; ".join(f"{member.name} owns {member.owns}" for member in self._members)
            missing = sorted(set(self.written) - self._seen())
            raise Failed(f"{failed}: {owned}; {len(missing)} records were read by nobody, such as {missing[:5]}") from None


def come_and_go(ctx: Context, clients: Sequence[Kafka], protocol: str) -> None:
    """Members of these clients, in turn, join, leave in order, and are killed. The last ones leave, and one comes back."""
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
        true("whoever stays keeps partitions all the time", [] not in first.assignments[1:], first.assignments)
    fourth = group.join(next(clients))
    group.settle([first, fourth])
    first.leave()
    fourth.leave()

    new = group.write()
    last = group.join(next(clients))
    group.settle([last])
    same_items("what a member reads that comes when all have left", last.seen, [*new, *group.written[-BURST:]])
    last.leave()


def static_members(ctx: Context, client: Kafka, protocol: str) -> None:
    """A member with a name goes and comes back: it has its partitions again, and the others do not notice.

    It is not the leader of the group, which the first one to join is: some clients ask for a rebalance when they come back as that.
    """
    group = Group(ctx, protocol)
    stays = group.join(client, "a")
    group.settle([stays])
    goes = group.join(client, "b")
    group.settle([stays, goes])
    before = len(stays.assignments)
    if protocol == "consumer":
        # It says that it will be back. A name whose member died is free when the session ends, in Kafka, too.
        goes.leave()
    else:
        goes.die()
    again = group.join(client, "b")
    group.settle([stays, again])
    assigned = [owned for owned in goes.assignments if owned][-1]
    equal("partitions of the member that came back", again.owns, assigned)
    equal("changes of the partitions of the member that stayed", len(stays.assignments) - before, 0)
    stays.leave()
    again.leave()


def outlive_the_broker(ctx: Context, client: Kafka, protocol: str) -> None:
    """The broker is killed and started again, twice, under members that read: they go on where they were."""
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
    same_items("what a member reads that comes when all have left", last.seen, [*new, *group.written[-BURST:]])
    last.leave()


def by_pattern(ctx: Context, client: Kafka, protocol: str) -> None:
    """A member that subscribes to a pattern gets the topic that matches, and with another member its part of it."""
    group = Group(ctx, protocol)
    Native().create(ctx, group.broker, "play", PARTITIONS)
    members = [group.join(client, topic="^w.rk$")]
    group.settle(members)
    members.append(group.join(client, topic="^w.rk$"))
    group.settle(members)
    for member in members:
        member.leave()

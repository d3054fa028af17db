"""A member of a group: member.py BOOTSTRAP GROUP TOPIC range|cooperative|consumer [INSTANCE].

Prints a line of JSON for each change of the partitions it owns and for each record, and commits what it printed. Leaves on SIGTERM.
"""

import json
import signal
import sys

from confluent_kafka import Consumer, KafkaException, TopicPartition

PROTOCOLS = {
    "range": {"partition.assignment.strategy": "range", "session.timeout.ms": 6000},
    "cooperative": {"partition.assignment.strategy": "cooperative-sticky", "session.timeout.ms": 6000},
    "consumer": {"group.protocol": "consumer"},
}


def say(**event) -> None:
    """Prints an event at once, as the scenario waits for it."""
    print(json.dumps(event), flush=True)


def main(bootstrap: str, group: str, topic: str, protocol: str, instance: str | None = None) -> None:
    config = {"bootstrap.servers": bootstrap, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False}
    config |= PROTOCOLS[protocol]
    if instance is not None:
        config["group.instance.id"] = instance
        if "session.timeout.ms" in config:
            # The session of a static member must outlast its restart.
            config["session.timeout.ms"] = 45000
    consumer = Consumer(config)
    owned: set[int] = set()

    def assigned(_, partitions: list[TopicPartition]) -> None:
        owned.update(p.partition for p in partitions)
        say(owns=sorted(owned))

    def revoked(_, partitions: list[TopicPartition]) -> None:
        owned.difference_update(p.partition for p in partitions)
        say(owns=sorted(owned))

    consumer.subscribe([topic], on_assign=assigned, on_revoke=revoked, on_lost=revoked)
    running = True

    def stop(*_) -> None:
        nonlocal running
        running = False

    signal.signal(signal.SIGTERM, stop)
    while running:
        messages = consumer.consume(100, timeout=0.2)
        for message in messages:
            if message.error():
                raise SystemExit(f"cannot read {topic}: {message.error()}")
            say(partition=message.partition(), offset=message.offset(), value=message.value().decode())
        if messages:
            try:
                consumer.commit(asynchronous=False)
            except KafkaException as error:
                # The group has rebalanced meanwhile; the new owners of the partitions read these records again.
                say(commit_refused=str(error))
    consumer.close()


main(*sys.argv[1:])

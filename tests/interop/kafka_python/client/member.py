"""A member of a group: member.py BOOTSTRAP GROUP TOPIC range [INSTANCE].

Prints a line of JSON for each change of the partitions it owns and for each record, and commits what it printed. Leaves on SIGTERM.
"""

import json
import signal
import sys

from kafka import ConsumerRebalanceListener, KafkaConsumer
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import KafkaError


def say(**event) -> None:
    """Prints an event at once, as the scenario waits for it."""
    print(json.dumps(event), flush=True)


class Owned(ConsumerRebalanceListener):
    """Prints the partitions that the member owns."""

    def on_partitions_assigned(self, assigned) -> None:
        """Called with the partitions of the new generation."""
        say(owns=sorted(p.partition for p in assigned))

    def on_partitions_revoked(self, revoked) -> None:
        """Called with all partitions of the old generation."""
        say(owns=[])


def main(bootstrap: str, group: str, topic: str, _protocol: str, instance: str | None = None) -> None:
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=group,
        group_instance_id=instance,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=45_000 if instance else 6_000,
        heartbeat_interval_ms=1_000,
        partition_assignment_strategy=[RangePartitionAssignor],
    )
    running = True

    def stop(*_) -> None:
        nonlocal running
        running = False

    signal.signal(signal.SIGTERM, stop)
    consumer.subscribe([topic], listener=Owned())
    while running:
        fetched = consumer.poll(timeout_ms=200)
        for record in (record for records in fetched.values() for record in records):
            say(partition=record.partition, offset=record.offset, value=record.value.decode())
        if fetched:
            try:
                consumer.commit()
            except KafkaError as error:
                # The group has rebalanced meanwhile; the new owners of the partitions read these records again.
                say(commit_refused=str(error))
    consumer.close()


main(*sys.argv[1:])

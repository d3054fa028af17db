"""VerifiableProducer and VerifiableConsumer, which print their events as JSON."""

from collections.abc import Callable, Sequence
import json
from pathlib import Path

from harness.proc import DEADLINE, Process
from java.kafka import Kafka


AFTER_THE_END = ("Cannot perform operation after producer has been closed", "Producer closed while send in progress")
"""Errors of the record that the producer was about to send when it was stopped: its loop runs concurrently with the shutdown, and checks only
before each record whether to stop. The producer looks whether it was closed when it is given a record, and again before it adds it to a batch.
The record was never sent."""


class Verifiable:
    """One of the programs as a process, and its events, each of which is processed once."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self._seen = 0
        self._is_ending = False

    def update(self) -> None:
        """Processes the events since the last call."""
        self._take(self.process.lines_from(self._seen))

    def _take(self, lines: Sequence[str]) -> None:
        self._seen += len(lines)
        for line in lines:
            if line.startswith("{"):
                event = json.loads(line)
                self.on_event(event["name"], event)

    def on_event(self, name: str, event: dict) -> None:
        """Processes an event. Overridden by the subclasses."""
        raise NotImplementedError

    def wait_for(self, what: str, holds: Callable[[], object], deadline: float = DEADLINE) -> None:
        """Waits until `holds` returns true. It is called after every new event."""

        def look(lines: Sequence[str]) -> object:
            self._take(lines[self._seen :])
            return holds()

        self.process.wait_for(what, look, deadline)

    def close(self) -> None:
        """Stops it with SIGTERM, and processes the remaining events."""
        self.update()
        self._is_ending = True
        self.process.stop()
        self.update()

    def finish(self) -> None:
        """Waits for its successful end, and processes the remaining events."""
        self.process.wait()
        self.update()


class Producer(Verifiable):
    """VerifiableProducer: sends 0, 1, 2, … and prints the acknowledged positions."""

    def __init__(self, kafka: Kafka, topic: str, *args: str | Path) -> None:
        self.acked: dict[int, tuple[int, int]] = {}
        """Partition and offset of each acknowledged value."""
        self.errors: list[str] = []
        super().__init__(kafka.start("verifiable-producer", "--topic", topic, *args))

    def wait_for_more(self, count: int) -> None:
        """Waits for this number of acknowledgements after those printed so far, whether or not they were processed."""
        self.update()
        goal = len(self.acked) + count
        self.wait_for(f"{count} more acknowledgements", lambda: len(self.acked) >= goal)

    def on_event(self, name: str, event: dict) -> None:
        """Processes acknowledgements and errors."""
        if name == "producer_send_success":
            self.acked[int(event["value"])] = (event["partition"], event["offset"])
        elif name == "producer_send_error" and not (self._is_ending and event["message"] in AFTER_THE_END):
            self.errors.append(event["message"])


class Consumer(Verifiable):
    """VerifiableConsumer: a member of a group that commits after every poll."""

    def __init__(self, kafka: Kafka, topic: str, group: str, *args: str | Path) -> None:
        self.assigned: set[int] = set()
        self.rebalances = 0
        """Number of assignments and revocations."""
        self.read: list[tuple[int, int, int]] = []
        """Partition, offset and value of each record, with `--verbose`."""
        self.count = 0
        """Number of records read."""
        self.committed: dict[int, int] = {}
        """Offsets that it knows to be committed."""
        super().__init__(kafka.start("verifiable-consumer", "--topic", topic, "--group-id", group, *args))

    def on_event(self, name: str, event: dict) -> None:
        """Processes assignments, records and commits."""
        if name == "partitions_assigned":
            self.assigned |= {each["partition"] for each in event["partitions"]}
            self.rebalances += 1
        elif name == "partitions_revoked":
            self.assigned -= {each["partition"] for each in event["partitions"]}
            self.rebalances += 1
        elif name == "record_data":
            self.read.append((event["partition"], event["offset"], int(event["value"])))
        elif name == "records_consumed":
            self.count += event["count"]
        elif name == "offsets_committed" and event["success"]:
            self.committed.update({each["partition"]: each["offset"] for each in event["offsets"]})

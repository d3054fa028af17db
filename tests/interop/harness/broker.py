"""The broker under test."""

from collections.abc import Callable, Sequence
from pathlib import Path
import random
import re
import signal
import socket
import threading

from harness.expect import Failed
from harness.proc import Process

READY = re.compile(r"^ready native=(\S+) kafka=(\S+) ")

_given: set[int] = set()
_given_lock = threading.Lock()


def free_port() -> int:
    """Returns a free port below the range for outgoing connections.

    Port 0 would give a port in that range. While a broker is down for a restart, clients keep connecting to its port, and such a
    connection may use the same port as its source: TCP then connects it to itself, and the broker cannot bind the port.

    No port is returned twice in a run: it is free until its broker starts, and while that broker is down.
    """
    while True:
        port = random.randrange(20000, 30000)
        with _given_lock, socket.socket() as probe:
            if port in _given:
                continue
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            _given.add(port)
            return port


class Broker:
    """A broker process. Its addresses and its data stay the same across restarts."""

    def __init__(
        self,
        program: Path,
        data: Path,
        start: Callable[[str, Sequence[str | Path]], Process],
        flags: Sequence[str],
        also: Sequence[str] = (),
    ) -> None:
        self.program = program
        self.data = data
        self._start = start
        self._flags = list(flags)
        self._also = list(also)
        self._starts = 0
        self._process: Process | None = None
        self.kafka = self._first = f"127.0.0.1:{free_port()}"
        """`host:port` of the bootstrap server for Kafka clients. A case may set it to another listener."""
        self.native = f"127.0.0.1:{free_port()}"
        """`host:port` of the native listener, for `highwater --server`."""
        self.start()

    @property
    def process(self) -> Process:
        """Returns the process of the running broker."""
        if self._process is None:
            raise Failed("the case uses a broker that it has stopped")
        return self._process

    def start(self) -> None:
        """Starts the broker, and waits until clients can connect."""
        self._starts += 1
        # Members rarely join at the same time here, so do not wait for more of them.
        self._process = self._start(
            f"broker-{self._starts}",
            [
                self.program,
                "start",
                "--data-dir",
                self.data,
                "--listen",
                self.native,
                "--kafka-listen",
                ",".join([self._first, *self._also]),
                "--group-initial-rebalance-delay-ms",
                "0",
                *self._flags,
            ],
        )
        said = self._process.wait_for("the ready line of the broker", lambda lines: next(filter(READY.match, lines), None))
        found = READY.match(str(said))
        if not found or found[1] != self.native or found[2].split(",")[0] != self._first:
            raise Failed(f"the broker should listen on {self.native} and {self._first}, but printed: {said}")

    def stop(self) -> None:
        """Shuts the broker down cleanly."""
        process, self._process = self.process, None
        process.signal(signal.SIGTERM)
        process.wait()

    def kill9(self) -> None:
        """Kills the broker with SIGKILL."""
        process, self._process = self.process, None
        if not process.running:
            raise Failed(f"the broker has ended unexpectedly\n{process.story()}")
        process.kill()

    def restart(self) -> None:
        """Shuts the broker down cleanly, and starts it again."""
        self.stop()
        self.start()

    def check_alive(self) -> None:
        """Fails the case if the broker has died, even if the clients succeeded. Called at the end of a case."""
        if self._process is not None and not self._process.running:
            raise Failed(f"the broker has ended unexpectedly\n{self._process.story()}")

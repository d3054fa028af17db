"""The program under test, each time in a directory of its own."""

from collections.abc import Callable, Sequence
from pathlib import Path
import random
import re
import signal
import socket

from harness.expect import Failed
from harness.proc import Process

READY = re.compile(r"^ready native=(\S+) kafka=(\S+) ")


def free_port() -> int:
    """A port that nothing listens on, below those that outgoing connections get.

    Port 0 would give one of the latter. While a broker is down for a restart, clients go on connecting to its port, and such a
    connection may come out of that very port: TCP then connects it to itself, and the broker cannot have its port back.
    """
    while True:
        port = random.randrange(20000, 30000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Broker:
    """A broker process, its addresses, and its data, which stay the same over restarts."""

    def __init__(
        self,
        program: Path,
        scratch: Path,
        start: Callable[[str, Sequence[str | Path]], Process],
        flags: Sequence[str],
        also: Sequence[str] = (),
    ) -> None:
        self.program = program
        self.data = scratch / "data"
        self._start = start
        self._flags = list(flags)
        self._also = list(also)
        self._starts = 0
        self._process: Process | None = None
        self.kafka = self._first = f"127.0.0.1:{free_port()}"
        """`host:port` for Kafka clients, to be given as bootstrap server. A case may set it to another of the listeners."""
        self.native = f"127.0.0.1:{free_port()}"
        """`host:port` of the native listener, for `highwater --server`."""
        self.start()

    @property
    def process(self) -> Process:
        """The running broker."""
        if self._process is None:
            raise Failed("the case asks a broker that it has stopped")
        return self._process

    def start(self) -> None:
        """Starts it, and waits until clients can connect."""
        self._starts += 1
        # Few members join at the same moment here, so nobody waits for more of them.
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
        said = self._process.wait_for("the broker says that it is ready", lambda lines: next(filter(READY.match, lines), None))
        found = READY.match(str(said))
        if not found or found[1] != self.native or found[2].split(",")[0] != self._first:
            raise Failed(f"the broker should listen on {self.native} and {self._first}, but says: {said}")

    def stop(self) -> None:
        """In order: what is under way ends first."""
        process, self._process = self.process, None
        process.signal(signal.SIGTERM)
        process.wait()

    def kill9(self) -> None:
        """In the middle of whatever it does."""
        process, self._process = self.process, None
        if not process.running:
            raise Failed(f"the broker has ended by itself\n{process.story()}")
        process.kill()

    def restart(self) -> None:
        """Stops it in order and starts it again."""
        self.stop()
        self.start()

    def check_alive(self) -> None:
        """At the end of a case: a broker that died on the way is a failure whatever the clients made of it."""
        if self._process is not None and not self._process.running:
            raise Failed(f"the broker has ended by itself\n{self._process.story()}")

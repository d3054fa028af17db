"""kcat 1.7.1 with librdkafka 2.0.2, from Debian 12: an older client."""

from collections.abc import Sequence
import json
from pathlib import Path
import platform

from clients.programs import step
from harness.broker import Broker
from harness.context import Context
from harness.expect import Failed
from harness.proc import Process

HERE = Path(__file__).resolve().parent
POOL = "http://deb.debian.org/debian/pool/main"


class Kcat:
    """kcat as a client of one broker. The packages are unpacked in the cache, without root privileges."""

    def __init__(self, ctx: Context, broker: Broker) -> None:
        if platform.machine() != "x86_64":
            raise Failed("kcat.sha256 lists packages for x86_64 only")
        lock = HERE / "kcat.sha256"
        packages = ctx.cache.files("kcat-packages", lock, POOL)

        def unpack(into: Path) -> None:
            for package in packages.glob("*.deb"):
                step(f"unpack {package.name}", ["dpkg-deb", "--extract", package, into])

        usr = ctx.cache.directory("kcat", lock.read_bytes(), unpack) / "usr"
        self._ctx = ctx
        self._argv = [usr / "bin/kcat", "-b", broker.kafka]
        self._env = {"LD_LIBRARY_PATH": str(usr / "lib/x86_64-linux-gnu")}

    def run(self, *words: str, stdin: str = "") -> list[str]:
        """Runs kcat. Returns the lines that it prints."""
        return self._ctx.run([*self._argv, *words], env=self._env, stdin=stdin).lines

    def read(self, *words: str) -> list[dict]:
        """Reads records to the end of the topic."""
        return [json.loads(line) for line in self.run("-C", "-e", "-q", "-J", *words)]

    def start(self, *words: str) -> Process:
        """Starts kcat in the background."""
        return self._ctx.start([*self._argv, *words], env=self._env)


def offsets(records: Sequence[dict]) -> list[tuple[int, int]]:
    """Returns the partitions and offsets of records, sorted."""
    return sorted((record["partition"], record["offset"]) for record in records)

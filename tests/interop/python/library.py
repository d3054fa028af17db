"""confluent-kafka, as `requirements.txt` pins it."""

from pathlib import Path
import sys

from clients.programs import Kafka, step, words
from harness.context import Context

HERE = Path(__file__).resolve().parent


def client(ctx: Context) -> Kafka:
    """The programs of `client/`, run in a virtual environment in the cache."""

    def install(into: Path) -> None:
        step("make a virtual environment", [sys.executable, "-m", "venv", into])
        # Not by the script `pip`, which names a directory that is about to be renamed.
        pip = [into / "bin/python", "-m", "pip", "install", "--require-hashes", "--no-deps", "--only-binary", ":all:"]
        step("install confluent-kafka", [*pip, "-r", HERE / "requirements.txt"])

    lock = (HERE / "requirements.txt").read_bytes() + sys.version.encode()
    python = ctx.cache.directory("python", lock, install) / "bin/python"
    return Kafka("python", words(lambda word: [python, "-B", HERE / "client" / f"{word}.py"]))

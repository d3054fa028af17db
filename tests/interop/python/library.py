"""Clients in Python, each in its own virtual environment; here confluent-kafka, as `requirements.txt` pins it."""

from pathlib import Path
import sys

from clients.programs import Kafka, step, words
from harness.context import Context

HERE = Path(__file__).resolve().parent
LINES = HERE.parent / "clients"
"""Directory of `lines.py`, which the programs import."""


def python_client(ctx: Context, name: str, here: Path, **abilities: bool) -> Kafka:
    """Returns the programs of `here/client`, with the packages pinned in `here/requirements.txt`. `abilities` are fields of `Kafka`."""

    def install(into: Path) -> None:
        step("create a virtual environment", [sys.executable, "-m", "venv", into])
        # Not with the script `pip`, which contains the path of a directory that will be renamed.
        pip = [into / "bin/python", "-m", "pip", "install", "--require-hashes", "--no-deps", "--only-binary", ":all:"]
        step(f"install {name}", [*pip, "-r", here / "requirements.txt"])

    lock = (here / "requirements.txt").read_bytes() + sys.version.encode()
    python = ctx.cache.directory(here.name, lock, install) / "bin/python"
    argv = words(lambda word: [python, "-B", here / "client" / f"{word}.py"])
    return Kafka(name, argv, env={"PYTHONPATH": str(LINES)}, **abilities)


def client(ctx: Context) -> Kafka:
    """Returns the confluent-kafka client."""
    return python_client(ctx, "python", HERE)

"""Clients in Python, each in a virtual environment of its own; here confluent-kafka, as `requirements.txt` pins it."""

from pathlib import Path
import sys

from clients.programs import Kafka, step, words
from harness.context import Context

HERE = Path(__file__).resolve().parent
LINES = HERE.parent / "clients"
"""Where `lines.py` is, which the programs import."""


def python_client(ctx: Context, name: str, here: Path, **abilities: bool) -> Kafka:
    """The programs of `here/client`, run with the packages that `here/requirements.txt` pins; `abilities` are those of `Kafka`."""

    def install(into: Path) -> None:
        step("make a virtual environment", [sys.executable, "-m", "venv", into])
        # Not by the script `pip`, which names a directory that is about to be renamed.
        pip = [into / "bin/python", "-m", "pip", "install", "--require-hashes", "--no-deps", "--only-binary", ":all:"]
        step(f"install {name}", [*pip, "-r", here / "requirements.txt"])

    lock = (here / "requirements.txt").read_bytes() + sys.version.encode()
    python = ctx.cache.directory(here.name, lock, install) / "bin/python"
    argv = words(lambda word: [python, "-B", here / "client" / f"{word}.py"])
    return Kafka(name, argv, env={"PYTHONPATH": str(LINES)}, **abilities)


def client(ctx: Context) -> Kafka:
    """confluent-kafka."""
    return python_client(ctx, "python", HERE)

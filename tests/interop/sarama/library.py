"""sarama, as `go.mod` and `old.mod` pin it: the current version, and the last one that did not set the maximum timestamp of a batch."""

from pathlib import Path

from clients.programs import Kafka, step, words
from go.library import modules
from harness.context import Context

HERE = Path(__file__).resolve().parent
CURRENT = "2.8.0"
"""The version of Kafka that sarama assumes by default."""


def program(ctx: Context, lock: str = "go.mod") -> Path:
    """Returns the program of this folder, built once for each version of its sources with the modules that `lock` pins."""

    def build(into: Path) -> None:
        # The build tag excludes what the older version does not support.
        argv = ["go", "build", "-mod=readonly", f"-modfile={lock}", f"-tags={Path(lock).stem}", "-buildvcs=false", "-o", into / "client", "."]
        step("build the sarama client", argv, cwd=HERE, env=modules(ctx))

    sources = [*sorted(HERE.glob("*.go")), HERE / lock, (HERE / lock).with_suffix(".sum")]
    content = b"".join(file.read_bytes() for file in sources)
    return ctx.cache.directory(f"sarama-{lock.partition('.')[0]}", content, build) / "client"


def client(ctx: Context, version: str = CURRENT) -> Kafka:
    """Returns the current sarama, configured for this version of Kafka."""
    codecs = ("none", "gzip", "snappy", "lz4", "zstd") if version == CURRENT else ("none", "gzip", "snappy", "lz4")
    path = program(ctx)
    return Kafka(f"sarama-{version}", words(lambda word: [path, version, word]), codecs)

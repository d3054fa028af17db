"""A common interface to clients in several languages: the same programs, arguments and JSON lines for every library.

`produce`, `consume` and `member` are programs in the sibling folders, one set for each library, which document their arguments and output.
The native client, `highwater`, reads and writes the same lines.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
import os
from pathlib import Path
import subprocess

from harness.broker import Broker
from harness.context import Context
from harness.expect import Failed, equal
from harness.proc import Process

ALL_CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


@dataclass(frozen=True)
class Kafka:
    """A Kafka client: the commands of its programs, and its capabilities."""

    name: str
    argv: Mapping[str, Sequence[str | Path]]
    codecs: Sequence[str] = ALL_CODECS
    null_headers: bool = True
    """Whether it can write a header without a value."""
    null_records: bool = True
    """Whether it can write a record with neither key nor value."""
    env: Mapping[str, str] = field(default_factory=dict)

    def producer(self, ctx: Context, broker: Broker, topic: str, codec: str, mode: str) -> Process:
        """Starts a producer that sends the lines of its input, and prints the position of each when it is acknowledged."""
        return ctx.start([*self.argv["produce"], broker.kafka, topic, codec, mode], name=f"{self.name}-produce", env=self.env)

    def write(self, ctx: Context, broker: Broker, topic: str, codec: str, lines: Sequence[str], mode: str = "idempotent") -> list[str]:
        """Sends records. Returns lines with their positions."""
        producer = self.producer(ctx, broker, topic, codec, mode)
        producer.write("".join(f"{line}\n" for line in lines))
        producer.close_input()
        return producer.wait().lines

    def read(self, ctx: Context, broker: Broker, topic: str, count: int) -> list[str]:
        """Reads the first `count` records of a topic."""
        argv = [*self.argv["consume"], broker.kafka, topic, str(count)]
        return ctx.run(argv, name=f"{self.name}-consume", env=self.env).lines

    def member(self, ctx: Context, broker: Broker, *words: str) -> Process:
        """Starts a member of a group: GROUP TOPIC PROTOCOL [INSTANCE]."""
        return ctx.start([*self.argv["member"], broker.kafka, *words], name=f"{self.name}-member", env=self.env)

    def admin(self, ctx: Context, broker: Broker) -> None:
        """Runs the program that tests administrative requests."""
        ctx.run([*self.argv["admin"], broker.kafka], name=f"{self.name}-admin", env=self.env)

    def refusals(self, ctx: Context, broker: Broker) -> None:
        """Runs the program that tests permanent errors: the client must fail with the error, and not retry until its timeout."""
        ctx.run([*self.argv["refusals"], broker.kafka], name=f"{self.name}-refusals", env=self.env)


@dataclass(frozen=True)
class Native:
    """The command line of the program under test, a client with the native protocol."""

    name: str = "native"
    codecs: Sequence[str] = ALL_CODECS
    null_headers: bool = True
    null_records: bool = True

    def run(self, ctx: Context, broker: Broker, *words: str, stdin: str = "") -> list[str]:
        """Runs `highwater WORDS`. Returns the lines that it prints."""
        return ctx.run([broker.program, *words, "--server", broker.native], name=f"native-{words[0]}", stdin=stdin).lines

    def create(self, ctx: Context, broker: Broker, topic: str, partitions: int) -> None:
        """Creates a topic."""
        self.run(ctx, broker, "topic", "create", topic, "--partitions", str(partitions))

    def write(self, ctx: Context, broker: Broker, topic: str, codec: str, lines: Sequence[str]) -> None:
        """Sends records."""
        self.run(ctx, broker, "produce", topic, "--json", "-z", codec, stdin="".join(f"{line}\n" for line in lines))

    def read(self, ctx: Context, broker: Broker, topic: str, count: int) -> list[str]:
        """Reads all records of a topic, and asserts their number."""
        lines = self.run(ctx, broker, "consume", topic, "--json")
        equal(f"number of records that the native client reads from {topic}", len(lines), count)
        return lines


def step(what: str, argv: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Runs a step of downloading or building a client. Returns its output. `env` is added to the environment."""
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, cwd=cwd, env={**os.environ, **(env or {})}
    )
    if done.returncode != 0:
        raise Failed(f"cannot {what}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def words(start: Callable[[str], Sequence[str | Path]]) -> dict[str, Sequence[str | Path]]:
    """Returns the commands of a client's programs."""
    return {word: start(word) for word in ("produce", "consume", "member", "admin", "refusals")}

"""The clients of several languages behind one face: the same words, the same lines of JSON, whatever the library.

`produce`, `consume` and `member` are programs beside this folder, one set for each library; what they take and print stands with them.
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
    """A Kafka client: how its programs are started, and what it can."""

    name: str
    argv: Mapping[str, Sequence[str | Path]]
    codecs: Sequence[str] = ALL_CODECS
    null_headers: bool = True
    """Whether it can write a header that has no value."""
    null_records: bool = True
    """Whether it can write a record that has neither key nor value."""
    env: Mapping[str, str] = field(default_factory=dict)

    def producer(self, ctx: Context, broker: Broker, topic: str, codec: str, mode: str) -> Process:
        """Starts a producer that sends the lines of its input, and says where each of them went when it is acknowledged."""
        return ctx.start([*self.argv["produce"], broker.kafka, topic, codec, mode], name=f"{self.name}-produce", env=self.env)

    def write(self, ctx: Context, broker: Broker, topic: str, codec: str, lines: Sequence[str], mode: str = "idempotent") -> list[str]:
        """Sends the records; the lines that it returns say where each of them went."""
        producer = self.producer(ctx, broker, topic, codec, mode)
        producer.write("".join(f"{line}\n" for line in lines))
        producer.close_input()
        return producer.wait().lines

    def read(self, ctx: Context, broker: Broker, topic: str, count: int) -> list[str]:
        """The records of a topic of which it is known how many there are."""
        argv = [*self.argv["consume"], broker.kafka, topic, str(count)]
        return ctx.run(argv, name=f"{self.name}-consume", env=self.env).lines

    def member(self, ctx: Context, broker: Broker, *words: str) -> Process:
        """Starts a member of a group: GROUP TOPIC PROTOCOL [INSTANCE]."""
        return ctx.start([*self.argv["member"], broker.kafka, *words], name=f"{self.name}-member", env=self.env)

    def admin(self, ctx: Context, broker: Broker) -> None:
        """What an administrator does; the program checks it."""
        ctx.run([*self.argv["admin"], broker.kafka], name=f"{self.name}-admin", env=self.env)

    def refusals(self, ctx: Context, broker: Broker) -> None:
        """What the broker refuses for good: the client has to stop and name the error, and not to try until its time is up."""
        ctx.run([*self.argv["refusals"], broker.kafka], name=f"{self.name}-refusals", env=self.env)


@dataclass(frozen=True)
class Native:
    """The command line of the broker under test, which speaks the native protocol."""

    name: str = "native"
    codecs: Sequence[str] = ALL_CODECS
    null_headers: bool = True
    null_records: bool = True

    def run(self, ctx: Context, broker: Broker, *words: str, stdin: str = "") -> list[str]:
        """The lines that `highwater WORDS` prints."""
        return ctx.run([broker.program, *words, "--server", broker.native], name=f"native-{words[0]}", stdin=stdin).lines

    def create(self, ctx: Context, broker: Broker, topic: str, partitions: int) -> None:
        """A topic."""
        self.run(ctx, broker, "topic", "create", topic, "--partitions", str(partitions))

    def write(self, ctx: Context, broker: Broker, topic: str, codec: str, lines: Sequence[str]) -> None:
        """Sends the records."""
        self.run(ctx, broker, "produce", topic, "--json", "-z", codec, stdin="".join(f"{line}\n" for line in lines))

    def read(self, ctx: Context, broker: Broker, topic: str, count: int) -> list[str]:
        """The records of a topic, which has to have so many."""
        lines = self.run(ctx, broker, "consume", topic, "--json")
        equal(f"number of records that the native client reads from {topic}", len(lines), count)
        return lines


def step(what: str, argv: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """One step of fetching or building a client; what it prints. `env` is added to the environment."""
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, cwd=cwd, env={**os.environ, **(env or {})}
    )
    if done.returncode != 0:
        raise Failed(f"cannot {what}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def words(start: Callable[[str], Sequence[str | Path]]) -> dict[str, Sequence[str | Path]]:
    """The command of each of a client's programs."""
    return {word: start(word) for word in ("produce", "consume", "member", "admin", "refusals")}

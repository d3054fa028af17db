"""Kafka Streams: the unmodified WordCountDemo of Kafka's introduction."""

from collections import Counter
from pathlib import Path
import random

from harness.cases import case
from harness.context import Context
from harness.expect import equal, eventually
from harness.proc import Process
from java.kafka import Kafka

DEMO = "org.apache.kafka.streams.examples.wordcount.WordCountDemo"
WORDS = "all streams lead to kafka hello streams join summit stream table broker log tide".split()


def lines(seed: int, count: int) -> list[str]:
    """Returns random sentences."""
    chance = random.Random(seed)
    return [" ".join(chance.choices(WORDS, k=chance.randrange(1, 9))) for _ in range(count)]


class Counts:
    """The demo's output, read with kafka-console-consumer and the options of the introduction."""

    def __init__(self, kafka: Kafka) -> None:
        properties = (
            "print.key=true",
            "print.value=true",
            "key.deserializer=org.apache.kafka.common.serialization.StringDeserializer",
            "value.deserializer=org.apache.kafka.common.serialization.LongDeserializer",
        )
        options = [word for setting in properties for word in ("--formatter-property", setting)]
        self._reader = kafka.start("console-consumer", "--topic", "streams-wordcount-output", "--from-beginning", *options)
        self._seen = 0
        self.last: dict[str, int] = {}
        """Returns the last count of each word."""

    def reach(self, wanted: Counter[str]) -> None:
        """Waits until the words have these counts."""

        def look(lines: "list[str]") -> bool:
            for line in lines[self._seen :]:
                word, count = line.split("\t")
                self.last[word] = int(count)
            self._seen = len(lines)
            return self.last == wanted

        self._reader.wait_for(f"the counts are {dict(wanted)}", look)


def committed(kafka: Kafka) -> bool:
    """Returns whether the demo's group has committed everything."""
    said = kafka.tool("consumer-groups", "--describe", "--group", "streams-wordcount").out
    lags = [row[5] for row in map(str.split, said.splitlines()) if len(row) > 5 and row[0] == "streams-wordcount"]
    return bool(lags) and set(lags) == {"0"}


def demo(kafka: Kafka, config: Path) -> Process:
    """Starts the demo. It prints nothing; its results are in its output topic."""
    return kafka.ctx.start(kafka.command(DEMO, config), name="wordcount")


@case("java.streams", "Kafka Streams' WordCountDemo, with kills and restarts of the demo and of the broker", short=True, needs=("java",))
def wordcount(ctx: Context) -> None:
    kafka = Kafka(ctx, ctx.broker())
    kafka.create("streams-plaintext-input", 1)
    kafka.create("streams-wordcount-output", 1, cleanup_policy="compact")
    state = ctx.directory("state")
    config = kafka.properties(
        "demo",
        {"bootstrap.servers": kafka.broker.kafka, "state.dir": state, "commit.interval.ms": 200, "session.timeout.ms": 6000},
    )
    total: Counter[str] = Counter()

    def say(seed: int) -> None:
        text = lines(seed, 500)
        total.update(word for line in text for word in line.split())
        kafka.tool("console-producer", "--topic", "streams-plaintext-input", stdin="".join(f"{line}\n" for line in text))

    counts = Counts(kafka)
    running = demo(kafka, config)
    say(1)
    counts.reach(total)
    # Processing is at least once: a killed demo counts uncommitted records again. So kill it after a commit.
    eventually("the demo has committed its offsets", lambda: committed(kafka))
    running.kill()
    kafka.broker.kill9()
    kafka.broker.start()
    say(2)
    running = demo(kafka, config)
    counts.reach(total)
    say(3)
    counts.reach(total)
    result = running.stop()
    equal("its exit code after a termination", result.code, 143)
    topics = set(kafka.tool("topics", "--list").lines)
    equal("its own topics", sum(name.startswith("streams-wordcount-KSTREAM-AGGREGATE") for name in topics), 2)

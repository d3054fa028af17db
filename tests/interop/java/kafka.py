"""Apache Kafka's jars, and its tools and programs as commands."""

from collections.abc import Sequence
from pathlib import Path

from harness.broker import Broker
from harness.context import Context
from harness.proc import DEADLINE, Process, Result

HERE = Path(__file__).resolve().parent
CENTRAL = "https://repo1.maven.org/maven2"
NEW = "4.3.1"
OLD = "3.9.2"

TOOLS = {
    "topics": "org.apache.kafka.tools.TopicCommand",
}
"""What the scripts of the distribution run, by the scripts' names without `kafka-` and `.sh`."""

# Tools live for a second or two: most of it is the JVM's start, and the second compiler never pays.
JVM = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Xmx512m"]


class Kafka:
    """One version of Apache Kafka, talking to one broker."""

    def __init__(self, ctx: Context, broker: Broker, version: str = NEW) -> None:
        self.ctx = ctx
        self.broker = broker
        self._libs = ctx.cache.files(f"kafka-{version}", HERE / f"kafka-{version}.sha256", CENTRAL)

    def command(self, main: str, *args: str | Path, classes: Path | None = None) -> list[str | Path]:
        """The command line that runs a class of the distribution, or of `classes`."""
        path = f"{self._libs}/*" if classes is None else f"{classes}:{self._libs}/*"
        return ["java", *JVM, f"-Dlog4j2.configurationFile=file:{HERE / 'log4j2.properties'}", "-cp", path, main, *args]

    def tool(self, name: str, *args: str | Path, stdin: str = "", codes: Sequence[int] | None = (0,)) -> Result:
        """Runs a tool to its end, as `kafka-NAME.sh --bootstrap-server ... ARGS` would."""
        argv = self.command(TOOLS[name], "--bootstrap-server", self.broker.kafka, *args)
        return self.ctx.run(argv, name=name, stdin=stdin, codes=codes, deadline=DEADLINE)

    def start(self, name: str, *args: str | Path) -> Process:
        """The same in the background."""
        return self.ctx.start(self.command(TOOLS[name], "--bootstrap-server", self.broker.kafka, *args), name=name)

"""Apache Kafka's jars, and its tools and programs as commands."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.broker import Broker
from harness.context import Context
from harness.proc import Process, Result

HERE = Path(__file__).resolve().parent
CENTRAL = "https://repo1.maven.org/maven2"
NEW = "4.3.1"
OLD = "3.9.2"

TOOLS = {
    "acls": "org.apache.kafka.tools.AclCommand",
    "broker-api-versions": "org.apache.kafka.tools.BrokerApiVersionsCommand",
    "client-compatibility-test": "org.apache.kafka.tools.ClientCompatibilityTest",
    "configs": "kafka.admin.ConfigCommand",
    "console-consumer": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "console-producer": "org.apache.kafka.tools.ConsoleProducer",
    "console-share-consumer": "org.apache.kafka.tools.consumer.ConsoleShareConsumer",
    "consumer-groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "consumer-perf-test": "org.apache.kafka.tools.ConsumerPerformance",
    "delete-records": "org.apache.kafka.tools.DeleteRecordsCommand",
    "get-offsets": "org.apache.kafka.tools.GetOffsetShell",
    "leader-election": "org.apache.kafka.tools.LeaderElectionCommand",
    "log-dirs": "org.apache.kafka.tools.LogDirsCommand",
    "metadata-quorum": "org.apache.kafka.tools.MetadataQuorumCommand",
    "producer-perf-test": "org.apache.kafka.tools.ProducerPerformance",
    "topics": "org.apache.kafka.tools.TopicCommand",
    "transactions": "org.apache.kafka.tools.TransactionsCommand",
    "verifiable-consumer": "org.apache.kafka.tools.VerifiableConsumer",
    "verifiable-producer": "org.apache.kafka.tools.VerifiableProducer",
}
"""Main classes of the distribution's scripts, by the name of the script without `kafka-` and `.sh`."""

TOOLS_OF_OLD = {**TOOLS, "console-producer": "kafka.tools.ConsoleProducer"}

# The tools are short-lived, so the optimising compiler of the JVM does not pay off.
JVM = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Xmx512m"]


class Kafka:
    """One version of Apache Kafka as a client of one broker."""

    def __init__(self, ctx: Context, broker: Broker, version: str = NEW) -> None:
        self.ctx = ctx
        self.broker = broker
        self.version = version
        self._tools = TOOLS_OF_OLD if version == OLD else TOOLS
        self._libs = ctx.cache.files(f"kafka-{version}", HERE / f"kafka-{version}.sha256", CENTRAL)

    def command(self, main: str, *args: str | Path) -> list[str | Path]:
        """Returns the command that runs a class of the distribution."""
        logging = [f"-Dlog4j2.configurationFile=file:{HERE}/log4j2.properties", f"-Dlog4j.configuration=file:{HERE}/log4j.properties"]
        return ["java", *JVM, *logging, "-cp", f"{self._libs}/*", main, *args]

    def tool(self, name: str, *args: str | Path, stdin: str = "", codes: Sequence[int] | None = (0,)) -> Result:
        """Runs a tool to completion, as `kafka-NAME.sh --bootstrap-server ... ARGS` would."""
        return self.ctx.run(self._line(name, args), name=name, stdin=stdin, codes=codes)

    def start(self, name: str, *args: str | Path) -> Process:
        """Starts a tool in the background."""
        return self.ctx.start(self._line(name, args), name=name)

    def rejected(self, name: str, *args: str | Path) -> str:
        """Runs a tool that must fail. Returns its output."""
        result = self.tool(name, *args, codes=(1,))
        return result.out + result.err

    def create(self, topic: str, partitions: int, **configs: str) -> None:
        """Creates a topic. Keyword arguments such as `retention_ms` are its settings."""
        settings = [word for name, value in configs.items() for word in ("--config", f"{name.replace('_', '.')}={value}")]
        self.tool("topics", "--create", "--topic", topic, "--partitions", str(partitions), *settings)

    def properties(self, name: str, values: Mapping[str, object]) -> Path:
        """Creates a properties file."""
        return self.ctx.file(f"{name}.properties", "".join(f"{key}={value}\n" for key, value in values.items()))

    def _line(self, name: str, args: Sequence[str | Path]) -> list[str | Path]:
        return self.command(self._tools[name], "--bootstrap-server", self.broker.kafka, *args)

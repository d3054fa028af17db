"""Kafka Connect, standalone, with its file source and sink."""

from pathlib import Path

from harness.cases import case
from harness.context import Context
from harness.expect import equal, eventually, true
from harness.proc import Process
from java.kafka import Kafka


class Files:
    """The files of source and sink."""

    def __init__(self, ctx: Context) -> None:
        self.source = ctx.file("test.txt", "")
        self.sink = ctx.scratch / "test.sink.txt"
        self.written: list[str] = []

    def write(self, count: int) -> None:
        """Appends lines to the source file."""
        more = [f"line {len(self.written) + i}" for i in range(count)]
        self.written += more
        with open(self.source, "a", encoding="ascii") as file:
            file.writelines(f"{line}\n" for line in more)

    def read(self) -> list[str]:
        """Returns the lines that the sink has written."""
        return self.sink.read_text().splitlines() if self.sink.exists() else []


def connect(kafka: Kafka, configs: list[Path]) -> Process:
    """Starts a worker with both connectors."""
    main = "org.apache.kafka.connect.cli.ConnectStandalone"
    return kafka.ctx.start(kafka.command(main, *configs), name="connect")


@case("java.connect", "Kafka Connect standalone, file source to file sink, stopped, killed and resumed without loss", needs=("java",))
def files(ctx: Context) -> None:
    kafka = Kafka(ctx, ctx.broker())
    files = Files(ctx)
    source = {
        "name": "source",
        "connector.class": "FileStreamSource",
        "tasks.max": 1,
        "file": files.source,
        "topic": "connect-test",
        # The source keeps lines that do not fit into a batch until the file grows again.
        "batch.size": 100_000,
    }
    sink = {"name": "sink", "connector.class": "FileStreamSink", "tasks.max": 1, "file": files.sink, "topics": "connect-test"}
    configs = [
        kafka.properties(
            "worker",
            {
                "bootstrap.servers": kafka.broker.kafka,
                "key.converter": "org.apache.kafka.connect.json.JsonConverter",
                "value.converter": "org.apache.kafka.connect.json.JsonConverter",
                "offset.storage.file.filename": ctx.scratch / "connect.offsets",
                "offset.flush.interval.ms": 500,
                "listeners": "http://127.0.0.1:0",
                "consumer.session.timeout.ms": 6000,
            },
        ),
        kafka.properties("source", source),
        kafka.properties("sink", sink),
    ]
    files.write(1000)
    worker = connect(kafka, configs)
    eventually("the lines have come through", lambda: files.read() == files.written)
    worker.stop()
    files.write(1000)
    worker = connect(kafka, configs)
    eventually("the lines added while it was stopped arrive, each once", lambda: files.read() == files.written)

    files.write(1000)
    eventually("the worker continues", lambda: len(files.read()) > 2000)
    worker.kill()
    kafka.broker.restart()
    files.write(1000)
    worker = connect(kafka, configs)
    eventually("nothing is lost after a kill", lambda: set(files.read()) == set(files.written))
    equal("lines that were not written", sorted(set(files.read()) - set(files.written)), [])
    groups = kafka.tool("consumer-groups", "--list").out.split()
    true("the sink has its group", "connect-sink" in groups, groups)

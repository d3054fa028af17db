"""The client programs of the README, as they stand there."""

from pathlib import Path

import clients.programs
import go.library
from clients.programs import Native, step
from harness.broker import Broker
from harness.cases import case
from harness.context import Context
from harness.expect import Failed, contains, equal
from harness.proc import Process
from java.kafka import Kafka
import node.library
import python.library

HEADING = "## Use it from your language"
ADDRESS = "127.0.0.1:9092"
TOPIC = "orders"

JAVA = """\
import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

class Readme {
    public static void main(String[] args) throws Exception {
%s
    }
}
"""

GO = """\
package main

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
%s
}
"""

NODE = """\
const { Kafka } = require("kafkajs");

(async () => {
%s
})();
"""


def snippet(ctx: Context, broker: Broker, language: str) -> str:
    """Returns the program of the README in this language, with the address of the broker under test."""
    text = (ctx.repository / "README.md").read_text()
    section = text.partition(HEADING)[2].partition("\n## ")[0]
    before, fence, rest = section.partition(f"```{language}\n")
    program, end, _ = rest.partition("```\n")
    if not (fence and end):
        raise Failed(f"the README has no program in {language} below {HEADING!r}")
    contains(f"the program in {language}", program, ADDRESS)
    return program.replace(ADDRESS, broker.kafka)


def orders(ctx: Context) -> Broker:
    """Starts a broker with the topic of the quick start."""
    broker = ctx.broker()
    Native().create(ctx, broker, TOPIC, 8)
    return broker


def check(ctx: Context, broker: Broker, process: Process, value: str) -> None:
    """Asserts that the program prints the record that it sent, and that the record is in the topic."""
    process.wait_for(f"{value!r} in the output", lambda lines: value in lines)
    equal("the records of the topic", Native().run(ctx, broker, "consume", TOPIC, "--format", "%k=%v\\n"), [f"customer-1={value}"])


@case("readme.python", "the README's program in Python sends a record and prints it", short=True)
def python_program(ctx: Context) -> None:
    broker = orders(ctx)
    # The same packages; the program is another one.
    argv = python.library.client(ctx).argv["produce"]
    program = ctx.file("readme.py", snippet(ctx, broker, "python"))
    check(ctx, broker, ctx.start([argv[0], program], name="readme"), "from Python")


@case("readme.java", "the README's program in Java sends a record and prints it", short=True, needs=("java", "javac"))
def java_program(ctx: Context) -> None:
    broker = orders(ctx)
    program = ctx.file("Readme.java", JAVA % snippet(ctx, broker, "java"))
    check(ctx, broker, ctx.start(Kafka(ctx, broker).command(str(program)), name="readme"), "from Java")


@case("readme.go", "the README's program in Go sends a record and prints it", short=True, needs=("go",))
def go_program(ctx: Context) -> None:
    broker = orders(ctx)
    module = ctx.directory("module")
    for name in ("go.mod", "go.sum"):
        (module / name).write_bytes((Path(go.library.__file__).parent / name).read_bytes())
    (module / "main.go").write_text(GO % snippet(ctx, broker, "go"))
    argv = ["go", "build", "-mod=readonly", "-buildvcs=false", "-o", "readme", "."]
    step("build the program", argv, cwd=module, env=go.library.modules(ctx))
    check(ctx, broker, ctx.start([module / "readme"], name="readme"), "from Go")


@case("readme.node", "the README's program in Node sends a record and prints it", short=True, needs=("node", "npm"))
def node_program(ctx: Context) -> None:
    broker = orders(ctx)
    client: clients.programs.Kafka = node.library.client(ctx)
    program = ctx.file("readme.js", NODE % snippet(ctx, broker, "js"))
    check(ctx, broker, ctx.start(["node", program], name="readme", env=client.env), "from Node")

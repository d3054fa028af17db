"""What clients meet when storage is the matter: very large batches, a full disk, damaged records."""

from collections.abc import Callable, Sequence
import json
from pathlib import Path
import time

from clients.programs import Native
from clients.records import Record, check_places, check_read, line
from harness.broker import Broker
from harness.cases import case
from harness.context import Context
from harness.disk import small_disk
from harness.expect import contains, equal, eventually, true
from java.kafka import Kafka
import python.library

HERE = Path(__file__).resolve().parent
MIB = 1 << 20
LARGEST = 100 * MIB
# Room for the batch's header and the record's lengths.
LARGE_VALUE = LARGEST - 1024
TOPIC = "t"


def python_program(ctx: Context, broker: Broker, name: str, *words: str) -> list[str | Path]:
    """Returns the command that runs a program of this folder with confluent-kafka."""
    argv = python.library.client(ctx).argv["produce"]
    return [argv[0], "-B", HERE / f"{name}.py", broker.kafka, *words]


def java_program(ctx: Context, broker: Broker, name: str, *words: str) -> list[str | Path]:
    """Returns the command that compiles and runs a program of this folder with Kafka's Java client."""
    argv = Kafka(ctx, broker).command(str(HERE / f"{name.capitalize()}.java"), broker.kafka, *words)
    # The later flag wins: a batch is in memory several times.
    return [argv[0], *argv[1 : argv.index("-cp")], "-Xmx2g", *argv[argv.index("-cp") :]]


TOO_LARGE = {"python": "MSG_SIZE_TOO_LARGE", "java": "RecordTooLargeException"}
"""Names of the error for a batch over the limit."""

CLIENTS: dict[str, Callable[..., list[str | Path]]] = {"python": python_program, "java": java_program}


@case("storage.large-batches", "batches of 100 MiB, written and read by librdkafka and by Java, each by the other too", needs=("java", "javac"))
def large_batches(ctx: Context) -> None:
    broker, native = ctx.broker("--cores", "1", "--memory", "768MiB", "--batch-bytes-max", "100MiB"), Native()
    native.run(ctx, broker, "topic", "create", TOPIC, "--config", f"max.message.bytes={LARGEST}")
    sent = {}
    for offset, (name, program) in enumerate(CLIENTS.items()):
        said = ctx.run(program(ctx, broker, "large", "produce", TOPIC, str(LARGE_VALUE)), name=f"{name}-produce").lines
        at, sent[offset] = said[0].split()
        equal(f"the offset of the batch of {name}", int(at), offset)
    for name, program in CLIENTS.items():
        read = ctx.run(program(ctx, broker, "large", "consume", TOPIC, str(len(sent))), name=f"{name}-consume").lines
        equal(f"offsets and checksums that {name} reads", dict((int(at), sum_) for at, sum_ in map(str.split, read)), sent)
    for name, program in CLIENTS.items():
        said = ctx.run(program(ctx, broker, "large", "produce", TOPIC, str(LARGEST + 1)), name=f"{name}-too-large", codes=(1,))
        contains(f"the error of {name} for a larger batch", said.err, TOO_LARGE[name])
    broker.restart()
    read = ctx.run(python_program(ctx, broker, "large", "consume", TOPIC, str(len(sent))), name="after-a-restart").lines
    equal("offsets and checksums after a restart", dict((int(at), sum_) for at, sum_ in map(str.split, read)), sent)


def rejected(ctx: Context, broker: Broker, native: Native) -> int:
    """Returns the number of requests that the broker answers with an error within a second."""
    first = ctx.run([broker.program, "stats", "--every", "1s", "-n", "1", "--json", "--server", broker.native], name="stats")
    return json.loads(first.lines[0])["requests.failed"]


def on_a_full_disk(ctx: Context, produce: Callable[[Broker], Callable[[], None]]) -> None:
    """Fills the disk, starts a producer with `produce`, frees the space, and lets it finish by what `produce` returned."""
    native = Native()
    with small_disk(ctx, 100 * MIB) as mount:
        broker = ctx.broker("--cores", "1", "--memory", "256MiB", data=mount / "data")
        for topic in ("filler", TOPIC):
            native.create(ctx, broker, topic, 1)
        # More than fits. The program ends before it has read all of it, which breaks a pipe.
        lines = ctx.file("lines", f"{'x' * 99_999}\n" * 1200)
        filler = [broker.program, "produce", "filler", "--timeout", "3s", "--server", broker.native]
        full = ctx.run(["sh", "-c", f'exec "$0" "$@" < {lines}', *filler], name="fill", codes=(1,))
        contains("the error of the program that fills the disk", full.err, "the disk is full")
        finish = produce(broker)
        eventually("the producer's batches are rejected", lambda: rejected(ctx, broker, native))
        native.run(ctx, broker, "topic", "delete", "filler")
        finish()
        broker.stop()


@case("storage.full-disk-python", "librdkafka's producer waits for space on a full disk, and writes each record once, in order")
def full_disk_python(ctx: Context) -> None:
    # Recent, so that retention keeps them.
    start_ms = int(time.time()) * 1000 - 3_600_000
    written = [Record(b"key", b"%5d" % n + b"x" * 10_000, (), start_ms + n) for n in range(3_000)]
    client = python.library.client(ctx)

    def produce(broker: Broker) -> Callable[[], None]:
        producer = client.producer(ctx, broker, TOPIC, "none", "idempotent")
        producer.write("".join(f"{line(record)}\n" for record in written))
        producer.close_input()

        def finish() -> None:
            said = producer.wait().lines
            places = check_read("what is read", client.read(ctx, broker, TOPIC, len(written)), written)
            check_places("what was acknowledged", said, places, written)
            offsets = [offset for (_, offset), _ in sorted(places.items(), key=lambda item: item[1].timestamp)]
            equal("the order of the records", offsets, list(range(len(written))))

        return finish

    on_a_full_disk(ctx, produce)


@case("storage.full-disk-java", "Java's producer waits for space on a full disk, and writes each record once", needs=("java",))
def full_disk_java(ctx: Context) -> None:
    count = 3_000

    def produce(broker: Broker) -> Callable[[], None]:
        kafka = Kafka(ctx, broker)
        sizes = ["--num-records", str(count), "--record-size", "10000", "--throughput", "-1"]
        producer = kafka.start("producer-perf-test", "--topic", TOPIC, *sizes, "--command-property", "acks=all")

        def finish() -> None:
            contains("the report", producer.wait().lines[-1], f"{count} records sent")
            equal("the end of the topic", kafka.tool("get-offsets", "--topic", TOPIC).lines, [f"{TOPIC}:0:{count}"])

        return finish

    on_a_full_disk(ctx, produce)


@case("storage.damaged-tail", "librdkafka and Java read up to damaged records at the end, are told where they are, and go on behind them", needs=("java", "javac"))
def damaged_tail(ctx: Context) -> None:
    broker, native = ctx.broker("--cores", "1"), Native()
    native.create(ctx, broker, TOPIC, 1)
    values = [f"record {n}" for n in range(60)]
    for begin in range(0, len(values), 20):
        # Each command sends a batch of its own.
        native.run(ctx, broker, "produce", TOPIC, stdin="".join(f"{value}\n" for value in values[begin : begin + 20]))
    broker.stop()
    first_lost = damage_last_batch(ctx, broker)
    true("it is in the middle of the records", 0 < first_lost < len(values), first_lost)
    broker.start()
    for name, program in CLIENTS.items():
        events = [json.loads(said) for said in ctx.run(program(ctx, broker, "damaged", TOPIC), name=name).lines]
        check_damaged(name, events, values, first_lost)
    seen = ctx.run([broker.program, "consume", TOPIC, "--server", broker.native], name="native", codes=(1,))
    equal("what the native client reads", seen.lines, values[:first_lost])
    contains("what it says", seen.err, f"{first_lost}")


def damage_last_batch(ctx: Context, broker: Broker) -> int:
    """Changes the last byte of the last batch in the log. Returns its first offset."""
    dump = ctx.run([broker.program, "log", "dump", TOPIC, "--json", "--data-dir", broker.data], name="dump")
    last = [frame for frame in map(json.loads, dump.lines) if frame["kind"] == "batch"][-1]
    with open(broker.data / last["file"], "r+b") as file:
        file.seek(last["at"])
        frame = bytearray(file.read(last["bytes"]))
        # Frames are padded with zeros.
        end = len(bytes(frame).rstrip(b"\0"))
        file.seek(last["at"] + end - 1)
        file.write(bytes([frame[end - 1] ^ 0xFF]))
    return last["offset"]


def check_damaged(name: str, events: Sequence[dict], values: Sequence[str], first_lost: int) -> None:
    """Asserts what a client saw: the records before the damage, an error at the damage, nothing lost behind it."""
    read = [event["value"] for event in events if "value" in event]
    equal(f"what {name} reads", read, list(values[:first_lost]))
    errors = [event for event in events if "error" in event]
    true(f"{name} is told of the damage", errors, events)
    equal(f"where {name} is when it is told", errors[0]["position"], first_lost)
    equal(f"where {name} goes on", events[-1], {"end": len(values)})

"""kafka-console-producer and kafka-console-consumer, and the performance tools, of both versions."""

from harness.cases import case
from harness.context import Context
from harness.expect import contains, equal, same_items, true
from java.kafka import NEW, OLD, Kafka

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


def records(kafka: Kafka, *args: str) -> list[str]:
    """Runs kafka-console-consumer. Returns partition, headers, key and value of each record, separated by bars."""
    option = "--formatter-property" if kafka.version == NEW else "--property"
    shown = ("print.partition=true", "print.headers=true", "print.key=true", "key.separator=|", "headers.separator=,")
    options = [word for setting in shown for word in (option, setting)]
    return kafka.tool("console-consumer", "--from-beginning", *options, *args).lines


def produce(kafka: Kafka, topic: str, text: str, *args: str) -> None:
    """Runs kafka-console-producer with lines of headers, key and value."""
    option = "--reader-property" if kafka.version == NEW else "--property"
    settings = ("parse.headers=true", "parse.key=true", "null.marker=NULL")
    options = [word for setting in settings for word in (option, setting)]
    kafka.tool("console-producer", "--topic", topic, *options, *args, stdin=text)


def console(ctx: Context, writer: str, reader: str) -> None:
    """The consumer of one version reads the records of the producer of another unchanged."""
    broker = ctx.broker("--default-partitions", "4")
    writes, reads = Kafka(ctx, broker, writer), Kafka(ctx, broker, reader)
    produce(
        writes,
        "made-by-asking",
        "trace:7,trace:8\tanna\tfirst\nlang:de\tanna\tGrüße 🌊\nNULL\tanna\tNULL\nNULL\tanna\t\n",
    )
    seen = records(reads, "--topic", "made-by-asking", "--max-messages", "4")
    partition = seen[0].split("|")[0]
    equal(
        "the records",
        seen,
        [
            f"{partition}|trace:7,trace:8|anna|first",
            f"{partition}|lang:de|anna|Grüße 🌊",
            f"{partition}|NO_HEADERS|anna|null",
            f"{partition}|NO_HEADERS|anna|",
        ],
    )

    codecs = CODECS[-2:] if ctx.short else CODECS
    for codec in codecs:
        produce(writes, "packed", "".join(f"c:{codec}\tk{i}\t{codec} {i}\n" for i in range(20)), "--compression-codec", codec)
    packed = records(reads, "--topic", "packed", "--max-messages", str(20 * len(codecs)))
    same_items(
        "compressed records",
        [line.split("|", 1)[1] for line in packed],
        [f"c:{codec}|k{i}|{codec} {i}" for codec in codecs for i in range(20)],
    )

    first = reads.tool("console-consumer", "--topic", "packed", "--from-beginning", "--group", "g", "--max-messages", "30").lines
    rest = reads.tool("console-consumer", "--topic", "packed", "--group", "g", "--max-messages", str(20 * len(codecs) - 30)).lines
    same_items("what a group reads in two runs", first + rest, [f"{codec} {i}" for codec in codecs for i in range(20)])


@case("java.console", "the console producer and consumer of 4.3: keys, headers, nulls, codecs, groups", short=True, needs=("java",))
def console_new(ctx: Context) -> None:
    console(ctx, NEW, NEW)


@case("java.console-old", "the console producer of 3.9, and the consumer of 4.3", needs=("java",))
def console_old_to_new(ctx: Context) -> None:
    console(ctx, OLD, NEW)


@case("java.console-to-old", "the console producer of 4.3, and the consumer of 3.9", needs=("java",))
def console_new_to_old(ctx: Context) -> None:
    console(ctx, NEW, OLD)


@case("java.perf", "kafka-producer-perf-test with every codec, kafka-consumer-perf-test, both group protocols", needs=("java",))
def perf(ctx: Context) -> None:
    kafka = Kafka(ctx, ctx.broker())
    count = 100_000
    for codec in CODECS:
        topic = f"perf-{codec}"
        kafka.create(topic, 3)
        sent = kafka.tool(
            "producer-perf-test", "--topic", topic, "--num-records", str(count), "--throughput", "-1", "--payload-monotonic",
            "--command-property", f"compression.type={codec}", "acks=all",
        ).lines[-1]  # fmt: skip
        contains("the report", sent, f"{count} records sent", "99.9th")
        ctx.note(f"{codec}: {sent}")
    for protocol in ("classic", "consumer"):
        head, line = kafka.tool(
            "consumer-perf-test", "--topic", "perf-zstd", "--num-records", str(count), "--group", protocol,
            "--command-property", f"group.protocol={protocol}",
        ).lines[-2:]  # fmt: skip
        read = dict(zip(head.split(", "), line.split(", "), strict=True))
        true("it reads every record", int(read["data.consumed.in.nMsg"]) == count, line)
        ctx.note(f"{protocol}: {line}")
    everything = kafka.tool("console-consumer", "--include", "perf-.*", "--from-beginning", "--max-messages", str(count * len(CODECS)))
    same_items("the records of all topics", map(int, everything.lines), list(range(count)) * len(CODECS))


@case("java.perf-old", "kafka-producer-perf-test of 3.9 with every codec", needs=("java",))
def perf_old(ctx: Context) -> None:
    broker = ctx.broker()
    kafka = Kafka(ctx, broker, OLD)
    count = 20_000
    for codec in CODECS:
        argv = kafka.command(
            "org.apache.kafka.tools.ProducerPerformance", "--topic", "perf", "--num-records", str(count), "--throughput", "-1",
            "--payload-monotonic", "--producer-props", f"bootstrap.servers={broker.kafka}", f"compression.type={codec}",
        )  # fmt: skip
        contains("the report", ctx.run(argv, name="producer-perf-test").lines[-1], f"{count} records sent")
    read = kafka.tool("console-consumer", "--topic", "perf", "--from-beginning", "--max-messages", str(count * len(CODECS)))
    same_items("the records", map(int, read.lines), list(range(count)) * len(CODECS))

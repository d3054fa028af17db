"""A corpus of records with all special cases, and the comparison of records read with records written."""

import base64
from collections.abc import Iterable, Sequence
import json
import random
import time
from typing import NamedTuple

from clients.programs import Kafka, Native
from harness.broker import Broker
from harness.context import Context
from harness.expect import Failed, equal, true

PARTITIONS = 5
CRASHES = 8


class Record(NamedTuple):
    """A record to write and to expect."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp: int


def _field(name: str, value: bytes | None) -> dict[str, str | None]:
    """Formats bytes as text, or as base64 in a separate field if they are not UTF-8."""
    if value is None:
        return {name: None}
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(value).decode()}


def _bytes(fields: dict, name: str) -> bytes | None:
    """Inverse of `_field`."""
    code, text = fields.get(f"{name}_base64"), fields.get(name)
    if code is not None:
        return base64.b64decode(code)
    return None if text is None else text.encode()


def line(record: Record) -> str:
    """Formats a record as input of the clients."""
    headers = [{"key": name, **_field("value", value)} for name, value in record.headers]
    fields = {**_field("key", record.key), **_field("value", record.value), "headers": headers, "timestamp": record.timestamp}
    return json.dumps(fields)


def parse(text: str) -> tuple[int, int, Record]:
    """Parses the partition, offset and record printed by a client."""
    fields = json.loads(text)
    headers = tuple((header["key"], _bytes(header, "value")) for header in fields["headers"])
    record = Record(_bytes(fields, "key"), _bytes(fields, "value"), headers, fields["timestamp"])
    return fields["partition"], fields["offset"], record


def corpus(client: Kafka | Native) -> list[Record]:
    """Returns the special records that the client can write, and enough plain records for compression.

    All records are distinct.
    """
    chance = random.Random(5)
    # Within the last hour, so that retention keeps them, but different from the current time.
    time_ms = int(time.time()) * 1000 - 3_600_000
    twice = (("trace", b"1"), ("trace", b"2"), ("trace", b"1"), ("empty", b""), ("", b"no name"), ("raw", b"\xff\x00"))
    special: list[tuple[bytes | None, bytes | None, tuple]] = [
        (None, b"", ()),
        (b"deleted", None, (("why", b"a tombstone"),)),
        (b"\x00\xff\xfe", b"\x80 not text \xff", ()),
        ("schlüssel".encode(), "Grüße 🌊".encode(), (("größe", "µ".encode()),)),
        (b"headers", b"", twice),
        (b"large", b"a line that repeats itself\n" * 8000, ()),
        (b"noise", chance.randbytes(50_000), ()),
        (b"k" * 1000, b"a long key", ()),
    ]
    if client.null_records:
        special.append((None, None, ()))
    if client.null_headers:
        special.append((b"bare", b"", (("bare", None), ("trace", None))))
    plain = [(f"user-{n % 97}".encode(), f"click number {n} of a session".encode(), (("n", str(n).encode()),)) for n in range(300)]
    return [Record(key, value, headers, time_ms + n * 7) for n, (key, value, headers) in enumerate(special + plain)]


def check_read(what: str, lines: Iterable[str], written: Sequence[Record]) -> dict[tuple[int, int], Record]:
    """Asserts that each record was read once, unchanged, at offsets without gaps. Returns the records by position."""
    places = {(partition, offset): record for partition, offset, record in map(parse, lines)}
    ends: dict[int, int] = {}
    for partition, offset in sorted(places):
        equal(f"{what}: the next offset of partition {partition}", offset, ends.get(partition, 0))
        ends[partition] = offset + 1
    wanted, seen = sorted(written, key=_order), sorted(places.values(), key=_order)
    for left, right in zip(wanted, seen):
        if left != right:
            raise Failed(f"{what}: expected {_short(left)}, saw {_short(right)}")
    equal(f"{what}: number of records", len(seen), len(wanted))
    return places


def check_places(what: str, said: Sequence[str], places: dict[tuple[int, int], Record], written: Sequence[Record]) -> None:
    """Asserts that each record is at its acknowledged position."""
    acknowledged = {place["record"]: (place["partition"], place["offset"]) for place in map(json.loads, said)}
    equal(f"{what}: records that were acknowledged", sorted(acknowledged), list(range(len(written))))
    for index, at in acknowledged.items():
        if places.get(at) != written[index]:
            raise Failed(f"{what}: expected {_short(written[index])} at {at}, saw {places.get(at) and _short(places[at])}")


def partitions_of_keys(places: dict[tuple[int, int], Record]) -> dict[bytes, int]:
    """Returns the partition of each key, and asserts that there is only one."""
    found: dict[bytes, int] = {}
    for (partition, _), record in places.items():
        if record.key is not None:
            equal(f"the partition of key {record.key[:20]!r}", partition, found.setdefault(record.key, partition))
    true("every partition has keys", len(set(found.values())) == PARTITIONS, found)
    return found


def check_stored(ctx: Context, broker: Broker, topic: str, codec: str) -> None:
    """Asserts that the batches of a topic are stored with this codec. The broker must be stopped."""
    seen = set()
    for partition in range(PARTITIONS):
        dump = [broker.program, "log", "dump", topic, "--partition", str(partition), "--json", "--data-dir", broker.data]
        frames = [json.loads(text) for text in ctx.run(dump, name="dump").lines]
        seen |= {frame["batch"]["compression"] for frame in frames if frame["kind"] == "batch"}
    # Clients leave batches uncompressed if compression does not make them smaller.
    equal(f"compression of the batches of {topic}", seen | {"none"}, {codec, "none"})
    true(f"batches of {topic} are compressed with {codec}", codec in seen, seen)


def round_trip(ctx: Context, client: Kafka) -> None:
    """With each codec, with and without idempotence: the client reads back what it wrote, and the log stores its compressed batches."""
    broker, native, written = ctx.broker(), Native(), corpus(client)
    codecs = _codecs(ctx, client)
    for codec, mode in ((codec, mode) for codec in codecs for mode in ("plain", "idempotent")):
        topic = f"{codec}-{mode}"
        native.create(ctx, broker, topic, PARTITIONS)
        said = client.write(ctx, broker, topic, codec, [line(record) for record in written], mode)
        places = check_read(f"{client.name} reads {topic}", client.read(ctx, broker, topic, len(written)), written)
        check_places(f"{client.name} wrote {topic}", said, places, written)
        partitions_of_keys(places)
    broker.stop()
    for codec in codecs:
        check_stored(ctx, broker, f"{codec}-plain", codec)


def all_to_all(ctx: Context, clients: Sequence[Kafka | Native]) -> None:
    """Each client reads what the others wrote, with each codec, and all clients choose the same partition for a key."""
    broker, native = ctx.broker(), Native()
    homes: dict[bytes, int] = {}
    for writer in clients:
        written = corpus(writer)
        for codec in _codecs(ctx, writer):
            topic = f"{writer.name}-{codec}"
            native.create(ctx, broker, topic, PARTITIONS)
            writer.write(ctx, broker, topic, codec, [line(record) for record in written])
            for reader in (reader for reader in clients if codec in reader.codecs):
                places = check_read(f"{reader.name} reads {topic}", reader.read(ctx, broker, topic, len(written)), written)
                for key, partition in partitions_of_keys(places).items():
                    equal(f"the partition to which {writer.name} sends key {key[:20]!r}", partition, homes.setdefault(key, partition))
    broker.stop()
    for writer in clients:
        for codec in _codecs(ctx, writer):
            check_stored(ctx, broker, f"{writer.name}-{codec}", codec)


def through_crashes(ctx: Context, client: Kafka) -> None:
    """The broker is killed repeatedly during writes by an idempotent producer: each record is read once, and in order."""
    broker, native = ctx.broker(), Native()
    native.create(ctx, broker, "survivors", PARTITIONS)
    start_ms = int(time.time()) * 1000 - 3_600_000
    written = [Record(f"user-{n % 97}".encode(), f"click {n}".encode(), (), start_ms + n) for n in range(40_000)]
    lines = [f"{line(record)}\n" for record in written]
    producer = client.producer(ctx, broker, "survivors", "lz4", "idempotent")
    share = len(lines) // CRASHES
    for begin in range(0, len(lines), share):
        producer.write("".join(lines[begin : begin + share]))
        # The first records have arrived, so the others are in flight.
        producer.wait_for("an acknowledgement of a record just sent", lambda acknowledged: len(acknowledged) > begin)
        broker.kill9()
        broker.start()
    producer.close_input()
    said = producer.wait().lines
    places = check_read(f"{client.name} reads", client.read(ctx, broker, "survivors", len(written)), written)
    check_places(f"{client.name} wrote", said, places, written)
    times: dict[int, int] = {}
    for (partition, offset), record in sorted(places.items()):
        true(f"offset {offset} of partition {partition} was written after the one before", record.timestamp > times.get(partition, 0))
        times[partition] = record.timestamp


def _codecs(ctx: Context, client: Kafka | Native) -> Sequence[str]:
    """Returns the codecs to test with this client; only one in the short version."""
    return client.codecs[-1:] if ctx.settings.short else client.codecs


def _order(record: Record) -> int:
    """Sort key of records: the timestamp, which is unique in the corpus."""
    return record.timestamp


def _short(record: Record) -> str:
    """Formats a record for a message, with large values truncated."""
    text = repr(record)
    return text if len(text) < 500 else f"{text[:500]}… ({len(text)} characters)"

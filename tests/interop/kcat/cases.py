"""The cases of kcat."""

import json
import signal

from clients.programs import ALL_CODECS, Native
from harness.cases import case
from harness.context import Context
from harness.expect import equal, eventually, same_items, true
from kcat.library import Kcat, offsets

NEEDS = ("dpkg-deb",)


@case("kcat.records", "kcat -P and -C: keys, headers, codecs, and all start positions (-o); kcat -L and -Q", needs=NEEDS)
def records(ctx: Context) -> None:
    """Uses one topic, created by kcat's first write."""
    broker = ctx.broker("--default-partitions", "2")
    kcat = Kcat(ctx, broker)
    sent = [f"{codec}-{n}" for codec in ALL_CODECS for n in range(10)]
    for codec in ALL_CODECS:
        lines = "".join(f"key {value}|{value}\n" for value in sent if value.startswith(f"{codec}-"))
        extras = ["-H", "trace=1", "-H", "trace=2", "-H", "bare", "-X", "enable.idempotence=true"]
        kcat.run("-P", "-t", "letters", "-K", "|", "-z", codec, *extras, stdin=lines)
    kcat.run("-P", "-t", "letters", "-p", "1", "-Z", "-K", "|", stdin="deleted|\n")

    read = kcat.read("-t", "letters", "-o", "beginning")
    same_items("values", [record["payload"] for record in read if record["payload"] is not None], sent)
    for record in read:
        if record["payload"] is None:
            equal("the tombstone's key", record["key"], "deleted")
        else:
            equal("key", record["key"], f"key {record['payload']}")
            equal("headers", record["headers"], ["trace", "1", "trace", "2", "bare", None])

    everywhere = offsets(read)
    ends = {partition: 1 + max(offset for p, offset in everywhere if p == partition) for partition in (0, 1)}
    equal("offsets", everywhere, [(partition, offset) for partition in (0, 1) for offset in range(ends[partition])])
    last = [(1, ends[1] - 3), (1, ends[1] - 2), (1, ends[1] - 1)]
    equal("the last three of partition 1", offsets(kcat.read("-t", "letters", "-p", "1", "-o", "-3")), last)
    equal("from an offset", offsets(kcat.read("-t", "letters", "-p", "1", "-o", str(ends[1] - 3))), last)
    equal("from the end", kcat.read("-t", "letters", "-p", "1", "-o", "end"), [])

    (metadata,) = map(json.loads, kcat.run("-L", "-J"))
    equal("brokers", [b["name"] for b in metadata["brokers"]], [broker.kafka])
    topics = {topic["topic"]: [(p["partition"], p["leader"]) for p in topic["partitions"]] for topic in metadata["topics"]}
    leader = metadata["brokers"][0]["id"]
    equal("topics, with leaders of partitions", topics, {"letters": [(0, leader), (1, leader)]})

    times = sorted((record["ts"], record["offset"]) for record in read if record["partition"] == 1)
    middle = times[len(times) // 2][0]
    first = min(offset for time, offset in times if time >= middle)
    equal("-Q by time", kcat.run("-Q", "-t", f"letters:1:{middle}"), [f"letters [1] offset {first}"])
    equal("-Q of the end", kcat.run("-Q", "-t", "letters:1:-1"), [f"letters [1] offset {ends[1]}"])
    found = kcat.read("-t", "letters", "-p", "1", "-o", f"s@{middle}")
    equal("from a time", offsets(found), [(1, offset) for offset in range(first, ends[1])])


@case("kcat.follow", "kcat -C from the end reads new records, and two kcat -G share a topic", needs=NEEDS)
def follow(ctx: Context) -> None:
    """Starts the readers before writing."""
    broker = ctx.broker()
    kcat = Kcat(ctx, broker)
    Native().create(ctx, broker, "news", 2)
    kcat.run("-P", "-t", "news", "-p", "0", stdin="old\n")
    tail = kcat.start("-C", "-u", "-t", "news", "-o", "end", "-c", "4")
    members = [kcat.start("-G", "readers", "-u", "-X", "auto.offset.reset=earliest", "-f", "%s\n", "news") for _ in range(2)]
    for member in members:
        eventually("each member has one partition", lambda: "assigned: news [0]\n" in member.errors or "assigned: news [1]\n" in member.errors)
    # kcat reports the end of a partition; records written from now on are new to it.
    eventually("kcat is at the end of both partitions", lambda: tail.errors.count("Reached end of topic") == 2)
    for partition in ("0", "1"):
        kcat.run("-P", "-t", "news", "-p", partition, stdin="new\nnewer\n")
    same_items("the records after the end", tail.wait().lines, ["new", "newer"] * 2)
    wanted = ["old", "new", "newer", "new", "newer"]
    eventually("the members have read everything", lambda: sum(len(member.lines) for member in members) >= len(wanted))
    for member in members:
        member.signal(signal.SIGTERM)
        member.wait()
    same_items("what the members read", [line for member in members for line in member.lines], wanted)
    true("both members read records", all(member.lines for member in members))

"""Prints the records of a topic from its beginning: consume.py BOOTSTRAP TOPIC COUNT."""

import asyncio
import json
import sys

from aiokafka import AIOKafkaConsumer

from lines import as_fields


def line(record) -> str:
    """A record as a line of JSON."""
    headers = [{"key": name, **as_fields("value", value)} for name, value in record.headers]
    return json.dumps(
        {
            "partition": record.partition,
            "offset": record.offset,
            "timestamp": record.timestamp,
            **as_fields("key", record.key),
            **as_fields("value", record.value),
            "headers": headers,
        }
    )


async def main(bootstrap: str, topic: str, count: str) -> None:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    left = int(count)
    while left:
        fetched = await consumer.getmany(timeout_ms=60_000, max_records=left)
        if not fetched:
            sys.exit(f"{left} records are missing")
        for records in fetched.values():
            for record in records:
                print(line(record))
                left -= 1
    await consumer.stop()


asyncio.run(main(*sys.argv[1:]))

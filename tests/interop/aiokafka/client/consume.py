"""Prints the records of a topic from its beginning: consume.py BOOTSTRAP TOPIC COUNT."""

import asyncio
import sys

from aiokafka import AIOKafkaConsumer

from lines import line


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

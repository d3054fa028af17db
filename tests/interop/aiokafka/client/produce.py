"""Sends the records of stdin: produce.py BOOTSTRAP TOPIC CODEC plain|idempotent. Prints the position of each."""

import asyncio
import json
import sys

from aiokafka import AIOKafkaProducer

from lines import as_bytes

IN_FLIGHT_MAX = 5000
"""Maximum number of unacknowledged records."""


async def send(producer: AIOKafkaProducer, topic: str, index: int, record: dict, room: asyncio.Semaphore) -> None:
    """Sends a record and waits for its acknowledgement."""
    waiting = await producer.send(
        topic,
        key=as_bytes(record, "key"),
        value=as_bytes(record, "value"),
        headers=[(header["key"], as_bytes(header, "value")) for header in record["headers"]],
        timestamp_ms=record["timestamp"],
    )

    def delivered(done: asyncio.Future) -> None:
        room.release()
        if done.exception() is None:
            place = done.result()
            print(json.dumps({"record": index, "partition": place.partition, "offset": place.offset}), flush=True)

    waiting.add_done_callback(delivered)
    return waiting


async def main(bootstrap: str, topic: str, codec: str, mode: str) -> None:
    options = {"compression_type": None if codec == "none" else codec, "linger_ms": 50, "acks": "all"}
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=mode == "idempotent", **options)
    await producer.start()
    room = asyncio.Semaphore(IN_FLIGHT_MAX)
    waiting = []
    loop = asyncio.get_running_loop()
    index = 0
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        await room.acquire()
        waiting.append(await send(producer, topic, index, json.loads(line), room))
        index += 1
    await asyncio.wait_for(producer.flush(), 120)
    for done in waiting:
        await done
    await producer.stop()


asyncio.run(main(*sys.argv[1:]))

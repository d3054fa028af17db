"""Tests permanent errors with aiokafka: refusals.py BOOTSTRAP.

If the client retried until its timeout, the error would be the timeout.
"""

import asyncio
import sys

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TransactionalIdAuthorizationFailed

RESERVED = ("__consumer_offsets", "__transaction_state")
EXISTS = 36
INVALID_NAME = 17


def equal(what: str, seen, wanted) -> None:
    """Asserts equality."""
    if seen != wanted:
        raise SystemExit(f"{what}: expected {wanted!r}, saw {seen!r}")


async def main(bootstrap: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id="pays")
    try:
        await producer.start()
    except TransactionalIdAuthorizationFailed:
        pass
    else:
        raise SystemExit("a transactional producer started")

    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    for name, wanted in (("a.b", 0), ("a.b", EXISTS), ("a_b", INVALID_NAME), *((name, INVALID_NAME) for name in RESERVED)):
        answer = await admin.create_topics([NewTopic(name, 1, 1, topic_configs={"preallocate": " True "})])
        equal(f"creating {name}", [code for _, code, *_ in answer.topic_errors], [wanted])
    equal("topics", await admin.list_topics(), ["a.b"])
    await admin.close()


asyncio.run(main(*sys.argv[1:]))

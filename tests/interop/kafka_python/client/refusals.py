"""Tests permanent errors with kafka-python: refusals.py BOOTSTRAP.

If the client retried until its timeout, the error would be the timeout.
"""

import sys

from kafka import KafkaAdminClient, KafkaProducer
from kafka.errors import InvalidTopicError, TopicAlreadyExistsError, TransactionalIdAuthorizationFailedError

RESERVED = ("__consumer_offsets", "__transaction_state")


def rejected(what: str, wanted: type[Exception], call, text: str = "") -> None:
    """Asserts that the call fails with this error and text."""
    try:
        call()
    except wanted as error:
        if text not in str(error):
            raise SystemExit(f"{what}: expected {text!r} in it, saw {error!r}") from None
        return
    raise SystemExit(f"{what}: expected {wanted.__name__}, but it succeeded")


def main(bootstrap: str) -> None:
    producer = KafkaProducer(bootstrap_servers=bootstrap, transactional_id="pays")
    rejected("a transactional producer", TransactionalIdAuthorizationFailedError, producer.init_transactions)
    producer.close(timeout=1)

    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics({"a.b": {"configs": {"preallocate": " True "}}})
    rejected("an existing topic", TopicAlreadyExistsError, lambda: admin.create_topics({"a.b": {}}), "Topic 'a.b' already exists.")
    rejected("a colliding name", InvalidTopicError, lambda: admin.create_topics({"a_b": {}}), "collides with existing topic: a.b")
    for name in RESERVED:
        rejected(f"the name {name}", InvalidTopicError, lambda name=name: admin.create_topics({name: {}}), "reserved")
    topics = admin.list_topics()
    if topics != ["a.b"]:
        raise SystemExit(f"topics: saw {topics!r}")
    admin.close()


main(*sys.argv[1:])

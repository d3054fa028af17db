"""Tests permanent errors, and administrative requests with trivial responses, with confluent-kafka: refusals.py BOOTSTRAP.

If librdkafka retried until its timeout, the error would be the timeout.
"""

import sys

from confluent_kafka import ElectionType, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

SECONDS = 60
RESERVED = ("__consumer_offsets", "__transaction_state")
MIB = 1 << 20


def equal(what: str, seen, wanted) -> None:
    """Asserts equality."""
    if seen != wanted:
        raise SystemExit(f"{what}: expected {wanted!r}, saw {seen!r}")


def rejected(what: str, code: int, says: str, call) -> None:
    """Asserts that the call fails with this error and text."""
    try:
        call()
    except KafkaException as failed:
        error = failed.args[0]
        equal(what, error.name(), KafkaError(code).name())
        if says not in error.str():
            raise SystemExit(f"{what}: expected {says!r} in it, saw {error.str()!r}")
        return
    raise SystemExit(f"{what}: expected {KafkaError(code).name()}, but it succeeded")


def transactions(bootstrap: str) -> None:
    """A transactional producer fails permanently, with the broker's error text."""
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": "pays"})
    code, says = KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "transactions are not available in this version of Highwater"
    rejected("a transactional producer", code, says, lambda: producer.init_transactions(SECONDS))


def sasl(bootstrap: str) -> None:
    """A client that uses SASL gets an error."""
    errors: list[KafkaError] = []
    settings = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": "u", "sasl.password": "p"}
    producer = Producer({"bootstrap.servers": bootstrap, **settings, "error_cb": errors.append})
    while not any(error.code() == KafkaError._AUTHENTICATION for error in errors):
        producer.poll(1)
    text = next(error.str() for error in errors if error.code() == KafkaError._AUTHENTICATION)
    if "Request not valid in current SASL state" not in text:
        raise SystemExit(f"SASL on a plain listener: saw {text!r}")


def topics(admin: AdminClient) -> None:
    """Names and settings are validated by Kafka's rules, with Kafka's error texts."""

    def create(name: str, **settings: str) -> None:
        config = {key.replace("_", "."): value for key, value in settings.items()}
        admin.create_topics([NewTopic(name, 1, 1, config=config)])[name].result(SECONDS)

    create("a.b", preallocate=" True ", cleanup_policy="", max_message_bytes=str(50 * MIB))
    rejected("an existing topic", KafkaError.TOPIC_ALREADY_EXISTS, "Topic 'a.b' already exists.", lambda: create("a.b"))
    invalid = KafkaError.TOPIC_EXCEPTION
    rejected("a colliding name", invalid, "Topic 'a_b' collides with existing topic: a.b", lambda: create("a_b"))
    for name in RESERVED:
        rejected(f"the name {name}", invalid, "reserved", lambda name=name: create(name))
    resource = ConfigResource(ResourceType.TOPIC, "a.b")
    entries = admin.describe_configs([resource])[resource].result(SECONDS)
    equal("preallocate", entries["preallocate"].value, "true")
    equal("cleanup.policy", entries["cleanup.policy"].value, "")
    equal("max.message.bytes", entries["max.message.bytes"].value, str(50 * MIB))


def internal_names(bootstrap: str, admin: AdminClient) -> None:
    """Writing to one of Kafka's internal topics does not create it."""
    failed: list[KafkaError] = []
    producer = Producer({"bootstrap.servers": bootstrap, "topic.metadata.propagation.max.ms": 1000, "message.timeout.ms": 5000})
    producer.produce(RESERVED[0], b"v", on_delivery=lambda error, _: failed.append(error))
    equal("records that wait", producer.flush(SECONDS), 0)
    if failed[0] is None or any(name in admin.list_topics(timeout=SECONDS).topics for name in RESERVED):
        raise SystemExit(f"{RESERVED[0]} was created by a write of a client")


def large_record(bootstrap: str) -> None:
    """Records above the broker's limit are rejected, whatever the topic allows, and those below it are accepted."""
    done: list[KafkaError | None] = []
    producer = Producer({"bootstrap.servers": bootstrap, "message.max.bytes": 100 * MIB})
    for size in (12 * MIB, 20 * MIB):
        producer.produce("a.b", bytes(size), on_delivery=lambda error, _: done.append(error))
        equal("records that wait", producer.flush(SECONDS), 0)
    equal("12 MiB and 20 MiB", [error and error.name() for error in done], [None, "MSG_SIZE_TOO_LARGE"])


def administration(admin: AdminClient) -> None:
    """Requests about credentials and elections of a cluster without them."""
    every = AclBindingFilter(
        ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
    )
    # confluent-kafka converts a response with only the error SECURITY_DISABLED to an empty list.
    equal("access control", admin.describe_acls(every).result(SECONDS), [])
    equal("credentials", admin.describe_user_scram_credentials().result(SECONDS), {})
    partition = TopicPartition("a.b", 0)
    elected = admin.elect_leaders(ElectionType.PREFERRED, [partition]).result(SECONDS)
    equal("an election", [error.name() for error in elected.values()], ["ELECTION_NOT_NEEDED"])


def main(bootstrap: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    transactions(bootstrap)
    sasl(bootstrap)
    topics(admin)
    internal_names(bootstrap, admin)
    large_record(bootstrap)
    administration(admin)


main(*sys.argv[1:])

"""Sends the records of stdin: produce.py BOOTSTRAP TOPIC CODEC plain|idempotent. Prints the position of each."""

import json
import sys

from kafka import KafkaProducer

from lines import as_bytes


def main(bootstrap: str, topic: str, codec: str, mode: str) -> None:
    producer = KafkaProducer(
        bootstrap_servers=bootstrap,
        compression_type=None if codec == "none" else codec,
        enable_idempotence=mode == "idempotent",
        acks="all",
        linger_ms=50,
    )
    failures: list[str] = []

    def delivered_to(index: int):
        def delivered(place) -> None:
            # A single write, as the client's thread also prints here.
            sys.stdout.write(json.dumps({"record": index, "partition": place.partition, "offset": place.offset}) + "\n")
            sys.stdout.flush()

        return delivered

    def failed_at(index: int):
        return lambda error: failures.append(f"record {index} was not acknowledged: {error}")

    for index, line in enumerate(sys.stdin):
        record = json.loads(line)
        future = producer.send(
            topic,
            key=as_bytes(record, "key"),
            value=as_bytes(record, "value"),
            headers=[(header["key"], as_bytes(header, "value")) for header in record["headers"]],
            timestamp_ms=record["timestamp"],
        )
        future.add_callback(delivered_to(index))
        future.add_errback(failed_at(index))
    producer.flush(120)
    producer.close()
    if failures:
        raise SystemExit(failures[0])


main(*sys.argv[1:])

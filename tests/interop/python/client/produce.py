"""Sends the records of stdin: produce.py BOOTSTRAP TOPIC CODEC plain|idempotent. Prints the position of each."""

import json
import sys
import threading

from confluent_kafka import Producer

from lines import as_bytes


def main(bootstrap: str, topic: str, codec: str, mode: str) -> None:
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "compression.type": codec,
            "enable.idempotence": mode == "idempotent",
            # The partitioner of Kafka's own clients; librdkafka's default uses CRC-32.
            "partitioner": "murmur2_random",
            "linger.ms": 50,
        }
    )
    failures: list[str] = []

    def delivered_to(index: int):
        def delivered(error, message) -> None:
            if error is not None:
                failures.append(f"record {index} was not acknowledged: {error}")
                return
            place = {"record": index, "partition": message.partition(), "offset": message.offset()}
            # A single write, as two threads print here.
            sys.stdout.write(f"{json.dumps(place)}\n")
            sys.stdout.flush()

        return delivered

    def serve() -> None:
        while True:
            producer.poll(1)

    # Process acknowledgements while waiting for more records.
    threading.Thread(target=serve, daemon=True).start()
    for index, line in enumerate(sys.stdin):
        record = json.loads(line)
        producer.produce(
            topic,
            key=as_bytes(record, "key"),
            value=as_bytes(record, "value"),
            headers=[(header["key"], as_bytes(header, "value")) for header in record["headers"]],
            timestamp=record["timestamp"],
            on_delivery=delivered_to(index),
        )
    if left := producer.flush(120):
        failures.append(f"{left} records were not acknowledged within two minutes")
    if failures:
        raise SystemExit(failures[0])


main(*sys.argv[1:])

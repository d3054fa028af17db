"""Sends the records of stdin: produce.py BOOTSTRAP TOPIC CODEC plain|idempotent. Prints where each of them went, in their order."""

import json
import sys

from confluent_kafka import Producer

from lines import as_bytes


def main(bootstrap: str, topic: str, codec: str, mode: str) -> None:
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "compression.type": codec,
            "enable.idempotence": mode == "idempotent",
            # That of Kafka's own clients; librdkafka's own default hashes with CRC-32.
            "partitioner": "murmur2_random",
            "linger.ms": 50,
        }
    )
    places: list[dict | None] = []

    def delivered_to(index: int):
        def delivered(error, message) -> None:
            if error is not None:
                raise SystemExit(f"record {index} was not acknowledged: {error}")
            places[index] = {"partition": message.partition(), "offset": message.offset()}

        return delivered

    for line in sys.stdin:
        record = json.loads(line)
        places.append(None)
        producer.produce(
            topic,
            key=as_bytes(record, "key"),
            value=as_bytes(record, "value"),
            headers=[(header["key"], as_bytes(header, "value")) for header in record["headers"]],
            timestamp=record["timestamp"],
            on_delivery=delivered_to(len(places) - 1),
        )
        producer.poll(0)
    if left := producer.flush(120):
        raise SystemExit(f"{left} records were not acknowledged within two minutes")
    for place in places:
        print(json.dumps(place))


main(*sys.argv[1:])

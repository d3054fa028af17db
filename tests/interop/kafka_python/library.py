"""kafka-python, as `requirements.txt` pins it."""

from pathlib import Path

from clients.programs import Kafka
from harness.context import Context
from python.library import python_client

HERE = Path(__file__).resolve().parent


def client(ctx: Context) -> Kafka:
    """Returns the programs of `client/`. kafka-python rejects a record with neither key nor value, and a header without a value."""
    return python_client(ctx, "kafka-python", HERE, null_records=False, null_headers=False)

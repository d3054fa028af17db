"""aiokafka, as `requirements.txt` pins it."""

from pathlib import Path

from clients.programs import Kafka
from harness.context import Context
from python.library import python_client

HERE = Path(__file__).resolve().parent


def client(ctx: Context) -> Kafka:
    """Returns the programs of `client/`. aiokafka rejects a record with neither key nor value."""
    return python_client(ctx, "aiokafka", HERE, null_records=False)

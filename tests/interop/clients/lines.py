"""Records as lines of JSON, the form that `highwater consume --json` prints and `highwater produce --json` reads.

All clients of the suite use it, so that each can read what the others wrote, with one comparison for all.
"""

import base64
import json


def as_bytes(fields: dict, name: str) -> bytes | None:
    """Returns the bytes of a field, given as text, as base64 in a separate field, or not at all."""
    code = fields.get(f"{name}_base64")
    if code is not None:
        return base64.b64decode(code)
    text = fields.get(name)
    return None if text is None else text.encode()


def as_fields(name: str, value: bytes | None) -> dict:
    """Inverse of `as_bytes`."""
    if value is None:
        return {name: None}
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(value).decode()}


def line(record) -> str:
    """Formats a record returned by aiokafka or kafka-python."""
    headers = [{"key": name, **as_fields("value", value)} for name, value in record.headers or []]
    return json.dumps(
        {
            "partition": record.partition,
            "offset": record.offset,
            "timestamp": record.timestamp,
            **as_fields("key", record.key),
            **as_fields("value", record.value),
            "headers": headers,
        }
    )

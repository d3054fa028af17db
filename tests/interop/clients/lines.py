"""Records as lines of JSON, the form that `highwater consume --json` prints and `highwater produce --json` reads.

Every client of the suite speaks it, so that any of them can read what any other wrote and one comparison serves them all.
"""

import base64
import json


def as_bytes(fields: dict, name: str) -> bytes | None:
    """The bytes of a field, which is text, or base64 in a field of its own, or not there."""
    code = fields.get(f"{name}_base64")
    if code is not None:
        return base64.b64decode(code)
    text = fields.get(name)
    return None if text is None else text.encode()


def as_fields(name: str, value: bytes | None) -> dict:
    """The reverse of `as_bytes`."""
    if value is None:
        return {name: None}
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(value).decode()}


def line(record) -> str:
    """A record that was read, as aiokafka and kafka-python return it."""
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

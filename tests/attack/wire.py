"""Encoders for the parts of Kafka's and the native protocol that the Python tests use."""

import gzip
import socket
import struct
import time

PRODUCE, FETCH, LIST_OFFSETS, METADATA, OFFSET_FETCH, CREATE_TOPICS, DELETE_TOPICS, DESCRIBE_CONFIGS = 0, 1, 2, 3, 9, 19, 20, 32
CONSUMER_GROUP_HEARTBEAT = 68


def string(text):
    data = text.encode()
    return struct.pack(">h", len(data)) + data


def array(items):
    return struct.pack(">i", len(items)) + b"".join(items)


def uvarint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def compact(text):
    data = text.encode()
    return uvarint(len(data) + 1) + data


def request(key, version, body, correlation=1, flexible=False):
    head = struct.pack(">hhih", key, version, correlation, -1) + (b"\0" if flexible else b"")
    return struct.pack(">i", len(head) + len(body)) + head + body


def crc32c_table():
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
        table.append(n)
    return table


TABLE = crc32c_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def batch(value, zipped=False):
    record = bytes([0, 0, 0, 1]) + uvarint(len(value) << 1) + value + b"\0"
    record = uvarint(len(record) << 1) + record
    record = gzip.compress(record) if zipped else record
    now = int(time.time() * 1000)
    checked = struct.pack(">hiqqqhii", int(zipped), 0, now, now, -1, -1, -1, 1) + record
    body = struct.pack(">ibI", -1, 2, crc32c(checked)) + checked
    return struct.pack(">qi", 0, len(body)) + body


def produce(topic, records, partition=0):
    partition = struct.pack(">i", partition) + struct.pack(">i", len(records)) + records
    body = struct.pack(">hhi", -1, -1, 30000) + array([string(topic) + array([partition])])
    return request(PRODUCE, 3, body)


def create_topics(topics):
    one = [string(name) + struct.pack(">ihii", partitions, 1, 0, 0) for name, partitions in topics]
    return request(CREATE_TOPICS, 4, array(one) + struct.pack(">ib", 600000, 0))


def delete_topics(names):
    return request(DELETE_TOPICS, 3, array([string(name) for name in names]) + struct.pack(">i", 600000))


def metadata(names, create=False):
    topics = struct.pack(">i", -1) if names is None else array([string(name) for name in names])
    return request(METADATA, 4, topics + struct.pack(">b", create))


def offset_fetch(groups):
    named = uvarint(len(groups) + 1) + b"".join(compact(group) + b"\0\0" for group in groups)
    return request(OFFSET_FETCH, 8, named + b"\0\0", flexible=True)


def describe_configs(names):
    return request(DESCRIBE_CONFIGS, 1, array([b"\2" + string(name) + struct.pack(">i", -1) for name in names]) + b"\0")


def fetch(topic, offset, wait_ms, partition=0, max_bytes=1 << 20):
    partition = struct.pack(">iqi", partition, offset, max_bytes)
    body = struct.pack(">iiiib", -1, wait_ms, 1, max_bytes, 0) + array([string(topic) + array([partition])])
    return request(FETCH, 4, body)


def list_offsets(topic, timestamp, partition=0):
    body = struct.pack(">i", -1) + array([string(topic) + array([struct.pack(">iq", partition, timestamp)])])
    return request(LIST_OFFSETS, 1, body)


def join_by_regex(group, member, regex):
    body = compact(group) + compact(member) + struct.pack(">i", 0) + b"\0\0" + struct.pack(">i", 300_000)
    return request(CONSUMER_GROUP_HEARTBEAT, 1, body + b"\0" + compact(regex) + b"\0\1\0", flexible=True)


def list_end(client, topic, partition):
    """Returns the offset after the last record of a partition."""
    return struct.unpack(">q", client.call(list_offsets(topic, -1, partition))[-8:])[0]


# The native protocol: docs/wire-format.md.

HELLO, DESCRIBE_TOPIC, SUBSCRIBE = 1, 6, 9


def native(kind, number, body):
    return struct.pack("<IHHQ", len(body), kind, 0, number) + body


def hello():
    return native(HELLO, 0, b"HIGHWATR" + struct.pack("<HHQ", 1, 1, 0) + b"\0\0" + struct.pack("<I", 6) + b"attack")


def describe_topic(name):
    return native(DESCRIBE_TOPIC, 1, struct.pack("<I", len(name)) + name.encode())


def subscribe(number, topic_id, credit_bytes):
    return native(SUBSCRIBE, number, topic_id + struct.pack("<IBQ", 0, 0, credit_bytes))


class Client:
    def __init__(self, port, timeout=180):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data):
        self.socket.sendall(data)

    def exactly(self, count):
        parts = []
        while count:
            part = self.socket.recv(min(count, 1 << 20))
            if not part:
                raise EOFError("the broker closed the connection")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def read(self):
        return self.exactly(struct.unpack(">i", self.exactly(4))[0])

    def call(self, data):
        self.send(data)
        return self.read()

    def call_native(self, data):
        self.send(data)
        length, _, status, _ = struct.unpack("<IHHQ", self.exactly(16))
        body = self.exactly(length)
        if status:
            raise EOFError(f"the broker returned an error: {body.decode()}")
        return body

    def close(self):
        self.socket.close()

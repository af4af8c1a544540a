"""Three ways to read a topic from its start, each the same on every log.

* `read_raw`: one socket and Fetch requests by hand; batches are counted by their headers and not unpacked, so
  that the log is the limit and not its client. It asks for as much as Kafka's own consumer: 1 MiB a
  partition, 50 MiB in all.
* `read_with_java`: Kafka's own `kafka-consumer-perf-test`.
* `read_with_librdkafka`: what the Python clients stand on.
"""

from __future__ import annotations

import re
import socket
import struct
import subprocess
import time
import uuid
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from benchmarks.parts import PartError
from tests import kafka_server

PARTITION_BYTES: Final = 1 << 20
ANSWER_BYTES: Final = 50 << 20
WAIT_MS: Final = 500
CONSUMED_AT_ONCE: Final = 10_000
TIMEOUT_S: Final = 120.0
PERF_TEST: Final = "org.apache.kafka.tools.ConsumerPerformance"

_FETCH, _FETCH_VERSION = 1, 4
_HEAD = struct.Struct(">ihhih")  # length, API, version, correlation id, length of the client's name
_LIMITS = struct.Struct(">iiiib")  # replica, longest wait, least and most bytes, isolation
_ASKED = struct.Struct(">iqi")  # partition, offset, most bytes
_ANSWERED = struct.Struct(">ihqqi")  # partition, error, high watermark, stable offset, aborted transactions
_BATCH = struct.Struct(">qi")  # base offset, length of what follows
_BATCH_HEADER_BYTES = 61
_LAST_OFFSET_DELTA_AT = 23
_NOT_COUNTED_BYTES = 12


def read_raw(brokers: str, topic: str, partitions: int, records: int) -> float:
    """Records a second over one connection, one request at a time as brokers answer them."""
    host, port = brokers.rsplit(":", 1)
    offsets = dict.fromkeys(range(partitions), 0)
    buffer = bytearray(ANSWER_BYTES + (1 << 20))
    with socket.create_connection((host, int(port)), TIMEOUT_S) as connection:
        began = time.perf_counter()
        while sum(offsets.values()) < records:
            connection.sendall(_fetch(topic, offsets))
            _advance(offsets, memoryview(buffer)[: _receive(connection, buffer)])
        return records / (time.perf_counter() - began)


def _fetch(topic: str, offsets: dict[int, int]) -> bytes:
    name = topic.encode()
    asked = b"".join(_ASKED.pack(number, offset, PARTITION_BYTES) for number, offset in offsets.items())
    body = (
        _LIMITS.pack(-1, WAIT_MS, 1, ANSWER_BYTES, 0)
        + struct.pack(">ih", 1, len(name))
        + name
        + len(offsets).to_bytes(4, "big")
        + asked
    )
    return _HEAD.pack(_HEAD.size - 4 + len(body), _FETCH, _FETCH_VERSION, 0, 0) + body


def _receive(connection: socket.socket, buffer: bytearray) -> int:
    """Bytes of the next answer, put into the buffer."""
    size = int.from_bytes(_exactly(connection, buffer, 4), "big")
    _exactly(connection, buffer, size)
    return size


def _exactly(connection: socket.socket, buffer: bytearray, count: int) -> memoryview:
    view = memoryview(buffer)[:count]
    filled = 0
    while filled < count:
        received = connection.recv_into(view[filled:], count - filled, socket.MSG_WAITALL)
        if not received:
            raise PartError(f"the log closed the connection {count - filled} bytes before an answer's end")
        filled += received
    return view


def _advance(offsets: dict[int, int], answer: memoryview) -> None:
    """Move each partition's offset behind the last whole batch of an answer about one topic."""
    position = 4 + 4 + 4  # correlation id, throttle time, number of topics
    position += 2 + int.from_bytes(answer[position : position + 2], "big")
    count = int.from_bytes(answer[position : position + 4], "big")
    position += 4
    for _ in range(count):
        number, error, _, _, aborted = _ANSWERED.unpack_from(answer, position)
        if error:
            raise PartError(f"partition {number} cannot be read: error {error}")
        position += _ANSWERED.size + 16 * max(aborted, 0)
        size = int.from_bytes(answer[position : position + 4], "big", signed=True)
        position += 4
        offsets[number] = _after(answer, position, position + max(size, 0), offsets[number])
        position += max(size, 0)


def _after(answer: memoryview, position: int, end: int, offset: int) -> int:
    while position + _BATCH_HEADER_BYTES <= end:
        base_offset, length = _BATCH.unpack_from(answer, position)
        last = int.from_bytes(answer[position + _LAST_OFFSET_DELTA_AT :][:4], "big")
        position += _NOT_COUNTED_BYTES + length
        if position <= end:
            offset = base_offset + last + 1
    return offset


def read_with_java(brokers: str, topic: str, records: int) -> float:
    """Records a second as Kafka's own tool reports them, without the time until it has its partitions."""
    command = [
        "java", "-Xmx512m", "-cp", f"{kafka_server.ensure_libs()}/*",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", PERF_TEST, "--bootstrap-server", brokers,
        "--topic", topic, "--messages", str(records), "--group", f"benchmark-{uuid.uuid4().hex}",
        "--timeout", "60000", "--hide-header",
    ]  # fmt: skip
    ended = subprocess.run(  # noqa: S603 - our own command
        command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )
    lines = [line for line in ended.stdout.splitlines() if re.match(r"\d{4}-\d\d-\d\d", line)]
    if ended.returncode or not lines:
        raise PartError(f"{PERF_TEST} failed:\n{(ended.stdout + ended.stderr)[-2_000:]}")
    # The last of its columns is `fetch.nMsg.sec`.
    return float(lines[-1].split(", ")[-1])


def read_with_librdkafka(
    brokers: str, topic: str, partitions: int, records: int, settings: dict[str, Any]
) -> float:
    """Records a second."""
    consumer = Consumer(
        {
            "bootstrap.servers": brokers,
            "group.id": "benchmark",
            "enable.auto.commit": False,
            "fetch.min.bytes": 1,
            **settings,
        }
    )
    began = time.perf_counter()
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(partitions)])
    read = 0
    while read < records:
        read += len(consumer.consume(CONSUMED_AT_ONCE, 0.05))
        if time.perf_counter() - began > TIMEOUT_S:
            raise PartError(f"only {read} of {records} records were read in {TIMEOUT_S:.0f} s")
    taken_s = time.perf_counter() - began
    consumer.close()
    return records / taken_s

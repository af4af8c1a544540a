"""Produce and Fetch on the wire, by hand: what is read and written millions of times.

Record batches are never copied here: a produced batch is a slice of the received frame, a fetched one
goes to the socket as it came from the file.
"""

from __future__ import annotations

import struct
from typing import NamedTuple, TypeVar

from streams.embedded.codec import FETCH_FLEXIBLE, PRODUCE_FLEXIBLE, read_uvarint, skip_tags, write_uvarint
from streams.embedded.errors import RequestError
from streams.embedded.file_slice import Records

_I16 = struct.Struct(">h")
_I32 = struct.Struct(">i")
_ACKS_TIMEOUT = struct.Struct(">hi")
_FETCH_HEAD = struct.Struct(">iiiib")
_SESSION = struct.Struct(">ii")
_PRODUCED = struct.Struct(">ihq")
_FETCHED = struct.Struct(">ihqq")
_ABORTED = struct.Struct(">qq")

# Topics and partitions of one request; many times what a log has.
_ITEMS_MAX = 100_000

_FETCH_PARTITION = {
    # version: partition, [current epoch], offset, [last fetched epoch], [log start], max bytes
    4: struct.Struct(">iqi"),
    5: struct.Struct(">iqqi"),
    9: struct.Struct(">iiqqi"),
    12: struct.Struct(">iiqiqi"),
}


class ProducedPartition(NamedTuple):
    topic: str
    partition: int
    records: memoryview | None


class ProduceRequest(NamedTuple):
    """A Produce request; `records` of its partitions are slices of the frame."""

    transactional_id: str | None
    acks: int
    partitions: list[ProducedPartition]


class ProduceResult(NamedTuple):
    """Outcome for one partition; `error` is a protocol error number."""

    topic: str
    partition: int
    error: int
    base_offset: int
    start_offset: int
    message: str | None = None


class FetchedPartition(NamedTuple):
    topic: str
    partition: int
    offset: int
    bytes_max: int


class FetchRequest(NamedTuple):
    wait_ms_max: int
    bytes_min: int
    bytes_max: int
    read_committed: bool
    session_id: int
    session_epoch: int
    partitions: list[FetchedPartition]


class FetchResult(NamedTuple):
    """Outcome for one partition; `aborted` holds (producer id, first offset) pairs, None if not asked."""

    topic: str
    partition: int
    error: int
    high_watermark: int
    last_stable_offset: int
    start_offset: int
    aborted: list[tuple[int, int]] | None
    records: Records


_ResultT = TypeVar("_ResultT", ProduceResult, FetchResult)


class _Cursor:
    """Reads a frame from left to right, in the compact or the old encoding."""

    __slots__ = ("buffer", "flexible", "items", "position")

    def __init__(self, buffer: memoryview, position: int, flexible: bool) -> None:
        self.buffer = buffer
        self.position = position
        self.flexible = flexible
        self.items = 0

    def size(self) -> int:
        """A nullable length of bytes: -1 for null."""
        if self.flexible:
            value, self.position = read_uvarint(self.buffer, self.position)
            return value - 1
        value = _I32.unpack_from(self.buffer, self.position)[0]
        self.position += 4
        return int(value)

    def count(self) -> int:
        """Length of an array, bounded by what the frame can hold, all arrays by what a request may ask."""
        count = max(self.size(), 0)
        self.items += count
        if count > len(self.buffer) - self.position or self.items > _ITEMS_MAX:
            raise RequestError(
                f"an array of {count} in {len(self.buffer)} bytes, {self.items} of {_ITEMS_MAX} in all"
            )
        return count

    def string(self) -> str | None:
        if self.flexible:
            length = self.size()
        else:
            length = _I16.unpack_from(self.buffer, self.position)[0]
            self.position += 2
        if length < 0:
            return None
        start = self.position
        self.position += length
        return str(self._slice(start), "utf-8")

    def records(self) -> memoryview | None:
        length = self.size()
        if length < 0:
            return None
        start = self.position
        self.position += length
        return self._slice(start)

    def tags(self) -> None:
        if self.flexible:
            self.position = skip_tags(self.buffer, self.position)

    def _slice(self, start: int) -> memoryview:
        if self.position > len(self.buffer):
            raise RequestError(f"a field ends at byte {self.position} of a frame of {len(self.buffer)}")
        return self.buffer[start : self.position]


def read_produce(frame: memoryview, position: int, version: int) -> ProduceRequest:
    """Raises RequestError."""
    try:
        return _read_produce(_Cursor(frame, position, version >= PRODUCE_FLEXIBLE), version)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise RequestError(f"Produce v{version} cannot be read: {error}") from error


def _read_produce(cursor: _Cursor, version: int) -> ProduceRequest:
    transactional_id = cursor.string() if version >= 3 else None
    acks, _timeout_ms = _ACKS_TIMEOUT.unpack_from(cursor.buffer, cursor.position)
    cursor.position += _ACKS_TIMEOUT.size
    partitions: list[ProducedPartition] = []
    for _ in range(cursor.count()):
        topic = cursor.string() or ""
        for _ in range(cursor.count()):
            index = _I32.unpack_from(cursor.buffer, cursor.position)[0]
            cursor.position += 4
            partitions.append(ProducedPartition(topic, index, cursor.records()))
            cursor.tags()
        cursor.tags()
    cursor.tags()
    return ProduceRequest(transactional_id, acks, partitions)


def write_produce(results: list[ProduceResult], version: int) -> bytes:
    """The body of a Produce response."""
    flexible = version >= PRODUCE_FLEXIBLE
    out: list[bytes] = []
    topics = _by_topic(results)
    _write_count(out, len(topics), flexible)
    for topic, partitions in topics.items():
        _write_string(out, topic, flexible)
        _write_count(out, len(partitions), flexible)
        for result in partitions:
            _write_produced(out, result, version)
        if flexible:
            out.append(b"\x00")
    if version >= 1:
        out.append(b"\x00\x00\x00\x00")
    if flexible:
        out.append(b"\x00")
    return b"".join(out)


def _write_produced(out: list[bytes], result: ProduceResult, version: int) -> None:
    out.append(_PRODUCED.pack(result.partition, result.error, result.base_offset))
    if version >= 2:
        out.append(b"\xff" * 8)
    if version >= 5:
        out.append(result.start_offset.to_bytes(8, "big", signed=True))
    flexible = version >= PRODUCE_FLEXIBLE
    if version >= 8:
        _write_count(out, 0, flexible)
        _write_nullable(out, result.message, flexible)
    if flexible:
        out.append(b"\x00")


def read_fetch(frame: memoryview, position: int, version: int) -> FetchRequest:
    """Raises RequestError."""
    try:
        return _read_fetch(_Cursor(frame, position, version >= FETCH_FLEXIBLE), version)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise RequestError(f"Fetch v{version} cannot be read: {error}") from error


def _read_fetch(cursor: _Cursor, version: int) -> FetchRequest:
    _replica, wait_ms, bytes_min, bytes_max, isolation = _FETCH_HEAD.unpack_from(
        cursor.buffer, cursor.position
    )
    cursor.position += _FETCH_HEAD.size
    session_id, session_epoch = 0, -1
    if version >= 7:
        session_id, session_epoch = _SESSION.unpack_from(cursor.buffer, cursor.position)
        cursor.position += _SESSION.size
    partitions: list[FetchedPartition] = []
    layout = _FETCH_PARTITION[max(known for known in _FETCH_PARTITION if known <= version)]
    offset_at = 1 if version < 9 else 2
    for _ in range(cursor.count()):
        topic = cursor.string() or ""
        for _ in range(cursor.count()):
            fields = layout.unpack_from(cursor.buffer, cursor.position)
            cursor.position += layout.size
            partitions.append(FetchedPartition(topic, fields[0], fields[offset_at], fields[-1]))
            cursor.tags()
        cursor.tags()
    # Forgotten topics and the rack follow; without sessions and replicas neither says anything.
    return FetchRequest(wait_ms, bytes_min, bytes_max, isolation == 1, session_id, session_epoch, partitions)


def write_fetch(results: list[FetchResult], version: int, error: int = 0) -> list[Records]:
    """The body of a Fetch response as buffers for the socket; record bytes are passed through."""
    flexible = version >= FETCH_FLEXIBLE
    out: list[Records] = [b"\x00\x00\x00\x00"]
    if version >= 7:
        out.append(error.to_bytes(2, "big", signed=True) + b"\x00\x00\x00\x00")
    topics = _by_topic(results)
    _write_count(out, len(topics), flexible)
    for topic, partitions in topics.items():
        _write_string(out, topic, flexible)
        _write_count(out, len(partitions), flexible)
        for result in partitions:
            _write_fetched(out, result, version)
        if flexible:
            out.append(b"\x00")
    if flexible:
        out.append(b"\x00")
    return _join_small(out)


def _write_fetched(out: list[Records], result: FetchResult, version: int) -> None:
    flexible = version >= FETCH_FLEXIBLE
    out.append(
        _FETCHED.pack(result.partition, result.error, result.high_watermark, result.last_stable_offset)
    )
    if version >= 5:
        out.append(result.start_offset.to_bytes(8, "big", signed=True))
    if result.aborted is None:
        out.append(b"\x00" if flexible else b"\xff\xff\xff\xff")
    else:
        _write_count(out, len(result.aborted), flexible)
        for pair in result.aborted:
            out.append(_ABORTED.pack(*pair) + (b"\x00" if flexible else b""))
    if version >= 11:
        out.append(b"\xff\xff\xff\xff")
    _write_count(out, len(result.records), flexible)
    if result.records:
        out.append(result.records)
    if flexible:
        out.append(b"\x00")


def _join_small(parts: list[Records]) -> list[Records]:
    """Join runs of small buffers, keep large ones and what is still in a file as they are."""
    joined: list[Records] = []
    run: list[bytes] = []
    for part in parts:
        if isinstance(part, bytes) and len(part) < 16_384:
            run.append(part)
            continue
        if run:
            joined.append(b"".join(run))
            run = []
        joined.append(part)
    if run:
        joined.append(b"".join(run))
    return joined


def _by_topic(results: list[_ResultT]) -> dict[str, list[_ResultT]]:
    topics: dict[str, list[_ResultT]] = {}
    for result in results:
        topics.setdefault(result.topic, []).append(result)
    return topics


def _write_count(out: list[Records] | list[bytes], count: int, flexible: bool) -> None:
    out.append(write_uvarint(count + 1) if flexible else count.to_bytes(4, "big"))


def _write_string(out: list[Records] | list[bytes], value: str, flexible: bool) -> None:
    raw = value.encode()
    out.append((write_uvarint(len(raw) + 1) if flexible else len(raw).to_bytes(2, "big")) + raw)


def _write_nullable(out: list[bytes], value: str | None, flexible: bool) -> None:
    if value is None:
        out.append(b"\x00" if flexible else b"\xff\xff")
    else:
        _write_string(out, value, flexible)

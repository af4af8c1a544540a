"""Record batches made and read in plain Python, and a commit that cycles when it is told to."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from streams.embedded import batch
from streams.embedded.batch import BatchHeader
from streams.embedded.open_files import OpenFiles
from streams.embedded.partition import PartitionLog
from streams.embedded.settings import LogSettings
from streams.embedded.topic_config import effective_config

TRANSACTIONAL = 0x10


class Row(NamedTuple):
    """One record of a log, as a reader sees it."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


def varint(value: int) -> bytes:
    """A zigzag varint."""
    zigzag = (value << 1) ^ (value >> 63)
    out = bytearray()
    while zigzag > 0x7F:
        out.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    out.append(zigzag)
    return bytes(out)


def _field(data: bytes | None) -> bytes:
    return varint(-1) if data is None else varint(len(data)) + data


def make_batch(
    records: Sequence[tuple[bytes | None, bytes | None]],
    *,
    timestamp: int = 1_000,
    producer_id: int = -1,
    epoch: int = -1,
    sequence: int = -1,
    transactional: bool = False,
    codec: int = 0,
) -> bytearray:
    """A batch as a client would send it; record i has timestamp + i."""
    body = b""
    for number, (key, value) in enumerate(records):
        record = b"\x00" + varint(number) + varint(number) + _field(key) + _field(value) + varint(0)
        body += varint(len(record)) + record
    packed = batch.compress(body, codec)
    last = len(records) - 1
    attributes = codec | (TRANSACTIONAL if transactional else 0)
    header = BatchHeader(
        0, 49 + len(packed), -1, 2, 0, attributes, last, timestamp, timestamp + last,
        producer_id, epoch, sequence, len(records),
    )  # fmt: skip
    raw = bytearray(struct.pack(">qiibIhiqqqhii", *header) + packed)
    struct.pack_into(">I", raw, 17, batch.checksum(raw, 0, len(raw)))
    return raw


def rows(data: bytes, *, controls: bool = False) -> list[Row]:
    """All records in a run of whole batches."""
    found = []
    position = 0
    while position < len(data):
        header = batch.read_header(data, position)
        assert batch.is_whole(data, position, header), f"a damaged batch at {position}"
        if controls or not header.is_control:
            content = batch.records_of(data, position, header)
            for record in batch.parse_records(content, header):
                found.append(Row(record.offset, record.timestamp, record.key, _value(content, record)))
        position += header.size
    return found


def _value(content: bytes, record: batch.Record) -> bytes | None:
    """A record's value, by reading the fields in front of it."""
    _, position = read_varint(content, record.start)
    position += 1
    for _ in ("timestamp delta", "offset delta"):
        _, position = read_varint(content, position)
    key_length, position = read_varint(content, position)
    length, position = read_varint(content, position + max(key_length, 0))
    return None if length < 0 else content[position : position + length]


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """(value, position after it) of a zigzag varint."""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), position
        shift += 7


class ManualCommit:
    """A group commit that runs a cycle when a test says so; `order` shuffles what it syncs, as threads do."""

    def __init__(self, order: random.Random | None = None) -> None:
        self.unsynced_bytes = 0
        self._order = order
        self._dirty: dict[object, None] = {}
        self._waiting: list[Callable[[], None]] = []

    def mark(self, target: object) -> None:
        self._dirty[target] = None

    def after(self, callback: Callable[[], None]) -> None:
        self._waiting.append(callback)

    async def barrier(self) -> None:
        self.cycle()

    def cycle(self) -> None:
        dirty, self._dirty = list(self._dirty), {}
        if self._order is not None:
            self._order.shuffle(dirty)
        for target in dirty:
            job = target.begin_sync()  # type: ignore[attr-defined]
            job.run()
            job.finish()
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback()


class LogUnderTest:
    """One partition with its own commit."""

    def __init__(self, directory: Path, config: dict[str, str] | None = None, **settings: object) -> None:
        self.commit = ManualCommit()
        self.settings = LogSettings(**settings)  # type: ignore[arg-type]
        self.log = PartitionLog(
            "topic",
            0,
            directory,
            effective_config(config or {}, self.settings),
            self.settings,
            self.commit,  # type: ignore[arg-type]
            OpenFiles(self.settings.open_segments_max),
        )

    def __del__(self) -> None:
        # A test forgets its logs as a kill would; their files must not stay open over thousands of examples.
        for segment in self.log.segments:
            segment.close()

    def append(self, raw: bytearray, now_ms: int = 1_000) -> int:
        """Validate, append and commit."""
        offset = self.append_only(raw, now_ms)
        self.commit.cycle()
        return offset

    def append_only(self, raw: bytearray, now_ms: int = 1_000) -> int:
        header = batch.validate_produced(raw, self.log.config.batch_bytes_max)
        return self.log.append(raw, header, now_ms)

    def mark(self, producer_id: int, epoch: int, *, commit: bool) -> None:
        self.log.append_marker(producer_id=producer_id, epoch=epoch, commit=commit, now_ms=1_000)
        self.commit.cycle()

    def read_all(self, *, committed: bool = False, bytes_max: int = 1 << 20) -> list[Row]:
        """Everything from the start on, fetched piece by piece as a consumer does."""
        found: list[Row] = []
        offset = self.log.start_offset
        while data := self.log.read(offset, bytes_max, committed=committed):
            aborted = self.log.aborted_in(offset, self.log.end_offset) if committed else []
            found += [row for row in visible(data, aborted) if row.offset >= offset]
            offset = last_header(data).next_offset
        return found


def visible(data: bytes, aborted: Sequence[tuple[int, int, int]]) -> list[Row]:
    """What a read_committed client delivers: its own filter by aborted transactions and abort markers."""
    pending = sorted((first, producer_id) for producer_id, first, _ in aborted)
    skipping: set[int] = set()
    found: list[Row] = []
    position = 0
    while position < len(data):
        header = batch.read_header(data, position)
        while pending and pending[0][0] <= header.base_offset:
            skipping.add(pending.pop(0)[1])
        if header.is_control:
            if not batch.is_commit_marker(data, position):
                skipping.discard(header.producer_id)
        elif not (header.is_transactional and header.producer_id in skipping):
            found += rows(data[position : position + header.size])
        position += header.size
    return found


def last_header(data: bytes) -> BatchHeader:
    """Header of the last batch."""
    position = 0
    while True:
        header = batch.read_header(data, position)
        position += header.size
        if position >= len(data):
            return header

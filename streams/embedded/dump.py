"""The records of one topic as they lie on the disk, in the order of partitions and offsets (`dump`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from streams.embedded import batch
from streams.embedded.batch import Record
from streams.embedded.errors import LogFolderError
from streams.embedded.stored_log import StoredBatch, StoredLog, batches_in, open_segment, segments_of


class DumpedRecord(NamedTuple):
    """One record; `kind` is "record", or "commit" or "abort" for a transaction's marker.

    producer_id: of its transaction, -1 outside of one; whether it was committed a later marker says.
    """

    partition: int
    offset: int
    timestamp_ms: int
    kind: str
    producer_id: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


def dump_topic(
    folder: Path, topic: str, partition: int | None = None, from_offset: int = 0
) -> Iterator[DumpedRecord]:
    """Every record of a topic, or of one of its partitions, from an offset on.

    Raises LogFolderError for a folder without log, a topic or partition that it does not have, and damage;
    CorruptBatchError for records that cannot be read.
    """
    log = StoredLog(folder)
    known = log.state.topics.get(topic)
    if known is None:
        raise LogFolderError(f"{log.folder} has no topic {topic!r}; it has {', '.join(log.state.topics)}")
    partitions = log.partitions(known)
    if partition is not None and not 0 <= partition < len(partitions):
        raise LogFolderError(f"{topic} has the partitions 0 to {len(partitions) - 1}, not {partition}")
    for stored in partitions:
        if partition in (None, stored.partition):
            start = max(from_offset, stored.start_offset)
            for found in _batches(stored.directory, start):
                yield from _records(stored.partition, found, start)


def _batches(directory: Path, start: int) -> Iterator[StoredBatch]:
    segments = segments_of(directory)
    for number, segment in enumerate(segments):
        is_last = number == len(segments) - 1
        if not is_last and segments[number + 1].base_offset <= start:
            continue
        end = 0
        with open_segment(segment) as file:
            size = os.fstat(file.fileno()).st_size
            for found in batches_in(file, 0, size):
                end = found.position + found.header.size
                if found.header.next_offset > start:
                    yield found
        if end < size and not is_last:
            raise LogFolderError(f"{segment.path} is damaged at byte {end}; `tidal log verify` tells more")


def _records(partition: int, found: StoredBatch, start: int) -> Iterator[DumpedRecord]:
    header = found.header
    data = batch.records_of(found.content, 0, header)
    kind = "record"
    if header.is_control:
        kind = "commit" if batch.is_commit_marker(found.content, 0) else "abort"
    producer_id = header.producer_id if header.is_transactional else -1
    for record in batch.parse_records(data, header):
        if record.offset >= start:
            value, headers = _value_and_headers(data, record)
            yield DumpedRecord(
                partition, record.offset, record.timestamp, kind, producer_id, record.key, value, headers
            )


def _value_and_headers(data: bytes, record: Record) -> tuple[bytes | None, list[tuple[str, bytes | None]]]:
    value, position = _bytes_at(data, record.value_start)
    count, position = batch.read_varint(data, position)
    headers = []
    for _ in range(count):
        name, position = _bytes_at(data, position)
        content, position = _bytes_at(data, position)
        headers.append(((name or b"").decode("utf-8", "replace"), content))
    return value, headers


def _bytes_at(data: bytes, position: int) -> tuple[bytes | None, int]:
    """(nullable bytes behind their length, position after them)."""
    length, position = batch.read_varint(data, position)
    if length < 0:
        return None, position
    return data[position : position + length], position + length

"""Columns hold exactly what aiokafka's own unpacking would have yielded, and leave its positions alike."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import TopicPartition
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.faust import unpacking
from streams.faust.unpacking import ColumnResults, take_columns
from streams.records import Records

TP = TopicPartition("t", 3)
ATTRIBUTES_AT = 21
CONTROL, TRANSACTIONAL = 0x20, 0x10
ABORT, COMMIT = b"\0\0\0\0", b"\0\0\0\1"


@dataclass(frozen=True)
class Batch:
    """A record batch of the log: sizes of its records' values, with gaps of compaction between them."""

    sizes: tuple[int, ...]
    gaps: tuple[int, ...]
    producer: int = -1
    transactional: bool = False
    marker: bytes = b""
    compressed: bool = False
    headers: bool = False


def _encoded(batch: Batch, base: int) -> tuple[bytes, int]:
    """Its bytes, and the offset after it."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=3 if batch.compressed and not batch.marker else 0,
        is_transactional=batch.transactional or bool(batch.marker),
        producer_id=batch.producer,
        producer_epoch=0,
        base_sequence=0,
        batch_size=1 << 24,
    )
    at = 0
    if batch.marker:
        builder.append(0, timestamp=1, key=batch.marker, value=b"\0" * 6, headers=[])
        at = 1
    for size, gap in zip(batch.sizes, batch.gaps, strict=True) if not batch.marker else ():
        at += gap
        headers = [("h", b"v")] if batch.headers and at % 2 else []
        key, value = (None if at % 3 == 0 else b"k%d" % at), (None if size == 0 else b"x" * size)
        builder.append(at, timestamp=1_000 + at, key=key, value=value, headers=headers)
        at += 1
    content = bytearray(builder.build())
    struct.pack_into(">q", content, 0, base)
    if batch.marker:
        (attributes,) = struct.unpack_from(">h", content, ATTRIBUTES_AT)
        struct.pack_into(">h", content, ATTRIBUTES_AT, attributes | CONTROL)
    return bytes(content), base + at


def _source(
    content: bytes, position: int, aborted: list[tuple[int, int]], isolation: int
) -> PartitionRecords:
    return PartitionRecords(TP, MemoryRecords(content), aborted, position, None, None, False, isolation)


class Assignment:
    """What a fetch result asks of its assignment: nothing was paused or sought."""

    active = True

    def __init__(self, source: PartitionRecords) -> None:
        self._source = source
        self.taken: list[int] = []

    def state_value(self, tp: Any) -> Any:
        return self

    paused = False

    @property
    def position(self) -> int:
        return self._source.next_fetch_offset

    def consumed_to(self, offset: int) -> None:
        self.taken.append(offset)


def _columns(source: PartitionRecords) -> ColumnResults:
    results = ColumnResults()
    results[TP] = FetchResult(TP, assignment=Assignment(source), partition_records=source, backoff=0)
    return results


BATCHES = st.lists(
    st.builds(
        Batch,
        sizes=st.lists(st.integers(0, 40), min_size=4, max_size=4).map(tuple),
        gaps=st.lists(st.integers(0, 2), min_size=4, max_size=4).map(tuple),
        producer=st.sampled_from((-1, 7, 8)),
        transactional=st.booleans(),
        marker=st.sampled_from((b"", b"", b"", ABORT, COMMIT)),
        compressed=st.booleans(),
        headers=st.booleans(),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=60)
@given(
    batches=BATCHES,
    skipped=st.integers(0, 6),
    aborts=st.lists(st.tuples(st.sampled_from((7, 8)), st.integers(0, 30)), max_size=3),
    committed=st.booleans(),
    records_max=st.sampled_from((1, 3, 8_192)),
    parts_at_once=st.sampled_from((1, 2, 64)),
)
def test_columns_equal_the_records_one_by_one(
    batches: list[Batch],
    skipped: int,
    aborts: list[tuple[int, int]],
    committed: bool,
    records_max: int,
    parts_at_once: int,
) -> None:
    content, offset = b"", 0
    for batch in batches:
        encoded, offset = _encoded(batch, offset)
        content += encoded
    isolation = READ_COMMITTED if committed else READ_UNCOMMITTED
    plain = _source(content, skipped, list(aborts), isolation)
    expected = list(plain)
    source = _source(content, skipped, list(aborts), isolation)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unpacking, "PART_RECORDS_MAX", records_max)
        result = _columns(source)[TP]
        parts: list[Records] = []
        positions = []
        while result.has_more():
            parts += result.getall(parts_at_once)
            positions.append((len(parts), source.next_fetch_offset))
    for taken, position in positions:  # a seek to here would miss nothing and repeat nothing
        assert all(part.last_offset < position for part in parts[:taken])
        assert all(part.first_offset >= position for part in parts[taken:])
    found = [record for part in parts for record in part]
    assert [tuple(record) for record in found] == [
        (each.topic, each.partition, each.offset, each.timestamp, each.key, each.value, each.headers)
        for each in expected
    ]
    assert source.next_fetch_offset == plain.next_fetch_offset
    assert all(len(part) <= records_max for part in parts)


def test_a_part_is_bounded_by_bytes_and_has_one_record_at_least() -> None:
    batch = Batch((300_000, 300_000, 600_000, 10), (0, 0, 0, 0))
    source = _source(_encoded(batch, 0)[0], 0, [], READ_COMMITTED)
    parts = _columns(source)[TP].getall(64)
    assert [part.offset.tolist() for part in parts] == [[0], [1], [2], [3]]


def test_a_damaged_batch_is_an_error_and_moves_nothing() -> None:
    first, base = _encoded(Batch((5,), (0,)), 0)
    second = bytearray(_encoded(Batch((5,), (0,)), base)[0])
    second[-3] ^= 0xFF
    source = PartitionRecords(
        TP, MemoryRecords(first + bytes(second)), [], 0, None, None, True, READ_COMMITTED
    )
    result = _columns(source)[TP]
    with pytest.raises(CorruptRecordException):
        result.getall(64)
    assert result._assignment.taken == []


def test_results_that_were_fetched_before_are_unpacked_too() -> None:
    source = _source(_encoded(Batch((5, 5), (0, 0)), 0)[0], 0, [], READ_COMMITTED)

    fetched = FetchResult(TP, assignment=Assignment(source), partition_records=source, backoff=0)
    fetcher = SimpleNamespace(_records={TP: fetched})
    take_columns(fetcher)
    results = fetcher._records
    take_columns(fetcher)
    assert fetcher._records is results
    assert [len(part) for part in results[TP].getall(64)] == [2]

"""What the consumer has fetched, unpacked into columns instead of one object for each record.

aiokafka keeps a fetched partition as the bytes of its record batches and unpacks them when they are asked
for, through one generator. That generator alone is replaced: positions, seeks, rebalances, checksums, the
offsets of compacted topics and transactions that were aborted stay aiokafka's work, or are done as it does.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from aiokafka.consumer.fetcher import READ_COMMITTED, FetchResult
from aiokafka.errors import CorruptRecordException

from streams.records import Records, join_records

PART_RECORDS_MAX: Final = 8_192
PART_BYTES_MAX: Final = 512 << 10
"""Of one part: between two of them other work gets its turn. A part has at least one record."""


class ColumnResults(OrderedDict[Any, Any]):
    """Takes the place of a fetcher's table of results: what enters it will be unpacked into columns.

    One *record* of such a result is a ``Records`` of bounded size.
    """

    def __setitem__(self, tp: Any, result: Any) -> None:
        if type(result) is FetchResult and result._partition_records is not None:
            unpacked = result._partition_records
            unpacked._records_iterator = _columns_of(unpacked)
        super().__setitem__(tp, result)


def take_columns(fetcher: Any) -> None:
    """Make ``fetcher`` hand out columns from now on; calling it again changes nothing."""
    if not isinstance(fetcher._records, ColumnResults):
        results = ColumnResults()
        for tp, result in fetcher._records.items():
            results[tp] = result
        fetcher._records = results


def _columns_of(source: Any) -> Iterator[Records]:
    """Parts of ``source`` (aiokafka's PartitionRecords), whose ``next_fetch_offset`` goes with them.

    Small record batches of the log share a part, large ones are cut.
    """
    waiting: list[Records] = []
    count = size = 0
    while source._records.has_next():
        batch = source._records.next_batch()
        if source._check_crcs and not batch.validate_crc():
            raise CorruptRecordException(f"Invalid CRC - {source._tp}")
        if not _is_hidden(source, batch) and (records := _records_of(source, batch)) is not None:
            for part, weight in _cut(records):
                if waiting and (count + len(part) > PART_RECORDS_MAX or size + weight > PART_BYTES_MAX):
                    yield from _joined(waiting)
                    waiting, count, size = [], 0, 0
                waiting.append(part)
                count, size = count + len(part), size + weight
                source.next_fetch_offset = part.last_offset + 1
        # Also behind a batch whose last records compaction has removed, or that is hidden.
        source.next_fetch_offset = batch.next_offset
    yield from _joined(waiting)


def _joined(waiting: list[Records]) -> Iterator[Records]:
    if waiting:
        yield join_records(waiting)


def _is_hidden(source: Any, batch: Any) -> bool:
    """Whether a reader of committed records must not see it: a marker, or of an aborted transaction."""
    if source._isolation_level == READ_COMMITTED and batch.producer_id is not None:
        source._consume_aborted_up_to(batch.base_offset)
        if batch.is_control_batch and source._contains_abort_marker(batch):
            source._aborted_producers.discard(batch.producer_id)
        if batch.is_transactional and batch.producer_id in source._aborted_producers:
            return True
    return bool(batch.is_control_batch)


def _records_of(source: Any, batch: Any) -> Records | None:
    """The batch's records from the position on; None if there are none."""
    rows = list(batch)
    if rows and rows[0].offset < source.next_fetch_offset:  # a fetch returns whole batches
        rows = [row for row in rows if row.offset >= source.next_fetch_offset]
    if not rows:
        return None
    n = len(rows)
    first, last = rows[0].offset, rows[-1].offset
    dense = last - first + 1 == n
    offset = np.arange(first, last + 1) if dense else np.array([row.offset for row in rows])
    timestamp = np.fromiter((row.timestamp for row in rows), np.int64, n)
    return Records(
        source._tp.topic,
        source._tp.partition,
        offset,
        timestamp,
        [row.key for row in rows],
        [row.value for row in rows],
        {at: tuple(row.headers) for at, row in enumerate(rows) if row.headers},
    )


def _cut(records: Records) -> Iterator[tuple[Records, int]]:
    """Consecutive parts within the bounds, and the bytes of each."""
    weight = records.weight()
    if len(records) <= PART_RECORDS_MAX and weight <= PART_BYTES_MAX:
        yield records, weight
        return
    start = size = 0
    for at, value in enumerate(records.value):
        weight = len(value) if value else 0
        if at > start and (size + weight > PART_BYTES_MAX or at - start >= PART_RECORDS_MAX):
            yield records.part(start, at), size
            start, size = at, 0
        size += weight
    yield records.part(start, len(records)), size

"""Bucket blocks of one partition: what each flush added, packed by time bucket, merged as buckets close.

Events are gathered as columns. A flush reduces them to one row for each (bucket, item, signal, profile)
and appends those to the open block of their bucket, which is rewritten until it holds ``OPEN_ROWS_MAX``
rows; then the next one begins. Events that reached the log soon after they happened go to minute buckets,
older ones to hour buckets. Once no recent event can fall into a minute bucket any more, its blocks are
merged into its hour's, in the write batch that deletes them: a bucket's content, the total of its blocks,
depends on the events alone, never on where flushes fell.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from materializers.grouping import Groups, composite_key
from materializers.materializer import RowReader, RowWriter
from materializers.rows.blocks import (
    BlockColumns,
    BlockDeltas,
    Resolution,
    block_key,
    block_range,
    decode_block,
    encode_block,
    encode_deltas,
    resolution_range,
    split_block_key,
)

U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]

OPEN_ROWS_MAX = 1_024  # the open block is written again by each flush: about 8 KB at most
BLOCK_ROWS_MAX = 8_192  # a bulk of events is cut here, so that a reader never decodes a huge value
_GATHERED_MAX = 1 << 17  # rows in memory before they are reduced early: about 5 MB
_OPEN_BLOCKS_MAX = 512  # about 20 KB each; an import of years touches thousands of hours
_MERGE_ROWS_MIN = 32_768  # about 10 ms of work
_MINUTE_MS = 60_000
_HOUR_MINUTES = Resolution.HOUR.minutes
_BUCKET_BITS = 32

Bucket = tuple[int, int]
"""Resolution and start in minutes."""


@dataclass(slots=True)
class _OpenBlock:
    """The last block of a bucket; its rows are complete in memory."""

    seq: int
    columns: BlockColumns | None


class BlockLog:
    """Blocks of one table of one partition.

    Args:
        table: the table, also the name of the feed section.
        rows: what is on disk; rows handed to a writer must be readable before the next ``checkpoint``.
        signal_codes: u32 code by dense signal index.
        horizon_ms: events up to this old when the log got them go to minute buckets.
    """

    _gathered: list[BlockDeltas]
    _gathered_rows: int
    _newest_record_ms: int
    _open: dict[Bucket, _OpenBlock]
    _minutes: set[int]
    _written: set[Bucket]

    def __init__(self, table: str, rows: RowReader, signal_codes: U32, horizon_ms: int) -> None:
        self._table = table
        self._rows = rows
        self._codes = signal_codes
        self._horizon_ms = horizon_ms
        # One hour more than the horizon: a reader's "window before the last hour" is minutes, too.
        self._close_after_minutes = -(-horizon_ms // _MINUTE_MS) + _HOUR_MINUTES
        self._clear()

    def add(
        self,
        item: U32,
        signal: U16,
        weight: I64,
        ts_ms: I64,
        record_ts_ms: I64,
        profile: U32 | None = None,
    ) -> None:
        """Gather n events: item and profile ordinals, dense signal indexes, weights in micro-units."""
        if not len(item):
            return
        self._newest_record_ms = max(self._newest_record_ms, int(record_ts_ms.max()))
        cells = BlockColumns(item, self._codes[signal], profile, np.ones(len(item), dtype=np.int64), weight)
        resolution, bucket = self._bucket_of(ts_ms, record_ts_ms)
        self._gathered.append(BlockDeltas(resolution, bucket, cells))
        self._gathered_rows += len(item)
        if self._gathered_rows > _GATHERED_MAX:
            self._gathered = [_reduced(self._gathered)]
            self._gathered_rows = 0

    def checkpoint(self, writer: RowWriter) -> None:
        """Write what was gathered, feed it to readers, and merge some closed buckets."""
        self._evict()
        self._written = set()
        packed = 0
        if self._gathered:
            deltas = _reduced(self._gathered)
            self._gathered, self._gathered_rows = [], 0
            packed = len(deltas)
            writer.feed(self._table, encode_deltas(deltas))
            for bucket, columns in _by_bucket(deltas):
                self._append(bucket, columns, writer)
        self._merge_closed(writer, max(_MERGE_ROWS_MIN, 2 * packed))

    def restore(self, reader: RowReader) -> None:
        """Find the minute buckets that wait to be merged; other buckets are looked up when touched."""
        self._rows = reader
        self._clear()
        for key, _ in reader.scan(self._table, *resolution_range(Resolution.MINUTE)):
            self._minutes.add(split_block_key(key)[1])

    def _clear(self) -> None:
        self._gathered = []
        self._gathered_rows = 0
        self._open = {}
        self._written = set()
        self._minutes = set()
        self._newest_record_ms = 0

    def _bucket_of(self, ts_ms: I64, record_ts_ms: I64) -> tuple[npt.NDArray[np.uint8], U32]:
        minute = ts_ms // _MINUTE_MS
        hour = minute - minute % _HOUR_MINUTES
        recent = (record_ts_ms - ts_ms <= self._horizon_ms) & (hour >= self._open_hours_from())
        resolution = np.where(recent, np.uint8(Resolution.MINUTE), np.uint8(Resolution.HOUR))
        return resolution, np.where(recent, minute, hour).astype(np.uint32)

    def _open_hours_from(self) -> int:
        """The first hour, as its start in minutes, whose minute buckets are not to be merged yet."""
        newest_minute = self._newest_record_ms // _MINUTE_MS
        last_closed_end = newest_minute - self._close_after_minutes
        return int(last_closed_end // _HOUR_MINUTES * _HOUR_MINUTES)

    def _append(self, bucket: Bucket, columns: BlockColumns, writer: RowWriter) -> None:
        block = self._open_block(bucket)
        if block.columns is not None:
            columns = _reduced_cells([block.columns, columns])
        for start in range(0, len(columns), BLOCK_ROWS_MAX):
            part = _rows_of(columns, slice(start, start + BLOCK_ROWS_MAX))
            writer.put(self._table, block_key(*bucket, block.seq), encode_block(part))
            full = len(part) >= OPEN_ROWS_MAX
            block.columns = None if full else part
            block.seq += full
        self._written.add(bucket)
        if bucket[0] == Resolution.MINUTE:
            self._minutes.add(bucket[1])

    def _open_block(self, bucket: Bucket) -> _OpenBlock:
        block = self._open.pop(bucket, None)
        if block is None:
            block = self._load_open(bucket)
        self._open[bucket] = block  # the dict is in order of use
        return block

    def _load_open(self, bucket: Bucket) -> _OpenBlock:
        last = deque(self._stored(bucket), maxlen=1)
        if not last:
            return _OpenBlock(0, None)
        key, value = last[0]
        seq = split_block_key(key)[2]
        columns = decode_block(value)
        return _OpenBlock(seq + 1, None) if len(columns) >= OPEN_ROWS_MAX else _OpenBlock(seq, columns)

    def _stored(self, bucket: Bucket) -> Iterator[tuple[bytes, bytes]]:
        resolution, start = bucket
        return self._rows.scan(self._table, *block_range(resolution, start, start + 1))

    def _evict(self) -> None:
        """Before anything is written: a block of the current flush is not on disk yet."""
        for bucket in list(self._open)[: max(0, len(self._open) - _OPEN_BLOCKS_MAX)]:
            del self._open[bucket]

    def _merge_closed(self, writer: RowWriter, rows_max: int) -> None:
        """Move closed minutes into their hours, oldest first, about ``rows_max`` rows of them.

        The bound grows with what the flush itself packed, so that merging keeps up with any rate.
        """
        if not self._minutes or min(self._minutes) >= self._open_hours_from():
            return
        moved: dict[int, list[BlockColumns]] = {}
        rows = 0
        for minute in sorted(minute for minute in self._minutes if minute < self._open_hours_from()):
            bucket = (int(Resolution.MINUTE), minute)
            if bucket in self._written:
                continue
            blocks = self._take(bucket, writer)
            moved.setdefault(minute - minute % _HOUR_MINUTES, []).extend(blocks)
            rows += sum(map(len, blocks))
            if rows >= rows_max:
                break
        for hour, blocks in moved.items():
            if blocks:
                self._append((int(Resolution.HOUR), hour), _reduced_cells(blocks), writer)

    def _take(self, bucket: Bucket, writer: RowWriter) -> list[BlockColumns]:
        stored = list(self._stored(bucket))
        for key, _ in stored:
            writer.delete(self._table, key)
        self._minutes.discard(bucket[1])
        self._open.pop(bucket, None)
        return [decode_block(value) for _, value in stored]


def _by_bucket(deltas: BlockDeltas) -> Iterator[tuple[Bucket, BlockColumns]]:
    """Runs of one bucket; ``deltas`` is sorted by it."""
    bucket = (deltas.resolution.astype(np.int64) << _BUCKET_BITS) | deltas.bucket
    edges = np.flatnonzero(np.diff(bucket)) + 1
    starts = [0, *edges.tolist()]
    for start, end in zip(starts, [*starts[1:], len(bucket)], strict=True):
        key = (int(deltas.resolution[start]), int(deltas.bucket[start]))
        yield key, _rows_of(deltas.cells, slice(start, end))


def _rows_of(columns: BlockColumns, rows: slice) -> BlockColumns:
    profile = columns.profile
    return BlockColumns(
        columns.item[rows],
        columns.signal[rows],
        None if profile is None else profile[rows],
        columns.count[rows],
        columns.sum[rows],
    )


def _joined(parts: Sequence[BlockColumns]) -> BlockColumns:
    if len(parts) == 1:
        return parts[0]
    profiles = [part.profile for part in parts if part.profile is not None]
    return BlockColumns(
        np.concatenate([part.item for part in parts]),
        np.concatenate([part.signal for part in parts]),
        np.concatenate(profiles) if profiles else None,
        np.concatenate([part.count for part in parts]),
        np.concatenate([part.sum for part in parts]),
    )


def _summed(groups: Groups, cells: BlockColumns) -> BlockColumns:
    profile = cells.profile
    return BlockColumns(
        groups.representative(cells.item),
        groups.representative(cells.signal),
        None if profile is None else groups.representative(profile),
        groups.sum(cells.count),
        groups.sum(cells.sum),
    )


def _reduced(parts: Sequence[BlockDeltas]) -> BlockDeltas:
    """One row for each bucket and cell, sorted by bucket, item, signal, profile."""
    cells = _joined([part.cells for part in parts])
    resolution = np.concatenate([part.resolution for part in parts])
    bucket = np.concatenate([part.bucket for part in parts])
    groups = Groups(composite_key([resolution, _offset(bucket), *_cell_columns(cells)]))
    return BlockDeltas(
        groups.representative(resolution), groups.representative(bucket), _summed(groups, cells)
    )


def _reduced_cells(parts: Sequence[BlockColumns]) -> BlockColumns:
    cells = _joined(parts)
    return _summed(Groups(composite_key(_cell_columns(cells))), cells)


def _cell_columns(cells: BlockColumns) -> list[npt.NDArray[np.integer]]:
    signal = np.unique(cells.signal, return_inverse=True)[1]
    columns: list[npt.NDArray[np.integer]] = [cells.item, signal]
    return columns if cells.profile is None else [*columns, cells.profile]


def _offset(bucket: U32) -> U32:
    """Buckets of one flush lie close together: fewer bits, so that all columns fit one integer."""
    offset: U32 = bucket - bucket.min()
    return offset

"""Bucket blocks of one partition: what each flush added, packed by time bucket, merged as buckets close.

Events are gathered as columns. A flush reduces them to one row for each (bucket, item, signal, profile)
and appends those to the open block of their bucket until it is full; then the next one begins. A few rows for
the present minute stand behind its open block as a block of their own, until several of these join it: else
frequent flushes would write the open block as often. Events that reached the log soon after they happened go
to minute buckets, older ones to hour buckets, and those of days that are no longer kept by the hour to day
buckets. Once no recent event can fall into a minute bucket any more, its blocks are merged into its hour's,
in the write batch that deletes them, and so are hours into their day: a bucket's content, the total of its
blocks, depends on the events alone, never on where flushes fell.

A flush may touch thousands of buckets (history that is imported in no order, minutes of a backlog): the last
blocks of all of them are looked up together, and those that get a few rows are merged and encoded in one go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from materializers.block_columns import bucket_edges, joined, reduced, reduced_cells, rows_of
from materializers.materializer import RowReader, RowWriter
from materializers.rows.blocks import (
    BlockColumns,
    BlockDeltas,
    Resolution,
    block_key,
    block_range,
    block_rows,
    decode_block,
    decode_many,
    encode_block,
    encode_deltas,
    encode_many,
    resolution_range,
    split_block_key,
)
from schemas.durations import DAY_MS, DURATION_MS_MAX, MINUTE_MS

U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

OPEN_ROWS_MAX = 1_024  # the open block is written again by each flush: about 8 KB at most
OPEN_OLD_ROWS_MAX = 128  # of an hour or a day: they are many, and each is touched seldom
BLOCK_ROWS_MAX = 8_192  # a bulk of events is cut here, so that a reader never decodes a huge value
_GATHERED_MAX = 1 << 17  # rows in memory before they are reduced early: about 5 MB
_TAILS_MAX = 7  # small blocks behind an open one
_TAILED_ROWS_MIN = 64  # a smaller open block is written as soon as one behind it would be
_OPEN_BLOCKS_MAX = 512  # about 20 KB each; others are found again by a few point reads
_MERGE_ROWS_MIN = 32_768  # about 10 ms of work
_HOUR_MINUTES = Resolution.HOUR.minutes
_DAY_MINUTES = Resolution.DAY.minutes

Bucket = tuple[int, int]
"""Resolution and start in minutes."""


@dataclass(slots=True)
class _OpenBlock:
    """The last block of a bucket, complete in memory as columns or as it is stored; neither: a new one.
    ``tails``: the small blocks that follow it, numbered on from it; only one that is held as columns has any.
    """

    seq: int
    columns: BlockColumns | None = None
    value: bytes | None = None
    tails: list[BlockColumns] = field(default_factory=list)

    def rows(self) -> list[BlockColumns]:
        """What it and its tails hold."""
        if self.columns is None and self.value is not None:
            self.columns = decode_block(self.value)
        return [] if self.columns is None else [self.columns, *self.tails]

    def takes_tail(self, rows: int) -> bool:
        """Whether so many rows are to be a block of their own for now."""
        return (
            self.columns is not None
            and len(self.tails) < _TAILS_MAX
            and max(rows, _TAILED_ROWS_MIN) <= len(self.columns)
        )


class BlockLog:
    """Blocks of one table of one partition.

    Args:
        table: the table, also the name of the feed section.
        rows: what is on disk; rows handed to a writer must be readable before the next ``checkpoint``.
        signal_codes: u32 code by dense signal index.
        horizon_ms: events up to this old when the log got them go to minute buckets.
        timed: bool by dense signal index, which signals keep moments (their decay is linear).
        hours_kept_ms: how long, by the log's own time, a day is kept by the hour.
    """

    _gathered: list[BlockDeltas]
    _gathered_rows: int
    _newest_record_ms: int
    _open: dict[Bucket, _OpenBlock]
    _minutes: set[int]
    _oldest_hour: int | None
    _written: set[Bucket]

    def __init__(
        self,
        table: str,
        rows: RowReader,
        signal_codes: U32,
        horizon_ms: int,
        *,
        timed: Flags | None = None,
        hours_kept_ms: int = DURATION_MS_MAX,
    ) -> None:
        self._table = table
        self._rows = rows
        self._codes = signal_codes
        self._horizon_ms = horizon_ms
        self._timed = timed if timed is not None and timed.any() else None
        self._hours_kept_ms = hours_kept_ms
        # One hour more than the horizon: a reader's "window before the last hour" is minutes, too.
        self._close_after_minutes = -(-horizon_ms // MINUTE_MS) + _HOUR_MINUTES
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
        ones = np.ones(len(item), dtype=np.int64)
        moment = self._moments(signal, weight, ts_ms)
        cells = BlockColumns(item, self._codes[signal], profile, ones, weight, moment)
        resolution, bucket = self._bucket_of(ts_ms, record_ts_ms)
        self._gathered.append(BlockDeltas(resolution, bucket, cells))
        self._gathered_rows += len(item)
        if self._gathered_rows > _GATHERED_MAX:
            self._gathered = [reduced(self._gathered)]
            self._gathered_rows = 0

    def checkpoint(self, writer: RowWriter) -> None:
        """Write what was gathered, feed it to readers, and merge some closed buckets."""
        self._evict()
        self._written = set()
        packed = 0
        if self._gathered:
            deltas = reduced(self._gathered)
            self._gathered, self._gathered_rows = [], 0
            packed = len(deltas)
            writer.feed(self._table, encode_deltas(deltas))
            self._append_all(deltas, writer)
        # The bound grows with what the flush itself packed, so that merging keeps up with any rate.
        left = self._merge_minutes(writer, max(_MERGE_ROWS_MIN, 2 * packed))
        self._merge_hours(writer, left)

    def restore(self, reader: RowReader) -> None:
        """Find the minutes that wait to be merged, and the oldest hour; the rest is read when touched."""
        self._rows = reader
        self._clear()
        for key, _ in reader.scan(self._table, *resolution_range(Resolution.MINUTE)):
            self._minutes.add(split_block_key(key)[1])
        first = next(iter(reader.scan(self._table, *resolution_range(Resolution.HOUR))), None)
        self._oldest_hour = None if first is None else split_block_key(first[0])[1]

    def _clear(self) -> None:
        self._gathered = []
        self._gathered_rows = 0
        self._open = {}
        self._written = set()
        self._minutes = set()
        self._oldest_hour = None
        self._newest_record_ms = 0

    # -- buckets ------------------------------------------------------------------------------------

    def _moments(self, signal: U16, weight: I64, ts_ms: I64) -> F64 | None:
        if self._timed is None:
            return None
        timed = self._timed[signal]
        if not timed.any():
            return None
        moments: F64 = np.where(timed, weight.astype(np.float64) * (ts_ms % DAY_MS), 0.0)
        return moments

    def _bucket_of(self, ts_ms: I64, record_ts_ms: I64) -> tuple[npt.NDArray[np.uint8], U32]:
        minute = ts_ms // MINUTE_MS
        hour = minute - minute % _HOUR_MINUTES
        recent = (record_ts_ms - ts_ms <= self._horizon_ms) & (hour >= self._open_hours_from())
        by_day = ~recent & (hour < self._hours_from())
        resolution = np.where(recent, np.uint8(Resolution.MINUTE), np.uint8(Resolution.HOUR))
        resolution[by_day] = Resolution.DAY
        bucket = np.where(recent, minute, hour)
        bucket[by_day] -= bucket[by_day] % _DAY_MINUTES
        return resolution, bucket.astype(np.uint32)

    def _open_hours_from(self) -> int:
        """The first hour, as its start in minutes, whose minute buckets are not to be merged yet."""
        newest_minute = self._newest_record_ms // MINUTE_MS
        last_closed_end = newest_minute - self._close_after_minutes
        return int(last_closed_end // _HOUR_MINUTES * _HOUR_MINUTES)

    def _hours_from(self) -> int:
        """The first day, as its start in minutes, that is kept by the hour."""
        return (self._newest_record_ms - self._hours_kept_ms) // DAY_MS * _DAY_MINUTES

    # -- appending ----------------------------------------------------------------------------------

    def _append_all(self, deltas: BlockDeltas, writer: RowWriter) -> None:
        """Append sorted, reduced ``deltas``: bulks one by one, what is small together."""
        edges = bucket_edges(deltas)
        starts = edges[:-1]
        buckets = list(zip(deltas.resolution[starts].tolist(), deltas.bucket[starts].tolist(), strict=True))
        self._open_blocks(buckets)
        few: list[int] = []
        tails: list[int] = []
        for run, bucket in enumerate(buckets):
            start, end = edges[run], edges[run + 1]
            if end - start >= _rows_max(bucket):
                self._append(bucket, rows_of(deltas.cells, start, end), writer)
            elif bucket[0] == Resolution.MINUTE and self._open[bucket].takes_tail(end - start):
                tails.append(run)
            else:
                few.append(run)
        if few:
            self._append_few([buckets[run] for run in few], _runs(deltas, edges, few), writer)
        if tails:
            self._append_tails([buckets[run] for run in tails], _runs(deltas, edges, tails), writer)

    def _append(self, bucket: Bucket, columns: BlockColumns, writer: RowWriter) -> None:
        """Append reduced rows to one bucket."""
        self._open_blocks([bucket])
        block = self._open[bucket]
        if held := block.rows():
            columns = reduced_cells([*held, columns])
        self._drop_tails(bucket, writer)
        for start in range(0, len(columns), BLOCK_ROWS_MAX):
            part = rows_of(columns, start, start + BLOCK_ROWS_MAX)
            writer.put(self._table, block_key(*bucket, block.seq), encode_block(part))
            full = len(part) >= _rows_max(bucket)
            block.seq, block.columns, block.value = block.seq + full, None if full else part, None
        self._wrote(bucket)

    def _append_few(self, buckets: Sequence[Bucket], deltas: BlockDeltas, writer: RowWriter) -> None:
        """Append fewer rows than a block holds to each of many buckets: one sort for all."""
        parts = [deltas, *self._open_rows(buckets)]
        whole = reduced(parts) if len(parts) > 1 else deltas
        for bucket in buckets:
            self._drop_tails(bucket, writer)
        edges = bucket_edges(whole)
        keys = [block_key(*bucket, self._open[bucket].seq) for bucket in buckets]
        values = encode_many(whole.cells, edges)
        writer.put_many(self._table, keys, values)
        for bucket, value, (start, end) in zip(buckets, values, pairwise(edges), strict=True):
            block = self._open[bucket]
            if end - start >= _rows_max(bucket):
                block.seq, block.columns, block.value = block.seq + 1, None, None
            elif bucket[0] == Resolution.MINUTE:  # the next flush has the same minute
                block.columns, block.value = rows_of(whole.cells, start, end), None
            else:
                block.columns, block.value = None, value
            self._wrote(bucket)

    def _append_tails(self, buckets: Sequence[Bucket], deltas: BlockDeltas, writer: RowWriter) -> None:
        """Write a few rows for each of some minutes as blocks behind their open ones."""
        edges = bucket_edges(deltas)
        blocks = [self._open[bucket] for bucket in buckets]
        keys = [
            block_key(*bucket, block.seq + 1 + len(block.tails))
            for bucket, block in zip(buckets, blocks, strict=True)
        ]
        writer.put_many(self._table, keys, encode_many(deltas.cells, edges))
        for bucket, block, (start, end) in zip(buckets, blocks, pairwise(edges), strict=True):
            block.tails.append(rows_of(deltas.cells, start, end))
            self._wrote(bucket)

    def _drop_tails(self, bucket: Bucket, writer: RowWriter) -> None:
        """Delete the small blocks behind an open one that is about to be written with their rows."""
        block = self._open[bucket]
        for number in range(len(block.tails)):
            writer.delete(self._table, block_key(*bucket, block.seq + 1 + number))
        block.tails = []

    def _wrote(self, bucket: Bucket) -> None:
        self._written.add(bucket)
        if bucket[0] == Resolution.MINUTE:
            self._minutes.add(bucket[1])
        elif bucket[0] == Resolution.HOUR and (self._oldest_hour is None or bucket[1] < self._oldest_hour):
            self._oldest_hour = bucket[1]

    def _open_rows(self, buckets: Sequence[Bucket]) -> list[BlockDeltas]:
        """The rows of the open blocks of ``buckets``, as deltas."""
        parts: list[BlockDeltas] = []
        held: list[tuple[Bucket, BlockColumns]] = []
        stored: list[tuple[Bucket, bytes]] = []
        for bucket in buckets:
            block = self._open[bucket]
            if block.columns is not None:
                held.extend((bucket, columns) for columns in block.rows())
            elif block.value is not None:
                stored.append((bucket, block.value))
        if held:
            cells = joined([columns for _, columns in held])
            parts.append(_deltas([bucket for bucket, _ in held], [len(each) for _, each in held], cells))
        for positions, cells in decode_many([value for _, value in stored]):
            lengths = [block_rows(stored[position][1]) for position in positions]
            parts.append(_deltas([stored[position][0] for position in positions], lengths, cells))
        return parts

    # -- open blocks --------------------------------------------------------------------------------

    def _open_blocks(self, buckets: Sequence[Bucket]) -> None:
        """Have the last block of each bucket in ``_open``, which is in order of use."""
        missing: list[Bucket] = []
        for bucket in buckets:
            block = self._open.pop(bucket, None)
            if block is None:
                missing.append(bucket)
            else:
                self._open[bucket] = block
        if missing:
            self._open.update(self._load_last(missing))

    def _load_last(self, buckets: Sequence[Bucket]) -> dict[Bucket, _OpenBlock]:
        """The last stored block of each bucket; blocks are numbered without a gap, so a search finds it.

        Each round asks for one block of every bucket at once: numbers 0, 1, 3, 7 … until one is absent,
        then the middle of what is left.
        """
        below = dict.fromkeys(buckets, -1)  # a block with this number is there
        above: dict[Bucket, int] = {}  # one with this number is not
        values: dict[Bucket, bytes] = {}
        asked = dict.fromkeys(buckets, 0)
        while asked:
            keys = [block_key(*bucket, seq) for bucket, seq in asked.items()]
            found = self._rows.get_many(self._table, keys)
            for (bucket, seq), value in zip(asked.items(), found, strict=True):
                if value is None:
                    above[bucket] = seq
                else:
                    below[bucket], values[bucket] = seq, value
            asked = {
                bucket: _between(below[bucket], above.get(bucket))
                for bucket in asked
                if above.get(bucket) != below[bucket] + 1
            }
        return {bucket: _opened(bucket, below[bucket], values.get(bucket)) for bucket in buckets}

    def _evict(self) -> None:
        """Before anything is written: a block of the current flush is not on disk yet."""
        for bucket in list(self._open)[: max(0, len(self._open) - _OPEN_BLOCKS_MAX)]:
            del self._open[bucket]

    # -- merging ------------------------------------------------------------------------------------

    def _merge_minutes(self, writer: RowWriter, rows_max: int) -> int:
        """Move closed minutes into their hours, oldest first; what is left of ``rows_max`` rows."""
        open_from = self._open_hours_from()
        if not self._minutes or min(self._minutes) >= open_from:
            return rows_max
        moved: dict[Bucket, list[BlockColumns]] = {}
        for minute in sorted(minute for minute in self._minutes if minute < open_from):
            bucket = (int(Resolution.MINUTE), minute)
            if bucket in self._written:
                continue
            blocks = self._take(bucket, writer)
            self._minutes.discard(minute)
            moved.setdefault((int(Resolution.HOUR), minute - minute % _HOUR_MINUTES), []).extend(blocks)
            rows_max -= sum(map(len, blocks))
            if rows_max <= 0:
                break
        self._move(moved, writer)
        return rows_max

    def _merge_hours(self, writer: RowWriter, rows_max: int) -> None:
        """Move hours of closed days into their day, oldest first, about ``rows_max`` rows of them."""
        # From the first hour of this flush on, what is on disk is not all that there is.
        written = (start for resolution, start in self._written if resolution == Resolution.HOUR)
        closed_until = min([self._hours_from(), *written])
        moved: dict[Bucket, list[BlockColumns]] = {}
        while rows_max > 0 and (hour := self._next_hour(closed_until)) is not None:
            blocks = self._take((int(Resolution.HOUR), hour), writer)
            self._oldest_hour = hour + _HOUR_MINUTES
            moved.setdefault((int(Resolution.DAY), hour - hour % _DAY_MINUTES), []).extend(blocks)
            rows_max -= sum(map(len, blocks))
        self._move(moved, writer)

    def _next_hour(self, closed_until: int) -> int | None:
        """The oldest hour on disk before ``closed_until``."""
        if self._oldest_hour is None or self._oldest_hour >= closed_until:
            return None
        span = block_range(Resolution.HOUR, self._oldest_hour, closed_until)
        first = next(iter(self._rows.scan(self._table, *span)), None)
        if first is None:
            self._oldest_hour = closed_until
            return None
        return split_block_key(first[0])[1]

    def _move(self, moved: dict[Bucket, list[BlockColumns]], writer: RowWriter) -> None:
        for bucket, blocks in moved.items():
            if blocks:
                self._append(bucket, reduced_cells(blocks), writer)

    def _take(self, bucket: Bucket, writer: RowWriter) -> list[BlockColumns]:
        """Delete a bucket; its blocks."""
        resolution, start = bucket
        stored = list(self._rows.scan(self._table, *block_range(resolution, start, start + 1)))
        for key, _ in stored:
            writer.delete(self._table, key)
        self._open.pop(bucket, None)
        return [decode_block(value) for _, value in stored]


def _runs(deltas: BlockDeltas, edges: Sequence[int], runs: Sequence[int]) -> BlockDeltas:
    """The rows of some runs of ``deltas``."""
    if len(runs) == len(edges) - 1:
        return deltas
    rows = np.concatenate([np.arange(edges[run], edges[run + 1]) for run in runs])
    return BlockDeltas(deltas.resolution[rows], deltas.bucket[rows], deltas.cells.take(rows))


def _between(below: int, above: int | None) -> int:
    """The next block to ask for: twice as far while all were there, else the middle."""
    return 2 * below + 1 if above is None else (below + above) // 2


def _opened(bucket: Bucket, seq: int, value: bytes | None) -> _OpenBlock:
    if value is None:
        return _OpenBlock(0)
    return _OpenBlock(seq + 1) if block_rows(value) >= _rows_max(bucket) else _OpenBlock(seq, value=value)


def _rows_max(bucket: Bucket) -> int:
    return OPEN_ROWS_MAX if bucket[0] == Resolution.MINUTE else OPEN_OLD_ROWS_MAX


def _deltas(buckets: Sequence[Bucket], lengths: Sequence[int], cells: BlockColumns) -> BlockDeltas:
    """Cells of several buckets, so many of each."""
    resolution = np.array([bucket[0] for bucket in buckets], dtype=np.uint8)
    start = np.array([bucket[1] for bucket in buckets], dtype=np.uint32)
    return BlockDeltas(np.repeat(resolution, lengths), np.repeat(start, lengths), cells)

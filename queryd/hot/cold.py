"""Counts of hours that are no longer apart in memory, read from the tables' blocks, and kept for a while.

What is kept is a day of a partition: read at one catch-up point it is complete, whatever its blocks merge
into later, until an event comes late for it; then it is read again.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from materializers.materializer import Scope
from materializers.rows.blocks import Resolution, block_range, block_rows, decode_block, split_block_key
from queryd.hot.arrays import Mask
from queryd.hot.cells import Cells
from queryd.hot.columns import HotColumns, OrdinalMap
from queryd.hot.cube import BucketRange, Piece
from queryd.hot.tables import Tables
from queryd.hot.translation import by_signal, translated
from schemas.durations import DAY_MS, HOUR_MS

GLOBAL_BLOCKS = "global_blocks"
COHORT_BLOCKS = "cohort_blocks"
CELLS_MAX = 2_000_000
"""Cells of past days kept in memory, about 28 bytes each."""
_DAYS_MAX = 50_000
_MINUTES_IN_HOUR = 60
_HOURS_IN_DAY = 24
_FIRST_HOUR, _LAST_HOUR = 0, (2**32 - 1) // _MINUTES_IN_HOUR - 1


@dataclass(slots=True)
class _Day:
    """What was read of a day of one partition: its hours ``low`` to ``high``; ``whole``: kept by the day."""

    low: int
    high: int
    whole: bool = False
    pieces: dict[int, list[Piece]] = field(default_factory=dict)
    cells: int = 0

    def add(self, signal: int, piece: Piece) -> None:
        self.pieces.setdefault(signal, []).append(piece)
        self.cells += len(piece.cells)


_Key = tuple[str, int, int]  # table, partition, day


class ColdTier:
    """Blocks of the item shard, exact at the hour, and at the day where hours are merged into days.

    Args:
        cells_max: bound on what is kept between reads; the days unused for longest go first.
    """

    def __init__(self, tables: Tables, hot: HotColumns, cells_max: int = CELLS_MAX) -> None:
        self._tables = tables
        self._hot = hot
        self._cells_max = cells_max
        self._days: OrderedDict[_Key, _Day] = OrderedDict()
        self._written: dict[tuple[str, int], list[int]] = {}
        self._cells = 0
        self.blocks_read = 0

    @property
    def cells(self) -> int:
        """Cells kept at the moment."""
        return self._cells

    def pieces(
        self,
        signal: int,
        wanted: BucketRange,
        mask: Mask | None,
        *,
        by_profile: bool,
        items: Mask | None = None,
    ) -> list[Piece]:
        """Cells of one signal in a range of hours, of the profiles that ``mask`` allows.

        A day that is kept by the day comes whole, in pieces of a day, however little of it is wanted.

        Args:
            items: bool[items], only cells of these; their partitions alone are read.
        """
        assert not wanted.minutes, "minutes are merged into hours"
        table = COHORT_BLOCKS if by_profile else GLOBAL_BLOCKS
        low, high = max(wanted.low, _FIRST_HOUR), min(wanted.high, _LAST_HOUR)
        found: list[Piece] = []
        for partition in self._tables.partitions(Scope.ITEM):
            if low > high or (items is not None and not self._holds(partition, items)):
                continue
            for day in self._read(table, partition, low, high):
                for piece in day.pieces.get(signal, ()):
                    if piece.length_ms == DAY_MS or low <= piece.start_ms // HOUR_MS <= high:
                        found.append(_allowed(piece, mask, items))
        return [piece for piece in found if len(piece.cells)]

    def rows_to_read(self, wanted: BucketRange, *, by_profile: bool, enough: int) -> int:
        """Rows of blocks that ``pieces`` would read for a range of hours, besides what is kept of them.

        Rows of all signals and profiles count, because a block is read whole. Beyond ``enough`` counting
        stops: it costs a key and a header for each block.
        """
        table = COHORT_BLOCKS if by_profile else GLOBAL_BLOCKS
        low, high = max(wanted.low, _FIRST_HOUR), min(wanted.high, _LAST_HOUR)
        rows = 0
        for partition in self._tables.partitions(Scope.ITEM) if low <= high else ():
            for numbers in _stretches(self._missing(table, partition, low, high)):
                for value in self._blocks(table, partition, numbers, low, high):
                    rows += block_rows(value)
                    if rows > enough:
                        return rows
        return rows

    def touched(self, table: str, partition: int, days: Iterable[int]) -> None:
        """Events came for these days: forget what was read of them."""
        written = self._written.get((table, partition))
        for day in days:
            self._forget((table, partition, day))
            if written is not None:
                place = bisect_left(written, day)
                if written[place : place + 1] != [day]:
                    written.insert(place, day)

    def drop_partition(self, partition: int) -> None:
        """Forget everything of a partition: its rows are read anew."""
        for key in [key for key in self._days if key[1] == partition]:
            self._forget(key)
        for table in (GLOBAL_BLOCKS, COHORT_BLOCKS):
            self._written.pop((table, partition), None)

    def _holds(self, partition: int, items: Mask) -> bool:
        owned = self._hot.item_maps.get(partition, OrdinalMap()).mapped()
        return bool(items[owned[owned < len(items)]].any())

    def _read(self, table: str, partition: int, low: int, high: int) -> list[_Day]:
        """The days that hold the hours ``low`` to ``high``, read where they are not kept."""
        kept: dict[int, _Day] = {}
        missing = self._missing(table, partition, low, high)
        unread = set(missing)
        for number in self._days_of(table, partition, low, high):
            key = (table, partition, number)
            if number not in unread:
                self._days.move_to_end(key)
                kept[number] = self._days[key]
        for numbers in _stretches(missing):
            for number, day in self._scanned(table, partition, numbers, low, high).items():
                kept[number] = day
                self._keep((table, partition, number), day)
        return [kept[number] for number in sorted(kept)]

    def _missing(self, table: str, partition: int, low: int, high: int) -> list[int]:
        """The days of which the hours ``low`` to ``high`` are not kept."""
        missing = []
        for number in self._days_of(table, partition, low, high):
            day = self._days.get((table, partition, number))
            first, last = number * _HOURS_IN_DAY, (number + 1) * _HOURS_IN_DAY - 1
            if day is None or day.low > max(low, first) or min(high, last) > day.high:
                missing.append(number)
        return missing

    def _days_of(self, table: str, partition: int, low: int, high: int) -> list[int]:
        """The days with blocks that hold the hours ``low`` to ``high``, ascending."""
        written = self._written.get((table, partition))
        if written is None:
            written = self._written[table, partition] = sorted(self._find_days(table, partition))
        first, last = low // _HOURS_IN_DAY, high // _HOURS_IN_DAY
        return written[bisect_left(written, first) : bisect_right(written, last)]

    def _find_days(self, table: str, partition: int) -> set[int]:
        """Every day with blocks: one seek for each and each resolution, however long ago the first is."""
        days: set[int] = set()
        for resolution in Resolution:
            minute, end = 0, (_LAST_HOUR + 1) * _MINUTES_IN_HOUR
            while minute < end:
                row = next(
                    iter(self._tables.scan(table, partition, *block_range(resolution, minute, end))), None
                )
                if row is None:
                    break
                day = split_block_key(row[0])[1] // (_MINUTES_IN_HOUR * _HOURS_IN_DAY)
                days.add(day)
                minute = (day + 1) * _MINUTES_IN_HOUR * _HOURS_IN_DAY
        return days

    def _blocks(self, table: str, partition: int, numbers: range, low: int, high: int) -> Iterator[bytes]:
        """Blocks of whole days, and of their hours between ``low`` and ``high``."""
        first, last = numbers[0] * _HOURS_IN_DAY, (numbers[-1] + 1) * _HOURS_IN_DAY - 1
        for resolution in Resolution:
            span = (first, last) if resolution is Resolution.DAY else (max(first, low), min(last, high))
            keys = block_range(resolution, span[0] * _MINUTES_IN_HOUR, (span[1] + 1) * _MINUTES_IN_HOUR)
            for _, value in self._tables.scan(table, partition, *keys):
                yield value

    def _scanned(self, table: str, partition: int, numbers: range, low: int, high: int) -> dict[int, _Day]:
        """Days ``numbers``, one scan for each resolution: the wanted hours, or a day that has no hours."""
        first, last = numbers[0] * _HOURS_IN_DAY, (numbers[-1] + 1) * _HOURS_IN_DAY - 1
        days: dict[int, _Day] = {}
        for number in numbers:
            begin = number * _HOURS_IN_DAY
            end = begin + _HOURS_IN_DAY - 1
            days[number] = _Day(*self._to_read(table, partition, number, max(low, begin), min(high, end)))
        self._scan_into(days, table, partition, Resolution.DAY, first, last)
        for number in numbers:
            if days[number].pieces:
                days[number].whole = True
                days[number].low = number * _HOURS_IN_DAY
                days[number].high = (number + 1) * _HOURS_IN_DAY - 1
        low, high = min(day.low for day in days.values()), max(day.high for day in days.values())
        for resolution in (Resolution.HOUR, Resolution.MINUTE):
            self._scan_into(days, table, partition, resolution, low, high)
        return days

    def _to_read(self, table: str, partition: int, number: int, low: int, high: int) -> tuple[int, int]:
        """The hours to read of a day: those wanted, and those that were kept of it."""
        before = self._days.get((table, partition, number))
        return (low, high) if before is None else (min(low, before.low), max(high, before.high))

    def _scan_into(
        self, days: dict[int, _Day], table: str, partition: int, resolution: Resolution, low: int, high: int
    ) -> None:
        span = block_range(resolution, low * _MINUTES_IN_HOUR, (high + 1) * _MINUTES_IN_HOUR)
        for key, value in self._tables.scan(table, partition, *span):
            self.blocks_read += 1
            hour = split_block_key(key)[1] // _MINUTES_IN_HOUR
            day = days[hour // _HOURS_IN_DAY]
            by_day = resolution is Resolution.DAY or day.whole  # the last hours of a day that is being merged
            start_ms, length_ms = hour * HOUR_MS, HOUR_MS
            if by_day:
                start_ms, length_ms = start_ms // DAY_MS * DAY_MS, DAY_MS
            _, signals, cells = translated(self._hot, partition, decode_block(value))
            for signal, part in by_signal(signals, cells):
                day.add(signal, Piece(start_ms, length_ms, part))

    def _keep(self, key: _Key, day: _Day) -> None:
        self._forget(key)
        self._days[key] = day
        self._cells += day.cells
        while len(self._days) > 1 and (self._cells > self._cells_max or len(self._days) > _DAYS_MAX):
            self._forget(next(iter(self._days)))

    def _forget(self, key: _Key) -> None:
        day = self._days.pop(key, None)
        if day is not None:
            self._cells -= day.cells


def _stretches(numbers: list[int]) -> Iterator[range]:
    """Consecutive numbers together."""
    for _, group in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        yield range(run[0], run[-1] + 1)


def _allowed(piece: Piece, mask: Mask | None, items: Mask | None) -> Piece:
    cells = piece.cells.allowed(mask)
    if items is not None:
        cells = of_items(cells, items)
    return piece if cells is piece.cells else Piece(piece.start_ms, piece.length_ms, cells)


def of_items(cells: Cells, items: Mask) -> Cells:
    """The cells of the items that bool[items] marks; one that it is too short for is not among them."""
    rows = np.flatnonzero(cells.item < len(items))
    return cells.take(rows[items[cells.item[rows]]])

"""The visits of one partition as sorted runs on disk, a few for each day, merged as they grow.

A flush appends what it gathered as one run for each day that it touches, without reading anything. Once eight
runs of a day have about one size they become one, so that an entry is written again once for each eightfold
growth, in packed columns; a run of ``FINAL_ENTRIES`` stays as it is. Where runs are cut and merged depends on
flushes and is not reproducible; what a day's runs amount to (``user_sample.canonical`` of all of them)
depends on the events alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from materializers.materializer import RowReader, RowWriter
from materializers.rows.distinct_users import (
    FIRST_DAY_KEY,
    TABLE,
    THRESHOLD_HOUR,
    DayRuns,
    Entries,
    block_key,
    blocks_range,
    day_key,
    day_of,
    days_range,
    decode_block,
    decode_runs,
    encode_block,
    encode_runs,
    joined,
    run_range,
    split_block_key,
)
from materializers.user_sample import canonical

U64 = npt.NDArray[np.uint64]

BLOCK_ENTRIES = 1_024  # about 13 KB, decoded in 40 µs
FINAL_ENTRIES = 1 << 17  # a merge makes a run of less than twice as many, in some 100 ms
FAN_IN = 8
_LEVEL_BITS = 3  # log2 of the fan-in
_GATHERED_MAX = 1 << 17  # entries in memory before they are reduced early: about 5 MB
_DAYS_MAX = 4_096  # days whose runs are known in memory, about 300 bytes each
_REST_FLUSHES = 64
_RESTED_RUNS_MAX = 2


def runs_to_merge(sizes: Sequence[int], arriving: int) -> list[int]:
    """Which runs to merge with ``arriving`` new entries, as indexes in ``sizes``; none most of the time.

    As soon as there are ``FAN_IN`` runs of the level of the new one or below, they become one, and so on with
    the level that it has then.
    """
    chosen: list[int] = []
    total = arriving
    while total < FINAL_ENTRIES:
        level = _level(total)
        small = [index for index, size in enumerate(sizes) if index not in chosen and _level(size) <= level]
        if len(small) < FAN_IN - 1:
            break
        for index in sorted(small, key=sizes.__getitem__):
            if total < FINAL_ENTRIES:
                chosen.append(index)
                total += sizes[index]
    return chosen


class UserRuns:
    """Runs of the table in one partition.

    Args:
        rows: what is on disk; rows handed to a writer must be readable before the next ``checkpoint``.
        days_kept: days before the newest record's that are kept; 0 keeps all.
    """

    _gathered: list[Entries]
    _gathered_size: int
    _days: OrderedDict[int, tuple[int, DayRuns]]
    _flush: int
    _first_day: int
    _newest_day: int
    _dropping: bool

    def __init__(self, rows: RowReader, days_kept: int) -> None:
        self._rows = rows
        self._days_kept = days_kept
        self._clear()

    def add(self, entries: Entries, newest_record_day: int) -> None:
        """Gather entries of any days, in any order."""
        self._newest_day = max(self._newest_day, newest_record_day)
        if not len(entries):
            return
        self._gathered.append(entries)
        self._gathered_size += len(entries)
        if self._gathered_size > _GATHERED_MAX:
            self._gathered = [canonical(joined(self._gathered))]
            self._gathered_size = 0

    def checkpoint(self, writer: RowWriter) -> None:
        """Write what was gathered, merge runs that became many, drop a day that is too old."""
        self._flush += 1
        self._expire(writer)
        entries = canonical(joined(self._gathered))
        self._gathered, self._gathered_size = [], 0
        if len(entries):
            days = list(_by_day(entries))
            self._know([day for day, _ in days])
            for day, part in days:
                if day >= self._first_day:
                    self._append(day, part, writer)
        self._tidy(writer)

    def forget(self, users: U64, writer: RowWriter) -> int:
        """Take users out of what was gathered and of every block; the count of blocks changed.

        A threshold stays: the others are still the same sample of all others.
        """
        self._gathered = [_without(entries, users) for entries in self._gathered]
        patterns = [user.to_bytes(8, "little") for user in users.tolist()]
        found = [
            (key, value)
            for key, value in self._rows.scan(TABLE, *blocks_range())
            if any(pattern in value for pattern in patterns)
        ]
        changed = 0
        for key, value in found:
            entries = decode_block(value, split_block_key(key)[0])
            left = _without(entries, users)
            changed += len(left) < len(entries)
            if not len(left):
                writer.delete(TABLE, key)
            elif len(left) < len(entries):
                writer.put(TABLE, key, encode_block(left))
        return changed

    def restore(self, reader: RowReader) -> None:
        """Runs of a day are looked up when it is touched."""
        self._rows = reader
        self._clear()
        stored = reader.get_many(TABLE, [FIRST_DAY_KEY])[0]
        self._first_day = 0 if stored is None else int.from_bytes(stored, "big")
        self._dropping = stored is not None

    def _clear(self) -> None:
        self._gathered, self._gathered_size = [], 0
        self._days = OrderedDict()
        self._flush = 0
        self._first_day = self._newest_day = 0
        self._dropping = False

    def _know(self, days: list[int]) -> None:
        """Look up the runs of days that are not known yet."""
        missing = [day for day in days if day not in self._days]
        stored = self._rows.get_many(TABLE, [day_key(day) for day in missing]) if missing else []
        for day, value in zip(missing, stored, strict=True):
            self._days[day] = (self._flush, DayRuns(0) if value is None else decode_runs(value))

    def _append(self, day: int, entries: Entries, writer: RowWriter) -> None:
        runs = self._days[day][1]
        chosen = runs_to_merge(runs.sizes, len(entries))
        self._replace(day, runs, chosen, [entries], writer)

    def _replace(
        self, day: int, runs: DayRuns, chosen: Sequence[int], parts: list[Entries], writer: RowWriter
    ) -> None:
        """Write ``parts`` and the chosen runs as one new run."""
        for index in chosen:
            for key, value in list(self._rows.scan(TABLE, *run_range(day, runs.runs[index]))):
                parts.append(decode_block(value, day))
                writer.delete(TABLE, key)
        entries = canonical(joined(parts)) if chosen else parts[0]
        for block, start in enumerate(range(0, len(entries), BLOCK_ENTRIES)):
            piece = entries.at(slice(start, start + BLOCK_ENTRIES))
            key = block_key(day, runs.next_run, int(piece.item[-1]), block)
            writer.put(TABLE, key, encode_block(piece))
        left = [index for index in range(len(runs.runs)) if index not in set(chosen)]
        runs = DayRuns(
            runs.next_run + 1,
            (*(runs.runs[index] for index in left), runs.next_run),
            (*(runs.sizes[index] for index in left), len(entries)),
        )
        writer.put(TABLE, day_key(day), encode_runs(runs))
        self._days[day] = (self._flush, runs)
        self._days.move_to_end(day)

    def _tidy(self, writer: RowWriter) -> None:
        """Merge the small runs of the day that was not touched for longest, once it rests; one a flush."""
        if self._days:
            day, (flush, runs) = next(iter(self._days.items()))
            if self._flush - flush > _REST_FLUSHES:
                small = _smallest(runs.sizes)
                if len(small) > _RESTED_RUNS_MAX:
                    self._replace(day, runs, small, [], writer)
                del self._days[day]
        while len(self._days) > _DAYS_MAX:
            self._days.popitem(last=False)

    def _expire(self, writer: RowWriter) -> None:
        """Move the first day kept after the newest record, and delete one of the days before it."""
        first = max(self._first_day, self._newest_day - self._days_kept) if self._days_kept else 0
        if first > self._first_day:
            self._first_day = first
            self._dropping = True
            writer.put(TABLE, FIRST_DAY_KEY, first.to_bytes(4, "big"))
        if self._dropping:
            self._dropping = self._drop_a_day(writer)

    def _drop_a_day(self, writer: RowWriter) -> bool:
        """Whether there was one."""
        rows = self._rows.scan(TABLE, *days_range(0, self._first_day - 1)) if self._first_day else iter(())
        found = next(iter(rows), None)
        if found is None:
            return False
        key, value = found
        day = day_of(key)
        for run in decode_runs(value).runs:
            for block, _ in list(self._rows.scan(TABLE, *run_range(day, run))):
                writer.delete(TABLE, block)
        writer.delete(TABLE, key)
        self._days.pop(day, None)
        return True


def _smallest(sizes: Sequence[int]) -> list[int]:
    """The smallest runs, as indexes, that together are about a final one."""
    chosen: list[int] = []
    total = 0
    for index in sorted(range(len(sizes)), key=sizes.__getitem__):
        if total < FINAL_ENTRIES and sizes[index] < FINAL_ENTRIES:
            chosen.append(index)
            total += sizes[index]
    return chosen


def _level(size: int) -> int:
    return size.bit_length() // _LEVEL_BITS


def _by_day(entries: Entries) -> Iterator[tuple[int, Entries]]:
    """Runs of one day; ``entries`` is sorted by it."""
    edges = [0, *(np.flatnonzero(np.diff(entries.day)) + 1).tolist(), len(entries)]
    for start, end in pairwise(edges):
        yield int(entries.day[start]), entries.at(slice(start, end))


def _without(entries: Entries, users: U64) -> Entries:
    return entries.at(~np.isin(entries.user, users) | (entries.hour == THRESHOLD_HOUR))

"""Distinct users of items, read from the item shard's runs when a ledger asks: nothing of it stays in memory.

A user who came on several days, or to several items of a creator, is one: entries are united, not added.
Where a day, item and signal had more users than are kept, all that is read is cut at the smallest threshold
among them, which leaves a uniform sample of the union, and the answer carries its standard error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from materializers.grouping import distinct
from materializers.rows.distinct_users import (
    FIRST_DAY_KEY,
    TABLE,
    THRESHOLD_HOUR,
    DayRuns,
    Entries,
    blocks_of_day,
    day_of,
    days_range,
    decode_items,
    decode_runs,
    joined,
    run_range,
    split_block_key,
)
from materializers.user_runs import BLOCK_ENTRIES
from materializers.user_sample import NO_THRESHOLD, USERS_MAX, canonical, estimate
from queryd.hot.arrays import I64, U32, U64, Mask
from queryd.hot.columns import NOT_MAPPED, HotColumns, OrdinalMap
from queryd.hot.cube import BucketRange
from queryd.hot.tables import Tables

Estimator = Literal["exact", "sketch", "expired", "too_many_rows"]

BLOCKS_MAX: Final = 10_000
"""Blocks that one ledger may open: about half a second in all, in slices."""
_BLOCKS_AT_ONCE: Final = 64
"""Blocks between two pauses: some 3 ms in which the daemon answers nobody else."""
_HOURS_IN_DAY: Final = 24
_MINUTES_IN_HOUR: Final = 60
_DAY_MAX: Final = 2**32 - 2


@dataclass(frozen=True, slots=True)
class UsersRead:
    """How many users, its standard error in users (0 when exact), and how it came about.

    ``users`` and ``standard_error`` are None when the range begins before what is kept (``expired``) or
    would take too many reads (``too_many_rows``).
    """

    users: int | None
    standard_error: float | None
    estimator: Estimator | None


NOT_KEPT: Final = UsersRead(None, None, None)
"""Of a signal that does not declare ``distinct_users``."""
_EXPIRED = UsersRead(None, None, "expired")
_TOO_MANY = UsersRead(None, None, "too_many_rows")


@dataclass(frozen=True, slots=True)
class _Visits:
    """What was read of one signal: n visits sorted by ``day``, and m thresholds of single days and items.

    ``profile`` is queryd's ordinal; ``hour``, ``first`` and ``last`` i64 are hours and minutes since 1970.
    """

    day: U32
    user: U64
    profile: U32
    hour: I64
    first: I64
    last: I64
    threshold_day: U32
    threshold: U64

    def users(self, wanted: BucketRange, profiles: Mask | None) -> tuple[U64, np.uint64]:
        """EntityIds of the marked profiles' users in a range, and the threshold below which they are."""
        first_day, last_day = _days_of(wanted)
        of_days = self.threshold[(self.threshold_day >= first_day) & (self.threshold_day <= last_day)]
        threshold = of_days.min() if len(of_days) else NO_THRESHOLD
        start, end = np.searchsorted(self.day, (first_day, last_day + 1))
        rows = slice(int(start), int(end))
        chosen = self.user[rows] < threshold
        if wanted.minutes:  # of an hour that the range cuts, the first and last minute tell
            chosen &= (self.last[rows] >= wanted.low) & (self.first[rows] <= wanted.high)
        else:
            chosen &= (self.hour[rows] >= wanted.low) & (self.hour[rows] <= wanted.high)
        if profiles is not None:
            profile = self.profile[rows]
            known = profile < len(profiles)
            chosen &= known & profiles[np.where(known, profile, 0)]
        return self.user[rows][chosen], threshold


_Day = tuple[int, int]
"""Partition, day."""


class DistinctUsers:
    """Distinct users of the same items, for the reads of one request: ``load``, then ``count``.

    Args:
        items: bool[items], the item, or all items of a creator.
    """

    def __init__(self, tables: Tables, hot: HotColumns, items: Mask) -> None:
        self._tables = tables
        self._hot = hot
        self._local = {
            partition: local
            for partition, held in hot.item_maps.items()
            if len(local := _marked(held.translate(np.arange(len(held), dtype=np.uint32)), items))
        }
        self._entries: dict[_Day, Entries] = {}
        self._visits: dict[int, _Visits] = {}
        self._loaded: list[tuple[int, int]] = []
        self._opened = 0

    async def load(self, ranges: Sequence[BucketRange]) -> None:
        """Read the days of all these ranges, leaving out what would take too many reads."""
        for first, last in sorted(
            {_days_of(wanted) for wanted in ranges}, key=lambda days: days[0] - days[1]
        ):
            if not self._covers(first, last):
                await self._load(first, last)
        self._visits = _by_signal(
            [self._entries[key] for key in sorted(self._entries, key=lambda day: day[1])]
        )

    def count(self, signal: int, wanted: BucketRange, profiles: Mask | None) -> UsersRead:
        """Users of a signal in a range of buckets, as members of the marked profiles at event time.

        Args:
            signal: dense index. profiles: bool[profiles] of a cohort, None for everybody.
        """
        first, last = _days_of(wanted)
        if any(first < kept for kept in self._first_days()):
            return _EXPIRED
        if not self._covers(first, last):
            return _TOO_MANY
        visits = self._visits.get(self._hot.schema.signal_list[signal].code)
        if visits is None:
            return UsersRead(0, 0.0, "exact")
        users, threshold = visits.users(wanted, profiles)
        found = estimate(len(distinct(users)), threshold)
        return UsersRead(found.users, found.standard_error, "exact" if found.exact else "sketch")

    def _covers(self, first: int, last: int) -> bool:
        return any(low <= first and last <= high for low, high in self._loaded)

    def _first_days(self) -> Iterator[int]:
        rows = self._tables.get_many(TABLE, [(partition, FIRST_DAY_KEY) for partition in self._local])
        return (int.from_bytes(row, "big") for row in rows if row is not None)

    async def _load(self, first: int, last: int) -> None:
        """Read these days.

        In a pause the worker may merge runs that are still to be read: what changed is read again at once.
        """
        days = self._days(first, last)
        if sum(self._seeks(day, runs) for day, runs in days.items()) > BLOCKS_MAX:
            return
        fresh = {day: runs for day, runs in days.items() if day not in self._entries}
        for day, runs in fresh.items():
            parts: list[Entries] = []
            for entries in self._pieces(day, runs):
                parts.append(entries)
                if self._opened >= _BLOCKS_AT_ONCE:
                    self._opened = 0
                    await asyncio.sleep(0)
            self._entries[day] = self._united(day, parts)
        for day, runs in self._days(first, last).items():
            if fresh.get(day, runs) != runs:
                self._entries[day] = self._united(day, list(self._pieces(day, runs)))
        self._loaded.append((first, last))

    def _days(self, first: int, last: int) -> dict[_Day, DayRuns]:
        return {
            (partition, day_of(key)): decode_runs(value)
            for partition in self._local
            for key, value in self._tables.scan(TABLE, partition, *days_range(first, last))
        }

    def _seeks(self, day: _Day, runs: DayRuns) -> int:
        """How many blocks a reading of a day opens, a cell of many blocks aside."""
        items = len(self._local[day[0]])
        return sum(min(items, size // BLOCK_ENTRIES) + 1 for size in runs.sizes)

    def _pieces(self, day: _Day, runs: DayRuns) -> Iterator[Entries]:
        """The entries of our items, in pieces; between two of them no scan is open."""
        blocks = sum(size // BLOCK_ENTRIES + 1 for size in runs.sizes)
        if blocks <= min(_BLOCKS_AT_ONCE, 2 * self._seeks(day, runs)):
            yield self._whole_day(day)
            return
        for run in runs.runs:
            at: int | None = 0
            while at is not None:
                entries, at = self._stretch(day, run, at)
                yield entries

    def _whole_day(self, day: _Day) -> Entries:
        """By one scan over the blocks of all runs: cheaper than a seek in each when they are small."""
        partition, number = day
        rows = list(self._tables.scan(TABLE, partition, *blocks_of_day(number)))
        self._opened += len(rows)
        return joined([decode_items(value, number, self._local[partition]) for _, value in rows])

    def _stretch(self, day: _Day, run: int, at: int) -> tuple[Entries, int | None]:
        """The blocks that begin with item number ``at`` of ours, and where to seek next (None: nowhere)."""
        partition, number = day
        local = self._local[partition]
        parts: list[Entries] = []
        for key, value in self._tables.scan(TABLE, partition, *run_range(number, run, int(local[at]))):
            self._opened += 1
            parts.append(decode_items(value, number, local))
            last_item = split_block_key(key)[2]
            at = int(np.searchsorted(local, last_item))
            if at == len(local):
                break
            if local[at] > last_item:
                return joined(parts), at
        return joined(parts), None

    def _united(self, day: _Day, parts: list[Entries]) -> Entries:
        """A day's entries with queryd's ordinals, cut where there are too many users.

        Entries that stand in several runs may stay several: users are counted, not entries.
        """
        entries = joined(parts)
        if len(entries) > USERS_MAX or (entries.hour == THRESHOLD_HOUR).any():
            entries = canonical(entries)
        profiles = self._hot.profile_maps.get(day[0], OrdinalMap())
        return replace(entries, profile=profiles.translate(entries.profile))


def _by_signal(days: Sequence[Entries]) -> dict[int, _Visits]:
    entries = joined(days)
    thresholds = entries.hour == THRESHOLD_HOUR
    found: dict[int, _Visits] = {}
    for code in distinct(entries.signal).tolist():
        of_signal = entries.signal == code
        marks, mine = entries.at(of_signal & thresholds), entries.at(of_signal & ~thresholds)
        hour = mine.day.astype(np.int64) * _HOURS_IN_DAY + mine.hour
        minute = hour * _MINUTES_IN_HOUR
        found[code] = _Visits(
            mine.day,
            mine.user,
            mine.profile,
            hour,
            minute + mine.first,
            minute + mine.last,
            marks.day,
            marks.user,
        )
    return found


def _marked(ordinals: U32, items: Mask) -> U32:
    """Positions of the ordinals that are marked, ascending."""
    known = (ordinals != NOT_MAPPED) & (ordinals < len(items))
    marked: U32 = np.flatnonzero(known & items[np.where(known, ordinals, 0)]).astype(np.uint32)
    return marked


def _days_of(wanted: BucketRange) -> tuple[int, int]:
    in_day = _HOURS_IN_DAY * (_MINUTES_IN_HOUR if wanted.minutes else 1)
    return max(wanted.low // in_day, 0), min(wanted.high // in_day, _DAY_MAX)

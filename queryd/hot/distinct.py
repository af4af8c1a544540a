"""Distinct users of items, read from the item shard's runs when a ledger asks: nothing of it stays in memory.

A user who came on several days, or to several items of a creator, is one: entries are united, not added.
Where a day, item and signal had more users than are kept, all that is read is cut at the smallest threshold
among them, which leaves a uniform sample of the union, and the answer carries its standard error.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from materializers.rows.distinct_users import (
    FIRST_DAY_KEY,
    TABLE,
    THRESHOLD_HOUR,
    DayRuns,
    Entries,
    day_key,
    day_of,
    days_range,
    decode_items,
    decode_runs,
    joined,
    run_range,
    split_block_key,
)
from materializers.user_runs import BLOCK_ENTRIES
from materializers.user_sample import NO_THRESHOLD, canonical, estimate, threshold_of
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
    """Visits of one day and signal in one partition: ``minute`` i64 the start of the hour in minutes since
    1970, ``profile`` queryd's ordinal."""

    threshold: np.uint64
    user: U64
    profile: U32
    minute: I64
    first: I64
    last: I64

    def users(self, wanted: BucketRange | None, threshold: np.uint64, profiles: Mask | None) -> U64:
        """EntityIds below the threshold, of the marked profiles, with an event in ``wanted`` (None: any)."""
        chosen = self.user < threshold
        if wanted is not None:
            chosen &= self._within(wanted)
        if profiles is not None:
            known = self.profile < len(profiles)
            chosen &= known & profiles[np.where(known, self.profile, 0)]
        return self.user[chosen]

    def _within(self, wanted: BucketRange) -> Mask:
        """Of an hour that the range cuts, the first and last minute say whether an event is in it."""
        if wanted.minutes:
            return (self.last >= wanted.low) & (self.first <= wanted.high)
        hour = self.minute // _MINUTES_IN_HOUR
        return (hour >= wanted.low) & (hour <= wanted.high)


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
        self._visits: dict[int, dict[int, list[_Visits]]] = defaultdict(dict)
        self._read: set[tuple[int, int]] = set()
        self._loaded: list[tuple[int, int]] = []
        self._opened = 0

    async def load(self, ranges: Sequence[BucketRange]) -> None:
        """Read the days of all these ranges, leaving out what would take too many reads."""
        for first, last in sorted(
            {_days_of(wanted) for wanted in ranges}, key=lambda days: days[0] - days[1]
        ):
            if not self._covers(first, last):
                await self._load(first, last)

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
        of_day = self._visits[self._hot.schema.signal_list[signal].code]
        held = [
            (day, visits) for day, several in of_day.items() if first <= day <= last for visits in several
        ]
        threshold = min((visits.threshold for _, visits in held), default=NO_THRESHOLD)
        whole = threshold == NO_THRESHOLD and profiles is None
        users = [
            visits.user
            if whole and first < day < last
            else visits.users(None if first < day < last else wanted, threshold, profiles)
            for day, visits in held
        ]
        found = estimate(len(np.unique(np.concatenate(users))) if users else 0, threshold)
        return UsersRead(found.users, found.standard_error, "exact" if found.exact else "sketch")

    def _covers(self, first: int, last: int) -> bool:
        return any(low <= first and last <= high for low, high in self._loaded)

    def _first_days(self) -> Iterator[int]:
        rows = self._tables.get_many(TABLE, [(partition, FIRST_DAY_KEY) for partition in self._local])
        return (int.from_bytes(row, "big") for row in rows if row is not None)

    async def _load(self, first: int, last: int) -> None:
        days = {
            (partition, day_of(key)): decode_runs(value)
            for partition in self._local
            for key, value in self._tables.scan(TABLE, partition, *days_range(first, last))
        }
        blocks = sum(_blocks_of(runs, len(self._local[partition])) for (partition, _), runs in days.items())
        if blocks > BLOCKS_MAX:
            return
        for partition, day in sorted(days.keys() - self._read):
            self._hold(partition, day, await self._entries(partition, day))
        self._read |= days.keys()
        self._loaded.append((first, last))

    async def _entries(self, partition: int, day: int) -> Entries:
        """What the day's runs say of the items.

        Between two pauses the worker may have merged runs that are still to be read: then all of the day is
        read again, without a pause.
        """
        entries, before, after = await self._gather(partition, day, pausing=True)
        if before != after:
            entries, _, _ = await self._gather(partition, day, pausing=False)
        return entries

    async def _gather(
        self, partition: int, day: int, *, pausing: bool
    ) -> tuple[Entries, bytes | None, bytes | None]:
        """The entries, and the row that names the day's runs before and after."""
        before = self._runs_row(partition, day)
        parts: list[Entries] = []
        for run in decode_runs(before).runs if before is not None else ():
            at: int | None = 0
            while at is not None:
                at = self._stretch(partition, day, run, at, parts)
                if pausing and self._opened >= _BLOCKS_AT_ONCE:
                    self._opened = 0
                    await asyncio.sleep(0)
        return canonical(joined(parts)), before, self._runs_row(partition, day)

    def _runs_row(self, partition: int, day: int) -> bytes | None:
        return self._tables.get_many(TABLE, [(partition, day_key(day))])[0]

    def _stretch(self, partition: int, day: int, run: int, at: int, parts: list[Entries]) -> int | None:
        """Read the blocks that begin with item number ``at`` of ours; where to seek next, None at the end."""
        local = self._local[partition]
        for key, value in self._tables.scan(TABLE, partition, *run_range(day, run, int(local[at]))):
            self._opened += 1
            entries = decode_items(value, day, local)
            if len(entries):
                parts.append(entries)
            last_item = split_block_key(key)[2]
            at = int(np.searchsorted(local, last_item))
            if at == len(local):
                return None
            if local[at] > last_item:
                return at
        return None

    def _hold(self, partition: int, day: int, entries: Entries) -> None:
        profiles = self._hot.profile_maps.get(partition, OrdinalMap())
        for code in np.unique(entries.signal).tolist():
            mine = entries.at(entries.signal == code)
            threshold = threshold_of(mine)
            mine = mine.at(mine.hour != THRESHOLD_HOUR)
            minute = (np.int64(day) * _HOURS_IN_DAY + mine.hour) * _MINUTES_IN_HOUR
            self._visits[code].setdefault(day, []).append(
                _Visits(
                    threshold,
                    mine.user,
                    profiles.translate(mine.profile),
                    minute,
                    minute + mine.first,
                    minute + mine.last,
                )
            )


def _marked(ordinals: U32, items: Mask) -> U32:
    """Positions of the ordinals that are marked, ascending."""
    known = (ordinals != NOT_MAPPED) & (ordinals < len(items))
    marked: U32 = np.flatnonzero(known & items[np.where(known, ordinals, 0)]).astype(np.uint32)
    return marked


def _days_of(wanted: BucketRange) -> tuple[int, int]:
    in_day = _HOURS_IN_DAY * (_MINUTES_IN_HOUR if wanted.minutes else 1)
    return max(wanted.low // in_day, 0), min(wanted.high // in_day, _DAY_MAX)


def _blocks_of(day: DayRuns, items: int) -> int:
    """How many blocks a reading of some items opens at most, a cell of many blocks aside."""
    return sum(min(items, size // BLOCK_ENTRIES) + 1 for size in day.sizes)

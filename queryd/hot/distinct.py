"""Distinct users of items, read from the item shard's runs when a ledger asks: nothing of it stays in memory.

A user who came on several days, or to several items of a creator, is one: entries are united, not added.
Where a day, item and signal had more users than are kept, all that is read is cut at the smallest threshold
among them, which leaves a uniform sample of the union, and the answer carries its standard error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from materializers.rows.distinct_users import (
    FIRST_DAY_KEY,
    NOTHING,
    TABLE,
    THRESHOLD_HOUR,
    DayRuns,
    Entries,
    day_of,
    days_range,
    decode_block,
    decode_runs,
    joined,
    run_range,
    split_block_key,
)
from materializers.user_runs import BLOCK_ENTRIES
from materializers.user_sample import canonical, estimate, threshold_of
from queryd.hot.arrays import U32, Mask
from queryd.hot.columns import NOT_MAPPED, HotColumns, OrdinalMap
from queryd.hot.cube import BucketRange
from queryd.hot.tables import Tables

Estimator = Literal["exact", "sketch", "expired", "too_many_rows"]

BLOCKS_MAX: Final = 1_000
"""Blocks that one reading may open: some 60 ms of the daemon's time."""
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


class DistinctUsers:
    """Distinct users of the same items, for the reads of one request. Ask for the widest range first.

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
        self._days: tuple[int, int] | None = None
        self._refused: tuple[int, int] | None = None
        self._entries = NOTHING

    def count(self, signal: int, wanted: BucketRange, profiles: Mask | None) -> UsersRead:
        """Users of a signal in a range of buckets, as members of the marked profiles at event time.

        Args:
            signal: dense index. profiles: bool[profiles] of a cohort, None for everybody.
        """
        days = _days_of(wanted)
        if any(days[0] < first_day for first_day in self._first_days()):
            return _EXPIRED
        if not self._load(*days):
            return _TOO_MANY
        entries = self._entries
        code = self._hot.schema.signal_list[signal].code
        of_days = (entries.signal == code) & (entries.day >= days[0]) & (entries.day <= days[1])
        entries = entries.at(of_days)
        threshold = threshold_of(entries)
        chosen = (entries.hour != THRESHOLD_HOUR) & (entries.user < threshold) & _within(entries, wanted)
        if profiles is not None:
            known = entries.profile < len(profiles)
            chosen &= known & profiles[np.where(known, entries.profile, 0)]
        found = estimate(len(np.unique(entries.user[chosen])), threshold)
        return UsersRead(found.users, found.standard_error, "exact" if found.exact else "sketch")

    def _first_days(self) -> Iterator[int]:
        rows = self._tables.get_many(TABLE, [(partition, FIRST_DAY_KEY) for partition in self._local])
        return (int.from_bytes(row, "big") for row in rows if row is not None)

    def _load(self, first: int, last: int) -> bool:
        """Hold the entries of these days; False when that would take too many reads."""
        if self._days is not None and self._days[0] <= first and last <= self._days[1]:
            return True
        if self._refused is not None and first <= self._refused[0] and self._refused[1] <= last:
            return False
        runs = {
            (partition, day_of(key)): decode_runs(value)
            for partition in self._local
            for key, value in self._tables.scan(TABLE, partition, *days_range(first, last))
        }
        blocks = sum(_blocks_of(held, len(self._local[partition])) for (partition, _), held in runs.items())
        if blocks > BLOCKS_MAX:
            self._refused = (first, last)
            return False
        parts = [
            self._translated(partition, joined(list(self._of_run(partition, day, run))))
            for (partition, day), held in runs.items()
            for run in held.runs
        ]
        self._entries, self._days = canonical(joined(parts)), (first, last)
        return True

    def _of_run(self, partition: int, day: int, run: int) -> Iterator[Entries]:
        """Entries of the items in one run: a seek for each stretch of blocks that holds some."""
        local = self._local[partition]
        at = 0
        while at < len(local):
            for key, value in self._tables.scan(TABLE, partition, *run_range(day, run, int(local[at]))):
                entries = decode_block(value, day)
                rows = np.isin(entries.item, local)
                if rows.any():
                    yield entries.at(rows)
                last_item = split_block_key(key)[2]
                at = int(np.searchsorted(local, last_item))
                if at == len(local) or local[at] > last_item:
                    break
            else:
                return

    def _translated(self, partition: int, entries: Entries) -> Entries:
        """The partition's ordinals become queryd's."""
        item = self._hot.item_maps[partition].translate(entries.item)
        profile = self._hot.profile_maps.get(partition, OrdinalMap()).translate(entries.profile)
        return replace(entries, item=item, profile=profile)


def _marked(ordinals: U32, items: Mask) -> U32:
    """Positions of the ordinals that are marked, ascending."""
    known = (ordinals != NOT_MAPPED) & (ordinals < len(items))
    marked: U32 = np.flatnonzero(known & items[np.where(known, ordinals, 0)]).astype(np.uint32)
    return marked


def _days_of(wanted: BucketRange) -> tuple[int, int]:
    in_day = _HOURS_IN_DAY * (_MINUTES_IN_HOUR if wanted.minutes else 1)
    return max(wanted.low // in_day, 0), min(wanted.high // in_day, _DAY_MAX)


def _within(entries: Entries, wanted: BucketRange) -> Mask:
    """Which entries have an event in the range; for an hour that it cuts, first and last minute say so."""
    hour = entries.day.astype(np.int64) * _HOURS_IN_DAY + entries.hour
    if not wanted.minutes:
        return (hour >= wanted.low) & (hour <= wanted.high)
    minute = hour * _MINUTES_IN_HOUR
    return (minute + entries.last >= wanted.low) & (minute + entries.first <= wanted.high)


def _blocks_of(day: DayRuns, items: int) -> int:
    """How many blocks a reading of some items opens at most, a cell of many blocks aside."""
    return sum(min(items, size // BLOCK_ENTRIES) + 1 for size in day.sizes)

"""Which users a cell of ``distinct_users`` keeps: all up to a bound, above it a sample by their hash.

A cell (day, item, signal) keeps users with the smallest EntityIds, a bottom-k sample (Cohen & Kaplan 2007;
the theta sketch of Dasgupta et al. 2016): EntityIds are hashes, so the sample is uniform and the same for
every cell, and cells can be united. Once more than ``USERS_MAX`` users have been seen the cell has a
*threshold*, the hash of the first one that was left out, and holds only users below it. The threshold
depends on the set of entries that the cell was ever given: not on their order, their batches, or where runs
were merged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from materializers.grouping import distinct
from materializers.rows.distinct_users import THRESHOLD_HOUR, Entries, joined

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

USERS_MAX: Final = 4_096
"""Distinct users of a day, item and signal up to which everything about them is exact."""
ENTRIES_MAX: Final = 65_536
"""Entries of a cell: a user has one for each hour and cohort profile, 24 if the profile stays."""
NO_THRESHOLD: Final = np.uint64(2**64 - 1)
_HASHES: Final = 2.0**64
_HASH_BITS: Final = 64
_COARSE: Final = np.uint64(0xFFFF)  # left out of a threshold, so that it does not name the user it came from


@dataclass(slots=True, frozen=True)
class UserCount:
    """``users``: how many; ``standard_error`` of it in users, 0 when it is exact."""

    users: int
    standard_error: float

    @property
    def exact(self) -> bool:
        return self.standard_error == 0.0


def estimate(sampled: int, threshold: np.uint64) -> UserCount:
    """The number of users of whom ``sampled`` have a hash below ``threshold``.

    With p = threshold / 2^64: n = sampled / p, standard error √(sampled·(1 − p)) / p (of one user if none was
    sampled).
    """
    if threshold == NO_THRESHOLD:
        return UserCount(sampled, 0.0)
    share = max(float(threshold), 1.0) / _HASHES
    return UserCount(round(sampled / share), (max(sampled, 1) * (1.0 - share)) ** 0.5 / share)


def threshold_of(entries: Entries) -> np.uint64:
    """The smallest threshold among the cells of ``entries``: below it the union of all is a whole sample."""
    marks = entries.user[entries.hour == THRESHOLD_HOUR]
    return marks.min() if len(marks) else NO_THRESHOLD


def canonical(entries: Entries, users_max: int = USERS_MAX, entries_max: int = ENTRIES_MAX) -> Entries:
    """What the cells of ``entries`` amount to, sorted by day, item, signal, user, profile and hour.

    Entries of one user, profile and hour become one; each cell keeps what its threshold allows, and states a
    threshold as its last entry.

    Args:
        entries: any, in any order; also what an earlier call returned.
        users_max: kept by a cell. entries_max: kept by a cell, in whole users.
    """
    if not len(entries):
        return entries
    return _cut(_merged(entries.at(_order(entries))), users_max, entries_max)


def _order(entries: Entries) -> I64:
    """Positions in sorted order: by one integer of the cell and the hash's first bits, ties by the rest."""
    key = _sort_key(entries)
    order = np.argsort(key)
    ordered = key[order]
    equal = ordered[1:] == ordered[:-1]
    if not equal.any():
        return order
    tied = np.zeros(len(order), dtype=bool)
    tied[1:] |= equal
    tied[:-1] |= equal
    rows = order[tied]
    within = (entries.profile.astype(np.uint64) << np.uint64(8)) | entries.hour
    order[tied] = rows[np.lexsort((within[rows], entries.user[rows], key[rows]))]
    return order


def _sort_key(entries: Entries) -> U64:
    codes = distinct(entries.signal)
    key = np.zeros(len(entries), dtype=np.uint64)
    bits = 0
    columns = entries.day - entries.day.min(), entries.item, np.searchsorted(codes, entries.signal)
    for column in columns:
        width = int(column.max()).bit_length()
        key = (key << np.uint64(width)) | column.astype(np.uint64)
        bits += width
    left = max(_HASH_BITS - bits, 0)
    if not left:
        return key
    return (key << np.uint64(left)) | (entries.user >> np.uint64(_HASH_BITS - left)) if bits else entries.user


def _merged(entries: Entries) -> Entries:
    """One entry for each user, profile and hour of a cell; ``entries`` is sorted."""
    fresh = _starts(entries.day, entries.item, entries.signal, entries.user, entries.profile, entries.hour)
    if fresh.all():
        return entries
    starts = np.flatnonzero(fresh)
    once = entries.at(starts)
    first = np.minimum.reduceat(entries.first, starts)
    last = np.maximum.reduceat(entries.last, starts)
    return Entries(once.day, once.item, once.signal, once.user, once.profile, once.hour, first, last)


def _cut(entries: Entries, users_max: int, entries_max: int) -> Entries:
    fresh = _starts(entries.day, entries.item, entries.signal)
    marks = entries.hour == THRESHOLD_HOUR
    sizes = np.diff(np.flatnonzero(fresh), append=len(entries))
    if not marks.any() and sizes.max() <= min(users_max, entries_max):
        return entries
    cell = np.cumsum(fresh) - 1
    heads = entries.at(fresh)
    limits = np.full(len(heads), NO_THRESHOLD, dtype=np.uint64)
    np.minimum.at(limits, cell[marks], entries.user[marks])
    visits = ~marks & (entries.user < limits[cell])
    entries, cell = entries.at(visits), cell[visits]
    over = _over(entries, cell, users_max, entries_max)
    np.minimum.at(limits, cell[over], entries.user[over] & ~_COARSE)
    kept = entries.user < limits[cell]
    return _with_thresholds(entries.at(kept), cell[kept], heads, limits)


def _over(entries: Entries, cell: I64, users_max: int, entries_max: int) -> I64:
    """Positions of entries beyond a bound of their cell."""
    row = np.arange(len(cell))
    begins = _starts(cell)
    start_of_row = row[begins][np.cumsum(begins) - 1]
    user = np.cumsum(_starts(cell, entries.user))
    user_rank = user - user[start_of_row]
    return np.flatnonzero((user_rank >= users_max) | (row - start_of_row >= entries_max))


def _with_thresholds(entries: Entries, cell: I64, heads: Entries, limits: U64) -> Entries:
    cut = np.flatnonzero(limits != NO_THRESHOLD)
    if not len(cut):
        return entries
    zeros = np.zeros(len(cut), dtype=np.uint8)
    marks = Entries(
        heads.day[cut],
        heads.item[cut],
        heads.signal[cut],
        limits[cut],
        np.zeros(len(cut), dtype=np.uint32),
        np.full(len(cut), THRESHOLD_HOUR, dtype=np.uint8),
        zeros,
        zeros,
    )
    order = np.argsort(np.concatenate([cell, cut]), kind="stable")
    return joined([entries, marks]).at(order)


def _starts(*columns: npt.NDArray[np.integer]) -> Flags:
    """Where a run of rows with equal columns begins, bool[n]."""
    fresh = np.zeros(len(columns[0]), dtype=bool)
    fresh[:1] = True
    for column in columns:
        fresh[1:] |= column[1:] != column[:-1]
    return fresh

"""Sealed cells of one signal: sorted by profile, then item, and as narrow as their values allow.

A *run* never changes. The rows of one profile are a range, found through an index of eight bytes for each
profile present, or of four for each profile known where that is less: so a sum costs what matches, not what
is held. Most cells are one event of weight 1.0; a run of such cells has neither counts nor sums, and the
counts of a few others are kept apart.

A run may hold the cells of several consecutive hours, a *span*. The hour is then in the low bits of the item
column, and costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from queryd.hot.arrays import F64, I64, U8, U32, Mask
from queryd.hot.cells import Cells
from queryd.hot.profile_index import Column, ProfileIndex, Selection, Stretches
from schemas.weights import WEIGHT_SCALE

HOUR_BITS: Final = 3
SPAN_HOURS: Final = 1 << HOUR_BITS
SPAN_ITEMS_MAX: Final = 1 << (32 - HOUR_BITS)
"""Items beyond this number leave no room for the hour beside them."""
_HOUR_MASK: Final = np.uint32(SPAN_HOURS - 1)
_RARE_SHARE: Final = 16  # cells of several events are kept apart when they are fewer than one in so many

Counts = npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
Sums = npt.NDArray[np.int32] | npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class RareCounts:
    """Counts of n cells of which nearly all are 1: ``rows`` u32[k] ascending of the others, and their counts.

    ``profile`` u32[k] are the profiles of the others, None where cells are kept without.
    """

    length: int
    rows: U32
    count: Counts
    profile: U32 | None

    def __len__(self) -> int:
        return self.length

    @property
    def nbytes(self) -> int:
        return int(
            self.rows.nbytes + self.count.nbytes + (0 if self.profile is None else self.profile.nbytes)
        )

    def between(self, low: int, high: int) -> U32:
        """The counts of the rows from ``low`` to before ``high``."""
        counts = np.ones(high - low, dtype=np.uint32)
        first, last = np.searchsorted(self.rows, (low, high)).tolist()
        counts[self.rows[first:last] - np.uint32(low)] = self.count[first:last]
        return counts

    def at(self, rows: I64 | None) -> U32:
        """The counts of ``rows``, which ascend; of all for None."""
        if rows is None:
            return self.between(0, self.length)
        counts = np.ones(len(rows), dtype=np.uint32)
        if len(rows) < len(self.rows):  # fewer are looked up among more
            places = np.searchsorted(self.rows, rows)
            found = np.flatnonzero(self.rows.take(places, mode="clip") == rows)
            counts[found] = self.count.take(places.take(found))
        else:
            places = np.searchsorted(rows, self.rows)
            found = np.flatnonzero(rows.take(places, mode="clip") == self.rows)
            counts[places.take(found)] = self.count.take(found)
        return counts


@dataclass(frozen=True, slots=True)
class Reading:
    """Rows of a run that were chosen, and the item of each, u32[n]."""

    items: U32
    _stretches: Stretches | None
    _inside: I64 | None

    @property
    def rows(self) -> I64 | None:
        """The rows, None for all."""
        if self._stretches is None:
            return self._inside
        rows = self._stretches.rows
        return rows if self._inside is None else rows.take(self._inside)

    def of(self, column: Column) -> Column:
        """What ``column`` has in these rows."""
        column = column if self._stretches is None else self._stretches.of(column)
        return column if self._inside is None else column.take(self._inside)  # type: ignore[return-value]


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Sealed cells. ``place`` u32[n] is the item, or in a span item · 8 + hours since ``first_hour``.

    ``count`` None: every cell is one event. ``sum`` None: every event has weight 1.0. ``index`` None: the
    cells are kept without profiles, sorted by place. ``moment`` as in ``Cells``.
    """

    place: U32
    index: ProfileIndex | None
    count: Counts | RareCounts | None = None
    sum: Sums | None = None
    moment: F64 | None = None
    first_hour: int | None = None

    def __len__(self) -> int:
        return len(self.place)

    @property
    def nbytes(self) -> int:
        """Bytes of its columns and index."""
        columns = [column for column in (self.count, self.sum, self.moment) if column is not None]
        index = 0 if self.index is None else self.index.nbytes
        return int(self.place.nbytes) + index + sum(int(column.nbytes) for column in columns)

    def items(self, rows: I64 | None) -> U32:
        """The items of ``rows``; of all for None."""
        return self._items_at(self.place if rows is None else self.place.take(rows))

    def _items_at(self, place: U32) -> U32:
        return place if self.first_hour is None else place >> np.uint32(HOUR_BITS)

    def hours(self, rows: I64 | None) -> U8:
        """Of a span: hours since ``first_hour``."""
        place = self.place if rows is None else self.place.take(rows)
        return (place & _HOUR_MASK).astype(np.uint8)

    def rows(self, chosen: Selection | None) -> I64 | None:
        """The rows of the profiles that ``chosen`` allows, ascending; None for all."""
        if chosen is None or self.index is None:
            return None
        return self.index.ranges(chosen).rows

    def read(self, chosen: Selection | None, hours: tuple[int, int] | None) -> Reading:
        """The rows that ``chosen`` allows; of a span those of ``hours``: first and last since its own."""
        stretches = None if chosen is None or self.index is None else self.index.ranges(chosen)
        place = self.place if stretches is None else stretches.of(self.place)
        inside = self._inside(place, hours)
        if inside is not None:
            place = place.take(inside)
        return Reading(self._items_at(place), stretches, inside)

    def repeats(self, chosen: Selection | None, hours: tuple[int, int] | None) -> tuple[U32, U32]:
        """Items u32[k], and counts less one, of the cells of several events among those that are read."""
        rare = self.count
        assert isinstance(rare, RareCounts)
        place, more = self.place.take(rare.rows), rare.count.astype(np.uint32) - np.uint32(1)
        if chosen is not None and rare.profile is not None:
            known = np.flatnonzero(chosen.mask.take(rare.profile))
            place, more = place.take(known), more.take(known)
        inside = self._inside(place, hours)
        if inside is not None:
            place, more = place.take(inside), more.take(inside)
        return self._items_at(place), more

    def _inside(self, place: U32, hours: tuple[int, int] | None) -> I64 | None:
        """Which of these places of a span lie in ``hours``; None for all."""
        if self.first_hour is None or hours is None or hours == (0, SPAN_HOURS - 1):
            return None
        since = place & _HOUR_MASK
        return np.flatnonzero((since >= hours[0]) & (since <= hours[1]))

    def matching(self, chosen: Selection | None) -> int:
        """How many rows ``chosen`` allows."""
        if chosen is None or self.index is None:
            return len(self)
        return len(self.index.ranges(chosen))

    def cells(self, rows: I64 | None) -> Cells:
        """The cells of ``rows`` in full, None: all."""
        bare = self.bare_cells(rows)
        if self.index is None:
            return bare
        profile = self.index.column(0, len(self)) if rows is None else self.index.at(rows)
        return Cells(bare.item, profile, bare.count, bare.sum, bare.moment)

    def bare_cells(self, rows: I64 | None) -> Cells:
        """The cells of ``rows`` without their profiles."""
        total = taken(self.sum, rows)
        items = self.items(rows)
        count = self._counts(rows)
        counts = np.ones(len(items), dtype=np.uint32) if count is None else count
        sums = counts.astype(np.int64) * WEIGHT_SCALE if total is None else total.astype(np.int64)
        return Cells(items, None, counts, sums, taken(self.moment, rows))

    def without(self, dropped: Mask) -> Run:
        """The run without the items that bool[items] marks."""
        kept = ~dropped[self.items(None)]
        if kept.all():
            return self
        rows = np.flatnonzero(kept)
        index = None if self.index is None else self.index.keeping(kept)
        count = self._counts(rows)
        return Run(
            self.place.take(rows),
            index,
            None if count is None else narrowed_counts(count, index),
            taken(self.sum, rows),
            taken(self.moment, rows),
            self.first_hour,
        )

    def _counts(self, rows: I64 | None) -> U32 | None:
        """The counts of ``rows``, of all for None; None where each is 1."""
        if isinstance(self.count, RareCounts):
            return self.count.at(rows)
        count = taken(self.count, rows)
        return None if count is None else count.astype(np.uint32)

    def counts_between(self, low: int, high: int) -> U32 | None:
        """The counts of the rows from ``low`` to before ``high``; None where each is 1."""
        if self.count is None:
            return None
        if isinstance(self.count, RareCounts):
            return self.count.between(low, high)
        return self.count[low:high].astype(np.uint32)

    def untimed(self) -> Run:
        """The same cells without hours and moments."""
        if self.first_hour is None and self.moment is None:
            return self
        return Run(self.items(None), self.index, self.count, self.sum)

    def row_of(self, profile: int, item: int) -> int:
        """The first row at or after (profile, item)."""
        low, high = (0, len(self)) if self.index is None else self.index.rows_of(profile)
        wanted = item if self.first_hour is None else item << HOUR_BITS
        return low + int(np.searchsorted(self.place[low:high], np.uint32(wanted)))


def narrowed_counts(count: U32, index: ProfileIndex | None) -> Counts | RareCounts | None:
    """None when each is 1, apart when few are not, else in the narrowest type."""
    rows = np.flatnonzero(count != 1)
    if not len(rows):
        return None
    if len(rows) * _RARE_SHARE > len(count):
        return narrowed(count)
    profile = None if index is None else index.at(rows)
    return RareCounts(len(count), rows.astype(np.uint32), narrowed(count.take(rows)), profile)


def narrowed(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The column in the narrowest type that holds it."""
    types: tuple[Any, ...] = (np.uint8, np.uint16) if column.dtype == np.uint32 else (np.int32,)
    for narrow in types:
        limits = np.iinfo(narrow)
        if not len(column) or (limits.min <= column.min() and column.max() <= limits.max):
            return column.astype(narrow)
    return column


def taken(column: Column | None, rows: I64 | None) -> Column | None:
    return column if column is None or rows is None else column[rows]  # type: ignore[return-value]

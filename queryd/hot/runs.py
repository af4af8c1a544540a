"""Sealed cells of one signal: sorted by profile, then item, and as narrow as their values allow.

A *run* never changes. The rows of one profile are a range, found through an index of eight bytes for each
profile present, or of four for each profile known where that is less: so a sum costs what matches, not what
is held. Most cells are one event of weight 1.0; a run of such cells has neither counts nor sums, and the
counts of a few others are kept apart.

A run may hold the cells of several consecutive hours, a *span*. The hour is then in the low bits of the item
column, and costs nothing.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from queryd.hot.arrays import F64, I64, U8, U32, U64, Mask
from queryd.hot.cells import Cells
from schemas.weights import WEIGHT_SCALE

HOUR_BITS: Final = 3
SPAN_HOURS: Final = 1 << HOUR_BITS
SPAN_ITEMS_MAX: Final = 1 << (32 - HOUR_BITS)
"""Items beyond this number leave no room for the hour beside them."""
_HOUR_MASK: Final = np.uint32(SPAN_HOURS - 1)
_PROFILE_SHIFT: Final = np.uint64(32)
_PLACE_MASK: Final = np.uint64(0xFFFFFFFF)
_SAMPLE_EVERY: Final = 1024
_SPARE_SHARE: Final = 1.1  # of a column's room, what may stay unused
_NO_ROWS: Final[I64] = np.zeros(0, dtype=np.int64)
_FEW: Final = 16  # looking up a row's profile costs as much as writing out those of so many
_LONG: Final = 64  # copying a stretch of so many rows costs as much as writing out their numbers
_TAKEN_AT_ONCE: Final = 65_536  # the numbers of so many rows stay in the processor's cache
_RARE_SHARE: Final = 16  # cells of several events are kept apart when they are fewer than one in so many

_Counts = npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
_Sums = npt.NDArray[np.int32] | npt.NDArray[np.int64]
_Column = TypeVar("_Column", bound=npt.NDArray[Any])


class Selection:
    """The profiles that a cohort allows: ``mask`` bool[profiles known]."""

    def __init__(self, mask: Mask) -> None:
        self.mask = mask

    @cached_property
    def edges(self) -> I64:
        """The allowed profiles as stretches of consecutive ones: first, last + 1, first, …"""
        return _edges(self.mask)

    @property
    def others(self) -> Selection:
        """The profiles that it does not allow."""
        return Selection(~self.mask)


class Stretches:
    """Stretches of rows: where each begins, u32[n] ascending, and how many rows it has, u32[n], none 0."""

    def __init__(self, begins: U32, lengths: U32) -> None:
        self._begins = begins
        self._lengths = lengths

    def __len__(self) -> int:
        return int(self._lengths.sum(dtype=np.int64))

    @cached_property
    def rows(self) -> I64:
        """The rows, ascending."""
        return expanded(self._begins, self._lengths)

    def of(self, column: _Column) -> _Column:
        """What ``column`` has in these rows: not to be changed."""
        total = len(self)
        if not total:
            return column[:0]  # type: ignore[return-value]
        if total >= _LONG * len(self._begins):
            ends_of = zip(self._begins.tolist(), (self._begins + self._lengths).tolist(), strict=True)
            parts = [column[begin:end] for begin, end in ends_of]
            return parts[0] if len(parts) == 1 else np.concatenate(parts)  # type: ignore[return-value]
        taken = np.empty(total, dtype=column.dtype)
        ends = np.cumsum(self._lengths, dtype=np.int64)
        cuts = np.searchsorted(ends, np.arange(_TAKEN_AT_ONCE, total, _TAKEN_AT_ONCE))
        begin = 0
        for first, last in pairwise([0, *np.unique(cuts[cuts > 0]).tolist(), len(ends)]):
            end = int(ends[last - 1])
            rows = expanded(self._begins[first:last], self._lengths[first:last])
            column.take(rows, out=taken[begin:end], mode="clip")  # checking the rows would copy ``out``
            begin = end
        return taken  # type: ignore[return-value]


class ProfileIndex:
    """Which rows of a run each profile has: row ranges, ascending by profile.

    ``_profiles`` u32[m] with ``_starts`` u32[m + 1]; without the former, starts of every profile from 0. A
    profile may stand in ``_profiles`` twice in a row, and may have no rows.
    """

    __slots__ = ("_profiles", "_starts")

    def __init__(self, profiles: U32 | None, starts: U32) -> None:
        self._profiles = profiles
        self._starts = starts

    @classmethod
    def of(cls, profiles: U32, starts: U32) -> ProfileIndex:
        """The smaller of both forms for ``profiles`` u32[m], ascending, and ``starts`` u32[m + 1]."""
        known = int(profiles[-1]) + 1 if len(profiles) else 0
        if known > 2 * len(profiles):
            return cls(profiles, starts)
        ends = np.zeros(known + 1, dtype=np.uint32)
        # Of equal profiles the last is written last; an absent one begins where the next present one does.
        ends[profiles.astype(np.int64) + 1] = starts[1:]
        return cls(None, np.maximum.accumulate(ends))

    @property
    def nbytes(self) -> int:
        return int(self._starts.nbytes + (0 if self._profiles is None else self._profiles.nbytes))

    def ranges(self, chosen: Selection) -> Stretches:
        """Where stretches of rows of allowed profiles begin, and how many rows they have; none is empty.

        Profiles that lie beside each other share a stretch: a wide cohort has fewer of them than profiles.
        """
        if self._profiles is None:
            # Profiles that the run does not know yet have no rows: their stretch is empty, or ends sooner.
            edges = np.minimum(chosen.edges, len(self._starts) - 1)
        else:
            edges = _edges(chosen.mask.take(self._profiles))
        bounds = self._starts.take(edges)
        begins = bounds[::2]
        lengths = bounds[1::2] - begins
        held = np.flatnonzero(lengths)
        if len(held) == len(lengths):
            return Stretches(begins, lengths)
        return Stretches(begins.take(held), lengths.take(held))

    def rows_of(self, profile: int) -> tuple[int, int]:
        """First row of a profile, and the first row of a later one."""
        if self._profiles is None:
            last = len(self._starts) - 1
            return int(self._starts[min(profile, last)]), int(self._starts[min(profile + 1, last)])
        key = np.uint32(profile)
        low = int(np.searchsorted(self._profiles, key))
        high = int(np.searchsorted(self._profiles, key, side="right"))
        return int(self._starts[low]), int(self._starts[high])

    def column(self, low: int, high: int) -> U32:
        """The profile of each row from ``low`` to before ``high``."""
        if low == high:
            return np.zeros(0, dtype=np.uint32)
        first = int(np.searchsorted(self._starts, np.uint32(low), side="right")) - 1
        last = int(np.searchsorted(self._starts, np.uint32(high)))
        edges = self._starts[first : last + 1].astype(np.int64)
        clipped: I64 = np.clip(edges, low, high)
        lengths: I64 = clipped[1:] - clipped[:-1]
        if self._profiles is None:
            return np.repeat(np.arange(first, last, dtype=np.uint32), lengths)
        return np.repeat(self._profiles[first:last], lengths)

    def at(self, rows: I64) -> U32:
        """The profiles of ``rows``."""
        if len(rows) * _FEW > int(self._starts[-1]):
            return self.column(0, int(self._starts[-1])).take(rows)
        places = np.searchsorted(self._starts, rows.astype(np.uint32), side="right") - 1
        if self._profiles is None:
            return places.astype(np.uint32)
        return self._profiles.take(places)

    def keeping(self, kept: Mask) -> ProfileIndex:
        """The index after only the rows of bool[n] are kept."""
        before = np.concatenate([[0], np.cumsum(kept)]).astype(np.uint32)
        return ProfileIndex(self._profiles, before[self._starts])


@dataclass(frozen=True, slots=True, eq=False)
class RareCounts:
    """Counts of n cells of which nearly all are 1: ``rows`` u32[k] ascending of the others, and their counts.

    ``profile`` u32[k] are the profiles of the others, None where cells are kept without.
    """

    length: int
    rows: U32
    count: _Counts
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

    def of(self, column: _Column) -> _Column:
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
    count: _Counts | RareCounts | None = None
    sum: _Sums | None = None
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
        place = self.place if rows is None else self.place.take(rows)
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
        items = place if self.first_hour is None else place >> np.uint32(HOUR_BITS)
        return Reading(items, stretches, inside)

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
        return place if self.first_hour is None else place >> np.uint32(HOUR_BITS), more

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
        total = _taken(self.sum, rows)
        items = self.items(rows)
        count = self._counts(rows)
        counts = np.ones(len(items), dtype=np.uint32) if count is None else count
        sums = counts.astype(np.int64) * WEIGHT_SCALE if total is None else total.astype(np.int64)
        return Cells(items, None, counts, sums, _taken(self.moment, rows))

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
            None if count is None else _narrowed_counts(count, index),
            _taken(self.sum, rows),
            _taken(self.moment, rows),
            self.first_hour,
        )

    def _counts(self, rows: I64 | None) -> U32 | None:
        """The counts of ``rows``, of all for None; None where each is 1."""
        if isinstance(self.count, RareCounts):
            return self.count.at(rows)
        count = _taken(self.count, rows)
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


def _edges(mask: Mask) -> I64:
    """Where each stretch of true values begins and where it ends, alternately, i64[2n]."""
    padded = np.zeros(len(mask) + 2, dtype=np.bool_)
    padded[1:-1] = mask
    return np.flatnonzero(padded[1:] != padded[:-1])


def expanded(begins: U32, lengths: U32) -> I64:
    """begins[0], begins[0] + 1, … for ``lengths[0]`` rows, then those of the next range; none is empty.

    One sum over steps: half the time of repeating the begins and adding an arange.
    """
    if not len(begins):
        return np.zeros(0, dtype=np.int64)
    ends = np.cumsum(lengths, dtype=np.int64)
    steps = np.ones(int(ends[-1]), dtype=np.int64)
    steps[0] = begins[0]
    begin = begins.astype(np.int64)
    steps[ends[:-1]] = begin[1:] - (begin[:-1] + lengths[:-1] - 1)
    return np.cumsum(steps, out=steps)


def sealed(cells: Cells) -> Run:
    """A run of cells in any order; (profile, item) pairs may repeat."""
    keys = cells.item.astype(np.uint64)
    if cells.profile is not None:
        keys |= cells.profile.astype(np.uint64) << _PROFILE_SHIFT
    count = None if bool((cells.count == 1).all()) else cells.count
    unit = bool((cells.sum == cells.count * np.int64(WEIGHT_SCALE)).all())
    folded = _folded(_Part(keys, count, None if unit else cells.sum, cells.moment))
    part = _stretch(folded)
    index = None if cells.profile is None else _index_of([part])
    place: U32 = (folded.key & _PLACE_MASK).astype(np.uint32)
    return Run(place, index, *_narrowed_columns([part], index))


def merged(runs: Sequence[Run]) -> Run:
    """One run of all cells, at once."""
    steps = merging(runs, sum(map(len, runs)) + 1)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            run: Run = end.value
            return run


def merging(
    runs: Sequence[Run], slice_cells: int, hours: Sequence[int] | None = None
) -> Generator[None, None, Run]:
    """Merge runs in slices of about ``slice_cells`` cells; yields after each slice, returns the merged run.

    Args:
        hours: makes a span of runs and spans: the hour of each, of a span its first. All of one span.
    """
    first_hour = None if hours is None else hours[0] // SPAN_HOURS * SPAN_HOURS
    offsets = [0] * len(runs) if first_hour is None else [hour - first_hour for hour in hours or ()]
    parts: list[_Stretch] = []
    places: U32 = np.empty(
        sum(map(len, runs)), dtype=np.uint32
    )  # filled on the way: no large copy at the end
    lows, filled = [0] * len(runs), 0
    cuts = _cuts(runs, slice_cells)
    yield
    for cut in (*cuts, None):
        highs = [len(run) if cut is None else run.row_of(*cut) for run in runs]
        pieces = [
            _piece(run, low, high, None if first_hour is None else offset)
            for run, low, high, offset in zip(runs, lows, highs, offsets, strict=True)
            if low < high
        ]
        lows = highs
        if pieces:
            folded = _folded(_joined(pieces))
            parts.append(_stretch(folded))
            places[filled : filled + len(folded)] = folded.key & _PLACE_MASK
            filled += len(folded)
        yield
    place = places[:filled] if filled * _SPARE_SHARE >= len(places) else places[:filled].copy()
    yield
    index = _index_of(parts) if runs[0].index is not None else None
    yield
    return Run(place, index, *_narrowed_columns(parts, index), first_hour)


@dataclass(frozen=True, slots=True)
class _Part:
    """Cells on the way into a run: ``key`` u64 = profile << 32 | place; count and sum as in ``Run``."""

    key: U64
    count: U32 | None
    sum: I64 | None
    moment: F64 | None

    def __len__(self) -> int:
        return len(self.key)


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Sorted cells of a run to be, besides their places: profiles u32[m] and where each begins, i64[m]."""

    length: int
    profiles: U32
    begins: I64
    count: U32 | None
    sum: I64 | None
    moment: F64 | None

    def __len__(self) -> int:
        return self.length


def _cuts(runs: Sequence[Run], slice_cells: int) -> list[tuple[int, int]]:
    """(profile, item) pairs between which lie about ``slice_cells`` cells of all runs together."""
    total = sum(map(len, runs))
    if total <= slice_cells:
        return []
    every = max(1, min(_SAMPLE_EVERY, slice_cells // 8))
    samples = []
    for run in runs:
        rows = np.arange(every // 2, len(run), every)
        keys = run.items(rows).astype(np.uint64)
        if run.index is not None:
            keys |= run.index.at(rows).astype(np.uint64) << _PROFILE_SHIFT
        samples.append(keys)
    keys = np.sort(np.concatenate(samples))
    chosen = np.unique(keys[:: max(1, slice_cells // every)][1:]).tolist()
    return [(key >> 32, key & 0xFFFFFFFF) for key in chosen]


def _piece(run: Run, low: int, high: int, hour: int | None) -> _Part:
    """Rows ``low`` to before ``high``; ``hour``: of the span that they go into, for a run without hours."""
    place = run.place[low:high]
    if hour is not None and run.first_hour is None:
        place = place << np.uint32(HOUR_BITS) | np.uint32(hour)
    key = place.astype(np.uint64)
    if run.index is not None:
        key |= run.index.column(low, high).astype(np.uint64) << _PROFILE_SHIFT
    rows = slice(low, high)
    return _Part(
        key,
        run.counts_between(low, high),
        None if run.sum is None else run.sum[rows].astype(np.int64),
        None if run.moment is None else run.moment[rows],
    )


def _joined(parts: Sequence[_Part]) -> _Part:
    """The parts one after another; what is left out in some is written out where others have it."""
    return _Part(np.concatenate([part.key for part in parts]), *_columns(parts))


def _columns(parts: Sequence[_Part | _Stretch]) -> tuple[U32 | None, I64 | None, F64 | None]:
    count = total = moment = None
    if any(part.count is not None for part in parts):
        count = np.concatenate([_counts_of(part) for part in parts])
    if any(part.sum is not None for part in parts):
        total = np.concatenate([_sums_of(part) for part in parts])
    if any(part.moment is not None for part in parts):
        moment = np.concatenate(
            [np.zeros(len(part)) if part.moment is None else part.moment for part in parts]
        )
    return count, total, moment


def _counts_of(part: _Part | _Stretch) -> U32:
    return np.ones(len(part), dtype=np.uint32) if part.count is None else part.count


def _sums_of(part: _Part | _Stretch) -> I64:
    return _unit_sums(part.count, len(part)) if part.sum is None else part.sum


def _folded(part: _Part) -> _Part:
    """Sorted by key, equal keys added up."""
    # Stable sorts look for ascending stretches, of which merged runs consist.
    order = np.argsort(part.key, kind="stable")
    key = part.key[order]
    count, total, moment = _taken(part.count, order), _taken(part.sum, order), _taken(part.moment, order)
    starts = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]])) if len(key) else order
    if len(starts) == len(key):
        return _Part(key, count, total, moment)
    if count is None:
        counts = np.diff(np.append(starts, len(key))).astype(np.uint32)
    else:
        counts = np.add.reduceat(count, starts, dtype=np.uint32)
    return _Part(
        key[starts],
        counts,
        None if total is None else np.add.reduceat(total, starts),
        None if moment is None else np.add.reduceat(moment, starts),
    )


def _stretch(part: _Part) -> _Stretch:
    """What stays of a folded part: a third of its bytes, and no work is left for the end of a merge."""
    profile = (part.key >> _PROFILE_SHIFT).astype(np.uint32)
    begins = (
        np.flatnonzero(np.concatenate([[True], profile[1:] != profile[:-1]])) if len(profile) else _NO_ROWS
    )
    total = part.sum
    if total is not None and (total == _unit_sums(part.count, len(total))).all():
        total = None
    return _Stretch(len(part), profile[begins], begins, part.count, total, part.moment)


def _index_of(parts: Sequence[_Stretch]) -> ProfileIndex:
    before = np.cumsum([0, *(len(part) for part in parts)])
    starts = [part.begins + begin for part, begin in zip(parts, before.tolist(), strict=False)]
    edges = np.append(np.concatenate(starts), before[-1]).astype(np.uint32)
    return ProfileIndex.of(np.concatenate([part.profiles for part in parts]), edges)


def _narrowed_columns(
    parts: Sequence[_Stretch], index: ProfileIndex | None
) -> tuple[_Counts | RareCounts | None, _Sums | None, F64 | None]:
    count, total, moment = _columns(parts)
    return (
        None if count is None else _narrowed_counts(count, index),
        None if total is None else _narrowed(total),
        moment if moment is not None and moment.any() else None,
    )


def _narrowed_counts(count: U32, index: ProfileIndex | None) -> _Counts | RareCounts | None:
    """None when each is 1, apart when few are not, else in the narrowest type."""
    rows = np.flatnonzero(count != 1)
    if not len(rows):
        return None
    if len(rows) * _RARE_SHARE > len(count):
        return _narrowed(count)
    profile = None if index is None else index.at(rows)
    return RareCounts(len(count), rows.astype(np.uint32), _narrowed(count.take(rows)), profile)


def _unit_sums(count: U32 | None, length: int) -> I64:
    counts = np.ones(length, dtype=np.int64) if count is None else count.astype(np.int64)
    return counts * WEIGHT_SCALE


def _narrowed(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The column in the narrowest type that holds it."""
    types: tuple[Any, ...] = (np.uint8, np.uint16) if column.dtype == np.uint32 else (np.int32,)
    for narrow in types:
        limits = np.iinfo(narrow)
        if not len(column) or (limits.min <= column.min() and column.max() <= limits.max):
            return column.astype(narrow)
    return column


def _taken(column: _Column | None, rows: I64 | None) -> _Column | None:
    return column if column is None or rows is None else column[rows]  # type: ignore[return-value]

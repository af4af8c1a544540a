"""What a window held at the same hour of earlier days, by item: what relative trending compares with.

The earlier windows lie whole periods before the current one, a period being a day, or as many days as the
window lasts. Only the cells of their hours are read. A scope's past begins after the oldest of these windows
that has any event: it may hold only a part of what happened in it, so it counts as evidence of a past and no
more. Days whose hours are merged have no hour of the day, and end the past as well.

What was read is kept: a late event has its one window read again, the turn of the hour all of them. A past of
many cells is read a part at each query, the newest windows first, so that no query waits for all of it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from queryd.hot.arrays import F64, I32, I64, U32, grown
from queryd.hot.cube import BucketRange
from queryd.hot.fields import ABSENT_TIME
from queryd.ranking.relative import WINDOWS_MIN, Prior, fit_prior
from schemas.durations import DAY_MS, HOUR_MS, MINUTE_MS, WINDOWS

if TYPE_CHECKING:  # these read the columns, which hold what is kept here
    from queryd.hot.bucket_reads import BucketReads, Scope

DAYS_MAX: Final = 28
"""Whole weeks, so that each day of the week weighs the same; and with the window inside the hot hours."""
WINDOWS_WITH_PAST: Final = ("1h", "24h", "7d")
"""Of 30d not one fits into the past that is compared with."""
BYTES_MAX: Final = 256 << 20
CELLS_AT_ONCE: Final = 500_000
"""Cells that one query reads of a past, some 15 ms; one window at least, and four times as many at first."""
_KEPT_MAX: Final = 64
_FIRST_TIMES: Final = 4
_HOURS_IN_DAY: Final = 24
_DENSE_SHARE: Final = 4
_STRETCH: Final = 65_536

_Part: TypeAlias = tuple[U32, npt.NDArray[np.integer] | None]  # items, and counts (None: one for each)


@dataclass(slots=True)
class PastSums:
    """What the earlier windows held.

    ``windows`` are those that are compared with, ``unread`` those that later queries will read. ``total``,
    ``squares`` f64[items]: Σc and Σc² over them by item; ``oldest`` i32[items]: how many periods ago an item
    had its first event in one of them, 0 in none. Valid until the next read.
    """

    windows: int
    unread: int
    total: F64
    squares: F64
    oldest: I32
    lived: I32
    prior: Prior

    def windows_of(self, rows: U32) -> I64:
        """How many earlier windows lie in the past of each of the items ``rows`` u32[n], i64[n].

        An item's past begins with its record's created_at, or with its first event in one of the windows if
        that was earlier or nothing else is known.
        """
        found = np.maximum(self.lived[rows], self.oldest[rows])
        return np.minimum(found, self.windows).astype(np.int64)


@dataclass(frozen=True, slots=True)
class _Place:
    """The hours of the current window; ``passed``: what part of the last one has, None if it is whole."""

    first: int
    last: int
    passed: float | None

    @property
    def period_hours(self) -> int:
        return max(_HOURS_IN_DAY, self.last - self.first + 1)

    @property
    def periods(self) -> int:
        """Earlier windows that are compared with at most."""
        return DAYS_MAX * _HOURS_IN_DAY // self.period_hours

    def earlier(self, periods: int) -> BucketRange:
        shift = periods * self.period_hours
        return BucketRange(False, self.first - shift, self.last - shift)


@dataclass(frozen=True, slots=True)
class _Window:
    """Events of ``items`` u32[n] in one earlier window, f64[n]; ``last`` those of its last hour, left out of
    ``counts``, where that hour is taken in part."""

    items: U32
    counts: F64
    last: F64 | None
    cells: int

    @property
    def nbytes(self) -> int:
        columns = (self.items, self.counts, self.last)
        return sum(int(column.nbytes) for column in columns if column is not None)


@dataclass(slots=True)
class _Kept:
    """Earlier windows by periods ago (None: its hours are merged), and sums over the ``whole`` newest.

    ``moments``: Σa and Σa²; where the last hour is taken in part also Σb, Σab and Σb², b being its events, so
    that (a + passed·b) and its square follow without reading it again.
    """

    generation: int
    version: int = 0
    windows: dict[int, _Window | None] = field(default_factory=dict)
    whole: int = 0
    items: int = 0
    moments: list[F64] = field(default_factory=list)
    oldest: I32 = field(default_factory=lambda: np.zeros(0, dtype=np.int32))
    lived: I32 = field(default_factory=lambda: np.zeros(0, dtype=np.int32))
    records: tuple[int, int] = (-1, -1)
    answer: tuple[float | None, PastSums] | None = None

    @property
    def nbytes(self) -> int:
        dense = sum(column.nbytes for column in self.moments) + self.oldest.nbytes + self.lived.nbytes
        return dense + sum(window.nbytes for window in self.windows.values() if window is not None)

    def window(self, ago: int) -> _Window:
        window = self.windows[ago]
        assert window is not None, "only windows that could be read are summed"
        return window


class HistoryCache:
    """What was read of the past, for all requests.

    Args:
        bytes_max: bound on what is kept; what was not used for longest goes first.
        cells_at_once: see ``CELLS_AT_ONCE``.
    """

    def __init__(self, bytes_max: int = BYTES_MAX, cells_at_once: int = CELLS_AT_ONCE) -> None:
        self._kept: OrderedDict[object, _Kept] = OrderedDict()
        self._bytes_max = bytes_max
        self._cells_at_once = cells_at_once

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept."""
        return sum(kept.nbytes for kept in self._kept.values())

    def clear(self) -> None:
        """Forget all of it."""
        self._kept.clear()

    def read(self, buckets: BucketReads, signal: int, window: str, scope: Scope) -> PastSums:
        """The earlier windows of ``window`` at the time of ``buckets``; one of ``WINDOWS_WITH_PAST``."""
        place = _place(buckets, window, scope)
        key = (signal, window, scope.cohort, place.first, place.last, place.passed is None)
        cube = buckets.cube(scope)
        kept = self._kept.pop(key, None)
        if kept is None or kept.generation != cube.generation:
            kept = _Kept(cube.generation)
        self._kept[key] = kept
        reader = _Reader(buckets, signal, scope, place, kept)
        changed = reader.refresh() | reader.read_on(self._cells_at_once)
        kept.version = cube.version
        answer = reader.answer(changed)
        self._evict()
        return answer

    def _evict(self) -> None:
        size = self.nbytes
        while len(self._kept) > 1 and (size > self._bytes_max or len(self._kept) > _KEPT_MAX):
            _, oldest = self._kept.popitem(last=False)
            size -= oldest.nbytes


class _Reader:
    """One reading of one past."""

    def __init__(self, buckets: BucketReads, signal: int, scope: Scope, place: _Place, kept: _Kept) -> None:
        self._buckets = buckets
        self._signal = signal
        self._scope = scope
        self._place = place
        self._kept = kept
        self._widen(max(len(buckets.hot.items), buckets.cube(scope).items))

    def refresh(self) -> bool:
        """Read again the windows that late events came for; whether there were any."""
        kept, cube = self._kept, self._buckets.cube(self._scope)
        stale = [
            ago
            for ago in kept.windows
            if cube.last_change(self._signal, self._place.earlier(ago)) > kept.version
        ]
        for ago in stale:
            before, after = kept.windows[ago], self._window(ago)
            kept.windows[ago] = after
            if ago <= kept.whole and before is not None and after is not None:
                self._exchange(ago, before, after)
        if stale:
            self._settle()
        return bool(stale)

    def read_on(self, cells_max: int) -> bool:
        """Read further windows, newest first; whether any was missing."""
        kept, missing = self._kept, self._missing()
        cells, first = 0, not kept.windows
        for ago in missing:
            needed = first and ago <= WINDOWS_MIN + 1  # without these there is nothing to compare with
            if ago != missing[0] and cells >= cells_max * (_FIRST_TIMES if needed else 1):
                break
            window = kept.windows[ago] = self._window(ago)
            if window is None:
                break
            cells += window.cells
        if missing:
            self._settle()
        return bool(missing)

    def answer(self, changed: bool) -> PastSums:
        """The sums as of the part of the last hour that has passed."""
        kept, passed = self._kept, self._place.passed
        items = self._buckets.hot.items
        records = (items.version, kept.items)
        if records != kept.records:
            kept.lived, kept.records = self._lived(), records
            changed = True
        if kept.answer is None or changed or kept.answer[0] != passed:
            total, squares = kept.moments[:2]
            if passed is not None:
                last, products, last_squares = kept.moments[2:]
                total = total + passed * last
                squares = squares + 2 * passed * products + passed * passed * last_squares
            past = PastSums(
                kept.whole, len(self._missing()), total, squares, kept.oldest, kept.lived, Prior(0.0, 0.0)
            )
            held = np.flatnonzero(kept.oldest).astype(np.uint32)
            past.prior = fit_prior(total[held], past.windows_of(held).astype(np.float64))
            kept.answer = passed, past
        return kept.answer[1]

    def _missing(self) -> list[int]:
        """Windows that were not read; none beyond one whose hours are merged."""
        if any(window is None for window in self._kept.windows.values()):
            return []
        # One more than are compared with: events in it say that the past reaches back so far.
        return [ago for ago in range(1, self._place.periods + 2) if ago not in self._kept.windows]

    def _lived(self) -> I32:
        """How many periods before the current window each item was created, 0 where that is not known."""
        place = self._place
        lived = np.zeros(self._kept.items, dtype=np.int32)
        created = self._buckets.hot.items.created_column()
        periods = (place.first * HOUR_MS - created) // (place.period_hours * HOUR_MS)
        lived[: len(created)] = np.where(created == ABSENT_TIME, 0, np.clip(periods, 0, place.periods))
        return lived

    def _window(self, ago: int) -> _Window | None:
        wanted = self._place.earlier(ago)
        if self._place.passed is None:
            parts = self._parts(wanted)
            if parts is None:
                return None
            items, (counts,) = _counted([parts], self._kept.items)
            return _Window(items, counts, None, _cells_of(parts))
        before = self._parts(BucketRange(False, wanted.low, wanted.high - 1))
        last = self._parts(BucketRange(False, wanted.high, wanted.high))
        if before is None or last is None:
            return None
        items, (counts, at_end) = _counted([before, last], self._kept.items)
        return _Window(items, counts, at_end, _cells_of(before) + _cells_of(last))

    def _parts(self, wanted: BucketRange) -> list[_Part] | None:
        """Items and counts of the cells of a range; None if it holds a day whose hours are merged."""
        buckets, cube = self._buckets, self._buckets.cube(self._scope)
        if cube.is_hot(wanted):
            gathered = cube.gathered(self._signal, wanted, buckets.cohort_mask(self._scope))
            ones: list[_Part] = [(items, None) for items in gathered.ones]
            weighted: list[_Part] = [(items, counts) for items, counts, _ in gathered.weighted]
            return [*ones, *gathered.counted, *weighted]
        pieces = buckets.pieces(self._signal, wanted, self._scope, None)
        if any(piece.length_ms >= DAY_MS for piece in pieces):
            buckets.used_days = True
            return None
        return [(piece.cells.item, piece.cells.count) for piece in pieces]

    def _settle(self) -> None:
        """Sum the windows that lie wholly in the past that is known."""
        kept = self._kept
        read = 0
        while kept.windows.get(read + 1) is not None:
            read += 1
        whole = max((ago - 1 for ago in range(1, read + 1) if len(kept.window(ago).items)), default=0)
        if whole < kept.whole:  # hours were merged meanwhile
            kept.whole = 0
            kept.oldest[:] = 0
            for column in kept.moments:
                column[:] = 0
        added = range(kept.whole + 1, whole + 1)
        kept.whole = whole
        if not added:
            return
        windows = [kept.window(ago) for ago in added]
        items = np.concatenate([window.items for window in windows])
        columns = [_moments_of(window) for window in windows]
        for place, moment in enumerate(kept.moments):
            values = np.concatenate([column[place] for column in columns])
            moment += np.bincount(items, values, kept.items)
        for ago, window in zip(added, windows, strict=True):
            kept.oldest[window.items] = ago

    def _exchange(self, ago: int, before: _Window, after: _Window) -> None:
        """Put ``after`` in the place of ``before`` in the sums: it has the same events and more."""
        had = np.zeros((len(self._kept.moments), len(after.items)), dtype=np.float64)
        had[:, np.searchsorted(after.items, before.items)] = _moments_of(before)
        added = np.stack(_moments_of(after)) - had
        changed = np.flatnonzero(added.any(axis=0))
        items = after.items[changed]
        for moment, values in zip(self._kept.moments, added, strict=True):
            moment[items] += values[changed]
        self._kept.oldest[items] = np.maximum(self._kept.oldest[items], ago)

    def _widen(self, items: int) -> None:
        kept = self._kept
        if not kept.moments:
            kept.moments = [np.zeros(0, dtype=np.float64)] * (2 if self._place.passed is None else 5)
        if items > kept.items:
            kept.moments = [grown(column, items)[:items] for column in kept.moments]
            kept.oldest = grown(kept.oldest, items)[:items]
            kept.items = items


def _place(buckets: BucketReads, window: str, scope: Scope) -> _Place:
    """Where the current window lies in whole hours.

    The sixty minutes of 1h lie in two hours of the clock: the one that holds their middle is the hour of the
    day that they are compared with.
    """
    hours = WINDOWS[window].duration_ms // HOUR_MS
    at_hour = buckets.at_ms // HOUR_MS
    if hours == 1:
        declared = buckets.range_of(window)
        by_minute = declared.minutes and buckets.cube(scope).is_hot(declared)
        middle = (buckets.at_ms - HOUR_MS // 2) // HOUR_MS if by_minute else at_hour
        return _Place(middle, middle, None)
    minutes = buckets.at_ms % HOUR_MS // MINUTE_MS + 1  # the current one included, as in every window
    passed = None if buckets.in_past else minutes * MINUTE_MS / HOUR_MS
    return _Place(at_hour - hours + 1, at_hour, passed)


def _moments_of(window: _Window) -> list[F64]:
    """What one window adds to the moments of its items, each f64[n]."""
    counts, last = window.counts, window.last
    columns = [counts, counts * counts]
    return columns if last is None else [*columns, last, counts * last, last * last]


def _counted(groups: Sequence[Sequence[_Part]], items: int) -> tuple[U32, list[F64]]:
    """Items u32[n] of all groups, ascending, and their events in each f64[n].

    Takes a pass over all items, or a sort where there are few cells.
    """
    if sum(map(_cells_of, groups)) * _DENSE_SHARE > items:
        dense = [_scattered(parts, items) for parts in groups]
        rows = np.flatnonzero(np.sum(dense, axis=0))
        return rows.astype(np.uint32), [column[rows].astype(np.float64) for column in dense]
    columns = [_joined(parts) for parts in groups]
    found = np.concatenate([found for found, _ in columns])
    held, place = np.unique(found, return_inverse=True)
    edges = np.cumsum([0, *(len(found) for found, _ in columns)]).tolist()
    return held, [
        np.bincount(place[low:high], counts, len(held)).astype(np.float64)
        for (low, high), (_, counts) in zip(pairwise(edges), columns, strict=True)
    ]


def _scattered(parts: Sequence[_Part], items: int) -> I64:
    """Events of every item, i64[items]. In stretches that stay in the processor's cache."""
    dense = np.zeros(items, dtype=np.int64)
    ones = np.ones(_STRETCH, dtype=np.int64)
    for found, counts in parts:
        for start in range(0, len(found), _STRETCH):
            part = found[start : start + _STRETCH]
            steps = ones[: len(part)] if counts is None else counts[start : start + _STRETCH].astype(np.int64)
            np.add.at(dense, part, steps)
    return dense


def _joined(parts: Sequence[_Part]) -> tuple[U32, npt.NDArray[np.integer] | None]:
    """Items and counts of all parts; counts None when every cell is one event."""
    if not parts:
        return np.zeros(0, dtype=np.uint32), None
    items = np.concatenate([items for items, _ in parts])
    if all(counts is None for _, counts in parts):
        return items, None
    ones = [np.ones(len(items), dtype=np.uint32) if counts is None else counts for items, counts in parts]
    return items, np.concatenate(ones)


def _cells_of(parts: Sequence[_Part]) -> int:
    return sum(len(items) for items, _ in parts)

"""What a window held at the same hour of earlier days, by item: what relative trending compares with.

The earlier windows lie whole periods before the current one, a period being a day, or as many days as the
window lasts. Only the cells of their hours are read. A scope's past begins after the oldest of these windows
that has any event: it may hold only a part of what happened in it, so it counts as evidence of a past and no
more. Days whose hours are merged have no hour of the day, and end the past as well.

What was read is kept with the cube's version: a late event has its one window read again, the turn of the
hour all of them.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from queryd.hot.arrays import F64, I64, U32, lengthened
from queryd.hot.cube import BucketRange, CountCube, Piece
from schemas.durations import DAY_MS, HOUR_MS, MINUTE_MS, WINDOWS

if TYPE_CHECKING:  # these read the columns, which hold what is kept here
    from queryd.hot.bucket_reads import BucketReads, Scope

DAYS_MAX: Final = 28
"""Whole weeks, so that each day of the week weighs the same; and with the window inside the hot hours."""
WINDOWS_WITH_PAST: Final = ("1h", "24h", "7d")
"""Of 30d not one fits into the past that is compared with."""
BYTES_MAX: Final = 128 << 20
_HOURS_IN_DAY: Final = 24
_DENSE_SHARE: Final = 4


@dataclass(frozen=True, slots=True)
class PastSums:
    """What ``windows`` earlier windows held.

    ``total``, ``squares`` f64[items]: Σc and Σc² by item. ``oldest`` i64[items]: how many periods ago an item
    had its first event in one of them, 0 in none; ``held`` i64[n] are the items that had one. ``begin_ms``,
    ``period_ms``: where the current window begins, and how far apart the windows are.
    """

    windows: int
    total: F64
    squares: F64
    oldest: I64
    held: I64
    begin_ms: int
    period_ms: int

    def windows_of(self, rows: U32 | I64, created_ms: I64, unknown: int) -> I64:
        """How many earlier windows lie in the past of each of the items ``rows`` u32[n], i64[n].

        An item's past begins with its record's created_at i64[n] (``unknown``: not given), or with its first
        event in one of the windows if that was earlier.
        """
        lived = np.where(created_ms == unknown, 0, (self.begin_ms - created_ms) // self.period_ms)
        found: I64 = np.minimum(np.maximum(lived, self.oldest[rows]), self.windows)
        return np.maximum(found, 0)


@dataclass(frozen=True, slots=True)
class _Place:
    """The hours of the current window, and what part of its last hour has passed."""

    first: int
    last: int
    passed: float

    def earlier(self, periods: int, period_hours: int) -> BucketRange:
        shift = periods * period_hours
        return BucketRange(False, self.first - shift, self.last - shift)


@dataclass(frozen=True, slots=True)
class _Window:
    """Of one earlier window: events of ``items`` u32[n] (ascending) before its last hour, and in it."""

    items: U32
    before: I64
    last: I64

    @property
    def nbytes(self) -> int:
        """Bytes of its columns."""
        return self.items.nbytes + self.before.nbytes + self.last.nbytes


@dataclass(slots=True)
class _Kept:
    """Earlier windows by periods ago, and over those that count: Σa, Σb, Σa², Σab, Σb², a before the last
    hour and b in it, so that the sums of any part of that hour follow without reading it again."""

    version: int
    generation: int
    windows: dict[int, _Window] = field(default_factory=dict)
    whole: int = 0
    moments: list[I64] = field(default_factory=list)
    oldest: I64 = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    answer: tuple[float, PastSums] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of everything in it but the last answer, which repeats it."""
        dense = sum(column.nbytes for column in (*self.moments, self.oldest))
        return dense + sum(window.nbytes for window in self.windows.values())


class HistoryCache:
    """What was read of the past, for all requests.

    Args:
        bytes_max: bound on what is kept; what was not used for longest goes first.
    """

    def __init__(self, bytes_max: int = BYTES_MAX) -> None:
        self._kept: OrderedDict[object, _Kept] = OrderedDict()
        self._bytes_max = bytes_max

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept."""
        return sum(kept.nbytes for kept in self._kept.values())

    def read(self, buckets: BucketReads, signal: int, window: str, scope: Scope) -> PastSums:
        """The earlier windows of ``window`` at the time of ``buckets``; one of ``WINDOWS_WITH_PAST``."""
        place = _place(buckets, window, scope)
        period_hours = max(_HOURS_IN_DAY, place.last - place.first + 1)
        periods = DAYS_MAX * _HOURS_IN_DAY // period_hours
        key = (signal, window, scope.cohort, place.first, place.last)
        kept = self._kept.pop(key, None)
        cube = buckets.cube(scope)
        ranges = {ago: place.earlier(ago, period_hours) for ago in range(1, periods + 2)}
        if kept is None or kept.generation != cube.generation:
            kept = _Kept(0, cube.generation)
            _read(kept, ranges, buckets, signal, scope)
            _sum_up(kept, cube)
        else:
            _follow(kept, ranges, buckets, signal, scope)
        kept.version = cube.version
        self._kept[key] = kept
        self._evict()
        items = max(len(buckets.hot.items), cube.items)
        if kept.answer is None or kept.answer[0] != place.passed or len(kept.answer[1].total) < items:
            begin_ms, period_ms = place.first * HOUR_MS, period_hours * HOUR_MS
            kept.answer = place.passed, _answer(kept, place.passed, items, begin_ms, period_ms)
        return kept.answer[1]

    def _evict(self) -> None:
        size = self.nbytes
        while size > self._bytes_max and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            size -= oldest.nbytes


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
        return _Place(middle, middle, 1.0)
    minutes = buckets.at_ms % HOUR_MS // MINUTE_MS + 1  # the current one included, as in every window
    passed = 1.0 if buckets.in_past else minutes * MINUTE_MS / HOUR_MS
    return _Place(at_hour - hours + 1, at_hour, passed)


def _read(
    kept: _Kept, ranges: dict[int, BucketRange], buckets: BucketReads, signal: int, scope: Scope
) -> None:
    """Read windows; one that holds a merged day is left out, and ends the past."""
    for ago, wanted in ranges.items():
        pieces = buckets.pieces(signal, wanted, scope, None)
        kept.windows.pop(ago, None)
        if all(piece.length_ms < DAY_MS for piece in pieces):
            kept.windows[ago] = _counted(pieces, wanted, buckets.cube(scope).items)


def _follow(
    kept: _Kept, ranges: dict[int, BucketRange], buckets: BucketReads, signal: int, scope: Scope
) -> None:
    """Read again what late events came for."""
    cube = buckets.cube(scope)
    stale = {ago: wanted for ago, wanted in ranges.items() if cube.last_change(signal, wanted) > kept.version}
    if not stale:
        return
    kept.answer = None
    before = {ago: kept.windows.get(ago) for ago in stale}
    _read(kept, stale, buckets, signal, scope)
    if _whole_windows(kept) != kept.whole or any(
        (before[ago] is None) != (ago not in kept.windows) for ago in stale
    ):
        _sum_up(kept, cube)
        return
    _lengthen(kept, cube.items)
    for ago in stale:
        had = before[ago]
        if had is not None and ago <= kept.whole:
            _add(kept, ago, had, -1)
            _add(kept, ago, kept.windows[ago], 1)


def _whole_windows(kept: _Kept) -> int:
    """How many earlier windows lie wholly in the past that is known, without a gap."""
    read = 0
    while read + 1 in kept.windows:
        read += 1
    return max((ago - 1 for ago in range(1, read + 1) if len(kept.windows[ago].items)), default=0)


def _sum_up(kept: _Kept, cube: CountCube) -> None:
    kept.whole = _whole_windows(kept)
    kept.moments = [np.zeros(cube.items, dtype=np.int64) for _ in range(5)]
    kept.oldest = np.zeros(cube.items, dtype=np.int64)
    for ago in range(1, kept.whole + 1):
        _add(kept, ago, kept.windows[ago], 1)


def _lengthen(kept: _Kept, items: int) -> None:
    kept.moments = [lengthened(column, items) for column in kept.moments]
    kept.oldest = lengthened(kept.oldest, items)


def _add(kept: _Kept, ago: int, window: _Window, sign: int) -> None:
    items, before, last = window.items, window.before, window.last
    columns = (before, last, before * before, before * last, last * last)
    for moment, values in zip(kept.moments, columns, strict=True):
        moment[items] += sign * values
    kept.oldest[items] = np.maximum(kept.oldest[items], ago)  # events are never taken back


def _answer(kept: _Kept, passed: float, items: int, begin_ms: int, period_ms: int) -> PastSums:
    """The sums with the passed part of each last hour: c = a + passed·b."""
    first, last, squares, products, last_squares = (lengthened(column, items) for column in kept.moments)
    total = first + passed * last
    square_sum = squares + 2 * passed * products + passed * passed * last_squares
    oldest = lengthened(kept.oldest, items).copy()
    return PastSums(kept.whole, total, square_sum, oldest, np.flatnonzero(oldest), begin_ms, period_ms)


def _counted(pieces: list[Piece], wanted: BucketRange, items: int) -> _Window:
    """Events by item; a sort of the cells, or where there are many of them one pass over all items."""
    at_end = [piece.cells for piece in pieces if piece.start_ms // HOUR_MS == wanted.high]
    others = [piece.cells for piece in pieces if piece.start_ms // HOUR_MS < wanted.high]
    columns = [
        (np.concatenate([cells.item for cells in part]), np.concatenate([cells.count for cells in part]))
        if part
        else (np.zeros(0, dtype=np.uint32), np.zeros(0, dtype=np.uint32))
        for part in (others, at_end)
    ]
    if sum(len(item) for item, _ in columns) * _DENSE_SHARE > items:
        before, last = (np.bincount(item, count, items).astype(np.int64) for item, count in columns)
        held = np.flatnonzero(before + last)
        return _Window(held.astype(np.uint32), before[held], last[held])
    held, place = np.unique(np.concatenate([item for item, _ in columns]), return_inverse=True)
    cut = len(columns[0][0])
    before = np.bincount(place[:cut], columns[0][1], len(held)).astype(np.int64)
    last = np.bincount(place[cut:], columns[1][1], len(held)).astype(np.int64)
    return _Window(held.astype(np.uint32), before, last)

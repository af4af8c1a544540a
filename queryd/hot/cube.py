"""Counts in any window, of the whole population or of any cohort, exact: one cube for each scope.

A cube keeps the cells of one view (by signal, bucket, item and, for cohorts, profile). What a query reads is
a *standing sum*: counts[items] over a range of buckets for a mask of profiles. It is summed once, then kept
by adding what the change feed brought and subtracting the buckets that expired, so a cohort asked twice
costs the second time what the whole population costs. The cube is bounded: cells by the hot horizon (older
hours merge into one archive that only all_time reads), standing sums by bytes, the log of changes by cells.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from queryd.hot.arrays import F64, I64, Mask, lengthened
from queryd.hot.buckets import Bucket, Cells
from schemas.durations import DAY_MS, HOUR_MS, MINUTE_MS

_MINUTES_IN_HOUR = 60
_LOG_CELLS_MAX = 1_000_000
_LOG_ENTRIES_MAX = 8_192
_FOREVER = 1 << 62
_REBASE_MS = 60 * DAY_MS


class NotHot(Exception):  # noqa: N818 - a signal to the caller, which reads the cold tier instead
    """The range begins before the hot horizon: its hours are merged in the archive."""


@dataclass(frozen=True, slots=True)
class BucketRange:
    """Buckets ``low`` to ``high``, both included, of ``unit`` minute or hour."""

    minutes: bool
    low: int
    high: int

    def shifted(self, windows: int) -> BucketRange:
        """The range as long as this one, ``windows`` lengths later (negative: earlier)."""
        length = (self.high - self.low + 1) * windows
        return BucketRange(self.minutes, self.low + length, self.high + length)

    @property
    def unit_ms(self) -> int:
        """Length of one bucket."""
        return MINUTE_MS if self.minutes else HOUR_MS


ALL_TIME = BucketRange(False, -_FOREVER, _FOREVER)


def since(hour: int) -> BucketRange:
    """Every hour from ``hour`` on."""
    return BucketRange(False, hour, _FOREVER)


@dataclass(frozen=True, slots=True)
class Piece:
    """Cells of one signal that fell into the bucket of ``length_ms`` that begins at ``start_ms``."""

    start_ms: int
    length_ms: int
    cells: Cells


@dataclass(frozen=True, slots=True)
class _Change:
    sequence: int
    minute: int | None
    hour: int
    cells: Cells


@dataclass(slots=True)
class _SignalCells:
    hours: dict[int, Bucket] = field(default_factory=dict)
    minutes: dict[int, Bucket] = field(default_factory=dict)
    archive: Bucket = field(default_factory=Bucket)
    log: deque[_Change] = field(default_factory=deque)
    log_cells: int = 0
    log_begins: int = 0  # every change with a sequence >= this is in the log
    changed: dict[int, int] = field(default_factory=dict)  # hour -> sequence of its last change
    changed_old: int = 0  # the same for all archived hours together


@dataclass(slots=True)
class StandingSum:
    """counts i64[items], sums i64[items] (micro-units) of one signal over ``range`` for one mask.

    ``moments`` f64[items] is Σ weight · (ts − base_ms) for a signal that decays linearly, None for others.
    """

    range: BucketRange
    counts: I64
    sums: I64
    sequence: int
    generation: int
    moments: F64 | None = None
    base_ms: int = 0


class CountCube:
    """The cells of all signals at one scope, and the standing sums over them.

    Args:
        bytes_max: bound on the memory of standing sums; the least recently used go first.
    """

    def __init__(self, bytes_max: int = 256 << 20) -> None:
        self._signals: dict[int, _SignalCells] = {}
        self._standing: OrderedDict[tuple[int, str, int, object], StandingSum] = OrderedDict()
        self._bytes_max = bytes_max
        self._sequence = 0
        self._generation = 0
        self._horizon_hour = -_FOREVER
        self._horizon_minute = -_FOREVER
        self.items = 0

    @property
    def version(self) -> int:
        """Changes whenever any count may have changed."""
        return self._sequence

    @property
    def generation(self) -> int:
        """Changes when cells of items were dropped."""
        return self._generation

    def last_change(self, signal: int, wanted: BucketRange) -> int:
        """``version`` of the last change of any hour of a range; hours before the horizon share one."""
        store = self._signals.get(signal)
        if store is None:
            return 0
        hours = range(max(wanted.low, self._horizon_hour), wanted.high + 1)
        last = max((store.changed.get(hour, 0) for hour in hours), default=0)
        return last if wanted.low >= self._horizon_hour else max(last, store.changed_old)

    @property
    def cells(self) -> int:
        """Cells held, over all signals and buckets (an hour's minute cells are counted beside it)."""
        return sum(
            len(bucket)
            for signal in self._signals.values()
            for bucket in (*signal.hours.values(), *signal.minutes.values(), signal.archive)
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all cells, of the log of changes, and of the standing sums."""
        stored = sum(
            bucket.nbytes
            for signal in self._signals.values()
            for bucket in (*signal.hours.values(), *signal.minutes.values(), signal.archive)
        )
        logged = sum(change.cells.nbytes for signal in self._signals.values() for change in signal.log)
        return stored + logged + sum(map(_bytes_of, self._standing.values()))

    def add(self, signal: int, cells: Cells, *, minute: int | None, hour: int, loading: bool = False) -> None:
        """Count ``cells`` in an hour, and in a minute of it when the event was recent enough to have one.

        ``loading`` skips the log of changes: for the first scan, before anything is standing.
        """
        if not len(cells):
            return
        store = self._signals.setdefault(signal, _SignalCells())
        self.items = max(self.items, int(cells.item.max()) + 1)
        if minute is not None and minute >= self._horizon_minute:
            store.minutes.setdefault(minute, Bucket()).add(cells)
        self._sequence += 1
        if hour < self._horizon_hour:
            store.archive.add(cells)
            store.changed_old = self._sequence
        else:
            store.hours.setdefault(hour, Bucket()).add(cells)
            store.changed[hour] = self._sequence
        if loading:
            store.log_begins = self._sequence
        else:
            self._record(store, _Change(self._sequence, minute, hour, cells))

    def add_old(self, signal: int, cells: Cells, *, loading: bool = False) -> None:
        """Count ``cells`` of any hours before the horizon at once: only all_time reads them here."""
        if not len(cells):
            return
        store = self._signals.setdefault(signal, _SignalCells())
        self.items = max(self.items, int(cells.item.max()) + 1)
        untimed = Cells(cells.item, cells.profile, cells.count, cells.sum)
        store.archive.add(untimed)
        self._sequence += 1
        store.changed_old = self._sequence
        if loading:
            store.log_begins = self._sequence
        else:
            self._record(store, _Change(self._sequence, None, ALL_TIME.low, untimed))

    @property
    def horizon_hour(self) -> int:
        """Hours before this one are merged."""
        return self._horizon_hour

    @property
    def horizon_minute(self) -> int:
        """Minutes before this one are forgotten; their hours have them."""
        return self._horizon_minute

    def _record(self, store: _SignalCells, change: _Change) -> None:
        store.log.append(change)
        store.log_cells += len(change.cells)
        while store.log_cells > _LOG_CELLS_MAX or len(store.log) > _LOG_ENTRIES_MAX:
            forgotten = store.log.popleft()
            store.log_cells -= len(forgotten.cells)
            store.log_begins = forgotten.sequence

    def standing(
        self,
        signal: int,
        wanted: BucketRange,
        mask: Mask | None = None,
        key: object = None,
        label: str = "",
        *,
        timed: bool = False,
    ) -> StandingSum:
        """The sums of ``signal`` over ``wanted`` for the profiles that ``mask`` allows.

        Args:
            mask: bool[profiles], None for everybody.
            key: identifies the mask (the cohort's canonical text); sums of one key are kept between calls.
            label: the window's name; with ``key`` it identifies the standing sum as ``wanted`` moves on.
            timed: keep moments as well; always the same for one label.

        Raises:
            NotHot: ``wanted`` begins before the hot horizon and is not all time.
        """
        if not self.is_hot(wanted):
            raise NotHot
        store = self._signals.setdefault(signal, _SignalCells())
        identity = (signal, label, int(wanted.minutes), key)
        standing = self._standing.pop(identity, None)
        if standing is None or not self._can_follow(standing, store, wanted):
            standing = self._summed(store, wanted, mask, timed)
        else:
            self._follow(standing, store, wanted, mask)
        self._standing[identity] = standing
        self._evict()
        return standing

    def frozen(self, wanted: BucketRange, parts: Sequence[Cells]) -> StandingSum:
        """Sums of cells that were read for the reply at hand alone."""
        for cells in parts:
            self.items = max(self.items, int(cells.item.max()) + 1 if len(cells) else 0)
        nothing = np.zeros(self.items, dtype=np.int64)
        standing = StandingSum(wanted, nothing, nothing.copy(), self._sequence, self._generation)
        for cells in parts:
            _scatter(standing, cells, 1, 0)
        return standing

    def pieces(self, signal: int, wanted: BucketRange, mask: Mask | None = None) -> list[Piece]:
        """The cells of a hot range by bucket.

        Raises:
            NotHot: ``wanted`` begins before the hot horizon.
        """
        if not self.is_hot(wanted):
            raise NotHot
        store = self._signals.get(signal)
        if store is None:
            return []
        return [
            Piece(number * wanted.unit_ms, wanted.unit_ms, cells)
            for number, bucket in _numbered(store, wanted)
            for cells in bucket.select(mask)
        ]

    def is_hot(self, wanted: BucketRange) -> bool:
        """Whether every cell of the range is still apart in memory."""
        if wanted.low == ALL_TIME.low:
            return wanted.high == ALL_TIME.high
        return wanted.low >= (self._horizon_minute if wanted.minutes else self._horizon_hour)

    def expire(self, now_ms: int, hot_hours: int) -> None:
        """Move hours older than ``hot_hours`` into the archive, and forget minutes older than two windows."""
        horizon = now_ms // HOUR_MS - hot_hours
        minute_horizon = now_ms // MINUTE_MS - 3 * _MINUTES_IN_HOUR
        for store in self._signals.values():
            for hour in [hour for hour in store.hours if hour < horizon]:
                for cells in store.hours.pop(hour).select(None):
                    store.archive.add(Cells(cells.item, cells.profile, cells.count, cells.sum))
            for hour in [hour for hour in store.changed if hour < horizon]:
                store.changed_old = max(store.changed_old, store.changed.pop(hour))
            for minute in [minute for minute in store.minutes if minute < minute_horizon]:
                del store.minutes[minute]
        self._horizon_hour = max(self._horizon_hour, horizon)
        self._horizon_minute = max(self._horizon_minute, minute_horizon)

    def drop_items(self, dropped: Mask) -> None:
        """Forget every cell of the marked items (bool[items]): their partition is about to be read anew."""
        dropped = lengthened(dropped, self.items)
        for store in self._signals.values():
            for bucket in (*store.hours.values(), *store.minutes.values(), store.archive):
                bucket.drop_items(dropped)
            store.log.clear()
            store.log_cells = 0
        self._sequence += 1
        self._generation += 1

    def history(
        self, signal: int, items: Mask, wanted: BucketRange, mask: Mask | None = None
    ) -> tuple[int, int]:
        """(count, sum in micro-units) over ``wanted`` of the items marked in bool[items], from the cells."""
        count = total = 0
        store = self._signals.get(signal)
        if store is None:
            return 0, 0
        for _, bucket in _numbered(store, wanted):
            for cells in bucket.select(mask):
                rows = items[cells.item]
                count += int(cells.count[rows].sum())
                total += int(cells.sum[rows].sum())
        return count, total

    def _can_follow(self, standing: StandingSum, store: _SignalCells, wanted: BucketRange) -> bool:
        had = standing.range
        return (
            # Moments are floats: begun anew each month, what rounding leaves behind does not add up.
            (standing.moments is None or wanted.low * wanted.unit_ms - standing.base_ms < _REBASE_MS)
            and standing.generation == self._generation
            and self.is_hot(had)  # else what must be subtracted is in the archive
            and standing.sequence >= store.log_begins
            and had.low <= wanted.low <= had.high
            and had.high <= wanted.high
        )

    def _summed(
        self, store: _SignalCells, wanted: BucketRange, mask: Mask | None, timed: bool
    ) -> StandingSum:
        standing = StandingSum(
            wanted,
            np.zeros(self.items, dtype=np.int64),
            np.zeros(self.items, dtype=np.int64),
            self._sequence,
            self._generation,
            np.zeros(self.items, dtype=np.float64) if timed else None,
            _day_of(wanted.low * wanted.unit_ms),
        )
        for number, bucket in _numbered(store, wanted):
            for cells in bucket.select(mask):
                _scatter(standing, cells, 1, number * wanted.unit_ms)
        return standing

    def _follow(
        self, standing: StandingSum, store: _SignalCells, wanted: BucketRange, mask: Mask | None
    ) -> None:
        """Bring ``standing`` to now. Order matters: changes first, because what expires contains them."""
        standing.counts = lengthened(standing.counts, self.items)
        standing.sums = lengthened(standing.sums, self.items)
        if standing.moments is not None:
            standing.moments = lengthened(standing.moments, self.items)
        had = standing.range
        for change in _after(store.log, standing.sequence):
            bucket = change.minute if had.minutes else change.hour
            if bucket is not None and had.low <= bucket <= had.high:
                _scatter(standing, change.cells.allowed(mask), 1, bucket * had.unit_ms)
        for number, bucket_cells, sign in _moves(store, had, wanted):
            for piece in bucket_cells.select(mask):
                _scatter(standing, piece, sign, number * had.unit_ms)
        standing.range = wanted
        standing.sequence = self._sequence

    def _evict(self) -> None:
        size = sum(map(_bytes_of, self._standing.values()))
        while size > self._bytes_max and len(self._standing) > 1:
            _, oldest = self._standing.popitem(last=False)
            size -= _bytes_of(oldest)


def _after(log: deque[_Change], sequence: int) -> Iterator[_Change]:
    """Changes later than ``sequence``, found from the end: most readers are nearly up to date."""
    fresh: list[_Change] = []
    for change in reversed(log):
        if change.sequence <= sequence:
            break
        fresh.append(change)
    return reversed(fresh)


def _bytes_of(standing: StandingSum) -> int:
    return (2 if standing.moments is None else 3) * standing.counts.nbytes


def _day_of(ts_ms: int) -> int:
    return ts_ms // DAY_MS * DAY_MS


def _scatter(standing: StandingSum, cells: Cells, sign: int, start_ms: int) -> None:
    """Add cells of the bucket that begins at ``start_ms``."""
    if len(cells) * 4 > len(standing.counts):  # dense: one pass over all items is cheaper than scattered adds
        length = len(standing.counts)
        # Exact: float64 holds integers to 2^53, and one bucket's counts stay below that; sums may not.
        standing.counts += sign * np.bincount(cells.item, cells.count, length).astype(np.int64)
    else:
        np.add.at(standing.counts, cells.item, sign * cells.count.astype(np.int64))
    np.add.at(standing.sums, cells.item, sign * cells.sum)
    if standing.moments is not None:
        moments = cells.sum.astype(np.float64) * (_day_of(start_ms) - standing.base_ms)
        np.add.at(
            standing.moments, cells.item, sign * (moments if cells.moment is None else moments + cells.moment)
        )


def _numbered(store: _SignalCells, wanted: BucketRange) -> list[tuple[int, Bucket]]:
    """Buckets of a range with their numbers; all of them, the archive under 0, for all time."""
    held = store.minutes if wanted.minutes else store.hours
    if wanted.low == ALL_TIME.low:
        return [(0, store.archive), *held.items()]
    return [(number, bucket) for number, bucket in held.items() if wanted.low <= number <= wanted.high]


def _moves(store: _SignalCells, had: BucketRange, wanted: BucketRange) -> Iterator[tuple[int, Bucket, int]]:
    """Buckets that leave the range (−1) and that enter it (+1), with their numbers."""
    held = store.minutes if wanted.minutes else store.hours
    for number in range(had.low, wanted.low):
        if number in held:
            yield number, held[number], -1
    for number in range(had.high + 1, wanted.high + 1):
        if number in held:
            yield number, held[number], 1

"""Counts in any window, of the whole population or of any cohort, exact: one cube for each scope.

A cube keeps the cells of one view (by signal, bucket, item and, for cohorts, profile). What a query reads is
a *standing sum*: counts[items] over a range of buckets for a mask of profiles. It is summed once, then kept
by adding what the change feed brought and subtracting the buckets that expired, so a cohort asked twice
costs the second time what the whole population costs. The cube is bounded: cells by the hot horizon (older
hours merge into one archive that only all_time reads), standing sums by bytes, the log of changes by cells.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from queryd.hot.arrays import Mask, lengthened
from queryd.hot.buckets import Bucket
from queryd.hot.cells import Cells
from queryd.hot.profile_index import Selection
from queryd.hot.signal_cells import Piece as Piece
from queryd.hot.signal_cells import SignalCells
from queryd.hot.standing import Gathered
from queryd.hot.standing import StandingSum as StandingSum
from queryd.hot.windows import ALL_TIME as ALL_TIME
from queryd.hot.windows import FOREVER
from queryd.hot.windows import BucketRange as BucketRange
from queryd.hot.windows import since as since
from schemas.durations import DAY_MS, HOUR_MS, MINUTE_MS
from schemas.predicate import And, Predicate

_MINUTES_IN_HOUR = 60
_LOG_CELLS_MAX = 1_000_000
_LOG_ENTRIES_MAX = 8_192
_REBASE_MS = 60 * DAY_MS
_WIDE_CELLS_MIN = 500_000  # of fewer, half are summed within two or three milliseconds
_WIDE_PROFILES_MIN = 0.25
EVERY_PROFILE: Final[Predicate] = And(())
"""What every profile satisfies: the key of the sum of all cells of a range."""


class NotHot(Exception):  # noqa: N818 - a signal to the caller, which reads the cold tier instead
    """The range begins before the hot horizon: its hours are merged in the archive."""


@dataclass(frozen=True, slots=True)
class _Change:
    sequence: int
    minute: int | None
    hour: int
    cells: Cells


@dataclass(slots=True)
class _Signal:
    """The cells of a signal and the changes that standing sums have still to see."""

    cells: SignalCells = field(default_factory=SignalCells)
    log: deque[_Change] = field(default_factory=deque)
    log_cells: int = 0
    log_begins: int = 0  # every change with a sequence >= this is in the log
    changed: dict[int, int] = field(default_factory=dict)  # hour -> sequence of its last change
    changed_old: int = 0  # the same for all archived hours together


class CountCube:
    """The cells of all signals at one scope, and the standing sums over them.

    Args:
        bytes_max: bound on the memory of standing sums; the least recently used go first.
    """

    def __init__(self, bytes_max: int = 256 << 20) -> None:
        self._signals: dict[int, _Signal] = {}
        self._standing: OrderedDict[tuple[int, str, int, object], StandingSum] = OrderedDict()
        self._bytes_max = bytes_max
        self._sequence = 0
        self._generation = 0
        self._horizon_hour = -FOREVER
        self._horizon_minute = -FOREVER
        self._hour = -FOREVER
        self._minute = -FOREVER
        self._tidied = -FOREVER
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
        return sum(len(signal.cells) for signal in self._signals.values())

    @property
    def cell_bytes(self) -> int:
        """Bytes of the cells and their indexes."""
        return sum(signal.cells.nbytes for signal in self._signals.values())

    @property
    def nbytes(self) -> int:
        """Bytes of all cells, of the log of changes, and of the standing sums."""
        logged = sum(change.cells.nbytes for signal in self._signals.values() for change in signal.log)
        return self.cell_bytes + logged + sum(standing.nbytes for standing in self._standing.values())

    def add(self, signal: int, cells: Cells, *, minute: int | None, hour: int, loading: bool = False) -> None:
        """Count ``cells`` in an hour, and in a minute of it when the event was recent enough to have one.

        ``loading`` skips the log of changes: for the first scan, before anything is standing.
        """
        if not len(cells):
            return
        store = self._signals.setdefault(signal, _Signal())
        self.items = max(self.items, int(cells.item.max()) + 1)
        if minute is not None and minute >= self._horizon_minute:
            store.cells.minutes.setdefault(minute, Bucket()).add(cells)
        self._sequence += 1
        if hour < self._horizon_hour:
            store.cells.archive.add(cells)
            store.changed_old = self._sequence
        else:
            store.cells.hours.setdefault(hour, Bucket()).add(cells)
            store.changed[hour] = self._sequence
        if loading:
            store.log_begins = self._sequence
        else:
            self._record(store, _Change(self._sequence, minute, hour, cells))

    def add_old(self, signal: int, cells: Cells, *, loading: bool = False) -> None:
        """Count ``cells`` of any hours before the horizon at once: only all_time reads them here."""
        if not len(cells):
            return
        store = self._signals.setdefault(signal, _Signal())
        self.items = max(self.items, int(cells.item.max()) + 1)
        untimed = Cells(cells.item, cells.profile, cells.count, cells.sum)
        store.cells.archive.add(untimed)
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

    def _record(self, store: _Signal, change: _Change) -> None:
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
        wide: Callable[[], None] | None = None,
    ) -> StandingSum:
        """The sums of ``signal`` over ``wanted`` for the profiles that ``mask`` allows.

        More than half of the cells are not read where the sum of all of them stands, for ``EVERY_PROFILE``
        under the same label: the others are, and are taken away from it.

        Args:
            mask: bool[profiles], None for everybody.
            key: identifies the mask (the cohort's canonical text); sums of one key are kept between calls.
            label: the window's name; with ``key`` it identifies the standing sum as ``wanted`` moves on.
            timed: keep moments as well; always the same for one label.
            wide: is called when the sum of all cells would have spared reading most of them.

        Raises:
            NotHot: ``wanted`` begins before the hot horizon and is not all time.
        """
        if not self.is_hot(wanted):
            raise NotHot
        store = self._signals.setdefault(signal, _Signal())
        identity = (signal, label, int(wanted.minutes), key)
        standing = self._standing.pop(identity, None)
        chosen = None if mask is None else Selection(mask)
        if standing is None or not self._can_follow(standing, store, wanted):
            standing = None
            if chosen is not None and not timed and key != EVERY_PROFILE:
                standing = self._of_the_others(signal, store, wanted, chosen, label, wide)
            if standing is None:
                standing = StandingSum(wanted, self.items, self._sequence, self._generation, timed=timed)
                self._add(standing, store, wanted, chosen, 1)
            self._evict(standing.nbytes)
        else:
            self._follow(standing, store, wanted, chosen)
        self._standing[identity] = standing
        return standing

    def rows_to_sum(
        self,
        signal: int,
        wanted: BucketRange,
        mask: Mask | None = None,
        key: object = None,
        label: str = "",
        *,
        enough: int = 0,
    ) -> int:
        """Cells that ``standing`` with these arguments would read now; ranges that are not hot count 0.

        What is kept by ``key`` and ``label`` reads only what came since. Asking costs about a fifth of the
        sum itself; next to nothing when all cells of the range together are at most ``enough``: then these
        are counted, whatever the mask.
        """
        store = self._signals.get(signal)
        if store is None or not self.is_hot(wanted):
            return 0
        standing = self._standing.get((signal, label, int(wanted.minutes), key))
        chosen = None if mask is None else Selection(mask)
        if standing is not None and self._can_follow(standing, store, wanted):
            moved = [moved for moved, _ in _moves(standing.range, wanted)]
            changes = sum(len(change.cells) for change in _after(store.log, standing.sequence))
            return changes + sum(store.cells.matching(each, chosen) for each in moved)
        within = store.cells.within(wanted)
        if within <= enough:
            return within
        rows = store.cells.matching(wanted, chosen)
        to_follow = None if key == EVERY_PROFILE else self._rows_to_follow(signal, wanted, label)
        return rows if to_follow is None else min(rows, within - rows + to_follow)

    def standing_range(self, signal: int, minutes: bool, key: object, label: str) -> BucketRange | None:
        """The range of a sum that is kept and can be followed, None when there is none."""
        standing, store = self._standing.get((signal, label, int(minutes), key)), self._signals.get(signal)
        if standing is None or store is None or not self._can_follow(standing, store, standing.range):
            return None
        return standing.range

    def frozen(self, wanted: BucketRange, parts: Sequence[Cells]) -> StandingSum:
        """Sums of cells that were read for the reply at hand alone."""
        for cells in parts:
            self.items = max(self.items, int(cells.item.max()) + 1 if len(cells) else 0)
        standing = StandingSum(wanted, self.items, self._sequence, self._generation)
        gathered = Gathered()
        for cells in parts:
            gathered.add_cells(cells)
        standing.add(gathered)
        return standing

    def pieces(self, signal: int, wanted: BucketRange, mask: Mask | None = None) -> list[Piece]:
        """The cells of a hot range by bucket.

        Raises:
            NotHot: ``wanted`` begins before the hot horizon.
        """
        if not self.is_hot(wanted):
            raise NotHot
        store = self._signals.get(signal)
        return [] if store is None else store.cells.pieces(wanted, None if mask is None else Selection(mask))

    def gathered(self, signal: int, wanted: BucketRange, mask: Mask | None = None) -> Gathered:
        """The cells of a hot range, to be added up by item.

        Raises:
            NotHot: ``wanted`` begins before the hot horizon.
        """
        if not self.is_hot(wanted):
            raise NotHot
        store = self._signals.get(signal)
        chosen = None if mask is None else Selection(mask)
        return Gathered() if store is None else store.cells.gather(wanted, chosen)

    def sample(self, signal: int, wanted: BucketRange, cells_max: int) -> list[Cells]:
        """About ``cells_max`` cells of a hot range with their profiles, every so many-th; the cost follows.

        Raises:
            NotHot: ``wanted`` begins before the hot horizon.
        """
        if not self.is_hot(wanted):
            raise NotHot
        store = self._signals.get(signal)
        return [] if store is None else store.cells.sample(wanted, cells_max)

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
            store.cells.expire(horizon, minute_horizon)
            for hour in [hour for hour in store.changed if hour < horizon]:
                store.changed_old = max(store.changed_old, store.changed.pop(hour))
        self._horizon_hour = max(self._horizon_hour, horizon)
        self._horizon_minute = max(self._horizon_minute, minute_horizon)
        self._hour, self._minute = now_ms // HOUR_MS, now_ms // MINUTE_MS

    def tidy(self) -> Iterator[None]:
        """Merge and seal what is over, once for each minute that ``expire`` has seen; steps of a few ms.

        No count changes, so that it may be left at any step and begun anew.
        """
        if self._tidied == self._minute:
            return
        minute = self._minute
        for store in list(self._signals.values()):
            yield from store.cells.tidy(self._hour, minute, self.items)
            yield
        self._tidied = minute

    def drop_items(self, dropped: Mask) -> None:
        """Forget every cell of the marked items (bool[items]): their partition is about to be read anew."""
        dropped = lengthened(dropped, self.items)
        if dropped[: self.items].all():  # the usual case, that all partitions changed hands, costs nothing
            self._signals.clear()
        for store in self._signals.values():
            store.cells.drop_items(dropped)
            store.log.clear()
            store.log_cells = 0
        self._sequence += 1
        self._generation += 1

    def history(
        self, signal: int, items: Mask, wanted: BucketRange, mask: Mask | None = None
    ) -> tuple[int, int]:
        """(count, sum in micro-units) over ``wanted`` of the items marked in bool[items], from the cells."""
        store = self._signals.get(signal)
        if store is None:
            return 0, 0
        marked = lengthened(items, self.items)
        return store.cells.totals(wanted, None if mask is None else Selection(mask), marked)

    def _is_wide(self, store: _Signal, wanted: BucketRange, chosen: Selection) -> bool:
        """Whether a sum would read more than half of the cells of a range, and these are many."""
        if store.cells.within(wanted) < _WIDE_CELLS_MIN:
            return False
        if np.count_nonzero(chosen.mask) < len(chosen.mask) * _WIDE_PROFILES_MIN:
            return False
        return store.cells.share(wanted, chosen) > 0.5

    def _of_the_others(
        self,
        signal: int,
        store: _Signal,
        wanted: BucketRange,
        chosen: Selection,
        label: str,
        wide: Callable[[], None] | None,
    ) -> StandingSum | None:
        """The sum of all cells less that of those that are not chosen; None where that spares nothing, or the
        former is not kept, which ``wide`` is told."""
        if not self._is_wide(store, wanted, chosen):
            return None
        if self._rows_to_follow(signal, wanted, label) is None:
            if wide is not None:
                wide()
            return None
        whole = self.standing(signal, wanted, None, EVERY_PROFILE, label)
        others = StandingSum(wanted, self.items, self._sequence, self._generation)
        others.add(store.cells.gather(wanted, chosen.others))
        return whole.less(others)

    def _rows_to_follow(self, signal: int, wanted: BucketRange, label: str) -> int | None:
        """Cells to read until the sum of all cells over a range is that of now; None where it is not kept, or
        a fourth of the range and more would have to be read."""
        had = self.standing_range(signal, wanted.minutes, EVERY_PROFILE, label)
        if had is None or not had.low <= wanted.low <= had.high <= wanted.high:
            return None
        rows = self.rows_to_sum(signal, wanted, None, EVERY_PROFILE, label)
        return rows if rows * 4 < self._signals[signal].cells.within(wanted) else None

    def _can_follow(self, standing: StandingSum, store: _Signal, wanted: BucketRange) -> bool:
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

    def _add(
        self, standing: StandingSum, store: _Signal, part: BucketRange, chosen: Selection | None, sign: int
    ) -> None:
        standing.add(store.cells.gather(part, chosen), sign)
        if standing.moments is not None:
            pieces = store.cells.pieces(part, chosen)
            standing.add_moments(((piece.start_ms, piece.cells) for piece in pieces), sign)

    def _follow(
        self, standing: StandingSum, store: _Signal, wanted: BucketRange, chosen: Selection | None
    ) -> None:
        """Bring ``standing`` to now: what leaves the range contains changes, so both have to be applied."""
        standing.widen(self.items)
        had, mask = standing.range, None if chosen is None else chosen.mask
        changed: list[tuple[int, Cells]] = []
        for change in _after(store.log, standing.sequence):
            bucket = change.minute if had.minutes else change.hour
            if bucket is not None and had.low <= bucket <= had.high:
                changed.append((bucket * had.unit_ms, change.cells.allowed(mask)))
        gathered = Gathered()
        for _, cells in changed:
            gathered.add_cells(cells)
        standing.add(gathered)
        if standing.moments is not None:
            standing.add_moments(changed, 1)
        for moved, sign in _moves(had, wanted):
            self._add(standing, store, moved, chosen, sign)
        standing.range = wanted
        standing.sequence = self._sequence

    def _evict(self, coming: int) -> None:
        """Make room for ``coming`` bytes."""
        size = coming + sum(standing.nbytes for standing in self._standing.values())
        while size > self._bytes_max and self._standing:
            _, oldest = self._standing.popitem(last=False)
            size -= oldest.nbytes


def _after(log: deque[_Change], sequence: int) -> Iterator[_Change]:
    """Changes later than ``sequence``, found from the end: most readers are nearly up to date."""
    fresh: list[_Change] = []
    for change in reversed(log):
        if change.sequence <= sequence:
            break
        fresh.append(change)
    return reversed(fresh)


def _moves(had: BucketRange, wanted: BucketRange) -> Iterator[tuple[BucketRange, int]]:
    """The part that leaves the range (−1) and the part that enters it (+1), where there is one."""
    if had.low < wanted.low:
        yield BucketRange(had.minutes, had.low, wanted.low - 1), -1
    if had.high < wanted.high:
        yield BucketRange(had.minutes, had.high + 1, wanted.high), 1

"""Sums over a range of buckets for one mask, kept from query to query."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from queryd.hot.arrays import F64, I64, U32, Counts, grown
from queryd.hot.cells import Cells
from queryd.hot.leaders import KeptLeaders
from queryd.hot.profile_index import Selection
from queryd.hot.runs import RareCounts, Run
from queryd.hot.windows import BucketRange
from schemas.durations import DAY_MS
from schemas.weights import WEIGHT_SCALE

# A million items of two bytes stay in a processor's own cache, where adding to them takes half of the time.
_LARGEST: Final = {np.dtype(kind): np.iinfo(kind).max for kind in (np.uint16, np.int32, np.int64)}
_WIDER: Final = {np.dtype(np.uint16): np.int32, np.dtype(np.int32): np.int64}
# Adding in stretches that stay in the processor's cache takes a fifth of counting all at once.
_SCATTERED_AT_ONCE: Final = 8_192
_ONES: Final = np.ones(_SCATTERED_AT_ONCE, dtype=np.uint16)
_ROOM_MIN: Final = 8_192
"""Room is made while so much is left, because finding out how much is left is a pass over all counts."""


@dataclass(slots=True)
class Gathered:
    """Cells read for one sum.

    ``ones`` are the items of cells of one event of weight 1.0; ``counted`` items and counts of cells whose
    weights are 1.0 (a cell of several events may be among both); ``weighted`` items, counts and what the
    sums differ by from that.
    """

    ones: list[U32] = field(default_factory=list)
    counted: list[tuple[U32, Counts]] = field(default_factory=list)
    weighted: list[tuple[U32, Counts, I64]] = field(default_factory=list)

    def add_cells(self, cells: Cells) -> None:
        """Cells as they come."""
        extra = cells.sum - cells.count * np.int64(WEIGHT_SCALE)
        if extra.any():
            self.weighted.append((cells.item, cells.count, extra))
        elif len(cells):
            self.counted.append((cells.item, cells.count))

    def add_run(self, run: Run, chosen: Selection | None, hours: tuple[int, int] | None) -> None:
        """The allowed cells of a run; of a span those of ``hours``, first and last since its own first."""
        reading = run.read(chosen, hours)
        items, count, total = reading.items, run.count, run.sum
        if not len(items):
            return
        if total is None and (count is None or isinstance(count, RareCounts)):
            self.ones.append(items)
            if count is not None:
                self.counted.append(run.repeats(chosen, hours))
            return
        if isinstance(count, RareCounts):
            counts: Counts = count.at(reading.rows)
        else:
            counts = np.ones(len(items), dtype=np.uint8) if count is None else reading.of(count)
        if total is None:
            self.counted.append((items, counts))
            return
        self.weighted.append((items, counts, reading.of(total) - counts * np.int64(WEIGHT_SCALE)))


class StandingSum:
    """Counts and sums by item of one signal over ``range`` for one mask.

    Counts take two bytes an item as long as that is enough for the largest of them, then four. Sums are
    kept as what they differ by from the sums of weights of 1.0, and cost nothing without other weights.

    Args:
        items: rows of the columns; more when items are added.
        timed: ``moments`` f64[items] is Σ weight · (ts − base_ms), of signals that decay linearly; else None.
    """

    __slots__ = (
        "_aside", "_counts", "_extra", "_items", "_leaders", "_moments", "_most", "base_ms",
        "generation", "range", "sequence",
    )  # fmt: skip

    def __init__(
        self, wanted: BucketRange, items: int, sequence: int, generation: int, *, timed: bool = False
    ) -> None:
        self.range = wanted
        self.sequence = sequence
        self.generation = generation
        self.base_ms = _day_of(wanted.low * wanted.unit_ms)
        self._items = items
        self._counts: Counts = np.zeros(items, dtype=np.uint16)
        self._extra: I64 | None = None
        self._moments: F64 | None = np.zeros(items, dtype=np.float64) if timed else None
        self._most = 0  # no count is larger
        self._aside: list[tuple[I64, Counts]] = []
        self._leaders: KeptLeaders | None = None  # until a count changes

    @property
    def nbytes(self) -> int:
        columns = (self._counts, self._extra, self._moments, self._leaders)
        return sum(int(column.nbytes) for column in columns if column is not None)

    @property
    def counts(self) -> Counts:
        """u16, i32 or i64[items]: not to be changed, and to be widened before any arithmetic."""
        return self._counts[: self._items]

    def leaders(self, items: int) -> KeptLeaders:
        """The largest counts of the first ``items``."""
        if self._leaders is None or len(self._leaders) != items:
            self._leaders = KeptLeaders(self._counts[:items])
        return self._leaders

    @property
    def sums(self) -> I64:
        """i64[items] in micro-units, made for the caller."""
        sums = self.counts.astype(np.int64) * WEIGHT_SCALE
        return sums if self._extra is None else sums + self._extra[: self._items]

    @property
    def moments(self) -> F64 | None:
        """f64[items], see above."""
        return None if self._moments is None else self._moments[: self._items]

    def widen(self, items: int) -> None:
        """Have at least so many rows."""
        if items <= self._items:
            return
        self._items = items
        self._counts = grown(self._counts, items)
        if self._extra is not None:
            self._extra = grown(self._extra, items)
        if self._moments is not None:
            self._moments = grown(self._moments, items)

    def less(self, other: StandingSum) -> StandingSum:
        """A sum of its own: what is left of this one without ``other``, which is a part of it."""
        left = StandingSum(self.range, 0, self.sequence, self.generation)
        left._items, left._most = self._items, self._most
        other.widen(self._items)
        kind = np.promote_types(self._counts.dtype, other._counts.dtype)
        left._counts = np.subtract(self.counts, other.counts, dtype=kind)
        if self._extra is not None or other._extra is not None:
            left._extra = self._extras() - other._extras()
        return left

    def _extras(self) -> I64:
        """What sums differ by from those of weights of 1.0, i64[items]."""
        if self._extra is None:
            return np.zeros(self._items, dtype=np.int64)
        return self._extra[: self._items]

    def add(self, gathered: Gathered, sign: int = 1) -> None:
        """Add (or with −1 subtract) what was gathered."""
        if not (gathered.ones or gathered.counted or gathered.weighted):
            return
        self._leaders = None
        for items in gathered.ones:
            self._count(items, None, sign)
        for items, counts in gathered.counted:
            self._count(items, counts, sign)
        for items, counts, _ in gathered.weighted:
            self._count(items, counts, sign)
        self._put_back()
        if gathered.weighted:
            if self._extra is None:
                self._extra = np.zeros(len(self._counts), dtype=np.int64)
            for items, _, extra in gathered.weighted:
                np.add.at(self._extra, items, extra if sign == 1 else -extra)

    def _count(self, items: U32, counts: Counts | None, sign: int) -> None:
        """Count cells of one event each, or of ``counts``."""
        change = np.add if sign == 1 else np.subtract
        for start in range(0, len(items), _SCATTERED_AT_ONCE):
            part = items[start : start + _SCATTERED_AT_ONCE].astype(np.int64)
            events = _ONES[: len(part)] if counts is None else counts[start : start + _SCATTERED_AT_ONCE]
            if sign == 1:
                self._make_room(int(events.sum(dtype=np.int64)))
            change.at(self._counts, part, events.astype(self._counts.dtype, copy=False))

    def _make_room(self, added: int) -> None:
        """Have room for ``added`` more events, be they all of one item.

        While counts have two bytes, the largest of them are put aside for as long as events are added: a few
        items have so many, and the others would take twice the time in a wider type.
        """
        self._most += added
        while self._most > (largest := _LARGEST[self._counts.dtype]):
            self._most = int(self._counts.max(initial=0)) + added
            if self._most <= largest - _ROOM_MIN:
                return
            if self._counts.dtype == np.uint16 and added <= _ROOM_MIN:
                heads = np.flatnonzero(self._counts > largest // 4)
                self._aside.append((heads, self._counts[heads]))
                self._counts[heads] = 0
                self._most = largest // 4 + added
            else:
                self._counts = self._counts.astype(_WIDER[self._counts.dtype])

    def _put_back(self) -> None:
        """Add to their items' counts what was put aside, in a type that holds all of them."""
        if not self._aside:
            return
        aside = np.concatenate([items for items, _ in self._aside])
        items, place = np.unique(aside, return_inverse=True)
        counts = self._counts[items].astype(np.int64)
        np.add.at(counts, place, np.concatenate([some for _, some in self._aside]).astype(np.int64))
        self._aside.clear()
        self._most = max(self._most, int(counts.max()))
        while self._most > _LARGEST[self._counts.dtype]:
            self._counts = self._counts.astype(_WIDER[self._counts.dtype])
        self._counts[items] = counts

    def add_moments(self, pieces: Iterable[tuple[int, Cells]], sign: int) -> None:
        """Add the moments of cells, each with the start in ms of its bucket."""
        assert self._moments is not None
        for start_ms, cells in pieces:
            moments = cells.sum.astype(np.float64) * (_day_of(start_ms) - self.base_ms)
            if cells.moment is not None:
                moments += cells.moment
            np.add.at(self._moments, cells.item, sign * moments)


def _day_of(ts_ms: int) -> int:
    return ts_ms // DAY_MS * DAY_MS

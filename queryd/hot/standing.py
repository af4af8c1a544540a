"""Sums over a range of buckets for one mask, kept from query to query."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from queryd.hot.arrays import F64, I64, U32, grown
from queryd.hot.cells import Cells
from queryd.hot.runs import Run, Selection
from queryd.hot.windows import BucketRange
from schemas.durations import DAY_MS
from schemas.weights import WEIGHT_SCALE

_COUNT_MAX = (1 << 31) - 1
# Adding in stretches that stay in the processor's cache takes a fifth of counting all at once.
_SCATTERED_AT_ONCE = 65_536


@dataclass(slots=True)
class Gathered:
    """Cells read for one sum.

    ``ones`` are the items of cells of one event of weight 1.0; ``counted`` items and counts of cells whose
    weights are 1.0; ``weighted`` items, counts and what the sums differ by from that.
    """

    ones: list[U32] = field(default_factory=list)
    counted: list[tuple[U32, npt.NDArray[np.integer]]] = field(default_factory=list)
    weighted: list[tuple[U32, npt.NDArray[np.integer], I64]] = field(default_factory=list)

    def add_cells(self, cells: Cells) -> None:
        """Cells as they come."""
        extra = cells.sum - cells.count * np.int64(WEIGHT_SCALE)
        if extra.any():
            self.weighted.append((cells.item, cells.count, extra))
        elif len(cells):
            self.counted.append((cells.item, cells.count))

    def add_run(self, run: Run, chosen: Selection | None, hours: tuple[int, int] | None) -> None:
        """The allowed cells of a run; of a span those of ``hours``, first and last since its own first."""
        rows = run.rows_within(chosen, hours)
        if rows is not None and not len(rows):
            return
        items = run.items(rows)
        if run.sum is None and run.count is None:
            self.ones.append(items)
            return
        count = run.count if rows is None or run.count is None else run.count.take(rows)
        if count is None:
            count = np.ones(len(items), dtype=np.uint8)
        if run.sum is None:
            self.counted.append((items, count))
            return
        total = run.sum if rows is None else run.sum.take(rows)
        self.weighted.append((items, count, total - count * np.int64(WEIGHT_SCALE)))


class StandingSum:
    """Counts and sums by item of one signal over ``range`` for one mask.

    Counts take four bytes an item as long as that is enough for all of them together. Sums are kept as what
    they differ by from the sums of weights of 1.0, and cost nothing for signals without other weights.

    Args:
        items: rows of the columns; more when items are added.
        timed: ``moments`` f64[items] is Σ weight · (ts − base_ms), of signals that decay linearly; else None.
    """

    __slots__ = (
        "_counts", "_extra", "_items", "_moments", "_total", "base_ms", "generation", "range", "sequence",
    )  # fmt: skip

    def __init__(
        self, wanted: BucketRange, items: int, sequence: int, generation: int, *, timed: bool = False
    ) -> None:
        self.range = wanted
        self.sequence = sequence
        self.generation = generation
        self.base_ms = _day_of(wanted.low * wanted.unit_ms)
        self._items = items
        self._counts: npt.NDArray[np.signedinteger] = np.zeros(items, dtype=np.int32)
        self._extra: I64 | None = None
        self._moments: F64 | None = np.zeros(items, dtype=np.float64) if timed else None
        self._total = 0

    @property
    def nbytes(self) -> int:
        columns = (self._counts, self._extra, self._moments)
        return sum(int(column.nbytes) for column in columns if column is not None)

    @property
    def counts(self) -> npt.NDArray[np.signedinteger]:
        """i32 or i64[items]: not to be changed."""
        return self._counts[: self._items]

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

    def add(self, gathered: Gathered, sign: int = 1) -> None:
        """Add (or with −1 subtract) what was gathered."""
        counted = [*gathered.counted, *((items, counts) for items, counts, _ in gathered.weighted)]
        added = sum(map(len, gathered.ones)) + sum(int(counts.sum(dtype=np.int64)) for _, counts in counted)
        self._total += sign * added
        if self._total > _COUNT_MAX and self._counts.dtype != np.int64:
            self._counts = self._counts.astype(np.int64)
        ones = np.full(_SCATTERED_AT_ONCE, sign, dtype=self._counts.dtype)
        for items in gathered.ones:
            for start in range(0, len(items), _SCATTERED_AT_ONCE):
                part = items[start : start + _SCATTERED_AT_ONCE]
                np.add.at(self._counts, part, ones[: len(part)])
        for items, counts in counted:
            steps = counts.astype(self._counts.dtype)
            np.add.at(self._counts, items, steps if sign == 1 else -steps)
        if gathered.weighted:
            if self._extra is None:
                self._extra = np.zeros(len(self._counts), dtype=np.int64)
            for items, _, extra in gathered.weighted:
                np.add.at(self._extra, items, extra if sign == 1 else -extra)

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

"""Global all-time counts, sums and decayed scores by signal and item, as the item shard last wrote them."""

from __future__ import annotations

import numpy as np

from materializers.decay import NEVER_MS
from queryd.hot.arrays import F64, I64, U32, grown, lengthened


class DecayedColumns:
    """Cells of one signal: count i64, sum i64 (micro-units), ref_ms i64 and acc f64[items, half-lives]."""

    def __init__(self, half_lives_ms: tuple[int, ...]) -> None:
        self.half_lives_ms = half_lives_ms
        self._count: I64 = np.zeros(0, dtype=np.int64)
        self._sum: I64 = np.zeros(0, dtype=np.int64)
        self._ref_ms: I64 = np.full(0, NEVER_MS, dtype=np.int64)
        self._acc: F64 = np.zeros((0, len(half_lives_ms)), dtype=np.float64)

    def set(self, items: U32, count: I64, sum_: I64, ref_ms: I64, acc: F64) -> None:
        """Replace the cells of distinct items; ``acc`` f64[n, k]."""
        if not len(items):
            return
        rows = int(items.max()) + 1
        self._count = grown(self._count, rows)
        self._sum = grown(self._sum, rows)
        self._ref_ms = grown(self._ref_ms, rows, NEVER_MS)
        self._acc = grown(self._acc, rows)
        self._count[items] = count
        self._sum[items] = sum_
        self._ref_ms[items] = ref_ms
        self._acc[items] = acc[:, : len(self.half_lives_ms)]

    def counts(self, items: int) -> I64:
        """All-time counts i64[items]."""
        return lengthened(self._count, items)[:items]

    def sums(self, items: int) -> I64:
        """All-time sums i64[items] in micro-units."""
        return lengthened(self._sum, items)[:items]

    def scores(self, items: U32, half_life_ms: int, at_ms: int) -> F64:
        """Decayed scores f64[n] of items at ``at_ms``: acc · 2^(−(at − ref)/half-life), 0 without an event.

        Raises:
            ValueError: the signal is not decayed with that half-life.
        """
        column = self.half_lives_ms.index(half_life_ms)
        scores = np.zeros(len(items), dtype=np.float64)
        known = np.flatnonzero(items < len(self._ref_ms))
        known = known[self._ref_ms[items[known]] != NEVER_MS]
        rows = items[known]
        elapsed = at_ms - self._ref_ms[rows]
        scores[known] = self._acc[rows, column] * np.exp2(-elapsed / half_life_ms)
        return scores

    def newest(self, items: U32) -> I64:
        """Timestamp of the newest event of each item, i64[n]; the least there is where it has none."""
        newest = np.full(len(items), NEVER_MS, dtype=np.int64)
        known = np.flatnonzero(items < len(self._ref_ms))
        newest[known] = self._ref_ms[items[known]]
        return newest

    def drop(self, items: U32) -> None:
        """Forget cells: their partition is about to be read anew."""
        held = items[items < len(self._ref_ms)]
        self._count[held] = 0
        self._sum[held] = 0
        self._ref_ms[held] = NEVER_MS
        self._acc[held] = 0.0

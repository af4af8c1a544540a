"""Decayed scores for one request: from accumulators where they tell the time asked for, from buckets else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from queryd.hot import fading
from queryd.hot.arrays import F64, U32, Mask
from queryd.hot.bucket_reads import MINUTES_IN_HOUR, BucketReads, Scope
from queryd.hot.cube import BucketRange, CountCube, Piece
from queryd.hot.fading import HALVINGS_MAX
from schemas.durations import DAY_MS, HOUR_MS, MINUTE_MS

_BY_MINUTE_MS_MAX = 2 * HOUR_MS  # minutes are kept for three hours


class DecayReads:
    """Scores that fade. ``resolution_ms`` is the length of the longest bucket that one was summed from."""

    def __init__(self, buckets: BucketReads) -> None:
        self._buckets = buckets
        self._hot = buckets.hot
        self._at_ms = buckets.at_ms
        self.resolution_ms = 0
        self.from_buckets = False

    def exponential(self, signal: int, half_life_ms: int, scope: Scope, rows: U32, aged_to_ms: int) -> F64:
        """Scores of the items ``rows`` u32[n], f64[n]; accumulators are read at ``aged_to_ms``."""
        exact = self._accumulated(signal, scope, rows)
        scores = np.zeros(len(rows), dtype=np.float64)
        scores[exact] = self._hot.decayed[signal].scores(rows[exact], half_life_ms, aged_to_ms)
        if not exact.all():
            scores[~exact] = self._exponential(signal, half_life_ms, scope)[rows[~exact]]
        return scores

    def exponential_of(self, signal: int, scope: Scope, items: Mask) -> dict[str, float]:
        """Every score of the items marked in bool[items] together, by half-life."""
        decay = self._hot.schema.signal_list[signal].decay
        rows = np.flatnonzero(items).astype(np.uint32)
        exact = self._accumulated(signal, scope, rows)
        others = np.zeros(len(items), dtype=np.bool_)
        others[rows[~exact]] = True
        scores = {
            name: float(self._hot.decayed[signal].scores(rows[exact], half_life_ms, self._at_ms).sum())
            for name, half_life_ms in zip(decay.labels, decay.half_lives_ms, strict=True)
        }
        if others.any():  # one reading for all: the longest half-life reaches back farthest
            hours, minutes = self._read(signal, max(decay.half_lives_ms), scope, others)
            size = self._items(self._buckets.cube(scope))
            for name, half_life_ms in zip(decay.labels, decay.half_lives_ms, strict=True):
                found = fading.exponential(hours, minutes, self._at_ms, half_life_ms, size)
                scores[name] += float(found.sum())
        return scores

    def linear(self, signal: int, lifetime_ms: int, scope: Scope) -> F64:
        """Linear scores of every item: a standing sum of whole buckets, and the one that is leaving."""
        cube, mask = self._buckets.cube(scope), self._buckets.cohort_mask(scope)
        by_minute = lifetime_ms <= min(_BY_MINUTE_MS_MAX, self._hot.schema.limits.late_minute_horizon_ms)
        unit_ms = MINUTE_MS if by_minute else HOUR_MS
        leaving = (self._at_ms - lifetime_ms) // unit_ms
        cut = BucketRange(by_minute, leaving, leaving)
        if self._at_ms < self._buckets.now_ms or not cube.is_hot(cut):
            return self.linear_of(signal, lifetime_ms, scope, None)
        inside = BucketRange(by_minute, leaving + 1, self._at_ms // unit_ms)
        standing = cube.standing(signal, inside, mask, scope.cohort, "linear", timed=True)
        rest = fading.linear(cube.pieces(signal, cut, mask), self._at_ms, lifetime_ms, self._items(cube))
        rest[: len(standing.sums)] += fading.linear_of_sum(standing, self._at_ms, lifetime_ms)
        return rest

    def linear_of(self, signal: int, lifetime_ms: int, scope: Scope, items: Mask | None) -> F64:
        """Linear scores of all items (or of those in bool[items]) from buckets, f64[items]."""
        cube = self._buckets.cube(scope)
        wanted = BucketRange(False, (self._at_ms - lifetime_ms) // HOUR_MS, self._at_ms // HOUR_MS)
        pieces = self._buckets.pieces(signal, wanted, scope, items)
        self._note(pieces)
        return fading.linear(pieces, self._at_ms, lifetime_ms, self._items(cube))

    def _accumulated(self, signal: int, scope: Scope, rows: U32) -> Mask:
        """Which items' accumulators tell the score at the time read at: those without a later event."""
        if scope.cohort is not None:
            return np.zeros(len(rows), dtype=np.bool_)
        if self._at_ms >= self._buckets.now_ms:
            return np.ones(len(rows), dtype=np.bool_)
        held: Mask = self._hot.decayed[signal].newest(rows) <= self._at_ms
        return held

    def _exponential(self, signal: int, half_life_ms: int, scope: Scope) -> F64:
        """Scores of all items from buckets, f64[items]."""
        hours, minutes = self._read(signal, half_life_ms, scope, None)
        size = self._items(self._buckets.cube(scope))
        return fading.exponential(hours, minutes, self._at_ms, half_life_ms, size)

    def _read(
        self, signal: int, half_life_ms: int, scope: Scope, items: Mask | None
    ) -> tuple[list[Piece], list[Piece]]:
        """Hours as far back as a half-life reaches, and the minutes of them that are known."""
        first = (self._at_ms - HALVINGS_MAX * half_life_ms) // HOUR_MS
        hours = self._buckets.pieces(signal, BucketRange(False, first, self._at_ms // HOUR_MS), scope, items)
        self._note(hours)
        # To the end of the hour: what is known to have come after the time read at is taken out again.
        end = (self._at_ms // HOUR_MS + 1) * MINUTES_IN_HOUR - 1
        horizon = self._buckets.cube(scope).horizon_minute
        known = BucketRange(True, max(first * MINUTES_IN_HOUR, horizon), end)
        minutes = self._buckets.pieces(signal, known, scope, items) if known.low <= end else []
        return hours, minutes

    def _note(self, pieces: Sequence[Piece]) -> None:
        """Remember how long the buckets were that a score was summed from."""
        longest = max((piece.length_ms for piece in pieces), default=HOUR_MS)
        self.resolution_ms = max(self.resolution_ms, longest)
        self._buckets.used_days |= longest == DAY_MS
        self.from_buckets = True

    def _items(self, cube: CountCube) -> int:
        return max(len(self._hot.items), cube.items)

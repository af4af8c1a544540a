"""Aggregates of a signal by item, at the scope of everybody or of a cohort: one arithmetic for both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from queryd.hot.arrays import F64, I64, Mask, lengthened
from queryd.hot.cold import ColdTier
from queryd.hot.columns import HotColumns
from queryd.hot.cube import ALL_TIME, HOUR_MS, MINUTE_MS, BucketRange, CountCube, NotHot, StandingSum
from schemas.durations import DAY_MS, WINDOWS
from schemas.predicate import Predicate
from schemas.weights import WEIGHT_SCALE

_HOURS_IN_DAY = 24
_MINUTES_IN_HOUR = 60


def bucket_range(window: str, at_ms: int) -> BucketRange:
    """The buckets of ``window`` at ``at_ms``: the one that holds it and those before; for all_time, all.

    Buckets are minutes for 1h, hours else; 30d is 30 whole days (UTC) of hours, today included.
    """
    declared = WINDOWS[window]
    if not declared.buckets:
        return ALL_TIME
    if declared.bucket_ms == MINUTE_MS:
        last = at_ms // MINUTE_MS
        return BucketRange(True, last - declared.buckets + 1, last)
    if declared.bucket_ms == DAY_MS:
        first = (at_ms // DAY_MS - declared.buckets + 1) * _HOURS_IN_DAY
        return BucketRange(False, first, first + declared.buckets * _HOURS_IN_DAY - 1)
    last = at_ms // HOUR_MS
    return BucketRange(False, last - declared.buckets + 1, last)


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose events are counted: everybody's (None), or those of users in a cohort at event time."""

    cohort: Predicate | None = None


EVERYBODY = Scope()


class SignalReads:
    """Reads of one query: the same time and the same columns throughout.

    Args:
        now_ms: the time that running windows follow.
        at_ms: the time read at; earlier than ``now_ms`` for AS OF.
    """

    def __init__(self, hot: HotColumns, cold: ColdTier, now_ms: int, at_ms: int) -> None:
        self._hot = hot
        self._cold = cold
        self._now_ms = now_ms
        self.at_ms = at_ms
        self.used_cold = False
        self.used_hours = False

    def counts(self, signal: int, window: str, scope: Scope = EVERYBODY) -> I64:
        """count(window) by item, i64[items]."""
        if window == "all_time" and scope.cohort is None and not self._in_past():
            return self._hot.total_counts(signal)
        return self._sized(self._standing(signal, window, scope, 0).counts)

    def sums(self, signal: int, window: str, scope: Scope = EVERYBODY) -> I64:
        """Sum of weights by item in micro-units, i64[items]."""
        if window == "all_time" and scope.cohort is None and not self._in_past():
            return self._hot.total_sums(signal)
        return self._sized(self._standing(signal, window, scope, 0).sums)

    def velocity(self, signal: int, window: str, scope: Scope = EVERYBODY) -> F64:
        """count / duration in events per second by item, f64[items]; for all_time the count itself."""
        return velocity(self.counts(signal, window, scope), window)

    def acceleration(self, signal: int, window: str, scope: Scope = EVERYBODY) -> F64:
        """Velocity now minus velocity one window ago, f64[items]."""
        previous = self._sized(self._standing(signal, window, scope, -1).counts)
        return velocity(self.counts(signal, window, scope) - previous, window)

    def mean(self, signal: int, window: str, scope: Scope = EVERYBODY) -> F64:
        """Mean weight by item, f64[items]; 0 where nothing was counted."""
        counts = self.counts(signal, window, scope)
        sums = self.sums(signal, window, scope)
        return np.divide(sums, counts * WEIGHT_SCALE, out=np.zeros(len(counts)), where=counts > 0)

    def cohort_mask(self, scope: Scope) -> Mask | None:
        """The profiles of a cohort, bool[profiles]; None for everybody."""
        return None if scope.cohort is None else self._hot.profiles.mask(scope.cohort)

    def of_items(
        self, signal: int, window: str, scope: Scope, items: Mask, windows_ago: int = 0
    ) -> tuple[int, int]:
        """(count, sum in micro-units) of the items marked in bool[items], summed from their cells."""
        if window == "all_time" and scope.cohort is None and not self._in_past():
            held = items[: len(self._hot.items)]
            counts, sums = self._hot.total_counts(signal), self._hot.total_sums(signal)
            return int(counts[held].sum()), int(sums[held].sum())
        mask, cube = self.cohort_mask(scope), self._cube(scope)
        wanted = self._kept(self._range(window), windows_ago, cube)
        if cube.is_hot(wanted):
            return cube.history(signal, items, wanted, mask)
        self.used_cold = True
        cells = self._cold.cells(signal, wanted, mask, by_profile=scope.cohort is not None)
        rows = items[cells.item]
        return int(cells.count[rows].sum()), int(cells.sum[rows].sum())

    def buckets(self, window: str, scope: Scope) -> BucketRange:
        """The buckets that ``of_items`` counts for a window."""
        return self._kept(self._range(window), 0, self._cube(scope))

    def _standing(self, signal: int, window: str, scope: Scope, windows_ago: int) -> StandingSum:
        wanted = self._range(window)
        current = bucket_range(window, self._now_ms)
        label = f"{window}{windows_ago:+d}" if windows_ago else window
        if wanted != current:
            label = f"{label}@{wanted.high}"
        cube, mask = self._cube(scope), self.cohort_mask(scope)
        wanted = self._kept(wanted, windows_ago, cube)
        try:
            return cube.standing(signal, wanted, mask, scope.cohort, label)
        except NotHot:
            self.used_cold = True
            cells = self._cold.cells(signal, wanted, mask, by_profile=scope.cohort is not None)
            return cube.frozen(wanted, cells)

    def _range(self, window: str) -> BucketRange:
        wanted = bucket_range(window, self.at_ms)
        if wanted == ALL_TIME and self._in_past():
            return BucketRange(False, ALL_TIME.low, self.at_ms // HOUR_MS)
        return wanted

    def _kept(self, wanted: BucketRange, windows_ago: int, cube: CountCube) -> BucketRange:
        """The range, some windows earlier; in whole hours where its minutes are merged into them."""
        wanted = wanted.shifted(windows_ago) if windows_ago else wanted
        if wanted.minutes and not cube.is_hot(wanted):
            self.used_hours = True
            return BucketRange(False, wanted.high // _MINUTES_IN_HOUR, wanted.high // _MINUTES_IN_HOUR)
        return wanted

    def _in_past(self) -> bool:
        return self.at_ms // HOUR_MS < self._now_ms // HOUR_MS

    def _cube(self, scope: Scope) -> CountCube:
        return self._hot.everybody if scope.cohort is None else self._hot.by_profile

    def _sized(self, column: I64) -> I64:
        return lengthened(column, len(self._hot.items))[: len(self._hot.items)]


def velocity(counts: I64 | F64, window: str) -> F64:
    """counts / duration of the window in seconds; for all_time the counts as they are."""
    duration_ms = WINDOWS[window].duration_ms
    return counts.astype(np.float64) if not duration_ms else counts / (duration_ms / 1000)

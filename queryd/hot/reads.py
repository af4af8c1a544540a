"""Aggregates of a signal by item, at the scope of everybody or of a cohort: one arithmetic for both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from queryd.estimate.budget import Choice
from queryd.estimate.counts import Estimator
from queryd.estimate.estimator import Count
from queryd.estimate.request import CohortCounts
from queryd.hot.arrays import F64, I64, U32, Counts, Mask
from queryd.hot.bucket_reads import EVERYBODY, BucketReads, Scope, bucket_range
from queryd.hot.cold import ColdTier
from queryd.hot.columns import HotColumns
from queryd.hot.cube import ALL_TIME, BucketRange, Piece, StandingSum, since
from queryd.hot.decay_reads import DecayReads
from queryd.hot.history import PastSums
from queryd.hot.leaders import KeptLeaders, Leaders
from schemas.durations import ALL_TIME as ALL_TIME_WINDOW
from schemas.durations import DAY_MS, HOUR_MS, WINDOWS
from schemas.weights import WEIGHT_SCALE


@dataclass(frozen=True, slots=True)
class Amount:
    """Count, sum in micro-units, the time in ms that they were counted over (0: all), and the length in ms of
    the buckets that they are exact at (0: to the event)."""

    count: int
    sum: int
    span_ms: int
    resolution_ms: int


@dataclass(frozen=True, slots=True)
class _Amounts:
    """counts int[items], and the time in ms that they were counted over.

    ``summed`` makes the sums in micro-units, i64[items]: few readers want them. ``standing`` has the counts,
    where they are kept.
    """

    counts: Counts
    summed: Callable[[], I64]
    span_ms: int
    standing: StandingSum | None = None


class SignalReads:
    """Reads of one query: the same time and the same columns throughout.

    Args:
        now_ms: the time that running windows follow.
        at_ms: the time read at; earlier than ``now_ms`` for AS OF.
        cohorts: decides which counts of a cohort are estimated; without it, none is.
    """

    def __init__(
        self,
        hot: HotColumns,
        cold: ColdTier,
        now_ms: int,
        at_ms: int,
        cohorts: CohortCounts | None = None,
    ) -> None:
        self._hot = hot
        self.at_ms = at_ms
        self._buckets = BucketReads(hot, cold, now_ms, at_ms)
        self._decays = DecayReads(self._buckets)
        self._pasts: dict[tuple[int, str, Scope], PastSums] = {}
        self._cohorts = cohorts

    def counts(self, signal: int, window: str, scope: Scope = EVERYBODY) -> I64:
        """count(window) by item, i64[items]."""
        return self.tallies(signal, window, scope).astype(np.int64, copy=False)

    def tallies(self, signal: int, window: str, scope: Scope = EVERYBODY) -> Counts:
        """As ``counts``, as narrow as they are kept, int[items]: to compare and to take from. Spares a
        pass over all items."""
        return self._amounts(signal, window, scope).counts

    def leaders(self, signal: int, window: str, scope: Scope, allowed: Mask, wanted: int) -> Leaders:
        """The items of bool[items] that lead by count(window), ``wanted`` of them or more: see there."""
        amounts = self._amounts(signal, window, scope)
        counts, standing = amounts.counts, amounts.standing
        kept = KeptLeaders(counts) if standing is None else standing.leaders(len(counts))
        return kept.among(allowed, wanted)

    def span_ms(self, signal: int, window: str, scope: Scope = EVERYBODY) -> int:
        """The time that ``counts`` were counted over; 0 for all of it."""
        return self._amounts(signal, window, scope).span_ms

    def sums(self, signal: int, window: str, scope: Scope = EVERYBODY) -> I64:
        """Sum of weights by item in micro-units, i64[items]."""
        return self._amounts(signal, window, scope).summed()

    def velocity(self, signal: int, window: str, scope: Scope = EVERYBODY, *, rows: U32 | None = None) -> F64:
        """count / duration in events per second by item, f64[items]; for all_time the count itself.

        Args:
            rows: u32[n], of these items alone, f64[n].
        """
        amounts = self._amounts(signal, window, scope)
        counts = amounts.counts if rows is None else amounts.counts.take(rows)
        return _rate(counts, amounts.span_ms)

    def acceleration(self, signal: int, window: str, scope: Scope = EVERYBODY) -> F64:
        """Velocity now minus velocity one window ago, f64[items]."""
        now = self._amounts(signal, window, scope)
        before = self._amounts(signal, window, scope, windows_ago=-1)
        return _rate(now.counts, now.span_ms) - _rate(before.counts, before.span_ms)

    def mean(self, signal: int, window: str, scope: Scope = EVERYBODY) -> F64:
        """Mean weight by item, f64[items]; 0 where nothing was counted."""
        amounts = self._amounts(signal, window, scope)
        counts = amounts.counts.astype(np.int64, copy=False)
        return np.divide(amounts.summed(), counts * WEIGHT_SCALE, out=np.zeros(len(counts)), where=counts > 0)

    def decayed(self, signal: int, score: str, scope: Scope, rows: U32, aged_to_ms: int) -> F64:
        """One of the signal's decayed scores (``Decay.scores``) of the items ``rows`` u32[n], f64[n].

        Exact now and for everybody: for a cohort, for a past time and for linear decay it comes from buckets,
        see ``queryd.hot.fading``.

        Args:
            aged_to_ms: the time that accumulators are read at: a later page ages by the first one's clock.
        """
        decay = self._hot.schema.signal_list[signal].decay
        if decay.kind == "none":
            return self.sums(signal, ALL_TIME_WINDOW, scope)[rows] / WEIGHT_SCALE
        if decay.kind == "linear":
            return self._decays.linear(signal, decay.lifetime_ms, scope)[rows]
        half_life_ms = decay.half_lives_ms[decay.labels.index(score)]
        return self._decays.exponential(signal, half_life_ms, scope, rows, aged_to_ms)

    def past(self, signal: int, window: str, scope: Scope) -> PastSums:
        """What the window held at the same hour of earlier days, by item; for ``WINDOWS_WITH_PAST``.

        Read once for each query: whoever asks again is told the same.
        """
        key = (signal, window, scope)
        if key not in self._pasts:
            self._pasts[key] = self._hot.history.read(self._buckets, signal, window, scope)
        return self._pasts[key]

    @property
    def estimator(self) -> Estimator:
        """The least exact way in which anything was counted so far."""
        return "exact" if self._cohorts is None else self._cohorts.estimator

    def error_bound(self, items: U32) -> float | None:
        """How far, relatively, counts of a cohort of these items may be from the truth; 0 when all are exact.

        None when no cohort was counted.
        """
        if self._cohorts is None or not self._cohorts.used:
            return None
        return self._cohorts.relative_bound(items)

    def choice(self, signal: int, window: str, scope: Scope) -> Choice | None:
        """How the counts of a cohort would be answered; None for everybody's."""
        if self._cohorts is None or scope.cohort is None:
            return None
        return self._cohorts.choose(self._count(signal, window, scope, 0))

    def cohort_mask(self, scope: Scope) -> Mask | None:
        """The profiles of a cohort, bool[profiles]; None for everybody."""
        return self._buckets.cohort_mask(scope)

    def of_items(self, signal: int, window: str, scope: Scope, items: Mask, windows_ago: int = 0) -> Amount:
        """What the items marked in bool[items] have together, summed from their cells."""
        if window == ALL_TIME_WINDOW:
            return self._all_time_of(signal, scope, items)
        span_ms = WINDOWS[window].duration_ms
        mask, cube = self.cohort_mask(scope), self._buckets.cube(scope)
        wanted = self._buckets.kept(self._buckets.range_of(window), windows_ago, cube)
        if cube.is_hot(wanted):
            return Amount(
                *cube.history(signal, items, wanted, mask), span_ms, _coarser(window, wanted.unit_ms)
            )
        pieces, read = self._buckets.in_window(signal, window, scope, windows_ago, items)
        count = sum(int(piece.cells.count.sum()) for piece in pieces)
        total = sum(int(piece.cells.sum.sum()) for piece in pieces)
        return Amount(count, total, max(span_ms, read), _coarser(window, read))

    def decays_of(self, signal: int, scope: Scope, items: Mask) -> tuple[dict[str, float], int]:
        """The decayed scores by name of the items marked in bool[items] together, and their resolution.

        That is the length in ms of the longest bucket that they were summed from, 0 when they are exact.
        """
        decay = self._hot.schema.signal_list[signal].decay
        if decay.kind == "none":
            amount = self._all_time_of(signal, scope, items)
            return dict.fromkeys(decay.scores, amount.sum / WEIGHT_SCALE), amount.resolution_ms
        self._decays.resolution_ms = 0
        if decay.kind == "linear":
            score = float(self._decays.linear_of(signal, decay.lifetime_ms, scope, items).sum())
            scores = dict.fromkeys(decay.scores, score)
        else:
            scores = self._decays.exponential_of(signal, scope, items)
        return scores, self._decays.resolution_ms

    def buckets(self, window: str, scope: Scope) -> BucketRange:
        """The buckets that ``of_items`` counts for a window."""
        return self._buckets.kept(self._buckets.range_of(window), 0, self._buckets.cube(scope))

    def warnings(self) -> list[str]:
        """What a reply must say of what was read so far."""
        found: list[str] = []
        if self._buckets.used_cold:
            found.append("counts of that time were read from the cold tier, exact at the hour")
        if self._buckets.used_hours:
            found.append("minutes of that time are merged: 1h is the hour that holds it")
        if self._buckets.used_days:
            found.append("hours of that time are merged: exact at the day, windows are whole days")
        if self._decays.from_buckets:
            length = "day" if self._buckets.used_days else "hour"
            found.append(f"decayed scores were summed from buckets: events are placed to the {length}")
        return found

    # -- windows ------------------------------------------------------------------------------------

    def _amounts(self, signal: int, window: str, scope: Scope, windows_ago: int = 0) -> _Amounts:
        """Counts and sums of every item."""
        if window == ALL_TIME_WINDOW:
            return self._all_time(signal, scope)
        cube, mask, span_ms = self._buckets.cube(scope), self.cohort_mask(scope), WINDOWS[window].duration_ms
        wanted, label = self._range(window, scope, windows_ago)
        if self._is_estimated(signal, window, scope, windows_ago):
            everybody = self._amounts(signal, window, EVERYBODY, windows_ago)
            return self._estimated(signal, window, scope, windows_ago, everybody)
        if cube.is_hot(wanted):
            wide = partial(self._ask_whole, signal, window, scope, windows_ago)
            standing = cube.standing(signal, wanted, mask, scope.cohort, label, wide=wide)
        else:
            pieces, read = self._buckets.in_window(signal, window, scope, windows_ago, None)
            span_ms = max(span_ms, read)
            standing = cube.frozen(wanted, [piece.cells for piece in pieces])
        return _Amounts(self._counts_of(standing), partial(self._sums_of, standing), span_ms, standing)

    def _range(self, window: str, scope: Scope, windows_ago: int) -> tuple[BucketRange, str]:
        """The buckets of a window, and the label of its standing sums."""
        if window == ALL_TIME_WINDOW:
            return ALL_TIME, ALL_TIME_WINDOW
        wanted = self._buckets.range_of(window)
        label = f"{window}{windows_ago:+d}" if windows_ago else window
        if wanted != bucket_range(window, self._buckets.now_ms):
            label = f"{label}@{wanted.high}"
        return self._buckets.kept(wanted, windows_ago, self._buckets.cube(scope)), label

    # -- estimates ----------------------------------------------------------------------------------

    def _count(self, signal: int, window: str, scope: Scope, windows_ago: int) -> Count:
        assert scope.cohort is not None, "everybody's counts are never estimated"
        return Count(signal, *self._range(window, scope, windows_ago), scope.cohort)

    def _ask_whole(self, signal: int, window: str, scope: Scope, windows_ago: int) -> None:
        """Have the sum of all profiles made, which spares the next wide cohort most of its cells."""
        if self._cohorts is not None and scope.cohort is not None and not self._buckets.in_past:
            count = self._count(signal, window, scope, windows_ago)
            self._cohorts.ask_whole(count, self._moving(window, windows_ago, count.wanted))

    def _moving(self, window: str, windows_ago: int, wanted: BucketRange) -> Callable[[int], BucketRange]:
        """The same buckets as of another time in epoch ms; those of a past time stay where they are."""

        def moved(now_ms: int) -> BucketRange:
            return bucket_range(window, now_ms).shifted(windows_ago)

        return moved if moved(self._buckets.now_ms) == wanted else lambda _: wanted

    def _is_estimated(self, signal: int, window: str, scope: Scope, windows_ago: int) -> bool:
        if self._cohorts is None or scope.cohort is None:
            return False
        return self._cohorts.decide(self._count(signal, window, scope, windows_ago)).estimator != "exact"

    def _estimated(
        self, signal: int, window: str, scope: Scope, windows_ago: int, everybody: _Amounts
    ) -> _Amounts:
        """Whole counts nearest to the estimates; sums as if the cohort's weights were everybody's."""
        assert self._cohorts is not None
        count = self._count(signal, window, scope, windows_ago)
        moving = self._moving(window, windows_ago, count.wanted)
        found = self._cohorts.estimate(count, everybody.counts.astype(np.int64), moving)
        counts = np.rint(found.counts).astype(np.int64)
        return _Amounts(counts, partial(_proportional, everybody, counts), everybody.span_ms)

    # -- all time -----------------------------------------------------------------------------------

    def _all_time(self, signal: int, scope: Scope) -> _Amounts:
        """All events, or all up to the hour read at: those of today less those that came after."""
        if scope.cohort is None:
            counts: Counts = self._hot.total_counts(signal)
            summed: Callable[[], I64] = partial(self._hot.total_sums, signal)
        elif self._is_estimated(signal, ALL_TIME_WINDOW, scope, 0):
            everybody = _Amounts(self._hot.total_counts(signal), partial(self._hot.total_sums, signal), 0)
            found = self._estimated(signal, ALL_TIME_WINDOW, scope, 0, everybody)
            counts, summed = found.counts, found.summed
        else:
            cube, mask = self._buckets.cube(scope), self.cohort_mask(scope)
            standing = cube.standing(signal, ALL_TIME, mask, scope.cohort, ALL_TIME_WINDOW)
            counts, summed = self._counts_of(standing), partial(self._sums_of, standing)
        if not self._buckets.in_past:
            return _Amounts(counts, summed, 0)
        later = self._buckets.cube(scope).frozen(
            ALL_TIME, [piece.cells for piece in self._later(signal, scope, None)]
        )
        counts = np.subtract(counts, self._counts_of(later), dtype=np.int64)
        return _Amounts(counts, lambda: summed() - self._sums_of(later), 0)

    def _all_time_of(self, signal: int, scope: Scope, items: Mask) -> Amount:
        if scope.cohort is None:
            held = items[: len(self._hot.items)]
            columns = (self._hot.total_counts(signal), self._hot.total_sums(signal))
            count, total = (int(column[held].sum()) for column in columns)
        else:
            count, total = self._buckets.cube(scope).history(signal, items, ALL_TIME, self.cohort_mask(scope))
        if not self._buckets.in_past:
            return Amount(count, total, 0, 0)
        later = self._later(signal, scope, items)
        count -= sum(int(piece.cells.count.sum()) for piece in later)
        total -= sum(int(piece.cells.sum.sum()) for piece in later)
        return Amount(count, total, 0, DAY_MS if self._day_is_whole(signal, scope, items) else HOUR_MS)

    def _later(self, signal: int, scope: Scope, items: Mask | None) -> list[Piece]:
        """The cells of the hours after the one read at; a day kept whole belongs to its first hour."""
        at_hour = self.at_ms // HOUR_MS
        pieces = self._buckets.pieces(signal, since(at_hour + 1), scope, items)
        later = [piece for piece in pieces if piece.start_ms // HOUR_MS > at_hour]
        self._buckets.used_days |= len(later) < len(pieces)
        return later

    def _day_is_whole(self, signal: int, scope: Scope, items: Mask) -> bool:
        hour = self.at_ms // HOUR_MS
        pieces = self._buckets.pieces(signal, BucketRange(False, hour, hour), scope, items)
        return any(piece.length_ms == DAY_MS for piece in pieces)

    def _counts_of(self, standing: StandingSum) -> Counts:
        standing.widen(len(self._hot.items))
        return standing.counts[: len(self._hot.items)]

    def _sums_of(self, standing: StandingSum) -> I64:
        standing.widen(len(self._hot.items))
        return standing.sums[: len(self._hot.items)]


def _proportional(everybody: _Amounts, counts: I64) -> I64:
    """Sums in micro-units, i64[items], of ``counts`` events with everybody's mean weight."""
    held = everybody.counts > 0
    means = np.divide(everybody.summed(), everybody.counts, out=np.zeros(len(counts)), where=held)
    sums: I64 = np.rint(means * counts).astype(np.int64)
    return sums


def _rate(counts: Counts, span_ms: int) -> F64:
    return counts.astype(np.float64) if not span_ms else counts / (span_ms / 1000)


def _coarser(window: str, read_ms: int) -> int:
    """Length in ms of the buckets that a window was counted in: its own, or longer ones that were read."""
    return max(WINDOWS[window].bucket_ms, read_ms)

"""Aggregates of a signal by item, at the scope of everybody or of a cohort: one arithmetic for both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from queryd.hot import fading
from queryd.hot.arrays import F64, I64, U32, Mask, lengthened
from queryd.hot.cold import ColdTier, of_items
from queryd.hot.columns import HotColumns
from queryd.hot.cube import ALL_TIME, BucketRange, CountCube, Piece, since
from queryd.hot.fading import HALVINGS_MAX
from schemas.durations import ALL_TIME as ALL_TIME_WINDOW
from schemas.durations import DAY_MS, HOUR_MS, MINUTE_MS, WINDOWS
from schemas.predicate import Predicate
from schemas.weights import WEIGHT_SCALE

_HOURS_IN_DAY = 24
_MINUTES_IN_HOUR = 60
_BY_MINUTE_MS_MAX = 2 * HOUR_MS  # minutes are kept for three hours


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
class Amount:
    """Count, sum in micro-units, the time in ms that they were counted over (0: all), and the length in ms of
    the buckets that they are exact at (0: to the event)."""

    count: int
    sum: int
    span_ms: int
    resolution_ms: int


@dataclass(frozen=True, slots=True)
class _Amounts:
    """counts i64[items], sums i64[items] in micro-units, and the time in ms that they were counted over."""

    counts: I64
    sums: I64
    span_ms: int


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
        self.used_days = False
        self.decayed_from_buckets = False
        self._resolution_ms = 0

    def counts(self, signal: int, window: str, scope: Scope = EVERYBODY) -> I64:
        """count(window) by item, i64[items]."""
        return self._amounts(signal, window, scope).counts

    def sums(self, signal: int, window: str, scope: Scope = EVERYBODY) -> I64:
        """Sum of weights by item in micro-units, i64[items]."""
        return self._amounts(signal, window, scope).sums

    def velocity(self, signal: int, window: str, scope: Scope = EVERYBODY) -> F64:
        """count / duration in events per second by item, f64[items]; for all_time the count itself."""
        amounts = self._amounts(signal, window, scope)
        return _rate(amounts.counts, amounts.span_ms)

    def acceleration(self, signal: int, window: str, scope: Scope = EVERYBODY) -> F64:
        """Velocity now minus velocity one window ago, f64[items]."""
        now = self._amounts(signal, window, scope)
        before = self._amounts(signal, window, scope, windows_ago=-1)
        return _rate(now.counts, now.span_ms) - _rate(before.counts, before.span_ms)

    def mean(self, signal: int, window: str, scope: Scope = EVERYBODY) -> F64:
        """Mean weight by item, f64[items]; 0 where nothing was counted."""
        amounts = self._amounts(signal, window, scope)
        counts = amounts.counts
        return np.divide(amounts.sums, counts * WEIGHT_SCALE, out=np.zeros(len(counts)), where=counts > 0)

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
            return self._linear(signal, decay.lifetime_ms, scope)[rows]
        half_life_ms = decay.half_lives_ms[decay.labels.index(score)]
        columns = self._hot.decayed[signal]
        exact = self._accumulated(signal, scope, rows)
        scores = np.zeros(len(rows), dtype=np.float64)
        scores[exact] = columns.scores(rows[exact], half_life_ms, aged_to_ms)
        if not exact.all():
            scores[~exact] = self._exponential(signal, half_life_ms, scope, None)[rows[~exact]]
        return scores

    def cohort_mask(self, scope: Scope) -> Mask | None:
        """The profiles of a cohort, bool[profiles]; None for everybody."""
        return None if scope.cohort is None else self._hot.profiles.mask(scope.cohort)

    def of_items(self, signal: int, window: str, scope: Scope, items: Mask, windows_ago: int = 0) -> Amount:
        """What the items marked in bool[items] have together, summed from their cells."""
        if window == ALL_TIME_WINDOW:
            return self._all_time_of(signal, scope, items)
        span_ms = WINDOWS[window].duration_ms
        mask, cube = self.cohort_mask(scope), self._cube(scope)
        wanted = self._kept(self._range(window), windows_ago, cube)
        if cube.is_hot(wanted):
            return Amount(
                *cube.history(signal, items, wanted, mask), span_ms, _coarser(window, wanted.unit_ms)
            )
        pieces, read = self._in_window(signal, window, scope, windows_ago, items)
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
        if decay.kind == "linear":
            score = float(self._linear_of(signal, decay.lifetime_ms, scope, items).sum())
            return dict.fromkeys(decay.scores, score), self._resolution_ms
        rows = np.flatnonzero(items).astype(np.uint32)
        exact = self._accumulated(signal, scope, rows)
        late = np.zeros(len(items), dtype=np.bool_)
        late[rows[~exact]] = True
        columns, self._resolution_ms = self._hot.decayed[signal], 0
        scores = {
            name: float(columns.scores(rows[exact], half_life_ms, self.at_ms).sum())
            for name, half_life_ms in zip(decay.labels, decay.half_lives_ms, strict=True)
        }
        if late.any():
            for name, half_life_ms in zip(decay.labels, decay.half_lives_ms, strict=True):
                scores[name] += float(self._exponential(signal, half_life_ms, scope, late).sum())
        return scores, self._resolution_ms

    def buckets(self, window: str, scope: Scope) -> BucketRange:
        """The buckets that ``of_items`` counts for a window."""
        return self._kept(self._range(window), 0, self._cube(scope))

    def warnings(self) -> list[str]:
        """What a reply must say of what was read so far."""
        found: list[str] = []
        if self.used_cold:
            found.append("counts of that time were read from the cold tier, exact at the hour")
        if self.used_hours:
            found.append("minutes of that time are merged: 1h is the hour that holds it")
        if self.used_days:
            found.append("hours of that time are merged: exact at the day, windows are whole days")
        if self.decayed_from_buckets:
            length = "day" if self.used_days else "hour"
            found.append(f"decayed scores were summed from buckets: events are placed to the {length}")
        return found

    # -- windows ------------------------------------------------------------------------------------

    def _amounts(self, signal: int, window: str, scope: Scope, windows_ago: int = 0) -> _Amounts:
        """Counts and sums of every item."""
        if window == ALL_TIME_WINDOW:
            return self._all_time(signal, scope)
        wanted = self._range(window)
        current = bucket_range(window, self._now_ms)
        label = f"{window}{windows_ago:+d}" if windows_ago else window
        if wanted != current:
            label = f"{label}@{wanted.high}"
        cube, mask, span_ms = self._cube(scope), self.cohort_mask(scope), WINDOWS[window].duration_ms
        wanted = self._kept(wanted, windows_ago, cube)
        if cube.is_hot(wanted):
            standing = cube.standing(signal, wanted, mask, scope.cohort, label)
        else:
            pieces, read = self._in_window(signal, window, scope, windows_ago, None)
            span_ms = max(span_ms, read)
            standing = cube.frozen(wanted, [piece.cells for piece in pieces])
        return _Amounts(self._sized(standing.counts), self._sized(standing.sums), span_ms)

    def _in_window(
        self, signal: int, window: str, scope: Scope, windows_ago: int, items: Mask | None
    ) -> tuple[list[Piece], int]:
        """The pieces of a window that begins before the hot hours, and the length of the longest in ms.

        Where hours are merged into days, a window is as many whole days as it lasts, at least one, up to the
        one that holds its last hour.
        """
        cube = self._cube(scope)
        wanted = self._kept(self._range(window), windows_ago, cube)
        pieces = self._pieces(signal, wanted, scope, items)
        if all(piece.length_ms < DAY_MS for piece in pieces):
            return pieces, HOUR_MS
        self.used_days = True
        hours = wanted.high - wanted.low + 1
        last = wanted.high // _HOURS_IN_DAY
        if windows_ago and hours < _HOURS_IN_DAY:
            last = self._range(window).high // (_MINUTES_IN_HOUR if self._range(window).minutes else 1)
            last = last // _HOURS_IN_DAY + windows_ago
            wanted = BucketRange(False, last * _HOURS_IN_DAY, (last + 1) * _HOURS_IN_DAY - 1)
            pieces = self._pieces(signal, wanted, scope, items)
        first = last - -(-hours // _HOURS_IN_DAY) + 1
        kept = [
            piece for piece in pieces if piece.length_ms < DAY_MS or first <= piece.start_ms // DAY_MS <= last
        ]
        return kept, DAY_MS

    def _pieces(self, signal: int, wanted: BucketRange, scope: Scope, items: Mask | None) -> list[Piece]:
        """The cells of a range of hours: hot ones from memory, those before from the tables."""
        cube, mask = self._cube(scope), self.cohort_mask(scope)
        hot = BucketRange(wanted.minutes, max(wanted.low, cube.horizon_hour), wanted.high)
        if wanted.minutes or hot.low == wanted.low:
            found = cube.pieces(signal, wanted, mask)
            return found if items is None else _of_items(found, items)
        self.used_cold = True
        old = BucketRange(False, wanted.low, min(wanted.high, hot.low - 1))
        by_profile = scope.cohort is not None
        found = self._cold.pieces(signal, old, mask, by_profile=by_profile, items=items)
        if hot.low <= hot.high:
            recent = cube.pieces(signal, hot, mask)
            found += recent if items is None else _of_items(recent, items)
        return found

    # -- all time -----------------------------------------------------------------------------------

    def _all_time(self, signal: int, scope: Scope) -> _Amounts:
        """All events, or all up to the hour read at: those of today less those that came after."""
        if scope.cohort is None:
            counts, sums = self._hot.total_counts(signal), self._hot.total_sums(signal)
        else:
            cube, mask = self._cube(scope), self.cohort_mask(scope)
            standing = cube.standing(signal, ALL_TIME, mask, scope.cohort, ALL_TIME_WINDOW)
            counts, sums = self._sized(standing.counts), self._sized(standing.sums)
        if self._in_past():
            later = self._cube(scope).frozen(
                ALL_TIME, [piece.cells for piece in self._later(signal, scope, None)]
            )
            counts, sums = counts - self._sized(later.counts), sums - self._sized(later.sums)
        return _Amounts(counts, sums, 0)

    def _all_time_of(self, signal: int, scope: Scope, items: Mask) -> Amount:
        if scope.cohort is None:
            held = items[: len(self._hot.items)]
            columns = (self._hot.total_counts(signal), self._hot.total_sums(signal))
            count, total = (int(column[held].sum()) for column in columns)
        else:
            count, total = self._cube(scope).history(signal, items, ALL_TIME, self.cohort_mask(scope))
        if not self._in_past():
            return Amount(count, total, 0, 0)
        later = self._later(signal, scope, items)
        count -= sum(int(piece.cells.count.sum()) for piece in later)
        total -= sum(int(piece.cells.sum.sum()) for piece in later)
        return Amount(count, total, 0, DAY_MS if self._day_is_whole(signal, scope, items) else HOUR_MS)

    def _later(self, signal: int, scope: Scope, items: Mask | None) -> list[Piece]:
        """The cells of the hours after the one read at; a day kept whole belongs to its first hour."""
        at_hour = self.at_ms // HOUR_MS
        pieces = self._pieces(signal, since(at_hour + 1), scope, items)
        later = [piece for piece in pieces if piece.start_ms // HOUR_MS > at_hour]
        self.used_days |= len(later) < len(pieces)
        return later

    def _day_is_whole(self, signal: int, scope: Scope, items: Mask) -> bool:
        hour = self.at_ms // HOUR_MS
        pieces = self._pieces(signal, BucketRange(False, hour, hour), scope, items)
        return any(piece.length_ms == DAY_MS for piece in pieces)

    # -- decay --------------------------------------------------------------------------------------

    def _accumulated(self, signal: int, scope: Scope, rows: U32) -> Mask:
        """Which items' accumulators tell the score at the time read at: those without a later event."""
        if scope.cohort is not None:
            return np.zeros(len(rows), dtype=np.bool_)
        if self.at_ms >= self._now_ms:
            return np.ones(len(rows), dtype=np.bool_)
        held: Mask = self._hot.decayed[signal].newest(rows) <= self.at_ms
        return held

    def _exponential(self, signal: int, half_life_ms: int, scope: Scope, items: Mask | None) -> F64:
        """Scores of all items (or of those in bool[items]) from buckets, f64[items]."""
        cube = self._cube(scope)
        first = (self.at_ms - HALVINGS_MAX * half_life_ms) // HOUR_MS
        hours = self._pieces(signal, BucketRange(False, first, self.at_ms // HOUR_MS), scope, items)
        # To the end of the hour: what is known to have come after the time read at is taken out again.
        end = (self.at_ms // HOUR_MS + 1) * _MINUTES_IN_HOUR - 1
        known = BucketRange(True, max(first * _MINUTES_IN_HOUR, cube.horizon_minute), end)
        minutes = self._pieces(signal, known, scope, items) if known.low <= end else []
        self._note(hours, HOUR_MS)
        return fading.exponential(hours, minutes, self.at_ms, half_life_ms, self._items(cube))

    def _linear(self, signal: int, lifetime_ms: int, scope: Scope) -> F64:
        """Linear scores of every item: a standing sum of whole buckets, and the one that is leaving."""
        cube, mask = self._cube(scope), self.cohort_mask(scope)
        by_minute = lifetime_ms <= min(_BY_MINUTE_MS_MAX, self._hot.schema.limits.late_minute_horizon_ms)
        unit_ms = MINUTE_MS if by_minute else HOUR_MS
        leaving = (self.at_ms - lifetime_ms) // unit_ms
        cut = BucketRange(by_minute, leaving, leaving)
        if self.at_ms < self._now_ms or not cube.is_hot(cut):
            return self._linear_of(signal, lifetime_ms, scope, None)
        inside = BucketRange(by_minute, leaving + 1, self.at_ms // unit_ms)
        standing = cube.standing(signal, inside, mask, scope.cohort, "linear", timed=True)
        rest = fading.linear(cube.pieces(signal, cut, mask), self.at_ms, lifetime_ms, self._items(cube))
        rest[: len(standing.sums)] += fading.linear_of_sum(standing, self.at_ms, lifetime_ms)
        return rest

    def _linear_of(self, signal: int, lifetime_ms: int, scope: Scope, items: Mask | None) -> F64:
        """Linear scores of all items (or of those in bool[items]) from buckets, f64[items]."""
        cube = self._cube(scope)
        wanted = BucketRange(False, (self.at_ms - lifetime_ms) // HOUR_MS, self.at_ms // HOUR_MS)
        pieces = self._pieces(signal, wanted, scope, items)
        self._resolution_ms = 0
        self._note(pieces, HOUR_MS)
        return fading.linear(pieces, self.at_ms, lifetime_ms, self._items(cube))

    def _note(self, pieces: Sequence[Piece], least_ms: int) -> None:
        """Remember how long the buckets were that a score was summed from."""
        longest = max((piece.length_ms for piece in pieces), default=least_ms)
        self._resolution_ms = max(self._resolution_ms, least_ms, longest)
        self.used_days |= longest == DAY_MS
        self.decayed_from_buckets = True

    # -- ranges -------------------------------------------------------------------------------------

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

    def _items(self, cube: CountCube) -> int:
        return max(len(self._hot.items), cube.items)


def velocity(counts: I64 | F64, window: str) -> F64:
    """counts / duration of the window in seconds; for all_time the counts as they are."""
    return _rate(counts, WINDOWS[window].duration_ms)


def _rate(counts: I64 | F64, span_ms: int) -> F64:
    return counts.astype(np.float64) if not span_ms else counts / (span_ms / 1000)


def _coarser(window: str, read_ms: int) -> int:
    """Length in ms of the buckets that a window was counted in: its own, or longer ones that were read."""
    return max(WINDOWS[window].bucket_ms, read_ms)


def _of_items(pieces: Sequence[Piece], items: Mask) -> list[Piece]:
    chosen = [Piece(piece.start_ms, piece.length_ms, of_items(piece.cells, items)) for piece in pieces]
    return [piece for piece in chosen if len(piece.cells)]

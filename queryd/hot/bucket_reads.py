"""Cells of any range of buckets for one request: from memory where they are hot, from the tables before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from queryd.hot.arrays import Mask
from queryd.hot.cold import ColdTier, of_items
from queryd.hot.columns import HotColumns
from queryd.hot.cube import ALL_TIME, BucketRange, CountCube, Piece
from schemas.durations import DAY_MS, HOUR_MS, MINUTE_MS, WINDOWS
from schemas.predicate import Predicate

HOURS_IN_DAY = 24
MINUTES_IN_HOUR = 60


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
        first = (at_ms // DAY_MS - declared.buckets + 1) * HOURS_IN_DAY
        return BucketRange(False, first, first + declared.buckets * HOURS_IN_DAY - 1)
    last = at_ms // HOUR_MS
    return BucketRange(False, last - declared.buckets + 1, last)


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose events are counted: everybody's (None), or those of users in a cohort at event time."""

    cohort: Predicate | None = None


EVERYBODY = Scope()


class BucketReads:
    """What one request reads of buckets: the same time throughout.

    Args:
        now_ms: the time that running windows follow.
        at_ms: the time read at; earlier than ``now_ms`` for a past time.
    """

    def __init__(self, hot: HotColumns, cold: ColdTier, now_ms: int, at_ms: int) -> None:
        self.hot = hot
        self._cold = cold
        self.now_ms = now_ms
        self.at_ms = at_ms
        self.used_cold = False
        self.used_hours = False
        self.used_days = False

    def cohort_mask(self, scope: Scope) -> Mask | None:
        """The profiles of a cohort, bool[profiles]; None for everybody."""
        return None if scope.cohort is None else self.hot.profiles.mask(scope.cohort)

    def cube(self, scope: Scope) -> CountCube:
        """The cells of a scope."""
        return self.hot.everybody if scope.cohort is None else self.hot.by_profile

    @property
    def in_past(self) -> bool:
        """Whether the hour read at is over."""
        return self.at_ms // HOUR_MS < self.now_ms // HOUR_MS

    def pieces(self, signal: int, wanted: BucketRange, scope: Scope, items: Mask | None) -> list[Piece]:
        """The cells of a range of hours: hot ones from memory, those before from the tables."""
        cube, mask = self.cube(scope), self.cohort_mask(scope)
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

    def in_window(
        self, signal: int, window: str, scope: Scope, windows_ago: int, items: Mask | None
    ) -> tuple[list[Piece], int]:
        """The pieces of a window that begins before the hot hours, and the length of the longest in ms.

        Where hours are merged into days, a window is as many whole days as it lasts, at least one, up to the
        one that holds its last hour.
        """
        cube = self.cube(scope)
        wanted = self.kept(self.range_of(window), windows_ago, cube)
        pieces = self.pieces(signal, wanted, scope, items)
        if all(piece.length_ms < DAY_MS for piece in pieces):
            return pieces, HOUR_MS
        self.used_days = True
        hours = wanted.high - wanted.low + 1
        last = wanted.high // HOURS_IN_DAY
        if windows_ago and hours < HOURS_IN_DAY:
            last = self.at_ms // DAY_MS + windows_ago
            wanted = BucketRange(False, last * HOURS_IN_DAY, (last + 1) * HOURS_IN_DAY - 1)
            pieces = self.pieces(signal, wanted, scope, items)
        first = last - -(-hours // HOURS_IN_DAY) + 1
        kept = [
            piece for piece in pieces if piece.length_ms < DAY_MS or first <= piece.start_ms // DAY_MS <= last
        ]
        return kept, DAY_MS

    def range_of(self, window: str) -> BucketRange:
        """The buckets of a window at the time read at."""
        wanted = bucket_range(window, self.at_ms)
        if wanted == ALL_TIME and self.in_past:
            return BucketRange(False, ALL_TIME.low, self.at_ms // HOUR_MS)
        return wanted

    def kept(self, wanted: BucketRange, windows_ago: int, cube: CountCube) -> BucketRange:
        """The range, some windows earlier; in whole hours where its minutes are merged into them."""
        wanted = wanted.shifted(windows_ago) if windows_ago else wanted
        if wanted.minutes and not cube.is_hot(wanted):
            self.used_hours = True
            return BucketRange(False, wanted.high // MINUTES_IN_HOUR, wanted.high // MINUTES_IN_HOUR)
        return wanted


def _of_items(pieces: Sequence[Piece], items: Mask) -> list[Piece]:
    chosen = [Piece(piece.start_ms, piece.length_ms, of_items(piece.cells, items)) for piece in pieces]
    return [piece for piece in chosen if len(piece.cells)]

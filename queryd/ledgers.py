"""Ledgers: what a signal has amounted to for one item, or for all items of a creator."""

from __future__ import annotations

import numpy as np

from queryd.errors import QueryError, nearest_name
from queryd.hot.arrays import Mask
from queryd.hot.columns import HotColumns
from queryd.hot.distinct import NOT_KEPT, DistinctUsers, UsersRead
from queryd.hot.reads import Scope, SignalReads
from queryd.reply import LedgerOut, TotalsOut, WindowOut
from schemas.durations import ALL_TIME, WINDOWS
from schemas.model import SignalDef
from schemas.weights import WEIGHT_SCALE


class Ledgers:
    """Assembles ledgers from one query's reads.

    Args:
        items: bool[items], the item, or all items of the creator.
        users: distinct users of the same items.
        cohort: the cohort as it was asked for, None for everybody.
    """

    def __init__(
        self,
        hot: HotColumns,
        reads: SignalReads,
        items: Mask,
        users: DistinctUsers,
        scope: Scope,
        cohort: str | None,
    ) -> None:
        self._hot = hot
        self._reads = reads
        self._items = items
        self._users = users
        self._scope = scope
        self._cohort = cohort

    def of(self, id_: str, signal: SignalDef, window: str | None) -> LedgerOut:
        """One signal's ledger, of one window or of all that the signal declares.

        Raises:
            QueryError: the signal has no such window.
        """
        windows = [name for name in signal.windows if name != ALL_TIME]
        if window is not None and window != ALL_TIME:
            if window not in windows:
                raise QueryError(
                    f"the signal {signal.name!r} has no window {window!r}",
                    expected=windows,
                    nearest=nearest_name(window, windows),
                )
            windows = [window]
        index = self._hot.schema.signal_index[signal.name]
        all_time = self._all_time(signal, with_users=window in (None, ALL_TIME))
        # From the longest on: its days hold those of the others.
        found = {name: self._window(signal, name) for name in reversed(windows)}
        return LedgerOut(
            id=id_,
            signal=signal.name,
            at=self._reads.at_ms,
            cohort=self._cohort,
            estimator="exact",
            all_time=all_time,
            windows={name: found[name] for name in windows},
            decay=self._decay(index, signal),
        )

    def _all_time(self, signal: SignalDef, *, with_users: bool) -> TotalsOut:
        index = self._hot.schema.signal_index[signal.name]
        count, total = self._reads.of_items(index, ALL_TIME, self._scope, self._items)
        if not with_users:
            return TotalsOut(count, total / WEIGHT_SCALE)
        users = self._distinct(signal, ALL_TIME)
        return TotalsOut(count, total / WEIGHT_SCALE, users.users, users.standard_error, users.estimator)

    def _window(self, signal: SignalDef, window: str) -> WindowOut:
        index = self._hot.schema.signal_index[signal.name]
        count, total = self._reads.of_items(index, window, self._scope, self._items)
        before, _ = self._reads.of_items(index, window, self._scope, self._items, windows_ago=-1)
        users = self._distinct(signal, window)
        seconds = WINDOWS[window].duration_ms / 1000
        return WindowOut(
            count=count,
            sum=total / WEIGHT_SCALE,
            mean=total / (count * WEIGHT_SCALE) if count else None,
            velocity=count / seconds,
            acceleration=(count - before) / seconds,
            users=users.users,
            users_error=users.standard_error,
            users_estimator=users.estimator,
        )

    def _distinct(self, signal: SignalDef, window: str) -> UsersRead:
        if not signal.distinct_users:
            return NOT_KEPT
        index = self._hot.schema.signal_index[signal.name]
        wanted = self._reads.buckets(window, self._scope)
        return self._users.count(index, wanted, self._reads.cohort_mask(self._scope))

    def _decay(self, index: int, signal: SignalDef) -> dict[str, float]:
        """Decayed scores of everybody; none for a cohort, and none for a past that later events are in."""
        columns = self._hot.decayed[index]
        rows = np.flatnonzero(self._items).astype(np.uint32)
        newest = columns.newest(rows)
        if self._scope.cohort is not None or self._reads.at_ms < newest - _CLOCK_SKEW_MS:
            return {}
        return {
            label: float(columns.scores(rows, half_life_ms, self._reads.at_ms).sum())
            for label, half_life_ms in zip(signal.decay.labels, signal.decay.half_lives_ms, strict=True)
        }


_CLOCK_SKEW_MS = 300_000  # events may lie a little after the reader's clock; the formula holds there too

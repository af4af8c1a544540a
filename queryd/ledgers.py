"""Ledgers: what a signal has amounted to for one item, or for all items of a creator."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from queryd.errors import QueryError, nearest_name
from queryd.hot.arrays import Mask
from queryd.hot.bucket_reads import Scope
from queryd.hot.columns import HotColumns
from queryd.hot.cube import BucketRange
from queryd.hot.distinct import NOT_KEPT, DistinctUsers, UsersRead
from queryd.hot.reads import Amount, SignalReads
from queryd.reply import Ledger, Resolution, Totals, WindowTotals
from schemas.durations import ALL_TIME, DAY_MS, HOUR_MS, MINUTE_MS
from schemas.model import SignalDef
from schemas.weights import WEIGHT_SCALE


def ranges_of_users(
    reads: SignalReads, scope: Scope, signals: Iterable[SignalDef], window: str | None
) -> list[BucketRange]:
    """The ranges in which ledgers of these signals count distinct users."""
    names = {
        name
        for signal in signals
        if signal.distinct_users
        for name in (*signal.windows, ALL_TIME)
        if window in (None, ALL_TIME, name)
    }
    return [reads.buckets(name, scope) for name in sorted(names)]


class Ledgers:
    """Assembles ledgers from one query's reads.

    Args:
        items: bool[items], the item, or all items of the creator.
        users: distinct users of the same items.
        cohort: the cohort as it was asked for, None for everybody.
        warnings: what each ledger must say of it.
    """

    def __init__(
        self,
        hot: HotColumns,
        reads: SignalReads,
        items: Mask,
        users: DistinctUsers,
        scope: Scope,
        cohort: str | None,
        warnings: list[str],
    ) -> None:
        self._hot = hot
        self._reads = reads
        self._items = items
        self._users = users
        self._scope = scope
        self._cohort = cohort
        self._warnings = warnings

    def of(self, id_: str, signal: SignalDef, window: str | None) -> Ledger:
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
        decay, resolution_ms = self._reads.decays_of(index, self._scope, self._items)
        total = self._reads.of_items(index, ALL_TIME, self._scope, self._items)
        all_time = self._all_time(signal, total, with_users=window in (None, ALL_TIME))
        # From the longest on: its days hold those of the others.
        found = {name: self._window(signal, name) for name in reversed(windows)}
        return Ledger(
            id=id_,
            signal=signal.name,
            at=self._reads.at_ms,
            cohort=self._cohort,
            estimator="exact",
            all_time=all_time,
            windows={name: found[name] for name in windows},
            decay=decay,
            resolution=_label(max(resolution_ms, total.resolution_ms)),
            warnings=self._warnings,
        )

    def _all_time(self, signal: SignalDef, total: Amount, *, with_users: bool) -> Totals:
        if not with_users:
            return Totals(total.count, total.sum / WEIGHT_SCALE)
        users = self._distinct(signal, ALL_TIME)
        weight = total.sum / WEIGHT_SCALE
        return Totals(total.count, weight, users.users, users.standard_error, users.estimator)

    def _window(self, signal: SignalDef, window: str) -> WindowTotals:
        index = self._hot.schema.signal_index[signal.name]
        now = self._reads.of_items(index, window, self._scope, self._items)
        before = self._reads.of_items(index, window, self._scope, self._items, windows_ago=-1)
        users = self._distinct(signal, window)
        velocity = now.count * 1000 / now.span_ms
        return WindowTotals(
            count=now.count,
            sum=now.sum / WEIGHT_SCALE,
            mean=now.sum / (now.count * WEIGHT_SCALE) if now.count else None,
            velocity=velocity,
            acceleration=velocity - before.count * 1000 / before.span_ms,
            users=users.users,
            users_error=users.standard_error,
            users_estimator=users.estimator,
            resolution=_label(now.resolution_ms),
        )

    def _distinct(self, signal: SignalDef, window: str) -> UsersRead:
        if not signal.distinct_users:
            return NOT_KEPT
        index = self._hot.schema.signal_index[signal.name]
        wanted = self._reads.buckets(window, self._scope)
        return self._users.count(index, wanted, self._reads.cohort_mask(self._scope))


def _label(resolution_ms: int) -> Resolution:
    """``exact``, or the length of a bucket."""
    return _RESOLUTIONS[resolution_ms]


_RESOLUTIONS: Final[dict[int, Resolution]] = {0: "exact", MINUTE_MS: "1m", HOUR_MS: "1h", DAY_MS: "1d"}

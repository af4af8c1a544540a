"""Keeps the hot columns current: every few milliseconds catches up and applies changes in short slices."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence

from materializers.tables.feed import Change
from queryd.hot.columns import HotColumns
from queryd.hot.loading import Loader
from queryd.hot.tables import Tables

HOT_HOURS = 32 * 24  # the longest window, 30 whole days, and a day of slack for its first
_EXPIRE_EVERY_S = 30.0


class Feeder:
    """Runs on the daemon's loop, never in a thread: a busy thread makes every read ten times slower.

    Args:
        interval_s: pause between catch-ups; one that finds nothing new takes 0.2 ms, any other 0.5 to 3.
        slice_s: longest stretch of work between which queries are served.
        clock_ms: wall clock in epoch ms.
        applied: called after each round with what it brought; wakes those who wait for a position.
    """

    def __init__(
        self,
        tables: Tables,
        hot: HotColumns,
        loader: Loader,
        *,
        clock_ms: Callable[[], int],
        applied: Callable[[], None],
        interval_s: float = 0.015,
        slice_s: float = 0.003,
    ) -> None:
        self._tables = tables
        self._hot = hot
        self._loader = loader
        self._clock_ms = clock_ms
        self._applied = applied
        self._interval_s = interval_s
        self._slice_s = slice_s
        self._expired_s = 0.0
        self.changes_applied = 0
        self.newest_written_ms = 0
        self.loading = ""

    async def load(self) -> None:
        """Read the tables once, at one catch-up point."""
        self._tables.catch_up()
        self._tables.changes()  # older than the scan, which contains them
        self._expire()  # so that old hours are merged as they are read, and never all apart at once
        await self._paced(self._loader.scan())
        self.loading = ""
        self._expire()
        self._applied()

    async def run(self) -> None:
        """Follow the feed until cancelled."""
        while True:
            await self.step()
            await asyncio.sleep(self._interval_s)

    async def step(self) -> None:
        """One round: everything that is written by now is applied when it returns."""
        self._tables.catch_up()
        changes: Sequence[Change] = self._tables.changes()
        await self._paced(self._loader.apply(changes))
        if changes:
            self.changes_applied += len(changes)
            self.newest_written_ms = max(self.newest_written_ms, changes[-1].written_ms)
        if time.monotonic() - self._expired_s > _EXPIRE_EVERY_S:
            self._expire()
        self._applied()

    async def _paced(self, steps: Iterator[str]) -> None:
        """Work off ``steps``, giving the loop to others after each slice."""
        began = time.perf_counter()
        for step in steps:
            self.loading = step
            if time.perf_counter() - began > self._slice_s:
                await asyncio.sleep(0)
                began = time.perf_counter()

    def _expire(self) -> None:
        now_ms = self._clock_ms()
        self._hot.everybody.expire(now_ms, HOT_HOURS)
        self._hot.by_profile.expire(now_ms, HOT_HOURS)
        self._expired_s = time.monotonic()

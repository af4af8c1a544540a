"""What happens by itself: transaction time-outs, retention, compaction, forgetting idle producers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from streams.embedded.broker import Broker, now_ms
from streams.embedded.cleaner import Cleaner

logger = logging.getLogger(__name__)

# Transaction time-outs are seconds; and at 500 MB/s the disk loses less than the reserve in this time.
_TICK_S = 0.5


class Housekeeping:
    """Two tasks on the log's loop: one for time-outs and free space, one for files, which may take long."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._cleaner = Cleaner(broker.settings, broker.store, broker.topics)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        interval_s = self._broker.settings.housekeeping_interval_s
        self._tasks = [
            loop.create_task(_repeat(_TICK_S, self._watch), name="time-outs and free space"),
            loop.create_task(_repeat(interval_s, self._round), name="retention and compaction"),
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _watch(self) -> None:
        self._broker.transactions.expire()
        self._broker.disk.look()

    async def _round(self) -> None:
        now = now_ms()
        guards, topics = self._broker.guards, self._broker.topics
        guards.look(now)
        guards.forget(lambda where: topics.partition(*where) is not None)
        for log in list(topics):
            log.producers.forget_idle(now - self._broker.settings.producer_age_ms)
            log.roll_if_old(now)
            if log.config.is_deleted:
                topics.move_start(log, guards.retention_start(log, now))
            await asyncio.sleep(0)
        await self._cleaner.run_round(now)


async def _repeat(interval_s: float, action: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(interval_s)
        try:
            await action()
        except Exception:
            logger.exception("housekeeping failed; it is tried again in %g s", interval_s)

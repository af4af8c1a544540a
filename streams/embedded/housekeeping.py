"""What happens by itself: transaction time-outs, retention, compaction, forgetting idle producers."""

from __future__ import annotations

import asyncio
import logging

from streams.embedded.broker import Broker, now_ms
from streams.embedded.partition import PartitionLog

logger = logging.getLogger(__name__)

# Transactions are looked at this often: their time-outs are seconds, and nothing is read from disk.
_TICK_S = 0.5


class Housekeeping:
    """A task on the log's loop."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="log housekeeping")

    async def stop(self) -> None:
        if self._task is None:
            return
        self._task.cancel()
        try:
            await self._task
        except asyncio.CancelledError:
            pass
        self._task = None

    async def _run(self) -> None:
        rest_s = self._broker.settings.housekeeping_interval_s
        while True:
            await asyncio.sleep(_TICK_S)
            self._broker.transactions.expire()
            rest_s -= _TICK_S
            if rest_s > 0:
                continue
            rest_s = self._broker.settings.housekeeping_interval_s
            try:
                await self._round()
            except Exception:
                logger.exception("a round of housekeeping failed; the next one tries again")

    async def _round(self) -> None:
        now = now_ms()
        for log in list(self._broker.topics):
            log.producers.forget_idle(now - self._broker.settings.producer_age_ms)
            if log.config.is_deleted:
                self._broker.topics.move_start(log, retention_start(log, now))
            await asyncio.sleep(0)


def retention_start(log: PartitionLog, now: int) -> int:
    """First offset that a partition's retention keeps, always a segment's first."""
    keep_from = log.start_offset
    over = log.size() - log.config.retention_bytes
    for segment in log.segments[:-1]:
        too_old = 0 <= log.config.retention_ms < now - segment.max_timestamp
        too_much = log.config.retention_bytes >= 0 and over >= segment.size
        if not (too_old or too_much) or segment.next_offset > log.last_stable_offset:
            break
        over -= segment.size
        keep_from = segment.next_offset
    return keep_from

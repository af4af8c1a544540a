"""Faust's aiokafka transport with batch acknowledgements, its own positions and short waits.

Registered as the URL scheme ``tidal+kafka``. Each override answers a trap that was measured:

* a batch is one message, so Faust's gap bookkeeping (one entry for each offset) would hold commits back;
* a position comes from the table's applied offset, not from the group's committed one: the first is
  in the same write as the rows, the second only trails it;
* Faust's own changelog recovery never ends on a changelog whose last offset is a transaction marker, so it
  is told that there is nothing to recover; the table layer restores in bulk by itself;
* Faust waits 1.5 s in a fetch and sleeps 1 s while nothing is active;
* an object for each record costs more than decoding its event does, so records are unpacked into columns.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, cast

from faust.transport import drivers
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import Message

from streams.faust.owner import PartitionOwner
from streams.faust.unpacking import take_columns

SCHEME = "tidal+kafka"

# A partition whose fetched records were just taken waits for the fetch in flight to return. While nothing
# comes, all partitions wait in the same fetch and the first record of any ends it: it may be a long one.
_FETCH_WAIT_MS = 25
_IDLE_FETCH_WAIT_MS = 250
_IDLE_AFTER_S = 2.0
# How soon a partition that was just resumed is looked at.
_POLL_TIMEOUT_S = 0.1
_NOTHING_ACTIVE_SLEEP_S = 0.02


class BatchConsumerThread(driver.AIOKafkaConsumerThread):
    """The thread that talks to the log."""

    _busy_s = 0.0  # when records were last taken, or asked for anew

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = _FETCH_WAIT_MS
        consumer._isolation_level = "read_committed"
        return consumer

    async def _fetch_records(self, consumer: Any, *arguments: Any, **options: Any) -> Any:
        fetcher = consumer._fetcher
        take_columns(fetcher)
        idle = time.monotonic() - self._busy_s > _IDLE_AFTER_S
        fetcher._fetch_max_wait_ms = _IDLE_FETCH_WAIT_MS if idle else _FETCH_WAIT_MS
        records = await super()._fetch_records(consumer, *arguments, **options)
        if records:
            self._busy_s = time.monotonic()
        return records

    async def seek_here(self, partition: TP, offset: int) -> None:
        """Seek in the thread that reads."""
        self._busy_s = time.monotonic()
        self.seek(partition, offset)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        # Faust pauses by not asking; aiokafka would still prefetch each changelog partition into memory.
        changelogs = self.app.tables.changelog_topics
        paused = [driver.ensure_aiokafka_TP(tp) for tp in assigned if tp.topic in changelogs]
        self._ensure_consumer().pause(*paused)
        await super().on_partitions_assigned(assigned, generation_id)


class BatchConsumer(driver.Consumer):
    """Delivers batches of partitions whose state is ready, from the offset that the state has applied."""

    @property
    def _owner(self) -> PartitionOwner:
        owner: PartitionOwner = cast(Any, self.app).partition_owner
        return owner

    def _new_consumer_thread(self) -> BatchConsumerThread:
        return BatchConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Offsets inside a batch are no gap."""

    def _new_offset(self, tp: TP) -> int | None:
        # Right because only checkpoints acknowledge, in order: the highest acknowledged covers those below.
        acked = self._acked[tp]
        if not acked:
            return None
        offset: int = max(acked)
        acked.clear()
        self._acked_index[tp].clear()
        return offset + 1

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        super().resume_partitions({tp for tp in tps if self._owner.is_ready(tp.partition)})

    async def perform_seek(self) -> None:
        await super().perform_seek()
        for tp in self.assignment():
            if self._is_changelog_tp(tp):
                continue
            position = self._owner.position(tp.topic, tp.partition)
            if position is not None:
                await self.seek(tp, position)

    async def _seek(self, partition: TP, offset: int) -> None:
        # Faust seeks from its own thread, and aiokafka then drops records that the consumer's thread is just
        # reading: KeyError in fetched_records, the worker ends (seen when a third worker joined under load).
        await self._thread.call_thread(cast(BatchConsumerThread, self._thread).seek_here, partition, offset)

    def verify_event_path(self, now: float, tp: TP) -> None:
        # Changelogs are assigned and never fetched: to Faust an error of each, every few seconds.
        if not self._is_changelog_tp(tp):
            super().verify_event_path(now, tp)

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        return dict.fromkeys(partitions, 0)

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        return dict.fromkeys(partitions, 0)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Message]]:  # noqa: ASYNC109 - Faust's name
        async for tp, message in super().getmany(min(timeout, _POLL_TIMEOUT_S)):
            yield tp, message

    async def _wait_next_records(self, timeout: float) -> Any:  # noqa: ASYNC109 - Faust's name
        if self.flow_active and not self._get_active_partitions():
            await self.sleep(_NOTHING_ACTIVE_SLEEP_S)
            return {}, set()
        return await super()._wait_next_records(timeout)


class BatchTransport(driver.Transport):
    """The transport behind ``tidal+kafka://host:port``."""

    Consumer = BatchConsumer


def register() -> None:
    """Make the scheme known to Faust; calling it again changes nothing."""
    drivers.TRANSPORTS.aliases[SCHEME] = f"{__name__}:BatchTransport"

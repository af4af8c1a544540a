"""Makes an erasure true for the disk: rows that were deleted leave its files.

RocksDB keeps deleted rows until it happens to merge the files that they are in, their keys in the
write-ahead log, and the first and last key of every file in its manifest; the change feed keeps what it told
for a while. A *wipe* waits until the feed may forget, writes what is in memory to files, and merges all
files: what is left holds present rows only. It runs beside the folds, in a thread, and rarely: one wipe
serves every erasure before it, and reads and writes the whole database once.

A partition that went to another worker leaves its rows here, in case it comes back; whoever is erased there
would stay on this disk. So they are dropped after a while.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from materializers.materializer import Scope
from materializers.rows.erasures import OPEN_TABLE, TABLE, ErasureRow, decode_erasure, encode_erasure
from materializers.tables.database import Database, DatabaseError
from materializers.tables.layout import PENDING_TABLE
from materializers.tables.partition import PartitionState
from schemas.durations import DAY_MS

logger = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 5.0
_TOUCHES_OF_LAG: Final = 4
_TOUCHED_LAGS: Final = 3
"""A value goes within one lag, the delete that replaced it within another, and both close late."""
REPORTS_KEPT_MS: Final = 366 * DAY_MS
_LOOKS_OF_LOG_S: Final = 120.0
"""A log looks for what to compact in intervals of its own."""


class WipeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How soon, and how often at most.

    Attributes:
        interval_s: between two wipes. feed_keep_s: how long the change feed may be read.
        unowned_keep_s: how long rows of a partition stay that another worker has.
        compaction_lag_s: what the log's compacted topics are set to.
    """

    interval_s: float = 600.0
    feed_keep_s: float = 60.0
    unowned_keep_s: float = 3_600.0
    compaction_lag_s: float = 86_400.0


class Owner(Protocol):
    """What a wipe asks of the owner of the partitions."""

    @property
    def assigned(self) -> frozenset[int] | None: ...

    def states(self) -> list[PartitionState]: ...

    def current(self, state: PartitionState) -> bool: ...

    def folded(self, state: PartitionState, events: int) -> None: ...

    def trim_feed(self, through: int) -> None: ...

    async def checkpoint(self) -> None: ...


class _Unwiped(NamedTuple):
    """A row of ``erasures`` whose traces may be on this disk."""

    state: PartitionState
    key: bytes
    row: ErasureRow


class Wiper:
    """Of one worker; used on its event loop."""

    def __init__(self, database: Database, owner: Owner, settings: WipeSettings) -> None:
        self._database = database
        self._owner = owner
        self._settings = settings
        self._next_s = 0.0
        self._touched_s = time.monotonic()
        self._unowned_since: dict[int, float] = {}
        self.wipes = 0

    async def run(self) -> None:
        """Look for erasures until cancelled."""
        while True:
            await asyncio.sleep(min(_LOOK_EVERY_S, self._settings.interval_s))
            self._drop_unowned()
            self._touch()
            if time.monotonic() < self._next_s:
                continue
            try:
                done = await self.wipe()
            except DatabaseError as error:
                logger.warning("%s", error)
                done = True  # the next attempt reads everything again, so it has to wait as well
            if done:
                self._next_s = time.monotonic() + self._settings.interval_s

    async def wipe(self) -> bool:
        """Wipe if something was erased since the last time; whether anything was done."""
        reason = self._database.wipe_due()
        if reason is None and next(self._unwiped(), None) is None:
            return False
        await self._owner.checkpoint()
        waiting = list(self._unwiped())
        through = self._database.flush_number
        await asyncio.sleep(self._settings.feed_keep_s)
        if self._has_pending(through):
            logger.info("erasure: waits for a checkpoint of what was flushed")
            return False
        self._owner.trim_feed(through)
        started_s = time.monotonic()
        await asyncio.get_running_loop().run_in_executor(None, self._database.compact)
        self._database.wiped(reason)
        self._tell(waiting)
        self.wipes += 1
        logger.info("%d erasures wiped from the disk in %.1f s", len(waiting), time.monotonic() - started_s)
        return True

    def status(self) -> Mapping[str, Any]:
        """For people: wipes since the start, and the partitions' erasures that wait for the next."""
        return {"wipes": self.wipes, "waiting": sum(1 for _ in self._unwiped())}

    def _unwiped(self) -> Iterator[_Unwiped]:
        for state in self._owner.states():
            keys = [key for key, _ in self._database.scan(OPEN_TABLE, state.partition)]
            rows = self._database.get_many(TABLE, state.partition, keys)
            for key, value in zip(keys, rows, strict=True):
                if value is not None:
                    yield _Unwiped(state, key, decode_erasure(value))

    def _touch(self) -> None:
        """Write something to the topics of partitions in which somebody was erased lately; drop old reports.

        A log compacts closed segments only, and closes one when something follows: in a partition where
        nothing happens any more, what was erased would stay.
        """
        now_s = time.monotonic()
        if now_s - self._touched_s < self._settings.compaction_lag_s / _TOUCHES_OF_LAG:
            return
        self._touched_s = now_s
        touched_s = _TOUCHED_LAGS * self._settings.compaction_lag_s + _LOOKS_OF_LOG_S
        now_ms = time.time() * 1000
        for state in self._owner.states():
            shard: Any = state.shards[Scope.ENTITY]
            rows = [(key, decode_erasure(row)) for key, row in self._database.scan(TABLE, state.partition)]
            if any(row.at_ms >= now_ms - touched_s * 1000 for _, row in rows):
                shard.touch()
                self._owner.folded(state, 0)
            for key, row in rows:
                if row.wiped_ms and row.at_ms < now_ms - REPORTS_KEPT_MS:
                    shard.erasures.dropped(key)
                    self._owner.folded(state, 0)

    def _has_pending(self, through: int) -> bool:
        """Whether the names of rows of a flush up to ``through`` still wait for a checkpoint."""
        for state in self._owner.states():
            first = next(self._database.scan(PENDING_TABLE, state.partition), None)
            if first is not None and int.from_bytes(first[0], "big") <= through:
                return True
        return False

    def _tell(self, waiting: list[_Unwiped]) -> None:
        now_ms = int(time.time() * 1000)
        for state, key, row in waiting:
            if self._owner.current(state):  # else the new owner wipes its own disk, and says so
                shard: Any = state.shards[Scope.ENTITY]
                shard.erasures.wiped(key, encode_erasure(row.at_ms, row.rows, now_ms))
                self._owner.folded(state, 0)

    def _drop_unowned(self) -> None:
        now_s, assigned = time.monotonic(), self._owner.assigned
        if assigned is None:  # a log that is away takes nothing from us
            return
        gone = set(self._database.held_partitions()) - assigned
        self._unowned_since = {each: self._unowned_since.get(each, now_s) for each in gone}
        for partition, since_s in self._unowned_since.items():
            if now_s - since_s >= self._settings.unowned_keep_s:
                batch = self._database.batch()
                self._database.drop_partition(batch, partition)
                self._database.mark_wipe_due(batch)
                self._database.write(batch)
                logger.info("partition %d: dropped, another worker has had it for long", partition)

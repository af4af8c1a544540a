"""How a worker comes to own a partition: fence the former owner, restore or keep the rows, claim it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from materializers.materializer import Scope
from materializers.tables.changelog import ChangelogTopics, ChangelogWriter
from materializers.tables.checkpoints import begin_checkpoint, confirm_checkpoint
from materializers.tables.database import Database
from materializers.tables.errors import AcquisitionStoppedError
from materializers.tables.lineage import Decision, decide
from materializers.tables.log_threads import LogThreads
from materializers.tables.meta import (
    META_TABLE,
    OWNERSHIP_KEY,
    Ownership,
    decode_ownership,
    decode_shard,
)
from materializers.tables.partition import PartitionState, Shard
from materializers.tables.pending import clear_pending, read_pending
from materializers.tables.restore import (
    RestoreProgress,
    StillWanted,
    read_ownership,
    restore_partition,
)

logger = logging.getLogger(__name__)

ShardsOf = Callable[[int], Mapping[Scope, Shard]]


class Acquisition:
    """Of one worker; used on its event loop.

    Attributes:
        restores: how far the restores under way are, by partition.
    """

    def __init__(
        self, database: Database, topics: ChangelogTopics, shards_of: ShardsOf, threads: LogThreads
    ) -> None:
        """``shards_of`` builds the shards of a partition, empty."""
        self._database = database
        self._topics = topics
        self._shards_of = shards_of
        self._threads = threads
        self.restores: dict[int, RestoreProgress] = {}

    async def acquire(self, partition: int, wanted: StillWanted) -> PartitionState:
        """The partition's state as the log and the disk have it, claimed for this worker.

        Raises:
            AcquisitionStoppedError: it was not ``wanted`` any more.
            PartitionLostError, CheckpointAbortedError, KafkaException: the log failed us, or a newer owner
                came; another attempt may work.
        """
        writer = ChangelogWriter(self._topics, partition, self._threads.stopping)
        try:
            state = await self._take_over(partition, wanted, writer)
            await self._claim(state)
            _check(partition, wanted)
        except BaseException:
            self._threads.leave(writer.close)
            raise
        finally:  # also when a rebalance took the partition away: nobody must wait for its restore
            self.restores.pop(partition, None)
        return state

    def close(self, state: PartitionState) -> None:
        """Give up the partition's place in the changelog."""
        self._threads.leave(state.writer.close)

    async def restored_shards(self, partition: int) -> Mapping[Scope, Shard]:
        """The partition's shards as its rows on the disk say."""
        reader = self._database.rows(partition)
        shards = self._shards_of(partition)
        for scope, shard in shards.items():
            shard.restore(reader, decode_shard(self._database.get(META_TABLE, partition, scope.encode())))
            await asyncio.sleep(0)
        return shards

    async def _take_over(
        self, partition: int, wanted: StillWanted, writer: ChangelogWriter
    ) -> PartitionState:
        await self._threads.run(writer.init)
        log = await self._threads.run(read_ownership, self._topics, partition, wanted)
        disk = decode_ownership(self._database.get(META_TABLE, partition, OWNERSHIP_KEY))
        decision = decide(disk, log)
        logger.info("partition %d: %s (checkpoint %s)", partition, decision, log.lineage if log else "none")
        if decision is Decision.RESTORE:
            progress = self.restores[partition] = RestoreProgress(partition=partition)
            await self._threads.run(
                restore_partition, self._database, self._topics, partition, progress, wanted
            )
        elif decision is Decision.KEEP_ATTEMPT:
            batch = self._database.batch()
            clear_pending(self._database, batch, partition, disk.attempt_flush)
            self._database.write(batch)
        _check(partition, wanted)
        return await self._load(partition, writer, log)

    async def _load(self, partition: int, writer: ChangelogWriter, log: Ownership | None) -> PartitionState:
        shards = await self.restored_shards(partition)
        rows, letters = read_pending(self._database, partition)
        ownership = Ownership(
            lineage=log.lineage if log else "",
            generation=log.generation if log else 0,
            acquired_ms=int(time.time() * 1000),
        )
        return PartitionState(
            partition=partition,
            shards=shards,
            writer=writer,
            ownership=ownership,
            rows=rows,
            letters=letters,
            flushed=self._database.flush_number,
        )

    async def _claim(self, state: PartitionState) -> None:
        """The first checkpoint of an owner: from here on its generation and lineage are in the changelog."""
        checkpoint, _ = begin_checkpoint(self._database, state, claim=True)
        await self._threads.run(state.writer.commit, checkpoint)
        confirm_checkpoint(self._database, state, checkpoint)


def _check(partition: int, wanted: StillWanted) -> None:
    if not wanted():
        raise AcquisitionStoppedError(f"partition {partition}: overtaken by a newer rebalance")

"""Makes the transaction coordinator's decisions happen, in an order that survives a crash.

Completing a transaction:
1. the decision goes to the journal and is synced: from here on it is final;
2. offsets are committed and a marker goes to every partition of the transaction, synced;
3. the completed state goes to the journal, synced before the owner is told: records of its next
   transaction carry the same epoch, and 2 must not take them for its own. A crash before that repeats 2
   at start, where it is missing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

import msgspec

from streams.embedded.commit import GroupCommit
from streams.embedded.metadata import (
    CommittedOffset,
    MetadataStore,
    OffsetsCommitted,
    TransactionChanged,
    TransactionForgotten,
)
from streams.embedded.settings import LogSettings
from streams.embedded.topics import Topics
from streams.embedded.transactions import PendingOffset, Transaction, TransactionCoordinator, TransactionState

logger = logging.getLogger(__name__)


class TransactionService:
    """The transactions of a log, on its event loop."""

    def __init__(
        self,
        settings: LogSettings,
        commit: GroupCommit,
        store: MetadataStore,
        topics: Topics,
        new_producer_id: Callable[[], int],
    ) -> None:
        self._settings = settings
        self._commit = commit
        self._store = store
        self._topics = topics
        self._coordinator = TransactionCoordinator(
            store.state.transactions, new_producer_id, settings.transaction_timeout_ms_max
        )
        self._by_producer = {t.producer_id: t.transactional_id for t in store.state.transactions.values()}
        self._completing: set[asyncio.Task[None]] = set()

    async def recover(self) -> None:
        """After a restart: finish what was decided, abort what no coordinator state knows of."""
        for log in self._topics:
            for producer_id, epoch in log.producers.open_transactions().items():
                self._adopt(log.topic, log.index, producer_id, epoch)
        prepared = [t for t in self._store.state.transactions.values() if t.state.is_prepared]
        for transaction in prepared:
            await self._carry_out(transaction)

    def _adopt(self, topic: str, index: int, producer_id: int, epoch: int) -> None:
        transaction = self._store.state.transactions.get(self._by_producer.get(producer_id, ""))
        is_live = transaction is not None and (
            transaction.state is TransactionState.ONGOING or transaction.state.is_prepared
        )
        if transaction is None or not is_live:
            # Its first entry in the journal was never synced, so none of its records was acknowledged.
            logger.warning("%s-%d: open transaction of producer %d aborted", topic, index, producer_id)
            self._mark(topic, index, producer_id, epoch, commit=False)
        elif (topic, index) not in transaction.partitions:
            partitions = (*transaction.partitions, (topic, index))
            self._record(msgspec.structs.replace(transaction, partitions=partitions))

    # -- requests ------------------------------------------------------------------------------

    async def init_producer(
        self, transactional_id: str, timeout_ms: int, producer_id: int, epoch: int
    ) -> Transaction:
        """Make the caller the owner: the former owner's transaction is aborted, its epoch fenced.

        Raises ProtocolRefusalError.
        """
        changed = self._coordinator.init_producer(transactional_id, timeout_ms, producer_id, epoch, wall_ms())
        self._record(changed)
        if changed.state is not TransactionState.PREPARE_ABORT:
            await self._commit.barrier()
            return changed
        await self._carry_out(changed)
        # The abort has raised the epoch, so what the caller had before says no more. Somebody else may
        # have become the owner meanwhile and even begun a transaction; then it begins anew.
        return await self.init_producer(transactional_id, timeout_ms, -1, -1)

    async def add_partitions(
        self, transactional_id: str, producer_id: int, epoch: int, partitions: Iterable[tuple[str, int]]
    ) -> None:
        """Partitions join, durable on return: a log that forgot them would refuse their records."""
        self._record(
            self._coordinator.add(transactional_id, producer_id, epoch, wall_ms(), partitions=partitions)
        )
        await self._commit.barrier()

    async def add_group(self, transactional_id: str, producer_id: int, epoch: int, group: str) -> None:
        """A group's offsets may follow; durable on return, as with partitions."""
        self._record(self._coordinator.add(transactional_id, producer_id, epoch, wall_ms(), group=group))
        await self._commit.barrier()

    async def add_offsets(
        self, transactional_id: str, producer_id: int, epoch: int, offsets: list[PendingOffset]
    ) -> None:
        """Durable on return: the client counts on them at its commit, even over a restart."""
        self._record(self._coordinator.add_offsets(transactional_id, producer_id, epoch, offsets, wall_ms()))
        await self._commit.barrier()

    async def end(self, transactional_id: str, producer_id: int, epoch: int, *, commit: bool) -> None:
        """Commit or abort; on return the markers are on disk and visible."""
        prepared = self._coordinator.end(
            transactional_id, producer_id, epoch, commit=commit, now_ms=wall_ms()
        )
        if prepared is not None:
            self._record(prepared)
            await self._carry_out(prepared)

    def check_produce(self, producer_id: int, epoch: int, topic: str, partition: int) -> str:
        """May this transactional batch be written? Error name, "" when it may."""
        transaction = self._store.state.transactions.get(self._by_producer.get(producer_id, ""))
        if transaction is None:
            return "invalid_producer_id_mapping"
        if epoch != transaction.epoch:
            return "invalid_producer_epoch"
        if (
            transaction.state is not TransactionState.ONGOING
            or (topic, partition) not in transaction.partitions
        ):
            return "invalid_txn_state"
        return ""

    def pending_partitions(self, group: str) -> set[tuple[str, int]]:
        """Partitions whose offset of this group waits for the end of a transaction."""
        return {
            (offset.topic, offset.partition)
            for transaction in self._store.state.transactions.values()
            for offset in transaction.offsets
            if offset.group == group
        }

    # -- time ----------------------------------------------------------------------------------

    def expire(self) -> None:
        """Abort what has been open too long, forget what has not been used for long."""
        now = wall_ms()
        for prepared in self._coordinator.expired(now):
            logger.info(
                "transaction of %s aborted after %d ms", prepared.transactional_id, prepared.timeout_ms
            )
            # Recorded before anything else runs: the owner's EndTxn may be waiting in the same loop turn.
            self._record(prepared)
            task = asyncio.get_running_loop().create_task(self._carry_out(prepared))
            self._completing.add(task)
            task.add_done_callback(self._finished)
        for transactional_id in self._coordinator.forgettable(now - self._settings.transactional_id_age_ms):
            producer_id = self._store.state.transactions[transactional_id].producer_id
            self._by_producer.pop(producer_id, None)
            self._store.append(TransactionForgotten(transactional_id))

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._completing.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a transaction could not be completed", exc_info=task.exception())

    # -- effects -------------------------------------------------------------------------------

    async def _carry_out(self, prepared: Transaction) -> None:
        """Steps 1 to 3 of a recorded decision."""
        await self._commit.barrier()
        commit = prepared.state is TransactionState.PREPARE_COMMIT
        if commit:
            self._commit_offsets(prepared.offsets)
        for topic, index in prepared.partitions:
            self._mark(topic, index, prepared.producer_id, prepared.epoch, commit=commit)
        await self._commit.barrier()
        self._record(self._coordinator.completed(prepared, wall_ms()))
        await self._commit.barrier()

    def _commit_offsets(self, offsets: Iterable[PendingOffset]) -> None:
        now = wall_ms()
        by_group: dict[str, list[CommittedOffset]] = {}
        for o in offsets:
            committed = CommittedOffset(o.topic, o.partition, o.offset, o.leader_epoch, o.metadata, now)
            by_group.setdefault(o.group, []).append(committed)
        for group, committed_offsets in by_group.items():
            self._store.append(OffsetsCommitted(group, committed_offsets))

    def _mark(self, topic: str, index: int, producer_id: int, epoch: int, *, commit: bool) -> None:
        log = self._topics.partition(topic, index)
        # A partition that joined but got no record needs no marker; nor does a deleted topic.
        if log is not None and producer_id in log.producers.open_transactions():
            log.append_marker(producer_id=producer_id, epoch=epoch, commit=commit, now_ms=wall_ms())

    def _record(self, transaction: Transaction) -> None:
        self._store.append(TransactionChanged(transaction))
        self._by_producer[transaction.producer_id] = transaction.transactional_id


def wall_ms() -> int:
    """Wall clock: transaction starts are compared over restarts."""
    return int(time.time() * 1000)

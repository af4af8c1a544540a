"""The transaction coordinator as a pure state machine: no files, no sockets, the time is given.

Every method takes the present state and returns what to write and what to answer; the caller makes it
durable and writes the markers. States and answers are those of Kafka's coordinator (KIP-98, KIP-360):

    empty ─AddPartitions─▶ ongoing ─EndTxn─▶ prepare_commit ─markers─▶ complete_commit
                              │                                            │
                              ├─EndTxn, timeout, new owner─▶ prepare_abort ─markers─▶ complete_abort

A decision is final once its prepare state is on disk: after a restart the markers are written again
where they are missing. InitProducerId raises the epoch, and everything with an older one is fenced.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable

import msgspec

from streams.embedded.errors import ProtocolRefusalError

# Epochs are int16; the last one is kept for fencing the last owner.
EPOCH_MAX = 32_766


class TransactionState(enum.Enum):
    EMPTY = "empty"
    ONGOING = "ongoing"
    PREPARE_COMMIT = "prepare_commit"
    PREPARE_ABORT = "prepare_abort"
    COMPLETE_COMMIT = "complete_commit"
    COMPLETE_ABORT = "complete_abort"

    @property
    def is_prepared(self) -> bool:
        """Decided, markers not yet everywhere."""
        return self in (TransactionState.PREPARE_COMMIT, TransactionState.PREPARE_ABORT)


class PendingOffset(msgspec.Struct, frozen=True, array_like=True):
    """An offset that a transaction commits for a group."""

    group: str
    topic: str
    partition: int
    offset: int
    leader_epoch: int
    metadata: str


class Transaction(msgspec.Struct, frozen=True, array_like=True):
    """All that is known of one transactional id."""

    transactional_id: str
    producer_id: int
    epoch: int
    timeout_ms: int
    state: TransactionState = TransactionState.EMPTY
    partitions: tuple[tuple[str, int], ...] = ()
    groups: tuple[str, ...] = ()
    offsets: tuple[PendingOffset, ...] = ()
    started_ms: int = -1
    updated_ms: int = -1
    # The epoch that the owner itself gave up for this one, or -1: it may repeat that request.
    raised_from: int = -1


class TransactionCoordinator:
    """Decides. `transactions` is the live mapping of what has been recorded; this class only reads it."""

    def __init__(
        self,
        transactions: dict[str, Transaction],
        new_producer_id: Callable[[], int],
        timeout_ms_max: int,
    ) -> None:
        self._transactions = transactions
        self._new_producer_id = new_producer_id
        self._timeout_ms_max = timeout_ms_max

    # -- InitProducerId ------------------------------------------------------------------------

    def init_producer(
        self, transactional_id: str, timeout_ms: int, producer_id: int, epoch: int, now_ms: int
    ) -> Transaction:
        """The new state for a (new) owner; prepare_abort: complete that first, then ask again.

        producer_id, epoch: what the client had before, or -1. Raises ProtocolRefusalError.
        """
        if not 0 < timeout_ms <= self._timeout_ms_max:
            raise ProtocolRefusalError(
                "invalid_transaction_timeout", f"{timeout_ms} ms; allowed are 1 to {self._timeout_ms_max} ms"
            )
        current = self._transactions.get(transactional_id)
        if current is None:
            return Transaction(
                transactional_id, self._new_producer_id(), 0, timeout_ms, started_ms=-1, updated_ms=now_ms
            )
        if producer_id >= 0 and (producer_id, epoch) != (current.producer_id, current.epoch):
            repeated = (producer_id, epoch) == (current.producer_id, current.raised_from)
            if repeated and current.state is TransactionState.EMPTY:
                # Its answer was lost (KIP-360).
                return current
            raise ProtocolRefusalError("producer_fenced", f"{transactional_id} has a newer owner")
        if current.state.is_prepared:
            raise ProtocolRefusalError("concurrent_transactions", f"{transactional_id} is being completed")
        if current.state is TransactionState.ONGOING:
            return self._prepare_abort_fenced(current, now_ms)
        return self._next_owner(current, timeout_ms, now_ms, raised_from=epoch)

    def _next_owner(
        self, current: Transaction, timeout_ms: int, now_ms: int, *, raised_from: int
    ) -> Transaction:
        if current.epoch >= EPOCH_MAX:
            producer_id, epoch = self._new_producer_id(), 0
        else:
            producer_id, epoch = current.producer_id, current.epoch + 1
        return Transaction(
            current.transactional_id,
            producer_id,
            epoch,
            timeout_ms,
            updated_ms=now_ms,
            raised_from=raised_from,
        )

    def _prepare_abort_fenced(self, current: Transaction, now_ms: int) -> Transaction:
        return msgspec.structs.replace(
            current, state=TransactionState.PREPARE_ABORT, epoch=current.epoch + 1, updated_ms=now_ms
        )

    # -- within a transaction ------------------------------------------------------------------

    def owned(self, transactional_id: str, producer_id: int, epoch: int) -> Transaction:
        """The transaction of a request's sender. Raises ProtocolRefusalError when it is not the owner."""
        current = self._transactions.get(transactional_id)
        if current is None or current.producer_id != producer_id:
            raise ProtocolRefusalError(
                "invalid_producer_id_mapping",
                f"{transactional_id!r} does not belong to producer {producer_id}",
            )
        if current.epoch != epoch:
            raise ProtocolRefusalError(
                "producer_fenced", f"{transactional_id}: epoch {epoch}, the owner has {current.epoch}"
            )
        return current

    def add(
        self,
        transactional_id: str,
        producer_id: int,
        epoch: int,
        now_ms: int,
        *,
        partitions: Iterable[tuple[str, int]] = (),
        group: str | None = None,
    ) -> Transaction:
        """Partitions or a group join the transaction, which begins with the first of them."""
        current = self.owned(transactional_id, producer_id, epoch)
        if current.state.is_prepared:
            raise ProtocolRefusalError("concurrent_transactions", f"{transactional_id} is being completed")
        if current.state is not TransactionState.ONGOING:
            current = msgspec.structs.replace(
                current,
                state=TransactionState.ONGOING,
                partitions=(),
                groups=(),
                offsets=(),
                started_ms=now_ms,
            )
        groups = current.groups if group is None or group in current.groups else (*current.groups, group)
        known = set(current.partitions)
        added = tuple(partition for partition in dict.fromkeys(partitions) if partition not in known)
        return msgspec.structs.replace(
            current, partitions=current.partitions + added, groups=groups, updated_ms=now_ms
        )

    def add_offsets(
        self,
        transactional_id: str,
        producer_id: int,
        epoch: int,
        offsets: Iterable[PendingOffset],
        now_ms: int,
    ) -> Transaction:
        """Offsets of a group that has joined; they count when the transaction commits."""
        current = self.owned(transactional_id, producer_id, epoch)
        if current.state is not TransactionState.ONGOING:
            raise ProtocolRefusalError("invalid_txn_state", f"{transactional_id} has no open transaction")
        latest = {(o.group, o.topic, o.partition): o for o in (*current.offsets, *offsets)}
        return msgspec.structs.replace(current, offsets=tuple(latest.values()), updated_ms=now_ms)

    def end(
        self, transactional_id: str, producer_id: int, epoch: int, *, commit: bool, now_ms: int
    ) -> Transaction | None:
        """The prepared decision, or None when this very decision has been completed before (a retry)."""
        current = self.owned(transactional_id, producer_id, epoch)
        prepared = TransactionState.PREPARE_COMMIT if commit else TransactionState.PREPARE_ABORT
        complete = TransactionState.COMPLETE_COMMIT if commit else TransactionState.COMPLETE_ABORT
        if current.state is complete:
            return None
        if current.state is prepared:
            raise ProtocolRefusalError("concurrent_transactions", f"{transactional_id} is being completed")
        if current.state is not TransactionState.ONGOING:
            raise ProtocolRefusalError(
                "invalid_txn_state",
                f"{transactional_id} is {current.state.value}, nothing to {prepared.value[8:]}",
            )
        return msgspec.structs.replace(current, state=prepared, updated_ms=now_ms)

    # -- without a client ----------------------------------------------------------------------

    def expired(self, now_ms: int) -> list[Transaction]:
        """Prepared, fencing aborts of the transactions that have been open too long."""
        return [
            self._prepare_abort_fenced(current, now_ms)
            for current in self._transactions.values()
            if current.state is TransactionState.ONGOING and now_ms - current.started_ms >= current.timeout_ms
        ]

    def forgettable(self, before_ms: int) -> list[str]:
        """Ids without a transaction, not used since `before_ms`."""
        return [
            current.transactional_id
            for current in self._transactions.values()
            if current.updated_ms < before_ms
            and current.state is not TransactionState.ONGOING
            and not current.state.is_prepared
        ]

    @staticmethod
    def completed(prepared: Transaction, now_ms: int) -> Transaction:
        """The state after the markers of a decision are on disk."""
        commit = prepared.state is TransactionState.PREPARE_COMMIT
        return msgspec.structs.replace(
            prepared,
            state=TransactionState.COMPLETE_COMMIT if commit else TransactionState.COMPLETE_ABORT,
            partitions=(),
            groups=(),
            offsets=(),
            started_ms=-1,
            updated_ms=now_ms,
        )

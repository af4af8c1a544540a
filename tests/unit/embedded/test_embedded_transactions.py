"""The transaction coordinator's decisions."""

from __future__ import annotations

from itertools import count

import pytest

from streams.embedded.errors import ProtocolRefusalError
from streams.embedded.transactions import (
    EPOCH_MAX,
    PendingOffset,
    Transaction,
    TransactionCoordinator,
    TransactionState,
)

STATE = TransactionState


class Fixture:
    """A coordinator whose answers are recorded at once."""

    def __init__(self) -> None:
        self.known: dict[str, Transaction] = {}
        ids = count(100)
        self.coordinator = TransactionCoordinator(self.known, lambda: next(ids), 60_000)

    def record(self, transaction: Transaction) -> Transaction:
        self.known[transaction.transactional_id] = transaction
        return transaction

    def init(self, now_ms: int = 0, producer_id: int = -1, epoch: int = -1) -> Transaction:
        return self.record(self.coordinator.init_producer("tx", 1_000, producer_id, epoch, now_ms))

    def add(self, owner: Transaction, *partitions: tuple[str, int], now_ms: int = 0) -> Transaction:
        return self.record(
            self.coordinator.add("tx", owner.producer_id, owner.epoch, now_ms, partitions=partitions)
        )

    def end(self, owner: Transaction, *, commit: bool) -> Transaction | None:
        prepared = self.coordinator.end("tx", owner.producer_id, owner.epoch, commit=commit, now_ms=0)
        return None if prepared is None else self.record(prepared)

    def complete(self, prepared: Transaction) -> Transaction:
        return self.record(self.coordinator.completed(prepared, 0))


def refused(action) -> str:  # type: ignore[no-untyped-def]
    with pytest.raises(ProtocolRefusalError) as caught:
        action()
    return caught.value.code


@pytest.mark.parametrize("commit", [True, False])
def test_a_transaction_from_begin_to_end(commit: bool) -> None:
    f = Fixture()
    owner = f.init()
    assert (owner.epoch, owner.state) == (0, STATE.EMPTY)
    f.add(owner, ("t", 0), ("t", 1), ("t", 0))
    ongoing = f.add(owner, ("t", 1), ("u", 0))
    assert ongoing.partitions == (("t", 0), ("t", 1), ("u", 0))
    prepared = f.end(owner, commit=commit)
    assert prepared is not None
    assert prepared.state is (STATE.PREPARE_COMMIT if commit else STATE.PREPARE_ABORT)
    assert refused(lambda: f.end(owner, commit=commit)) == "concurrent_transactions"
    assert refused(lambda: f.add(owner, ("t", 0))) == "concurrent_transactions"
    f.complete(prepared)
    assert f.end(owner, commit=commit) is None
    assert refused(lambda: f.end(owner, commit=not commit)) == "invalid_txn_state"
    assert f.add(owner, ("v", 0)).partitions == (("v", 0),)


def test_a_new_owner_aborts_and_fences_the_former() -> None:
    f = Fixture()
    zombie = f.init()
    f.add(zombie, ("t", 0))
    aborting = f.init()
    assert (aborting.state, aborting.epoch) == (STATE.PREPARE_ABORT, 1)
    assert refused(f.init) == "concurrent_transactions"
    f.complete(aborting)
    owner = f.init()
    assert (owner.producer_id, owner.epoch, owner.state) == (zombie.producer_id, 2, STATE.EMPTY)
    for action in (
        lambda: f.add(zombie, ("t", 0)),
        lambda: f.end(zombie, commit=True),
        lambda: f.coordinator.add_offsets("tx", zombie.producer_id, zombie.epoch, [], 0),
        lambda: f.init(producer_id=zombie.producer_id, epoch=zombie.epoch),
    ):
        assert refused(action) == "producer_fenced"


def test_the_owner_may_ask_for_a_new_epoch() -> None:
    f = Fixture()
    owner = f.init()
    assert f.init(producer_id=owner.producer_id, epoch=owner.epoch).epoch == owner.epoch + 1


def test_a_repeated_request_for_a_new_epoch_gets_the_same_one() -> None:
    f = Fixture()
    old = f.init()
    new = f.init(producer_id=old.producer_id, epoch=old.epoch)
    assert f.init(producer_id=old.producer_id, epoch=old.epoch) == new
    stranger = f.init()
    assert stranger.epoch == new.epoch + 1
    assert refused(lambda: f.init(producer_id=old.producer_id, epoch=new.epoch)) == "producer_fenced"


def test_epochs_that_run_out_give_a_new_producer_id() -> None:
    f = Fixture()
    owner = f.init()
    f.known["tx"] = Transaction("tx", owner.producer_id, EPOCH_MAX, 1_000)
    renewed = f.init()
    assert renewed.producer_id != owner.producer_id
    assert renewed.epoch == 0


def test_a_transaction_times_out() -> None:
    f = Fixture()
    owner = f.init()
    f.add(owner, ("t", 0), now_ms=500)
    assert f.coordinator.expired(1_499) == []
    (prepared,) = f.coordinator.expired(1_500)
    assert (prepared.state, prepared.epoch) == (STATE.PREPARE_ABORT, owner.epoch + 1)
    f.record(prepared)
    assert refused(lambda: f.end(owner, commit=True)) == "producer_fenced"


def test_offsets_belong_to_the_open_transaction_and_the_last_counts() -> None:
    f = Fixture()
    owner = f.init()
    offset = PendingOffset("g", "t", 0, 5, -1, "")

    def add_offsets(*offsets: PendingOffset) -> Transaction:
        return f.record(f.coordinator.add_offsets("tx", owner.producer_id, owner.epoch, offsets, 0))

    assert refused(lambda: add_offsets(offset)) == "invalid_txn_state"
    f.record(f.coordinator.add("tx", owner.producer_id, owner.epoch, 0, group="g"))
    add_offsets(offset)
    assert add_offsets(PendingOffset("g", "t", 0, 9, -1, "")).offsets == (
        PendingOffset("g", "t", 0, 9, -1, ""),
    )
    prepared = f.end(owner, commit=True)
    assert prepared is not None
    assert prepared.groups == ("g",)
    assert f.complete(prepared).offsets == ()


@pytest.mark.parametrize("timeout_ms", [0, -1, 60_001])
def test_a_timeout_out_of_bounds_is_refused(timeout_ms: int) -> None:
    assert refused(lambda: Fixture().coordinator.init_producer("tx", timeout_ms, -1, -1, 0)) == (
        "invalid_transaction_timeout"
    )


def test_strangers_are_refused() -> None:
    f = Fixture()
    assert refused(lambda: f.coordinator.add("tx", 1, 0, 0)) == "invalid_producer_id_mapping"
    owner = f.init()
    assert (
        refused(lambda: f.coordinator.add("tx", owner.producer_id + 1, 0, 0)) == "invalid_producer_id_mapping"
    )


def test_only_unused_ids_are_forgettable() -> None:
    f = Fixture()
    owner = f.init(now_ms=10)
    assert f.coordinator.forgettable(10) == []
    assert f.coordinator.forgettable(11) == ["tx"]
    f.add(owner, ("t", 0), now_ms=10)
    assert f.coordinator.forgettable(11) == []

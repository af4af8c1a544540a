"""The journal of small durable things, and the state that it carries."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from streams.embedded.commit import GroupCommit
from streams.embedded.journal import frame, read_frames
from streams.embedded.metadata import (
    ClusterNamed,
    CommittedOffset,
    Compacted,
    GroupAdvanced,
    MetadataStore,
    OffsetsCommitted,
    OffsetsDeleted,
    ProducerIdsReserved,
    StartMoved,
    TopicCreated,
    TopicDeleted,
    TransactionChanged,
)
from streams.embedded.transactions import PendingOffset, Transaction, TransactionState
from tests.unit.embedded.support import ManualCommit

BODIES = [b"one", b"two" * 100, b"four"]


def test_frames_come_back() -> None:
    assert read_frames(b"".join(map(frame, BODIES))) == (BODIES, 0, 0)


@pytest.mark.parametrize("cut", [1, 5, 15])
def test_a_torn_tail_is_counted(cut: int) -> None:
    content = b"".join(map(frame, BODIES))
    kept = BODIES[:-1]
    bodies, skipped, torn = read_frames(content[:-cut])
    assert bodies == kept
    assert skipped == 0
    assert torn == len(frame(BODIES[-1])) - cut


@pytest.mark.parametrize("position", [0, 5, 9, 13])
def test_a_damaged_frame_costs_itself_only(position: int) -> None:
    damaged = bytearray(frame(BODIES[0]))
    damaged[position] ^= 0xFF
    bodies, skipped, torn = read_frames(bytes(damaged) + b"".join(map(frame, BODIES[1:])))
    assert bodies == BODIES[1:]
    assert (skipped, torn) == (len(damaged), 0)


def filled(store: MetadataStore) -> None:
    offset = CommittedOffset("t", 1, 77, 0, "note", 5)
    transaction = Transaction(
        "tx",
        9,
        3,
        60_000,
        TransactionState.ONGOING,
        (("t", 0),),
        ("g",),
        (PendingOffset("g", "t", 0, 5, -1, ""),),
        1,
        2,
    )
    for entry in (
        ClusterNamed("c"),
        TopicCreated("t", 1, 2, {"cleanup.policy": "compact"}),
        TopicCreated("gone", 2, 1, {}),
        TopicDeleted("gone"),
        StartMoved("t", 0, 12),
        Compacted("t", 0, [(5, 6)]),
        OffsetsCommitted("g", [offset, CommittedOffset("t", 0, 1, 0, "", 5)]),
        OffsetsDeleted("g", [("t", 0)]),
        GroupAdvanced("g", 4, "consumer"),
        ProducerIdsReserved(1000),
        TransactionChanged(transaction),
    ):
        store.append(entry)


def contents(store: MetadataStore) -> object:
    state = store.state
    return (
        state.cluster_id, state.topics, state.deleted, state.starts, state.compactions, state.offsets,
        state.generations, state.next_producer_id, state.next_incarnation, state.transactions,
    )  # fmt: skip


def test_a_restart_has_the_same_state(tmp_path: Path) -> None:
    commit = ManualCommit()
    store = MetadataStore(tmp_path / "journal", 1 << 20, commit)  # type: ignore[arg-type]
    store.load()
    filled(store)
    commit.cycle()
    again = MetadataStore(tmp_path / "journal", 1 << 20, commit)  # type: ignore[arg-type]
    again.load()
    assert contents(again) == contents(store)
    assert ("t", 1) in again.state.offsets["g"]
    assert ("t", 0) not in again.state.offsets["g"]
    assert list(again.state.deleted) == [("gone", 2)]


def test_a_grown_journal_is_rewritten_without_loss(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    commit = ManualCommit()
    store = MetadataStore(path, 5_000, commit)  # type: ignore[arg-type]
    store.load()
    filled(store)
    for number in range(500):
        store.append(OffsetsCommitted("g", [CommittedOffset("t", 1, number, 0, "", 5)]))
        commit.cycle()
    assert path.stat().st_size < 6_000
    again = MetadataStore(path, 5_000, commit)  # type: ignore[arg-type]
    again.load()
    assert contents(again) == contents(store)
    assert again.state.offsets["g"][("t", 1)].offset == 499


async def test_the_commit_gathers_and_calls_back_after_the_sync(tmp_path: Path) -> None:
    commit = GroupCommit(threads=2)
    store = MetadataStore(tmp_path / "journal", 1 << 20, commit)
    store.load()
    for number in range(100):
        store.append(ProducerIdsReserved(number))
    await commit.barrier()
    assert commit.cycles == 1
    assert len(read_frames((tmp_path / "journal").read_bytes())[0]) == 100
    await commit.close()


async def test_a_failed_sync_is_fatal_and_acknowledges_nothing() -> None:
    class Broken:
        def begin_sync(self) -> Broken:
            return self

        def run(self) -> None:
            raise OSError(5, "input/output error")

        def finish(self) -> None:
            raise AssertionError("a failed sync was finished")

    failures: list[BaseException] = []
    called: list[str] = []
    commit = GroupCommit(threads=1, on_failure=failures.append)
    commit.mark(Broken())
    commit.after(lambda: called.append("acknowledged"))
    with pytest.raises(OSError):
        await commit.close()
    await asyncio.sleep(0)
    assert [type(failure) for failure in failures] == [OSError]
    assert called == []


async def test_what_comes_during_a_cycle_waits_for_the_next(tmp_path: Path) -> None:
    commit = GroupCommit(threads=1)
    order: list[str] = []

    class Slow:
        def begin_sync(self) -> Slow:
            order.append("begin")
            return self

        def run(self) -> None:
            pass

        def finish(self) -> None:
            order.append("finish")
            if order.count("finish") == 1:
                commit.mark(self)
                commit.after(lambda: order.append("second"))

    commit.mark(Slow())
    commit.after(lambda: order.append("first"))
    await commit.close()
    assert order == ["begin", "finish", "first", "begin", "finish", "second"]


def test_a_magic_with_zeros_behind_it_is_a_torn_tail() -> None:
    whole = frame(b"entry")
    assert read_frames(whole + frame(b"lost")[:4] + bytes(60)) == ([b"entry"], 0, 64)

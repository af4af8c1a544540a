"""AFTER: who waits for what, and until when."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from materializers.materializer import Scope
from queryd.positions import AppliedPositions
from streams.positions import Position, Positions
from streams.topics import BY_ITEM, ITEMS, SIGNALS

PARTITIONS = 2


@dataclass
class Tables:
    """Offsets alone."""

    offsets: dict[tuple[Scope, int], dict[str, int]] = field(default_factory=dict)
    sources: dict[int, dict[int, int]] = field(default_factory=dict)
    away: dict[int, dict[int, int]] = field(default_factory=dict)
    came: dict[int, dict[int, int]] = field(default_factory=dict)

    def applied(self, scope: Scope, partition: int) -> dict[str, int]:
        return self.offsets.get((scope, partition), {})

    def forwarded(self, partition: int) -> dict[int, int]:
        return self.sources.get(partition, {})

    def sent_away(self, partition: int) -> dict[int, int]:
        return self.away.get(partition, {})

    def rerouted(self, partition: int) -> dict[int, int]:
        return self.came.get(partition, {})


@dataclass
class Index:
    """A text index that is told how far it is."""

    offered: int = 0
    searchable: int = 0


@pytest.fixture
def parts() -> tuple[Tables, Index, AppliedPositions]:
    tables, index = Tables(), Index()
    return tables, index, AppliedPositions(tables, PARTITIONS, index)  # type: ignore[arg-type]


async def begin(
    applied: AppliedPositions, position: Position, *, indexed: bool = False
) -> asyncio.Task[bool]:
    task = asyncio.create_task(applied.wait(Positions.of([position]), 5.0, indexed=indexed))
    await asyncio.sleep(0)
    return task


async def test_a_signal_waits_for_its_user_partition_and_all_item_partitions(
    parts: tuple[Tables, Index, AppliedPositions],
) -> None:
    tables, _, applied = parts
    task = await begin(applied, Position(SIGNALS, 1, 10))
    for step in (
        lambda: None,
        lambda: tables.offsets.update({(Scope.USER, 1): {SIGNALS: 10}}),
        lambda: tables.sources.update({0: {1: 10}}),
        lambda: tables.sources.update({1: {1: 9, 0: 99}}),
        lambda: tables.offsets.update({(Scope.ITEM, 1): {BY_ITEM: 99}}),
    ):
        step()
        applied.announce()
        await asyncio.sleep(0)
        assert not task.done()
    tables.sources[1] = {1: 10}
    await asyncio.sleep(0)
    assert not task.done()  # only a round of the feeder makes it visible
    applied.announce()
    assert await task


async def test_a_misplaced_signal_waits_for_the_partition_that_it_was_sent_to(
    parts: tuple[Tables, Index, AppliedPositions],
) -> None:
    tables, _, applied = parts
    tables.offsets = {(Scope.USER, 0): {SIGNALS: 5}, (Scope.USER, 1): {SIGNALS: 10}}
    tables.sources = {0: {0: 5, 1: 10}, 1: {0: 5, 1: 10}}
    tables.away = {1: {0: 9}}
    task = await begin(applied, Position(SIGNALS, 1, 10))
    for step in (
        lambda: tables.came.update({0: {1: 8}}),
        lambda: tables.away.update({1: {0: 30}}),  # sent later: not waited for
        # Arrived at the user's partition at offset 7, counted nowhere yet.
        lambda: (tables.came.update({0: {1: 9}}), tables.offsets.update({(Scope.USER, 0): {SIGNALS: 7}})),
        lambda: tables.sources[0].update({0: 7}),
    ):
        applied.announce()
        await asyncio.sleep(0)
        assert not task.done()
        step()
    applied.announce()
    await asyncio.sleep(0)
    assert not task.done()
    tables.sources[1][0] = 7
    applied.announce()
    assert await task


async def test_an_item_waits_for_the_index_only_in_a_search(
    parts: tuple[Tables, Index, AppliedPositions],
) -> None:
    tables, index, applied = parts
    tables.offsets[Scope.ENTITY, 0] = {ITEMS: 5}
    index.offered = 7
    plain, search = (
        await begin(applied, Position(ITEMS, 0, 5)),
        await begin(applied, Position(ITEMS, 0, 5), indexed=True),
    )
    applied.announce()
    assert await plain
    assert not search.done()
    index.offered = 100  # later records do not prolong the wait
    index.searchable = 7
    applied.announce()
    assert await search


async def test_a_wait_ends_and_leaves_nothing_behind(parts: tuple[Tables, Index, AppliedPositions]) -> None:
    _, _, applied = parts
    assert not await applied.wait(Positions.of([Position(ITEMS, 0, 5)]), 0.01)
    task = await begin(applied, Position(ITEMS, 0, 5))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert applied._waiters == []

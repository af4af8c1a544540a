"""Parts of every partition wait for a step of bounded size, and a hole stops its partition alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from materializers.steps import STEP_RECORDS_MAX, Inbox, Portion, Steps, StepsOfWorker
from streams.records import Records

TOPIC = "t"


def _part(partition: int, first: int, count: int = 1, size: int = 1) -> Records:
    return Records(
        TOPIC,
        partition,
        np.arange(first, first + count),
        np.zeros(count, dtype=np.int64),
        [None] * count,
        [b"x" * size] * count,
        {},
    )


def _event(*parts: Records) -> Any:
    return SimpleNamespace(value=list(parts))


class Owner:
    """Partitions at an applied offset; one that is missing is not ours."""

    def __init__(self, applied: dict[int, int]) -> None:
        self.applied = applied
        self.events: list[tuple[int, int]] = []
        self.finished: list[Any] = []
        self.refused: list[tuple[int, int]] = []

    def accept(self, topic: str, partition: int, first_offset: int, after: int | None = None) -> Any:
        applied = self.applied.get(partition) if after is None else after
        if applied is None or first_offset > applied + 1:
            self.refused.append((partition, first_offset))
            return None
        return SimpleNamespace(partition=partition)

    def folded(self, state: Any, events: int) -> None:
        self.events.append((state.partition, events))

    def batch_folded(self, state: Any, batch: Any) -> None:
        self.finished.append(batch)


def _steps(owner: Owner, folded: list[list[tuple[int, list[int]]]]) -> Steps:
    async def room() -> None:
        """Always."""

    def fold(portions: Sequence[Portion]) -> list[int]:
        folded.append([(each.records().partition, each.records().offset.tolist()) for each in portions])
        owner.applied.update((each.records().partition, each.records().last_offset) for each in portions)
        return [len(each.records()) for each in portions]

    return Steps(owner, fold, room, nullcontext)


async def _run(steps: Steps) -> None:
    task = asyncio.create_task(steps.run())
    await asyncio.sleep(0.1)  # steps rest a few ms
    task.cancel()


async def test_one_step_folds_all_partitions() -> None:
    owner, folded = Owner({0: -1, 1: 6}), list[list[tuple[int, list[int]]]]()
    steps = _steps(owner, folded)
    events = [_event(_part(0, 0, 2)), _event(_part(1, 7)), _event(_part(0, 2, 2))]
    for event in events:
        await steps.inbox.put(event)
    await _run(steps)
    assert folded == [[(0, [0, 1, 2, 3]), (1, [7])]]
    assert owner.events == [(0, 4), (1, 1)]
    assert [id(each) for each in owner.finished] == [id(events[0]), id(events[2]), id(events[1])]


async def test_records_that_are_delivered_again_are_folded_once() -> None:
    """A seek back while they wait: both deliveries come in one step."""
    owner, folded = Owner({0: -1}), list[list[tuple[int, list[int]]]]()
    steps = _steps(owner, folded)
    events = [_event(_part(0, 0, 5)), _event(_part(0, 2, 2)), _event(_part(0, 3, 4))]
    for event in events:
        await steps.inbox.put(event)
    await _run(steps)
    assert folded == [[(0, [0, 1, 2, 3, 4, 5, 6])]]
    assert owner.events == [(0, 7)]
    assert owner.finished == events


async def test_a_hole_stops_its_partition_and_no_other() -> None:
    owner, folded = Owner({0: -1, 1: -1}), list[list[tuple[int, list[int]]]]()
    steps = _steps(owner, folded)
    first, hole, behind, other = (
        _event(part) for part in (_part(0, 0), _part(0, 5), _part(0, 6), _part(1, 0))
    )
    for event in (first, hole, behind, other):
        await steps.inbox.put(event)
    await _run(steps)
    assert folded == [[(0, [0]), (1, [0])]]
    assert owner.refused == [(0, 5)]
    assert owner.finished == [first, other]


async def test_a_partition_of_somebody_else_is_dropped() -> None:
    owner, folded = Owner({}), list[list[tuple[int, list[int]]]]()
    steps = _steps(owner, folded)
    await steps.inbox.put(_event(_part(3, 0)))
    await _run(steps)
    assert folded == []
    assert not len(steps.inbox)


async def test_a_step_is_bounded_and_a_batch_ends_with_its_last_part() -> None:
    owner, folded = Owner({0: -1}), list[list[tuple[int, list[int]]]]()
    steps = _steps(owner, folded)
    steps.inbox = Inbox(bytes_max=10, records_max=3)
    event = _event(_part(0, 0, 2), _part(0, 2, 1), _part(0, 3, 1, size=100), _part(0, 4, 1))
    await steps.inbox.put(event)
    await _run(steps)
    assert [portion for step in folded for portion in step] == [(0, [0, 1, 2]), (0, [3]), (0, [4])]
    assert owner.finished == [event]


async def test_an_inbox_that_is_full_lets_nobody_in() -> None:
    inbox = Inbox(bytes_max=10, records_max=100)
    await inbox.put(_event(_part(0, 0, 1, size=20)))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await inbox.put(_event(_part(0, 1)))
    inbox.take()
    await inbox.put(_event(_part(0, 1)))
    assert len(inbox) == 1


async def test_what_a_fold_raises_ends_the_steps() -> None:
    def fold(portions: Sequence[Portion]) -> list[int]:
        raise ValueError("broken")

    async def room() -> None:
        """Always."""

    steps = Steps(Owner({0: -1}), fold, room, nullcontext)
    await steps.inbox.put(_event(_part(0, 0)))
    with pytest.raises(ValueError, match="broken"):
        await steps.run()


async def test_a_step_waits_until_it_is_needed_unless_it_is_whole() -> None:
    owner, folded = Owner({0: -1}), list[list[tuple[int, list[int]]]]()
    steps = _steps(owner, folded)
    steps._until_needed_s, steps._last_s = lambda: 60.0, time.monotonic() + 60.0
    await steps.inbox.put(_event(_part(0, 0)))
    await _run(steps)
    assert folded == []
    await steps.inbox.put(_event(_part(0, 1, STEP_RECORDS_MAX)))
    await _run(steps)
    assert [each[0][1][0] for each in folded] == [0, 1]


async def test_a_flush_folds_what_waits() -> None:
    owner, folded = Owner({0: -1}), list[list[tuple[int, list[int]]]]()
    steps = _steps(owner, folded)
    delivered = StepsOfWorker(steps, _steps(owner, []))
    await delivered.fold_now()
    assert folded == []
    await steps.inbox.put(_event(_part(0, 0)))
    await delivered.fold_now()
    assert folded == [[(0, [0])]]
    assert not delivered.is_plenty()
    await steps.inbox.put(_event(_part(0, 1, STEP_RECORDS_MAX)))
    assert delivered.is_plenty()

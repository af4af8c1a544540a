"""Steps: whatever was delivered for any partition of a scope since the last one is folded at once.

A fold of a few events takes about as long as one of a thousand. Batches of single partitions therefore wait
in an inbox until the next step, which comes at once when nothing was folded lately or when a whole step's
worth is waiting, and otherwise after a rest in proportion to what the last one cost. Nothing is visible
before the next flush, so a step may also wait until that one is due.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from materializers.tables.cadence import Cadence, Pace
from materializers.tables.partition import PartitionState
from streams.records import Records, join_records

STEP_PACE: Final = Pace(interval_min_s=0.004, rest_per_run=2.0, interval_max_s=0.05)
STEP_BYTES_MAX: Final = 512 << 10
STEP_RECORDS_MAX: Final = 8_192
"""Of one step, unless a single part is larger: between two steps other work gets its turn."""
_INBOX_STEPS_MAX: Final = 2


class Acceptor(Protocol):
    """What a step asks of the owner of the partitions."""

    def accept(
        self, topic: str, partition: int, first_offset: int, after: int | None = None
    ) -> PartitionState | None: ...

    def folded(self, state: PartitionState, events: int) -> None: ...

    def batch_folded(self, state: PartitionState, batch: Any) -> None: ...


@dataclass(slots=True)
class Portion:
    """Consecutive records of one topic and partition that one step folds into ``state``."""

    state: PartitionState
    topic: str
    parts: list[Records] = field(default_factory=list)
    finished: list[Any] = field(default_factory=list)

    def records(self) -> Records:
        return join_records(self.parts)


Fold = Callable[[Sequence[Portion]], Sequence[int]]
"""Folds portions of different partitions or topics; the count of events of each."""


class _Waiting(NamedTuple):
    """A part of a Faust event's batch; ``ends`` on its last one."""

    event: Any
    records: Records
    bytes: int
    ends: bool


class Inbox:
    """Delivered parts in order of arrival: at most two steps' worth, and the rest of one batch."""

    def __init__(self, bytes_max: int = STEP_BYTES_MAX, records_max: int = STEP_RECORDS_MAX) -> None:
        """The bounds of one step."""
        self._bytes_max = bytes_max
        self._records_max = records_max
        self._waiting: deque[_Waiting] = deque()
        self._bytes = self._records = 0
        self.filled = asyncio.Event()
        self.full_step = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def __len__(self) -> int:
        """Records that wait."""
        return self._records

    async def put(self, event: Any) -> None:
        """Take in a Faust event's batch; returns when there was room for it."""
        while not self._room.is_set():
            await self._room.wait()
        parts = event.value
        for index, records in enumerate(parts):
            waiting = _Waiting(event, records, records.weight(), index == len(parts) - 1)
            self._waiting.append(waiting)
            self._count(waiting, 1)

    def take(self) -> list[_Waiting]:
        """Remove the oldest parts, one step's worth."""
        taken: list[_Waiting] = []
        size = count = 0
        while self._waiting:
            part = self._waiting[0]
            size, count = size + part.bytes, count + len(part.records)
            if taken and (size > self._bytes_max or count > self._records_max):
                break
            taken.append(self._waiting.popleft())
            self._count(part, -1)
        return taken

    def drop(self, topic: str, partition: int) -> None:
        """Forget what waits of one partition; it will be delivered again."""
        kept = [part for part in self._waiting if not _is_of(part.records, topic, partition)]
        for part in self._waiting:
            if _is_of(part.records, topic, partition):
                self._count(part, -1)
        self._waiting = deque(kept)

    def _count(self, part: _Waiting, sign: int) -> None:
        self._bytes += sign * part.bytes
        self._records += sign * len(part.records)
        _set(self.filled, self._records > 0)
        _set(self.full_step, self._is_beyond(1))
        _set(self._room, not self._is_beyond(_INBOX_STEPS_MAX))

    def _is_beyond(self, steps: int) -> bool:
        return self._bytes >= steps * self._bytes_max or self._records >= steps * self._records_max


class Steps:
    """The steps of one scope."""

    def __init__(
        self,
        owner: Acceptor,
        fold: Fold,
        room: Callable[[], Awaitable[None]],
        gate: Callable[[], AbstractAsyncContextManager[Any]],
        pace: Pace = STEP_PACE,
        until_needed_s: Callable[[], float] | None = None,
    ) -> None:
        """Call it on the event loop.

        Args:
            room: returns when another step may be folded. gate: held while one is.
            until_needed_s: how long until anybody can see what a step folds; it waits for that, but never
                longer than the longest rest.
        """
        self._owner = owner
        self._fold = fold
        self._room = room
        self._gate = gate
        self._cadence = Cadence(pace)
        self._apart_s = pace.interval_max_s
        self._until_needed_s = until_needed_s or (lambda: 0.0)
        self._last_s = -math.inf
        self.inbox = Inbox()

    async def run(self) -> None:
        """Fold what is delivered until cancelled; raises what a fold raised."""
        while True:
            await self.inbox.filled.wait()
            await self._rest()
            await self._room()
            await self.step()
            await asyncio.sleep(0)

    async def step(self) -> None:
        """Fold one step of what is waiting, without a rest; nothing may be."""
        async with self._gate():
            started_s = time.thread_time()
            self._step()
            self._last_s = time.monotonic()
            self._cadence.ran(self._last_s, time.thread_time() - started_s)

    async def _rest(self) -> None:
        while (wait_s := self._wait_s()) > 0 and not self.inbox.full_step.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self.inbox.full_step.wait()

    def _wait_s(self) -> float:
        now_s = time.monotonic()
        needed_s = min(self._until_needed_s(), self._last_s + self._apart_s - now_s)
        return max(self._cadence.wait_s(now_s), needed_s)

    def _step(self) -> None:
        """Nothing is awaited between asking who owns a partition and folding into it."""
        portions = self._accepted(self.inbox.take())
        if not portions:
            return
        for portion, events in zip(portions, self._fold(portions), strict=True):
            self._owner.folded(portion.state, events)
            for event in portion.finished:
                self._owner.batch_folded(portion.state, event)

    def _accepted(self, taken: Sequence[_Waiting]) -> list[Portion]:
        portions: dict[tuple[str, int], Portion] = {}
        refused: set[tuple[str, int]] = set()
        for event, records, _, ends in taken:
            place = records.topic, records.partition
            if place in refused:
                continue
            portion = portions.get(place)
            after = portion.parts[-1].last_offset if portion else None
            state = self._owner.accept(*place, records.first_offset, after)
            if state is None:
                refused.add(place)
                self.inbox.drop(*place)
                continue
            if portion is None:
                portion = portions[place] = Portion(state, records.topic)
            # After a seek back records are delivered again, perhaps into the step that has them already.
            fresh = records if after is None else records.beyond(after)
            if len(fresh):
                portion.parts.append(fresh)
            if ends:
                portion.finished.append(event)
        return list(portions.values())


def _is_of(records: Records, topic: str, partition: int) -> bool:
    return records.topic == topic and records.partition == partition


def _set(event: asyncio.Event, holds: bool) -> None:
    if holds:
        event.set()
    else:
        event.clear()


class StepsOfWorker:
    """``Delivered`` of a worker.

    A flush is due for what is already folded; what users' partitions were sent meanwhile joins it, because it
    has to come back as records of items before it is visible.
    """

    def __init__(self, users: Steps, items: Steps) -> None:
        self._users = users
        self._items = items

    async def fold_now(self) -> None:
        if len(self._users.inbox):
            await self._users.step()

    def is_plenty(self) -> bool:
        return self._users.inbox.full_step.is_set() or self._items.inbox.full_step.is_set()

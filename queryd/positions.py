"""AFTER: waiting until the views have applied a position of the log."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final, Protocol

from materializers.materializer import Scope
from queryd.hot.tables import Tables
from streams.positions import Position, Positions
from streams.topics import SIGNALS

WAITERS_MAX: Final = 10_000


@dataclass(slots=True, eq=False)
class _Waiter:
    positions: Positions
    indexed: bool
    done: asyncio.Future[None]
    mark: int | None = None


class Index(Protocol):
    """What a search waits for: records up to ``offered`` are known, those up to ``searchable`` found."""

    offered: int
    searchable: int


class AppliedPositions:
    """Who waits for what. ``announce`` is called after every round of the feeder, when the columns hold all
    that the tables' last catch-up showed: only then does an applied offset mean that queries see it.

    Args:
        index: the text index; a search waits until it has the records that were known when the tables had
            the position, and not for those that go on coming.
    """

    def __init__(self, tables: Tables, partitions: int, index: Index) -> None:
        self._tables = tables
        self._partitions = partitions
        self._index = index
        self._waiters: list[_Waiter] = []

    async def wait(self, positions: Positions, timeout_s: float, *, indexed: bool = False) -> bool:
        """Whether every position became visible in time; with ``indexed`` in the text index as well."""
        if len(self._waiters) >= WAITERS_MAX:
            return False
        waiter = _Waiter(positions, indexed, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        try:
            await asyncio.wait_for(waiter.done, timeout_s)
        except TimeoutError:
            return False
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
        return True

    def announce(self) -> None:
        """Let those go on whose positions are visible now."""
        for waiter in list(self._waiters):
            if self._visible(waiter) and not waiter.done.done():
                waiter.done.set_result(None)
                self._waiters.remove(waiter)

    def _visible(self, waiter: _Waiter) -> bool:
        if waiter.mark is None:
            if not all(self._applied(position) for position in waiter.positions):
                return False
            waiter.mark = self._index.offered if waiter.indexed else 0
        return self._index.searchable >= waiter.mark

    def _applied(self, position: Position) -> bool:
        topic, partition, offset = position.topic, position.partition, position.offset
        if topic != SIGNALS:
            return self._tables.applied(Scope.ENTITY, partition).get(topic, -1) >= offset
        if self._tables.applied(Scope.USER, partition).get(topic, -1) < offset:
            return False
        # A signal is counted by the shard of its item: whichever that is, all must have it.
        return all(
            self._tables.forwarded(item_partition).get(partition, -1) >= offset
            for item_partition in range(self._partitions)
        )

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


class _Signals:
    """The signals of a partition up to an offset, on their way to the counts.

    Those that a stranger's producer put on a wrong partition are sent to their users' partitions first, where
    they stand at later offsets. What has been sent when the partition has applied the offset is enough: later
    events are nobody's business here, and go on coming.
    """

    def __init__(self, partition: int, offset: int) -> None:
        self._partition = partition
        self._offset = offset
        self._awaited: dict[int, int] | None = None
        self._stands_at: dict[int, int] = {}

    def visible(self, tables: Tables, partitions: int) -> bool:
        """Whether all of them are counted."""
        return self._arrived(tables) and all(
            # A signal is counted by the shard of its item: whichever that is, all must have it.
            tables.forwarded(item_partition).get(partition, -1) >= offset
            for item_partition in range(partitions)
            for partition, offset in self._stands_at.items()
        )

    def _arrived(self, tables: Tables) -> bool:
        """Whether the partitions of their users have applied them; notes at which offsets."""
        if self._awaited is None:
            if _applied(tables, self._partition) < self._offset:
                return False
            self._stands_at[self._partition] = self._offset
            self._awaited = dict(tables.sent_away(self._partition))
        for destination, through in list(self._awaited.items()):
            if tables.rerouted(destination).get(self._partition, -1) >= through:
                self._stands_at[destination] = _applied(tables, destination)
                del self._awaited[destination]
        return not self._awaited


def _applied(tables: Tables, partition: int) -> int:
    return tables.applied(Scope.USER, partition).get(SIGNALS, -1)


@dataclass(slots=True, eq=False)
class _Waiter:
    signals: list[_Signals]
    records: list[Position]
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
        signals = [_Signals(each.partition, each.offset) for each in positions if each.topic == SIGNALS]
        records = [each for each in positions if each.topic != SIGNALS]
        waiter = _Waiter(signals, records, indexed, asyncio.get_running_loop().create_future())
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
            waiter.records = [each for each in waiter.records if not self._has(each)]
            waiter.signals = [
                each for each in waiter.signals if not each.visible(self._tables, self._partitions)
            ]
            if waiter.records or waiter.signals:
                return False
            waiter.mark = self._index.offered if waiter.indexed else 0
        return self._index.searchable >= waiter.mark

    def _has(self, record: Position) -> bool:
        applied = self._tables.applied(Scope.ENTITY, record.partition)
        return applied.get(record.topic, -1) >= record.offset

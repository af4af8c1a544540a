"""Hiding edges that this daemon has written and its tables do not show yet.

Whoever blocks or mutes somebody must not meet them on the next page, and a write takes a log and a flush to
come back as a row. The daemon that took the write knows what it wrote: until the tables have applied that
position, reads of explicit edges put it over what the rows say.
"""

from __future__ import annotations

import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from materializers.materializer import Scope
from queryd.hot.tables import Tables
from streams.positions import Position

WRITES_MAX: Final = 10_000
"""Unapplied writes that a daemon holds, about 1 KB each: minutes of blocking by a million active users."""
KEPT_S: Final = 60.0
"""An applied write is held a while longer: a partition that moves may for a moment show older rows."""


class AheadWrite(NamedTuple):
    """One acknowledged write; ``weight`` None deletes the edge."""

    position: Position
    type: str
    source: str
    target: str
    weight: float | None
    ts_ms: int


class EdgesAhead:
    """Acknowledged writes by edge, bounded; each counts while the tables have not applied its position.

    Args:
        clock_s: monotonic seconds; injectable for tests.
    """

    def __init__(
        self,
        tables: Tables,
        *,
        writes_max: int = WRITES_MAX,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tables = tables
        self._writes_max = writes_max
        self._clock_s = clock_s
        self._writes: OrderedDict[tuple[str, str, str], tuple[float, AheadWrite]] = OrderedDict()
        self._at_end: dict[tuple[str, str, bool], set[str]] = defaultdict(set)

    def __len__(self) -> int:
        return len(self._writes)

    def has_room(self) -> bool:
        """Whether another write can be held; those that the tables have applied make room."""
        if len(self._writes) >= self._writes_max:
            for name, (_, write) in list(self._writes.items()):
                if self._applied(write):
                    self._drop(name)
        return len(self._writes) < self._writes_max

    def add(self, write: AheadWrite) -> None:
        """Hold an acknowledged write; of two of one edge the one that is later in the log."""
        name = (write.type, write.source, write.target)
        known = self._writes.pop(name, None)
        if known is not None and known[1].position.offset > write.position.offset:
            write = known[1]
        self._writes[name] = (self._clock_s(), write)
        self._at_end[write.type, write.source, True].add(write.target)
        self._at_end[write.type, write.target, False].add(write.source)

    def find(self, type_name: str, source: str, target: str) -> AheadWrite | None:
        """The write of an edge that the tables lack, if there is one."""
        held = self._writes.get((type_name, source, target))
        return None if held is None or self._applied(held[1]) else held[1]

    def of(self, type_name: str, id_: str, *, outgoing: bool) -> Iterator[AheadWrite]:
        """The writes of one type out of an entity (or into it) that the tables lack."""
        for other in self._at_end.get((type_name, id_, outgoing), ()):
            write = self.find(type_name, *((id_, other) if outgoing else (other, id_)))
            if write is not None:
                yield write

    def _applied(self, write: AheadWrite) -> bool:
        position = write.position
        applied = self._tables.applied(Scope.ENTITY, position.partition)
        return applied.get(position.topic, -1) >= position.offset

    def drop_old(self) -> None:
        """Leave out writes that were applied and have been held long enough; called after each catch-up."""
        while self._writes:
            name, (held_s, write) = next(iter(self._writes.items()))
            if self._clock_s() - held_s < KEPT_S or not self._applied(write):
                return
            self._drop(name)

    def _drop(self, name: tuple[str, str, str]) -> None:
        type_name, source, target = name
        del self._writes[name]
        for end, other in (((type_name, source, True), target), ((type_name, target, False), source)):
            self._at_end[end].discard(other)
            if not self._at_end[end]:
                del self._at_end[end]

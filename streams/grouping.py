"""Group commit: which events share a record. Pure; the clock is an argument.

Events of one partition gather in an open group until it has `events_max` of them, or its payload reaches
`bytes_max`, or `linger_s` have passed since its first one, whichever comes first.
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """What a group needs to know of its members."""

    @property
    def cost_bytes(self) -> int:
        """Room that the member takes, in bytes."""


E = TypeVar("E", bound=Sized)


class Group(Generic[E]):
    """Events that become one record, in the order in which they arrived."""

    __slots__ = ("cost_bytes", "deadline_s", "events", "partition")

    def __init__(self, partition: int, deadline_s: float) -> None:
        self.partition = partition
        self.deadline_s = deadline_s
        self.events: list[E] = []
        self.cost_bytes = 0


class OpenGroups(Generic[E]):
    """The open groups of one topic, at most one for each partition."""

    def __init__(self, events_max: int, bytes_max: int, linger_s: float) -> None:
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._linger_s = linger_s
        # Every group lingers equally long, so the order of opening is the order of the deadlines.
        self._open: dict[int, Group[E]] = {}

    def add(self, partition: int, event: E, now_s: float) -> Group[E] | None:
        """Add an event; returns the group that this event filled, which is then no longer open."""
        group = self._open.get(partition)
        if group is None:
            group = self._open[partition] = Group(partition, now_s + self._linger_s)
        group.events.append(event)
        group.cost_bytes += event.cost_bytes
        if len(group.events) < self._events_max and group.cost_bytes < self._bytes_max:
            return None
        return self._open.pop(partition)

    def next_deadline_s(self) -> float | None:
        """When the oldest open group is due; None when none is open."""
        for group in self._open.values():
            return group.deadline_s
        return None

    def take_due(self, now_s: float) -> list[Group[E]]:
        """Close and return the groups that have lingered long enough."""
        due = []
        for group in self._open.values():
            if group.deadline_s > now_s:
                break
            due.append(group)
        for group in due:
            del self._open[group.partition]
        return due

    def take_all(self) -> list[Group[E]]:
        """Close and return every group: before a flush, or before a batch that must come after them."""
        groups = list(self._open.values())
        self._open.clear()
        return groups

"""Which consumer groups retention has to wait for: nothing goes that one of them has not read.

A guard is a group by name. It holds the topics in which it has committed an offset, and those that are
named with it, these from their first record on. A group whose members are all gone goes on guarding – its
state is what a restart continues from – unless `dead_after_ms` says when that ends. What an operator deletes
with DeleteRecords or DeleteTopics is deleted: guards stand against the clock only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from streams.embedded.metadata import CommittedOffset, Guard, TopicPartition
from streams.embedded.partition import PartitionLog

logger = logging.getLogger(__name__)

Offsets = Mapping[TopicPartition, CommittedOffset]


class Held(NamedTuple):
    """What a partition keeps only because `group` has not read beyond `offset`."""

    group: str
    offset: int
    bytes: int


def needed_from(guard: Guard, offsets: Offsets, topic: str, partition: int) -> int | None:
    """First offset that a guard still needs of a partition, None when it does not read the topic."""
    committed = offsets.get((topic, partition))
    if committed is not None:
        return max(committed.offset, 0)
    reads = topic in guard.topics or any(name == topic for name, _ in offsets)
    return 0 if reads else None


class Guards:
    """The guards of a running log. `offsets_of` and `has_members` are its groups'."""

    def __init__(
        self,
        guards: Iterable[Guard],
        dead_after_ms: int,
        offsets_of: Callable[[str], Offsets],
        has_members: Callable[[str], bool],
        now_ms: int,
    ) -> None:
        self.guards = tuple(guards)
        # By partition, as the last rounds of retention found it.
        self.held: dict[TopicPartition, Held] = {}
        self._dead_after_ms = dead_after_ms
        self._offsets_of = offsets_of
        self._has_members = has_members
        # Memberships do not survive a restart: everybody counts as seen at the start.
        self._seen_ms = {guard.group: now_ms for guard in self.guards}
        self._dead: set[str] = set()

    def look(self, now_ms: int) -> None:
        """See who lives; before each round."""
        for guard in self.guards:
            committed = (offset.at_ms for offset in self._offsets_of(guard.group).values())
            seen_ms = now_ms if self._has_members(guard.group) else max(committed, default=0)
            self._seen_ms[guard.group] = max(self._seen_ms[guard.group], seen_ms)
            is_dead = 0 < self._dead_after_ms < now_ms - self._seen_ms[guard.group]
            if is_dead and guard.group not in self._dead:
                logger.warning("group %s has been away for too long and guards no more", guard.group)
            (self._dead.add if is_dead else self._dead.discard)(guard.group)

    def is_dead(self, group: str) -> bool:
        """Has it been told to stop guarding, and been away for that long?"""
        return group in self._dead

    def retention_start(self, log: PartitionLog, now_ms: int) -> int:
        """First offset that a partition keeps, always a segment's first; notes what only a guard holds."""
        due = expired_before(log, now_ms)
        first_needed = min(self._needs(log), default=None)
        where = (log.topic, log.index)
        if first_needed is None or first_needed[0] >= due:
            self.held.pop(where, None)
            return due
        bases = (segment.base_offset for segment in log.segments)
        keep_from = max((base for base in bases if base <= first_needed[0]), default=log.start_offset)
        held = sum(segment.size for segment in log.segments if keep_from <= segment.base_offset < due)
        if where not in self.held and held:
            logger.warning(
                "%s-%d: retention waits for group %s, which has read up to offset %d",
                log.topic, log.index, first_needed[1], first_needed[0],
            )  # fmt: skip
        self.held[where] = Held(first_needed[1], first_needed[0], held)
        return max(keep_from, log.start_offset)

    def forget(self, known: Callable[[TopicPartition], bool]) -> None:
        """Drop notes on partitions that are gone."""
        self.held = {where: held for where, held in self.held.items() if known(where)}

    def _needs(self, log: PartitionLog) -> Iterable[tuple[int, str]]:
        for guard in self.guards:
            if guard.group not in self._dead:
                offset = needed_from(guard, self._offsets_of(guard.group), log.topic, log.index)
                if offset is not None:
                    yield offset, guard.group


def expired_before(log: PartitionLog, now_ms: int) -> int:
    """First offset that time and size let a partition keep, always a segment's first."""
    keep_from = log.start_offset
    over = log.size() - log.config.retention_bytes
    for segment in log.segments[:-1]:
        too_old = 0 <= log.config.retention_ms < now_ms - segment.max_timestamp
        too_much = log.config.retention_bytes >= 0 and over >= segment.size
        if not (too_old or too_much) or segment.next_offset > log.last_stable_offset:
            break
        over -= segment.size
        keep_from = segment.next_offset
    return keep_from

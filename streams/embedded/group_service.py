"""Runs the group state machine: real time, futures for those who wait, durable offsets and generations."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from streams.embedded.groups import Groups, JoinAnswer, JoinRequest, Reply, SyncAnswer
from streams.embedded.metadata import (
    CommittedOffset,
    GroupAdvanced,
    GroupDeleted,
    MetadataStore,
    OffsetsCommitted,
    OffsetsDeleted,
    TopicPartition,
)
from streams.embedded.settings import LogSettings


class GroupService:
    """The groups of a log, on its event loop."""

    def __init__(self, settings: LogSettings, store: MetadataStore) -> None:
        self._store = store
        self.machine = Groups(
            settings,
            lambda group, generation, kind: store.append(GroupAdvanced(group, generation, kind)),
            {
                name: (entry.generation, entry.protocol_type)
                for name, entry in store.state.generations.items()
            },
        )
        for name in store.state.offsets:
            self.machine.ensure(name)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ms = 0

    async def join(self, request: JoinRequest) -> JoinAnswer:
        future: asyncio.Future[JoinAnswer] = asyncio.get_running_loop().create_future()
        self._deliver(self.machine.join(request, future, clock_ms()))
        return await future

    async def sync(
        self,
        group: str,
        member_id: str,
        instance_id: str | None,
        generation: int,
        assignments: dict[str, bytes],
    ) -> SyncAnswer:
        future: asyncio.Future[SyncAnswer] = asyncio.get_running_loop().create_future()
        now = clock_ms()
        self._deliver(self.machine.sync(group, member_id, instance_id, generation, assignments, future, now))
        return await future

    def heartbeat(self, group: str, member_id: str, instance_id: str | None, generation: int) -> str:
        return self.machine.heartbeat(group, member_id, instance_id, generation, clock_ms())

    def leave(self, group: str, member_id: str, instance_id: str | None) -> str:
        error, replies = self.machine.leave(group, member_id, instance_id, clock_ms())
        self._deliver(replies)
        return error

    def check_commit(self, group: str, member_id: str, instance_id: str | None, generation: int) -> str:
        return self.machine.check_commit(group, member_id, instance_id, generation, clock_ms())

    def commit_offsets(self, group: str, offsets: Iterable[CommittedOffset]) -> None:
        """Record offsets; durable after the next commit cycle."""
        self.machine.ensure(group)
        self._store.append(OffsetsCommitted(group, list(offsets)))

    def offsets(self, group: str) -> dict[TopicPartition, CommittedOffset]:
        return self._store.state.offsets.get(group, {})

    def has_members(self, group: str) -> bool:
        known = self.machine.groups.get(group)
        return known is not None and bool(known.members)

    def delete_offsets(self, group: str, partitions: list[TopicPartition]) -> None:
        self._store.append(OffsetsDeleted(group, partitions))

    def delete(self, group: str) -> str:
        """Forget an empty group with its offsets. Error name."""
        error = self.machine.delete(group)
        if error == "none":
            self._store.append(GroupDeleted(group))
        return error

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _deliver(self, replies: list[Reply]) -> None:
        for reply in replies:
            waiting = reply.token
            if isinstance(waiting, asyncio.Future) and not waiting.done():
                waiting.set_result(reply.answer)
        self._schedule()

    def _schedule(self) -> None:
        deadline = self.machine.next_deadline()
        # Heartbeats only move deadlines back, so an early timer merely looks again.
        if deadline is None or (self._timer is not None and self._timer_ms <= deadline):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_ms = deadline
        delay_s = max(deadline - clock_ms(), 1) / 1000
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._deliver(self.machine.tick(clock_ms()))


def clock_ms() -> int:
    """A clock that no time correction moves."""
    return time.monotonic_ns() // 1_000_000

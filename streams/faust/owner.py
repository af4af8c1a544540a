"""What the Faust application asks of whoever owns the partitions' state."""

from __future__ import annotations

from typing import Protocol


class PartitionOwner(Protocol):
    """Implemented by the table layer; called by the store and by the consumer on Faust's event loop.

    A *partition* here is a number: every source topic and every changelog has the same count of partitions,
    and one worker owns the same number in all of them.
    """

    async def on_revoked(self) -> None:
        """A rebalance begins and nothing more will be delivered: checkpoint, within a bound."""
        ...

    async def on_assigned(self, partitions: frozenset[int], generation: int) -> None:
        """Let go of partitions that are no longer ours. Must return quickly: the group waits."""
        ...

    async def on_recovered(self) -> None:
        """The group is stable: begin to acquire new partitions. They stay paused until they are ready."""
        ...

    def is_ready(self, partition: int) -> bool:
        """Whether batches of the partition may be delivered."""
        ...

    def position(self, topic: str, partition: int) -> int | None:
        """The offset to read next; None while the partition is not ready."""
        ...

    def fail(self, error: BaseException) -> None:
        """Something that must not be skipped has happened: the worker has to stop with an error."""
        ...

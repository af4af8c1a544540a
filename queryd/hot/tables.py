"""What the engine asks of the tables' read side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from materializers.materializer import Scope
from materializers.tables.feed import Change


class Tables(Protocol):
    """Rows of every partition, whichever worker has it, as of the last ``catch_up``."""

    def catch_up(self) -> None:
        """See what the workers have written since."""
        ...

    def partitions(self, scope: Scope) -> Sequence[int]:
        """Partitions of a scope that any worker holds, ascending."""
        ...

    def get_many(self, table: str, keys: Sequence[tuple[int, bytes]]) -> list[bytes | None]:
        """Values of (partition, key) in order; None where there is no row."""
        ...

    def scan(
        self, table: str, partition: int, start: bytes = b"", end: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Rows of a partition with ``start <= key < end`` in key order."""
        ...

    def changes(self) -> Sequence[Change]:
        """Changes that have not been returned yet, in order; none is later than the last ``catch_up``."""
        ...

    def applied(self, scope: Scope, partition: int) -> Mapping[str, int]:
        """Last offset applied of each source topic."""
        ...

    def forwarded(self, partition: int) -> Mapping[int, int]:
        """Item shard: last offset of the signals topic applied, by source partition."""
        ...

    def sent_away(self, partition: int) -> Mapping[int, int]:
        """User shard: last offset of a signal found there that belongs to another partition, by that one."""
        ...

    def rerouted(self, partition: int) -> Mapping[int, int]:
        """User shard: last offset applied of the signals that others found misplaced, by who found them."""
        ...

    def status(self) -> Mapping[str, Any]:
        """What ``/v1/status`` tells of the workers."""
        ...

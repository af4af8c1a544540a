"""Memory that all connections share: who finds it used up waits in line, and nothing is thrown away."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple


class _Waiting(NamedTuple):
    size: int
    wake: Callable[[], None]


class Budget:
    """Counts bytes against a limit. What is larger than the limit fits when nothing else is there."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.used = 0
        self._waiting: deque[_Waiting] = deque()

    @property
    def room(self) -> int:
        """Bytes that are left, 0 when none are."""
        return max(self.bytes_max - self.used, 0)

    def fits(self, size: int) -> bool:
        """May `size` bytes be taken now, and is nobody else in line for them?"""
        return not self._waiting and self._has_room(size)

    def take(self, size: int) -> None:
        """Count bytes that are there already, or that fit."""
        self.used += size

    def release(self, size: int) -> None:
        """Give bytes back and wake those in line for whom there is room now."""
        self.used -= size
        while self._waiting and self._has_room(self._waiting[0].size):
            self._waiting.popleft().wake()

    def wait(self, size: int, wake: Callable[[], None]) -> None:
        """Stand in line: `wake` is called once when `size` bytes fit, and has to take them itself."""
        self._waiting.append(_Waiting(size, wake))

    def leave(self, wake: Callable[[], None]) -> None:
        """Stand in line no more."""
        self._waiting = deque(entry for entry in self._waiting if entry.wake != wake)
        self.release(0)

    def _has_room(self, size: int) -> bool:
        return self.used <= 0 or self.used + size <= self.bytes_max

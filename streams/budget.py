"""The bound on what a producer holds: bytes accepted from callers and not yet acknowledged by the log.

One bound in bytes serves small events and large batches alike. Callers that find it used up wait in line, so
that a large batch is not overtaken for ever by small events.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from streams.errors import ProducerClosedError, QueueFullError

# Callers that wait at once. Each is a blocked thread or a suspended task of the application; beyond this many
# the application is not slowed by waiting, so it is told at once.
WAITERS_MAX = 10_000


class Waiter:
    """One caller in line. `granted` is called once, by the thread that makes the room, with no lock held."""

    __slots__ = ("cost_bytes", "granted")

    def __init__(self, cost_bytes: int, granted: Callable[[], None]) -> None:
        self.cost_bytes = cost_bytes
        self.granted = granted


class Budget:
    """Room for `capacity_bytes`, taken and given back by any thread, first come, first served."""

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self._free_bytes = capacity_bytes
        self._waiters: deque[Waiter] = deque()
        self._lock = threading.Lock()
        self._closed = False

    @property
    def used_bytes(self) -> int:
        """Bytes taken and not given back."""
        return self.capacity_bytes - self._free_bytes

    def try_take(self, cost_bytes: int) -> bool:
        """Take room if there is some and nobody waits for it; never blocks."""
        with self._lock:
            if self._waiters or cost_bytes > self._free_bytes:
                return False
            self._free_bytes -= cost_bytes
            return True

    def take(self, cost_bytes: int, timeout_s: float) -> None:
        """Take room, waiting in line for `timeout_s` at most; raises QueueFullError, ProducerClosedError."""
        if self.try_take(cost_bytes):
            return
        granted = threading.Event()
        waiter = self.join_line(cost_bytes, granted.set)
        if not granted.wait(timeout_s) and self.leave_line(waiter):
            raise self.full(timeout_s)
        self.check_open_after_wait()

    def join_line(self, cost_bytes: int, granted: Callable[[], None]) -> Waiter:
        """Wait in line; `granted` is called when the room has been taken for the caller, or at close.

        The caller then calls `check_open_after_wait`. To give up it calls `leave_line`.
        """
        if cost_bytes > self.capacity_bytes:
            raise QueueFullError(
                f"{cost_bytes} bytes at once are more than the producer holds ({self.capacity_bytes}); "
                "publish less at once or raise the setting buffer_bytes_max"
            )
        waiter = Waiter(cost_bytes, granted)
        with self._lock:
            if self._closed:
                raise _closed()
            if len(self._waiters) >= WAITERS_MAX:
                raise QueueFullError(
                    f"{WAITERS_MAX} callers already wait for room in the producer; publish less at once"
                )
            self._waiters.append(waiter)
        self._grant()
        return waiter

    def leave_line(self, waiter: Waiter) -> bool:
        """Stop waiting. False when the room had already been granted: the caller owns it then."""
        with self._lock:
            if waiter not in self._waiters:
                return False
            self._waiters.remove(waiter)
        self._grant()
        return True

    def give_up(self, waiter: Waiter) -> None:
        """Stop waiting, and return the room if it had been granted meanwhile."""
        if not self.leave_line(waiter) and not self._closed:
            self.give_back(waiter.cost_bytes)

    def give_back(self, cost_bytes: int) -> None:
        """Return room; whoever waits first gets it."""
        with self._lock:
            self._free_bytes += cost_bytes
            assert self._free_bytes <= self.capacity_bytes, "more room given back than was taken"
        if self._waiters:
            self._grant()

    def close(self) -> None:
        """Send everybody who waits away with ProducerClosedError."""
        with self._lock:
            self._closed = True
            waiters, self._waiters = self._waiters, deque()
        for waiter in waiters:
            waiter.granted()

    def check_open_after_wait(self) -> None:
        """Raises ProducerClosedError if the wait ended because the producer was closed."""
        if self._closed:
            raise _closed()

    def full(self, waited_s: float) -> QueueFullError:
        """The error for a caller that waited in vain."""
        return QueueFullError(
            f"no room in the producer after {waited_s:g} s: {self.used_bytes} of {self.capacity_bytes} bytes "
            "wait for the log's acknowledgement; the log is away or slower than the events that arrive"
        )

    def _grant(self) -> None:
        granted: list[Waiter] = []
        with self._lock:
            while self._waiters and self._waiters[0].cost_bytes <= self._free_bytes:
                waiter = self._waiters.popleft()
                self._free_bytes -= waiter.cost_bytes
                granted.append(waiter)
        for waiter in granted:
            waiter.granted()


def _closed() -> ProducerClosedError:
    return ProducerClosedError("the producer has been closed; create a new one to publish more")

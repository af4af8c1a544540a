"""The future of the blocking producer: a `concurrent.futures.Future` that costs a tenth of one.

A plain Future makes a condition with a lock and a queue of its own, for a waiter that most events never have.
At 200,000 unacknowledged events that was 7 of the 15 µs that an event cost, most of it garbage collection.
Here every future of a producer shares one lock, and a waiter brings its own event. `wait`, `as_completed` and
`asyncio.wrap_future` work as on any Future (tests/unit/streams/test_acknowledgement.py).
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from concurrent.futures._base import RUNNING
from typing import Any, TypeVar

T = TypeVar("T")


class Acknowledgement(Future[T]):
    """Resolves when the log has acknowledged. It cannot be cancelled: an event handed over stays so."""

    def __init__(self, shared: threading.Condition) -> None:
        # Instead of Future.__init__, field by field; only the lock of `shared` is ever used.
        self._condition = shared
        self._state = RUNNING
        self._result: Any = None
        self._exception: BaseException | None = None
        self._waiters: list[Any] = []
        self._done_callbacks: list[Any] = []

    def result(self, timeout: float | None = None) -> T:
        """The position, after at most `timeout` seconds; raises TimeoutError, or the delivery's error."""
        self._wait(timeout)
        return super().result(0)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The delivery's error or None, after at most `timeout` seconds; raises TimeoutError."""
        self._wait(timeout)
        return super().exception(0)

    def _wait(self, timeout_s: float | None) -> None:
        if not self.done():
            landed = threading.Event()
            self.add_done_callback(lambda _: landed.set())
            landed.wait(timeout_s)

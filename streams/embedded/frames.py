"""Cuts the bytes of one connection into requests, within what one request and all connections may hold.

Small requests share one receive buffer. A larger one gets a buffer of its own, filled by the kernel, as
soon as the budget of all connections has room for the length that it announces; until then its connection
is not read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from streams.embedded.budget import Budget
from streams.embedded.errors import RequestError

_LENGTH_BYTES = 4
# Of each connection, so a thousand idle ones cost 16 MB.
_RECEIVE_BYTES = 16 * 1024
# What a length alone may claim of real memory; a longer request gets more as it arrives.
_FIRST_BYTES = 2 << 20


class FrameReader:
    """The receiving side of a connection. `frames` are whole requests without their length."""

    def __init__(self, budget: Budget, request_bytes_max: int, on_room: Callable[[], None]) -> None:
        self.request_bytes_max = request_bytes_max
        self.frames: deque[bytearray] = deque()
        self.waiting_bytes = 0
        # True while a request stands in line for the budget: the socket must not be read.
        self.is_blocked = False
        self._budget = budget
        self._on_room = on_room
        self._shared = bytearray(_RECEIVE_BYTES)
        self._view = memoryview(self._shared)
        self._filled = 0
        self._own: bytearray | None = None
        self._own_filled = 0
        self._own_size = 0

    @property
    def is_inside(self) -> bool:
        """Has a request begun to arrive and not ended?"""
        return self._own is not None or self._filled > 0

    def buffer(self) -> memoryview:
        """Where the next bytes go; never empty."""
        if self._own is None:
            return self._view[self._filled :]
        if self._own_filled == len(self._own):
            self._own = _grown(self._own, self._own_size)
        return memoryview(self._own)[self._own_filled :]

    def received(self, count: int) -> None:
        """`count` bytes are in the buffer. Raises RequestError for a length that is not taken."""
        if self._own is None:
            self._filled += count
            self._split()
            return
        self._own_filled += count
        if self._own_filled == self._own_size:
            if self.is_blocked:
                # The rest of it was on its way already when reading stopped.
                self._budget.leave(self._granted)
                self._budget.take(self._own_size)
                self.is_blocked = False
            self._add(self._own)
            self._own = None

    def take(self) -> bytearray:
        """The oldest whole request, out of the budget."""
        frame = self.frames.popleft()
        self.waiting_bytes -= len(frame)
        self._budget.release(len(frame))
        return frame

    def close(self) -> None:
        """Give everything back."""
        held = self.waiting_bytes
        if self.is_blocked:
            self._budget.leave(self._granted)
        elif self._own is not None:
            held += self._own_size
        self.frames.clear()
        self.waiting_bytes = self._filled = 0
        self._own, self.is_blocked = None, False
        self._budget.release(held)

    def _add(self, frame: bytearray) -> None:
        self.frames.append(frame)
        self.waiting_bytes += len(frame)

    def _split(self) -> None:
        """Take the whole requests out of the shared buffer; the start of a large one gets its own."""
        start, end = 0, self._filled
        while end - start >= _LENGTH_BYTES:
            size = int.from_bytes(self._shared[start : start + _LENGTH_BYTES], "big", signed=True)
            if not 0 < size <= self.request_bytes_max:
                self._filled = 0
                raise RequestError(f"a request of {size} bytes, the limit is {self.request_bytes_max}")
            if start + _LENGTH_BYTES + size > end:
                if _LENGTH_BYTES + size > _RECEIVE_BYTES:
                    self._begin_own(size, self._view[start + _LENGTH_BYTES : end])
                    return
                break
            start += _LENGTH_BYTES
            self._budget.take(size)
            self._add(bytearray(self._view[start : start + size]))
            start += size
        self._filled = end - start
        self._shared[: self._filled] = self._shared[start:end]

    def _begin_own(self, size: int, head: memoryview) -> None:
        self._own_size, self._own_filled = size, len(head)
        self._own = bytearray(min(size, max(_FIRST_BYTES, len(head))))
        self._own[: len(head)] = head
        self._filled = 0
        if self._budget.fits(size):
            self._budget.take(size)
        else:
            self.is_blocked = True
            self._budget.wait(size, self._granted)

    def _granted(self) -> None:
        self._budget.take(self._own_size)
        self.is_blocked = False
        self._on_room()


def _grown(buffer: bytearray, size: int) -> bytearray:
    """Twice as large, at most `size`."""
    larger = bytearray(min(2 * len(buffer), size))
    larger[: len(buffer)] = buffer
    return larger

"""The acknowledgement of a batch: one future that waits for every record that the batch became."""

from __future__ import annotations

import threading
from collections.abc import Callable

from streams.errors import DeliveryError
from streams.positions import Position


class BulkAck:
    """Counts what is outstanding and calls `settle` once, with the positions in order or with an error.

    It stands where a single event's future stands (`done`, `set_result`, `set_exception`); each call counts
    one part. Any thread may call; `settle` runs on the thread of the last part.
    """

    def __init__(self, parts: int, settle: Callable[[list[Position] | None, Exception | None], None]) -> None:
        self._outstanding = parts
        self._settle = settle
        self._positions: set[Position] = set()
        self._failures = 0
        self._first_error: Exception | None = None
        self._lock = threading.Lock()

    def done(self) -> bool:
        """Never: parts report until the last one."""
        return False

    def expect(self) -> None:
        """One more part will report."""
        with self._lock:
            self._outstanding += 1

    def set_result(self, position: Position) -> None:
        """A part is in the log."""
        self._report(position, None)

    def set_exception(self, error: Exception) -> None:
        """A part has failed."""
        self._report(None, error)

    def part_done(self) -> None:
        """A part ends without a record of its own: a piece has been split, its records are expected."""
        self._report(None, None)

    def _report(self, position: Position | None, error: Exception | None) -> None:
        with self._lock:
            self._outstanding -= 1
            if position is not None:
                self._positions.add(position)
            if error is not None:
                self._failures += 1
                self._first_error = self._first_error or error
            is_last = self._outstanding == 0
        if is_last:
            self._finish()

    def _finish(self) -> None:
        if self._first_error is None:
            self._settle(sorted(self._positions), None)
        elif not self._positions:
            self._settle(None, self._first_error)
        else:
            error = DeliveryError(
                f"a part of the batch is in the log ({len(self._positions)} records), {self._failures} parts "
                f"failed: {self._first_error}",
                retriable=True,
            )
            error.__cause__ = self._first_error
            self._settle(None, error)

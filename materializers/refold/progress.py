"""How far a refold is, for people."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec


class Progress(msgspec.Struct):
    """Counts of one piece of work.

    Attributes:
        what: the work in words.
        total: records expected, holes of the log included; 0 while unknown.
        records, events: read and folded so far.
    """

    what: str
    total: int = 0
    records: int = 0
    events: int = 0
    started_s: float = msgspec.field(default_factory=time.monotonic)

    def records_per_s(self) -> float:
        elapsed_s = time.monotonic() - self.started_s
        return self.records / elapsed_s if elapsed_s > 0 else 0.0

    def events_per_s(self) -> float:
        elapsed_s = time.monotonic() - self.started_s
        return self.events / elapsed_s if elapsed_s > 0 else 0.0

    def remaining_s(self) -> float | None:
        """Estimate, None while nothing is known."""
        rate = self.records_per_s()
        return max(0, self.total - self.records) / rate if rate and self.total else None


Watch = Callable[[Progress], None]
"""Told of progress after each batch of records; may raise to end the work."""


def unwatched(progress: Progress) -> None:
    """Nobody looks."""

"""How far a refold is, for people."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

import msgspec

PROGRESS_FILE: Final = "progress.json"
_FILE_EVERY_S: Final = 1.0
_STALE_S: Final = 10.0


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


class ProgressFile:
    """A rebuild's progress as a file, for ``status``."""

    def __init__(self, folder: Path, view: str) -> None:
        self._path = folder / PROGRESS_FILE
        self._view = view
        self._written_s = float("-inf")

    def __call__(self, progress: Progress) -> None:
        now_s = time.monotonic()
        if now_s - self._written_s < _FILE_EVERY_S:
            return
        self._written_s = now_s
        draft = self._path.with_suffix(".new")
        draft.write_bytes(msgspec.json.encode(self._said(progress)))
        draft.replace(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._path.unlink(missing_ok=True)

    def _said(self, progress: Progress) -> dict[str, Any]:
        return {
            "view": self._view,
            "doing": progress.what,
            "records": progress.records,
            "records_total": progress.total,
            "events_per_s": round(progress.events_per_s()),
            "remaining_s": progress.remaining_s(),
        }


def read_progress(folder: Path) -> dict[str, Any] | None:
    """What a rebuild last said; None if none runs."""
    path = folder / PROGRESS_FILE
    try:
        if time.time() - path.stat().st_mtime > _STALE_S:
            return None
        said: dict[str, Any] = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError):
        return None
    return said

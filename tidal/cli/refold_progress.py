"""What `tidal verify` and `tidal rebuild` say while they fold: counts, rate and what is left."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from tidal.cli.output import say

if TYPE_CHECKING:
    from materializers.refold.progress import Progress

_PLAIN_LINE_EVERY_S = 5.0
_TERMINAL_LINE_EVERY_S = 0.2


class ProgressLine:
    """A line on stderr: rewritten on a terminal, a new one every few seconds elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._every_s = _TERMINAL_LINE_EVERY_S if self._terminal else _PLAIN_LINE_EVERY_S
        self._said_s = time.monotonic()
        self._width = 0

    def __call__(self, progress: Progress) -> None:
        now_s = time.monotonic()
        if now_s - self._said_s < self._every_s:
            return
        self._said_s = now_s
        text = _text(progress)
        if not self._terminal:
            say(text)
            return
        sys.stderr.write("\r" + text.ljust(self._width))
        sys.stderr.flush()
        self._width = len(text)

    def end(self) -> None:
        """Leave the line."""
        if self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            self._width = 0


def _text(progress: Progress) -> str:
    parts = [f"{progress.what}: {progress.records:,} of {progress.total:,} records"]
    if progress.events:
        parts.append(f"{progress.events:,} events, {progress.events_per_s():,.0f}/s")
    left_s = progress.remaining_s()
    if left_s is not None:
        parts.append(f"about {left_s:.0f} s left")
    return ", ".join(parts)

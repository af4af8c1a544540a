"""Where a worker's CPU time goes: by stage of the event loop's own work, and by kind of thread.

The clock is always on. A lap costs under a microsecond, and a step has a few dozen of them.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from pathlib import Path
from time import thread_time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from materializers.materializer import Forgotten, Materializer, RowReader, RowWriter

TASKS: Final = Path("/proc/self/task")
LOOP_THREAD: Final = "loop"
# Threads of libraries are named after what they do; ours are known to Python by name.
_NATIVE: Final = {"rdk:": "librdkafka", "rocksdb:": "rocksdb"}
_OURS: Final = {
    "MainThread": LOOP_THREAD,
    "tables": "changelog",
    "forward-acks": "forward acknowledgements",
    "Thread-": "fetch",
}


class StageClock:
    """CPU seconds of the event loop's thread by stage. Every lap belongs to the stage that it ends."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._at = thread_time()

    def begin(self) -> None:
        """What ran before is no stage of ours."""
        self._at = thread_time()

    def lap(self, stage: str) -> None:
        """The time since the last lap, or ``begin``, was spent on ``stage``."""
        now = thread_time()
        self.seconds[stage] += now - self._at
        self._at = now

    def took(self, stage: str, seconds: float) -> None:
        """A part of the present lap that belongs to another stage."""
        self.seconds[stage] += seconds
        self._at += seconds


class TimedView:
    """A view whose folds and checkpoints are on the clock; in all else the view itself."""

    def __init__(self, view: Materializer, name: str, clock: StageClock) -> None:
        self._view = view
        self.name = name
        self._fold, self._rows = f"view {name}: fold", f"view {name}: rows"
        self._clock = clock

    def on_batch(self, batch: Any) -> None:
        started_s = thread_time()
        self._view.on_batch(batch)
        self._clock.took(self._fold, thread_time() - started_s)

    def checkpoint(self, writer: RowWriter) -> None:
        started_s = thread_time()
        self._view.checkpoint(writer)
        self._clock.took(self._rows, thread_time() - started_s)

    def restore(self, reader: RowReader) -> None:
        self._view.restore(reader)

    def forget(self, users: Forgotten, writer: RowWriter) -> dict[str, int]:
        return self._view.forget(users, writer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._view, name)


def cpu_by_thread() -> dict[str, float]:
    """CPU seconds of this process so far by kind of thread; empty where the system does not tell."""
    names = {str(thread.native_id): thread.name for thread in threading.enumerate()}
    ticks = os.sysconf("SC_CLK_TCK")
    spent: defaultdict[str, float] = defaultdict(float)
    for task in TASKS.iterdir() if TASKS.exists() else ():
        try:
            stat = (task / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:  # it has ended meanwhile
            continue
        name, _, fields = stat.partition("(")[2].rpartition(")")
        user, system = fields.split()[11:13]
        spent[_kind(names.get(task.name, ""), name)] += (int(user) + int(system)) / ticks
    return {kind: round(seconds, 2) for kind, seconds in spent.items()}


def _kind(ours: str, native: str) -> str:
    for start, kind in _NATIVE.items():
        if native.startswith(start):
            return kind
    return next((kind for start, kind in _OURS.items() if ours.startswith(start)), "other threads")

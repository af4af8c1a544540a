"""Where each microsecond of an event goes, as the worker itself counts it: a table of CPU time by stage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from materializers.stage_clock import LOOP_THREAD
from materializers.worker import STATUS_FILE, worker_folder

SHOWN_US_MIN: Final = 0.01


class CpuStatus(NamedTuple):
    """CPU seconds of a worker so far. ``written_ms``: since 1970, when it said so."""

    written_ms: int
    stages: Mapping[str, float]
    threads: Mapping[str, float]


def read_status(data: Path, worker: str) -> CpuStatus:
    """What a running worker says."""
    status: dict[str, Any] = msgspec.json.decode((worker_folder(data, worker) / STATUS_FILE).read_bytes())
    return CpuStatus(status["written_ms"], status["cpu_s_by_stage"], status["cpu_s_by_thread"])


def stage_rows(before: CpuStatus, after: CpuStatus, events: float) -> list[dict[str, Any]]:
    """One row for each stage and kind of thread, in microseconds for each event.

    The event loop's stages come first, dearest first; what they leave of its time is Faust and waiting.
    """
    stages = _differences(before.stages, after.stages)
    threads = _differences(before.threads, after.threads)
    loop_s = threads.pop(LOOP_THREAD, 0.0)
    rest = {"event loop, Faust, the rest": loop_s - sum(stages.values())}
    spent = [
        *(("event loop", stage, seconds) for stage, seconds in _dearest(stages | rest)),
        *((kind, "", seconds) for kind, seconds in _dearest(threads)),
        ("all", "", loop_s + sum(threads.values())),
    ]
    return [
        {"thread": thread, "stage": stage, "µs an event": seconds / events * 1e6}
        for thread, stage, seconds in spent
        if seconds / events * 1e6 >= SHOWN_US_MIN
    ]


def _differences(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    return {name: seconds - before.get(name, 0.0) for name, seconds in after.items()}


def _dearest(spent: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(spent.items(), key=lambda entry: -entry[1])

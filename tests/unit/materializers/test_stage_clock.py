"""Every moment of a step belongs to one stage."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from benchmarks.stages import CpuStatus, stage_rows
from materializers import stage_clock
from materializers.stage_clock import LOOP_THREAD, TASKS, StageClock, TimedView, cpu_by_thread


class Time:
    """CPU time that passes when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 10.0
        monkeypatch.setattr(stage_clock, "thread_time", lambda: self.now)


def test_a_lap_belongs_to_the_stage_that_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Time(monkeypatch)
    clock = StageClock()
    time.now += 5
    clock.begin()
    time.now += 1
    clock.lap("decode")
    time.now += 2
    clock.lap("fold")
    time.now += 4
    clock.lap("decode")
    assert clock.seconds == {"decode": 5.0, "fold": 2.0}


def test_a_view_inside_a_lap_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Time(monkeypatch)
    clock = StageClock()

    def work(argument: Any) -> None:
        time.now += 3

    view = TimedView(cast(Any, SimpleNamespace(on_batch=work, checkpoint=work, other=7)), "v", clock)
    time.now += 1
    view.on_batch(None)
    time.now += 1
    clock.lap("around")
    view.checkpoint(cast(Any, None))
    assert clock.seconds == {"around": 2.0, "view v: fold": 3.0, "view v: rows": 3.0}
    assert view.other == 7


@pytest.mark.skipif(not TASKS.exists(), reason="only Linux tells the time of threads")
def test_this_thread_has_used_time() -> None:
    assert LOOP_THREAD in cpu_by_thread()


def test_the_table_adds_up_to_all_threads() -> None:
    before = CpuStatus(0, {"a": 1.0}, {LOOP_THREAD: 2.0, "fetch": 1.0})
    after = CpuStatus(9, {"a": 2.0, "b": 1.0}, {LOOP_THREAD: 6.0, "fetch": 2.0})
    rows = {(row["thread"], row["stage"]): row["µs an event"] for row in stage_rows(before, after, 1e6)}
    assert rows == {
        ("event loop", "a"): 1.0,
        ("event loop", "b"): 1.0,
        ("event loop", "event loop, Faust, the rest"): 2.0,
        ("fetch", ""): 1.0,
        ("all", ""): 5.0,
    }

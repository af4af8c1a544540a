"""When flushes and checkpoints run."""

from __future__ import annotations

from materializers.tables.cadence import Cadence, Pace

PACE = Pace(interval_min_s=0.02, rest_per_run=4.0, interval_max_s=10.0)


def test_first_run_is_due_at_once() -> None:
    assert Cadence(PACE).wait_s(123.0) == 0.0


def test_quick_runs_follow_each_other_after_the_least_interval() -> None:
    cadence = Cadence(PACE)
    cadence.ran(100.001, run_s=0.001)
    assert abs(cadence.wait_s(100.001) - 0.02) < 1e-9


def test_long_runs_are_followed_by_a_rest_in_proportion() -> None:
    cadence = Cadence(PACE)
    cadence.ran(100.5, run_s=0.5)
    assert abs(cadence.wait_s(100.5) - 2.0) < 1e-9
    assert cadence.wait_s(103.0) == 0.0


def test_the_rest_is_bounded() -> None:
    cadence = Cadence(PACE)
    cadence.ran(160.0, run_s=60.0)
    assert cadence.wait_s(160.0) == 10.0

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


def test_a_rest_may_be_so_many_times_longer_and_the_run_is_told_as_it_was() -> None:
    cadence = Cadence(Pace(interval_min_s=0.02, rest_per_run=2.0))
    cadence.ran(10.0, 0.1, rests=2.0)
    assert abs(cadence.wait_s(10.0) - 0.4) < 1e-9
    assert cadence.last_run_s == 0.1


def test_the_rest_is_bounded() -> None:
    cadence = Cadence(PACE)
    cadence.ran(160.0, run_s=60.0)
    assert cadence.wait_s(160.0) == 10.0


def test_the_least_interval_doubles_under_steady_work_and_begins_anew_after_a_pause() -> None:
    cadence = Cadence(Pace(interval_min_s=0.25, interval_steady_s=1.0))
    rests = []
    for number in range(4):
        cadence.ran(100.0 + number, run_s=0.01)
        rests.append(cadence.wait_s(100.0 + number))
    assert rests == [0.25, 0.5, 1.0, 1.0]
    cadence.paused()
    cadence.ran(200.0, run_s=0.01)
    assert cadence.wait_s(200.0) == 0.25

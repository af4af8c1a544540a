"""The run of CI's parts: verdicts, what failed, and that a part which hangs ends."""

from __future__ import annotations

import time

import pytest

from scripts import ci
from scripts.ci import Part, Run, summary

FAR_S = 60.0


def _shell(name: str, text: str) -> Part:
    return Part(name, ("sh", "-c", text))


def test_every_part_runs_and_its_verdict_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    good = _shell("good", "echo '=== 3 passed in 1.0s ==='")
    bad = _shell("bad", "echo 'FAILED tests/test_x.py::test_y'; exit 2")
    Run([good, bad], time.monotonic() + FAR_S).finish(2)
    assert (good.status, good.verdict, good.closing) == (0, "ok", "3 passed in 1.0s")
    assert (bad.status, bad.failures) == (2, ["FAILED tests/test_x.py::test_y"])
    assert "good       │ === 3 passed" in capsys.readouterr().out
    told = summary([good, bad])
    assert "FAILED (exit 2)" in told
    assert "bad: FAILED tests/test_x.py::test_y" in told


def test_a_part_that_hangs_is_interrupted_and_later_ones_are_not_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ci, "GRACE_S", 0.2)
    deaf = _shell("deaf", "trap '' INT; echo began; sleep 60 & wait; sleep 60")
    never = _shell("never", "true")
    Run([deaf, never], time.monotonic() + 0.3).finish(1)
    assert deaf.status not in (0, None)
    assert never.verdict == "NOT RUN"


def test_what_a_part_leaves_running_is_stopped() -> None:
    executed = "until head -c 5 /proc/$!/cmdline | grep -q sleep; do :; done"
    leaves = _shell("leaves", f"setsid sleep 61 >/dev/null 2>&1 & {executed}")
    Run([leaves], time.monotonic() + FAR_S).finish(1)
    [command] = ci.stop_leftovers()
    assert command.endswith("sleep 61")
    assert ci.stop_leftovers() == []


def test_parts_know_that_they_run_in_ci(capsys: pytest.CaptureFixture[str]) -> None:
    """Else property tests would try other examples each time."""
    Run([_shell("asks", "echo CI is $CI")], time.monotonic() + FAR_S).finish(1)
    assert "CI is true" in capsys.readouterr().out

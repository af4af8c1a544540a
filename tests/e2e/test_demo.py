"""`tidal demo` as a user runs it: the whole path in processes of its own, and nothing stays behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tidal.cli.failure import FAILED
from tidal.cli.main import run

TIMEOUT_S = 110
SIZE = ("--users", "500", "--items", "600", "--events", "20000")
COMMAND = (sys.executable, "-m", "tidal", "demo", *SIZE, "--json")


def _run(data: Path) -> dict[str, Any]:
    finished = subprocess.run(
        [*COMMAND, "--data", str(data)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert finished.returncode == 0, finished.stderr[-3000:] + finished.stdout[-3000:]
    outcome: dict[str, Any] = json.loads(finished.stdout)
    return outcome


def _processes_on(data: Path) -> list[str]:
    lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    return [line for line in lines if str(data) in line]


def test_every_answer_equals_its_recount_and_nothing_stays_behind(tmp_path: Path) -> None:
    data = tmp_path / "site"
    outcome = _run(data)
    assert not any(outcome["differences"].values()), outcome["differences"]
    assert len(outcome["answers"]) == 4
    assert outcome["trend_problems"] == []
    assert outcome["events"] > 15_000 > outcome["repeated"] > 0
    assert not (data / "endpoints.json").exists()
    assert _processes_on(data) == []


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "something").write_text("kept")
    assert run(["demo", "--data", str(tmp_path)]) == FAILED
    assert "empty folder" in capsys.readouterr().err
    assert (tmp_path / "something").read_text() == "kept"

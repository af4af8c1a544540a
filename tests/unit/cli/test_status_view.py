"""The status as tables."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from queryd.http.shapes import Readiness, Status
from tidal.cli import output
from tidal.cli.status_view import flat, render

WORKER: dict[str, Any] = {
    "pid": 42,
    "memory_bytes_max": 200 << 20,
    "partitions": {"0": {"bytes_uncheckpointed": 3 << 20}, "1": {"bytes_uncheckpointed": 4 << 20}},
    "restoring": {},
    "shards": {"0": {"events": 1000, "duplicates": 1}, "1": {"events": 234, "duplicates": 0}},
    "tables": {"items": {"rows": 77, "bytes": 1 << 20, "estimated": True}},
    "views": {"user": ["preference"], "item": ["global_signals"]},
    "flush_ms": 1.5,
}
LOG: dict[str, Any] = {
    "reachable": True,
    "fault": None,
    "lag_records": 12345,
    "lag_ms": 900,
    "scopes": {"user": {"lag_records": 5, "lag_ms": 40}, "item": {"lag_records": 7, "lag_ms": 70}},
    "retention": [],
    "topics": {"tidal.signals": {"end": 20000, "applied": 7655, "committed": 7600, "lag_records": 12345}},
}


def shown(state: Status, readiness: Readiness) -> str:
    """The text on a wide terminal without colours."""
    console = Console(width=200, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(render(state, readiness))
    return capture.get()


def status(**changes: Any) -> Status:
    """A status."""
    given: dict[str, Any] = {
        "version": "1.2.3", "ready": True, "log": LOG, "engine": {"text": {"waiting": 5}},
        "workers": {"worker-0": WORKER}, "rejected": {"unknown_kind": 4, "id_empty": 9},
        "http": {"requests": 8},
    }  # fmt: skip
    return Status(**(given | changes))


def test_everything_is_shown() -> None:
    text = shown(status(), Readiness(True, [], {}))
    assert text.startswith("ready · version 1.2.3 · 900 ms behind the log")
    for word in (
        "tidal.signals",
        "12,345",
        "worker-0",
        "1,234",
        "200",
        "7,168",
        "7,600",
        "text.waiting",
        "unknown_kind",
        "77",
    ):
        assert word in text
    assert text.index("id_empty") < text.index("unknown_kind")


def test_reasons_come_first() -> None:
    text = shown(status(ready=False), Readiness(False, ["tables are being read"], {}))
    assert text.splitlines()[0].startswith("not ready")
    assert "tables are being read" in text.splitlines()[1]


def test_a_log_that_is_away() -> None:
    away = {"reachable": False, "fault": "connection refused", "topics": {}}
    text = shown(status(log=away), Readiness(True, [], {}))
    assert "the log does not answer: connection refused" in text


def test_before_any_worker_has_written() -> None:
    text = shown(status(log={}, engine={}, workers={"worker-0": {}}, rejected={}), Readiness(True, [], {}))
    assert "worker-0" in text


def test_flat() -> None:
    assert flat({"a": {"b": 1, "c": {"d": 2}}, "e": 3}) == {"a.b": 1, "a.c.d": 2, "e": 3}


def test_a_rebuild_is_told_in_the_headline() -> None:
    said = {
        "view": "user_state",
        "doing": "folding signals",
        "records": 1500,
        "records_total": 3000,
        "events_per_s": 9,
        "remaining_s": 4.2,
    }
    text = shown(status(workers={"w": WORKER | {"rebuild": said}}), Readiness(True, [], {}))
    assert "rebuilds user_state: folding signals, 1,500 of 3,000 records, about 4 s left" in text
    assert "rebuilds" not in shown(status(workers={"w": WORKER | {"rebuild": None}}), Readiness(True, [], {}))


def test_each_view_says_how_far_it_is_behind() -> None:
    lines = shown(status(), Readiness(True, [], {})).splitlines()
    (line,) = (line for line in lines if "global_signals" in line)
    assert line.replace("│", " ").split() == ["global_signals", "item", "7", "70"]
    assert any("items" in line and "77" in line and "about" in line for line in lines)


def test_retention_is_shown_only_when_it_is_a_danger() -> None:
    assert "retention" not in shown(status(), Readiness(True, [], {}))
    warning = {"topic": "tidal.signals", "partition": 3, "lost": False, "why": "30 records grow old"}
    assert "30 records grow old" in shown(status(log=LOG | {"retention": [warning]}), Readiness(True, [], {}))


def test_small_tables_are_told_to_the_kilobyte_and_nothing_is_minus_zero() -> None:
    worker = WORKER | {"tables": {"items": {"rows": 4, "bytes": 667, "estimated": False}}}
    told = shown(status(workers={"worker-0": worker}), Readiness(True, [], {}))
    assert "0.001" in told
    assert "0.0006" not in told
    assert output.shown(-0.0) == "0"

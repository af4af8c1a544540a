"""An import that is interrupted goes on where the log's acknowledgements ended."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from schemas.records.columns import EventColumns
from streams.positions import Positions
from streams.topics import USERS
from tidal.importers.resume import ResumeFile
from tidal.importers.rows import ImporterError
from tidal.publishing import Entry, Publisher, Step

from .conftest import RecordingLog

ROWS = 25
ROWS_A_STEP = 3


def _steps(first: int) -> Iterator[Step]:
    for start in range(first, ROWS, ROWS_A_STEP):
        stop = min(start + ROWS_A_STEP, ROWS)
        count = stop - start
        yield Step(
            stop,
            EventColumns(
                kinds=["view"],
                items=[f"i{row}" for row in range(start, stop)],
                users=["u"],
                kind=np.zeros(count, dtype=np.uint16),
                item=np.arange(count, dtype=np.uint32),
                user=np.zeros(count, dtype=np.uint32),
                weight=np.full(count, 1_000_000, dtype=np.int64),
                ts_ms=np.arange(start, stop, dtype=np.int64),
            ),
        )


def _publisher(log: RecordingLog, resume: ResumeFile) -> tuple[Publisher, io.StringIO]:
    said = io.StringIO()
    return Publisher(log, resume, Console(file=said)), said


def _items(log: RecordingLog) -> list[str]:
    return [item for _, item, *_ in log.events]


def test_all_rows_are_published_once_and_in_order(tmp_path: Path) -> None:
    log = RecordingLog()
    publisher, said = _publisher(log, ResumeFile(tmp_path, "a"))
    publisher.publish_events("ratings", ROWS, _steps)
    assert _items(log) == [f"i{row}" for row in range(ROWS)]
    assert "ratings: 25 of 25" in said.getvalue()


def test_an_interrupted_import_repeats_only_what_was_not_acknowledged(tmp_path: Path) -> None:
    log = RecordingLog(fail_after=5)
    first, _ = _publisher(log, ResumeFile(tmp_path, "a"))
    with pytest.raises(ConnectionError):
        first.publish_events("ratings", ROWS, _steps)
    log.fail_after = None

    resume = ResumeFile(tmp_path, "a")
    assert resume.load()
    acknowledged = resume.done("ratings")
    assert 0 < acknowledged <= 5 * ROWS_A_STEP
    second, _ = _publisher(log, resume)
    second.publish_events("ratings", ROWS, _steps)
    assert set(_items(log)) == {f"i{row}" for row in range(ROWS)}
    assert len(_items(log)) == ROWS + 5 * ROWS_A_STEP - acknowledged


def test_records_go_on_where_they_ended(tmp_path: Path) -> None:
    entries = [Entry(row + 2, {"id": f"u{row}"}) for row in range(7)]
    resume = ResumeFile(tmp_path, "a")
    resume.record("users", 4)
    log = RecordingLog()
    publisher, _ = _publisher(log, resume)
    publisher.publish_records("user", entries, lambda line, reason: None)
    assert [id_ for _, id_, _ in log.entities] == ["u4", "u5", "u6"]


def test_events_wait_until_the_records_before_them_are_visible(tmp_path: Path) -> None:
    """Else they would be counted for the cohorts that their users were in before."""
    log = RecordingLog()
    seen: list[tuple[set[str], int]] = []

    def until_visible(positions: Positions) -> None:
        seen.append(({each.topic for each in positions}, len(log.events)))

    publisher = Publisher(log, ResumeFile(tmp_path, "a"), Console(file=io.StringIO()), until_visible)
    publisher.publish_records("user", [Entry(1, {"id": "u"})], lambda line, reason: None)
    publisher.publish_events("ratings", ROWS, _steps)
    publisher.publish_events("comments", ROWS, _steps)
    assert seen == [({USERS}, 0)]
    assert len(log.events) == 2 * ROWS


def test_positions_are_the_newest_of_each_topic(tmp_path: Path) -> None:
    log = RecordingLog()
    publisher, _ = _publisher(log, ResumeFile(tmp_path, "a"))
    publisher.publish_records(
        "user", [Entry(1, {"id": "u1"}), Entry(2, {"id": "u2"})], lambda line, reason: None
    )
    publisher.publish_events("ratings", ROWS, _steps)
    newest = {position.topic: position.offset for position in publisher.positions}
    assert newest == {"tidal.users": 1, "tidal.signals": len(log.batches) - 1}


def test_a_finished_import_is_not_repeated_by_accident(tmp_path: Path) -> None:
    resume = ResumeFile(tmp_path, "a")
    resume.finish()
    with pytest.raises(ImporterError, match="--again"):
        ResumeFile(tmp_path, "a").load()
    assert not ResumeFile(tmp_path, "another source").load()


def test_an_import_that_brought_in_nothing_may_be_repeated(tmp_path: Path) -> None:
    resume = ResumeFile(tmp_path, "a")
    resume.record("ratings", 3)
    resume.forget()
    assert not ResumeFile(tmp_path, "a").load()


def test_both_halves_of_a_shifted_import_move_to_the_same_instant(tmp_path: Path) -> None:
    assert ResumeFile(tmp_path, "a").newest_ms(1_000) == 1_000
    later = ResumeFile(tmp_path, "a")
    assert later.load()
    assert later.newest_ms(2_000) == 1_000


def test_a_damaged_state_file_says_what_to_do(tmp_path: Path) -> None:
    resume = ResumeFile(tmp_path, "a")
    resume.record("users", 1)
    resume.path.write_bytes(b"{")
    with pytest.raises(ImporterError, match="--again"):
        ResumeFile(tmp_path, "a").load()

"""UserBehavior rows become items and events; odd ones go to the log as they are, what is no row does not."""

from __future__ import annotations

import gzip
import io
import json
import random
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from schemas.default import default_schema
from schemas.model import Schema
from tidal.importers import taobao
from tidal.importers.refused_events import EventBounds
from tidal.importers.resume import ResumeFile
from tidal.importers.rows import ImporterError, Refusals
from tidal.importers.taobao_import import import_taobao
from tidal.publishing import Publisher

from .conftest import RecordingLog

START_S = 1_511_658_000
KINDS = {"pv": "view", "cart": "add_to_list", "fav": "save", "buy": "purchase"}
ODD = ["7,8,9,pv,15", "7,8,9,pv,-2134949234", "7,8,9,gift,1511658001", "7,8,9,pv,soon", "7,8,9,pv,9999999999"]
NO_ROWS = ["1,2,3,pv", "1,2,3,pv,1511658000,more", ",2,3,pv,1511658000", "1,,3,pv,1511658000"]


@pytest.fixture(scope="module")
def schema() -> Schema:
    return default_schema()


def _rows(count: int, seed: int = 5) -> list[str]:
    draw = random.Random(seed)
    return [
        f"{draw.randint(1, 40)},{(item := draw.randint(100, 160))},{item % 7},{draw.choice(list(KINDS))},"
        f"{START_S + draw.randint(0, 7_000)}"
        for _ in range(count)
    ]


def _import(
    path: Path, schema: Schema, log: RecordingLog, folder: Path, *, shift: bool = False
) -> tuple[dict[str, int], list[int], list[int]]:
    resume = ResumeFile(folder, str(path))
    resume.load()
    done = import_taobao(
        path, schema, Publisher(log, resume, Console(file=io.StringIO())), resume, shift_to_now=shift
    )
    return done.counts, [each.line for each in done.refusals.listed], [each.line for each in done.dead.listed]


def _expected(rows: list[str]) -> Counter[tuple[str, str, str, int]]:
    found: Counter[tuple[str, str, str, int]] = Counter()
    for row in rows:
        user, item, _, behaviour, seconds = row.split(",")
        found[KINDS[behaviour], item, user, int(seconds) * 1000] += 1
    return found


def _published(log: RecordingLog) -> Counter[tuple[str, str, str, int]]:
    return Counter((kind, item, user, ts_ms) for kind, item, user, _, ts_ms in log.events)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_every_row_is_published_once(tmp_path: Path, schema: Schema, packed: bool, ending: str) -> None:
    rows = _rows(300)
    path = tmp_path / ("UserBehavior.csv.gz" if packed else "UserBehavior.csv")
    text = ending.join(rows).encode()
    path.write_bytes(gzip.compress(text) if packed else text)
    log = RecordingLog()
    assert _import(tmp_path, schema, log, tmp_path) == ({"items": len(log.entities), "events": 300}, [], [])
    assert _published(log) == _expected(rows)
    assert {record["id"]: record["category"] for _, _, record in log.entities if record} == {
        row.split(",")[1]: row.split(",")[2] for row in rows
    }


def test_odd_rows_go_to_the_log_as_they_are_and_lines_that_are_none_are_named(
    tmp_path: Path, schema: Schema
) -> None:
    rows = _rows(50)
    lines = ["user_id,item_id,category_id,behavior,timestamp", *rows, *ODD, "", *NO_ROWS]
    path = tmp_path / "UserBehavior.csv"
    path.write_text("\n".join(lines) + "\n")
    log = RecordingLog()
    _, refused, dead = _import(path, schema, log, tmp_path)
    assert _published(log) == _expected(rows)
    assert dead == list(range(52, 57))
    assert refused == list(range(58, 62))
    assert [(topic, key) for topic, key, _ in log.raw] == [("tidal.signals", b"7")] * len(ODD)
    events = [json.loads(value) for _, _, value in log.raw]
    assert [event["ts"] for event in events] == [15_000, -2134949234000, 1511658001000, "soon", 9999999999000]
    assert [event["kind"] for event in events] == ["view", "view", "gift", "view", "view"]


def test_a_shift_moves_the_newest_good_event_to_now_and_no_odd_one(tmp_path: Path, schema: Schema) -> None:
    path = tmp_path / "UserBehavior.csv"
    path.write_text("\n".join([*_rows(20), *ODD]))
    log, plain = RecordingLog(), RecordingLog()
    _import(path, schema, log, tmp_path / "a", shift=True)
    _import(path, schema, plain, tmp_path / "b")
    (moved,) = {after[4] - before[4] for after, before in zip(log.events, plain.events, strict=True)}
    newest_ms = json.loads(next((tmp_path / "a").rglob("*.json")).read_bytes())["newest_ms"]
    assert max(event[4] for event in log.events) == newest_ms
    assert moved > 0
    assert log.raw == plain.raw


@pytest.mark.parametrize("stops_after", [0, 1, 2])
def test_an_interrupted_import_goes_on_at_its_line(
    tmp_path: Path, schema: Schema, monkeypatch: pytest.MonkeyPatch, stops_after: int
) -> None:
    monkeypatch.setattr(taobao, "ROWS_PER_STEP", 10)
    monkeypatch.setattr("tidal.publishing.STEPS_IN_FLIGHT_MAX", 1)
    rows = _rows(38)
    path = tmp_path / "UserBehavior.csv"
    path.write_text("\n".join([*rows[:15], *ODD[:1], *rows[15:]]))
    log = RecordingLog(fail_after=stops_after)
    with pytest.raises(ConnectionError):
        _import(path, schema, log, tmp_path)
    log.fail_after = None
    _, refused, _ = _import(path, schema, log, tmp_path)
    assert _published(log) == _expected(rows)
    assert refused == []


def test_undeclared_signals_are_left_out(tmp_path: Path, schema: Schema) -> None:
    path = tmp_path / "UserBehavior.csv"
    path.write_text("\n".join(_rows(60)))
    steps = taobao.steps(
        path,
        EventBounds.of(schema.limits),
        frozenset(["view"]),
        0,
        *(Refusals(), Refusals()),
        0,
    )
    kinds = [step.events.kinds[kind] for step in steps for kind in step.events.kind]
    assert set(kinds) == {"view"}
    assert len(kinds) == sum(row.split(",")[3] == "pv" for row in _rows(60))


def test_a_folder_without_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImporterError, match=r"UserBehavior\*\.csv"):
        taobao.find_file(tmp_path)

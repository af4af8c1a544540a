"""Posts become stories, authors and weighted signals at the time of the post."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from schemas.default import default_schema
from schemas.model import Schema, SignalDef
from tidal.importers import hackernews
from tidal.importers.hackernews_import import import_hackernews
from tidal.importers.imported import Imported
from tidal.importers.resume import ResumeFile
from tidal.importers.rows import ImporterError
from tidal.publishing import Publisher

from .conftest import RecordingLog

HEADER = "id,title,url,num_points,num_comments,author,created_at,,\n"
POSTS = (
    HEADER + '11,"A tool, made of\ntwo lines",http://a.example/,386,52,ann,8/4/2016 11:52,,\n'
    "12,Ask HN: Who?,,2,0,bob,12/31/2015 0:05,,\n"
    "13,Show HN: It,http://b.example/,1,1,ann,2016-01-02 03:04:05,,\n"
)
FAULTS = (
    "14,No points,,many,0,ann,8/4/2016 11:52,,\n"
    "15,No time,,1,0,ann,yesterday,,\n"
    ",No id,,1,0,ann,8/4/2016 11:52,,\n"
    "16,Short\n"
)


@pytest.fixture(scope="module")
def schema() -> Schema:
    return default_schema()


def _ms(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp() * 1000)  # type: ignore[arg-type,misc]


def _import(folder: Path, text: str, schema: Schema, *, shift: bool = False) -> tuple[RecordingLog, Imported]:
    (folder / "hn.csv").write_text(text)
    log, resume = RecordingLog(), ResumeFile(folder, "hn")
    publisher = Publisher(log, resume, Console(file=io.StringIO()))
    return log, import_hackernews(folder, schema, publisher, resume, shift_to_now=shift)


def test_posts_become_stories_authors_and_weights(tmp_path: Path, schema: Schema) -> None:
    log, done = _import(tmp_path, POSTS, schema)
    assert done.counts == {"creators": 2, "items": 3}
    assert [(kind, id_) for kind, id_, _ in log.entities] == [
        ("creator", "ann"), ("creator", "bob"), ("item", "11"), ("item", "12"), ("item", "13"),
    ]  # fmt: skip
    assert log.entities[2][2] == {
        "id": "11",
        "title": "A tool, made of\ntwo lines",
        "category": "story",
        "created_at": _ms(2016, 8, 4, 11, 52),
        "status": "active",
        "creator": "ann",
        "url": "http://a.example/",
    }
    assert [(record or {})["category"] for _, _, record in log.entities[3:]] == ["ask", "show"]
    assert sorted(log.events) == [
        ("comment", "11", "", 52.0, _ms(2016, 8, 4, 11, 52)),
        ("comment", "13", "", 1.0, _ms(2016, 1, 2, 3, 4, 5)),
        ("like", "11", "", 386.0, _ms(2016, 8, 4, 11, 52)),
        ("like", "12", "", 2.0, _ms(2015, 12, 31, 0, 5)),
        ("like", "13", "", 1.0, _ms(2016, 1, 2, 3, 4, 5)),
    ]


def test_rows_that_are_no_posts_are_named_by_their_first_line(tmp_path: Path, schema: Schema) -> None:
    log, done = _import(tmp_path, POSTS + FAULTS, schema)
    assert [refusal.line for refusal in done.refusals.listed] == [6, 7, 8, 9]
    assert len(log.events) == 5


def test_a_post_out_of_time_goes_to_the_log_as_it_is(tmp_path: Path, schema: Schema) -> None:
    log, done = _import(tmp_path, POSTS + "17,Old,,3,2,ann,1/1/1970 0:00,,\n", schema)
    assert [refusal.line for refusal in done.dead.listed] == [6, 6]
    assert [json.loads(value) for _, _, value in log.raw] == [
        {"kind": "like", "item": "17", "weight": 3.0, "ts": 0},
        {"kind": "comment", "item": "17", "weight": 2.0, "ts": 0},
    ]
    assert len(log.events) == 5


def test_a_shift_moves_all_times_by_the_same(tmp_path: Path, schema: Schema) -> None:
    (tmp_path / "a").mkdir()
    plain, _ = _import(tmp_path, POSTS, schema)
    moved, _ = _import(tmp_path / "a", POSTS, schema, shift=True)
    assert len({after[4] - before[4] for after, before in zip(moved.events, plain.events, strict=True)}) == 1


def test_a_file_without_the_columns_is_refused(tmp_path: Path, schema: Schema) -> None:
    with pytest.raises(ImporterError, match="num_comments"):
        _import(tmp_path, "id,title,author,created_at,num_points\n", schema)


def test_only_one_file_of_a_folder_is_taken(tmp_path: Path) -> None:
    with pytest.raises(ImporterError, match="found none"):
        hackernews.find_file(tmp_path)


def test_the_default_schema_declares_what_the_importers_write(schema: Schema) -> None:
    from tidal.importers.taobao import BEHAVIOURS

    names = [*BEHAVIOURS.values(), *hackernews.SIGNALS.values()]
    assert all(isinstance(schema.signals.get(name), SignalDef) for name in names)

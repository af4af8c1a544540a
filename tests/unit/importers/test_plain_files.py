"""CSV and JSONL files become the same events and records; what cannot be used is named by its line."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow  # type: ignore[import-untyped]
import pytest
from pyarrow import parquet

from schemas.default import default_schema
from tidal.importers.plain_files import count_rows, event_steps, newest_ms, read_records
from tidal.importers.rows import ImporterError, Refusals

from .conftest import events_in

SCHEMA = default_schema()


def _events(path: Path, refusals: Refusals, shift_ms: int = 0, first: int = 0) -> list[Any]:
    steps = event_steps(path, SCHEMA, shift_ms, refusals, first)
    return [event for step in steps for event in events_in(step.events)]


def test_csv_and_jsonl_give_the_same_events(tmp_path: Path) -> None:
    table = tmp_path / "events.csv"
    table.write_text(
        "kind,item,user,weight,ts\nview,i1,u1,,1000000000000\nlike,i2,u1,2.5,2015-09-01T00:00:00Z\n"
    )
    lines = tmp_path / "events.jsonl"
    lines.write_text(
        '{"kind":"view","item":"i1","user":"u1","ts":1000000000000}\n\n'
        '{"kind":"like","item":"i2","user":"u1","weight":2.5,"ts":1441065600000}\n'
    )
    expected = [("view", "i1", "u1", 1.0, 1_000_000_000_000), ("like", "i2", "u1", 2.5, 1_441_065_600_000)]
    assert _events(table, Refusals()) == _events(lines, Refusals()) == expected
    assert newest_ms(table, SCHEMA) == 1_441_065_600_000
    assert count_rows(table) == count_rows(lines) == 2


def test_a_shift_moves_every_event_and_a_start_leaves_the_first_out(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("kind,item,ts\nview,i1,1000000001000\nview,i2,1000000002000\n")
    assert [(item, ts) for _, item, _, _, ts in _events(path, Refusals(), shift_ms=500, first=1)] == [
        ("i2", 1_000_000_002_500)
    ]


def test_bad_events_are_refused_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(
        '{"kind":"view","item":"i1","ts":1000000000000}\n{"kind":"nothing","item":"i1"}\n[1]\n{"kind":"view"}\n'
        '{"kind":"view","item":"i1","weight":"heavy"}\n{"kind":"view","item":"i2","ts":"yesterday"}\n'
    )
    refusals = Refusals()
    assert [item for _, item, *_ in _events(path, refusals)] == ["i1"]
    assert sorted(refusal.line for refusal in refusals.listed) == [2, 3, 4, 5, 6]


def test_csv_fields_have_their_declared_types(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text(
        "id,title,tags,duration_s,created_at,studio\n"
        "i1,A title,jazz|piano,12.5,2024-01-01T00:00:00+00:00,Own\n"
    )
    (entry,) = read_records(path, "item", SCHEMA, Refusals())
    assert entry.line == 2
    assert entry.record == {
        "id": "i1",
        "title": "A title",
        "tags": ["jazz", "piano"],
        "duration_s": 12.5,
        "created_at": 1_704_067_200_000,
        "studio": "Own",
    }


def test_bad_records_are_refused_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "users.jsonl"
    path.write_text('{"id":"u1","age":21}\n{"age":3}\n{"id":"u2","age":"old"}\n{"id":"' + "x" * 300 + '"}\n')
    refusals = Refusals()
    assert [entry.record["id"] for entry in read_records(path, "user", SCHEMA, refusals)] == ["u1"]
    assert [refusal.line for refusal in refusals.listed] == [2, 3, 4]


def test_rows_of_another_width_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text("id,title\ni1\ni2,Two,extra\ni3,Three\n")
    refusals = Refusals()
    assert [entry.record["id"] for entry in read_records(path, "item", SCHEMA, refusals)] == ["i3"]
    assert [refusal.line for refusal in refusals.listed] == [2, 3]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImporterError, match=r"absent\.csv"):
        list(read_records(tmp_path / "absent.csv", "item", SCHEMA, Refusals()))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("users.csv", "name,age\nu1,3\n", "the header lacks id; it has 'name', 'age'"),
        ("users.csv.gz", "\x1c\x02garbage", "the header lacks id"),
        ("users.parquet", "PAR1", "cannot be read as Parquet after row 0"),
    ],
)
def test_what_is_no_table_of_records_is_refused_whole(
    tmp_path: Path, name: str, content: str, words: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ImporterError, match=words):
        list(read_records(path, "user", SCHEMA, Refusals()))


def test_parquet_keeps_its_types_and_leaves_out_what_is_null(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    moment = datetime(2026, 1, 31, 12, tzinfo=UTC)
    columns = {
        "kind": ["view", "like", "nothing"],
        "item": ["i1", "i2", "i3"],
        "user": ["u1", None, "u3"],
        "ts": pyarrow.array([moment, moment, moment], pyarrow.timestamp("us", tz="UTC")),
    }
    parquet.write_table(pyarrow.table(columns), path)
    refusals = Refusals()
    assert _events(path, refusals) == [
        ("view", "i1", "u1", 1.0, 1_769_860_800_000),
        ("like", "i2", "", 1.0, 1_769_860_800_000),
    ]
    assert [refusal.line for refusal in refusals.listed] == [3]


def test_records_of_parquet_and_a_column_that_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    rows = {"id": ["i1", "i2"], "title": ["One", None], "tags": [["a", "b"], []]}
    parquet.write_table(pyarrow.table(rows), path)
    entries = list(read_records(path, "item", SCHEMA, Refusals()))
    assert entries[0].record == {"id": "i1", "title": "One", "tags": ["a", "b"]}
    with pytest.raises(ImporterError, match="no column kind, item; it has id, title, tags"):
        _events(path, Refusals())


def test_events_need_their_columns_and_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("kind,user\nview,u1\n")
    with pytest.raises(ImporterError, match="the header lacks item"):
        _events(path, Refusals())
    path.write_text("")
    assert _events(path, Refusals()) == []

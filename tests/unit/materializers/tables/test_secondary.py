"""A reader of a worker's tables sees one moment of all of them, or says that it cannot."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from materializers.materializer import TableSpec
from materializers.tables.database import Database
from materializers.tables.errors import TablesUnreadableError
from materializers.tables.secondary import WorkerTables

TABLE = TableSpec("cells", "k")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    found = Database(tmp_path / "w0" / "db", (TABLE,))
    yield found
    found.close()


@pytest.fixture
def tables(tmp_path: Path, database: Database) -> Iterator[WorkerTables]:
    found = WorkerTables(tmp_path / "w0", tmp_path / "secondary")
    yield found
    found.close()


def _put(database: Database, value: bytes) -> None:
    batch = database.begin_flush()
    database.put(batch, TABLE.name, 0, b"k", value)
    database.write(batch)


def _follows(tables: WorkerTables, meanwhile: Callable[[int], None]) -> list[int]:
    """Calls ``meanwhile`` with a number after each of RocksDB's attempts; the numbers so far."""
    calls: list[int] = []
    follow = tables._follow

    def followed() -> None:
        follow()
        calls.append(len(calls))
        meanwhile(calls[-1])

    tables._follow = followed  # type: ignore[method-assign]
    return calls


def test_one_attempt_where_the_files_stand_still(database: Database, tables: WorkerTables) -> None:
    calls = _follows(tables, lambda number: None)
    _put(database, b"a")
    tables.catch_up()
    assert tables.get_many(TABLE.name, [(0, b"k")]) == [b"a"]
    assert len(calls) == 1


def test_files_that_change_meanwhile_are_read_again(database: Database, tables: WorkerTables) -> None:
    def meanwhile(number: int) -> None:
        if number < 2:
            _put(database, b"%d" % number)
            database.compact()

    calls = _follows(tables, meanwhile)
    tables.catch_up()
    assert tables.get_many(TABLE.name, [(0, b"k")]) == [b"1"]
    assert tables.flush_number == 2
    assert len(calls) == 3


def test_files_that_never_stand_still_are_an_error(database: Database, tables: WorkerTables) -> None:
    def meanwhile(number: int) -> None:
        _put(database, b"x")
        database.compact()

    _follows(tables, meanwhile)
    with pytest.raises(TablesUnreadableError, match="files changed during each of 20 attempts"):
        tables.catch_up()


def test_another_database_in_the_folder_is_not_followed(tmp_path: Path) -> None:
    Database(tmp_path / "w0" / "db", (TABLE,)).close()
    tables = WorkerTables(tmp_path / "w0", tmp_path / "secondary")
    shutil.rmtree(tmp_path / "w0")
    other = Database(tmp_path / "w0" / "db", (TABLE,))
    try:
        with pytest.raises(TablesUnreadableError, match="wiped and made anew"):
            tables.catch_up()
    finally:
        tables.close()
        other.close()


def test_a_folder_that_is_gone_is_an_error(tmp_path: Path, tables: WorkerTables) -> None:
    shutil.rmtree(tmp_path / "w0")
    with pytest.raises(TablesUnreadableError, match="no database yet"):
        tables.catch_up()


def test_there_is_news_after_every_write_and_no_other_time(database: Database, tables: WorkerTables) -> None:
    assert not tables.has_news()
    for number in range(3):
        _put(database, b"%d" % number)
        assert tables.has_news()
        tables.catch_up()
        assert not tables.has_news()
    database.compact()
    assert tables.has_news()  # the files that were replaced are to be let go
    tables.catch_up()
    assert not tables.has_news()
    assert tables.get_many(TABLE.name, [(0, b"k")]) == [b"2"]


def test_what_is_written_during_a_catch_up_is_news(database: Database, tables: WorkerTables) -> None:
    calls = _follows(tables, lambda number: _put(database, b"late"))
    _put(database, b"early")
    tables.catch_up()
    assert len(calls) == 1
    assert tables.has_news()


def test_a_folder_that_is_gone_is_news(tmp_path: Path, tables: WorkerTables) -> None:
    shutil.rmtree(tmp_path / "w0")
    assert tables.has_news()

"""The read side over several workers: who owns what, what changed, what must be read anew."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from materializers.materializer import Scope, TableSpec
from materializers.tables.database import Database, PartitionWriter
from materializers.tables.feed import (
    CHANGES_TABLE,
    OWNERSHIP_SECTION,
    REPLACED_SECTION,
    Change,
    Section,
    change_key,
    encode_change,
)
from materializers.tables.layout import WORKER
from materializers.tables.meta import META_TABLE, OWNERSHIP_KEY, Ownership, ShardMeta, encode
from materializers.tables.reader import TableReader

TABLES = (TableSpec("cells", "k"),)


class Writer:
    """What a worker writes, without the worker."""

    def __init__(self, data: Path, name: str) -> None:
        self.database = Database(data / "workers" / name / "db", TABLES)

    def flush(
        self, partition: int, generation: int, value: bytes, *, applied: int = 0, section: str = "cells"
    ) -> None:
        batch = self.database.begin_flush()
        writer = PartitionWriter(self.database, batch, partition)
        writer.put("cells", b"k", value)
        meta = ShardMeta(applied={"tidal.signals": applied}, hw={1: applied})
        for scope in Scope:
            writer.put(META_TABLE, scope.encode(), encode(meta))
        writer.put(META_TABLE, OWNERSHIP_KEY, encode(Ownership(lineage="x", generation=generation)))
        writer.finish()
        change = Change(self.database.flush_number, 1, [Section(section, partition, value)])
        self.database.put(
            batch, CHANGES_TABLE, WORKER, change_key(self.database.flush_number), encode_change(change)
        )
        self.database.write(batch)

    def trim(self) -> None:
        batch = self.database.batch()
        self.database.delete_rows(batch, CHANGES_TABLE, WORKER)
        self.database.write(batch)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[TableReader]:
    found = TableReader(tmp_path, "queryd-0")
    yield found
    found.close()


def _sections(reader: TableReader) -> list[tuple[str, int, bytes]]:
    found = [section for change in reader.changes() for section in change.sections]
    return [
        (section.name, section.partition, b"" if section.name == OWNERSHIP_SECTION else section.payload)
        for section in found
    ]


def _see(reader: TableReader) -> None:
    reader._discovered_s = float("-inf")  # looks for workers now, not in half a second
    reader.catch_up()


def test_rows_positions_and_changes_of_one_worker(tmp_path: Path, reader: TableReader) -> None:
    writer = Writer(tmp_path, "w0")
    writer.flush(3, 1, b"a", applied=5)
    _see(reader)
    assert list(reader.partitions(Scope.ITEM)) == [3]
    assert reader.get_many("cells", [(3, b"k"), (3, b"x"), (4, b"k")]) == [b"a", None, None]
    assert list(reader.scan("cells", 3)) == [(b"k", b"a")]
    assert reader.applied(Scope.USER, 3) == {"tidal.signals": 5}
    assert reader.forwarded(3) == {1: 5}
    assert _sections(reader) == [(OWNERSHIP_SECTION, 3, b"")]
    writer.flush(3, 1, b"b")
    writer.flush(3, 1, b"c")
    assert _sections(reader) == []  # nothing is later than the last catch-up
    reader.catch_up()
    assert _sections(reader) == [("cells", 3, b"b"), ("cells", 3, b"c")]


def test_the_higher_generation_owns_and_its_partition_is_read_anew(
    tmp_path: Path, reader: TableReader
) -> None:
    old, new = Writer(tmp_path, "w0"), Writer(tmp_path, "w1")
    old.flush(3, 1, b"a")
    _see(reader)
    reader.changes()
    new.flush(3, 2, b"n")
    old.flush(3, 1, b"zombie")
    _see(reader)
    assert reader.owner(3) == "w1"
    assert reader.get_many("cells", [(3, b"k")]) == [b"n"]
    assert _sections(reader) == [(OWNERSHIP_SECTION, 3, b"")]
    old.flush(3, 1, b"zombie again")
    reader.catch_up()
    assert _sections(reader) == []


def test_a_trimmed_feed_means_reading_anew(tmp_path: Path, reader: TableReader) -> None:
    writer = Writer(tmp_path, "w0")
    writer.flush(3, 1, b"a")
    _see(reader)
    reader.changes()
    writer.flush(3, 1, b"b")
    writer.trim()
    reader.catch_up()
    assert _sections(reader) == [(OWNERSHIP_SECTION, 3, b"")]
    assert _sections(reader) == []


def test_replaced_rows_mean_reading_anew(tmp_path: Path, reader: TableReader) -> None:
    writer = Writer(tmp_path, "w0")
    writer.flush(3, 1, b"a")
    writer.flush(4, 1, b"a")
    _see(reader)
    reader.changes()
    writer.flush(3, 1, b"before")
    writer.flush(3, 1, b"rebuilt", section=REPLACED_SECTION)
    writer.flush(4, 1, b"b")
    reader.catch_up()
    assert _sections(reader) == [(OWNERSHIP_SECTION, 3, b""), ("cells", 4, b"b")]
    writer.flush(3, 1, b"c")
    reader.catch_up()
    assert _sections(reader) == [("cells", 3, b"c")]


def test_a_worker_that_was_wiped_and_came_back_is_opened_again(tmp_path: Path, reader: TableReader) -> None:
    writer = Writer(tmp_path, "w0")
    writer.flush(3, 1, b"a")
    _see(reader)
    reader.changes()
    writer.database.close()
    shutil.rmtree(tmp_path / "workers" / "w0")
    _see(reader)
    assert list(reader.partitions(Scope.USER)) == []
    Writer(tmp_path, "w0").flush(3, 2, b"restored")
    _see(reader)
    assert reader.get_many("cells", [(3, b"k")]) == [b"restored"]
    assert _sections(reader) == [(OWNERSHIP_SECTION, 3, b"")]


def test_no_workers_is_no_error(reader: TableReader) -> None:
    reader.catch_up()
    assert reader.changes() == []
    assert reader.applied(Scope.USER, 0) == {}
    assert reader.get_many("cells", [(0, b"k")]) == [None]

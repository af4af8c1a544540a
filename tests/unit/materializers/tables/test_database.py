"""The worker's RocksDB: partitions apart, rows sorted, positions beside them, reopening."""

from __future__ import annotations

from pathlib import Path

import pytest

from materializers.materializer import TableSpec
from materializers.tables.database import Database, DatabaseError, PartitionWriter
from materializers.tables.pending import Letter, clear_pending, put_pending, read_pending

TABLES = (TableSpec("apples", "k"), TableSpec("pears", "k"))


def _flush(database: Database, partition: int, rows: dict[bytes, bytes | None], table: str = "apples") -> int:
    batch = database.begin_flush()
    writer = PartitionWriter(database, batch, partition)
    for key, value in rows.items():
        writer.delete(table, key) if value is None else writer.put(table, key, value)
    writer.finish()
    put_pending(database, batch, partition, database.flush_number, writer.changes.names(), [])
    database.write(batch)
    return database.flush_number


def test_partitions_and_tables_do_not_see_each_other(tmp_path: Path) -> None:
    database = Database(tmp_path, TABLES)
    _flush(database, 1, {b"k": b"one"})
    _flush(database, 2, {b"k": b"two"})
    _flush(database, 1, {b"k": b"pear"}, "pears")
    assert database.get_many("apples", 1, [b"k", b"none"]) == [b"one", None]
    assert list(database.scan("apples", 2)) == [(b"k", b"two")]
    assert list(database.rows(1).scan("pears")) == [(b"k", b"pear")]


def test_scan_is_bounded_below_and_above(tmp_path: Path) -> None:
    database = Database(tmp_path, TABLES)
    _flush(database, 1, {bytes([digit]): b"v" for digit in range(6)})
    assert [key for key, _ in database.scan("apples", 1, b"\x02", b"\x05")] == [b"\x02", b"\x03", b"\x04"]


def test_dropping_a_partition_leaves_the_others(tmp_path: Path) -> None:
    database = Database(tmp_path, TABLES)
    _flush(database, 1, {b"k": b"one"})
    _flush(database, 2, {b"k": b"two"})
    batch = database.batch()
    database.drop_partition(batch, 1)
    database.write(batch)
    assert list(database.scan("apples", 1)) == []
    assert read_pending(database, 1) == ({}, [])
    assert list(database.scan("apples", 2)) == [(b"k", b"two")]


def test_rows_and_flush_number_survive_reopening_with_another_table(tmp_path: Path) -> None:
    database = Database(tmp_path, TABLES)
    number = _flush(database, 1, {b"k": b"one"})
    database.close()
    reopened = Database(tmp_path, (*TABLES, TableSpec("plums", "k")))
    assert reopened.flush_number == number
    assert list(reopened.scan("apples", 1)) == [(b"k", b"one")]
    assert list(reopened.scan("plums", 1)) == []


def test_a_second_writer_is_refused_and_told_what_to_do(tmp_path: Path) -> None:
    database = Database(tmp_path, TABLES)
    with pytest.raises(DatabaseError, match="stop the other process"):
        Database(tmp_path, TABLES)
    database.close()


def test_pending_names_what_no_checkpoint_holds_with_present_values(tmp_path: Path) -> None:
    database = Database(tmp_path, TABLES)
    _flush(database, 1, {b"a": b"1", b"b": b"1"})
    second = _flush(database, 1, {b"b": b"2", b"c": b"2"})
    _flush(database, 1, {b"c": None, b"d": b"3"})
    assert read_pending(database, 1)[0] == {"apples": {b"a": b"1", b"b": b"2", b"c": None, b"d": b"3"}}
    batch = database.batch()
    clear_pending(database, batch, 1, second)
    database.write(batch)
    assert read_pending(database, 1)[0] == {"apples": {b"c": None, b"d": b"3"}}


def test_dead_letters_wait_on_disk(tmp_path: Path) -> None:
    database = Database(tmp_path, TABLES)
    letter = Letter(b"key", b"\xff{", [("tidal-code", b"malformed_json")])
    batch = database.begin_flush()
    put_pending(database, batch, 3, database.flush_number, {}, [letter])
    database.write(batch)
    assert read_pending(database, 3) == ({}, [letter])

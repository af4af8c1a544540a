"""Sizes of tables: counted where they are small, shares of RocksDB's files where they are large."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from materializers.materializer import TableSpec
from materializers.tables import sizes
from materializers.tables.database import Database
from materializers.tables.layout import PREFIX_BYTES, row_prefix
from materializers.tables.sizes import TableSize, shares_of_files, table_sizes

ROW = 5 + 10


async def test_small_tables_are_counted_and_large_ones_shared_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizes, "COUNTED_ROWS_MAX", 50)
    database = Database(tmp_path, [TableSpec("small", ""), TableSpec("large", ""), TableSpec("none", "")])
    for table, count in (("small", 7), ("large", 400)):
        for partition in (0, 1):
            batch = database.batch()
            for number in range(count):
                database.put(batch, table, partition, b"%05d" % number, b"x" * 10)
            database.write(batch)
    whole = await table_sizes(database, [0, 1])
    database.compact()
    monkeypatch.setattr(sizes, "DATABASE_ROWS_MAX", 700)
    found = await table_sizes(database, [0, 1])
    database.close()
    assert whole["large"] == TableSize(800, 800 * (PREFIX_BYTES + ROW))
    assert list(found) == ["large", "small"]
    assert found["small"] == TableSize(14, 14 * (PREFIX_BYTES + ROW))
    assert found["large"].estimated
    assert 400 <= found["large"].rows <= 814


def test_a_file_inside_a_table_is_its_own_and_a_wide_one_is_shared() -> None:
    large = {row_prefix(table, partition): table for table in ("a", "b") for partition in (0, 1)}
    first, *_, last = sorted(large)

    def file(start: bytes, end: bytes, entries: int, deletions: int = 0) -> dict[str, Any]:
        return {
            "start_key": start + b"k", "end_key": end + b"k", "size": entries * 10, "num_entries": entries,
            "num_deletions": deletions,
        }  # fmt: skip

    shares = shares_of_files([file(first, first, 100, 10), file(first, last, 400)], large)
    owner = large[first]
    other = "b" if owner == "a" else "a"
    assert (shares[owner].rows, shares[owner].bytes) == (80 + 200, 1000 + 2000)
    assert (shares[other].rows, shares[other].bytes) == (200, 2000)

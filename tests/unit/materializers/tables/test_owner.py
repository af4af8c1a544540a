"""A flush that failed is the last one: what it took out of memory comes back from the log alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from materializers.materializer import RowWriter, Scope, TableSpec
from materializers.tables.database import Database, DatabaseError
from materializers.tables.errors import FlushBrokenError
from materializers.tables.meta import META_TABLE, Ownership, ShardMeta
from materializers.tables.owner import TableOwner
from materializers.tables.partition import PartitionState
from streams.topics import SIGNALS

TABLE = TableSpec("cells", "k")


class _Shard:
    """Hands over one row at its first flush, and from then on says that its record is applied."""

    scope = Scope.USER

    def __init__(self) -> None:
        self._rows = {b"k": b"counted"}

    def flush(self, writer: RowWriter) -> ShardMeta:
        for key, value in self._rows.items():
            writer.put(TABLE.name, key, value)
        self._rows = {}
        return ShardMeta(applied={SIGNALS: 0})

    def take_letters(self) -> list[Any]:
        return []


class _Forwards:
    def in_flight(self) -> bool:
        return False

    async def delivered(self) -> None:
        return None


def _refused(batch: object) -> None:
    raise DatabaseError("the disk is full")


async def test_no_offset_is_written_after_a_flush_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(tmp_path / "db", (TABLE,))
    owner = TableOwner(database, cast(Any, None), {}, lambda partition: {}, _Forwards())
    owner._failed = asyncio.get_running_loop().create_future()
    shards = cast(Any, {Scope.USER: _Shard()})
    state = PartitionState(0, shards, cast(Any, None), Ownership(), ready=True, dirty=True)
    owner._partitions[0] = state
    with monkeypatch.context() as patched:
        patched.setattr(database, "write", _refused)
        with pytest.raises(DatabaseError):
            await owner.flush()
    with pytest.raises(FlushBrokenError, match="folds those records again"):
        await owner.flush()  # the disk would take it now, and the row is gone
    assert database.get(META_TABLE, 0, Scope.USER.encode()) is None
    with pytest.raises(DatabaseError, match="the disk is full"):
        await owner.failed()
    database.close()

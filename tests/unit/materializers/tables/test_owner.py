"""A flush that failed is the last one: what it took out of memory comes back from the log alone."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from materializers.materializer import RowWriter, Scope, TableSpec
from materializers.tables.database import Database, DatabaseError
from materializers.tables.errors import FlushBrokenError
from materializers.tables.meta import META_TABLE, Ownership, ShardMeta, decode_shard
from materializers.tables.owner import TableOwner
from materializers.tables.partition import PartitionState
from streams.topics import BY_ITEM, SIGNALS

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
    def __init__(self, ends: dict[tuple[str, int], int] | None = None) -> None:
        self._ends = ends or {}

    def in_flight(self) -> bool:
        return False

    async def delivered(self) -> None:
        return None

    def ends(self) -> Mapping[tuple[str, int], int]:
        return self._ends


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


class _Items:
    """The item shard of a partition, at an applied offset."""

    scope = Scope.ITEM

    def __init__(self) -> None:
        self.at = 0

    def applied(self, topic: str) -> int:
        return self.at

    def flush(self, writer: RowWriter) -> ShardMeta:
        return ShardMeta(applied={BY_ITEM: self.at})

    def take_letters(self) -> list[Any]:
        return []


async def test_a_flush_contains_what_its_own_events_were_sent_as(tmp_path: Path) -> None:
    """Entries for partition 0 end at offset 5 and come back while the flush waits; 1 is somebody else's."""
    database = Database(tmp_path / "db", (TABLE,))
    forwards = _Forwards({(BY_ITEM, 0): 5, (BY_ITEM, 1): 9})
    owner = TableOwner(database, cast(Any, None), {Scope.ITEM: [BY_ITEM]}, lambda partition: {}, forwards)
    items = _Items()
    shards = cast(Any, {Scope.ITEM: items})
    state = PartitionState(0, shards, cast(Any, None), Ownership(), ready=True, dirty=True)
    owner._partitions[0] = state

    def come_back() -> None:
        items.at = 5
        owner.folded(state, 1)

    asyncio.get_running_loop().call_later(0.001, come_back)
    await owner.flush()
    assert decode_shard(database.get(META_TABLE, 0, Scope.ITEM.encode())).applied == {BY_ITEM: 5}
    database.close()


async def test_a_flush_waits_for_what_it_sent_within_a_bound(tmp_path: Path) -> None:
    database = Database(tmp_path / "db", (TABLE,))
    forwards = _Forwards({(BY_ITEM, 0): 5})
    owner = TableOwner(database, cast(Any, None), {Scope.ITEM: [BY_ITEM]}, lambda partition: {}, forwards)
    shards = cast(Any, {Scope.ITEM: _Items()})
    owner._partitions[0] = PartitionState(0, shards, cast(Any, None), Ownership(), ready=True, dirty=True)
    await owner.flush()
    assert decode_shard(database.get(META_TABLE, 0, Scope.ITEM.encode())).applied == {BY_ITEM: 0}
    database.close()

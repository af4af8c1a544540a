"""After a wipe no file of a worker's database has a trace of what was deleted."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

from materializers.materializer import Scope, TableSpec
from materializers.rows.erasures import (
    OPEN_TABLE,
    TABLE,
    ErasurePart,
    decode_erasure,
    encode_erasure,
    erasure_key,
)
from materializers.shards.erasures import ErasureChanges
from materializers.tables.database import Database, DatabaseError, PartitionWriter
from materializers.tables.feed import CHANGES_TABLE, change_key
from materializers.tables.layout import PENDING_TABLE, WORKER
from materializers.tables.meta import META_TABLE, OWNERSHIP_KEY, Ownership, encode
from materializers.tables.pending import clear_pending, put_pending
from materializers.tables.secondary import WorkerTables
from materializers.tables.wiping import REPORTS_KEPT_MS, Wiper, WipeSettings
from schemas.keys import row_key
from tests.memory_rows import MemoryRows, MemoryWriter

SPECS = [TableSpec("users", "user"), TableSpec(TABLE, "erasure"), TableSpec(OPEN_TABLE, "erasure")]
FIRST_OF_ALL = 0x0001_BEEF_1234_5678  # the smallest key of a file stands in the manifest
ERASURE = erasure_key((0, 7), ErasurePart.USER)


class _EntityShard:
    def __init__(self) -> None:
        self.erasures = ErasureChanges()
        self.touched = 0

    def touch(self) -> None:
        self.touched += 1


class _State:
    partition = 0

    def __init__(self) -> None:
        self.shards = {Scope.ENTITY: _EntityShard()}


class _Owner:
    """Partition 0, whose checkpoints succeed at once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.assigned: frozenset[int] | None = frozenset({0})
        self.state: Any = _State()

    def states(self) -> list[Any]:
        return [self.state]

    def current(self, state: Any) -> bool:
        return True

    def folded(self, state: Any, events: int) -> None:
        """Nothing is flushed here."""

    def trim_feed(self, through: int) -> None:
        batch = self._database.batch()
        self._database.delete_rows(batch, CHANGES_TABLE, WORKER, change_key(0), change_key(through + 1))
        self._database.write(batch)

    async def checkpoint(self) -> None:
        batch = self._database.batch()
        clear_pending(self._database, batch, 0, self._database.flush_number)
        self._database.write(batch)


def _flush(database: Database, rows: dict[str, dict[bytes, bytes | None]], told: bytes) -> None:
    """A flush as the owner writes it: rows, names of pending rows, and the feed."""
    batch = database.begin_flush()
    writer = PartitionWriter(database, batch, 0)
    for table, changed in rows.items():
        for key, value in changed.items():
            if value is None:
                writer.delete(table, key)
            else:
                writer.put(table, key, value)
    writer.finish()
    put_pending(database, batch, 0, database.flush_number, writer.changes.names(), [])
    database.put(batch, CHANGES_TABLE, WORKER, change_key(database.flush_number), told)
    database.write(batch)


def _erased(at_ms: int, rows: dict[str, int]) -> dict[str, dict[bytes, bytes | None]]:
    return {TABLE: {ERASURE: encode_erasure(at_ms, rows)}, OPEN_TABLE: {ERASURE: b""}}


def _changes(owner: _Owner) -> dict[str, dict[bytes, bytes]]:
    """What the wiper has told the entity shard."""
    rows = MemoryRows()
    rows.tables[OPEN_TABLE] = {ERASURE: b""}
    writer = MemoryWriter(rows)
    owner.state.shards[Scope.ENTITY].erasures.flush(writer)
    writer.commit()
    return rows.tables


def _hits(folder: Path, traces: list[bytes]) -> set[str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.name.split("-")[0] for path in files for trace in traces if trace in path.read_bytes()}


async def test_no_file_has_a_trace_after_a_wipe(tmp_path: Path) -> None:
    folder = tmp_path / "workers" / "w" / "db"
    database = Database(folder, SPECS)
    key, other = row_key(FIRST_OF_ALL, 0), row_key(FIRST_OF_ALL + 1, 0)
    traces = [key[:8], key[:8][::-1], b"ada-lovelace"]
    later = range(FIRST_OF_ALL + 2, 1 << 63, 1 << 52)
    filler = {row_key(user, 0): os.urandom(64) for user in later}
    _flush(database, {"users": {**filler, key: b"ada-lovelace", other: b"bob"}}, b"ada-lovelace came")
    database.compact()
    reader = WorkerTables(folder.parent, tmp_path / "secondary")
    _flush(database, {"users": {key: b"ada-lovelace moved"}}, b"ada-lovelace moved")
    _flush(database, {"users": {key: None}, **_erased(5, {"users": 1})}, b"")
    before = _hits(folder, traces)
    assert any(name.endswith(".sst") for name in before)
    assert any(name.endswith(".log") for name in before)
    assert "MANIFEST" in before
    owner = _Owner(database)
    wiper = Wiper(database, owner, WipeSettings(interval_s=0, feed_keep_s=0))
    assert await wiper.wipe()
    assert _hits(folder, traces) == set()
    rows = _changes(owner)
    told = decode_erasure(rows[TABLE][ERASURE])
    assert (told.at_ms, told.rows) == (5, {"users": 1})
    assert told.wiped_ms > 0
    assert ERASURE not in rows[OPEN_TABLE]
    reader.catch_up()
    assert reader.get_many("users", [(0, key), (0, other)]) == [None, b"bob"]
    reader.close()
    database.close()


async def test_a_wipe_waits_for_the_checkpoint_of_what_it_erases(tmp_path: Path) -> None:
    database = Database(tmp_path / "db", SPECS)
    owner = _Owner(database)
    wiper = Wiper(database, owner, WipeSettings(interval_s=0, feed_keep_s=0))
    assert not await wiper.wipe()
    _flush(database, _erased(5, {}), b"")

    async def refused() -> None:
        """The log does not answer."""

    owner.checkpoint = refused  # type: ignore[method-assign]
    assert not await wiper.wipe()
    assert ERASURE not in _changes(owner).get(TABLE, {})
    assert next(database.scan(PENDING_TABLE, 0), None) is not None
    database.close()


def test_partitions_of_the_recently_erased_are_touched_and_old_reports_go(tmp_path: Path) -> None:
    database = Database(tmp_path / "db", SPECS)
    owner = _Owner(database)
    wiper = Wiper(database, owner, WipeSettings(compaction_lag_s=0))
    now_ms = int(time.time() * 1000)
    old = erasure_key((0, 6), ErasurePart.USER)
    rows: dict[bytes, bytes | None] = {
        ERASURE: encode_erasure(now_ms - 1_000, {}, now_ms),
        old: encode_erasure(now_ms - REPORTS_KEPT_MS - 1_000, {}, 1),
    }
    _flush(database, {TABLE: rows}, b"")
    wiper._touch()
    assert owner.state.shards[Scope.ENTITY].touched == 1
    kept = MemoryRows()
    kept.tables[TABLE] = {key: value for key, value in rows.items() if value is not None}
    writer = MemoryWriter(kept)
    owner.state.shards[Scope.ENTITY].erasures.flush(writer)
    writer.commit()
    assert list(kept.tables[TABLE]) == [ERASURE]
    database.close()


async def test_rows_of_a_partition_that_went_away_are_dropped_and_wiped(tmp_path: Path) -> None:
    database = Database(tmp_path / "db", SPECS)
    batch = database.batch()
    for partition in (0, 3):
        database.put(batch, META_TABLE, partition, OWNERSHIP_KEY, encode(Ownership(lineage="x")))
        database.put(batch, "users", partition, row_key(1, 0), b"ada-lovelace")
    database.write(batch)
    assert database.held_partitions() == [0, 3]
    owner = _Owner(database)
    wiper = Wiper(database, owner, WipeSettings(interval_s=0, feed_keep_s=0, unowned_keep_s=0))
    owner.assigned = None  # the log is away, and nobody has told the worker what is its own
    wiper._drop_unowned()
    assert database.held_partitions() == [0, 3]
    owner.assigned = frozenset({0})
    wiper._drop_unowned()
    assert database.held_partitions() == [0]
    mark = database.wipe_due()
    assert mark is not None
    assert await wiper.wipe()
    assert database.wipe_due() is None
    assert [key for key, _ in database.scan("users", 0)] == [row_key(1, 0)]
    assert not list(database.scan("users", 3))
    database.close()


def test_a_mark_that_came_during_a_wipe_stays(tmp_path: Path) -> None:
    database = Database(tmp_path / "db", SPECS)
    for _ in range(2):
        batch = database.batch()
        database.mark_wipe_due(batch)
        database.write(batch)
    database.wiped(b"an earlier mark")
    assert database.wipe_due() is not None
    database.close()


def test_a_database_closes_while_its_files_are_merged(tmp_path: Path) -> None:
    database = Database(tmp_path / "db", SPECS)
    for part in range(12):
        rows = {row_key(part * 10_000 + number, 0): os.urandom(256) for number in range(2_000)}
        _flush(database, {"users": dict(rows)}, b"")
    outcome: list[str] = []

    def merge() -> None:
        try:
            database.compact()
        except DatabaseError as error:
            outcome.append(str(error))

    thread = threading.Thread(target=merge)
    thread.start()
    while not database._merging and thread.is_alive():
        time.sleep(0.001)
    database.close()
    thread.join(timeout=10)
    assert not thread.is_alive()
    again = Database(tmp_path / "db", SPECS)
    assert len(list(again.scan("users", 0))) == 24_000
    again.close()

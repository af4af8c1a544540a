"""One RocksDB for each worker: a column family for each table, the partition as the first two bytes of a key.

Secondary readers set two conditions. All column families exist before the first reader opens (one created
later breaks its catch-up for good), and the write-ahead log stays on (they see unflushed rows through it).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
from rocksdict import (
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
    WriteBufferManager,
)

from materializers.materializer import TableSpec
from materializers.tables.feed import CHANGES_TABLE
from materializers.tables.meta import META_TABLE
from schemas.errors import TidalError
from schemas.keys import PARTITION_BYTES, partition_key

PENDING_TABLE: Final = "pending"
RUNTIME_TABLES: Final = (
    TableSpec(META_TABLE, "shard name, or 'partition'", bloom=False),
    TableSpec(PENDING_TABLE, "[flush u64]: what no checkpoint holds yet", bloom=False),
    TableSpec(CHANGES_TABLE, "[flush u64]: the change feed; no partition prefix", bloom=False),
)
LOCAL_TABLES: Final = frozenset((PENDING_TABLE, CHANGES_TABLE))
"""Never in a changelog: they describe this disk."""

_WORKER_PREFIX: Final = b"\xff\xff"
_FLUSH_KEY: Final = _WORKER_PREFIX + b"flush"
PARTITIONS_MAX: Final = 0xFFFF - 1


class DatabaseSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of one worker's RocksDB.

    Attributes:
        memtable_bytes_max: of all tables together. A reader replays the unflushed log when it opens, so it is modest.
        block_cache_bytes: shared by all tables.
        wal_bytes_max: bounds the replay even when a table is hardly written.
    """

    memtable_bytes_max: int = 64 << 20
    block_cache_bytes: int = 128 << 20
    wal_bytes_max: int = 128 << 20
    bloom_bits: int = 10


class DatabaseError(TidalError):
    """The worker's database cannot be opened or written."""


class Database:
    """The read-write side. Not thread safe except where a method says so."""

    def __init__(
        self, path: Path, tables: Iterable[TableSpec], settings: DatabaseSettings | None = None
    ) -> None:
        """Open or create the database at ``path``.

        Raises:
            DatabaseError: another process holds it, or its files are damaged.
        """
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        specs = {spec.name: spec for spec in (*tables, *RUNTIME_TABLES)}
        self._db = _open(path, specs, settings or DatabaseSettings())
        self._families = {name: self._db.get_column_family(name) for name in specs}
        self.handles = {name: self._db.get_column_family_handle(name) for name in specs}
        stored = self._families[META_TABLE].get(_FLUSH_KEY)
        self.flush_number = 0 if stored is None else int.from_bytes(stored, "big")

    @property
    def tables(self) -> Iterable[str]:
        return self.handles.keys()

    def get_many(self, table: str, partition: int, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values in the order of ``keys``; safe from any thread."""
        if not keys:
            return []
        prefix = partition.to_bytes(PARTITION_BYTES, "big")
        found: list[bytes | None] = self._families[table].get([prefix + key for key in keys])
        return found

    def get(self, table: str, partition: int, key: bytes) -> bytes | None:
        row: bytes | None = self._families[table].get(partition_key(partition, key))
        return row

    def scan(
        self, table: str, partition: int, start: bytes = b"", end: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Rows of one partition with ``start <= key < end`` in key order, keys without the prefix."""
        prefix = partition.to_bytes(PARTITION_BYTES, "big")
        upper = prefix + end if end is not None else _after(partition)
        yield from scan_range(self._families[table], prefix + start, upper, PARTITION_BYTES)

    def scan_changes(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Rows of the change feed; its keys have no partition."""
        yield from scan_range(self._families[CHANGES_TABLE], start, end, 0)

    def rows(self, partition: int) -> PartitionRows:
        return PartitionRows(self, partition)

    def begin_flush(self) -> WriteBatch:
        """A write batch that already carries the next flush's number; write it with ``write``."""
        self.flush_number += 1
        batch = WriteBatch(raw_mode=True)
        batch.put(_FLUSH_KEY, self.flush_number.to_bytes(8, "big"), self.handles[META_TABLE])
        return batch

    def batch(self) -> WriteBatch:
        return WriteBatch(raw_mode=True)

    def write(self, batch: WriteBatch) -> None:
        """Write atomically. Safe from any thread; holds the GIL.

        Raises:
            DatabaseError: the disk refused; nothing of the batch is in the tables.
        """
        try:
            self._db.write(batch)
        except Exception as error:  # rocksdict raises plain Exception
            raise DatabaseError(
                f"{self.path}: the write batch was refused ({error}); "
                "free disk space or repair the disk, then start the worker again"
            ) from error

    def drop_partition(self, partition: int, batch: WriteBatch) -> None:
        """Add to ``batch`` the deletion of every row of the partition."""
        start, end = partition.to_bytes(PARTITION_BYTES, "big"), _after(partition)
        for name, handle in self.handles.items():
            if name != CHANGES_TABLE:
                batch.delete_range(start, end, handle)

    def close(self) -> None:
        """Release the lock; the object is unusable afterwards."""
        self._families.clear()
        self.handles.clear()
        self._db.close()


class PartitionRows:
    """``RowReader`` of one partition."""

    def __init__(self, database: Database, partition: int) -> None:
        self._database = database
        self._partition = partition

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        return self._database.get_many(table, self._partition, keys)

    def scan(self, table: str, start: bytes = b"", end: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        return self._database.scan(table, self._partition, start, end)


Rows = dict[str, dict[bytes, bytes | None]]
"""Table -> key -> value; None deletes."""


class PartitionWriter:
    """``RowWriter`` of one partition and one flush: into the write batch, and remembered for the changelog."""

    def __init__(self, database: Database, batch: WriteBatch, partition: int) -> None:
        self._batch = batch
        self._handles = database.handles
        self._partition = partition
        self._prefix = partition.to_bytes(PARTITION_BYTES, "big")
        self.rows: Rows = {}
        self.sections: list[tuple[str, int, bytes]] = []

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self._batch.put(self._prefix + key, value, self._handles[table])
        self._remembered(table)[key] = value

    def put_many(self, table: str, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        prefix, handle, put = self._prefix, self._handles[table], self._batch.put
        for key, value in zip(keys, values, strict=True):
            put(prefix + key, value, handle)
        self._remembered(table).update(zip(keys, values, strict=True))

    def delete(self, table: str, key: bytes) -> None:
        self._batch.delete(self._prefix + key, self._handles[table])
        self._remembered(table)[key] = None

    def feed(self, section: str, payload: bytes) -> None:
        self.sections.append((section, self._partition, payload))

    def put_local(self, table: str, key: bytes, value: bytes) -> None:
        """A row that describes this disk and never reaches a changelog."""
        self._batch.put(self._prefix + key, value, self._handles[table])

    def _remembered(self, table: str) -> dict[bytes, bytes | None]:
        rows = self.rows.get(table)
        if rows is None:
            rows = self.rows[table] = {}
        return rows


def scan_range(family: Rdict, start: bytes, end: bytes, strip: int) -> Iterator[tuple[bytes, bytes]]:
    """Rows of a column family with ``start <= key < end``, keys without their first ``strip`` bytes.

    The lower bound is ``from_key``: rocksdict's ``set_iterate_lower_bound`` acts as an upper bound.
    """
    options = ReadOptions()
    options.set_iterate_upper_bound(end)
    for key, value in family.items(from_key=start, read_opt=options):
        yield key[strip:], value


def _after(partition: int) -> bytes:
    return (partition + 1).to_bytes(PARTITION_BYTES, "big")


def _open(path: Path, specs: dict[str, TableSpec], settings: DatabaseSettings) -> Rdict:
    cache = Cache(settings.block_cache_bytes)
    budget = WriteBufferManager(settings.memtable_bytes_max, False)
    options = _database_options(settings, budget)
    # Column families of an earlier version must be opened too, or RocksDB refuses.
    existing = Rdict.list_cf(str(path)) if (path / "CURRENT").exists() else []
    families = {name: TableSpec(name, "unused") for name in existing} | specs
    column_families = {
        name: _family_options(spec, settings, cache)
        for name, spec in ({"default": TableSpec("default", "unused")} | families).items()
    }
    try:
        return Rdict(str(path), options, column_families=column_families)
    except Exception as error:  # rocksdict raises plain Exception
        raise DatabaseError(
            f"{path}: cannot open the worker's database ({error}); stop the other process that uses it, "
            "or move the folder away: the worker restores its tables from the changelog"
        ) from error


def _database_options(settings: DatabaseSettings, budget: WriteBufferManager) -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    options.set_write_buffer_manager(budget)
    options.set_max_total_wal_size(settings.wal_bytes_max)
    options.set_max_open_files(-1)
    options.set_max_background_jobs(2)
    options.set_keep_log_file_num(2)
    return options


def _family_options(spec: TableSpec, settings: DatabaseSettings, cache: Cache) -> Options:
    options = Options(raw_mode=True)
    blocks = BlockBasedOptions()
    blocks.set_block_cache(cache)
    blocks.set_cache_index_and_filter_blocks(False)
    if spec.bloom:
        blocks.set_bloom_filter(settings.bloom_bits, False)
    options.set_block_based_table_factory(blocks)
    options.set_write_buffer_size(settings.memtable_bytes_max // 4)
    options.set_compression_type(DBCompressionType.lz4())
    return options

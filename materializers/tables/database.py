"""One RocksDB for each worker; ``layout`` says where a table's rows are in it.

Secondary readers set two conditions. All column families exist before the first reader opens (one created
later breaks its catch-up for good), and the write-ahead log stays on (they see unflushed rows through it).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, Final, cast

import msgspec
from rocksdict import (
    BlockBasedOptions,
    BottommostLevelCompaction,
    Cache,
    ColumnFamily,
    CompactOptions,
    DBCompressionType,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
)

from materializers.materializer import TableSpec
from materializers.tables.changes import Part, RowChanges
from materializers.tables.feed import Section
from materializers.tables.layout import (
    CODE_BYTES,
    DEFAULT_FAMILY,
    PENDING_TABLE,
    PREFIX_BYTES,
    STATE_FAMILY,
    STATE_TABLES,
    WORKER,
    family_of,
    partition_range,
    row_prefix,
    row_range,
    table_code,
)
from materializers.tables.meta import META_TABLE, OWNERSHIP_KEY
from schemas.errors import TidalError
from schemas.ids import find_code_collisions
from schemas.keys import PARTITION_BYTES

FLUSH_NUMBER: Final = b"flush"
WIPE_DUE: Final = b"wipe"
_ROW_FILES: Final = ("*.sst", "*.log", "MANIFEST-*")
_LEVELS: Final = 7  # RocksDB's default
_YOUNG_LEVELS: Final = 2
_GONE_WITHIN_S: Final = 30.0
_GONE_POLL_S: Final = 0.02


class DatabaseSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes of one worker's RocksDB.

    Attributes:
        memtable_bytes: of one column family. A reader replays the unflushed log when it opens, so it is
            modest.
        block_cache_bytes: shared by all tables.
        wal_bytes_max: bounds the replay even when a table is hardly written.
    """

    memtable_bytes: int = 32 << 20
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
            DatabaseError: another process holds it, its files are damaged, or two tables have one code.
        """
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self.tables = (*dict.fromkeys(spec.name for spec in tables), *sorted(STATE_TABLES))
        _check_codes(self.tables)
        self._db = _open(path, settings or DatabaseSettings())
        families = {name: self._db.get_column_family(name) for name in (DEFAULT_FAMILY, STATE_FAMILY)}
        handles = {name: self._db.get_column_family_handle(name) for name in families}
        self._families = {table: families[family_of(table)] for table in self.tables}
        self._handles = {table: handles[family_of(table)] for table in self.tables}
        self._merging = False
        stored = self.get(META_TABLE, WORKER, FLUSH_NUMBER)
        self.flush_number = 0 if stored is None else int.from_bytes(stored, "big")

    def get_many(self, table: str, partition: int, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values in the order of ``keys``; safe from any thread."""
        if not keys:
            return []
        prefix = row_prefix(table, partition)
        found: Any = self._families[table].get([prefix + key for key in keys])
        return cast(list[bytes | None], found)

    def get(self, table: str, partition: int, key: bytes) -> bytes | None:
        return cast(bytes | None, self._families[table].get(row_prefix(table, partition) + key))

    def scan(
        self, table: str, partition: int, start: bytes = b"", end: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Rows of one partition with ``start <= key < end`` in key order, keys without the prefix."""
        first, after = row_range(table, partition, start, end)
        yield from scan_range(self._families[table], first, after, PREFIX_BYTES)

    def rows(self, partition: int) -> PartitionRows:
        return PartitionRows(self, partition)

    def begin_flush(self) -> WriteBatch:
        """A write batch that already carries the next flush's number; write it with ``write``."""
        self.flush_number += 1
        batch = self.batch()
        self.put(batch, META_TABLE, WORKER, FLUSH_NUMBER, self.flush_number.to_bytes(8, "big"))
        return batch

    def batch(self) -> WriteBatch:
        return WriteBatch(raw_mode=True)

    def put(self, batch: WriteBatch, table: str, partition: int, key: bytes, value: bytes) -> None:
        """Add one row to ``batch``."""
        batch.put(row_prefix(table, partition) + key, value, self._handles[table])

    def delete_rows(
        self, batch: WriteBatch, table: str, partition: int, start: bytes = b"", end: bytes | None = None
    ) -> None:
        """Add to ``batch`` the deletion of rows with ``start <= key < end``."""
        batch.delete_range(*row_range(table, partition, start, end), self._handles[table])

    def drop_partition(self, batch: WriteBatch, partition: int) -> None:
        """Add to ``batch`` the deletion of every row of the partition."""
        batch.delete_range(*partition_range(partition), self._db.get_column_family_handle(DEFAULT_FAMILY))
        for table in (META_TABLE, PENDING_TABLE):
            self.delete_rows(batch, table, partition)

    def held_partitions(self) -> list[int]:
        """Partitions that have an ownership record on this disk."""
        family = self._families[META_TABLE]
        first, after = row_prefix(META_TABLE, 0), row_prefix(META_TABLE, WORKER)
        keys = [key for key, _ in scan_range(family, first, after, CODE_BYTES)]
        return [
            int.from_bytes(key[:PARTITION_BYTES], "big")
            for key in keys
            if key[PARTITION_BYTES:] == OWNERSHIP_KEY
        ]

    def memory(self) -> dict[str, int]:
        """Bytes of memory by what RocksDB uses them for."""
        families = list(dict.fromkeys(self._families.values()))

        def total(name: str) -> int:
            return sum(int(family.property_int_value(name) or 0) for family in families)

        cached = int(families[0].property_int_value("rocksdb.block-cache-usage") or 0)  # one cache for all
        return {
            "memtables": total("rocksdb.size-all-mem-tables"),
            "blocks": cached,
            "filters and indexes": total("rocksdb.estimate-table-readers-mem"),
        }

    def files(self) -> list[dict[str, Any]]:
        """RocksDB's files: ``size``, ``num_entries``, ``num_deletions``, ``start_key``, ``end_key`` …"""
        return self._db.live_files()

    def rows_estimated(self) -> int:
        """RocksDB's estimate of all rows of the views' tables, those in memory included."""
        return int(self._db.property_int_value("rocksdb.estimate-num-keys") or 0)

    def mark_wipe_due(self, batch: WriteBatch) -> None:
        """Add to ``batch``: rows were dropped that must leave the files, also if the worker dies before."""
        self.put(batch, META_TABLE, WORKER, WIPE_DUE, time.time_ns().to_bytes(8, "big"))

    def wipe_due(self) -> bytes | None:
        """What ``wiped`` takes once the files are clean; None if nothing was marked."""
        return self.get(META_TABLE, WORKER, WIPE_DUE)

    def wiped(self, mark: bytes | None) -> None:
        """Everything dropped up to ``mark`` has left the files."""
        if mark is not None and self.wipe_due() == mark:
            batch = self.batch()
            batch.delete(row_prefix(META_TABLE, WORKER) + WIPE_DUE, self._handles[META_TABLE])
            self.write(batch)

    def compact(self) -> None:
        """Write everything to files and merge all files, so that they hold present rows and nothing else.

        Blocks for as long as reading and writing the whole database takes; safe from any thread, and folds
        go on meanwhile.

        Raises:
            DatabaseError: the disk refused.
        """
        options = CompactOptions()
        options.set_exclusive_manual_compaction(False)
        options.set_bottommost_level_compaction(BottommostLevelCompaction.force())
        families = list(dict.fromkeys(self._families.values()))
        before = self._files()
        self._merging = True
        try:
            for family in families:  # all of them first: a log file goes when nothing in it is unflushed
                family.flush(True)
            for family in families:
                family.compact_range(None, None, options)
        except Exception as error:  # rocksdict raises plain Exception
            raise DatabaseError(
                f"{self.path}: the files could not be merged ({error}); free disk space, it is tried again"
            ) from error
        finally:
            self._merging = False
        self._wait_until_gone(before)

    def _files(self) -> set[Path]:
        """Files that hold rows, or keys of rows; not the log file that has just begun."""
        found = [path for pattern in _ROW_FILES for path in self.path.glob(pattern)]
        return {path for path in found if _size(path) > 0}

    def _wait_until_gone(self, files: set[Path]) -> None:
        """RocksDB deletes what it has replaced a little later, and not before the last reader lets go."""
        deadline_s = time.monotonic() + _GONE_WITHIN_S
        while left := {path for path in files if path.exists()}:
            if time.monotonic() > deadline_s:
                names = ", ".join(sorted(path.name for path in left))
                raise DatabaseError(
                    f"{self.path}: {names} were merged and are still there; it is tried again"
                )
            time.sleep(_GONE_POLL_S)

    def put_rows(
        self, batch: WriteBatch, table: str, partition: int, rows: Mapping[bytes, bytes | None]
    ) -> None:
        """Add rows in key order; None deletes."""
        _put_sorted(batch, row_prefix(table, partition), rows, self._handles[table])

    def put_part(self, batch: WriteBatch, table: str, partition: int, part: Part) -> None:
        """Add rows in the order that they have."""
        prefix, family = row_prefix(table, partition), self._handles[table]
        keys = [prefix + key for key in part.keys]
        if not part.deletes:
            deque(map(batch.put, keys, part.values, repeat(family)), maxlen=0)
            return
        for key, value in zip(keys, part.values, strict=True):
            if value is None:
                batch.delete(key, family)
            else:
                batch.put(key, value, family)

    def put_changelog(self, batch: WriteBatch, partition: int, rows: Mapping[bytes, bytes | None]) -> None:
        """Add rows of the views' tables as a changelog holds them: keys begin with the table's code."""
        prefix = partition.to_bytes(PARTITION_BYTES, "big")
        _put_sorted(batch, prefix, rows, self._db.get_column_family_handle(DEFAULT_FAMILY))

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

    def close(self) -> None:
        """Release the lock; the object is unusable afterwards."""
        merging = self._merging
        if merging:  # it may have minutes to go, and what it has not done is done again
            self._db.cancel_all_background(True)
        self._families.clear()
        self._handles.clear()
        try:
            self._db.close()
        except Exception:  # rocksdict raises plain Exception
            if not merging:  # then it says that the database is being closed
                raise
        del self._db


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
    """``RowWriter`` of one partition and one flush: rows for the write batch and for the changelog.

    Rows enter the write batch in the order of the database's keys, all but (``finish``): RocksDB then takes
    0.4 µs for each instead of 2.6 (measured with random keys of 26 bytes).
    """

    def __init__(self, database: Database, batch: WriteBatch, partition: int) -> None:
        self._database = database
        self._batch = batch
        self._partition = partition
        self.changes = RowChanges()
        self.sections: list[Section] = []

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self.changes.put(table, key, value)

    def put_many(self, table: str, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        self.changes.put_many(table, keys, values)

    def delete(self, table: str, key: bytes) -> None:
        self.changes.put(table, key, None)

    def feed(self, section: str, payload: bytes) -> None:
        self.sections.append(Section(section, self._partition, payload))

    def finish(self) -> None:
        """Put every row into the write batch."""
        for table, parts in sorted(self.changes.tables(), key=lambda entry: table_code(entry[0])):
            for part in parts:
                self._database.put_part(self._batch, table, self._partition, part)


def scan_range(family: Rdict, start: bytes, end: bytes, strip: int) -> Iterator[tuple[bytes, bytes]]:
    """Rows of a column family with ``start <= key < end``, keys without their first ``strip`` bytes.

    The lower bound is ``from_key``: rocksdict's ``set_iterate_lower_bound`` acts as an upper bound.
    """
    options = ReadOptions()
    options.set_iterate_upper_bound(end)
    rows = cast(Iterator[tuple[bytes, bytes]], family.items(from_key=start, read_opt=options))
    for key, value in rows:
        yield key[strip:], value


def _put_sorted(
    batch: WriteBatch, prefix: bytes, rows: Mapping[bytes, bytes | None], family: ColumnFamily
) -> None:
    put, delete = batch.put, batch.delete
    for key in sorted(rows):
        value = rows[key]
        if value is None:
            delete(prefix + key, family)
        else:
            put(prefix + key, value, family)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _check_codes(tables: Sequence[str]) -> None:
    collisions = find_code_collisions(tables)
    if collisions:
        first, second = collisions[0]
        raise DatabaseError(f"tables {first} and {second} have the same code; give one of them another name")


def _open(path: Path, settings: DatabaseSettings) -> Rdict:
    cache = Cache(settings.block_cache_bytes)
    options = _database_options(settings)
    families = {
        DEFAULT_FAMILY: _family_options(settings, cache, bloom=True),
        STATE_FAMILY: _family_options(settings, cache, bloom=False),
    }
    try:
        return Rdict(str(path), options, column_families=families)
    except Exception as error:  # rocksdict raises plain Exception
        raise DatabaseError(
            f"{path}: cannot open the worker's database ({error}); stop the other process that uses it, "
            "or move the folder away: the worker restores its tables from the changelog"
        ) from error


def _database_options(settings: DatabaseSettings) -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    options.set_max_total_wal_size(settings.wal_bytes_max)
    options.set_max_open_files(-1)
    options.set_max_background_jobs(2)
    options.set_keep_log_file_num(2)
    # Every change of files begins a new manifest, which takes some milliseconds: one names the first and last
    # key of every file that ever was, erased users among them; and its name tells readers of the change.
    options.set_max_manifest_file_size(1)
    return options


def _family_options(settings: DatabaseSettings, cache: Cache, *, bloom: bool) -> Options:
    options = Options(raw_mode=True)
    blocks = BlockBasedOptions()
    blocks.set_block_cache(cache)
    if bloom:
        blocks.set_bloom_filter(settings.bloom_bits, False)
    options.set_block_based_table_factory(blocks)
    options.set_write_buffer_size(settings.memtable_bytes)
    # Rows are written here twice before they settle; compressing them each time costs a fifth of the
    # background work and saves at most 256 MB of disk.
    young = [DBCompressionType.none()] * _YOUNG_LEVELS
    options.set_compression_per_level([*young, *[DBCompressionType.lz4()] * (_LEVELS - _YOUNG_LEVELS)])
    return options

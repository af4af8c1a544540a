"""One worker's tables, read by another process: a RocksDB secondary instance.

It sees what the worker has written as of the last catch-up, through the write-ahead log, without a lock.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import msgspec
from rocksdict import AccessType, Options, Rdict

from materializers.materializer import Scope
from materializers.tables.database import FLUSH_NUMBER, scan_range
from materializers.tables.errors import TablesUnreadableError
from materializers.tables.feed import CHANGES_TABLE, Change, change_key, decode_change
from materializers.tables.layout import (
    DEFAULT_FAMILY,
    PREFIX_BYTES,
    STATE_FAMILY,
    WORKER,
    family_of,
    row_prefix,
    row_range,
)
from materializers.tables.meta import (
    META_TABLE,
    OWNERSHIP_KEY,
    Ownership,
    ShardMeta,
    decode_ownership,
    decode_shard,
)

_ATTEMPTS_MAX: Final = 20

_WRITTEN: Final = (".log", "CURRENT")

_Written = dict[str, tuple[int, int, int]]
"""Number, length and last change of each write-ahead log, and of the name of the list of files."""


class HeldPartition(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker's disk says of a partition; whether it still owns it shows in comparison with others."""

    ownership: Ownership
    shards: Mapping[Scope, ShardMeta]


class WorkerTables:
    """A secondary instance. Not thread safe; calls hold the GIL except ``get_many``."""

    def __init__(self, worker_folder: Path, secondary_folder: Path) -> None:
        """Open; ``secondary_folder`` belongs to this reader alone.

        Raises:
            TablesUnreadableError: there is no complete database yet, or it cannot be opened now.
        """
        self.name = worker_folder.name
        self._path = worker_folder / "db"
        self._secondary = secondary_folder
        self._identity = self._read_identity()
        self._begun: set[int] = set()
        """Logs whose end may not have been read yet."""
        self._read_up_to: _Written = {}
        self._open()
        self.catch_up()

    def has_news(self) -> bool:
        """Whether anything was written since the last catch-up began: tens of microseconds, where an idle
        catch-up takes a millisecond.

        Whatever the worker writes goes to its write-ahead log before anybody can read it, and a log only ever
        grows. Files that are merged hold the same rows, but those that they replace are to be let go.
        """
        return not self._read_up_to or self._written() != self._read_up_to

    def catch_up(self) -> None:
        """See what was written since, all tables as of one moment. Opens anew when RocksDB cannot follow.

        RocksDB follows in two steps, first the list of files and then the logs of what is in none of them.
        Two things it does not notice (ADR 0150):

        * The files change between the steps: rows are in neither, and a table shows them absent or as they
          were long ago. Every change of files begins a new manifest (``Database`` sees to that), so it shows,
          and the next attempt reads the list anew.
        * A log is written to files and deleted before its end was read: what was read of it stays in memory
          and hides the newer rows of the files. Then only opening anew helps.

        Raises:
            TablesUnreadableError: the folder is gone or another one, or its files never stood still.
        """
        written, self._read_up_to = self._written(), {}
        for _ in range(_ATTEMPTS_MAX):
            files, logs = self._files(), self._logs()
            self._follow()
            if not self._begun <= self._logs():
                self._db.close()
                self._open()
                continue
            self._begun = self._logs_from(logs)
            if self._files() == files:
                self._read_up_to = written
                return
        raise TablesUnreadableError(
            f"{self._path}: its files changed during each of {_ATTEMPTS_MAX} attempts to read them; "
            "it is tried again"
        )

    @property
    def flush_number(self) -> int:
        """Number of the last flush that is visible."""
        stored = self._families[STATE_FAMILY].get(row_prefix(META_TABLE, WORKER) + FLUSH_NUMBER)
        return 0 if stored is None else int.from_bytes(cast(bytes, stored), "big")

    def held(self) -> dict[int, HeldPartition]:
        """The partitions whose rows are complete on this disk."""
        rows: dict[int, dict[bytes, bytes]] = {}
        first, after = row_prefix(META_TABLE, 0), row_prefix(META_TABLE, WORKER)
        for key, value in scan_range(self._families[STATE_FAMILY], first, after, 0):
            partition = int.from_bytes(key[PREFIX_BYTES - 2 : PREFIX_BYTES], "big")
            rows.setdefault(partition, {})[key[PREFIX_BYTES:]] = value
        return {partition: _held(named) for partition, named in rows.items() if OWNERSHIP_KEY in named}

    def get_many(self, table: str, keys: Sequence[tuple[int, bytes]]) -> list[bytes | None]:
        """Values of (partition, key) in order; None where there is no row."""
        if not keys:
            return []
        prefixes = {partition: row_prefix(table, partition) for partition, _ in keys}
        full_keys: list[Any] = [prefixes[partition] + key for partition, key in keys]
        found: Any = self._families[family_of(table)].get(full_keys)
        return cast(list[bytes | None], found)

    def scan(
        self, table: str, partition: int, start: bytes = b"", end: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Rows of a partition with ``start <= key < end`` in key order, keys without the prefix."""
        first, last = row_range(table, partition, start, end)
        yield from scan_range(self._families[family_of(table)], first, last, PREFIX_BYTES)

    def changes(self, after: int) -> list[Change]:
        """Visible rows of the feed after flush number ``after``, in order."""
        rows = self.scan(CHANGES_TABLE, WORKER, change_key(after + 1))
        return [decode_change(row) for _, row in rows]

    def close(self) -> None:
        self._families.clear()
        self._db.close()

    def _follow(self) -> None:
        try:
            self._db.try_catch_up_with_primary()
        except Exception:  # noqa: BLE001 - rocksdict raises plain Exception
            self._db.close()
            self._open()

    def _written(self) -> _Written:
        """What changes whenever the worker writes or replaces files; empty if the folder is gone."""
        try:
            with os.scandir(self._path) as entries:
                found = {each.name: each.stat() for each in entries if each.name.endswith(_WRITTEN)}
        except FileNotFoundError:  # the folder, or a file between the list and the look
            return {}
        return {name: (stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in found.items()}

    def _logs(self) -> set[int]:
        """Numbers of the write-ahead logs that there are."""
        return {int(path.stem) for path in self._path.glob("*.log")}

    def _logs_from(self, before: set[int]) -> set[int]:
        """The logs that may have grown since: the newest of ``before`` and those that came later."""
        newest = max(before, default=0)
        return {log for log in self._logs() if log >= newest}

    def _files(self) -> str:
        """Name of the manifest: another one whenever the set of files is another."""
        if self._read_identity() != self._identity:
            raise TablesUnreadableError(f"{self._path}: wiped and made anew; it is opened again")
        return self._read("CURRENT")

    def _open(self) -> None:
        self._secondary.mkdir(parents=True, exist_ok=True)
        options = Options(raw_mode=True)
        options.set_max_open_files(-1)  # else reads fail once the worker compacts files away
        logs = self._logs()
        try:
            names = (DEFAULT_FAMILY, STATE_FAMILY)
            self._db = Rdict(
                str(self._path),
                options,
                column_families={name: Options(raw_mode=True) for name in names},
                access_type=AccessType.secondary(str(self._secondary)),
            )
            self._families = {name: self._db.get_column_family(name) for name in names}
        except Exception as error:  # rocksdict raises plain Exception
            raise TablesUnreadableError(
                f"{self._path}: cannot be opened for reading now ({error}); it is tried again"
            ) from error
        self._begun = self._logs_from(logs)

    def _read_identity(self) -> str:
        return self._read("IDENTITY")

    def _read(self, name: str) -> str:
        try:
            return (self._path / name).read_text()
        except OSError as error:
            raise TablesUnreadableError(f"{self._path}: no database yet") from error


def _held(rows: Mapping[bytes, bytes]) -> HeldPartition:
    return HeldPartition(
        ownership=decode_ownership(rows[OWNERSHIP_KEY]),
        shards={scope: decode_shard(rows.get(scope.encode())) for scope in Scope},
    )

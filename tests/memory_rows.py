"""A partition's rows in dicts: the contract of ``RowReader`` and ``RowWriter`` without a database."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence


class MemoryRows:
    """What is committed of one partition, table by table, and the change feed so far."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[bytes, bytes]] = {}
        self.fed: list[tuple[str, bytes]] = []

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        rows = self.tables.get(table, {})
        return [rows.get(key) for key in keys]

    def scan(self, table: str, start: bytes = b"", end: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        rows = self.tables.get(table, {})
        for key in sorted(rows):
            if key >= start and (end is None or key < end):
                yield key, rows[key]

    def copy(self) -> MemoryRows:
        """The same rows for another life of the partition; the feed starts empty."""
        other = MemoryRows()
        other.tables = copy.deepcopy(self.tables)
        return other


class MemoryWriter:
    """One flush: nothing is visible to readers before ``commit``."""

    def __init__(self, rows: MemoryRows) -> None:
        self._rows = rows
        self._changes: list[tuple[str, bytes, bytes | None]] = []
        self._sections: list[tuple[str, bytes]] = []

    @property
    def changes(self) -> list[tuple[str, bytes, bytes | None]]:
        """Puts, and deletes as None, in order."""
        return self._changes

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self._changes.append((table, key, value))

    def put_many(self, table: str, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        for key, value in zip(keys, values, strict=True):
            self.put(table, key, value)

    def delete(self, table: str, key: bytes) -> None:
        self._changes.append((table, key, None))

    def feed(self, section: str, payload: bytes) -> None:
        self._sections.append((section, payload))

    def commit(self) -> None:
        for table, key, value in self._changes:
            rows = self._rows.tables.setdefault(table, {})
            if value is None:
                rows.pop(key, None)
            else:
                rows[key] = value
        self._rows.fed.extend(self._sections)
        self._changes, self._sections = [], []

"""A partition's rows as they are once the erasures folded since the last flush are written.

An erasure happens between two batches; the database changes with the next flush. What a view reads in
between must not bring a forgotten user back, so reads go through this layer. Without an erasure it costs one
test of an empty dict.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import merge

from materializers.materializer import RowReader, RowWriter


class ErasureRows:
    """``RowReader`` of a partition and ``RowWriter`` of its erasures."""

    def __init__(self, rows: RowReader) -> None:
        self._rows = rows
        self._changed: dict[str, dict[bytes, bytes | None]] = {}
        self._sections: list[tuple[str, bytes]] = []
        self._written = False

    def reopen(self, rows: RowReader) -> None:
        """Read ``rows`` from here on; nothing is changed."""
        self._rows = rows
        self._forget_changes()

    def settle(self) -> None:
        """Call it when a flush that ``write_to`` was part of may have ended: its changes are in the rows."""
        if self._written:
            self._forget_changes()

    def write_to(self, writer: RowWriter) -> None:
        """Hand the changes to a flush, before anything that is newer than they are."""
        self.settle()
        for table, changed in self._changed.items():
            for key, value in changed.items():
                if value is None:
                    writer.delete(table, key)
                else:
                    writer.put(table, key, value)
        for section, payload in self._sections:
            writer.feed(section, payload)
        self._written = True

    # -- RowReader ----------------------------------------------------------------------------------

    def get_many(self, table: str, keys: Sequence[bytes]) -> list[bytes | None]:
        changed = self._changed.get(table)
        stored = self._rows.get_many(table, keys)
        if not changed:
            return stored
        return [changed.get(key, value) for key, value in zip(keys, stored, strict=True)]

    def scan(self, table: str, start: bytes = b"", end: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        changed = self._changed.get(table)
        stored = self._rows.scan(table, start, end)
        if not changed:
            return stored
        kept = ((key, value) for key, value in stored if key not in changed)
        new = sorted(
            (key, value)
            for key, value in changed.items()
            if value is not None and key >= start and (end is None or key < end)
        )
        return merge(kept, new)

    # -- RowWriter ----------------------------------------------------------------------------------

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self._changed.setdefault(table, {})[key] = value

    def put_many(self, table: str, keys: Sequence[bytes], values: Sequence[bytes]) -> None:
        self._changed.setdefault(table, {}).update(zip(keys, values, strict=True))

    def delete(self, table: str, key: bytes) -> None:
        self._changed.setdefault(table, {})[key] = None

    def feed(self, section: str, payload: bytes) -> None:
        self._sections.append((section, payload))

    def _forget_changes(self) -> None:
        self._changed.clear()
        self._sections.clear()
        self._written = False

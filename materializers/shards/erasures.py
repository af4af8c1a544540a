"""What a shard has erased since the last flush, as rows of ``erasures``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from materializers.materializer import RowWriter, TableSpec
from materializers.rows.erasures import (
    OPEN_TABLE,
    TABLE,
    ErasurePart,
    encode_erasure,
    erasure_key,
)

ERASURES_TABLE: Final = TableSpec(TABLE, "position of the deleting record, part", bloom=False)
OPEN_ERASURES_TABLE: Final = TableSpec(OPEN_TABLE, "position of the deleting record, part", bloom=False)


class ErasureLog:
    """The erasures of one shard that no flush has written yet."""

    def __init__(self, part: ErasurePart) -> None:
        self._part = part
        self._rows: dict[bytes, bytes] = {}

    def add(self, source: tuple[int, int], at_ms: int, rows: Mapping[str, int]) -> None:
        """The erasure asked for at ``source`` took ``rows`` by table."""
        self._rows[erasure_key(source, self._part)] = encode_erasure(at_ms, rows)

    def flush(self, writer: RowWriter) -> None:
        writer.put_many(TABLE, list(self._rows), list(self._rows.values()))
        for key in self._rows:
            writer.put(OPEN_TABLE, key, b"")
        self._rows.clear()


class ErasureChanges:
    """What the wiper has done since the last flush."""

    def __init__(self) -> None:
        self._rows: dict[bytes, bytes | None] = {}

    def wiped(self, key: bytes, row: bytes) -> None:
        """The disk has no trace of this part any more."""
        self._rows[key] = row

    def dropped(self, key: bytes) -> None:
        """The report of this part is too old to be kept."""
        self._rows[key] = None

    def flush(self, writer: RowWriter) -> None:
        for key, row in self._rows.items():
            if row is None:
                writer.delete(TABLE, key)
            else:
                writer.put(TABLE, key, row)
            writer.delete(OPEN_TABLE, key)
        self._rows.clear()


def total(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Sums by table."""
    sums: dict[str, int] = {}
    for part in parts:
        for table, rows in part.items():
            sums[table] = sums.get(table, 0) + rows
    return sums

"""What a shard has erased since the last flush, as rows of ``erasures``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from materializers.materializer import RowWriter, TableSpec
from materializers.rows.erasures import TABLE, ErasurePart, encode_erasure, erasure_key

ERASURES_TABLE: Final = TableSpec(TABLE, "position of the deleting record, part", bloom=False)


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
        self._rows.clear()


def total(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Sums by table."""
    sums: dict[str, int] = {}
    for part in parts:
        for table, rows in part.items():
            sums[table] = sums.get(table, 0) + rows
    return sums

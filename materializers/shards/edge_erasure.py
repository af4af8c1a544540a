"""Which explicit edges of a partition lead from or to a user, flushed or not."""

from __future__ import annotations

from collections.abc import Iterable

from materializers.batches import EdgeWrite
from materializers.materializer import RowReader
from materializers.rows.entities import EDGES, decode_edge, edge_keys
from schemas.ids import entity_id
from schemas.keys import entity_range, split_row_key
from schemas.model import Schema

EdgeName = tuple[str, str, str]


class EdgeFinder:
    """Knows the edges written since the last flush; those before are in the rows."""

    def __init__(self, schema: Schema, rows: RowReader) -> None:
        self._type_of_code = {edge.code: edge.name for edge in schema.relationships.values()}
        self._rows = rows
        self._since_flush: dict[EdgeName, bool] = {}

    def wrote(self, writes: Iterable[EdgeWrite]) -> None:
        """Note writes, in log order."""
        for write in writes:
            self._since_flush[write.type, write.source, write.target] = write.record is not None

    def flushed(self) -> None:
        """Everything noted is about to be in the rows."""
        self._since_flush.clear()

    def of(self, user: int) -> list[EdgeName]:
        """Edges from or to the user with this EntityId, sorted."""
        stands = {
            (self._type_of_code[code], source, target): True
            for code, source, target in self._stored(user)
            if code in self._type_of_code
        }
        for name, exists in self._since_flush.items():
            if user in (entity_id(name[1]), entity_id(name[2])):
                stands[name] = exists
        return sorted(name for name, exists in stands.items() if exists)

    def outdated(self, user: int) -> list[bytes]:
        """Row keys of the user's edges of types that the schema has dropped: no write can delete those."""
        keys: list[bytes] = []
        for code, source, target in self._stored(user):
            if code not in self._type_of_code:
                keys.extend(edge_keys(code, source, target))
        return keys

    def _stored(self, user: int) -> set[tuple[int, str, str]]:
        """``(type code, source, target)`` of the user's edges as of the last flush."""
        found = set()
        for key, value in self._rows.scan(EDGES, *entity_range(user)):
            edge = decode_edge(value)
            found.add((int.from_bytes(split_row_key(key)[2][:4], "big"), edge.source, edge.target))
        return found

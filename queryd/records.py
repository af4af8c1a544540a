"""Entity records by id, from the tables."""

from __future__ import annotations

from collections.abc import Sequence

from materializers.rows.entities import TABLE_OF_KIND, StoredEntity, decode_entity_row, entity_key
from queryd.hot.tables import Tables
from schemas.errors import RecordError
from schemas.model import Schema
from schemas.records.entities import EntityRecord, decode_entity
from streams.partitioner import partition_for


class RecordReads:
    """Point reads of records; a deleted or unreadable one is None.

    Args:
        partitions: partitions of the entity topics.
    """

    def __init__(self, tables: Tables, schema: Schema, partitions: int) -> None:
        self._tables = tables
        self._schema = schema
        self._partitions = partitions

    def stored(self, kind: str, ids: Sequence[str]) -> list[StoredEntity | None]:
        """Rows of entities as the log has them."""
        keys = [(partition_for(id_.encode(), self._partitions), entity_key(id_)) for id_ in ids]
        rows = self._tables.get_many(TABLE_OF_KIND[kind], keys) if keys else []
        found = [None if row is None else decode_entity_row(row) for row in rows]
        return [None if row is None or row.status == "deleted" else row for row in found]

    def records(self, kind: str, ids: Sequence[str]) -> list[EntityRecord | None]:
        """Typed records."""
        return [
            None if row is None else self._decoded(kind, row.id, row.raw) for row in self.stored(kind, ids)
        ]

    def _decoded(self, kind: str, id_: str, raw: bytes) -> EntityRecord | None:
        try:
            return decode_entity(kind, id_.encode(), raw, self._schema)
        except RecordError:
            return None

"""Entities: the newest record of every item, user and creator."""

from __future__ import annotations

from typing import Final, cast

from materializers.batches import EntityBatch, EntityWrite
from materializers.materializer import (
    Forgotten,
    PartitionContext,
    RowReader,
    RowWriter,
    Scope,
    TableSpec,
    View,
)
from materializers.rows.entities import (
    ENTITIES_SECTION,
    TABLE_OF_KIND,
    EntityChange,
    StoredEntity,
    encode_entity,
    encode_entity_changes,
    entity_key,
)

DELETED: Final = "deleted"
"""Status of the row that a deleted item or creator leaves: without it, one whose signals are still counted
would look to a reader that starts anew like one whose record has not come yet."""


class Entities:
    """The fold of one entity partition: the last write of each key wins, by log order."""

    def __init__(self, context: PartitionContext) -> None:
        self._entities: dict[tuple[str, str], EntityWrite] = {}

    def on_batch(self, batch: EntityBatch) -> None:
        """Keep the newest write of each entity until the next flush."""
        if batch.kind in TABLE_OF_KIND:
            for entity in cast(list[EntityWrite], batch.writes):
                self._entities[batch.kind, entity.id] = entity

    def checkpoint(self, writer: RowWriter) -> None:
        """Rows and feed of what changed."""
        if self._entities:
            changes = [self._put_entity(kind, write, writer) for (kind, _), write in self._entities.items()]
            writer.feed(ENTITIES_SECTION, encode_entity_changes(changes))
        self._entities.clear()

    def restore(self, reader: RowReader) -> None:
        """Nothing is kept in memory between flushes."""
        self._entities.clear()

    def forget(self, users: Forgotten, writer: RowWriter) -> dict[str, int]:
        """An erased user's record is deleted by a write, as all records are."""
        return {}

    @staticmethod
    def _put_entity(kind: str, write: EntityWrite, writer: RowWriter) -> EntityChange:
        table, key, record = TABLE_OF_KIND[kind], entity_key(write.id), write.record
        raw = None if record is None else record.raw
        if record is None and kind == "user":  # whoever leaves leaves nothing behind
            writer.delete(table, key)
        else:
            status = DELETED if record is None else record.status
            row = StoredEntity(write.id, status, write.offset, write.timestamp_ms, raw or b"")
            writer.put(table, key, encode_entity(row))
        return EntityChange(kind, write.id, write.offset, write.timestamp_ms, raw)


VIEW = View(
    name="entities",
    scope=Scope.ENTITY,
    tables=tuple(TableSpec(table, "EntityId") for table in TABLE_OF_KIND.values()),
    build=Entities,
)

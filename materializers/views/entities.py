"""Entities: the newest record of every item, user and creator, and the explicit edges between them."""

from __future__ import annotations

from typing import Final, cast

from materializers.batches import EdgeWrite, EntityBatch, EntityWrite
from materializers.materializer import PartitionContext, RowReader, RowWriter, Scope, TableSpec, View
from materializers.rows.entities import (
    EDGES,
    EDGES_SECTION,
    ENTITIES_SECTION,
    TABLE_OF_KIND,
    EdgeChange,
    EntityChange,
    StoredEdge,
    StoredEntity,
    edge_keys_of,
    encode_edge,
    encode_edge_changes,
    encode_entity,
    encode_entity_changes,
    entity_key,
)

_EdgeKey = tuple[str, str, str]

DELETED: Final = "deleted"
"""Status of the row that a deleted item or creator leaves: without it, one whose signals are still counted
would look to a reader that starts anew like one whose record has not come yet."""


class Entities:
    """The fold of one entity partition: the last write of each key wins, by log order."""

    def __init__(self, context: PartitionContext) -> None:
        self._entities: dict[tuple[str, str], EntityWrite] = {}
        self._edges: dict[_EdgeKey, EdgeWrite] = {}

    def on_batch(self, batch: EntityBatch) -> None:
        """Keep the newest write of each entity or edge until the next flush."""
        if batch.kind in TABLE_OF_KIND:
            for entity in cast(list[EntityWrite], batch.writes):
                self._entities[batch.kind, entity.id] = entity
            return
        for edge in cast(list[EdgeWrite], batch.writes):
            self._edges[edge.type, edge.source, edge.target] = edge

    def checkpoint(self, writer: RowWriter) -> None:
        """Rows and feed of what changed."""
        if self._entities:
            changes = [self._put_entity(kind, write, writer) for (kind, _), write in self._entities.items()]
            writer.feed(ENTITIES_SECTION, encode_entity_changes(changes))
        if self._edges:
            edges = [_put_edge(write, writer) for write in self._edges.values()]
            writer.feed(EDGES_SECTION, encode_edge_changes(edges))
        self._entities.clear()
        self._edges.clear()

    def restore(self, reader: RowReader) -> None:
        """Nothing is kept in memory between flushes."""
        self._entities.clear()
        self._edges.clear()

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


def _put_edge(write: EdgeWrite, writer: RowWriter) -> EdgeChange:
    keys = edge_keys_of(write.type, write.source, write.target)
    record = write.record
    if record is None:
        for key in keys:
            writer.delete(EDGES, key)
        return EdgeChange(write.type, write.source, write.target, write.offset, write.timestamp_ms, None)
    ts_ms = write.timestamp_ms if record.ts_ms is None else record.ts_ms
    value = encode_edge(StoredEdge(write.source, write.target, record.weight, ts_ms, write.offset))
    for key in keys:
        writer.put(EDGES, key, value)
    return EdgeChange(write.type, write.source, write.target, write.offset, ts_ms, record.weight)


VIEW = View(
    name="entities",
    scope=Scope.ENTITY,
    tables=(
        *(TableSpec(table, "EntityId") for table in TABLE_OF_KIND.values()),
        TableSpec(EDGES, "source or target, type code, the other"),
    ),
    build=Entities,
)

"""Explicit edges: the newest write of each, under its source and its target, and how many each entity has."""

from __future__ import annotations

from collections import Counter
from typing import Final, cast

from materializers.batches import EdgeWrite, EntityBatch
from materializers.materializer import (
    Forgotten,
    PartitionContext,
    RowReader,
    RowWriter,
    Scope,
    TableSpec,
    View,
)
from materializers.rows.edge_counts import TABLE as EDGE_COUNTS
from materializers.rows.edge_counts import decode_edge_count, edge_count_key, encode_edge_count
from materializers.rows.entities import (
    EDGES,
    StoredEdge,
    edge_keys_of,
    encode_edge,
)

EDGE_KIND: Final = "edge"
"""Kind of the batches that this view folds."""

_EdgeName = tuple[str, str, str]


class Edges:
    """The fold of one entity partition: the last write of each (type, source, target) wins, by log order.

    Counts are exact because a flush looks up which of its edges stood before: edges are written by people,
    thousands of times less often than they are read.
    """

    def __init__(self, context: PartitionContext) -> None:
        self._rows = context.rows
        self._newest: dict[_EdgeName, EdgeWrite] = {}

    def on_batch(self, batch: EntityBatch) -> None:
        """Keep the newest write of each edge until the next flush."""
        if batch.kind != EDGE_KIND:
            return
        for write in cast(list[EdgeWrite], batch.writes):
            self._newest[write.type, write.source, write.target] = write

    def checkpoint(self, writer: RowWriter) -> None:
        """Rows and counts of what changed; queries read edges from the rows."""
        if not self._newest:
            return
        writes = list(self._newest.values())
        self._newest.clear()
        keys = [edge_keys_of(write.type, write.source, write.target) for write in writes]
        stood = [row is not None for row in self._rows.get_many(EDGES, [out for out, _ in keys])]
        for write, pair in zip(writes, keys, strict=True):
            _put(write, pair, writer)
        self._count(writes, stood, writer)

    def restore(self, reader: RowReader) -> None:
        """Nothing is kept in memory between flushes."""
        self._rows = reader
        self._newest.clear()

    def forget(self, users: Forgotten, writer: RowWriter) -> dict[str, int]:
        """Edges of an erased user are deleted by writes, as all edges are."""
        return {}

    def _count(self, writes: list[EdgeWrite], stood: list[bool], writer: RowWriter) -> None:
        moved: Counter[bytes] = Counter()
        for write, before in zip(writes, stood, strict=True):
            step = (write.record is not None) - before
            if step:
                moved[edge_count_key(write.source, write.type, outgoing=True)] += step
                moved[edge_count_key(write.target, write.type, outgoing=False)] += step
        keys = [key for key, step in moved.items() if step]
        for key, row in zip(keys, self._rows.get_many(EDGE_COUNTS, keys), strict=True):
            count = decode_edge_count(row) + moved[key]
            if count:
                writer.put(EDGE_COUNTS, key, encode_edge_count(count))
            else:
                writer.delete(EDGE_COUNTS, key)


def _put(write: EdgeWrite, keys: tuple[bytes, bytes], writer: RowWriter) -> None:
    record = write.record
    if record is None:
        for key in keys:
            writer.delete(EDGES, key)
        return
    ts_ms = write.timestamp_ms if record.ts_ms is None else record.ts_ms
    value = encode_edge(StoredEdge(write.source, write.target, record.weight, ts_ms, write.offset))
    for key in keys:
        writer.put(EDGES, key, value)


VIEW = View(
    name="edges",
    scope=Scope.ENTITY,
    tables=(
        TableSpec(EDGES, "source or target, type code, the other"),
        TableSpec(EDGE_COUNTS, "source or target, type code"),
    ),
    build=Edges,
)

"""The embedded store: Qdrant Edge, Qdrant's own engine in this process."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import qdrant_edge as edge

from queryd.hot.arrays import F32, F64, U64
from queryd.vector.backend import METRIC_NAMES, VectorPoint, as_hits
from schemas.model import EmbeddingSlot


class EdgeBackend:
    """One shard with a named vector for each slot. One process only: Edge locks its folder."""

    def __init__(self, folder: Path, slots: Sequence[EmbeddingSlot], *, reuse: bool) -> None:
        if not (reuse and folder.exists()):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            self._shard = edge.EdgeShard.create(str(folder), _config(slots))
        else:
            self._shard = edge.EdgeShard.load(str(folder))

    def upsert(self, points: Sequence[VectorPoint]) -> None:
        rows = [
            edge.Point(point.id, {slot: vector.tolist() for slot, vector in point.vectors.items()}, None)
            for point in points
        ]
        self._shard.update(edge.UpdateOperation.upsert_points(rows))

    def delete(self, ids: Sequence[int]) -> None:
        self._shard.update(edge.UpdateOperation.delete_points(list(ids)))

    def query(self, slot: str, vector: F32, limit: int, among: U64 | None = None) -> tuple[U64, F64]:
        # With few allowed ids the filtered graph loses almost every hit in silence: exact search does not.
        allowed = None if among is None else edge.Filter(must=[edge.HasIdCondition(set(among.tolist()))])
        request = edge.QueryRequest(
            limit=limit,
            query=edge.Query.Nearest(vector.tolist(), using=slot),
            filter=allowed,
            params=edge.SearchParams(exact=among is not None),
        )
        hits = self._shard.query(request)
        return as_hits([int(str(hit.id)) for hit in hits], [hit.score for hit in hits])

    def flush(self) -> None:
        self._shard.flush()

    def optimize(self) -> None:
        self._shard.optimize()

    def close(self) -> None:
        self._shard.flush()
        self._shard.close()


def _config(slots: Sequence[EmbeddingSlot]) -> edge.EdgeConfig:
    return edge.EdgeConfig(
        vectors={
            slot.name: edge.EdgeVectorParams(slot.dim, getattr(edge.Distance, METRIC_NAMES[slot.metric]))
            for slot in slots
        }
    )

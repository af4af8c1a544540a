"""A Qdrant server, by its URL, through qdrant-client."""

from __future__ import annotations

from collections.abc import Sequence

from qdrant_client import QdrantClient, models

from queryd.hot.arrays import F32, F64, U64
from queryd.vector.backend import METRIC_NAMES, VectorPoint, as_hits
from schemas.model import EmbeddingSlot

COLLECTION = "tidal_items"
_TIMEOUT_S = 5


class ServerBackend:
    """One collection with a named vector for each slot; created when it is not there."""

    def __init__(self, url: str, slots: Sequence[EmbeddingSlot], *, reuse: bool) -> None:
        self._client = QdrantClient(url=url, timeout=_TIMEOUT_S)
        exists = self._client.collection_exists(COLLECTION)
        if exists and not reuse:
            self._client.delete_collection(COLLECTION)
        if not (exists and reuse):
            self._client.create_collection(COLLECTION, vectors_config=_config(slots))

    @property
    def writable(self) -> bool:
        return True

    def upsert(self, points: Sequence[VectorPoint]) -> None:
        rows = [
            models.PointStruct(
                id=point.id, vector={slot: vector.tolist() for slot, vector in point.vectors.items()}
            )
            for point in points
        ]
        self._client.upsert(COLLECTION, rows, wait=False)

    def delete(self, ids: Sequence[int]) -> None:
        self._client.delete(COLLECTION, models.PointIdsList(points=list(ids)), wait=False)

    def query(self, slot: str, vector: F32, limit: int, among: U64 | None = None) -> tuple[U64, F64]:
        allowed = None
        if among is not None:
            allowed = models.Filter(must=[models.HasIdCondition(has_id=among.tolist())])
        found = self._client.query_points(
            COLLECTION,
            query=vector.tolist(),
            using=slot,
            limit=limit,
            query_filter=allowed,
            search_params=models.SearchParams(exact=among is not None),
            with_payload=False,
        )
        return as_hits([int(hit.id) for hit in found.points], [hit.score for hit in found.points])

    def flush(self) -> None:
        """The server's own write-ahead log makes writes durable."""

    def pause_writes(self) -> None:
        """The server takes writes while it optimises."""

    def optimize(self) -> None:
        """The server optimises by itself."""

    def stop_optimizing(self) -> None:
        """Nothing is under way here."""

    def close(self) -> None:
        self._client.close()


def _config(slots: Sequence[EmbeddingSlot]) -> dict[str, models.VectorParams]:
    return {
        slot.name: models.VectorParams(size=slot.dim, distance=models.Distance(METRIC_NAMES[slot.metric]))
        for slot in slots
    }

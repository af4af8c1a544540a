"""What the engine adds to a creator's record: the catalog of items that name the creator, and followers."""

from __future__ import annotations

from typing import Any

import numpy as np

from queryd.hot.items import ItemColumns
from queryd.hot.users import UserReader
from schemas.model import Schema


class CreatorFacts:
    """Derived when asked for: always those of the items and edges as they are now, whatever they were."""

    def __init__(self, schema: Schema, items: ItemColumns, users: UserReader) -> None:
        self._items = items
        self._users = users
        explicit = [kind for kind in schema.relationships.values() if kind.explicit]
        self._following = [kind for kind in explicit if not kind.hides]

    def of(self, creator: str) -> dict[str, Any]:
        """``catalog`` = items that are not deleted, and by slot the mean of their embeddings as stored, f64
        (no slot without one); ``followers`` = explicit edges to the creator of types that do not hide, and
        ``edges_in`` how many of each type.
        """
        rows = self._items.catalog(creator)
        means: dict[str, list[float]] = {}
        for slot, matrix in self._items.embeddings.items():
            having = rows[matrix.has(rows)]
            if len(having):
                vectors = matrix.rows(having).astype(np.float64)
                means[slot] = (vectors.sum(axis=0) / len(having)).tolist()
        edges = {kind.name: self._users.count(creator, kind, outgoing=False) for kind in self._following}
        return {
            "catalog": {"items": len(rows), "embeddings": means},
            "followers": sum(edges.values()),
            "edges_in": edges,
        }

"""Embeddings of one slot by item ordinal, for exact scoring of candidates."""

from __future__ import annotations

import numpy as np

from queryd.hot.arrays import F32, F64, I64, U32, Mask, grown

_BLOCK_ROWS = 4096


class EmbeddingMatrix:
    """f32[items, dim] and which rows are there.

    Rows are dense among items that have a vector (``_row`` maps), so items without one cost four bytes.
    """

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._row: np.ndarray[tuple[int], np.dtype[np.int32]] = np.full(0, -1, dtype=np.int32)
        self._vectors: F32 = np.zeros((0, dim), dtype=np.float32)
        self._owner: U32 = np.zeros(0, dtype=np.uint32)
        self._rows = 0
        self._free: list[int] = []

    def __len__(self) -> int:
        return self._rows - len(self._free)

    def set(self, ordinals: U32, vectors: F32) -> None:
        """Store vectors f32[n, dim] of distinct items, replacing what they had."""
        if not len(ordinals):
            return
        self._row = grown(self._row, int(ordinals.max()) + 1, -1)
        rows = self._row[ordinals]
        fresh = np.flatnonzero(rows < 0)
        rows[fresh] = self._deal(len(fresh))
        self._row[ordinals] = rows
        self._vectors[rows] = vectors
        self._owner[rows] = ordinals

    def clear(self, ordinals: U32) -> None:
        """Forget the vectors of items (those without one stay so)."""
        held = ordinals[self.has(ordinals)]
        self._free.extend(self._row[held].tolist())
        self._vectors[self._row[held]] = 0
        self._row[held] = -1

    def has(self, ordinals: U32) -> Mask:
        """Which of n items have a vector, bool[n]."""
        known = np.zeros(len(ordinals), dtype=np.bool_)
        inside = ordinals < len(self._row)
        known[inside] = self._row[ordinals[inside]] >= 0
        return known

    def rows(self, ordinals: U32) -> F32:
        """Vectors f32[n, dim] of items; zeros where there is none."""
        gathered = np.zeros((len(ordinals), self.dim), dtype=np.float32)
        known = self.has(ordinals)
        gathered[known] = self._vectors[self._row[ordinals[known]]]
        return gathered

    def similarity(self, ordinals: U32, vector: F32) -> F64:
        """Dot products f64[n] of items' vectors with ``vector`` f32[dim]; 0 for an item without one.

        Unit vectors on both sides make it the cosine. Summed in float64, so that a plain recount agrees to
        the last digits and no tie depends on the order of summation.
        """
        return self.rows(ordinals).astype(np.float64) @ vector.astype(np.float64)

    def nearest(self, vector: F32, k: int, allowed: Mask | None) -> tuple[U32, F64]:
        """Exact top ``k`` by dot product among items that ``allowed`` bool[items] marks (None: all).

        Returns ordinals u32[m] and similarities f64[m], best first; for catalogs or filters small enough
        that an approximate index would be slower, or wrong.
        """
        owners = self._owners()
        if allowed is not None:
            owners = owners[allowed[owners]]
        scores = np.empty(len(owners), dtype=np.float64)
        for start in range(0, len(owners), _BLOCK_ROWS):
            block = owners[start : start + _BLOCK_ROWS]
            scores[start : start + _BLOCK_ROWS] = self._vectors[self._row[block]] @ vector
        best: I64 = np.argsort(-scores, kind="stable")[:k]
        return owners[best], scores[best]

    def _owners(self) -> U32:
        owners = self._owner[: self._rows]
        return np.sort(owners[self._row[owners] == np.arange(self._rows)]) if self._rows else owners

    def _deal(self, count: int) -> list[int]:
        reused = [self._free.pop() for _ in range(min(count, len(self._free)))]
        first = self._rows
        self._rows += count - len(reused)
        self._vectors = grown(self._vectors, self._rows)
        self._owner = grown(self._owner, self._rows)
        return [*reused, *range(first, self._rows)]

"""The one adapter between us and a vector store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from queryd.hot.arrays import F32, F64, U64
from schemas.model import EmbeddingSlot


class VectorPoint(NamedTuple):
    """An item's vectors by slot, under its EntityId."""

    id: int
    vectors: dict[str, F32]


class VectorBackend(Protocol):
    """Upsert, delete, query. Ids are EntityIds (u64)."""

    @property
    def writable(self) -> bool:
        """Whether upsert and delete may be called now: not while a copy is being made."""
        ...

    def upsert(self, points: Sequence[VectorPoint]) -> None: ...

    def delete(self, ids: Sequence[int]) -> None: ...

    def query(self, slot: str, vector: F32, limit: int, among: U64 | None = None) -> tuple[U64, F64]:
        """Ids u64[n] and similarities f64[n], best first; exact when ``among`` restricts them to some ids."""
        ...

    def flush(self) -> None:
        """Make what was written durable."""
        ...

    def pause_writes(self) -> None:
        """Not writable from now on until ``optimize`` has what it needs; called in the thread that writes."""
        ...

    def optimize(self) -> None:
        """Build what makes queries fast; may take tens of seconds, for a thread; queries go on meanwhile."""
        ...

    def stop_optimizing(self) -> None:
        """Let an ``optimize`` under way fail soon."""
        ...

    def close(self) -> None: ...


def as_hits(ids: Sequence[int], scores: Sequence[float]) -> tuple[U64, F64]:
    """Columns of a store's hits."""
    return np.array(ids, dtype=np.uint64), np.array(scores, dtype=np.float64)


METRIC_NAMES = {"cosine": "Cosine", "dot": "Dot", "euclid": "Euclid"}


def slots_text(slots: Sequence[EmbeddingSlot]) -> str:
    """What an index on disk was made for."""
    return ",".join(f"{slot.name}:{slot.dim}:{slot.metric}" for slot in slots)

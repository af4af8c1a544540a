"""Items by their embeddings: keeps a vector store equal to the records, and asks it for neighbours."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from queryd.fingerprints import fingerprint
from queryd.hot.arrays import F32, F64, U32
from queryd.hot.ordinals import Ordinals
from queryd.index_follower import IndexFollower
from queryd.records import RecordReads
from queryd.vector.backend import VectorBackend, VectorPoint, slots_text
from queryd.vector.edge import EdgeBackend
from queryd.vector.optimizer import VectorIndexError
from queryd.vector.server import ServerBackend
from schemas.model import EmbeddingSlot
from schemas.records.entities import EntityRecord

logger = logging.getLogger(__name__)

LAYOUT: Final = "1"
_OPTIMIZE_AFTER: Final = 10_000
"""Points written before the graph is built again: below, exact search is used anyway."""


class VectorIndex(IndexFollower):
    """Vectors of all slots of every active item that has one.

    Args:
        url: a Qdrant server; None is the embedded engine in ``folder``.
    """

    name = "vector"

    def __init__(
        self,
        folder: Path,
        slots: list[EmbeddingSlot],
        ordinals: Ordinals,
        records: RecordReads,
        url: str | None = None,
    ) -> None:
        self._slots = slots
        self._ordinals = ordinals
        self._url = url
        self._backend: VectorBackend | None = None
        self._written = 0
        self._optimizing: asyncio.Task[None] | None = None
        kind = f"vector {LAYOUT} {url or 'edge'} {slots_text(slots)}"
        super().__init__(folder, kind, records, batch=64, commit_every_s=1.0)

    def unavailable(self, slot: str) -> str | None:
        """Why a slot cannot be searched now, None when it can."""
        if slot not in {each.name for each in self._slots}:
            return f"there is no embedding slot {slot!r}"
        return self.why_unavailable

    def nearest(self, slot: str, vector: F32, limit: int) -> tuple[U32, F64]:
        """Ordinals u32[n] and similarities f64[n] of approximate neighbours, best first."""
        assert self._backend is not None
        ids, scores = self._backend.query(slot, vector, limit)
        found = self._ordinals.find_entities(ids)
        known = found >= 0
        return found[known].astype(np.uint32), scores[known]

    def _open(self, *, reuse: bool) -> None:
        if not self._slots:
            return
        if not reuse:
            self._fingerprints.held = {}
        if self._url is not None:
            self._backend = ServerBackend(self._url, self._slots, reuse=reuse)
        else:
            self._backend = EdgeBackend(self._folder, self._slots, reuse=reuse)

    @property
    def _writable(self) -> bool:
        return self._backend is None or self._backend.writable

    def _fingerprint(self, record: EntityRecord) -> int | None:
        vectors = self._vectors(record)
        if record.status != "active" or not vectors:
            return None
        return fingerprint(*(part for name in vectors for part in (name.encode(), vectors[name].tobytes())))

    def _write(self, upserts: list[tuple[int, EntityRecord]], deletes: list[int]) -> None:
        if self._backend is None:
            return
        if deletes:
            self._backend.delete(deletes)
        if upserts:
            self._backend.upsert([VectorPoint(key, self._vectors(record)) for key, record in upserts])
        self._written += len(upserts)

    def _vectors(self, record: EntityRecord) -> dict[str, F32]:
        held = record.embeddings
        return {slot.name: held[slot.name] for slot in self._slots if slot.name in held}

    async def _commit(self) -> None:
        if self._backend is None:
            return
        await asyncio.to_thread(self._backend.flush)
        if self._written >= _OPTIMIZE_AFTER and not self.waiting and self._optimizing is None:
            self._written = 0
            self._backend.pause_writes()
            self._optimizing = asyncio.create_task(self._optimize(self._backend.optimize))

    async def _optimize(self, optimize: Callable[[], None]) -> None:
        try:
            await asyncio.to_thread(optimize)
        except VectorIndexError as error:
            logger.warning("%s", error)
        finally:
            self._optimizing = None

    async def _close(self) -> None:
        if self._optimizing is not None and self._backend is not None:
            self._backend.stop_optimizing()
            await self._optimizing
        if self._backend is not None:
            self._backend.close()
            self._backend = None

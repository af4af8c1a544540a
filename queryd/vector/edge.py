"""The embedded store: Qdrant Edge, Qdrant's own engine in this process."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import qdrant_edge as edge

from queryd.hot.arrays import F32, F64, U64
from queryd.vector.backend import METRIC_NAMES, VectorPoint, as_hits
from queryd.vector.optimizer import Optimizer
from schemas.model import EmbeddingSlot

_COPIED_AT_ONCE: Final = 256


class EdgeBackend:
    """One shard with a named vector for each slot. One process only: Edge locks its folder.

    ``upsert`` and ``delete`` are one thread's, and only while ``writable``; ``optimize`` may run in another.

    Optimising holds the GIL for as long as it takes, so it happens in another process, on a copy; what was
    written meanwhile is written to the copy again, and the copy takes the shard's place.
    """

    def __init__(self, folder: Path, slots: Sequence[EmbeddingSlot], *, reuse: bool) -> None:
        self._folder = folder
        self._copy = folder.with_name(folder.name + ".optimizing")
        self._lock = threading.Lock()  # of the shard against its replacement
        self._optimizer = Optimizer()
        self.writable = True
        self._touched: set[int] | None = None  # ids written since the copy was made
        shutil.rmtree(self._copy, ignore_errors=True)
        if not (reuse and folder.exists()):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            self._shard = edge.EdgeShard.create(str(folder), _config(slots))
        else:
            self._shard = edge.EdgeShard.load(str(folder))

    def upsert(self, points: Sequence[VectorPoint]) -> None:
        with self._lock:
            self._touch(point.id for point in points)
            _upsert(self._shard, [(point.id, _lists(point.vectors)) for point in points])

    def delete(self, ids: Sequence[int]) -> None:
        with self._lock:
            self._touch(ids)
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
        with self._lock:
            hits = self._shard.query(request)
        return as_hits([int(str(hit.id)) for hit in hits], [hit.score for hit in hits])

    def flush(self) -> None:
        with self._lock:
            self._shard.flush()

    def pause_writes(self) -> None:
        self.writable = False  # a copy of files that change would be torn; queries go on

    def optimize(self) -> None:
        assert not self.writable, "pause_writes comes first, in the thread that writes"
        try:
            self._make_copy()
            self._optimizer.run(self._copy)
            self._take_copy()
        finally:
            self.writable, self._touched = True, None
            shutil.rmtree(self._copy, ignore_errors=True)

    def stop_optimizing(self) -> None:
        self._optimizer.stop()

    def close(self) -> None:
        with self._lock:
            self._shard.flush()
            self._shard.close()

    def _make_copy(self) -> None:
        with self._lock:
            self._shard.flush()
        shutil.copytree(self._folder, self._copy)
        self._touched = set()
        self.writable = True

    def _take_copy(self) -> None:
        """Bring the optimised copy up to date, and let it take the shard's place on the disk and here."""
        fresh = edge.EdgeShard.load(str(self._copy))
        while self._touched is not None and len(self._touched) > _COPIED_AT_ONCE:
            with self._lock:
                self._repeat(fresh)
        with self._lock:
            self._repeat(fresh)
            fresh.flush()
            fresh.close()
            self._shard.close()
            shutil.rmtree(self._folder)
            self._copy.rename(self._folder)
            self._shard = edge.EdgeShard.load(str(self._folder))

    def _repeat(self, fresh: Any) -> None:
        """Write to ``fresh`` what the shard has now of a few of the touched ids."""
        assert self._touched is not None
        ids = list(islice(self._touched, _COPIED_AT_ONCE))
        self._touched.difference_update(ids)
        if not ids:
            return
        held: list[tuple[int, Any]] = [
            (int(str(point.id)), point.vector) for point in self._shard.retrieve([*ids], False, True)
        ]
        gone = set(ids) - {id_ for id_, _ in held}
        if held:
            _upsert(fresh, held)
        if gone:
            fresh.update(edge.UpdateOperation.delete_points(list(gone)))

    def _touch(self, ids: Iterable[int]) -> None:
        if self._touched is not None:
            self._touched.update(ids)


def _upsert(shard: Any, points: Iterable[tuple[int, Any]]) -> None:
    rows = [edge.Point(id_, vectors, None) for id_, vectors in points]
    shard.update(edge.UpdateOperation.upsert_points(rows))


def _lists(vectors: dict[str, F32]) -> dict[str, list[float]]:
    return {slot: vector.tolist() for slot, vector in vectors.items()}


def _config(slots: Sequence[EmbeddingSlot]) -> edge.EdgeConfig:
    return edge.EdgeConfig(
        vectors={
            slot.name: edge.EdgeVectorParams(slot.dim, getattr(edge.Distance, METRIC_NAMES[slot.metric]))
            for slot in slots
        }
    )

"""The embedded vector store: its graph is built beside the queries, and no write is lost meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from queryd.vector.backend import VectorPoint
from queryd.vector.edge import EdgeBackend
from queryd.vector.optimizer import VectorIndexError
from schemas.model import EmbeddingSlot

SLOT = EmbeddingSlot(name="look", dim=16)
POINTS = 2_000
VECTORS = np.random.default_rng(7).normal(size=(POINTS + 500, SLOT.dim)).astype(np.float32)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EdgeBackend]:
    """Holds the first POINTS vectors."""
    backend = EdgeBackend(tmp_path / "vectors", [SLOT], reuse=False)
    backend.upsert([point(number) for number in range(POINTS)])
    yield backend
    backend.close()


def point(number: int) -> VectorPoint:
    return VectorPoint(number, {"look": VECTORS[number]})


def nearest(store: EdgeBackend, number: int) -> int:
    ids, _ = store.query("look", VECTORS[number], 1)
    return int(ids[0])


def test_what_is_written_while_the_graph_is_built_is_in_it(
    store: EdgeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    built, resume = threading.Event(), threading.Event()
    run = store._optimizer.run

    def paused(folder: Path) -> None:
        run(folder)
        built.set()
        assert resume.wait(30)

    monkeypatch.setattr(store._optimizer, "run", paused)
    store.pause_writes()
    assert not store.writable
    building = threading.Thread(target=store.optimize)
    building.start()
    assert built.wait(60)
    assert store.writable
    store.upsert([point(number) for number in range(POINTS, POINTS + 500)])
    store.delete(list(range(100)))
    store.upsert([VectorPoint(200, {"look": VECTORS[0]})])
    resume.set()
    building.join()
    assert [nearest(store, number) for number in range(POINTS, POINTS + 500)] == list(
        range(POINTS, POINTS + 500)
    )
    assert nearest(store, 0) == 200
    assert nearest(store, 150) == 150
    assert nearest(store, 50) != 50


def test_a_stopped_build_changes_nothing(store: EdgeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(folder: Path) -> None:
        raise VectorIndexError("stopped")

    monkeypatch.setattr(store._optimizer, "run", stopped)
    store.pause_writes()
    with pytest.raises(VectorIndexError):
        store.optimize()
    assert store.writable
    assert nearest(store, 5) == 5


def test_the_built_graph_is_what_a_restart_opens(store: EdgeBackend, tmp_path: Path) -> None:
    store.pause_writes()
    store.optimize()
    store.upsert([point(POINTS)])
    store.close()
    again = EdgeBackend(tmp_path / "vectors", [SLOT], reuse=True)
    assert nearest(again, POINTS) == POINTS
    assert nearest(again, 7) == 7
    again.close()
    store._shard = EdgeBackend(tmp_path / "another", [SLOT], reuse=False)._shard  # for the fixture's close


def test_a_build_that_fails_says_why(tmp_path: Path, store: EdgeBackend) -> None:
    with pytest.raises(VectorIndexError, match="building the vector graph ended with"):
        store._optimizer.run(tmp_path / "nothing here")

"""Preference vectors equal the plain fold: every user's events in order, both rates, pushing away."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given

from materializers.rows.preference import decode_preference, preference_key
from materializers.views.preference import VIEW
from schemas.ids import entity_id
from tests.oracle import Event, fold
from tests.view_harness import DIM, Partition, log_of, run, small_schema, with_cards
from tests.view_strategies import USERS, Cuts, cuts, streams

SCHEMA = small_schema()


def embedding(seed: int) -> list[float]:
    chance = random.Random(seed)
    return [chance.gauss(0.0, 1.0) for _ in range(DIM)]


ITEMS: dict[str, dict[str, object]] = {
    "i0": {"embeddings": {"look": embedding(0)}},
    "i1": {"embeddings": {"look": embedding(1)}},
    "i2": {"embeddings": {"look": embedding(2)}},
    "i3": {},
}


@given(streams(), cuts)
def test_vectors_equal_the_fold(events: list[Event], cut: Cuts) -> None:
    oracle = fold(log_of(events, ITEMS), SCHEMA)
    with tempfile.TemporaryDirectory() as folder:
        lives = iter(range(100))

        def revive(partition: Partition) -> Partition:
            return with_cards(partition.crash(), Path(folder) / str(next(lives)), ITEMS)

        partition = run(
            with_cards(Partition(SCHEMA), Path(folder) / "first", ITEMS),
            VIEW.build,
            "user_batch",
            cut.batches(oracle.events),
            flush_after=cut.flush_after,
            crash_after=cut.crash_after,
            revive=revive,
        )
    for user in USERS:
        [value] = partition.rows.get_many("preference", [preference_key(entity_id(user), "look")])
        expected = oracle.preference(user, "look")
        if expected is None:
            assert value is None
            continue
        assert value is not None
        stored = decode_preference(value)
        assert stored.updates == expected.updates
        assert stored.long.tolist() == pytest.approx(expected.long, abs=1e-6)
        assert stored.short.tolist() == pytest.approx(expected.short, abs=1e-6)

"""Preference vectors equal the plain fold: every user's events in order, both rates, every slot."""

from __future__ import annotations

import random

import pytest
from hypothesis import given

from materializers.rows.preference import decode_preference, preference_key
from materializers.views.preference import VIEW
from schemas.ids import entity_id
from schemas.loading import load_schema, to_document
from tests.oracle import Event
from tests.view_harness import DIM, run_carded, small_schema
from tests.view_strategies import USERS, Cuts, cuts, streams

SLOTS = {"look": DIM, "sound": 3}


def embedding(seed: int, dim: int = DIM) -> list[float]:
    chance = random.Random(seed)
    return [chance.gauss(0.0, 1.0) for _ in range(dim)]


def two_slots() -> dict[str, object]:
    document = to_document(small_schema())
    document["entities"]["item"]["embeddings"] = {name: {"dim": dim} for name, dim in SLOTS.items()}
    return document


SCHEMA = load_schema(two_slots())
ITEMS: dict[str, dict[str, object]] = {
    "i0": {"embeddings": {"look": embedding(0), "sound": embedding(4, 3)}},
    "i1": {"embeddings": {"look": embedding(1)}},
    "i2": {"embeddings": {"look": embedding(2), "sound": embedding(5, 3)}},
    "i3": {},
}


@given(streams(), cuts)
def test_vectors_equal_the_fold(events: list[Event], cut: Cuts) -> None:
    partition, oracle = run_carded(VIEW, SCHEMA, ITEMS, events, cut)
    for user in USERS:
        for slot in SLOTS:
            [value] = partition.rows.get_many("preference", [preference_key(entity_id(user), slot)])
            expected = oracle.preference(user, slot)
            if expected is None:
                assert value is None
                continue
            assert value is not None
            stored = decode_preference(value)
            assert stored.updates == expected.updates
            assert stored.long.tolist() == pytest.approx(expected.long, abs=1e-6)
            assert stored.short.tolist() == pytest.approx(expected.short, abs=1e-6)

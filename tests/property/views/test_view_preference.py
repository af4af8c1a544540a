"""Preference vectors equal the plain fold: every user's events in order, both rates, every slot."""

from __future__ import annotations

import random

from hypothesis import given

from materializers.views.preference import VIEW
from schemas.loading import load_schema, to_document
from tests.oracle import Event
from tests.user_tables import check_preferences
from tests.view_harness import DIM, run_carded, small_schema
from tests.view_strategies import USERS, Cuts, cuts, streams

SOUND_DIM = 3
RECORD_MS = 1_763_600_000_000


def embedding(seed: int, dim: int = DIM) -> list[float]:
    chance = random.Random(seed)
    return [chance.gauss(0.0, 1.0) for _ in range(dim)]


def two_slots() -> dict[str, object]:
    document = to_document(small_schema())
    document["entities"]["item"]["embeddings"]["sound"] = {"dim": SOUND_DIM}
    return document


SCHEMA = load_schema(two_slots())
ITEMS: dict[str, dict[str, object]] = {
    "i0": {"embeddings": {"look": embedding(0), "sound": embedding(4, SOUND_DIM)}},
    "i1": {"embeddings": {"look": embedding(1)}},
    "i2": {"embeddings": {"look": embedding(2), "sound": embedding(5, SOUND_DIM)}},
    "i3": {},
}


def test_what_an_update_leaves_over_is_as_exact_as_32_bits_allow() -> None:
    """The last event takes back nearly all that the first gave: rounding grows with what it cancels."""
    events = [
        Event(0, 0, RECORD_MS, "glance", "i2", "u2", -1, RECORD_MS, "{}"),
        Event(0, 1, RECORD_MS, "jeer", "i2", "u2", -2_886_488, RECORD_MS, "{}"),
    ]
    partition, oracle = run_carded(VIEW, SCHEMA, ITEMS, events, Cuts([1], frozenset(), frozenset()))
    check_preferences(partition.rows, oracle, ["u2"])


@given(streams(), cuts)
def test_vectors_equal_the_fold(events: list[Event], cut: Cuts) -> None:
    partition, oracle = run_carded(VIEW, SCHEMA, ITEMS, events, cut)
    check_preferences(partition.rows, oracle, USERS)

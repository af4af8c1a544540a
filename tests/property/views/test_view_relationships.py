"""Implicit edges equal the plain fold: decay since the last update, late events, clamping, order."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given

from materializers.rows.relationships import decode_relationship, relationship_key
from materializers.views.relationships import VIEW
from schemas.ids import entity_id
from tests.oracle import Event, fold
from tests.view_harness import Partition, log_of, run, small_schema, with_cards
from tests.view_strategies import USERS, Cuts, cuts, streams

SCHEMA = small_schema()
ITEMS: dict[str, dict[str, object]] = {
    "i0": {"creator": "c0"},
    "i1": {"creator": "c0"},
    "i2": {"creator": "c1"},
    "i3": {},
}


@given(streams(), cuts)
def test_edges_equal_the_fold(events: list[Event], cut: Cuts) -> None:
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
        for edge_type in ("bond", "esteem"):
            for creator in ("c0", "c1"):
                code = SCHEMA.relationships[edge_type].code
                key = relationship_key(entity_id(user), code, entity_id(creator))
                [value] = partition.rows.get_many("relationships", [key])
                expected = oracle.relationship(user, edge_type, creator)
                if expected is None:
                    assert value is None
                    continue
                assert value is not None
                stored = decode_relationship(value)
                assert stored.target == creator
                assert stored.updated_ms == expected.updated_ms
                assert stored.weight == pytest.approx(expected.weight, rel=1e-9, abs=1e-12)

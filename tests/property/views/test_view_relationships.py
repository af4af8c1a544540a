"""Implicit edges to creators and items equal the plain fold: decay, late events, clamping, order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from materializers.rows.relationships import decode_relationship, relationship_key
from materializers.views.relationships import VIEW, Relationships
from schemas.ids import entity_id
from tests.oracle import CleanFold, Event
from tests.view_harness import Partition, run_carded, small_schema
from tests.view_strategies import USERS, Cuts, cuts, streams

SCHEMA = small_schema()
ITEMS: dict[str, dict[str, object]] = {
    "i0": {"creator": "c0"},
    "i1": {"creator": "c0"},
    "i2": {"creator": "c1"},  # i3 has no record: an edge to it needs none
}


def check(partition: Partition, oracle: CleanFold) -> None:
    stored = dict(partition.rows.scan("relationships"))
    for user in USERS:
        for edge_type in SCHEMA.relationships.values():
            if edge_type.explicit:
                continue
            for target, expected in oracle.relationships(user, edge_type.name).items():
                key = relationship_key(entity_id(user), edge_type.code, entity_id(target))
                row = decode_relationship(stored.pop(key))
                assert row.target == ("" if edge_type.target == "item" else target)
                assert row.updated_ms == expected.updated_ms
                assert row.weight == pytest.approx(expected.weight, rel=1e-9, abs=1e-12)
    assert not stored  # nothing that the log does not say


@given(streams(), cuts)
def test_edges_equal_the_fold(events: list[Event], cut: Cuts) -> None:
    check(*run_carded(VIEW, SCHEMA, ITEMS, events, cut))


@given(streams(), cuts, st.integers(1, 3))
def test_a_tiny_memory_bound_forgets_nothing(events: list[Event], cut: Cuts, edges_max: int) -> None:
    cut = cut._replace(flush_after=frozenset(range(100)), crash_after=frozenset())
    build = lambda context: Relationships(context, edges_max=edges_max)  # noqa: E731
    check(*run_carded(VIEW, SCHEMA, ITEMS, events, cut, build))

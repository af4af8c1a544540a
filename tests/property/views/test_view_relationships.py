"""Implicit edges to creators and items equal the plain fold: decay, late events, clamping, order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from materializers.views.relationships import VIEW, Relationships
from tests.oracle import Event
from tests.user_tables import check_relationships
from tests.view_harness import run_carded, small_schema
from tests.view_strategies import USERS, Cuts, cuts, streams

SCHEMA = small_schema()
ITEMS: dict[str, dict[str, object]] = {
    "i0": {"creator": "c0"},
    "i1": {"creator": "c0"},
    "i2": {"creator": "c1"},  # i3 has no record: an edge to it needs none
}


@given(streams(), cuts)
def test_edges_equal_the_fold(events: list[Event], cut: Cuts) -> None:
    partition, oracle = run_carded(VIEW, SCHEMA, ITEMS, events, cut)
    check_relationships(partition.rows, oracle, USERS)


@given(streams(), cuts, st.integers(1, 3))
def test_a_tiny_memory_bound_forgets_nothing(events: list[Event], cut: Cuts, edges_max: int) -> None:
    cut = cut._replace(flush_after=frozenset(range(100)), crash_after=frozenset())
    build = lambda context: Relationships(context, edges_max=edges_max)  # noqa: E731
    partition, oracle = run_carded(VIEW, SCHEMA, ITEMS, events, cut, build)
    check_relationships(partition.rows, oracle, USERS)

"""User states equal the plain fold: several set and cleared by one signal, inverse signals, order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from materializers.views.user_state import VIEW, UserStates
from tests.oracle import Event
from tests.user_tables import check_states
from tests.view_harness import run_carded, small_schema
from tests.view_strategies import USERS, Cuts, cuts, streams

SCHEMA = small_schema()


@given(streams(), cuts)
def test_states_equal_the_fold(events: list[Event], cut: Cuts) -> None:
    partition, oracle = run_carded(VIEW, SCHEMA, {}, events, cut)
    check_states(partition.rows, oracle, USERS)


@given(streams(), cuts, st.integers(1, 4))
def test_a_tiny_memory_bound_forgets_nothing(events: list[Event], cut: Cuts, containers_max: int) -> None:
    cut = cut._replace(flush_after=frozenset(range(100)), crash_after=frozenset())
    build = lambda context: UserStates(context, containers_max=containers_max)  # noqa: E731
    partition, oracle = run_carded(VIEW, SCHEMA, {}, events, cut, build)
    check_states(partition.rows, oracle, USERS)

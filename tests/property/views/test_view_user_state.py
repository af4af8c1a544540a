"""User states equal the plain fold: several set and cleared by one signal, inverse signals, order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from materializers.rows.ordinals import decode_ordinal
from materializers.rows.user_state import decode_state, state_range
from materializers.views.user_state import VIEW, UserStates
from schemas.ids import entity_id
from tests.oracle import CleanFold, Event
from tests.view_harness import Partition, run_carded, small_schema
from tests.view_strategies import USERS, Cuts, cuts, streams

SCHEMA = small_schema()


def states_of(partition: Partition, user: str, state: str) -> set[str]:
    items = [decode_ordinal(value) for _, value in partition.rows.scan("user_items")]
    start, end = state_range(entity_id(user), SCHEMA.states[state].code)
    rows = [value for _, value in partition.rows.scan("user_state", start, end)]
    return {items[ordinal] for ordinal in decode_state(rows)}


def check(partition: Partition, oracle: CleanFold) -> None:
    for user in USERS:
        for state in ("met", "cheered", "shunned", "judged"):
            assert states_of(partition, user, state) == oracle.state(user, state)
    anonymous = state_range(entity_id(""))
    assert not list(partition.rows.scan("user_state", *anonymous))


@given(streams(), cuts)
def test_states_equal_the_fold(events: list[Event], cut: Cuts) -> None:
    check(*run_carded(VIEW, SCHEMA, {}, events, cut))


@given(streams(), cuts, st.integers(1, 4))
def test_a_tiny_memory_bound_forgets_nothing(events: list[Event], cut: Cuts, containers_max: int) -> None:
    cut = cut._replace(flush_after=frozenset(range(100)), crash_after=frozenset())
    build = lambda context: UserStates(context, containers_max=containers_max)  # noqa: E731
    check(*run_carded(VIEW, SCHEMA, {}, events, cut, build))

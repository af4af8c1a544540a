"""Samples of who shares an item: the smallest EntityIds of all who ever had it, in any order and cuts."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from materializers.materializer import Forgotten
from materializers.views.co_engagement import VIEW, CoEngagement
from schemas.ids import entity_id, entity_ids
from tests.memory_rows import MemoryWriter
from tests.oracle import Event
from tests.user_tables import Samples, samples_of
from tests.view_harness import Partition, flush, run_carded, small_schema
from tests.view_strategies import Cuts, cuts, streams

SCHEMA = small_schema()
USERS = [f"u{number}" for number in range(12)]


def expected(events: list[Event], users_max: int) -> Samples:
    members: dict[tuple[int, int], set[int]] = defaultdict(set)
    for event in events:
        for state in SCHEMA.signals[event.kind].state:
            if event.user and state in SCHEMA.co_engagement:
                members[entity_id(event.item), SCHEMA.states[state].code].add(entity_id(event.user))
    return {cell: sorted(users)[:users_max] for cell, users in members.items()}


@given(streams(users=[*USERS, ""]), cuts, st.integers(1, 5))
def test_rows_are_the_smallest_of_all_who_ever_had_the_state(
    events: list[Event], cut: Cuts, users_max: int
) -> None:
    build = lambda context: CoEngagement(context, users_max)  # noqa: E731
    partition, oracle = run_carded(VIEW, SCHEMA, {}, events, cut, build)
    assert samples_of(partition.rows) == expected(oracle.events, users_max)


@given(streams(users=USERS), streams(users=USERS), st.booleans(), st.integers(1, 3))
def test_a_forgotten_user_is_in_no_row_wherever_flushes_fell(
    before: list[Event], after: list[Event], flushed: bool, users_max: int
) -> None:
    after = [event for event in after if event.user != "u0"]
    outcomes = []
    for flushes in (True, flushed):
        partition = Partition(SCHEMA)
        view = CoEngagement(partition.context(), users_max)
        view.restore(partition.rows)
        for event in before:
            view.on_batch(partition.user_batch([event], []))
            if flushes:
                flush(view, partition.rows)
        writer = MemoryWriter(partition.rows)
        wids = partition.users.ids(["u0"])
        view.forget(Forgotten(entity_ids=np.asarray(entity_ids(["u0"])), wids=wids), writer)
        writer.commit()
        assert all(entity_id("u0") not in users for users in samples_of(partition.rows).values())
        view.on_batch(partition.user_batch(after, []))
        flush(view, partition.rows)
        outcomes.append(samples_of(partition.rows))
    assert outcomes[0] == outcomes[1]
    assert all(entity_id("u0") not in users for users in outcomes[0].values())

"""Stamps and rows of segments are those of a plain model: whatever the order of events' times, where batches,
flushes and crashes fall, and who is forgotten; and another fold of the same log has the same rows.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from materializers.rows.segments import TABLE
from schemas.ids import entity_id
from schemas.keys import entity_range
from tests.segment_site import HOME, ITEMS, JAZZ, JAZZ_AND_LONG, KINDS, LONG, USERS, Life, Step
from tests.shard_harness import NOW_MS

PEOPLE, THINGS = st.integers(0, 2), st.integers(0, len(ITEMS) - 1)
EVENTS = st.builds(
    Step,
    st.just("event"),
    PEOPLE,
    THINGS,
    st.integers(0, len(KINDS) - 1),
    st.integers(0, 60),
    st.sampled_from([1.0, 0.5, 2.0, -1.0]),
)
STEPS = st.lists(
    st.one_of(
        *[EVENTS] * 6,
        st.builds(
            Step,
            st.just("told"),
            item=THINGS,
            holds=st.sampled_from([(), (JAZZ,), (LONG,), (JAZZ, LONG, JAZZ_AND_LONG)]),
        ),
        st.builds(Step, st.just("forget"), PEOPLE),
        st.builds(Step, st.just("profile"), PEOPLE, kind=st.integers(0, 2)),
        st.builds(Step, st.sampled_from(["batch", "flush", "crash"])),
    ),
    max_size=60,
)


@given(STEPS, st.sampled_from([0, 1 << 20]))
def test_stamps_are_those_of_a_plain_model(steps: list[Step], memory_bytes_max: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        life = Life(Path(folder), memory_bytes_max)
        for step in steps:
            life.take(step)
        life.fold(flush=True)
        clean = life.clean()
        assert life.stamped == {event.offset: event.profile for event in clean.events}
        forgotten = {step.user for step in steps if step.what == "forget"}
        for user in forgotten:
            left = list(life.rows.scan(TABLE, *entity_range(entity_id(USERS[user]))))
            again = clean.segments.at((HOME, USERS[user]), NOW_MS)
            assert left or not again

        whole = Life(Path(folder) / "whole", memory_bytes_max)
        whole.log = life.log
        whole.fold(flush=True)
        assert whole.rows.tables.get(TABLE, {}) == life.rows.tables.get(TABLE, {})


def test_a_user_with_more_events_than_are_kept_is_still_exact() -> None:
    steps = [Step("event", kind=1, second=second % 40) for second in range(300)]
    steps[150:150] = [Step("flush")]
    steps[:0] = [Step("told", holds=(JAZZ,))]
    with tempfile.TemporaryDirectory() as folder:
        life = Life(Path(folder), 1 << 20)
        for step in steps:
            life.take(step)
        life.fold(flush=True)
        clean = life.clean()
        assert life.stamped == {event.offset: event.profile for event in clean.events}
        assert any("keen" in profile for profile in life.stamped.values())

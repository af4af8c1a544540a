"""Group commit: what closes a group, and that nothing is lost or reordered on the way."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from streams.grouping import OpenGroups


class Event(NamedTuple):
    """The little that a group asks of an event."""

    number: int
    cost_bytes: int = 10


def test_the_hundredth_event_closes_its_group() -> None:
    """By number, for its partition alone."""
    groups: OpenGroups[Event] = OpenGroups(3, 1000, 1.0)
    assert groups.add(0, Event(1), 0.0) is None
    assert groups.add(1, Event(2), 0.0) is None
    assert groups.add(0, Event(3), 0.0) is None
    full = groups.add(0, Event(4), 0.0)
    assert full is not None
    assert (full.partition, [event.number for event in full.events]) == (0, [1, 3, 4])
    assert [group.partition for group in groups.take_all()] == [1]


def test_a_large_event_closes_its_group_by_size() -> None:
    """A record has a limit in bytes, too."""
    groups: OpenGroups[Event] = OpenGroups(100, 50, 1.0)
    assert groups.add(0, Event(1, 49), 0.0) is None
    full = groups.add(0, Event(2, 1), 0.0)
    assert full is not None
    assert full.cost_bytes == 50


def test_a_group_is_due_when_its_first_event_has_lingered() -> None:
    """Later events do not put it off."""
    groups: OpenGroups[Event] = OpenGroups(100, 1000, 0.5)
    assert groups.next_deadline_s() is None
    groups.add(0, Event(1), 5.0)
    groups.add(1, Event(2), 5.25)
    groups.add(0, Event(3), 5.375)
    assert groups.next_deadline_s() == 5.5
    assert groups.take_due(5.375) == []
    assert [group.partition for group in groups.take_due(5.5)] == [0]
    assert groups.next_deadline_s() == 5.75
    assert [group.partition for group in groups.take_due(9.0)] == [1]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 30), st.floats(0, 0.02))),
    st.integers(1, 5),
    st.integers(1, 60),
)
def test_every_event_comes_out_once_in_order_and_within_the_bounds(
    arrivals: list[tuple[int, int, float]], events_max: int, bytes_max: int
) -> None:
    """Whatever arrives when: partitions keep their order, the last event of a group is the one too many."""
    groups: OpenGroups[Event] = OpenGroups(events_max, bytes_max, 0.010)
    now_s = 0.0
    closed = []
    for number, (partition, cost_bytes, pause_s) in enumerate(arrivals):
        now_s += pause_s
        closed += groups.take_due(now_s)
        full = groups.add(partition, Event(number, cost_bytes), now_s)
        closed += [full] if full else []
    closed += groups.take_all()
    for partition in range(4):
        out = [event.number for group in closed if group.partition == partition for event in group.events]
        assert out == [number for number, arrival in enumerate(arrivals) if arrival[0] == partition]
    for group in closed:
        assert 1 <= len(group.events) <= events_max
        assert group.cost_bytes - group.events[-1].cost_bytes < bytes_max

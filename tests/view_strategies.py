"""Hypothesis strategies for streams of events and for how a run is cut into batches, flushes and crashes."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import strategies as st

from tests.oracle import Event

START_MS = 1_763_600_000_000
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000

ITEMS = ["i0", "i1", "i2", "i3"]
USERS = ["u0", "u1", "u2"]
KINDS = ["glance", "cheer", "jeer", "stay"]
PROFILES = ["{}", '{"age":"18-24"}', '{"age":"18-24","locale":"US"}', '{"locale":"US"}']


class Cuts(NamedTuple):
    """Sizes of batches in turn, and after which numbers of batches the run flushes or crashes."""

    sizes: list[int]
    flush_after: frozenset[int]
    crash_after: frozenset[int]

    def batches(self, events: list[Event]) -> list[list[Event]]:
        cut: list[list[Event]] = []
        at = number = 0
        while at < len(events):
            size = self.sizes[number % len(self.sizes)]
            cut.append(events[at : at + size])
            at, number = at + size, number + 1
        return cut


cuts = st.builds(
    Cuts,
    st.lists(st.integers(1, 12), min_size=1, max_size=5),
    st.frozensets(st.integers(0, 20), max_size=8),
    st.frozensets(st.integers(0, 20), max_size=3),
)

_ages_ms = st.one_of(
    st.integers(-4 * MINUTE_MS, 2 * MINUTE_MS),
    st.integers(0, 3 * HOUR_MS),
    st.integers(0, 40 * DAY_MS),
)
_steps_ms = st.sampled_from([0, 0, 1, 900, 30_000, 10 * MINUTE_MS, HOUR_MS, 5 * HOUR_MS])
_weights = st.one_of(st.just(1_000_000), st.integers(-3_000_000, 40_000_000))


@st.composite
def streams(draw: st.DrawFn, *, users: list[str] | None = None, size_max: int = 60) -> list[Event]:
    """Events in log order: log time rises by steps, event times lie around it or long before."""
    events: list[Event] = []
    now_ms = START_MS
    for offset in range(draw(st.integers(1, size_max))):
        now_ms += draw(_steps_ms)
        events.append(
            Event(
                partition=0,
                offset=offset,
                record_ms=now_ms,
                kind=draw(st.sampled_from(KINDS)),
                item=draw(st.sampled_from(ITEMS)),
                user=draw(st.sampled_from([*USERS, ""] if users is None else users)),
                weight=draw(_weights),
                ts_ms=now_ms - draw(_ages_ms),
                profile=draw(st.sampled_from(PROFILES)),
            )
        )
    return events

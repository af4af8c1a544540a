"""Running window sums equal a count over all events, at any time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from materializers.windows import WINDOWS, RunningWindows, UnknownWindowError, WindowDeltas
from tests.oracle import CleanFold, Event
from tests.view_harness import small_schema
from tests.view_strategies import (
    DAY_MS,
    HOUR_MS,
    ITEMS,
    MINUTE_MS,
    START_MS,
    Cuts,
    cuts,
    streams,
)

SCHEMA = small_schema()
DECLARED = [signal.windows for signal in SCHEMA.signal_list]


def deltas_of(events: list[Event]) -> WindowDeltas:
    """One increment for each event, as the blocks would have it: minutes when recent, else hours."""
    recent = [event.record_ms - event.ts_ms <= 2 * HOUR_MS for event in events]
    starts = [
        event.ts_ms // (MINUTE_MS if fresh else HOUR_MS) * (1 if fresh else 60)
        for event, fresh in zip(events, recent, strict=True)
    ]
    return WindowDeltas(
        resolution=np.array([0 if fresh else 1 for fresh in recent], dtype=np.uint8),
        bucket=np.array(starts, dtype=np.uint32),
        item=np.array([ITEMS.index(event.item) for event in events], dtype=np.uint32),
        signal=np.array([SCHEMA.signal_index[event.kind] for event in events], dtype=np.uint16),
        count=np.ones(len(events), dtype=np.int64),
        sum=np.array([event.weight for event in events], dtype=np.int64),
    )


def check(windows: RunningWindows, fold: CleanFold, now_ms: int) -> None:
    for name in ("glance", "jeer", "stay"):
        index = SCHEMA.signal_index[name]
        for label in SCHEMA.signals[name].windows:
            if label == "all_time":
                continue
            counts = [fold.count(item, name, label, now_ms) for item in ITEMS]
            sums = [fold.sum(item, name, label, now_ms) for item in ITEMS]
            previous = [fold.previous_count(item, name, label, now_ms) for item in ITEMS]
            assert windows.count(index, label)[: len(ITEMS)].tolist() == counts
            assert windows.sum(index, label)[: len(ITEMS)].tolist() == sums
            assert windows.previous_count(index, label)[: len(ITEMS)].tolist() == previous


@given(streams(), cuts, st.lists(st.integers(0, 40 * DAY_MS), max_size=4))
def test_sums_equal_the_fold_as_time_passes(events: list[Event], cut: Cuts, waits_ms: list[int]) -> None:
    fold = CleanFold(SCHEMA)
    windows = RunningWindows(DECLARED, START_MS)
    now_ms = START_MS
    for batch in cut.batches(events):
        windows.add(deltas_of(batch))
        for event in batch:
            fold.accept(event)
        now_ms = max(now_ms, batch[-1].record_ms)
        windows.advance(now_ms)
        check(windows, fold, now_ms)
    for wait_ms in waits_ms:
        now_ms += wait_ms
        windows.advance(now_ms)
        check(windows, fold, now_ms)


@given(streams(), st.permutations(range(4)))
def test_the_order_of_arrival_does_not_matter(events: list[Event], order: list[int]) -> None:
    parts = [part.tolist() for part in np.array_split(np.arange(len(events)), 4)]
    windows = RunningWindows(DECLARED, events[-1].record_ms)
    fold = CleanFold(SCHEMA)
    for number in order:
        chosen = [events[at] for at in parts[number]]
        if chosen:
            windows.add(deltas_of(chosen))
        for event in chosen:
            fold.accept(event)
    check(windows, fold, events[-1].record_ms)


def single(ts_ms: int, count: int = 1, weight: int = 1_000_000) -> WindowDeltas:
    return WindowDeltas(
        resolution=np.zeros(1, dtype=np.uint8),
        bucket=np.array([ts_ms // MINUTE_MS], dtype=np.uint32),
        item=np.zeros(1, dtype=np.uint32),
        signal=np.array([SCHEMA.signal_index["stay"]], dtype=np.uint16),
        count=np.array([count], dtype=np.int64),
        sum=np.array([count * weight], dtype=np.int64),
    )


STAY = SCHEMA.signal_index["stay"]


def test_velocity_acceleration_and_mean() -> None:
    windows = RunningWindows(DECLARED, START_MS)
    windows.add(single(START_MS, count=12, weight=2_500_000))
    windows.add(single(START_MS - 90 * MINUTE_MS, count=5))
    assert windows.velocity(STAY, "1h")[0] == pytest.approx(12 / 3600)
    assert windows.acceleration(STAY, "1h")[0] == pytest.approx((12 - 5) / 3600)
    assert windows.mean(STAY, "1h")[0] == pytest.approx(2.5)
    assert windows.mean(STAY, "24h")[0] == pytest.approx((12 * 2.5 + 5) / 17)
    assert windows.mean(STAY, "1h")[1] == 0.0


def test_an_event_of_the_near_future_counts_when_its_bucket_comes() -> None:
    windows = RunningWindows(DECLARED, START_MS)
    windows.add(single(START_MS + 3 * MINUTE_MS))
    assert windows.count(STAY, "1h")[0] == 0
    windows.advance(START_MS + 3 * MINUTE_MS)
    assert windows.count(STAY, "1h")[0] == 1


def test_later_than_every_window_is_counted_as_late_only() -> None:
    windows = RunningWindows(DECLARED, START_MS)
    windows.add(single(START_MS - 61 * DAY_MS, count=3))
    assert windows.late_count == 3
    assert windows.count(STAY, "30d")[0] == 0


def test_all_time_is_what_the_table_says() -> None:
    windows = RunningWindows(DECLARED, START_MS)
    windows.set_totals(STAY, np.array([2, 5000]), np.array([7, 9]), np.array([14_000_000, 9_000_000]))
    windows.set_totals(STAY, np.array([2]), np.array([8]), np.array([15_000_000]))
    assert windows.count(STAY, "all_time")[[2, 5000]].tolist() == [8, 9]
    assert windows.mean(STAY, "all_time")[2] == pytest.approx(15 / 8)


def test_memory_is_given_back_as_buckets_leave() -> None:
    windows = RunningWindows(DECLARED, START_MS)
    for minute in range(300):
        windows.add(single(START_MS - minute * MINUTE_MS))
    windows.advance(START_MS + 61 * DAY_MS)
    before = windows.nbytes
    assert windows.count(STAY, "30d")[0] == 0
    windows.add(single(START_MS + 61 * DAY_MS))
    assert windows.nbytes > before
    windows.advance(START_MS + 200 * DAY_MS)
    assert windows.nbytes == before


def test_time_does_not_go_back() -> None:
    windows = RunningWindows(DECLARED, START_MS)
    windows.add(single(START_MS))
    windows.advance(START_MS - DAY_MS)
    assert windows.count(STAY, "1h")[0] == 1


def test_a_window_that_is_not_declared_is_refused() -> None:
    windows = RunningWindows(DECLARED, START_MS)
    with pytest.raises(UnknownWindowError, match="1h"):
        windows.count(SCHEMA.signal_index["jeer"], "1h")
    with pytest.raises(UnknownWindowError, match="2h"):
        RunningWindows([("2h",)], START_MS)


def test_a_window_says_which_minutes_it_covers() -> None:
    at_ms = 100 * DAY_MS + 5 * HOUR_MS + 7 * MINUTE_MS
    assert WINDOWS["1h"].range_minutes(at_ms) == (100 * 1440 + 5 * 60 + 8 - 60, 100 * 1440 + 5 * 60 + 8)
    assert WINDOWS["24h"].range_minutes(at_ms) == (100 * 1440 + 6 * 60 - 1440, 100 * 1440 + 6 * 60)
    assert WINDOWS["30d"].range_minutes(at_ms) == (71 * 1440, 101 * 1440)

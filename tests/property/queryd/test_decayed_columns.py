"""Columns by pages hold what was set, whatever the order in which items come."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from materializers.decay import NEVER_MS
from queryd.hot.decayed import PAGE_ITEMS, DecayedColumns

HOUR_MS = 3_600_000
ITEMS = 12 * PAGE_ITEMS
WRITES = st.lists(
    st.tuples(
        st.booleans(),
        st.dictionaries(
            st.integers(0, 40) | st.integers(0, ITEMS - 1) | st.sampled_from(range(0, ITEMS, PAGE_ITEMS)),
            st.integers(1, 1000),
            max_size=12,
        ),
    ),
    max_size=12,
)


@settings(max_examples=60)
@given(WRITES)
def test_columns_hold_what_was_set_last(writes: list[tuple[bool, dict[int, int]]]) -> None:
    columns, held = DecayedColumns((HOUR_MS,)), {}
    for drops, cells in writes:
        items = np.array(list(cells), dtype=np.uint32)
        if drops:
            columns.drop(items)
            for item in cells:
                held.pop(item, None)
            continue
        values = np.array(list(cells.values()), dtype=np.int64)
        columns.set(items, values, -values, values * 7, values[:, None] / 2)
        held |= cells
        counts = np.zeros(ITEMS, dtype=np.int64)
        counts[list(held)] = list(held.values())
        for size in (0, 5, PAGE_ITEMS, ITEMS):
            assert np.array_equal(columns.counts(size), counts[:size])
            assert np.array_equal(columns.sums(size), -counts[:size])
    every = np.arange(ITEMS + 9, dtype=np.uint32)
    newest = [held[item] * 7 if item in held else NEVER_MS for item in every.tolist()]
    assert columns.newest(every).tolist() == newest
    scores = columns.scores(every, HOUR_MS, 10_000)
    for item in {*held, 0, ITEMS + 8}:
        expected = held[item] / 2 * 2 ** (-(10_000 - held[item] * 7) / HOUR_MS) if item in held else 0.0
        assert scores[item] == np.float64(expected) or abs(scores[item] - expected) < 1e-12


def test_a_rare_signal_costs_pages_and_a_usual_one_is_read_without_a_copy() -> None:
    rare, usual = DecayedColumns((HOUR_MS,)), DecayedColumns((HOUR_MS,))
    far, one = np.array([1_000_000, 7], dtype=np.uint32), np.ones(2, dtype=np.int64)
    rare.set(far, one, one, one, np.ones((2, 1)))
    assert rare.nbytes < 8 * PAGE_ITEMS * 32
    items = np.arange(100_000, dtype=np.uint32)
    ones = np.ones(len(items), dtype=np.int64)
    usual.set(items[::-1].copy(), ones, ones, ones, np.ones((len(items), 1)))
    assert usual.counts(len(items)).base is not None
    assert usual.nbytes < 2 * 32 * len(items)

"""What segments are folded with, against lists and dicts: sliding times, sums by group, items' conditions."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from materializers.batches import ItemMove
from materializers.interner import Interner
from materializers.rows.segments import NEVER_MS
from materializers.segment_items import SegmentItems
from materializers.sliding import newest_after, running_max, sum_before
from tests.memory_rows import MemoryRows, MemoryWriter

KEPT = 3
TIMES = st.lists(st.integers(0, 20), max_size=6)
GROUPS = st.lists(st.tuples(TIMES.map(lambda times: sorted(times, reverse=True)[:KEPT]), TIMES), max_size=5)
WANTED = st.sets(st.integers(1, KEPT), min_size=1).map(sorted)


def laid_out(groups: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Group and value of each event, i64[n] both."""
    group = np.repeat(np.arange(len(groups)), [len(each) for each in groups])
    return group, np.array([value for each in groups for value in each], dtype=np.int64)


def newest(times: list[int]) -> list[int]:
    return [*sorted(times, reverse=True), *[NEVER_MS] * KEPT][:KEPT]


@given(GROUPS, WANTED)
def test_newest_times_are_those_of_a_sorted_list(
    groups: list[tuple[list[int], list[int]]], wanted: list[int]
) -> None:
    prior = np.array([newest(known) for known, _ in groups], dtype=np.int64).reshape(len(groups), KEPT)
    found = newest_after(prior, *laid_out([times for _, times in groups]), wanted)
    for place, (known, times) in enumerate(groups):
        for seen in range(len(times) + 1):
            expected = newest([*known, *times[:seen]])
            row = found.values[found.starts[place] + seen]
            assert row.tolist() == [expected[nth - 1] for nth in wanted]
        assert found.kept[place].tolist() == newest([*known, *times])


@given(st.lists(st.lists(st.integers(-9, 9), min_size=1, max_size=5), max_size=5))
def test_maxima_and_sums_run_inside_groups(groups: list[list[int]]) -> None:
    group, values = laid_out(groups)
    assert running_max(group, values).tolist() == [high for each in groups for high in accumulate(each, max)]
    assert sum_before(group, values).tolist() == [
        total - value for each in groups for value, total in zip(each, accumulate(each), strict=True)
    ]


ITEMS, CONDITIONS = ("a", "b"), ("genre = jazz", "length > 9", "genre = jazz AND length > 9")
HOLDS = st.sets(st.sampled_from([*CONDITIONS, "of another schema"])).map(lambda held: tuple(sorted(held)))
MOVES = st.tuples(st.just("move"), st.sampled_from(ITEMS), HOLDS, st.integers(0, 1), st.integers(0, 4))
EVENTS = st.tuples(st.just("event"), st.sampled_from(ITEMS))
ENDS = st.sampled_from([("batch",), ("flush",), ("crash",)])
STEPS = st.lists(st.one_of(MOVES, MOVES, EVENTS, EVENTS, ENDS), min_size=10, max_size=40)


class PlainItems:
    """By item what holds and the source of that, one step after the other."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[tuple[str, ...], int, int]] = {}

    def word(self, item: str) -> int:
        holds, _, _ = self.known.get(item, ((), 0, 0))
        return sum(1 << place for place, text in enumerate(CONDITIONS) if text in holds)

    def move(self, item: str, holds: tuple[str, ...], partition: int, offset: int) -> None:
        _, had_partition, had_offset = self.known.get(item, ((), -1, -1))
        if had_partition != partition or offset >= had_offset:
            self.known[item] = (holds, partition, offset)


@given(STEPS)
def test_conditions_hold_from_where_they_were_told(steps: list[tuple]) -> None:
    """A crash goes on after the last flush, with the steps that came since."""
    interner, rows, plain = Interner(), MemoryRows(), PlainItems()
    kept = SegmentItems(CONDITIONS, interner)
    batch: list[tuple[int, tuple]] = []
    unflushed: list[list[tuple[int, tuple]]] = []

    def fold(entries: list[tuple[int, tuple]]) -> list[int]:
        events = [(offset, step) for offset, step in entries if step[0] == "event"]
        moves = [ItemMove(offset, *step[1:]) for offset, step in entries if step[0] == "move"]
        items = interner.ids([step[1] for _, step in events]).astype(np.uint32)
        return kept.of(items, np.array([offset for offset, _ in events], dtype=np.int64), moves).tolist()

    for offset, step in enumerate([*steps, ("batch",)]):
        if step[0] in ("event", "move"):
            batch.append((offset, step))
            continue
        expected = []
        for _, (what, item, *told) in batch:
            if what == "event":
                expected.append(plain.word(item))
            else:
                plain.move(item, *told)
        assert fold(batch) == expected
        unflushed.append(batch)
        batch = []
        if step[0] == "flush":
            writer = MemoryWriter(rows)
            kept.checkpoint(writer)
            writer.commit()
            unflushed.clear()
        elif step[0] == "crash":
            kept = SegmentItems(CONDITIONS, interner)
            kept.restore(rows)
            for again in unflushed:
                fold(again)
    assert len(kept) <= len(ITEMS)

"""The structures under every fold, against dicts and sorted lists."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from materializers.grouping import Groups, composite_key
from materializers.int_index import IntIndex
from materializers.rounds import rounds_of

keys = st.lists(st.integers(0, 2**62), unique=True, max_size=300)


@given(st.lists(keys, max_size=5), keys)
def test_an_index_finds_exactly_what_was_inserted(rounds: list[list[int]], strangers: list[int]) -> None:
    index, expected = IntIndex(), {}
    for inserted in rounds:
        fresh = [key for key in inserted if key not in expected]
        slots = range(len(expected), len(expected) + len(fresh))
        index.insert(np.array(fresh, dtype=np.int64), np.array(list(slots), dtype=np.int64))
        expected.update(zip(fresh, slots, strict=True))
    asked = [*expected, *strangers]
    found = index.find(np.array(asked, dtype=np.int64))
    assert found.tolist() == [expected.get(key, -1) for key in asked]
    assert len(index) == len(expected)


@given(keys, keys)
def test_a_rebuilt_index_holds_only_the_new_keys(before: list[int], after: list[int]) -> None:
    index = IntIndex()
    index.insert(np.array(before, dtype=np.int64), np.arange(len(before)))
    index.rebuild(np.array(after, dtype=np.int64), np.arange(len(after)))
    expected = {key: slot for slot, key in enumerate(after)}
    asked = np.array([*before, *after], dtype=np.int64)
    assert index.find(asked).tolist() == [expected.get(int(key), -1) for key in asked]


def test_keys_that_share_a_place_are_all_found() -> None:
    crowded = np.arange(0, 1 << 20, 1 << 10, dtype=np.int64) << 40
    index = IntIndex()
    for part in np.array_split(crowded, 7):
        index.insert(part, part >> 40)
    assert (index.find(crowded) == crowded >> 40).all()


rows = st.lists(st.tuples(st.integers(0, 6), st.integers(-(2**55), 2**55)), min_size=1, max_size=200)


@given(rows)
def test_groups_reduce_exactly(pairs: list[tuple[int, int]]) -> None:
    key = np.array([key for key, _ in pairs], dtype=np.int64)
    value = np.array([value for _, value in pairs], dtype=np.int64)
    groups = Groups(key)
    by_key: dict[int, list[int]] = {}
    for position, (group, _) in enumerate(pairs):
        by_key.setdefault(group, []).append(position)
    expected = sorted(by_key)
    assert groups.keys.tolist() == expected
    assert groups.counts.tolist() == [len(by_key[group]) for group in expected]
    assert groups.sum(value).tolist() == [sum(pairs[at][1] for at in by_key[group]) for group in expected]
    assert groups.max(value).tolist() == [max(pairs[at][1] for at in by_key[group]) for group in expected]
    assert [expected[group] for group in groups.group_of_rows().tolist()] == key.tolist()
    assert groups.ranks().tolist() == [by_key[group].index(at) for at, (group, _) in enumerate(pairs)]


def test_groups_of_nothing() -> None:
    groups = Groups(np.empty(0, dtype=np.int64))
    nothing = np.empty(0, dtype=np.int64)
    assert len(groups) == 0
    assert len(groups.sum(nothing)) == len(groups.max(nothing)) == len(groups.counts) == 0
    assert len(groups.group_of_rows()) == len(groups.ranks()) == 0


tuples = st.lists(
    st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**31), st.integers(0, 2**16 - 1)),
    min_size=1,
    max_size=60,
)


@given(tuples)
def test_a_composite_key_sorts_as_its_columns_do(values: list[tuple[int, int, int]]) -> None:
    columns = [np.array(column, dtype=np.int64) for column in zip(*values, strict=True)]
    key = composite_key(columns).tolist()
    for i, left in enumerate(values):
        for j, right in enumerate(values):
            assert (key[i] < key[j]) == (left < right)
            assert (key[i] == key[j]) == (left == right)


@given(st.lists(st.integers(0, 9), max_size=120))
def test_rounds_take_each_keys_events_in_order(log: list[int]) -> None:
    rounds = rounds_of(np.array(log, dtype=np.int64))
    seen: dict[int, list[int]] = {}
    for number, (size, part) in enumerate(rounds):
        events = rounds.events[part].tolist()
        assert len(events) == size
        for position, event in enumerate(events):
            assert log[event] == rounds.keys[position]
            assert rounds.rank[part][position] == number
            seen.setdefault(log[event], []).append(event)
    expected: dict[int, list[int]] = {}
    for event, key in enumerate(log):
        expected.setdefault(key, []).append(event)
    assert seen == expected
    assert dict(zip(rounds.keys.tolist(), rounds.counts.tolist(), strict=True)) == {
        key: len(events) for key, events in expected.items()
    }

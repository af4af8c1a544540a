"""Rows of a flush keep the order in which they were handed over; the last value of a key counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from materializers.tables.changes import RowChanges

KEYS = st.sampled_from([b"a", b"b", b"c"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, st.binary(max_size=2)),
        st.tuples(st.just("delete"), KEYS, st.none()),
        st.tuples(st.just("many"), st.lists(KEYS, max_size=3), st.binary(max_size=2)),
    )
)


def _replayed(changes: RowChanges) -> dict[bytes, bytes | None]:
    found: dict[bytes, bytes | None] = {}
    for _, parts in changes.tables():
        for part in parts:
            assert part.deletes or None not in part.values
            found.update(zip(part.keys, part.values, strict=True))
    return found


@given(STEPS)
def test_whatever_comes_last_wins(steps: list[tuple[str, bytes | list[bytes], bytes | None]]) -> None:
    changes, expected = RowChanges(), dict[bytes, bytes | None]()
    for _, keys, value in steps:
        if isinstance(keys, list):
            changes.put_many("t", keys, [value or b""] * len(keys))
            expected.update(dict.fromkeys(keys, value or b""))
        else:
            changes.put("t", keys, value)
            expected[keys] = value
    assert _replayed(changes) == expected
    assert {key for part in changes.names().get("t", ()) for key in part} == set(expected)
    assert len(changes) >= len(expected)


def test_single_rows_are_sorted_and_lists_are_not() -> None:
    changes = RowChanges()
    changes.put("t", b"z", b"1")
    changes.put("t", b"a", None)
    changes.put_many("t", [b"q", b"c"], [b"2", b"3"])
    assert [list(part.keys) for _, parts in changes.tables() for part in parts] == [
        [b"a", b"z"],
        [b"q", b"c"],
    ]


def test_keys_without_values_are_refused() -> None:
    with pytest.raises(ValueError, match="2 keys and 1 values"):
        RowChanges().put_many("t", [b"a", b"b"], [b"1"])

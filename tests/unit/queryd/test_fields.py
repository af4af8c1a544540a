"""Filter indexes against dictionaries: set, replace, take away."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from queryd.hot.fields import FieldIndexes, as_mask
from schemas.model import FieldDef

FIELDS = {
    name: FieldDef(name=name, type=kind)  # type: ignore[arg-type]
    for name, kind in {
        "category": "keyword",
        "tags": "tags",
        "live": "bool",
        "length": "float",
        "created_at": "time",
        "title": "text",
    }.items()
}
ITEMS = 6
RECORDS = st.fixed_dictionaries(
    {},
    optional={
        "category": st.sampled_from(["a", "b", ""]),
        "tags": st.lists(st.sampled_from(["x", "y", "z"]), max_size=4),
        "live": st.booleans(),
        "length": st.floats(0, 10),
        "created_at": st.integers(0, 10),
    },
)
STEPS = st.lists(st.dictionaries(st.integers(0, ITEMS - 1), RECORDS, max_size=ITEMS), max_size=8)


@given(STEPS)
def test_indexes_hold_what_was_set_last(steps: list[dict[int, dict[str, Any]]]) -> None:
    indexes, held = FieldIndexes(FIELDS), {}
    for records in steps:
        indexes.set(np.array(list(records), dtype=np.uint32), list(records.values()))
        held.update(records)
    for word in "ab":
        expected = [held.get(item, {}).get("category") == word for item in range(ITEMS)]
        assert as_mask(indexes.words["category"].bitmap(word), ITEMS).tolist() == expected
    for word in "xyz":
        expected = [word in held.get(item, {}).get("tags", []) for item in range(ITEMS)]
        assert as_mask(indexes.words["tags"].bitmap(word), ITEMS).tolist() == expected
    live = as_mask(indexes.words["live"].bitmap("true"), ITEMS).tolist()
    assert live == [held.get(item, {}).get("live") is True for item in range(ITEMS)]
    everything = np.arange(ITEMS, dtype=np.uint32)
    codes = indexes.words["category"].codes(everything).tolist()
    assert [code >= 0 for code in codes] == [
        bool(held.get(item, {}).get("category")) for item in range(ITEMS)
    ]
    lengths = indexes.numbers["length"].values(ITEMS)
    assert [None if np.isnan(value) else value for value in lengths.tolist()] == [
        held.get(item, {}).get("length") for item in range(ITEMS)
    ]
    assert "title" not in indexes.words

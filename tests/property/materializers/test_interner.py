"""Strings and their numbers equal a plain dictionary, with collisions of EntityIds and forgotten strings."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from materializers.interner import IdCollisionError, Interner

NAMES = [f"n{number}" for number in range(12)]
KEYS = [1, 2, 3, 1 | 1 << 63, 2 | 1 << 63, (1 << 63) - 1, (1 << 64) - 1]
STEPS = st.lists(
    st.one_of(
        st.lists(st.sampled_from(NAMES), min_size=1, max_size=6),
        st.sampled_from(NAMES),  # to be forgotten
    ),
    max_size=25,
)


class Plain:
    """The definition."""

    def __init__(self, keys: dict[str, int]) -> None:
        self.keys = keys
        self.wid_of: dict[str, int] = {}
        self.dealt = 1

    def refused(self, names: list[str]) -> list[tuple[str, str]]:
        holders = {self.keys[name]: name for name in self.wid_of}
        found = []
        for name in names:
            holder = holders.setdefault(self.keys[name], name)
            if holder != name:
                found.append((holder, name))
        return found

    def ids(self, names: list[str]) -> list[int]:
        """What comes before a refused one is dealt."""
        for name in names:
            if name not in self.wid_of:
                if self.refused([name]):
                    return []
                self.wid_of[name] = self.dealt
                self.dealt += 1
        return [self.wid_of[name] for name in names]


@given(keys=st.lists(st.sampled_from(KEYS) | st.integers(4, 60), min_size=12, max_size=12), steps=STEPS)
def test_equals_a_dictionary(keys: list[int], steps: list[list[str] | str]) -> None:
    key_of = dict(zip(NAMES, keys, strict=True))
    interner, plain = Interner(), Plain(key_of)
    with (
        patch("materializers.interner.entity_id", key_of.__getitem__),
        patch("materializers.interner._RECENT_MAX", 3),
    ):
        for step in steps:
            if isinstance(step, str):
                interner.forget(interner.find(step) or Interner.NONE)
                plain.wid_of.pop(step, None)
                continue
            refused = plain.refused(step)
            assert [(each.known, each.refused) for each in interner.collisions(step)] == refused
            expected = plain.ids(step)
            if refused:
                with pytest.raises(IdCollisionError):
                    interner.ids(step)
            else:
                assert interner.ids(step).tolist() == expected
            known = list(plain.wid_of)
            wids = np.array(plain.ids(known), dtype=np.uint32)
            assert [interner.find(name) for name in NAMES] == [plain.wid_of.get(name) for name in NAMES]
            assert interner.strings(wids) == known
            assert interner.entity_ids[wids].tolist() == [key_of[name] for name in known]


def test_many_ids_are_found_again_and_take_less_than_two_dictionaries() -> None:
    names = [f"user_{number}" for number in range(20_000)]
    interner = Interner()
    wids = np.concatenate([interner.ids(names[start : start + 700]) for start in range(0, 20_000, 700)])
    assert wids.tolist() == list(range(1, 20_001))
    assert interner.collisions(names) == []
    assert interner.ids(names[::-1]).tolist() == wids[::-1].tolist()

"""Keys sort as what they are made of, come back whole, and ids that collide are found."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from schemas import ids
from schemas.ids import NOBODY, entity_id, entity_ids, find_code_collisions
from schemas.keys import (
    entity_range,
    partition_key,
    row_key,
    row_keys,
    split_partition_key,
    split_row_key,
    suffix_of,
)

U64 = st.integers(0, 2**64 - 1)
TAG = st.integers(0, 255)
SUFFIX = st.binary(max_size=12)
KEY = st.tuples(U64, TAG, SUFFIX)
NAMES = st.text(max_size=20)


@given(KEY)
def test_a_row_key_comes_back_whole(parts: tuple[int, int, bytes]) -> None:
    assert split_row_key(row_key(*parts)) == parts


@given(KEY, KEY)
def test_row_keys_sort_as_entity_tag_suffix(one: tuple[int, int, bytes], two: tuple[int, int, bytes]) -> None:
    assert (row_key(*one) < row_key(*two)) == (one < two)


@given(KEY, KEY)
def test_the_range_of_an_entity_holds_its_rows_and_no_other(
    one: tuple[int, int, bytes], two: tuple[int, int, bytes]
) -> None:
    start, end = entity_range(one[0])
    assert start <= row_key(*one) < end
    assert (start <= row_key(*two) < end) == (one[0] == two[0])


@given(st.integers(0, 65_535), KEY)
def test_a_partition_key_comes_back_whole(partition: int, parts: tuple[int, int, bytes]) -> None:
    assert split_partition_key(partition_key(partition, row_key(*parts))) == (partition, row_key(*parts))


@given(st.lists(st.tuples(U64, st.integers(0, 2**32 - 1), st.integers(0, 65_535)), max_size=20), TAG)
def test_many_keys_at_once_are_the_keys_one_by_one(rows: list[tuple[int, int, int]], tag: int) -> None:
    entities = np.array([row[0] for row in rows], dtype=np.uint64)
    suffix = suffix_of(
        np.array([row[1] for row in rows], dtype=np.uint32),
        np.array([row[2] for row in rows], dtype=np.uint16),
    )
    expected = [
        row_key(entity, tag, code.to_bytes(4, "big") + chunk.to_bytes(2, "big"))
        for entity, code, chunk in rows
    ]
    assert row_keys(entities, tag, suffix) == expected
    assert row_keys(entities, tag) == [row_key(entity, tag) for entity, _, _ in rows]


@given(st.lists(NAMES, max_size=30))
def test_entity_ids_are_the_ids_one_by_one(names: list[str]) -> None:
    assert entity_ids(names).tolist() == [entity_id(name) for name in names]
    assert all((entity_id(name) == NOBODY) == (name == "") for name in names)


@given(st.lists(NAMES, max_size=30))
def test_equal_names_are_no_collision(names: list[str]) -> None:
    assert find_code_collisions(names) == []


@given(st.lists(st.text("abc", min_size=1, max_size=6), max_size=30))
def test_every_later_name_with_a_taken_code_is_found(names: list[str]) -> None:
    with patch.object(ids, "code_of", len):  # 32 bits do not collide in a test; the length of a name does
        pairs = find_code_collisions(names)
    owner: dict[int, str] = {}
    for name in names:
        owner.setdefault(len(name), name)
    assert pairs == [(owner[len(name)], name) for name in names if owner[len(name)] != name]

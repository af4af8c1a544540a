"""Every stored format: today's bytes are pinned by a fixture, and round trips hold for any content.

A changed format gets a new version, a new fixture beside the old one, and a decoder for both.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pyroaring import BitMap

from materializers.rows import (
    blocks,
    cells,
    co_engagement,
    distinct_users,
    edge_counts,
    entities,
    ordinals,
    preference,
    relationships,
    user_state,
)
from materializers.rows.errors import RowFormatError
from materializers.rows.packing import Packer, Unpacker

FIXTURE = Path(__file__).parents[2] / "fixtures" / "formats" / "rows-1.json"

U32 = np.uint32


def plain_block() -> blocks.BlockColumns:
    return blocks.BlockColumns(
        np.array([0, 7, 70_000], dtype=U32),
        np.array([9, 4_000_000_000, 9], dtype=U32),
        None,
        np.array([1, 1, 300]),
        np.array([1_000_000, 1_000_000, 300_000_000]),
    )


def weighted_block() -> blocks.BlockColumns:
    return blocks.BlockColumns(
        np.array([3, 3], dtype=U32),
        np.array([1, 2], dtype=U32),
        np.array([0, 512], dtype=U32),
        np.array([1, 2]),
        np.array([-5, 2**60]),
    )


def long_block() -> blocks.BlockColumns:
    """More cells than the layout of rows takes, some of them of a signal that decays linearly."""
    n = blocks.ROWS_LAYOUT_MAX + 2
    return blocks.BlockColumns(
        np.arange(n, dtype=U32) * 3,
        np.resize(np.array([9, 4_000_000_000], dtype=U32), n),
        np.resize(np.array([0, 512], dtype=U32), n),
        np.ones(n, dtype=np.int64),
        np.arange(n) * 1_000,
        np.where(np.arange(n) % 2 == 0, np.arange(n) * 0.5, 0.0),
    )


def deltas() -> blocks.BlockDeltas:
    return blocks.BlockDeltas(
        np.array([0, 1], dtype=np.uint8), np.array([29_393_333, 29_393_280], dtype=U32), weighted_block()
    )


def changes() -> cells.CellChanges:
    values = cells.Cells(
        np.array([1_763_600_000_000, 5]),
        np.array([1, 12]),
        np.array([1_000_000, -7]),
        np.array([[0.5, 0.25], [1e-300, 3.0]]),
    )
    return cells.CellChanges(np.array([4, 0], dtype=U32), np.array([99, 99], dtype=U32), values)


def cell_row_bytes() -> bytes:
    columns = {
        "accumulators": np.array([2]),
        "ref_ms": np.array([1_763_600_000_000]),
        "count": np.array([3]),
        "sum": np.array([-2_500_000]),
        "acc": np.array([[1.5, -0.25]]),
    }
    return cells.cell_row(2).encode(columns)[0]


def preference_bytes() -> bytes:
    columns = {
        "dim": np.array([2]),
        "updates": np.array([7]),
        "long": np.array([[0.6, 0.8]]),
        "short": np.array([[1.0, 0.0]]),
    }
    return preference.preference_row(2).encode(columns)[0]


def relationship_bytes() -> bytes:
    columns = {"updated_ms": np.array([1_763_600_000_000]), "weight": np.array([0.375])}
    return relationships.ROW.encode(columns, ["créateur".encode()])[0]


def visits() -> distinct_users.Entries:
    """Two visits of one day and the threshold of their cell."""
    return distinct_users.Entries(
        day=np.full(3, 20_411, dtype=U32),
        item=np.array([70_000, 70_001, 70_001], dtype=U32),
        signal=np.array([9, 4_000_000_000, 4_000_000_000], dtype=U32),
        user=np.array([0x0102030405060708, 2**63, 2**64 - 2**20], dtype=np.uint64),
        profile=np.array([0, 300, 0], dtype=U32),
        hour=np.array([0, 23, distinct_users.THRESHOLD_HOUR], dtype=np.uint8),
        first=np.array([0, 5, 0], dtype=np.uint8),
        last=np.array([0, 59, 0], dtype=np.uint8),
    )


USERS_ALIKE = np.array([1, 0x0102030405060708, 2**64 - 1], dtype=np.uint64)
DAY_RUNS = distinct_users.DayRuns(7, (1, 6), (131_072, 40))
STORED_ENTITY = entities.StoredEntity("item_é", "archived", 41, 1_763_600_000_000, b'{"title": "x"}')
STORED_EDGE = entities.StoredEdge("user_U", "creator_ü", 0.75, 1_763_600_000_000, 12)
ENTITY_CHANGES = [
    entities.EntityChange("item", "a", 1, 2, b"{}"),
    entities.EntityChange("user", "ü", 3, 4, None),
]

TODAY: dict[str, Callable[[], bytes]] = {
    "block_plain": lambda: blocks.encode_block(plain_block()),
    "block_weighted_with_profiles": lambda: blocks.encode_block(weighted_block()),
    "block_columns_with_moments": lambda: blocks.encode_block(long_block()),
    "block_key": lambda: blocks.block_key(blocks.Resolution.HOUR, 29_393_280, 3),
    "block_deltas": lambda: blocks.encode_deltas(deltas()),
    "cell": cell_row_bytes,
    "cell_key": lambda: cells.cell_key(0x0102030405060708, 77),
    "cell_changes": lambda: cells.encode_changes(changes()),
    "ordinal": lambda: ordinals.encode_ordinals(["item_é"])[0],
    "ordinal_key": lambda: ordinals.ordinal_keys(258, 1)[0],
    "new_ordinals": lambda: ordinals.encode_new_ordinals(5, ["a", "", "é"]),
    "preference": preference_bytes,
    "preference_key": lambda: preference.preference_key(1, "content"),
    "relationship": relationship_bytes,
    "relationship_key": lambda: relationships.relationship_key(1, 2, 3),
    "state_container": lambda: user_state.encode_container(BitMap([1, 5, 65_535])),
    "state_key": lambda: user_state.state_key(1, 2, 3),
    "entity": lambda: entities.encode_entity(STORED_ENTITY),
    "edge": lambda: entities.encode_edge(STORED_EDGE),
    "edge_count": lambda: edge_counts.encode_edge_count(70_000),
    "edge_count_key": lambda: edge_counts.edge_count_key("creator_ü", "follows", outgoing=False),
    "co_engagement": lambda: co_engagement.encode_users(USERS_ALIKE),
    "co_engagement_key": lambda: co_engagement.co_engagement_key(1, 2),
    "relationship_to_item": lambda: relationship_bytes()[: relationships.ROW.width],
    "distinct_users_block": lambda: distinct_users.encode_block(visits()),
    "distinct_users_block_key": lambda: distinct_users.block_key(20_411, 3, 70_001, 1),
    "distinct_users_runs": lambda: distinct_users.encode_runs(DAY_RUNS),
    "distinct_users_day_key": lambda: distinct_users.day_key(20_411),
    "entity_changes": lambda: entities.encode_entity_changes(ENTITY_CHANGES),
}


def fixture() -> dict[str, bytes]:
    return {name: bytes.fromhex(text) for name, text in json.loads(FIXTURE.read_text()).items()}


def assert_same_block(left: blocks.BlockColumns, right: blocks.BlockColumns) -> None:
    assert left.item.tolist() == right.item.tolist()
    assert left.signal.tolist() == right.signal.tolist()
    assert (left.profile is None) == (right.profile is None)
    if left.profile is not None and right.profile is not None:
        assert left.profile.tolist() == right.profile.tolist()
    assert left.count.tolist() == right.count.tolist()
    assert left.sum.tolist() == right.sum.tolist()
    assert (left.moment is None) == (right.moment is None)
    if left.moment is not None and right.moment is not None:
        assert left.moment.tolist() == right.moment.tolist()


@pytest.mark.parametrize("name", TODAY)
def test_the_bytes_are_those_of_the_fixture(name: str) -> None:
    assert TODAY[name]() == fixture()[name]


def test_the_fixture_is_read() -> None:
    stored = fixture()
    assert set(stored) == set(TODAY)
    assert_same_block(blocks.decode_block(stored["block_plain"]), plain_block())
    assert_same_block(blocks.decode_block(stored["block_weighted_with_profiles"]), weighted_block())
    assert_same_block(blocks.decode_block(stored["block_columns_with_moments"]), long_block())
    read = blocks.decode_deltas(stored["block_deltas"])
    assert_same_block(read.cells, weighted_block())
    assert (read.resolution.tolist(), read.bucket.tolist()) == ([0, 1], [29_393_333, 29_393_280])
    assert blocks.split_block_key(stored["block_key"]) == (blocks.Resolution.HOUR, 29_393_280, 3)
    cell = cells.decode_cells([stored["cell"]] * 2)
    assert (cell.count.tolist(), cell.sum.tolist()) == ([3, 3], [-2_500_000] * 2)
    assert cell.acc.tolist() == [[1.5, -0.25]] * 2
    fed = cells.decode_changes(stored["cell_changes"])
    assert fed.item.tolist() == [4, 0]
    assert fed.signal.tolist() == [99, 99]
    assert fed.cells.acc.tolist() == changes().cells.acc.tolist()
    assert fed.cells.ref_ms.tolist() == [1_763_600_000_000, 5]
    assert ordinals.decode_ordinal(stored["ordinal"]) == "item_é"
    assert ordinals.decode_ordinal_key(stored["ordinal_key"]) == 258
    assert ordinals.decode_new_ordinals(stored["new_ordinals"]) == (5, ["a", "", "é"])
    vectors = preference.decode_preference(stored["preference"])
    assert (vectors.updates, vectors.short.tolist()) == (7, [1.0, 0.0])
    assert vectors.long.tolist() == pytest.approx([0.6, 0.8])
    edge = relationships.decode_relationship(stored["relationship"])
    assert edge == (0.375, 1_763_600_000_000, "créateur")
    assert relationships.decode_relationship(stored["relationship_to_item"]) == edge._replace(target="")
    assert relationships.split_relationship_key(stored["relationship_key"]) == (1, 2, 3)
    assert edge_counts.decode_edge_count(stored["edge_count"]) == 70_000
    assert co_engagement.decode_users(stored["co_engagement"]).tolist() == USERS_ALIKE.tolist()
    assert co_engagement.split_co_engagement_key(stored["co_engagement_key"]) == (1, 2)
    assert user_state.decode_container(stored["state_container"]) == BitMap([1, 5, 65_535])
    assert user_state.split_state_key(stored["state_key"]) == (1, 2, 3)
    read_visits = distinct_users.decode_block(stored["distinct_users_block"], 20_411)
    for column in ("day", "item", "signal", "user", "profile", "hour", "first", "last"):
        assert getattr(read_visits, column).tolist() == getattr(visits(), column).tolist()
    key = stored["distinct_users_block_key"]
    assert distinct_users.split_block_key(key) == (20_411, 3, 70_001)
    assert distinct_users.decode_runs(stored["distinct_users_runs"]) == DAY_RUNS
    assert distinct_users.day_of(stored["distinct_users_day_key"]) == 20_411
    assert entities.decode_entity_row(stored["entity"]) == STORED_ENTITY
    assert entities.decode_edge(stored["edge"]) == STORED_EDGE
    assert entities.decode_entity_changes(stored["entity_changes"]) == ENTITY_CHANGES


DECODERS: dict[str, Callable[[bytes], Any]] = {
    "block_plain": blocks.decode_block,
    "block_weighted_with_profiles": blocks.decode_block,
    "block_columns_with_moments": blocks.decode_block,
    "block_deltas": blocks.decode_deltas,
    "block_key": blocks.split_block_key,
    "cell": lambda value: cells.decode_cells([value]),
    "cell_changes": cells.decode_changes,
    "new_ordinals": ordinals.decode_new_ordinals,
    "preference": preference.decode_preference,
    "state_container": user_state.decode_container,
    "edge_count": edge_counts.decode_edge_count,
    "co_engagement": co_engagement.decode_users,
    "distinct_users_block": lambda value: distinct_users.decode_block(value, 20_411),
    "distinct_users_block_key": distinct_users.split_block_key,
    "distinct_users_runs": distinct_users.decode_runs,
    "entity_changes": entities.decode_entity_changes,
    "edge": entities.decode_edge,
}


@pytest.mark.parametrize("name", DECODERS)
def test_a_cut_row_is_refused(name: str) -> None:
    whole = TODAY[name]()
    for end in range(len(whole)):
        with pytest.raises(RowFormatError):
            DECODERS[name](whole[:end])


@pytest.mark.parametrize("name", [name for name in TODAY if not name.endswith("key")])
def test_another_version_is_refused(name: str) -> None:
    everything = DECODERS | {
        "ordinal": ordinals.decode_ordinal,
        "relationship": relationships.decode_relationship,
        "relationship_to_item": relationships.decode_relationship,
        "entity": entities.decode_entity_row,
    }
    with pytest.raises(RowFormatError, match="version 200"):
        everything[name](b"\xc8" + TODAY[name]()[1:])


def test_bytes_too_many_are_refused() -> None:
    with pytest.raises(RowFormatError, match="too many"):
        blocks.decode_block(TODAY["block_columns_with_moments"]() + b"\0")
    with pytest.raises(RowFormatError, match="3 rows take"):
        blocks.decode_block(TODAY["block_plain"]() + b"\0")


def test_a_lying_count_allocates_nothing() -> None:
    with pytest.raises(RowFormatError, match="claims"):
        blocks.decode_block(b"\x02\xff\xff\xff\xff" + b"\0" * 20)
    with pytest.raises(RowFormatError, match="rows take"):
        blocks.decode_block(b"\x02\xff\xff\xff\xff\x08" + b"\0" * 20)


block_rows = st.lists(
    st.tuples(
        st.integers(0, 2**32 - 1),
        st.sampled_from([1, 9, 4_000_000_000]),
        st.integers(0, 900),
        st.integers(1, 2**32 - 1),
        st.integers(-(2**62), 2**62),
        st.sampled_from([0.0, 0.5, -1e17]),
    ),
    max_size=60,
)


@given(block_rows, st.booleans(), st.lists(st.integers(0, 60), max_size=5))
def test_blocks_of_any_cells_come_back_whole_and_cut_into_few(
    rows: list[tuple[int, int, int, int, int, float]], profiled: bool, cuts: list[int]
) -> None:
    columns = np.array([row[:5] for row in rows], dtype=np.int64).reshape(-1, 5)
    block = blocks.BlockColumns(
        columns[:, 0].astype(U32),
        columns[:, 1].astype(U32),
        columns[:, 2].astype(U32) if profiled else None,
        columns[:, 3],
        columns[:, 4],
        np.array([row[5] for row in rows], dtype=np.float64),
    )
    moments = [row[5] for row in rows]
    edges = sorted({0, len(rows), *(min(cut, len(rows)) for cut in cuts)})
    pieces = [blocks.decode_block(value) for value in blocks.encode_few(block, edges)]
    whole = blocks.decode_block(blocks.encode_block(block))
    assert (whole.moment is None) == (not any(moments))
    for parts in ([whole], pieces):
        timed = [part.moment for part in parts if part.moment is not None]
        assert [value for column in timed for value in column.tolist()] == (moments if any(moments) else [])
        assert [n for part in parts for n in part.item.tolist()] == block.item.tolist()
        assert [n for part in parts for n in part.count.tolist()] == block.count.tolist()
        assert [n for part in parts for n in part.sum.tolist()] == block.sum.tolist()
        assert all((part.profile is not None) is profiled for part in parts)
    values = [*blocks.encode_few(block, edges), blocks.encode_block(block)]
    for positions, together in blocks.decode_many(values):
        alone = [blocks.decode_block(values[position]) for position in positions]
        assert together.sum.tolist() == [n for part in alone for n in part.sum.tolist()]
        assert len(together) == sum(blocks.block_rows(values[position]) for position in positions)


@given(
    st.lists(block_rows.filter(len), min_size=1, max_size=6),
    st.integers(0, 2**40),
    st.booleans(),
    st.booleans(),
)
def test_blocks_encoded_together_are_the_blocks_encoded_alone(
    runs: list[list[tuple[int, int, int, int, int, float]]], more: int, profiled: bool, unit: bool
) -> None:
    rows = [row for run in runs for row in run]
    columns = np.array([row[:5] for row in rows], dtype=np.int64).reshape(-1, 5)
    count = columns[:, 3] + more
    cells = blocks.BlockColumns(
        columns[:, 0].astype(U32),
        columns[:, 1].astype(U32),
        columns[:, 2].astype(U32) if profiled else None,
        count,
        count * 1_000_000 if unit else columns[:, 4],
        np.array([row[5] for row in rows], dtype=np.float64),
    )
    edges = [0, *np.cumsum([len(run) for run in runs]).tolist()]
    together = blocks.encode_many(cells, edges)
    alone = [blocks.encode_block(cells.take(np.arange(start, end))) for start, end in pairwise(edges)]
    assert len(together) == len(alone)
    for one, other in zip(together, alone, strict=True):
        if blocks.block_rows(other) > blocks.ROWS_LAYOUT_MAX:
            assert one == other
        found, expected = blocks.decode_block(one), blocks.decode_block(other)
        for name in ("item", "signal", "count", "sum"):
            assert getattr(found, name).tolist() == getattr(expected, name).tolist()


def test_a_count_beyond_32_bits_is_written_as_columns() -> None:
    block = blocks.BlockColumns(
        np.array([1], dtype=U32), np.array([2], dtype=U32), None, np.array([2**40]), np.array([5])
    )
    assert_same_block(blocks.decode_block(blocks.encode_block(block)), block)
    with pytest.raises(ValueError, match="32 bits"):
        blocks.encode_few(block, [0, 1])


int64s = hnp.arrays(np.int64, st.integers(0, 40), elements=st.integers(-(2**63), 2**63 - 1))
small = hnp.arrays(np.int64, st.integers(1, 40), elements=st.sampled_from([0, 1, 255, 256, -1, -128, -129]))


@given(st.one_of(int64s, small))
def test_integers_of_any_width_come_back(column: np.ndarray) -> None:
    payload = Packer(1, len(column)).ints(column).list_of_ints(column[:3]).done()
    reader = Unpacker("test", payload, 1)
    assert reader.ints().tolist() == column.tolist()
    assert reader.list_of_ints().tolist() == column[:3].tolist()
    reader.end()


@given(st.lists(st.tuples(st.text(), st.binary(max_size=40), st.floats(allow_nan=False))))
def test_strings_blobs_and_floats_come_back(rows: list[tuple[str, bytes, float]]) -> None:
    texts, blobs_in, floats = ([row[at] for row in rows] for at in range(3))
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    packer = Packer(2, len(rows)).strings(texts).blobs(blobs_in).floats(np.array(floats, dtype=np.float64))
    reader = Unpacker("test", packer.scalar(-9).flags(3).done(), 2)
    assert (reader.strings(), reader.blobs(), reader.floats().tolist()) == (texts, blobs_in, floats)
    assert (reader.scalar(), reader.flags()) == (-9, 3)
    reader.end()


def test_narrow_columns_make_small_blocks() -> None:
    n = 1000
    block = blocks.BlockColumns(
        np.arange(n, dtype=U32) + 100_000,
        np.resize(np.array([4_000_000_000, 3_000_000_000], dtype=U32), n),
        np.resize(np.arange(200, dtype=U32), n),
        np.ones(n, dtype=np.int64),
        np.full(n, 1_000_000),
    )
    assert len(blocks.encode_block(block)) < 7 * n


def test_a_user_state_is_the_union_of_its_rows() -> None:
    rows = [user_state.encode_container(BitMap([1, 2])), user_state.encode_container(BitMap([70_000]))]
    assert user_state.decode_state(rows) == BitMap([1, 2, 70_000])
    assert user_state.decode_state([]) == BitMap()


def test_ranges_hold_the_rows_of_one_name_only() -> None:
    start, end = user_state.state_range(5, 9)
    assert start <= user_state.state_key(5, 9, 0) < end
    assert start <= user_state.state_key(5, 9, 0xFFFF) < end
    assert not start <= user_state.state_key(5, 10, 0) < end
    assert not start <= user_state.state_key(6, 9, 0) < end
    start, end = relationships.relationship_range(5, 9)
    assert start <= relationships.relationship_key(5, 9, 2**64 - 1) < end
    assert not start <= relationships.relationship_key(5, 10, 0) < end
    start, end = relationships.relationship_range(5)
    assert start <= relationships.relationship_key(5, 0, 0) < end
    assert start <= relationships.relationship_key(5, 2**32 - 1, 2**64 - 1) < end
    start, end = blocks.block_range(1, 60, 120)
    assert start <= blocks.block_key(1, 60, 0) < blocks.block_key(1, 60, 2**32 - 1) < end
    assert not start <= blocks.block_key(1, 120, 0) < end
    out, into = entities.edge_keys_of("follows", "a", "b")
    assert entities.edge_range("a", "follows", outgoing=True)[0] <= out
    assert out < entities.edge_range("a", "follows", outgoing=True)[1]
    assert entities.edge_range("b", "follows", outgoing=False)[0] <= into
    assert into < entities.edge_range("b", "follows", outgoing=False)[1]
